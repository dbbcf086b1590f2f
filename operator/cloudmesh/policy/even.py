"""The cheapest even spread of a small pool: dynamic programming over domains, level by level."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.cover import WINDOW, machines
from cloudmesh.policy.problem import Fill, Task
from cloudmesh.policy.shared import within_shared

MAX_CELLS = 20_000
"""Options of a domain times states, at most; beyond it the greedy way has to do."""
MAX_LEVELS = 8

Option = tuple[int, int, float, tuple[int, ...]]
"""Units, units on demand, cost, and machines of each kind."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """Machines of one domain that count and are paid alike, in order of cost, and the cost of the first so many."""

    units: int
    spot: bool
    machines: list[int]
    costs: list[float]


@dataclass(slots=True)
class _Domain:
    """Machines of one domain that may be taken.

    Args:
        held: Machines pinned there.
        room: Machines that fit now.
        alone: Machines that would fit if there were no other pool.
        kinds: By units and purchase.
    """

    held: int
    room: int
    alone: int
    kinds: tuple[_Kind, ...]
    known: dict[int, dict[tuple[int, int], Option]] = field(default_factory=dict)

    def options(self, task: Task, level: int, most: int) -> list[Option]:
        """What it may give at a level; none if these are too many, or others took its room."""
        low = max(0, min(level - self.held, self.alone))
        high = max(0, min(level + 1 - self.held, self.room))
        found: list[Option] = []
        for count in range(low, high + 1):
            if count not in self.known:
                self.known[count] = self._of(task, count, most)
            found.extend(self.known[count].values())
        return found

    def _of(self, task: Task, count: int, most: int) -> dict[tuple[int, int], Option]:
        """The cheapest of all ways to take so many machines, by what they count."""
        best: dict[tuple[int, int], Option] = {}
        for counts in islice(_splits(self, count), MAX_CELLS // 20):
            units, steady, cost = 0, 0, 0.0
            for kind, taken in zip(self.kinds, counts, strict=True):
                units += kind.units * taken
                steady += 0 if kind.spot else kind.units * taken
                cost += kind.costs[taken]
            if steady > most:
                if task.spot_only:
                    continue
                steady = most
            key = min(units, task.need), steady
            if key not in best or cost < best[key][2]:
                best[key] = (*key, cost, counts)
        return best


def evenly(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> Fill | None:
    """Machines whose domains differ by one at most as far as there is room, or None if the pool is too large or mixed.

    Args:
        task: The task.
        left: Room by resource.
        costs: Cost of a machine by item.
        among: Items to use, by index, in order of `costs`.
    """
    items = task.items
    if task.spot_only and not task.base:
        among = [n for n in among if items[n].spot]
    if task.need > WINDOW or not among:
        return None
    picked = within_shared(task, left, costs, among, lambda now: _best_level(task, left, now, among))
    return None if picked is None else Fill(picked)


def _best_level(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> dict[int, int] | None:
    items = task.items
    among = sorted(among, key=lambda n: (costs[n], n))
    domains = _domains(task, left, costs, among)
    sizes = [items[n].units for n in among]
    first = max(0, -(-task.need // max(sizes)) // len(domains) - 1)
    last = max(d.held for d in domains) + -(-task.need // min(sizes))
    best: tuple[float, list[int]] | None = None
    for level in range(first, min(last, first + MAX_LEVELS) + 1):
        found = _at_level(task, domains, level)
        if found is not None and (best is None or found[0] < best[0]):
            best = found
        elif best is not None:
            break
    return dict(Counter(best[1])) if best is not None else None


def _domains(task: Task, left: Sequence[int], costs: Sequence[float], among: Sequence[int]) -> list[_Domain]:
    items, over = task.items, task.pool.spread
    inside: dict[int, dict[tuple[int, bool], list[int]]] = {}
    for n in among:
        kinds = inside.setdefault(task.domain(items[n], over), {})
        kinds.setdefault((items[n].units, items[n].spot), []).append(n)
    held = task.held(over)
    found = []
    for domain, by_kind in inside.items():
        together = list(left)
        room = sum(len(machines(items, mine, together, task.need + 1)) for mine in by_kind.values())
        kinds_ = []
        for (units, spot), mine in by_kind.items():
            entries = machines(items, mine, list(left), -(-task.need // units))
            kinds_.append(_Kind(units, spot, entries, [0.0, *accumulate(costs[n] for n in entries)]))
        found.append(_Domain(held.get(domain, 0), room, task.rooms.get(domain, 0), tuple(kinds_)))
    return found


def _at_level(task: Task, domains: Sequence[_Domain], level: int) -> tuple[float, list[int]] | None:
    """The least cost with `level` or one more machine in each domain, and the machines; None if there is no way."""
    if level == 0:
        domains = _promising(task, domains)
    # Units on demand count up to the base; where no more than that are allowed, they are counted exactly.
    most = task.base + (max((k.units for d in domains for k in d.kinds if not k.spot), default=1) - 1) * task.spot_only
    wide, size = task.need + 1, (most + 1) * (task.need + 1)
    states = np.arange(size)
    steady, units = np.divmod(states, wide)
    cost = np.full(size + 1, np.inf)
    cost[0] = 0.0
    chosen: list[tuple[_Domain, list[Option], NDArray[np.intp]]] = []
    for domain in domains:
        options = domain.options(task, level, most)
        if not options or len(options) * size > MAX_CELLS:
            return None
        adds = np.array([option[:3] for option in options])
        rest = np.maximum(0, units - adds[:, 0, None])
        if most:
            before = steady - adds[:, 1, None]
            rest = np.where(before < 0, size if task.spot_only else rest, rest + wide * before)
        sums = cost[rest.astype(np.intp)] + adds[:, 2, None]
        pick = sums.argmin(axis=0)
        cost[:size] = sums[pick, states]
        chosen.append((domain, options, pick))
    ends = [(float(cost[s * wide + task.need]), s) for s in range(task.base, most + 1)]
    for total, end in sorted(ends):
        if not np.isfinite(total):
            return None
        found = _read(task, chosen, end)
        if end == task.base or _needs_all(task, found):
            return total, found
    return None


def _read(task: Task, chosen: Sequence[tuple[_Domain, list[Option], NDArray[np.intp]]], steady: int) -> list[int]:
    found: list[int] = []
    units = task.need
    for domain, options, pick in reversed(chosen):
        option = options[int(pick[steady * (task.need + 1) + units])]
        for kind, count in zip(domain.kinds, option[3], strict=True):
            found.extend(kind.machines[:count])
        units, steady = max(0, units - option[0]), max(0, steady - option[1])
    return found


def _needs_all(task: Task, found: Sequence[int]) -> bool:
    """Whether the base wouldn't be met without any one of the on-demand machines."""
    steady = [task.items[n].units for n in found if not task.items[n].spot]
    return not steady or sum(steady) - min(steady) < task.base


def _promising(task: Task, domains: Sequence[_Domain]) -> Sequence[_Domain]:
    """With one machine a domain at most, only as many domains as there are machines can matter, for each kind."""
    if len(domains) <= task.need:
        return domains
    kept: set[int] = set()
    for name in {(kind.units, kind.spot) for domain in domains for kind in domain.kinds}:
        heads = sorted(
            (kind.costs[1], number)
            for number, domain in enumerate(domains)
            for kind in domain.kinds
            if (kind.units, kind.spot) == name and kind.machines
        )
        kept.update(number for _, number in heads[: task.need])
    return [domains[number] for number in sorted(kept)]


def _splits(domain: _Domain, count: int, at: int = 0) -> Iterator[tuple[int, ...]]:
    """Ways to take so many machines from a domain's kinds."""
    there = len(domain.kinds[at].machines)
    if at == len(domain.kinds) - 1:
        if count <= there:
            yield (count,)
        return
    for mine in range(min(count, there) + 1):
        for rest in _splits(domain, count - mine, at + 1):
            yield (mine, *rest)
