"""Quota and money of a directory: however many write at once, they never take more together than there is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule, Prices, StoreConfig
from cloudmesh.data.errors import Full, OverBudget
from cloudmesh.data.links import link
from cloudmesh.data.model import Entry
from cloudmesh.data.scan import scan
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.directories.world import Fault, InlineCatalog, World, chunked

KIB = 1024
GIB_PRICE = 1 << 30
"""Nano-units for a GiB and month: a byte costs one a month."""


def store(name: str, rate: int | None = 1, **more: object) -> StoreConfig:
    """A store whose byte costs `rate` nano-units a month."""
    month = None if rate is None else rate * GIB_PRICE
    known = Prices("USD", month, 0, 0, 0, "test", "declared") if rate is not None else Prices()
    return StoreConfig(name, "memory", prices=known, must_be_priced=True, **more)  # type: ignore[arg-type]


def rule(copies: int = 2, **more: object) -> tuple[PlacementRule, ...]:
    return (PlacementRule(copies=copies, prefer="Sequential", **more),)  # type: ignore[arg-type]


async def stream(size: int, piece: int = KIB) -> AsyncIterator[bytes]:
    """A content whose size nobody told, with others in between."""
    while size > 0:
        yield b"x" * min(size, piece)
        size -= piece
        await asyncio.sleep(0.01)


@virtual([store("a", 1), store("b", 2)], rules=rule(), max_monthly_nanos=3000)
async def test_a_write_that_would_cost_more_is_refused_and_what_is_there_stays(w: World) -> None:
    await w.put("f", b"x" * 900)
    with pytest.raises(OverBudget, match=r"to 0\.0000033 USD a month, and `maxMonthlyCost` is 0\.000003 USD"):
        await w.put("g", b"y" * 200)
    await w.put("g", b"y" * 100)
    with pytest.raises(OverBudget):
        await w.put("h", b"z")
    assert await w.read("f") == b"x" * 900
    # nothing more is fine, and so is less
    await w.put("h", b"")
    await w.put("f", b"z" * 899)
    await w.settle()
    await w.put("h", b"z")
    with pytest.raises(OverBudget):
        await w.put("h", b"zz")


@virtual([store("a", 1), store("b", 2)], rules=rule(), max_monthly_nanos=30_000)
async def test_what_is_deleted_costs_until_its_objects_are_gone(w: World) -> None:
    await w.put("f", b"x" * 10_000)
    await w.tree.delete("f")
    with pytest.raises(OverBudget):
        await w.put("g", b"y")


@virtual([store("a", 1), store("b", 1)], rules=rule(), max_monthly_nanos=20 * KIB)
async def test_parallel_writes_never_cost_more_together(w: World) -> None:
    known = [w.put(f"known{n}", b"x" * KIB) for n in range(10)]
    unknown = [w.tree.put(f"stream{n}", stream((2 << 20) + n * KIB)) for n in range(3)]
    small = [w.tree.put(f"small{n}", stream(KIB)) for n in range(10)]
    done = await asyncio.gather(*known, *unknown, *small, return_exceptions=True)
    assert {type(one) for one in done if isinstance(one, BaseException)} == {OverBudget}
    assert sum(not isinstance(one, BaseException) for one in done) == 10
    assert (await w.catalog.totals()).bytes == 10 * KIB


@virtual([store("a", 1), store("b", 1)], rules=rule(), quota_bytes=6 << 20)
async def test_contents_of_unknown_size_share_a_quota_too(w: World) -> None:
    done = await asyncio.gather(
        *(w.tree.put(f"f{n}", stream(2 << 20, 64 * KIB)) for n in range(6)), return_exceptions=True
    )
    assert {type(one) for one in done if isinstance(one, BaseException)} <= {Full}
    total = (await w.catalog.totals()).bytes
    assert total <= 6 << 20
    # what failed holds nothing back
    await w.put("rest", b"x" * ((6 << 20) - total))
    with pytest.raises(Full):
        await w.put("more", b"x")


@virtual(rules=rule(), quota_files=5)
async def test_parallel_writes_never_exceed_the_number_of_files(w: World) -> None:
    done = await asyncio.gather(*(w.put(f"f{n}", b"x") for n in range(20)), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 5
    assert (await w.catalog.totals()).files == 5
    with pytest.raises(Full, match="quota of 5 files"):
        await w.put("another", b"")
    kept = next(one.path for one in await w.tree.walk(""))
    await w.put(kept, b"again")


@virtual([store("a", 1), store("b", None)], rules=rule(copies=1), max_monthly_nanos=1000)
async def test_unknown_is_never_free(w: World) -> None:
    await w.put("f", b"x" * 10)
    assert w.holders(b"x" * 10) == "a"
    found = {v.store: v for v in (await w.tree.why("f")).verdicts}
    assert found["b"].why == "its price isn't known, and the directory has a `maxMonthlyCost`"
    w.faults.down.add("a")
    await asyncio.sleep(90)
    with pytest.raises(Transient, match="b: its price isn't known"):
        await w.put("g", b"y")


@virtual([store("a", 1), store("b", 1), store("c", 5)], rules=rule(copies=2), max_monthly_nanos=1000)
async def test_copies_that_cant_be_made_now_count_at_the_dearest(w: World) -> None:
    w.faults.down |= {"b", "c"}
    await asyncio.sleep(90)
    with pytest.raises(OverBudget):
        await w.put("f", b"x" * 170)
    await w.put("f", b"x" * 160)


@virtual([store("a", 1), store("b", 1), store("c", 1)], rules=rule(copies=2), max_monthly_nanos=1000)
async def test_repair_goes_on_over_the_limit(w: World) -> None:
    await w.put("f", b"x" * 500)
    await w.use(max_monthly_nanos=600)
    # a copy that is lost is made again, and one whose store is given up elsewhere
    w.lose("b", "f")
    with pytest.raises(OverBudget):
        await w.put("g", b"y")
    await w.catalog.put_copies([replace((await w.copies("f"))["b"], state="Missing")], due=w.now())
    w.mover.stir()
    await w.settle()
    assert w.holders(b"x" * 500) == "ab"
    w.faults.down.add("b")
    await asyncio.sleep(3600)
    assert w.holders(b"x" * 500) == "abc"


@virtual([store("a", 1), store("b", 1), store("c", 1)], rules=rule(copies=1), max_monthly_nanos=2500)
async def test_a_change_of_rules_copies_no_more_than_there_is_money_for(w: World) -> None:
    for n in range(10):
        await w.put(f"f{n}", bytes([n]) * 100)
    await w.use(rules=rule(copies=3))
    await asyncio.sleep(600)
    totals = await w.catalog.totals()
    assert sum(size for _, size in totals.stores.values()) in (2400, 2500)
    assert w.mover.affording.waiting > 0
    # what is needed at least is made whatever it costs
    await w.use(rules=rule(copies=3, min_copies=2))
    await asyncio.sleep(600)
    counted = [len([c for c in (await w.copies(f"f{n}")).values() if c.state == "Whole"]) for n in range(10)]
    assert min(counted) == 2
    assert w.mover.affording.waiting > 0
    # when it may cost more the rest follows
    await w.use(max_monthly_nanos=3000)
    await w.settle()
    assert [size for _, size in (await w.catalog.totals()).stores.values()] == [1000, 1000, 1000]
    assert w.mover.affording.waiting == 0


@virtual([store("a", 5), store("b", 1), store("c", 9)], rules=rule(copies=1), max_monthly_nanos=5000)
async def test_what_costs_less_elsewhere_moves_however_little_money_is_left(w: World) -> None:
    await w.put("f", b"x" * 1000)
    await w.use(rules=rule(copies=1, only=("c",)))
    await asyncio.sleep(600)
    assert w.holders(b"x" * 1000) == "a"
    assert w.mover.affording.waiting == 1
    await w.use(rules=rule(copies=1, only=("b",)))
    await w.settle()
    assert w.holders(b"x" * 1000) == "b"
    assert w.mover.affording.waiting == 0


# -- what stores have room for, while nobody knows how much comes


@virtual([store("a", capacity=3 << 20), store("b", capacity=8 << 20), store("c")], rules=rule(copies=2))
async def test_a_content_of_unknown_size_leaves_a_store_out_whose_capacity_it_passes(w: World) -> None:
    await w.tree.put("f", stream(4 << 20, 64 * KIB))
    assert (w.objects("a"), len(w.objects("b")), w.member("a").reserved) == ({}, 1, 0)
    await w.settle()
    assert len(w.objects("c")) == 1


@virtual([store("a", capacity=3 << 20)], rules=rule(copies=1))
async def test_a_content_of_unknown_size_ends_at_the_capacity_and_leaves_nothing(w: World) -> None:
    await w.tree.put("f", stream(2 << 20, 64 * KIB))
    with pytest.raises(Full, match="the capacity of store a, 3145728 bytes, is used up"):
        await w.tree.put("g", stream(2 << 20, 64 * KIB))
    # what was there stays, whoever tries to write over it
    with pytest.raises(Full):
        await w.tree.put("f", stream(4 << 20, 64 * KIB))
    await w.settle()
    assert [len(content) for content in w.objects("a").values()] == [2 << 20]
    assert len(await w.read("f")) == 2 << 20
    assert w.member("a").reserved == 0
    # its own old content makes room for the new one
    await w.tree.put("f", stream(3 << 20, 64 * KIB))
    assert len(await w.read("f")) == 3 << 20


@virtual([store("a", capacity=6 << 20)], rules=rule(copies=1))
async def test_contents_of_unknown_size_share_a_capacity(w: World) -> None:
    done = await asyncio.gather(
        *(w.tree.put(f"f{n}", stream(2 << 20, 64 * KIB)) for n in range(6)), return_exceptions=True
    )
    assert {type(one) for one in done if isinstance(one, BaseException)} == {Full}
    assert w.place("a").used <= (6 << 20) + 10 * KIB
    # nobody counts them anew before the next one comes
    with pytest.raises(Full):
        await w.put("more", b"x" * (7 << 20))
    assert w.place("a").used <= (6 << 20) + 10 * KIB


@virtual([store("a", capacity=3 << 20), store("b")], rules=rule(copies=1))
async def test_a_content_that_no_store_chosen_can_take_is_refused_and_asked_for_with_its_size(w: World) -> None:
    with pytest.raises(Full, match="and b can take it: send it again, and its size before"):
        await w.tree.put("f", stream(4 << 20, 64 * KIB))
    assert w.objects("a") == w.objects("b") == {}
    await w.put("f", b"x" * (4 << 20))
    assert len(w.objects("b")) == 1


# -- what comes back from the trash, and links


@virtual("a", rules=rule(copies=1), quota_bytes=1000, quota_files=3)
async def test_what_is_restored_is_held_against_the_quota(w: World) -> None:
    await w.put("d/f", b"x" * 400)
    await w.put("d/g", b"y" * 200)
    gone = await w.tree.delete("d", recursive=True)
    await w.put("h", b"z" * 500)
    with pytest.raises(Full, match="quota of 1000 bytes"):
        await w.tree.restore(gone.id)
    assert [one.path for one in await w.tree.walk("")] == ["h"]
    assert [one.entry.id for one in await w.tree.trash()] == [gone.id]
    await w.put("h", b"z" * 400)
    await w.tree.restore(gone.id)
    assert await w.read("d/f") == b"x" * 400
    await w.tree.delete("h")
    many = await w.tree.delete("d", recursive=True)
    await w.put("one", b"")
    await w.put("two", b"")
    with pytest.raises(Full, match="quota of 3 files"):
        await w.tree.restore(many.id)


@virtual("a", rules=rule(copies=1), quota_files=300)
async def test_a_large_directory_that_is_restored_counts_before_the_sums_do(w: World) -> None:
    for n in range(200):
        await w.put(f"d/{n}", b"")
    gone = await w.tree.delete("d", recursive=True)
    while (await w.catalog.totals()).moving:
        await asyncio.sleep(0.1)
    go_on, background = asyncio.Event(), w.catalog._background

    async def later() -> None:
        await go_on.wait()
        await background()

    w.catalog._background = later  # type: ignore[method-assign]
    await w.tree.restore(gone.id)
    totals = await w.catalog.totals()
    assert totals.moving
    assert totals.files < 200
    with pytest.raises(Full):
        await w.put("f", b"")
    go_on.set()
    while (await w.catalog.totals()).moving:
        await asyncio.sleep(0.1)
    done = await asyncio.gather(*(w.put(f"f{n}", b"") for n in range(110)), return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 100
    assert (await w.catalog.totals()).files == 300
    # what is in the sums holds nothing back any more
    for n in range(10):
        await w.tree.delete(f"d/{n}")
    for n in range(10):
        await w.put(f"last{n}", b"")
    with pytest.raises(Full):
        await w.put("more", b"")


@virtual("a", rules=rule(copies=1), quota_bytes=1000)
async def test_links_are_held_against_the_quota(w: World) -> None:
    w.place("a").put("theirs", b"x" * 600)
    await w.put("f", b"y" * 500)
    with pytest.raises(Full, match="quota of 1000 bytes"):
        await link(w.tree, "l", "a", "theirs")
    await w.put("f", b"y" * 400)
    await link(w.tree, "l", "a", "theirs")
    with pytest.raises(Full):
        await w.put("g", b"z")


# -- the edge of a quota


@virtual("a", rules=rule(copies=1), quota_bytes=1000)
async def test_what_is_just_being_counted_counts_once(w: World) -> None:
    commit = w.catalog.commit_put

    async def slow(*args: Any, **named: Any) -> Any:
        entry = await commit(*args, **named)
        await asyncio.sleep(1)
        return entry

    w.catalog.commit_put = slow  # type: ignore[method-assign]
    first = asyncio.create_task(w.put("f", b"x" * 500))
    while not (await w.catalog.totals()).files:
        await asyncio.sleep(0.01)
    await w.put("g", b"y" * 500)
    await first
    with pytest.raises(Full):
        await w.put("h", b"z")


@virtual("a", rules=rule(copies=1), quota_bytes=6 << 20)
async def test_a_long_upload_may_take_what_was_deleted_since_it_began(w: World) -> None:
    await w.put("f", b"x" * (4 << 20))
    upload = asyncio.create_task(w.tree.put("g", stream(4 << 20, 64 * KIB)))
    await asyncio.sleep(0.2)
    assert not upload.done()
    await w.tree.delete("f")
    await upload
    assert len(await w.read("g")) == 4 << 20


# -- several processes


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue says that others have it open too."""
    monkeypatch.setattr(InlineCatalog, "shared", property(lambda self: True))


