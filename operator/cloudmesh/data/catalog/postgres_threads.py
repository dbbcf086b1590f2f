"""The threads of the PostgreSQL catalogue: one that writes, many transactions to one commit, and a few that read.

All changes of a directory, by whatever process, come one after the other: each commit holds the directory's lock. A
connection that is lost is made anew, and what surely wasn't committed is done again; of what may have been, the caller
is told that nobody knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors
from psycopg.types.numeric import Int8Dumper
from psycopg.types.string import StrDumper

from cloudmesh.data.catalog.postgres_fast import OTHERWISE, Steps
from cloudmesh.data.catalog.postgres_schema import lock_of
from cloudmesh.data.catalog.sql_read import DB
from cloudmesh.data.catalog.sqlite_threads import Job, tell
from cloudmesh.data.errors import InvalidName
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, Transient

log = logging.getLogger(__name__)

T = TypeVar("T")
Act = Callable[[DB], T]

BATCH: Final = 64
"""Transactions that share a commit at most: PostgreSQL keeps as many savepoints at hand."""
TRIES: Final = 5
"""Of what was surely not done, since the connection was lost or another transaction was in the way."""
STATEMENT_SECONDS: Final = 30
LOCK_SECONDS: Final = 20
CONNECT_SECONDS: Final = 5
AWAY_SECONDS: Final = 1.0
"""For which a server that wasn't reached isn't asked again: what waits is told so at once."""
SETTINGS: Final = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    # every statement finds a few rows by an index; what the server guesses of tables that grow makes it read them all
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
EPOCH: Final = "SELECT epoch FROM meta"
_READS: Final = re.compile(r"\s*(SELECT|WITH(?!.*\b(INSERT|UPDATE|DELETE)\b))", re.DOTALL)
_TOKENS: Final = re.compile(r"'(?:[^']|'')*'|\?(\d*)|\b(min|max)\(")


class Connection:
    """One connection that takes the statements of SQLite; for one thread at a time."""

    def __init__(self, inner: psycopg.Connection[Any]) -> None:
        self.inner = inner
        self.guarded = True
        """A savepoint is there, or none is needed."""

    def execute(self, text: str, values: Sequence[Any] = (), /) -> psycopg.Cursor[Any]:
        """Runs a statement."""
        known, reads = translated(text)
        if not reads:
            self.guard()
        return self.inner.execute(known, [_plain(value) for value in values])

    def guard(self) -> None:
        """Before anything is changed."""
        if not self.guarded:
            self.guarded = True
            self.inner.execute("SAVEPOINT act")

    def executemany(self, text: str, values: Iterable[Sequence[Any]], /) -> psycopg.Cursor[Any]:
        """Runs it with many values."""
        known, _ = translated(text)
        self.guard()
        cursor = self.inner.cursor()
        cursor.executemany(known, ([_plain(value) for value in row] for row in values))
        return cursor

    def write(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Writes rows of a table, however many, in one statement."""
        self.guard()
        with self.inner.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            for row in rows:
                copy.write_row([_plain(value) for value in row])


@functools.lru_cache(1024)
def translated(text: str) -> tuple[str, bool]:
    """A statement of SQLite in PostgreSQL's words, and whether it only reads."""
    last = 0

    def one(found: re.Match[str]) -> str:
        nonlocal last
        if found[0].startswith("'"):
            return found[0]
        if found[2]:
            return {"min": "least(", "max": "greatest("}[found[2]] if _is_scalar(text, found.end()) else found[0]
        last = int(found[1]) if found[1] else last + 1
        return f"${last}"

    return _TOKENS.sub(one, text), bool(_READS.match(text)) or text.startswith("BEGIN")


