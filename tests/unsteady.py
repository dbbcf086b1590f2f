"""Tests that failed are run once more, alone; those that pass then are told as unsteady.

A test that waits for processes, connections or a scheduler, on a machine that does more than it has cores for, is
late one time in thousands, and what all the others say should not be thrown away for it. It stays a defect, of the
test or of the product: each is named at the end of a run, and with more than `MOST` of them in a part the part has
failed. Tests of properties are never run again: their examples are fixed, so that what fails there, fails always. Nor
is what a fixture finds when it ends, such as secrets in logs: that is about all tests before it.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

PARTS = ("unit", "contract", "image", "kube", "e2e", "alone", "bed")
MOST = 2
"""So many tests of a part may be unsteady in one run."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What a run of pytest said of tests that didn't pass.

    Attributes:
        tests: Modules and names.
        ends: Of them, those after which a fixture failed.
    """

    tests: tuple[str, ...]
    ends: tuple[str, ...]


def forget(build: Path, part: str, log: Path) -> None:
    """Before a part's first run: what an earlier run left."""
    shutil.rmtree(_cache(build, part), ignore_errors=True)
    _report(log).unlink(missing_ok=True)


def remember(build: Path, part: str, log: Path) -> list[str]:
    """Arguments of pytest by which a part's failures are known afterwards, to `failed` and to --last-failed."""
    return ["-o", f"cache_dir={_cache(build, part)}", f"--junitxml={_report(log)}", "-o", "junit_logging=no"]


def failed(log: Path) -> Failed:
    """What failed in the run whose output is `log`; nothing is known of one that didn't come to its end."""
    bad = [(name, error) for name, errors in _cases(log) for error in errors]
    ends = (name for name, error in bad if error.startswith("failed on teardown"))
    return Failed(tuple(dict.fromkeys(name for name, _ in bad)), tuple(ends))


def ran(log: Path) -> set[str]:
    """Tests of the run whose output is `log`."""
    return {name for name, _ in _cases(log)}


def may_pass(first: Failed) -> bool:
    """Whether a part of which this failed can still be good."""
    return 0 < len(first.tests) <= MOST and not first.ends


def _cache(build: Path, part: str) -> Path:
    return build / f"cache-{part}"


def _report(log: Path) -> Path:
    return log.with_suffix(".xml")


def _cases(log: Path) -> list[tuple[str, list[str]]]:
    if not _report(log).is_file():
        return []
    return [
        (
            f"{case.get('classname')}::{case.get('name')}",
            [found.get("message", "") for tag in ("failure", "error") for found in case.findall(tag)],
        )
        for case in ET.parse(_report(log)).iter("testcase")
    ]
