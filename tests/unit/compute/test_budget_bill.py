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
from cloudmesh.engine import Engine
from cloudmesh.testing import CrashPoint, run_virtual

CHEAPEST = 37_800_000
"""What an hour of each machine of these clusters costs."""
SEEN_WITHIN = 60
"""Seconds within which an account's listing shows what happened in the cloud."""


def spent(s: Scene, name: str = "money") -> int:
    return to_nanos(s.get(BUDGET, name)["status"]["spent"])


def billed(s: Scene) -> int:
    return s.cloud.meter.total(s.cloud.now())


def leeway(s: Scene) -> int:
    """What each machine costs while its beginning or its end may not be seen yet."""
    return len(s.cloud.meter.lines) * CHEAPEST * SEEN_WITHIN // 3600


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
