"""What somebody else writes over our objects: never written over, never lost, told as a file of its own."""

import asyncio
import hashlib

import pytest
from tests.unit.data.test_mover import all_known
from tests.unit.data.virtual import virtual

from cloudmesh.data.catalog.journal import JOURNAL
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Missing
from cloudmesh.data.model import Copy
from cloudmesh.data.ours import is_ours
from cloudmesh.data.scan import scan
from cloudmesh.data.strangers import conflict_names
from cloudmesh.testing.directories.model import snapshot
from cloudmesh.testing.directories.world import EPOCH, World

OURS, THEIRS = b"our content " * 50, b"somebody else's"
ONE = (PlacementRule(prefer="Sequential", copies=1),)


EDITS = pytest.mark.parametrize("kept", [False, True], ids=["plain", "attributes kept"])


def overwrite(w: World, store: str, key: str, content: bytes, kept: bool) -> None:
    """Somebody else's write; tools that edit put back the attributes that they found."""
    place = w.place(store)
    place.put(key, content, place.objects[key].object.attributes if kept else None)


async def second(w: World, path: str = "f") -> str:
    """The path of the file beside it."""
    (found,) = [one.path for one in await w.tree.walk("") if one.path != path and one.entry.kind == "File"]
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("f", "f (conflict a 2027-01-15)"),
        ("d/data.csv", "d/data (conflict a 2027-01-15).csv"),
        ("d.e/f", "d.e/f (conflict a 2027-01-15)"),
        (".profile", ".profile (conflict a 2027-01-15)"),
        ("a.tar.gz", "a.tar (conflict a 2027-01-15).gz"),
    ],
)
def test_names(path: str, expected: str):
    found = list(conflict_names(path, "a", EPOCH))
    assert found[0] == expected
    assert len(found) == len(set(found)) == 100


@EDITS
@virtual()
async def test_beside_the_file_in_its_directory(w: World, kept: bool):
    await w.put("d/data.csv", OURS)
    overwrite(w, "a", "lab/d/data.csv", THEIRS, kept)
    assert await w.read("d/data.csv") == OURS
    await w.settle()
    other = await second(w, "d/data.csv")
    assert other.startswith("d/data (conflict a ")
    assert other.endswith(").csv")
    assert (await w.read("d/data.csv"), await w.read(other)) == (OURS, THEIRS)
    assert w.holders(OURS) == "ab"
    # it is placed like any other file, and both get their own names
    await asyncio.sleep(1300)
    await w.settle()
    assert w.objects("a") == w.objects("b") == {"d/data.csv": OURS, other: THEIRS}
    await all_known(w)
    assert w.mover.done.conflicts == 1


@EDITS
@virtual()
async def test_twice_on_a_day(w: World, kept: bool):
    await w.put("f", OURS)
    for number in range(3):
        overwrite(w, "a", (await w.copies("f"))["a"].key, THEIRS + b"%d" % number, kept)
        assert await w.read("f") == OURS
        await w.settle()
    found = {await w.read(one.path) for one in await w.tree.walk("")}
    assert found == {OURS, *(THEIRS + b"%d" % number for number in range(3))}


@EDITS
@virtual()
async def test_where_no_copy_belongs_any_more(w: World, kept: bool):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    await w.use(rules=(PlacementRule(prefer="Sequential", only=("b", "c")),))
    await w.settle()
    await asyncio.sleep(30)
    await w.settle()
    assert await w.read("f") == OURS
    assert await w.read(await second(w)) == THEIRS
    assert w.holders(THEIRS) == w.holders(OURS) == "bc"


@EDITS
@virtual()
async def test_over_the_last_copy_it_is_a_new_version(w: World, kept: bool):
    await w.use(rules=ONE)
    before = await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    with pytest.raises(Exception, match="no copy"):
        await w.read("f")
    await w.settle()
    after = await w.tree.stat("f")
    assert (after.id, after.version, after.size) == (before.id, 2, len(THEIRS))
    assert await w.read("f") == THEIRS
    assert w.objects("a") == {"f": THEIRS}
    await w.journal.flush()
    anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
    assert await snapshot(anew) == await snapshot(w.catalog)
    anew.vanish()


