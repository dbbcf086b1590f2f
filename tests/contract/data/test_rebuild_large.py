"""Rebuilding from many objects, from objects that somebody copied or renamed, and beside other directories."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cloudmesh.data import names
from cloudmesh.data.catalog.journal import JOURNAL, Journal
from cloudmesh.data.catalog.ports import Record
from cloudmesh.data.catalog.rebuild import Rebuilt, Source, rebuild
from cloudmesh.data.catalog.records import encode
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import StoreConfig
from cloudmesh.data.mesh import KEPT, MARKER, Marker, Member
from cloudmesh.data.stores.memory import MemoryStore, Place
from cloudmesh.data.stores.ports import Object, Page

PREFIX = "ns/lab/"
NOW = 1_790_000_000_000_000
ID = "a" * 16


class Endless(MemoryStore):
    """Lists objects that it makes up one by one, so that they take no memory here; half of them are in its journal."""

    def __init__(self, number: int) -> None:
        super().__init__(Place())
        self.number = number

    def _made(self, n: int) -> Object:
        told = {"id": f"{n + 1:016x}", "version": "1", "mtime": "7"}
        return Object(f"{PREFIX}d{n // 1000:05d}/f{n:09d}", 10, f"t{n}", 7, told)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        if prefix != PREFIX:
            return await super().list(prefix, after=after, limit=limit)
        start = int(after[-9:]) + 1 if after else 0
        made = tuple(self._made(n) for n in range(start, min(self.number, start + limit)))
        return Page(made, made[-1].key if start + limit < self.number else "")

    async def stat(self, key: str) -> Object | None:
        return self._made(int(key[-9:])) if key[-9:].isdigit() else None

    async def read(self, key: str, **asked: Any) -> AsyncIterator[bytes]:
        if "-snapshot-" not in key:
            async for chunk in super().read(key, **asked):
                yield chunk
            return
        count = 0
        yield encode([Record(5, 0, {"op": "snapshot"})])
        for n in range(0, self.number, 2):
            seen = self._made(n)
            yield encode([Record(5, 0, {
                "op": "put", "id": seen.attributes["id"], "parent": "0" * 16, "name": f"g{n}", "path": f"g{n}",
                "version": 1, "size": 10, "mtime": 7, "sha256": "", "type": "", "tags": {}, "created": 7,
                "copies": {"s1": [seen.key, seen.tag]},
            })])  # fmt: skip
            count += 1
        yield encode([Record(5, 0, {"op": "end", "lines": count})])


class Forgets(MemoryStore):
    """Takes what is written and keeps none of it."""

    async def write(self, key: str, chunks: AsyncIterable[bytes], **asked: Any) -> Object:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
        return Object(key, size, "t")


def peak() -> int:
    """The most that was held since this was asked last, beside what is held now; 0 where nobody counts."""
    now, most = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    return most - now


async def made(folder: Path, number: int) -> tuple[Rebuilt, int, int]:
    """A catalogue of so many files, half of them renamed; and the memory that it and a snapshot took."""
    store = Endless(number)
    store.place.put(f"{PREFIX}{JOURNAL}{5:020d}-snapshot-x.jsonl", b"made up when it is read")
    catalog = SqliteCatalog(folder / "c.sqlite", readers=1)
    await catalog.open()
    try:
        peak()
        result = await rebuild([Source("s1", PREFIX, store)], catalog, now=NOW, scratch=folder)
        rebuilding = peak()
        assert (await catalog.totals()).stores["s1"] == (number, 10 * number)
        assert (await catalog.entry("g0")) is not None
        assert (await catalog.entry("d00000/f000000001")) is not None
        member = Member(StoreConfig("s2", "memory", prefix=PREFIX), Forgets(Place()), lambda: 0.0)
        member.told("Up", "")
        journal = Journal(catalog, Holder(member))
        await journal.flush()
        peak()
        assert await journal.snapshot() > number // 2
        return result, rebuilding, peak()
    finally:
        await catalog.close()


class Holder:
    """One store to write the journal to."""

    def __init__(self, member: Member) -> None:
        self.members = {member.name: member}


async def test_memory_does_not_grow_with_the_number_of_files(tmp_path: Path) -> None:
    number = 12_000
    tracemalloc.start()
    try:
        result, rebuilding, snapshot = await made(tmp_path, number)
    finally:
        tracemalloc.stop()
    assert (result.files, result.copies, result.adopted) == (number, number, number // 2)
    # kept in memory they would take a KiB each
    assert rebuilding < 5 << 20
    assert snapshot < 5 << 20
    assert not list(tmp_path.glob("rebuild-*"))


# -- what somebody did in the store


class Bench:
    """One store in memory, and catalogues made of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = Place()
        self.count = 0

    def put(self, name: str, content: bytes, *, at: str | None = "", entry: str = ID, **told: str) -> Object:
        """An object of ours, as it was written at `at` (here if empty, None: by a gateway that didn't keep it)."""
        attributes = {"id": entry, "version": "1", "mtime": "7", "write": "b" * 16} | told
        if at is not None:
            attributes["at"] = names.mark_of("", at or name)
        return self.place.put(PREFIX + name, content, attributes)

    def journal(self, *bodies: dict[str, Any]) -> None:
        """Records."""
        lines = encode(Record(n + 1, NOW + n, body) for n, body in enumerate(bodies))
        self.place.put(f"{PREFIX}{JOURNAL}{1:020d}-x.jsonl", lines)

    async def files(self, **asked: Any) -> tuple[dict[str, tuple[str, list[str]]], Rebuilt]:
        """By path, the entry's id and the names of its copies' objects; they have been looked at for soundness."""
        self.count += 1
        catalog = SqliteCatalog(self.folder / f"{self.count}.sqlite", readers=1)
        await catalog.open()
        try:
            source = Source("s1", PREFIX, MemoryStore(self.place))
            result = await rebuild([source], catalog, now=NOW, **asked)
            assert await catalog.fsck() == []
            found = [one for one in await catalog.walk("", copies=True) if one.entry.kind == "File"]
            return {one.path: (one.entry.id, [c.key.removeprefix(PREFIX) for c in one.copies]) for one in found}, result
        finally:
            await catalog.close()


