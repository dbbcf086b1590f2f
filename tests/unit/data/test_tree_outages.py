"""Stores that go, lie, lose, and come back; what people read and what the mover mends."""

import asyncio
import re
from typing import Any

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.errors import Full, Missing
from cloudmesh.data.mesh import MARKER
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient
from cloudmesh.testing.directories.world import Fault, World, chunked

OLD, NEW = b"old content " * 50, b"new content, longer " * 60
TWO = {"rules": (PlacementRule(prefer="Sequential", copies=2, min_copies=2),)}


@virtual()
async def test_read_fails_over(w: World):
    await w.put("d/f", OLD)
    w.faults.down.add("a")
    assert await w.read("d/f") == OLD
    assert w.member("a").state == "Unknown"
    w.faults.down.add("b")
    with pytest.raises(Transient, match="no copy of 'f' could be read"):
        await w.read("d/f")


@virtual()
async def test_read_fails_over_in_the_middle(w: World):
    content = bytes(range(256)) * (5 << 12)
    await w.put("big", content)
    w.place("a").reads_end = 2 << 20
    w.member("b").latency_ms = 5
    assert await w.read("big") == content
    assert await w.read("big", start=7, length=4 << 20) == content[7 : 7 + (4 << 20)]


@virtual()
async def test_write_goes_on_during_an_outage_and_is_repaired(w: World):
    await w.put("f", OLD)
    w.faults.down.add("a")
    await w.put("f", NEW)
    await w.put("new", NEW)
    assert (await w.states("f")).startswith("a:Stale b:Whole")
    await asyncio.sleep(100)
    assert w.member("a").state == "Gone"
    assert await w.states("f") == "a:Stale b:Whole c:Whole"
    assert w.objects("a")["f"] == OLD
    w.faults.clear()
    await w.back()
    await w.settle()
    # the copy that came back old is no copy: it was renewed, or removed for the one that replaced it
    assert w.objects("a").get("f") in (None, NEW)
    assert len(w.holders(NEW)) == 2
    assert (await w.states("f")).count("Whole") == 2
    assert "Stale" not in await w.states("f")


@virtual()
async def test_object_changed_behind_our_back_is_not_read(w: World):
    await w.put("f", OLD)
    key = "lab/f"
    w.place("a").put(key, b"somebody else's")
    assert await w.read("f") == OLD
    await w.settle()
    assert await w.read("f") == OLD
    # what somebody else wrote is a file of its own, and ours is whole again
    first, second = [one.path for one in await w.tree.walk("")]
    assert first == "f"
    assert re.fullmatch(r"f \(conflict a \d{4}-\d\d-\d\d\)", second)
    assert await w.read(second) == b"somebody else's"
    await asyncio.sleep(700)
    await w.settle()
    assert w.objects("a") == {"f": OLD, second: b"somebody else's"}


@virtual(**TWO)
async def test_a_read_through_another_gateway_while_it_is_written_in_place(w: World):
    await w.put("f", OLD)
    other = Tree(w.catalog, w.mesh, w.journal, now=w.now)
    commit = w.catalog.commit_put

    async def late(*asked: Any, **told: Any) -> Any:
        await asyncio.sleep(1)
        return await commit(*asked, **told)

    w.catalog.commit_put = late
    writing = asyncio.create_task(w.put("f", NEW))
    await asyncio.sleep(0.5)
    assert w.holders(NEW) == "ab"
    _, chunks = await other.read("f")
    assert b"".join([chunk async for chunk in chunks]) == NEW
    await writing
    assert await w.states("f") == "a:Whole b:Whole"
    assert not (await w.catalog.totals()).states


@virtual()
async def test_lost_object_is_found_by_reading_and_mended(w: World):
    await w.put("f", OLD)
    w.lose("a", "f")
    assert await w.read("f") == OLD
    await w.settle()
    assert w.holders(OLD) == "ab"


@virtual()
async def test_drop_waits_for_proof_of_the_others(w: World):
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3),))
    await w.put("f", OLD)
    w.lose("b", "f")
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=2, only=("a", "b")),))
    for _ in range(40):
        # at no moment fewer than two
        assert len(w.holders(OLD)) >= 2
        await asyncio.sleep(0.5)
    await w.settle()
    assert w.holders(OLD) == "ab"


@virtual()
async def test_no_drop_while_a_wanted_store_is_away(w: World):
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=2, only=("b", "c")),))
    await w.put("f", OLD)
    w.faults.down.add("a")
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=2, only=("a", "b")),))
    await asyncio.sleep(200)
    assert w.holders(OLD) == "bc"
    w.faults.clear()
    await w.back()
    await w.settle()
    assert w.holders(OLD) == "ab"


