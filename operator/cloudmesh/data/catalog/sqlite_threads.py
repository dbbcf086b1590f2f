"""The threads of the SQLite catalogue: one that writes, many transactions to one commit, and a few that read."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from cloudmesh.data.catalog.schema import connect
from cloudmesh.data.catalog.sql_read import DB
from cloudmesh.engine.errors import Conflict, Transient

T = TypeVar("T")
Act = Callable[[DB], T]

BATCH: Final = 256
"""Transactions that share a commit at most."""


class Job:
    """An act whose caller waits for it."""

    __slots__ = ("act", "error", "future", "loop", "result")

    def __init__(self, act: Act[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.act = act
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.result: Any = None
        self.error: BaseException | None = None

    def deliver(self) -> None:
        """Tells the caller, in its loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _told(error: BaseException) -> BaseException:
    if isinstance(error, sqlite3.IntegrityError):
        return Conflict(f"the catalogue has it otherwise: {error}")
    if isinstance(error, sqlite3.Error):
        return Transient(f"the catalogue can't do this: {error}")
    return error


def _deliver(jobs: list[Job]) -> None:
    for job in jobs:
        job.deliver()


def tell(jobs: list[Job]) -> None:
    """Tells all callers, with one wake-up of each event loop, so that its tasks' next acts wait together again."""
    loops: dict[asyncio.AbstractEventLoop, list[Job]] = {}
    for job in jobs:
        loops.setdefault(job.loop, []).append(job)
    for loop, own in loops.items():
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(_deliver, own)
            except RuntimeError:  # it was closed at this moment: nobody waits any more
                continue


class Writer:
    """One thread with the one connection that writes. Acts that wait at the same moment share one commit, each in a
    savepoint of its own, and their callers are told after it.

    Args:
        path: The file.
        start: Run on the connection before the first act.
    """

    def __init__(self, path: Path, start: Callable[[sqlite3.Connection], None]) -> None:
        self._path = path
        self._start = start
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._untrimmed = False
        self.commits = 0
        self.acts = 0
        self._thread = threading.Thread(target=self._run, name=f"catalog-{path.name}", daemon=True)
        self._thread.start()
        error = self._ready.get()
        if error is not None:
            self._thread.join()
            raise _told(error)

    async def run(self, act: Act[T]) -> T:
        """Runs it as one transaction; durable when it returns, undone when it raises.

        Raises:
            Transient: The database failed, or is closed.
        """
        job = Job(act, asyncio.get_running_loop())
        with self._lock:
            if self._closed:
                raise Transient("the catalogue is closed")
            self._queue.put(job)
        result: T = await job.future
        return result

    async def trim(self) -> None:
        """Brings the log into the file and cuts it: after a large transaction the next one would wait for that.

        Raises:
            Transient: The database is closed.
        """
        self._untrimmed = True
        await self.run(lambda db: None)

    def close(self) -> None:
        """Does what waits, then ends; blocks."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            db = connect(self._path, write=True)
        except BaseException as error:  # noqa: BLE001 - told to whoever opens
            self._ready.put(error)
            return
        try:
            self._start(db)
        except BaseException as error:  # noqa: BLE001 - told to whoever opens
            db.close()
            self._ready.put(error)
            return
        self._ready.put(None)
        ended = False
        while not ended:
            jobs: list[Job] = []
            job = self._queue.get()
            try:
                db.execute("BEGIN IMMEDIATE")
                failure: BaseException | None = None
            except sqlite3.Error as error:
                failure = error
            while job is not None:
                jobs.append(job)
                if failure is None:
                    failure = self._act(db, job)
                if len(jobs) >= BATCH:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            ended = job is None
            self._commit(db, jobs, failure)
        db.close()

    def _act(self, db: sqlite3.Connection, job: Job) -> BaseException | None:
        """Runs one act; gives an error if the whole transaction is lost with it."""
        try:
            db.execute("SAVEPOINT act")
            job.result = job.act(db)
            db.execute("RELEASE act")
        except BaseException as error:  # noqa: BLE001 - told to its caller
            job.error = _told(error)
            if not db.in_transaction:
                return error
            try:
                db.execute("ROLLBACK TO act")
                db.execute("RELEASE act")
            except sqlite3.Error as worse:
                return worse
        return None

    def _commit(self, db: sqlite3.Connection, jobs: list[Job], failure: BaseException | None) -> None:
        if failure is None:
            try:
                db.execute("COMMIT")
            except sqlite3.Error as error:
                failure = error
        if failure is not None:
            if db.in_transaction:
                db.execute("ROLLBACK")
            for job in jobs:
                job.error = job.error or Transient(f"the catalogue can't write: {failure}")
        elif self._untrimmed:
            self._untrimmed = False
            with contextlib.suppress(sqlite3.Error):
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.commits += 1
        self.acts += len(jobs)
        tell(jobs)


class Readers:
    """A few threads with a connection each; every act sees one moment.

    Args:
        path: The file.
        threads: How many.
    """

    def __init__(self, path: Path, threads: int = 4) -> None:
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: list[sqlite3.Connection] = []
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, thread_name_prefix="catalog-read")

    async def run(self, act: Act[T]) -> T:
        """Runs it in a thread.

        Raises:
            Transient: The database failed, or is closed.
        """
        if self._pool is None:
            raise Transient("the catalogue is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._act, act)

    def here(self, act: Act[T], *, plain: bool = False) -> T:
        """Runs it at once, in the caller's thread: for what takes less time than the way to another thread and back.

        Args:
            act: What is run.
            plain: It is one statement, which sees one moment without a transaction around it.

        Raises:
            Transient: The database failed, or is closed.
        """
        if self._pool is None:
            raise Transient("the catalogue is closed")
        return self._act(act, plain=plain)

    def _act(self, act: Act[T], *, plain: bool = False) -> T:
        try:
            db: sqlite3.Connection | None = getattr(self._local, "db", None)
            if db is None:
                db = connect(self._path, write=False)
                self._local.db = db
                with self._lock:
                    self._open.append(db)
            if plain:
                return act(db)
            db.execute("BEGIN")
            try:
                return act(db)
            finally:
                db.execute("COMMIT")
        except sqlite3.Error as error:
            raise Transient(f"the catalogue can't be read: {error}") from error

    def close(self) -> None:
        """Waits for what runs, then ends; blocks."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.shutdown(wait=True)
        for db in self._open:
            db.close()
        self._open.clear()
