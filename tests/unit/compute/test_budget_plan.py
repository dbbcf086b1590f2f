"""What a Budget selects, counts, books and allows: the pure parts."""

from __future__ import annotations

import copy
import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.compute.budget_parts import START, budget, cluster, machine

from cloudmesh.api.budget import MAX_BOOKED
from cloudmesh.compute.budget_ledger import (
    Ledger,
    book,
    booked_status,
    count,
    forget,
    read_ledger,
    spent,
    turn,
    waiting,
)
from cloudmesh.compute.budget_plan import (
    Machine,
    labels_of,
    period_at,
    read_machine,
    selects,
    unbooked,
    verdict,
)
from cloudmesh.compute.budget_status import alerts, has_changed, is_notable, make_status
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import cost, to_nanos, to_text
from cloudmesh.compute.reading import ANNOTATION_QUOTED
from cloudmesh.policy.model import NANO

NOVEMBER, DECEMBER = to_seconds("2026-11-01T00:00:00Z"), to_seconds("2026-12-01T00:00:00Z")


def run(
    uid: str = "u", started: int | None = START, ended: int | None = None, hourly: int | None = NANO, **more: Any
) -> Machine:
    return Machine(uid, more.pop("name", uid), more.pop("cluster", ""), started, ended, hourly, **more)


def with_status(obj: dict[str, Any], spent: str = "0", reserved: str = "0", **status: Any) -> dict[str, Any]:
    return obj | {"status": {"spent": spent, "reserved": reserved} | status}


# -- reading and selecting ---------------------------------------------------------------------------------------------


def test_a_machine_is_read_from_its_object() -> None:
    obj = machine("w-0", started=START, ended=START + 60, hourly=46_400_000, uid="u1", owner=cluster("lab"))
    assert read_machine(obj) == Machine("u1", "w-0", "lab", START, START + 60, 46_400_000, "USD")
    assert read_machine(machine("w-1", hourly=None, uid="u2")) == Machine("u2", "w-1", "", None, None, None, "USD")


def test_a_price_nobody_trusts_is_unknown() -> None:
    obj = machine("w", started=START, uid="u")
    obj["status"]["hourlyPrice"]["confidence"] = "unknown"
    assert read_machine(obj).hourly is None


@pytest.mark.parametrize(
    ("wanted", "labels", "chosen"),
    [
        (None, {}, True),
        (None, {"team": "a"}, True),
        ({"team": "a"}, {"team": "a", "x": "y"}, True),
        ({"team": "a"}, {"team": "b"}, False),
        ({"team": "a"}, {}, False),
        ({"team": "a", "x": "y"}, {"team": "a"}, False),
    ],
)
def test_selection(wanted: dict[str, str] | None, labels: dict[str, str], chosen: bool) -> None:
    assert selects(budget(labels=wanted), labels) is chosen


def test_a_clusters_machine_is_selected_by_the_clusters_labels() -> None:
    owner = cluster("lab", team="a")
    obj = machine("w", owner=owner, labels={"team": "b"})
    assert labels_of(obj, owner) == {"team": "a"}
    assert labels_of(obj, None) == {"team": "b"}


