"""Clocks that jump and clocks that differ: nothing ends early, nothing costs less than nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.compute.budget_parts import START, budget, machine
from tests.unit.compute.cluster_parts import NOW, asked, decision, member
from tests.unit.compute.cluster_scene import Scene

from cloudmesh.compute.budget_ledger import book, count, read_ledger, turn
from cloudmesh.compute.budget_plan import read_machine
from cloudmesh.compute.budget_status import make_status
from cloudmesh.compute.clocks import TOLERANCE_SECONDS, Clock
from cloudmesh.compute.cluster_cost import Books, accrued, make_cost
from cloudmesh.compute.cluster_cost import book as book_run
from cloudmesh.compute.cluster_offers import AVOID_SECONDS, _avoid
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER
from cloudmesh.compute.lifecycle import decide
from cloudmesh.compute.plan import plan
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.compute.quote import VALID_SECONDS, gate, lines_of
from cloudmesh.policy.model import NANO
from cloudmesh.testing import run_virtual

HOUR = 3600
SKEWS = (-HOUR, HOUR, 3 * HOUR, 40 * 24 * HOUR)


# -- the clock itself --------------------------------------------------------------------------------------------------


class Face:
    """A wall clock, a monotonic one, and what the API server told."""

    def __init__(self) -> None:
        self.wall, self.ticks = 1_800_000_000.0, 50.0
        self.heard: tuple[str, float] | None = None
        self.clock = Clock(lambda: self.heard, wall=lambda: self.wall, monotonic=lambda: self.ticks)

    def pass_by(self, seconds: float) -> None:
        self.wall, self.ticks = self.wall + seconds, self.ticks + seconds

    def hear(self) -> None:
        self.heard = ("Fri, 15 Jan 2027 08:00:00 GMT", self.ticks)  # 1,800,000,000


def test_the_wall_clock_counts_while_the_api_server_agrees_or_is_unknown() -> None:
    face = Face()
    assert face.clock.now() == "2027-01-15T08:00:00Z"
    face.hear()
    face.wall += TOLERANCE_SECONDS
    assert face.clock.now() == "2027-01-15T08:00:05Z"


@pytest.mark.parametrize("skew", SKEWS)
def test_else_the_api_servers_time_counts_and_goes_on(skew: float, caplog: pytest.LogCaptureFixture) -> None:
    face = Face()
    face.hear()
    face.wall += skew
    with caplog.at_level(logging.WARNING):
        assert face.clock.now() == "2027-01-15T08:00:00Z"
        face.pass_by(90.0)
        assert face.clock.now() == "2027-01-15T08:01:30Z"
    assert len(caplog.records) == 1, "it is told once"
    face.wall -= skew
    assert face.clock.now() == "2027-01-15T08:01:30Z"


def test_a_date_that_is_none_is_as_good_as_no_date() -> None:
    face = Face()
    face.heard = ("yesterday", 50.0)
    assert face.clock.now() == "2027-01-15T08:00:00Z"


# -- the whole wing while the operator's clock jumps -------------------------------------------------------------------


def jumping(test: Callable[[Scene, dict[str, float]], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Runs a test once for each skew; it sets `by` where the clock jumps."""

    def run() -> None:
        for skew in (SKEWS[0], SKEWS[-1]):

            async def main(skew: float = skew) -> None:
                s, by = Scene(), {"now": 0.0, "skew": skew}
                s.skew = lambda: by["now"]
                s.api.tells_date = True
                s.add_account()
                await test(s, by)

            run_virtual(main())

    run.__name__ = test.__name__
    return run


@jumping
async def test_lifetime_idleness_and_health_survive_a_jump(s: Scene, by: dict[str, float]) -> None:
    s.cluster(
        replicas=2,
        lifecycle={"state": "Running", "maxLifetimeSeconds": 4 * HOUR, "idle": {"afterSeconds": 2 * HOUR}},
        pool={"health": {"startupTimeoutSeconds": 600, "unhealthyAfterSeconds": 120}},
    )
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        made = [i.id for i in s.living()]
        by["now"] = by["skew"]
        s.edit(access={"sshPublicKeys": []})  # a pass that reads the clock just now
        await asyncio.sleep(1200)
        by["now"] = 0.0
        await asyncio.sleep(1200)
        assert [i.id for i in s.living()] == made and s.said() == ("True", "AsSpecified")
        # it ends when it is really over, wherever the clock stands
        by["now"] = by["skew"]
        begun = asyncio.get_running_loop().time()
        await s.until(lambda: s.said()[1] == "Suspended", 2 * HOUR)
        assert asyncio.get_running_loop().time() - begun > HOUR
        await s.until(lambda: s.said()[1] == "LifetimeExceeded", 4 * HOUR)
        assert asyncio.get_running_loop().time() - 1000 >= 4 * HOUR - 60


