"""What others do in a store is followed: new, changed, copied and lost objects; a listing alone takes nothing away."""

import asyncio
import hashlib
from dataclasses import replace

import msgspec
import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data import scan as scans
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.errors import Missing, Suspicious
from cloudmesh.data.following import Following
from cloudmesh.data.mesh import MARKER, Marker, Member
from cloudmesh.data.scan import Scanned, scan
from cloudmesh.engine.errors import Conflict, Transient
from cloudmesh.testing.directories.world import Fault, World


def told_word(message: str) -> str:
    """What a message names that is lacking."""
    return message.partition("--seen ")[2].partition("`")[0]


@virtual()
async def test_adopts_what_is_there(w: World):
    await asyncio.sleep(5)
    w.place("a").put("lab/data/x.csv", b"1,2")
    w.place("b").put("lab/data/x.csv", b"3,4")
    w.place("b").put("lab/data/../up", b"no")
    w.place("b").put("elsewhere", b"no")
    first, second = await scan(w.tree, w.member("a")), await scan(w.tree, w.member("b"))
    assert (first.adopted, second.adopted, second.unreadable) == (1, 1, 1)
    await w.settle()
    # two files of one name are two files
    assert await w.read("data/x.csv") == b"1,2"
    assert await w.read("data/x.csv.~b") == b"3,4"
    assert len(w.holders(b"1,2")) == len(w.holders(b"3,4")) == 2
    assert (await w.tree.stat("data/x.csv")).sha256
    assert w.place("b").objects["elsewhere"].content == b"no"


@virtual()
async def test_adopts_while_files_are_written_and_copied(w: World):
    async def write():
        for number in range(30):
            await w.put(f"f{number % 7}", b"%d" % number * 50)

    async def look():
        for _ in range(20):
            for name in w.names:
                found = await scan(w.tree, w.member(name))
                assert (found.adopted, found.changed, found.vanished) == (0, 0, 0)

    await asyncio.gather(write(), look())
    await w.settle()
    assert len(await w.tree.walk("")) == 7
    assert sum(len(w.objects(name)) for name in w.names) == 14


@virtual()
async def test_empty_listing_removes_nothing(w: World):
    await w.put("f", b"content")
    for _ in range(100):
        w.place("a")._shown.clear()
        w.place("a")._late.clear()
        assert (await scan(w.tree, w.member("a"))).vanished == 0
    assert await w.states("f") == "a:Whole b:Whole"
    assert await w.read("f") == b"content"


# -- changes behind our back


@virtual()
async def test_overwritten_objects_are_found(w: World):
    await w.put("f", b"ours")
    await w.settle()
    w.place("a").put("lab/f", b"theirs")
    found = await scan(w.tree, w.member("a"))
    assert (found.changed, found.vanished, found.adopted) == (1, 0, 0)
    assert (await w.states("f")).startswith("a:Stale")
    await w.settle()
    # neither is lost
    assert await w.read("f") == b"ours"
    assert w.holders(b"theirs")
    assert len(w.holders(b"ours")) == 2


@virtual()
async def test_lost_objects_are_found_and_mended(w: World):
    await w.put("f", b"content")
    await w.settle()
    w.lose("a", "f")
    assert (await scan(w.tree, w.member("a"))).vanished == 1
    assert await w.states("f") == "a:Missing b:Whole"
    await w.settle()
    assert len(w.holders(b"content")) == 2
    assert (await scan(w.tree, w.member("a"))).vanished == 0


@virtual(rules=(PlacementRule(prefer="Sequential", copies=1, only=("a",)),))
async def test_a_lost_object_that_is_there_again_is_whole_again(w: World):
    await w.put("f", b"content")
    held = w.place("a").objects["lab/f"]
    await asyncio.sleep(1)
    w.lose("a", "f")
    assert (await scan(w.tree, w.member("a"))).vanished == 1
    w.place("a").objects["lab/f"] = held
    w.place("a")._changed("lab/f", held.object)
    assert (await scan(w.tree, w.member("a"))).back == 1
    assert await w.read("f") == b"content"


