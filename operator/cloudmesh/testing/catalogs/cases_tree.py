"""Cases of the tree: names, directories, moves, the trash, listings."""

from __future__ import annotations

from typing import Any

from cloudmesh.data.catalog.ports import ABSENT, Query
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing
from cloudmesh.data.model import ROOT, TRASH, Copy, Entry, Totals
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.catalogs.case import Bench, case, need, refused


@case("tree/root")
async def _root(bench: Bench) -> None:
    """The root is always there, empty at first, and no entry of the trash."""
    root = await bench.catalog.entry("")
    need(root is not None and root.id == ROOT and root.kind == "Directory", f"root is {root}")
    need(await bench.catalog.children("") == [], "an empty root has children")
    need((await bench.catalog.totals()).directories == 0, "the root is counted")
    need(await bench.catalog.by_id(TRASH) is None, "the trash is an entry")
    await refused(InvalidName, bench.catalog.delete("", recursive=True), "delete of the root")


@case("tree/mkdir")
async def _mkdir(bench: Bench) -> None:
    """Directories are made one by one, or with those above; a name is taken once."""
    made = await bench.catalog.mkdir("a")
    need(made.kind == "Directory" and made.parent == ROOT and made.name == "a", f"made {made}")
    await refused(Exists, bench.catalog.mkdir("a"), "a directory that is there")
    need((await bench.catalog.mkdir("a", parents=True)).id == made.id, "parents: another directory was made")
    await refused(Missing, bench.catalog.mkdir("x/y"), "no parent")
    await bench.catalog.mkdir("x/y/z", parents=True)
    need(await bench.names() == ["a", "x", "x/y", "x/y/z"], f"there are {await bench.names()}")
    await bench.put("f")
    await refused(InvalidName, bench.catalog.mkdir("f/g"), "below a file")
    await refused(InvalidName, bench.catalog.mkdir("f/g", parents=True), "below a file, with parents")
    await refused(Exists, bench.catalog.mkdir("f", parents=True), "over a file")
    need((await bench.catalog.totals()).directories == 4, "directories are miscounted")


@case("tree/bytes-compare")
async def _order(bench: Bench) -> None:
    """Names are compared by code points, and case matters."""
    for name in ("b", "B", "ä", "a-b", "a", "\U0001f600", "\uffff"):
        await bench.put(name)
    found = [located.entry.name for located in await bench.catalog.children("")]
    need(found == ["B", "a", "a-b", "b", "ä", "\uffff", "\U0001f600"], f"order {found}")


@case("tree/children-pages")
async def _children(bench: Bench) -> None:
    """A directory is listed by name in pages, with copies if asked."""
    for number in range(7):
        await bench.put(f"d/f{number}", stores=("s1", "s2"))
    await bench.catalog.mkdir("d/f3a")
    first = await bench.catalog.children("d", limit=4)
    rest = await bench.catalog.children("d", after=first[-1].entry.name, limit=10, copies=True)
    names = [found.path for found in first + rest]
    need(names == ["d/f0", "d/f1", "d/f2", "d/f3", "d/f3a", "d/f4", "d/f5", "d/f6"], f"listed {names}")
    need(all(not found.copies for found in first), "copies weren't asked for")
    need([c.store for c in rest[1].copies] == ["s1", "s2"], f"copies {rest[1].copies}")
    need(rest[0].copies == (), "a directory has copies")
    await refused(Missing, bench.catalog.children("nowhere"), "no directory")
    await refused(Missing, bench.catalog.children("d/f1"), "a file")


