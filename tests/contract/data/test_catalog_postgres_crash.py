"""PostgreSQL ends, is away or is busy while many write, and so do processes: what was told is there, and all else is
whole or not at all; the catalogue goes on by itself."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from tests.testbed.postgres import Postgres, postgres

from cloudmesh.data.catalog import postgres_threads
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.model import MICROS, Copy, Intent, Target
from cloudmesh.engine.errors import Conflict, InvalidRequest, Transient

WRITER = """
import asyncio, sys
from cloudmesh.data.catalog import sql_tree
from cloudmesh.data.catalog.postgres import PostgresCatalog
from tests.contract.data.test_catalog_postgres_crash import work

sql_tree.VISIT = 5  # moves of directories go on in the background, and are cut in two as well

async def main(uri, schema, run):
    catalog = PostgresCatalog(uri, schema)
    await catalog.open()
    await asyncio.gather(*(work(catalog, run, number, lambda entry: print(entry, flush=True)) for number in range(8)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def write(catalog: PostgresCatalog, entry: str, path: str, *, until: int = 1) -> None:
    """A new file, as a gateway writes it."""
    folder, _, name = path.rpartition("/")
    await catalog.begin(Intent(entry, "Put", entry, folder, name, 1, (Target("s1", name),), until))
    copy = Copy(entry, "s1", name, 1, "Whole", "t", 7)
    await catalog.commit_put(entry, size=7, sha256="", whole=[copy], failed={}, due=0)


async def work(catalog: PostgresCatalog, run: int, number: int, tell: object) -> None:
    """Files without end, and now and then a directory that goes to the trash."""
    assert callable(tell)
    done = 0
    while True:
        entry = f"{run:04x}{number:04x}{done:08x}"
        await write(catalog, entry, f"d{number}/{'sub/' * (done % 2)}r{run}w{number}n{done}")
        tell(entry)
        if done % 20 == 19:
            gone = await catalog.delete(f"d{number}", recursive=True)
            assert gone is not None
            tell(gone.id)
        done += 1


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as found:
        yield found


async def whole(catalog: PostgresCatalog, told: list[str]) -> None:
    """All that was told is there, the rest is consistent, and the journal has no gaps."""
    await catalog.settle()
    assert await catalog.fsck() == []
    for entry in told:
        assert await catalog.by_id(entry) is not None, f"{entry} was told and is lost"
    records = await catalog.unwritten(limit=1_000_000)
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert {record.body["id"] for record in records} >= set(told)


async def test_a_process_is_killed(server: Postgres) -> None:
    told: list[str] = []
    for run, acts in enumerate((7, 150), start=1):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, server.uri, "killed", str(run)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acts)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.read().splitlines()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        told += [line.strip() for line in lines if len(line.strip()) == 16]
        catalog = PostgresCatalog(server.uri, "killed")
        await catalog.open()
        await whole(catalog, told)
        assert not {intent.entry for intent in await catalog.intents(until=1 << 60)} & set(told)
        await catalog.close()
    assert len(told) > 150


async def test_the_server_crashes_and_comes_back(server: Postgres) -> None:
    catalog = PostgresCatalog(server.uri, "crash")
    await catalog.open()
    told: list[str] = []
    failures: list[BaseException] = []

    async def writer(number: int) -> None:
        for life in itertools.count(1):
            try:
                await work(catalog, life, number, told.append)
            except Transient as error:
                failures.append(error)
                await asyncio.sleep(0.2)

    writers = [asyncio.create_task(writer(number)) for number in range(6)]
    try:
        for _ in range(2):
            seen = len(told)
            while len(told) < seen + 60:
                await asyncio.sleep(0.02)
            await asyncio.to_thread(server.stop, signal.SIGQUIT)
            # reads fail too, and are told so
            with pytest.raises(Transient):
                await catalog.entry("d0")
            await asyncio.sleep(0.5)
            await asyncio.to_thread(server.start)
        seen = len(told)
        async with asyncio.timeout(60):
            while len(told) < seen + 60:
                await asyncio.sleep(0.02)
    finally:
        for task in writers:
            task.cancel()
        ended = await asyncio.gather(*writers, return_exceptions=True)
    assert not [error for error in ended if error is not None and not isinstance(error, asyncio.CancelledError)]
    assert failures
    await whole(catalog, told)
    await catalog.close()


async def test_a_lost_connection_is_made_anew_and_nobody_notices(server: Postgres) -> None:
    catalog = PostgresCatalog(server.uri, "lost")
    await catalog.open()
    for number in range(5):
        server.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND application_name = 'cloudmesh'"
        )
        await catalog.mkdir(f"d{number}")
        assert await catalog.entry(f"d{number}") is not None
        assert len(await catalog.walk("")) == number + 1
    await catalog.close()