def _is_scalar(text: str, begin: int) -> bool:
    """Whether a function whose first argument begins there has more than one."""
    depth = 1
    for at in range(begin, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if not depth:
            return False
        if depth == 1 and text[at] == ",":
            return True
    return False


def _plain(value: Any) -> Any:
    if value is True or value is False:
        return int(value)
    if isinstance(value, str) and "\0" in value:
        # words of stores; a name never has one
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return value


def guarded(told: dict[str, Any], guard: Guard) -> dict[str, Any]:
    """An address with what its hosts stand for now, so that the library looks none of them up once more.

    Raises:
        psycopg.OperationalError: A host is refused, or there are none of its name.
    """
    if guard.inside:
        return told
    hosts, ports = str(told.get("host") or "").split(","), str(told.get("port") or "5432").split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    if len(ports) != len(hosts):
        raise psycopg.OperationalError("the address of the database has another number of hosts than of ports")
    places: list[tuple[str, str, str]] = []
    for host, port in zip(hosts, ports, strict=True):
        try:
            guard.check_hosts([host.lower().rstrip(".")])
            found = dict.fromkeys(str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
            guard.check(host, found)
        except InvalidRequest as error:
            raise psycopg.OperationalError(str(error)) from error
        except (OSError, UnicodeError) as error:
            if len(hosts) == 1:
                raise psycopg.OperationalError(f"{host}: {error}") from error
            continue
        places += [(host, address, port) for address in found]
    if not places:
        raise psycopg.OperationalError("none of the database's hosts has an address")
    columns = zip(("host", "hostaddr", "port"), zip(*places, strict=True), strict=True)
    return {**told, **{name: ",".join(column) for name, column in columns}}


def connect(uri: str, schema: str, guard: Guard = ANYWHERE) -> Connection:
    """A connection to the one server that takes writes; transactions are begun by hand.

    Raises:
        psycopg.Error: It can't be reached, or doesn't let us in.
    """
    told = guarded(psycopg.conninfo.conninfo_to_dict(uri), guard)
    options = [str(told.get("options") or ""), f"-c search_path={schema}"]
    options += [f"-c {name}={value}" for name, value in SETTINGS.items()]
    asked: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS, "application_name": "cloudmesh", "target_session_attrs": "read-write",
        "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 20000,
        **told, "client_encoding": "UTF8", "options": " ".join(options).strip(),
    }  # fmt: skip
    inner = psycopg.connect(psycopg.conninfo.make_conninfo(**asked), autocommit=True, cursor_factory=psycopg.RawCursor)
    # one statement is prepared once, whatever its numbers
    inner.adapters.register_dumper(int, Int8Dumper)
    inner.adapters.register_dumper(str, StrDumper)
    inner.prepare_threshold = 2
    inner.prepared_max = 256
    try:
        # what was committed is on the disk, whatever the server does for others
        inner.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
        )
    except BaseException:
        inner.close()
        raise
    return Connection(inner)


def told(error: BaseException) -> BaseException:
    """An error of the database in the catalogue's words."""
    if isinstance(error, errors.IntegrityError):
        return Conflict(f"the catalogue has it otherwise: {error}")
    if isinstance(error, errors.ProgramLimitExceeded):
        return InvalidName(f"the catalogue can't hold so long a name: {error}")
    if isinstance(error, psycopg.Error):
        return Transient(f"the catalogue can't do this: {str(error).strip() or type(error).__name__}")
    return error


def _is_lost(error: BaseException, db: Connection) -> bool:
    """Whether another connection is needed: this one broke, or its server doesn't take writes any more."""
    return db.inner.closed or db.inner.broken or isinstance(error, errors.ReadOnlySqlTransaction | errors.AdminShutdown)


class Link:
    """How the threads reach the database; the address may change.

    Args:
        uri: Of the database.
        schema: The directory's.
        prepare: Run once, on the first connection.
        guard: Says where connections may go.
    """

    def __init__(self, uri: str, schema: str, prepare: Callable[[Connection], None], guard: Guard = ANYWHERE) -> None:
        self.guard = guard
        self.uri = uri
        self.schema = schema
        self._prepare = prepare
        self.epoch: int | None = None
        """Rises when the catalogue is thrown away: what this process knows of it is wrong then."""
        self.stale = ""
        """Why this process has to be started again; empty if it hasn't."""
        self._lock = threading.Lock()
        self._away = ("", 0.0)

    def open(self) -> Connection:
        """A connection, the tables being there.

        Raises:
            psycopg.Error: There is none.
        """
        why, until = self._away
        if time.monotonic() < until:
            raise psycopg.OperationalError(why)
        try:
            db = connect(self.uri, self.schema, self.guard)
        except psycopg.Error as error:
            self._away = (str(error), time.monotonic() + AWAY_SECONDS)
            raise
        try:
            with self._lock:
                if self.epoch is None:
                    self._make(db)
        except BaseException:
            db.inner.close()
            raise
        return db

    def _make(self, db: Connection) -> None:
        with db.inner.transaction():
            db.execute(f"SELECT pg_advisory_xact_lock({lock_of(self.schema)})")
            self._prepare(db)
            (self.epoch,) = db.execute(EPOCH).fetchone() or (None,)

    def check(self, row: Any) -> None:
        """Looks at a result of EPOCH.

        Raises:
            Transient: Another process threw the catalogue away.
        """
        if row is None or row[0] != self.epoch:
            self.stale = "another process makes the catalogue anew: this one has to be started again"
            raise Transient(self.stale)

    def see(self, error: BaseException) -> None:
        """Notes what an error tells."""
        if isinstance(error, errors.UndefinedTable):
            self.stale = "the catalogue's tables are gone: they are made again by a process that is started"

    def use(self, uri: str) -> None:
        """Connections that are made from now on go there."""
        self.uri, self._away = uri, ("", 0.0)


