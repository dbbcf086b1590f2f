"""The reconciler of VirtualCluster: observe, plan, choose offers, publish the quote, make and remove machines."""

from __future__ import annotations

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
from cloudmesh.compute.access import OUTPUT_INVENTORY, ClusterAccess, forget_access
from cloudmesh.compute.account_controller import ensure_default_account
from cloudmesh.compute.accounts import Accounts, shared
from cloudmesh.compute.bootstrap import BootstrapState
from cloudmesh.compute.clocks import clock_of
from cloudmesh.compute.cluster_making import Maker
from cloudmesh.compute.cluster_memory import Machines, Memory
from cloudmesh.compute.cluster_metrics import ClusterMetrics
from cloudmesh.compute.cluster_offers import Chosen, Offers
from cloudmesh.compute.cluster_status import Boot, Trouble, are
from cloudmesh.compute.cluster_telling import NOTHING_TO_DO, SLOW_SECONDS, Pass, Teller, resume_of
from cloudmesh.compute.cluster_words import Event
from cloudmesh.compute.failures import FailureMemory
from cloudmesh.compute.kinds import BUDGET, CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.members import Member
from cloudmesh.compute.mount_logins import MountLogins, MountOrder
from cloudmesh.compute.plan import BUDGET as OVER_BUDGET
from cloudmesh.compute.plan import Plan, plan
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.reading import read_cluster
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import (
    CONFIG_MAP,
    Done,
    Engine,
    InvalidRequest,
    Key,
    NameConflict,
    Obj,
    Settings,
    has_finalizer,
    is_abandoned,
    is_deleting,
)

LOOK_AGAIN_SECONDS = 300.0
WATCHED_SECONDS = 60.0
"""Clusters under a Budget, that may fall asleep, list their machines or mount directories are looked at so often."""
TROUBLE_SECONDS = 15.0


