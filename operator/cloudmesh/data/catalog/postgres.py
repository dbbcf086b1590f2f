"""The catalogue in a PostgreSQL database, for several gateways and movers at once.

It runs the statements of `SqlCatalog`; what several processes need is here: leases of what is looked at, and of
what only one may do. All changes come one after the other, so that the journal's numbers have no gaps and its order is
that of the changes.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar, cast

from cloudmesh.data.catalog import postgres_fast as fast
from cloudmesh.data.catalog import sql_files as files
from cloudmesh.data.catalog import sql_read as read
from cloudmesh.data.catalog import sql_tree as tree
from cloudmesh.data.catalog.ports import ANY, Check
from cloudmesh.data.catalog.postgres_schema import EMPTIED, make_root, prepare
from cloudmesh.data.catalog.postgres_threads import Act, Connection, Link, Readers, Writer
from cloudmesh.data.catalog.sql import SqlCatalog, micros
from cloudmesh.data.model import MICROS, ROOT, Copy, Entry, Intent, Trashed, Work
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import Transient

T = TypeVar("T")
LOOK_SECONDS: Final = 60
"""For which a file is left to the mover that looks at it."""
NOW: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
"""By the database's clock, which all processes have in common."""


class PostgresCatalog(SqlCatalog):
    """A catalogue in a schema of a database, to be opened before use.

    Args:
        uri: Of the database: `postgresql://user:password@host/database`.
        schema: Name of the schema, which is made.
        clock: Microseconds since 1970.
        readers: Connections that read, beside the one that writes.
        guard: Says where connections may go.
    """

    def __init__(
        self,
        uri: str,
        schema: str,
        *,
        clock: Callable[[], int] = micros,
        readers: int = 4,
        guard: Guard = ANYWHERE,
    ) -> None:
        super().__init__(clock=clock, readers=readers)
        self.schema = schema
        self._link = Link(uri, schema, lambda db: prepare(db, schema, self._clock()), guard)
        self._holder = secrets.token_hex(8)
        self._writes: Writer | None = None
        self._reads: Readers | None = None

    def use(self, uri: str, guard: Guard = ANYWHERE) -> None:
        """The database is reached by another address, or with another password; the schema is the same."""
        self._link.guard = guard
        self._link.use(uri)

    async def open(self) -> None:
        """Opens or makes the schema. Whoever else has it open goes on; intents of a process that ended are over when
        their time is.

        Raises:
            InvalidRequest: A later version made it, or the database can't hold it.
            Transient: The database doesn't answer; what is called later tries again, and this may be called again.
        """
        if self._writes is None:
            self._writes, self._reads = Writer(self._link), Readers(self._link, self._threads)
        await self._change(lambda db: None)

    def _close(self) -> None:
        if self._writes is not None:
            self._writes.close()
        if self._reads is not None:
            self._reads.close()

    async def _read(self, act: Act[T]) -> T:
        if self._reads is None:
            raise Transient("the catalogue isn't open")
        return await self._reads.run(act)

    async def _write(self, act: Act[T]) -> T:
        if self._writes is None:
            raise Transient("the catalogue isn't open")
        return await self._writes.run(act)

    async def _look(self, act: Act[T]) -> T:
        return await self._read(act)

    async def _plain(self, act: Act[T]) -> T:
        """Runs what has but one statement."""
        if self._reads is None:
            raise Transient("the catalogue isn't open")
        return await self._reads.run(act, plain=True)

    @property
    def commits(self) -> tuple[int, int]:
        """Commits, and changes that shared them."""
        return (self._writes.commits, self._writes.acts) if self._writes is not None else (0, 0)

    # -- what is read often

    async def entry(self, path: str) -> Entry | None:
        """See `Catalog.entry`."""
        parts = read.parts_of(path)
        return await self._plain(lambda db: _entry(db, parts))

    # -- what is written often

    async def begin(self, intent: Intent, *, if_version: int = ANY) -> None:
        """See `Catalog.begin`."""
        await self._run(
            lambda db: files.begin(db, self._clock(), intent, if_version), lambda: fast.begin(intent, if_version)
        )

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
        return await self._run(
            lambda db: files.commit_put(db, self._clock(), intent_id, size, sha256, whole, failed, due, keep, check),
            # what is checked is seen before anything of the same commit is changed: one after the other then
            (lambda: fast.commit_put(self._clock(), intent_id, size, sha256, whole, failed, due))
            if check is None
            else None,
        )

    async def _run(self, act: Act[T], short: Callable[[], fast.Steps[T]] | None) -> T:
        if self._writes is None:
            raise Transient("the catalogue isn't open")
        return await self._writes.run(act, short)

    # -- what several processes share

    async def intents(self, *, until: int) -> list[Intent]:
        """See `Catalog.intents`. What is over for everybody stands in no other's way from now on."""
        over = min(until, self._clock())
        found = await self._read(lambda db: read.intents(db, until))
        if not any(0 < intent.until <= over for intent in found):
            return found

        def act(db: read.DB) -> list[Intent]:
            db.execute("UPDATE intent SET until = 0 WHERE until > 0 AND until <= ?", (over,))
            return read.intents(db, until)

        return await self._write(act)

    @property
    def shared(self) -> bool:
        """See `Catalog.shared`."""
        return True

    @property
    def stale(self) -> str:
        """See `Catalog.stale`."""
        return self._link.stale

    async def alone(self, duty: str, seconds: float) -> bool:
        """See `Catalog.alone`."""
        until = int(seconds * MICROS)
        return await self._write(lambda db: bool(db.execute(_HOLD, (f"duty/{duty}", self._holder, until)).fetchone()))

    async def work(self, now: int, *, limit: int = 100) -> list[Work]:
        """See `Catalog.work`. What is given here is left alone by other movers for a while."""
        if not await self._plain(lambda db: db.execute(_ANY_DUE, (now,)).fetchone()):
            return []

        def act(db: read.DB) -> list[Work]:
            db.execute(_OVER)
            rows = db.execute(_DUE, (now, self._holder, limit)).fetchall()
            db.executemany(
                _TAKE,
                [(row[2], self._holder, LOOK_SECONDS * MICROS) for row in rows],
            )
            return read.to_work(db, rows)

        return await self._write(act)

    async def looked(self, entry_id: str, version: int, due: int, *, pending: bool = False, stamp: int = 0) -> None:
        """See `Catalog.looked`."""

        def act(db: read.DB) -> None:
            files.looked(db, self._clock(), entry_id, version, due, pending, stamp)
            db.execute("DELETE FROM lease WHERE name = ? AND holder = ?", (entry_id, self._holder))

        await self._write(act)

    async def next_due(self) -> int:
        """See `Catalog.next_due`. A file that another mover looks at is due when that one should have ended."""

        def act(db: read.DB) -> int:
            row = db.execute(_NEXT, (self._holder,)).fetchone()
            # the clocks may differ: what is left is counted from now
            (left,) = db.execute(_LEFT, (self._holder,)).fetchone()
            found = [row[0]] if row else []
            if left is not None:
                found.append(self._clock() + max(left, MICROS))
            return min(found, default=0)

        return await self._read(act)

    # -- the whole

    async def seq(self) -> int:
        """See `Catalog.seq`."""
        return await self._plain(lambda db: cast(int, db.execute("SELECT seq FROM counter").fetchone()[0]))

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
        begun = False

        def act(db: read.DB) -> None:
            nonlocal begun
            files.check_empty(db)
            if begun:
                # what was read is gone, and nothing of it is there
                raise Transient("the catalogue's database was lost while it was filled")
            begun = True
            assert isinstance(db, Connection)  # noqa: S101 - the writer's
            db.execute("SET LOCAL statement_timeout = 0")
            db.execute("SET LOCAL maintenance_work_mem = '128MB'")
            # millions of rows: indexes are sorted once, and sums counted once
            parts = db.execute(_INDEXES).fetchall()
            for name, _ in parts:
                db.execute(f"DROP INDEX {name}")
            for table in ("entry", "copy"):
                db.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
            db.write("entry", ((*files.loaded(entry, due), 1) for entry in entries))
            db.write("copy", map(files.values_of, copies))
            for _, text in parts:
                db.execute(text)
            files.end_load(db)
            for table in ("entry", "copy"):
                db.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")
            db.execute("DELETE FROM journal")
            gone = ((thing.entry.id, thing.path, thing.at, thing.of) for thing in trashed)
            last = files.finish_load(db, self._clock(), gone, seq, fresh)
            db.execute("UPDATE counter SET seq = ?", (last,))

        await self._write(act)
        # without knowing how many rows there are now it would look through all of them
        with contextlib.suppress(Transient):
            await self._write(lambda db: db.execute("ANALYZE entry, copy") and None)

    async def clear(self, keep: Sequence[str] = ()) -> None:
        """See `Catalog.clear`."""

        def act(db: read.DB) -> None:
            db.execute(f"TRUNCATE {', '.join(EMPTIED)}")
            db.execute("UPDATE sums SET files = 0, directories = 0, bytes = 0, pending = 0")
            db.execute("UPDATE counter SET seq = 0")
            for (name,) in db.execute("SELECT name FROM setting").fetchall():
                if not name.startswith(tuple(keep)):
                    db.execute("DELETE FROM setting WHERE name = ?", (name,))
            make_root(db, self._clock())
            # other processes know of things that aren't there any more: they have to begin anew
            self._link.epoch = db.execute("UPDATE meta SET epoch = epoch + 1 RETURNING epoch").fetchone()[0]

        await self._write(act)

    async def drop(self) -> None:
        """Ends, and the schema is gone with all that is in it: the directory goes.

        Raises:
            Transient: The database doesn't answer.
        """
        await self._write(lambda db: db.execute(f"DROP SCHEMA IF EXISTS {self.schema} CASCADE") and None)
        await self.close()

    async def fsck(self) -> list[str]:
        """What is wrong with sums and tree, found by counting everything; nothing should be."""
        return await self._read(tree.integrity)