@virtual()
async def test_drain_moves_off_and_policy_moves(w: World):
    for number in range(20):
        await w.put(f"f{number}", b"%d" % number * 100)
    await w.access("a", "Drain")
    await w.settle()
    assert w.objects("a") == {}
    assert [w.holders(b"%d" % n * 100) for n in range(20)] == ["bc"] * 20
    await w.access("a", "ReadWrite")
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=1, only=("a",)),))
    await w.settle()
    assert [w.holders(b"%d" % n * 100) for n in range(20)] == ["a"] * 20


@virtual(verify_seconds=1000)
async def test_scrub_finds_a_flipped_bit(w: World):
    await w.put("f", OLD)
    w.flip("a", "f")
    await asyncio.sleep(1100)
    await w.settle()
    assert w.mover.done.corrupt == 1
    assert w.holders(OLD) == "ab"


@virtual()
async def test_flipped_bit_is_never_read(w: World):
    await w.put("f", OLD)
    w.flip("a", "f")
    w.member("b").latency_ms = 5
    assert await w.read("f") == OLD
    await w.settle()
    assert w.holders(OLD) == "ab"


@virtual()
async def test_policy_changed_while_a_file_is_written(w: World):
    async def slow():
        await asyncio.sleep(5)
        yield OLD

    writing = asyncio.create_task(w.tree.put("f", slow(), size=len(OLD)))
    await asyncio.sleep(1)
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=1, only=("c",)),))
    await writing
    await w.settle()
    assert w.holders(OLD) == "c"


# -- stores that aren't what they were


@pytest.mark.parametrize("whole", [True, False])
@virtual()
async def test_emptied_store_is_not_believed(w: World, whole: bool):
    for number in range(5):
        await w.put(f"f{number}", OLD)
    kept = dict(w.place("a").objects)
    for key in kept:
        if whole or not key.endswith(MARKER):
            w.place("a").remove(key)
    assert await w.read("f1") == OLD
    await asyncio.sleep(20)
    assert len(await w.tree.walk("")) == 5
    if whole:
        assert w.member("a").state == "Suspicious"
        assert "marker" in w.member("a").message
        # not one copy was given up, and nothing was written into the wrong place
        assert [(await w.copies(f"f{n}"))["a"].state for n in range(5)] == ["Whole"] * 5
        assert w.place("a").objects == {}
        for key, held in kept.items():
            w.place("a").objects[key] = held
        await w.back()
    for number in range(5):
        assert await w.read(f"f{number}") == OLD


@virtual()
async def test_deleted_while_a_store_is_unmounted_does_not_come_back(w: World):
    await w.use(trash_seconds=0)
    await w.put("f", OLD)
    kept = dict(w.place("a").objects)
    for key in kept:
        w.place("a").remove(key)
    await w.tree.delete("f")
    await asyncio.sleep(100)
    # the store says that it has nothing: that proves nothing
    assert await w.catalog.at_key("a", "lab/f") is not None
    for key, held in kept.items():
        w.place("a").objects[key] = held
        w.place("a")._changed(key, held.object)
    await w.back()
    await w.settle()
    assert w.objects("a") == {}
    assert await w.tree.walk("") == []


@virtual()
async def test_wrong_bucket_is_not_believed(w: World):
    await w.put("f", OLD)
    other = w.place("a").objects[f"lab/{MARKER}"].content.replace(b'"id":"', b'"id":"another')
    w.place("a").put(f"lab/{MARKER}", other)
    await asyncio.sleep(15)
    assert w.member("a").state == "Suspicious"
    assert await w.read("f") == OLD
    await w.put("g", NEW)
    assert w.holders(NEW) == "bc"


def test_second_directory_on_a_prefix(tmp_path):
    @virtual()
    async def first(w: World):
        await w.put("f", OLD)
        config = w.config
        (tmp_path / "second").mkdir()
        second = World(tmp_path / "second", [])
        second.config = type(config)(
            "ns", "other", "uid2", "installation", config.stores, rules=config.rules, verify_seconds=0
        )
        second.faults = w.faults
        await w.journal.flush()
        before = {name: dict(w.place(name).objects) for name in w.names}
        await second.start()
        try:
            assert {m.state for m in second.mesh.members.values()} == {"Claimed"}
            with pytest.raises(CloudmeshError):
                await second.put("mine", NEW)
            assert await second.tree.walk("") == []
            await asyncio.sleep(50)
            assert {name: dict(w.place(name).objects) for name in w.names} == before
        finally:
            second.mesh.members.clear()

    first(tmp_path)


SAME = [StoreConfig("a", "memory"), *(StoreConfig(n, "memory", settings={"place": "same-place"}) for n in "bc")]


@virtual(SAME)
async def test_one_place_is_not_two_stores(w: World):
    states = sorted(m.state for m in w.mesh.members.values())
    assert states == ["Claimed", "Up", "Up"]