def another(w: World) -> Tree:
    """The directory as another process serves it: it knows nothing of this one's writes."""
    return Tree(w.catalog, w.mesh, w.journal, now=w.now)


@pytest.mark.usefixtures("shared")
@virtual("ab", rules=rule(copies=2), quota_bytes=10_000, quota_files=12)
async def test_two_processes_never_exceed_a_quota_together(w: World) -> None:
    trees = (w.tree, another(w))
    done = await asyncio.gather(
        *(trees[n % 2].put(f"f{n}", chunked(b"x" * 1500, 3), size=1500) for n in range(20)), return_exceptions=True
    )
    assert {type(one) for one in done if isinstance(one, BaseException)} == {Full}
    assert (await w.catalog.totals()).files == 6
    done = await asyncio.gather(
        *(trees[n % 2].put(f"e{n}", chunked(b"", 1), size=0) for n in range(20)), return_exceptions=True
    )
    assert (await w.catalog.totals()).files == 12
    await w.settle()
    assert len(w.objects("a")) == len(w.objects("b")) == 12


@pytest.mark.usefixtures("shared")
@virtual([store("a", 1), store("b", 1)], rules=rule(copies=2), max_monthly_nanos=10_000)
async def test_two_processes_never_spend_more_together(w: World) -> None:
    trees = (w.tree, another(w))
    done = await asyncio.gather(
        *(trees[n % 2].put(f"f{n}", chunked(b"x" * 900, 3), size=900) for n in range(20)), return_exceptions=True
    )
    assert {type(one) for one in done if isinstance(one, BaseException)} == {OverBudget}
    assert (await w.catalog.totals()).files == 5