def put_record(name: str, seen: Object, entry: str = ID) -> dict[str, Any]:
    """What the journal says of a write."""
    return {
        "op": "put", "id": entry, "parent": "0" * 16, "name": name, "path": name, "version": 1, "size": seen.size,
        "mtime": 7, "sha256": "", "type": "", "tags": {}, "created": 7, "copies": {"s1": [seen.key, seen.tag]},
    }  # fmt: skip


@pytest.mark.parametrize("journal", [True, False])
@pytest.mark.parametrize("at", ["f", None])
@pytest.mark.parametrize("copied", ["a copy", "f2"])
async def test_a_copied_object_is_a_file_of_its_own(tmp_path: Path, journal: bool, at: str | None, copied: str) -> None:
    bench = Bench(tmp_path)
    seen = bench.put("f", b"one", at=at)
    bench.put(copied, b"one", at=at)
    if journal:
        bench.journal(put_record("f", seen))
    files, _ = await bench.files()
    assert sorted(held for _, held in files.values()) == sorted([["f"], [copied]])
    assert set(files) == {"f", copied}
    ids = {entry for entry, _ in files.values()}
    assert len(ids) == 2
    if journal or at:
        assert files["f"][0] == ID


async def test_a_renamed_object_is_followed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    seen = bench.put("f", b"one")
    bench.place.remove(seen.key)
    bench.put("renamed", b"one", at="f")
    bench.journal(put_record("f", seen))
    files, _ = await bench.files()
    assert files["f"] == (ID, [])
    assert files["renamed"][1] == ["renamed"]
    assert files["renamed"][0] != ID


async def test_a_copy_over_another_of_our_objects_is_no_content_of_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    one, two = bench.put("one", b"1"), bench.put("two", b"2", entry="b" * 16)
    bench.journal(put_record("one", one), put_record("two", two, "b" * 16))
    bench.put("two", b"1", at="one", version="9")
    files, result = await bench.files()
    assert files == {"one": (ID, ["one"]), "two": ("b" * 16, ["two"])}
    assert result.stale == 1


