"""Clusters on a memory API server and a memory cloud, with all reconcilers of the wing, on one virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from tests.unit.compute import machine_scene
from tests.unit.compute.machine_scene import now

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.api.virtualmachine import VirtualMachine
from cloudmesh.compute import budgets as live_budgets
from cloudmesh.compute.account_controller import AccountReconciler
from cloudmesh.compute.accounts import Accounts, shared
from cloudmesh.compute.budget_controller import BudgetReconciler
from cloudmesh.compute.choices import PriceSheetReconciler
from cloudmesh.compute.clocks import Clock
from cloudmesh.compute.cluster_controller import ClusterReconciler
from cloudmesh.compute.kinds import (
    BUDGET,
    CLOUD_ACCOUNT,
    CLUSTER_JOB,
    PLACEMENT_POLICY,
    VIRTUAL_CLUSTER,
    VIRTUAL_MACHINE,
)
from cloudmesh.compute.machine_controller import MachineReconciler
from cloudmesh.compute.probes import Probes
from cloudmesh.engine import CONFIG_MAP, Done, Engine, Obj
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.testing import CrashPoint, World, for_every_crash, run_virtual, tick
from cloudmesh.testing.crash import READS, Moment

KINDS = (*machine_scene.KINDS, CLUSTER_JOB, PLACEMENT_POLICY, CONFIG_MAP)
SMALL = {"vcpu": {"min": "1"}, "memory": {"min": "1Gi"}}


class Jobs:
    """Keeps ClusterJobs in the cache and does nothing with them."""

    resource = CLUSTER_JOB
    owns = ()

    async def reconcile(self, key: Any, obj: Obj) -> Done:
        return Done()

    def forget(self, key: Any) -> None:
        """Nothing to forget."""


class Scene(machine_scene.Scene):
    """One world with one cloud and clusters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.world = World(KINDS)
        self.api = self.world.api
        self.api.store._now = now  # the API server's clock is the loop's too
        self.api.put(machine_scene.NAMESPACES, {"metadata": {"name": "kube-system"}})
        self.bootstrap: Any = None
        self.default_account: Any = None
        self.jobs: Callable[[Engine], Reconciler] = lambda engine: Jobs()
        self.skew: Callable[[], float] | None = None
        """Seconds that the operator's own clock goes ahead; None: it takes the loop's as it is."""

    # -- objects -------------------------------------------------------------------------------------------------

    def cluster(
        self, name: str = "lab", replicas: int = 3, *, pool: Any = None, labels: Any = None, **spec: Any
    ) -> Obj:
        """Makes a VirtualCluster with one pool."""
        body = {
            "accounts": [{"name": "lab"}],
            "replicas": replicas,
            "pools": [{"name": "workers", "alternatives": [{"name": "any", "machine": SMALL}], **(pool or {})}],
            **spec,
        }
        return self._put(VIRTUAL_CLUSTER, name, body, {"labels": labels} if labels else None)

    def edit(self, name: str = "lab", **spec: Any) -> None:
        """Changes members of a cluster's spec."""
        self.change(VIRTUAL_CLUSTER, name, lambda obj: obj["spec"].update(spec))

    def edit_pool(self, name: str = "lab", **pool: Any) -> None:
        """Changes members of a cluster's first pool."""
        self.change(VIRTUAL_CLUSTER, name, lambda obj: obj["spec"]["pools"][0].update(pool))

    def budget(self, amount: str, name: str = "money", **spec: Any) -> Obj:
        """Makes a Budget."""
        return self._put(BUDGET, name, {"currency": "USD", "amount": amount, "period": "Month", **spec})

    # -- what is seen ----------------------------------------------------------------------------------------------

    def said(self, type_: str = "Ready", name: str = "lab") -> tuple[str, str]:
        """Status and reason of a condition of a cluster."""
        return self.condition(type_, name, VIRTUAL_CLUSTER)

    def message(self, type_: str = "Ready", name: str = "lab") -> str:
        """Message of a condition of a cluster."""
        found = self.cluster_status(name).get("conditions") or []
        return next((str(x["message"]) for x in found if x["type"] == type_), "")

    def cluster_status(self, name: str = "lab") -> Obj:
        """Status of a cluster."""
        return dict(self.get(VIRTUAL_CLUSTER, name).get("status") or {})

    def machines(self) -> list[Obj]:
        """All VirtualMachines."""
        return sorted(self.api.all(VIRTUAL_MACHINE), key=lambda o: str(o["metadata"]["name"]))

    def names(self) -> list[str]:
        """Names of all VirtualMachines."""
        return [m["metadata"]["name"] for m in self.machines()]

    def told(self, reason: str) -> list[str]:
        """Notes of the Events of a reason."""
        return [note for found, note in self.events() if found == reason]

    def hourly(self) -> int:
        """What the cloud charges an hour for at the moment."""
        return sum(line.rate for line in self.cloud.meter.lines.values())

    async def until(self, holds: Callable[[], bool], seconds: float = 300.0) -> float:
        """Waits for something; gives the seconds that it took."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        while not holds():
            assert loop.time() - begin < seconds, "it doesn't come"
            await tick(0.05)
        return loop.time() - begin

    async def settle(self, seconds: float = 600.0, quiet: float = 8.0) -> None:
        """Waits until nothing is written any more; all that is stored must be what the API server would take."""
        await super().settle(seconds, quiet)
        self.validate()

    def validate(self) -> None:
        """Each cluster and machine is what its model allows, and nothing more."""
        for resource, model in ((VIRTUAL_CLUSTER, VirtualCluster), (VIRTUAL_MACHINE, VirtualMachine)):
            for obj in self.api.all(resource):
                model.model_validate(obj, extra="forbid")
        for resource in (VIRTUAL_CLUSTER, VIRTUAL_MACHINE, CLOUD_ACCOUNT, BUDGET):
            for obj in self.api.all(resource):
                for found in (obj.get("status") or {}).get("conditions") or ():
                    assert found["message"].strip(), f"{resource.kind} {found['type']} says nothing"

    def once(self) -> None:
        """No token made a second machine while the first was there."""
        ended: dict[str, float] = {}
        for line in sorted(self.cloud.meter.lines.values(), key=lambda line: line.started):
            if line.token:
                assert ended.get(line.token, 0.0) <= line.started, f"two machines of {line.token}"
                ended[line.token] = float("inf") if line.ended is None else line.ended

    def no_orphans(self) -> None:
        """Each machine that lives in the cloud is a VirtualMachine's."""
        known = {(m.get("status") or {}).get("providerID") for m in self.machines()}
        assert {i.id for i in self.living()} <= known

    # -- operators ---------------------------------------------------------------------------------------------------

    def clock(self, engine: Engine) -> Callable[[], str]:
        """The clock of an operator: as it is in production if this machine's goes wrong."""
        skew = self.skew
        if skew is None:
            return now
        return Clock(lambda: engine.kube.heard, wall=lambda: machine_scene.wall() + skew()).now

    def account_reconciler(self, engine: Engine, accounts: Accounts) -> AccountReconciler:
        """The one that looks after accounts."""
        return AccountReconciler(engine, accounts)

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None, **options: Any) -> AsyncIterator[tuple[Engine, Accounts]]:
        """An operator with all reconcilers of the wing."""
        probe = options.pop("probe", None)
        made: list[Accounts] = []
        self.reconcilers: list[ClusterReconciler] = []

        def accounts(engine: Engine) -> Accounts:
            found = shared(engine, now=self.clock(engine), maker=self.maker(crash))
            made.append(found)
            return found

        def budgets(engine: Engine) -> live_budgets.Budgets:
            clock = asyncio.get_running_loop().time
            return live_budgets.shared(engine, now=self.clock(engine), monotonic=clock)

        def clusters(engine: Engine) -> Reconciler:
            default = (lambda namespace: self.default_account(engine, namespace)) if self.default_account else None
            made_one = ClusterReconciler(
                engine,
                accounts(engine),
                budgets(engine),
                now=self.clock(engine),
                monotonic=asyncio.get_running_loop().time,
                bootstrap=(lambda: self.bootstrap) if self.bootstrap is not None else None,
                default_account=default,
            )
            self.reconcilers.append(made_one)
            return made_one

        async with self.world.engine(
            lambda engine: self.account_reconciler(engine, accounts(engine)),
            lambda engine: PriceSheetReconciler(engine, accounts(engine)),
            lambda engine: MachineReconciler(
                engine, accounts(engine), probes=Probes(engine.enqueue, probe) if probe is not None else None
            ),
            lambda engine: BudgetReconciler(engine, budgets(engine), monotonic=asyncio.get_running_loop().time),
            lambda engine: self.jobs(engine),
            clusters,
            crash=crash,
            **options,
        ) as engine:
            yield engine, made[0]


