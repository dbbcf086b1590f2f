"""What another way to place files takes: counted before, it is what the mover does then."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from msgspec.structs import replace
from tests.unit.data.virtual import virtual

from cloudmesh.data.approval import figures
from cloudmesh.data.config import Match, PlacementRule, Prices, Proposal, Quote, StoreConfig, StoreTerms
from cloudmesh.data.errors import Missing
from cloudmesh.data.gateway.quoting import SETTING, Quoting
from cloudmesh.data.money import monthly_nanos
from cloudmesh.data.quote import VALID_SECONDS, terms_of
from cloudmesh.engine.errors import InvalidRequest, Transient
from cloudmesh.testing.directories.world import World

GIB = 1 << 30


def store(name: str, month: int = 1, egress: int = 0, **more: object) -> StoreConfig:
    """A store whose byte costs `month` nano-units a month, and `egress` to be read; a write 2 and a read 1."""
    prices = Prices("USD", month * GIB, 2000, 1000, egress * GIB, "test", "declared")
    return StoreConfig(name, "memory", prices=prices, **more)  # type: ignore[arg-type]


def sequential(copies: int, *only: str, **match: object) -> PlacementRule:
    return PlacementRule(copies=copies, prefer="Sequential", only=only, match=Match(**match))  # type: ignore[arg-type]


def proposal(w: World, *rules: PlacementRule, **access: str) -> Proposal:
    """Other rules, and other accesses of stores."""
    stores = tuple(
        replace(terms_of(s), access=access.get(s.name, s.access))  # type: ignore[arg-type]
        for s in w.mesh.config.stores
    )
    return Proposal("q1", tuple(rules) or w.mesh.config.rules, stores)


async def files(w: World) -> None:
    for number, size in enumerate((0, 1, 10, 100, 1000, 5000)):
        await w.put(f"d/f{number}", bytes([number]) * size)
    await w.put("deleted", b"gone")
    await w.tree.delete("deleted")
    await w.settle()


async def counted(w: World, asked: Proposal) -> Quote:
    return await Quoting(w.tree, w.now).count(asked)


async def apply(w: World, asked: Proposal) -> tuple[int, int, int]:
    """Files are placed so from now on: what the mover did, as written copies, their bytes, and removed ones."""
    done = w.mover.done
    before = (done.written, done.written_bytes, done.dropped)
    wanted = {placing.name: placing for placing in asked.stores}
    stores = tuple(replace(s, access=wanted[s.name].access) for s in w.mesh.config.stores)
    await w.mesh.use(replace(w.mesh.config, rules=asked.rules, stores=stores))
    await w.mesh.settled()
    await w.back()
    await w.settle()
    return tuple(now - was for now, was in zip((done.written, done.written_bytes, done.dropped), before, strict=True))  # type: ignore[return-value]


def monthly(w: World) -> int:
    """What lies in the stores costs a month."""
    return sum(
        monthly_nanos(s.prices, sum(len(content) for content in w.objects(s.name).values())) or 0
        for s in w.mesh.config.stores
    )


CHANGES = {
    "elsewhere": ((sequential(1, "c"),), {}),
    "more": ((sequential(3),), {}),
    "fewer": ((sequential(1),), {}),
    "some": ((sequential(1, "c", min_size=100), sequential(2)), {}),
    "drain": ((sequential(2),), {"a": "Drain"}),
    "same": ((), {}),
    "cheapest": ((PlacementRule(copies=1, prefer="Cheapest"),), {}),
    "balanced": ((PlacementRule(copies=3, prefer="Balanced"),), {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_mover_does_what_was_counted(tmp_path, change):
    rules, access = CHANGES[change]

    @virtual([store("a", 3, 5), store("b", 2, 1), store("c", 1, 9)], rules=(sequential(2),))
    async def run(w: World) -> None:
        await files(w)
        if "Drain" in access.values():
            # what lies in the trash leaves such a store too, and isn't counted
            await w.catalog.expire((await w.tree.trash())[0].entry.id)
            await w.settle()
        asked = proposal(w, *rules, **access)
        quote = await counted(w, asked)
        assert quote.before_nanos == monthly(w)
        assert await apply(w, asked) == (quote.copies, quote.bytes, quote.removed)
        assert quote.after_nanos == monthly(w)
        again = await counted(w, proposal(w))
        assert (again.files, again.copies, again.removed) == (0, 0, 0)

    run(tmp_path)


@virtual([store("a", 3, 5), store("b", 2, 1), store("c", 1, 9)], rules=(sequential(2),))
async def test_money_is_counted_by_the_cheapest_way(w: World) -> None:
    await files(w)
    quote = await counted(w, proposal(w, sequential(1, "c")))
    # six files of 6111 bytes lie in a and b: read from b, whose bytes cost least, and written to c
    assert (quote.files, quote.copies, quote.bytes) == (6, 6, 6111)
    assert quote.requests_nanos == 6 * 2 + 6 * 1
    assert quote.egress_nanos == 6111
    assert (quote.removed, quote.removed_bytes) == (12, 2 * 6111)
    # what was deleted lies where it lay until its time is over
    assert (quote.before_nanos, quote.after_nanos) == (5 * 6111 + 5 * 4, 6111 + 5 * 4)
    assert quote.seconds is None
    reads = w.member("a").sent
    await apply(w, proposal(w, sequential(1, "c")))
    assert w.member("a").sent == reads


@virtual(
    [store("a", bytes_per_second=5000), store("b", requests_per_second=2), store("c", bytes_per_second=1000)],
    rules=(sequential(1),),
)
async def test_time_is_that_of_the_slowest_store(w: World) -> None:
    await files(w)
    assert (await counted(w, proposal(w, sequential(1, "c")))).seconds == 7
    # six requests at two a second
    assert (await counted(w, proposal(w, sequential(2, "a", "b")))).seconds == 3


@virtual([store("a"), StoreConfig("b", "memory"), store("c")], rules=(sequential(1),))
async def test_unknown_is_never_free(w: World) -> None:
    await files(w)
    fine = await counted(w, proposal(w, sequential(1, "c")))
    assert (fine.unpriced, fine.after_nanos is None) == ((), False)
    quote = await counted(w, proposal(w, sequential(2)))
    assert quote.unpriced == ("b",)
    assert (quote.requests_nanos, quote.after_nanos, quote.egress_nanos) == (None, None, 0)


@virtual([store("a"), store("b"), store("c")], rules=(sequential(1),))
async def test_a_question_is_answered_once_and_outlives_a_restart(w: World) -> None:
    await files(w)
    asked = proposal(w, sequential(2))
    quoting = Quoting(w.tree, w.now)
    with pytest.raises(Missing):
        quoting.told()
    w.mesh.config = replace(w.mesh.config, proposal=asked)
    with pytest.raises(Transient):
        quoting.told()
    await quoting.look()
    first = quoting.quote
    assert first is not None
    assert quoting.told()["copies"] == 6
    await w.put("another", b"x")
    await quoting.look()
    assert quoting.quote == first
    again = Quoting(w.tree, w.now)
    await again.look()
    assert again.quote == first
    await asyncio.sleep(VALID_SECONDS + 1)
    await again.look()
    assert again.quote is not None
    assert again.quote.copies == first.copies + 1
    w.mesh.config = replace(w.mesh.config, proposal=replace(asked, question="q2"))
    assert again.quote is None
    w.mesh.config = replace(w.mesh.config, proposal=None)
    await again.look()
    assert await w.catalog.get(SETTING) == ""


@virtual([store("a"), store("b"), store("c")], rules=(sequential(1),))
async def test_a_store_that_is_away_is_counted_by_the_catalogue_and_named(w: World) -> None:
    await files(w)
    asked = proposal(w, sequential(2, "b", "c"))
    there = await counted(w, asked)
    w.faults.down |= {"a", "b"}
    await asyncio.sleep(30)
    away = await counted(w, asked)
    assert (there.unseen, away.unseen) == ((), ("a", "b"))
    assert replace(away, unseen=(), made_at=0) == replace(there, made_at=0)
    assert (away.files, away.copies) == (6, 12)
    assert figures(away)["unseen"] == ["a", "b"]
    # and so it is what the mover does when they are back
    w.faults.clear()
    assert (await apply(w, asked))[0] == 12


@virtual([store("a"), store("b"), store("c")], rules=(sequential(1),))
async def test_a_plan_of_rules_that_nobody_has_written_yet(w: World) -> None:
    await files(w)
    quoting = Quoting(w.tree, w.now)
    rules = msgspec.to_builtins([sequential(1)])
    told = await quoting.plan({"rules": rules, "stores": ["b", "c"]})
    # a isn't named, and so it is drained
    assert (told["files"], told["copies"], told["removed"], told["currency"]) == (6, 6, 6, "USD")
    assert "hash" not in told
    for wrong in ({"rules": [], "stores": []}, {"rules": rules}, {"rules": [{"copies": "x"}], "stores": []}):
        with pytest.raises(InvalidRequest, match="`rules` and `stores` can't be read"):
            await quoting.plan(wrong)
    with pytest.raises(Missing, match="new isn't a store of the directory yet"):
        await quoting.plan({"rules": rules, "stores": ["new"]})
    with pytest.raises(InvalidRequest, match="at least 1"):
        await quoting.plan({"rules": [{"copies": 0}], "stores": ["a"]})


@virtual([store("a"), store("b"), replace(store("c"), access="ReadOnly", awaits_approval=True)], rules=(sequential(3),))
async def test_a_store_that_waits_for_approval_gets_nothing(w: World) -> None:
    await w.put("f", b"x")
    assert w.holders(b"x") == "ab"
    found = {v.store: v.why for v in (await w.tree.why("f")).verdicts}
    assert found["c"] == "it waits for approval of the change that brings it"
    stores = tuple(StoreTerms(name) for name in "abc")
    quote = await counted(w, Proposal("q", (sequential(3),), stores))
    assert (quote.files, quote.copies) == (1, 1)
