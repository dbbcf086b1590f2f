"""Budgets on a memory API server in virtual time: counting, booking once, telling, waking."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.compute.budget_parts import NAMESPACE, RESOURCES, START, Ender, Still, budget, clock, cluster, machine

from cloudmesh.api.budget import Budget
from cloudmesh.compute.budget_controller import BudgetReconciler
from cloudmesh.compute.budget_plan import verdict
from cloudmesh.compute.budgets import PROMISE_SECONDS, Budgets, shared
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import cost, to_nanos
from cloudmesh.engine import EVENT, Engine, Obj
from cloudmesh.policy.model import NANO
from cloudmesh.testing import CrashPoint, Faults, FaultyTransport, World, for_every_crash, run_virtual

VM, VC = VIRTUAL_MACHINE, VIRTUAL_CLUSTER


def counter(engine: Engine) -> BudgetReconciler:
    return BudgetReconciler(engine, Budgets(engine, now=clock, monotonic=_loop_time), monotonic=_loop_time)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()


def seconds() -> int:
    return to_seconds(clock())


def status(world: World, name: str = "month") -> dict[str, Any]:
    obj = world.api.get(BUDGET, NAMESPACE, name)
    assert obj is not None
    found: dict[str, Any] = obj.get("status") or {}
    return found


def condition(world: World, type_: str, name: str = "month") -> tuple[str, str] | None:
    return next(((c["status"], c["reason"]) for c in status(world, name)["conditions"] if c["type"] == type_), None)


def put(world: World, name: str, **fields: Any) -> Obj:
    owner = fields.get("owner")
    stored = world.api.put(VC, owner) if owner is not None else None
    return world.api.put(VM, machine(name, **(fields | {"owner": stored} if stored else fields)))


def end(world: World, name: str, at: int) -> None:
    obj = world.api.get(VM, NAMESPACE, name)
    assert obj is not None
    world.api.set_status(VM, NAMESPACE, name, obj["status"] | {"endedAt": to_time(at)})


def events(world: World, reason: str) -> list[str]:
    return [e["note"] for e in world.api.all(EVENT) if e["reason"] == reason]


def test_spending_is_counted_and_written_every_few_minutes_only() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget())
        put(world, "w", started=seconds(), hourly=NANO)
        async with world.engine(counter, Ender, Still):
            await asyncio.sleep(5)
            writes = world.api.writes(BUDGET)
            assert writes == 2 and condition(world, "Ready") == ("True", "AsSpecified")
            await asyncio.sleep(3600)
            assert 10 <= world.api.writes(BUDGET) - writes <= 12
            found = to_nanos(status(world)["spent"])
            assert cost(NANO, 3300) <= found <= cost(NANO, 3606)

    run_virtual(main())


def test_a_budget_at_rest_costs_no_write() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget())
        put(world, "w", started=START - 100, ended=START - 50)
        async with world.engine(counter, Ender, Still):
            await world.settle()
            writes = world.api.writes()
            await asyncio.sleep(3600)
        async with world.engine(counter, Ender, Still):
            await asyncio.sleep(600)
            assert world.api.writes() == writes

    run_virtual(main())


def test_a_machine_goes_when_it_is_booked_and_its_cost_stays() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget())
        world.api.put(BUDGET, budget("other", labels={"team": "b"}))
        begin = seconds()
        put(world, "w-0", started=begin, hourly=3 * NANO, owner=cluster("lab", team="a"))
        async with world.engine(counter, Ender, Still):
            await asyncio.sleep(100)
            world.api.remove(VM, NAMESPACE, "w-0")
            await asyncio.sleep(20)
            assert world.api.get(VM, NAMESPACE, "w-0") is not None, "it runs, so nothing is booked"
            end(world, "w-0", begin + 120)
            await asyncio.sleep(5)
            assert world.api.get(VM, NAMESPACE, "w-0") is None
            assert status(world)["spent"] == "0.1" == status(world)["booked"]["spent"]
            assert status(world)["booked"]["machines"] == 1
            assert status(world, "other")["spent"] == "0"
            assert (status(world)["selected"], status(world, "other")["selected"]) == (1, 0)
            # when the VirtualMachine is surely gone its session needn't be remembered
            await asyncio.sleep(900)
            assert "uids" not in status(world)["booked"] and status(world)["spent"] == "0.1"

    run_virtual(main())


def test_a_machine_that_vanishes_without_a_booking_is_booked_all_the_same() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget())
        begin = seconds()
        put(world, "w", started=begin, hourly=NANO)
        put(world, "x", started=begin, hourly=NANO)
        async with world.engine(counter, Ender, Still):
            await asyncio.sleep(600)
            obj = world.api.get(VM, NAMESPACE, "w")
            assert obj is not None
            obj["metadata"]["finalizers"] = []
            world.api.put(VM, obj)  # somebody takes the finalizer off by hand
            world.api.remove(VM, NAMESPACE, "w")
            await asyncio.sleep(3000)
            found = status(world)["booked"]
            assert found["machines"] == 1
            assert cost(NANO, 600) <= to_nanos(found["spent"]) <= cost(NANO, 665)

    run_virtual(main())


def test_the_limit_is_met_to_the_second_and_wakes_what_it_selects() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="2", alertsAtPercent=[40]))
        begin, still = seconds(), []

        def make(engine: Engine) -> Still:
            still.append(Still(engine))
            return still[0]

        put(world, "w-0", started=begin, hourly=NANO, owner=cluster("lab"))
        async with world.engine(counter, Ender, make):
            await asyncio.sleep(3590)
            assert condition(world, "WithinBudget") == ("True", "AsSpecified")
            woken = len(still[0].woken)
            assert len(events(world, "BudgetAlert")) == 1 and not events(world, "BudgetExceeded")
            await asyncio.sleep(20)
            # spent 1.00, and 1 more reserved for the next hour
            assert condition(world, "WithinBudget") == ("False", "BudgetExceeded")
            assert 3600 <= seconds() - begin <= 3620
            assert len(still[0].woken) > woken
            found = world.api.get(BUDGET, NAMESPACE, "month")
            assert found is not None and verdict([found], {}, 0, "USD").exceeded
            await asyncio.sleep(3600)
            [exceeded], [alert] = events(world, "BudgetExceeded"), events(world, "BudgetAlert")
            assert exceeded.endswith("reserved for the next hour are more than 2")
            assert alert.startswith("40 % of 2 USD are spent: 0.")

    run_virtual(main())


def test_more_money_wakes_what_waits_for_it() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="1"))
        still = []

        def make(engine: Engine) -> Still:
            still.append(Still(engine))
            return still[0]

        waiting = cluster("waits") | {"status": {"conditions": [{"type": "Ready", "reason": "BudgetExceeded"}]}}
        world.api.put(VC, waiting)
        world.api.put(VC, cluster("content"))
        async with world.engine(counter, Ender, make):
            await asyncio.sleep(300)
            still[0].woken.clear()
            world.api.put(BUDGET, budget(amount="100"))
            await asyncio.sleep(5)
            assert still[0].woken == ["waits"]
            still[0].woken.clear()
            world.api.remove(BUDGET, NAMESPACE, "month")
            await asyncio.sleep(5)
            assert sorted(still[0].woken) == ["content", "waits"]

    run_virtual(main())


def since(begin: int) -> Callable[[Engine], BudgetReconciler]:
    """Makes reconcilers whose clock stands at `begin` when the loop's begins."""

    def late() -> str:
        return to_time(seconds() - START + begin)

    def make(engine: Engine) -> BudgetReconciler:
        return BudgetReconciler(engine, Budgets(engine, now=late, monotonic=_loop_time), monotonic=_loop_time)

    return make


