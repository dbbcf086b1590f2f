"""The reconciler of Budget: counts, books, tells, and wakes what it concerns."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from prometheus_client import Gauge

from cloudmesh.api import conditions as c
from cloudmesh.compute import budgets as live
from cloudmesh.compute.budget_ledger import Count, Ledger, book, count, forget, read_ledger, turn, uid_of, waiting
from cloudmesh.compute.budget_ledger import counted as in_currency
from cloudmesh.compute.budget_plan import Machine, read_runs
from cloudmesh.compute.budget_status import alerts, has_changed, is_notable, make_status
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.money import rounded, to_text
from cloudmesh.engine import Done, Engine, Key, Obj, Settings
from cloudmesh.policy.model import NANO

EVERY_SECONDS = 60.0
WRITE_EVERY_SECONDS = 300.0
FORGET_EVERY_SECONDS = 300.0
LOOKS = 100
"""VirtualMachines that one pass looks at live before it books them; the rest comes in the next."""


@dataclass(slots=True)
class _Memory:
    """What this process knows of a Budget besides its object.

    Args:
        runs: Machines that were counted and not booked yet, by session; void once somebody else has written.
        booked: `status.booked` as this process left it.
        written: When the status was written.
        forgot: When sessions were last dropped.
        told: What was last told: whether it is exceeded, and what is left.
    """

    runs: dict[str, Machine]
    booked: Obj | None = None
    written: float | None = None
    forgot: float | None = None
    told: tuple[bool, int] | None = None


class BudgetReconciler:
    """Keeps every Budget's count.

    A machine is booked only after a live look that shows it ended, or gone, and in a write that fails if the Budget has
    changed since it was read: so two leaders, or a cache that lags, book nothing twice.

    Args:
        engine: Access to the cluster.
        budgets: The Budgets of the process.
        monotonic: Seconds on a clock that never goes back.
    """

    resource = BUDGET
    owns = ()

    def __init__(
        self, engine: Engine, budgets: live.Budgets, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._engine = engine
        self._budgets = budgets
        self._monotonic = monotonic
        self._memory: dict[Key, _Memory] = {}
        registry, labels = engine.metrics.registry, ["namespace", "budget", "currency"]
        self._gauges = {
            name: Gauge(f"cloudmesh_budget_{name}", text, labels, registry=registry)
            for name, text in (
                ("amount", "What a Budget allows in its period."),
                ("spent", "What was spent in a Budget's period."),
                ("reserved", "What the next hour of all that a Budget charges costs."),
                ("remaining", "What of a Budget may still be spent."),
            )
        }
        self._labels: dict[Key, tuple[str, str, str]] = {}

    def forget(self, key: Key) -> None:
        """The object is gone: what it had forbidden may start."""
        self._memory.pop(key, None)
        if (labels := self._labels.pop(key, None)) is not None:
            for gauge in self._gauges.values():
                gauge.remove(*labels)
        self._wake_clusters(key.namespace, None)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass: count, book, write, tell, wake."""
        if obj["metadata"].get("deletionTimestamp"):
            return Done()
        memory = self._memory.setdefault(key, _Memory({}))
        if memory.booked != (obj.get("status") or {}).get("booked"):
            memory.runs = {}
        now = to_seconds(self._budgets.now())
        machines, read = self._budgets.selected(obj), read_ledger(obj, now)
        vanished = _vanished(memory, self._budgets.sessions(key.namespace), read, now)
        charged = self._budgets.charged(obj)
        # What has vanished is no machine any more, but its cost is real.
        machines += vanished
        ledger, over = turn(obj, read, in_currency(obj, machines), now)
        candidates = waiting(ledger, in_currency(obj, machines))
        ended, there = await self._confirm(obj, candidates[:LOOKS], vanished)
        ledger = book(await self._make_room(obj, ledger, memory), ended, there)
        now = max(now, ledger.period.begin)
        found = count(obj, ledger, machines, now, self._budgets.promised(obj))
        alerted = alerts(obj, ledger, found)
        status = make_status(obj, ledger, over, found, alerted, charged, self._budgets.now())
        await self._write(key, obj, status, memory)
        memory.runs = {m.session: m for m in machines if m.started is not None and m.session not in ledger.sessions}
        self._show(key, obj, found)
        self._tell(key, obj, found, alerted, memory)
        for machine in ended:
            self._engine.enqueue(Key(VIRTUAL_MACHINE.kind, key.namespace, machine.name))
        return Done(requeue_after=0.0 if len(candidates) > LOOKS else _next(ledger, found, now))

    # -- booking -----------------------------------------------------------------------------------------------------

    async def _confirm(
        self, obj: Obj, candidates: Sequence[Machine], vanished: Sequence[Machine]
    ) -> tuple[list[Machine], set[str]]:
        """Of the candidates those that a live look shows ended, as it shows them, and those vanished that are gone.

        Also all sessions that these looks show.

        One that the cache has and the API server hasn't may have been booked by another leader, and its session been
        dropped; if this process has counted it, the cache loses it in a moment and it comes again as vanished.
        """
        namespace, mine = obj["metadata"]["namespace"], {machine.session for machine in vanished}
        shown: set[str] = set()

        async def look(machine: Machine) -> Machine | None:
            there = await self._engine.kube.get(VIRTUAL_MACHINE, namespace, machine.name)
            runs = [run for run, _ in read_runs(there, {})] if there is not None else []
            shown.update(run.session for run in runs)
            for run in runs:
                if run.session == machine.session:
                    return run if run.ended is not None else None
            return machine if machine.session in mine else None

        looked = await asyncio.gather(*map(look, candidates))
        return in_currency(obj, [run for run in looked if run is not None]), shown

    async def _make_room(self, obj: Obj, ledger: Ledger, memory: _Memory) -> Ledger:
        """Drops sessions of VirtualMachines that aren't there any more, now and then or when room is short."""
        moment, namespace = self._monotonic(), obj["metadata"]["namespace"]
        if memory.forgot is None:
            memory.forgot = moment
        cached = {o["metadata"]["uid"] for o in self._engine.cache.list(VIRTUAL_MACHINE, namespace)}
        if all(uid_of(session) in cached for session in ledger.sessions):
            return ledger
        if ledger.room > LOOKS and moment - memory.forgot < FORGET_EVERY_SECONDS:
            return ledger
        items, _ = await self._engine.kube.list(VIRTUAL_MACHINE, namespace, metadata_only=True)
        memory.forgot = moment
        return forget(ledger, (item["metadata"]["uid"] for item in items))

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _write(self, key: Key, obj: Obj, status: dict[str, Any], memory: _Memory) -> None:
        """Writes what is notable at once, amounts every few minutes; only over what was read."""
        held, moment = obj.get("status") or {}, self._monotonic()
        memory.booked = held.get("booked")
        due = memory.written is None or moment - memory.written >= WRITE_EVERY_SECONDS
        if not is_notable(held, status) and not (due and has_changed(held, status)):
            self._engine.metrics.status_writes.labels(BUDGET.kind, "skipped").inc()
            return
        meta = obj["metadata"]
        patch = {
            "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]},
            "status": status | dict.fromkeys(name for name in held if name not in status),
        }
        if "booked" in held and "uids" not in status["booked"]:
            patch["status"]["booked"] = status["booked"] | {"uids": None}
        memory.booked = None
        await self._engine.kube.patch(BUDGET, meta["namespace"], meta["name"], patch, subresource="status")
        memory.booked = status["booked"]
        self._engine.metrics.status_writes.labels(BUDGET.kind, "written").inc()
        memory.written = moment

    # -- telling -----------------------------------------------------------------------------------------------------

    def _show(self, key: Key, obj: Obj, found: Count) -> None:
        labels = (key.namespace, key.name, obj["spec"].get("currency", "USD"))
        self._labels[key] = labels
        amounts = {
            "amount": found.amount,
            "spent": found.spent,
            "reserved": found.reserved,
            "remaining": max(0, found.left),
        }
        for name, nanos in amounts.items():
            self._gauges[name].labels(*labels).set(nanos / NANO)

    def _tell(self, key: Key, obj: Obj, found: Count, alerted: Sequence[int], memory: _Memory) -> None:
        currency = obj["spec"].get("currency", "USD")
        before = set((obj.get("status") or {}).get("alertedAtPercent") or ())
        for percent in alerted:
            if percent not in before:
                text = f"{percent} % of {to_text(found.amount)} {currency} are spent: {rounded(found.spent)} so far"
                self._engine.events.emit(obj, "Warning" if percent >= 100 else "Normal", "BudgetAlert", text)
        exceeded, left = found.left < 0, found.left
        told, memory.told = memory.told, (exceeded, left)
        if exceeded and _was_within(obj):
            text = (
                f"{rounded(found.spent)} {currency} spent and {rounded(found.reserved)} reserved for the next hour are "
                f"more than {to_text(found.amount)}"
            )
            self._engine.events.emit(obj, "Warning", "BudgetExceeded", text)
        if told is None or told[0] != exceeded or left > told[1]:
            self._wake_clusters(key.namespace, None if exceeded or told is None or told[0] else obj)

    def _wake_clusters(self, namespace: str, waiting_for: Obj | None) -> None:
        """Looks at the clusters and single machines of a namespace again, or only at those that wait for money."""
        for resource in (VIRTUAL_CLUSTER, VIRTUAL_MACHINE):
            for obj in self._engine.cache.list(resource, namespace):
                if resource is VIRTUAL_MACHINE and (obj.get("spec") or {}).get("clusterRef"):
                    continue
                if waiting_for is None or _waits_for_money(obj):
                    self._engine.enqueue(Key(resource.kind, namespace, obj["metadata"]["name"]))