async def test_down_at_the_start(server: Postgres) -> None:
    server.stop()
    catalog = PostgresCatalog(server.uri, "late")
    try:
        with pytest.raises(Transient, match="isn't open"):
            await catalog.mkdir("a")
        with pytest.raises(Transient, match="refused"):
            await catalog.open()
        with pytest.raises(Transient, match="refused"):
            await catalog.mkdir("a")
    finally:
        server.start()
    async with asyncio.timeout(20):
        while True:
            try:
                await catalog.open()
                break
            except Transient:
                await asyncio.sleep(0.1)
    await catalog.mkdir("a")
    await catalog.close()
    await catalog.close()
    with pytest.raises(Transient, match="closed"):
        await catalog.mkdir("b")


async def test_what_can_t_be_used_is_told(server: Postgres) -> None:
    catalog = PostgresCatalog(server.uri, "later")
    await catalog.open()
    await catalog.close()
    server.run("UPDATE later.meta SET version = 99", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    base = server.uri.rpartition("/")[0]
    for uri, schema, error, words in (
        (server.uri, "later", InvalidRequest, "schema 99"),
        (f"{base}/latin", "x", InvalidRequest, "LATIN1"),
        (server.uri.replace("secret", "guess"), "x", Transient, "password"),
        (f"{base}/nowhere", "x", Transient, "nowhere"),
    ):
        other = PostgresCatalog(uri, schema)
        with pytest.raises(error, match=words):
            await other.open()
        await other.close()


async def test_a_catalogue_of_an_earlier_schema_is_taken_along(server: Postgres) -> None:
    first = PostgresCatalog(server.uri, "earlier")
    await first.open()
    await first.mkdir("a")
    await first.close()
    server.run("UPDATE earlier.meta SET version = 1")
    second = PostgresCatalog(server.uri, "earlier")
    await second.open()
    link = await second.adopt("a/link", Copy("", "s1", "theirs", 1, "Linked", "t", 1), mtime=1)
    assert [copy.state for copy in await second.copies(link.id)] == ["Linked"]
    # a gateway that doesn't know links refuses it
    assert await second._read(lambda db: db.execute("SELECT version FROM meta").fetchone()) == (2,)
    await second.close()


async def test_a_password_that_changes(server: Postgres) -> None:
    server.run("CREATE ROLE app LOGIN PASSWORD 'one'", "GRANT CREATE ON DATABASE cloudmesh TO app")
    uri = f"postgresql://app:one@127.0.0.1:{server.port}/cloudmesh"
    catalog = PostgresCatalog(uri, "turned")
    await catalog.open()
    await catalog.mkdir("a")
    server.run("ALTER ROLE app PASSWORD 'two'")
    catalog.use(uri.replace("one", "two"))
    await catalog.mkdir("b")
    assert [found.path for found in await catalog.walk("")] == ["a", "b"]
    # too few connections for all that read: told, and over when there are more
    server.run("ALTER ROLE app CONNECTION LIMIT 2")
    results = await asyncio.gather(*(catalog.walk("") for _ in range(40)), return_exceptions=True)
    assert {type(result) for result in results} <= {list, Transient}
    server.run("ALTER ROLE app CONNECTION LIMIT 20")
    await asyncio.sleep(1.1)
    assert len(await catalog.walk("")) == 2
    await catalog.close()


async def test_whoever_holds_the_lock_too_long(server: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(postgres_threads.SETTINGS, "lock_timeout", "200ms")
    catalog = PostgresCatalog(server.uri, "locked")
    await catalog.open()
    with psycopg.connect(server.local, autocommit=True) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('cloudmesh:locked', 0))")
        with pytest.raises(Transient, match="lock timeout"):
            await catalog.mkdir("a")
        assert await catalog.entry("a") is None
    await catalog.mkdir("a")
    await catalog.close()


async def test_a_server_that_takes_no_writes(server: Postgres) -> None:
    catalog = PostgresCatalog(server.uri, "standby")
    await catalog.open()
    server.run("ALTER DATABASE cloudmesh SET default_transaction_read_only = on")
    try:
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'cloudmesh'")
        with pytest.raises(Transient, match="read-only"):
            await catalog.mkdir("a")
    finally:
        with psycopg.connect(server.local.replace("/cloudmesh?", "/postgres?"), autocommit=True) as db:
            db.execute("ALTER DATABASE cloudmesh RESET default_transaction_read_only")
    await asyncio.sleep(1.1)
    await catalog.mkdir("a")
    await catalog.close()


async def test_one_bad_change_doesn_t_undo_the_others(server: Postgres) -> None:
    catalog = PostgresCatalog(server.uri, "together")
    await catalog.open()
    before = catalog.commits
    long = "/".join(["x" * 1000] * 4)
    results = await asyncio.gather(
        *(catalog.mkdir(f"d{n % 20}") for n in range(40)),
        catalog.begin(Intent("a" * 16, "Put", "b" * 16, "", "f", 1, (Target("s1", os.urandom(2000).hex()),), 1)),
        catalog.set("text", "with \0 in it"),
        write(catalog, "c" * 16, f"{long[:900]}/f"),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Conflict) for result in results) == 20
    assert isinstance(results[40], InvalidName)
    assert results[41:] == [None, None]
    assert await catalog.get("text") == "with \N{REPLACEMENT CHARACTER} in it"
    assert len(await catalog.walk("")) == 22
    assert catalog.commits[1] - before[1] >= 43
    # those that fail in the tree alone share a commit
    before = catalog.commits
    await asyncio.gather(*(catalog.mkdir(f"e{n % 20}") for n in range(40)), return_exceptions=True)
    assert catalog.commits[0] - before[0] <= 10
    assert await catalog.fsck() == []
    await catalog.close()


