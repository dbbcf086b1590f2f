"""All pools together, as cheap as can be: each by itself first, then with surcharges on the room that several want.

The surcharges are Lagrange multipliers: what the pools cost under them, less what the room itself brings in, is a lower
bound, so that the search can stop when it is close.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cloudmesh.policy.cover import WINDOW
from cloudmesh.policy.offers import UNLIMITED
from cloudmesh.policy.problem import Fill, Task, take
from cloudmesh.policy.spread import cheapest

ROUNDS = 16
CLOSE = 0.003
"""Distance to the lower bound that is good enough."""
WORK = 600
"""What the search may cost, in tenths of a millisecond or so: a count, not a clock, so that the answer never varies."""

FEW = 4
"""Pools among which the search is worth all of that; among more, each counts for less."""

Value = tuple[int, int, float]
T = TypeVar("T")


def solve(tasks: Sequence[Task], left: Sequence[int], kinds: Sequence[str], effort: float = 1.0) -> list[Fill]:
    """The cheapest machines for all tasks, of which as little as possible is missing.

    Args:
        tasks: The tasks.
        left: Room by resource.
        kinds: What each resource is, see `Resources.kinds`.
        effort: Share of the usual work that a search may cost.
    """
    # Limits of accounts bind several offers of one pool, too; by itself it is filled without them.
    loose = [UNLIMITED if kind != "free" else room for room, kind in zip(left, kinds, strict=True)]
    plain = [[float(item.cost) for item in task.items] for task in tasks]
    fills = [_fill(task, loose, costs) for task, costs in zip(tasks, plain, strict=True)]
    room = _room(tasks, fills, left)
    short = {resource for resource, rest in enumerate(room) if rest < 0}
    if not short:
        return fills
    work = effort * WORK * (1.0 if len(tasks) <= FEW else 0.5)
    # Only the pools that want the same room have to part, if that is cheap enough; else all may move.
    inside = [t for t, fill in enumerate(fills) if _touches(tasks[t], fill, short)]
    if len(inside) < len(tasks):
        others = [t for t in range(len(tasks)) if t not in inside]
        used = [a - b for a, b in zip(left, _room(_of(tasks, others), _of(fills, others), left), strict=True)]
        search = _Contended(_of(tasks, inside), _less(left, used), _less(loose, used), _of(plain, inside), work * 2 / 3)
        best = dict(zip(inside, search.solve(_of(fills, inside)), strict=True))
        fills_now = [best.get(t, fill) for t, fill in enumerate(fills)]
        search = _Contended(tasks, left, loose, plain, work / 3)
        return search.solve(fills, start=fills_now)
    return _Contended(tasks, left, loose, plain, work).solve(fills)


def _of(items: Sequence[T], numbers: Sequence[int]) -> list[T]:
    return [items[n] for n in numbers]


def _less(left: Sequence[int], used: Sequence[int]) -> list[int]:
    return [max(0, room - taken) for room, taken in zip(left, used, strict=True)]


def _touches(task: Task, fill: Fill, resources: set[int]) -> bool:
    return any(resource in resources for n in fill.counts for resource, _ in task.items[n].uses)


def _fill(task: Task, left: Sequence[int], costs: Sequence[float]) -> Fill:
    return cheapest(task, left, costs, sorted(range(len(costs)), key=costs.__getitem__))


def _room(tasks: Sequence[Task], fills: Sequence[Fill], left: Sequence[int]) -> list[int]:
    """Room that is left, below zero where the pools take more than there is."""
    room = list(left)
    for task, fill in zip(tasks, fills, strict=True):
        for n, count in fill.counts.items():
            take(task.items[n], count, room)
    return room


def _weight(task: Task) -> float:
    """What a fill costs, in tenths of a millisecond or so."""
    mixed, size = len(task.sizes) > 1, len(task.items)
    if task.pool.spread != "None":
        if task.need > WINDOW:
            return 0.15 * task.need * (1 + len(task.sizes) * mixed) * (2 if task.base else 1)
        return 2 + size / 4 if mixed or task.shared else 1 + size / 15
    if task.pool.colocate != "None":
        return 1 + size / 40 if mixed else 0.2 + size / 200
    return 1 + size / 80 if mixed else 0.1 + size / 500


class _Contended:
    """Search for the cheapest fills where pools compete for room."""

    def __init__(
        self,
        tasks: Sequence[Task],
        left: Sequence[int],
        loose: Sequence[int],
        plain: Sequence[Sequence[float]],
        work: float,
    ) -> None:
        self._tasks = tasks
        self._left = left
        self._loose = loose
        self._plain = plain
        self._best: list[Fill] = []
        self._roomy: list[Fill] = []
        self._rest: list[int] = list(left)
        self._value: Value = (2**62, 0, 0.0)
        self._bound: Value = (0, 0, 0.0)
        self._weights = [_weight(task) for task in tasks]
        self._work = 0.0
        self._most = work
        self._users: list[list[tuple[int, int, int]]] = [[] for _ in left]
        for t, task in enumerate(tasks):
            for n, item in enumerate(task.items):
                for resource, amount in item.uses:
                    self._users[resource].append((t, n, amount))

    def solve(self, fills: list[Fill], start: list[Fill] | None = None) -> list[Fill]:
        """The best of several orders and surcharges, improved.

        Args:
            fills: The pools by themselves.
            start: A way that fits, if one is known.
        """
        count = len(self._tasks)
        self._bound = self._total(fills)
        if start is not None:
            self._keep(start)
            if self._close():
                return self._best
        self._in_turn(sorted(range(count), key=self._choice), self._plain)
        if count > 1 and not self._close():
            self._in_turn(sorted(range(count), key=self._choice, reverse=True), self._plain)
        self._by_surcharges(fills)
        self._improve()
        return self._best

    def _fill(self, t: int, room: Sequence[int], costs: Sequence[float]) -> Fill:
        self._work += self._weights[t]
        return _fill(self._tasks[t], room, costs)

    def _choice(self, t: int) -> float:
        task = self._tasks[t]
        return len(task.items) / max(1, task.need)

    def _close(self) -> bool:
        """Whether nothing much better than the best can exist."""
        return self._value[:2] <= self._bound[:2] and self._value[2] <= self._bound[2] * (1 + CLOSE)

    def _total(self, fills: Sequence[Fill]) -> Value:
        cost = sum(
            costs[n] * count for fill, costs in zip(fills, self._plain, strict=True) for n, count in fill.counts.items()
        )
        return sum(fill.missing for fill in fills), sum(fill.uneven for fill in fills), cost

    def _keep(self, fills: list[Fill]) -> bool:
        value = self._total(fills)
        if value < self._value:
            self._best, self._value = fills, value
            return True
        return False

    def _in_turn(self, order: Sequence[int], costs: Sequence[Sequence[float]]) -> None:
        """Fills one pool after the other, each with what the others left."""
        room = list(self._left)
        fills = [Fill({}) for _ in self._tasks]
        for t in order:
            fills[t] = self._fill(t, room, costs[t])
            self._use(t, fills[t], room)
        self._keep(fills)

    def _use(self, t: int, fill: Fill, room: list[int]) -> None:
        for n, count in fill.counts.items():
            take(self._tasks[t].items[n], count, room)

    def _by_surcharges(self, fills: list[Fill]) -> None:
        """Raises the price of what is wanted more than there is, until the pools part (a subgradient method)."""
        surcharge = [0.0] * len(self._left)
        known: Sequence[Sequence[float]] = self._plain
        for round_ in range(ROUNDS):
            room = _room(self._tasks, fills, self._left)
            if min(room) >= 0:
                self._keep(fills)
            if self._close() or self._work >= self._most * 2 / 3:
                return
            excess = [-rest if rest < 0 or surcharge[r] > 0 else 0 for r, rest in enumerate(room)]
            # Resources differ in size: thousandths of a CPU or machines.
            slope = [over / self._scale(r) if over else 0.0 for r, over in enumerate(excess)]
            norm = sum(s * s for s in slope)
            if norm == 0:
                return
            bound = self._under(fills, surcharge)
            distance = max(self._value[2] - bound, 0.02 * self._value[2]) if self._value[0] < 2**62 else self._value[2]
            step = distance / norm / (1 + round_ / 6)
            surcharge = [
                max(0.0, now + step * s / self._scale(r))
                for r, (now, s) in enumerate(zip(surcharge, slope, strict=True))
            ]
            costs = self._with(surcharge)
            fills = [
                fill if mine == before else self._fill(t, self._loose, mine)
                for t, (mine, before, fill) in enumerate(zip(costs, known, fills, strict=True))
            ]
            known = costs
            bound = self._under(fills, surcharge)
            if bound > self._bound[2]:
                self._bound = (*self._bound[:2], bound)
            if round_ % 2:
                self._in_turn(sorted(range(len(self._tasks)), key=self._choice, reverse=round_ % 4 == 1), costs)

    def _with(self, surcharge: Sequence[float]) -> list[list[float]]:
        """Costs of all items with surcharges."""
        costs = [list(plain) for plain in self._plain]
        for resource, extra in enumerate(surcharge):
            if extra:
                for t, n, amount in self._users[resource]:
                    costs[t][n] += extra * amount
        return costs

    def _under(self, fills: Sequence[Fill], surcharge: Sequence[float]) -> float:
        """The lower bound that surcharges give."""
        room = _room(self._tasks, fills, self._left)
        return self._total(fills)[2] - sum(s * rest for s, rest in zip(surcharge, room, strict=True))

    def _scale(self, resource: int) -> float:
        return 1000.0 if self._left[resource] > 500 else 1.0

    def _improve(self) -> None:
        """Takes one or two pools out and fills them again, as long as that is cheaper."""
        changed = True
        while changed:
            changed = False
            for first in range(len(self._tasks)):
                for second in range(len(self._tasks)):
                    if self._work >= self._most or self._close():
                        return
                    changed |= self._again((first,) if first == second else (first, second))

    def _again(self, order: Sequence[int]) -> bool:
        if self._best is not self._roomy:
            self._roomy, self._rest = self._best, _room(self._tasks, self._best, self._left)
        room = list(self._rest)
        fills = list(self._best)
        for t in order:
            for n, count in fills[t].counts.items():
                take(self._tasks[t].items[n], -count, room)
        for t in order:
            fills[t] = self._fill(t, room, self._plain[t])
            self._use(t, fills[t], room)
        return self._keep(fills)
