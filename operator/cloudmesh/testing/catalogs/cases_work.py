"""Cases of the mover's work, the end of what was deleted, the journal, and rebuilding."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from cloudmesh.data.errors import Exists
from cloudmesh.data.model import ROOT, TRASH, Copy, Entry, Intent, Target, Trashed
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.catalogs.case import Bench, case, need, refused


@case("work/due")
async def _due(bench: Bench) -> None:
    """Files are given when they are due, the longest waiting first, until the mover looked."""
    for number, due in enumerate((30, 10, 20)):
        await bench.put(f"f{number}", due=due)
    await bench.put("never")
    need([w.due for w in await bench.catalog.work(25)] == [10, 20], "due by 25")
    need([w.path for w in await bench.catalog.work(99, limit=2)] == ["f1", "f2"], "two of three")
    need(await bench.catalog.next_due() == 10, "the next")
    (first, *_) = await bench.catalog.work(99)
    need(first.copies and first.copies[0].store == "s1" and not first.trashed, f"work {first}")
    await bench.catalog.looked(first.entry.id, first.entry.version, 1 << 60, stamp=first.stamp)
    need([w.path for w in await bench.catalog.work(99)] == ["f2", "f0"], "after a look")
    for work in await bench.catalog.work(99):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    need(await bench.catalog.next_due() == 1 << 60, "the last one left")
    need((await bench.catalog.totals()).pending == 0, "work is pending")


@case("work/pending")
async def _pending(bench: Bench) -> None:
    """The sums know the files that the mover still has work with."""
    entry = await bench.put("f", due=5)
    need((await bench.catalog.totals()).pending == 1, "a new one")
    await bench.catalog.looked(entry.id, 1, bench.now + 10**9, pending=True)
    need((await bench.catalog.totals()).pending == 1, "work is left")
    await bench.catalog.looked(entry.id, 1, bench.now + 10**9)
    need((await bench.catalog.totals()).pending == 0, "a look in the future is no work")
    await bench.catalog.looked(entry.id, 1, bench.now)
    need((await bench.catalog.totals()).pending == 1, "it was made due")


@case("work/changed-meanwhile")
async def _meanwhile(bench: Bench) -> None:
    """What changes while the mover looks stays due, whatever changes."""
    entry = await bench.put("f", due=5)
    await bench.catalog.mkdir("d")

    async def wake() -> None:
        await bench.catalog.wake(due=5)

    async def by_copy() -> None:
        (copy,) = await bench.catalog.copies(entry.id)
        await bench.catalog.put_copies([replace(copy, state="Missing")], due=5)

    async def seen() -> None:
        await bench.catalog.looked(entry.id, 1, bench.now)

    changes: dict[str, Callable[[], Awaitable[object]]] = {
        "move": lambda: bench.catalog.move("f", "d/f"),
        "move of the directory": lambda: bench.catalog.move("d", "e"),
        "tags": lambda: bench.catalog.set_tags("e/f", {"a": "b"}),
        "wake": wake,
        "a bad copy": by_copy,
        "a wish": seen,
        "delete": lambda: bench.catalog.delete("e", recursive=True),
        "restore": lambda: _restore(bench),
    }
    for name, change in changes.items():
        (work,) = [w for w in await bench.catalog.work(bench.now) if w.entry.kind == "File"]
        await change()
        await bench.settled()
        await bench.catalog.looked(work.entry.id, work.entry.version, 1 << 60, stamp=work.stamp)
        found = [w.entry.id for w in await bench.catalog.work(bench.now)]
        need(entry.id in found, f"after {name} it isn't due any more")
    (work,) = await bench.catalog.work(bench.now)
    await bench.put("e/f", due=5)
    await bench.catalog.looked(entry.id, 1, 1 << 60)
    need(len(await bench.catalog.work(bench.now)) == 1, "another version was looked at")


async def _restore(bench: Bench) -> None:
    (gone,) = await bench.catalog.trash()
    await bench.catalog.restore(gone.entry.id)


@case("work/wake")
async def _wake(bench: Bench) -> None:
    """All files are made due, or those with a copy in a store; what is due before stays so."""
    for number in range(5):
        await bench.put(f"d/f{number}", stores=("s1", "s2") if number % 2 else ("s1",), due=50)
    for work in await bench.catalog.work(99):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    need(await bench.catalog.wake(store="s2", due=70) == 2, "two files have a copy in s2")
    need({w.path for w in await bench.catalog.work(99)} == {"d/f1", "d/f3"}, "those of s2")
    need(await bench.catalog.wake(due=80) == 5, "there are five files")
    need({w.due for w in await bench.catalog.work(99)} == {70, 80}, "what was due before stays so")
    need((await bench.catalog.totals()).pending == 5, "pending")
    need(await bench.catalog.wake(store="nowhere", due=1) == 0, "no file is there")


@case("end/file")
async def _end(bench: Bench) -> None:
    """A file in the trash ends with its last copy; one of the tree never."""
    entry = await bench.put("f", stores=("s1", "s2"))
    live = await bench.put("live")
    await bench.catalog.drop_copy(live.id, "s1")
    await bench.catalog.purge(live.id)
    need(await bench.catalog.entry("live") is not None, "a file of the tree ended")
    await bench.catalog.delete("f")
    await bench.catalog.purge(entry.id)
    need(await bench.catalog.by_id(entry.id) is not None, "it ended with copies left")
    await bench.catalog.drop_copy(entry.id, "s1")
    need(await bench.catalog.by_id(entry.id) is not None, "it ended with a copy left")
    removing = Intent(secrets.token_hex(8), "Delete", entry.id, "", "f", 1, (Target("s2", "f", "t1"),), 1)
    await bench.catalog.begin(removing)
    await bench.catalog.drop_copy(entry.id, "s2")
    await bench.catalog.end(removing.id)
    need(await bench.catalog.by_id(entry.id) is None and await bench.catalog.trash() == [], "it is still there")
    await bench.catalog.purge(entry.id)
    await bench.catalog.purge(ROOT)
    bare = await bench.put("bare")
    await bench.catalog.drop_copy(bare.id, "s1")
    await bench.catalog.delete("bare")
    await bench.catalog.purge(bare.id)
    need(await bench.catalog.trash() == [], "one without copies is still there")


@case("end/being-written")
async def _end_written(bench: Bench) -> None:
    """What somebody writes to doesn't end, nor the directory of a new file."""
    entry = await bench.put("f")
    over, new = await bench.begin("f"), await bench.begin("d/g")
    await bench.catalog.delete("f")
    deleted = await bench.catalog.delete("d", recursive=True)
    assert deleted is not None  # noqa: S101 - `begin` made it
    await bench.catalog.drop_copy(entry.id, "s1")
    await bench.catalog.purge(entry.id)
    await bench.catalog.purge(deleted.id)
    need(len(await bench.catalog.trash()) == 2, "it ended while it was written")
    await bench.commit(over)
    await bench.commit(new)
    need(len(await bench.catalog.copies(entry.id)) == 1, "the copy that was written is lost")
    await bench.settled()
    for intent in (over, new):
        await bench.catalog.drop_copy(intent.entry, "s1")
    need(await bench.catalog.trash() == [], f"still in the trash: {await bench.catalog.trash()}")