@pytest.mark.usefixtures("shared")
@virtual("ab", rules=rule(copies=2), quota_bytes=3000)
async def test_a_write_over_a_file_that_is_refused_in_the_end_leaves_what_was_there(w: World) -> None:
    await w.put("f", b"x" * 1000)
    other = another(w)
    one, two = await asyncio.gather(
        w.put("f", b"y" * 2500), other.put("g", chunked(b"z" * 1500, 3), size=1500), return_exceptions=True
    )
    assert {type(one), type(two)} == {Full, Entry}
    assert await w.read("f") == (b"x" * 1000 if isinstance(one, Full) else b"y" * 2500)
    # what takes less is written in place, and never refused
    await w.put("f", b"w" * 900)
    await w.settle()
    assert w.objects("a")["f"] == b"w" * 900
    assert len(w.objects("a")) == (await w.catalog.totals()).files


@pytest.mark.usefixtures("shared")
@virtual([store("a", 1), store("b", 1)], rules=rule(1), max_monthly_nanos=2500)
@pytest.mark.parametrize("lowered", [False, True])
async def test_a_smaller_content_that_is_refused_for_money_leaves_what_was_there(w: World, lowered: bool) -> None:
    await w.put("f", b"o" * 1000)
    await w.put("h", b"o" * 1000)
    # there is no money for further copies
    await w.use(rules=rule(2, min_copies=1))
    await asyncio.sleep(60)
    assert await w.states("f") == "a:Whole"

    async def content() -> AsyncIterator[bytes]:
        yield b"n" * 300
        if lowered:
            await w.use(max_monthly_nanos=2100)
        else:
            await another(w).put("g", chunked(b"g" * 100, 1), size=100)
        yield b"n" * 400

    with pytest.raises(OverBudget):
        await w.tree.put("f", content(), size=700)
    assert w.objects("a")["f"] == b"o" * 1000
    await asyncio.sleep(600)
    assert await w.read("f") == b"o" * 1000
    assert w.holders(b"n" * 700) == ""


