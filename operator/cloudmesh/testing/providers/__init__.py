"""The conformance suite for providers of machines: write a harness for your back end, run all cases on it."""

from __future__ import annotations

from cloudmesh.testing.providers import cases as cases  # registers them
from cloudmesh.testing.providers.case import CASES, Bench, Case, CaseFailed, case, need, refused
from cloudmesh.testing.providers.harness import (
    CALL_FAULTS,
    NEEDS,
    BaseHarness,
    Harness,
    Injection,
    Injections,
    MakeHarness,
    Operation,
    Seen,
)
from cloudmesh.testing.providers.runner import Result, run_all, run_case, table

__all__ = [
    "CALL_FAULTS",
    "CASES",
    "NEEDS",
    "BaseHarness",
    "Bench",
    "Case",
    "CaseFailed",
    "Harness",
    "Injection",
    "Injections",
    "MakeHarness",
    "Operation",
    "Result",
    "Seen",
    "case",
    "need",
    "refused",
    "run_all",
    "run_case",
    "table",
]
