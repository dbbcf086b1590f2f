"""The directory of `world` with its catalogue in a PostgreSQL database, without the catalogue's threads.

The database has a clock of its own, which doesn't know the virtual one: what a process that died holds there is over
when the next one begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import psycopg

from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.catalog.postgres_fast import Steps
from cloudmesh.data.catalog.postgres_threads import Act, Connection, Link, Readers, Task, Writer
from cloudmesh.data.catalog.rebuild import rebuild
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.directories.world import InlineCatalog, Moment, World

T = TypeVar("T")
Call = Callable[[Moment, str], Awaitable[None]]
_numbers = itertools.count(1)


class _Writer(Writer):
    """Every act is a transaction at once."""

    def __init__(self, link: Link, call: Call) -> None:
        self._link, self._call = link, call
        self._db, self._uri = None, ""
        self.commits = self.acts = 0

    async def run(self, act: Act[T], fast: Callable[[], Steps[T]] | None = None) -> T:
        await self._call("before", "write")
        job = Task(act, asyncio.get_running_loop(), fast)
        self._together([job])
        if job.error is not None:
            raise job.error
        await self._call("after", "write")
        return cast(T, job.result)

    def close(self) -> None:
        self._drop()


class _Readers(Readers):
    """Every act is run at once."""

    def __init__(self, link: Link, call: Call) -> None:
        self._link, self._call = link, call
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open = set()

    async def run(self, act: Act[T], *, plain: bool = False) -> T:
        await self._call("before", "read")
        result = self._act(act, plain)
        await self._call("after", "read")
        return result

    def now(self, act: Act[T]) -> T:
        """Past all faults."""
        return self._act(act, False)

    @property
    def connection(self) -> Connection:
        return self._connected()

    def close(self) -> None:
        for db in tuple(self._open):
            with contextlib.suppress(psycopg.Error):
                db.inner.close()
        self._open.clear()


class InlinePostgres(PostgresCatalog):
    """The catalogue without threads: every call blocks the loop until it is done."""

    def __init__(self, uri: str, schema: str, *, clock: Callable[[], int], call: Call) -> None:
        super().__init__(uri, schema, clock=clock)
        self._call = call
        self._inline: _Readers | None = None

    async def open(self) -> None:
        """Opens it; leases of the process before are over."""
        self._writes = _Writer(self._link, self._call)
        self._reads = self._inline = _Readers(self._link, self._call)
        self._inline.connection.inner.execute("DELETE FROM lease")
        await self._change(lambda db: None)

    def vanish(self) -> None:
        """As if the process had died."""
        self._close()
        self._writes = self._reads = self._inline = None

    @property
    def opened(self) -> Connection:
        """Its connection, past all faults."""
        if self._inline is None:
            raise Transient("the catalogue isn't open")
        return self._inline.connection

    async def peek(self, act: Act[T]) -> T:
        """Reads past all faults."""
        if self._inline is None:
            raise Transient("the catalogue isn't open")
        return self._inline.now(act)


class PostgresWorld(World):
    """A directory whose catalogue is in a schema of its own, which ends with it.

    Args:
        uri: Of the database.
        given: As for `World`.
    """

    def __init__(self, uri: str, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._uri, self._schema = uri, f"world_{os.getpid()}_{next(_numbers)}"

    def _catalogue(self) -> InlineCatalog:
        made = InlinePostgres(self._uri, self._schema, clock=self.now, call=self._catalog_call)
        return cast(InlineCatalog, made)

    async def _fill(self) -> None:
        catalog = self._catalogue()
        await catalog.open()
        await catalog.clear()
        await rebuild(self.sources(), catalog, now=self.now())
        catalog.vanish()

    async def end(self) -> None:
        """Ends all; to be called last."""
        await super().end()
        with psycopg.connect(self._uri, autocommit=True) as db:
            db.execute(f"DROP SCHEMA IF EXISTS {self._schema} CASCADE".encode())
