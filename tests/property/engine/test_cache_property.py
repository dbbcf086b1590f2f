"""The cache comes to the truth from any order, repetition and interleaving of events and answers."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from cloudmesh.engine import Cache, Obj, Resource
from cloudmesh.engine.status import Status
from cloudmesh.testing.apiserver.apply import apply_fields, leaves, merge_patch

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[str, Obj]], dict[str, Obj]]:
    """A true history of a few names, and what is there at its end."""
    events: list[tuple[str, Obj]] = []
    live: dict[str, Obj] = {}
    for version in range(1, draw(st.integers(1, 30))):
        name = draw(st.sampled_from("abc"))
        old = live.get(name)
        uid = old["metadata"]["uid"] if old else f"{name}{version}"
        owner = draw(st.sampled_from(["o1", "o2"]))
        obj: Obj = {
            "metadata": {
                "name": name,
                "uid": uid,
                "resourceVersion": str(version),
                "labels": {"cloudmesh.org/owner-uid": owner},
            }
        }
        if old is not None and draw(st.booleans()):
            events.append(("DELETED", obj))
            del live[name]
        else:
            events.append(("PUT", obj))
            live[name] = obj
    return events, live


@settings(max_examples=150, deadline=None)
@given(histories(), st.randoms(use_true_random=False))
def test_late_answers_and_repeats_don_t_mislead(
    history: tuple[list[tuple[str, Obj]], dict[str, Obj]], rng: random.Random
) -> None:
    events, live = history
    cache = Cache()
    told: list[tuple[str, Obj]] = []
    for event in events:
        # the watch tells in order; answers of our own writes come again at any later moment
        told.append(event)
        if rng.random() < 0.5:
            told.append(rng.choice([past for past in told if past[0] == "PUT"] or [event]))
    for type_, obj in told:
        if type_ == "PUT":
            cache.put(WIDGET, obj)
        else:
            cache.remove(WIDGET, obj)
    assert {name: cache.get(WIDGET, "", name) for _, name in cache.names(WIDGET)} == live
    for owner in ("o1", "o2"):
        wanted = [o for _, o in sorted(live.items()) if o["metadata"]["labels"]["cloudmesh.org/owner-uid"] == owner]
        assert cache.children(owner, WIDGET) == wanted


json_maps = st.recursive(
    st.integers(0, 3) | st.text("xy", max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
    max_leaves=8,
).filter(lambda value: isinstance(value, dict))


@settings(max_examples=150, deadline=None)
@given(json_maps, json_maps)
def test_applying_twice_is_applying_once_and_nothing_else_is_left(first: Obj, second: Obj) -> None:
    owned: dict[str, set[tuple[str, ...]]] = {}
    once = apply_fields({}, first, owned, "m", force=True)
    assert apply_fields(once, first, owned, "m", force=True) == once
    try:
        both = apply_fields(once, second, owned, "m", force=True)
    except (AttributeError, TypeError):
        raise AssertionError(f"{first} then {second}") from None
    assert leaves(both) == leaves(second)


@settings(max_examples=150, deadline=None)
@given(json_maps, json_maps)
def test_a_merge_patch_with_nulls_undoes_what_it_added(target: Obj, patch: Obj) -> None:
    fresh = {f"new-{name}": value for name, value in patch.items()}
    undo = dict.fromkeys(fresh)
    assert merge_patch(merge_patch(target, fresh), undo) == target


conditions = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["Ready", "Stalled"]), "status": st.sampled_from(["True", "False"])}
    ),
    max_size=2,
    unique_by=lambda condition: condition["type"],
)


@settings(max_examples=150, deadline=None)
@given(conditions, conditions)
def test_transition_times_change_only_with_the_status(before: list[Obj], after: list[Obj]) -> None:
    status = Status.__new__(Status)
    status._now = lambda: "new"
    held = {"conditions": [condition | {"lastTransitionTime": "old"} for condition in before]}
    kept = {condition["type"]: condition["status"] for condition in before}
    for condition in status._keep_times({"conditions": after}, held)["conditions"]:
        unchanged = kept.get(condition["type"]) == condition["status"]
        assert condition["lastTransitionTime"] == ("old" if unchanged else "new")
