"""Links: somebody else's objects in the tree. They are read where they lie, and nothing of ours ever touches them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data import links
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.emptying import Emptying
from cloudmesh.data.errors import Exists, InvalidName, Missing
from cloudmesh.data.gateway.census import Census
from cloudmesh.data.mesh import MARKER, Marker
from cloudmesh.data.model import link_of
from cloudmesh.data.scan import scan
from cloudmesh.engine.errors import Conflict, Transient
from cloudmesh.testing.directories.checks import snapshot
from cloudmesh.testing.directories.world import Fault, World

KEY = "archive/2019/run.csv"
THEIRS = b"somebody else's content, never ours to touch " * 20


def lay(w: World, key: str = KEY, store: str = "a", content: bytes = THEIRS, **attributes: str) -> None:
    w.place(store).put(key, content, attributes)


def untouched(w: World, key: str = KEY, store: str = "a", content: bytes = THEIRS) -> None:
    """The object is as somebody left it, and nowhere else."""
    assert w.place(store).objects[key].content == content


def alone(w: World) -> None:
    untouched(w)
    assert w.holders(THEIRS) == ""


async def linked(w: World, path: str = "in/NAME", key: str = KEY, store: str = "a") -> None:
    lay(w, key, store)
    await links.link(w.tree, path, store, key)


@virtual(rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_an_object_is_read_in_place(w: World) -> None:
    await linked(w)
    assert await w.read("in/NAME") == THEIRS
    assert await w.read("in/NAME", start=9, length=6) == THEIRS[9:15]
    entry = await w.tree.stat("in/NAME")
    assert (entry.kind, entry.size, entry.sha256, entry.version) == ("File", len(THEIRS), "", 1)
    (place,) = await w.tree.where("in/NAME")
    assert (place.copy.store, place.copy.key, place.copy.state, place.monthly) == ("a", KEY, "Linked", None)
    await w.settle()
    await w.use(verify_seconds=60, rules=(PlacementRule(copies=3, prefer="Balanced"),))
    await asyncio.sleep(5000)
    await w.settle()
    assert await w.states("in/NAME") == "a:Linked"
    alone(w)
    totals = await w.catalog.totals()
    assert (totals.files, totals.stores.get("a"), totals.states) == (1, None, {"Linked": 1})


@virtual()
async def test_links_count_as_neither_short_nor_unreachable(w: World) -> None:
    await linked(w)
    census = Census(w.tree)
    counted = await census.count()
    assert (counted.under_replicated, counted.unreachable) == (0, 0)
    w.faults.down.add("a")
    await asyncio.sleep(100)
    counted = await census.count()
    assert (counted.under_replicated, counted.unreachable) == (0, 0)
    with pytest.raises(Transient, match="a: "):
        await w.read("in/NAME")


@virtual()
async def test_what_can_not_be_linked(w: World) -> None:
    lay(w)
    await w.put("mine", b"ours")
    other = msgspec.json.encode(Marker("1", "installation", "ns", "other", "u"))
    w.place("a").put(f"theirs/{MARKER}", other)
    lay(w, "theirs/deep/f")
    lay(w, "x/.cloudmesh/f")
    w.place("b").put(MARKER, other)
    lay(w, "anywhere", "b")
    for store, key, error, words in (
        ("z", KEY, Missing, "isn't a store"),
        ("a", "none", Missing, "there is no object 'none'"),
        ("a", "theirs/deep/f", Conflict, "of the directory ns/other"),
        ("b", "anywhere", Conflict, "of the directory ns/other"),
        ("a", f"lab/{MARKER}", InvalidName, "Cloudmesh's own"),
        ("a", "x/.cloudmesh/f", InvalidName, "Cloudmesh's own"),
        ("a", "lab/mine", Conflict, "in this directory already: '/mine'"),
        ("a", "", InvalidName, "can't be the key"),
        ("a", "archive/../f", InvalidName, "can't be the key"),
        ("a", "archive//f", InvalidName, "can't be the key"),
        ("a", "archive/", InvalidName, "can't be the key"),
        ("a", "a\0", InvalidName, "can't be the key"),
        ("a", "\ud800", InvalidName, "surrogate"),
        ("a", "x" * 5000, InvalidName, "4096 are the most"),
    ):
        with pytest.raises(error, match=words):
            await links.link(w.tree, "name", store, key)
    for path, error in (("mine", Exists), ("mine/f", InvalidName), ("", InvalidName), (".cloudmesh/f", InvalidName)):
        with pytest.raises(error):
            await links.link(w.tree, path, "a", KEY)
    await links.link(w.tree, "name", "a", f"/{KEY}")
    with pytest.raises(Conflict, match="already: '/name'"):
        await links.link(w.tree, "twice", "a", KEY)
    await w.access("c", "Drain")
    lay(w, store="c")
    with pytest.raises(Conflict, match="to leave"):
        await links.link(w.tree, "leaving", "c", KEY)
    w.faults.down.add("a")
    await asyncio.sleep(30)
    with pytest.raises(Transient):
        await links.link(w.tree, "away", "a", "other")
    assert [one.path for one in await w.catalog.walk("")] == ["mine", "name"]


@virtual(rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_a_rename_renames_the_entry_only(w: World) -> None:
    await linked(w)
    await w.tree.move("in/NAME", "in/other")
    await w.tree.move("in", "out")
    await asyncio.sleep(100)
    await w.settle()
    assert await w.read("out/other") == THEIRS
    assert (await w.copies("out/other"))["a"].key == KEY
    alone(w)


@pytest.mark.parametrize("versions", [0, 3])
@pytest.mark.parametrize("key", [KEY, "lab/in/NAME", "lab/elsewhere"])
@virtual(rules=(PlacementRule(copies=2, prefer="Sequential"),), adopt=False)
async def test_a_write_over_it_makes_a_file_and_leaves_the_object(w: World, versions: int, key: str) -> None:
    await w.use(versions=versions)
    await linked(w, key=key)
    before = await w.tree.stat("in/NAME")
    entry = await w.put("in/NAME", b"new content")
    assert (entry.id, entry.version) == (before.id, 2)
    await asyncio.sleep(100)
    await w.settle()
    assert await w.read("in/NAME") == b"new content"
    copies = await w.copies("in/NAME")
    assert {store: copy.state for store, copy in copies.items()} == {"a": "Whole", "b": "Whole"}
    assert key not in [copy.key for copy in copies.values() if copy.store == "a"]
    untouched(w, key)
    assert await w.catalog.at_key("a", key) is None
    assert await w.catalog.versions(entry.id, over=True) == []
    await w.tree.delete("in/NAME")
    await w.use(trash_seconds=1)
    await asyncio.sleep(100)
    await w.settle()
    untouched(w, key)


@virtual(adopt=False)
async def test_a_file_does_not_take_the_key_of_a_link(w: World) -> None:
    await linked(w, "linked", "lab/f")
    await w.put("f", b"ours")
    await w.put("g", b"another")
    await w.tree.delete("f")
    await w.tree.move("g", "f")
    await asyncio.sleep(200)
    await w.settle()
    assert await w.read("f") == b"another"
    assert await w.read("linked") == THEIRS
    untouched(w, "lab/f")


@virtual(trash_seconds=1000)
async def test_a_deletion_forgets_the_entry_only(w: World) -> None:
    await linked(w, "d/NAME")
    entry = await w.tree.delete("d", recursive=True)
    await w.settle()
    await w.tree.restore(entry.id)
    assert await w.read("d/NAME") == THEIRS
    await w.tree.delete("d/NAME")
    # not even asked for: its store may be away for ever
    w.faults.down.add("a")
    await asyncio.sleep(1100)
    await w.settle()
    w.faults.down.clear()
    await w.back()
    assert await w.catalog.trash() == []
    assert await w.catalog.held("a") == []
    alone(w)


@virtual(trash_seconds=1000)
async def test_a_link_in_the_trash_gives_way(w: World) -> None:
    await linked(w)
    await w.tree.delete("in/NAME")
    await links.link(w.tree, "again", "a", KEY)
    assert await w.catalog.trash() == []
    assert await w.read("again") == THEIRS
    gone = await w.tree.delete("again")
    await w.catalog.expire(gone.id)
    await w.settle()
    assert await w.catalog.held("a") == []
    alone(w)


@virtual()
async def test_emptying_a_store_forgets_its_links(w: World) -> None:
    await linked(w)
    await linked(w, "stays", "other", "b")
    await w.put("ours", b"1")
    await w.access("a", "Drain")
    await w.settle()
    assert [one.path for one in await w.catalog.walk("")] == ["in", "ours", "stays"]
    assert not (await w.catalog.totals()).held.get("a")
    untouched(w)
    untouched(w, "other", "b")


@virtual()
async def test_a_read_only_store_can_be_linked_to(w: World) -> None:
    await w.access("a", "ReadOnly")
    await linked(w)
    await w.settle()
    assert await w.read("in/NAME") == THEIRS
    await w.tree.delete("in/NAME")
    await w.use(trash_seconds=1)
    await asyncio.sleep(100)
    await w.settle()
    assert await w.catalog.held("a") == []
    alone(w)


@virtual()
async def test_deletion_policy_delete_leaves_linked_objects(w: World) -> None:
    w.place("a").put("lab/inside", THEIRS, {"id": "ab" * 8, "version": "1", "write": "cd" * 8})
    await links.link(w.tree, "linked", "a", "lab/inside")
    await linked(w)
    await w.put("ours", b"1")
    emptying = Emptying(lambda: w.mesh.members.values(), w.catalog)
    for _ in range(5):
        if await emptying.round():
            break
    assert emptying.strangers == 1
    untouched(w, "lab/inside")
    untouched(w)
    assert set(w.place("a").objects) == {"lab/inside", KEY}


@virtual(adopt=False)
async def test_an_object_that_is_gone_is_told_and_may_come_back(w: World) -> None:
    await linked(w)
    await linked(w, "empty", "empty")
    w.place("a").put("empty", b"")
    await asyncio.sleep(3700)
    await w.settle()
    assert await w.read("empty") == b""
    for path, key in (("in/NAME", KEY), ("empty", "empty")):
        w.place("a").remove(key)
        with pytest.raises(Missing, match=f"link to a:/{key}, and there is no such object any more"):
            await w.read(path)
        await w.settle()
        (place,) = await w.tree.where(path)
        assert (place.copy.state, place.copy.error != "") == ("Linked", True)
    # a store without its marker says nothing of what is gone
    held = w.place("a").objects[f"lab/{MARKER}"].content
    w.place("a").remove(f"lab/{MARKER}")
    with pytest.raises(Transient):
        await w.read("in/NAME")
    w.place("a").put(f"lab/{MARKER}", held)
    await w.back()
    lay(w)
    await asyncio.sleep(3700)
    await w.settle()
    assert await w.read("in/NAME") == THEIRS
    assert (await w.copies("in/NAME"))["a"].error == ""


@virtual()
async def test_an_object_that_changed_is_the_new_version(w: World) -> None:
    await linked(w)
    lay(w, content=b"changed")
    with pytest.raises(Conflict, match="was changed"):
        await w.read("in/NAME")
    await w.settle()
    assert await w.read("in/NAME") == b"changed"
    entry = await w.tree.stat("in/NAME")
    assert (entry.version, entry.size) == (2, 7)
    # nobody read it: an hour later at the latest
    lay(w, content=b"changed again")
    await asyncio.sleep(3700)
    await w.settle()
    assert (await w.tree.stat("in/NAME")).version == 3
    assert await w.read("in/NAME") == b"changed again"
    untouched(w, content=b"changed again")


@virtual()
async def test_a_listing_tells_of_changes_within_the_prefix(w: World) -> None:
    await links_within(w)
    lay(w, "lab/inside", content=b"changed")
    await scan(w.tree, w.member("a"))
    w.mover.stir()
    await w.settle()
    assert await w.read("linked") == b"changed"
    assert [one.path for one in await w.catalog.walk("")] == ["linked"]
    # with nothing that links to it, it is a file like others that lie there
    await w.tree.delete("linked")
    await w.use(trash_seconds=1)
    await asyncio.sleep(100)
    await w.settle()
    await scan(w.tree, w.member("a"))
    assert await w.read("inside") == b"changed"


async def links_within(w: World) -> None:
    """A link to an object of the directory's prefix that nobody has taken in yet."""
    lay(w, "lab/inside")
    await links.link(w.tree, "linked", "a", "lab/inside")


