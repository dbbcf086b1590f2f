"""What a Budget counts against the memory cloud's own bill: the whole wing, through lives of clusters."""

from __future__ import annotations

import asyncio
import random

import pytest
from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.api.budget import Budget
from cloudmesh.compute.budgets import shared
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import to_nanos, to_text
from cloudmesh.compute.providers.memory import MemoryCloud
from cloudmesh.engine import Engine
from cloudmesh.testing import CrashPoint, run_virtual

CHEAPEST = 37_800_000
"""What an hour of each machine of these clusters costs."""
SEEN_WITHIN = 60
"""Seconds within which an account's listing shows what happened in the cloud."""


def spent(s: Scene, name: str = "money") -> int:
    return to_nanos(s.get(BUDGET, name)["status"]["spent"])


def clouds(s: Scene) -> list[MemoryCloud]:
    return [s.cloud, *s.clouds.values()]


def billed(s: Scene) -> int:
    return sum(cloud.meter.total(cloud.now()) for cloud in clouds(s))


def made(s: Scene) -> list[int]:
    """How many machines each cloud ever made."""
    return [len(cloud.meter.lines) for cloud in clouds(s)]


def leeway(s: Scene, seconds: int = SEEN_WITHIN) -> int:
    """What each machine costs while its beginning or its end may not be seen yet."""
    return sum(made(s)) * CHEAPEST * seconds // 3600


def agrees(s: Scene, engine: Engine) -> None:
    """The Budget's figure of this moment is the bill's, but for the interval of observation."""
    (budget,) = shared(engine).objects("ns")
    counted = to_nanos(budget["status"]["spent"])
    assert abs(counted - billed(s)) <= leeway(s), (counted, billed(s), leeway(s))


async def ended(s: Scene) -> None:
    """All clusters go, and the Budget is up to date."""
    for obj in s.api.all(VIRTUAL_CLUSTER):
        await s.delete(VIRTUAL_CLUSTER, obj["metadata"]["name"])
    await s.until(lambda: not s.api.all(VIRTUAL_CLUSTER) and not s.api.all(VIRTUAL_MACHINE), 1800)
    await asyncio.sleep(400)


@scene
async def test_the_count_is_the_bill_through_scaling_suspension_and_losses(s: Scene) -> None:
    s.budget("100000")
    s.cluster(replicas=3)
    s.cluster("other", replicas=2)
    async with s.operator() as (engine, _):
        await s.settle()
        assert {m["status"]["hourlyPrice"]["amount"] for m in s.machines()} == {to_text(CHEAPEST)}
        await asyncio.sleep(2000)
        agrees(s, engine)
        s.edit(replicas=6)
        await asyncio.sleep(2000)
        s.edit("other", lifecycle={"state": "Suspended"})
        await asyncio.sleep(1000)
        asleep = billed(s)
        agrees(s, engine)
        s.edit(replicas=1)
        await asyncio.sleep(1500)
        assert billed(s) > asleep
        s.edit("other", lifecycle={"state": "Running"})
        await asyncio.sleep(1500)
        victim = s.living()[0]
        s.cloud.vanish(victim.id)
        await asyncio.sleep(1000)
        agrees(s, engine)
        await ended(s)
        agrees(s, engine)
        status = s.get(BUDGET, "money")["status"]
        assert status["booked"]["spent"] == status["spent"] and status["reserved"] == "0"
        total = billed(s)
        await asyncio.sleep(1000)
        assert billed(s) == total and s.get(BUDGET, "money")["status"]["spent"] == status["spent"]
        Budget.model_validate(s.get(BUDGET, "money"), extra="forbid")


@pytest.mark.parametrize("seed", range(2))
def test_an_operator_that_dies_again_and_again_counts_the_same(seed: int) -> None:
    async def main() -> None:
        s, rng = Scene(), random.Random(seed)
        s.add_account()
        s.budget("100000")
        s.cluster(replicas=2)
        for _ in range(6):
            point = CrashPoint(rng.randrange(3, 60), rng.choice(("before", "after")))

            async def life(crash: CrashPoint = point) -> None:
                async with s.operator(crash=crash):
                    await asyncio.sleep(60)
                    s.edit(replicas=rng.randrange(0, 5))
                    await asyncio.sleep(200)

            await point.until_crash(life())
            await asyncio.sleep(rng.randrange(0, 30))
        async with s.operator():
            await s.settle()
            await ended(s)
        # while nobody looks, an end is seen late
        dead = 6 * 30 * 4 * CHEAPEST // 3600
        assert billed(s) - leeway(s) <= spent(s) <= billed(s) + leeway(s) + dead
        booked = s.get(BUDGET, "money")["status"]["booked"]
        assert booked["spent"] == s.get(BUDGET, "money")["status"]["spent"]
        s.once()

    run_virtual(main(), seed=seed)


