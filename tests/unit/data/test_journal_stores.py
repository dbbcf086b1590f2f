"""What is acknowledged lies in two stores: whichever is lost or leaves, the others know all names, tags and ends."""

import asyncio
from typing import Any

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.catalog.journal import JOURNAL, SNAPSHOT
from cloudmesh.data.catalog.rebuild import Source, rebuild
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Full
from cloudmesh.data.stores.memory import MemoryStore
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.directories.world import Fault, InlineCatalog, World

RULES = (PlacementRule(prefer="Sequential", copies=3),)


async def acts(w: World) -> None:
    """One of each change that moves no bytes."""
    for name in ("one", "two", "three"):
        await w.put(name, name.encode())
    await w.settle()
    await changes(w)


async def changes(w: World, end: str = "") -> None:
    """Those alone."""
    await w.tree.mkdir(f"d{end}")
    await w.tree.move("one", f"d{end}/renamed")
    await w.tree.set_tags("two", {"colour": f"red{end}"})
    await w.tree.delete("three")


def journals(w: World, store: str) -> list[str]:
    """Names of journal objects."""
    return sorted(key.rpartition("/")[2] for key in w.place(store).objects if JOURNAL in key)


async def known(w: World, stores: str) -> dict[str, Any]:
    """What these stores alone know."""
    w.lives += 1
    catalog = InlineCatalog(w.folder / f"again{w.lives}-{stores}.sqlite", clock=w.now)
    await catalog.open()
    await rebuild([Source(name, "lab/", MemoryStore(w.place(name))) for name in stores], catalog, now=w.now())
    found: dict[str, Any] = {one.path: dict(one.entry.tags) for one in await catalog.walk("")}
    found["trash"] = [thing.path for thing in await catalog.trash()]
    return found


ALL = {"d": {}, "d/renamed": {}, "two": {"colour": "red"}, "trash": ["three"]}


@virtual("abc", rules=RULES)
async def test_any_one_store_may_be_lost(w: World):
    await acts(w)
    await asyncio.sleep(1)
    for others in ("bc", "ac", "ab"):
        assert await known(w, others) == ALL


@virtual("abc", rules=RULES)
async def test_a_second_store_that_hangs_keeps_nobody_waiting(w: World):
    await acts(w)
    for store in "bc":
        w.faults.planned.append(Fault(store, "publish", error=None, key=JOURNAL))
    begun = w.clock()
    await w.tree.move("two", "2")
    assert w.clock() - begun < 1
    await asyncio.sleep(60)
    await w.back()
    await asyncio.sleep(60)
    # what it didn't take was copied to it, or to another one
    for others in ("bc", "ac", "ab"):
        assert "2" in await known(w, others)


@virtual("abc", rules=RULES)
async def test_a_second_store_that_fails_is_replaced(w: World):
    await acts(w)
    w.faults.planned.append(Fault("b", "publish", error=Transient("no"), key=JOURNAL, times=-1))
    await w.tree.move("two", "2")
    await asyncio.sleep(1)
    assert "2" in await known(w, "bc")


@virtual("abc", rules=RULES)
async def test_what_one_store_alone_has_is_copied_when_another_is_back(w: World):
    for name in ("one", "two", "three"):
        await w.put(name, name.encode())
    await w.settle()
    w.faults.down.update("bc")
    await asyncio.sleep(70)
    before = journals(w, "b"), journals(w, "c")
    await changes(w)
    assert (journals(w, "b"), journals(w, "c")) == before
    w.faults.down.clear()
    await w.back()
    await asyncio.sleep(15)
    assert await known(w, "bc") == ALL


@virtual("abc", rules=RULES)
async def test_what_a_lost_store_alone_has_is_written_down(w: World):
    for name in ("one", "two", "three"):
        await w.put(name, name.encode())
    await w.settle()
    w.faults.down.update("bc")
    await asyncio.sleep(70)
    await changes(w)
    # as the others come, it goes
    w.faults.down.clear()
    w.faults.down.add("a")
    await asyncio.sleep(100)
    assert w.member("a").state == "Gone"
    assert await known(w, "bc") == ALL
    (snapshot,) = [name for name in journals(w, "b") if SNAPSHOT in name]
    assert w.journal.snapshot_at
    # once: it isn't written down again and again while the store is away
    await asyncio.sleep(600)
    assert [name for name in journals(w, "b") if SNAPSHOT in name] == [snapshot]


