"""The catalogue's process is killed while many write: what it told is there, and the rest is whole or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cloudmesh.data.catalog import sql_aside, sql_tree
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import OVER, Copy, Intent, Target
from cloudmesh.engine.errors import Conflict, InvalidRequest, Transient
from cloudmesh.testing.catalogs.case import Bench, Harness

WRITER = """
import asyncio, sys
from pathlib import Path
from cloudmesh.data.catalog import sql_tree
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import Copy, Intent, Target

sql_tree.VISIT = 5  # moves of directories go on in the background, and are cut in two as well

async def worker(catalog, run, number):
    done = 0
    while True:
        name = f"r{run}w{number}n{done}"
        entry, intent = f"{run:04x}{number:04x}{done:08x}", f"{run:04x}{number:04x}{done:08x}"
        folder = f"d{number}" if done % 2 else f"d{number}/sub"
        await catalog.begin(Intent(intent, "Put", entry, folder, name, 1, (Target("s1", name),), 1))
        copy = Copy(entry, "s1", name, 1, "Whole", "t", done % 50)
        await catalog.commit_put(intent, size=done % 50, sha256="", whole=[copy], failed={}, due=0)
        print("put", entry, flush=True)
        if done % 20 == 19:
            gone = await catalog.delete(f"d{number}", recursive=True)
            print("deleted", gone.id, flush=True)
        done += 1