def test_a_month_turns_while_machines_run() -> None:
    december = to_seconds("2026-12-01T00:00:00Z")
    begin = december - 7200

    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="100000", alertsAtPercent=[1]))
        put(world, "w", started=begin, hourly=1000 * NANO)
        async with world.engine(since(begin), Ender, Still):
            await asyncio.sleep(7195)
            november = status(world)
            assert november["booked"]["month"] == "2026-11" and november["alertedAtPercent"] == [1]
            await asyncio.sleep(10)
            now = status(world)
            assert now["booked"]["month"] == "2026-12" and "alertedAtPercent" not in now
            assert now["history"] == [{"month": "2026-11", "spent": "2000"}]
            assert to_nanos(now["spent"]) <= cost(1000 * NANO, 10) and now["until"] == "2027-01-01T00:00:00Z"
            end(world, "w", december + 360)
            await asyncio.sleep(400)
            assert status(world)["booked"]["spent"] == "100"

    run_virtual(main())


def test_a_budget_of_all_time_counts_on_when_the_month_turns() -> None:
    begin = to_seconds("2026-12-01T00:00:00Z") - 3600

    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="3", period="Total", alertsAtPercent=[40]))
        put(world, "w", started=begin, hourly=NANO, owner=cluster("lab"))
        put(world, "old", started=begin - 1800, ended=begin, hourly=NANO)
        async with world.engine(since(begin), Ender, Still):
            await asyncio.sleep(5395)
            assert condition(world, "WithinBudget") == ("True", "AsSpecified")
            await asyncio.sleep(20)
            # half an hour that had ended, one and a half that ran, one that is reserved
            assert condition(world, "WithinBudget") == ("False", "BudgetExceeded")
            found = status(world)
            assert "until" not in found and "history" not in found
            assert found["booked"] == {
                "month": "2026-11",
                "spent": "0.5",
                "machines": 1,
                "uids": found["booked"]["uids"],
            }
            assert found["alertedAtPercent"] == [40] and len(events(world, "BudgetAlert")) == 1
            Budget.model_validate(world.api.get(BUDGET, NAMESPACE, "month"), extra="forbid")

    run_virtual(main())


