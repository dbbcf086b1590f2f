"""Cases of older contents of files, of objects that nobody wants, and of copies that get another key."""

from __future__ import annotations

import secrets
from dataclasses import replace

from cloudmesh.data.errors import Missing
from cloudmesh.data.model import OVER, ROOT, TRASH, Copy, Entry, Intent, Target, Trashed
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.catalogs.case import Bench, case, need, refused


async def _over(bench: Bench, path: str, *, keep: bool = True, stores: tuple[str, ...] = ("s1", "s2")) -> Entry:
    """Writes a file beside its old copies."""
    there = await bench.catalog.entry(path)
    number = there.version + 1 if there else 1
    intent = await bench.begin(path, stores=stores, keys=dict.fromkeys(stores, f"{path}.{number}"))
    return await bench.commit(intent, size=10 * number, keep=keep)


@case("versions/kept")
async def _kept(bench: Bench) -> None:
    """A write to other keys keeps the copies of the content so far as a version; those written over are gone."""
    first = await bench.put("d/f", stores=("s1", "s2", "s3"), tags={"a": "1"})
    intent = await bench.begin("d/f", stores=("s1", "s2"), keys={"s1": "d/f", "s2": "new"})
    second = await bench.commit(intent, size=20, keep=True)
    copies = {c.store: (c.key, c.version, c.state) for c in await bench.catalog.copies(first.id)}
    need(copies == {"s1": ("d/f", 2, "Whole"), "s2": ("new", 2, "Whole")}, f"copies {copies}")
    (old,) = await bench.catalog.versions(first.id)
    told = (old.of, old.path, old.entry.version, old.entry.size, old.entry.name, dict(old.entry.tags))
    need(told == (first.id, "d/f", 1, 10, "f", {"a": "1"}) and old.at > first.created, f"version {old}")
    need(old.entry.sha256 == first.sha256 and old.entry.mtime == first.mtime, f"version {old}")
    held = {c.store: (c.key, c.version, c.state, c.entry) for c in await bench.catalog.copies(old.entry.id)}
    expected = {"s2": ("d/f", 1, "Whole", old.entry.id), "s3": ("d/f", 1, "Whole", old.entry.id)}
    need(held == expected, f"copies of the version {held}")
    need(await bench.catalog.trash() == [], "it is told as deleted")
    need(await bench.catalog.trash(versions=True) == [old], "it isn't in the trash with versions")
    need(await bench.catalog.thrown(old.entry.id) == old, "it isn't found by its id")
    totals = await bench.catalog.totals()
    need((totals.files, totals.bytes) == (1, 20), f"versions count as files: {totals}")
    need(totals.stores == {"s1": (1, 20), "s2": (2, 30), "s3": (1, 10)}, f"totals {totals}")
    (work,) = [w for w in await bench.catalog.work(bench.now) if w.of]
    need((work.of, work.trashed, work.entry.id, work.path) == (first.id, old.at, old.entry.id, ""), f"work {work}")
    located = await bench.catalog.by_id(old.entry.id)
    need(located is not None and not located.path and located.entry == old.entry, f"by id {located}")
    record = [r.body for r in await bench.catalog.unwritten() if r.body["op"] == "keep"]
    need(len(record) == 1, f"records {record}")
    body = record[0]
    need((body["id"], body["of"], body["since"], body["version"]) == (old.entry.id, first.id, old.at, 1), f"{body}")
    need(body["copies"] == {"s2": ["d/f", "t1"], "s3": ["d/f", "t1"]} and body["path"] == "d/f", f"{body}")
    need(second.version == 2, "the file's version")


@case("versions/order")
async def _order(bench: Bench) -> None:
    """The newest comes first; each write makes all of them due; a rename and the trash change nothing of them."""
    entry = await bench.put("f", stores=("s1", "s2"))
    for _ in range(3):
        await _over(bench, "f")
    for work in await bench.catalog.work(1 << 60):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    await _over(bench, "f")
    found = [one.entry.version for one in await bench.catalog.versions(entry.id)]
    need(found == [4, 3, 2, 1], f"versions {found}")
    due = sorted(w.entry.version for w in await bench.catalog.work(bench.now) if w.of == entry.id)
    need(due == [1, 2, 3, 4], f"due are {due}")
    await bench.catalog.move("f", "g")
    await bench.catalog.delete("g")
    need(len(await bench.catalog.versions(entry.id)) == 4, "after a deletion")
    await bench.catalog.restore(entry.id)
    need(len(await bench.catalog.versions(entry.id)) == 4, "after a restoration")
    need(await bench.catalog.versions("") == [], "of nothing")