@case("tree/walk-pages")
async def _walk(bench: Bench) -> None:
    """A walk gives what lies below in the order of the paths' parts, and goes on after any path, there or not."""
    for path in ("a/b/1", "a/b/2", "a/b-c", "a.x/3", "z", "a/c/d/e/4"):
        await bench.put(path)
    await bench.catalog.mkdir("empty")
    # by parts: all of "a" comes before "a.x", though "." is less than "/"
    whole = ["a", "a/b", "a/b/1", "a/b/2", "a/b-c", "a/c", "a/c/d", "a/c/d/e", "a/c/d/e/4", "a.x", "a.x/3"]
    whole += ["empty", "z"]
    need(await bench.names() == whole, f"walked {await bench.names()}")
    for size in (1, 2, 5):
        paged: list[str] = []
        while page := await bench.catalog.walk("", after=paged[-1] if paged else "", limit=size):
            paged += [found.path for found in page]
        need(paged == whole, f"pages of {size}: {paged}")
    need(await bench.names("a/c") == ["a/c/d", "a/c/d/e", "a/c/d/e/4"], "below a directory")
    for mark in ("a/b/15", "a/b/1/x/y", "a/b", "a/b-", "0", "zz", "a/c/d/e/4"):
        found = [item.path for item in await bench.catalog.walk("", after=mark)]
        expected = [path for path in whole if path.split("/") > mark.split("/")]
        need(found == expected, f"after {mark}: {found}, expected {expected}")
        inside = [item.path for item in await bench.catalog.walk("a", after=mark)]
        need(inside == [path for path in expected if path.startswith("a/")], f"in a, after {mark}: {inside}")
    copies = await bench.catalog.walk("a.x", copies=True)
    need(copies[0].copies and copies[0].copies[0].store == "s1", "copies were asked for")
    await refused(Missing, bench.catalog.walk("nowhere"), "no directory")


@case("tree/search")
async def _search(bench: Bench) -> None:
    """A search goes by name, size, time and tags, below a directory, in pages."""
    await bench.put("a/Report-1.CSV", size=5, tags={"run": "1", "kind": "x"})
    await bench.put("a/b/report-2.csv", size=50, tags={"run": "2"})
    later = bench.now
    await bench.put("report-[3].csv", size=500)
    await bench.put("reportX3X.csv", size=0)

    async def found(**asked: object) -> list[str]:
        return [item.path for item in await bench.catalog.search(Query(**asked))]  # type: ignore[arg-type]

    need(await found(name="REPORT-*.csv") == ["a/Report-1.CSV", "a/b/report-2.csv", "report-[3].csv"], "by name")
    need(await found(name="report-[3].csv") == ["report-[3].csv"], "brackets are letters")
    need(await found(name="report-?.csv", under="a/b") == ["a/b/report-2.csv"], "below a directory")
    need(await found(name="*.csv", min_size=5, max_size=50) == ["a/Report-1.CSV", "a/b/report-2.csv"], "by size")
    need(await found(tags={"run": ""}) == ["a/Report-1.CSV", "a/b/report-2.csv"], "by tag of any value")
    need(await found(tags={"run": "2"}) == ["a/b/report-2.csv"], "by tag")
    need(await found(tags={"run": "2", "kind": "x"}) == [], "by two tags")
    need(await found(name="*.csv", newer=later - 1) == ["report-[3].csv", "reportX3X.csv"], "newer")
    need(await found(name="*.csv", older=later) == ["a/Report-1.CSV", "a/b/report-2.csv"], "older")
    page = await bench.catalog.search(Query("*.csv"), after="a/Report-1.CSV", limit=2)
    need([item.path for item in page] == ["a/b/report-2.csv", "report-[3].csv"], f"page {page}")


@case("tree/move-file")
async def _move(bench: Bench) -> None:
    """A renamed file keeps its id, version, tags and copies, with their keys."""
    entry = await bench.put("a/f", tags={"t": "1"})
    await bench.catalog.mkdir("b")
    moved = await bench.catalog.move("a/f", "b/g")
    need((moved.id, moved.version, moved.name, dict(moved.tags)) == (entry.id, 1, "g", {"t": "1"}), f"moved {moved}")
    located = await bench.catalog.by_id(entry.id)
    need(located is not None and located.path == "b/g" and located.copies[0].key == "a/f", f"it is {located}")
    need(await bench.catalog.entry("a/f") is None, "the old name is still there")
    await refused(Missing, bench.catalog.move("a/f", "c"), "no source")
    await refused(Missing, bench.catalog.move("b/g", "nowhere/g"), "no directory")
    await refused(InvalidName, bench.catalog.move("b/g", "b/g/h"), "below a file")
    await refused(Changed, bench.catalog.move("b/g", "b/h", if_version=2), "another version")
    await bench.catalog.move("b/g", "b/h", if_version=1)
    need((await bench.catalog.move("b/h", "b/h")).id == entry.id, "a move to itself")
    need(await bench.names() == ["a", "b", "b/h"], f"there are {await bench.names()}")