class BootstrapPort(Protocol):
    """What sets machines up; see `compute.bootstrap`."""

    def ensure(
        self,
        cluster: VirtualCluster,
        machines: Sequence[MachineView],
        access: ClusterAccess,
        mounts: tuple[MountOrder, ...] | None = None,
    ) -> BootstrapState:
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
        now: The time as RFC 3339; left out, the clock of the engine.
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
        now: Callable[[], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._budgets = budgets
        self._bootstrap = bootstrap
        self._mounts = MountLogins(engine)
        self._offers = Offers(engine, accounts, budgets, monotonic)
        self._teller = Teller(engine, self._offers, monotonic)
        self._maker = Maker(engine, self._offers, self._teller, default_account)
        self._now = now or clock_of(engine).now
        self._clock = monotonic
        self._memories: dict[Key, Memory] = {}
        engine.metrics.register(ClusterMetrics(self._memories))

    def forget(self, key: Key) -> None:
        """The object is gone."""
        memory = self._memories.pop(key, None)
        self._budgets.release(key.namespace, key.name)
        if memory is not None:
            forget_access(self._engine, memory.uid)
            self._mounts.forget(memory.uid)
            if self._bootstrap is not None:
                self._bootstrap().forget(memory.uid)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass."""
        if is_deleting(obj):
            return await self._end(obj)
        memory = self._memory(key, obj)
        there = self._take_in(memory)
        if (booked := await self._teller.book(memory, obj, there)) is not obj:
            obj, there = booked, self._take_in(memory)  # as Budgets see it from now on
        if (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(obj)
        now_text = self._now()
        would = self._would(memory, there, to_seconds(now_text))
        obj = await self._teller.shrink(memory, obj, would, lambda a: plan(a, there.sure, to_seconds(now_text)))
        at = self._observe(memory, obj, there, would, now_text)
        chosen = await self._maker.provide(at) if at.life.state == "Run" else Chosen()
        if chosen.trouble is not None and not chosen.decisions and (kept := memory.keep()) is not None:
            needed = plan(kept.asked, there.sure, at.now, tripped=memory.tripped)
            at = replace(at, needed=needed, kept=True)
            chosen = await self._maker.keep(at, kept, chosen)
        await self._maker.remove(at, chosen)
        await self._maker.mark(at, may_wake=chosen.may_wake)
        if chosen.made:
            return Done(requeue_after=SLOW_SECONDS)  # what was made brings the key back by itself
        boot, boot_wait = await self._boot(at)
        wait = SLOW_SECONDS if _stands(at, chosen) else await self._teller.tell(at, chosen.trouble, boot)
        login_wait = await self._publish_logins(at)
        return Done(requeue_after=self._next(at, chosen.trouble, wait, login_wait, boot_wait))

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
            memory = Memory(uid, generation, cluster, asked)
            memory.cost_at = self._clock()  # whoever led before may have written it a moment ago
            self._memories[key] = memory
        else:
            memory.generation, memory.cluster, memory.asked = generation, cluster, asked
            memory.question = None
            memory.refused, memory.noted = FailureMemory(), set()
        return memory

    def _take_in(self, memory: Memory) -> Machines:
        """The machines that there are."""
        now, namespace = to_seconds(self._now()), memory.asked.namespace
        memory.led_at = memory.led_at or now

        def known(member: Member) -> bool:
            account = self._accounts.get(namespace, member.offer.account)
            return account is not None and member.uid in account.judged

        return memory.take_in(self._engine.cache.children(memory.uid, VIRTUAL_MACHINE), now, known)

    def _would(self, memory: Memory, there: Machines, now: int) -> Plan:
        """What it needs to run, whether or not it may."""
        memory.tripped |= dict.fromkeys(memory.tripping, now)  # it held until this very moment
        return plan(memory.asked, there.sure, now, tripped=memory.tripped)

    def _observe(self, memory: Memory, obj: Obj, there: Machines, would: Plan, now_text: str) -> Pass:
        """What there is, and what is needed."""
        now = to_seconds(now_text)
        life, budget, no_disks = self._lifecycle(memory, obj, there, would, now)
        needed = would
        if life.state != "Run":
            needed = plan(
                memory.asked,
                there.sure,
                now,
                state=life.state,
                reason=life.why or c.REASON_LIFETIME_EXCEEDED,
                powers=self._powers(memory.asked.namespace, there) if life.state == "Rest" else None,
                no_disks=no_disks,
            )
        memory.tripping = frozenset(p.pool.name for p in needed.pools if p.checkup.tripped)
        return Pass(memory, obj, there, needed, life, now, now_text, budget)

    def _lifecycle(
        self, memory: Memory, obj: Obj, there: Machines, would: Plan, now: int
    ) -> tuple[lifecycle.Lifecycle, str, bool]:
        """What it shall be, which Budget forbids more, in words, and whether it forbids disks too."""
        asked, status = memory.asked, obj.get("status") or {}
        ready = c.find_condition(status.get("conditions") or (), c.READY) or {}
        as_asked = ready.get("status") == "True" and ready.get("reason") == c.REASON_AS_SPECIFIED
        ready_since = max(to_seconds(ready["lastTransitionTime"]), memory.led_at) if as_asked else None
        verdict, fits, message = self._offers.within(memory, obj, there, would)
        exceeded = verdict.exceeded
        busy = self._is_busy(memory, now)
        decided = lifecycle.decide(
            asked,
            status,
            now,
            resume=resume_of(obj),
            used_at=lifecycle.used_at(status, ready_since, memory.used_at),
            busy=busy,
            exceeded=exceeded,
            fits=fits,
        )
        return decided, message if exceeded or decided.why == OVER_BUDGET else "", verdict.by_disks

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

    # -- set-up and logins -----------------------------------------------------------------------------------------

    async def _boot(self, at: Pass) -> tuple[Boot, float | None]:
        """Has the machines set up, and says how far that is; and how long to wait until the next look."""
        if self._bootstrap is None:
            return NOTHING_TO_DO, None
        views = [v for v in at.there.views if self._has_ssh(v)]
        if not any(v.host for v in views) or at.life.state != "Run":
            if at.memory.booting:
                at.memory.booting = False
                self._bootstrap().forget(at.memory.uid)
            return NOTHING_TO_DO, None
        at.memory.booting = True
        self._watch_script(at.memory)
        try:
            access = await self._teller.access(at.memory, at.obj)
            orders = await self._orders(at)
        except NameConflict as error:
            at.memory.clash = str(error)
            return NOTHING_TO_DO, None
        state = self._bootstrap().ensure(at.memory.cluster, views, access, orders)
        mounts = state.mounts
        if orders is not None and self._mounts.leaving(at.obj, orders):
            if state.unmounted:
                await self._mounts.drop(at.obj, orders)
            mounts = mounts or state.going
        if orders == () and mounts == "":
            mounts = None
        for words in state.left:
            self._teller.emit(at.obj, Event("Warning", "FilesLeft", words))
        if at.memory.asked.bootstrap == "ssh":
            return Boot("Done", "", "", mounts), state.requeue_after
        unreachable = next(iter(state.unreachable.values()), "")
        if state.failed:
            return Boot("Failed", next(iter(state.failed.values())), unreachable, mounts), state.requeue_after
        if state.message:
            return Boot("Pending", state.message, unreachable, mounts), state.requeue_after
        return Boot("Done", "", unreachable, mounts), state.requeue_after

    async def _orders(self, at: Pass) -> tuple[MountOrder, ...] | None:
        """What is to be mounted; None where nothing is, nor was."""
        before = (at.obj.get("status") or {}).get("conditions") or ()
        if not at.memory.cluster.spec.mounts and c.find_condition(before, c.MOUNTED) is None:
            return None
        return await self._mounts.ensure(at.obj, at.memory.cluster)

    def _watch_script(self, memory: Memory) -> None:
        """Another text of its script brings the cluster back."""
        asked, bootstrap = memory.asked, memory.cluster.spec.bootstrap
        ref = bootstrap.script.config_map_ref if bootstrap is not None and bootstrap.script is not None else None
        self._engine.references.set(
            Key(VIRTUAL_CLUSTER.kind, asked.namespace, asked.name),
            [(CONFIG_MAP.kind, asked.namespace, ref.name)] if ref is not None else [],
        )

    async def _publish_logins(self, at: Pass) -> float | None:
        """Writes what people log in with; gives when to look again."""
        memory = at.memory
        before, wait = memory.clash, None
        try:
            if self._has_logins(at):
                wait = await self._teller.publish_logins(at)
            if wait is None:
                memory.clash = ""
        except NameConflict as error:
            memory.clash = str(error)
            wait = TROUBLE_SECONDS
        return wait if memory.clash == before else 0.0

    def _has_logins(self, at: Pass) -> bool:
        """Whether anybody can log in, or wants the list of machines anyway."""
        return OUTPUT_INVENTORY in at.memory.asked.outputs or any(self._has_ssh(v) for v in at.there.views)

    def _has_ssh(self, view: MachineView) -> bool:
        account = self._accounts.get(view.namespace, view.account)
        return account is not None and account.info.ssh

    # -- when to look again ----------------------------------------------------------------------------------------

    def _next(self, at: Pass, trouble: Trouble | None, *waits: float | None) -> float:
        """When to look again by itself."""
        times = [float(moment - at.now) for moment in (at.needed.next_at, at.life.next_at) if moment is not None]
        times += [wait for wait in waits if wait is not None]
        times.append(LOOK_AGAIN_SECONDS)
        if trouble is not None:
            times.append(TROUBLE_SECONDS)
        asked = at.memory.asked
        watched = asked.idle_seconds is not None or OUTPUT_INVENTORY in asked.outputs or at.memory.cluster.spec.mounts
        if watched or self._engine.cache.count(BUDGET):
            times.append(WATCHED_SECONDS)
        return max(0.05, min(times))

    # -- end and pause ---------------------------------------------------------------------------------------------

    async def _end(self, obj: Obj) -> Done:
        """Nothing is desired: all machines go, or are let go, and then the finalizer."""
        if not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        if self._bootstrap is not None:
            self._bootstrap().forget(obj["metadata"]["uid"])
        let_go = obj["spec"].get("deletionPolicy") == "Orphan" or is_abandoned(obj)
        left = await self._maker.end_all(obj, let_go=let_go)
        if not left:
            await self._engine.finalizers.remove(VIRTUAL_CLUSTER, obj)
            return Done()
        what = "let go" if let_go else "deleted"
        message = f"{are(len(left), 'machine')} being {what}, such as '{left[0]['metadata']['name']}'"
        status = _with_ready(obj, "Deleting", message, self._now())
        await self._engine.status.write(VIRTUAL_CLUSTER, obj, status)
        return Done(requeue_after=LOOK_AGAIN_SECONDS)

    async def _pause(self, obj: Obj) -> Done:
        conditions = c.Conditions.of(obj, self._now())
        conditions.pause(names.ANNOTATION_PAUSED)
        status = {**(obj.get("status") or {}), "conditions": conditions.list}
        await self._engine.status.write(VIRTUAL_CLUSTER, obj, status)
        return Done()


def _with_ready(obj: Obj, reason: str, message: str, now: str) -> Obj:
    conditions = c.Conditions.of(obj, now)
    conditions.ready("False", reason, message, reconciling=True)
    told = {"observedGeneration": conditions.generation, "conditions": conditions.list}
    return (obj.get("status") or {}) | told


def _stands(at: Pass, chosen: Chosen) -> bool:
    """Whether an earlier leader's verdict stays told, since the accounts are still on their first look."""
    trouble, status = chosen.trouble, at.obj.get("status") or {}
    if trouble is None or trouble.reason != c.REASON_PENDING or at.memory.written_at > float("-inf"):
        return False
    ready = c.find_condition(status.get("conditions") or (), c.READY) or {}
    return status.get("observedGeneration") == at.memory.generation and ready.get("status") in (c.TRUE, c.FALSE)


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