@case("end/directory")
async def _end_directory(bench: Bench) -> None:
    """A directory in the trash ends with its last file, or when the mover asks and no file is below."""
    files = [await bench.put("a/b/f"), await bench.put("a/g")]
    await bench.catalog.mkdir("a/empty/deeper", parents=True)
    deleted = await bench.catalog.delete("a", recursive=True)
    assert deleted is not None  # noqa: S101 - it was there
    await bench.settled()
    await bench.catalog.purge(deleted.id)
    need(await bench.catalog.next_due() > 0 and len(await bench.catalog.trash()) == 1, "it ended with files in it")
    for file in files:
        await bench.catalog.drop_copy(file.id, "s1")
    for work in await bench.catalog.work(1 << 60):
        need(work.entry.id == deleted.id and work.entry.kind == "Directory" and work.trashed > 0, f"due is {work}")
        await bench.catalog.purge(work.entry.id)
    need(await bench.catalog.trash() == [] and await bench.catalog.next_due() == 0, "it is still there")
    lone = await bench.put("x/y/f")
    await bench.catalog.delete("x", recursive=True)
    await bench.settled()
    await bench.catalog.drop_copy(lone.id, "s1")
    need(await bench.catalog.trash() == [], "directories stay when their last file ended")


@case("settings")
async def _settings(bench: Bench) -> None:
    """Texts are kept under names."""
    need(await bench.catalog.get("a") == "", "there is something at first")
    await bench.catalog.set("a", "1")
    await bench.catalog.set("a", "ü\n2")
    await bench.open()
    need(await bench.catalog.get("a") == "ü\n2", "it isn't what was kept")