@pytest.mark.usefixtures("shared")
@virtual([store("a", 1), store("b", 1)], rules=rule(2), max_monthly_nanos=2500)
async def test_a_content_that_costs_no_more_is_written_in_place_whatever_others_take(w: World) -> None:
    await w.put("f", b"o" * 1000)

    async def content() -> AsyncIterator[bytes]:
        yield b"n" * 300
        await w.use(max_monthly_nanos=100)
        yield b"n" * 600

    await w.tree.put("f", content(), size=900)
    assert w.objects("a") == w.objects("b") == {"f": b"n" * 900}


@pytest.mark.usefixtures("shared")
@virtual([store("a", 1), store("b", 1), store("c", 5)], rules=rule(2, min_copies=2), max_monthly_nanos=4300)
@pytest.mark.parametrize("away", [True, False])
async def test_what_was_written_over_the_only_content_isnt_taken_back_for_money(w: World, away: bool) -> None:
    await w.put("f", b"o" * 1000)

    async def content() -> AsyncIterator[bytes]:
        yield b"n" * 300
        await another(w).put("g", chunked(b"g" * 200, 1), size=200)
        # the dear store has to take the place of one that is full, or nobody knows what it has
        if away:
            w.faults.down.add("b")
        else:
            w.place("b").room = 1
        yield b"n" * 400

    if away:
        await w.tree.put("f", content(), size=700)
    else:
        with pytest.raises(OverBudget):
            await w.tree.put("f", content(), size=700)
    expected = b"n" * 700 if away else b"o" * 1000
    assert await w.read("f") == expected
    w.faults.down.clear()
    w.place("b").room = None
    await w.back()
    await w.settle()
    assert await w.read("f") == expected
    assert w.holders(expected) == "ab"