@case("versions/not-kept")
async def _not_kept(bench: Bench) -> None:
    """Without `keep`, what was written over leaves nothing; what lies at another key is over, and the mover's."""
    entry = await bench.put("f", stores=("s1", "s2", "s3"))
    await bench.commit(await bench.begin("f", stores=("s1", "s2", "s3")))
    need(await bench.catalog.trash(versions=True) == [], "a write in place left something")
    await _over(bench, "f", keep=False, stores=("s1", "s2"))
    need(await bench.catalog.versions(entry.id) == [], "it is told as a version")
    (thing,) = await bench.catalog.trash(versions=True)
    need((thing.at, thing.of) == (OVER, entry.id), f"it is {thing}")
    need([c.store for c in await bench.catalog.copies(thing.entry.id)] == ["s1", "s2"], "its copies")
    need({c.store: c.state for c in await bench.catalog.copies(entry.id)}["s3"] == "Stale", "the copy that stayed")


@case("versions/failed")
async def _failed(bench: Bench) -> None:
    """A store of which nobody knows whether it took the new content keeps the old one for the version."""
    entry = await bench.put("f", stores=("s1", "s2"))
    intent = await bench.begin("f", stores=("s1", "s2"), keys={"s1": "n1", "s2": "n2"})
    await bench.commit(intent, failed={"s2": "no answer"}, keep=True)
    copies = {c.store: (c.key, c.version, c.state) for c in await bench.catalog.copies(entry.id)}
    need(copies == {"s1": ("n1", 2, "Whole"), "s2": ("n2", 0, "Stale")}, f"copies {copies}")
    (old,) = await bench.catalog.versions(entry.id)
    need(len(await bench.catalog.copies(old.entry.id)) == 2, "copies of the version")


@case("versions/end")
async def _end(bench: Bench) -> None:
    """A version ends with its last copy; the end of the file makes its versions over; none is restored as a file."""
    entry = await bench.put("f", stores=("s1", "s2"))
    for _ in range(3):
        await _over(bench, "f")
    third, second, first = await bench.catalog.versions(entry.id)
    await refused(Missing, bench.catalog.restore(third.entry.id), "a version is no deleted file")
    for store in ("s1", "s2"):
        await bench.catalog.drop_copy(third.entry.id, store)
    need(await bench.catalog.by_id(third.entry.id) is None, "it is there without copies")
    await bench.catalog.expire(second.entry.id)
    need(await bench.catalog.versions(entry.id) == [first], "one that is over is told")
    with_over = await bench.catalog.versions(entry.id, over=True)
    need([(one.entry.version, one.at == OVER) for one in with_over] == [(2, True), (1, False)], f"told {with_over}")
    await refused(Missing, bench.catalog.expire(third.entry.id), "it ended")
    await refused(Missing, bench.catalog.expire(entry.id), "it is a file of the tree")
    for work in await bench.catalog.work(1 << 60):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    await bench.catalog.delete("f")
    for store in ("s1", "s2"):
        await bench.catalog.drop_copy(entry.id, store)
    left = {thing.entry.id: thing.at for thing in await bench.catalog.trash(versions=True)}
    need(left == {first.entry.id: OVER, second.entry.id: OVER}, f"left are {left}")
    due = [work.entry.id for work in await bench.catalog.work(bench.now)]
    need(set(due) == set(left), f"due are {due}")


@case("versions/expire-deleted")
async def _expire(bench: Bench) -> None:
    """What was deleted is over when that is said, with all below it."""
    await bench.put("d/e/f")
    gone = await bench.catalog.delete("d", recursive=True)
    assert gone is not None  # noqa: S101 - it was there
    await bench.settled()
    for work in await bench.catalog.work(1 << 60):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    await bench.catalog.expire(gone.id)
    await bench.settled()
    due = {w.entry.kind: w.trashed for w in await bench.catalog.work(bench.now)}
    need(due == {"File": OVER, "Directory": OVER}, f"due are {due}")
    need([r.body["op"] for r in await bench.catalog.unwritten()][-1] == "expire", "no record")


