"""A cluster's `maxHourlyCost` and the machines that name the cluster but weren't made by it: together they stay below.

A cluster asks here what such guests take of its limit, a guest whether it may start beside the cluster and the other
guests. What either is about to start is promised to it, and counts for the other from that moment on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.compute.budget_plan import Machine, read_machine
from cloudmesh.compute.budgets import PROMISE_SECONDS
from cloudmesh.compute.kinds import VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_status import Refusal
from cloudmesh.compute.prices.money import rounded, to_nanos
from cloudmesh.engine import Engine, Obj, per_engine

BY_CLUSTER = "by the cluster named"


@dataclass(frozen=True, slots=True)
class _Promise:
    hourly: int
    until: float


class Guests:
    """All guests of a process.

    Args:
        engine: Access to the cluster.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._clusters: dict[tuple[str, str], _Promise] = {}
        self._guests: dict[tuple[str, str], dict[str, _Promise]] = {}
        engine.cache.add_index(VIRTUAL_MACHINE, BY_CLUSTER, _named)

    def hourly(self, namespace: str, cluster: str, but: str = "") -> int:
        """Nano-units per hour of a cluster's guests that run, or were promised to.

        Args:
            namespace: Namespace of the cluster.
            cluster: Its name.
            but: Uid of one that doesn't count.
        """
        owned = self._owned(namespace, cluster)
        there = {
            run.uid: run.hourly or 0
            for obj in self._engine.cache.indexed(VIRTUAL_MACHINE, BY_CLUSTER, (namespace, cluster))
            if obj["metadata"]["uid"] not in owned and (obj.get("status") or {}).get("createToken")
            if _costs(run := read_machine(obj))
        }
        promised = self._guests.get((namespace, cluster), {})
        for uid in [uid for uid, promise in promised.items() if promise.until <= _clock()]:
            del promised[uid]
        uids = (there.keys() | promised.keys()) - {but}
        return sum(max(there.get(uid, 0), promised[uid].hourly if uid in promised else 0) for uid in uids)

    def promise(self, namespace: str, cluster: str, hourly: int) -> None:
        """A cluster is about to make, or wake, machines, so that all of its own cost so much."""
        self._clusters[namespace, cluster] = _Promise(hourly, _clock() + PROMISE_SECONDS)

    def refuse(self, obj: Obj, cluster: Obj, price: Mapping[str, Any] | None) -> Refusal | None:
        """Why a guest may not start; None if it may: what it costs is promised to it then.

        Args:
            obj: The VirtualMachine.
            cluster: The VirtualCluster that it names.
            price: What it costs an hour, None if nobody knows.
        """
        limit = cluster["spec"].get("maxHourlyCost")
        if limit is None:
            return None
        namespace, name, uid = obj["metadata"]["namespace"], cluster["metadata"]["name"], obj["metadata"]["uid"]
        where, currency = f"`spec.maxHourlyCost` of VirtualCluster '{name}'", limit.get("currency", "USD")
        if price is None:
            return Refusal(f"{where}: nobody knows the price of the machine", c.REASON_OVER_MAX_HOURLY_COST)
        if price["currency"] != currency:
            text = f"{where} is in {currency}, the price in {price['currency']}: they can't be compared"
            return Refusal(text, c.REASON_OVER_MAX_HOURLY_COST)
        own, most = to_nanos(price["amount"]), to_nanos(limit["amount"])
        others = self._cluster(namespace, name) + self.hourly(namespace, name, but=uid)
        if others + own > most:
            text = (
                f"{where} is {rounded(most)} {currency}: the machines of the cluster and those that name it cost "
                f"{rounded(others)} an hour, this one {rounded(own)} more"
            )
            return Refusal(text, c.REASON_OVER_MAX_HOURLY_COST)
        promised = self._guests.setdefault((namespace, name), {})
        promised[uid] = _Promise(own, _clock() + PROMISE_SECONDS)
        return None

    def _cluster(self, namespace: str, name: str) -> int:
        """What the machines that a cluster made cost an hour, or will in a moment."""
        runs = map(read_machine, self._owned(namespace, name).values())
        there = sum(run.hourly or 0 for run in runs if _costs(run))
        promise = self._clusters.get((namespace, name))
        if promise is not None and promise.until <= _clock():
            del self._clusters[namespace, name]
            promise = None
        return max(there, promise.hourly if promise is not None else 0)

    def _owned(self, namespace: str, name: str) -> dict[str, Obj]:
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, namespace, name)
        if cluster is None:
            return {}
        children = self._engine.cache.children(cluster["metadata"]["uid"], VIRTUAL_MACHINE)
        return {obj["metadata"]["uid"]: obj for obj in children}


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _costs(run: Machine) -> bool:
    return run.ended is None and run.coming


def _named(obj: Obj) -> Iterable[tuple[str, str]]:
    reference = obj["spec"].get("clusterRef")
    return [(obj["metadata"]["namespace"], reference["name"])] if reference else []


@per_engine
def guests_of(engine: Engine) -> Guests:
    """The guests of an engine: the same for all of its reconcilers."""
    return Guests(engine)
