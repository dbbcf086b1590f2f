"""Older contents of files: kept at each write, read, restored, given up, removed in time, and there after a rebuild."""

import asyncio

import pytest
from tests.unit.data.test_mover import all_known
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Changed, Missing
from cloudmesh.data.mesh import KEPT
from cloudmesh.engine.errors import CloudmeshError, Transient
from cloudmesh.testing.directories.model import snapshot
from cloudmesh.testing.directories.world import Fault, World

ONE, TWO, THREE = b"one " * 50, b"two, longer " * 60, b"three"


async def older(w: World, path: str = "f") -> list[bytes]:
    """Contents that can be restored, the newest first."""
    _, found = await w.tree.versions(path)
    return [await w.read(path, version=thing.entry.version) for thing in found]


def kept_objects(w: World, store: str) -> list[bytes]:
    prefix = f"lab/{KEPT}"
    return [held.content for key, held in sorted(w.place(store).objects.items()) if key.startswith(prefix)]


@virtual(versions=2)
async def test_a_write_keeps_what_was_there(w: World):
    await w.put("f", ONE)
    entry = await w.put("f", TWO)
    assert await older(w) == [ONE]
    assert (entry.version, (await w.catalog.totals()).bytes) == (2, len(TWO))
    # beside it at first, under its own name when things are quiet
    await w.settle()
    assert {key: w.objects("a")[key] for key in w.objects("a")} == {"f": TWO}
    assert kept_objects(w, "a") == kept_objects(w, "b") == [ONE]
    assert await older(w) == [ONE]
    await all_known(w)


@virtual(versions=2)
async def test_as_many_as_are_kept(w: World):
    for content in (ONE, TWO, THREE, b"four", b"five"):
        await w.put("f", content)
    await w.settle()
    assert await older(w) == [b"four", THREE]
    assert sorted(w.objects("a").values()) == sorted([b"four", THREE, b"five"])
    assert w.objects("a")["f"] == b"five"
    assert w.holders(ONE) == w.holders(TWO) == ""
    await w.use(versions=1)
    await w.settle()
    assert await older(w) == [b"four"]
    await w.use(versions=0)
    await w.settle()
    assert await older(w) == []
    assert [kept_objects(w, store) for store in "abc"] == [[], [], []]
    assert w.objects("a") == {"f": b"five"}


@virtual(versions=3)
async def test_fewer_are_kept_from_now_on(w: World):
    first = await w.put("f", ONE)
    second = await w.put("f", TWO)
    entry = await w.put("f", THREE)
    await w.settle()

    async def over(version: int) -> None:
        for refused in (
            w.read("f", version=version), w.tree.version("f", version), w.tree.restore_version("f", version),
            w.tree.delete_version("f", version),
        ):  # fmt: skip
            with pytest.raises(Missing, match=f"no version {version} any more"):
                await refused

    await w.use(versions=1)
    # nothing was removed yet: what isn't listed can't be had all the same
    assert len(await w.catalog.versions(entry.id)) == 2
    assert await older(w) == [TWO]
    await over(first.version)
    assert await w.read("f", version=second.version) == TWO
    await w.use(versions=0)
    assert await w.catalog.versions(entry.id)
    assert await older(w) == []
    await over(second.version)
    assert await w.read("f", version=entry.version) == THREE


@virtual(versions=9, trash_seconds=1000)
async def test_no_longer_than_what_was_deleted(w: World):
    await w.put("f", ONE)
    await asyncio.sleep(500)
    await w.put("f", TWO)
    await w.settle()
    await asyncio.sleep(900)
    assert await older(w) == [ONE]
    await asyncio.sleep(200)
    await w.settle()
    assert (await older(w), kept_objects(w, "a")) == ([], [])
    assert await w.read("f") == TWO


@virtual(versions=3)
async def test_restore(w: World):
    first = await w.put("f", ONE, mtime=5_000_000)
    second = await w.put("f", TWO)
    with pytest.raises(Changed):
        await w.tree.restore_version("f", first.version, if_version=first.version)
    with pytest.raises(Missing):
        await w.tree.restore_version("f", 77)
    entry = await w.tree.restore_version("f", first.version, if_version=second.version)
    assert (entry.version, entry.mtime, entry.sha256) == (3, 5_000_000, first.sha256)
    assert await w.read("f") == ONE
    assert await older(w) == [TWO, ONE]


@virtual(versions=3)
async def test_given_up(w: World):
    for content in (ONE, TWO, THREE):
        await w.put("f", content)
    await w.tree.delete_version("f", 1)
    assert await older(w) == [TWO]
    await w.settle()
    assert w.holders(ONE) == ""
    with pytest.raises(Missing):
        await w.read("f", version=1)
    with pytest.raises(Missing):
        await w.tree.delete_version("f", 3)
    assert await w.read("f", version=3) == THREE


@virtual(versions=3, trash_seconds=1000)
async def test_with_the_file_through_rename_trash_and_end(w: World):
    await w.put("f", ONE)
    await w.put("f", TWO)
    await w.tree.move("f", "g")
    await w.settle()
    assert await older(w, "g") == [ONE]
    entry = await w.tree.delete("g")
    assert [thing.entry.id for thing in await w.tree.trash()] == [entry.id]
    await w.tree.restore(entry.id)
    assert await older(w, "g") == [ONE]
    with pytest.raises(Missing):
        # an older content is no file that was deleted
        await w.tree.restore((await w.catalog.versions(entry.id))[0].entry.id)
    await w.tree.delete("g")
    await asyncio.sleep(1001)
    await w.settle()
    assert [len(w.objects(s)) + len(kept_objects(w, s)) for s in "abc"] == [0, 0, 0]
    assert await w.catalog.trash(versions=True) == []


