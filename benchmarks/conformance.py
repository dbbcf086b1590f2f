"""Every case of the conformance suite on every provider; the table is written to docs/reference/conformance.md.

Back ends run side by side, each in a process of its own: memory on virtual time, moto behind the fault proxy, Pods on
the checkout's cluster. BENCH_BACK_ENDS names some of them (the table is written only when all have run).
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from tests.contract.compute.harnesses import BACK_ENDS, ON_CLUSTER
from tests.testbed import clusters

from cloudmesh.testing.providers import CASES, Result, run_case, table

ALL = {**BACK_ENDS, **ON_CLUSTER}
NAMES = os.environ.get("BENCH_BACK_ENDS", ",".join(ALL)).split(",")
PAGE = Path(__file__).parents[1] / "docs/reference/conformance.md"
INTRO = """\
# Conformance of providers

Written by `make bench NAME=conformance`, which runs every case of the suite in `cloudmesh.testing.providers` on every
provider. A cell is `pass`, or `n/a` for a power, or a trait of the cloud, that the provider doesn't declare
(`TRAITS` and `POWERS` in `cloudmesh.compute.ports`); the number leads to its reason below the table. Nothing is
skipped: what a harness can't do is a `FAIL`. [Write a provider](../how-to/write-a-provider.md) tells how to run the
suite on yours.

"""


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str) -> None:
    """Prints one figure."""
    sys.stdout.write(json.dumps({"name": name, "value": round(value, 1), "unit": unit}) + "\n")
    sys.stdout.flush()


def run_back_end(name: str) -> list[Result]:
    """All cases on one back end."""
    logging.disable(logging.CRITICAL)
    results = []
    with ALL[name].run() as (harness, runner):
        for number, case in enumerate(CASES.values(), 1):
            logging.disable(logging.NOTSET if case.id.startswith("secrets/") else logging.CRITICAL)
            results.append(runner.run(run_case(harness, case)))
            if results[-1].outcome == "FAIL":
                say(f"{name} {case.id}: {results[-1].reason}")
            if number % 50 == 0:
                say(f"{name}: {number} of {len(CASES)} cases")
    return results


def page(names: list[str], results: list[Result]) -> str:
    """The whole page."""
    lines = ["| provider | back end | pass | n/a | FAIL |", "|---|---|---|---|---|"]
    for name in names:
        counts = Counter(result.outcome for result in results if result.provider == name)
        lines.append(f"| {name} | {ALL[name].words} | {counts['pass']} | {counts['n/a']} | {counts['FAIL']} |")
    return INTRO + "\n".join(lines) + "\n\n" + table(results)


def main() -> int:
    """Prints the figures; 1 if a case failed."""
    begin = time.monotonic()
    if any(name in ON_CLUSTER for name in NAMES):
        clusters.up()
    results: list[Result] = []
    with ProcessPoolExecutor(len(NAMES), mp_context=get_context("spawn")) as pool:
        for name, found in zip(NAMES, pool.map(run_back_end, NAMES), strict=True):
            counts = Counter(result.outcome for result in found)
            spent = sum(result.seconds for result in found)
            say(f"{name}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}, {spent:.0f} s")
            results += found
    seconds = time.monotonic() - begin
    if set(NAMES) == set(ALL):
        PAGE.write_text(page(NAMES, results))
        say(f"written: {PAGE}")
    failures = sum(result.outcome == "FAIL" for result in results)
    figure("cases", len(CASES), "cases")
    figure("cells", sum(result.outcome == "pass" for result in results), "passed")
    figure("failures", failures, "cells")
    figure("seconds", seconds, "s")
    return 1 if failures else 0
