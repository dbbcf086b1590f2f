"""Runs cases on a harness and makes the table store x case."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudmesh.data.stores.ports import POWERS, Store
from cloudmesh.testing.stores.case import CASES, Bench, Case
from cloudmesh.testing.stores.harness import NEEDS, Harness

Outcome = Literal["pass", "n/a", "FAIL"]


@dataclass(frozen=True, slots=True)
class Result:
    """One cell.

    Args:
        store: Name of the harness.
        case: Id of the case.
        outcome: `n/a` only for what the store doesn't declare or the back end can't be made to do.
        reason: Why not `pass`.
        seconds: Time that it took.
        trace: Traceback of a failure.
    """

    store: str
    case: str
    outcome: Outcome
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""


def not_applicable(harness: Harness, store: Store, case: Case) -> str:
    """Why a case doesn't concern a store; empty if it does."""
    for name in case.needs:
        if name in harness.lacks:
            return harness.lacks[name]
    if case.power and not isinstance(store, POWERS[case.power]):
        return f"the power {case.power} is not declared"
    order = ("None", "Create", "Full")
    if order.index(store.info.conditional) < order.index(case.conditional):
        return f"conditional writes are declared as {store.info.conditional}"
    if case.attributes and not store.info.attributes:
        return "attributes are not declared"
    return ""


async def run_case(harness: Harness, case: Case) -> Result:
    """Runs one case; never raises."""
    begin = time.perf_counter()
    outcome: Outcome = "pass"
    reason = trace = ""
    try:
        if unknown := sorted(set(harness.lacks) - set(NEEDS)):
            raise AssertionError(f"lacks: {', '.join(unknown)} is not in NEEDS")  # noqa: TRY301
        async with asyncio.timeout(harness.case_seconds):
            await harness.open()
            try:
                store = await harness.store()
                if reason := not_applicable(harness, store, case):
                    outcome = "n/a"
                else:
                    await case.run(Bench(harness, store))
            finally:
                await harness.shut()
    except Exception as error:  # noqa: BLE001 - a cell of the table, whatever it was
        outcome = "FAIL"
        reason = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        trace = "".join(traceback.format_exception(error))
    return Result(harness.name, case.id, outcome, reason, time.perf_counter() - begin, trace)


async def run_all(harness: Harness, cases: Iterable[Case] | None = None) -> list[Result]:
    """Runs cases one after the other, all when none are named."""
    return [await run_case(harness, case) for case in (CASES.values() if cases is None else cases)]


def table(results: Sequence[Result]) -> str:
    """Markdown: a row a case, a column a store; reasons of `n/a` and FAIL as notes below."""
    stores = list(dict.fromkeys(result.store for result in results))
    cells: Mapping[tuple[str, str], Result] = {(result.case, result.store): result for result in results}
    notes: dict[str, int] = {}
    lines = [f"| case | what must hold | {' | '.join(stores)} |", f"|---|---|{'---|' * len(stores)}"]
    for case in CASES.values():
        row = [_cell(cells.get((case.id, store)), notes) for store in stores]
        if any(row):
            lines.append(f"| `{case.id}` | {case.title} | {' | '.join(row)} |")
    lines += ["", *(f"{number}. {text}" for text, number in notes.items())]
    return "\n".join(lines).rstrip() + "\n"


def _cell(result: Result | None, notes: dict[str, int]) -> str:
    if result is None:
        return ""
    if result.outcome == "pass":
        return "pass"
    return f"{result.outcome} ({notes.setdefault(' '.join(result.reason.split()), len(notes) + 1)})"
