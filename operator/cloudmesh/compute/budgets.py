"""What the Budgets of a namespace come to right now: their objects, the machines, and what clusters are promised.

A Budget's status is written every few minutes; a cluster that is about to start asks here, and its promise counts for
all others from that moment on, before the first of its machines is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.budget_ledger import Count, count, hourly_by_cluster, read_ledger, turn
from cloudmesh.compute.budget_plan import BudgetVerdict, Machine, labels_of, read_runs, selects, verdict
from cloudmesh.compute.clocks import clock_of
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.money import to_text
from cloudmesh.engine import Engine, Obj, per_engine

PROMISE_SECONDS = 300.0
"""So long a promise holds that isn't renewed; by then the machines are there, or it was given up."""
FRESH_SECONDS = 1.0
"""So long a sum over all machines serves for questions."""


_LIVE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class _Promise:
    hourly: int
    currency: str
    labels: Mapping[str, str]
    until: float


class Budgets:
    """The Budgets of a process.

    Args:
        engine: Access to the cluster.
        now: RFC 3339 time; left out, the clock of the engine.
        monotonic: Seconds on a clock that never goes back.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        now: Callable[[], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self.now = now or clock_of(engine).now
        self._monotonic = monotonic
        self._read: dict[str, tuple[str, Sequence[tuple[Machine, Mapping[str, str] | None]]]] = {}
        self._promises: dict[tuple[str, str], _Promise] = {}
        self._bases: dict[str, tuple[str, float, Count, Mapping[str, int]]] = {}

    def selected(self, budget: Obj) -> list[Machine]:
        """The machines that a Budget charges, as the cache has them."""
        cache, namespace = self._engine.cache, budget["metadata"]["namespace"]
        live: dict[str, Mapping[str, str]] = {}
        found = []
        for obj in cache.list(VIRTUAL_MACHINE, namespace):
            for machine, recorded in self._runs(obj):
                labels, cluster = recorded, machine.cluster
                if labels is None and (not cluster or (labels := live.get(cluster)) is None):
                    owner = cache.get(VIRTUAL_CLUSTER, namespace, cluster) if cluster else None
                    labels = labels_of(obj, owner)
                    if owner is not None:
                        live[cluster] = labels
                if labels is not None and selects(budget, labels):
                    found.append(machine)
        return found

    def charged(self, budget: Obj) -> int:
        """How many VirtualClusters, with machines or without, and single VirtualMachines a Budget charges."""
        cache, namespace = self._engine.cache, budget["metadata"]["namespace"]
        clusters = sum(selects(budget, labels_of(obj, None)) for obj in cache.list(VIRTUAL_CLUSTER, namespace))
        return clusters + len({machine.uid for machine in self.selected(budget) if not machine.cluster})

    def sessions(self, namespace: str) -> set[str]:
        """Sessions of all machines of a namespace."""
        objects = self._engine.cache.list(VIRTUAL_MACHINE, namespace)
        return {machine.session for obj in objects for machine, _ in self._runs(obj)}

    def promised(self, budget: Obj) -> dict[str, int]:
        """Nano-units per hour by cluster that were promised of a Budget."""
        namespace, moment = budget["metadata"]["namespace"], self._monotonic()
        for key in [key for key, promise in self._promises.items() if promise.until <= moment]:
            del self._promises[key]
        currency = budget["spec"].get("currency", "USD")
        return {
            name: promise.hourly
            for (space, name), promise in self._promises.items()
            if space == namespace and promise.currency == currency
            if selects(budget, promise.labels)
        }

    def objects(self, namespace: str, *, asker: str = "") -> list[Obj]:
        """The Budgets of a namespace with a status that is up to date, for `budget_plan.verdict`.

        Args:
            namespace: The namespace.
            asker: Name of a cluster (uid of a machine that stands alone): of it, only what is there counts.
        """
        there = self._hourly(namespace, asker) if asker else 0
        fresh = []
        for budget in self._engine.cache.list(BUDGET, namespace):
            status: dict[str, Any] = budget.get("status") or {}
            if "spent" in status:
                base, groups = self._base(budget)
                more = {name: hourly for name, hourly in self.promised(budget).items() if name != asker}
                if there:
                    more[asker] = there
                reserved = base.reserved + sum(max(0, wanted - groups.get(name, 0)) for name, wanted in more.items())
                disks = {"disks": to_text(base.disks)} if base.disks else {}
                status = status | {"spent": to_text(base.spent), "reserved": to_text(reserved)} | disks
            fresh.append(budget | {"status": status})
        return fresh

    def _base(self, budget: Obj) -> tuple[Count, Mapping[str, int]]:
        """What a Budget comes to without promises, at most a moment old: promises bridge it."""
        meta, moment = budget["metadata"], self._monotonic()
        held = self._bases.get(meta["uid"])
        if held is not None and held[0] == meta["resourceVersion"] and moment - held[1] < FRESH_SECONDS:
            return held[2], held[3]
        now, machines = to_seconds(self.now()), self.selected(budget)
        ledger, _ = turn(budget, read_ledger(budget, now), machines, now)
        base = count(budget, ledger, machines, max(now, ledger.period.begin))
        groups = hourly_by_cluster(budget, ledger, machines)
        self._bases[meta["uid"]] = (meta["resourceVersion"], moment, base, groups)
        return base, groups

    def _hourly(self, namespace: str, cluster: str) -> int:
        """What the machines of a cluster that there are cost an hour."""
        owner = self._engine.cache.get(VIRTUAL_CLUSTER, namespace, cluster)
        if owner is None:
            return 0
        machines = self._engine.cache.children(owner["metadata"]["uid"], VIRTUAL_MACHINE)
        runs = [run for machine in machines for run, _ in self._runs(machine)]
        return sum(run.hourly or 0 for run in runs if run.ended is None and run.coming)

    def ask(
        self, namespace: str, cluster: str, labels: Mapping[str, str], extra_hourly_nanos: int, currency: str
    ) -> BudgetVerdict:
        """What the Budgets say of a cluster now; see `budget_plan.verdict`."""
        if not self._engine.cache.count(BUDGET):
            return BudgetVerdict(allowed=True, exceeded=False, remaining_nanos=None)
        return verdict(self.objects(namespace, asker=cluster), labels, extra_hourly_nanos, currency)

    def claim(
        self, namespace: str, cluster: str, labels: Mapping[str, str], extra_hourly_nanos: int, currency: str
    ) -> BudgetVerdict:
        """Asks, and if it is allowed takes the money: nobody else is promised it.

        Args:
            namespace: Namespace of the cluster.
            cluster: Its name; the uid of a VirtualMachine that stands alone.
            labels: Its labels.
            extra_hourly_nanos: What would be added to what its machines that are there cost; 0 gives a promise back.
            currency: Currency of the prices.
        """
        found = self.ask(namespace, cluster, labels, extra_hourly_nanos, currency)
        self._promises.pop((namespace, cluster), None)
        if found.allowed and found.remaining_nanos is not None and extra_hourly_nanos > 0:
            hourly = self._hourly(namespace, cluster) + extra_hourly_nanos
            until = self._monotonic() + PROMISE_SECONDS
            self._promises[namespace, cluster] = _Promise(hourly, currency, dict(labels), until)
        return found

    def release(self, namespace: str, cluster: str) -> None:
        """Gives a promise back."""
        self._promises.pop((namespace, cluster), None)

    def _runs(self, obj: Obj) -> Sequence[tuple[Machine, Mapping[str, str] | None]]:
        """What is counted of a machine, with the labels that each part is selected by; None: the live ones."""
        uid, version = obj["metadata"]["uid"], obj["metadata"].get("resourceVersion", "")
        held = self._read.get(uid)
        if held is not None and held[0] == version:
            return held[1]
        if len(self._read) > 2 * self._engine.cache.count(VIRTUAL_MACHINE) + 1000:
            self._read.clear()
        runs = [(run, None if labels is _LIVE else labels) for run, labels in read_runs(obj, _LIVE)]
        self._read[uid] = (version, runs)
        return runs


@per_engine
def shared(engine: Engine, **options: Any) -> Budgets:
    """The Budgets of an engine: the same for all of its reconcilers.

    Args:
        engine: The engine.
        options: Of `Budgets`, for the first who asks.
    """
    return Budgets(engine, **options)
