"""What a cluster costs and has cost, for its status and for metrics.

`accrued` is what its machines have cost since it was made. A run (see `budget_plan.Machine`) that goes on is counted
from its machine's own times. One that has ended is *booked*: its cost goes into `cost.ended` and its session into
`cost.booked` in one write, which fails if the cluster has changed meanwhile, and the machine keeps its finalizer, and
isn't started again, until then. So a process may die at any moment, and no run is lost or counted twice.

The status gets money that grows by itself at most every 300 s and when it changed by over 1 %; what changes with the
machines is told with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudmesh.api.names import FINALIZER_CLEANUP
from cloudmesh.api.virtualcluster_status import MAX_BOOKED
from cloudmesh.compute.budget_ledger import uid_of
from cloudmesh.compute.budget_plan import Machine, read_machine
from cloudmesh.compute.kinds import VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.members import Member
from cloudmesh.compute.prices.money import HOURS_A_MONTH, to_nanos, to_text
from cloudmesh.engine import Engine, Key, has_finalizer, is_deleting

Obj = dict[str, Any]

WRITE_SECONDS = 300
CONFIDENCE = ("unknown", "static", "fetched", "declared")
REMEMBERED = 100
"""Sessions of machines that are gone which stay, should another leader still see them."""


# -- the books ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Books:
    """What is booked of a cluster.

    Args:
        ended: Nano-units that runs cost that have ended.
        sessions: Those runs whose machine may still be there, oldest first: never booked again.
    """

    ended: int = 0
    sessions: tuple[str, ...] = ()


def read_books(status: Mapping[str, Any]) -> Books:
    """The books in a cluster's status."""
    cost = status.get("cost") or {}
    return Books(to_nanos(str(cost.get("ended", "0"))), tuple(cost.get("booked") or ()))


def book(books: Books, runs: Iterable[Machine], there: Iterable[str]) -> tuple[Books, list[Machine]]:
    """Books ended runs, each once and as far as there is room; gives those that were.

    Args:
        books: The books so far.
        runs: Runs of the cluster's machines.
        there: Uids of all machines that there are: what was booked of them is remembered.
    """
    known = set(books.sessions)
    ended = {run.session: run for run in runs if _is_due(run) and run.session not in known}
    if not ended:
        return books, []
    living = set(there)
    gone = [s for s in books.sessions if uid_of(s) not in living]
    dropped = set(gone[:-REMEMBERED])
    kept = [s for s in books.sessions if s not in dropped]
    new = list(ended.values())[: max(0, MAX_BOOKED - len(kept))]
    cost = sum(run.cost_within(0, None, run.ended or 0) for run in new)
    return Books(books.ended + cost, (*kept, *(run.session for run in new))), new


def _is_due(run: Machine) -> bool:
    return run.ended is not None and run.cost_within(0, None, run.ended) > 0


def awaits_booking(machine: Obj, cluster: Obj) -> bool:
    """Whether a cluster must still book what a machine that it made cost; one that is deleted books nothing."""
    if is_deleting(cluster) or not has_finalizer(cluster, FINALIZER_CLEANUP):
        return False
    run = read_machine(machine)
    return _is_due(run) and run.session not in read_books(cluster.get("status") or {}).sessions


async def write_books(engine: Engine, obj: Obj, runs: Sequence[Machine], there: Iterable[str]) -> Obj:
    """Books what has ended, over what was read only; gives the cluster as it is then.

    Args:
        engine: Access to the cluster.
        obj: The VirtualCluster.
        runs: Runs of its machines, those that vanished among them.
        there: Uids of the machines that there are.

    Raises:
        Conflict: The cluster has changed since it was read.
    """
    status = obj.get("status") or {}
    books, new = book(read_books(status), runs, there)
    if not new:
        return obj
    cost = {"currency": new[0].currency, **(status.get("cost") or {})}
    cost |= {"ended": to_text(books.ended), "booked": list(books.sessions)}
    written = await engine.status.write(VIRTUAL_CLUSTER, obj, {**status, "cost": cost}, only_this=True)
    for run in new:
        engine.enqueue(Key(VIRTUAL_MACHINE.kind, obj["metadata"]["namespace"], run.name))
    return written


# -- the status --------------------------------------------------------------------------------------------------------


def accrued(runs: Iterable[Machine], books: Books, now: int) -> int:
    """What runs that aren't booked have cost so far, in nano-units."""
    known = set(books.sessions)
    return sum(run.cost_within(0, None, now) for run in runs if run.session not in known)


def make_cost(members: Iterable[Member], books: Books, running: int, currency: str) -> dict[str, Any]:
    """`status.cost`.

    Args:
        members: The machines that there are.
        books: What is booked.
        running: What the others have cost so far.
        currency: Used where no price tells one.
    """
    billed = [m for m in members if m.billed or m.resting]
    prices = [price for m in billed if (price := m.running) is not None]
    hourly = sum(p.nanos for p in prices)
    cost: dict[str, Any] = {
        "currency": next((p.currency for p in prices), currency or "USD"),
        "hourly": to_text(hourly),
        "accrued": to_text(books.ended + running),
        "projectedMonth": to_text(hourly * HOURS_A_MONTH),
    }
    if books.ended:
        cost["ended"] = to_text(books.ended)
    if books.sessions:
        cost["booked"] = list(books.sessions)
    if times := [p.as_of for p in prices if p.as_of]:
        cost["pricesAsOf"] = min(times)
    if billed:
        known = [p.confidence for p in prices]
        cost["confidence"] = "unknown" if len(known) < len(billed) else min(known, key=CONFIDENCE.index)
    return cost


def same_machines(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether two costs differ only in what grows by itself."""
    grows = ("accrued", "projectedMonth", "pricesAsOf")
    return {k: v for k, v in old.items() if k not in grows} == {k: v for k, v in new.items() if k not in grows}


def grown(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether what was accrued has grown by more than 1 %."""
    before, after = to_nanos(old.get("accrued", "0")), to_nanos(new.get("accrued", "0"))
    return (after - before) * 100 > before
