"""Machines that are left behind: what is booked of them, and that nobody collects them though no cloud was asked."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.compute import cluster_scene
from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.api.names import SECRET_TYPE_CREDENTIALS
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.engine import SECRET


def left_notes(s: Scene) -> list[str]:
    annotations = s.get(CLOUD_ACCOUNT, "lab")["metadata"].get("annotations") or {}
    return [key for key in annotations if key.startswith("left.cloudmesh.org/")]


@scene
async def test_a_machine_abandoned_while_its_account_cant_be_used_isnt_collected_later(s: Scene) -> None:
    login = {"metadata": {"name": "login", "namespace": "ns"}, "type": SECRET_TYPE_CREDENTIALS, "data": {}}
    s.api.put(SECRET, login)
    s.add_account(credentials={"secretRef": {"name": "login"}})
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        node = s.status()["providerID"]
    held = s.api.get(SECRET, "ns", "login")
    assert held is not None
    held["metadata"]["finalizers"] = []
    s.api.put(SECRET, held)
    s.api.remove(SECRET, "ns", "login")
    async with s.operator() as (_, accounts):  # a new leader, that can't even begin to ask the cloud
        await s.delete(VIRTUAL_MACHINE, "m")
        await asyncio.sleep(60.0)
        assert s.is_there(VIRTUAL_MACHINE, "m") and accounts.get("ns", "lab") is None
        s.annotate(VIRTUAL_MACHINE, "m", abandon=s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"])
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
        await s.settle()
        assert any(reason == "Abandoned" and node in note for reason, note in s.events())
        assert left_notes(s)
        s.api.put(SECRET, login)
        s.annotate(CLOUD_ACCOUNT, "lab", touched="now")
        await s.until(lambda: accounts.get("ns", "lab") is not None and not left_notes(s), 1200.0)
        await asyncio.sleep(600.0)
        assert [i.id for i in s.living()] == [node]


@scene
async def test_a_machine_without_any_account_goes_at_once(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
    account = s.get(CLOUD_ACCOUNT, "lab")
    account["metadata"]["finalizers"] = []
    s.api.put(CLOUD_ACCOUNT, account)
    s.api.remove(CLOUD_ACCOUNT, "ns", "lab")
    async with s.operator():
        await s.delete(VIRTUAL_MACHINE, "m")
        s.annotate(VIRTUAL_MACHINE, "m", abandon=s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"])
        await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"), 10.0)


@cluster_scene.scene
async def test_what_a_machine_has_cost_until_it_is_left_behind_is_booked(s: cluster_scene.Scene) -> None:
    s.budget("1000")
    s.cluster(replicas=1)
    async with s.operator():
        await s.settle()
        await asyncio.sleep(1800)
        s.annotate(VIRTUAL_CLUSTER, "lab", paused="true")
        s.annotate(VIRTUAL_MACHINE, "lab-workers-0", abandon=s.machines()[0]["metadata"]["uid"])
        await s.delete(VIRTUAL_MACHINE, "lab-workers-0")
        await s.until(lambda: not s.machines())
        cost, money = s.cluster_status()["cost"], s.get(BUDGET, "money")["status"]
        assert len(cost["booked"]) == 1 and money["booked"]["machines"] == 1
        assert to_nanos(cost["ended"]) == pytest.approx(s.hourly() // 2, rel=0.02)
        assert money["booked"]["spent"] == cost["ended"]
        assert len(s.living()) == 1, "it goes on at somebody else's cost"
