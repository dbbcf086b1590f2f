"""RequireApproval in a cluster's later life: one approval for a roll-out, and what was approved is kept meanwhile."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from tests.unit.compute.cluster_scene import SMALL, Scene, scene
from tests.unit.compute.test_clusters_crash import survive

from cloudmesh.compute.approved import kept, read_approved
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, PLACEMENT_POLICY, VIRTUAL_CLUSTER
from cloudmesh.compute.reading import read_cluster

APPROVAL = {"mode": "RequireApproval"}
LARGE = [{"name": "any", "machine": {"vcpu": {"min": "4"}, "memory": {"min": "1Gi"}}}]
WAITS = ("False", "AwaitingApproval")
WORKS = ("True", "AsSpecified")


def approve(s: Scene) -> str:
    found = str(s.cluster_status()["quote"]["hash"])
    s.annotate(VIRTUAL_CLUSTER, "lab", approved_quote=found)
    return found


async def up(s: Scene, **spec: Any) -> str:
    """An approved cluster that works; gives the hash of its quote."""
    s.cluster(apply=APPROVAL, **spec)
    await s.until(lambda: s.said() == WAITS)
    found = approve(s)
    await s.until(lambda: s.said() == WORKS)
    await s.settle()
    return found


async def lose(s: Scene, count: int) -> None:
    """A machine goes; waits until there are as many as before."""
    lost = s.living()[0].id
    s.cloud.vanish(lost)
    await s.until(lambda: len(s.living()) == count and lost not in {i.id for i in s.living()})
    await s.settle()


def types(s: Scene) -> list[str]:
    return sorted(i.type for i in s.living())


def vcpu(s: Scene) -> list[int]:
    shapes = s.cloud.stock.types()
    return sorted(shapes[i.type].milli_vcpu for i in s.living())


# -- one approval for a roll-out


@scene
async def test_a_roll_out_to_dearer_machines_asks_once_for_all_of_it(s: Scene) -> None:
    async with s.operator():
        first = await up(s)
        before = s.cluster_status()
        s.edit_pool(alternatives=LARGE)
        await s.until(lambda: s.said() == WAITS)
        await s.settle()
        asked = s.cluster_status()
        [line] = asked["placement"]["decisions"]
        assert line["count"] == 3
        assert Decimal(asked["quote"]["hourly"]["amount"]) == 3 * Decimal(line["hourly"])
        old = before["cost"]["hourly"]
        assert f"(and 3 machines of {old} until the new ones have replaced them) and waits" in s.message()
        assert asked["approvedQuote"] == first and asked["approvedHourly"] == before["approvedHourly"]
        assert vcpu(s) == [2000] * 3
        second, most = approve(s), 0
        while vcpu(s) != [4000] * 3:
            await asyncio.sleep(0.5)
            most = max(most, sum(i.state != "Deleting" for i in s.living()))
            assert s.cluster_status()["quote"]["hash"] == second, "it asked again"
        await s.settle()
        assert most == 4
        assert s.said() == WORKS
        assert s.cluster_status()["approvedQuote"] == second
        assert s.cluster_status()["approved"]["spec"].count('"min":"4"') == 1


@scene
async def test_nothing_is_taken_away_before_the_roll_out_is_approved(s: Scene) -> None:
    strategy = {"maxSurge": 0, "maxUnavailable": 1}
    async with s.operator():
        await up(s, pool={"strategy": strategy})
        s.edit_pool(alternatives=LARGE)
        await s.settle()
        assert s.said() == WAITS
        assert vcpu(s) == [2000] * 3
        second, least = approve(s), 3
        while vcpu(s) != [4000] * 3:
            await asyncio.sleep(0.5)
            least = min(least, sum(i.state == "Running" for i in s.living()))
            assert len(s.machines()) <= 4
        await s.settle()
        assert least == 2
        assert (s.said(), s.cluster_status()["approvedQuote"]) == (WORKS, second)


@scene
async def test_a_roll_out_fits_into_a_limit_if_each_step_does(s: Scene) -> None:
    async with s.operator():
        await up(s)
        one = Decimal(s.cluster_status()["cost"]["hourly"]) / 3
        s.edit(maxHourlyCost={"amount": str(one * 4), "currency": "USD"})
        s.edit_pool(image={"name": "ubuntu-24.04"})
        await s.until(lambda: s.said() == WAITS)
        approve(s)
        await s.until(lambda: {i.image for i in s.living()} == {"ubuntu-24.04"})
        await s.settle()
        assert s.said() == WORKS
        # a step that doesn't fit is told, and nothing is begun
        s.edit(maxHourlyCost={"amount": str(one * Decimal("3.5")), "currency": "USD"})
        s.edit_pool(image={"name": "debian-12"})
        await s.until(lambda: s.said() == WAITS)
        approve(s)
        await s.until(lambda: s.said() == ("False", "OverMaxHourlyCost"))
        assert s.message().startswith("the next step costs")
        await s.settle()
        assert len(s.living()) == 3 and {i.image for i in s.living()} == {"ubuntu-24.04"}


@scene
async def test_a_roll_out_waits_where_its_account_has_no_room_for_a_machine_more(s: Scene) -> None:
    async with s.operator():
        await up(s, replicas=2)
        s.change(CLOUD_ACCOUNT, "lab", lambda obj: obj["spec"].update(limits={"machines": 2}))
        s.edit_pool(image={"name": "ubuntu-24.04"})
        await s.until(lambda: s.said() == WAITS)
        approve(s)
        await s.until(lambda: s.said() == ("False", "QuotaExceeded"))
        await s.settle()
        assert s.message() == "`spec.limits.machines` of CloudAccount 'lab' leaves no room to replace machines"
        assert s.names() == ["lab-workers-0", "lab-workers-1"]
        s.change(CLOUD_ACCOUNT, "lab", lambda obj: obj["spec"].update(limits={"machines": 3}))
        await s.until(lambda: {i.image for i in s.living()} == {"ubuntu-24.04"})
        await s.settle()
        assert s.said() == WORKS
        assert all(m["spec"]["attempt"] == 1 for m in s.machines()), "it was tried in vain"


# -- what was approved is kept


@scene
async def test_while_a_larger_quote_waits_what_dies_is_replaced(s: Scene) -> None:
    async with s.operator():
        first = await up(s)
        before, hourly = types(s), s.hourly()
        s.edit(replicas=5)
        await s.until(lambda: s.said() == WAITS)
        for _ in range(2):
            await lose(s, 3)
            status = s.cluster_status()
            assert s.said() == WAITS
            assert (types(s), s.hourly()) == (before, hourly)
            assert status["approvedQuote"] == first
            assert sum(d["count"] for d in status["placement"]["decisions"]) == 5
            assert sum(d["count"] for d in status["approved"]["decisions"]) == 3
        approve(s)
        await s.until(lambda: s.said() == WORKS)
        assert len(s.living()) == 5
        assert "decisions" not in s.cluster_status()["approved"]


@pytest.mark.parametrize("restarts", [False, True])
def test_while_a_dearer_spec_waits_the_old_one_is_kept(restarts: bool) -> None:
    @scene
    async def run(s: Scene) -> None:
        async with s.operator():
            first = await up(s)
            before, spec = types(s), s.get(VIRTUAL_CLUSTER, "lab")["spec"]
            assert not restarts or s.edit_pool(alternatives=LARGE, image={"name": "ubuntu-24.04"}) is None
        if not restarts:
            s.edit_pool(alternatives=LARGE, image={"name": "ubuntu-24.04"})
        async with s.operator():
            await s.until(lambda: s.said() == WAITS)
            await lose(s, 3)
            images = {i.image for i in s.living()}
            assert types(s) == before and "ubuntu-24.04" not in images
        lost = s.living()[0].id
        s.cloud.vanish(lost)  # while nobody looks
        async with s.operator():
            await s.until(lambda: len(s.living()) == 3)
            await s.settle()
            assert types(s) == before and {i.image for i in s.living()} == images
            assert (s.said(), s.cluster_status()["approvedQuote"]) == (WAITS, first)
            # as it was: nobody needs to approve that again
            s.edit(pools=spec["pools"])
            await s.until(lambda: s.said() == WORKS)
            assert s.cluster_status()["quote"]["hash"] == first
            await lose(s, 3)
            assert (s.said(), types(s)) == (WORKS, before)

    run()


@scene
async def test_a_roll_out_goes_on_while_a_larger_quote_waits(s: Scene) -> None:
    async with s.operator():
        await up(s)
        s.edit_pool(alternatives=LARGE)
        await s.until(lambda: s.said() == WAITS)
        second = approve(s)
        await s.until(lambda: 4000 in vcpu(s))
        s.edit(replicas=5)
        await s.until(lambda: vcpu(s) == [4000] * 3)
        await s.settle()
        assert (s.said(), s.cluster_status()["approvedQuote"]) == (WAITS, second)
        approve(s)
        await s.until(lambda: s.said() == WORKS)
        assert vcpu(s) == [4000] * 5


@scene
async def test_a_roll_out_that_is_made_smaller_asks_no_more(s: Scene) -> None:
    async with s.operator():
        await up(s)
        s.edit_pool(alternatives=LARGE)
        await s.until(lambda: s.said() == WAITS)
        second = approve(s)
        await s.until(lambda: 4000 in vcpu(s))
        s.edit(replicas=2)
        await s.until(lambda: vcpu(s) == [4000] * 2)
        await s.settle()
        status = s.cluster_status()
        assert s.said() == WORKS
        assert second != status["approvedQuote"] == status["quote"]["hash"]
        assert [d["count"] for d in status["placement"]["decisions"]] == [2]


@scene
async def test_of_several_that_died_those_are_replaced_that_cost_no_more(s: Scene) -> None:
    async with s.operator() as (_, accounts):
        first = await up(s)
        [kind] = set(types(s))
        rows = [r for r in s.cloud.stock.rows.values() if r.type == kind]
        mine = s.living()[0]
        for one in s.living()[:2]:
            s.cloud.vanish(one.id)
        for row in rows:
            row.free = 0
        account = accounts.get("ns", "lab")
        assert account is not None
        account.survey_wanted.set()
        await s.until(lambda: s.said() == WAITS, 900)
        waiting = s.cluster_status()["quote"]["hash"]
        assert len(s.living()) == 1
        row = s.cloud.stock.rows[mine.type, mine.region, mine.zone, "OnDemand"]
        row.free = 1
        account.survey_wanted.set()
        await s.until(lambda: len(s.living()) == 2, 900)
        await s.settle()
        assert types(s) == [kind] * 2
        assert s.hourly() == 2 * row.hourly_nanos
        status = s.cluster_status()
        assert (s.said(), status["approvedQuote"]) == (WAITS, first)
        assert waiting != status["quote"]["hash"], "it names what is still to be made"


@scene
async def test_an_approval_shrinks_though_another_quote_waits(s: Scene) -> None:
    async with s.operator():
        first = await up(s)
        s.edit_pool(alternatives=LARGE)
        await s.until(lambda: s.said() == WAITS)
        s.edit(replicas=2)
        await s.until(lambda: len(s.living()) == 2)
        await s.settle()
        status = s.cluster_status()
        assert status["approvedQuote"] != first
        assert sum(d["count"] for d in status["approved"]["decisions"]) == 2
        assert sum(d["count"] for d in status["placement"]["decisions"]) == 2
        s.edit(replicas=3)
        await s.settle()
        assert len(s.living()) == 2, "what isn't approved any more came back"
        await lose(s, 2)
        assert vcpu(s) == [2000] * 2


@scene
async def test_who_asks_for_approval_later_keeps_what_runs(s: Scene) -> None:
    s._put(PLACEMENT_POLICY, "house", {"mode": "Cheapest"})
    s.cluster(placement={"policyRef": {"name": "house"}})
    async with s.operator():
        await s.until(lambda: s.said() == WORKS)
        await s.settle()
        assert "approved" not in s.cluster_status()
        before = types(s)
        s.edit(apply=APPROVAL, replicas=4)
        await s.until(lambda: s.said() == WAITS)
        s.change(PLACEMENT_POLICY, "house", lambda obj: obj["spec"].update(mode="Random", seed=3))
        await asyncio.sleep(60)
        await lose(s, 3)
        assert types(s) == before


@scene
async def test_without_a_record_nothing_is_made_that_nobody_approved(s: Scene) -> None:
    async with s.operator():
        await up(s)
    s.change(VIRTUAL_CLUSTER, "lab", lambda obj: obj["status"].update(approved={"spec": "{not a spec"}))
    s.edit_pool(alternatives=LARGE)
    async with s.operator():
        await s.until(lambda: s.said() == WAITS)
        s.cloud.vanish(s.living()[0].id)
        await s.settle()
        assert len(s.living()) == 2


@scene
async def test_what_is_kept_is_never_more_than_is_asked_for_and_was_approved(s: Scene) -> None:
    async with s.operator():
        await up(s, replicas=1, pools=[
            {"name": "workers", "alternatives": [{"name": "any", "machine": SMALL}]},
            {"name": "more", "replicas": 2, "alternatives": [{"name": "any", "machine": SMALL}]},
        ])  # fmt: skip
        obj = s.get(VIRTUAL_CLUSTER, "lab")
        approved = read_approved(obj)
        assert approved is not None
        for replicas, units in ((5, 1), (1, 1), (0, 0)):
            changed = read_cluster_of(obj, replicas)
            found, quote = kept(approved, changed)
            assert [(p.name, p.replicas) for p in found.pools] == [("workers", units), ("more", 2)]
            assert quote.hash == obj["status"]["approvedQuote"]


def read_cluster_of(obj: Any, replicas: int) -> Any:
    from cloudmesh.api.virtualcluster import VirtualCluster

    spec = {**obj["spec"], "replicas": replicas}
    return read_cluster(VirtualCluster.model_validate({**obj, "spec": spec, "status": {}}))


# -- crashes


async def approved_three(s: Scene) -> None:
    s.cluster(replicas=2, apply=APPROVAL)
    async with s.operator():
        await s.until(lambda: s.said() == WAITS)
        approve(s)
        await s.settle(quiet=3.0)


def test_a_crash_at_any_call_of_an_approved_roll_out() -> None:
    async def change(s: Scene) -> None:
        s.edit_pool(alternatives=LARGE)
        async with s.operator():
            await s.until(lambda: s.said() == WAITS)
        approve(s)

    async def rolled(s: Scene) -> None:
        await s.until(lambda: s.said() == WORKS, 300)
        await s.settle(quiet=6.0)
        status = s.cluster_status()
        marks = s.get(VIRTUAL_CLUSTER, "lab")["metadata"]["annotations"]
        assert vcpu(s) == [4000] * 2
        assert status["approvedQuote"] == status["quote"]["hash"] == marks["cloudmesh.org/approved-quote"]
        assert len(s.cloud.meter.lines) == 4  # each was made once

    survive(approved_three, change, rolled, at_least=20)


def test_a_crash_at_any_call_while_what_was_approved_is_kept() -> None:
    async def change(s: Scene) -> None:
        s.edit_pool(alternatives=LARGE)
        s.cloud.vanish(s.living()[0].id)

    async def is_kept(s: Scene) -> None:
        await s.until(lambda: len(s.living()) == 2, 300)
        await s.settle(quiet=6.0)
        status = s.cluster_status()
        assert vcpu(s) == [2000] * 2
        assert s.said() == WAITS
        assert sum(d["count"] for d in status["approved"]["decisions"]) == 2
        assert len(s.cloud.meter.lines) == 3

    survive(approved_three, change, is_kept, at_least=10)