async def test_two_processes_share_it(server: Postgres) -> None:
    one, two = PostgresCatalog(server.uri, "shared"), PostgresCatalog(server.uri, "shared")
    await asyncio.gather(one.open(), two.open())
    # of one name one wins, whichever process asks, and numbers of the journal have no gaps
    results = await asyncio.gather(*((one, two)[n % 2].mkdir(f"d{n // 4}") for n in range(80)), return_exceptions=True)
    assert sum(isinstance(result, Conflict) for result in results) == 60
    records = await one.unwritten()
    assert [record.seq for record in records] == list(range(1, 21))
    # what a living process writes isn't over for another that starts
    now = one._clock()
    await one.begin(Intent("a" * 16, "Put", "a" * 16, "", "f", 1, (Target("s1", "f"),), now + 60 * MICROS))
    await two.close()
    two = PostgresCatalog(server.uri, "shared")
    await two.open()
    assert await two.intents(until=two._clock()) == []
    with pytest.raises(Conflict):
        await write(two, "b" * 16, "f")
    await one.end("a" * 16)
    # a file is looked at by one mover, and by another when that one told or gave up
    for number in range(6):
        await write(one, f"{number:016x}", f"g{number}") if number else await write(one, "9" * 16, "g0")
    await one.wake(due=1)
    first, second = await asyncio.gather(one.work(now, limit=4), two.work(now, limit=4))
    mine = {work.entry.id for work in first}
    assert len(mine) + len(second) == 6
    assert not mine & {work.entry.id for work in second}
    assert {work.entry.id for work in await one.work(now, limit=9)} == mine
    for work in first:
        await one.looked(work.entry.id, work.entry.version, 0, stamp=work.stamp)
    # nothing is left for it but what the other looks at, and it needn't ask before that one should have ended
    assert await one.work(now) == []
    assert await one.next_due() > one._clock() + 30 * MICROS
    assert await two.next_due() == 1
    server.run("UPDATE shared.lease SET until = 1")
    assert len(await one.work(now)) == len(second)
    # what only one may do
    assert await one.alone("snapshot", 60)
    assert await one.alone("snapshot", 60)
    assert not await two.alone("snapshot", 60)
    server.run("UPDATE shared.lease SET until = 1")
    assert await two.alone("snapshot", 60)
    assert await two.alone("snapshot", 0)
    assert await one.alone("snapshot", 60)
    # one throws all away: the other knows of things that aren't there any more, until it is opened anew
    await one.clear(["store/"])
    for call in (two.entry(""), two.walk(""), two.mkdir("x")):
        with pytest.raises(Transient, match="another process"):
            await call
    await one.mkdir("x")
    await two.close()
    two = PostgresCatalog(server.uri, "shared")
    await two.open()
    assert [found.path for found in await two.walk("")] == ["x"]
    await one.drop()
    await two.close()
    with psycopg.connect(server.local) as db:
        assert db.execute("SELECT to_regnamespace('shared')").fetchone() == (None,)
