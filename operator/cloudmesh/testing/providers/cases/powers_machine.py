"""Cases of the powers that act on one machine."""

from __future__ import annotations

from typing import Any

from cloudmesh.compute.tokens import PREFIX, TAG_TOKEN, TAG_UID
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, NotFound
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused

NOT_THERE = (NotFound, Conflict, InvalidRequest)


def power(bench: Bench) -> Any:
    """The provider, with the powers that the runner has made sure of."""
    return bench.provider


@case("start-stop/round-trip", "A machine that is stopped stops, and runs again after a start.", power="StartStop")
async def round_trip(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    await power(bench).start_node(node.id)
    again = await bench.in_state(spec, "Running")
    need(again.id == node.id, "it is another machine")


@case(
    "start-stop/boot-id",
    "A machine that was stopped and started has another boot id, if it has any.",
    power="StartStop",
)
async def start_boot_id(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    await power(bench).start_node(node.id)
    again = await bench.in_state(spec, "Running")
    need(not node.boot_id or again.boot_id != node.boot_id, "its boot id is the same")


@case("start-stop/twice", "A second stop or start is fine.", power="StartStop")
async def stop_twice(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).start_node(node.id)
    for _ in range(2):
        await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    await power(bench).stop_node(node.id)
    for _ in range(2):
        await power(bench).start_node(node.id)
    await bench.in_state(spec, "Running")


@case("start-stop/no-second", "A create with the token of a stopped machine makes no second one.", power="StartStop")
async def no_second(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    need((await bench.provider.ensure_node(spec)).id == node.id, "another machine was returned")
    await bench.one(spec.token)


@case(
    "start-stop/lost-answer",
    "A stop whose answer is lost has one effect when it is asked again.",
    power="StartStop",
    needs=["lose"],
)
async def stop_lost(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("lose")
    try:
        await power(bench).stop_node(node.id)
    except CloudmeshError:
        await bench.harness.heal()
        await power(bench).stop_node(node.id)
    await bench.harness.heal()
    await bench.in_state(spec, "Stopped")


@case(
    "start-stop/unknown", "A stop of a machine that isn't there fails with an error of the taxonomy.", power="StartStop"
)
async def stop_unknown(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    await refused(NOT_THERE, power(bench).stop_node(node.id), "a machine that isn't there")


@case(
    "start-stop/not-billed",
    "A machine that is stopped isn't billed as one that runs.",
    power="StartStop",
)
async def not_billed(bench: Bench) -> None:
    spec, node = await bench.running()
    before = await bench.harness.billed()
    await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    need(await bench.harness.billed() < before, "it costs as much as before")


@case("reboot/boot-id", "A machine that was rebooted runs again, with another boot id if it has any.", power="Reboot")
async def reboot(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).reboot_node(node.id)

    async def ready() -> bool:
        found = await bench.provider.find_node(spec)
        return (
            found is not None
            and found.state == "Running"
            and (not node.boot_id or found.boot_id not in ("", node.boot_id))
        )

    await bench.until("it runs anew", ready)
    await bench.one(spec.token)


@case("reboot/unknown", "A reboot of a machine that isn't there fails with an error of the taxonomy.", power="Reboot")
async def reboot_unknown(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    await refused(NOT_THERE, power(bench).reboot_node(node.id), "a machine that isn't there")


@case("suspend/round-trip", "A machine that is suspended sleeps, and runs on with the same boot id.", power="Suspend")
async def suspend(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).suspend_node(node.id)
    await bench.in_state(spec, "Suspended")
    await power(bench).resume_node(node.id)
    again = await bench.in_state(spec, "Running")
    need(again.boot_id == node.boot_id, "it has lost its memory")


@case("suspend/twice", "A second suspend or resume is fine.", power="Suspend")
async def suspend_twice(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).suspend_node(node.id)
    await bench.in_state(spec, "Suspended")
    await power(bench).suspend_node(node.id)
    await power(bench).resume_node(node.id)
    await bench.in_state(spec, "Running")
    await power(bench).resume_node(node.id)


@case(
    "resize/round-trip",
    "A stopped machine that gets another type has it, and runs with it.",
    power="Resize",
)
async def resize(bench: Bench) -> None:
    spec, node = await bench.running()
    others = [
        offer.type for offer in await bench.offers() if offer.type != spec.offer.type and offer.arch == spec.offer.arch
    ]
    need(others, "there is no other type of the architecture")
    await power(bench).stop_node(node.id)
    await bench.in_state(spec, "Stopped")
    await power(bench).resize_node(node.id, others[0])
    await power(bench).start_node(node.id)
    again = await bench.in_state(spec, "Running")
    need(again.id == node.id and again.type == others[0], f"it is {again.id} of type {again.type}")


@case(
    "resize/unknown-type", "Another type that doesn't exist is InvalidRequest, and the machine stays.", power="Resize"
)
async def resize_unknown(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).stop_node(node.id)
    stopped = await bench.in_state(spec, "Stopped")
    await refused(InvalidRequest, power(bench).resize_node(node.id, "no-such-type.9x"), "an unknown type")
    found = await bench.provider.find_node(spec)
    need(found is not None and found.type == stopped.type, "its type has changed")


@case("rename/found", "A machine that is renamed is the same machine, found by the same token.", power="Rename")
async def rename(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).rename_node(node.id, "suite-renamed")
    need((await bench.one(spec.token)).name == "suite-renamed", "the back end has another name")
    found = await bench.provider.find_node(spec)
    need(found is not None and found.id == node.id, "it isn't found any more")
    need((await bench.provider.ensure_node(spec)).id == node.id, "a create returns another machine")


@case("console/text", "The console of a machine that runs can be read as text.", power="Console")
async def console(bench: Bench) -> None:
    _, node = await bench.running()
    need(isinstance(await power(bench).console_output(node.id), str), "it isn't text")


@case(
    "console/unknown", "The console of a machine that isn't there fails with an error of the taxonomy.", power="Console"
)
async def console_unknown(bench: Bench) -> None:
    await refused(NOT_THERE, power(bench).console_output("no-such-machine"), "a machine that isn't there")


@case("metadata/round-trip", "Tags of a user's own are set, replaced and removed; ours stay.", power="Metadata")
async def metadata(bench: Bench) -> None:
    spec, node = await bench.running()
    await power(bench).set_metadata(node.id, {"team": "blue", "stage": "test"})
    await power(bench).set_metadata(node.id, {"team": "red"})
    await power(bench).delete_metadata(node.id, ["stage", "never-there"])
    found = await bench.provider.find_node(spec)
    need(found is not None, "the machine isn't found any more")
    theirs = {key: value for key, value in found.tags.items() if key in ("team", "stage")} if found else {}
    need(theirs == {"team": "red"}, f"its tags are {theirs}")
    need(found is not None and found.token == spec.token and bench.scope.holds(found.tags), "our tags have changed")


@case("metadata/ours", "A user's tags can't touch those by which a machine is found again.", power="Metadata")
async def metadata_ours(bench: Bench) -> None:
    spec, node = await bench.running()
    for call in (
        power(bench).set_metadata(node.id, {TAG_TOKEN: "cm-other"}),
        power(bench).delete_metadata(node.id, [TAG_UID]),
    ):
        await refused(InvalidRequest, call, "one of our tags")
    found = await bench.provider.find_node(spec)
    need(found is not None and found.tags.get(TAG_UID) == spec.uid, "our tags have changed")


@case(
    "adopt/round-trip",
    "A stranger's machine that is adopted is listed as ours, and no more after its release.",
    power="Adopt",
)
async def adopt(bench: Bench) -> None:
    theirs = await bench.harness.stranger(tags={"colour": "green"})
    spec = await bench.spec()
    node = await power(bench).adopt_node(theirs, spec.tags)
    need(node.id == theirs and node.token == spec.token, f"adopted was {node.id} with token {node.token!r}")
    await bench.listed_tokens(spec.token)
    listed = (await bench.listed())[0]
    need(listed.tags.get("colour") == "green", "its own tags are gone")
    await power(bench).release_node(theirs)
    await bench.listed_tokens()
    need(theirs in [seen.id for seen in await bench.harness.machines() if not seen.ended], "the release ended it")


@case(
    "adopt/twice",
    "A machine that is ours already can be adopted again with the same tags.",
    power="Adopt",
)
async def adopt_twice(bench: Bench) -> None:
    theirs, spec = await bench.harness.stranger(), await bench.spec()
    await power(bench).adopt_node(theirs, spec.tags)
    need((await power(bench).adopt_node(theirs, spec.tags)).id == theirs, "another machine was returned")


@case(
    "adopt/owned",
    "A machine that carries another owner's tags is a Conflict, and keeps them.",
    power="Adopt",
)
async def adopt_owned(bench: Bench) -> None:
    spec = await bench.spec()
    tags = {**spec.tags, PREFIX + "installation": "another"}
    theirs = await bench.harness.stranger(tags=tags)
    await refused(Conflict, power(bench).adopt_node(theirs, spec.tags), "another owner's machine")
    need(theirs not in [node.id for node in await bench.listed()], "it was taken all the same")


@case("adopt/unknown", "A machine that isn't there can't be adopted: InvalidRequest.", power="Adopt")
async def adopt_unknown(bench: Bench) -> None:
    await refused(
        InvalidRequest, power(bench).adopt_node("no-such-machine", (await bench.spec()).tags), "no such machine"
    )


@case("adopt/release-unknown", "The release of a machine that is gone is fine.", power="Adopt")
async def release_unknown(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    try:
        await power(bench).release_node(node.id)
    except CloudmeshError as error:
        raise CaseFailed(f"it failed: {error}") from error
