"""Whole lives of machines on the memory cloud."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers.memory import Fault
from cloudmesh.compute.tokens import TAG_MACHINE, TAG_UID
from cloudmesh.engine.errors import Transient
from cloudmesh.testing import run_virtual


@scene
async def test_a_machine_is_made_and_ready(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        assert s.condition() == ("True", "AsSpecified")
        assert s.condition("Ready", "lab", CLOUD_ACCOUNT) == ("True", "Checked")
        status = s.status()
        (machine,) = s.living()
        assert machine.id == status["providerID"]
        assert machine.client_token == status["createToken"]
        assert machine.tags[TAG_UID] == s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"]
        assert machine.tags[TAG_MACHINE] == "m"
        assert status["sshHost"] == machine.private_address
        assert status["startedAt"]
        assert status["hourlyPrice"]["currency"] == "USD"
        assert sorted(reason for reason, _ in s.events() if reason in ("Created", "Ready")) == ["Created", "Ready"]


@scene
async def test_a_birth_takes_three_writes_and_rest_none(s: Scene) -> None:
    s.add_account()
    async with s.operator():
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        s.add_machine()
        before = s.writes()
        await s.until(s.is_ready)
        await s.settle()
        # the finalizer, the token, Ready with the id
        assert s.writes() - before == 3
        await asyncio.sleep(300.0)  # the account's counters follow slowly
        before = len(s.api.store.writes)
        await asyncio.sleep(1200.0)
        assert len(s.api.store.writes) == before


@scene
async def test_a_deleted_machine_ends_before_its_object(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        s.cloud.habits.delete_seconds = 40.0
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(30.0)
        assert s.condition() == ("False", "Deleting")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        assert s.living() == []
        assert s.cloud.resources.groups == {}


@scene
async def test_a_machine_that_was_never_asked_for_goes_at_once(s: Scene) -> None:
    s.add_machine(account="nowhere")
    async with s.operator():
        await s.settle()
        assert s.condition() == ("Unknown", "CloudUnavailable")
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.settle()
        assert not s.is_there(VIRTUAL_MACHINE, "m")


# -- refusals ------------------------------------------------------------------------------------------------------


@scene
async def test_no_capacity_ends_the_attempt_and_wakes_the_cluster(s: Scene) -> None:
    s.cloud.set_free(0)
    s.add_account()
    cluster = s.add_cluster()
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        s.owner.woken.clear()
        begin = asyncio.get_running_loop().time()
        s.add_machine(cluster=cluster)
        await s.until(lambda: s.condition()[1] == "CapacityUnavailable")
        assert s.condition() == ("False", "CapacityUnavailable")
        assert s.condition("Created") == ("False", "CapacityUnavailable")
        await asyncio.sleep(0.5)
        assert s.owner.woken
        assert s.owner.woken[0] - begin <= 1.0
        (block,) = accounts.get("ns", "lab").blocks()  # type: ignore[union-attr]
        place = s.get(VIRTUAL_MACHINE, "m")["spec"]["offer"]
        assert block.key == f"lab/{place['type']}/{place['zone']}/OnDemand"
        await s.settle()
        (failure,) = s.get(CLOUD_ACCOUNT, "lab")["status"]["failures"]
        assert (failure["key"], failure["class"], failure["failures"]) == (block.key, "CapacityUnavailable", 1)
        # another machine of the same offer isn't even asked for
        calls = s.cloud.calls["RunInstance"]
        s.add_machine("m2", cluster=cluster)
        await s.until(lambda: s.condition(name="m2")[1] == "CapacityUnavailable")
        assert s.cloud.calls["RunInstance"] == calls
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.delete(VIRTUAL_MACHINE, "m2")
        await s.settle()
        assert not s.is_there(VIRTUAL_MACHINE, "m")
        assert not s.is_there(VIRTUAL_MACHINE, "m2")


@scene
async def test_capacity_that_fails_later_is_remembered_and_cleaned_up(s: Scene) -> None:
    s.cloud.set_free(0, late=True)
    s.add_account()
    s.add_machine(cluster=s.add_cluster())
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition()[1] == "CapacityUnavailable")
        assert accounts.get("ns", "lab").blocks()  # type: ignore[union-attr]
        await s.settle()
        assert s.living() == []
        assert s.status()["endedAt"] >= s.status()["startedAt"]
        assert s.condition("Created") == ("False", "CapacityUnavailable")


@scene
async def test_capacity_that_fails_later_and_ends_by_itself_is_a_refusal_too(s: Scene) -> None:
    s.cloud.set_free(0, late=True)
    s.cloud.habits.ends_failed = True
    s.add_account()
    s.add_machine(cluster=s.add_cluster())
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition("Created") == ("False", "CapacityUnavailable"))
        (block,) = accounts.get("ns", "lab").blocks()  # type: ignore[union-attr]
        assert block.error == "CapacityUnavailable"
        await s.settle()
        assert s.condition("Created") == ("False", "CapacityUnavailable")
        assert s.status()["endedAt"] >= s.status()["startedAt"]
        assert not [note for reason, note in s.events() if reason == "Gone"]


@scene
async def test_quota_is_remembered_for_the_region(s: Scene) -> None:
    row = next(iter(s.cloud.stock.rows.values()))
    s.cloud.quotas[(row.region, row.quota)] = 0
    s.add_account()
    s.add_machine(cluster=s.add_cluster())
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition() == ("False", "QuotaExceeded"))
        (block,) = accounts.get("ns", "lab").blocks()  # type: ignore[union-attr]
        assert block.key == f"lab/{row.region}/{row.quota}"


@scene
async def test_an_unknown_image_is_the_specs_fault(s: Scene) -> None:
    s.add_account()
    s.add_machine(image={"name": "nonsense"})
    async with s.operator():
        await s.until(lambda: s.condition() == ("False", "InvalidRequest"))
        assert s.condition("Stalled") == ("True", "InvalidRequest")


@scene
async def test_a_machine_of_ones_own_is_tried_again_when_there_is_room(s: Scene) -> None:
    s.cloud.set_free(0)
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(lambda: s.condition() == ("False", "CapacityUnavailable"))
        s.cloud.set_free(5)
        await s.until(s.is_ready, 400.0)
        assert len(s.cloud.meter.lines) == 1
        await s.settle()
        assert "failures" not in s.get(CLOUD_ACCOUNT, "lab")["status"]


@scene
async def test_too_many_calls_never_block_an_offer(s: Scene) -> None:
    s.add_account()
    s.cloud.faults.add(Fault("refuse", "RunInstance", code="TooManyRequests", retry_after=7.0, times=2))
    s.add_machine(cluster=s.add_cluster())
    async with s.operator() as (_, accounts):
        await s.until(s.is_ready)
        assert accounts.get("ns", "lab").blocks() == ()  # type: ignore[union-attr]
        assert s.cloud.calls["RunInstance"] == 3


@scene
async def test_the_accounts_limit_of_machines_holds(s: Scene) -> None:
    s.add_account(limits={"machines": 2})
    cluster = s.add_cluster()
    for number in range(5):
        s.add_machine(f"m{number}", cluster=cluster)
    async with s.operator():
        await s.settle()
        assert len(s.living()) == 2
        refused = [n for n in range(5) if s.condition(name=f"m{n}") == ("False", "QuotaExceeded")]
        assert len(refused) == 3


@scene
async def test_nothing_is_made_for_a_cluster_that_goes(s: Scene) -> None:
    s.add_account()
    cluster = s.add_cluster()
    s.change(VIRTUAL_CLUSTER, "c", lambda obj: obj["metadata"].update(finalizers=["example.org/hold"]))
    await s.delete(VIRTUAL_CLUSTER, "c")
    s.add_machine(cluster=cluster)
    async with s.operator():
        await asyncio.sleep(200.0)
        assert s.living() == []
        assert s.cloud.calls["RunInstance"] == 0


# -- what happens behind our back ----------------------------------------------------------------------------------


@scene
async def test_a_machine_that_vanished_is_gone_within_a_minute(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        s.cloud.habits.ended_seconds = 0.0
        begin = asyncio.get_running_loop().time()
        s.cloud.vanish(s.living()[0].id)
        await s.until(lambda: s.condition() == ("False", "Gone"))
        assert asyncio.get_running_loop().time() - begin < 60.0
        assert s.status()["endedAt"]
        assert ("Gone", s.status()["message"]) in s.events()
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))


@scene
async def test_a_spot_machine_that_was_taken_away_says_so(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        s.cloud.reclaim(s.living()[0].id)
        await s.until(lambda: s.condition() == ("False", "Preempted"), 60.0)


@scene
async def test_a_partial_listing_destroys_nothing(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        s.cloud.faults.unreachable_zone = s.living()[0].zone
        await asyncio.sleep(300.0)
        assert s.condition() == ("True", "AsSpecified")
        assert s.condition("InventoryComplete", "lab", CLOUD_ACCOUNT) == ("Unknown", "Partial")


@scene
async def test_a_cloud_that_is_silent_makes_machines_unknown_not_gone(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        s.cloud.faults.add(Fault("drop", "ListInstances", times=None))
        await s.until(lambda: s.condition() == ("Unknown", "CloudUnavailable"), 300.0)
        s.cloud.faults.clear()
        await s.until(s.is_ready, 120.0)
        assert len(s.cloud.meter.lines) == 1


@scene
async def test_two_machines_of_one_token_become_one(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        mine = s.living()[0]
        s.cloud.make_by_hand(tags=mine.tags)
        assert len(s.living()) == 2
        await s.until(lambda: len(s.living()) == 1, 120.0)
        assert s.living()[0].id == mine.id
        assert s.is_ready()
        assert "Double" in dict(s.events())


@scene
async def test_drift_is_seen_within_a_minute_and_undone_where_it_can_be(s: Scene) -> None:
    s.add_account()
    s.add_machine(cluster=s.add_cluster(), disk={"size": "37Gi"})
    async with s.operator():
        await s.settle(quiet=60.0)

        def fields() -> set[str]:
            return {item["field"] for item in s.status().get("drift", ())}

        machine = s.living()[0]
        s.cloud.change_tags(machine.id, {TAG_MACHINE: "other"})
        await s.until(lambda: fields() == {"tags"}, 60.0)
        s.cloud.change_tags(machine.id, {TAG_MACHINE: "m"})
        await s.until(lambda: fields() == set(), 60.0)
        other = next(r for r in s.cloud.stock.rows.values() if r.type != machine.type and r.zone == machine.zone)
        s.cloud.change(machine.id, type=other.type)
        await s.until(lambda: fields() == {"type"}, 60.0)
        s.cloud.change(machine.id, type=machine.type)
        await s.until(lambda: fields() == set(), 60.0)
        s.cloud.change(machine.id, disk_gib=41)
        await s.until(lambda: fields() == {"disk"}, 60.0)
        assert [(d["expected"], d["found"]) for d in s.status()["drift"]] == [("37", "41")]
        s.cloud.change(machine.id, disk_gib=37)
        await s.until(lambda: fields() == set(), 60.0)
        group = next(iter(s.cloud.resources.groups.values()))
        rules = [dict(rule) for rule in group.rules]
        group.rules.append({"protocol": "tcp", "from": 1, "to": 9, "source": "0.0.0.0/0"})
        await s.until(lambda: fields() == {"firewall"}, 60.0)
        await s.until(lambda: fields() == set(), 200.0)
        assert [dict(rule) for rule in next(iter(s.cloud.resources.groups.values())).rules] == rules
        s.cloud.change_power(machine.id, ("Running",), "Stopping")
        await s.until(lambda: fields() == {"powerState"}, 60.0)
        await s.until(s.is_ready, 120.0)
        assert fields() == set()
        assert [reason for reason, _ in s.events()].count("Drift") == 5


# -- power ---------------------------------------------------------------------------------------------------------


def power(s: Scene, state: str) -> None:
    s.change(VIRTUAL_MACHINE, "m", lambda obj: obj["spec"].update(powerState=state))


@scene
async def test_power_follows_the_spec(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        power(s, "Stopped")
        await s.until(lambda: s.condition() == ("True", "Suspended"))
        assert s.living()[0].state == "Stopped"
        ended = s.status()["endedAt"]
        power(s, "Running")
        await s.until(lambda: s.condition() == ("True", "AsSpecified"))
        assert s.status()["startedAt"] >= ended
        assert "endedAt" not in s.status()
        power(s, "Suspended")
        await s.until(lambda: s.condition() == ("True", "Suspended"))
        assert s.living()[0].state == "Suspended"
        power(s, "Running")
        await s.until(lambda: s.condition() == ("True", "AsSpecified"))
        assert "drift" not in s.status()


def test_power_that_the_provider_lacks_is_told() -> None:
    @scene
    async def test(_: Scene) -> None:
        s = Scene(powers=False)
        s.add_account()
        s.add_machine()
        async with s.operator():
            await s.until(s.is_ready)
            power(s, "Stopped")
            await s.until(lambda: s.condition() == ("False", "Unsupported"))
            power(s, "Running")
            await s.until(s.is_ready)

    test()


@scene
async def test_a_restart_is_done_once_for_each_value(s: Scene) -> None:
    s.add_account()
    s.add_machine(annotations={"cloudmesh.org/restarted-at": "before"})
    async with s.operator():
        await s.until(s.is_ready)
        assert s.cloud.calls["RebootInstance"] == 0
        boot = s.status()["bootID"]
        s.annotate(VIRTUAL_MACHINE, "m", restarted_at="now")
        await s.until(lambda: s.status().get("restartedAt") == "now")
        await s.until(lambda: s.is_ready() and s.status()["bootID"] != boot)
        await s.settle()
        reboots = [count for name, count in s.cloud.calls.items() if "Reboot" in name]
        assert reboots == [1]


# -- adoption, pause, abandonment ------------------------------------------------------------------------------------


@scene
async def test_an_adopted_machine_is_given_back(s: Scene) -> None:
    found = s.cloud.make_by_hand()
    s.add_account()
    s.add_machine(adopt={"providerID": found.id})
    async with s.operator():
        await s.until(s.is_ready)
        assert s.status()["providerID"] == found.id
        assert s.living()[0].tags[TAG_MACHINE] == "m"
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        await asyncio.sleep(300.0)
        (left,) = s.living()
        assert not [key for key in left.tags if key.startswith("cloudmesh.org/")]


@scene
async def test_a_paused_machine_is_left_alone(s: Scene) -> None:
    s.add_account()
    s.add_machine(annotations={"cloudmesh.org/paused": "true"})
    async with s.operator():
        await s.settle()
        assert s.living() == []
        assert s.condition("Paused") == ("True", "Annotation")
        s.annotate(VIRTUAL_MACHINE, "m", paused="false")
        await s.until(s.is_ready)
        assert s.condition("Paused") == ("-", "-")


@scene
async def test_an_abandoned_machine_is_told_by_name(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        node = s.status()["providerID"]
        s.cloud.faults.add(Fault("drop", "*", times=None))
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(60.0)
        assert s.is_there(VIRTUAL_MACHINE, "m")
        s.annotate(VIRTUAL_MACHINE, "m", abandon=s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"])
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        await s.settle()
        assert any(reason == "Abandoned" and node in note for reason, note in s.events())


@scene
async def test_a_machine_that_is_let_go_isnt_collected(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        await s.let_go("m")
        await asyncio.sleep(300.0)
        assert len(s.living()) == 1


@scene
async def test_a_machine_that_is_let_go_waits_until_its_tags_are_off(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        s.cloud.faults.add(Fault("refuse", "DeleteTags", times=3))
        await s.let_go("m")
        assert not [key for key in s.living()[0].tags if key.startswith("cloudmesh.org/")]
        await asyncio.sleep(600.0)
        assert len(s.living()) == 1
        assert not left_notes(s)  # nothing more to remember


def left_notes(s: Scene) -> list[str]:
    annotations = s.get(CLOUD_ACCOUNT, "lab")["metadata"].get("annotations") or {}
    return [key for key in annotations if key.startswith("left.cloudmesh.org/")]


@scene
async def test_a_machine_abandoned_in_a_dead_cloud_isnt_collected_when_that_is_back(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        s.cloud.faults.add(Fault("drop", "*", times=None))
        await s.let_go("m")
        assert left_notes(s)
    s.cloud.faults.clear()
    async with s.operator():  # nor by a new leader
        await s.until(lambda: not left_notes(s), 1200.0)
        await asyncio.sleep(600.0)
        assert len(s.living()) == 1
        assert not [key for key in s.living()[0].tags if key.startswith("cloudmesh.org/")]


def test_a_machine_that_cant_be_untagged_is_left_alone_for_ever() -> None:
    async def main() -> None:
        s = Scene(powers=False)
        s.add_account()
        s.add_machine()
        async with s.operator():
            await s.until(s.is_ready)
            await s.let_go("m")
            await asyncio.sleep(600.0)
            assert len(s.living()) == 1
            assert left_notes(s)
            s.cloud.terminate(s.living()[0].id)
            await s.until(lambda: not left_notes(s), 7200.0)

    run_virtual(main())


# -- reaching and setting up -----------------------------------------------------------------------------------------


def test_reachable_follows_the_probe() -> None:
    answers = {"open": False}

    async def probe(host: str, port: int) -> None:
        if not answers["open"]:
            raise Transient(f"{host}:{port} refuses connections")

    @scene
    async def test(_: Scene) -> None:
        s = Scene(ssh=True)
        s.add_account()
        s.add_machine()
        async with s.operator(probe=probe):
            await s.until(lambda: s.condition("Reachable") == ("False", "Unreachable"))
            assert s.condition() == ("False", "Unreachable")
            answers["open"] = True
            await s.until(s.is_ready, 30.0)
            answers["open"] = False
            await s.until(lambda: s.condition() == ("False", "Unreachable"), 60.0)
            await s.delete(VIRTUAL_MACHINE, "m")
            await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))

    test()


class Setup:
    """A bootstrap whose answers a test writes."""

    def __init__(self) -> None:
        self.answer: tuple[Any, str] = ("Pending", "installing")

    def machine_state(self, uid: str) -> tuple[Any, str]:
        """The answer."""
        return self.answer


@scene
async def test_bootstrapped_follows_the_bootstrap(s: Scene) -> None:
    setup = Setup()
    s.add_account()
    s.add_machine(cluster=s.add_cluster(bootstrap={"slurm": {}}))
    async with s.operator(bootstrap=lambda: setup) as (engine, _):
        await s.until(lambda: s.condition() == ("False", "Bootstrapping"))
        key = next(iter(engine.cache.names(VIRTUAL_MACHINE)))

        def tell(*answer: str) -> None:
            from cloudmesh.engine import Key

            setup.answer = answer  # type: ignore[assignment]
            engine.enqueue(Key(VIRTUAL_MACHINE.kind, *key))

        tell("Failed", "slurmd ended with 1")
        await s.until(lambda: s.condition() == ("False", "BootstrapFailed"))
        tell("Done", "")
        await s.until(s.is_ready)
        tell("Pending", "")  # a new leader that hasn't looked yet
        await s.settle()
        assert s.is_ready()
        s.annotate(VIRTUAL_MACHINE, "m", restarted_at="now")
        await s.until(lambda: s.condition() == ("False", "Bootstrapping"))


# -- money ---------------------------------------------------------------------------------------------------------


@scene
async def test_a_machine_stays_until_every_budget_has_booked_it(s: Scene) -> None:
    s.add_account()
    s._put(BUDGET, "all", {"amount": "5", "currency": "USD", "period": "Month"})
    s.add_machine()
    async with s.operator() as (engine, _):
        engine.cache.put(BUDGET, s.get(BUDGET, "all") | {"status": {"spent": "0", "reserved": "0"}})
        await s.until(s.is_ready)
        await asyncio.sleep(3600.0)
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.until(lambda: s.living() == [])
        await asyncio.sleep(60.0)
        status = s.status()
        assert status["endedAt"]
        session = f"{s.get(VIRTUAL_MACHINE, 'm')['metadata']['uid']}:"
        from cloudmesh.compute.prices.moments import to_seconds

        session += str(to_seconds(status["startedAt"]))
        budget = s.get(BUDGET, "all")
        budget["status"] = {"booked": {"month": status["endedAt"][:7], "spent": "0", "uids": [session]}}
        budget["metadata"]["resourceVersion"] = str(int(budget["metadata"]["resourceVersion"]) + 10**6)
        engine.cache.put(BUDGET, budget)
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