def _vanished(memory: _Memory, there: Set[str], ledger: Ledger, now: int) -> list[Machine]:
    """Runs that this process has counted, that nobody booked, and that the cache has no longer."""
    return [
        run if run.ended is not None else replace(run, ended=now)
        for session, run in memory.runs.items()
        if session not in there and session not in ledger.sessions
    ]


def _was_within(obj: Obj) -> bool:
    within = c.find_condition((obj.get("status") or {}).get("conditions") or (), c.WITHIN_BUDGET)
    return within is None or within.get("status") != c.FALSE


def _waits_for_money(obj: Obj) -> bool:
    ready = c.find_condition((obj.get("status") or {}).get("conditions") or (), c.READY)
    return ready is not None and ready.get("reason") == c.REASON_BUDGET_EXCEEDED


def _next(ledger: Ledger, found: Count, now: int) -> float:
    """Seconds until the next count: sooner if the limit or the end of the period comes sooner."""
    times = [t for t in (found.limit_at, ledger.period.until) if t is not None]
    return max(0.5, min([EVERY_SECONDS, *(float(t - now) for t in times)]))


def reconciler(engine: Engine, settings: Settings) -> BudgetReconciler:
    """The reconciler of an operator."""
    return BudgetReconciler(engine, live.shared(engine))
