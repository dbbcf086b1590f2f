"""Other labels: what was spent stays with the Budgets of before, what comes after counts in those of now."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.compute.budget_parts import START, budget, machine
from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.api.virtualmachine_status import MAX_CHARGES, MAX_LABELS
from cloudmesh.compute.budget_plan import charged, read_runs, unbooked
from cloudmesh.compute.budgets import shared
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.engine import Engine, Obj
from cloudmesh.policy.model import NANO
from cloudmesh.testing import CrashPoint, for_every_crash, run_virtual


def budgets(s: Scene) -> None:
    for team in ("a", "b"):
        s.budget("1000", team, selector={"matchLabels": {"team": team}})
    s.budget("1000", "all")


def relabel(s: Scene, team: str, name: str = "lab") -> None:
    s.change(VIRTUAL_CLUSTER, name, lambda obj: obj["metadata"].update(labels={"team": team}))


def spent(engine: Engine) -> dict[str, int]:
    return {b["metadata"]["name"]: to_nanos(b["status"]["spent"]) for b in shared(engine).objects("ns")}


def billed(s: Scene) -> int:
    return s.cloud.meter.total(s.cloud.now())


def near(s: Scene, nanos: int) -> object:
    """To within ten seconds of each machine."""
    return pytest.approx(nanos, abs=len(s.cloud.meter.lines) * 37_800_000 * 10 // 3600)


@scene
async def test_what_was_spent_stays_and_what_comes_counts_elsewhere(s: Scene) -> None:
    budgets(s)
    s.cluster(replicas=2, labels={"team": "a"})
    async with s.operator() as (engine, _):
        await s.settle()
        await asyncio.sleep(1800)
        first = billed(s)
        relabel(s, "b")
        await asyncio.sleep(900)
        assert spent(engine) == {"a": near(s, first), "b": near(s, billed(s) - first), "all": near(s, billed(s))}
        assert s.get(BUDGET, "a")["status"]["booked"]["machines"] == 2
        assert all("charges" not in m["status"] for m in s.machines()), "what is booked needn't be kept"
        second = billed(s)
        relabel(s, "a")  # and back: no second is counted twice
        await asyncio.sleep(900)
        back = first + billed(s) - second
        assert spent(engine) == {"a": near(s, back), "b": near(s, second - first), "all": near(s, billed(s))}
    async with s.operator() as (engine, _):  # another leader counts the same
        await asyncio.sleep(60)
        total = spent(engine)
        assert total["a"] + total["b"] == near(s, billed(s)) == total["all"]
        s.edit(replicas=0)
        await s.until(lambda: not s.machines())
        await asyncio.sleep(400)
        total = spent(engine)
        assert total["a"] + total["b"] == near(s, billed(s)) == total["all"]
        assert to_nanos(s.cluster_status()["cost"]["accrued"]) == near(s, billed(s))


@scene
async def test_a_machine_that_stands_alone_may_change_its_team_too(s: Scene) -> None:
    budgets(s)
    s.add_machine("m")
    s.change(VIRTUAL_MACHINE, "m", lambda obj: obj["metadata"].update(labels={"team": "a"}))
    async with s.operator() as (engine, _):
        await s.until(lambda: s.is_ready("m"))
        await asyncio.sleep(1800)
        first = billed(s)
        s.change(VIRTUAL_MACHINE, "m", lambda obj: obj["metadata"].update(labels={"team": "b"}))
        await asyncio.sleep(900)
        assert (spent(engine)["a"], spent(engine)["b"]) == (near(s, first), near(s, billed(s) - first))


def test_a_crash_at_any_call_of_a_relabelling_counts_each_second_once() -> None:
    async def scenario(crash: CrashPoint) -> None:
        s = Scene()
        s.cloud.habits.boot_seconds = 0.5
        s.add_account()
        budgets(s)
        s.cluster(replicas=1, labels={"team": "a"})
        async with s.operator():
            await s.settle(quiet=3.0)
            await asyncio.sleep(900)
            first = billed(s)

        async def life() -> None:
            async with s.operator(crash):
                await asyncio.sleep(1)
                relabel(s, "b")
                await s.settle(quiet=3.0)

        await crash.until_crash(life())
        relabel(s, "b")
        async with s.operator() as (engine, _):
            await asyncio.sleep(600)
            found = spent(engine)
            assert found["a"] + found["b"] == near(s, billed(s)) == found["all"]
            assert found["a"] >= first - 37_800_000 * 10 // 3600

    async def main() -> None:
        assert await for_every_crash(scenario) > 8

    run_virtual(main())


# -- pure --------------------------------------------------------------------------------------------------------------


def team(name: str) -> Obj:
    return budget(name, labels={"team": name})


def running(**status: object) -> Obj:
    obj = machine("m", uid="u", started=START, hourly=NANO)
    obj["status"] |= status
    return obj


def cut(obj: Obj, labels: dict[str, str], seconds: int, *more: Obj) -> Obj:
    new = charged(obj["status"], labels, [team("a"), team("b"), *more], obj, to_time(START + seconds))
    rest = {k: v for k, v in obj["status"].items() if k not in ("charge", "charges")}
    return obj | {"status": rest | new}


def test_a_run_is_cut_only_where_other_budgets_are_concerned() -> None:
    obj = cut(running(), {"team": "a"}, 0)
    assert obj["status"]["charge"] == {"labels": {"team": "a"}}
    obj = cut(obj, {"team": "a", "color": "red"}, 60)
    assert obj["status"]["charge"]["labels"]["color"] == "red" and "charges" not in obj["status"]
    obj = cut(obj, {"team": "b"}, 90)
    assert obj["status"]["charge"] == {"labels": {"team": "b"}, "since": to_time(START + 90)}
    (past, then), (last, now) = read_runs(obj, {})
    assert (past.started, past.ended, last.started, last.ended) == (START, START + 90, START + 90, None)
    assert then["team"] == "a" and now["team"] == "b"
    assert past.session != last.session
    assert unbooked([team("a"), team("b")], obj, {}) == ["a"]
    # a clock that went back cuts nothing
    assert cut(obj, {"team": "a"}, 80)["status"]["charge"]["labels"] == {"team": "a"}


def test_what_a_status_holds_is_limited() -> None:
    obj = cut(running(), {"team": "a"}, 0)
    for number in range(1, 30):
        obj = cut(obj, {"team": "ab"[number % 2]}, 60 * number)
    assert len(obj["status"]["charges"]) == MAX_CHARGES
    many = {f"k{n:03}": "v" for n in range(100)} | {"team": "b"}
    labels = cut(running(), many, 0)["status"]["charge"]["labels"]
    assert len(labels) == MAX_LABELS and labels["team"] == "b"


def test_another_run_begins_with_the_labels_of_now() -> None:
    obj = cut(running(), {"team": "a"}, 0)
    held = obj | {"status": obj["status"] | {"endedAt": to_time(START + 60)}}
    assert cut(held, {"team": "b"}, 90)["status"]["charge"] == {"labels": {"team": "a"}}
    again = {**obj["status"], "startedAt": to_time(START + 600)}
    assert charged(again, {"team": "b"}, [team("b")], held, to_time(START + 600)) == {
        "charge": {"labels": {"team": "b"}}
    }
