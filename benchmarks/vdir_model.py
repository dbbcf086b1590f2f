"""Random operations and faults on directories, against what people may expect: what is lost.

Each history ends with all faults over, everything looked at, the catalogue thrown away, and one made anew from the
stores alone. First over stores in memory, on virtual clocks, one process a core; with the catalogue in SQLite, then in
PostgreSQL (figures named `postgres_…`). Then (`real_…`) a gateway's process over two S3 servers and a Swift behind
fault proxies, a volume that gets unmounted, and an SFTP server. Then `rclone union` over the same kinds of stores, with
the same writes, deletions, reads, outages and calls that fail, spared the deaths and the renames: once so that it
writes to the stores that answer (`union_…`), once so that it tries again until all have a file (`union_all_…`);
`union…_configuration` says how it is set up, `vdir_parts.union` why so.

BENCH_OPERATIONS is the number in memory (10,000), BENCH_POSTGRES_OPERATIONS that with PostgreSQL (2,000),
BENCH_REAL_OPERATIONS that on real stores (300; 10,000 took 40 minutes on a busy machine), BENCH_RIVAL_SECONDS the time
of the rival, half for each way (150), BENCH_SEED draws others. Into
BENCH_KEEP the stores and catalogues are copied where one made anew isn't equal.
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
from benchmarks.vdir_parts.union import Create, configuration, union
from cloudmesh.testing.directories.model import Tally

OPERATIONS = int(os.environ.get("BENCH_OPERATIONS", "10000"))
POSTGRES_OPERATIONS = int(os.environ.get("BENCH_POSTGRES_OPERATIONS", "2000"))
REAL_OPERATIONS = int(os.environ.get("BENCH_REAL_OPERATIONS", "300"))
SEED = int(os.environ.get("BENCH_SEED", "1"))
KEEP = os.environ.get("BENCH_KEEP", "")
HISTORIES = 25
"""That a process draws at once."""
STEPS = 60
RIVAL_SECONDS = float(os.environ.get("BENCH_RIVAL_SECONDS", "150"))
"""After which the rival is judged by what it has done; half for each way."""
RIVAL_STEPS = 60
"""After which the rival's stores are all back and its files are looked at: it waits longer after each call that failed,
and comes to few histories as long as ours."""
REAL_STEPS = min(400, max(110, REAL_OPERATIONS // 10))
"""Of a history on real stores."""


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: int | bool | str, unit: str) -> None:
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
        model = RealModel(Path(own), stores, total, SEED, Path(KEEP) if KEEP else None)
        with model.served:
            while total.operations < REAL_OPERATIONS:
                history(model, REAL_STEPS)
                wrong = len(total.notes)
                say(f"{total.operations} operations, {total.faults} faults, {total.deaths} deaths, {wrong} wrong")
                stores.sweep()
    say(f"{time.monotonic() - begin:.0f} s")
    tell("real_", total, "faults and outages")
    figure("real_refused", model.refused, "writes")
    return total.clean, model.steps


def by_the_rival(steps: list[Step], create: Create, name: str) -> None:
    """The same with rclone union."""
    begin = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as own, tempfile.TemporaryDirectory() as volume, places(Path(volume)) as stores,
        union(Path(own), stores, create) as rival,
    ):  # fmt: skip
        for done, step in enumerate(steps):
            over = time.monotonic() - begin > RIVAL_SECONDS / 2
            if over or done % RIVAL_STEPS == RIVAL_STEPS - 1:
                rival.step(("calm", "", b""))
            if over:
                break
            rival.step(step)
        verdict = rival.verdict
    say(f"rclone union: {time.monotonic() - begin:.0f} s")
    for note in verdict.notes[:10]:
        say(note)
    figure(f"{name}configuration", configuration(create), "")
    figure(f"{name}operations", verdict.operations, "operations")
    figure(f"{name}accepted_away", verdict.away, "writes and deletions")
    figure(f"{name}lost", verdict.lost, "files")
    figure(f"{name}stale", verdict.stale, "files")
    figure(f"{name}resurrected", verdict.resurrected, "files")
    figure(f"{name}misread", verdict.misread, "reads")
    figure(f"{name}unread", verdict.unread, "reads")
    figure(f"{name}refused", verdict.refused, "writes and deletions")


def main() -> int:
    """Prints the figures; 1 if anything went wrong with ours."""
    well = in_memory(OPERATIONS)
    well &= in_postgres()
    real, steps = on_real_stores()
    by_the_rival(steps, "epall", "union_")
    by_the_rival(steps, "all", "union_all_")
    return 0 if well and real else 1