@virtual()
async def test_nothing_is_gone_in_a_store_without_its_marker(w: World):
    await w.put("f", b"content")
    await w.settle()
    w.lose("a", "f")
    w.lose("a", MARKER)
    with pytest.raises(Suspicious):
        await scan(w.tree, w.member("a"))
    assert await w.states("f") == "a:Whole b:Whole"


@virtual()
async def test_a_late_listing_makes_nothing_gone(w: World):
    w.place("a").lag = 600.0
    w.member("a").store._info = replace(w.member("a").store.info, listing="Eventual")
    for number in range(30):
        await w.put(f"f{number}", b"%d" % number)
    found = await scan(w.tree, w.member("a"))
    assert (found.vanished, found.shrunk) == (0, "")


# -- listings that aren't believed


async def many(w: World, number: int) -> None:
    for n in range(number):
        await w.put(f"f{n:03d}", b"%d" % n)
    await w.settle()
    await asyncio.sleep(5)


@virtual()
async def test_a_shrunk_listing_is_not_believed_until_a_person_says_so(w: World):
    await many(w, 50)
    for n in range(11):
        w.lose("a", f"f{n:03d}")
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    found = await following.look(w.member("a"))
    assert (found.vanished, found.complete) == (0, True)
    assert "lacks 11 of 50" in found.shrunk
    word = told_word(found.shrunk)
    assert word.startswith("11-")
    assert (w.member("a").shown, w.member("a").up) == ("Suspicious", True)
    assert await w.states("f000") == "a:Whole b:Whole"
    # single objects are read and written all the same
    assert await w.read("f049") == b"49"
    await w.put("new", b"new")
    assert "a" in w.holders(b"new")
    # another process knows
    await w.restart()
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    w.member("a").shrunk = "as the catalogue says"
    with pytest.raises(Conflict, match="looked at anew"):
        following.believe("a", word)
    with pytest.raises(Missing):
        following.believe("b", word)
    await following.look(w.member("b"))
    # what was seen is bound to what it lacks then: the same by now
    await following.look(w.member("a"))
    assert w.member("a").shown == "Suspicious"
    with pytest.raises(Conflict, match="by now it is something else"):
        following.believe("a", "12-abcdef")
    following.believe("a", word)
    found = await following.look(w.member("a"))
    assert (found.vanished, w.member("a").shown) == (11, "Up")
    await w.settle()
    assert len(w.holders(b"0")) == 2


@virtual()
async def test_what_is_lacking_since_is_not_believed_with_it(w: World):
    await many(w, 100)
    for n in range(30):
        w.lose("a", f"f{n:03d}")
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    word = told_word((await following.look(w.member("a"))).shrunk)
    # a few of them were found out by themselves meanwhile: nothing else is said
    await w.tree.found_bad((await w.copies("f000"))["a"], w.member("a"), Missing("it isn't there"))
    await following.look(w.member("a"))
    assert told_word(w.member("a").shrunk) == word
    following.believe("a", word)
    # more than anybody saw, before it is looked at
    for n in range(50, 90):
        w.lose("a", f"f{n:03d}")
    found = await following.look(w.member("a"))
    assert (found.vanished, w.member("a").shown) == (29, "Suspicious")
    assert "lacks 40 of " in w.member("a").shrunk
    await asyncio.sleep(5)
    assert ("f001" in w.objects("a"), "f050" in w.objects("a")) == (True, False)
    assert await w.states("f050") == "a:Whole b:Whole"
    with pytest.raises(Conflict, match="lacks 40 of "):
        following.believe("a", word)
    following.believe("a", told_word(w.member("a").shrunk))
    assert (await following.look(w.member("a"))).vanished == 40
    assert w.member("a").shown == "Up"