def test_the_quoted_price_counts_until_the_machine_has_its_own() -> None:
    obj = machine("w", hourly=None, uid="u")
    obj["metadata"]["annotations"] = {ANNOTATION_QUOTED: "0.25 EUR"}
    assert (read_machine(obj).hourly, read_machine(obj).currency) == (NANO // 4, "EUR")
    obj["status"] = machine("w", hourly=NANO)["status"]
    assert (read_machine(obj).hourly, read_machine(obj).currency) == (NANO, "USD")


def test_what_will_never_be_made_reserves_nothing() -> None:
    refused = machine("w", uid="u")
    refused["status"]["conditions"] = [{"type": "Created", "status": "False", "reason": "CapacityUnavailable"}]
    going = machine("w", uid="u")
    going["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z"
    running = machine("w", started=START, uid="u")
    running["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z"
    for obj, reserved in ((machine("w", uid="u"), NANO), (refused, 0), (going, 0), (running, NANO)):
        assert count(budget(), read_ledger(budget(), START), [read_machine(obj)], START).reserved == reserved


# -- cost of a run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "until", "started", "ended", "now", "seconds"),
    [
        (0, None, 100, None, 160, 60),
        (0, None, 100, 130, 160, 30),
        (0, None, 200, None, 160, 0),  # the start lies ahead: a clock is wrong
        (0, None, 200, 150, 300, 0),  # ended before it began: a clock is wrong
        (110, 140, 100, 160, 200, 30),
        (110, 140, 100, None, 120, 10),
        (110, 140, 100, None, 200, 30),
        (110, 140, 140, None, 200, 0),
        (110, 140, 50, 110, 200, 0),
        (0, None, None, None, 200, 0),
    ],
)
def test_cost_within_a_period(
    begin: int, until: int | None, started: int | None, ended: int | None, now: int, seconds: int
) -> None:
    assert run(started=started, ended=ended, hourly=3600 * 7).cost_within(begin, until, now) == 7 * seconds


def test_a_machine_without_price_costs_nothing_that_can_be_counted() -> None:
    assert run(hourly=None).cost_within(0, None, START + 60) == 0


@given(
    started=st.integers(NOVEMBER - 10**7, DECEMBER + 10**7),
    length=st.integers(0, 10**7),
    hourly=st.integers(0, 10**12),
    cuts=st.lists(st.integers(NOVEMBER - 2 * 10**7, DECEMBER + 2 * 10**7), max_size=6),
)
def test_months_share_a_run_without_gap_or_overlap(started: int, length: int, hourly: int, cuts: list[int]) -> None:
    machine = run(started=started, ended=started + length, hourly=hourly)
    edges = [NOVEMBER - 3 * 10**7, *sorted(cuts), DECEMBER + 3 * 10**7]
    parts = [machine.cost_within(a, b, machine.ended or 0) for a, b in itertools.pairwise(edges)]
    whole = cost(hourly, length)
    assert whole <= sum(parts) <= whole + len(parts)  # each part is rounded up by less than a nano-unit


# -- verdict -----------------------------------------------------------------------------------------------------------


def test_without_budgets_everything_is_allowed() -> None:
    found = verdict([], {}, 10**18, "USD")
    assert found.allowed and not found.exceeded and found.remaining_nanos is None and not found.message


@pytest.mark.parametrize(
    ("spent", "reserved", "extra", "allowed", "exceeded", "remaining"),
    [
        ("0", "0", "500", True, False, "500"),
        ("0", "0", "500.000000001", False, False, "500"),
        ("400", "90", "10", True, False, "10"),
        ("400", "90", "10.000000001", False, False, "10"),
        ("400", "100", "0", True, False, "0"),
        ("400", "100.000000001", "0", False, True, "0"),
        ("600", "0", "0", False, True, "0"),
    ],
)
def test_verdict(spent: str, reserved: str, extra: str, allowed: bool, exceeded: bool, remaining: str) -> None:
    found = verdict([with_status(budget(), spent, reserved)], {}, to_nanos(extra), "USD")
    assert (found.allowed, found.exceeded) == (allowed, exceeded)
    assert found.remaining_nanos == to_nanos(remaining)
    assert found.budget == "month"
    assert bool(found.message) is not allowed


def test_messages_name_the_budget_and_the_amounts() -> None:
    left = verdict([with_status(budget(), "450", "45")], {}, to_nanos("10.5"), "USD")
    assert left.message == (
        "Budget 'month': 10.5000 USD for the next hour is more than the 5.0000 left of 500 "
        "(450.0000 USD spent and 45.0000 reserved for the next hour)"
    )
    over = verdict([with_status(budget(), "480", "45")], {}, 0, "USD")
    assert over.message == (
        "Budget 'month': 480.0000 USD spent and 45.0000 reserved for the next hour is more than 500 USD"
    )
    small = verdict([with_status(budget(amount="0.005"), "0.006")], {}, 0, "USD")
    assert small.message.endswith("is more than 0.005 USD")


def test_a_budget_that_hasnt_counted_yet_allows_no_start_and_ends_nothing() -> None:
    found = verdict([budget()], {}, 1, "USD")
    assert not found.allowed and not found.exceeded and "hasn't been counted" in found.message


def test_another_currency_is_refused() -> None:
    found = verdict([with_status(budget(currency="EUR"))], {}, 1, "USD")
    assert not found.allowed and not found.exceeded
    assert "in EUR" in found.message and "in USD" in found.message


def test_only_what_selects_enforces_and_lives_counts() -> None:
    full = "600"
    gone = with_status(budget("gone"), full)
    gone["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z"
    others = [
        with_status(budget("other", labels={"team": "b"}), full),
        with_status(budget("warn", hard="Warn"), full),
        gone,
    ]
    assert verdict(others, {"team": "a"}, 1, "USD").allowed
    assert not verdict([*others, with_status(budget("mine"), full)], {"team": "a"}, 1, "USD").allowed


def test_the_strictest_budget_decides() -> None:
    wide, tight = with_status(budget("wide", "500")), with_status(budget("tight", "5"))
    over = with_status(budget("over", "5"), "6")
    for found in (verdict([wide, tight], {}, NANO, "USD"), verdict([tight, wide], {}, NANO, "USD")):
        assert found.allowed and found.budget == "tight" and found.remaining_nanos == 5 * NANO
    refused = verdict([wide, tight], {}, 6 * NANO, "USD")
    assert not refused.allowed and refused.budget == "tight"
    for many in ([wide, over, tight], [over, tight, wide], [tight, wide, over]):
        assert verdict(many, {}, 6 * NANO, "USD").budget == "over" and verdict(many, {}, 0, "USD").exceeded


# -- booking -----------------------------------------------------------------------------------------------------------


def booked(month: str = "2026-11", **more: Any) -> dict[str, Any]:
    return {"month": month, "spent": "0", "machines": 0} | more


def test_who_waits_for_a_booking() -> None:
    ended = machine("w", started=START, ended=START + 60, uid="u")
    session = read_machine(ended).session
    assert unbooked([budget()], ended, {}) == ["month"]
    assert unbooked([with_status(budget(), booked=booked())], ended, {}) == ["month"]
    assert not unbooked([with_status(budget(), booked=booked(uids=[session]))], ended, {})
    assert not unbooked([budget(labels={"team": "a"})], ended, {})
    assert unbooked([budget(labels={"team": "a"})], ended, {"team": "a"})
    # nothing to book: still running, never started, no price, another currency, no time, nothing to pay
    for obj in (
        machine("w", started=START, uid="u"),
        machine("w", ended=START, uid="u"),
        machine("w", started=START, ended=START + 60, hourly=None, uid="u"),
        machine("w", started=START, ended=START + 60, currency="EUR", uid="u"),
        machine("w", started=START, ended=START - 5, uid="u"),
        machine("w", started=START, ended=START + 60, hourly=0, uid="u"),
    ):
        assert not unbooked([budget()], obj, {})


def test_a_second_run_of_a_machine_is_booked_for_itself() -> None:
    first = machine("w", started=START, ended=START + 60, uid="u")
    again = machine("w", started=START + 100, ended=START + 160, uid="u")
    status = with_status(budget(), booked=booked(uids=[read_machine(first).session]))
    assert not unbooked([status], first, {}) and unbooked([status], again, {})


def test_what_ended_before_the_month_isnt_booked_in_it() -> None:
    old = machine("w", started=NOVEMBER - 100, ended=NOVEMBER, uid="u")
    over = machine("w", started=NOVEMBER - 100, ended=NOVEMBER + 1, uid="u")
    status = with_status(budget(), booked=booked())
    assert not unbooked([status], old, {}) and unbooked([status], over, {})
    assert unbooked([with_status(budget(period="Total"), booked=booked())], old, {})


def test_a_budget_that_goes_holds_nobody() -> None:
    going = budget()
    going["metadata"]["deletionTimestamp"] = "2026-11-20T00:00:00Z"
    assert not unbooked([going], machine("w", started=START, ended=START + 60, uid="u"), {})


def test_booking_adds_once_and_survives_a_round_trip() -> None:
    ledger = read_ledger(budget(), START)
    machines = [run("a", ended=START + 3600), run("b", ended=START + 1800), run("c")]
    done = book(ledger, machines)
    assert (done.spent, done.machines) == (3 * NANO // 2, 2)
    assert book(done, machines) == done
    read = read_ledger(with_status(budget(), booked=booked_status(done)), START)
    assert read == done
    assert spent(read, machines, START + 3600) == 3 * NANO // 2 + NANO


def test_a_full_book_leaves_the_rest_to_wait_and_counts_it_all_the_same() -> None:
    machines = [run(f"m{number}", ended=START + 3600) for number in range(MAX_BOOKED + 5)]
    full = book(Ledger(period_at(budget(), START)), machines)
    assert full.machines == MAX_BOOKED and len(waiting(full, machines)) == 5
    assert spent(full, machines, START + 3600) == len(machines) * NANO
    rest = machines[MAX_BOOKED - 3 :]
    done = book(forget(full, [m.uid for m in rest]), rest)
    assert done.machines == len(machines) and not waiting(done, rest)
    assert spent(done, rest, START + 3600) == len(machines) * NANO


def test_an_earlier_session_of_a_machine_makes_room() -> None:
    ledger = Ledger(period_at(budget(), START))
    for number in range(5):
        begin = START + 100 * number
        ledger = book(ledger, [run("u", begin, begin + 36)])
    assert ledger.machines == 5 and ledger.sessions == (f"u:{START + 400}",)
    assert ledger.spent == 5 * NANO // 100


# -- months ------------------------------------------------------------------------------------------------------------


def test_a_month_begins_at_midnight_utc_and_the_old_one_is_kept() -> None:
    obj = with_status(budget(), booked=booked(spent="7", machines=2, uids=["x:1"]))
    machines = [run("a", DECEMBER - 3600), run("b", DECEMBER - 7200, DECEMBER + 3600)]
    ledger, over = turn(obj, read_ledger(obj, DECEMBER - 1), machines, DECEMBER - 1)
    assert over == [] and ledger.spent == 7 * NANO
    ledger, over = turn(obj, read_ledger(obj, DECEMBER), machines, DECEMBER + 3600)
    assert over == [("2026-11", (7 + 1 + 2) * NANO)]
    assert ledger == Ledger(period_at(budget(), DECEMBER))
    assert spent(ledger, machines, DECEMBER + 3600) == 2 * NANO
    assert book(ledger, machines).spent == NANO


def test_months_in_which_nobody_counted_are_told_too() -> None:
    obj = with_status(budget(), booked=booked("2026-11"))
    february, march = to_seconds("2028-02-01T00:00:00Z"), to_seconds("2028-03-01T00:00:00Z")
    machines = [run("a", february)]
    ledger, over = turn(obj, read_ledger(obj, march), machines, march)
    assert [month for month, _ in over][:3] == ["2026-11", "2026-12", "2027-01"]
    assert over[-1] == ("2028-02", 29 * 24 * NANO)  # a leap year
    assert ledger.period.month == "2028-03" and len(over) == 16


def test_a_clock_that_goes_back_begins_no_earlier_month() -> None:
    obj = with_status(budget(), booked=booked("2026-12", spent="3"))
    ledger, over = turn(obj, read_ledger(obj, NOVEMBER), [], NOVEMBER)
    assert over == [] and ledger.period.month == "2026-12" and ledger.spent == 3 * NANO


def test_a_total_budget_never_begins_anew() -> None:
    obj = with_status(budget(period="Total"), booked=booked("2026-11", spent="3"))
    ledger, over = turn(obj, read_ledger(obj, DECEMBER), [], DECEMBER)
    assert over == [] and ledger.spent == 3 * NANO and ledger.period.until is None


# -- counting ----------------------------------------------------------------------------------------------------------


def test_count() -> None:
    now = START + 3600
    machines = [
        run("a", START, cluster="lab"),
        run("b", START, START + 1800, cluster="lab"),
        run("c", None, cluster="lab", hourly=2 * NANO),  # being made: reserved, not spent
        run("d", now + 100, hourly=4 * NANO),  # its start lies ahead
        run("e", START, hourly=None, name="nobody-knows"),
        run("f", START, currency="EUR", name="euros"),
    ]
    ledger = book(read_ledger(budget(), now), machines[1:2])
    found = count(budget(amount="10"), ledger, machines, now)
    assert found.spent == 3 * NANO // 2
    assert found.hourly == 5 * NANO and found.reserved == 7 * NANO
    assert found.left == 10 * NANO - found.spent - found.reserved
    assert found.unknown == ("nobody-knows",) and found.foreign == ("euros",)
    # at 5 an hour, the 1.5 that are left last 18 minutes
    assert found.limit_at == now + 1080 + 1
    at = count(budget(amount="10"), ledger, machines[:3], now)
    assert at.limit_at is not None
    assert count(budget(amount="10"), ledger, machines[:3], at.limit_at - 1).left >= 0
    assert count(budget(amount="10"), ledger, machines[:3], at.limit_at).left < 0


def test_a_promise_counts_as_far_as_it_is_more_than_what_is_there() -> None:
    machines = [run("a", cluster="lab", hourly=2 * NANO)]
    ledger = read_ledger(budget(), START)
    assert count(budget(), ledger, machines, START, {"lab": NANO}).reserved == 2 * NANO
    assert count(budget(), ledger, machines, START, {"lab": 5 * NANO, "new": NANO}).reserved == 6 * NANO


@given(st.data())
def test_spent_never_shrinks_while_machines_come_run_end_and_go(data: st.DataObject) -> None:
    """Each machine is counted exactly once at every moment, whenever it is booked and dropped."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    machines: dict[str, Machine] = {}
    ledger = Ledger(period_at(budget(period="Total"), START))
    now = START
    ended: dict[str, Machine] = {}
    for number in range(data.draw(st.integers(1, 40))):
        now += rng.randrange(0, 5000)
        match rng.randrange(4):
            case 0:
                machines[f"m{number}"] = run(
                    f"m{number}", now + rng.randrange(-50, 50), hourly=rng.randrange(1, 10**10)
                )
            case 1 if machines:
                name = rng.choice(sorted(machines))
                if machines[name].ended is None:
                    machines[name] = run(name, machines[name].started, now, machines[name].hourly)
                    ended[name] = machines[name]
            case 2:
                ledger = book(ledger, rng.sample(sorted(machines.values(), key=lambda m: m.uid), len(machines)))
            case _:
                for name in [n for n, m in machines.items() if m.session in ledger.sessions]:
                    del machines[name]
                if rng.random() < 0.5:
                    ledger = forget(ledger, machines)
        truth = sum(
            m.cost_within(0, None, now) for m in (*ended.values(), *(m for m in machines.values() if m.ended is None))
        )
        assert spent(ledger, machines.values(), now) == truth


# -- status ------------------------------------------------------------------------------------------------------------


def status_of(obj: dict[str, Any], machines: list[Machine], now: int) -> dict[str, Any]:
    ledger, over = turn(obj, read_ledger(obj, now), machines, now)
    found = count(obj, ledger, machines, now)
    return make_status(obj, ledger, over, found, alerts(obj, ledger, found), len(machines), to_time(now))


def condition(status: dict[str, Any], type_: str) -> tuple[str, str] | None:
    return next(((c["status"], c["reason"]) for c in status["conditions"] if c["type"] == type_), None)


def test_status_tells_amounts_and_conditions() -> None:
    status = status_of(budget(amount="10"), [run("a")], START + 5400)
    assert {name: status[name] for name in ("spent", "reserved", "remaining", "hourly", "until", "selected")} == {
        "spent": "1.5",
        "reserved": "1",
        "remaining": "7.5",
        "hourly": "1",
        "until": "2026-12-01T00:00:00Z",
        "selected": 1,
    }
    assert status["booked"] == {"month": "2026-11", "spent": "0", "machines": 0}
    assert condition(status, "Ready") == ("True", "AsSpecified")
    assert condition(status, "WithinBudget") == ("True", "AsSpecified")
    assert condition(status, "Stalled") is None


def test_status_tells_what_is_wrong() -> None:
    over = status_of(budget(amount="1"), [run("a")], START + 60)
    assert condition(over, "WithinBudget") == ("False", "BudgetExceeded") and over["remaining"] == "0"
    small = status_of(budget(amount="0.005"), [run("a")], START + 60)
    assert small["conditions"][1]["message"] == "what is spent and reserved for the next hour is more than 0.005 USD"
    unknown = status_of(budget(), [run("a", hourly=None)], START + 60)
    assert condition(unknown, "WithinBudget") == ("Unknown", "PriceUnknown")
    assert "price of a" in unknown["conditions"][1]["message"]
    foreign = status_of(budget(), [run(f"m{n}", currency="EUR") for n in range(7)], START + 60)
    assert condition(foreign, "Ready") == ("False", "CurrencyMismatch")
    assert condition(foreign, "Stalled") == ("True", "CurrencyMismatch")
    assert foreign["conditions"][0]["message"].endswith("m0, m1, m2, m3, m4 and 2 more")
    mended = status_of(budget() | {"status": foreign}, [], START + 120)
    assert condition(mended, "Stalled") is None and condition(mended, "Ready") == ("True", "AsSpecified")


def test_alerts_stay_for_the_period_and_come_again_in_the_next() -> None:
    obj = budget(amount="10", alertsAtPercent=[50, 90, 120])
    machines = [run("a", DECEMBER - 6 * 3600)]
    seen = []
    for now in (
        DECEMBER - 3601,
        DECEMBER - 3600,
        DECEMBER - 1,
        DECEMBER + 3600,
        DECEMBER + 5 * 3600,
        DECEMBER + 12 * 3600,
    ):
        status = status_of(obj, machines, now)
        seen.append(status.get("alertedAtPercent", []))
        obj = obj | {"status": status}
    assert seen == [[], [50], [50], [], [50], [50, 90, 120]]
    assert obj["status"]["history"] == [{"month": "2026-11", "spent": "6"}]


def test_what_is_worth_a_write() -> None:
    first = status_of(budget(), [run("a")], START + 10 * 3600)
    assert is_notable({}, first)
    later = status_of(budget() | {"status": first}, [run("a")], START + 10 * 3600 + 300)
    assert not is_notable(first, later) and not has_changed(first, later)
    much = status_of(budget() | {"status": first}, [run("a")], START + 11 * 3600)
    assert not is_notable(first, much) and has_changed(first, much)
    over = status_of(budget(amount="12") | {"status": first}, [run("a")], START + 12 * 3600)
    assert is_notable(first, over)
    done = copy.deepcopy(first)
    done["booked"]["machines"] = 1
    assert is_notable(first, done)


@given(st.lists(st.tuples(st.integers(1, 10**6), st.integers(0, 10**11)), max_size=50))
def test_the_sum_of_a_status_is_exact(runs: list[tuple[int, int]]) -> None:
    machines = [run(f"m{n}", START, START + seconds, hourly) for n, (seconds, hourly) in enumerate(runs)]
    status = status_of(budget(period="Total", amount="100000000000"), machines, START + 10**6)
    assert to_nanos(status["spent"]) == sum(cost(hourly, seconds) for seconds, hourly in runs)
    assert status["spent"] == to_text(to_nanos(status["spent"]))