@jumping
async def test_cost_and_budget_count_real_hours(s: Scene, by: dict[str, float]) -> None:
    s.budget("1000")
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        month = s.get(BUDGET, "money")["status"]["booked"]["month"]
        for _ in range(3):
            by["now"] = by["skew"]
            await asyncio.sleep(900)
            by["now"] = 0.0
            await asyncio.sleep(900)
        s.edit(replicas=0)
        by["now"] = by["skew"]
        await s.until(lambda: not s.machines())
        await asyncio.sleep(400)
        billed = s.cloud.meter.total(s.cloud.now())
        status = s.get(BUDGET, "money")["status"]
        assert status["booked"]["month"] == month and "history" not in status
        for found in (status["spent"], s.cluster_status()["cost"]["accrued"]):
            assert to_nanos(found) == pytest.approx(billed, rel=0.01)


@jumping
async def test_quotes_and_failures_are_kept_their_time(s: Scene, by: dict[str, float]) -> None:
    s.cluster("approve", replicas=1, apply={"mode": "RequireApproval"})
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.said(name="approve")[1] == "AwaitingApproval")
        quoted = s.cluster_status("approve")["quote"]["hash"]
        by["now"] = by["skew"]
        s.annotate(VIRTUAL_CLUSTER, "approve", approved_quote=quoted)
        await s.until(lambda: s.said(name="approve") == ("True", "AsSpecified"), 120)
        rows = [row for row in s.cloud.stock.rows.values() if row.purchase == "OnDemand"]
        for row in rows:
            row.free, row.tell_free = 0, False
        s.cluster(replicas=1)
        account = accounts.get("ns", "lab")
        assert account is not None
        await s.until(lambda: bool(account.blocks()))
        real = to_seconds(s.api.store._now())
        assert all(real < to_seconds(block.until) < real + HOUR for block in account.blocks())


# -- pure: whatever the times are --------------------------------------------------------------------------------------

TIMES = st.integers(START - 10**7, START + 10**7)


@given(
    started=st.none() | TIMES,
    ended=st.none() | TIMES,
    moments=st.lists(TIMES, min_size=1, max_size=8),
    period=st.sampled_from(["Month", "Total"]),
)
def test_no_cost_is_negative_nor_booked_twice_whatever_the_clock_says(
    started: int | None, ended: int | None, moments: list[int], period: str
) -> None:
    run = read_machine(machine("m", uid="u", started=started, ended=ended if started else None, hourly=NANO))
    obj = budget(period=period)
    books, spent_before = Books(), 0
    for now in moments:
        ledger, over = turn(obj, read_ledger(obj, now), [run], now)
        ledger = book(ledger, [run] if run.ended is not None else [])
        found = count(obj, ledger, [run], now)
        assert found.spent >= 0 and found.reserved >= 0 and all(cost >= 0 for _, cost in over)
        assert ledger.spent >= 0 and len(set(ledger.sessions)) == len(ledger.sessions)
        obj["status"] = make_status(obj, ledger, over, found, [], 1, to_time(now))
        books, _ = book_run(books, [run], {"u"})
        cost = make_cost([], books, accrued([run], books, now), "USD")
        assert not cost["accrued"].startswith("-")
        assert books.ended >= spent_before
        spent_before = books.ended


@given(now=TIMES, made=TIMES, ready=TIMES)
def test_plans_are_made_whatever_the_clock_says(now: int, made: int, ready: int) -> None:
    spec = asked(max_lifetime=3600, idle_seconds=600)
    life = decide(spec, {}, now, resume="", used_at=ready, busy=False, exceeded=False, fits=True)
    assert life.next_at is None or life.next_at > now
    needed = plan(spec, [member(0, ready_since=ready, asked_at=made, ready="False")], now)
    assert needed.next_at is None or needed.next_at > now


def test_a_quote_made_in_the_future_holds_and_one_that_is_past_doesnt() -> None:
    lines = lines_of([], [decision(1)])
    first = gate(asked(), None, lines, NOW).quote
    assert gate(asked(), first, lines, NOW - HOUR).quote is first
    assert gate(asked(), first, lines, NOW + VALID_SECONDS).new


def test_what_failed_in_the_future_is_no_reason_to_avoid_it_for_hours() -> None:
    def avoided(at: int) -> bool:
        failed = member(0, failed="CapacityUnavailable", ready="False", ready_since=at)
        return bool(_avoid(plan(asked(), [failed], NOW), NOW))

    assert avoided(NOW - 1) and avoided(NOW)
    assert not avoided(NOW - AVOID_SECONDS) and not avoided(NOW + AVOID_SECONDS)