def with_account() -> Scene:
    """A fresh scene that has its CloudAccount."""
    s = Scene()
    s.add_account()
    return s


scene = machine_scene.runs_in(with_account)
Act = Callable[[Scene], Awaitable[None]]


def survive(
    begin: Act, then: Act, *, at_least: int, moments: Sequence[Moment] = ("after",), native: bool = True
) -> None:
    """`begin`, then an operator that dies at each of its calls with an effect, one a world, then one more and `then`.

    What outlives an operator that dies after a call is what outlives one that dies before its next.

    Args:
        begin: On a scene with an account; it may run an operator that lives.
        then: While the second operator runs.
        at_least: More calls than that must have been died at.
        moments: Before the call, after it, or both.
        native: Whether the cloud itself makes one machine for one token.
    """

    async def scenario(crash: CrashPoint) -> None:
        s = Scene(native=native)
        s.cloud.habits.boot_seconds = 0.5
        s.add_account()
        await begin(s)

        async def first() -> None:
            async with s.operator(crash):
                await s.settle(quiet=3.0)

        await crash.until_crash(first())
        async with s.operator():
            await then(s)
        s.once()
        s.no_orphans()

    async def main() -> None:
        assert await for_every_crash(scenario, moments=moments, spares=READS) > at_least

    run_virtual(main())
