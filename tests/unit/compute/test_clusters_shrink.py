"""A cluster that is made smaller: its quote, its approval and its place in a Budget shrink with it."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER
from cloudmesh.testing import run_virtual

APPROVAL = {"mode": "RequireApproval"}
TEAM = {"matchLabels": {"team": "a"}}


def approve(s: Scene) -> None:
    s.annotate(VIRTUAL_CLUSTER, "lab", approved_quote=s.cluster_status()["quote"]["hash"])


def amount(s: Scene, text: str) -> None:
    def change(obj: Any) -> None:
        obj["spec"]["amount"] = text

    s.change(BUDGET, "money", change)


def quoted(s: Scene) -> tuple[int, str]:
    """Machines and hourly cost, as the quote of the status tells them."""
    status = s.cluster_status()
    assert status["quote"]["hash"] == status["approvedQuote"]
    return sum(d["count"] for d in status["placement"]["decisions"]), status["quote"]["hourly"]["amount"]


async def up(s: Scene, **spec: Any) -> Decimal:
    """A cluster of three that runs; gives what one machine costs an hour."""
    s.cluster(labels={"team": "a"}, **spec)
    await s.until(lambda: bool(s.cluster_status().get("quote")))
    if "apply" in spec:
        approve(s)
    await s.until(lambda: s.said() == ("True", "AsSpecified"))
    return Decimal(s.cluster_status()["cost"]["hourly"]) / 3


# -- Budgets


@pytest.mark.parametrize("powers", [True, False])
@pytest.mark.parametrize("spec", [{}, {"apply": APPROVAL}])
def test_a_stopped_cluster_starts_when_it_is_made_small_enough(powers: bool, spec: Any) -> None:
    async def main() -> None:
        s = Scene(powers=powers)
        s.add_account()
        async with s.operator():
            one = await up(s, **spec)
            s.budget(str(one * Decimal("1.8")), selector=TEAM)
            await s.until(lambda: s.said() == ("False", "BudgetExceeded"))
            await s.until(lambda: s.hourly() == 0)
            await s.settle()
            assert s.said() == ("False", "BudgetExceeded")
            s.edit(replicas=1)
            await s.until(lambda: s.said() == ("True", "AsSpecified"), 120)
            assert quoted(s) == (1, str(one))
            await s.settle()
            assert len(s.living()) == 1
            assert s.told("BudgetExceeded")
            s.once()

    run_virtual(main())


@scene
async def test_a_cluster_that_was_larger_once_starts_again_in_a_budget_for_what_it_is(s: Scene) -> None:
    async with s.operator():
        one = await up(s)
        s.edit(replicas=1)
        await s.settle()
        s.budget(str(one / 2), selector=TEAM)
        await s.until(lambda: s.said() == ("False", "BudgetExceeded"))
        await s.until(lambda: s.hourly() == 0)
        await s.settle()
        amount(s, str(one * Decimal("1.5")))
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 120)


@scene
async def test_a_machine_that_was_refused_takes_no_money_from_the_next(s: Scene) -> None:
    rows = [row for row in s.cloud.stock.rows.values() if row.purchase == "OnDemand"]
    cheapest = min(rows, key=lambda row: row.hourly_nanos)
    cheapest.free, cheapest.tell_free = 0, False
    s.budget(str(Decimal(cheapest.hourly_nanos) / 10**9 * Decimal("1.5")))  # for one, not for two
    s.cluster(replicas=1)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"), 60)
        assert "next is" in s.told("CapacityUnavailable")[-1]
        assert s.told("BudgetExceeded") == []


@pytest.mark.parametrize("powers", [True, False])
@pytest.mark.parametrize("spec", [{}, {"apply": APPROVAL}])
def test_what_is_being_started_isnt_counted_twice(powers: bool, spec: Any) -> None:
    async def main() -> None:
        s = Scene(powers=powers)
        s.add_account()
        s.cloud.habits.boot_seconds = 60.0
        async with s.operator():
            one = await up(s, **spec)
            s.budget(str(one), selector=TEAM)
            await s.until(lambda: s.said() == ("False", "BudgetExceeded"))
            await s.until(lambda: s.hourly() == 0)
            await asyncio.sleep(1200)  # the quote is out of date by now
            told = s.told("BudgetExceeded")
            # room for three, and hardly more than what they have cost
            amount(s, str(one * Decimal("3.3")))
            await s.until(lambda: s.said()[1] != "BudgetExceeded", 60)
            await s.until(lambda: s.said() == ("True", "AsSpecified"), 120)
            # none of them was stopped, or made, once more
            assert s.told("BudgetExceeded") == told
            assert len(s.cloud.meter.lines) == (3 if powers else 6)
            s.once()

    run_virtual(main())


# -- approval


@pytest.mark.parametrize("restarted", [False, True])
def test_growing_again_needs_another_approval(restarted: bool) -> None:
    async def main() -> None:
        s = Scene()
        s.add_account()
        async with s.operator():
            one = await up(s, apply=APPROVAL)
            first = s.cluster_status()["quote"]["hash"]
            s.edit(replicas=1)
            await s.until(lambda: len(s.living()) == 1)
            await s.settle()
            assert s.said() == ("True", "AsSpecified")
            assert quoted(s) == (1, str(one))
            assert s.cluster_status()["approvedHourly"] == str(one)
            if not restarted:
                await _grow(s, first)
        if restarted:
            async with s.operator():
                await s.settle()
                assert quoted(s) == (1, str(one))
                await _grow(s, first)

    run_virtual(main())


async def _grow(s: Scene, first: str) -> None:
    smaller = s.cluster_status()["quote"]["hash"]
    # a replacement is still covered
    victim = s.living()[0]
    s.cloud.vanish(victim.id)
    await s.until(lambda: [i.id for i in s.living()] not in ([], [victim.id]))
    await s.settle()
    assert s.said() == ("True", "AsSpecified")
    assert s.cluster_status()["quote"]["hash"] == smaller
    s.edit(replicas=3)
    await s.settle()
    assert s.said() == ("False", "AwaitingApproval")
    assert len(s.living()) == 1
    s.annotate(VIRTUAL_CLUSTER, "lab", approved_quote=first)
    await s.settle()
    assert len(s.living()) == 1
    approve(s)
    await s.until(lambda: s.said() == ("True", "AsSpecified"))
    assert len(s.living()) == 3
    assert quoted(s)[0] == 3


@scene
async def test_an_operator_that_ends_in_the_middle_leaves_no_approval_of_more(s: Scene) -> None:
    async with s.operator():
        await up(s, apply=APPROVAL)
        s.edit(replicas=1)
        # the very moment at which the first machine is told to go
        await s.until(lambda: any(m["metadata"].get("deletionTimestamp") for m in s.machines()))
        assert quoted(s)[0] == 1
    s.edit(replicas=3)
    async with s.operator():
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        assert len(s.living()) <= 1


@scene
async def test_growing_that_was_given_up_leaves_what_runs(s: Scene) -> None:
    async with s.operator():
        one = await up(s, apply=APPROVAL)
        s.edit(replicas=4)
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
        s.edit(replicas=3)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert quoted(s) == (3, str(one * 3))
        assert len(s.living()) == 3


@scene
async def test_a_cluster_of_none_needs_an_approval_for_its_first(s: Scene) -> None:
    async with s.operator():
        await up(s, apply=APPROVAL)
        s.edit(replicas=0)
        await s.until(lambda: not s.living())
        await s.settle()
        assert "decisions" not in s.cluster_status().get("placement", {})
        s.edit(replicas=1)
        await s.settle()
        assert s.said() == ("False", "AwaitingApproval")
