"""The embedded catalogue: one SQLite file of one process, in WAL with a flush at each commit.

Changes that wait at the same moment share a commit; readers see the last one and wait for nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from cloudmesh.data.catalog import sql_files as files
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog import sql_tree as tree
from cloudmesh.data.catalog.schema import prepare
from cloudmesh.data.catalog.sql import SqlCatalog, micros
from cloudmesh.data.catalog.sqlite_threads import Act, Readers, Writer
from cloudmesh.data.model import Copy, Entry, Trashed
from cloudmesh.engine.errors import Conflict, Transient

T = TypeVar("T")


class SqliteCatalog(SqlCatalog):
    """A catalogue in a file, to be opened before use.

    Args:
        path: The file; beside it lie its log and a lock.
        clock: Microseconds since 1970.
        readers: Threads that read.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int] = micros, readers: int = 4) -> None:
        super().__init__(clock=clock, readers=readers)
        self.path = path
        self._writer: Writer | None = None
        self._readers: Readers | None = None
        self._lock = -1

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

    async def _plain(self, act: Act[T]) -> T:
        if self._readers is None:
            raise Transient("the catalogue isn't open")
        return self._readers.here(act, plain=True)

    async def _write(self, act: Act[T]) -> T:
        if self._writer is None:
            raise Transient("the catalogue isn't open")
        return await self._writer.run(act)

    # -- the whole

    async def seq(self) -> int:
        """See `Catalog.seq`."""
        return await self._read(read.last_seq)

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
        if self._writer is not None:
            await self._writer.trim()

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