async def main(folder, run):
    catalog = SqliteCatalog(Path(folder) / "c.sqlite")
    await catalog.open()
    await asyncio.gather(*(worker(catalog, run, number) for number in range(12)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def test_killed_in_the_middle(tmp_path: Path) -> None:
    told: list[str] = []
    for run, acts in enumerate((7, 60, 200, 500), start=1):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(run)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert process.stdout is not None
        lines = [process.stdout.readline().split() for _ in range(acts)]
        process.send_signal(signal.SIGKILL)
        lines += [line.split() for line in process.stdout.read().splitlines()]
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
        told += [words[1] for words in lines if len(words) == 2 and len(words[1]) == 16]

        catalog = SqliteCatalog(tmp_path / "c.sqlite")
        await catalog.open()
        await catalog.settle()
        assert await catalog.fsck() == []
        for entry_id in told:
            assert await catalog.by_id(entry_id) is not None, f"{entry_id} was told and is lost"
        opened = await catalog.intents(until=0)
        assert {intent.id for intent in await catalog.intents(until=1 << 60)} == {intent.id for intent in opened}
        assert not {intent.entry for intent in opened} & set(told)
        records = await catalog.unwritten(limit=1_000_000)
        assert [record.seq for record in records] == list(range(1, len(records) + 1))
        recorded = {record.body["id"] for record in records}
        assert recorded >= set(told)
        for intent in opened:
            await catalog.end(intent.id)
        await catalog.close()
    assert len(told) > 500


class Plain(Harness):
    """A file in a folder, for cases that aren't of the suite."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "c.sqlite"

    async def open(self, clock: object) -> SqliteCatalog:
        catalog = SqliteCatalog(self.path, clock=clock)  # type: ignore[arg-type]
        await catalog.open()
        return catalog

    async def settled(self, catalog: Catalog) -> None:
        assert isinstance(catalog, SqliteCatalog)
        await catalog.settle()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    first, second = SqliteCatalog(tmp_path / "c.sqlite"), SqliteCatalog(tmp_path / "c.sqlite")
    with pytest.raises(Transient, match="isn't open"):
        await first.mkdir("a")
    await first.open()
    with pytest.raises(Conflict, match="another process"):
        await second.open()
    await first.close()
    await first.close()
    with pytest.raises(Transient, match="closed"):
        await first.entry("")
    with pytest.raises(Transient, match="closed"):
        await first.mkdir("a")
    await second.open()
    await second.close()


async def test_a_later_schema_and_a_broken_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(InvalidRequest, match="schema 99"):
        await SqliteCatalog(path).open()
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(Transient, match="not a database"):
        await SqliteCatalog(path).open()
    with pytest.raises(Transient, match="can't be opened"):
        await SqliteCatalog(tmp_path / "nowhere" / "c.sqlite").open()


async def test_a_catalogue_of_an_earlier_schema_is_taken_along(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    first = SqliteCatalog(path)
    await first.open()
    intent = Intent("1" * 16, "Put", "2" * 16, "d", "f", 1, (Target("s1", "d/f"), Target("s2", "d/f")), 1)
    await first.begin(intent)
    await first.close()
    db = sqlite3.connect(path)
    # as the first version had it
    db.execute("ALTER TABLE target ADD COLUMN session TEXT NOT NULL DEFAULT ''")
    db.execute("DROP INDEX trash_origin")
    db.execute("ALTER TABLE trash DROP COLUMN origin")
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    second = SqliteCatalog(path)
    await second.open()
    (found,) = await second.intents(until=0)
    assert found == replace(intent, until=0)
    copies = [Copy(intent.entry, target.store, target.key, 1, "Whole", "t", 1) for target in intent.targets]
    await second.commit_put(intent.id, size=1, sha256="", whole=copies, failed={}, due=0)
    assert len(await second.copies(intent.entry)) == 2
    assert await second.trash() == []
    await second.close()


async def test_a_full_disk_undoes_the_change_and_is_told(tmp_path: Path) -> None:
    bench = Bench(Plain(tmp_path))
    await bench.open()
    catalog = bench.catalog
    assert isinstance(catalog, SqliteCatalog)
    await bench.put("before")

    def limit(pages: int) -> object:
        return catalog._write(lambda db: db.execute(f"PRAGMA max_page_count = {pages}").fetchone())

    await limit(1)

    async def fill() -> None:
        for number in range(2000):
            await catalog.set(f"n{number}", "x" * 500)

    with pytest.raises(Transient, match="full"):
        await fill()
    results = await asyncio.gather(
        *(catalog.set(f"big{n}", "y" * 100_000) for n in range(4)), catalog.mkdir("small"), return_exceptions=True
    )
    assert all(isinstance(result, Transient) for result in results[:4])
    assert await bench.names() == (["before"] if isinstance(results[4], Transient) else ["before", "small"])
    await limit(1 << 30)
    await bench.put("after")
    assert (await catalog.totals()).files == 2
    assert await catalog.fsck() == []
    await bench.close()


async def test_changes_that_wait_together_share_a_commit_and_fail_alone(tmp_path: Path) -> None:
    bench = Bench(Plain(tmp_path))
    await bench.open()
    catalog = bench.catalog
    assert isinstance(catalog, SqliteCatalog)
    before = catalog.commits
    results = await asyncio.gather(*(catalog.mkdir(f"d{n % 50}") for n in range(100)), return_exceptions=True)
    commits, acts = (now - then for now, then in zip(catalog.commits, before, strict=True))
    assert acts == 100
    assert commits < 50
    assert sum(isinstance(result, Conflict) for result in results) == 50
    assert len(await bench.names()) == 50
    await bench.close()


async def test_a_caller_that_gave_up_doesn_t_disturb_the_others(tmp_path: Path) -> None:
    bench = Bench(Plain(tmp_path))
    await bench.open()
    tasks = [asyncio.create_task(bench.catalog.mkdir(f"d{n}")) for n in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(isinstance(result, asyncio.CancelledError) for result in results) == 10
    assert len(await bench.names()) >= 10
    await bench.close()


async def test_a_call_of_wake_isn_t_shared_with_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_tree, "VISIT", 3)
    bench = Bench(Plain(tmp_path))
    await bench.open()
    for number in range(40):
        await bench.put(f"d/f{number}", stores=("s1", "s2") if number % 2 else ("s1",))
    await bench.catalog.mkdir("e")
    # the background is busy with the move, and then looks for what a process left
    _, whole, some = await asyncio.gather(
        bench.catalog.move("d", "e/d"), bench.catalog.wake(due=5), bench.catalog.wake(store="s2", due=5)
    )
    assert (whole, some) == (40, 20)
    await bench.settled()
    catalog = bench.catalog
    assert isinstance(catalog, SqliteCatalog)
    # what a process that ended had left is done after the next start
    await catalog._write(lambda db: sql_tree.begin_wake(db, "", 3) and None)
    assert (await catalog.totals()).waking
    await bench.open()
    await bench.settled()
    assert not (await bench.catalog.totals()).waking
    assert {work.due for work in await bench.catalog.work(9)} == {3}
    assert len(await bench.catalog.work(9)) == 40
    await bench.close()


async def test_a_large_directory_is_over_in_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sql_tree, "VISIT", 3)
    bench = Bench(Plain(tmp_path))
    await bench.open()
    for number in range(10):
        await bench.put(f"d/e/f{number}")
    gone = await bench.catalog.delete("d", recursive=True)
    assert gone is not None
    await bench.settled()
    for work in await bench.catalog.work(bench.now):
        await bench.catalog.looked(work.entry.id, work.entry.version, 0)
    assert await bench.catalog.work(bench.now) == []
    catalog = bench.catalog
    assert isinstance(catalog, SqliteCatalog)
    # one transaction of it, and then the process ends
    await catalog._write(lambda db: sql_aside.expire(db, bench.now, gone.id))
    assert len([work for work in await catalog.work(bench.now) if work.entry.kind == "File"]) <= 3
    await bench.open()
    await bench.settled()
    due = [(work.entry.kind, work.trashed) for work in await bench.catalog.work(bench.now)]
    assert sorted(due) == [("Directory", OVER)] + [("File", OVER)] * 10
    await bench.close()