@pytest.mark.parametrize("told", [{"id": "0" * 16}, {"id": "f" * 16}, {"id": "x" * 100}, {"version": "9" * 400}])
async def test_attributes_that_somebody_made_up(tmp_path: Path, told: dict[str, str]) -> None:
    bench = Bench(tmp_path)
    bench.put("f", b"one", at=None, **told)
    files, _ = await bench.files()
    assert list(files) == ["f"]


async def test_without_adoption_only_what_is_ours_comes_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.put("ours", b"1")
    bench.put("copied", b"1", at="ours")
    bench.place.put(PREFIX + "theirs", b"2")
    adopted = bench.place.put(PREFIX + "adopted", b"3")
    bench.journal(put_record("adopted", adopted, "c" * 16))
    files, result = await bench.files(adopt=False)
    assert set(files) == {"ours", "adopted"}
    assert result.ignored == 2


async def test_another_directory_within_this_one_is_left_alone(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.place.put(PREFIX + MARKER, msgspec.json.encode(Marker("1", "i", "ns", "lab", "u")))
    # a name that comes before the marker in the listing
    bench.put("sub/!first", b"1")
    bench.put("sub/deep/f", b"1", entry="b" * 16)
    bench.place.put(f"{PREFIX}sub/{MARKER}", msgspec.json.encode(Marker("2", "i", "ns", "other", "u2")))
    bench.put("ours", b"1", entry="c" * 16)
    # this directory's own, copied into itself
    bench.place.put(f"{PREFIX}backup/{MARKER}", msgspec.json.encode(Marker("1", "i", "ns", "lab", "u")))
    bench.place.put(f"{PREFIX}backup/x", b"2")
    files, result = await bench.files()
    assert set(files) == {"ours", "backup/x", f"backup/{MARKER}"}
    assert result.foreign == {f"{PREFIX}sub/": "ns/other"}


async def test_older_contents_and_what_nobody_wants_come_back_as_such(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    old, new, rest = bench.put("f", b"old"), bench.put("f.~new", b"newer", version="2", at="f.~new"), "rest"
    left = bench.put(rest, b"nobody's", version="3")
    kept = put_record("f", old, "b" * 16) | {"op": "keep", "parent": "f" * 16, "of": ID, "since": NOW}
    over = put_record("f", left, "c" * 16) | {"op": "keep", "parent": "f" * 16, "of": ID, "since": 1, "version": 3}
    over["copies"] = {"s1": [left.key, ""]}
    now = put_record("f", new) | {"version": 2}
    bench.journal(put_record("f", old), kept, now, over)
    catalog = SqliteCatalog(tmp_path / "c.sqlite", readers=1)
    await catalog.open()
    await rebuild([Source("s1", PREFIX, MemoryStore(bench.place))], catalog, now=NOW)
    assert await catalog.fsck() == []
    trash = {thing.entry.id: (thing.path, thing.at, thing.of) for thing in await catalog.trash(versions=True)}
    assert trash == {"b" * 16: ("f", NOW, ID), "c" * 16: ("f", 1, ID)}
    assert [c.key for c in await catalog.copies(ID)] == [new.key]
    assert [c.key for c in await catalog.copies("b" * 16)] == [old.key]
    assert [c.key for c in await catalog.copies("c" * 16)] == [left.key]
    assert (await catalog.entry("f")).version == 2  # type: ignore[union-attr]
    await catalog.close()


@pytest.mark.parametrize("bare", [False, True], ids=["listings with tags", "listings without tags"])
async def test_what_was_put_aside_comes_back_only_where_a_record_says_so(tmp_path: Path, bare: bool) -> None:
    bench = Bench(tmp_path)
    bench.place.bare = bare
    now, old = bench.put("f", b"now", version="2"), bench.put(f"{KEPT}1", b"old", at="f")
    bench.put(f"{KEPT}2", b"nobody knows", at="f", entry="d" * 16)
    bench.place.put(f"{PREFIX}{KEPT}3", b"a stranger's")
    kept = put_record("f", old, "b" * 16) | {"op": "keep", "parent": "f" * 16, "of": ID, "since": NOW}
    bench.journal(kept, put_record("f", now) | {"version": 2})
    files, result = await bench.files()
    assert files == {"f": (ID, ["f"])}
    assert (result.files, result.copies, result.adopted) == (2, 2, 0)