@virtual("abc", rules=RULES)
async def test_a_store_that_is_lost_while_nobody_runs(w: World):
    await acts(w)
    # a journal of a process that wrote to one store
    for store in "bc":
        for name in journals(w, store):
            w.place(store).remove(f"lab/{JOURNAL}{name}")
    w.faults.down.add("a")
    await w.restart()
    await asyncio.sleep(100)
    assert await known(w, "bc") == ALL


@virtual("abc", rules=RULES)
async def test_a_journal_in_one_store_is_copied_at_the_next_start(w: World):
    await acts(w)
    for store in "bc":
        for name in journals(w, store):
            w.place(store).remove(f"lab/{JOURNAL}{name}")
    await w.restart()
    await asyncio.sleep(15)
    assert await known(w, "bc") == ALL


@virtual("abc", rules=RULES)
async def test_a_store_that_leaves_takes_nothing_along(w: World):
    await acts(w)
    for store in "bc":
        for name in journals(w, store):
            w.place(store).remove(f"lab/{JOURNAL}{name}")
    await w.restart()
    assert not w.journal.spares("a")
    await w.access("a", "Drain")
    w.faults.planned.append(Fault("b", "publish", error=Transient("no"), key=JOURNAL))
    w.faults.planned.append(Fault("c", "publish", error=Transient("no"), key=JOURNAL))
    while not w.journal.spares("a"):
        await asyncio.sleep(1)
    assert not w.faults.planned
    assert await known(w, "bc") == ALL
    await w.tree.move("d/renamed", "again")
    await asyncio.sleep(1)
    assert w.journal.spares("a")
    assert "again" in await known(w, "bc")


@virtual("abc", rules=RULES)
async def test_a_store_is_not_spared_before_what_it_alone_took_is_elsewhere(w: World):
    await acts(w)
    w.faults.down.update("bc")
    await asyncio.sleep(70)
    await w.tree.move("two", "2")
    await w.access("a", "Drain")
    await asyncio.sleep(30)
    assert not w.journal.spares("a")
    w.faults.down.clear()
    await w.back()
    await asyncio.sleep(15)
    assert w.journal.spares("a")
    assert "2" in await known(w, "bc")


@virtual("ab", rules=(PlacementRule(copies=2),))
async def test_a_second_store_that_refuses_a_snapshot_keeps_its_journal_and_gets_a_copy(w: World):
    await acts(w)
    await asyncio.sleep(10)
    before = journals(w, "b")
    # the copy is refused once too
    w.faults.planned.append(Fault("b", "publish", error=Full("full"), key=JOURNAL, times=2))
    await w.tree.journal.snapshot()
    (snapshot,) = journals(w, "a")
    assert SNAPSHOT in snapshot
    assert journals(w, "b") == before
    assert await known(w, "b") == ALL
    await asyncio.sleep(150)
    assert not w.faults.planned
    assert snapshot in journals(w, "b")
    # the next one takes the place of all that
    await w.tree.move("two", "2")
    await w.tree.journal.snapshot()
    assert len(journals(w, "a")) == len(journals(w, "b")) == 1
    assert "2" in await known(w, "b")


@virtual("abc", rules=RULES)
async def test_a_third_store_keeps_no_journal_that_a_snapshot_replaced(w: World):
    w.faults.planned.append(Fault("a", "publish", error=Transient("no"), key=JOURNAL, times=-1))
    await acts(w)
    await asyncio.sleep(1)
    assert journals(w, "c")
    w.faults.planned.clear()
    await w.tree.journal.snapshot()
    assert len(journals(w, "a")) == len(journals(w, "b")) == 1
    assert not journals(w, "c")


@pytest.mark.parametrize("first", ["a", "b"])
def test_stores_that_are_lost_one_after_the_other(tmp_path, first):
    @virtual("abc", rules=RULES)
    async def run(w: World):
        await acts(w)
        await asyncio.sleep(10)
        last = ({"a", "b"} - {first}).pop()
        w.faults.down.add(first)
        await asyncio.sleep(100)
        # two stores have each record: to copy those of which one is lost is enough
        assert not any(SNAPSHOT in name for name in journals(w, "c"))
        assert await known(w, "c") == ALL
        w.faults.down.add(last)
        await asyncio.sleep(100)
        assert await known(w, "c") == ALL

    run(tmp_path)
