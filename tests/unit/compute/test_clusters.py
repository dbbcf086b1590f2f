"""Lives of clusters on the memory cloud: up, scaled, rolled, failed over, down."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from tests.unit.compute.cluster_scene import Scene, scene
from tests.unit.compute.machine_scene import NAMESPACES

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, PLACEMENT_POLICY, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.engine import CONFIG_MAP, SECRET


@scene
async def test_a_cluster_comes_up_and_goes(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified"), s.message()
        assert s.names() == ["lab-workers-0", "lab-workers-1", "lab-workers-2"]
        assert len(s.living()) == 3
        status = s.cluster_status()
        assert (status["replicas"], status["readyReplicas"], status["machines"]) == (3, 3, 3)
        assert status["desiredReplicas"] == 3
        assert status["clouds"] == "lab"
        assert status["selector"] == "cloudmesh.org/cluster=lab,cloudmesh.org/pool=workers"
        assert status["quote"]["hash"] == status["approvedQuote"]
        assert status["observedGeneration"] == 1
        for type_ in ("Scheduled", "Provisioned", "Reachable", "Bootstrapped", "Healthy", "WithinBudget"):
            assert s.said(type_)[0] == "True", s.message(type_)
        machine = s.get(VIRTUAL_MACHINE, "lab-workers-0")
        assert machine["metadata"]["ownerReferences"][0]["name"] == "lab"
        assert s.is_there(SECRET, "lab-vc-ssh")
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.settle()
        assert not s.is_there(VIRTUAL_CLUSTER, "lab")
        assert s.machines() == []
        assert s.living() == []
        s.once()


@scene
async def test_the_quote_is_told_before_anything_starts(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
    writes = [(kind.kind, act) for act, kind, _ in s.api.store.writes]
    first = next(n for n, (kind, act) in enumerate(writes) if kind == "VirtualMachine")
    history = [n for n, (kind, _) in enumerate(writes) if kind == "VirtualCluster"]
    assert len([n for n in history if n < first]) >= 2  # the user's, the finalizer, the quote
    status = s.cluster_status()
    decisions = status["placement"]["decisions"]
    assert sum(d["count"] for d in decisions) == 3
    made = [(m["spec"]["offer"]["type"], m["spec"]["offer"]["zone"]) for m in s.machines()]
    assert sorted(made) == sorted((d["type"], d["zone"]) for d in decisions for _ in range(d["count"]))
    total = sum(int(float(d["hourly"]) * 10**9 + 0.5) * d["count"] for d in decisions)
    assert total == s.hourly()
    assert status["quote"]["hourly"]["currency"] == "USD"
    story = s.told("Provisioning")
    assert len(story) == 1
    assert "lab-workers-0" in story[0]
    assert status["quote"]["hash"][:12] in story[0]


@scene
async def test_an_unchanged_cluster_costs_no_write(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
        before = s.writes(VIRTUAL_CLUSTER), s.writes(VIRTUAL_MACHINE)
        await s.settle()
        assert (s.writes(VIRTUAL_CLUSTER), s.writes(VIRTUAL_MACHINE)) == before


@scene
async def test_money_is_written_seldom(s: Scene) -> None:
    s.cluster()
    async with s.operator():
        await s.settle()
        before = s.writes(VIRTUAL_CLUSTER)
        await asyncio.sleep(1800)
        assert 1 <= s.writes(VIRTUAL_CLUSTER) - before <= 6
        told = float(s.cluster_status()["cost"]["accrued"])
        billed = sum(line.charged(s.cloud.now()) for line in s.cloud.meter.lines.values()) / 10**9
        assert billed * 0.8 <= told <= billed * 1.01


@scene
async def test_many_machines_cost_few_writes_of_the_cluster(s: Scene) -> None:
    s.cluster(replicas=30)
    async with s.operator():
        await s.settle()
    assert s.said() == ("True", "AsSpecified")
    assert s.writes(VIRTUAL_CLUSTER) <= 12


@scene
async def test_scaling_up_and_down(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        first = s.cluster_status()["quote"]["hash"]
        s.edit(replicas=4)
        await s.settle()
        assert len(s.living()) == 4
        assert s.cluster_status()["quote"]["hash"] != first
        assert s.cluster_status()["replicas"] == 4
        s.edit(replicas=1)
        await s.settle()
        assert len(s.living()) == 1
        assert s.said() == ("True", "AsSpecified")
        s.edit(replicas=0)
        await s.settle()
        assert s.living() == []
        assert s.said() == ("True", "AsSpecified")
        s.once()


@scene
async def test_a_changed_spec_rolls_through(s: Scene) -> None:
    s.cluster(replicas=3)
    async with s.operator():
        await s.settle()
        old = {i.id for i in s.living()}
        s.edit_pool(image={"name": "ubuntu-24.04"})
        least = 3

        def rolled() -> bool:
            nonlocal least
            up = [m for m in s.machines() if s.condition(name=m["metadata"]["name"])[0] == "True"]
            least = min(least, len(up))
            assert len(s.living()) <= 5
            return s.said() == ("True", "AsSpecified") and not old & {i.id for i in s.living()}

        await s.until(rolled)
        assert least == 3
        assert len(s.living()) == 3
        assert {i.image for i in s.living()} == {"ubuntu-24.04"}
        s.once()


@scene
async def test_no_capacity_means_the_next_offer_within_a_second(s: Scene) -> None:
    s.cluster(replicas=1)
    rows = [row for row in s.cloud.stock.rows.values() if row.purchase == "OnDemand"]
    s.cloud.set_free(0, late=True, type_=min(rows, key=lambda row: row.hourly_nanos).type)
    for row in rows:
        row.fails_late, row.tell_free = False, False
    tries: list[tuple[float, bool]] = []
    run = s.cloud.run_instance

    def noted(order: Any) -> Any:
        tries.append((asyncio.get_running_loop().time(), False))
        made = run(order)
        tries[-1] = (tries[-1][0], True)
        return made

    s.cloud.run_instance = noted  # type: ignore[method-assign]
    async with s.operator():
        await s.settle()
    assert next(went for _, went in tries) is False
    assert tries[-1][1] is True
    assert all(after - before <= 1.0 for (before, _), (after, _) in itertools.pairwise(tries))
    assert s.said() == ("True", "AsSpecified"), s.message()
    assert len(s.living()) == 1
    assert len(s.machines()) == 1
    assert s.machines()[0]["spec"]["attempt"] > 1
    assert any("no capacity at" in note and "next is" in note for note in s.told("CapacityUnavailable"))
    s.once()


@pytest.mark.parametrize("late", [True, False])
def test_no_capacity_anywhere_is_told_and_tried_again(late: bool) -> None:
    @scene
    async def test(s: Scene) -> None:
        s.cluster(replicas=2)
        s.cloud.set_free(0, late=late)
        async with s.operator():
            await asyncio.sleep(120)
            assert s.said()[0] == "False"
            assert s.said()[1] in ("CapacityUnavailable", "QuotaExceeded", "Provisioning", "NoFeasibleOffer"), s.said()
            calls = s.cloud.calls["RunInstance"]
            assert calls <= 80  # each offer once, not one for ever
            await asyncio.sleep(60)
            assert s.cloud.calls["RunInstance"] - calls <= 20
            s.cloud.set_free(None)
            await s.until(lambda: s.said() == ("True", "AsSpecified"), 8000)
            assert len(s.living()) == 2
            s.once()

    test()


@scene
async def test_a_machine_deleted_behind_our_back_is_replaced(s: Scene) -> None:
    s.cluster(replicas=3)
    async with s.operator():
        await s.settle()
        victim = s.living()[0]
        s.cloud.terminate(victim.id)
        await s.until(lambda: victim.id not in {i.id for i in s.living()} and len(s.living()) == 3, 300)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert len(s.machines()) == 3
        s.once()
        s.no_orphans()


@scene
async def test_a_machine_that_ends_for_want_of_room_makes_way_for_the_next_offer(s: Scene) -> None:
    s.cloud.habits.ends_failed = True
    s.cluster(replicas=1)
    rows = [row for row in s.cloud.stock.rows.values() if row.purchase == "OnDemand" and row.arch == "amd64"]
    cheapest = min(rows, key=lambda row: row.hourly_nanos).type
    places = s.cloud.set_free(0, late=True, type_=cheapest)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 120.0)
        assert [i.type == cheapest for i in s.living()] == [False]
        assert len(s.cloud.meter.lines) <= places + 1, "no place is tried twice"
        assert not s.told("Gone")


@scene
async def test_spot_with_a_base_falls_back_to_on_demand(s: Scene) -> None:
    s.cluster(replicas=4, pool={"purchase": {"baseOnDemand": 2, "aboveBase": "SpotWithFallback"}})
    async with s.operator():
        await s.settle()
        assert sorted(i.purchase for i in s.living()) == ["OnDemand", "OnDemand", "Spot", "Spot"]
        s.cloud.set_free(0, purchase="Spot", late=True)
        for spot in [i for i in s.living() if i.purchase == "Spot"]:
            s.cloud.reclaim(spot.id)
        await s.until(lambda: len([i for i in s.living() if i.purchase == "OnDemand" and i.state == "Running"]) == 4)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        s.once()


@scene
async def test_two_clusters_compete_for_the_last_machines(s: Scene) -> None:
    s.cloud.set_free(0)
    row = next(r for r in s.cloud.stock.rows.values() if r.arch == "amd64" and r.purchase == "OnDemand")
    row.free, row.tell_free, row.fails_late = 3, False, False
    s.cluster("one", replicas=2)
    s.cluster("two", replicas=2)
    async with s.operator():
        await asyncio.sleep(60)
        assert len([i for i in s.living() if i.state == "Running"]) == 3
        row.free += 1
        await s.until(lambda: len([i for i in s.living() if i.state == "Running"]) == 4, 8000)
        await s.until(lambda: s.said(name="one")[0] == s.said(name="two")[0] == "True")
        s.once()


# -- what is wrong


@scene
async def test_a_missing_account_is_named(s: Scene) -> None:
    s.cluster(accounts=[{"name": "nowhere"}])
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert "`spec.accounts[0].name`" in s.message()
        assert s.said("Stalled")[0] == "True"
        s.add_account("nowhere")
        await s.until(lambda: s.said() == ("True", "AsSpecified"))


@scene
async def test_accounts_are_chosen_by_label(s: Scene) -> None:
    s.cluster(accounts=None, accountSelector={"matchLabels": {"team": "a"}})
    s.change(VIRTUAL_CLUSTER, "lab", lambda o: o["spec"].pop("accounts"))
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert "team=a" in s.message()
        s.change(CLOUD_ACCOUNT, "lab", lambda o: o["metadata"].update(labels={"team": "a"}))
        await s.until(lambda: s.said() == ("True", "AsSpecified"))


@scene
async def test_without_an_account_the_default_is_made_once(s: Scene) -> None:
    made: list[str] = []

    async def default(engine: Any, namespace: str) -> None:
        made.append(namespace)
        if engine.cache.get(CLOUD_ACCOUNT, namespace, "pods") is None:
            s.add_account("pods")

    s.default_account = default
    s.cluster()
    s.change(VIRTUAL_CLUSTER, "lab", lambda o: o["spec"].pop("accounts"))
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified"), s.message()
        assert s.cluster_status()["clouds"] == "pods"
        assert set(made) == {"ns"}
        # the first look takes a moment, and nobody needs to be told
        assert not [note for reason, note in s.events() if "look" in note]


@scene
async def test_an_account_that_nobody_can_look_at_is_told_after_a_while(s: Scene) -> None:
    s.add_account("far")
    s.api.remove(NAMESPACES, "", "kube-system")  # nobody knows whose machines are ours
    s.cluster(accounts=[{"name": "far"}])
    async with s.operator():
        await s.until(lambda: s.message() == "CloudAccount 'far' is being looked at")
        assert s.said() == ("Unknown", "Pending")
        await s.until(lambda: s.said() == ("Unknown", "CloudUnavailable"), 60.0)
        assert s.message() == "CloudAccount 'far' hasn't been looked at yet"


@scene
async def test_a_cluster_says_why_its_account_has_no_provider(s: Scene) -> None:
    s.add_account("far", credentials={"secretRef": {"name": "missing"}})
    s.cluster(accounts=[{"name": "far"}])
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "CloudUnavailable"), 60.0)
        assert s.message() == "CloudAccount 'far' can't be used: Secret 'missing' isn't there"


@scene
async def test_a_missing_policy_is_named(s: Scene) -> None:
    s.cluster(placement={"policyRef": {"name": "mine"}})
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert "`spec.placement.policyRef.name`" in s.message()
        s._put(PLACEMENT_POLICY, "mine", {"mode": "Cheapest"})
        await s.until(lambda: s.said() == ("True", "AsSpecified"))


@scene
async def test_an_impossible_request_says_how_many_offers_fell_where(s: Scene) -> None:
    s.cluster(pool={"alternatives": [{"name": "any", "machine": {"memory": {"min": "9000Gi"}}}]})
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert s.said("Scheduled") == ("False", "NoFeasibleOffer")
        assert "emory" in s.message()
        assert s.cluster_status()["placement"]["rejected"][0]["count"] > 0
        assert s.machines() == []


@scene
async def test_a_stranger_under_our_name_is_left_alone(s: Scene) -> None:
    s.add_machine("lab-workers-1")
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NameConflict")
        assert "lab-workers-1" in s.message()
        assert "ownerReferences" not in s.get(VIRTUAL_MACHINE, "lab-workers-1")["metadata"]
        await s.delete(VIRTUAL_MACHINE, "lab-workers-1")
        await s.until(lambda: s.said() == ("True", "AsSpecified"))


@scene
async def test_a_cloud_that_doesnt_answer_destroys_nothing(s: Scene) -> None:
    from cloudmesh.compute.providers.memory import Fault

    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        before = {i.id for i in s.living()}
        s.cloud.faults.add(Fault("drop", "*", times=None))
        await s.until(lambda: s.said()[0] == "Unknown", 600)
        assert s.said()[1] == "CloudUnavailable"
        await asyncio.sleep(3600)
        s.cloud.faults.rules.clear()
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 900)
        assert {i.id for i in s.living()} == before


# -- outputs


@scene
async def test_inventory_and_logins_are_written(s: Scene) -> None:
    s.info = s.info.__class__(**{**{f: getattr(s.info, f) for f in s.info.__slots__}, "ssh": True})
    s.cluster(replicas=2, access={"outputs": ["SSHConfigSecret", "InventoryConfigMap"]})

    async def probe(host: str, port: int) -> None:
        """Answers."""

    async with s.operator(probe=probe):
        await s.settle()
        assert s.said() == ("True", "AsSpecified"), s.message()
        found = s.api.get(CONFIG_MAP, "ns", "lab-vc-inventory")
        assert found is not None
        assert "lab-workers-1" in found["data"]["hosts"]
        assert [e["name"] for e in s.cluster_status()["endpoints"]] == ["lab-workers-0", "lab-workers-1"]


@scene
async def test_a_machine_to_adopt_that_is_not_there_stalls(s: Scene) -> None:
    s.cluster(replicas=1, pool={"adopt": [{"accountRef": {"name": "lab"}, "providerID": "m-4711"}]})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "InvalidRequest"))
        assert s.said("Stalled") == ("True", "InvalidRequest")
        assert "'m-4711' can't be taken over from CloudAccount 'lab'" in s.message()
        real = s.cloud.make_by_hand(name="theirs")
        s.edit_pool(adopt=[{"accountRef": {"name": "lab"}, "providerID": real.id}])
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert [m["status"]["providerID"] for m in s.machines()] == [real.id]


@scene
async def test_one_machine_is_and_two_are(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        s.cloud.habits.delete_seconds = 60.0
        await s.delete(VIRTUAL_MACHINE, "lab-workers-1")
        s.edit(replicas=1)
        await s.until(lambda: s.names() == ["lab-workers-0"])
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.until(lambda: s.said()[1] == "Deleting")
        assert s.message() == "1 machine is being deleted, such as 'lab-workers-0'"
