"""Machines that stand alone, under Budgets, and those that only name a cluster, under its limit."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.compute.budgets import shared
from cloudmesh.compute.kinds import BUDGET, CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.prices.money import to_nanos, to_text
from cloudmesh.testing import run_virtual


def hourly(s: Scene) -> int:
    return next(iter(s.cloud.stock.rows.values())).hourly_nanos


def billed(s: Scene) -> int:
    return s.cloud.meter.total(s.cloud.now())


async def ready_account(s: Scene) -> None:
    await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")


@scene
async def test_what_a_budget_cant_pay_isnt_made_and_starts_when_it_can(s: Scene) -> None:
    s.budget(to_text(hourly(s) - 1))
    s.add_machine("m")
    async with s.operator():
        await s.until(lambda: s.condition()[1] == "BudgetExceeded")
        await s.settle()
        assert s.condition() == ("False", "BudgetExceeded") and s.condition("Stalled")[0] == "True"
        assert s.cloud.meter.lines == {}
        await asyncio.sleep(300)
        assert s.cloud.meter.lines == {}
        s.change(BUDGET, "money", lambda obj: obj["spec"].update(amount="100"))
        await s.until(lambda: s.is_ready("m"))


@scene
async def test_money_goes_to_one_of_two(s: Scene) -> None:
    s.budget(to_text(hourly(s) * 3 // 2))
    for name in ("a", "b"):
        s.add_machine(name)
    async with s.operator():
        await s.until(lambda: s.is_ready("a") or s.is_ready("b"))
        await asyncio.sleep(120)
        assert sorted(s.condition(name=n)[1] for n in ("a", "b")) == ["AsSpecified", "BudgetExceeded"]
        assert len(s.cloud.meter.lines) == 1


@scene
async def test_a_budget_that_is_spent_stops_the_machine_and_its_bill(s: Scene) -> None:
    amount = hourly(s) * 5 // 4
    s.budget(to_text(amount))
    s.add_machine("m")
    async with s.operator() as (engine, _):
        await s.until(lambda: s.is_ready("m"))
        await s.until(lambda: s.condition()[1] == "BudgetExceeded", 1800)
        await s.until(lambda: s.cloud.meter.billed_now() == 0)
        await asyncio.sleep(7200)
        assert s.condition() == ("False", "BudgetExceeded")
        assert [i.state for i in s.living()] == ["Stopped"] and "drift" not in s.status()
        assert billed(s) <= amount and s.status()["endedAt"]
        assert s.get(VIRTUAL_MACHINE, "m")["spec"]["powerState"] == "Running", "the spec is the user's"
        s.change(BUDGET, "money", lambda obj: obj["spec"].update(amount="100"))
        await s.until(lambda: s.is_ready("m"))
        await asyncio.sleep(120)
        (budget,) = shared(engine).objects("ns")
        assert abs(to_nanos(budget["status"]["spent"]) - billed(s)) <= hourly(s) * 60 // 3600
        s.once()


def test_a_machine_that_cant_be_stopped_is_deleted() -> None:
    async def main() -> None:
        s = Scene(powers=False)
        s.add_account()
        amount = hourly(s) * 5 // 4
        s.budget(to_text(amount))
        s.add_machine("m")
        async with s.operator():
            await s.until(lambda: s.is_ready("m"))
            await s.until(lambda: not s.living(), 1800)
            await s.until(lambda: s.condition()[1] == "Gone")
            message = next(c["message"] for c in s.status()["conditions"] if c["type"] == "Ready")
            assert "can't be stopped and was deleted" in message and "Budget 'money'" in message
            await asyncio.sleep(3600)
            assert billed(s) <= amount and not s.living() and len(s.cloud.meter.lines) == 1

    run_virtual(main())


@scene
async def test_an_unknown_price_isnt_spent_under_a_budget(s: Scene) -> None:
    for row in s.cloud.stock.rows.values():
        row.told = False
    s.budget("100", selector={"matchLabels": {"team": "a"}})

    def label(obj: Any) -> None:
        obj["metadata"]["labels"] = {"team": "a"}

    s.add_machine("free")
    s.add_machine("m")
    s.change(VIRTUAL_MACHINE, "m", label)
    async with s.operator():
        await s.until(lambda: s.is_ready("free") and s.condition()[1] == "BudgetExceeded")
        await s.settle()
        assert len(s.cloud.meter.lines) == 1
        message = next(c["message"] for c in s.status()["conditions"] if c["type"] == "Ready")
        assert message == "Budget 'money': nobody knows the price of the machine"


@scene
async def test_a_budget_that_only_warns_stops_nothing(s: Scene) -> None:
    s.budget("0.000001", hard="Warn")
    s.add_machine("m")
    async with s.operator():
        await ready_account(s)
        await s.until(lambda: s.is_ready("m"))
        await asyncio.sleep(1800)
        assert s.is_ready("m")
        conditions = s.get(BUDGET, "money")["status"]["conditions"]
        assert {c["type"]: c["status"] for c in conditions}["WithinBudget"] == "False"


@scene
async def test_a_machine_that_only_names_a_cluster_is_no_way_around_a_budget(s: Scene) -> None:
    s.add_account()
    s.budget(to_text(hourly(s) - 1), selector={"matchLabels": {"team": "a"}})
    s.cluster(replicas=0, labels={"team": "a"}, deletionPolicy="Delete")
    s.add_machine("m", clusterRef={"name": "lab"}, pool="workers", ordinal=9)
    async with s.operator():
        await s.until(lambda: s.condition()[1] == "BudgetExceeded")
        await asyncio.sleep(300)
        assert s.cloud.meter.lines == {}


# -- the limit of a cluster that a machine only names ----------------------------------------------------------------


def message(s: Scene, name: str = "m") -> str:
    return str(next(c["message"] for c in s.status(name)["conditions"] if c["type"] == "Ready"))


def guest(s: Scene, name: str = "m", **spec: Any) -> None:
    s.add_machine(name, clusterRef={"name": "lab"}, pool="workers", ordinal=9, **spec)


def limit(s: Scene, nanos: int) -> dict[str, str]:
    return {"amount": to_text(nanos), "currency": "USD"}


CHEAPEST = 37_800_000


@scene
async def test_a_machine_that_names_a_cluster_is_weighed_against_its_limit(s: Scene) -> None:
    s.cluster(replicas=2, maxHourlyCost=limit(s, 2 * CHEAPEST + hourly(s) - 1))
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        guest(s)
        await s.until(lambda: s.condition()[1] == "OverMaxHourlyCost")
        await asyncio.sleep(300)
        assert s.condition() == ("False", "OverMaxHourlyCost") and s.condition("Stalled")[0] == "True"
        assert message(s).startswith("`spec.maxHourlyCost` of VirtualCluster 'lab' is ")
        assert len(s.cloud.meter.lines) == 2
        s.edit(replicas=1)
        await s.until(lambda: s.is_ready("m"))
        # and now there is no room for what the cluster had before
        s.edit(replicas=2)
        await s.until(lambda: s.said()[1] == "OverMaxHourlyCost")
        assert "machines that only name the cluster take" in s.message()
        assert s.hourly() <= 2 * CHEAPEST + hourly(s) - 1
        s.edit(replicas=1, maxHourlyCost=limit(s, CHEAPEST))
        await s.until(lambda: "those that only name the cluster" in s.message())
        await asyncio.sleep(120)
        assert s.is_ready("m"), "what runs goes on"


def test_cluster_and_guests_that_start_at_once_stay_within_the_limit() -> None:
    for native in (True, False):

        async def main(native: bool = native) -> None:
            s = Scene(native=native)
            s.cloud.habits.latency_seconds = 0.7
            s.add_account()
            most = 3 * max(CHEAPEST, hourly(s)) + 1
            async with s.operator():
                await ready_account(s)
                s.cluster(replicas=2, maxHourlyCost=limit(s, most))
                for number in range(4):
                    guest(s, f"m{number}")
                for _ in range(400):
                    await asyncio.sleep(0.5)
                    assert s.hourly() <= most
                assert s.hourly() > 0

        run_virtual(main())


@scene
async def test_a_guest_whose_price_nobody_knows_or_can_compare_isnt_made(s: Scene) -> None:
    s.cluster("lab", replicas=0, maxHourlyCost={"amount": "100", "currency": "EUR"})
    guest(s)
    async with s.operator():
        await s.until(lambda: s.condition()[1] == "OverMaxHourlyCost")
        assert message(s).endswith("is in EUR, the price in USD: they can't be compared")
        for row in s.cloud.stock.rows.values():
            row.told = False
    async with s.operator():
        await s.until(lambda: message(s).endswith("nobody knows the price of the machine"), 4000)
        assert s.cloud.meter.lines == {}
