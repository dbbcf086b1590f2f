"""The mover dies, fails and meets writers: no copy is lost, none is unknown."""

import asyncio

import pytest
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Missing
from cloudmesh.data.model import MICROS
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.directories.world import Fault, World

OLD, NEW = b"old content " * 50, b"new content, longer " * 60
BC = (PlacementRule(prefer="Sequential", only=("b", "c")),)


async def all_known(w: World) -> None:
    for store in w.names:
        for name in w.objects(store):
            copy = await w.catalog.at_key(store, f"lab/{name}")
            assert copy is not None, (store, name)
            assert copy.tag == w.place(store).objects[f"lab/{name}"].object.tag


def test_death_at_every_call_of_a_move_between_stores(tmp_path):
    async def moved(w: World) -> None:
        await asyncio.wait({asyncio.create_task(w.use())})
        await w.settle()

    async def at(w: World, number: int) -> bool:
        await w.put("f", OLD)
        await w.settle()
        w.config = type(w.config)(**{f: getattr(w.config, f) for f in w.config.__struct_fields__} | {"rules": BC})
        dead = await died(w, number, moved(w))
        # at no moment fewer than two
        assert len(w.holders(OLD)) >= 2
        await w.restart()
        await w.back()
        await w.settle()
        assert await w.read("f") == OLD
        assert w.holders(OLD) == "bc", number
        await all_known(w)
        return dead

    assert 10 < until_it_lives(at, tmp_path, 300) < 150


@pytest.mark.parametrize("silent", [False, True])
@virtual()
async def test_answer_to_a_copy_is_lost(w: World, silent: bool):
    await w.put("f", OLD)
    w.faults.planned.append(Fault("c", "publish", "after", key="lab/f"))
    if silent:
        w.faults.planned.append(Fault("c", "stat", key="lab/f", times=2))
    await w.use(rules=BC)
    await asyncio.sleep(3)
    await all_known(w)
    await w.settle()
    assert w.holders(OLD) == "bc"
    await all_known(w)


@virtual()
async def test_deleted_while_a_copy_of_unknown_outcome_is_left(w: World):
    await w.use(trash_seconds=0)
    await w.put("f", OLD)
    w.faults.planned.append(Fault("c", "publish", "after", key="lab/f"))
    w.faults.planned.append(Fault("c", "stat", key="lab/f", times=2))
    await w.use(rules=BC)
    await asyncio.sleep(1)
    await w.tree.delete("f")
    await w.settle()
    assert [w.objects(name) for name in w.names] == [{}, {}, {}]


@virtual()
async def test_what_a_dead_mover_wrote_of_a_file_in_the_trash_is_known(w: World):
    await w.put("f", OLD)
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3),))
    # it is written, and the process dies before that is on record
    w.faults.planned.append(Fault("c", "publish", "after", None, key="lab/f"))
    await asyncio.sleep(1)
    assert "f" in w.objects("c")
    await w.tree.delete("f")
    await w.restart()
    await w.settle()
    await all_known(w)
    await w.tree.restore((await w.catalog.trash(limit=10))[0].entry.id)
    await w.settle()
    assert w.holders(OLD) == "abc"
    await all_known(w)


@pytest.mark.parametrize("store", ["a", "b", "c"])
@virtual()
async def test_overwritten_while_it_is_copied(w: World, store: str):
    content = bytes(5 << 20)
    await w.put("f", content)
    w.faults.planned.append(Fault("c", "publish", error=None, key="lab/f"))
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3),))
    await asyncio.sleep(1)
    # the copy of the old content is about to appear
    entry = await w.put("f", NEW)
    assert entry.version == 2
    assert await w.read("f") == NEW
    w.lose(store, "f")
    await w.restart()
    await w.back()
    await w.use(verify_seconds=60)
    await asyncio.sleep(100)
    await w.settle()
    assert w.holders(NEW) == "abc"
    await all_known(w)


@virtual()
async def test_restored_while_it_is_removed(w: World):
    await w.use(trash_seconds=100)
    await w.put("f", OLD)
    gone = await w.tree.delete("f")
    await asyncio.sleep(99)
    back = await w.tree.restore(gone.id)
    await asyncio.sleep(100)
    assert await w.read("f") == OLD
    assert (await w.copies("f")).keys() == {"a", "b"}
    await w.tree.delete("f")
    w.faults.down.update("ab")
    await asyncio.sleep(101)
    # its time is over, though nothing was removed yet
    with pytest.raises(Missing, match="too long ago"):
        await w.tree.restore(back.id)


@virtual()
async def test_source_that_is_corrupt_is_not_copied(w: World):
    await w.put("f", OLD)
    w.flip("a", "f")
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3),))
    await w.settle()
    assert w.holders(OLD) == "abc"
    assert w.mover.done.corrupt == 1


@virtual()
async def test_both_copies_corrupt_is_told_and_never_hidden(w: World):
    await w.put("f", OLD)
    w.flip("a", "f")
    w.flip("b", "f")
    for _ in range(2):
        with pytest.raises(Exception, match="no copy of 'f' could be read"):
            await w.read("f")
        await asyncio.sleep(100)
    assert await w.states("f") == "a:Corrupt b:Corrupt"
    assert (await w.tree.totals()).states == {"Corrupt": 2}
    # one comes back from a backup of somebody's
    held = w.place("b").objects["lab/f"]
    w.place("b").put("lab/f", OLD, held.object.attributes)
    await asyncio.sleep(4000)
    assert await w.read("f") == OLD
    assert w.holders(OLD) == "ab"


@virtual()
async def test_catalogue_that_fails_stops_nothing_for_good(w: World):
    await w.put("f", OLD)
    w.faults.planned.append(Fault("catalog", "", times=200))
    w.faults.down.add("a")
    await asyncio.sleep(30)
    w.faults.clear()
    await w.back()
    await w.use(rules=BC)
    await w.settle()
    assert w.holders(OLD) == "bc"


@virtual()
async def test_a_directory_of_the_tree_that_is_due_is_done_with(w: World):
    entry = await w.tree.mkdir("d")
    await w.catalog.looked(entry.id, entry.version, w.now())
    await w.settle(60)
    assert await w.catalog.next_due() == 0


@virtual()
async def test_a_clock_that_is_set_back_puts_nothing_off(w: World):
    w.skew = 3000 * MICROS
    await w.put("f", OLD)
    await asyncio.sleep(15)
    w.faults.planned.append(Fault("c", "publish", error=Conflict("not now")))
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3),))
    await asyncio.sleep(5)
    assert w.holders(OLD) == "ab"
    w.skew = 0
    await asyncio.sleep(30)
    assert w.holders(OLD) == "abc"
