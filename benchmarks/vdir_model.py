"""Random operations and faults on directories, against what people may expect: what is lost.

Each history ends with all faults over, everything looked at, the catalogue thrown away, and one made anew from the
stores alone. First over stores in memory, on virtual clocks, one process a core; with the catalogue in SQLite, then in
PostgreSQL (figures named `postgres_…`). Then (`real_…`) a gateway's process over two S3 servers behind fault proxies, a
volume that gets unmounted, and an SFTP server; and `rclone union` over the same kinds of stores, every file on each,
with the same writes, deletions, reads, outages and calls that fail (`union_…`), spared the deaths and the renames.

BENCH_OPERATIONS is the number in memory (10,000), BENCH_POSTGRES_OPERATIONS that with PostgreSQL (2,000),
BENCH_REAL_OPERATIONS that on real stores (300: some minutes; 10,000 take more than an hour), BENCH_RIVAL_SECONDS the
time of the rival (150), BENCH_SEED draws others.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from tests.testbed.postgres import postgres

from benchmarks.vdir_parts.places import places
from benchmarks.vdir_parts.real import RealModel, Step, history
from benchmarks.vdir_parts.union import Verdict, union
from cloudmesh.testing.directories.model import Tally

OPERATIONS = int(os.environ.get("BENCH_OPERATIONS", "10000"))
POSTGRES_OPERATIONS = int(os.environ.get("BENCH_POSTGRES_OPERATIONS", "2000"))
REAL_OPERATIONS = int(os.environ.get("BENCH_REAL_OPERATIONS", "300"))
SEED = int(os.environ.get("BENCH_SEED", "1"))
HISTORIES = 25
"""That a process draws at once."""
STEPS = 60
RIVAL_SECONDS = float(os.environ.get("BENCH_RIVAL_SECONDS", "150"))
"""After which the rival is judged by what it has done."""
REAL_STEPS = min(400, max(110, REAL_OPERATIONS // 10))
"""Of a history on real stores."""


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: int | bool, unit: str) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": value, "unit": unit}) + "\n")
    sys.stdout.flush()


def work(number: int, uri: str = "") -> Tally:
    """Some histories, in a process of its own; with the catalogue in the database of that URI."""
    from hypothesis import HealthCheck, Phase, seed, settings
    from hypothesis.stateful import run_state_machine_as_test

    from cloudmesh.testing.directories.machine import Machine
    from cloudmesh.testing.directories.postgres import PostgresWorld
    from cloudmesh.testing.directories.world import World

    class Counted(Machine):
        tally = Tally()
        make_world = staticmethod(partial(PostgresWorld, uri) if uri else World)

        def _judge(self) -> None:
            """What goes wrong is counted, not raised."""

    run_state_machine_as_test(
        seed(SEED * 1_000_000 + number)(Counted),
        settings=settings(
            max_examples=HISTORIES, stateful_step_count=STEPS, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    return Counted.tally


def in_memory(operations: int, uri: str = "", name: str = "") -> bool:
    """Histories over stores in memory; whether nothing went wrong."""
    total, begin, number = Tally(), time.monotonic(), 0
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        while total.operations < operations:
            for found in pool.map(work, range(number, number + cores), [uri] * cores):
                for one in fields(Tally):
                    setattr(total, one.name, getattr(total, one.name) + getattr(found, one.name))
            number += cores
            say(f"{total.operations} operations, {total.faults} faults, {total.deaths} deaths, {total.checks} checks")
    say(f"{time.monotonic() - begin:.0f} s")
    tell(name, total, "faults")
    return total.clean


def tell(name: str, total: Tally, faults: str) -> None:
    """Prints the figures of one part."""
    for note in total.notes[:20]:
        say(note)
    figure(f"{name}operations", total.operations, "operations")
    figure(f"{name}faults", total.faults, faults)
    figure(f"{name}deaths", total.deaths, "processes")
    figure(f"{name}lost", total.lost, "files")
    figure(f"{name}corrupt", total.corrupt, "files or copies")
    figure(f"{name}unknown_copies", total.unknown_copies, "objects")
    figure(f"{name}misplaced", total.misplaced, "files")
    figure(f"{name}wrong", total.wrong, "answers")
    figure(f"{name}rebuild_equal", not total.rebuild_unequal, "")


def in_postgres() -> bool:
    """The same with the catalogue in a server of this machine; whether nothing went wrong."""
    with postgres("fsync=off", "full_page_writes=off") as server:
        return in_memory(POSTGRES_OPERATIONS, server.local, "postgres_")


def on_real_stores() -> tuple[bool, list[Step]]:
    """Histories over real stores; whether nothing went wrong, and what a rival is to do."""
    total, begin = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as volume, places(Path(volume)) as stores:
        model = RealModel(Path(own), stores, total, SEED)
        with model.served:
            while total.operations < REAL_OPERATIONS:
                history(model, REAL_STEPS)
                say(f"{total.operations} operations, {total.faults} faults, {total.deaths} deaths")
                stores.sweep()
    say(f"{time.monotonic() - begin:.0f} s")
    tell("real_", total, "faults and outages")
    figure("real_refused", model.refused, "writes")
    return total.clean, model.steps


def by_the_rival(steps: list[Step]) -> Verdict:
    """The same with rclone union."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as volume, places(Path(volume)) as stores:
        with union(Path(own), stores) as rival:
            for done, step in enumerate(steps):
                if time.monotonic() - begin > RIVAL_SECONDS:
                    # it waits longer after each call that failed
                    steps = steps[:done]
                    rival.step(("calm", "", b""))
                    break
                rival.step(step)
        verdict = rival.verdict
    say(f"rclone union: {time.monotonic() - begin:.0f} s")
    for note in verdict.notes[:10]:
        say(note)
    figure("union_operations", sum(what in ("put", "delete", "read") for what, _, _ in steps), "operations")
    figure("union_lost", verdict.lost, "files")
    figure("union_stale", verdict.stale, "files")
    figure("union_resurrected", verdict.resurrected, "files")
    figure("union_misread", verdict.misread, "reads")
    figure("union_refused", verdict.refused, "writes and deletions")
    return verdict


def main() -> int:
    """Prints the figures; 1 if anything went wrong with ours."""
    well = in_memory(OPERATIONS)
    well &= in_postgres()
    real, steps = on_real_stores()
    by_the_rival(steps)
    return 0 if well and real else 1
