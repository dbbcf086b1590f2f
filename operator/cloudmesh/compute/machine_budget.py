"""What Budgets say of a VirtualMachine that no cluster made; of its own machines a cluster asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudmesh.compute.budget_plan import is_enforced, read_machine, selects
from cloudmesh.compute.budgets import shared
from cloudmesh.compute.kinds import BUDGET
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.engine import Engine, Obj


def forbidden(
    engine: Engine, obj: Obj, price: Mapping[str, Any] | None, labels: Mapping[str, str], *, runs: bool
) -> str:
    """Why a machine must not run; empty if it may. What it costs is promised to it then.

    Args:
        engine: Access to the Budgets.
        obj: The VirtualMachine.
        price: Its `hourlyPrice` with its disk, None if nobody knows it.
        labels: Those by which Budgets select it.
        runs: It runs already: only a Budget that is exceeded ends that.
    """
    if not engine.cache.count(BUDGET):
        return ""
    meta = obj["metadata"]
    namespace = meta["namespace"]
    if price is None:
        if runs:
            return ""
        names = [
            budget["metadata"]["name"]
            for budget in engine.cache.list(BUDGET, namespace)
            if is_enforced(budget) and selects(budget, labels) and not budget["metadata"].get("deletionTimestamp")
        ]
        return f"Budget '{names[0]}': nobody knows the price of the machine" if names else ""
    machine = read_machine(obj)
    stands = machine.hourly is not None and machine.ended is None and machine.coming
    is_counted = runs or (stands and not machine.resting)
    extra = 0 if is_counted else to_nanos(price["amount"])
    found = shared(engine).claim(namespace, meta["uid"], labels, extra, price["currency"])
    return found.message if found.exceeded or not (runs or found.allowed) else ""


def forbids_disk(engine: Engine, obj: Obj, labels: Mapping[str, str]) -> str:
    """Why not even the disk of a machine may stay, whether it runs or is stopped; empty if it may.

    Args:
        engine: Access to the Budgets.
        obj: The VirtualMachine.
        labels: Those by which Budgets select it.
    """
    meta, machine = obj["metadata"], read_machine(obj)
    if not engine.cache.count(BUDGET) or not machine.disk:
        return ""
    found = shared(engine).ask(meta["namespace"], meta["uid"], labels, 0, machine.currency)
    return found.message if found.by_disks else ""
