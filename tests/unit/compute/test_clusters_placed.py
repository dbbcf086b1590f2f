"""Where a cluster's machines lie, and what becomes of it when prices move: as the whole operator does it."""

from __future__ import annotations

import asyncio
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.compute.accounts import Accounts
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.engine import NotFound

WORKS = ("True", "AsSpecified")
SPOT = {"purchase": {"aboveBase": "Spot"}}


def zones(s: Scene) -> Counter[str]:
    return Counter(i.zone for i in s.living() if i.state != "Deleting")


def skew(found: Counter[Any], domains: int) -> int:
    """How many more machines the fullest of so many domains has than the emptiest."""
    counts = [*found.values(), *([0] * (domains - len(found)))]
    return max(counts) - min(counts)


async def lose(s: Scene, zone: str) -> None:
    """A machine of a zone goes; waits until it is replaced."""
    lost = next(i for i in s.living() if i.zone == zone)
    there = len(s.living())
    s.cloud.vanish(lost.id)
    await s.until(lambda: len(s.living()) == there and lost.id not in {i.id for i in s.living()})
    await s.settle()


async def survey(s: Scene, accounts: Accounts) -> None:
    """The account's offers are read anew."""
    account = accounts.get("ns", "lab")
    assert account is not None
    before = account.offers_as_of
    await asyncio.sleep(2)
    account.survey_wanted.set()
    await s.until(lambda: account.offers_as_of != before)
    await s.settle()


# -- spread and colocation


@scene
async def test_zones_stay_even_through_scaling_and_losses(s: Scene) -> None:
    s.cluster(replicas=4, pool={"where": {"spread": "Zone", "regions": ["region-1"]}})
    async with s.operator():
        await s.until(lambda: s.said() == WORKS)
        assert zones(s) == {"region-1a": 2, "region-1b": 2}
        s.edit(replicas=7)
        await s.until(lambda: s.said() == WORKS and len(s.living()) == 7)
        assert skew(zones(s), 2) == 1
        for zone in ("region-1a", "region-1b", "region-1b"):
            await lose(s, zone)
            assert skew(zones(s), 2) == 1
        assert s.cluster_status()["placement"]["decisions"][0]["zone"].startswith("region-1")
        s.once()


@scene
async def test_all_zones_are_used_though_one_region_is_dearer(s: Scene) -> None:
    rows = [r for r in s.cloud.stock.rows.values() if r.region == "region-2"]
    for row in rows:
        row.hourly_nanos *= 3
    s.cluster(replicas=8, pool={"where": {"spread": "Zone"}})
    async with s.operator():
        await s.until(lambda: s.said() == WORKS)
        assert zones(s) == {f"region-{n}{z}": 2 for n in (1, 2) for z in "ab"}


@scene
async def test_a_zone_without_room_is_passed_over(s: Scene) -> None:
    s.cloud.set_free(0, late=True, zone="region-1a")
    s.cluster(replicas=3, pool={"where": {"spread": "Zone", "regions": ["region-1"]}})
    async with s.operator():
        await s.until(lambda: s.said() == WORKS, 900)
        assert zones(s) == {"region-1b": 3}
        s.once()
        s.no_orphans()


@scene
async def test_accounts_stay_even_through_scaling_and_losses(s: Scene) -> None:
    clouds = {"lab": s.cloud, **{name: s.add_cloud(name) for name in ("b", "c")}}
    for row in clouds["c"].stock.rows.values():
        row.hourly_nanos *= 2

    def there() -> Counter[str]:
        return Counter({name: n for name, cloud in clouds.items() if (n := len(cloud.living()))})

    s.cluster(replicas=3, accounts=[{"name": n} for n in clouds], pool={"where": {"spread": "Account"}})
    async with s.operator():
        await s.until(lambda: s.said() == WORKS)
        assert there() == {"lab": 1, "b": 1, "c": 1}
        s.edit(replicas=5)
        await s.until(lambda: s.said() == WORKS and there().total() == 5)
        assert there() == {"lab": 2, "b": 2, "c": 1}
        for name in clouds:
            lost = clouds[name].living()[0].id
            clouds[name].vanish(lost)
            await s.until(lambda: there().total() == 5)
            await s.settle()
            assert there() == {"lab": 2, "b": 2, "c": 1}
        # an account that goes from the list takes its share along
        s.edit(accounts=[{"name": "lab"}, {"name": "c"}])
        await s.until(lambda: there() == {"lab": 3, "c": 2} or there() == {"lab": 2, "c": 3}, 900)
        await s.settle()
        assert s.said() == WORKS


