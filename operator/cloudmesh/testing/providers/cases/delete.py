"""Cases of deleting: accepted isn't gone, gone is fine, and nobody else's machine ends."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, RateLimited, Transient
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused


@case("delete/ends", "A machine that is deleted ends, and listings show it ended or not at all.")
async def ends(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    await bench.listed_tokens()


@case("delete/twice", "A second delete of a machine is fine.")
async def twice(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    await bench.provider.delete_node(node.id, bench.scope)


@case("delete/at-once", "Five deletes of one machine at the same moment end it.")
async def at_once(bench: Bench) -> None:
    spec, node = await bench.running()
    calls = (bench.provider.delete_node(node.id, bench.scope) for _ in range(5))
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        need(answer is None or isinstance(answer, Transient), f"a racing delete: {answer!r}")
    await bench.ended(spec.token)


@case("delete/unknown", "The delete of a machine that was deleted long ago by another process is fine.", needs=["end"])
async def unknown(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.harness.meddle("end", node.id)
    await bench.ended(spec.token)
    await bench.provider.delete_node(node.id, bench.scope)


@case("delete/nonsense", "The delete of an id that can't be is fine or InvalidRequest, and ends nothing.")
async def nonsense(bench: Bench) -> None:
    spec, _ = await bench.running()
    for node_id in ("no-such-machine", "../..", "*", ""):
        with contextlib.suppress(InvalidRequest, Conflict):
            await bench.provider.delete_node(node_id, bench.scope)
    need(not (await bench.one(spec.token)).ended, "another machine was ended")


@case(
    "delete/accepted-is-not-gone",
    "A machine that is on its way out isn't called ended before it is.",
    needs=["slow-delete"],
)
async def accepted_is_not_gone(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("slow-delete", times=None, seconds=5)
    await bench.provider.delete_node(node.id, bench.scope)
    found = await bench.provider.find_node(spec)
    if not (await bench.one(spec.token)).ended:
        need(found is not None and found.state != "Deleted", "it is called ended, and is billed on")
        states = [each.state for each in await bench.listed()]
        need(states and "Deleted" not in states, f"it still runs, and the listing says {states}")
    await bench.ended(spec.token)


@case(
    "delete/lost-answer",
    "A delete whose answer is lost is Transient at most; asked again, the machine ends.",
    needs=["lose"],
)
async def lost_answer(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("lose", "delete")
    try:
        await bench.provider.delete_node(node.id, bench.scope)
    except Transient:
        await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/dropped", "A delete that never arrived raises Transient, so that it is asked again.", needs=["drop"])
async def dropped(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("drop", "delete", times=None)
    await refused(Transient, bench.provider.delete_node(node.id, bench.scope), "a connection that breaks")
    need(not (await bench.one(spec.token)).ended, "it ended all the same")
    await bench.harness.heal()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/fails", "A delete that fails raises Transient; it never looks done.", needs=["fail"])
async def fails(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("fail", "delete", times=None)
    await refused(Transient, bench.provider.delete_node(node.id, bench.scope), "an answer of the 500s")
    await bench.harness.heal()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/limited", "A delete that is refused for too many calls says how long to wait.", needs=["limit"])
async def limited(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("limit", "delete", times=None, seconds=2)
    error = await refused(RateLimited, bench.provider.delete_node(node.id, bench.scope), "too many calls")
    need(error.retry_after == 2, f"retry_after is {error.retry_after!r}, the back end said 2 s")
    need(not (await bench.one(spec.token)).ended, "it ended all the same")


@case("delete/hangs", "A delete that is never answered ends within bounded time.", needs=["hang"])
async def hangs(bench: Bench) -> None:
    _, node = await bench.running()
    await bench.inject("hang", "delete", times=None)
    try:
        async with asyncio.timeout(bench.harness.call_seconds):
            await refused(Transient, bench.provider.delete_node(node.id, bench.scope), "a delete that hangs")
    except TimeoutError:
        raise CaseFailed(f"it still hangs after {bench.harness.call_seconds:g} s") from None


@case("delete/delivered-twice", "A delete that the network delivers twice ends the machine.", needs=["twice"])
async def delivered_twice(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("twice", "delete")
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/cancelled", "A delete that is cancelled in mid-call and asked again ends the machine.", needs=["delay"])
async def cancelled(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.inject("delay", "delete", seconds=bench.harness.call_seconds / 3)
    task = asyncio.ensure_future(bench.provider.delete_node(node.id, bench.scope))
    await bench.harness.wait(0.2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await bench.harness.heal()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/foreign", "A machine without our tags is never ended, whatever id is named.")
async def foreign(bench: Bench) -> None:
    theirs = await bench.harness.stranger()
    with contextlib.suppress(CloudmeshError):
        await bench.provider.delete_node(theirs, bench.scope)
    await bench.harness.wait(2)
    living = [seen.id for seen in await bench.harness.machines() if not seen.ended]
    need(theirs in living, "the stranger's machine was ended")


@case("delete/other-installation", "A machine of another installation is never ended.")
async def other_installation(bench: Bench) -> None:
    other = replace(bench.scope, installation=bench.scope.installation + "0")
    theirs = await bench.harness.stranger(tags={**(await bench.spec()).tags, **other.tags()})
    with contextlib.suppress(CloudmeshError):
        await bench.provider.delete_node(theirs, bench.scope)
    await bench.harness.wait(2)
    living = [seen.id for seen in await bench.harness.machines() if not seen.ended]
    need(theirs in living, "the other installation's machine was ended")


@case("delete/young", "A machine that is deleted right after its create ends.")
async def young(bench: Bench) -> None:
    spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    await bench.listed_tokens()


@case("delete/unlisted", "A machine that listings don't show yet can be deleted.", needs=["lag"])
async def unlisted(bench: Bench) -> None:
    await bench.inject("lag", seconds=5)
    spec = await bench.spec()
    node = await bench.provider.ensure_node(spec)
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/failed", "A machine that the back end gave up on can be deleted.", needs=["capacity-late"])
async def failed(bench: Bench) -> None:
    await bench.inject("capacity-late", times=None)
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    node = await bench.in_state(spec, "Failed", "Deleted")  # some clouds end it themselves
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/stopped", "A machine that is stopped can be deleted.", power="StartStop")
async def stopped(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.stop_node(node.id)  # type: ignore[attr-defined]
    await bench.in_state(spec, "Stopped")
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/neighbours", "The delete of one machine leaves the others alone.")
async def neighbours(bench: Bench) -> None:
    first, node = await bench.running()
    second, _ = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(first.token)
    need(not (await bench.one(second.token)).ended, "the other one ended too")
    await bench.listed_tokens(second.token)


@case("delete/next-process", "Another process can delete the machine.")
async def next_process(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.close()
    await (await bench.harness.provider()).delete_node(node.id, bench.scope)
    await bench.ended(spec.token)


@case("delete/nothing-billed", "When all machines are deleted, nothing is billed any more.")
async def nothing_billed(bench: Bench) -> None:
    made = [await bench.running() for _ in range(3)]
    need(await bench.harness.billed() > 0, "machines that run are not billed")
    for spec, node in made:
        await bench.provider.delete_node(node.id, bench.scope)
        await bench.ended(spec.token)
    need(await bench.harness.billed() == 0, "something is billed on")
