"""The journal and rebuilding: whatever was done, a lost catalogue comes back from the stores as it was."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudmesh.data.catalog import journal as journal_module
from cloudmesh.data.catalog.journal import JOURNAL, Journal
from cloudmesh.data.catalog.rebuild import Rebuilt, Source, rebuild
from cloudmesh.data.catalog.records import decode
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import StoreConfig
from cloudmesh.data.filling import FILLED, fill
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import Copy, Entry, Intent, Target
from cloudmesh.data.stores.memory import MemoryStore, Place
from cloudmesh.data.stores.ports import Page
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

PREFIX = "ns/lab/"


class World:
    """A catalogue, two stores, and somebody who writes as the gateway does."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("s1", "s2"), **info: Any) -> None:
        self.folder = folder
        self.places = {name: Place() for name in names}
        self.members = {}
        for name in names:
            store = MemoryStore(self.places[name], **info)
            self.members[name] = Member(StoreConfig(name, "memory", prefix=PREFIX), store, lambda: 0.0)
            self.members[name].told("Up", "")
        self.now = 1_790_000_000_000_000
        self.count = 0
        self.catalog = SqliteCatalog(folder / "c.sqlite", clock=self.clock, readers=1)
        self.journal = Journal(self.catalog, self, idle_seconds=3600)

    def clock(self) -> int:
        self.now += 1000
        return self.now

    def id(self) -> str:
        self.count += 1
        return f"{self.count:016x}"

    async def __aenter__(self) -> World:
        await self.catalog.open()
        await self.journal.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.journal.stop()
        await self.catalog.close()

    async def put(self, path: str, content: bytes, stores: tuple[str, ...] = ("s1", "s2")) -> Entry:
        old = await self.catalog.entry(path)
        held = {c.store: c for c in await self.catalog.copies(old.id)} if old else {}
        entry, version = (old.id, old.version + 1) if old else (self.id(), 1)
        parent, _, name = path.rpartition("/")
        targets = []
        for store in stores:
            other = await self.catalog.at_key(store, PREFIX + path)
            key = held[store].key if store in held else PREFIX + path
            if store not in held and other is not None and other.entry != entry:
                key += f".~{entry}"
            targets.append(Target(store, key))
        intent = Intent(self.id(), "Put", entry, parent, name, version, tuple(targets), 1, mtime=self.now,
                        content_type="text/csv", tags={"n": str(self.count)})  # fmt: skip
        await self.catalog.begin(intent)
        whole = []
        for target in targets:
            whole.append(await self.write(target, entry, version, content, intent.mtime))
        return await self.catalog.commit_put(
            intent.id, size=len(content), sha256=f"{len(content):064x}", whole=whole, failed={}, due=0
        )

    async def write(self, target: Target, entry: str, version: int, content: bytes, mtime: int) -> Copy:
        attributes = {"id": entry, "version": str(version), "mtime": str(mtime), "write": "x"}
        info = self.members[target.store].store.info
        seen = await self.members[target.store].store.write(
            target.key, one(content), attributes=attributes if info.attributes else None
        )
        return Copy(entry, target.store, target.key, version, "Whole", seen.tag, seen.size, self.now)

    async def rebuilt(self, *, only: tuple[str, ...] = ()) -> tuple[SqliteCatalog, Rebuilt]:
        fresh = SqliteCatalog(self.folder / f"again{self.id()}.sqlite", clock=self.clock, readers=1)
        await fresh.open()
        sources = [Source(n, PREFIX, m.store) for n, m in self.members.items() if not only or n in only]
        return fresh, await rebuild(sources, fresh, now=self.clock())