@scene
async def test_what_belongs_together_stays_in_one_zone(s: Scene) -> None:
    s.cluster(replicas=3, pool={"where": {"colocate": "Zone"}})
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.said() == WORKS)
        [home] = zones(s)
        for row in s.cloud.stock.rows.values():
            if row.zone == home:
                row.hourly_nanos = row.hourly_nanos * 3 // 2
        await survey(s, accounts)
        await lose(s, home)
        s.edit(replicas=5)
        await s.until(lambda: s.said() == WORKS and len(s.living()) == 5)
        assert zones(s) == {home: 5}, "cheaper elsewhere, and it went there"
        # no room is no reason to tear them apart
        s.cloud.set_free(0, zone=home)
        await survey(s, accounts)
        s.edit(replicas=6)
        await s.until(lambda: s.said()[0] == "False")
        await s.settle()
        assert s.said()[1] in ("CapacityUnavailable", "NoFeasibleOffer")
        assert zones(s) == {home: 5}


@scene
async def test_what_belongs_together_goes_where_all_of_it_fits(s: Scene) -> None:
    s.cloud.set_free(2)
    roomy = s.cloud.set_free(3, zone="region-1b")
    assert roomy
    s.cluster(
        replicas=3, pool={"where": {"colocate": "Zone"}, "alternatives": [{"name": "any", "machine": {"type": "t1.2"}}]}
    )
    async with s.operator():
        await s.until(lambda: s.said() == WORKS, 900)
        assert zones(s) == {"region-1b": 3}
        assert s.cloud.calls["RunInstance"] == 3


# -- prices that move


def move(s: Scene, purchase: str, percent: int) -> None:
    for row in s.cloud.stock.rows.values():
        if row.purchase == purchase:
            row.hourly_nanos = row.hourly_nanos * percent // 100


def current(s: Scene) -> list[str]:
    return [m["status"]["currentPrice"]["amount"] for m in s.machines() if "currentPrice" in m["status"]]


@scene
async def test_a_spot_price_that_moves_is_a_figure_and_no_warning(s: Scene) -> None:
    s.cluster(pool=SPOT)
    async with s.operator() as (engine, accounts):
        await s.until(lambda: s.said() == WORKS)
        await s.settle()
        made = s.cluster_status()["cost"]["hourly"]
        stamps = [m["status"]["hourlyPrice"] for m in s.machines()]
        for percent, expected in ((80, Decimal(made) * 80 / 100), (200, Decimal(made)), (125, Decimal(made))):
            move(s, "Spot", percent)
            await survey(s, accounts)
            assert s.said() == WORKS and s.said("Healthy") == WORKS
            assert Decimal(s.cluster_status()["cost"]["hourly"]) == expected
            assert len(current(s)) == 3
            value = f"{float(expected):g}"
            text = engine.metrics.text().decode()
            assert f'cloudmesh_cluster_hourly_cost{{cluster="lab",currency="USD",namespace="ns"}} {value}' in text
        # what was quoted is what Budgets reserve and what has been spent is counted by
        assert [m["status"]["hourlyPrice"] for m in s.machines()] == stamps
        assert not s.told("Drifted") and not s.told("Drift")
        assert s.cloud.calls["RunInstance"] == 3
        # back to what it was: nothing is left to be told
        move(s, "Spot", 50)
        await survey(s, accounts)
        assert current(s) == [] and s.cluster_status()["cost"]["hourly"] == made


