"""The reconciler of VirtualCluster: observe, plan, choose offers, publish the quote, make and remove machines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol

from pydantic import ValidationError

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute import budgets as live_budgets
from cloudmesh.compute import lifecycle
from cloudmesh.compute.access import ClusterAccess, ensure_access, forget_access, publish_logins
from cloudmesh.compute.account_controller import ensure_default_account
from cloudmesh.compute.accounts import Accounts, shared
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.bootstrap import BootstrapState
from cloudmesh.compute.cluster_accounts import DEFAULT_ACCOUNT
from cloudmesh.compute.cluster_cost import WRITE_SECONDS, accrued, grown, make_cost, same_machines
from cloudmesh.compute.cluster_memory import Machines, Memory, ended_of, numbers
from cloudmesh.compute.cluster_metrics import ClusterMetrics
from cloudmesh.compute.cluster_objects import make_machine
from cloudmesh.compute.cluster_offers import Chosen, Offers, over_limit
from cloudmesh.compute.cluster_status import Boot, Facts, Trouble, Verdict, make_status
from cloudmesh.compute.cluster_words import Event, events_of, say_machines, say_next
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.plan import BUDGET as OVER_BUDGET
from cloudmesh.compute.plan import NewMachine, Plan, machines, plan
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.reading import ANNOTATION_POWER_SINCE, ANNOTATION_TEMPLATE, read_cluster
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import (
    AlreadyExists,
    Done,
    Engine,
    InvalidRequest,
    Key,
    NotFound,
    Obj,
    Settings,
    Transient,
    has_finalizer,
    is_abandoned,
    is_deleting,
    is_owned_by,
    utc_now,
)

SLOW_SECONDS = 2.0
"""While machines come up, the status follows at most so often."""
LOGIN_SECONDS = 5.0
LOOK_AGAIN_SECONDS = 300.0
WATCHED_SECONDS = 60.0
"""Clusters under a Budget, or that may fall asleep, are looked at so often."""
TROUBLE_SECONDS = 15.0
AT_ONCE = 16
ACTIVITY_SECONDS = 300
TOLD = frozenset({"Replaced", "Outdated", "ScaledDown", "PoolRemoved"})
NOTHING_TO_DO = Boot()


class BootstrapPort(Protocol):
    """What sets machines up; see `compute.bootstrap`."""

    def ensure(self, cluster: VirtualCluster, machines: Sequence[MachineView], access: ClusterAccess) -> BootstrapState:
        """Says what machines are to become, and how far they are."""

    def last_activity(self, cluster_uid: str) -> str:
        """When a cluster was last seen in use, RFC 3339; empty if nobody knows."""

    def forget(self, cluster_uid: str) -> None:
        """Ends the work for a cluster."""


class ClusterReconciler:
    """Keeps every VirtualCluster as its spec asks.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
        budgets: Live Budgets.
        bootstrap: Sets machines up; None where nothing is.
        default_account: Makes the default CloudAccount in a namespace that names none.
        now: The time as RFC 3339.
        monotonic: Seconds on a clock that never goes back.
    """

    resource = VIRTUAL_CLUSTER
    owns = ()

    def __init__(
        self,
        engine: Engine,
        accounts: Accounts,
        budgets: live_budgets.Budgets,
        *,
        bootstrap: Callable[[], BootstrapPort] | None = None,
        default_account: Callable[[str], Awaitable[object]] | None = None,
        now: Callable[[], str] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._budgets = budgets
        self._bootstrap = bootstrap
        self._offers = Offers(engine, accounts, budgets, monotonic)
        self._default_account = default_account
        self._now = now
        self._clock = monotonic
        self._memories: dict[Key, Memory] = {}
        engine.metrics.register(ClusterMetrics(self._memories))

    def forget(self, key: Key) -> None:
        """The object is gone."""
        memory = self._memories.pop(key, None)
        self._budgets.release(key.namespace, key.name)
        if memory is not None:
            forget_access(self._engine, memory.uid)
            if self._bootstrap is not None:
                self._bootstrap().forget(memory.uid)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass."""
        if is_deleting(obj):
            return await self._end(key, obj)
        if (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(obj)
        memory = self._memory(key, obj)
        now_text = self._now()
        now = to_seconds(now_text)
        there = self._look(memory, obj, now)
        life, budget = self._lifecycle(memory, obj, there, now)
        memory.tripped |= dict.fromkeys(memory.tripping, now)  # it held until this very moment
        needed = plan(
            memory.asked,
            there.members,
            now,
            state=life.state,
            reason=life.why or c.REASON_LIFETIME_EXCEEDED,
            powers=self._powers(key.namespace, there) if life.state == "Rest" else None,
            tripped=memory.tripped,
        )
        memory.tripping = frozenset(p.pool.name for p in needed.pools if p.checkup.tripped)
        chosen = Chosen()
        if life.state == "Run":
            obj, chosen = await self._provide(memory, obj, there, needed, life, now_text)
        await self._remove(memory, obj, needed, chosen)
        await self._mark(obj, needed, now_text, may_wake=chosen.trouble is None)
        if chosen.made:
            return Done(requeue_after=SLOW_SECONDS)  # what was made brings the key back by itself
        boot, boot_wait = await self._boot(memory, obj, there, life)
        facts = self._facts(memory, obj, there, needed, life, chosen.trouble, now_text, boot=boot, budget=budget)
        wait = await self._tell(memory, obj, facts, now_text)
        login_wait = await self._publish(memory, obj, there)
        return Done(self._next(memory.asked, needed, life, chosen.trouble, now, wait, login_wait, boot_wait))

    # -- observing -------------------------------------------------------------------------------------------------

    def _memory(self, key: Key, obj: Obj) -> Memory:
        uid, generation = obj["metadata"]["uid"], int(obj["metadata"].get("generation", 0))
        memory = self._memories.get(key)
        if memory is not None and memory.uid == uid and memory.generation == generation:
            return memory
        try:
            cluster = VirtualCluster.model_validate(obj | {"status": {}})
        except ValidationError as error:
            raise InvalidRequest(f"the spec can't be read: {error}") from None
        asked = read_cluster(cluster)
        if memory is None or memory.uid != uid:
            memory = Memory(uid, generation, cluster, asked, ended=ended_of(obj.get("status") or {}))
            self._memories[key] = memory
        else:
            memory.generation, memory.cluster, memory.asked = generation, cluster, asked
            memory.question = None
        return memory

    def _look(self, memory: Memory, obj: Obj, now: int) -> Machines:
        return memory.take_in(self._engine.cache.children(obj["metadata"]["uid"], VIRTUAL_MACHINE), now)

    def _lifecycle(self, memory: Memory, obj: Obj, there: Machines, now: int) -> tuple[lifecycle.Lifecycle, str]:
        """What it shall be, and which Budget forbids more, in words."""
        asked, status = memory.asked, obj.get("status") or {}
        ready = c.find_condition(status.get("conditions") or (), c.READY) or {}
        as_asked = ready.get("status") == "True" and ready.get("reason") == c.REASON_AS_SPECIFIED
        ready_since = to_seconds(ready["lastTransitionTime"]) if as_asked else None
        exceeded, fits, message = self._offers.within(memory, obj, there.members)
        busy = self._is_busy(memory, now)
        decided = lifecycle.decide(
            asked,
            status,
            now,
            resume=_resume(obj),
            used_at=lifecycle.used_at(status, ready_since, memory.used_at),
            busy=busy,
            exceeded=exceeded,
            fits=fits,
        )
        return decided, message if exceeded or decided.why == OVER_BUDGET else ""

    def _is_busy(self, memory: Memory, now: int) -> bool:
        """Whether somebody uses the cluster right now; looked at only where that matters."""
        asked = memory.asked
        if asked.idle_seconds is None:
            return False
        if self._bootstrap is not None and (seen := self._bootstrap().last_activity(memory.uid)):
            memory.used_at = max(memory.used_at, to_seconds(seen))
        for job in self._engine.cache.list(CLUSTER_JOB, asked.namespace):
            if job["spec"]["clusterRef"]["name"] != asked.name:
                continue
            ended = (job.get("status") or {}).get("endedAt")
            if not ended:
                memory.used_at = now
                return True
            memory.used_at = max(memory.used_at, to_seconds(ended))
        return False

    def _powers(self, namespace: str, there: Machines) -> dict[str, frozenset[str] | None]:
        found = {name: self._accounts.get(namespace, name) for name in {m.offer.account for m in there.members}}
        return {name: frozenset(account.powers) if account is not None else None for name, account in found.items()}

    # -- making ----------------------------------------------------------------------------------------------------

    async def _provide(
        self, memory: Memory, obj: Obj, there: Machines, needed: Plan, life: lifecycle.Lifecycle, now_text: str
    ) -> tuple[Obj, Chosen]:
        """Chooses offers for what is needed, publishes the quote, and makes the machines."""
        asked = memory.asked
        if not needed.create and not needed.power and not any(p.adopt for p in needed.pools):
            return obj, Chosen()
        await self._ensure_default_account(asked)
        chosen = await self._offers.choose(memory, obj, there.members, needed, now_text)
        if chosen.trouble is not None and not chosen.decisions:
            return obj, chosen
        new = machines(asked, needed, chosen.decisions)
        if not new:
            return obj, chosen
        obj = await self._engine.finalizers.ensure(VIRTUAL_CLUSTER, obj)
        if chosen.publish:
            approved = chosen.quote.hash if chosen.quote is not None else ""
            facts = self._facts(memory, obj, there, needed, life, chosen.trouble, now_text, approved=approved)
            status, _ = make_status(obj, asked, facts, now_text)
            obj = await self._write(memory, obj, status)
        if is_deleting(obj):
            return obj, Chosen(trouble=Trouble(c.REASON_PENDING, "it is being deleted", scheduled=False))
        await self._access(memory, obj)
        if conflict := await self._create(obj, asked, new):
            return obj, replace(
                chosen, trouble=Trouble(c.REASON_NAME_CONFLICT, conflict, stalled=True, scheduled=False)
            )
        for event in (*say_machines(new, chosen.quote, chosen.rejected), *say_next(there.members, new)):
            self._emit(obj, event)
        return obj, replace(chosen, made=True)

    async def _ensure_default_account(self, asked: Asked) -> None:
        if asked.accounts is not None or asked.account_labels is not None or self._default_account is None:
            return
        if self._engine.cache.get(CLOUD_ACCOUNT, asked.namespace, DEFAULT_ACCOUNT) is None:
            await self._default_account(asked.namespace)

    async def _access(self, memory: Memory, obj: Obj) -> ClusterAccess:
        asked = memory.asked
        return await ensure_access(self._engine, obj, public_keys=asked.public_keys, slurm=asked.bootstrap == "slurm")

    async def _create(self, obj: Obj, asked: Asked, new: Sequence[NewMachine]) -> str:
        """Makes the objects; gives the message of a name conflict, or nothing."""
        for begin in range(0, len(new), AT_ONCE):
            bodies = [make_machine(obj, asked, one) for one in new[begin : begin + AT_ONCE]]
            answers = await asyncio.gather(*(self._create_one(obj, body) for body in bodies), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            if conflict := next((answer for answer in answers if answer), ""):
                return str(conflict)
        return ""

    async def _create_one(self, obj: Obj, body: Obj) -> str:
        try:
            await self._engine.kube.create(VIRTUAL_MACHINE, body)
        except AlreadyExists:
            namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
            there = await self._engine.kube.get(VIRTUAL_MACHINE, namespace, name)
            if there is None or is_deleting(there):
                raise Transient(f"VirtualMachine '{name}' is being deleted") from None
            if is_owned_by(there, obj["metadata"]["uid"]):
                self._engine.cache.put(VIRTUAL_MACHINE, there)  # an answer of ours that was lost
                return ""
            if _of_earlier_life(there, obj):
                raise Transient(f"VirtualMachine '{name}' of a deleted cluster is going") from None
            return (
                f"VirtualMachine '{name}' exists and isn't of this cluster; delete it or give the cluster another name"
            )
        return ""

    # -- removing --------------------------------------------------------------------------------------------------

    async def _remove(self, memory: Memory, obj: Obj, needed: Plan, chosen: Chosen) -> None:
        """Takes machines away; those that tell why others are needed only when these are there."""
        for removal in needed.delete:
            if removal.after and not chosen.made:
                continue
            member = removal.member
            await self._engine.kube.delete(VIRTUAL_MACHINE, obj["metadata"]["namespace"], member.name, uid=member.uid)
            memory.deleted.add(member.uid)
            if removal.reason in TOLD:
                why = f": {removal.message}" if removal.message else ""
                self._emit(obj, Event("Normal", removal.reason, f"machine '{member.name}' goes{why}"))

    async def _mark(self, obj: Obj, needed: Plan, now_text: str, *, may_wake: bool) -> None:
        """Tells machines their powerState, and stamps those whose hash is of an older version."""
        namespace = obj["metadata"]["namespace"]
        for member, power in needed.power:
            if power == "Running" and not may_wake:
                continue
            patch: Obj = {
                "metadata": {"uid": member.uid, "annotations": {ANNOTATION_POWER_SINCE: now_text}},
                "spec": {"powerState": power},
            }
            with contextlib.suppress(NotFound):
                await self._engine.kube.patch(VIRTUAL_MACHINE, namespace, member.name, patch)
        for pool in needed.pools:
            for member in pool.restamp:
                stamp = {ANNOTATION_TEMPLATE: pool.pool.templates[member.alternative]}
                patch = {"metadata": {"uid": member.uid, "annotations": stamp}}
                with contextlib.suppress(NotFound):
                    await self._engine.kube.patch(VIRTUAL_MACHINE, namespace, member.name, patch)

    # -- telling ---------------------------------------------------------------------------------------------------

    def _facts(
        self,
        memory: Memory,
        obj: Obj,
        there: Machines,
        needed: Plan,
        life: lifecycle.Lifecycle,
        trouble: Trouble | None,
        now_text: str,
        *,
        boot: Boot = NOTHING_TO_DO,
        budget: str = "",
        approved: str = "",
    ) -> Facts:
        asked, status = memory.asked, obj.get("status") or {}
        if trouble is None and life.state == "Run":
            trouble = over_limit(asked, there.members)
        quote = self._offers.held(memory, obj)
        if trouble is not None and trouble.reason == c.REASON_BUDGET_EXCEEDED:
            budget = budget or trouble.message
        return Facts(
            members=there.members,
            views=there.views,
            plan=needed,
            rest=life.why,
            trouble=trouble,
            quote=quote,
            approved=approved or status.get("approvedQuote", ""),
            rejected=memory.placement.rejected if memory.placement is not None else (),
            boot=boot,
            budget=budget,
            stale=self._stale(asked.namespace, there),
            cost=self._cost(memory, status, there, to_seconds(now_text)),
            keep=lifecycle.told(life, status, now_text, _resume(obj), used_at=memory.used_at),
        )

    def _stale(self, namespace: str, there: Machines) -> str:
        """Which accounts' prices are old, in words."""
        said = []
        for name in sorted({m.offer.account for m in there.members}):
            account = self._engine.cache.get(CLOUD_ACCOUNT, namespace, name)
            found = c.find_condition(((account or {}).get("status") or {}).get("conditions") or (), c.PRICES_FRESH)
            if found is not None and found.get("status") == "False":
                said.append(f"CloudAccount '{name}': {found.get('message', '')}")
        return "; ".join(said)

    def _cost(self, memory: Memory, status: Obj, there: Machines, now: int) -> Obj:
        """`status.cost`: as it was, unless the machines have changed or it is time."""
        running = accrued(there.runs, now)
        new = make_cost(there.members, memory.ended, running, memory.asked.currency)
        memory.hourly, memory.accrued = numbers(there.members), memory.ended + running
        memory.currency = new["currency"]
        memory.machines = sum(1 for m in there.members if not m.deleting)
        memory.ready = sum(m.counts_as for m in there.members if m.ready == "True" and m.power == "Running")
        old: Obj = status.get("cost") or {}
        if old and same_machines(old, new):
            due = self._clock() - memory.cost_at >= WRITE_SECONDS
            if not due or not grown(old, new):
                return old
        return new

    async def _tell(self, memory: Memory, obj: Obj, facts: Facts, now_text: str) -> float | None:
        """Writes the status and tells what is new of Ready; gives how long to wait where that was put off."""
        status, said = make_status(obj, memory.asked, facts, now_text)
        old = obj.get("status") or {}
        before = old.get("conditions") or ()
        events = events_of(before, said, _hourly(status))
        if not events and not _turned(before, said) and said.reconciling and status != old:
            wait = memory.written_at + SLOW_SECONDS - self._clock()
            if wait > 0:
                return wait
        await self._write(memory, obj, status)
        for event in events:
            self._emit(obj, event)
        for name, stage in ((c.HEALTHY, "Unhealthy"), (c.WITHIN_BUDGET, "OverBudget")):
            found = c.find_condition(status["conditions"], name) or {}
            worse = found.get("status") == "False" or found.get("reason") == "Drifted"
            if memory.tell(name, f"{found.get('reason')}: {found.get('message')}" if worse else ""):
                self._emit(obj, Event("Warning", found.get("reason", stage), found.get("message", "")))
        return None

    async def _write(self, memory: Memory, obj: Obj, status: Obj) -> Obj:
        old = obj.get("status") or {}
        written = await self._engine.status.write(VIRTUAL_CLUSTER, obj, status)
        memory.written_at = self._clock()
        if status.get("cost") != old.get("cost"):
            memory.cost_at = self._clock()
        return written

    async def _boot(
        self, memory: Memory, obj: Obj, there: Machines, life: lifecycle.Lifecycle
    ) -> tuple[Boot, float | None]:
        """Has the machines set up, and says how far that is; and how long to wait until the next look."""
        if self._bootstrap is None or life.state != "Run":
            return NOTHING_TO_DO, None
        views = [v for v in there.views if v.host and self._has_ssh(v)]
        if not views:
            return NOTHING_TO_DO, None
        access = await self._access(memory, obj)
        state = self._bootstrap().ensure(memory.cluster, views, access)
        if memory.asked.bootstrap == "ssh":
            return NOTHING_TO_DO, state.requeue_after
        unreachable = next(iter(state.unreachable.values()), "")
        if state.failed:
            return Boot("Failed", next(iter(state.failed.values())), unreachable), state.requeue_after
        if state.message:
            return Boot("Pending", state.message, unreachable), state.requeue_after
        return Boot("Done", "", unreachable), state.requeue_after

    def _has_ssh(self, view: MachineView) -> bool:
        account = self._accounts.get(view.namespace, view.account)
        return account is not None and account.info.ssh

    async def _publish(self, memory: Memory, obj: Obj, there: Machines) -> float | None:
        """Writes logins and inventory; gives how long to wait where that was put off."""
        if not any(v.host for v in there.views):
            return None
        complete = all(v.host for v in there.views if not v.deleting and not v.failed)
        wait = memory.published_at + LOGIN_SECONDS - self._clock()
        if not complete and wait > 0:
            return wait
        memory.published_at = self._clock()
        access = await self._access(memory, obj)
        await publish_logins(self._engine, obj, access, there.views, memory.asked.outputs)
        return None

    def _emit(self, obj: Obj, event: Event) -> None:
        self._engine.events.emit(obj, event.type, event.reason, event.message)

    def _next(
        self,
        asked: Asked,
        needed: Plan,
        life: lifecycle.Lifecycle,
        trouble: Trouble | None,
        now: int,
        *waits: float | None,
    ) -> float:
        """When to look again by itself."""
        times = [float(at - now) for at in (needed.next_at, life.next_at) if at is not None]
        times += [wait for wait in waits if wait is not None]
        times.append(LOOK_AGAIN_SECONDS)
        if trouble is not None:
            times.append(TROUBLE_SECONDS)
        if asked.idle_seconds is not None or self._engine.cache.count(BUDGET):
            times.append(WATCHED_SECONDS)
        return max(0.05, min(times))

    # -- end and pause ---------------------------------------------------------------------------------------------

    async def _end(self, key: Key, obj: Obj) -> Done:
        """Nothing is desired: all machines go, or are let go, and then the finalizer."""
        if not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        uid, namespace = obj["metadata"]["uid"], key.namespace
        if self._bootstrap is not None:
            self._bootstrap().forget(uid)
        let_go = obj["spec"].get("deletionPolicy") == "Orphan" or is_abandoned(obj)
        left = self._engine.cache.children(uid, VIRTUAL_MACHINE)
        if not left:
            # the cache may be behind: only the API server says that there is none
            left, _ = await self._engine.kube.list(
                VIRTUAL_MACHINE, namespace, label_selector=f"{names.LABEL_OWNER_UID}={uid}"
            )
        for machine in left:
            meta = machine["metadata"]
            if let_go and not is_abandoned(machine):
                patch = {"metadata": {"uid": meta["uid"], "annotations": {names.ANNOTATION_ABANDON: meta["uid"]}}}
                with contextlib.suppress(NotFound):
                    await self._engine.kube.patch(VIRTUAL_MACHINE, namespace, meta["name"], patch)
            if not is_deleting(machine):
                await self._engine.kube.delete(VIRTUAL_MACHINE, namespace, meta["name"], uid=meta["uid"])
        if not left:
            await self._engine.finalizers.remove(VIRTUAL_CLUSTER, obj)
            return Done()
        what = "let go" if let_go else "deleted"
        message = f"{len(left)} machines are being {what}, such as '{left[0]['metadata']['name']}'"
        status = _with_ready(obj, "Deleting", message, self._now())
        await self._engine.status.write(VIRTUAL_CLUSTER, obj, status)
        return Done(requeue_after=LOOK_AGAIN_SECONDS)

    async def _pause(self, obj: Obj) -> Done:
        generation, old, now = int(obj["metadata"].get("generation", 0)), obj.get("status") or {}, self._now()
        message = f"remove the annotation {names.ANNOTATION_PAUSED} to go on"
        conditions = c.set_condition(
            old.get("conditions") or [], c.PAUSED, "True", "Annotation", message, generation=generation, now=now
        )
        if c.find_condition(conditions, c.READY) is None:
            conditions = c.set_condition(
                conditions, c.READY, "Unknown", c.REASON_PENDING, "paused", generation=generation, now=now
            )
        await self._engine.status.write(VIRTUAL_CLUSTER, obj, {**old, "conditions": conditions})
        return Done()


def _resume(obj: Obj) -> str:
    return str((obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_RESUME_REQUESTED, ""))[:253]


def _turned(before: Sequence[Obj], said: Verdict) -> bool:
    """Whether Ready says something else than before."""
    old = c.find_condition(before, c.READY) or {}
    return (old.get("status"), old.get("reason")) != (said.status, said.reason)


def _hourly(status: Obj) -> str:
    cost = status.get("cost") or {}
    return f"{cost['hourly']} {cost['currency']}/h" if cost.get("hourly") else ""


def _with_ready(obj: Obj, reason: str, message: str, now: str) -> Obj:
    generation, old = int(obj["metadata"].get("generation", 0)), obj.get("status") or {}
    conditions = old.get("conditions") or []
    conditions = c.set_condition(conditions, c.READY, "False", reason, message, generation=generation, now=now)
    conditions = c.set_condition(conditions, c.RECONCILING, "True", reason, message, generation=generation, now=now)
    return {**old, "observedGeneration": generation, "conditions": c.remove_condition(conditions, c.STALLED)}


def _of_earlier_life(machine: Obj, owner: Obj) -> bool:
    """Whether it belongs to a cluster of the same name that was deleted."""
    labels = machine["metadata"].get("labels") or {}
    mine = (names.MANAGED_BY, owner["kind"], owner["metadata"]["name"])
    keys = (names.LABEL_MANAGED_BY, names.LABEL_OWNER_KIND, names.LABEL_OWNER_NAME)
    return mine == tuple(labels.get(key) for key in keys)


def reconciler(engine: Engine, settings: Settings) -> ClusterReconciler:
    """The reconciler of an operator."""

    def bootstrap() -> BootstrapPort:
        from cloudmesh.compute.bootstrap.shared import bootstrap_of  # loads an SSH library, which few need at once

        return bootstrap_of(engine)

    async def default_account(namespace: str) -> None:
        await ensure_default_account(engine, namespace)

    accounts = shared(engine, settings=ComputeSettings.from_environ())
    return ClusterReconciler(
        engine, accounts, live_budgets.shared(engine), bootstrap=bootstrap, default_account=default_account
    )
