"""Every case of the conformance suite on every provider: pass, or n/a for what is not declared; never skipped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from tests.contract.compute.harnesses import BACK_ENDS
from tests.contract.one_at_a_time import one_at_a_time

from cloudmesh.compute.ports import Provider
from cloudmesh.testing.providers import CASES, BaseHarness, Case, Harness, Injection, run_all, run_case, table
from cloudmesh.testing.providers.memory import MemoryHarness
from cloudmesh.testing.providers.runner import power_counts
from cloudmesh.testing.virtualtime import VirtualLoop

Running = tuple[Harness, asyncio.Runner]
FULL = bool(os.environ.get("CI_FULL"))
CELLS = [
    pytest.param(name, case, id=f"{name}-{case.id}")
    for name, back_end in BACK_ENDS.items()
    for case in CASES.values()
    if FULL or not back_end.some or case.id in back_end.some
]


@pytest.fixture(scope="module")
def back_ends() -> Iterator[Callable[[str], Running]]:
    """A harness and the event loop that its cases run on, by name of `BACK_ENDS`."""
    with one_at_a_time(lambda name: BACK_ENDS[name].run()) as get:
        yield get


@pytest.mark.parametrize(("back_end", "case"), CELLS)
def test_case(back_ends: Callable[[str], Running], back_end: str, case: Case) -> None:
    harness, runner = back_ends(back_end)
    result = runner.run(run_case(harness, case))
    assert result.outcome in ("pass", "n/a"), f"{case.title}\n{result.reason}\n{result.trace}"
    if result.outcome == "n/a":
        assert "not declared" in result.reason


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


def lacking(**lacks: str) -> type[MemoryHarness]:
    """A harness whose provider says that its cloud lacks something."""

    class Lacking(MemoryHarness):
        async def provider(self, *, bad_credentials: bool = False) -> Provider:
            made = await super().provider(bad_credentials=bad_credentials)
            made.info = replace(made.info, lacks=lacks)
            return made

    return Lacking


def test_only_what_a_provider_does_not_declare_is_not_applicable() -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:

        def run(harness: MemoryHarness, name: str) -> tuple[str, str]:
            result = runner.run(run_case(harness, CASES[name]))
            return result.outcome, result.reason

        late = lacking(LateFailures="there is room or there is none")
        reason = "the trait LateFailures is not declared: there is room or there is none"
        assert run(late(), "errors/capacity-late") == ("n/a", reason)
        assert run(late(), "errors/capacity") == ("pass", "")
        assert run(lacking(Stops="nobody can stop it")(), "drift/neighbours") == ("pass", "")
        outcome, reason = run(lacking(Spot="it isn't sold so")(), "offers/declared")
        assert outcome == "FAIL" and "Spot isn't declared, and there are" in reason
        outcome, reason = run(lacking(Spot="none")(), "offers/declared")
        assert outcome == "FAIL" and "is no sentence" in reason
        outcome, reason = run(lacking(DiskChoice="the disk is as it is")(), "create/disk")
        assert outcome == "FAIL" and "disk" in reason
        outcome, reason = run(lacking(Spott="there is no such trait")(), "create/one")
        assert outcome == "FAIL" and "Spott is not in TRAITS" in reason


def test_what_a_harness_can_not_do_fails() -> None:
    class Lazy(MemoryHarness):
        async def inject(self, injection: Injection) -> None:
            await BaseHarness.inject(self, injection)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(run_case(Lazy(), CASES["create/lost-answer"]))
        assert result.outcome == "FAIL" and "can't inject 'lose'" in result.reason


def test_titles_are_sentences_of_their_own() -> None:
    titles = [case.title for case in CASES.values()]
    assert len(set(titles)) == len(titles)
    assert all(title.endswith(".") and "|" not in title for title in titles)
    assert set(power_counts().values()) & {0} == set(), power_counts()
