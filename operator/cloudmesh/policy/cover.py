"""The cheapest way to cover a pool's units, one pool by itself: exact for up to `WINDOW` units, greedy before that."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.problem import Fill, Item, Task, drop_needless, fits, take
from cloudmesh.policy.shared import within_shared

WINDOW = 48
Floats = NDArray[np.float64]


def cover(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Fill:
    """Machines that cover a task's units at the least cost.

    Args:
        task: The task; its spread and colocation are not looked at.
        left: Room by resource.
        costs: Cost of a machine by item, surcharges for contended room included.
        among: Items to use, by index, in order of `costs`.
    """
    room = list(left)
    fill = Fill({})
    if len(task.sizes) <= 1:
        _in_order(task, among, room, fill, task.need, task.base)
    else:
        _mixed(task, costs, among, room, fill)
    return fill


def _in_order(task: Task, among: Sequence[int], room: list[int], fill: Fill, need: int, base: int) -> None:
    """Takes the first that fit, on-demand ones until the base is met."""
    got = _take_first(task, among, room, fill, base, spot=False) if base > 0 else 0
    if task.spot_only:
        got -= drop_needless(task, room, fill, got - base)
    short = max(0, base - got)
    rest = need - max(base, got)
    above = _take_first(task, among, room, fill, rest, spot=True if task.spot_only else None) if rest > 0 else 0
    fill.missing += short + max(0, rest - above)


def _take_first(task: Task, among: Sequence[int], room: list[int], fill: Fill, need: int, *, spot: bool | None) -> int:
    """Takes the first that fit until the need is met, and says how many units these are."""
    got = 0
    for n in among:
        item = task.items[n]
        if spot is not None and item.spot != spot:
            continue
        count = min(fits(item, room), -(-(need - got) // item.units))
        if count > 0:
            take(item, count, room)
            fill.counts[n] = fill.counts.get(n, 0) + count
            got += count * item.units
            if got >= need:
                break
    return got


def _mixed(task: Task, costs: Sequence[float], among: Sequence[int], room: list[int], fill: Fill) -> None:
    """Machines that count differently: the bulk by cost per unit, the rest by dynamic programming over units."""
    items = task.items
    by_unit = sorted(among, key=lambda n: (costs[n] / items[n].units, n))
    steady = [n for n in by_unit if not items[n].spot]
    above = [n for n in by_unit if items[n].spot] if task.spot_only else by_unit
    base, need = task.base, task.need
    bulk = max(0, base - WINDOW)
    got = _bulk(task, steady, room, fill, bulk)
    base, need = max(0, base - got), need - got
    bulk = max(0, need - max(WINDOW, base))
    need -= _bulk(task, above, room, fill, bulk)
    if need <= 0:
        return
    picked = within_shared(task, room, costs, among, lambda now: _exact(task, now, among, room, need, base))
    if picked is not None:
        for n, count in picked.items():
            take(items[n], count, room)
            fill.counts[n] = fill.counts.get(n, 0) + count
        return
    # Limits that several kinds share, or too little room: by cost per unit, then without what isn't needed.
    _in_order(task, by_unit, room, fill, need, base)


def _bulk(task: Task, among: Sequence[int], room: list[int], fill: Fill, need: int) -> int:
    """Takes the first that fit, but never more than the need."""
    got = 0
    for n in among:
        item = task.items[n]
        count = min(fits(item, room), (need - got) // item.units)
        if count > 0:
            take(item, count, room)
            fill.counts[n] = fill.counts.get(n, 0) + count
            got += count * item.units
    return got


def _exact(
    task: Task, costs: Sequence[float], among: Sequence[int], room: Sequence[int], need: int, base: int
) -> dict[int, int] | None:
    """The cheapest cover, or None if there is none; limits that several kinds share are seen by each kind alone."""
    steady, spot = _Table(need), _Table(need)
    items = task.items
    kinds = sorted(among, key=lambda n: (items[n].spot, items[n].units))
    for (is_spot, units), group in groupby(kinds, key=lambda n: (items[n].spot, items[n].units)):
        entries = machines(items, sorted(group, key=lambda n: (costs[n], n)), list(room), -(-need // units))
        (spot if is_spot else steady).add(units, entries, costs)
    if task.spot_only:
        best = _spot_only(task, steady, spot, need, base)
    else:
        sums = steady.cost[base:] + spot.cost[need - np.arange(base, need + 1)]
        at = int(sums.argmin())
        best = steady.read(base + at) + spot.read(need - base - at) if np.isfinite(sums[at]) else None
    if best is None:
        return None
    picked: dict[int, int] = {}
    for n in best:
        picked[n] = picked.get(n, 0) + 1
    return picked


def _spot_only(task: Task, steady: _Table, spot: _Table, need: int, base: int) -> list[int] | None:
    """No on-demand machine more than the base needs, though the last of them may count for more."""
    best, least = None, np.inf
    most = max((item.units for item in task.items if not item.spot), default=1)
    for units in range(base, min(need, base + most - 1) + 1):
        if not np.isfinite(steady.cost[units]):
            break
        picked = steady.read(units)
        counted = [task.items[n].units for n in picked]
        rest = max(0, need - sum(counted))
        if counted and sum(counted) - min(counted) >= base:
            continue
        if steady.cost[units] + spot.cost[rest] < least:
            best, least = picked + spot.read(rest), float(steady.cost[units] + spot.cost[rest])
    return best


def machines(items: Sequence[Item], among: Sequence[int], room: list[int], most: int) -> list[int]:
    """The first machines that fit, one entry each.

    Args:
        items: The task's items.
        among: Items to use, by index, in order.
        room: Room by resource, which shrinks.
        most: So many at most.
    """
    found: list[int] = []
    for n in among:
        if len(found) >= most:
            break
        count = min(fits(items[n], room), most - len(found))
        take(items[n], count, room)
        found.extend([n] * count)
    return found


class _Table:
    """Least cost of at least so many units, kind by kind of machine."""

    def __init__(self, need: int) -> None:
        self.cost: Floats = np.full(need + 1, np.inf)
        self.cost[0] = 0.0
        self._stages: list[tuple[int, list[int], NDArray[np.intp]]] = []

    def add(self, units: int, machines: list[int], costs: Sequence[float]) -> None:
        """Takes a kind in: so many units a machine, machines in order of cost."""
        prefix = np.cumsum([0.0] + [costs[n] for n in machines])
        rest = np.maximum(0, np.arange(len(self.cost)) - units * np.arange(len(prefix))[:, None])
        sums = self.cost[rest] + prefix[:, None]
        chosen = sums.argmin(axis=0)
        self.cost = sums[chosen, np.arange(len(self.cost))]
        self._stages.append((units, machines, chosen))

    def read(self, units: int) -> list[int]:
        """The machines of that least cost."""
        found: list[int] = []
        for each, machines, chosen in reversed(self._stages):
            count = int(chosen[units])
            found.extend(machines[:count])
            units = max(0, units - each * count)
        return found