@virtual(versions=3)
async def test_a_write_that_fails_leaves_all_as_it_was(w: World):
    await w.use(rules=(PlacementRule(prefer="Sequential", min_copies=2),))
    await w.put("f", ONE)
    await w.settle()
    w.faults.planned += [Fault("b", "publish", times=9), Fault("c", "publish", times=9)]
    with pytest.raises(Transient):
        await w.put("f", TWO)
    assert await w.read("f") == ONE
    w.faults.clear()
    await w.settle()
    assert (await older(w), w.holders(TWO)) == ([], "")
    await w.put("f", TWO)
    assert await older(w) == [ONE]


@virtual(versions=2, rules=(PlacementRule(prefer="Sequential", copies=1),))
async def test_the_older_content_has_the_name_that_is_left_in_a_store(w: World):
    await w.put("f", ONE)
    await w.tree.delete("f")
    # what is in the trash has the file's own name there: this one has its id behind it
    entry = await w.put("f", TWO)
    assert w.objects("a") == {"f": ONE, f"f.~{entry.id}": TWO}
    # away for a while: the new content is elsewhere, and the older one keeps its object
    w.faults.down.add("a")
    await asyncio.sleep(60)
    await w.put("f", THREE)
    assert (w.holders(THREE), await w.states("f")) == ("b", "b:Whole")
    w.faults.down.clear()
    await w.back()
    await w.settle()
    assert (w.holders(THREE), await w.states("f"), w.objects("a")["f"]) == ("a", "a:Whole", THREE)
    assert (w.mover.done.failed, await older(w)) == (0, [TWO])
    await all_known(w)


@virtual(versions=2, rules=(PlacementRule(prefer="Sequential", copies=1),))
async def test_a_write_where_the_older_content_has_the_name_that_is_left(w: World):
    await w.put("f", ONE)
    await w.tree.delete("f")
    await w.put("f", TWO)
    w.faults.down.add("a")
    await asyncio.sleep(60)
    await w.put("f", THREE)
    w.faults.down.clear()
    await w.back()
    # before the mover brought it there
    await w.put("f", b"four")
    assert (w.holders(b"four"), await w.read("f")) == ("a", b"four")
    await w.settle()
    assert (w.objects("a")["f"], await older(w)) == (b"four", [THREE, TWO])
    await all_known(w)


@virtual(versions=3)
async def test_a_store_that_was_away_is_cleaned_when_it_is_back(w: World):
    await w.use(rules=(PlacementRule(prefer="Sequential", min_copies=2),))
    await w.put("f", ONE)
    # b takes the content, its answer is lost, and it is gone
    w.faults.planned.append(Fault("b", "publish", "after", times=1))
    w.faults.planned.append(Fault("b", "stat", times=1))
    w.faults.planned.append(Fault("a", "publish", times=1))

    async def down() -> None:
        while w.holders(TWO) == "":
            await asyncio.sleep(0)
        w.faults.down.add("b")

    falls = asyncio.create_task(down())
    with pytest.raises(CloudmeshError):
        await w.put("f", TWO)
    await falls
    assert await w.read("f") == ONE
    await asyncio.sleep(200)
    # meanwhile nobody is kept from writing
    await w.put("f", THREE)
    w.faults.clear()
    await w.back()
    await w.settle()
    assert await w.read("f") == THREE
    assert (await older(w), w.holders(TWO)) == ([ONE], "")
    await all_known(w)


def test_death_at_every_call_of_a_write(tmp_path):
    outcomes = set()

    async def at(w: World, number: int) -> bool:
        await w.use(versions=3)
        await w.put("f", ONE)
        await w.settle()
        dead = await died(w, number, w.put("f", TWO))
        # at no moment is the old content anywhere but whole
        assert w.holders(ONE) == "ab"
        await w.restart()
        await w.back()
        await w.settle()
        content = await w.read("f")
        assert content in (ONE, TWO)
        assert dead or content == TWO
        assert await older(w) == ([ONE] if content == TWO else [])
        assert w.objects("a") == w.objects("b") == {"f": content}
        await all_known(w)
        outcomes.add(content)
        return dead

    assert until_it_lives(at, tmp_path, 200) > 5
    assert outcomes == {ONE, TWO}


@virtual(versions=3)
async def test_a_rebuild_brings_them_back(w: World):
    for content in (ONE, TWO, THREE):
        await w.put("f", content)
    await w.put("g", ONE)
    await w.put("g", TWO)
    await w.tree.delete_version("g", 1)
    await w.settle()
    await w.journal.flush()
    for snapshotted in (False, True):
        if snapshotted:
            await w.journal.snapshot()
        anew, _ = await w.rebuilt(w.folder / f"anew{snapshotted}.sqlite")
        assert await snapshot(anew) == await snapshot(w.catalog)
        assert len(await anew.trash(versions=True)) == 2
        anew.vanish()


@virtual(versions=3)
async def test_a_version_is_on_record_before_a_write_is_acknowledged(w: World):
    await w.put("f", ONE)
    await w.put("f", TWO)
    assert await w.catalog.unwritten() == []
    anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
    entry = await anew.entry("f")
    assert [thing.entry.size for thing in await anew.versions(entry.id)] == [len(ONE)]
    anew.vanish()


@virtual(versions=1, settle_names=False)
async def test_without_settling_objects_stay_where_they_are(w: World):
    await w.put("f", ONE)
    await w.put("f", TWO)
    await w.settle()
    await asyncio.sleep(5000)
    (beside,) = [name for name in w.objects("a") if name != "f"]
    assert beside.startswith("f.~")
    assert w.objects("a") == {"f": ONE, beside: TWO}