@case("left/objects")
async def _left(bench: Bench) -> None:
    """What an ended intent left lies in the trash and is over, but not what is a copy on record."""
    entry = await bench.put("f", stores=("s1", "s2"))
    intent = await bench.begin("f", stores=("s1", "s2"), keys={"s1": "n1", "s2": "n2"})
    left = [
        Copy(entry.id, "s1", "n1", 2, "Whole", "t2", 30),
        Copy(entry.id, "s2", "n2", 0, "Stale"),
        Copy(entry.id, "s3", "n3", 0, "Stale"),
    ]
    await bench.catalog.end(intent.id, left=[*left, Copy(entry.id, "s1", "f", 1, "Stale")])
    need(await bench.catalog.intents(until=1 << 60) == [], "it is open")
    (thing,) = await bench.catalog.trash(versions=True)
    need((thing.at, thing.of, thing.path) == (OVER, entry.id, "f"), f"it is {thing}")
    held = {c.store: (c.key, c.state, c.tag) for c in await bench.catalog.copies(thing.entry.id)}
    expected = {"s1": ("n1", "Deleting", "t2"), "s2": ("n2", "Deleting", ""), "s3": ("n3", "Deleting", "")}
    need(held == expected, f"copies {held}")
    need(len(await bench.catalog.copies(entry.id)) == 2, "the file's own copies")
    (work,) = [w for w in await bench.catalog.work(bench.now) if w.trashed]
    need(work.of == entry.id and work.entry.id == thing.entry.id, f"work {work}")
    new = await bench.begin("g")
    await bench.catalog.end(new.id, left=[Copy(new.entry, "s1", "g", 1, "Whole", "t1", 5)])
    need(len(await bench.catalog.trash(versions=True)) == 2, "of a file that never was")
    need(await bench.catalog.entry("g") is None, "it is there")
    await bench.catalog.end(new.id, left=[])


@case("rekey")
async def _rekey(bench: Bench) -> None:
    """A copy gets another key if its record is as expected, nobody writes the file, and the key is free."""
    entry = await bench.put("f", stores=("s1", "s2"))
    other = await bench.put("g")
    await bench.catalog.written(await bench.catalog.seq())
    copy = (await bench.catalog.copies(entry.id))[0]
    there = replace(copy, key="elsewhere", tag="t9")
    need(not await bench.catalog.rekey(there, was=replace(copy, tag="x")), "the record was another one")
    need(not await bench.catalog.rekey(replace(copy, key="g"), was=copy), f"the key belongs to {other.id}")
    writing = await bench.begin("f", stores=("s1", "s2"))
    need(not await bench.catalog.rekey(there, was=copy), "somebody writes it")
    await bench.catalog.end(writing.id)
    need(await bench.catalog.rekey(there, was=copy), "nothing is in the way")
    need((await bench.catalog.copies(entry.id))[0] == there, "the record")
    need(await bench.catalog.at_key("s1", "f") is None, "the old key is taken")
    (record,) = await bench.catalog.unwritten()
    need((record.body["op"], record.body["key"], record.body["tag"]) == ("copy", "elsewhere", "t9"), f"{record}")


@case("rekey/writer")
async def _rekey_writer(bench: Bench) -> None:
    """Who is to write over an object that has another key by now doesn't begin; beside it, they do."""
    entry = await bench.put("f")
    (copy,) = await bench.catalog.copies(entry.id)
    need(await bench.catalog.rekey(replace(copy, key="elsewhere"), was=copy), "nothing is in the way")
    late = Intent(
        secrets.token_hex(8), "Put", entry.id, "", "f", 2, (Target("s1", "f", copy.tag),), bench.now + 1_000_000
    )
    await refused(Conflict, bench.catalog.begin(late), "it would write to the old key")
    beside = replace(late, targets=(Target("s1", "f.2"),))
    await bench.catalog.begin(beside)
    await bench.catalog.end(beside.id)
    await bench.catalog.begin(replace(late, targets=(Target("s1", "elsewhere", copy.tag),)))


@case("versions/load")
async def _load(bench: Bench) -> None:
    """A rebuilt catalogue has the versions of its files."""
    file = Entry("3" * 16, ROOT, "f", "File", 5, 6, "ab" * 32, 7)
    old = Entry("4" * 16, TRASH, "f", "File", 4, 5, "cd" * 32, 6)
    copies = [Copy(file.id, "s1", "k", 7, "Whole", "t", 5, 9), Copy(old.id, "s1", "m", 6, "Whole", "u", 4, 9)]
    thing = Trashed(old, "was/f", 11, file.id)
    await bench.catalog.load([file, old], copies, [thing], due=12)
    need(await bench.catalog.versions(file.id) == [thing], f"versions {await bench.catalog.versions(file.id)}")
    need(await bench.catalog.trash() == [], "it is told as deleted")
