"""A catalogue of many entries through its own port, beside the same database with the least tables and plain lookups.

BENCH_ENTRIES sets the entries (10,000,000; a million of them or a fifth in one directory), BENCH_KINDS the databases
(`sqlite,postgresql`). The database, its clients and the catalogue share this machine's cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import random
import secrets
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from tests.testbed.postgres import postgres

from cloudmesh.data.catalog.ports import ABSENT, Catalog
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.catalog.rebuild import Source, rebuild
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import MICROS, ROOT, Copy, Entry, Intent, Target
from cloudmesh.data.stores.memory import MemoryStore, Place

ENTRIES = int(os.environ.get("BENCH_ENTRIES", "10000000"))
KINDS = os.environ.get("BENCH_KINDS", "sqlite,postgresql").split(",")
BIG = min(1_000_000, ENTRIES // 5)
"""Files of the directory that is renamed."""
SMALL, PAGE, STATS, PAGES, RENAMES = 1000, 1000, 5000, 200, 6
REBUILT = min(100_000, ENTRIES)
WRITERS, PAIRS = 64, 6400
SHA256 = "ab" * 32
BIG_ID, TOP_ID = f"{1:016x}", f"{2:016x}"


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, **more: Any) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 3), "unit": unit} | more) + "\n")
    sys.stdout.flush()


def place_of(number: int) -> tuple[str, str, str]:
    """Id of the directory, path of it, and name of the file of that number."""
    if number < BIG:
        return BIG_ID, "big", f"file-{number:08d}.dat"
    directory, n = divmod(number - BIG, SMALL)
    return f"{directory + 16:016x}", f"top/dir-{directory:05d}", f"file-{n:05d}.dat"


def coprime(count: int) -> int:
    """A number near the golden section of `count`, by whose multiples all of them are come by once."""
    found = max(1, int(count * 0.6180339887))
    while math.gcd(found, count) > 1:
        found += 1
    return found


STEP = coprime(ENTRIES)
BACK = pow(STEP, -1, ENTRIES) if ENTRIES > 1 else 0


def id_at(place: int) -> str:
    """The id at a place in their order."""
    return f"a{place * ((1 << 60) // ENTRIES):015x}"


def file_id(number: int) -> str:
    """Ids are random in a real catalogue; these have as little to do with the names, and are the same each time."""
    return id_at(number * BACK % ENTRIES)


def by_id() -> Iterator[tuple[str, int]]:
    """Ids and numbers of files in the order of their ids, as a rebuild brings them."""
    return ((id_at(place), place * STEP % ENTRIES) for place in range(ENTRIES))


class Lazy(Iterable[Any]):
    """Made anew each time somebody goes through it: ten millions of them at once don't fit into memory."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return self._make()