class Task(Job):
    """An act, and a shorter way for its plain case."""

    __slots__ = ("fast",)

    def __init__(self, act: Act[Any], loop: asyncio.AbstractEventLoop, fast: Callable[[], Steps[Any]] | None) -> None:
        super().__init__(act, loop)
        self.fast = fast


class Writer:
    """One thread with the one connection of this process that writes.

    Args:
        link: To the database.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queue: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._db: Connection | None = None
        self._uri = ""
        self.commits = 0
        self.acts = 0
        self._thread = threading.Thread(target=self._run, name="catalog", daemon=True)
        self._thread.start()

    async def run(self, act: Act[T], fast: Callable[[], Steps[T]] | None = None) -> T:
        """Runs it as one transaction; durable when it returns, undone when it raises. With `fast` that is tried first.

        Raises:
            Transient: The database failed, or is closed.
        """
        job = Task(act, asyncio.get_running_loop(), fast)
        with self._lock:
            if self._closed:
                raise Transient("the catalogue is closed")
            self._queue.put(job)
        result: T = await job.future
        return result

    def close(self) -> None:
        """Does what waits, then ends; blocks."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        ended = False
        while not ended:
            jobs: list[Task] = []
            job = self._queue.get()
            while job is not None:
                jobs.append(job)
                if len(jobs) >= BATCH:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            ended = job is None
            if jobs and not self._together(jobs):
                # one of them failed in the database: alone, it fails alone
                for one in jobs:
                    one.fast = None
                    self._together([one])
            self.acts += len(jobs)
            tell(list(jobs))
        self._drop()

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(psycopg.Error):
                db.inner.close()

    def _connected(self) -> Connection:
        if self._db is not None and (self._db.inner.closed or self._uri != self._link.uri):
            self._drop()
        if self._db is None:
            self._uri = self._link.uri
            self._db = self._link.open()
        return self._db

    def _together(self, jobs: list[Task]) -> bool:
        """Commits them; False if one of several can't be done, and nothing was."""
        for tried in range(1, TRIES + 1):
            db: Connection | None = None
            committing = False
            try:
                db = self._connected()
                db.guarded = True
                for job in self._fast(db, jobs):
                    self._act(db, job, alone=len(jobs) == 1)
                committing = True
                db.execute("COMMIT")
            except (psycopg.Error, CloudmeshError) as error:
                self._link.see(error)
                lost = db is None or _is_lost(error, db)
                if lost:
                    self._drop()
                elif db is not None:
                    self._undo(db)
                again = db is not None and not committing and lost
                # it was surely rolled back: another transaction was in the way
                again |= isinstance(error, errors.OperationalError) and (error.sqlstate or "").startswith("40")
                if again and tried < TRIES:
                    continue
                if len(jobs) > 1 and not lost and not committing:
                    return False
                self._fail(jobs, error, unknown=committing and lost)
            else:
                self.commits += 1
            return True
        raise AssertionError("the last try returns")

    def _fast(self, db: Connection, jobs: list[Task]) -> list[Task]:
        """Begins a transaction, and does what is plain in it, all at once; gives those that aren't."""
        left, going = [job for job in jobs if job.fast is None], []
        for job in jobs:
            if job.fast is not None:
                steps = job.fast()
                if (asked := self._next(job, steps, None)) is not None:
                    going.append((job, steps, asked))
                elif job.result is OTHERWISE:
                    left.append(job)
        begin: list[tuple[str, Sequence[Any]]] = [
            ("BEGIN", ()), (f"SELECT pg_advisory_xact_lock({lock_of(self._link.schema)})", ()), (EPOCH, ())
        ]  # fmt: skip
        while begin or going:
            with db.inner.pipeline():
                began = [db.execute(text, values) for text, values in begin]
                results = [(job, steps, db.execute(*asked)) for job, steps, asked in going]
            if began:
                self._link.check(began[-1].fetchone())
            begin, going = [], []
            for job, steps, cursor in results:
                if (asked := self._next(job, steps, cursor.fetchone())) is not None:
                    going.append((job, steps, asked))
                elif job.result is OTHERWISE:
                    left.append(job)
        return left

    @staticmethod
    def _next(job: Task, steps: Steps[Any], row: Any) -> tuple[str, Sequence[Any]] | None:
        try:
            return steps.send(row)
        except StopIteration as end:
            job.result, job.error = end.value, None
            return None

    @staticmethod
    def _fail(jobs: Sequence[Job], error: BaseException, *, unknown: bool) -> None:
        failure = told(error)
        if unknown:
            failure = Transient(f"whether the catalogue changed is unknown, the connection was lost: {error}")
        for job in jobs:
            job.error = job.error or failure

    def _undo(self, db: Connection) -> None:
        try:
            db.inner.execute("ROLLBACK")
        except psycopg.Error:
            self._drop()

    @staticmethod
    def _act(db: Connection, job: Job, *, alone: bool) -> None:
        """Runs one act; an error of the database goes on to whoever runs them all."""
        job.error = None
        db.guarded = alone
        try:
            job.result = job.act(db)
        except psycopg.Error:
            raise
        except BaseException as error:
            job.error = error
            if alone:
                raise CloudmeshError(str(error)) from error
            if db.guarded:
                db.inner.execute("ROLLBACK TO act")
        else:
            if db.guarded and not alone:
                db.inner.execute("RELEASE act")
        finally:
            db.guarded = True


