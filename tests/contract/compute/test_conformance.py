"""Every case of the conformance suite on every provider: pass, or n/a for what is not declared; never skipped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping

import pytest
from tests.contract.compute.harnesses import BACK_ENDS

from cloudmesh.testing.providers import CASES, BaseHarness, Case, Harness, Injection, run_all, run_case, table
from cloudmesh.testing.providers.memory import MemoryHarness
from cloudmesh.testing.providers.runner import power_counts
from cloudmesh.testing.virtualtime import VirtualLoop

FULL = bool(os.environ.get("CI_FULL"))
CELLS = [
    pytest.param(name, case, id=f"{name}-{case.id}")
    for name, back_end in BACK_ENDS.items()
    for case in CASES.values()
    if FULL or not back_end.some or case.id in back_end.some
]


@pytest.fixture(scope="module")
def back_end(request: pytest.FixtureRequest) -> Iterator[tuple[Harness, asyncio.Runner]]:
    """A harness and the event loop that its cases run on."""
    with BACK_ENDS[request.param].run() as running:
        yield running


@pytest.mark.parametrize(("back_end", "case"), CELLS, indirect=["back_end"])
def test_case(back_end: tuple[Harness, asyncio.Runner], case: Case) -> None:
    harness, runner = back_end
    result = runner.run(run_case(harness, case))
    assert result.outcome in ("pass", "n/a"), f"{case.title}\n{result.reason}\n{result.trace}"
    if result.outcome == "n/a":
        assert result.reason


def test_cases_that_are_always_run_are_there() -> None:
    for back_end in BACK_ENDS.values():
        assert set(back_end.some) <= set(CASES)


def test_the_memory_provider_has_everything_so_each_case_really_runs_on_it() -> None:
    harness = MemoryHarness()
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        results = runner.run(run_all(harness))
    assert {result.outcome for result in results} == {"pass"}
    assert len(results) >= 80


def test_the_table_has_a_row_a_case_and_a_note_for_what_does_not_apply() -> None:
    cases = [CASES["create/one"], CASES["reboot/boot-id"]]
    results = []
    for harness in (MemoryHarness(), MemoryHarness(name="plain", powers="none")):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            results += runner.run(run_all(harness, cases))
    lines = table(results).splitlines()
    assert lines[0] == "| case | what must hold | memory | plain |"
    assert lines[2].startswith("| `create/one` |") and lines[2].endswith("| pass | pass |")
    assert lines[3].endswith("| pass | n/a (1) |")
    assert lines[-1] == "1. the power Reboot is not declared"
    assert len(lines) == 6


def test_what_a_harness_neither_does_nor_declares_absent_fails() -> None:
    class Lazy(MemoryHarness):
        async def inject(self, injection: Injection) -> None:
            await BaseHarness.inject(self, injection)

    class Misspelt(MemoryHarness):
        absent: Mapping[str, str] = {"spott": "no such need"}

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(run_case(Lazy(), CASES["create/lost-answer"]))
        assert result.outcome == "FAIL" and "doesn't declare it absent" in result.reason
        result = runner.run(run_case(Misspelt(), CASES["create/one"]))
        assert result.outcome == "FAIL" and "spott" in result.reason


def test_titles_are_sentences_of_their_own() -> None:
    titles = [case.title for case in CASES.values()]
    assert len(set(titles)) == len(titles)
    assert all(title.endswith(".") and "|" not in title for title in titles)
    assert set(power_counts().values()) & {0} == set(), power_counts()
