"""What comes later in a cluster's life: money, approval, sleep, lifetime, pause, adoption, illness."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.unit.compute.cluster_scene import Scene, now, scene

from cloudmesh.compute.bootstrap import BootstrapState
from cloudmesh.compute.kinds import BUDGET, CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.engine import CONFIG_MAP, Transient
from cloudmesh.testing import run_virtual


def hourly(s: Scene) -> float:
    return float(s.cluster_status()["quote"]["hourly"]["amount"])


# -- money


@scene
async def test_a_limit_that_is_too_small_starts_nothing(s: Scene) -> None:
    s.cluster(maxHourlyCost={"amount": "0.001", "currency": "USD"})
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "OverMaxHourlyCost")
        assert s.said("Stalled")[0] == "True"
        assert s.said("WithinBudget")[0] == "False"
        assert s.machines() == []
        s.edit(maxHourlyCost={"amount": "5", "currency": "USD"})
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert s.hourly() <= 5 * 10**9


@scene
async def test_a_limit_in_another_currency_is_refused(s: Scene) -> None:
    s.cluster(maxHourlyCost={"amount": "100", "currency": "EUR"})
    async with s.operator():
        await s.settle()
        assert (s.said()[0], s.said("Stalled")[0]) == ("False", "True")
        assert s.machines() == []


@scene
async def test_a_limit_lowered_below_what_runs_is_told(s: Scene) -> None:
    s.cluster(maxHourlyCost={"amount": "5", "currency": "USD"})
    async with s.operator():
        await s.settle()
        s.edit(maxHourlyCost={"amount": "0.05", "currency": "USD"})
        await s.settle()
        assert s.said() == ("False", "OverMaxHourlyCost")
        assert len(s.living()) == 3
        s.edit(replicas=1)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")


@scene
async def test_a_budget_that_is_too_small_starts_nothing(s: Scene) -> None:
    s.budget("0.05")
    s.cluster()
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "BudgetExceeded"), s.message()
        assert s.said("WithinBudget") == ("False", "BudgetExceeded")
        assert s.machines() == []
        assert s.cloud.meter.lines == {}


@scene
async def test_a_budget_in_another_currency_is_named(s: Scene) -> None:
    s.budget("100", currency="EUR")
    s.cluster()
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert "are priced in another currency, such as lab/" in s.message()
        said = "Budget 'money' is in EUR: prices in another currency can't be compared with it"
        assert s.message().endswith(said)
        assert (s.said("WithinBudget"), s.message("WithinBudget")) == (("Unknown", "CurrencyMismatch"), said)
        await s.delete(BUDGET, "money")
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert s.said("WithinBudget")[0] == "True"
        # what runs already goes on, and is told to be out of its sight
        s.budget("100", "later", currency="EUR")
        await s.until(lambda: s.said("WithinBudget") == ("Unknown", "CurrencyMismatch"))
        assert s.message("WithinBudget") == "Budget 'later' is in EUR and doesn't count 3 machines in USD"
        assert s.said() == ("True", "AsSpecified")


@scene
async def test_two_clusters_never_spend_more_than_their_budget(s: Scene) -> None:
    s.budget("0.2")  # 0.0378 an hour each: five machines for the next hour
    s.cluster("one", replicas=4)
    s.cluster("two", replicas=4)
    async with s.operator():
        await s.settle()
        assert s.hourly() <= 200_000_000
        assert sorted(s.said(name=n)[1] for n in ("one", "two")) == ["AsSpecified", "BudgetExceeded"]


@scene
async def test_a_budget_that_is_spent_stops_the_machines(s: Scene) -> None:
    s.budget("0.3")
    s.cluster()
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        await s.until(lambda: s.said()[1] == "BudgetExceeded", 12 * 3600)
        await s.until(lambda: s.hourly() == 0, 600)
        charged = sum(line.charged(s.cloud.now()) for line in s.cloud.meter.lines.values())
        assert charged <= 300_000_000
        assert {i.state for i in s.living()} <= {"Stopped", "Suspended"}
        assert s.cluster_status()["suspendedReason"] == "BudgetExceeded"
        await asyncio.sleep(3600)
        assert s.said()[1] == "BudgetExceeded"
        assert s.hourly() == 0
        s.change(BUDGET, "money", _raise)
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 1200)
        assert len(s.living()) == 3
        s.once()


def _raise(obj: Any) -> None:
    obj["spec"]["amount"] = "100"


@scene
async def test_quota_is_told(s: Scene) -> None:
    for region in s.cloud.stock.regions():
        s.cloud.quotas[(region, "standard")] = 4000
        s.cloud.quotas[(region, "gpu")] = 0
    s.cluster(replicas=6)
    async with s.operator():
        await asyncio.sleep(200)
        assert s.said()[0] == "False"
        assert s.said()[1] in ("QuotaExceeded", "CapacityUnavailable"), s.said()
        assert 2 <= len([i for i in s.living() if i.state == "Running"]) <= 4
        s.cloud.quotas.clear()
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 8000)
        s.once()


# -- approval


def approve(s: Scene, hash_: str) -> None:
    s.annotate(VIRTUAL_CLUSTER, "lab", approved_quote=hash_)


@scene
async def test_nothing_starts_before_the_quote_is_approved(s: Scene) -> None:
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        assert s.said("Reconciling")[0] == "True"
        hash_ = s.cluster_status()["quote"]["hash"]
        assert hash_ in s.message()
        approve(s, "0" * 32)
        await s.settle()
        assert s.machines() == []
        approve(s, hash_)
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert s.cluster_status()["approvedQuote"] == hash_
        made = sorted((m["spec"]["offer"]["type"], m["spec"]["offer"]["zone"]) for m in s.machines())
        decisions = s.cluster_status()["placement"]["decisions"]
        assert made == sorted((d["type"], d["zone"]) for d in decisions for _ in range(d["count"]))
        # a replacement that costs no more needs no new one
        victim = s.living()[0]
        s.cloud.vanish(victim.id)
        await s.until(lambda: len(s.living()) == 3 and victim.id not in {i.id for i in s.living()})
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert s.cluster_status()["quote"]["hash"] == hash_
        # scaling up does; what runs goes on
        s.edit(replicas=4)
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        assert len(s.living()) == 3
        newer = s.cluster_status()["quote"]["hash"]
        assert newer != hash_
        approve(s, newer)
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert len(s.living()) == 4
        # scaling down doesn't
        s.edit(replicas=2)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert len(s.living()) == 2


@scene
async def test_an_approval_that_comes_too_late_is_for_another_quote(s: Scene) -> None:
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        first = s.cluster_status()["quote"]["hash"]
        await s.until(lambda: s.cluster_status()["quote"]["hash"] != first, 1200)
        approve(s, first)
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        assert s.machines() == []


@scene
async def test_a_price_that_rose_asks_again(s: Scene) -> None:
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator() as (_, accounts):
        await s.settle()
        first = s.cluster_status()["quote"]["hash"]
        for row in s.cloud.stock.rows.values():
            row.hourly_nanos *= 2
        account = accounts.get("ns", "lab")
        assert account is not None
        account.survey_wanted.set()
        await s.until(lambda: s.cluster_status()["quote"]["hash"] != first, 120)
        approve(s, first)
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        assert s.cloud.meter.lines == {}


@scene
async def test_an_approval_starts_nothing_of_unknown_price_under_a_budget(s: Scene) -> None:
    for row in s.cloud.stock.rows.values():
        row.told = False
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        s.budget("100", hard="Warn")
        s.budget("100", "strict")
        await s.settle()
        approve(s, s.cluster_status()["quote"]["hash"])
        await s.settle()
        assert s.said()[0] == "False" and "have no known price, such as" in s.message()
        assert s.machines() == [] and s.cloud.meter.lines == {}


@scene
async def test_a_budget_wakes_nothing_of_unknown_price(s: Scene) -> None:
    for row in s.cloud.stock.rows.values():
        row.told = False
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        s.edit(lifecycle={"state": "Suspended"})
        await s.until(lambda: {i.state for i in s.living()} <= {"Stopped", "Suspended"})
        s.budget("100")
        await s.settle()
        s.edit(lifecycle={"state": "Running"})
        await s.settle()
        assert s.said() == ("False", "BudgetExceeded") and "nobody knows the price of lab-workers-" in s.message()
        assert {i.state for i in s.living()} <= {"Stopped", "Suspended"}
        await s.delete(BUDGET, "money")
        await s.until(lambda: s.said() == ("True", "AsSpecified"))


@scene
async def test_a_dearer_replacement_waits_for_approval(s: Scene) -> None:
    s.cluster(apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        hash_ = s.cluster_status()["quote"]["hash"]
        approve(s, hash_)
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        kind = s.machines()[0]["spec"]["offer"]["type"]
        for row in s.cloud.stock.rows.values():
            if row.type == kind:
                row.free, row.tell_free = 0, False
        victim = s.living()[0]
        s.cloud.vanish(victim.id)
        for row in s.cloud.stock.rows.values():
            if row.type == kind:
                row.free = 0
        await s.until(lambda: s.said() == ("False", "AwaitingApproval"), 600)
        assert s.cluster_status()["quote"]["hash"] != hash_
        assert len(s.living()) == 2


# -- sleep


@pytest.mark.parametrize("powers", [True, False])
def test_suspended_and_resumed_by_the_spec(powers: bool) -> None:
    async def main() -> None:
        s = Scene(powers=powers)
        s.add_account()
        s.cluster()
        async with s.operator():
            await s.settle()
            before = {i.id for i in s.living()}
            s.edit(lifecycle={"state": "Suspended"})
            await s.until(lambda: s.said() == ("True", "Suspended"), 300)
            assert s.hourly() == 0 or powers
            assert {i.state for i in s.living()} <= {"Stopped", "Suspended"}
            assert len(s.living()) == (3 if powers else 0)
            assert s.cluster_status()["suspendedReason"] == "Requested"
            assert s.cluster_status()["readyReplicas"] == 0
            s.edit(lifecycle={"state": "Running"})
            await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)
            assert len([i for i in s.living() if i.state == "Running"]) == 3
            assert ({i.id for i in s.living()} == before) is powers
            assert "suspendedAt" not in s.cluster_status()
            s.once()

    run_virtual(main())


@scene
async def test_what_sleeps_is_woken_even_if_more_cant_be_had(s: Scene) -> None:
    s.cluster(replicas=3)
    async with s.operator():
        await s.settle()
        s.edit(lifecycle={"state": "Suspended"})
        await s.until(lambda: s.said() == ("True", "Suspended"), 300)
        s.cloud.vanish(s.living()[0].id)
        await asyncio.sleep(120)
        s.cloud.set_free(0)
        s.edit(lifecycle={"state": "Running"})
        await s.until(lambda: len([i for i in s.living() if i.state == "Running"]) == 2, 300)
        await asyncio.sleep(60)
        assert s.said()[0] == "False"
        s.cloud.set_free(None)
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 4000)
        s.once()


@scene
async def test_an_idle_cluster_falls_asleep_and_is_woken(s: Scene) -> None:
    s.cluster(lifecycle={"idle": {"afterSeconds": 600}})
    async with s.operator():
        await s.settle()
        took = await s.until(lambda: s.said() == ("True", "Suspended"), 1200)
        assert 550 <= took <= 700
        assert s.cluster_status()["suspendedReason"] == "Idle"
        assert s.cluster_status()["suspendedAt"] <= now()
    async with s.operator():  # a restart wakes nobody
        await s.settle()
        assert s.said() == ("True", "Suspended")
        s.annotate(VIRTUAL_CLUSTER, "lab", resume_requested="one")
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)
        assert s.cluster_status()["resumedBy"] == "one"
        await s.until(lambda: s.said() == ("True", "Suspended"), 1200)
        await asyncio.sleep(600)
        assert s.said() == ("True", "Suspended")  # the same value doesn't wake it again
        s.annotate(VIRTUAL_CLUSTER, "lab", resume_requested="two")
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)


@scene
async def test_a_cluster_with_a_running_job_isnt_idle(s: Scene) -> None:
    s.cluster(lifecycle={"idle": {"afterSeconds": 600}})
    s._put(CLUSTER_JOB, "job", {"clusterRef": {"name": "lab"}, "command": ["true"]})
    async with s.operator():
        await s.settle()
        await asyncio.sleep(3000)
        assert s.said() == ("True", "AsSpecified")
        s.api.set_status(CLUSTER_JOB, "ns", "job", {"endedAt": now()})
        took = await s.until(lambda: s.said() == ("True", "Suspended"), 1200)
        assert 500 <= took <= 720


@scene
async def test_a_lifetime_that_is_over_leaves_the_object(s: Scene) -> None:
    s.cluster(lifecycle={"maxLifetimeSeconds": 600})
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        await s.until(lambda: s.said() == ("False", "LifetimeExceeded"), 700)
        await s.settle()
        assert s.living() == []
        assert s.machines() == []
        assert s.said("Stalled")[0] == "True"
        s.edit(lifecycle={"maxLifetimeSeconds": 86400})
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)


@scene
async def test_pause_stops_all_changes(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        s.annotate(VIRTUAL_CLUSTER, "lab", paused="true")
        s.edit(replicas=5)
        await s.settle()
        assert s.said("Paused")[0] == "True"
        assert s.said() == ("True", "AsSpecified")
        assert len(s.living()) == 2
        s.annotate(VIRTUAL_CLUSTER, "lab", paused="false")
        await s.until(lambda: len(s.living()) == 5)
        await s.settle()
        assert s.said("Paused")[0] == "-"


@scene
async def test_orphans_on_purpose(s: Scene) -> None:
    s.cluster(replicas=2, deletionPolicy="Orphan")
    async with s.operator():
        await s.settle()
        before = {i.id for i in s.living()}
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.settle()
        assert not s.is_there(VIRTUAL_CLUSTER, "lab")
        assert s.machines() == []
        assert {i.id for i in s.living()} == before
        await asyncio.sleep(7200)  # nor are they collected later
        assert {i.id for i in s.living()} == before
        assert any(before & {word.strip(":,") for word in note.split()} for note in s.told("Abandoned"))


@scene
async def test_machines_are_taken_over(s: Scene) -> None:
    row = next(r for r in s.cloud.stock.rows.values() if r.arch == "amd64" and r.purchase == "OnDemand")
    stranger = s.cloud.make_by_hand(row=row)
    s.cluster(replicas=2, pool={"adopt": [{"accountRef": {"name": "lab"}, "providerID": stranger.id}]})
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified"), s.message()
        assert len(s.living()) == 2
        assert stranger.id in {(m.get("status") or {}).get("providerID") for m in s.machines()}
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.settle()
        assert {i.id for i in s.living()} == {stranger.id}  # what was given is given back


# -- illness


class Door:
    """Says which machines answer."""

    def __init__(self, s: Scene) -> None:
        self.scene = s
        self.silent: set[str] = set()

    async def probe(self, host: str, port: int) -> None:
        if host in self.silent:
            raise Transient(f"{host} doesn't answer")

    def hosts(self) -> list[str]:
        return [str((m.get("status") or {}).get("sshHost")) for m in self.scene.machines()]


def with_doors(test: Any) -> Any:
    def run() -> None:
        async def main() -> None:
            s = Scene(ssh=True)
            s.add_account()
            door = Door(s)
            await test(s, door)

        run_virtual(main())

    run.__name__ = test.__name__
    return run


@with_doors
async def test_a_machine_that_stops_answering_is_replaced(s: Scene, door: Door) -> None:
    s.cluster(replicas=3)
    async with s.operator(probe=door.probe):
        await s.settle()
        assert s.said() == ("True", "AsSpecified"), s.message()
        victim = door.hosts()[0]
        door.silent.add(victim)
        await s.until(lambda: s.said() == ("False", "Unreachable"), 300)
        await s.until(lambda: victim not in door.hosts(), 600)
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 600)
        assert len(s.living()) == 3
        s.once()


@with_doors
async def test_many_that_stop_answering_are_left_alone(s: Scene, door: Door) -> None:
    s.cluster(replicas=5)
    async with s.operator(probe=door.probe):
        await s.settle()
        before = {i.id for i in s.living()}
        door.silent |= set(door.hosts()[:3])
        await s.until(lambda: s.said("Healthy") == ("False", "TooManyUnhealthy"), 900)
        await asyncio.sleep(3600)
        assert {i.id for i in s.living()} == before
        assert len(s.machines()) == 5
        assert s.told("TooManyUnhealthy")
        door.silent.clear()
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 600)
        assert {i.id for i in s.living()} == before


@with_doors
async def test_one_that_never_answers_is_replaced_again_and_again_but_ever_slower(s: Scene, door: Door) -> None:
    async def nobody(host: str, port: int) -> None:
        raise Transient("no")

    s.cluster(replicas=1, pool={"health": {"startupTimeoutSeconds": 60}})
    async with s.operator(probe=nobody):
        await asyncio.sleep(3600)
        assert s.said()[0] == "False"
        assert 3 <= s.cloud.calls["RunInstance"] <= 20
        assert len(s.living()) <= 2


@scene
async def test_a_machine_stopped_behind_our_back_is_started(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        victim = s.living()[0]
        s.cloud.change_power(victim.id, ("Running",), "Stopping")
        await s.until(lambda: s.said()[0] == "False", 120)
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 300)
        assert victim.id in {i.id for i in s.living()}


@scene
async def test_drift_is_told(s: Scene) -> None:
    s.cluster(replicas=2, pool={"image": {"name": "debian-12"}})
    async with s.operator():
        await s.settle()
        s.cloud.change(s.living()[0].id, image="ubuntu-24.04")
        await s.until(lambda: s.said("Healthy") == ("True", "Drifted"), 120)
        assert "image" in s.message("Healthy")
        assert len(s.living()) == 2
        assert s.told("Drifted")


@scene
async def test_metrics_tell_cost_and_sizes(s: Scene) -> None:
    s.cluster()
    async with s.operator() as (engine, _):
        await s.settle()
        text = engine.metrics.text().decode()
        value = f"{s.hourly() / 10**9:g}"
        assert f'cloudmesh_cluster_hourly_cost{{cluster="lab",currency="USD",namespace="ns"}} {value}' in text
        assert 'cloudmesh_cluster_ready_replicas{cluster="lab",namespace="ns"} 3.0' in text
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.settle()
        assert 'cluster="lab"' not in engine.metrics.text().decode().split("cloudmesh_cluster_", 1)[-1]


@scene
async def test_a_machine_of_a_pool_that_was_deleted_by_a_user_comes_back(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        await s.delete(VIRTUAL_MACHINE, "lab-workers-0")
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert len(s.living()) == 2
        s.once()


@scene
async def test_a_cluster_made_anew_under_its_name_waits_for_the_old_one(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        old = {i.id for i in s.living()}
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.until(lambda: not s.is_there(VIRTUAL_CLUSTER, "lab"))
        s.cluster(replicas=2)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert not old & {i.id for i in s.living()}
        assert len(s.living()) == 2


class Scripts:
    """A bootstrap that is asked and does nothing."""

    def __init__(self) -> None:
        self.asked = 0

    def ensure(self, *_: Any) -> BootstrapState:
        self.asked += 1
        return BootstrapState()

    def last_activity(self, _: str) -> str:
        return ""

    def forget(self, _: str) -> None:
        """Nothing to forget."""


@with_doors
async def test_another_text_of_its_script_brings_a_cluster_back(s: Scene, door: Door) -> None:
    s.bootstrap = Scripts()
    s.api.put(CONFIG_MAP, {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "bad"}})
    s.cluster(bootstrap={"script": {"configMapRef": {"name": "setup"}}})
    async with s.operator(probe=door.probe):
        await s.until(lambda: s.bootstrap.asked > 0)
        await asyncio.sleep(30)
        asked = s.bootstrap.asked
        s.change(CONFIG_MAP, "setup", lambda obj: obj["data"].update({"bootstrap.sh": "good"}))
        await s.until(lambda: s.bootstrap.asked > asked, 2.0)