class Readers:
    """A few threads with a connection each; every act sees one moment.

    Args:
        link: To the database.
        threads: How many.
    """

    def __init__(self, link: Link, threads: int = 4) -> None:
        self._link = link
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: set[Connection] = set()
        self._pool: ThreadPoolExecutor | None = ThreadPoolExecutor(threads, thread_name_prefix="catalog-read")

    async def run(self, act: Act[T], *, plain: bool = False) -> T:
        """Runs it in a thread; with `plain` it has but one statement.

        Raises:
            Transient: The database failed, or is closed.
        """
        if self._pool is None:
            raise Transient("the catalogue is closed")
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._act, act, plain)

    def _connected(self) -> Connection:
        db: Connection | None = getattr(self._local, "db", None)
        if db is not None and (db.inner.closed or self._local.uri != self._link.uri):
            self._drop(db)
            db = None
        if db is None:
            self._local.uri = self._link.uri
            db = self._link.open()
            self._local.db = db
            with self._lock:
                self._open.add(db)
        return db

    def _drop(self, db: Connection) -> None:
        self._local.db = None
        with self._lock:
            self._open.discard(db)
        with contextlib.suppress(psycopg.Error):
            db.inner.close()

    def _act(self, act: Act[T], plain: bool) -> T:
        for tried in range(1, TRIES + 1):
            db: Connection | None = None
            try:
                db = self._connected()
                if plain:
                    with db.inner.pipeline():
                        epoch, result = db.execute(EPOCH), act(db)
                    self._link.check(epoch.fetchone())
                    return result
                with db.inner.pipeline():
                    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    epoch = db.execute(EPOCH)
                self._link.check(epoch.fetchone())
                result = act(db)
                db.execute("COMMIT")
            except psycopg.Error as error:
                self._link.see(error)
                if db is None:
                    raise told(error) from error
                # what it was in the middle of doesn't matter: nothing was changed
                self._drop(db)
                if tried == TRIES or not (_is_lost(error, db) or (error.sqlstate or "").startswith("40")):
                    raise told(error) from error
            except BaseException:
                if db is not None and not plain:
                    with contextlib.suppress(psycopg.Error):
                        db.inner.execute("ROLLBACK")
                raise
            else:
                return result
        raise AssertionError("the last try returns")

    def close(self) -> None:
        """Waits for what runs, then ends; blocks."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        pool.shutdown(wait=True)
        for db in self._open:
            with contextlib.suppress(psycopg.Error):
                db.inner.close()
        self._open.clear()
