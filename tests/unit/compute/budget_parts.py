"""Objects for tests of budgets, and a controller that ends machines as the real one does."""

from __future__ import annotations

import asyncio
from typing import Any

from cloudmesh.api.names import API_VERSION, FINALIZER_CLEANUP
from cloudmesh.compute.budget_plan import labels_of, unbooked
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import to_text
from cloudmesh.engine import Done, Engine, Key, Obj, own

NAMESPACE = "lab"
START = to_seconds("2026-11-20T00:00:00Z")
RESOURCES = (BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE)


def clock() -> str:
    """The loop's virtual clock as RFC 3339."""
    return to_time(START + int(asyncio.get_running_loop().time()) - 1000)


def budget(name: str = "month", amount: str = "500", labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    selector = {"matchLabels": labels} if labels else {}
    return {
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"currency": "USD", "amount": amount, "period": "Month", "selector": selector, "hard": "Enforce"}
        | spec,
    }


def cluster(name: str, **labels: str) -> Obj:
    meta = {"name": name, "namespace": NAMESPACE, "labels": labels}
    return {"apiVersion": API_VERSION, "kind": VIRTUAL_CLUSTER.kind, "metadata": meta, "spec": {}}


def machine(
    name: str,
    *,
    started: int | None = None,
    ended: int | None = None,
    hourly: int | None = 10**9,
    owner: Obj | None = None,
    currency: str = "USD",
    labels: dict[str, str] | None = None,
    uid: str = "",
) -> Obj:
    status: dict[str, Any] = {}
    if hourly is not None:
        status["hourlyPrice"] = {
            "amount": to_text(hourly), "currency": currency, "source": "test", "asOf": "2026-01-01T00:00:00Z",
            "confidence": "declared",
        }  # fmt: skip
    if started is not None:
        status["startedAt"] = to_time(started)
    if ended is not None:
        status["endedAt"] = to_time(ended)
    spec: dict[str, Any] = {"accountRef": {"name": "cloud"}, "offer": {"type": "t"}}
    # the finalizer is set before the cloud is asked for anything
    meta: dict[str, Any] = {"name": name, "namespace": NAMESPACE, "labels": labels or {}}
    meta["finalizers"] = [FINALIZER_CLEANUP]
    if uid:
        meta["uid"] = uid
    obj: Obj = {"metadata": meta, "spec": spec, "status": status}
    if owner is not None:
        spec["clusterRef"] = {"name": owner["metadata"]["name"]}
        spec["pool"] = "workers"
        obj = own(obj, owner) if "uid" in owner["metadata"] else obj
    return obj


class Ender:
    """Lets a VirtualMachine go when it has ended and every Budget has booked it."""

    resource = VIRTUAL_MACHINE
    owns = ()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        if not obj["metadata"].get("deletionTimestamp"):
            return Done()
        if not obj["status"].get("endedAt"):
            return Done(requeue_after=1.0)
        reference = obj["spec"].get("clusterRef")
        owner = self.engine.cache.get(VIRTUAL_CLUSTER, key.namespace, reference["name"]) if reference else None
        budgets = self.engine.cache.list(BUDGET, key.namespace)
        if names := unbooked(budgets, obj, labels_of(obj, owner)):
            for name in names:
                self.engine.enqueue(Key(BUDGET.kind, key.namespace, name))
            return Done(requeue_after=30.0)
        await self.engine.finalizers.remove(self.resource, obj)
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


class Still:
    """Does nothing for VirtualClusters, and counts how often it was asked."""

    resource = VIRTUAL_CLUSTER
    owns = ()

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.woken: list[str] = []

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        self.woken.append(key.name)
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""
