"""Random operations and faults on directories, against what people may expect: what is lost.

Each history ends with all faults over, everything looked at, the catalogue thrown away, and one made anew from the
stores alone. First over stores in memory, on virtual clocks, one process a core. Then (figures named `real_…`) a
gateway's process over two S3 servers behind fault proxies, a volume that gets unmounted, and an SFTP server; and
`rclone union` over the same kinds of stores, every file on each, with the same writes, deletions, reads, outages and
calls that fail (`union_…`), spared the deaths and the renames.

BENCH_OPERATIONS is the number in memory (10,000), BENCH_REAL_OPERATIONS that on real stores (300: some minutes; 10,000
take more than an hour), BENCH_RIVAL_SECONDS the time of the rival (150), BENCH_SEED draws others.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path

from benchmarks.vdir_parts.places import places
from benchmarks.vdir_parts.real import RealModel, Step, history
from benchmarks.vdir_parts.union import Verdict, union
from cloudmesh.testing.directories.model import Tally

OPERATIONS = int(os.environ.get("BENCH_OPERATIONS", "10000"))
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


def work(number: int) -> Tally:
    """Some histories, in a process of its own."""
    from hypothesis import HealthCheck, Phase, seed, settings
    from hypothesis.stateful import run_state_machine_as_test

    from cloudmesh.testing.directories.machine import Machine

    class Counted(Machine):
        tally = Tally()

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


def in_memory() -> bool:
    """Histories over stores in memory; whether nothing went wrong."""
    total, begin, number = Tally(), time.monotonic(), 0
    cores = os.cpu_count() or 1
    with ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        while total.operations < OPERATIONS:
            for found in pool.map(work, range(number, number + cores)):
                for one in fields(Tally):
                    setattr(total, one.name, getattr(total, one.name) + getattr(found, one.name))
            number += cores
            say(f"{total.operations} operations, {total.faults} faults, {total.deaths} deaths, {total.checks} checks")
    say(f"{time.monotonic() - begin:.0f} s")
    for note in total.notes[:20]:
        say(note)
    figure("operations", total.operations, "operations")
    figure("faults", total.faults, "faults")
    figure("deaths", total.deaths, "processes")
    figure("lost", total.lost, "files")
    figure("corrupt", total.corrupt, "files or copies")
    figure("unknown_copies", total.unknown_copies, "objects")
    figure("misplaced", total.misplaced, "files")
    figure("wrong", total.wrong, "answers")
    figure("rebuild_equal", not total.rebuild_unequal, "")
    return total.clean


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
    for note in total.notes[:20]:
        say(note)
    figure("real_operations", total.operations, "operations")
    figure("real_faults", total.faults, "faults and outages")
    figure("real_deaths", total.deaths, "processes")
    figure("real_lost", total.lost, "files")
    figure("real_corrupt", total.corrupt, "files or copies")
    figure("real_unknown_copies", total.unknown_copies, "objects")
    figure("real_misplaced", total.misplaced, "files")
    figure("real_wrong", total.wrong, "answers")
    figure("real_refused", model.refused, "writes")
    figure("real_rebuild_equal", not total.rebuild_unequal, "")
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
    in_mind = in_memory()
    real, steps = on_real_stores()
    by_the_rival(steps)
    return 0 if in_mind and real else 1
