"""Whether a cluster runs, rests or ends."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.compute.cluster_parts import NOW, asked

from cloudmesh.compute.lifecycle import Lifecycle, decide, told, used_at
from cloudmesh.compute.prices.moments import to_time


def decided(status: dict[str, Any] | None = None, **more: Any) -> Lifecycle:
    spec = {k: more.pop(k) for k in ("suspended", "idle_seconds", "max_lifetime") if k in more}
    facts = {"resume": "", "used_at": None, "busy": False, "exceeded": False, "fits": True, **more}
    return decide(asked(**spec), status or {}, NOW, **facts)


IDLE = {"suspendedReason": "Idle", "resumedBy": "one"}


@pytest.mark.parametrize(
    ("found", "state", "why"),
    [
        (decided(), "Run", ""),
        (decided(suspended=True), "Rest", "Requested"),
        (decided(exceeded=True), "Rest", "BudgetExceeded"),
        (decided({"suspendedReason": "BudgetExceeded"}, fits=False), "Rest", "BudgetExceeded"),
        (decided({"suspendedReason": "BudgetExceeded"}, fits=True), "Run", ""),
        (decided(fits=False), "Run", ""),  # what runs goes on: there is no room for more only
        (decided(max_lifetime=9_999), "End", ""),
        (decided(max_lifetime=9_999, suspended=True), "End", ""),
        (decided(idle_seconds=600, used_at=NOW - 600), "Rest", "Idle"),
        (decided(idle_seconds=600, used_at=NOW - 599), "Run", ""),
        (decided(idle_seconds=600, used_at=NOW - 600, busy=True), "Run", ""),
        (decided(idle_seconds=600, used_at=None), "Run", ""),  # it isn't up yet
        (decided(IDLE, idle_seconds=600, resume="one"), "Rest", "Idle"),
        (decided(IDLE, idle_seconds=600, resume="two"), "Run", ""),
        (decided(IDLE, resume="one"), "Run", ""),  # the rule was taken away
        (decided(IDLE, idle_seconds=600, resume="one", exceeded=True), "Rest", "BudgetExceeded"),
    ],
)
def test_table(found: Lifecycle, state: str, why: str) -> None:
    assert (found.state, found.why) == (state, why)


def test_when_to_look_again() -> None:
    assert decided(max_lifetime=10_100).next_at == NOW + 100
    assert decided(max_lifetime=10_100, idle_seconds=600, used_at=NOW - 550).next_at == NOW + 50


def test_used_at_is_the_latest_sign_of_use() -> None:
    assert used_at({}, None, NOW) is None
    assert used_at({}, NOW - 9, 0) == NOW - 9
    assert used_at({"lastActivityAt": to_time(NOW - 5)}, NOW - 9, 0) == NOW - 5
    assert used_at({"lastActivityAt": to_time(NOW - 5)}, NOW - 9, NOW - 1) == NOW - 1


def test_what_is_told_is_enough_for_a_restart() -> None:
    asleep = told(Lifecycle("Rest", "Idle"), {"startedAt": "x"}, to_time(NOW), "one")
    assert asleep == {"suspendedReason": "Idle", "suspendedAt": to_time(NOW), "resumedBy": "one", "startedAt": "x"}
    # a new value that came since isn't taken for one that was acted on
    later = told(Lifecycle("Rest", "Idle"), asleep, to_time(NOW + 9), "two")
    assert (later["resumedBy"], later["suspendedAt"]) == ("one", to_time(NOW))
    awake = told(Lifecycle("Run"), asleep, to_time(NOW + 9), "two")
    assert awake == {"resumedBy": "two", "startedAt": "x"}


def test_use_is_told_seldom() -> None:
    first = told(Lifecycle("Run"), {}, to_time(NOW), "", used_at=NOW)
    assert first["lastActivityAt"] == to_time(NOW)
    assert told(Lifecycle("Run"), first, to_time(NOW), "", used_at=NOW + 299) == first
    assert told(Lifecycle("Run"), first, to_time(NOW), "", used_at=NOW + 300)["lastActivityAt"] == to_time(NOW + 300)
