"""Runs cases on a harness and makes the table provider x case."""

from __future__ import annotations

import asyncio
import time
import traceback
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudmesh.compute.ports import HINTS, POWERS, TRAITS, Provider, hints_of, powers_of
from cloudmesh.compute.tokens import Scope
from cloudmesh.testing.providers.case import CASES, Bench, Case, need
from cloudmesh.testing.providers.harness import Harness

Outcome = Literal["pass", "n/a", "FAIL"]


@dataclass(frozen=True, slots=True)
class Result:
    """One cell.

    Args:
        provider: Name of the harness.
        case: Id of the case.
        outcome: `n/a` only for a power or trait that the provider doesn't declare.
        reason: Why not `pass`.
        seconds: Real time that it took.
        trace: Traceback of a failure.
    """

    provider: str
    case: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""


def not_applicable(provider: Provider, case: Case) -> str:
    """Why a case doesn't concern a provider, by its own declaration; empty if it does."""
    if case.power and case.power not in (*powers_of(provider), *hints_of(provider)):
        return f"the {'hint' if case.power in HINTS else 'power'} {case.power} is not declared"
    if case.native_tokens and not provider.info.native_tokens:
        return "native tokens are not declared"
    for name in case.traits:
        if name in provider.info.lacks:
            return f"the trait {name} is not declared: {provider.info.lacks[name]}"
    return ""


async def run_case(harness: Harness, case: Case) -> Result:
    """Runs one case; never raises."""
    begin = time.perf_counter()
    scope = Scope(f"suite-{uuid.uuid4()}", "suite", harness.name)
    outcome: Outcome = "pass"
    reason = trace = ""
    try:
        await harness.open(scope)
        try:
            provider = await harness.provider()
            unknown = [name for name in provider.info.lacks if name not in TRAITS]
            need(not unknown, f"info.lacks: {', '.join(unknown)} is not in TRAITS")
            if reason := not_applicable(provider, case):
                outcome = "n/a"
            else:
                async with asyncio.timeout(harness.case_seconds):
                    await case.run(Bench(harness, scope, provider))
        finally:
            await harness.shut()
    except Exception as error:  # noqa: BLE001 - a cell of the table, whatever it was
        outcome, reason = (
            "FAIL",
            f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error),
        )
        trace = "".join(traceback.format_exception(error))
    return Result(harness.name, case.id, outcome, reason, time.perf_counter() - begin, trace)


async def run_all(harness: Harness, cases: Iterable[Case] | None = None) -> list[Result]:
    """Runs cases one after the other, all when none are named."""
    return [await run_case(harness, case) for case in (CASES.values() if cases is None else cases)]


def table(results: Sequence[Result]) -> str:
    """Markdown: a row a case, a column a provider; reasons of `n/a` and FAIL as notes below."""
    providers = list(dict.fromkeys(result.provider for result in results))
    cells: Mapping[tuple[str, str], Result] = {(result.case, result.provider): result for result in results}
    notes: dict[str, int] = {}
    lines = [
        f"| case | what must hold | {' | '.join(providers)} |",
        f"|---|---|{'---|' * len(providers)}",
    ]
    for case in CASES.values():
        row = [_cell(cells.get((case.id, provider)), notes) for provider in providers]
        if any(row):
            lines.append(f"| `{case.id}` | {case.title} | {' | '.join(row)} |")
    lines += ["", *(f"{number}. {text}" for text, number in notes.items())]
    return "\n".join(lines).rstrip() + "\n"


def _cell(result: Result | None, notes: dict[str, int]) -> str:
    if result is None:
        return ""
    if result.outcome == "pass":
        return "pass"
    number = notes.setdefault(" ".join(result.reason.split()), len(notes) + 1)
    return f"{result.outcome} ({number})"


def power_counts() -> Mapping[str, int]:
    """How many cases each optional power has."""
    return {name: sum(case.power == name for case in CASES.values()) for name in POWERS}
