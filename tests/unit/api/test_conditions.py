"""Conditions keep their order, their times while nothing changes, and the argument as it was."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmesh.api import conditions as c

OLD = {
    "conditions": [
        {"type": t, "status": "True", "reason": "R", "message": "", "observedGeneration": 1, "lastTransitionTime": "t0"}
        for t in (c.READY, c.STALLED, c.PAUSED, c.AVAILABLE)
    ]
}


def told(conditions: c.Conditions) -> dict[str, tuple[str, str]]:
    return {x["type"]: (x["status"], x["lastTransitionTime"]) for x in conditions.list}


def test_ready_takes_its_companions_along() -> None:
    conditions = c.Conditions(OLD, 2, "t1")
    conditions.ready("False", "Why", "words", reconciling=True)
    wanted = {c.READY: ("False", "t1"), c.AVAILABLE: ("True", "t0"), c.RECONCILING: ("True", "t1")}
    assert told(conditions) == wanted
    assert {x["observedGeneration"] for x in conditions.list if x["type"] != c.AVAILABLE} == {2}
    conditions.ready("False", "Why", "words", stalled=True)
    assert told(conditions) == {c.READY: ("False", "t1"), c.AVAILABLE: ("True", "t0"), c.STALLED: ("True", "t0")}
    assert OLD["conditions"][0]["status"] == "True" and len(OLD["conditions"]) == 4


def test_conditions_anew_keep_the_times_of_the_old_ones() -> None:
    conditions = c.Conditions.of({"metadata": {"generation": 2}, "status": OLD}, "t1", anew=True)
    conditions.ready("True", "Why", "words")
    assert told(conditions) == {c.READY: ("True", "t0")}
    conditions.put(c.AVAILABLE, "False", "Why")
    assert told(conditions) == {c.READY: ("True", "t0"), c.AVAILABLE: ("False", "t1")}


def test_the_summary_stands_before_the_steps_whatever_was_so_before() -> None:
    for reconciling_first in (False, True):
        conditions = c.Conditions({}, 1, "t1")
        conditions.ready("False", "R", "one", reconciling=reconciling_first, stalled=not reconciling_first)
        conditions.put(c.AVAILABLE, "False", "R", "two")
        conditions.ready("False", "R", "three", reconciling=not reconciling_first, stalled=True)
        shown = [x["type"] for x in conditions.list if x["type"] != c.RECONCILING]
        assert shown == [c.READY, c.STALLED, c.AVAILABLE]


def test_a_pause_leaves_the_rest() -> None:
    conditions = c.Conditions(OLD, 2, "t1")
    conditions.pause("cloudmesh.org/paused")
    assert conditions.is_true(c.PAUSED) and conditions.is_true(c.READY) and conditions.is_true(c.STALLED)
    first = c.Conditions({}, 1, "t1")
    first.pause("cloudmesh.org/paused")
    assert told(first) == {c.PAUSED: ("True", "t1"), c.READY: ("Unknown", "t1")}


TYPES = st.sampled_from([c.READY, c.RECONCILING, c.STALLED, c.AVAILABLE])
STATUSES = st.sampled_from([c.TRUE, c.FALSE, c.UNKNOWN])
STEPS = st.lists(st.tuples(st.booleans(), TYPES, STATUSES, st.text(max_size=5)), max_size=20)


@given(STEPS)
def test_a_list_keyed_by_type(steps: list[tuple[bool, str, str, str]]) -> None:
    held: list[c.Condition] = []
    for number, (removes, type_, status, message) in enumerate(steps):
        before, old = copy.deepcopy(held), c.find_condition(held, type_)
        now = f"2026-01-01T00:00:{number:02d}Z"
        if removes:
            new = c.remove_condition(held, type_)
            assert c.find_condition(new, type_) is None
        else:
            new = c.set_condition(held, type_, status, "Why", message, generation=number, now=now)  # type: ignore[arg-type]
            found = c.find_condition(new, type_)
            assert found is not None
            assert (found["status"], found["message"], found["observedGeneration"]) == (status, message, number)
            kept = old is not None and old["status"] == status
            assert found["lastTransitionTime"] == (old["lastTransitionTime"] if old is not None and kept else now)
            again = c.set_condition(new, type_, status, "Why", message, generation=number, now="later")  # type: ignore[arg-type]
            assert again == new
        assert held == before
        kinds = [x["type"] for x in new]
        assert len(kinds) == len(set(kinds))
        order = [x["type"] for x in held if x["type"] in kinds]
        assert [k for k in kinds if k in order] == order
        held = new


def test_is_true() -> None:
    held = c.set_condition([], c.READY, c.UNKNOWN, c.REASON_PENDING, "", generation=1, now="t")
    assert not c.is_true(held, c.READY)
    assert not c.is_true(held, c.STALLED)
    assert c.is_true(c.set_condition(held, c.READY, c.TRUE, "AsSpecified", "", generation=1, now="t"), c.READY)


def test_limits() -> None:
    made = c.set_condition([], c.READY, c.FALSE, "R" * 2000, "m" * 40000, generation=1, now="t")[0]
    assert len(made["reason"]) == c.MAX_REASON_LENGTH
    assert len(made["message"]) == c.MAX_MESSAGE_LENGTH
    assert made["message"].endswith("…")
    with pytest.raises(ValueError, match="Ready must have a reason"):
        c.set_condition([], c.READY, c.FALSE, "", "", generation=1, now="t")
