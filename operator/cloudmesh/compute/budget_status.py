"""The status of a Budget, and which changes of it are worth a write; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.compute.budget_ledger import Count, Ledger, booked_status, history_status, until_text
from cloudmesh.compute.budget_plan import Obj
from cloudmesh.compute.prices.money import to_nanos, to_text

AMOUNTS = ("spent", "reserved", "remaining", "hourly")
"""Members that move all the time."""
NAMED = 5
REASON_CURRENCY_MISMATCH = "CurrencyMismatch"
REASON_PRICE_UNKNOWN = "PriceUnknown"


def alerts(budget: Obj, ledger: Ledger, found: Count) -> list[int]:
    """The percentages that were passed in this period; once passed, they stay."""
    status = budget.get("status") or {}
    same = (status.get("booked") or {}).get("month") == ledger.period.month or ledger.period.until is None
    held = set(status.get("alertedAtPercent") or ()) if same else set()
    wanted = budget["spec"].get("alertsAtPercent", (50, 90))
    passed = {percent for percent in wanted if found.spent * 100 >= percent * found.amount}
    return sorted(held | passed)


def make_status(
    budget: Obj,
    ledger: Ledger,
    over: Sequence[tuple[str, int]],
    found: Count,
    alerted: Sequence[int],
    selected: int,
    now: str,
) -> dict[str, Any]:
    """The whole status.

    Args:
        budget: The Budget as it was read.
        ledger: Its books.
        over: Months that are over since then, and what they cost.
        found: What it comes to.
        alerted: Percentages that were told in this period.
        selected: How many clusters and single machines it charges.
        now: RFC 3339 time.
    """
    status: dict[str, Any] = {
        "observedGeneration": budget["metadata"].get("generation", 0),
        "conditions": _conditions(budget, found, now),
        "spent": to_text(found.spent),
        "reserved": to_text(found.reserved),
        "remaining": to_text(max(0, found.left)),
        "hourly": to_text(found.hourly),
        "selected": selected,
        "booked": booked_status(ledger),
    }
    if (until := until_text(ledger.period)) is not None:
        status["until"] = until
    if alerted:
        status["alertedAtPercent"] = list(alerted)
    if history := history_status(budget, over):
        status["history"] = history
    return status


def _conditions(budget: Obj, found: Count, now: str) -> list[dict[str, Any]]:
    currency = budget["spec"].get("currency", "USD")
    conditions = c.Conditions.of(budget, now)
    if found.foreign:
        text = f"prices aren't in {currency} and can't be added: {_names(found.foreign)}"
        conditions.ready("False", REASON_CURRENCY_MISMATCH, text, stalled=True)
    else:
        conditions.ready("True", c.REASON_AS_SPECIFIED, "all that is charged is counted")
    amount = f"{to_text(found.amount)} {currency}"
    if found.left < 0:
        text = f"what is spent and reserved for the next hour is more than {amount}"
        conditions.put(c.WITHIN_BUDGET, "False", c.REASON_BUDGET_EXCEEDED, text)
    elif found.unknown:
        text = f"nobody knows the price of {_names(found.unknown)}: what they cost isn't counted"
        conditions.put(c.WITHIN_BUDGET, "Unknown", REASON_PRICE_UNKNOWN, text)
    else:
        conditions.put(c.WITHIN_BUDGET, "True", c.REASON_AS_SPECIFIED, f"within {amount}")
    return conditions.list


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED])
    return f"{shown} and {len(names) - NAMED} more" if len(names) > NAMED else shown


def is_notable(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether more than amounts differs, or there were none yet."""
    return "spent" not in held or _rest(held) != _rest(wanted)


def has_changed(held: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether an amount differs by more than a hundredth."""
    for name in AMOUNTS:
        before, after = to_nanos(held.get(name, "0")), to_nanos(wanted.get(name, "0"))
        if abs(after - before) * 100 > max(before, after):
            return True
    return False


def _rest(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in AMOUNTS}