@case("tree/move-over")
async def _over(bench: Bench) -> None:
    """A target is replaced only if asked for, and then lies in the trash; a directory only if it is empty."""
    first, second = await bench.put("f"), await bench.put("g", size=3)
    await refused(Exists, bench.catalog.move("f", "g"), "a target that is there")
    await bench.catalog.move("f", "g", overwrite=True)
    there = await bench.catalog.entry("g")
    need(there is not None and there.id == first.id, f"at g is {there}")
    gone = await bench.catalog.trash()
    need([(t.entry.id, t.path) for t in gone] == [(second.id, "g")], f"trash {gone}")
    await bench.put("d/x")
    await refused(Exists, bench.catalog.move("g", "d", overwrite=True), "a directory that isn't empty")
    await bench.catalog.mkdir("e")
    await bench.catalog.move("d", "e", overwrite=True)
    need(await bench.names() == ["e", "e/x", "g"], f"there are {await bench.names()}")


@case("tree/move-directory")
async def _move_directory(bench: Bench) -> None:
    """A directory moves with all below it, never into itself; the mover looks at every file."""
    entries = [await bench.put(f"a/b/f{n}") for n in range(3)]
    for entry in entries:
        await bench.catalog.looked(entry.id, 1, 0)
    await bench.catalog.mkdir("c")
    await refused(InvalidName, bench.catalog.move("a", "a/b/a"), "into itself")
    await bench.catalog.move("a/b", "c/d")
    need(await bench.names() == ["a", "c", "c/d", "c/d/f0", "c/d/f1", "c/d/f2"], f"there are {await bench.names()}")
    await bench.settled()
    due = [work.path for work in await bench.catalog.work(bench.now)]
    need(sorted(due) == ["c/d/f0", "c/d/f1", "c/d/f2"], f"due are {due}")


@case("tree/delete-restore")
async def _delete(bench: Bench) -> None:
    """What is deleted lies in the trash under its id, with path and time, and comes back as it was."""
    entry = await bench.put("a/b/f", size=7, tags={"t": "1"})
    need(await bench.catalog.delete("nowhere") is None, "nothing was deleted")
    await refused(Changed, bench.catalog.delete("a/b/f", if_version=2), "another version")
    await refused(Changed, bench.catalog.delete("nowhere", if_version=1), "a version of nothing")
    deleted = await bench.catalog.delete("a/b/f", if_version=1)
    need(deleted is not None and deleted.parent == TRASH and deleted.name == "f", f"deleted {deleted}")
    totals = await bench.catalog.totals()
    need((totals.files, totals.bytes, totals.stores) == (0, 0, {"s1": (1, 7)}), f"totals {totals}")
    (gone,) = await bench.catalog.trash()
    need((gone.entry.id, gone.entry.name, gone.path) == (entry.id, "f", "a/b/f"), f"trash {gone}")
    located = await bench.catalog.by_id(entry.id)
    need(located is not None and located.path == "" and located.entry.name == "f", f"in the trash it is {located}")
    back = await bench.catalog.restore(entry.id)
    need((back.id, back.name, dict(back.tags), back.size) == (entry.id, "f", {"t": "1"}, 7), f"back {back}")
    need(await bench.catalog.thrown(entry.id) is None, "what was restored is found in the trash")
    need(await bench.catalog.trash() == [], "the trash isn't empty")
    need((await bench.catalog.totals()).bytes == 7, "bytes are miscounted")
    await refused(Missing, bench.catalog.restore(entry.id), "it isn't in the trash")
    for store in ("t1", "t2"):
        need(await bench.catalog.delete("a/b/f") is not None, "it wasn't deleted")
        await bench.put("a/b/f", stores=(store,))
    trash = await bench.catalog.trash()
    need(len(trash) == 2 and [t.entry.id for t in trash] == sorted(t.entry.id for t in trash), f"two in {trash}")
    need([await bench.catalog.thrown(t.entry.id) for t in trash] == trash, "found by their ids")
    need(await bench.catalog.trash(after=trash[0].entry.id, limit=1) == trash[1:], "pages of the trash")
    await refused(Exists, bench.catalog.restore(trash[0].entry.id), "the name is taken")
    await bench.catalog.restore(trash[0].entry.id, "new/place")
    need(await bench.names("new") == ["new/place"], "restored elsewhere")