async def one(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def everything(catalog: SqliteCatalog) -> dict[str, Any]:
    """All that a catalogue knows, without what a rebuild finds anew."""

    def plain(copies: tuple[Copy, ...]) -> list[Copy]:
        return [replace(c, verified=0, scrubbed=0, error="") for c in copies if c.state in ("Whole", "Stale")]

    located = await catalog.walk("", limit=1 << 30, copies=True)
    trash = await catalog.trash(limit=1 << 30)
    work = await catalog.work(1 << 61, limit=1 << 30)
    totals = await catalog.totals()
    return {
        "tree": [(item.path, item.entry, plain(item.copies)) for item in located],
        "trash": trash,
        "gone": sorted((w.entry.id, w.trashed, plain(w.copies)) for w in work if w.trashed and w.entry.kind == "File"),
        "sums": (totals.files, totals.directories, totals.bytes, totals.stores),
    }


async def same(world: World) -> None:
    """The catalogue made anew is the same, and so is one that is made anew of what that one's journal says."""
    await world.journal.sync()
    assert await world.catalog.unwritten() == []
    await world.catalog.wake(due=1)
    before = await everything(world.catalog)
    fresh, _ = await world.rebuilt()
    assert await fresh.fsck() == []
    assert await everything(fresh) == before
    await fresh.close()


@pytest.mark.parametrize("attributes", [True, False])
async def test_each_change_comes_back(tmp_path: Path, attributes: bool) -> None:
    async with World(tmp_path, attributes=attributes) as world:
        catalog = world.catalog
        await world.put("a/b/f", b"one")
        await world.put("a/b/f", b"three")
        await world.put("a/g", b"g", ("s2",))
        await same(world)
        await catalog.mkdir("empty/deep", parents=True)
        await catalog.set_tags("empty", {"x": "y"})
        await catalog.set_tags("a/b/f", {"x": "ü"})
        await catalog.move("a/b", "empty/b")
        await same(world)
        await world.put("a/b/f", b"another one where the first was")
        await world.put("empty/b/f", b"changed after it was moved")
        await same(world)
        await catalog.delete("a", recursive=True)
        await same(world)
        gone = (await catalog.trash())[0]
        await catalog.restore(gone.entry.id, "back/a")
        await world.put("late", b"x")
        await catalog.delete("late")
        await catalog.delete("empty/b/f")
        await catalog.settle()
        await same(world)


async def test_what_ended_stays_ended(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        entry = await world.put("f", b"one")
        await world.catalog.delete("f")
        for copy in await world.catalog.copies(entry.id):
            if copy.store == "s1":
                await world.members["s1"].store.delete(copy.key)
            await world.catalog.drop_copy(entry.id, copy.store)
        await world.journal.sync()
        fresh, result = await world.rebuilt()
        assert (await fresh.walk(""), await fresh.trash(), result.ignored) == ([], [], 1)
        await fresh.close()


async def test_copies_that_the_mover_made_come_back_where_stores_keep_no_attributes(tmp_path: Path) -> None:
    async with World(tmp_path, attributes=False) as world:
        entry = await world.put("f", b"one", ("s1",))
        copy = await world.write(Target("s2", PREFIX + "f.~x"), entry.id, 1, b"one", 5)
        await world.catalog.put_copies([copy])
        await same(world)
        assert len(await world.catalog.copies(entry.id)) == 2


async def test_records_that_were_not_written_are_made_up_from_attributes(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        known = await world.put("a/known", b"one")
        await world.journal.sync()
        await world.put("a/known", b"a second time, of which no record was written", ("s2",))
        new = await world.put("a/b/new", b"a new one")
        moved = await world.put("a/moved", b"moved")
        await world.catalog.move("a/moved", "a/c")
        other = await world.put("a/moved", b"its name was taken")
        before = await everything(world.catalog)
        fresh, result = await world.rebuilt()
        assert await fresh.fsck() == []
        found = {item.path: item for item in await fresh.walk("", copies=True)}
        # the move was never acknowledged: it is undone; of the two of one name, one has its id behind it
        assert set(found) == {"a", "a/known", "a/b", "a/b/new", "a/moved", f"a/moved.~{other.id}"}
        assert found["a/known"].entry.version == 2
        assert found["a/known"].entry.id == known.id
        assert [(c.store, c.state) for c in found["a/known"].copies] == [("s1", "Stale"), ("s2", "Whole")]
        assert found["a/b/new"].entry.id == new.id
        assert found["a/b/new"].entry.mtime == new.mtime
        assert found["a/moved"].entry.id == moved.id
        assert result.adopted == 3
        assert len(before["tree"]) == len(found)
        # directories that were made up have records: a rename of one outlives the next loss
        await fresh.move("a/b", "renamed")
        again = Journal(fresh, world)
        await again.start()
        await again.stop()
        third, _ = await world.rebuilt()
        assert await everything(third) == await everything(fresh)
        await fresh.close()
        await third.close()


async def test_files_of_others_are_taken_in(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        world.places["s1"].put(PREFIX + "theirs/ä.csv", b"123")
        world.places["s1"].put("other/lab/no.csv", b"123")
        world.places["s2"].put(PREFIX + "bad/../name", b"123")
        fresh, result = await world.rebuilt()
        (_, file) = await fresh.walk("", copies=True)
        assert (file.path, file.entry.size, file.copies[0].key) == ("theirs/ä.csv", 3, PREFIX + "theirs/ä.csv")
        assert (result.files, result.directories, result.adopted, result.ignored) == (1, 1, 1, 1)
        await fresh.close()


async def test_overwritten_behind_our_back_is_stale(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        entry = await world.put("f", b"one")
        await world.journal.sync()
        world.places["s1"].put(PREFIX + "f", b"by somebody else")
        fresh, _ = await world.rebuilt()
        assert [c.state for c in await fresh.copies(entry.id)] == ["Stale", "Whole"]
        assert await fresh.entry("f") == entry
        await fresh.close()


async def test_a_store_that_does_not_answer_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with World(tmp_path) as world:
        await world.put("f", b"one")
        await world.journal.sync()

        async def down(moment: str, operation: str, key: str) -> None:
            raise Transient("no answer")

        world.places["s2"].hook = down
        with pytest.raises(Transient, match="no answer"):
            await world.rebuilt()
        world.places["s2"].hook = None
        listed = MemoryStore.list

        async def partly(self: MemoryStore, prefix: str, **asked: Any) -> Page:
            return replace(await listed(self, prefix, **asked), complete=False)

        monkeypatch.setattr(MemoryStore, "list", partly)
        with pytest.raises(Transient, match="complete"):
            await world.rebuilt()
        monkeypatch.undo()
        await world.catalog.close()
        with pytest.raises((Conflict, Transient)):
            await rebuild([Source("s1", PREFIX, world.members["s1"].store)], world.catalog, now=1)


async def test_the_rest_of_the_stores_is_enough_for_what_they_hold(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.put("both", b"one")
        await world.put("lost", b"two", ("s2",))
        await world.journal.sync()
        fresh, _ = await world.rebuilt(only=("s1",))
        found = {item.path: [c.state for c in item.copies] for item in await fresh.walk("", copies=True)}
        assert found == {"both": ["Whole"], "lost": []}
        await fresh.close()


@pytest.mark.parametrize("seed", range(6))
async def test_any_history_comes_back(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    async with World(tmp_path, attributes=seed % 2 == 0) as world:
        catalog = world.catalog
        names = ["a", "b", "c.x", "ü"]

        def path() -> str:
            return "/".join(rng.choices(names, k=rng.randint(1, 3)))

        for step in range(120):
            try:
                match rng.choice(
                    ["put", "put", "put", "move", "move", "delete", "restore", "tags", "mkdir", "sync", "short"]
                ):
                    case "put":
                        stores = tuple(rng.sample(["s1", "s2"], rng.randint(1, 2)))
                        await world.put(path(), bytes(rng.randint(0, 9)), stores)
                    case "move":
                        await catalog.move(path(), path(), overwrite=rng.random() < 0.5)
                    case "delete":
                        await catalog.delete(path(), recursive=rng.random() < 0.7)
                    case "restore":
                        trash = await catalog.trash()
                        if trash:
                            await catalog.restore(rng.choice(trash).entry.id, rng.choice(["", path()]))
                    case "tags":
                        await catalog.set_tags(path(), {"step": str(step)})
                    case "mkdir":
                        await catalog.mkdir(path(), parents=True)
                    case "sync":
                        await world.journal.sync()
                    case "short" if step % 4 == 0:
                        await world.journal.snapshot()
            except CloudmeshError:
                continue
        await same(world)
        assert world.journal.objects > 3


async def test_a_store_that_was_known_before_waits_for_those_that_are_away(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        mesh: Any = SimpleNamespace(members=world.members, up=lambda: [world.members["s1"]])
        fresh = SqliteCatalog(tmp_path / "fresh.sqlite", readers=1)
        await fresh.open()
        world.members["s2"].told("Unknown", "no answer")
        # it holds nothing but its marker, and the one that is away may hold all
        assert "no answer" in await fill(fresh, mesh, 1)
        world.members["s1"].claimed = True
        assert await fill(fresh, mesh, 1) == ""
        await fresh.close()


async def test_a_new_catalogue_is_filled_once(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.put("f", b"one")
        await world.journal.sync()
        mesh: Any = SimpleNamespace(members=world.members, up=lambda: list(world.members.values()))
        fresh = SqliteCatalog(tmp_path / "fresh.sqlite", readers=1)
        await fresh.open()
        world.members["s2"].told("Unknown", "no answer")
        mesh.up = lambda: [world.members["s1"]]
        assert "s2: no answer" in await fill(fresh, mesh, 1)
        assert await fresh.walk("") == []
        mesh.up = lambda: list(world.members.values())
        world.members["s2"].told("Up", "")
        assert await fill(fresh, mesh, 1) == ""
        assert [item.path for item in await fresh.walk("")] == ["f"]
        # the process ended just before it could keep that it is done
        await fresh.set(FILLED, "")
        assert await fill(fresh, mesh, 1) == ""
        assert await fresh.get(FILLED)
        await fresh.close()


# -- the journal itself


async def test_those_who_wait_together_share_an_object(tmp_path: Path) -> None:
    async with World(tmp_path) as world:

        async def act(number: int) -> None:
            await world.catalog.mkdir(f"d{number}")
            await world.journal.sync()
            # what was acknowledged is in the store, in the order of its numbers
            held = [o for o in world.places["s1"].objects.values() if JOURNAL in o.object.key]
            assert f"d{number}" in {r.body["name"] for o in held for r in decode(o.content)}

        await asyncio.gather(*(act(number) for number in range(100)))
        keys = sorted(world.places["s1"].objects)
        assert 1 <= len(keys) <= 25
        assert world.journal.objects == len(keys)
        records = [r for key in keys for r in decode(world.places["s1"].objects[key].content)]
        assert [r.seq for r in records] == list(range(1, 101))
        assert all(int(key.rpartition("/")[2][:20]) for key in keys)


async def test_another_store_takes_it_when_one_is_down(tmp_path: Path) -> None:
    async with World(tmp_path) as world:

        async def down(moment: str, operation: str, key: str) -> None:
            raise Transient("no answer")

        world.places["s1"].hook = down
        await world.catalog.mkdir("d")
        await world.journal.sync()
        assert (len(world.places["s1"].objects), len(world.places["s2"].objects)) == (0, 1)
        assert world.members["s1"].doubted.is_set()
        world.places["s2"].hook = down
        await world.catalog.mkdir("e")
        with pytest.raises(Transient, match="no store takes the journal"):
            await world.journal.sync()
        assert world.journal.error
        world.places["s1"].hook = None
        world.members["s1"].told("Up", "")
        await world.journal.sync()
        assert world.journal.error == ""
        assert len(world.places["s1"].objects) == 1
        world.places["s2"].hook = None
        await same(world)


async def test_a_lost_answer_writes_records_twice_and_they_count_once(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        lost = 0

        async def late(moment: str, operation: str, key: str) -> None:
            nonlocal lost
            if moment == "after" and operation == "publish" and JOURNAL in key:
                lost += 1
                raise Transient("the answer was lost")

        world.places["s1"].hook = late
        await world.put("a/f", b"1")
        await world.catalog.move("a", "b")
        await world.catalog.delete("b", recursive=True)
        await world.journal.sync()
        assert lost == 1
        world.places["s1"].hook = None
        await same(world)


async def test_weak_stores_take_it_only_where_no_store_is_strong(tmp_path: Path) -> None:
    async with World(tmp_path, conditional="None") as world:
        await world.catalog.mkdir("d")
        await world.journal.sync()
        assert len(world.places["s1"].objects) == 1
    strong = tmp_path / "strong"
    strong.mkdir()
    async with World(strong) as world:
        weak = MemoryStore(world.places["s1"], conditional="Create")
        world.members["s1"] = Member(StoreConfig("s1", "memory", prefix=PREFIX), weak, lambda: 0.0)
        world.members["s1"].told("Up", "")
        await world.catalog.mkdir("d")
        await world.journal.sync()
        assert (len(world.places["s1"].objects), len(world.places["s2"].objects)) == (0, 1)


async def test_at_its_end_what_waits_is_written(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.catalog.mkdir("d")
        await world.journal.stop()
        await world.journal.stop()
        assert len(world.places["s1"].objects) == 1
        with pytest.raises(Transient, match="isn't being written"):
            await world.journal.sync()


async def test_records_that_nobody_waits_for_are_written_too(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        journal = Journal(world.catalog, world, idle_seconds=0.05)
        await journal.start()
        await world.catalog.mkdir("d")
        async with asyncio.timeout(10):
            while not world.places["s1"].objects:
                await asyncio.sleep(0.01)
        await journal.stop()


# -- snapshots


async def test_the_journal_is_made_short(tmp_path: Path) -> None:
    async with World(tmp_path, attributes=False) as world:
        for number in range(30):
            await world.put(f"d/f{number}", b"1")
            await world.catalog.move(f"d/f{number}", f"d/g{number}")
            await world.journal.sync()
        await world.put("d/g0", b"22", ("s1",))
        await world.catalog.set_tags("d", {"a": "b"})
        await world.catalog.delete("d/g1")
        assert world.journal.objects >= 30
        seq = await world.journal.snapshot()
        assert seq == await world.catalog.seq()
        for place in world.places.values():
            (key,) = [key for key in place.objects if JOURNAL in key]
            assert "-snapshot-" in key
        await same(world)
        await world.catalog.move("d/g2", "later")
        await world.catalog.restore((await world.catalog.trash())[0].entry.id)
        await same(world)
        assert await world.journal.snapshot() == seq + 2
        assert sum(1 for key in world.places["s1"].objects if JOURNAL in key) == 1
        await same(world)


async def test_changes_while_a_snapshot_is_written_are_in_it_or_after_it(tmp_path: Path) -> None:
    async with World(tmp_path, attributes=False) as world:
        for number in range(40):
            await world.put(f"d{number % 4}/f{number}", b"1")
        rows, rng = world.catalog.rows, random.Random(1)

        async def few(*, after: str = "", limit: int = 1000) -> Any:
            found = await rows(after=after, limit=5)
            for change in (
                lambda: world.put(f"d{rng.randrange(4)}/f{rng.randrange(40)}", b"22"),
                lambda: world.catalog.move(f"d{rng.randrange(4)}/f{rng.randrange(40)}", f"n{world.id()}"),
                lambda: world.catalog.move(f"d{rng.randrange(4)}", f"e{world.id()}"),
                lambda: world.catalog.delete(f"d{rng.randrange(4)}", recursive=True),
                restore,
            ):
                if rng.random() < 0.4:
                    with contextlib.suppress(CloudmeshError):
                        await change()
            await world.journal.sync()
            return found

        async def restore() -> None:
            trash = await world.catalog.trash()
            if trash:
                await world.catalog.restore(trash[0].entry.id, f"r{world.id()}")

        world.catalog.rows = few  # type: ignore[method-assign]
        seq = await world.journal.snapshot()
        assert await world.catalog.seq() > seq + 10
        world.catalog.rows = rows  # type: ignore[method-assign]
        assert any("-snapshot-" in key for key in world.places["s1"].objects)
        await same(world)


async def test_a_snapshot_that_no_store_takes_removes_nothing(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.put("f", b"1")
        await world.journal.sync()
        before = set(world.places["s1"].objects) | set(world.places["s2"].objects)

        async def down(moment: str, operation: str, key: str) -> None:
            if operation == "publish":
                raise Transient("no answer")

        for place in world.places.values():
            place.hook = down
        with pytest.raises(Transient, match="no store takes a snapshot"):
            await world.journal.snapshot()
        assert set(world.places["s1"].objects) | set(world.places["s2"].objects) == before
        for place in world.places.values():
            place.hook = None


async def test_a_snapshot_without_its_end_is_not_believed(tmp_path: Path) -> None:
    async with World(tmp_path) as world:
        await world.put("f", b"1")
        await world.catalog.move("f", "g")
        await world.journal.sync()
        kept = dict(world.places["s1"].objects)
        await world.journal.snapshot()
        (key,) = [key for key in world.places["s1"].objects if "-snapshot-" in key]
        cut = b"".join(world.places["s1"].objects[key].content.splitlines(keepends=True)[:-1])
        for place in world.places.values():
            place.remove(key)
        world.places["s1"].objects.update(kept)
        for name, held in kept.items():
            world.places["s1"].put(name, held.content, held.object.attributes)
        world.places["s1"].put(key, cut)
        fresh, _ = await world.rebuilt()
        assert [item.path for item in await fresh.walk("")] == ["g"]
        await fresh.close()


async def test_a_long_journal_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "COMPACT_SECONDS", 0.02)
    monkeypatch.setattr(journal_module, "COMPACT_OBJECTS", 5)
    async with World(tmp_path) as world:
        for number in range(6):
            await world.catalog.mkdir(f"d{number}")
            await world.journal.sync()
        async with asyncio.timeout(10):
            while not any("-snapshot-" in key for key in world.places["s2"].objects):
                await asyncio.sleep(0.01)
        await same(world)
