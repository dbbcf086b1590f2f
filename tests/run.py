"""Runs the parts of the test suite: the fast gates first, then three lanes beside each other.

- `cluster`: what needs the operator on the one Kubernetes. It waits most of its time, so two workers do it, but for the
  tests that stop or kill parts of the product, or look at all that was done: these are the part `alone`.
- `bed`: the test bed itself, beds beside it, Pods as machines, and definitions and chart on a real API server, none of
  which needs the operator.
- `processes`, at a lower priority: what needs this machine only.

The test bed and the images are made beside the fast gates. Called by the Makefile with the parts and their budgets in
minutes: `python -m tests.run lint=1 unit=2 e2e=8`. A part's output goes to `build/tests-PART.log` and is shown when the
part ends.

A test that failed is tried once more, see `tests.unsteady`; one that passes then is named at the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests import unsteady

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent

LINT = (
    ("ruff", [BIN / "ruff", "check", "."]),
    ("format", [BIN / "ruff", "format", "--check", "--quiet", "."]),
    ("mypy", [BIN / "mypy"]),
    ("imports", [BIN / "lint-imports"]),
    ("crds", [sys.executable, "-m", "cloudmesh.api.crds", "--check"]),
    ("reference", [sys.executable, "-m", "cloudmesh.api.reference", "--check"]),
)
LANES = {"processes": ("unit", "property", "contract", "image"), "cluster": ("e2e", "alone"), "bed": ("bed", "kube")}
FOLDERS = {"alone": "e2e"}
"""Where a part's tests are, if not in the folder of its name."""
ARGUMENTS = {
    **dict.fromkeys(LANES["processes"], ("-n", "2", "--dist", "worksteal")),
    # its modules start servers, and start them once if each is on one worker; the module with most tests goes first
    "contract": ("-n", "2", "--dist", "loadfile"),
    "e2e": ("-m", "not alone", "-n", "2", "--dist", "loadfile"),
    "alone": ("-m", "alone"),
}
NICE = {"processes": ["nice", "-n", "5"]}
"""What is on the cluster has limits of time, and goes first."""
CLUSTER = ("test bed", "images")
NEEDS = {
    "image": ("images",), "contract": ("images", "data servers"), "kube": CLUSTER, "e2e": (*CLUSTER, "data servers"),
    "alone": CLUSTER, "bed": CLUSTER,
}  # fmt: skip
BESIDE = {
    "test bed": [sys.executable, "-m", "tests.testbed", "up"],
    "images": [sys.executable, "-m", "images", "build"],
    "data servers": ["nice", "-n", "10", sys.executable, "-m", "tests.testbed", "build-data"],
}
COUNT = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed)")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part ended."""

    part: str
    seconds: float
    budget: float
    """Seconds."""
    good: bool
    counts: str = ""
    """What pytest said last."""
    unsteady: tuple[str, ...] = ()
    """Tests that failed, and passed when they were run again."""
    log: Path | None = None
    """Of the first run."""


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