def entries() -> Iterator[Entry]:
    """Directories and files."""
    yield Entry(BIG_ID, ROOT, "big", "Directory", created=1)
    yield Entry(TOP_ID, ROOT, "top", "Directory", created=1)
    for number in range(-(-(ENTRIES - BIG) // SMALL)):
        yield Entry(f"{number + 16:016x}", TOP_ID, f"dir-{number:05d}", "Directory", created=1)
    for entry_id, number in by_id():
        parent, _, name = place_of(number)
        yield Entry(entry_id, parent, name, "File", 4096, 1, SHA256, 1, "", {}, 1)


def copies() -> Iterator[Copy]:
    """One copy of each file."""
    for entry_id, number in by_id():
        _, path, name = place_of(number)
        key = f"ns/lab/{path}/{name}"
        yield Copy(entry_id, "aws", key, 1, "Whole", f"tag{number}", 4096, 1)


def named() -> Iterator[tuple[str, str, str, int, str]]:
    """Rows of the peer in the order of its key."""
    yield ROOT, "big", BIG_ID, 0, ""
    yield ROOT, "top", TOP_ID, 0, ""
    yield from ((BIG_ID, place_of(n)[2], file_id(n), 4096, SHA256) for n in range(BIG))
    for number in range(-(-(ENTRIES - BIG) // SMALL)):
        yield TOP_ID, f"dir-{number:05d}", f"{number + 16:016x}", 0, ""
    for number in range(BIG, ENTRIES):
        parent, _, name = place_of(number)
        yield parent, name, file_id(number), 4096, SHA256


async def timed(count: int, call: Callable[[], Awaitable[object]]) -> list[float]:
    """Milliseconds of each of many calls, one after the other."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        await call()
        found.append((time.perf_counter() - begin) * 1000)
    return sorted(found)


def told(name: str, kind: str, ours: list[float], theirs: list[float]) -> None:
    """The 99th of a hundred, and the peer's beside it."""
    p99 = statistics.quantiles(ours, n=100)[98]
    peer = statistics.quantiles(theirs, n=100)[98]
    middle = {"p50": round(statistics.median(ours), 3), "peer_p50": round(statistics.median(theirs), 3)}
    figure(name, p99, "ms", catalog=kind, peer=round(peer, 3), **middle)


class SqlitePeer:
    """`sqlite3` itself: a row a file with name, size and digest, below a row a directory."""

    def __init__(self, folder: Path) -> None:
        self._db = sqlite3.connect(folder / "peer.sqlite", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(
            "CREATE TABLE entry (parent TEXT, name TEXT, id TEXT, size INTEGER, sha256 TEXT, "
            "PRIMARY KEY (parent, name)) WITHOUT ROWID"
        )

    def fill(self) -> None:
        """All entries in one transaction."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", named())
        self._db.execute("COMMIT")

    def stat(self, path: str) -> object:
        """One lookup a part of the path."""
        row: Any = (ROOT,)
        for part in path.split("/"):
            row = self._db.execute(
                "SELECT id, size, sha256 FROM entry WHERE parent = ? AND name = ?", (row[0], part)
            ).fetchone()
        return row

    def page(self, after: str) -> object:
        """Names that follow one."""
        return self._db.execute(
            "SELECT name, id, size, sha256 FROM entry WHERE parent = ? AND name > ? ORDER BY name LIMIT ?",
            (BIG_ID, after, PAGE),
        ).fetchall()

    def pair(self, number: int) -> None:
        """Two commits that each write a row."""
        for name in (f"begun-{number}", f"done-{number}"):
            self._db.execute("INSERT INTO entry VALUES (?, ?, ?, 1, '')", (TOP_ID, name, name))

    def close(self) -> None:
        """Ends."""
        self._db.close()


class PostgresPeer:
    """`psycopg` itself with prepared statements, over a table like that of `SqlitePeer`."""

    def __init__(self, uri: str) -> None:
        self._db = psycopg.connect(uri, autocommit=True)
        self._db.prepare_threshold = 1
        self._db.execute(
            'CREATE TABLE peer (parent text COLLATE "C", name text COLLATE "C", id text, size bigint, sha256 text, '
            "PRIMARY KEY (parent, name))"
        )

    def fill(self) -> None:
        """All entries in one statement."""
        with self._db.cursor().copy("COPY peer FROM STDIN") as copy:
            for row in named():
                copy.write_row(row)
        self._db.execute("ANALYZE peer")

    def stat(self, path: str) -> object:
        """One lookup a part of the path."""
        row: Any = (ROOT,)
        for part in path.split("/"):
            row = self._db.execute(
                "SELECT id, size, sha256 FROM peer WHERE parent = %s AND name = %s", (row[0], part)
            ).fetchone()
        return row

    def page(self, after: str) -> object:
        """Names that follow one."""
        return self._db.execute(
            "SELECT name, id, size, sha256 FROM peer WHERE parent = %s AND name > %s ORDER BY name LIMIT %s",
            (BIG_ID, after, PAGE),
        ).fetchall()

    def pair(self, number: int) -> None:
        """Two commits that each write a row."""
        for name in (f"begun-{number}", f"done-{number}"):
            self._db.execute("INSERT INTO peer VALUES (%s, %s, %s, 1, '')", (TOP_ID, name, name))

    def close(self) -> None:
        """Ends."""
        self._db.close()


async def writes(catalog: Catalog) -> float:
    """New files a second: an intent before the bytes, and their end, by many writers at once."""
    numbers = iter(range(PAIRS))

    async def writer() -> None:
        for number in numbers:
            entry, intent = secrets.token_hex(8), secrets.token_hex(8)
            name, until = f"new-{number:06d}", time.time_ns() // 1000 + 60 * MICROS
            directory = f"top/dir-{number % 4:05d}"
            key = f"ns/lab/{directory}/{name}"
            wish = Intent(intent, "Put", entry, directory, name, 1, (Target("aws", key), Target("nas", key)), until)
            await catalog.begin(wish, if_version=ABSENT)
            whole = [Copy(entry, store, key, 1, "Whole", "tag", 10, 1) for store in ("aws", "nas")]
            await catalog.commit_put(intent, size=10, sha256=SHA256, whole=whole, failed={}, due=0)

    begin = time.perf_counter()
    await asyncio.gather(*(writer() for _ in range(WRITERS)))
    return PAIRS / (time.perf_counter() - begin)


async def rename(catalog: Catalog) -> list[float]:
    """Milliseconds from the call until the file of the new path is found, and the old path is free."""
    found, here, there = [], "big", "top/renamed"
    name = place_of(BIG // 2)[2]
    for _ in range(RENAMES):
        begin = time.perf_counter()
        await catalog.move(here, there)
        if await catalog.entry(f"{there}/{name}") is None or await catalog.entry(here) is not None:
            raise SystemExit("a rename isn't visible")
        found.append((time.perf_counter() - begin) * 1000)
        here, there = there, here
    return found


async def rebuilt(fresh: Catalog) -> float:
    """Entries a second of stores in memory that hold them, without a journal."""
    place = Place()
    for number in range(REBUILT):
        _, path, name = place_of(number)
        place.put(f"ns/lab/{path}/{name}", b"content", {"id": file_id(number), "sha256": SHA256, "version": "1"})
    begin = time.perf_counter()
    result = await rebuild([Source("aws", "ns/lab/", MemoryStore(place))], fresh, now=1)
    seconds = time.perf_counter() - begin
    if result.files != REBUILT:
        raise SystemExit(f"{result.files} files instead of {REBUILT}: {result}")
    return REBUILT / seconds


async def measure(kind: str, catalog: Catalog, fresh: Catalog, peer: Any) -> None:
    """All figures of one database."""
    begin = time.perf_counter()
    await catalog.load(Lazy(entries), Lazy(copies), [], due=0)
    seconds = time.perf_counter() - begin
    totals = await catalog.totals()
    figure("entries", totals.files, "entries", catalog=kind, load_per_second=round(ENTRIES / seconds))
    begin = time.perf_counter()
    await asyncio.to_thread(peer.fill)
    say(f"{kind}: filled in {seconds:.0f} s, the peer in {time.perf_counter() - begin:.0f} s")
    drawn = random.Random(1)

    def path() -> str:
        _, directory, name = place_of(drawn.randrange(ENTRIES))
        return f"{directory}/{name}"

    def mark() -> str:
        return place_of(drawn.randrange(max(1, BIG - PAGE)))[2]

    ours = await timed(STATS, lambda: catalog.entry(path()))
    theirs = await timed(STATS, lambda: asyncio.to_thread(peer.stat, path()))
    told("stat_p99", kind, ours, theirs)
    ours = await timed(PAGES, lambda: catalog.children("big", after=mark(), limit=PAGE))
    theirs = await timed(PAGES, lambda: asyncio.to_thread(peer.page, mark()))
    told("list_page_p99", kind, ours, theirs)
    with_copies = await timed(PAGES, lambda: catalog.children("big", after=mark(), limit=PAGE, copies=True))
    told("list_page_copies_p99", kind, with_copies, theirs)
    moved = await rename(catalog)
    figure("rename_dir", max(moved), "ms", catalog=kind, files=BIG, first=round(moved[0], 3))
    begin = time.perf_counter()
    for number in range(PAIRS // 16):
        await asyncio.to_thread(peer.pair, number)
    rate = PAIRS // 16 / (time.perf_counter() - begin)
    figure("begin_commit", await writes(catalog), "pairs/s", catalog=kind, writers=WRITERS, peer_alone=round(rate))
    figure("rebuild", await rebuilt(fresh), "entries/s", catalog=kind, of=REBUILT)


async def sqlite(folder: Path) -> None:
    """The embedded catalogue."""
    catalog, fresh = SqliteCatalog(folder / "catalog.sqlite"), SqliteCatalog(folder / "fresh.sqlite")
    peer = SqlitePeer(folder)
    try:
        await catalog.open()
        await fresh.open()
        await measure("sqlite", catalog, fresh, peer)
    finally:
        with contextlib.suppress(Exception):
            peer.close()
        await fresh.close()
        await catalog.close()


async def postgresql(folder: Path) -> None:
    """The catalogue in a server of this machine, reached by loopback; its settings are those it comes with."""
    with postgres() as server:
        catalog, fresh = PostgresCatalog(server.uri, "bench"), PostgresCatalog(server.uri, "fresh")
        peer = PostgresPeer(server.uri)
        try:
            await catalog.open()
            await fresh.open()
            await measure("postgresql", catalog, fresh, peer)
        finally:
            peer.close()
            await fresh.close()
            await catalog.close()


def main() -> int:
    """Prints the figures."""
    for kind in KINDS:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            asyncio.run({"sqlite": sqlite, "postgresql": postgresql}[kind](Path(folder)))
    return 0
