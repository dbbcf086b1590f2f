"""Machines made and deleted on the memory cloud by operators that die at every call: doubles and what is left behind.

First every call of an operator's life is a place to die, before it and after it, on a cloud with create tokens and on
one without. Then plans are drawn, with several deaths, calls that go wrong, and two leaders at once, until there were
as many cycles as asked for. All on virtual clocks, one process a core.
"""

from __future__ import annotations

import json
import logging
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from cloudmesh.testing.create_once import Plan, Tally, draw_plan, run_trial, sweep

CYCLES = int(os.environ.get("BENCH_CYCLES", "10000"))
SEED = int(os.environ.get("BENCH_SEED", "1"))
MACHINES = 20
SWEEPS = [
    Plan(machines=machines, native_tokens=native, seed=seed)
    for machines, seeds in ((1, (1, 2)), (4, (3,)))
    for native in (True, False)
    for seed in seeds
]


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: int, unit: str) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": value, "unit": unit}) + "\n")
    sys.stdout.flush()


def work(task: tuple[str, Plan]) -> Tally:
    """One sweep or one plan, in a process of its own."""
    logging.disable(logging.CRITICAL)  # the dead cry out
    kind, plan = task
    return sweep(plan) if kind == "sweep" else run_trial(plan)


def drawn(cycles: int) -> Iterator[tuple[str, Plan]]:
    """Plans of so many cycles."""
    rng = random.Random(SEED)
    for _ in range(max(0, -(-cycles // MACHINES))):
        yield "trial", draw_plan(rng, machines=MACHINES)


def main() -> int:
    """Prints the figures; 1 if anything was made twice or left behind."""
    tally = Tally()
    begin = time.monotonic()
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for plan, found in zip(SWEEPS, pool.map(work, [("sweep", plan) for plan in SWEEPS]), strict=True):
            tally.add(found)
            tokens = "with" if plan.native_tokens else "without"
            say(f"{plan.machines} machines {tokens} tokens: died at each of {found.calls} calls, {found.cycles} cycles")
        for number, found in enumerate(pool.map(work, drawn(CYCLES - tally.cycles), chunksize=4)):
            tally.add(found)
            if number % 50 == 49:
                say(f"{tally.cycles} cycles, {tally.crashes} crashes")
    say(f"{tally.made} machines were made in {tally.cycles} cycles, {time.monotonic() - begin:.0f} s")
    for note in tally.notes:
        say(note)
    figure("cycles", tally.cycles, "cycles")
    figure("crashes", tally.crashes, "crashes")
    figure("duplicates", tally.duplicates, "machines")
    figure("orphans", tally.orphans, "machines")
    figure("stuck", tally.stuck, "VirtualMachines")
    return 0 if tally.clean else 1
