"""The conformance suite for stores: write a harness for your back end, run all cases on it."""

from __future__ import annotations

from cloudmesh.testing.stores import cases as cases  # registers them
from cloudmesh.testing.stores.case import CASES, Bench, Case, CaseFailed, case, chunks, need, noise, refused
from cloudmesh.testing.stores.harness import NEEDS, BaseHarness, Harness, Injection, Operation
from cloudmesh.testing.stores.runner import Result, run_all, run_case, table

__all__ = [
    "CASES",
    "NEEDS",
    "BaseHarness",
    "Bench",
    "Case",
    "CaseFailed",
    "Harness",
    "Injection",
    "Operation",
    "Result",
    "case",
    "chunks",
    "need",
    "noise",
    "refused",
    "run_all",
    "run_case",
    "table",
]
