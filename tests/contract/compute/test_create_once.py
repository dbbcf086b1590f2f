"""Machines are made once and leave nothing behind, wherever the operator dies, or how often."""

from __future__ import annotations

import dataclasses
import random
import uuid
from typing import Any

import pytest

from cloudmesh.compute.providers.memory import MemoryProvider
from cloudmesh.testing.create_once import Plan, Tally, draw_plan, run_trial, sweep


def nothing_wrong(tally: Tally) -> None:
    assert tally.clean, "\n".join(tally.notes)


@pytest.mark.parametrize("native", [True, False], ids=["native-tokens", "no-tokens"])
def test_an_operator_that_dies_at_every_call_makes_one_machine_and_leaves_none(native: bool) -> None:
    tally = sweep(Plan(machines=1, native_tokens=native))
    nothing_wrong(tally)
    assert tally.crashes > 30
    assert tally.made == tally.cycles == tally.crashes + 2  # and one run to the end for each moment


def test_an_operator_that_dies_at_every_call_while_machines_are_deleted_half_made() -> None:
    tally = sweep(Plan(machines=2, seed=5), moments=("after",))
    nothing_wrong(tally)
    assert tally.crashes > 30 and tally.cycles == 2 * (tally.crashes + 1)


@pytest.mark.parametrize("seed", range(12))
def test_several_deaths_troubles_and_a_rival(seed: int) -> None:
    plan = draw_plan(random.Random(seed), machines=6)
    tally = run_trial(plan)
    nothing_wrong(tally)
    assert tally.cycles == 6


@pytest.mark.parametrize(
    "plan",
    [
        Plan(20, ((81, "before"), (67, "after")), troubles=6, rival=True, seed=652286291),
        Plan(20, ((22, "after"), (161, "before"), (57, "after")), troubles=5, rival=True, seed=978170609),
    ],
    ids=["asked-by-another-leader", "looked-for-before-it-arrived"],
)
def test_plans_that_once_left_machines_behind(plan: Plan) -> None:
    nothing_wrong(run_trial(plan))


@pytest.mark.parametrize("native", [True, False], ids=["native-tokens", "no-tokens"])
def test_a_create_that_arrives_late_is_waited_for(native: bool) -> None:
    """The operator dies, its request is still under way, and the user deletes meanwhile."""
    for seed in range(4):
        trial = Plan(machines=2, deaths=((7 + seed, "after"),), native_tokens=native, seed=seed, late_create=True)
        nothing_wrong(run_trial(trial))


def test_two_leaders_at_once_make_one_machine_each() -> None:
    tally = run_trial(Plan(machines=10, rival=True))
    nothing_wrong(tally)
    assert tally.made == 10


class Wrapped:
    """A provider with another way to create, delete or find."""

    def __init__(self, inner: MemoryProvider, **methods: Any) -> None:
        self.info = inner.info
        for name in ("check", "offers", "list_nodes", "find_node", "ensure_node", "delete_node", "close"):
            setattr(self, name, methods.get(name, getattr(inner, name)))


def test_a_create_that_is_repeated_without_a_token_is_seen_to_make_doubles() -> None:
    """The trial itself: what it looks for, it finds."""

    def repeating(inner: MemoryProvider) -> Any:
        async def create(spec: Any) -> Any:
            await inner._create(spec)
            return await inner._create(spec)

        return Wrapped(inner, ensure_node=create)

    assert run_trial(Plan(native_tokens=False), wrap=repeating).duplicates == 1


def test_a_create_with_tokens_of_its_own_is_seen_to_leave_machines() -> None:
    def forgetful(inner: MemoryProvider) -> Any:
        async def create(spec: Any) -> Any:
            return await inner.ensure_node(dataclasses.replace(spec, token=f"cm-{uuid.uuid4().hex}"))

        return Wrapped(inner, ensure_node=create)

    assert run_trial(Plan(), wrap=forgetful).orphans == 1


def test_a_delete_that_only_seems_done_is_seen_to_leave_machines() -> None:
    def lazy(inner: MemoryProvider) -> Any:
        async def delete(node_id: str, scope: Any) -> None:
            return None

        async def listing(scope: Any) -> Any:
            found = await inner.list_nodes(scope)
            nodes = tuple(dataclasses.replace(node, state="Deleted") for node in found.nodes)
            ready = all(node.state == "Running" for node in found.nodes)
            return dataclasses.replace(found, nodes=nodes) if deleted and ready else found

        async def note(node_id: str, scope: Any) -> None:
            deleted.append(node_id)
            await delete(node_id, scope)

        return Wrapped(inner, delete_node=note, list_nodes=listing)

    deleted: list[str] = []
    tally = run_trial(Plan(), wrap=lazy)
    assert tally.orphans == 1 and not tally.clean
    assert "1 orphans" in tally.notes[0]