class Suite:
    """One run of some parts.

    Args:
        budgets: part -> minutes.
        root: The checkout.
    """

    def __init__(self, budgets: dict[str, float], root: Path = ROOT) -> None:
        self._budgets = budgets
        self._root = root
        self._build = root / "build"
        self._beside: dict[str, tuple[subprocess.Popen[bytes], threading.Lock]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._shown = threading.Lock()
        self._ended = threading.Event()
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        """Runs all parts; the gates alone, since they are told soonest, then lane beside lane."""
        self._build.mkdir(exist_ok=True)
        self._start_beside(self._budgets.keys())
        if "lint" in self._budgets:
            self._part("lint", [])
        lanes = [(name, [part for part in parts if part in self._budgets]) for name, parts in LANES.items()]
        with ThreadPoolExecutor(len(lanes)) as pool:
            for future in [pool.submit(self._lane, name, parts) for name, parts in lanes]:
                future.result()
        for process, _ in self._beside.values():
            process.wait()

    def _start_beside(self, parts: Iterable[str]) -> None:
        """Starts what parts need; the first start on a machine takes 10 minutes and more."""
        for name in dict.fromkeys(need for part in parts for need in NEEDS.get(part, ())):
            with self._log(name).open("wb") as out:
                process = subprocess.Popen(BESIDE[name], cwd=self._root, stdout=out, stderr=subprocess.STDOUT)
            self._beside[name] = process, threading.Lock()
            say(f"{name}: started beside the fast tests, see {self._log(name).relative_to(self._root)}")

    def _log(self, name: str) -> Path:
        return self._build / f"{name.replace(' ', '-')}.log"

    def _has(self, need: str) -> bool:
        """Waits for what was started beside; tells the first time how it went."""
        process, lock = self._beside[need]
        with lock:
            began, told = time.monotonic(), process.returncode is not None
            good = process.wait() == 0
            if not told:
                outcome = "ready" if good else f"FAILED with exit code {process.returncode}"
                with self._shown:
                    say(f"{need}: {outcome}, waited {time.monotonic() - began:.0f} s")
                    if not good or "-v" in sys.argv:
                        print(self._log(need).read_text(errors="replace")[-8000:], flush=True)
        return good

    def _lane(self, lane: str, parts: list[str]) -> None:
        for part in parts:
            if self._ended.is_set():
                return
            missing = [need for need in NEEDS.get(part, ()) if not self._has(need)]
            if missing:
                say(f"{part}: NOT RUN, without {' and '.join(missing)}")
                self.outcomes.append(Outcome(part, 0.0, 60 * self._budgets[part], good=False))
            else:
                self._part(part, NICE.get(lane, []))

    def _part(self, part: str, before: list[str]) -> None:
        """Runs a part and shows its output; the end of a run in which the gates or the unit tests fail."""
        start = time.monotonic()
        log = self._build / f"tests-{part}.log"
        say(f"{part}: starts, see {log.relative_to(self._root)}")
        steady: tuple[str, ...] = ()
        if part == "lint":
            with log.open("wb") as out:
                failed = [name for name, command in LINT if not self._command(list(map(str, command)), out.fileno())]
        else:
            unsteady.forget(self._build, part, log)
            failed = [] if self._tests(part, before, log) else [part]
        text = log.read_text(errors="replace")
        counts = [line for line in text.splitlines() if COUNT.search(line)][-1:] if part != "lint" else []
        if failed and part in unsteady.PARTS:
            steady = self._again(part, log)
            failed = [] if steady else failed
        seconds = time.monotonic() - start
        with self._shown:
            print(text, end="", flush=True)
            say(f"{part}: {', '.join(failed) + ' FAILED' if failed else 'ok'} after {seconds:.0f} s")
        self.outcomes.append(Outcome(part, seconds, 60 * self._budgets[part], not failed, "".join(counts), steady, log))
        if failed and part in ("lint", "unit") and not {"CI_FULL", "KEEP_GOING"} & os.environ.keys():
            self._ended.set()
            for process in list(self._running):
                process.send_signal(signal.SIGINT)

    def _tests(self, part: str, before: list[str], log: Path, *more: str) -> bool:
        """Runs the tests of a part; each part that may be tried again has what it remembers to itself."""
        if part in unsteady.PARTS:
            more = (*unsteady.remember(self._build, part, log), *more)
        folder = f"tests/{FOLDERS.get(part, part)}"
        command = [sys.executable, "-m", "pytest", folder, "-q", "--durations=5", *ARGUMENTS.get(part, ()), *more]
        with log.open("wb") as out:
            return self._command([*before, *command], out.fileno())

    def _again(self, part: str, log: Path) -> tuple[str, ...]:
        """Runs what failed once more, if that can still make the part good; gives these tests if all pass then."""
        first = unsteady.failed(log)
        if not unsteady.may_pass(first) or self._ended.is_set():
            return ()
        say(f"{part}: FAILED, and runs once more: {', '.join(first.tests)}")
        again = log.with_name(f"tests-{part}-again.log")
        alone = ("-n", "0") if "-n" in ARGUMENTS.get(part, ()) else ()
        good = self._tests(part, [], again, *alone, "--last-failed", "--last-failed-no-failures=none")
        with self._shown:
            print(again.read_text(errors="replace"), end="", flush=True)
        return first.tests if good and unsteady.ran(again) >= set(first.tests) else ()

    def _command(self, command: list[str], out: int) -> bool:
        process = subprocess.Popen(command, cwd=self._root, stdout=out, stderr=subprocess.STDOUT)
        self._running.add(process)
        try:
            return process.wait() == 0
        finally:
            self._running.discard(process)


def main() -> int:
    budgets = {n: float(b) for n, b in (a.split("=") for a in sys.argv[1:] if "=" in a)}
    known = ("lint", *(part for parts in LANES.values() for part in parts))
    if unknown := budgets.keys() - set(known):
        print(f"unknown parts: {', '.join(sorted(unknown))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    # Programs that start again and again would be compiled each time.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell that starts this in the background has it ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    suite = Suite(budgets)
    suite.run()
    return summary(suite, budgets, time.monotonic() - began)


def summary(suite: Suite, budgets: dict[str, float], seconds: float) -> int:
    """Says how the parts of a run went; gives the exit code."""
    print("\npart        time    budget")
    for outcome in suite.outcomes:
        late = "" if outcome.seconds <= outcome.budget else "  OVER BUDGET"
        verdict = "ok" if outcome.good else "FAILED"
        print(f"{outcome.part:10} {outcome.seconds:6.1f} s {outcome.budget:6.0f} s  {verdict}{late}")
    print(f"{'all':10} {seconds:6.1f} s")
    failed = [part for part in budgets if not any(o.part == part and o.good for o in suite.outcomes)]
    if failed:
        print(f"failed or not run: {', '.join(failed)}")
    counts: dict[str, int] = {}
    for outcome in suite.outcomes:
        for number, word in COUNT.findall(outcome.counts):
            counts[word.rstrip("s")] = counts.get(word.rstrip("s"), 0) + int(number)
    again = [(test, outcome.log) for outcome in suite.outcomes for test in outcome.unsteady]
    for test, log in again:
        print(f"UNSTEADY: {test}, failed once: see {log}")
    passed = counts.get("passed", 0) + len(again)
    bad = counts.get("failed", 0) + counts.get("error", 0) - len(again)
    skipped = counts.get("skipped", 0)
    print(f"{passed} passed, {bad} failed, {len(again)} unsteady, {skipped} skipped", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
