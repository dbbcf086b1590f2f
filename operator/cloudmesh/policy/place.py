"""The scheduler: which machines a request gets, what they cost, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cloudmesh.policy.choose import Choice, Chooser, pinned_nanos
from cloudmesh.policy.filters import Sieve, Sifted
from cloudmesh.policy.model import Decision, Placement, Policy, PoolRequest, Request, with_disk
from cloudmesh.policy.offers import UNKNOWN_COST, OfferTable
from cloudmesh.policy.problem import Task
from cloudmesh.policy.scores import Plugin
from cloudmesh.policy.words import all_rejections, explain, in_words, say_why

SPOT_TYPES = 15
"""Types of spot machines that must serve a pool before one that was taken away is replaced by another: with fewer the
choice ends at what is taken away most often."""


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
    sieve = Sieve(request, table, now)
    sifted = [_sift(sieve, table, pool) for pool in request.pools]
    chooser = Chooser(request, table, sifted, plugin)
    placement = assemble(request, table, sifted, chooser.choose())
    if request.policy.mode == "Cheapest" and not request.policy.filters:
        return placement
    if request.policy.filters:
        request = replace(request, policy=Policy())
        sieve = Sieve(request, table, now)
        chooser = Chooser(request, table, [_sift(sieve, table, pool) for pool in request.pools])
    return _with_cheapest(request, table, placement, chooser.cheapest())


def _with_cheapest(request: Request, table: OfferTable, placement: Placement, choice: Choice) -> Placement:
    """The same with what the cheapest placement would cost, if that is less."""
    held = pinned_nanos(request)
    machines = [(task.items[n], count) for task, fill in choice.pairs for n, count in sorted(fill.counts.items())]
    if choice.missing or held is None or any(item.cost == UNKNOWN_COST for item, _ in machines):
        return placement
    hourly = choice.cost + held
    if not placement.missing and (placement.hourly_nanos is None or placement.hourly_nanos <= hourly):
        return placement
    words = in_words([(table.ids[item.row], count) for item, count in machines])
    return replace(placement, cheapest_nanos=hourly, cheapest=words)


def _sift(sieve: Sieve, table: OfferTable, pool: PoolRequest) -> Sifted:
    """The offers that serve a pool: on demand only where a spot machine was taken and few types could replace it."""
    sifted = sieve.sift(pool)
    if not pool.spot_taken or pool.above_base != "SpotWithFallback":
        return sifted
    spot = sifted.rows[table.spot[sifted.rows]]
    if len(np.unique(table.type.codes[spot])) >= SPOT_TYPES:
        return sifted
    return sieve.sift(replace(pool, above_base="OnDemand"))


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
    for number, (task, fill) in enumerate(choice.pairs):
        for n, count in sorted(fill.counts.items(), key=lambda pair: _position(task, pair[0])):
            item = task.items[n]
            alternative = task.pool.alternatives[item.alternative]
            why = say_why(request, table, choice, number, n)
            offer = with_disk(table.offer(item.row), alternative.needs.disk_gib)
            decisions.append(Decision(task.pool.name, alternative.name, item.units, offer, count, why))
            known = known and item.cost != UNKNOWN_COST
    reason, message = explain(request, table, choice, held)
    return Placement(
        decisions=tuple(decisions),
        missing={task.pool.name: fill.missing for task, fill in choice.pairs if fill.missing},
        reason=reason,
        message=message,
        rejected=all_rejections(table, sifted, choice),
        hourly_nanos=choice.cost + held if known and held is not None else None,
    )


def _position(task: Task, n: int) -> tuple[int, int]:
    return task.items[n].cost, task.items[n].row