def test_metrics_come_and_go_with_the_budget() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="10"))
        put(world, "w", started=seconds() - 3600, hourly=NANO)
        async with world.engine(counter, Ender, Still) as engine:
            await asyncio.sleep(5)
            text = engine.metrics.text().decode()
            label = '{budget="month",currency="USD",namespace="lab"}'
            assert f"cloudmesh_budget_spent{label} 1.0" in text
            assert f"cloudmesh_budget_reserved{label} 1.0" in text
            assert f"cloudmesh_budget_remaining{label} 7.99" in text or f"cloudmesh_budget_remaining{label} 8.0" in text
            world.api.remove(BUDGET, NAMESPACE, "month")
            await asyncio.sleep(5)
            assert "cloudmesh_budget_spent{" not in engine.metrics.text().decode()

    run_virtual(main())


# -- once, whatever happens --------------------------------------------------------------------------------------------


def test_crash_at_every_call_books_once() -> None:
    async def scenario(point: CrashPoint) -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget())
        begin = seconds()
        for number in range(3):
            put(world, f"w{number}", started=begin - 3600, hourly=NANO)
        done: set[str] = set()

        def finish(name: str) -> None:
            if name not in done:
                done.add(name)
                end(world, name, begin)
                world.api.remove(VM, NAMESPACE, name)

        async def life(crash: CrashPoint | None) -> None:
            async with world.engine(counter, Ender, Still, crash=crash):
                for number in range(3):
                    await asyncio.sleep(40)
                    finish(f"w{number}")
                await asyncio.sleep(800)

        await point.until_crash(life(point))
        await life(None)
        assert world.api.all(VM) == []
        assert status(world)["booked"] == {"month": "2026-11", "spent": "3", "machines": 3}
        assert status(world)["spent"] == "3"

    async def main() -> None:
        assert await for_every_crash(scenario) >= 20

    run_virtual(main())


def storm(seed: int, faults: Callable[[Faults, random.Random], None]) -> None:
    """Two processes lead at once, calls fail, machines come and go: at the end the sum is exact."""

    async def main() -> None:
        rng = random.Random(seed)
        world = World(RESOURCES, seed=seed)
        world.api.latency_seconds = 0.02
        world.api.put(BUDGET, budget(amount="1000000"))
        world.api.put(BUDGET, budget("team", amount="1000000", labels={"team": "a"}))
        transports = []
        for _ in range(2):
            rules = Faults()
            faults(rules, rng)
            transports.append(FaultyTransport(world.api, rules))
        truth = {"month": 0, "team": 0}
        async with (
            world.engine(counter, Ender, Still, transport=transports[0]),
            world.engine(counter, Ender, Still, transport=transports[1]),
        ):
            alive: dict[str, tuple[int, int, bool]] = {}
            for number in range(60):
                await asyncio.sleep(rng.uniform(0, 20))
                name = f"w{number}"
                begin, hourly, mine = seconds() - rng.randrange(0, 30), rng.randrange(1, 10 * NANO), rng.random() < 0.5
                put(world, name, started=begin, hourly=hourly, labels={"team": "a" if mine else "b"})
                alive[name] = (begin, hourly, mine)
                while alive and rng.random() < 0.55:
                    gone = rng.choice(sorted(alive))
                    begin, hourly, mine = alive.pop(gone)
                    at = seconds()
                    truth["month"] += cost(hourly, at - begin)
                    truth["team"] += cost(hourly, at - begin) if mine else 0
                    end(world, gone, at)
                    world.api.remove(VM, NAMESPACE, gone)
            for gone, (begin, hourly, mine) in sorted(alive.items()):
                at = seconds()
                truth["month"] += cost(hourly, at - begin)
                truth["team"] += cost(hourly, at - begin) if mine else 0
                end(world, gone, at)
                world.api.remove(VM, NAMESPACE, gone)
            for _ in range(40):
                await asyncio.sleep(60)
        assert world.api.all(VM) == []
        for name, nanos in truth.items():
            found = status(world, name)
            assert to_nanos(found["booked"]["spent"]) == to_nanos(found["spent"]) == nanos

    run_virtual(main(), seed=seed)