@case("journal/records")
async def _records(bench: Bench) -> None:
    """Each change of the tree leaves its record with it, in order, without gaps, until it is written."""
    entry = await bench.put("d/f", tags={"a": "1"})
    await bench.catalog.move("d/f", "g")
    await bench.catalog.set_tags("g", {"b": "2"})
    await bench.catalog.delete("g")
    await bench.catalog.restore(entry.id, "h")
    await bench.catalog.delete("h")
    await bench.catalog.drop_copy(entry.id, "s1")
    await refused(Exists, bench.catalog.mkdir("d"), "it is there")
    records = await bench.catalog.unwritten()
    ops = [record.body["op"] for record in records]
    need(ops == ["mkdir", "put", "move", "tags", "delete", "restore", "delete", "purge"], f"records {ops}")
    first = records[0].seq
    need([record.seq for record in records] == list(range(first, first + 8)), "numbers have gaps")
    put = records[1].body
    need((put["id"], put["path"], put["version"], put["size"]) == (entry.id, "d/f", 1, 10), f"put {put}")
    need(put["copies"] == {"s1": ["d/f", "t1"]} and put["tags"] == {"a": "1"}, f"put {put}")
    need((records[2].body["source"], records[2].body["path"]) == ("d/f", "g"), f"move {records[2].body}")
    need(await bench.catalog.unwritten(limit=3) == records[:3], "a part of them")
    await bench.catalog.written(records[2].seq)
    need(await bench.catalog.unwritten() == records[3:], "written ones are still there")
    await bench.catalog.written(records[-1].seq)
    await bench.open()
    await bench.catalog.mkdir("e")
    (later,) = await bench.catalog.unwritten()
    need(later.seq == records[-1].seq + 1, f"after a restart the number is {later.seq}")


@case("journal/load")
async def _load(bench: Bench) -> None:
    """A lost catalogue is filled again: all as it was, the journal goes on where it ended."""
    top = Entry("1" * 16, ROOT, "d", "Directory", created=3)
    gone = Entry("2" * 16, TRASH, "old", "Directory")
    file = Entry("3" * 16, top.id, "f", "File", 5, 6, "ab" * 32, 7, "text/plain", {"t": "v"}, 8)
    below = Entry("4" * 16, gone.id, "g", "File", 50)
    copies = [Copy(file.id, "s1", "k", 7, "Whole", "t", 5, 9), Copy(below.id, "s1", "m", 1, "Stale", "t", 50)]
    trashed = [Trashed(gone, "was/old", 11)]
    await bench.catalog.load([below, file, top, gone], copies, trashed, due=12, seq=41, fresh=[top.id])
    need(await bench.catalog.entry("d/f") == file, f"it is {await bench.catalog.entry('d/f')}")
    need(await bench.catalog.trash() == trashed, f"trash {await bench.catalog.trash()}")
    need(await bench.catalog.copies(file.id) == (copies[0],), "copies")
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (1, 1, 5), f"totals {totals}")
    need({w.entry.id for w in await bench.catalog.work(12)} == {file.id, below.id, gone.id}, "work")
    (record,) = await bench.catalog.unwritten()
    need((record.seq, record.body["op"], record.body["id"]) == (42, "mkdir", top.id), f"record {record}")
    await refused(Conflict, bench.catalog.load([], [], [], due=1), "it isn't empty")
    await bench.catalog.restore(gone.id)
    need(await bench.names() == ["d", "d/f", "was", "was/old", "was/old/g"], f"there are {await bench.names()}")


