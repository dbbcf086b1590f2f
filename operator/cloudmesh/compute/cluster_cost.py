"""What a cluster costs and has cost, for its status and for metrics. Pure.

`accrued` is what its machines have cost since it was made: those that are there by their own times, those that are gone
by `ended`, which takes each machine in once, when its object goes. The status gets money that grows by itself at most
every 300 s and when it changed by over 1 %; what changes with the machines is told with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cloudmesh.compute.budget_plan import Machine
from cloudmesh.compute.members import Member
from cloudmesh.compute.prices.money import HOURS_A_MONTH, to_nanos, to_text

Obj = Mapping[str, Any]

WRITE_SECONDS = 300
CONFIDENCE = ("unknown", "static", "fetched", "declared")


def accrued(machines: Iterable[Machine], now: int) -> int:
    """What runs have cost so far, in nano-units."""
    return sum(machine.cost_within(0, None, now) for machine in machines)


def make_cost(members: Iterable[Member], ended: int, running: int, currency: str) -> dict[str, Any]:
    """`status.cost`.

    Args:
        members: The machines that there are.
        ended: What machines cost that are gone.
        running: What the others have cost so far.
        currency: Used where no price tells one.
    """
    billed = [m for m in members if m.billed]
    prices = [m.offer.price for m in billed if m.offer.price is not None]
    hourly = sum(p.nanos for p in prices)
    cost: dict[str, Any] = {
        "currency": next((p.currency for p in prices), currency or "USD"),
        "hourly": to_text(hourly),
        "accrued": to_text(ended + running),
        "projectedMonth": to_text(hourly * HOURS_A_MONTH),
    }
    if ended:
        cost["ended"] = to_text(ended)
    if times := [p.as_of for p in prices if p.as_of]:
        cost["pricesAsOf"] = min(times)
    if billed:
        known = [p.confidence for p in prices]
        cost["confidence"] = "unknown" if len(known) < len(billed) else min(known, key=CONFIDENCE.index)
    return cost


def same_machines(old: Obj, new: Obj) -> bool:
    """Whether two costs differ only in what grows by itself."""
    grows = ("accrued", "projectedMonth", "pricesAsOf")
    return {k: v for k, v in old.items() if k not in grows} == {k: v for k, v in new.items() if k not in grows}


def grown(old: Obj, new: Obj) -> bool:
    """Whether what was accrued has grown by more than 1 %."""
    before, after = to_nanos(old.get("accrued", "0")), to_nanos(new.get("accrued", "0"))
    return (after - before) * 100 > before
