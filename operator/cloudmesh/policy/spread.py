"""The cheapest fill of a pool whose machines are spread evenly over zones or accounts, or lie in one of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from math import inf

from cloudmesh.policy.cover import cover
from cloudmesh.policy.even import evenly
from cloudmesh.policy.offers import UNLIMITED
from cloudmesh.policy.pour import Rank, Tally, pour_all
from cloudmesh.policy.problem import Fill, Task, drop_needless, fits, take


def cheapest(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Fill:
    """The cheapest fill of a task under its spread and colocation, as far as greedy choice finds it.

    Args:
        task: The task.
        left: Room by resource.
        costs: Cost of a machine by item.
        among: Items to use, by index, in order of `costs`.
    """
    if task.pool.colocate != "None":
        return _in_one(task, left, costs, among)
    return _anywhere(task, left, costs, among)


def value(fill: Fill, costs: Sequence[float]) -> tuple[int, int, float]:
    """How good a fill is, the least first: what is missing, how uneven it is, then the cost."""
    return fill.missing, fill.uneven, sum(costs[n] * count for n, count in fill.counts.items())


def trim(task: Task, fill: Fill) -> Fill:
    """The same without machines that the pool can do without, as long as it stays as even."""
    if fill.missing:
        return fill
    items = task.items
    less = Fill(dict(fill.counts))
    spare = sum(items[n].units * count for n, count in fill.counts.items()) - task.need
    drop_needless(task, [UNLIMITED] * _resources(task), less, spare, steady=task.base)
    if task.pool.spread == "None":
        return less
    less.uneven = unevenness(task, less)
    return less if less.uneven <= fill.uneven else fill


def _resources(task: Task) -> int:
    return 1 + max((resource for item in task.items for resource, _ in item.uses), default=0)


def unevenness(task: Task, fill: Fill) -> int:
    """Machines that domains lack to an even spread although the pool by itself would find room there."""
    new: dict[int, int] = {}
    for n, count in fill.counts.items():
        domain = task.domain(task.items[n], task.pool.spread)
        new[domain] = new.get(domain, 0) + count
    held = task.held(task.pool.spread)
    top = max((held.get(domain, 0) + count for domain, count in new.items()), default=0)
    return sum(
        max(0, min(top - 1 - held.get(domain, 0), room) - new.get(domain, 0)) for domain, room in task.rooms.items()
    )


def _anywhere(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Fill:
    if task.pool.spread == "None":
        return cover(task, left, costs, among)
    items = task.items
    # Where all machines count alike and are paid alike, and share no limit, greedy choice is exact.
    mixed = len({(items[n].units, task.base > 0 and items[n].spot) for n in among}) > 1
    if mixed or any(left[resource] < UNLIMITED for resource in task.shared):
        exact = evenly(task, left, costs, among)
        if exact is not None:
            exact.uneven = unevenness(task, exact)
            return exact
    # Sizes alone too: the greedy way may mix them badly.
    alone = [[n for n in among if items[n].units == size] for size in task.sizes] if len(task.sizes) > 1 else []
    fills = [fill for choice in (among, *alone) for fill in _greedily(task, left, costs, choice)]
    for fill in fills:
        fill.uneven = unevenness(task, fill)
    return min(fills, key=lambda fill: value(fill, costs))


def _greedily(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Iterable[Fill]:
    """Fills whose domains differ by one machine at most, as far as there is room."""
    items, over = task.items, task.pool.spread
    by_unit = sorted(among, key=lambda n: (costs[n] / items[n].units, n))

    def fill_up(part: Task) -> tuple[Fill, Tally]:
        tally = Tally(part)

        def rank(n: int) -> Rank:
            return tally.of(part, n, over), costs[n] / items[n].units, n

        return pour_all(
            part, by_unit, left, part=lambda n: part.domain(items[n], over), rank=rank, tally=tally, each=True
        ), tally

    yield fill_up(task)[0]
    if task.base and not task.spot_only:
        # The other way round: the cheapest of all, then on-demand machines in place of the spot ones that lose least.
        fill, _ = fill_up(replace(task, base=0))
        if not fill.missing and _make_steady(task, left, costs, by_unit, fill):
            yield fill


def _make_steady(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int], fill: Fill) -> bool:
    """On-demand machines in place of spot ones of their domain, those first that lose least, until the base is met."""
    items, over = task.items, task.pool.spread
    room = list(left)
    firm: dict[tuple[int, int], list[int]] = {}
    for n in reversed(among):
        if not items[n].spot:
            firm.setdefault((task.domain(items[n], over), items[n].units), []).append(n)
    for n, count in fill.counts.items():
        take(items[n], count, room)
    steady = sum(items[n].units * count for n, count in fill.counts.items() if not items[n].spot)

    def swap(old: int) -> tuple[float, int, int] | None:
        queue = firm.get((task.domain(items[old], over), items[old].units), [])
        while queue and not fits(items[queue[-1]], room):
            queue.pop()
        return (costs[queue[-1]] - costs[old], old, queue[-1]) if queue else None

    swaps = [found for old in fill.counts if items[old].spot and (found := swap(old))]
    heapify(swaps)
    while steady < task.base:
        if not swaps:
            return False
        known = heappop(swaps)
        old = known[1]
        now = swap(old)
        if now == known:
            take(items[old], -1, room)
            take(items[now[2]], 1, room)
            fill.counts[old] -= 1
            fill.counts[now[2]] = fill.counts.get(now[2], 0) + 1
            steady += items[old].units
            now = swap(old) if fill.counts[old] else None
        if now is not None:
            heappush(swaps, now)
    fill.counts = {n: count for n, count in fill.counts.items() if count}
    return True


def _in_one(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Fill:
    """The best of the domains; those that can't beat the best so far aren't tried."""
    over = task.pool.colocate
    domains: dict[int, list[int]] = {}
    for n in among:
        domains.setdefault(task.domain(task.items[n], over), []).append(n)
    held = {domain for domain, count in task.held(over).items() if count}
    bounds = {
        domain: least(task, left, costs, inside) for domain, inside in domains.items() if not held or domain in held
    }
    best = Fill({}, task.need)
    for domain in sorted(bounds, key=lambda domain: (bounds[domain], domain)):
        if not best.missing and bounds[domain] >= value(best, costs)[2]:
            break
        fill = _anywhere(task, left, costs, domains[domain])
        if value(fill, costs) < value(best, costs):
            best = fill
    return best


def least(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> float:
    """What some offers cost at least for all units: as if machines could be cut; infinite where they don't suffice."""
    items = task.items
    total, need = 0.0, task.need
    for unit, n in sorted((costs[n] / items[n].units, n) for n in among):
        units = min(need, fits(items[n], left) * items[n].units)
        total += unit * units
        need -= units
        if not need:
            return total
    return total if not need else inf
