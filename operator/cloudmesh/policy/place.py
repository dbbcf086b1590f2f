"""The scheduler: which machines a request gets, what they cost, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cloudmesh.policy.choose import Choice, choose, pinned_nanos
from cloudmesh.policy.filters import Sieve, Sifted
from cloudmesh.policy.model import Decision, Placement, Policy, Request
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.problem import UNKNOWN_COST, Task
from cloudmesh.policy.scores import Plugin
from cloudmesh.policy.words import all_rejections, explain, in_words, say_why, unit_costs

SPOT_TYPES = 15
"""Types that must be acceptable before one spot machine is replaced by another to save money: with fewer the choice
ends at what is taken away most often."""


def place(request: Request, table: OfferTable, *, now: str = "", plugin: Plugin | None = None) -> Placement:
    """Chooses machines for all pools of a request.

    Args:
        request: What is asked for.
        table: Priced offers of its accounts.
        now: RFC 3339 time, to leave out blocks that are over; empty to keep all.
        plugin: The policy of mode Plugin, see `load_plugin`.

    Raises:
        PolicyError: The policy names what isn't there, or the plug-in's answer can't be used.
    """
    placement = _place(request, table, now, plugin)
    if request.policy.mode == "Cheapest" and not request.policy.filters:
        return placement
    free = _place(replace(request, policy=Policy()), table, now, None)
    if free.missing or free.hourly_nanos is None:
        return placement
    if not placement.missing and (placement.hourly_nanos is None or placement.hourly_nanos <= free.hourly_nanos):
        return placement
    return replace(placement, cheapest_nanos=free.hourly_nanos, cheapest=in_words(free.decisions))


def may_replace_spot_with_spot(types: int) -> bool:
    """Whether a spot machine may be replaced by a cheaper spot machine.

    Args:
        types: Machine types that the pool accepts.
    """
    return types >= SPOT_TYPES


def _place(request: Request, table: OfferTable, now: str, plugin: Plugin | None) -> Placement:
    sieve = Sieve(request, table, now)
    sifted = [sieve.sift(pool) for pool in request.pools]
    return assemble(request, table, sifted, choose(request, table, sifted, plugin))


def assemble(request: Request, table: OfferTable, sifted: Sequence[Sifted], choice: Choice) -> Placement:
    """The answer that a choice makes.

    Args:
        request: What was asked for.
        table: The table.
        sifted: Offers that serve each pool, in all networks.
        choice: What was chosen.
    """
    held = pinned_nanos(request)
    decisions: list[Decision] = []
    known = held is not None
    pairs = list(zip(choice.tasks, choice.fills, strict=True))
    for number, (task, fill) in enumerate(pairs):
        units = unit_costs(request, table, choice, number)
        for n, count in sorted(fill.counts.items(), key=lambda pair: _position(task, pair[0])):
            item = task.items[n]
            alternative = task.pool.alternatives[item.alternative]
            why = say_why(request, table, choice, number, n, units)
            decisions.append(Decision(task.pool.name, alternative.name, item.units, table.offer(item.row), count, why))
            known = known and item.cost != UNKNOWN_COST
    reason, message = explain(request, table, choice, held)
    return Placement(
        decisions=tuple(decisions),
        missing={task.pool.name: fill.missing for task, fill in pairs if fill.missing},
        reason=reason,
        message=message,
        rejected=all_rejections(table, sifted, choice),
        hourly_nanos=choice.cost + held if known and held is not None else None,
    )


def _position(task: Task, n: int) -> tuple[int, int]:
    return task.items[n].cost, task.items[n].row