@virtual()
async def test_more_than_is_looked_for_at_once_is_believed_all_the_same(w: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scans, "MOST", 8)
    await many(w, 50)
    for n in range(20):
        w.lose("a", f"f{n:03d}")
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    following.believe("a", told_word((await following.look(w.member("a"))).shrunk))
    found, look = [], following.look

    async def noted(member: Member) -> Scanned:
        result = await look(member)
        if member.name == "a":
            found.append(result.vanished)
        return result

    monkeypatch.setattr(following, "look", noted)
    # one listing after the other, not an hour apart
    running = asyncio.create_task(following.run())
    await asyncio.sleep(30)
    running.cancel()
    assert found == [8, 8, 4]
    assert w.member("a").shown == "Up"


@virtual()
async def test_a_shrunk_listing_is_believed_when_the_objects_are_back(w: World):
    await many(w, 50)
    kept = {n: w.place("a").objects[f"lab/f{n:03d}"] for n in range(20)}
    for n in kept:
        w.lose("a", f"f{n:03d}")
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    assert (await following.look(w.member("a"))).shrunk
    for n, held in kept.items():
        w.place("a").objects[f"lab/f{n:03d}"] = held
        w.place("a")._changed(f"lab/f{n:03d}", held.object)
    assert not (await following.look(w.member("a"))).shrunk
    assert w.member("a").shown == "Up"
    assert await w.states("f000") == "a:Whole b:Whole"


@virtual()
async def test_a_listing_that_leaves_out_what_is_there_is_told_as_such(w: World):
    await many(w, 30)
    assert w.place("a").shown()
    for n in range(20):
        w.place("a")._shown.pop(f"lab/f{n:03d}", None)
    found = await scan(w.tree, w.member("a"))
    assert ("are there (" in found.shrunk, "lab/f0" in found.shrunk) == (True, False)
    # a person who believes it all the same loses nothing
    assert (await scan(w.tree, w.member("a"), believe=found.lacking)).vanished == 0
    assert await w.states("f000") == "a:Whole b:Whole"


@pytest.mark.parametrize(("number", "lost", "believed"), [(20, 10, True), (100, 20, True), (100, 21, False)])
def test_how_much_may_be_gone(tmp_path, number, lost, believed):
    @virtual()
    async def run(w: World):
        await many(w, number)
        for n in range(lost):
            w.lose("a", f"f{n:03d}")
        found = await scan(w.tree, w.member("a"))
        assert (found.vanished, not found.shrunk) == (lost if believed else 0, believed)

    run(tmp_path)


# -- objects that carry our attributes


@virtual()
async def test_a_copied_object_is_a_file_of_its_own(w: World):
    entry = await w.put("f", b"content")
    await w.settle()
    held = w.place("a").objects["lab/f"]
    w.place("a").put("lab/copied", held.content, held.object.attributes)
    # to a store that has no copy of the file too
    w.place("c").put("lab/elsewhere", held.content, held.object.attributes)
    assert (await scan(w.tree, w.member("a"))).adopted == 1
    assert (await scan(w.tree, w.member("c"))).adopted == 1
    await w.settle()
    ids = {(await w.tree.stat(path)).id for path in ("f", "copied", "elsewhere")}
    assert len(ids) == 3
    assert entry.id in ids
    assert await w.read("copied") == await w.read("elsewhere") == b"content"
    fresh, _ = await w.rebuilt(w.folder / "again.sqlite")
    assert {one.path for one in await fresh.walk("")} == {"f", "copied", "elsewhere"}
    await w.tree.delete("f")
    await w.settle()
    assert await w.read("copied") == b"content"


@virtual(rules=(PlacementRule(prefer="Sequential", copies=1),))
async def test_a_copied_object_that_was_edited_is_what_its_bytes_are(w: World):
    content, edited = b"content", b"content, edited, with the attributes as they were"
    await w.put("f", content, sha256=hashlib.sha256(content).hexdigest())
    attributes = w.place("a").objects["lab/f"].object.attributes
    assert attributes["sha256"]
    w.place("a").put("lab/copied", edited, attributes)
    assert (await scan(w.tree, w.member("a"))).adopted == 1
    assert (await w.read("copied"), (await w.tree.stat("copied")).sha256) == (edited, "")
    # whoever reads it first keeps its digest
    await asyncio.sleep(10)
    await w.use(verify_seconds=5)
    await w.settle()
    assert (await w.tree.stat("copied")).sha256 == hashlib.sha256(edited).hexdigest()
    assert await w.read("f") == content


