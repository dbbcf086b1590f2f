"""Machines by rank, pool after pool in the request's order: all modes but Cheapest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudmesh.policy.modes import ModeSpec
from cloudmesh.policy.pour import Rank, Tally, pour_all
from cloudmesh.policy.problem import Fill, Task, take
from cloudmesh.policy.spread import unevenness

DOMAINS = 32
"""Zones or accounts tried at most for a pool that must lie in one."""


@dataclass(frozen=True, slots=True)
class Order:
    """How a mode ranks the items of a task.

    Args:
        mode: The mode.
        keys: Key by item, the least first.
        room: Machines that each account has room for, by its code.
        free: Weight of score Free, by the most room that an account has.
        spread: Weight of score Spread.
    """

    mode: ModeSpec
    keys: Sequence[float]
    room: Sequence[int]
    free: int = 0
    spread: int = 0


def by_rank(tasks: Sequence[Task], orders: Sequence[Order], left: Sequence[int]) -> list[Fill]:
    """Fills the tasks one after the other.

    Args:
        tasks: The tasks.
        orders: Their orders.
        left: Room by resource.
    """
    room = list(left)
    used: dict[int, int] = {}
    fills = []
    for task, order in zip(tasks, orders, strict=True):
        fill = _fill(task, order, room, used)
        for n, count in fill.counts.items():
            take(task.items[n], count, room)
            used[task.items[n].account] = used.get(task.items[n].account, 0) + count
        fills.append(fill)
    return fills


def total_key(orders: Sequence[Order], fills: Sequence[Fill]) -> float:
    """The sum of the keys of all machines, to compare placements of one mode."""
    return sum(order.keys[n] * c for order, fill in zip(orders, fills, strict=True) for n, c in fill.counts.items())


def _fill(task: Task, order: Order, room: Sequence[int], used: dict[int, int]) -> Fill:
    everything = range(len(task.items))
    if task.pool.colocate == "None":
        return _pour(task, order, room, used, everything)
    over = task.pool.colocate
    held = {domain for domain, count in task.held(over).items() if count}
    domains: dict[int, list[int]] = {}
    for n in everything:
        if not held or task.domain(task.items[n], over) in held:
            domains.setdefault(task.domain(task.items[n], over), []).append(n)
    first = sorted(domains, key=lambda d: min(_static(task, order, n) for n in domains[d]))[:DOMAINS]
    fills = [_pour(task, order, room, used, domains[domain]) for domain in first]
    return min(
        fills,
        key=lambda f: (f.missing, f.uneven, total_key([order], [f]), f.cost(task), sorted(f.counts)),
        default=Fill({}, task.need),
    )


def _static(task: Task, order: Order, n: int) -> Rank:
    """What doesn't change: spot before its fallback, the mode's key, cost of a unit, and the offer's place."""
    item = task.items[n]
    fallback = task.pool.above_base == "SpotWithFallback" and not item.spot
    return fallback, order.keys[n], item.cost / item.units, item.row


def _pour(task: Task, order: Order, room: Sequence[int], used: dict[int, int], among: Sequence[int]) -> Fill:
    tally = Tally(task)
    over = task.pool.spread
    taken = dict(used)
    most = max((r for r in order.room), default=0)

    def placed(n: int, count: int) -> None:
        account = task.items[n].account
        taken[account] = taken.get(account, 0) + count

    def moving(n: int) -> float:
        item = task.items[n]
        room_now = order.room[item.account] - taken.get(item.account, 0)
        if order.mode.room:
            return order.mode.room * room_now
        score = order.free * 1000 * max(0, room_now) // max(1, most)
        if order.spread:
            score += order.spread * 1000 // (1 + tally.of(task, n, "Account"))
        return order.keys[n] - score

    dynamic = order.mode.room != 0 or order.free > 0 or order.spread > 0

    def rank(n: int) -> Rank:
        fallback, key, unit, row = _static(task, order, n)
        even = (
            tally.of(task, n, over) if over != "None" else 0,
            tally.of(task, n, "Account") if order.mode.even else 0,
        )
        return *even, fallback, moving(n) if dynamic else key, unit, row

    each = dynamic or over != "None" or order.mode.even
    fill = pour_all(
        task,
        sorted(among, key=lambda n: _static(task, order, n)),
        room,
        part=(lambda n: (task.items[n].account, task.items[n].place)) if each else (lambda n: 0),
        rank=rank,
        tally=tally,
        each=each,
        placed=placed,
    )
    if over != "None":
        fill.uneven = unevenness(task, fill)
    return fill
