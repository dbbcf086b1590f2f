"""`python -m cloudmesh.testing.stores MODULE:HARNESS` runs the contract suite on a harness of yours."""

from __future__ import annotations

import argparse
import asyncio
import fnmatch
import importlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cloudmesh.testing.stores import CASES, Harness, Result, run_all, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints failures, reasons of `n/a` and counts; 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.testing.stores", description=__doc__)
    parser.add_argument("harness", metavar="MODULE:HARNESS", help="a class or function that makes a harness")
    parser.add_argument("--case", default="*", metavar="PATTERN", help="cases to run, such as 'write/*'")
    parser.add_argument("--trace", action="store_true", help="show tracebacks of failures")
    parser.add_argument("--table", metavar="FILE", type=Path, help="write the table there, as Markdown")
    asked = parser.parse_args(arguments)
    cases = [case for case in CASES.values() if fnmatch.fnmatchcase(case.id, asked.case)]
    if not cases:
        parser.error(f"no case matches {asked.case!r}")
    sys.path.insert(0, "")
    module, _, name = asked.harness.partition(":")
    harness: Harness = getattr(importlib.import_module(module), name)()
    results = asyncio.run(run_all(harness, cases))
    if asked.table:
        asked.table.write_text(table(results))
    sys.stdout.write(_report(results, trace=asked.trace))
    return 1 if any(result.outcome == "FAIL" for result in results) else 0


def _report(results: Sequence[Result], *, trace: bool) -> str:
    """Failures, reasons of `n/a` with how many cases they concern, and counts."""
    lines = []
    for result in results:
        if result.outcome == "FAIL":
            lines += [f"FAIL {result.case}: {' '.join(result.reason.split())}", *([result.trace] if trace else [])]
    reasons = Counter(result.reason for result in results if result.outcome == "n/a")
    lines += [f"n/a {count:3}  {reason}" for reason, count in sorted(reasons.items())]
    counts = Counter(result.outcome for result in results)
    lines.append(f"{counts['pass']} passed, {counts['n/a']} n/a, {counts['FAIL']} failed")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
