"""Cases of finding a machine by its token: only the back end's own no is a no."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from cloudmesh.engine.errors import Conflict, RateLimited, Transient
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused


@case("find/none", "A token that was never used is not found.")
async def none(bench: Bench) -> None:
    need(await bench.provider.find_node(await bench.spec()) is None, "a machine was found")


@case("find/at-once", "A machine is found by its token right after its create.")
async def at_once(bench: Bench) -> None:
    spec = await bench.spec()
    made = await bench.provider.ensure_node(spec)
    found = await bench.provider.find_node(spec)
    need(found is not None and found.id == made.id, f"found is {found!r:.100}")


@case("find/young", "A machine that listings don't show yet is found by its token.", needs=["lag"])
async def young(bench: Bench) -> None:
    await bench.inject("lag", seconds=5)
    spec = await bench.spec()
    made = await bench.provider.ensure_node(spec)
    found = await bench.provider.find_node(spec)
    need(found is not None and found.id == made.id, "it isn't found")


@case("find/stale-listing", "A machine that was made after a stale listing is found by its token.", needs=["stale"])
async def stale_listing(bench: Bench) -> None:
    await bench.inject("stale")
    spec = await bench.spec()
    made = await bench.provider.ensure_node(spec)
    found = await bench.provider.find_node(spec)
    need(found is not None and found.id == made.id, "it isn't found")


@case(
    "find/failure-is-no-absence", "A look-up that fails raises; it never says that there is no machine.", needs=["fail"]
)
async def failure_is_no_absence(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    await bench.inject("fail", "find", times=None)
    await refused(Transient, bench.provider.find_node(spec), "an answer of the 500s")


@case("find/dropped", "A look-up whose connection breaks raises.", needs=["drop"])
async def dropped(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    await bench.inject("drop", "find", times=None)
    await refused(Transient, bench.provider.find_node(spec), "a connection that breaks")


@case("find/limited", "A look-up that is refused for too many calls says how long to wait.", needs=["limit"])
async def limited(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    await bench.inject("limit", "find", times=None, seconds=3)
    error = await refused(RateLimited, bench.provider.find_node(spec), "too many calls")
    need(error.retry_after == 3, f"retry_after is {error.retry_after!r}, the back end said 3 s")


@case("find/hangs", "A look-up that is never answered ends within bounded time.", needs=["hang"])
async def hangs(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.inject("hang", "find", times=None)
    try:
        async with asyncio.timeout(bench.harness.call_seconds):
            await refused(Transient, bench.provider.find_node(spec), "a look-up that hangs")
    except TimeoutError:
        raise CaseFailed(f"it still hangs after {bench.harness.call_seconds:g} s") from None


@case(
    "find/filter-ignored",
    "When the back end ignores filters, no other machine is taken for the token's.",
    needs=["filter"],
)
async def filter_ignored(bench: Bench) -> None:
    other = await bench.spec()
    await bench.provider.ensure_node(other)
    await bench.inject("filter")
    need(await bench.provider.find_node(await bench.spec()) is None, "a machine of another token was found")
    found = await bench.provider.find_node(other)
    need(found is not None and found.token == other.token, "its own machine isn't found any more")


@case("find/foreign-name", "A stranger's machine of the same name is not found as ours.")
async def foreign_name(bench: Bench) -> None:
    spec = await bench.spec()
    await bench.harness.stranger(name=spec.name)
    try:
        found = await bench.provider.find_node(spec)
    except Conflict:
        return
    need(found is None, "the stranger's machine was found")


@case(
    "find/foreign-scope",
    "A machine of the same token in another installation is not found as ours.",
)
async def foreign_scope(bench: Bench) -> None:
    spec = await bench.spec()
    other = replace(bench.scope, installation="another")
    await bench.harness.stranger(name="theirs", tags={**spec.tags, **other.tags()})
    try:
        found = await bench.provider.find_node(spec)
    except Conflict:
        return
    need(found is None, "the other installation's machine was found")


@case("find/after-the-end", "A machine that ended is found ended, or not at all.")
async def after_the_end(bench: Bench) -> None:
    spec, node = await bench.running()
    await bench.provider.delete_node(node.id, bench.scope)
    await bench.ended(spec.token)
    found = await bench.provider.find_node(spec)
    need(found is None or found.state == "Deleted", f"it is found {found.state if found else ''}")


@case("find/next-process", "Another process finds the machine.")
async def next_process(bench: Bench) -> None:
    spec, node = await bench.running()
    found = await (await bench.harness.provider()).find_node(spec)
    need(found is not None and found.id == node.id, "it isn't found")