@pytest.mark.usefixtures("shared")
@virtual("a", rules=rule(copies=1), quota_files=3)
async def test_restores_through_two_processes_never_exceed_a_quota(w: World) -> None:
    gone = []
    for n in range(2):
        await w.put(f"d{n}/one", b"")
        await w.put(f"d{n}/two", b"")
        gone.append(await w.tree.delete(f"d{n}", recursive=True))
    done = await asyncio.gather(
        w.tree.restore(gone[0].id), another(w).restore(gone[1].id), return_exceptions=True
    )  # fmt: skip
    assert sorted(type(one).__name__ for one in done) == ["Entry", "Full"]
    assert (await w.catalog.totals()).files == 2


# -- what is there already


@virtual("a", rules=rule(copies=1), quota_bytes=1000, quota_files=3)
async def test_what_is_found_is_taken_in_over_the_quota_and_nothing_comes_beside_it(w: World) -> None:
    for number in range(4):
        w.place("a").put(f"lab/f{number}", b"x" * 400)
    await scan(w.tree, w.member("a"))
    await w.settle()
    totals = await w.catalog.totals()
    assert (totals.files, totals.bytes) == (4, 1600)
    with pytest.raises(Full, match="quota"):
        await w.put("g", b"y")
    with pytest.raises(Full, match="quota"):
        await w.put("f0", b"y" * 401)
    # who goes back below it is let in
    for number in range(3):
        await w.tree.delete(f"f{number}")
    await w.put("g", b"y" * 600)
    assert (await w.catalog.totals()).bytes == 1000


@virtual("ab", rules=rule(copies=2), quota_bytes=1000)
async def test_what_a_process_left_almost_written_counts_and_is_not_lost(w: World) -> None:
    w.faults.planned.append(Fault("b", "publish", error=None, key="lab/f"))
    writing = asyncio.create_task(w.put("f", b"x" * 800))
    await asyncio.sleep(5)
    assert not writing.done()
    w.faults.planned.clear()
    # the limit is another one by the time somebody finishes it
    w.config = msgspec.structs.replace(w.config, quota_bytes=500)
    await w.restart()
    await w.settle()
    assert await w.read("f") == b"x" * 800
    assert (await w.catalog.totals()).bytes == 800
    with pytest.raises(Full, match="quota of 500 bytes"):
        await w.put("g", b"y")
