"""What this process knows of each machine besides its status, and the tools that all its steps share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.compute import machine_status as statuses
from cloudmesh.compute.accounts import CHANGED_AFTER_SECONDS, Account, Accounts
from cloudmesh.compute.budget_plan import charged, labels_of, unbooked
from cloudmesh.compute.cluster_cost import awaits_booking
from cloudmesh.compute.flights import Flights
from cloudmesh.compute.guests import guests_of
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_budget import forbidden, forbids_disk
from cloudmesh.compute.machine_calls import Calls
from cloudmesh.compute.machine_plan import Outcome, Wanted
from cloudmesh.compute.probes import Probes
from cloudmesh.engine import CloudmeshError, Engine, Key, Obj, is_deleting

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
BOOKING_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 60.0
NEVER = float("-inf")


@dataclass(slots=True)
class Life:
    """What isn't in the status: times are seconds on the event loop's clock.

    Args:
        uid: Uid of the VirtualMachine.
        outcome: Of the create calls.
        since: When one of them may last have been under way.
        seen_at: When this process first saw the machine.
        asked: The token in the status is taken into account; else another leader has just asked for the machine.
        doubted: An earlier call may still arrive: enough to ask again for the same token, not to let the object go.
        newborn: It hasn't been ready yet, and this process saw all of its life.
        listed: It was made, and its first listing is waited for.
        generation: Of the spec that `wanted` was read from.
        wanted: What is asked for.
        tries: Calls in a row that failed.
        holds: How often in a row something of somebody else's was in its way.
        looks: How often the cloud said that there is no machine of this token.
        refusal: What the cloud said last, if it said no.
        not_before: When the cloud may be asked again.
        deleted_at: When it was last asked to end the machine.
        powered: What was last asked of its power, and when.
        restarted: Value of the restart annotation that was acted on.
        released: An adopted machine was given back.
        cleared: What its cluster had in the account is cleared, or needed by others.
        left_at: When it was left behind: what it has cost until then is still to be booked.
    """

    uid: str
    outcome: Outcome
    since: float
    seen_at: float
    asked: bool = False
    doubted: bool = False
    newborn: bool = False
    listed: bool = False
    generation: int = -1
    wanted: Wanted | None = None
    tries: int = 0
    holds: int = 0
    looks: int = 0
    refusal: CloudmeshError | None = None
    not_before: float = 0.0
    deleted_at: float = NEVER
    powered: tuple[str, float] = ("", NEVER)
    restarted: str = ""
    released: bool = False
    cleared: bool = False
    left_at: float = NEVER
    unmounted: bool = False

    def pause(self) -> float:
        """Counts a failed call; gives the seconds until the next try."""
        self.tries += 1
        return min(FIRST_RETRY_SECONDS * 2.0 ** min(self.tries, 5), LONGEST_RETRY_SECONDS)


@dataclass(frozen=True, slots=True)
class Case:
    """One machine in one pass."""

    key: Key
    obj: Obj
    life: Life
    wanted: Wanted
    account: Account

    @property
    def status(self) -> Mapping[str, Any]:
        """Its status so far."""
        return self.obj.get("status") or {}

    @property
    def generation(self) -> int:
        """Its `metadata.generation`."""
        return int(self.obj["metadata"].get("generation", 0))

    def expect(self) -> None:
        """It is changing: its account is listed often."""
        self.account.expect(self.wanted.token, self.key)

    def settled(self) -> None:
        """Nothing is under way."""
        self.account.settled(self.wanted.token)


@dataclass(slots=True)
class Hands:
    """What the steps work with."""

    engine: Engine
    accounts: Accounts
    calls: Calls
    probes: Probes
    flights: Flights = field(default_factory=Flights)

    def now(self) -> str:
        """RFC 3339 time."""
        return self.accounts.now()

    def clock(self) -> float:
        """Seconds on the event loop's clock."""
        return asyncio.get_running_loop().time()

    def fly(self, case: Case, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts calls for a machine; it comes back to the queue when they have ended. Ends wait for no beginnings."""
        lane = f"{case.account.uid} {'ends' if is_deleting(case.obj) else 'lives'}"
        self.flights.start(case.life.uid, work, lane)

    def again(self, case: Case, after: float | None = None) -> None:
        """Puts a machine into the queue."""
        self.engine.enqueue(case.key, after)

    async def write(self, case: Case, status: statuses.Status, *, only_this: bool = False) -> Obj:
        """Writes a status, if it is another, and lets the account count anew.

        Args:
            case: The machine.
            status: The whole status.
            only_this: Only over the very version of the object that the case holds.

        Raises:
            Conflict: There is a newer version.
        """
        written = await self.engine.status.write(VIRTUAL_MACHINE, case.obj, status, only_this=only_this)
        self._judge(case)
        if case.status.get("state") != status.get("state"):
            self.accounts.changed(case.account)
        return written

    def _judge(self, case: Case) -> None:
        """What its status says is by now what this process found: its cluster may build on that."""
        if case.life.uid in case.account.judged:
            return
        case.account.judged.add(case.life.uid)
        if case.wanted.cluster and c.is_true(case.status.get("conditions") or (), c.READY):
            key = Key(VIRTUAL_CLUSTER.kind, case.wanted.namespace, case.wanted.cluster)
            self.engine.enqueue(key, CHANGED_AFTER_SECONDS)

    def tell(self, case: Case, event: statuses.Event) -> None:
        """Tells an event."""
        self.engine.events.emit(case.obj, event.type, event.reason, event.message)

    def warn(self, case: Case, reason: str, message: str) -> None:
        """Tells a warning."""
        self.engine.events.emit(case.obj, "Warning", reason, message)

    def over_budget(self, case: Case, price: Mapping[str, Any] | None, *, runs: bool) -> statuses.Refusal:
        """Why a machine may not run that no cluster answers for, empty if it may: its Budgets' and its cluster's limit.

        One that runs goes on when only the limit of the cluster that it names is passed, as the cluster's own do.
        """
        cluster = case.wanted.cluster
        parent = self.engine.cache.get(VIRTUAL_CLUSTER, case.key.namespace, cluster) if cluster else None
        if cluster and _is_made_by(case.obj, cluster, parent):
            return statuses.Refusal()
        if parent is not None and not runs:
            guests = guests_of(self.engine)
            if (refusal := guests.refuse(case.obj, parent, price)) is not None:
                return refusal
        return statuses.Refusal(forbidden(self.engine, case.obj, price, labels_of(case.obj, parent), runs=runs))

    def over_by_disks(self, case: Case) -> statuses.Refusal:
        """Why not even the disk of a machine may stay that no cluster answers for; empty if it may."""
        cluster = case.wanted.cluster
        if "diskHourly" not in case.status:
            return statuses.Refusal()
        parent = self.engine.cache.get(VIRTUAL_CLUSTER, case.key.namespace, cluster) if cluster else None
        if cluster and _is_made_by(case.obj, cluster, parent):
            return statuses.Refusal()
        return statuses.Refusal(forbids_disk(self.engine, case.obj, labels_of(case.obj, parent)))

    def booked(self, case: Case) -> bool:
        """Whether neither its cluster nor a Budget waits to book what a session cost."""
        return self.is_booked(case.obj, case.wanted)

    def is_booked(self, obj: Obj, wanted: Wanted) -> bool:
        """As `booked`, without an account."""
        namespace, cluster = wanted.namespace, wanted.cluster
        parent = self.engine.cache.get(VIRTUAL_CLUSTER, namespace, cluster) if cluster else None
        if parent is not None and _is_made_by(obj, cluster, parent) and awaits_booking(obj, parent):
            self.engine.enqueue(Key(VIRTUAL_CLUSTER.kind, namespace, cluster))
            return False
        budgets = self.engine.cache.list(BUDGET, namespace)
        if not budgets:
            return True
        waiting = unbooked(budgets, obj, labels_of(obj, parent))
        for name in waiting:
            self.engine.enqueue(Key(BUDGET.kind, namespace, name))
        return not waiting

    def charged(self, case: Case, status: statuses.Status) -> None:
        """Notes in a new status which labels its Budgets go by, and since when."""
        namespace, cluster = case.key.namespace, case.wanted.cluster
        parent = self.engine.cache.get(VIRTUAL_CLUSTER, namespace, cluster) if cluster else None
        if cluster and parent is None:
            return
        labels, budgets = labels_of(case.obj, parent), self.engine.cache.list(BUDGET, namespace)
        new = charged(status, labels, budgets, case.obj, self.now())
        for name in ("charge", "charges"):
            if name in new:
                status[name] = new[name]
            else:
                status.pop(name, None)


def _is_made_by(obj: Obj, cluster: str, parent: Obj | None) -> bool:
    """Whether a cluster made a machine, and so asked the Budgets for it; anybody can write a `clusterRef`."""
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            uid = parent["metadata"]["uid"] if parent is not None else owner["uid"]
            return (owner["kind"], owner["name"], owner["uid"]) == (VIRTUAL_CLUSTER.kind, cluster, uid)
    return False