@case("journal/load-in-any-order")
async def _load_once(bench: Bench) -> None:
    """What is loaded is read once and comes in any order; what lies below something in the trash isn't in the sums."""
    number, deep = 2500, 6
    ids = [f"{n + 1:016x}" for n in range(deep)]
    ways = [Entry(ids[n], ids[n - 1] if n else TRASH, f"d{n}", "Directory") for n in range(deep)]
    files = (Entry(f"a{n:015x}", ids[-1] if n % 2 else ROOT, f"f{n}", "File", 1, version=2) for n in range(number))
    copies = (Copy(f"a{n:015x}", "s1", f"k{n}", 2, "Whole", "t", 1) for n in range(number))

    def entries() -> Iterator[Entry]:
        yield from files
        yield from reversed(ways)

    trashed = iter([Trashed(ways[0], "was", 1)])
    fresh = (f"a{n:015x}" for n in range(3))
    await bench.catalog.load(entries(), copies, trashed, due=5, seq=1, fresh=fresh)
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes) == (number // 2, 0, number // 2), f"totals {totals}")
    need(totals.stores == {"s1": (number, number)}, f"copies {totals.stores}")
    need([r.body["path"] for r in await bench.catalog.unwritten()] == ["f0", "", "f2"], "records of fresh ones")
    await bench.catalog.restore(ids[0])
    await bench.settled()
    need((await bench.catalog.totals()).files == number, "the rest came back")


@case("copies/by-key")
async def _held(bench: Bench) -> None:
    """Copies on record in a store are given by key, page after page, whatever their state; the sums count them."""
    keys = ["a", "a b", "a/b", "ab", "z", "ä", "\uffee", "\U0001f600"]
    for key in reversed(keys):
        await bench.commit(await bench.begin(f"of-{key.replace('/', '-')}", keys={"s1": key}))
    other = await bench.put("other", stores=("s2",))
    first = (await bench.catalog.held("s1", limit=1))[0]
    await bench.catalog.put_copies([replace(first, state="Missing")])
    found, after = [], ""
    while page := await bench.catalog.held("s1", after=after, limit=3):
        need(len(page) <= 3, "a page is too long")
        found += page
        after = page[-1].key
    need([copy.key for copy in found] == keys, f"keys {[copy.key for copy in found]}")
    need(found[0].state == "Missing", "its state")
    need([c.entry for c in await bench.catalog.held("s2")] == [other.id], "of another store")
    totals = await bench.catalog.totals()
    need(totals.held == {"s1": len(keys), "s2": 1} and totals.stores["s1"][0] == len(keys) - 1, f"sums {totals}")


@case("journal/clear")
async def _clear(bench: Bench) -> None:
    """All is thrown away but texts that are to stay; then it is as a new one, and can be loaded."""
    await bench.put("d/f")
    await bench.begin("d/g")
    await bench.catalog.delete("d/f")
    await bench.catalog.set("store/a", "id")
    await bench.catalog.set("filled", "yes")
    await bench.catalog.clear(["store/"])
    need(await bench.names() == [] and await bench.catalog.trash() == [], "something is left")
    need(await bench.catalog.intents(until=1 << 62) == [] and await bench.catalog.unwritten() == [], "work is left")
    texts = (await bench.catalog.get("store/a"), await bench.catalog.get("filled"))
    need(texts == ("id", "") and await bench.catalog.seq() == 0, f"texts {texts}, seq {await bench.catalog.seq()}")
    totals = await bench.catalog.totals()
    need((totals.files, totals.stores, totals.held, totals.pending) == (0, {}, {}, 0), f"totals {totals}")
    await bench.catalog.load([Entry("3" * 16, ROOT, "f", "File", 5)], [], [], due=1, seq=9)
    need(await bench.names() == ["f"] and await bench.catalog.seq() == 9, "it can't be loaded")
