"""A new leader: what was good stays told until the first look has ended, and nothing is built on it before."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.compute import job_scene
from tests.unit.compute.cluster_scene import Scene, scene
from tests.unit.compute.job_scene import Controllers, Machines
from tests.unit.compute.machine_scene import now, runs_in

from cloudmesh.compute.jobs.controller import JobReconciler
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers.memory.faults import Fault
from cloudmesh.engine import Obj
from cloudmesh.testing import run_virtual

KINDS = (VIRTUAL_MACHINE, VIRTUAL_CLUSTER, CLOUD_ACCOUNT, BUDGET, CLUSTER_JOB)
COUNTERS = {
    VIRTUAL_CLUSTER: ("cost",),
    CLOUD_ACCOUNT: ("offersAsOf", "pricesAsOf"),
    BUDGET: ("spent", "remaining"),
}
"""Members of a status that move by themselves."""


class Lab(Scene):
    """A cluster with a Budget, a job that has ended and one that runs."""

    def __init__(self) -> None:
        super().__init__(ssh=True)
        self.ssh = Machines()
        self.add_account()
        self.jobs = lambda engine: JobReconciler(engine, ssh=self.ssh, bootstrap=Controllers(), now=now)  # type: ignore[arg-type]

    async def reach(self, host: str, port: int) -> None:
        """Every machine answers."""

    def job(self, name: str, **spec: Any) -> None:
        self._put(CLUSTER_JOB, name, {"clusterRef": {"name": "lab"}, "command": ["train"], "retry": {}, **spec})

    def job_said(self, name: str) -> tuple[str, str]:
        return self.condition("Ready", name, CLUSTER_JOB)

    async def work(self) -> None:
        """A first life that ends with everything good."""
        self.budget("5000")
        self.cluster()
        self.add_machine("alone")
        async with self.operator(probe=self.reach):
            await self.until(lambda: self.said()[0] == "True" and self.is_ready("alone"))
            for machine in self.machines():
                self.ssh.add(machine["status"]["sshHost"], machine["metadata"]["name"])
            self.job("short")
            await self.until(lambda: self.job_said("short") == ("True", "AsSpecified"))
            self.ssh.seconds = 1e6
            self.job("long")
            await self.until(lambda: self.job_said("long") == ("False", "Running"))
            await asyncio.sleep(900)
        assert self.get(CLOUD_ACCOUNT, "lab")["status"]["startSeconds"]
        assert self.cluster_status()["placement"]["rejected"]

    def statuses(self) -> dict[tuple[str, str], Obj]:
        """All statuses, without what moves by itself."""
        return {
            (kind.kind, obj["metadata"]["name"]): {
                name: value for name, value in obj["status"].items() if name not in COUNTERS.get(kind, ())
            }
            for kind in KINDS
            for obj in self.api.all(kind)
        }

    def stored(self) -> dict[str, int]:
        return {kind.kind: self.writes(kind) for kind in KINDS}


def differences(old: dict[tuple[str, str], Obj], new: dict[tuple[str, str], Obj]) -> list[Any]:
    """Object, member, value before and after."""
    return [
        (key, name, old[key].get(name), new[key].get(name))
        for key in old
        for name in sorted({*old[key], *new[key]})
        if old[key].get(name) != new[key].get(name)
    ]


lab = runs_in(Lab)


@lab
async def test_a_restart_writes_nothing(s: Lab) -> None:
    await s.work()
    before, stored = s.statuses(), s.stored()
    s.cloud.habits.latency_seconds = 5.0  # the first look takes its time
    async with s.operator(probe=s.reach):
        for _ in range(480):
            await asyncio.sleep(0.25)
            assert differences(before, s.statuses()) == []
    after = s.stored()
    assert after.pop(BUDGET.kind) <= stored.pop(BUDGET.kind) + 1  # what was spent meanwhile
    assert after == stored


@scene
async def test_a_price_that_has_moved_stays_told(s: Scene) -> None:
    def told() -> list[Any]:
        return [(m["status"]["currentPrice"]["amount"], m["status"]["drift"]) for m in s.machines()]

    s.cluster()
    async with s.operator() as (_, accounts):
        await s.settle()
        for row in s.cloud.stock.rows.values():
            row.hourly_nanos = row.hourly_nanos * 5 // 4
        for account in accounts.all():
            account.survey_wanted.set()
        await s.settle()
    before, stored = told(), s.writes()
    s.cloud.habits.latency_seconds = 3.0  # the machines are listed before the offers are read
    async with s.operator():
        for _ in range(120):
            await asyncio.sleep(0.25)
            assert told() == before
    assert s.writes() <= stored + 3  # the age of the price


@scene
async def test_a_cluster_that_waits_for_approval_waits_on(s: Scene) -> None:
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
    stored = s.writes(VIRTUAL_CLUSTER)
    assert s.said() == ("False", "AwaitingApproval")
    s.cloud.habits.latency_seconds = 3.0
    async with s.operator():
        await asyncio.sleep(60)
    assert s.writes(VIRTUAL_CLUSTER) == stored
    s.cloud.habits.latency_seconds = 1e6
    async with s.operator():
        await s.until(lambda: s.said() == ("Unknown", "CloudUnavailable"), 60)


@scene
async def test_a_cloud_that_stays_silent_is_told(s: Scene) -> None:
    s.cluster()
    s.add_machine("alone")
    async with s.operator():
        await s.settle()
    machines, living, stored = s.machines(), s.living(), s.writes()
    s.cloud.habits.latency_seconds = 1e6
    async with s.operator():
        await asyncio.sleep(9)
        assert (s.machines(), s.writes()) == (machines, stored)
        assert s.said() == ("True", "AsSpecified")
        assert s.condition(name="lab", resource=CLOUD_ACCOUNT) == ("True", "Checked")
        await s.until(lambda: s.said() == ("Unknown", "CloudUnavailable"), 30)
        assert s.condition(name="lab", resource=CLOUD_ACCOUNT) == ("Unknown", "CloudUnavailable")
        assert s.condition(name="alone") == ("Unknown", "CloudUnavailable")
        s.cloud.habits.latency_seconds = 0.0
        await s.until(lambda: s.said() == ("True", "AsSpecified") and s.is_ready("alone"))
    assert [i.id for i in s.living()] == [i.id for i in living]


@scene
async def test_listings_alone_that_stay_away_are_told(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
    s.cloud.faults.add(Fault("drop", "ListInstances", times=None))  # the account can be used all the same
    async with s.operator():
        await s.until(lambda: s.condition("InventoryComplete", "lab", CLOUD_ACCOUNT)[0] == "Unknown", 30)
        assert s.said() == ("True", "AsSpecified")
        await s.until(lambda: s.said() == ("Unknown", "CloudUnavailable"), 60)
        assert len(s.living()) == 3
        s.cloud.faults.clear()
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
    s.once()


@scene
async def test_a_first_look_that_never_ends_has_failed(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
    machines, stored = s.machines(), s.writes()
    s.cloud.faults.add(Fault(None, "ListStock", delay_seconds=5))
    s.cloud.faults.add(Fault("refuse", "ListInstances", code="TooManyRequests", retry_after=600))  # nobody may ask anew
    async with s.operator():
        await asyncio.sleep(110)
        assert (s.machines(), s.writes()) == (machines, stored)
        assert s.condition(name="lab", resource=CLOUD_ACCOUNT) == ("True", "Checked")
        await s.until(lambda: s.said() == ("Unknown", "CloudUnavailable"), 20)
        assert "the first look isn't over" in s.message()
        assert s.condition(name="lab", resource=CLOUD_ACCOUNT) == ("Unknown", "CloudUnavailable")
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 4000)
    s.once()


@scene
async def test_what_died_while_nobody_led_is_noticed_and_replaced_after_the_first_look(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
    names, stored = s.names(), s.writes()
    s.cloud.vanish(s.machines()[0]["status"]["providerID"])
    s.cloud.habits.latency_seconds = 6.0
    async with s.operator():
        await asyncio.sleep(5)
        assert (s.names(), s.writes()) == (names, stored)
        assert s.said() == ("True", "AsSpecified")
        s.cloud.habits.latency_seconds = 0.0
        await s.until(lambda: s.names() != names)
        await s.until(lambda: len(s.living()) == 3 and s.said() == ("True", "AsSpecified"))
    s.once()
    s.no_orphans()


@scene
async def test_nothing_is_removed_because_an_earlier_leader_found_others_well(s: Scene) -> None:
    s.cluster(replicas=2, pool={"strategy": {"maxSurge": 0, "maxUnavailable": 1}})
    async with s.operator():
        await s.settle()
    first, second = s.machines()  # the second would be the first to go
    s.cloud.vanish(first["status"]["providerID"])
    s.edit_pool(alternatives=[{"name": "any", "machine": {"vcpu": {"min": "2"}, "memory": {"min": "1Gi"}}}])
    s.cloud.habits.latency_seconds = 6.0
    names = s.names()
    async with s.operator():
        await s.until(lambda: s.names() != names or any("deletionTimestamp" in m["metadata"] for m in s.machines()))
        last = s.get(VIRTUAL_MACHINE, second["metadata"]["name"])
        assert "deletionTimestamp" not in last["metadata"], "it was the last that worked"
        s.cloud.habits.latency_seconds = 0.0
        await s.until(lambda: len(s.living()) == 2 and s.said() == ("True", "AsSpecified"), 600)
    s.once()
    s.no_orphans()


@scene
async def test_what_was_asked_while_nobody_led_is_done(s: Scene) -> None:
    s.add_machine("alone")
    async with s.operator():
        await s.settle()
    s.change(VIRTUAL_MACHINE, "alone", lambda obj: obj["spec"].update(powerState="Stopped"))
    s.cloud.habits.latency_seconds = 5.0
    async with s.operator():
        await s.until(lambda: s.status("alone")["observedGeneration"] == 2, 4)
        assert s.condition(name="alone")[0] == "Unknown"
        await s.until(lambda: s.condition(name="alone") == ("True", "Suspended"))


@scene
async def test_an_idle_cluster_has_its_time_after_a_restart(s: Scene) -> None:
    s.cluster(lifecycle={"idle": {"afterSeconds": 600}})
    async with s.operator():
        await s.settle()
        await asyncio.sleep(400)
    await asyncio.sleep(400)  # nobody knows who used it meanwhile
    async with s.operator():
        await asyncio.sleep(500)
        assert s.said() == ("True", "AsSpecified")
        await s.until(lambda: s.said() == ("True", "Suspended"), 200)


def test_a_job_on_slurm_isnt_told_to_wait_while_a_new_leader_looks_at_its_controller() -> None:
    async def main() -> None:
        s = job_scene.Scene(slurm=True)
        s.ssh.seconds = 300.0
        s.apply()
        async with s.operator():
            await s.until(lambda: s.condition().get("reason") == "Running" and s.runs()[0]["state"] == "Running")
        s.controllers.name, s.controllers.up = "", False
        status = s.status()
        async with s.operator():
            await asyncio.sleep(20)
            assert s.status() == status
            s.controllers.name, s.controllers.up = "lab-w-0", True
            await asyncio.sleep(20)
            assert s.status() == status
        s.controllers.name = ""
        async with s.operator():
            await s.until(lambda: s.condition()["reason"] == "WaitingForCluster", 90)
            s.controllers.name = "lab-w-0"
            assert (await s.ended(600))["counts"]["done"] == 1
        assert len(s.ssh.effects) == 1

    run_virtual(main())
