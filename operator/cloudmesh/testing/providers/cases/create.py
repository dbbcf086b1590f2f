"""Cases of creating: one token is one machine, whatever happens to the call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import replace

from cloudmesh.compute.ports import Node
from cloudmesh.compute.tokens import TAG_TOKEN, make_token
from cloudmesh.engine.errors import Conflict, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused


async def unknown_outcome(call: Awaitable[Node]) -> Node | None:
    """The node of a create whose answer was disturbed: it may have been looked up, else it is Transient."""
    try:
        return await call
    except Transient:
        return None


async def settle_one(bench: Bench, token: str, call: Awaitable[Node]) -> None:
    """Asks again for a token whose outcome is unknown; it must end in one machine, and that must be returned."""
    node = await call
    seen = await bench.one(token)
    need(node.id == seen.id and node.token == token, f"{node.id} was returned, the back end has {seen.id}")


@case("create/one", "A create makes one machine of the offer that was asked for.")
async def one(bench: Bench) -> None:
    spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    need(node.token == spec.token, f"its token is {node.token!r}")
    need((node.type, node.purchase) == (spec.offer.type, spec.offer.purchase), f"it is {node.type} {node.purchase}")
    need(node.region == spec.offer.region, f"it is in region {node.region!r}")
    need(not spec.offer.zone or node.zone == spec.offer.zone, f"it is in zone {node.zone!r}")
    need((await bench.one(spec.token)).id == node.id, "its id is not the back end's")


@case("create/tags", "All tags of the spec are on the machine, mapped back as they were.")
async def tags(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    node = await bench.in_state(spec, "Pending", "Running")
    missing = {key: value for key, value in spec.tags.items() if node.tags.get(key) != value}
    need(not missing, f"tags are missing or changed: {missing}")


@case("create/same-token", "A second create with the same token gives the same machine.")
async def same_token(bench: Bench) -> None:
    spec = await bench.spec()
    first = await bench.provider.ensure_node(spec)
    second = await bench.provider.ensure_node(spec)
    need(first.id == second.id, f"{first.id} and then {second.id}")
    await bench.one(spec.token)


@case("create/running-token", "A create with the token of a machine that runs gives that machine.")
async def running_token(bench: Bench) -> None:
    spec, node = await bench.running()
    need((await bench.provider.ensure_node(spec)).id == node.id, "another machine was returned")
    await bench.one(spec.token)


@case("create/concurrent", "Eight creates of one token at the same moment make one machine.")
async def concurrent(bench: Bench) -> None:
    spec = await bench.spec()
    answers = await asyncio.gather(*(bench.provider.ensure_node(spec) for _ in range(8)), return_exceptions=True)
    seen = await bench.one(spec.token)
    for answer in answers:
        if isinstance(answer, Node):
            need(answer.id == seen.id, f"{answer.id} was returned, the back end has {seen.id}")
        else:  # losing a race is no failure if a second try succeeds
            need(isinstance(answer, Conflict | Transient), f"a racing create: {answer!r}")
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case(
    "create/two-processes",
    "Two processes that create one token at the same moment make one machine.",
    native_tokens=True,
)
async def two_processes(bench: Bench) -> None:
    spec, other = await bench.spec(), await bench.harness.provider()
    answers = await asyncio.gather(
        *(each.ensure_node(spec) for each in (bench.provider, other) * 2), return_exceptions=True
    )
    seen = await bench.one(spec.token)
    for answer in answers:
        if not isinstance(answer, Node):
            need(isinstance(answer, Conflict | Transient), f"a racing create: {answer!r}")
        else:
            need(answer.id == seen.id, f"{answer.id} was returned, the back end has {seen.id}")


@case("create/next-process", "Another process that creates the same token later gets the same machine.")
async def next_process(bench: Bench) -> None:
    spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    await bench.provider.close()
    other = await bench.harness.provider()
    need((await other.ensure_node(spec)).id == node.id, "the next process got another machine")
    await bench.one(spec.token)


@case(
    "create/lost-answer",
    "A create whose answer is lost is an unknown outcome; asked again, it is one machine.",
    needs=["lose"],
)
async def lost_answer(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("lose", "create")
    await unknown_outcome(bench.provider.ensure_node(spec))
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/lost-then-found", "A machine whose create answer was lost is found by its token.", needs=["lose"])
async def lost_then_found(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("lose", "create")
    await unknown_outcome(bench.provider.ensure_node(spec))
    node = await bench.provider.find_node(spec)
    need(node is not None and node.token == spec.token, "the machine that was made isn't found")
    await bench.one(spec.token)


@case("create/lost-twice", "Two lost answers in a row make one machine all the same.", needs=["lose"])
async def lost_twice(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("lose", "create", times=2)
    for _ in range(2):
        await unknown_outcome(bench.provider.ensure_node(spec))
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/lost-then-next-process", "The process that comes after a lost answer finds the machine.", needs=["lose"])
async def lost_then_next_process(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("lose", "create")
    await unknown_outcome(bench.provider.ensure_node(spec))
    await bench.provider.close()
    other = await bench.harness.provider()
    await settle_one(bench, spec.token, other.ensure_node(spec))


@case(
    "create/lost-tags",
    "A machine whose create answer was lost carries all owner tags: they were in the call.",
    needs=["lose"],
)
async def lost_tags(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("lose", "create")
    await unknown_outcome(bench.provider.ensure_node(spec))
    await bench.listed_tokens(spec.token)
    node = (await bench.listed())[0]
    need(all(node.tags.get(key) == value for key, value in spec.tags.items()), f"its tags are {dict(node.tags)}")


@case("create/dropped", "A create that never arrived is Transient, and the next one makes the machine.", needs=["drop"])
async def dropped(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("drop", "create", times=None)
    await refused(Transient, bench.provider.ensure_node(spec), "a connection that breaks")
    await bench.harness.heal()
    await bench.none(spec.token)
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/fails", "An answer of the 500s to a create is an unknown outcome: Transient.", needs=["fail"])
async def fails(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("fail", "create", times=None)
    await refused(Transient, bench.provider.ensure_node(spec), "an answer of the 500s")
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case(
    "create/fails-but-made",
    "A create that answers with an error and makes the machine all the same stays one.",
    needs=["fail-after"],
)
async def fails_but_made(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("fail-after", "create", times=3)
    for _ in range(3):
        await unknown_outcome(bench.provider.ensure_node(spec))
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/no-retries", "No client library repeats a failed create by itself.", needs=["fail"])
async def no_retries(bench: Bench) -> None:
    spec = await bench.spec()
    before = await bench.harness.requests("create")
    await bench.inject("fail", "create", times=None)
    await refused(Transient, bench.provider.ensure_node(spec), "an answer of the 500s")
    sent = await bench.harness.requests("create") - before
    need(sent == 1, f"{sent} create calls for one try")


@case("create/hangs", "A create that is never answered ends as Transient within the declared time.", needs=["hang"])
async def hangs(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("hang", "create", times=None)
    limit = bench.provider.info.create_seconds + 5
    try:
        async with asyncio.timeout(limit):
            await refused(Transient, bench.provider.ensure_node(spec), "a create that hangs")
    except TimeoutError:
        raise CaseFailed(f"it still hangs after {limit} s") from None
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/slow", "A create that takes half of the declared time succeeds.", needs=["delay"])
async def slow(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("delay", "create", seconds=bench.provider.info.create_seconds / 2)
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case(
    "create/too-slow",
    "A create that outlasts the time limit is an unknown outcome, and one machine in the end.",
    needs=["delay"],
)
async def too_slow(bench: Bench) -> None:
    spec = await bench.spec()
    seconds = bench.provider.info.create_seconds
    await bench.inject("delay", "create", seconds=seconds + 4)
    await refused(Transient, bench.provider.ensure_node(spec), "an answer after the limit")
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case(
    "create/delivered-twice",
    "A create that the network delivers twice makes one machine.",
    needs=["twice"],
    native_tokens=True,
)
async def delivered_twice(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("twice", "create")
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/cancelled", "A create that is cancelled in mid-call and asked again makes one machine.", needs=["delay"])
async def cancelled(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("delay", "create", seconds=bench.provider.info.create_seconds / 2)
    task = asyncio.ensure_future(bench.provider.ensure_node(spec))

    async def made() -> bool:
        return bool(await bench.truth(spec.token))

    await bench.until("the back end has acted", made)
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    need(isinstance(outcome, asyncio.CancelledError), f"the cancelled call gave {outcome!r:.100}")
    await bench.harness.heal()
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case(
    "create/cancelled-at-once",
    "A create that is cancelled before it began leaves the provider able to make the machine.",
)
async def cancelled_at_once(bench: Bench) -> None:
    spec = await bench.spec()
    task = asyncio.ensure_future(bench.provider.ensure_node(spec))
    await asyncio.sleep(0)
    task.cancel()
    outcome = (await asyncio.gather(task, return_exceptions=True))[0]
    need(isinstance(outcome, asyncio.CancelledError | Node), f"the cancelled call gave {outcome!r:.100}")
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/after-the-end", "A create with the token of a machine that ended never leaves two that live.")
async def after_the_end(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    for _ in range(2):
        with contextlib.suppress(Conflict):  # a token is for one machine only
            await bench.provider.ensure_node(spec)
    living = [seen for seen in await bench.truth(spec.token) if not seen.ended]
    need(len(living) <= 1, f"{len(living)} machines live for one token")


@case("create/next-attempt", "Another attempt is another token and another machine, beside the first.")
async def next_attempt(bench: Bench) -> None:
    first = await bench.spec()
    token = make_token(first.uid, "workers", 1, 2, first.offer.id)
    second = replace(first, token=token, name=f"{first.name}-2", tags={**first.tags, TAG_TOKEN: token})
    one, two = await bench.provider.ensure_node(first), await bench.provider.ensure_node(second)
    need(one.id != two.id, "the second attempt got the first one's machine")
    await bench.listed_tokens(first.token, second.token)


@case(
    "create/other-order",
    "A token that was used for another type is never taken as this one's machine.",
)
async def other_order(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    offers = [offer for offer in await bench.offers() if offer.type != spec.offer.type]
    need(offers, "there are no two types to choose from")
    await refused(
        Conflict, bench.provider.ensure_node(replace(spec, offer=offers[0])), "the same token for another type"
    )
    await bench.one(spec.token)


@case("create/foreign-name", "A stranger's machine of the same name is never taken for ours.")
async def foreign_name(bench: Bench) -> None:
    spec = await bench.spec()
    theirs = await bench.harness.stranger(name=spec.name)
    try:
        node = await bench.provider.ensure_node(spec)
    except Conflict:
        return  # names are unique there
    need(node.id != theirs, "the stranger's machine was returned")
    need((await bench.one(spec.token)).id == node.id, "another machine was returned")


@case(
    "create/foreign-token",
    "A machine of another installation with the same token is never taken for ours.",
)
async def foreign_token(bench: Bench) -> None:
    spec = await bench.spec()
    other = replace(bench.scope, installation="another")
    theirs = await bench.harness.stranger(name="theirs", tags={**spec.tags, **other.tags()})
    try:
        node = await bench.provider.ensure_node(spec)
    except Conflict:
        return
    need(node.id != theirs, "the other installation's machine was returned")


@case("create/burst", "Many different tokens at once make one machine each.")
async def burst(bench: Bench) -> None:
    specs = [await bench.spec() for _ in range(bench.harness.many)]
    nodes = await asyncio.gather(*(bench.provider.ensure_node(spec) for spec in specs))
    need(len({node.id for node in nodes}) == len(specs), "two tokens got one machine")
    need([node.token for node in nodes] == [spec.token for spec in specs], "tokens and machines are mixed up")
    await bench.listed_tokens(*(spec.token for spec in specs))
    need(len(await bench.truth()) == len(specs), "more machines were made than asked for")


@case(
    "create/burst-with-lost-answers",
    "Half of a burst's answers lost, all asked again: one machine each.",
    needs=["lose"],
)
async def burst_with_lost_answers(bench: Bench) -> None:
    specs = [await bench.spec() for _ in range(bench.harness.many)]
    await bench.inject("lose", "create", times=len(specs) // 2)
    await asyncio.gather(*(unknown_outcome(bench.provider.ensure_node(spec)) for spec in specs))
    await bench.harness.heal()
    for spec in specs:
        await settle_one(bench, spec.token, bench.provider.ensure_node(spec))
    need(len(await bench.truth()) == len(specs), "more machines were made than asked for")


@case(
    "create/limited",
    "A create that is refused for too many calls says how long to wait, and makes nothing.",
    needs=["limit"],
)
async def limited(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("limit", "create", times=None, seconds=7)
    error = await refused(RateLimited, bench.provider.ensure_node(spec), "too many calls")
    need(error.retry_after == 7, f"retry_after is {error.retry_after!r}, the back end said 7 s")
    await bench.harness.heal()
    await bench.none(spec.token)
    await settle_one(bench, spec.token, bench.provider.ensure_node(spec))


@case("create/logins", "The public keys of the spec can log in to the machine.")
async def logins(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    keys = (await bench.one(spec.token)).authorized_keys
    need(set(spec.access.authorized_keys) <= set(keys), f"the machine has {len(keys)} keys, not the spec's")


@case("create/host-key", "The machine has the host key that was made for it, or the one that the provider tells.")
async def host_key(bench: Bench) -> None:
    spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    expected = spec.access.host_public_key if bench.has("HostKeys") else node.host_key
    found = (await bench.one(spec.token)).host_key
    need(expected and found.split()[:2] == expected.split()[:2], "it has another host key")


@case("create/disk", "The machine has a disk of the size that was asked for; one that can't be chosen is refused.")
async def disk(bench: Bench) -> None:
    spec = await bench.spec(disk_gib=37)
    if not bench.has("DiskChoice"):
        await refused((InvalidRequest, Unsupported), bench.provider.ensure_node(spec), "a disk of a size")
        return await bench.none(spec.token)
    await bench.provider.ensure_node(spec)
    size = (await bench.one(spec.token)).disk_gib
    return need(size == 37, f"its disk has {size} GiB, not 37")


@case("create/image", "The machine has the image that was asked for, and says so.", traits=["ImageChoice"])
async def image(bench: Bench) -> None:
    spec, node = await bench.running()
    need(node.image == spec.image, f"the node says {node.image!r}, asked for was {spec.image!r}")
    need((await bench.one(spec.token)).image == spec.image, "the back end has another image")


@case("create/spot", "A machine of a spot offer is a spot machine, and says so.", traits=["Spot"])
async def spot(bench: Bench) -> None:
    spec = await bench.spec(offer=(await bench.offers("Spot"))[0])
    node = await bench.provider.ensure_node(spec)
    need(node.purchase == "Spot", f"the node says {node.purchase}")
    need((await bench.one(spec.token)).purchase == "Spot", "the back end made it on demand")


@case(
    "create/public-address",
    "A machine that was asked for with an address of the internet has one.",
    traits=["PublicAddresses"],
)
async def public_address(bench: Bench) -> None:
    _, node = await bench.running(await bench.spec(public_address=True))
    need(node.public_address, "it has none")


@case(
    "create/private",
    "A machine that was asked for without an address of the internet has none.",
)
async def private(bench: Bench) -> None:
    _, node = await bench.running()
    need(not node.public_address, f"it has {node.public_address}")
