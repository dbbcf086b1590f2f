"""PriceSheets and PlacementPolicies on a memory API server: can they be used, and since when not."""

from __future__ import annotations

import asyncio
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tests.unit.compute.budget_parts import START, clock

from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.api.pricesheet import PriceSheet
from cloudmesh.compute.accounts import shared
from cloudmesh.compute.choices import PlacementPolicyReconciler, PriceSheetReconciler
from cloudmesh.compute.kinds import PLACEMENT_POLICY, PRICE_SHEET
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.engine import Engine, Obj, Resource
from cloudmesh.policy import plugins
from cloudmesh.testing import World, run_virtual

KINDS = (PRICE_SHEET, PLACEMENT_POLICY)


def sheets(engine: Engine) -> PriceSheetReconciler:
    return PriceSheetReconciler(engine, shared(engine), now=clock)


def policies(engine: Engine) -> PlacementPolicyReconciler:
    return PlacementPolicyReconciler(engine, now=clock)


def obj(spec: dict[str, Any]) -> Obj:
    return {"metadata": {"name": "x", "namespace": "n"}, "spec": spec}


def read(world: World, resource: Resource) -> tuple[str, str, str, bool]:
    """Status, reason and message of Ready, and whether it is Stalled; the whole status fits the model."""
    found = world.api.get(resource, "n", "x")
    assert found is not None
    model = PriceSheet if resource == PRICE_SHEET else PlacementPolicy
    checked = model.model_validate(
        found | {"apiVersion": "cloudmesh.org/v1alpha1", "kind": resource.kind}, extra="forbid"
    )
    types = {condition.type: condition for condition in checked.status.conditions}
    ready = types["Ready"]
    assert ready.observed_generation == found["metadata"]["generation"] == checked.status.observed_generation
    return ready.status, ready.reason, ready.message, "Stalled" in types


def test_a_sheet_begins_holds_and_ends() -> None:
    async def main() -> None:
        world = World(KINDS)
        begin, end = to_time(START + 1000), to_time(START + 3000)
        world.api.put(PRICE_SHEET, obj({"items": [{"hourly": "0.1", "validFrom": begin, "validTo": end}]}))
        async with world.engine(sheets):
            await world.settle(seconds=30)
            assert read(world, PRICE_SHEET) == ("False", "NotYetValid", f"no price holds before {begin}", True)
            await asyncio.sleep(2100)
            assert read(world, PRICE_SHEET) == ("True", "AsSpecified", "1 of 1 prices hold now", False)
            await asyncio.sleep(2000)
            status, reason, message, stalled = read(world, PRICE_SHEET)
            assert (status, reason, stalled) == ("False", "Expired", True)
            assert "`validTo`" in message
            writes = world.api.writes()
            await asyncio.sleep(7200)
            assert world.api.writes() == writes
        stored = world.api.get(PRICE_SHEET, "n", "x")
        assert stored is not None
        assert stored["status"]["items"] == 1

    run_virtual(main())


def test_a_policy_is_tried() -> None:
    async def main() -> None:
        world = World(KINDS)
        world.api.put(PLACEMENT_POLICY, obj({"filters": [{"name": "Arch", "parameters": {"in": "amd64"}}]}))
        async with world.engine(policies):
            await world.settle(seconds=30)
            assert read(world, PLACEMENT_POLICY) == ("True", "AsSpecified", "mode Cheapest can be used", False)
            writes = world.api.writes()
            await asyncio.sleep(7200)
            assert world.api.writes() == writes
            world.api.put(PLACEMENT_POLICY, obj({"mode": "Plugin", "plugin": {"name": "green"}}))
            await world.settle(seconds=30)
            status, reason, message, stalled = read(world, PLACEMENT_POLICY)
            assert (status, reason, stalled) == ("False", "PolicyInvalid", True)
            assert "there is no plug-in 'green'" in message

    run_virtual(main())


def test_a_plugin_that_is_there_and_one_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [
        EntryPoint("good", "json:loads", plugins.GROUP),
        EntryPoint("broken", "cloudmesh.policy.nowhere:f", plugins.GROUP),
    ]
    monkeypatch.setattr(plugins, "entry_points", lambda group, name: [p for p in points if p.name == name])

    async def main() -> None:
        world = World(KINDS)
        async with world.engine(policies):
            world.api.put(PLACEMENT_POLICY, obj({"mode": "Plugin", "plugin": {"name": "good"}}))
            await world.settle(seconds=30)
            assert read(world, PLACEMENT_POLICY)[:2] == ("True", "AsSpecified")
            world.api.put(PLACEMENT_POLICY, obj({"mode": "Plugin", "plugin": {"name": "broken"}}))
            await world.settle(seconds=30)
            status, reason, message, _ = read(world, PLACEMENT_POLICY)
            assert (status, reason) == ("False", "PolicyInvalid")
            assert "can't be loaded" in message

    run_virtual(main())