@EDITS
@virtual()
async def test_not_while_another_copy_may_come_back(w: World, kept: bool):
    await w.put("f", OURS)
    w.faults.down.add("b")
    await asyncio.sleep(20)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    with pytest.raises(Exception, match="no copy"):
        await w.read("f")
    await asyncio.sleep(7300)
    assert (await w.tree.stat("f")).version == 1
    w.faults.clear()
    await w.back()
    await w.settle()
    assert await w.read("f") == OURS
    assert await w.read(await second(w)) == THEIRS


@EDITS
@virtual(adopt=False)
async def test_where_others_files_are_left_alone(w: World, kept: bool):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    assert await w.read("f") == OURS
    await w.settle()
    await asyncio.sleep(1300)
    assert [one.path for one in await w.tree.walk("")] == ["f"]
    assert w.place("a").objects["lab/f"].content == THEIRS
    assert w.holders(OURS) == "ab"


@EDITS
@virtual(versions=2)
async def test_a_write_meanwhile(w: World, kept: bool):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    await w.put("f", b"newer")
    await w.settle()
    assert await w.read("f") == b"newer"
    assert [await w.read("f", version=thing.entry.version) for thing in (await w.tree.versions("f"))[1]] == [OURS]
    # it lay over what is an older version now
    assert THEIRS in {held.content for held in w.place("a").objects.values()}
    with pytest.raises(Missing):
        await w.read("f", version=3)


@EDITS
@virtual(trash_seconds=60)
async def test_over_what_is_in_the_trash(w: World, kept: bool):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept)
    await w.tree.delete("f")
    await asyncio.sleep(300)
    await w.settle()
    await scan(w.tree, w.member("a"))
    await w.settle()
    (found,) = [one.path for one in await w.tree.walk("")]
    assert await w.read(found) == THEIRS
    assert w.holders(OURS) == ""


@EDITS
@virtual()
async def test_again_and_again_over_the_last_copy(w: World, kept: bool):
    await w.use(rules=ONE)
    await w.put("f", OURS)
    for number in range(3):
        overwrite(w, "a", "lab/f", THEIRS + b"%d" % number, kept)
        with pytest.raises(Exception, match="no copy"):
            await w.read("f")
        await w.settle()
        assert await w.read("f") == THEIRS + b"%d" % number
    assert (await w.tree.stat("f")).version == 4


@virtual()
async def test_the_same_content_written_anew_is_no_conflict(w: World):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", OURS, True)
    await scan(w.tree, w.member("a"))
    await w.settle()
    assert [one.path for one in await w.tree.walk("")] == ["f"]
    assert w.holders(OURS) == "ab"


async def made_anew(w: World) -> None:
    """The process ends, the catalogue is lost, and the directory goes on with one made of the stores."""
    await w.journal.flush()
    await w.die()
    for old in w.folder.glob("catalog.sqlite*"):
        old.unlink()
    anew, _ = await w.rebuilt(w.folder / "catalog.sqlite")
    anew.vanish()
    await w.start()
    await w.settle()


@EDITS
@pytest.mark.parametrize("size", ["same", "other"])
@pytest.mark.parametrize("first", ["renamed", "as it was", "written anew"])
@virtual()
async def test_the_catalogue_is_lost_before_anybody_has_seen_it(w: World, kept: bool, size: str, first: str):
    await w.put("f", OURS)
    if first == "written anew":
        await w.put("f", OURS + b"2")
    path = "f"
    if first == "renamed":
        await w.tree.move("f", "g")
        path = "g"
    ours, theirs = await w.read(path), THEIRS
    if size == "same":
        theirs = b"x" * len(ours)
    overwrite(w, "a", "lab/f", theirs, kept)
    await made_anew(w)
    other = await second(w, path)
    assert " (conflict a " in other
    assert (await w.read(path), await w.read(other)) == (ours, theirs)
    assert w.holders(ours) == "ab"