@pytest.mark.parametrize(("percent", "warned"), [(80, False), (125, True)])
def test_a_price_that_is_charged_at_once_is_told_once(percent: int, warned: bool) -> None:
    @scene
    async def run(s: Scene) -> None:
        s.cluster()
        async with s.operator() as (_, accounts):
            await s.until(lambda: s.said() == WORKS)
            await s.settle()
            for _ in range(3):
                move(s, "OnDemand", percent)
                await survey(s, accounts)
            assert s.said() == WORKS
            assert s.said("Healthy") == ("True", "Drifted" if warned else "AsSpecified")
            assert len(s.told("Drifted")) == int(warned)
            assert len(s.told("Drift")) == 3 * int(warned)
            assert len(current(s)) == 3
            assert s.cloud.calls["RunInstance"] == 3, "a price alone replaces nothing"
            first = s.machines()[0]["status"]
            if warned:
                [drift] = first["drift"]
                assert drift["field"] == "price"
                assert drift["expected"] == f"{first['hourlyPrice']['amount']} USD"
                assert drift["found"] == f"{first['currentPrice']['amount']} USD"

    run()


@scene
async def test_a_spot_price_that_nobody_capped_is_told_when_it_rises(s: Scene) -> None:
    s.cluster(replicas=1, pool=SPOT)
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.said() == WORKS)
        await s.settle()
    name = s.names()[0]
    s.change(VIRTUAL_MACHINE, name, lambda obj: obj["status"]["hourlyPrice"].update(confidence="declared"))
    async with s.operator() as (_, accounts):
        await s.until(
            lambda: accounts.get("ns", "lab") is not None and s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True"
        )
        move(s, "Spot", 150)
        await survey(s, accounts)
        assert s.said("Healthy") == ("True", "Drifted")


@scene
async def test_a_new_machine_costs_what_the_offer_costs_then(s: Scene) -> None:
    s.cluster(replicas=2, pool=SPOT)
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.said() == WORKS)
        await s.settle()
        [made] = {m["status"]["hourlyPrice"]["amount"] for m in s.machines()}
        move(s, "Spot", 120)
        await survey(s, accounts)
        s.edit(replicas=3)
        await s.until(lambda: s.said() == WORKS and len(s.living()) == 3)
        await s.settle()
        new = to_nanos(made) * 120 // 100
        assert sorted(to_nanos(m["status"]["hourlyPrice"]["amount"]) for m in s.machines())[:2] == [to_nanos(made)] * 2
        hourly = to_nanos(s.cluster_status()["cost"]["hourly"])
        assert 2 * to_nanos(made) < hourly <= 2 * to_nanos(made) + new
        assert hourly == s.hourly()


# -- near to a directory


class Shelves:
    """Directories of which only the regions are asked; see `engine.directories`."""

    def __init__(self) -> None:
        self.there: dict[str, tuple[str, ...]] = {}

    async def regions(self, namespace: str, name: str) -> tuple[str, ...]:
        if name not in self.there:
            raise NotFound(f"VirtualDirectory '{name}' isn't there")
        return self.there[name]


@scene
async def test_machines_come_near_to_the_stores_of_a_directory(s: Scene) -> None:
    near = {"mode": "DataNear", "dataNear": {"directoryRef": {"name": "lab"}}}
    s.cluster(replicas=1, placement={"rules": near})
    shelves = Shelves()
    async with s.operator() as (engine, _):
        await s.settle()
        assert s.said() == ("False", "NoFeasibleOffer")
        assert s.message() == "`dataNear.directoryRef.name`: this operator serves no VirtualDirectories"
        engine.directories = shelves  # type: ignore[assignment]
        await s.until(lambda: "VirtualDirectory 'lab' isn't there" in s.message())
        shelves.there["lab"] = ("nowhere", "region-2")
        await s.until(lambda: s.said() == WORKS)
        assert {i.zone[:8] for i in s.living()} == {"region-2"}
