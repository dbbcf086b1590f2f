"""Every case of the conformance suite on Pods, on an API server in memory; tests/bed has some on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.contract.compute.pod_harness import MemoryPods

from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.testing.providers import CASES, Case, run_case
from cloudmesh.testing.virtualtime import VirtualLoop


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        yield runner


@pytest.fixture(scope="module")
def harness(runner: asyncio.Runner) -> MemoryPods:
    return MemoryPods()


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_case(harness: MemoryPods, runner: asyncio.Runner, case: Case) -> None:
    result = runner.run(run_case(harness, case))
    assert result.outcome in ("pass", "n/a"), f"{case.title}\n{result.reason}\n{result.trace}"
    if result.outcome == "n/a":
        assert "not declared" in result.reason


def test_most_cases_concern_pods() -> None:
    lacks = set(PodProvider.info.lacks)
    concerned = [case for case in CASES.values() if not case.power and not set(case.traits) & lacks]
    assert len(concerned) >= 120
