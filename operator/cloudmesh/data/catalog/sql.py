"""What the catalogues in SQL databases have in common: the statements of `sql_read`, `sql_tree`, `sql_files` and
`sql_aside`, each act one transaction. They are in SQLite's words; `postgres_threads` translates them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from cloudmesh.data.catalog import sql_aside as aside
from cloudmesh.data.catalog import sql_files as files
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog import sql_tree as tree
from cloudmesh.data.catalog.ports import ANY, Check, Located, Query, Record
from cloudmesh.data.model import Copy, Entry, Intent, Target, Totals, Trashed, Work
from cloudmesh.engine.errors import Transient

T = TypeVar("T")
Act = Callable[[read.DB], T]


def micros() -> int:
    """Now."""
    return time.time_ns() // 1000


class SqlCatalog(ABC):
    """A catalogue, to be opened before use; a database says how acts are run, and does what it can do better.

    Args:
        clock: Microseconds since 1970.
        readers: That read at once.
    """

    def __init__(self, *, clock: Callable[[], int] = micros, readers: int = 4) -> None:
        self._clock = clock
        self._threads = readers
        self._visiting: asyncio.Task[None] | None = None
        self._waking: set[int] = set()
        """Calls of `wake` that go on here."""

    # -- the database

    @abstractmethod
    async def open(self) -> None:
        """Opens or makes it.

        Raises:
            InvalidRequest: A later version made it.
            Transient: It doesn't answer.
        """

    async def close(self) -> None:
        """Ends; twice is fine."""
        if self._visiting is not None:
            self._visiting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._visiting
            self._visiting = None
        await asyncio.to_thread(self._close)

    @abstractmethod
    def _close(self) -> None: ...

    @abstractmethod
    async def _read(self, act: Act[T]) -> T: ...

    @abstractmethod
    async def _look(self, act: Act[T]) -> T:
        """A read of a few rows by their keys."""

    @abstractmethod
    async def _plain(self, act: Act[T]) -> T:
        """A read by one statement, which needs no transaction to see one moment."""

    @abstractmethod
    async def _write(self, act: Act[T]) -> T: ...

    @property
    @abstractmethod
    def shared(self) -> bool:
        """See `Catalog.shared`."""

    @property
    @abstractmethod
    def stale(self) -> str:
        """See `Catalog.stale`."""

    @abstractmethod
    async def alone(self, duty: str, seconds: float) -> bool:
        """See `Catalog.alone`."""

    @abstractmethod
    async def seq(self) -> int:
        """See `Catalog.seq`."""

    @abstractmethod
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

    @abstractmethod
    async def clear(self, keep: Sequence[str] = ()) -> None:
        """See `Catalog.clear`."""

    @abstractmethod
    async def drop(self) -> None:
        """Ends, and what is the directory's own is gone with all that is in it."""

    @abstractmethod
    async def fsck(self) -> list[str]:
        """What is wrong with sums and tree, found by counting everything; nothing should be."""

    @property
    @abstractmethod
    def commits(self) -> tuple[int, int]:
        """Commits, and changes that shared them."""

    # -- reading

    async def entry(self, path: str) -> Entry | None:
        """See `Catalog.entry`."""
        look = self._plain if path.count("/") < read.DEPTH else self._look
        return await look(lambda db: read.entry(db, path))

    async def by_id(self, entry_id: str) -> Located | None:
        """See `Catalog.by_id`."""
        return await self._look(lambda db: read.by_id(db, entry_id))

    async def copies(self, entry_id: str) -> tuple[Copy, ...]:
        """See `Catalog.copies`."""
        return await self._plain(lambda db: read.copies(db, entry_id))

    async def at_key(self, store: str, key: str) -> Copy | None:
        """See `Catalog.at_key`."""
        return await self._look(lambda db: read.at_key(db, store, key))

    async def moving(self, entry_id: str, store: str) -> bool:
        """See `Catalog.moving`."""
        return await self._plain(lambda db: read.moving(db, entry_id, store))

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

    async def thrown(self, entry_id: str) -> Trashed | None:
        """See `Catalog.thrown`."""
        return await self._look(lambda db: read.thrown(db, entry_id))

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
        return await self._plain(lambda db: read.get(db, name))

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
        await self._change(lambda db: aside.expire(db, self._clock(), entry_id))

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
        return await self._plain(read.next_due)

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

    async def rows(self, *, after: str = "", limit: int = 1000) -> list[Located]:
        """See `Catalog.rows`."""
        return await self._read(lambda db: read.rows(db, after, limit))

    # -- in the background

    async def settle(self) -> None:
        """Waits until all is done that moves of large directories and calls of `wake` left to do in the background."""
        while self._visiting is not None and not self._visiting.done():
            await asyncio.shield(self._visiting)

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