@case("tree/delete-directory")
async def _delete_directory(bench: Bench) -> None:
    """A directory goes to the trash as one thing, with all below it, and comes back so; one that isn't empty only if
    asked for."""
    below = await bench.put("a/b/f", size=3)
    await bench.put("a/g", size=4)
    await refused(Exists, bench.catalog.delete("a"), "a directory that isn't empty")
    deleted = await bench.catalog.delete("a", recursive=True)
    await bench.settled()
    need(deleted is not None and await bench.names() == [], f"there are {await bench.names()}")
    need(len(await bench.catalog.trash()) == 1, "the trash has more than the directory")
    need(await bench.catalog.thrown(below.id) is None, "what lies in it was deleted by itself")
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (0, 0, 0), f"totals {totals}")
    work = await bench.catalog.work(bench.now)
    need({w.entry.name for w in work} >= {"f", "g"} and all(w.trashed and not w.path for w in work), f"work {work}")
    await bench.put("a/b/f", stores=("s2",))
    assert deleted is not None  # noqa: S101 - checked above
    await bench.catalog.restore(deleted.id, "old/a")
    await bench.settled()
    names = await bench.names()
    need(names == ["a", "a/b", "a/b/f", "old", "old/a", "old/a/b", "old/a/b/f", "old/a/g"], f"there are {names}")
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (3, 5, 17), f"totals {totals}")
    await bench.catalog.mkdir("empty")
    need(await bench.catalog.delete("empty") is not None, "an empty directory wasn't deleted")


