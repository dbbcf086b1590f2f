"""The embedded catalogue: one SQLite file of one process, in WAL with a flush at each commit.

Changes that wait at the same moment share a commit; readers see the last one and wait for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from cloudmesh.data.catalog import sqlite_aside as aside
from cloudmesh.data.catalog import sqlite_files as files
from cloudmesh.data.catalog import sqlite_read as read
from cloudmesh.data.catalog import sqlite_tree as tree
from cloudmesh.data.catalog.ports import ANY, Check, Located, Query, Record
from cloudmesh.data.catalog.schema import prepare
from cloudmesh.data.catalog.sqlite_threads import Act, Readers, Writer
from cloudmesh.data.model import Copy, Entry, Intent, Target, Totals, Trashed, Work
from cloudmesh.engine.errors import Conflict, Transient

T = TypeVar("T")


def micros() -> int:
    """Now."""
    return time.time_ns() // 1000


class SqliteCatalog:
    """A catalogue in a file, to be opened before use.

    Args:
        path: The file; beside it lie its log and a lock.
        clock: Microseconds since 1970.
        readers: Threads that read.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = micros, readers: int = 4) -> None:
        self.path = path
        self._clock = clock
        self._threads = readers
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._lock = -1
        self._visiting: asyncio.Task[None] | None = None
        self._waking: set[int] = set()
        """Calls of `wake` that go on here."""

    async def open(self) -> None:
        """Opens or makes the file. Intents that are open belong to a process that has ended: their `until` becomes 0.
        What that process left to do in the background goes on.

        Raises:
            Conflict: Another process has it open.
            InvalidRequest: A later version made it.
            Transient: It can't be opened.
        """
        await asyncio.to_thread(self._open)
        await self._change(lambda db: None)

    def _open(self) -> None:
        try:
            lock = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Transient(f"the catalogue {self.path} can't be opened: {error}") from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(f"another process has the catalogue {self.path} open") from error
            self._writer = Writer(self.path, lambda db: prepare(db, self._clock()))
        except BaseException:
            os.close(lock)
            raise
        self._readers, self._lock = Readers(self.path, self._threads), lock

    async def close(self) -> None:
        """Ends; twice is fine."""
        if self._visiting is not None:
            self._visiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._visiting
            self._visiting = None
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._readers is not None:
            self._readers.close()
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    async def _read(self, act: Act[T]) -> T:
        if self._readers is None:
            raise Transient("the catalogue isn't open")
        return await self._readers.run(act)

    async def _look(self, act: Act[T]) -> T:
        """A read of a few rows by their keys."""
        if self._readers is None:
            raise Transient("the catalogue isn't open")
        return self._readers.here(act)

    async def _write(self, act: Act[T]) -> T:
        if self._writer is None:
            raise Transient("the catalogue isn't open")
        return await self._writer.run(act)

    # -- reading

    async def entry(self, path: str) -> Entry | None:
        """See `Catalog.entry`."""
        return await self._look(lambda db: read.entry(db, path))

    async def by_id(self, entry_id: str) -> Located | None:
        """See `Catalog.by_id`."""
        return await self._look(lambda db: read.by_id(db, entry_id))

    async def copies(self, entry_id: str) -> tuple[Copy, ...]:
        """See `Catalog.copies`."""
        return await self._look(lambda db: read.copies(db, entry_id))

    async def at_key(self, store: str, key: str) -> Copy | None:
        """See `Catalog.at_key`."""
        return await self._look(lambda db: read.at_key(db, store, key))

    async def held(self, store: str, *, after: str = "", limit: int = 1000) -> list[Copy]:
        """See `Catalog.held`."""
        return await self._read(lambda db: read.held(db, store, after, limit))

    async def children(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """See `Catalog.children`."""
        return await self._read(lambda db: read.children(db, path, after, limit, copies))

    async def walk(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """See `Catalog.walk`."""
        return await self._read(lambda db: read.walk(db, path, after, limit, copies))

    async def search(self, query: Query, *, after: str = "", limit: int = 1000) -> list[Located]:
        """See `Catalog.search`."""
        return await self._read(lambda db: read.search(db, query, after, limit))

    async def trash(self, *, after: str = "", limit: int = 1000, versions: bool = False) -> list[Trashed]:
        """See `Catalog.trash`."""
        return await self._read(lambda db: read.trash(db, after, limit, versions))

    async def versions(self, entry_id: str, *, over: bool = False) -> list[Trashed]:
        """See `Catalog.versions`."""
        return await self._read(lambda db: read.versions(db, entry_id, over))

    async def totals(self) -> Totals:
        """See `Catalog.totals`."""
        return await self._read(read.totals)

    async def weigh(self, entry_id: str) -> tuple[int, int]:
        """See `Catalog.weigh`."""
        return await self._read(lambda db: read.weigh(db, entry_id))

    async def get(self, name: str) -> str:
        """See `Catalog.get`."""
        return await self._look(lambda db: read.get(db, name))

    async def set(self, name: str, value: str) -> None:
        """See `Catalog.set`."""
        text = "INSERT INTO setting VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2"
        await self._write(lambda db: db.execute(text, (name, value)) and None)

    # -- changing the tree

    async def mkdir(self, path: str, *, parents: bool = False) -> Entry:
        """See `Catalog.mkdir`."""
        return await self._write(lambda db: tree.mkdir(db, self._clock(), path, parents))

    async def begin(self, intent: Intent, *, if_version: int = ANY) -> None:
        """See `Catalog.begin`."""
        await self._write(lambda db: files.begin(db, self._clock(), intent, if_version))

    async def aim(self, intent_id: str, targets: Sequence[Target]) -> None:
        """See `Catalog.aim`."""
        await self._write(lambda db: files.aim(db, intent_id, targets))

    async def renew(self, intent_id: str, until: int) -> None:
        """See `Catalog.renew`."""
        await self._write(lambda db: files.renew(db, intent_id, until))

    async def commit_put(
        self,
        intent_id: str,
        *,
        size: int,
        sha256: str,
        whole: Sequence[Copy],
        failed: Mapping[str, str],
        due: int,
        keep: bool = False,
        check: Check | None = None,
    ) -> Entry:
        """See `Catalog.commit_put`."""
        return await self._write(
            lambda db: files.commit_put(db, self._clock(), intent_id, size, sha256, whole, failed, due, keep, check)
        )

    async def end(self, intent_id: str, *, left: Sequence[Copy] = ()) -> None:
        """See `Catalog.end`."""
        await self._write(lambda db: files.end(db, self._clock(), intent_id, left))

    async def intents(self, *, until: int) -> list[Intent]:
        """See `Catalog.intents`."""
        return await self._look(lambda db: read.intents(db, until))

    async def move(self, source: str, target: str, *, overwrite: bool = False, if_version: int = ANY) -> Entry:
        """See `Catalog.move`."""
        return await self._change(lambda db: tree.move(db, self._clock(), source, target, overwrite, if_version))

    async def delete(self, path: str, *, recursive: bool = False, if_version: int = ANY) -> Entry | None:
        """See `Catalog.delete`."""
        return await self._change(lambda db: tree.delete(db, self._clock(), path, recursive, if_version))

    async def expire(self, entry_id: str) -> None:
        """See `Catalog.expire`."""
        await self._write(lambda db: aside.expire(db, self._clock(), entry_id))

    async def restore(self, entry_id: str, path: str = "", *, check: Check | None = None) -> Entry:
        """See `Catalog.restore`."""
        return await self._change(lambda db: tree.restore(db, self._clock(), entry_id, path, check))

    async def set_tags(self, path: str, tags: Mapping[str, str]) -> Entry:
        """See `Catalog.set_tags`."""
        return await self._write(lambda db: tree.set_tags(db, self._clock(), path, tags))

    async def adopt(
        self,
        path: str,
        copy: Copy,
        *,
        mtime: int,
        sha256: str = "",
        entry_id: str = "",
        check: Check | None = None,
    ) -> Entry:
        """See `Catalog.adopt`."""
        return await self._write(lambda db: files.adopt(db, self._clock(), path, copy, mtime, sha256, entry_id, check))

    # -- copies, and the mover's work

    async def put_copies(
        self, copies: Sequence[Copy], *, due: int = 0, was: Sequence[Copy | None] | None = None
    ) -> None:
        """See `Catalog.put_copies`."""
        await self._write(lambda db: files.put_copies(db, self._clock(), copies, due, was))

    async def rekey(self, copy: Copy, *, was: Copy) -> bool:
        """See `Catalog.rekey`."""
        return await self._write(lambda db: aside.rekey(db, self._clock(), copy, was))

    async def relink(self, copy: Copy, *, was: Copy, mtime: int) -> bool:
        """See `Catalog.relink`."""
        return await self._write(lambda db: aside.relink(db, self._clock(), copy, was, mtime))

    async def set_digest(self, entry_id: str, version: int, sha256: str) -> None:
        """See `Catalog.set_digest`."""
        await self._write(lambda db: files.set_digest(db, self._clock(), entry_id, version, sha256))

    async def drop_copy(self, entry_id: str, store: str, *, was: Copy | None = None) -> None:
        """See `Catalog.drop_copy`."""
        await self._write(lambda db: files.drop_copy(db, self._clock(), entry_id, store, was))

    async def purge(self, entry_id: str) -> None:
        """See `Catalog.purge`."""
        await self._write(lambda db: files.purge(db, self._clock(), entry_id))

    async def work(self, now: int, *, limit: int = 100) -> list[Work]:
        """See `Catalog.work`."""
        return await self._read(lambda db: read.work(db, now, limit))

    async def next_due(self) -> int:
        """See `Catalog.next_due`."""
        return await self._look(read.next_due)

    async def looked(self, entry_id: str, version: int, due: int, *, pending: bool = False, stamp: int = 0) -> None:
        """See `Catalog.looked`."""
        await self._write(lambda db: files.looked(db, self._clock(), entry_id, version, due, pending, stamp))

    async def wake(self, *, store: str = "", due: int) -> int:
        """See `Catalog.wake`. Many files take many commits; what a process leaves is done after the next start."""

        def begin(db: read.DB) -> int:
            number = tree.begin_wake(db, store, due)
            # before it is committed, so that the background never takes it for one that was left
            self._waking.add(number)
            return number

        return await self._wake(await self._write(begin))

    async def _wake(self, number: int) -> int:
        changed, more = 0, True
        self._waking.add(number)
        try:
            while more:
                step, more = await self._write(lambda db: tree.wake(db, number))
                changed += step
        finally:
            self._waking.discard(number)
        return changed

    # -- the journal

    async def unwritten(self, *, limit: int = 10000) -> list[Record]:
        """See `Catalog.unwritten`."""
        return await self._read(lambda db: read.unwritten(db, limit))

    async def written(self, seq: int) -> None:
        """See `Catalog.written`."""
        await self._write(lambda db: db.execute("DELETE FROM journal WHERE seq <= ?", (seq,)) and None)

    async def seq(self) -> int:
        """See `Catalog.seq`."""
        return await self._read(read.last_seq)

    async def rows(self, *, after: str = "", limit: int = 1000) -> list[Located]:
        """See `Catalog.rows`."""
        return await self._read(lambda db: read.rows(db, after, limit))

    async def load(
        self,
        entries: Iterable[Entry],
        copies: Iterable[Copy],
        trashed: Iterable[Trashed],
        *,
        due: int,
        seq: int = 0,
        fresh: Iterable[str] = (),
    ) -> None:
        """See `Catalog.load`."""

        def act(db: read.DB) -> None:
            # one commit, however large: a process that ends in the middle leaves an empty catalogue
            files.load(db, entries, copies, due)
            gone = ((thing.entry.id, thing.path, thing.at, thing.of) for thing in trashed)
            db.execute("DELETE FROM journal")
            db.execute("DELETE FROM sqlite_sequence WHERE name = 'journal'")
            db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('journal', ?)", (seq,))
            files.finish_load(db, self._clock(), gone, seq, fresh)

        await self._write(act)

    async def clear(self, keep: Sequence[str] = ()) -> None:
        """See `Catalog.clear`. The file is made anew; who reads or writes meanwhile is told that it is closed."""
        kept: list[tuple[str, str]] = []
        with contextlib.suppress(Transient):
            kept = await self._read(lambda db: db.execute("SELECT name, value FROM setting").fetchall())
        await self.close()
        self._unlink()
        await self.open()
        rows = [(name, value) for name, value in kept if name.startswith(tuple(keep))]
        await self._write(lambda db: db.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?)", rows) and None)

    def _unlink(self) -> None:
        for end in ("-wal", "-shm", ""):
            Path(f"{self.path}{end}").unlink(missing_ok=True)

    @property
    def shared(self) -> bool:
        """See `Catalog.shared`."""
        return False

    @property
    def stale(self) -> str:
        """See `Catalog.stale`."""
        return ""

    async def alone(self, duty: str, seconds: float) -> bool:
        """See `Catalog.alone`."""
        return True

    async def drop(self) -> None:
        """Ends; the file goes with its volume."""
        await self.close()

    # -- of this catalogue alone

    async def settle(self) -> None:
        """Waits until all is done that moves of large directories and calls of `wake` left to do in the background."""
        while self._visiting is not None and not self._visiting.done():
            await asyncio.shield(self._visiting)

    async def fsck(self) -> list[str]:
        """What is wrong with sums and tree, found by counting everything; nothing should be."""

        def act(db: read.DB) -> list[str]:
            (sound,) = db.execute("PRAGMA integrity_check").fetchone()
            return tree.integrity(db) + ([] if sound == "ok" else [sound])

        return await self._read(act)

    @property
    def commits(self) -> tuple[int, int]:
        """Commits, and changes that shared them."""
        return (self._writer.commits, self._writer.acts) if self._writer is not None else (0, 0)

    async def _change(self, act: Act[T]) -> T:
        """Runs what may leave something to be done in the background."""

        def both(db: read.DB) -> tuple[T, bool]:
            result = act(db)
            return result, tree.left(db)

        result, more = await self._write(both)
        if more and (self._visiting is None or self._visiting.done()):
            self._visiting = asyncio.get_running_loop().create_task(self._background(), name="catalog background")
        return result

    async def _background(self) -> None:
        # a database that fails here fails everything else aloud; the rest is done after the next start
        with contextlib.suppress(Transient):
            clock = asyncio.get_running_loop().time
            while True:
                began = clock()
                if not await self._write(lambda db: tree.visit(db, self._clock())):
                    break
                # changes of users come in between
                await asyncio.sleep(clock() - began)
            for number in await self._read(tree.wakings):
                if number not in self._waking:
                    await self._wake(number)