@virtual()
async def test_what_no_object_carries_is_in_the_journal_when_a_write_is_acknowledged(w: World):
    async def unwritten() -> int:
        return len(await w.catalog.unwritten())

    await w.journal.flush()
    await w.put("plain", b"x")
    assert await unwritten() == 1
    await w.put("tagged", b"x", tags={"of": "mine"})
    assert await unwritten() == 0
    await w.put("typed", b"x", content_type="text/csv")
    assert await unwritten() == 0
    await w.tree.move("plain", "moved")
    # the object of that name is another file's still
    await w.put("plain", b"y")
    assert w.objects("a")["plain"] == b"x"
    assert await unwritten() == 0


@virtual()
async def test_journal_store_down(w: World):
    await w.put("d/f", OLD)
    w.faults.down.add("a")
    await w.tree.move("d", "e")
    assert await w.read("e/f") == OLD
    w.faults.down.update("bc")
    with pytest.raises(Transient):
        await w.tree.move("e", "h")
    w.faults.clear()
    await w.back()
    # it was done here, and is told to the stores now
    assert await w.read("h/f") == OLD
    await w.settle()
    await w.journal.flush()
    anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
    assert (await anew.entry("h/f")) is not None
    anew.vanish()


@virtual()
async def test_false_not_found_of_the_only_copy_is_taken_back(w: World):
    await w.use(rules=(PlacementRule(copies=1, prefer="Sequential"),))
    await w.put("f", OLD)
    w.faults.planned.append(Fault("a", "read", "before", Missing("there is no such object"), "lab/f"))
    with pytest.raises(Transient):
        await w.read("f")
    await w.settle()
    assert await w.read("f") == OLD


# -- trash


@virtual()
async def test_purge_waits_for_an_absent_store(w: World):
    await w.use(trash_seconds=100)
    await w.put("d/f", OLD)
    await w.put("d/g", OLD)
    w.faults.down.add("a")
    gone = await w.tree.delete("d", recursive=True)
    await asyncio.sleep(50)
    assert [t.path for t in await w.tree.trash()] == ["d"]
    await asyncio.sleep(200)
    assert w.objects("b") == {}
    assert sorted(w.objects("a")) == ["d/f", "d/g"]
    with pytest.raises(Missing):
        await w.tree.restore(gone.id)
    w.faults.clear()
    await w.back()
    await w.settle()
    assert w.objects("a") == {}
    assert await w.tree.trash() == []


@virtual()
async def test_restore_brings_back(w: World):
    await w.put("d/f", OLD)
    gone = await w.tree.delete("d", recursive=True)
    await w.put("d/f", NEW)
    with pytest.raises(Conflict):
        await w.tree.restore(gone.id)
    await w.tree.restore(gone.id, "before")
    assert (await w.read("before/f"), await w.read("d/f")) == (OLD, NEW)
    await w.settle()
    assert (w.holders(OLD), w.holders(NEW)) == ("ab", "ab")


# -- names and quota


@virtual()
async def test_key_that_is_taken_is_never_overwritten(w: World):
    await w.put("f", OLD)
    await w.tree.move("f", "g")
    await w.put("f", NEW)
    assert (await w.read("g"), await w.read("f")) == (OLD, NEW)
    keys = {copy.key for copy in (await w.copies("f")).values()}
    assert all(key.startswith("lab/f.~") for key in keys)
    await w.put("f", NEW + b"2")
    assert {copy.key for copy in (await w.copies("f")).values()} == keys


@virtual()
async def test_existing_file_of_a_store_is_adopted_not_overwritten(w: World):
    await asyncio.sleep(5)
    w.place("a").put("lab/mine", b"it was there")
    await w.put("mine", NEW)
    assert w.place("a").objects["lab/mine"].content == b"it was there"
    await w.settle()
    w._scanned.clear()
    await asyncio.sleep(3)
    await w.settle()
    assert await w.read("mine") == NEW
    (second,) = [one.path for one in await w.tree.walk("") if one.path != "mine"]
    assert second.startswith("mine (conflict a ")
    assert await w.read(second) == b"it was there"


@virtual(quota_bytes=1000)
async def test_quota_in_mid_upload(w: World):
    await w.put("f", b"x" * 600)
    with pytest.raises(Full):
        await w.put("g", b"x" * 500)
    with pytest.raises(Full):
        await w.tree.put("g", chunked(b"x" * (2 << 20), 9))
    assert [f.path for f in await w.tree.walk("")] == ["f"]
    assert {name: list(w.objects(name)) for name in "abc"} == {"a": ["f"], "b": ["f"], "c": []}
    await w.put("f", b"y" * 900)
    assert (await w.tree.totals()).bytes == 900