@pytest.mark.parametrize("amount", ["0.05", "0.3"])
def test_the_bill_is_never_more_than_the_budget(amount: str) -> None:
    async def main() -> None:
        s = Scene()
        s.add_account()
        s.budget(amount)
        for number in range(3):
            s.cluster(f"c{number}", replicas=1 + number)
        async with s.operator():
            for _ in range(9):
                await asyncio.sleep(600)
                assert billed(s) <= to_nanos(amount)
        assert billed(s) <= to_nanos(amount)
        assert billed(s) > 0, "some of it was spent"

    run_virtual(main())


def spot_in_two_clouds(s: Scene) -> None:
    """A cluster over two accounts, one machine on demand and three spot machines."""
    s.add_account()
    s.add_cloud("other")
    purchase = {"baseOnDemand": 1, "aboveBase": "Spot"}
    accounts = [{"name": "lab"}, {"name": "other"}]
    s.cluster(replicas=4, accounts=accounts, pool={"purchase": purchase, "where": {"spread": "Account"}})


async def whole(s: Scene) -> None:
    """All machines run."""
    states = ["Running"] * 4
    await s.until(lambda: [i.state for cloud in clouds(s) for i in cloud.living()] == states)
    await s.until(lambda: s.said() == ("True", "AsSpecified"))


def take_spot(s: Scene, rng: random.Random) -> None:
    """A cloud takes a spot machine away."""
    spots = [(cloud, i) for cloud in clouds(s) for i in cloud.living() if (i.purchase, i.state) == ("Spot", "Running")]
    cloud, victim = rng.choice(spots)
    cloud.reclaim(victim.id)


async def crash_at(s: Scene, point: CrashPoint) -> None:
    """An operator that dies at that call; its next one comes at once."""

    async def life() -> None:
        async with s.operator(crash=point):
            await asyncio.sleep(200)

    await point.until_crash(life())


@pytest.mark.parametrize("seed", range(3))
def test_spot_machines_of_two_clouds_are_counted_whatever_dies(seed: int) -> None:
    async def main() -> None:
        s, rng, taken, away = Scene(), random.Random(seed), 6, 0
        s.budget("100000")
        spot_in_two_clouds(s)
        crashes = []
        for _ in range(taken):
            async with s.operator() as (engine, _):
                await whole(s)
                assert sorted(i.purchase for cloud in clouds(s) for i in cloud.living()) == [
                    "OnDemand",
                    "Spot",
                    "Spot",
                    "Spot",
                ]
                await asyncio.sleep(rng.randrange(300, 2000))
                agrees(s, engine)
            away += (pause := rng.randrange(0, 60))
            await asyncio.sleep(pause)
            crashes.append(CrashPoint(rng.randrange(3, 60), rng.choice(("before", "after"))))
            take_spot(s, rng)
            await crash_at(s, crashes[-1])
        async with s.operator():
            await whole(s)
            assert sum(made(s)) >= 4 + taken and all(made(s))
            assert sum(crash.crashed for crash in crashes) >= taken - 1
            await ended(s)
        # an end while nobody looks is seen when somebody looks again
        assert billed(s) - leeway(s) <= spent(s) <= billed(s) + leeway(s) + taken * away * CHEAPEST // 3600
        s.once()

    run_virtual(main(), seed=seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_bill_of_two_clouds_is_within_the_budget_though_nobody_looks_for_most_of_an_hour(seed: int) -> None:
    async def main() -> None:
        s, rng, amount, away = Scene(), random.Random(seed), to_nanos("0.3"), 0
        s.budget(to_text(amount))
        spot_in_two_clouds(s)
        for _ in range(3):
            async with s.operator():
                await whole(s)
                hour = to_nanos(s.get(BUDGET, "money")["status"]["reserved"])
                await asyncio.sleep(300)
            take_spot(s, rng)
            await crash_at(s, CrashPoint(rng.randrange(3, 60), rng.choice(("before", "after"))))
            away += (pause := rng.randrange(2000, 3000))
            await asyncio.sleep(pause)
            assert billed(s) <= amount
        async with s.operator():
            await s.until(lambda: not any(cloud.meter.billed_now() for cloud in clouds(s)), 7200)
            await asyncio.sleep(3600)
        late = CHEAPEST * away // 3600  # what went while nobody looked is counted until somebody looks again
        assert amount - hour - leeway(s) - late < billed(s) <= amount, "it ends when less than an hour is left"
        assert all(made(s)) and sum(made(s)) > 4

    run_virtual(main(), seed=seed)
