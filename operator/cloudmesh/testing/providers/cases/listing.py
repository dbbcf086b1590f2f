"""Cases of listing: only what is complete says so, and nobody else's machines are in it."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace

from cloudmesh.compute.ports import Complete, NodeSpec, Partial
from cloudmesh.compute.tokens import Scope
from cloudmesh.engine.errors import CloudmeshError, RateLimited, Transient
from cloudmesh.testing.providers.case import Bench, CaseFailed, case, need, refused


async def some(bench: Bench, count: int) -> list[NodeSpec]:
    """Makes machines and waits until listings show them."""
    specs = [await bench.spec() for _ in range(count)]
    for spec in specs:
        await bench.provider.ensure_node(spec)
    await bench.listed_tokens(*(spec.token for spec in specs))
    return specs


async def never_complete(bench: Bench, what: str) -> None:
    """A listing must be partial, or fail."""
    try:
        listing = await bench.provider.list_nodes(bench.scope)
    except CloudmeshError:
        return
    need(isinstance(listing, Partial), f"{what}: the listing calls itself complete with {len(listing.nodes)} machines")
    need(isinstance(listing, Partial) and listing.reason, f"{what}: the partial listing has no reason")


@case("list/empty", "Where there are no machines, a complete listing is empty.")
async def empty(bench: Bench) -> None:
    need(await bench.listed() == (), "it isn't empty")


@case("list/all", "A listing holds all machines of the scope, each with its token, type and place.")
async def everything(bench: Bench) -> None:
    specs = {spec.token: spec for spec in await some(bench, 3)}
    for node in await bench.listed():
        offer = specs[node.token].offer
        need((node.type, node.region) == (offer.type, offer.region), f"a node says {node.type} in {node.region!r}")
        need(bench.scope.holds(node.tags), "a node lacks the scope's tags")


@case("list/pages", "A listing of several pages holds all machines, each once.", needs=["pages"])
async def pages(bench: Bench) -> None:
    specs = await some(bench, 5)
    await bench.inject("pages", number=2)
    await bench.listed_tokens(*(spec.token for spec in specs))


@case("list/page-boundary", "A listing that fills its pages exactly is complete and holds all.", needs=["pages"])
async def page_boundary(bench: Bench) -> None:
    specs = await some(bench, 4)
    await bench.inject("pages", number=2)
    await bench.listed_tokens(*(spec.token for spec in specs))


@case("list/one-a-page", "A listing of one machine a page holds all.", needs=["pages"])
async def one_a_page(bench: Bench) -> None:
    specs = await some(bench, 3)
    await bench.inject("pages", number=1)
    await bench.listed_tokens(*(spec.token for spec in specs))


@case("list/middle-page-fails", "A listing whose second page fails never calls itself complete.", needs=["page-fails"])
async def middle_page_fails(bench: Bench) -> None:
    await some(bench, 5)
    await bench.inject("page-fails", number=2)
    await never_complete(bench, "a page that failed")


@case("list/last-page-fails", "A listing whose last page fails never calls itself complete.", needs=["page-fails"])
async def last_page_fails(bench: Bench) -> None:
    await some(bench, 5)
    await bench.inject("page-fails", number=3)
    await never_complete(bench, "a page that failed")


@case("list/first-page-fails", "A listing whose first page fails never calls itself complete.", needs=["page-fails"])
async def first_page_fails(bench: Bench) -> None:
    await some(bench, 3)
    await bench.inject("page-fails", number=1)
    await never_complete(bench, "a page that failed")


@case("list/partial", "A success in which a zone is missing is a partial listing, with the reason.", needs=["partial"])
async def partial(bench: Bench) -> None:
    await some(bench, 2)
    await bench.inject("partial", times=None)
    await never_complete(bench, "a missing zone")


@case("list/repeats", "A machine that comes on two pages is listed once.", needs=["repeats"])
async def repeats(bench: Bench) -> None:
    specs = await some(bench, 5)
    await bench.inject("repeats", times=None)
    await bench.listed_tokens(*(spec.token for spec in specs))


@case("list/lag", "A machine that listings show late is there before its grace time is over.", needs=["lag"])
async def lag(bench: Bench) -> None:
    seconds = min(bench.provider.info.grace_seconds, 5)
    need(seconds > 0, "listings lag, but the declared grace time is 0")
    await bench.inject("lag", seconds=seconds)
    spec = await bench.spec()
    await bench.provider.ensure_node(spec)
    await bench.harness.wait(seconds + 0.5)
    need([node.token for node in await bench.listed()] == [spec.token], "it still isn't listed")


@case("list/stale", "After a stale listing the next current one is true again.", needs=["stale"])
async def stale(bench: Bench) -> None:
    first = (await some(bench, 1))[0]
    await bench.inject("stale")
    second = await bench.spec()
    await bench.provider.ensure_node(second)
    await bench.provider.list_nodes(bench.scope)
    await bench.harness.heal()
    await bench.listed_tokens(first.token, second.token)


@case(
    "list/filter-ignored",
    "When the back end ignores filters, only our machines are returned.",
    needs=["filter"],
)
async def filter_ignored(bench: Bench) -> None:
    spec = (await some(bench, 1))[0]
    await bench.harness.stranger()
    await bench.harness.stranger(tags=replace(bench.scope, account="other").tags())
    await bench.inject("filter", times=None)
    need([node.token for node in await bench.listed()] == [spec.token], "a stranger's machine was returned")


async def other_scope(bench: Bench, scope: Scope) -> None:
    spec = (await some(bench, 1))[0]
    theirs = await bench.harness.stranger(name="theirs", tags={**spec.tags, **scope.tags()})
    nodes = await bench.listed()
    need(theirs not in [node.id for node in nodes], "its machine was returned")
    need([node.token for node in nodes] == [spec.token], "our own machine is missing")


@case("list/other-installation", "Machines of another installation aren't listed.")
async def other_installation(bench: Bench) -> None:
    await other_scope(bench, replace(bench.scope, installation=bench.scope.installation + "0"))


@case(
    "list/other-namespace",
    "Machines of an account of the same name in another namespace aren't listed.",
)
async def other_namespace(bench: Bench) -> None:
    await other_scope(bench, replace(bench.scope, namespace=bench.scope.namespace + "0"))


@case("list/other-account", "Machines of another account of the namespace aren't listed.")
async def other_account(bench: Bench) -> None:
    await other_scope(bench, replace(bench.scope, account=bench.scope.account + "0"))


@case("list/stranger", "Machines without our tags aren't listed.")
async def stranger(bench: Bench) -> None:
    await bench.harness.stranger()
    need(await bench.listed() == (), "a stranger's machine was returned")


@case("list/untagged", "A machine that lost its tags isn't listed as anybody's.", needs=["untag"])
async def untagged(bench: Bench) -> None:
    first, second = await some(bench, 2)
    seen = await bench.one(first.token)
    await bench.harness.meddle("untag", seen.id)
    await bench.listed_tokens(second.token)


@case("list/fails", "A listing that fails raises Transient; it is never an empty one.", needs=["fail"])
async def fails(bench: Bench) -> None:
    await some(bench, 1)
    await bench.inject("fail", "list", times=None)
    await refused(Transient, bench.provider.list_nodes(bench.scope), "an answer of the 500s")


@case("list/dropped", "A listing whose connection breaks raises Transient.", needs=["drop"])
async def dropped(bench: Bench) -> None:
    await some(bench, 1)
    await bench.inject("drop", "list", times=None)
    await refused(Transient, bench.provider.list_nodes(bench.scope), "a connection that breaks")


@case("list/limited", "A listing that is refused for too many calls says how long to wait.", needs=["limit"])
async def limited(bench: Bench) -> None:
    await bench.inject("limit", "list", times=None, seconds=4)
    error = await refused(RateLimited, bench.provider.list_nodes(bench.scope), "too many calls")
    need(error.retry_after == 4, f"retry_after is {error.retry_after!r}, the back end said 4 s")


@case("list/hangs", "A listing that is never answered ends within bounded time.", needs=["hang"])
async def hangs(bench: Bench) -> None:
    await bench.inject("hang", "list", times=None)
    try:
        async with asyncio.timeout(bench.harness.call_seconds):
            await never_complete(bench, "no answer")
    except TimeoutError:
        raise CaseFailed(f"it still hangs after {bench.harness.call_seconds:g} s") from None


@case("list/as-of", "A listing says when it was made, as an RFC 3339 time in UTC.")
async def as_of(bench: Bench) -> None:
    listing = await bench.provider.list_nodes(bench.scope)
    need(listing.as_of.endswith("Z"), f"as_of is {listing.as_of!r}")
    datetime.datetime.fromisoformat(listing.as_of)


@case("list/at-once", "Listings at the same moment agree.")
async def at_once(bench: Bench) -> None:
    specs = await some(bench, 2)
    listings = await asyncio.gather(*(bench.provider.list_nodes(bench.scope) for _ in range(5)))
    for listing in listings:
        need(isinstance(listing, Complete), "one of them isn't complete")
        need({node.token for node in listing.nodes} == {spec.token for spec in specs}, "one of them differs")


@case("list/while-creating", "A listing in the middle of creates holds no machine of ours without its token.")
async def while_creating(bench: Bench) -> None:
    specs = [await bench.spec() for _ in range(4)]
    creating = asyncio.gather(*(bench.provider.ensure_node(spec) for spec in specs))
    while not creating.done():
        for node in (await bench.provider.list_nodes(bench.scope)).nodes:
            need(node.token in {spec.token for spec in specs}, f"a node has the token {node.token!r}")
        await bench.harness.wait(0.05)
    await creating


@case("list/next-process", "Another process lists the same machines.")
async def next_process(bench: Bench) -> None:
    spec = (await some(bench, 1))[0]
    nodes = await bench.listed(await bench.harness.provider())
    need([node.token for node in nodes] == [spec.token], "it lists something else")


@case("list/many", "Many machines are all listed.")
async def many(bench: Bench) -> None:
    await some(bench, bench.harness.many)
