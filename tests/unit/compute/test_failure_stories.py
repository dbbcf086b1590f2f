"""What broke other systems, one test each: lost answers, lag, misread failures, free machines, storms."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.compute import cluster_scene
from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, PRICE_SHEET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers.memory import Fault
from cloudmesh.compute.providers.memory.instance import Page
from cloudmesh.compute.tokens import TAG_UID
from cloudmesh.policy.model import Alternative, Needs, PoolRequest, Request
from cloudmesh.policy.place import place
from cloudmesh.testing import Faults, FaultyTransport, run_virtual


def made(s: Scene) -> int:
    """Machines that the cloud ever made."""
    return len(s.cloud.meter.lines)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("action", ["lose", "fail-after", "hang-after", "drop", "hang", "twice"])
def test_1_a_lost_answer_at_create_is_looked_up_before_any_second_try(action: str, native: bool) -> None:
    async def main() -> None:
        s = Scene(native=native, grace=6)
        s.cloud.habits.list_lag_seconds = 5.0
        s.cloud.habits.find_lag_seconds = 5.0
        if action == "twice" and not native:
            s.cloud.habits.unique_names = True
        s.cloud.faults.add(Fault(action, "RunInstance"))
        s.add_account()
        s.add_machine(cluster=s.add_cluster())
        async with s.operator():
            await s.until(s.is_ready, 300.0)
            await asyncio.sleep(120.0)
            assert made(s) == 1
            (machine,) = s.living()
            assert machine.tags[TAG_UID] == s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"]
            assert machine.id == s.status()["providerID"]

    run_virtual(main())


@scene
async def test_2_young_and_invisible_is_not_gone(s: Scene) -> None:
    s.use(grace_seconds=90)
    s.cloud.habits.list_lag_seconds = 80.0
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(lambda: bool(s.status().get("providerID")))
        for _second in range(120):
            assert s.condition()[1] not in ("Gone", "Preempted")
            await asyncio.sleep(1.0)
        assert s.is_ready()
        assert made(s) == 1
    # a new leader that finds it invisible waits as well
    s.cloud.freeze_listings()
    s.add_machine("late")
    async with s.operator():
        await s.until(lambda: bool(s.status("late").get("providerID")))
    async with s.operator():
        for _second in range(85):
            assert s.condition(name="late")[1] != "Gone"
            await asyncio.sleep(1.0)
        s.cloud.thaw_listings()
        await s.until(lambda: s.is_ready("late"))


@scene
async def test_3_a_failed_read_of_our_own_records_deletes_nothing(s: Scene) -> None:
    faults = Faults()
    s.add_account()
    for number in range(5):
        s.add_machine(f"m{number}")
    async with s.operator():
        await s.until(lambda: all(s.is_ready(f"m{n}") for n in range(5)))
    # a restart while the API server doesn't answer: no cache, no records, only machines
    faults.add("answer", path="virtualmachines", status=503, times=None)
    async with s.operator(transport=FaultyTransport(s.api, faults)):
        await asyncio.sleep(900.0)
        assert len(s.living()) == 5
        faults.clear()
        await asyncio.sleep(600.0)
        assert len(s.living()) == 5
        assert made(s) == 5
        assert all(s.is_ready(f"m{n}") for n in range(5))


@scene
async def test_4_delete_accepted_is_not_deleted(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        s.cloud.habits.delete_seconds = 300.0
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(290.0)
        assert s.is_there(VIRTUAL_MACHINE, "m")
        assert "endedAt" not in s.status()
        assert len(s.living()) == 1
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert s.living() == []


@scene
async def test_5_not_found_after_a_delete_proves_nothing(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        node = s.status()["providerID"]
        # the answer to the delete says that there is no such machine, and it runs on
        s.cloud.faults.add(Fault("refuse", "GetInstance", code="InstanceNotFound"))
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(20.0)
        assert s.is_there(VIRTUAL_MACHINE, "m")
        assert [machine.id for machine in s.living()] == [node]
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert s.living() == []


@scene
async def test_6_nothing_is_added_to_a_parent_that_goes(s: Scene) -> None:
    faults = Faults()
    s.add_account()
    cluster = s.add_cluster()
    s.change(VIRTUAL_CLUSTER, "c", lambda obj: obj["metadata"].update(finalizers=["example.org/hold"]))
    async with s.operator(transport=FaultyTransport(s.api, faults)):
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        # the watch is silent: the cache still holds the cluster as it was before its deletion
        faults.add("drop", path="virtualclusters.*watch", times=None)
        await s.delete(VIRTUAL_CLUSTER, "c")
        s.add_machine(cluster=cluster)
        await asyncio.sleep(300.0)
        assert made(s) == 0
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert s.cloud.resources.groups == {}


@scene
async def test_7_a_price_of_nothing_is_unknown_and_never_chosen_under_a_limit(s: Scene) -> None:
    cheapest = min(s.cloud.stock.rows.values(), key=lambda row: row.hourly_nanos)
    cheapest.hourly_nanos = 0
    s.add_account()
    s.add_machine(offer={"type": cheapest.type, "region": cheapest.region, "zone": cheapest.zone,
                         "purchase": cheapest.purchase})  # fmt: skip
    async with s.operator() as (_, accounts):
        await s.until(s.is_ready)
        account = accounts.get("ns", "lab")
        assert account is not None
        assert "hourlyPrice" not in s.status()
        free = [offer for offer in account.offers if offer.price is None]
        assert [offer.type for offer in free] == [cheapest.type]
        pools = (PoolRequest("p", 1, (Alternative("any", Needs()),)),)
        asked = Request(pools=pools, accounts=("lab",), max_hourly_nanos=10**12)
        (decision,) = place(asked, accounts.table("ns", ["lab"])).decisions
        assert decision.offer.price is not None
        assert decision.offer.price.nanos > 0
        # only somebody who declares it may give a machine away
        s._put(PRICE_SHEET, "own", {"currency": "USD", "items": [{"match": {"type": cheapest.type}, "hourly": "0"}]})
        await s.until(lambda: s.status().get("hourlyPrice", {}).get("confidence") == "declared", 120.0)


@pytest.mark.parametrize("native", [True, False])
def test_8_a_create_that_takes_longer_than_its_time_out_makes_one_machine(native: bool) -> None:
    async def main() -> None:
        s = Scene(native=native)
        s.cloud.faults.add(Fault(None, "RunInstance", answer_seconds=142.0, times=1))
        s.add_account()
        s.add_machine()
        async with s.operator():
            await s.until(s.is_ready, 300.0)
            await asyncio.sleep(300.0)
            assert made(s) == 1
            assert len(s.living()) == 1

    run_virtual(main())


@scene
async def test_9_the_same_name_twice_is_never_one_machine(s: Scene) -> None:
    s.use(native_tokens=False)
    stranger = s.cloud.make_by_hand(name="m")
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        assert s.status()["providerID"] != stranger.id
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert [machine.id for machine in s.living()] == [stranger.id]
    # where names are unique it is a conflict that is told, and the stranger's machine is left alone
    s.cloud.habits.unique_names = True
    async with s.operator():
        s.add_machine()
        await s.until(lambda: s.condition() == ("False", "NameConflict"))
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert [machine.id for machine in s.living()] == [stranger.id]


@pytest.mark.parametrize("kind", ["nothing is heard", "an error that nobody has named", "a bug"])
def test_10_no_offer_is_tried_for_ever(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        s = Scene()
        if kind == "nothing is heard":
            s.cloud.faults.add(Fault("drop", "RunInstance", times=None))
        elif kind == "a bug":

            def broken(order: object) -> None:
                raise ZeroDivisionError("division by zero")

            monkeypatch.setattr(s.cloud, "run_instance", broken)
        else:
            s.cloud.faults.add(Fault("refuse", "RunInstance", code="BlueMoon", times=None))
        s.add_account()
        s.add_machine(cluster=s.add_cluster())
        async with s.operator() as (_, accounts):
            await s.until(lambda: s.condition("Created") == ("False", "CloudUnavailable"), 120.0)
            account = accounts.get("ns", "lab")
            assert account is not None
            offer = account.offer(s.get(VIRTUAL_MACHINE, "m")["spec"]["accountRef"]["name"] + _place(s))
            assert offer is not None
            assert account.failures.blocked(offer, accounts.now()) is not None
            s.owner.woken.clear()
            await asyncio.sleep(600.0)
            assert made(s) == 0

    run_virtual(main())


def _place(s: Scene) -> str:
    offer = s.get(VIRTUAL_MACHINE, "m")["spec"]["offer"]
    return f"/{offer['type']}/{offer['region']}/{offer['zone']}/{offer['purchase']}"


@cluster_scene.scene
async def test_11_no_storm_of_replacements(s: cluster_scene.Scene) -> None:
    s.cluster(replicas=10)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await s.settle()
        # a listing that is complete and empty, once: nothing is gone
        before = len(s.api.store.writes)
        real, empty = s.cloud.list_instances, [Page(())]
        s.cloud.list_instances = lambda *args: empty.pop() if empty else real(*args)  # type: ignore[method-assign]
        await s.until(lambda: not empty)
        await asyncio.sleep(120.0)
        assert [w for w in s.api.store.writes[before:] if w[1] in (VIRTUAL_MACHINE, VIRTUAL_CLUSTER)] == []
        assert len(s.living()) == 10
        # most of the machines fail at once: those that are told first may be replaced, up to maxUnhealthy; then the
        # pool's breaker holds
        for machine in s.living()[:8]:
            s.cloud.change(machine.id, state="Failed")
        await s.until(lambda: s.said("Healthy") == ("False", "TooManyUnhealthy"))
        await s.settle()
        made, held = len(s.cloud.meter.lines), {m["metadata"]["uid"] for m in s.machines()}
        assert made <= 10 + 4
        await asyncio.sleep(3600.0)
        assert s.said("Healthy") == ("False", "TooManyUnhealthy")
        assert {m["metadata"]["uid"] for m in s.machines()} == held
        assert len(s.cloud.meter.lines) == made
