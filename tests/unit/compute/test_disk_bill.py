"""What disks cost, of machines that run and that are stopped, against the memory cloud's own bill."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.compute import cluster_scene
from tests.unit.compute.cluster_scene import SMALL, Scene, scene

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.api.virtualmachine import VirtualMachine
from cloudmesh.compute.budgets import shared
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import HOURS_A_MONTH, to_nanos, to_text
from cloudmesh.engine import Engine
from cloudmesh.policy.model import NANO
from cloudmesh.testing import run_virtual

MACHINE, GIB = 37_800_000, 100
DISK = -(-GIB * NANO // HOURS_A_MONTH)
"""Nano-units per hour of the disk of each machine, at 1 USD for a GiB and month."""
POOL = {"alternatives": [{"name": "any", "machine": {**SMALL, "disk": {"size": f"{GIB}Gi"}}}]}
SEEN_WITHIN = 60


def world(amount: str = "100000") -> Scene:
    s = Scene()
    s.add_account()
    s.cloud.gib_month_nanos = NANO
    s.budget(amount)
    return s


def billed(s: Scene) -> int:
    return s.cloud.meter.total(s.cloud.now())


def leeway(s: Scene, seconds: int = SEEN_WITHIN) -> int:
    return len(s.cloud.meter.lines) * (MACHINE + DISK) * seconds // 3600


def agrees(s: Scene, engine: Engine) -> None:
    (budget,) = shared(engine).objects("ns")
    counted = to_nanos(budget["status"]["spent"])
    assert abs(counted - billed(s)) <= leeway(s), (counted, billed(s))


def test_disks_of_stopped_machines_are_billed_and_counted() -> None:
    async def main() -> None:
        s = world()
        s.cluster(replicas=2, pool=POOL)
        async with s.operator() as (engine, _):
            await s.settle()
            status = s.cluster_status()
            (line,) = status["placement"]["decisions"]
            assert (line["hourly"], line["diskHourly"]) == (to_text(MACHINE + DISK), to_text(DISK))
            assert "for the disk" in line["why"]
            assert status["quote"]["hourly"]["amount"] == to_text(2 * (MACHINE + DISK))
            assert status["quote"]["diskHourly"] == to_text(2 * DISK)
            VirtualCluster.model_validate(s.get(VIRTUAL_CLUSTER, "lab"), extra="forbid")
            for machine in s.machines():
                assert machine["status"]["hourlyPrice"]["amount"] == to_text(MACHINE)
                assert machine["status"]["diskHourly"] == to_text(DISK)
            await asyncio.sleep(2000)
            agrees(s, engine)
            s.edit(lifecycle={"state": "Suspended"})
            await s.until(lambda: s.said() == ("True", "Suspended"))
            await asyncio.sleep(100)
            asleep = billed(s)
            await asyncio.sleep(3600)
            assert billed(s) - asleep == pytest.approx(2 * DISK, rel=0.01), "stopped machines cost their disks"
            agrees(s, engine)
            assert {m["status"]["billing"] for m in s.machines()} == {"DiskOnly"}
            VirtualMachine.model_validate(s.machines()[0], extra="forbid")
            budget = s.get(BUDGET, "money")["status"]
            assert budget["reserved"] == to_text(2 * DISK) == budget["hourly"]
            assert s.cluster_status()["cost"]["hourly"] == to_text(2 * DISK)
            s.edit(lifecycle={"state": "Running"})
            await s.until(lambda: s.said() == ("True", "AsSpecified"))
            await asyncio.sleep(1500)
            assert not any("billing" in m["status"] for m in s.machines())
            agrees(s, engine)
            s.edit(replicas=0)
            await s.until(lambda: not s.machines())
            await asyncio.sleep(400)
            agrees(s, engine)
            cost = s.cluster_status()["cost"]
            assert cost["accrued"] == cost["ended"]
            assert abs(to_nanos(cost["ended"]) - billed(s)) <= leeway(s)
            assert s.get(BUDGET, "money")["status"]["booked"]["spent"] == cost["ended"]

    run_virtual(main())


def test_a_crash_at_any_call_of_sleep_and_waking_loses_no_disk() -> None:
    async def begin(s: Scene) -> None:
        s.cloud.gib_month_nanos = NANO
        s.cluster(replicas=1, pool=POOL)
        async with s.operator():
            await s.settle(quiet=3.0)
            await asyncio.sleep(900)
            s.edit(lifecycle={"state": "Suspended"})

    async def end(s: Scene) -> None:
        await s.until(lambda: s.said() == ("True", "Suspended"))
        await asyncio.sleep(900)
        s.edit(lifecycle={"state": "Running"})
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await asyncio.sleep(900)
        s.edit(replicas=0)
        await s.until(lambda: not s.machines())
        await asyncio.sleep(400)
        found = to_nanos(s.cluster_status()["cost"]["accrued"])
        assert abs(found - billed(s)) <= leeway(s, 12), (found, billed(s))

    cluster_scene.survive(begin, end, at_least=6)


@pytest.mark.parametrize("state", ["Running", "Suspended"])
def test_a_budget_that_disks_alone_exceed_ends_machines_that_are_stopped(state: str) -> None:
    async def main() -> None:
        s, amount = world("1"), NANO
        s.cluster(replicas=2, pool=POOL)
        async with s.operator():
            await s.settle()
            s.edit(lifecycle={"state": state})
            await s.until(lambda: [i.state for i in s.cloud.living()] == ["Stopped"] * 2, 3 * 3600)
            assert billed(s) <= amount - 2 * DISK, "what is left pays an hour of the disks"
            await s.until(lambda: not s.cloud.living(), 5 * 3600)
            await asyncio.sleep(7200)
            assert not s.machines() and not s.cloud.living()
            hour = 2 * (MACHINE + DISK)
            assert amount - hour - leeway(s) < billed(s) <= amount
            if state == "Running":
                assert s.said() == ("False", "BudgetExceeded")

    run_virtual(main())


def test_a_machine_that_stands_alone_is_ended_when_its_disk_is_too_much() -> None:
    async def main() -> None:
        s, amount = world("0.5"), NANO // 2
        s.add_machine("one", disk={"size": f"{GIB}Gi"})
        async with s.operator():
            await s.until(lambda: s.status("one").get("state") == "Running")
            await s.until(lambda: [i.state for i in s.cloud.living()] == ["Stopped"], 3 * 3600)
            await s.until(lambda: not s.cloud.living(), 3 * 3600)
            await asyncio.sleep(3600)
            assert amount - 2 * DISK < billed(s) <= amount
            assert "disks alone" in s.get(VIRTUAL_MACHINE, "one")["status"]["message"]

    run_virtual(main())


@scene
async def test_the_limit_of_a_cluster_is_for_disks_too(s: Scene) -> None:
    s.cloud.gib_month_nanos = NANO
    limit = {"amount": to_text(2 * MACHINE + DISK), "currency": "USD"}
    s.cluster(replicas=2, pool=POOL, maxHourlyCost=limit)
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "OverMaxHourlyCost"))
        assert not s.cloud.living()


@scene
async def test_a_disk_that_nobody_knows_the_price_of_is_told_as_not_counted(s: Scene) -> None:
    s.cluster(replicas=1, pool=POOL)
    async with s.operator():
        await s.settle()
        (line,) = s.cluster_status()["placement"]["decisions"]
        assert "disk not counted" in line["why"] and "diskHourly" not in line
        s.edit(lifecycle={"state": "Suspended"})
        await s.until(lambda: s.said() == ("True", "Suspended"))
        assert s.cluster_status()["cost"]["hourly"] == "0"