@pytest.mark.parametrize("seed", range(4))
def test_two_leaders_book_once(seed: int) -> None:
    storm(seed, lambda rules, rng: None)


@pytest.mark.parametrize("seed", range(4))
def test_two_leaders_on_a_bad_network_book_once(seed: int) -> None:
    def faults(rules: Faults, rng: random.Random) -> None:
        rules.add("lose", method="PATCH", path="budgets", times=8, skip=rng.randrange(5))
        rules.add("drop", method="GET", path="virtualmachines/", times=8)
        rules.add("answer", method="PATCH", path="budgets", status=500, times=5, skip=rng.randrange(30))
        rules.add("lose", method="PATCH", path="virtualmachines", times=5, skip=rng.randrange(9))
        rules.add("cut", path="watch=true", events=rng.randrange(20), times=10)

    storm(seed, faults)


# -- promises ----------------------------------------------------------------------------------------------------------


def test_what_is_promised_to_one_isnt_promised_to_another() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="10", labels={"team": "a"}))
        for name in ("one", "two", "three"):
            world.api.put(VC, cluster(name, team="a"))
        made: list[Budgets] = []

        def make(engine: Engine) -> BudgetReconciler:
            made.append(Budgets(engine, now=clock, monotonic=_loop_time))
            return BudgetReconciler(engine, made[0], monotonic=_loop_time)

        def claim(name: str, hourly: int, team: str = "a") -> bool:
            return made[0].claim(NAMESPACE, name, {"team": team}, hourly * NANO, "USD").allowed

        async with world.engine(make, Ender, Still):
            await asyncio.sleep(5)
            assert claim("one", 6)
            assert not claim("two", 5)
            assert claim("two", 4) and claim("two", 4), "the same question again isn't another promise"
            assert claim("stranger", 1000, team="b")
            assert not claim("three", 1)
            assert claim("two", 0) and claim("three", 4)
            # machines that come fill the promise, they don't add to it
            put(world, "one-w-0", started=seconds(), hourly=6 * NANO, owner=cluster("one", team="a"))
            await asyncio.sleep(3)
            assert not made[0].ask(NAMESPACE, "one", {"team": "a"}, 1, "USD").allowed
            assert made[0].ask(NAMESPACE, "three", {"team": "a"}, 3 * NANO, "USD").allowed
            made[0].release(NAMESPACE, "three")
            assert claim("two", 3)
            # a promise that nobody renews ends
            await asyncio.sleep(PROMISE_SECONDS + 1)
            assert claim("three", 3)

    run_virtual(main())


def test_without_a_budget_nothing_is_counted() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        async with world.engine(counter, Ender, Still) as engine:
            await asyncio.sleep(1)
            budgets = shared(engine)
            assert shared(engine) is budgets
            found = budgets.claim(NAMESPACE, "lab", {}, 10**20, "USD")
            assert found.allowed and found.remaining_nanos is None

    run_virtual(main())


def test_a_storm_of_starts_stays_within_the_budget() -> None:
    async def main() -> None:
        world = World(RESOURCES)
        world.api.put(BUDGET, budget(amount="100"))
        made: list[Budgets] = []

        def make(engine: Engine) -> BudgetReconciler:
            made.append(Budgets(engine, now=clock, monotonic=_loop_time))
            return BudgetReconciler(engine, made[0], monotonic=_loop_time)

        async with world.engine(make, Ender, Still):
            await asyncio.sleep(5)
            rng = random.Random(7)
            started: list[str] = []

            async def start(number: int) -> None:
                name = f"c{number}"
                owner = world.api.put(VC, cluster(name))
                await asyncio.sleep(rng.uniform(0, 5))
                if made[0].claim(NAMESPACE, name, {}, NANO, "USD").allowed:
                    await asyncio.sleep(rng.uniform(0, 30))
                    world.api.put(VM, machine(f"{name}-w-0", started=seconds(), hourly=NANO, owner=owner))
                    started.append(name)

            await asyncio.gather(*(start(number) for number in range(300)))
            # the first seconds cost something already: not quite a hundred times a dollar an hour can begin
            assert 90 <= len(started) <= 100

    run_virtual(main())