@case("tree/many")
async def _many(bench: Bench) -> None:
    """A directory of thousands of files is deleted and restored as one thing; sums and the mover's work follow."""
    number = 2300
    entries, copies = [], []
    top = Entry("a" * 16, ROOT, "big", "Directory")
    sub = Entry("b" * 16, top.id, "sub", "Directory")
    for n in range(number):
        parent = top.id if n % 2 else sub.id
        entries.append(Entry(f"{n + 1:016x}", parent, f"f{n}", "File", 2, 1, "", 1))
        copies.append(Copy(f"{n + 1:016x}", "s1", f"k{n}", 1, "Whole", "t", 2))
    await bench.catalog.load([top, sub, *entries], copies, [], due=0)
    need((await bench.catalog.totals()).files == number, "load miscounts")
    need(await bench.catalog.next_due() == 0, "something is due")
    await bench.catalog.delete("big", recursive=True)
    await bench.catalog.mkdir("other")
    await bench.settled()
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (0, 1, 0), f"deleted: {totals}")
    need(len(await bench.catalog.work(bench.now, limit=9999)) == number + 1, "not all are due")
    await bench.catalog.restore(top.id)
    await bench.catalog.move("big/sub", "other/sub")
    await bench.catalog.delete("other", recursive=True)
    await bench.settled()
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (number // 2, 1, number), f"in the end: {totals}")


@case("tree/tags")
async def _tags(bench: Bench) -> None:
    """Tags are replaced as a whole, on files and directories, and wake the mover."""
    entry = await bench.put("f", tags={"a": "1", "b": "2"})
    await bench.catalog.looked(entry.id, 1, 0)
    need(await bench.catalog.next_due() == 0, "something is due")
    tagged = await bench.catalog.set_tags("f", {"b": "ü", "c": ""})
    need(dict(tagged.tags) == {"b": "ü", "c": ""} and tagged.version == 1, f"tagged {tagged}")
    again = await bench.catalog.entry("f")
    need(again == tagged, f"read again {again}")
    need(len(await bench.catalog.work(bench.now)) == 1, "the mover isn't woken")
    await bench.catalog.mkdir("d")
    need(dict((await bench.catalog.set_tags("d", {"x": "y"})).tags) == {"x": "y"}, "a directory's tags")
    await refused(Missing, bench.catalog.set_tags("nowhere", {}), "nothing there")


@case("tree/name-held")
async def _held(bench: Bench) -> None:
    """A name that a new file is being written to is held for it."""
    intent = await bench.begin("d/f")
    need(await bench.catalog.entry("d/f") is None, "it is there before its bytes")
    await bench.put("g")
    await refused(Conflict, bench.catalog.mkdir("d/f"), "mkdir")
    await refused(Conflict, bench.catalog.move("g", "d/f"), "move")
    await refused(Conflict, bench.begin("d/f"), "another put")
    await bench.catalog.delete("g")
    (gone,) = await bench.catalog.trash()
    await refused(Conflict, bench.catalog.restore(gone.entry.id, "d/f"), "restore")
    await bench.commit(intent)
    need(await bench.names() == ["d", "d/f"], f"there are {await bench.names()}")
    await refused(Changed, bench.catalog.begin(intent, if_version=ABSENT), "absent, and it is there")


@case("trash/weigh")
async def _weigh(bench: Bench) -> None:
    """What lies at and below an entry is counted, in the trash too."""
    catalog = bench.catalog
    for path, size in (("d/f", 5), ("d/e/g", 7), ("h", 11)):
        await bench.put(path, size=size)
    need(await catalog.weigh("1" * 16) == (0, 0), "nothing weighs something")
    top, file = await catalog.entry("d"), await catalog.entry("h")
    need(top is not None and await catalog.weigh(top.id) == (2, 12), "a directory")
    need(file is not None and await catalog.weigh(file.id) == (1, 11), "a file")
    gone = await catalog.delete("d", recursive=True)
    need(gone is not None and await catalog.weigh(gone.id) == (2, 12), "a directory in the trash")


@case("sums/check")
async def _check(bench: Bench) -> None:
    """A change is checked against the sums before it; what is refused leaves everything as it was."""
    catalog, seen = bench.catalog, list[tuple[int, int]]()

    def fits(totals: Totals) -> None:
        seen.append((totals.files, totals.bytes))

    def full(totals: Totals) -> None:
        raise Full(f"{totals.files} files")

    await bench.put("f", size=5)
    gone = await bench.put("gone", size=7)
    await catalog.delete("gone")
    await bench.settled()
    intent = await bench.begin("g")
    whole = [Copy(intent.entry, "s1", "g", 1, "Whole", "t1", 9, bench.now)]
    told: dict[str, Any] = {"size": 9, "sha256": "", "whole": whole, "failed": {}, "due": 0}
    linked = Copy("", "s1", "theirs", 1, "Linked", "t", 3)
    before = await bench.names()
    await refused(Full, catalog.commit_put(intent.id, **told, check=full), "a write")
    await refused(Full, catalog.restore(gone.id, check=full), "what comes back")
    await refused(Full, catalog.adopt("l", linked, mtime=1, check=full), "a link")
    need(await bench.names() == before, f"there are {await bench.names()}")
    need(len(await catalog.intents(until=1 << 60)) == 1, "the intent ended")
    await catalog.commit_put(intent.id, **told, check=fits)
    await catalog.restore(gone.id, check=fits)
    await catalog.adopt("l", linked, mtime=1, check=fits)
    need(seen == [(1, 5), (2, 14), (3, 21)], f"sums {seen}")