@virtual(rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_adopted_it_is_an_ordinary_file(w: World) -> None:
    await linked(w)
    await w.tree.set_tags("in/NAME", {"x": "1"})
    before = await w.tree.stat("in/NAME")
    entry = await links.adopt(w.tree, "in/NAME")
    assert (entry.id, entry.version, entry.mtime, dict(entry.tags)) == (before.id, 2, before.mtime, {"x": "1"})
    await w.settle()
    assert await w.states("in/NAME") == "a:Whole b:Whole"
    assert w.holders(THEIRS) == "ab"
    untouched(w)
    w.place("a").remove(KEY)
    assert await w.read("in/NAME") == THEIRS
    with pytest.raises(Conflict, match="isn't a link"):
        await links.adopt(w.tree, "in/NAME")
    with pytest.raises(Missing):
        await links.adopt(w.tree, "none")
    await linked(w, "gone", "other")
    w.place("a").remove("other")
    with pytest.raises(Missing, match="any more"):
        await links.adopt(w.tree, "gone")
    assert (await w.tree.stat("gone")).version == 1


@pytest.mark.parametrize("written_down", [False, True])
@virtual()
async def test_a_catalogue_that_is_made_anew_has_the_links(w: World, written_down: bool) -> None:
    await links_within(w)
    await linked(w, "d/moved")
    await w.tree.move("d/moved", "d/here")
    await linked(w, "trashed", "second")
    await w.tree.delete("trashed")
    await linked(w, "over", "third", "b")
    await w.put("over", b"a file now")
    await linked(w, "changing", "fourth")
    lay(w, "fourth", content=b"changed")
    await asyncio.sleep(3700)
    await w.settle()
    await w.journal.flush()
    if written_down:
        await w.journal.snapshot()
    anew, found = await w.rebuilt(w.folder / "anew.sqlite")
    mine, theirs = await snapshot(w.catalog), await snapshot(anew)
    assert mine == theirs
    located = [one for one in await anew.walk("", copies=True) if one.entry.kind == "File"]
    assert {one.path: [copy.state for copy in one.copies] for one in located} == {
        "changing": ["Linked"], "d/here": ["Linked"], "linked": ["Linked"], "over": ["Whole", "Whole"],
    }  # fmt: skip
    (thing,) = await anew.trash()
    assert link_of(await anew.copies(thing.entry.id)) is not None
    assert found.adopted == 0
    anew.vanish()


@virtual(rules=(PlacementRule(copies=2, min_copies=2, prefer="Sequential", only=("a", "b")),), adopt=False)
async def test_a_write_over_it_that_fails_leaves_the_link(w: World) -> None:
    await linked(w, "in/NAME", "lab/in/NAME")
    w.faults.planned.append(Fault("b", "publish", times=-1))
    with pytest.raises(Transient):
        await w.put("in/NAME", b"new content")
    w.faults.clear()
    await w.back()
    await w.settle()
    assert await w.states("in/NAME") == "a:Linked"
    assert await w.read("in/NAME") == THEIRS
    assert w.objects("a", kept=True) == {"in/NAME": THEIRS}
    assert w.objects("b", kept=True) == {}


def test_death_at_every_call_of_a_write_over_a_link(tmp_path: Path) -> None:
    async def at(w: World, number: int) -> bool:
        await linked(w)
        await w.settle()
        dead = await died(w, number, w.put("in/NAME", b"new content"))
        await w.restart()
        await w.back()
        await w.settle()
        content = await w.read("in/NAME")
        assert content in (THEIRS, b"new content"), number
        assert dead or content == b"new content"
        assert [c.state for c in (await w.copies("in/NAME")).values()] in (["Linked"], ["Whole", "Whole"])
        if content == THEIRS:
            assert not w.holders(b"new content"), number
        alone(w)
        return dead

    assert 3 < until_it_lives(at, tmp_path, 100) < 60


def test_death_at_every_call_of_a_link(tmp_path: Path) -> None:
    async def at(w: World, number: int) -> bool:
        lay(w)
        dead = await died(w, number, links.link(w.tree, "in/NAME", "a", KEY))
        await w.restart()
        await w.back()
        await w.settle()
        assert dead or await w.read("in/NAME") == THEIRS
        await w.journal.flush()
        anew, _ = await w.rebuilt(tmp_path / f"{number}.sqlite")
        assert await snapshot(anew) == await snapshot(w.catalog)
        anew.vanish()
        alone(w)
        return dead

    assert 3 < until_it_lives(at, tmp_path, 100) < 60