_INDEXES: Final = (
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = current_schema() "
    "AND tablename IN ('entry', 'copy') AND indexname NOT LIKE '%_pkey'"
)
_OVER: Final = f"DELETE FROM lease WHERE until <= {NOW}"  # noqa: S608
_TAKE: Final = (
    f"INSERT INTO lease VALUES (?1, ?2, {NOW} + ?3) "  # noqa: S608
    f"ON CONFLICT (name) DO UPDATE SET holder = ?2, until = {NOW} + ?3"
)
_HOLD: Final = (
    f"INSERT INTO lease AS l VALUES (?1, ?2, {NOW} + ?3) ON CONFLICT (name) "  # noqa: S608
    f"DO UPDATE SET holder = ?2, until = {NOW} + ?3 WHERE l.holder = ?2 OR l.until <= {NOW} RETURNING 1"
)
_ANY_DUE: Final = "SELECT 1 FROM entry WHERE due > 0 AND due <= ? LIMIT 1"
_DUE: Final = (
    f"SELECT e.due, e.stamp, {read.E_ENTRY} FROM entry e WHERE e.due > 0 AND e.due <= ?1 AND NOT EXISTS "  # noqa: S608
    f"(SELECT 1 FROM lease l WHERE l.name = e.id AND l.holder <> ?2 AND l.until > {NOW}) ORDER BY e.due, e.id LIMIT ?3"
)
_NEXT: Final = (
    "SELECT e.due FROM entry e WHERE e.due > 0 AND NOT EXISTS "  # noqa: S608
    f"(SELECT 1 FROM lease l WHERE l.name = e.id AND l.holder <> ?1 AND l.until > {NOW}) ORDER BY e.due, e.id LIMIT 1"
)
_LEFT: Final = (
    f"SELECT min(l.until) - {NOW} FROM lease l JOIN entry e ON e.id = l.name "  # noqa: S608
    f"WHERE e.due > 0 AND l.holder <> ? AND l.until > {NOW}"
)
_PATH: Final = (
    f"WITH RECURSIVE {fast.DOWN} SELECT {read.E_ENTRY} FROM down d JOIN entry e ON e.id = d.id WHERE d.n = ?3"  # noqa: S608
)


def _entry(db: read.DB, parts: list[str]) -> Entry | None:
    row = db.execute(_PATH, (parts, ROOT, len(parts))).fetchone()
    return read.to_entry(row) if row else None