@virtual()
async def test_what_was_taken_in_and_got_its_name_is_no_rest_of_the_first_file(w: World):
    await w.put("f", OURS)
    overwrite(w, "a", "lab/f", THEIRS, kept=True)
    await w.read("f")
    await w.settle()
    other = await second(w)
    await asyncio.sleep(1300)
    await w.settle()
    (its,) = [o.object for key, o in w.place("a").objects.items() if o.content == THEIRS and key.endswith(other)]
    assert its.attributes["id"] == (await w.tree.stat(other)).id
    # no record of it is in a store
    for store in w.names:
        for key in [key for key in w.place(store).objects if "/journal/" in key]:
            w.place(store).remove(key)
    await w.die()
    for old in w.folder.glob("catalog.sqlite*"):
        old.unlink()
    anew, _ = await w.rebuilt(w.folder / "catalog.sqlite")
    anew.vanish()
    await w.start()
    await w.settle()
    assert (await w.read("f"), await w.read(other)) == (OURS, THEIRS)


@virtual()
async def test_where_the_record_has_no_tag_the_digest_that_it_tells_decides(w: World):
    digest = hashlib.sha256(OURS).hexdigest()
    entry = await w.put("f", OURS, sha256=digest)
    await w.settle()
    for content, ours in ((THEIRS, False), (OURS, True)):
        overwrite(w, "a", "lab/f", content, kept=True)
        seen = await w.member("a").store.stat("lab/f")
        assert seen is not None
        for copy in (Copy(entry.id, "a", "lab/f", 1, "Stale"), Copy(entry.id, "a", "lab/f", 0, "Stale", "another")):
            assert await is_ours(w.catalog, w.member("a"), copy, seen) is ours


@pytest.mark.parametrize("size", [len(OURS), len(THEIRS)], ids=["same size", "another size"])
@virtual()
async def test_an_edit_of_an_object_that_no_record_knows_any_more(w: World, size: int):
    entry = await w.put("f", OURS, sha256=hashlib.sha256(OURS).hexdigest())
    await w.settle()
    await w.catalog.drop_copy(entry.id, "a")
    theirs = THEIRS.ljust(size, b"!")
    overwrite(w, "a", "lab/f", theirs, True)
    await scan(w.tree, w.member("a"))
    await w.wake()
    await w.settle()
    assert (await w.read("f"), w.holders(OURS), await w.read(await second(w))) == (OURS, "ab", theirs)
    await all_known(w)


# -- nothing is left but objects: no catalogue, no journal


async def only_objects(w: World) -> None:
    """Loses all that is known of files but what their objects tell."""
    for store in w.names:
        for key in [key for key in w.place(store).objects if JOURNAL in key]:
            w.place(store).remove(key)
    await w.lose_catalogue()
    await w.back()
    await w.settle()


@virtual(rules=ONE)
async def test_the_last_object_is_the_file_whatever_digest_it_tells(w: World):
    entry = await w.put("f", OURS, sha256=hashlib.sha256(OURS).hexdigest())
    await w.put("g", OURS)
    overwrite(w, "a", "lab/f", THEIRS, True)
    assert w.place("a").objects["lab/f"].object.attributes["sha256"]
    await only_objects(w)
    assert ((await w.tree.stat("f")).id, await w.read("f"), await w.states("f")) == (entry.id, THEIRS, "a:Whole")
    assert await w.read("g") == OURS


@pytest.mark.parametrize("store", ["a", "b"])
@virtual()
async def test_the_object_that_has_the_digest_both_tell_is_the_file(w: World, store: str):
    theirs = b"x" * len(OURS)
    await w.put("f", OURS, sha256=hashlib.sha256(OURS).hexdigest())
    overwrite(w, store, "lab/f", theirs, True)
    await only_objects(w)
    await w.use(verify_seconds=5)
    await w.settle()
    assert (await w.read("f"), w.holders(OURS)) == (OURS, "ab")
