"""Runs the parts of the test suite, fast ones first, while the test bed and the images are built beside them.

Called by the Makefile with the parts and their budgets in minutes: `python -m tests.run lint=1 unit=2 e2e=8`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
BUILD = ROOT / "build"

LINT = (
    ("ruff", [BIN / "ruff", "check", "."]),
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("mypy", [BIN / "mypy"]),
    ("imports", [BIN / "lint-imports"]),
    ("crds", [sys.executable, "-m", "cloudmesh.api.crds", "--check"]),
    ("reference", [sys.executable, "-m", "cloudmesh.api.reference", "--check"]),
)
PYTEST = {
    # what to run, and on how many processes: tests that share the cluster's operator run one after another
    "unit": ("tests/unit", 2),
    "property": ("tests/property", 2),
    "contract": ("tests/contract", 2),
    "kube": ("tests/kube", 0),
    "e2e": ("tests/e2e", 0),
}
ON_CLUSTER = {"contract", "kube", "e2e"}
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def run(name: str, command: list[str | Path]) -> tuple[bool, str]:
    """Runs a command, its output shown as it comes and given back."""
    process = subprocess.Popen(
        [str(c) for c in command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        sys.stdout.write(line)
        sys.stdout.flush()
        lines.append(line)
    return process.wait() == 0, "".join(lines)


def start_beside() -> dict[str, tuple[subprocess.Popen[bytes], Path]]:
    """Starts what the cluster parts need; the first start on a machine takes 10 minutes and more."""
    BUILD.mkdir(exist_ok=True)
    started = {}
    for name, command in (
        ("test bed", [sys.executable, "-m", "tests.testbed", "up"]),
        ("images", [sys.executable, "-m", "images", "build"]),
    ):
        log = BUILD / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as out:
            started[name] = (subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT), log)
        say(f"{name}: started beside the fast tests, see {log.relative_to(ROOT)}")
    return started


def wait_beside(started: dict[str, tuple[subprocess.Popen[bytes], Path]]) -> bool:
    good = True
    for name, (process, log) in started.items():
        began = time.monotonic()
        code = process.wait()
        outcome = "ready" if code == 0 else f"FAILED with exit code {code}"
        say(f"{name}: {outcome}, waited {time.monotonic() - began:.0f} s")
        if code != 0 or "-v" in sys.argv:
            print(log.read_text(errors="replace")[-8000:], flush=True)
        good = good and code == 0
    return good


def main() -> int:
    parts = {n: float(b) for n, b in (a.split("=") for a in sys.argv[1:] if "=" in a)}
    unknown = parts.keys() - PYTEST.keys() - {"lint"}
    if unknown:
        print(f"unknown parts: {', '.join(sorted(unknown))}; there are lint, {', '.join(PYTEST)}", file=sys.stderr)
        return 2
    began = time.monotonic()
    beside = start_beside() if parts.keys() & ON_CLUSTER else None
    times: list[tuple[str, float, float, bool]] = []
    counts: dict[str, int] = {}
    failed: list[str] = []
    ready = True
    for part, budget in parts.items():
        if beside is not None and part in ON_CLUSTER:
            ready, beside = wait_beside(beside), None
        start = time.monotonic()
        say(f"{part}: starts")
        if part == "lint":
            results = [(name, run(name, list(command))[0]) for name, command in LINT]
            good = all(ok for _, ok in results)
            for name, ok in results:
                if not ok:
                    say(f"lint: {name} FAILED")
        elif part in ON_CLUSTER and not ready:
            say(f"{part}: NOT RUN, the test bed or the images are not there")
            good = False
        else:
            path, processes = PYTEST[part]
            if not any((ROOT / path).rglob("test_*.py")):
                say(f"{part}: no tests in {path}")
                good, output = False, ""
            else:
                spread = ["-n", str(processes), "--dist", "worksteal"] if processes else []
                good, output = run(part, [sys.executable, "-m", "pytest", path, "-q", "--durations=5", *spread])
            closing = [line for line in output.splitlines() if COUNT.search(line)][-1:]
            for number, word in COUNT.findall(" ".join(closing)):
                counts[word] = counts.get(word, 0) + int(number)
        seconds = time.monotonic() - start
        times.append((part, seconds, budget, good))
        if not good:
            failed.append(part)
            if part in ("lint", "unit") and "CI_FULL" not in os.environ and os.environ.get("KEEP_GOING") != "1":
                break
    if beside is not None:
        wait_beside(beside)
    print("\npart        time    budget")
    for part, seconds, budget, good in times:
        late = "" if seconds <= 60 * budget else "  OVER BUDGET"
        print(f"{part:10} {seconds:6.1f} s {budget * 60:6.0f} s  {'ok' if good else 'FAILED'}{late}")
    print(f"{'all':10} {time.monotonic() - began:6.1f} s")
    if failed:
        print(f"failed parts: {', '.join(failed)}")
    bad = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    print(f"{counts.get('passed', 0)} passed, {bad} failed, {counts.get('skipped', 0)} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
