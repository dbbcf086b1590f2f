"""What a cluster's status says it has cost against the memory cloud's own bill, whenever the operator dies."""

from __future__ import annotations

import asyncio

from tests.unit.compute import cluster_scene
from tests.unit.compute.budget_parts import START, machine
from tests.unit.compute.cluster_scene import Act, Scene, scene

from cloudmesh.compute.budget_plan import read_machine
from cloudmesh.compute.cluster_cost import REMEMBERED, Books, book
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.policy.model import NANO

HOURLY = 37_800_000
"""What an hour of each machine of these clusters costs."""
LASTS = 240
"""Seconds of a state whose cost is looked at: one that is lost or counted twice is far beyond what looks are late."""
SEEN_WITHIN = 3
"""Seconds within which a listing shows that a machine has begun or ended."""


def accrued(s: Scene) -> int:
    return to_nanos(s.cluster_status()["cost"]["accrued"])


def billed(s: Scene) -> int:
    return s.cloud.meter.total(s.cloud.now())


def agrees(s: Scene, found: int) -> None:
    leeway = len(s.cloud.meter.lines) * HOURLY * 2 * SEEN_WITHIN // 3600
    assert abs(found - billed(s)) <= leeway, (found, billed(s), leeway)


def survive(act: Act, over: Act, *, at_least: int, budget: bool = False) -> None:
    """Two machines run; then the act, a crash at each of its calls, and the sum is the bill all the same."""

    async def begin(s: Scene) -> None:
        if budget:
            s.budget("1000")
        s.cluster(replicas=2)
        async with s.operator():
            await s.settle(quiet=3.0)
            await asyncio.sleep(LASTS)
            await act(s)

    async def end(s: Scene) -> None:
        await over(s)
        await s.settle(quiet=6.0)
        # what runs is written every few minutes: its growth since then isn't what this is about
        s.edit(replicas=0)
        await s.until(lambda: not s.machines())
        await asyncio.sleep(400)
        agrees(s, accrued(s))
        cost = s.cluster_status()["cost"]
        assert cost["accrued"] == cost["ended"] and len(cost["booked"]) == len(set(cost["booked"]))
        if budget:
            agrees(s, to_nanos(s.get(BUDGET, "money")["status"]["spent"]))

    cluster_scene.survive(begin, end, at_least=at_least)


async def gone(s: Scene) -> None:
    await s.until(lambda: not s.machines())


async def to_none(s: Scene) -> None:
    s.edit(replicas=0)


def test_scaling_down_under_a_budget() -> None:
    survive(to_none, gone, at_least=14, budget=True)


def test_a_machine_that_went() -> None:
    async def strike(s: Scene) -> None:
        s.cloud.vanish(s.living()[0].id)

    async def replaced(s: Scene) -> None:
        await s.until(lambda: s.said() == ("True", "AsSpecified") and len(s.living()) == 2)

    survive(strike, replaced, at_least=15)


def test_sleep_and_waking() -> None:
    async def sleep(s: Scene) -> None:
        s.edit(lifecycle={"state": "Suspended"})

    async def wake(s: Scene) -> None:
        await s.until(lambda: s.said() == ("True", "Suspended"))
        await asyncio.sleep(LASTS)
        s.edit(lifecycle={"state": "Running"})
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        await asyncio.sleep(LASTS)

    survive(sleep, wake, at_least=8)


@scene
async def test_a_machine_stays_until_its_cluster_has_booked_it(s: Scene) -> None:
    s.cluster(replicas=1)
    async with s.operator():
        await s.settle()
        await asyncio.sleep(600)
        s.annotate(VIRTUAL_CLUSTER, "lab", paused="true")
        await s.delete(VIRTUAL_MACHINE, "lab-workers-0")
        await s.until(lambda: not s.machines())
        assert to_nanos(s.cluster_status()["cost"]["ended"]) >= HOURLY // 6, "a cluster at rest books too"
    # a cluster that is deleted books nothing, and holds nothing up
    s.annotate(VIRTUAL_CLUSTER, "lab", paused="false")
    async with s.operator():
        await s.until(lambda: len(s.living()) == 1)
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.until(lambda: not s.machines() and not s.api.all(VIRTUAL_CLUSTER))


@scene
async def test_a_machine_whose_finalizer_is_taken_off_by_hand_is_booked_all_the_same(s: Scene) -> None:
    s.cluster(replicas=1)
    async with s.operator():
        await s.settle()
        await asyncio.sleep(900)
        s.change(VIRTUAL_MACHINE, "lab-workers-0", lambda obj: obj["metadata"].update(finalizers=[]))
        await s.delete(VIRTUAL_MACHINE, "lab-workers-0")
        await s.until(lambda: "ended" in s.cluster_status()["cost"])
        assert to_nanos(s.cluster_status()["cost"]["ended"]) >= HOURLY // 4


def test_each_run_is_booked_once_and_the_books_stay_small() -> None:
    runs = [
        read_machine(machine(f"m{n}", started=START, ended=START + 3600, hourly=NANO, uid=f"u{n}")) for n in range(300)
    ]
    books, new = book(Books(), runs[:200], {run.uid for run in runs[:200]})
    assert (books.ended, len(new), len(books.sessions)) == (200 * NANO, 200, 200)
    assert book(books, runs[:200], {run.uid for run in runs[:200]}) == (books, [])
    # all of the first went; what is booked later drops them, but for the last ones
    books, new = book(books, runs, {run.uid for run in runs[200:]})
    assert (books.ended, len(new), len(books.sessions)) == (300 * NANO, 100, REMEMBERED + 100)
    going = read_machine(machine("g", started=START, hourly=NANO, uid="g"))
    unpriced = read_machine(machine("h", started=START, ended=START + 9, hourly=None, uid="h"))
    assert book(books, [going, unpriced], set()) == (books, [])
