"""Random operations and faults on directories over stores in memory, against what people may expect: what is lost.

Each history ends with all faults over, everything looked at, the catalogue thrown away, and one made anew from the
stores alone. All on virtual clocks, one process a core.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context

from cloudmesh.testing.directories.model import Tally

OPERATIONS = int(os.environ.get("BENCH_OPERATIONS", "10000"))
SEED = int(os.environ.get("BENCH_SEED", "1"))
HISTORIES = 25
"""That a process draws at once."""
STEPS = 60


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


def main() -> int:
    """Prints the figures; 1 if anything went wrong."""
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
    return 0 if total.clean else 1