@virtual()
async def test_a_renamed_object_is_followed(w: World):
    await w.put("f", b"content")
    await w.settle()
    held = w.place("a").objects["lab/f"]
    w.lose("a", "f")
    w.place("a").put("lab/renamed", held.content, held.object.attributes)
    found = await scan(w.tree, w.member("a"))
    assert (found.adopted, found.vanished) == (1, 1)
    assert await w.states("f") == "a:Missing b:Whole"
    await w.settle()
    assert await w.read("f") == await w.read("renamed") == b"content"


@virtual()
async def test_a_rest_of_ours_is_the_movers(w: World):
    await w.put("f", b"content")
    await w.settle()
    held = w.place("a").objects["lab/f"]
    w.place("c").put("lab/f", held.content, held.object.attributes)
    assert (await scan(w.tree, w.member("c"))).adopted == 0
    await w.settle()
    assert w.holders(b"content") == "ab"


@virtual()
async def test_another_directory_within_this_one_is_left_alone(w: World):
    marker = msgspec.json.encode(Marker("m", "installation", "ns", "other", "u"))
    w.place("a").put(f"lab/sub/{MARKER}", marker)
    w.place("a").put("lab/sub/!first", b"1")
    w.place("a").put("lab/sub/deep/er", b"2")
    w.place("a").put("lab/subject", b"3")
    found = await scan(w.tree, w.member("a"))
    assert found.foreign == {"lab/sub/": "ns/other"}
    assert {one.path for one in await w.tree.walk("")} == {"subject"}


# -- stores by themselves


@virtual()
async def test_one_store_that_fails_keeps_no_other_waiting(w: World):
    await asyncio.sleep(5)
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    w.faults.planned.append(Fault("a", "list", error=RuntimeError("a defect"), times=3))
    w.faults.planned.append(Fault("b", "list", error=None))
    w.place("c").put("lab/theirs", b"1")
    running = asyncio.create_task(following.run())
    await asyncio.sleep(10)
    assert (await w.tree.stat("theirs")).size == 1
    assert following.troubles == {"a": "its listing can't be followed: RuntimeError (the gateway's log tells more)"}
    assert not running.done()
    # later each time: at 0, 30 and 90 s it fails, at 210 s it doesn't
    await asyncio.sleep(190)
    assert following.troubles
    await asyncio.sleep(30)
    assert "a" not in following.troubles
    running.cancel()


@virtual()
async def test_one_object_that_cannot_be_looked_at_keeps_no_other_waiting(w: World):
    await asyncio.sleep(5)
    for name in ("a1", "bad", "z1"):
        w.place("a").put(f"lab/{name}", name.encode())
    w.faults.planned.append(Fault("a", "stat", error=RuntimeError("a defect"), key="lab/bad", times=-1))
    found = await scan(w.tree, w.member("a"))
    assert (found.adopted, found.failed) == (2, 1)
    # whoever sees the status may not see the file
    following = Following(w.tree, stir=w._stir, clock=w.clock)
    await following.look(w.member("a"))
    assert following.troubles == {"a": "1 objects can't be looked at (the gateway's log names them)"}
    w.faults.planned.clear()
    w.faults.planned.append(Fault("a", "stat", error=Transient("away"), key="lab/bad", times=-1))
    with pytest.raises(Transient):
        await scan(w.tree, w.member("a"))


@virtual()
async def test_what_may_not_be_taken_in_is_not_asked_for(w: World):
    await w.put("f", b"content")
    await w.settle()
    for number in range(5):
        w.place("a").put(f"lab/theirs{number}", b"1")
    w.lose("a", "f")
    w.faults.planned.append(Fault("a", "stat", error=RuntimeError("asked for"), key="theirs", times=-1))
    found = await scan(w.tree, w.member("a"), adopt=False)
    assert (found.adopted, found.failed, found.vanished) == (0, 0, 1)
