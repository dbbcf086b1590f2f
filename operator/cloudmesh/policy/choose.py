"""From the offers that serve each pool to machines: the network, the mode, and the limit on the cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.filters import Sifted
from cloudmesh.policy.model import Request
from cloudmesh.policy.modes import MODES
from cloudmesh.policy.offers import UNPRICED, OfferTable, known_nanos
from cloudmesh.policy.problem import Fill, Resources, Task, make_task, wanted
from cloudmesh.policy.ranked import Order, by_rank, total_key
from cloudmesh.policy.scores import Plugin, View, weight
from cloudmesh.policy.shortlist import Picker
from cloudmesh.policy.solve import solve
from cloudmesh.policy.spread import trim

TRIES = 24
"""Networks tried, or price caps under which a mode stays within the limit, times pools: at most, but two at least."""

BESIDE = 0.25
"""Share of the usual work for the cheapest placement beside another mode's: it is told, or stands in for it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Machines for all pools.

    Args:
        sifted: Offers that serve each pool, in the network that was chosen.
        tasks: What each pool wanted.
        fills: What it gets.
        resources: Shared limits.
        network: The network, empty if it doesn't matter.
        by_price: Chosen by price although the mode says otherwise, since the mode's own choice doesn't fit.
        over: What the whole would cost, where it costs too much and was cut.
        key: Sum of the mode's keys, the least is best.
    """

    sifted: tuple[Sifted, ...]
    tasks: tuple[Task, ...]
    fills: tuple[Fill, ...]
    resources: Resources
    network: str = ""
    by_price: bool = False
    over: int | None = None
    key: float = 0.0

    @property
    def pairs(self) -> list[tuple[Task, Fill]]:
        """Tasks and what they get."""
        return list(zip(self.tasks, self.fills, strict=True))

    @property
    def cost(self) -> int:
        """Nano-units per hour of what is to be made."""
        return sum(fill.cost(task) for task, fill in self.pairs)

    @property
    def missing(self) -> int:
        """Units that don't fit."""
        return sum(fill.missing for fill in self.fills)


class Chooser:
    """Chooses machines for all pools of a request.

    Args:
        request: The request.
        table: The table.
        sifted: Offers that serve each pool.
        plugin: The policy of mode Plugin.
    """

    def __init__(
        self, request: Request, table: OfferTable, sifted: Sequence[Sifted], plugin: Plugin | None = None
    ) -> None:
        self._request = request
        self._table = table
        self._sifted = tuple(sifted)
        self._plugin = plugin
        self._limits = Resources(request, table)
        self._cheap: dict[int, Choice] = {}
        self._rest: int | None = None
        if request.max_hourly_nanos is not None:
            held = pinned_nanos(request)
            self._rest = request.max_hourly_nanos - held if held is not None else 0

    def choose(self) -> Choice:
        """The machines that the policy prefers.

        Raises:
            PolicyError: The policy can't be used.
        """
        return self._in_best_network(self._by_mode, pruned=self._request.policy.mode == "Cheapest")

    def cheapest(self) -> Choice:
        """The cheapest machines, whatever the mode."""
        return self._in_best_network(self._by_price, pruned=True)

    def _in_best_network(self, fill: Callable[[tuple[Sifted, ...], int], Choice], *, pruned: bool) -> Choice:
        request, table = self._request, self._table
        if not request.same_network:
            return fill(self._sifted, -1)
        best: Choice | None = None
        for estimate, network in _networks(request, table, self._sifted)[: _tries(request)]:
            if best is not None and not best.missing and pruned and estimate >= best.cost:
                break
            inside = tuple(narrow(s, table.network.codes[s.rows] == network) for s in self._sifted)
            choice = replace(fill(inside, network), network=table.network.values[network])
            if best is None or _value(choice) < _value(best):
                best = choice
        return best or fill(tuple(narrow(s, np.zeros(len(s.rows), np.bool_)) for s in self._sifted), -1)

    def _by_price(self, sifted: tuple[Sifted, ...], network: int) -> Choice:
        choice = self._cheapest(sifted, network)
        return choice if self._rest is None or choice.cost <= self._rest else _cut(choice, self._rest)

    def _by_mode(self, sifted: tuple[Sifted, ...], network: int) -> Choice:
        if self._request.policy.mode == "Cheapest":
            return self._by_price(sifted, network)
        rest = self._rest
        choice = self._ranked(sifted)
        fits = rest is None or choice.cost <= rest
        if not choice.missing and fits:
            return choice
        cheap = self._cheapest(sifted, network)
        if rest is not None and not choice.missing and not cheap.missing and cheap.cost <= rest:
            return self._ranked_below(sifted, rest) or replace(cheap, by_price=True)
        if choice.missing <= cheap.missing and fits:
            return choice
        return replace(self._by_price(sifted, network), by_price=True)

    def _cheapest(self, sifted: tuple[Sifted, ...], network: int) -> Choice:
        if network not in self._cheap:
            resources = self._limits.fresh()
            tasks = tuple(reduced_task(self._request, self._table, s, resources) for s in sifted)
            effort = 1 / _tries(self._request) ** 0.5 if self._request.same_network else 1.0
            effort *= 1.0 if self._request.policy.mode == "Cheapest" else BESIDE
            fills = solve(tasks, resources.left, resources.kinds(), effort)
            trimmed = tuple(trim(task, fill) for task, fill in zip(tasks, fills, strict=True))
            self._cheap[network] = Choice(sifted, tasks, trimmed, resources)
        return self._cheap[network]

    def _ranked(self, sifted: tuple[Sifted, ...]) -> Choice:
        request, table, resources = self._request, self._table, self._limits.fresh()
        tasks, orders = [], []
        mode = MODES[request.policy.mode]
        free, spread = weight(request, "Free"), weight(request, "Spread")
        dynamic = mode.flat or free or spread
        for s in sifted:
            view = View(request, table, s, resources)
            key = mode.key(view, self._plugin)
            group = _apart(s) if _apart(s) != "None" or not dynamic else "Account"
            picked = Picker(s, table, resources, request.currency, _total(request), group, key, mode.flat).pick()
            tasks.append(make_task(s, table, resources, request.currency, picked))
            orders.append(Order(mode, key[picked].tolist(), view.room.tolist() if dynamic else (), free, spread))
        fills = [trim(t, f) for t, f in zip(tasks, by_rank(tasks, orders, resources.left), strict=True)]
        return Choice(sifted, tuple(tasks), tuple(fills), resources, key=total_key(orders, fills))

    def _ranked_below(self, sifted: tuple[Sifted, ...], rest: int) -> Choice | None:
        """The mode's choice among offers that cost so many times the cheapest at most, as many as the limit allows."""
        units = [s.costs(self._table, self._request.currency) / s.units for s in sifted]
        ratios = [unit / max(1.0, float(unit.min(initial=np.inf))) for unit in units]
        low, high = 1.0, max((float(r.max(initial=1.0)) for r in ratios), default=1.0)
        best: Choice | None = None
        for _ in range(_tries(self._request)):
            middle = (low * high) ** 0.5
            choice = self._ranked(tuple(narrow(s, ratio <= middle) for s, ratio in zip(sifted, ratios, strict=True)))
            if not choice.missing and choice.cost <= rest:
                best, low = replace(choice, sifted=sifted), middle
            elif choice.missing:
                low = middle
            else:
                high = middle
        return best


def pinned_nanos(request: Request) -> int | None:
    """What runs already, in nano-units per hour; None if the price of one isn't known."""
    total = 0
    for pool in request.pools:
        for pin in pool.pinned:
            nanos = known_nanos(pin.offer)
            foreign = pin.offer.price is not None and pin.offer.price.currency != request.currency
            if pin.count and (nanos == UNPRICED or foreign):
                return None
            total += nanos * pin.count
    return total


def _value(choice: Choice) -> tuple[int, bool, float, int, str]:
    """How good a network is, the least first."""
    return choice.missing, choice.by_price, choice.key, choice.cost, choice.network


def _networks(request: Request, table: OfferTable, sifted: Sequence[Sifted]) -> list[tuple[float, int]]:
    """Networks and the least that each could cost: those where each pool finds something first, then the cheapest."""
    held = {p.offer.network for s in sifted for p in s.pool.pinned if p.count and p.offer.network}
    least = np.zeros(len(table.network.values))
    lacking = np.zeros(len(table.network.values), dtype=np.int64)
    for s in sifted:
        need = wanted(s.pool)[0]
        if not need:
            continue
        unit = np.full(len(least), np.inf)
        np.minimum.at(unit, table.network.codes[s.rows], s.costs(table, request.currency) / s.units)
        lacking += np.isinf(unit)
        least += np.where(np.isinf(unit), 0.0, unit * need)
    order = [
        (int(lacking[code]), float(least[code]), name, code)
        for code, name in enumerate(table.network.values)
        if name and (not held or name in held)
    ]
    return [(cost, code) for _, cost, _, code in sorted(order)]


def narrow(sifted: Sifted, keep: NDArray[np.bool_]) -> Sifted:
    """The same with some of its offers only."""
    return replace(sifted, rows=sifted.rows[keep], units=sifted.units[keep], alternative=sifted.alternative[keep])


def reduced_task(request: Request, table: OfferTable, sifted: Sifted, resources: Resources, times: int = 1) -> Task:
    """The task of a pool with the offers that a cheapest placement may need.

    Args:
        request: The request.
        table: The table.
        sifted: The pool's offers.
        resources: Shared limits.
        times: Keep offers for so many times what all pools want.
    """
    total = _total(request) * times
    picked = Picker(sifted, table, resources, request.currency, total, _apart(sifted)).pick()
    return make_task(sifted, table, resources, request.currency, picked)


def _tries(request: Request) -> int:
    return max(2, TRIES // max(2, len(request.pools)))


def _total(request: Request) -> int:
    return sum(wanted(pool)[0] for pool in request.pools)


def _apart(sifted: Sifted) -> str:
    """What machines of a pool are told apart by."""
    ways = (sifted.pool.spread, sifted.pool.colocate)
    return "Zone" if "Zone" in ways else "Account" if "Account" in ways else "None"


def _cut(choice: Choice, rest: int) -> Choice:
    """As many units as the money is enough for, the cheapest first; of each pool the base first."""
    lines = [_line(task, fill) for task, fill in zip(choice.tasks, choice.fills, strict=True)]
    fills = [Fill({}, task.need) for task in choice.tasks]
    heads = [(_unit(choice.tasks[t], line[0]), t, 0) for t, line in enumerate(lines) if line]
    heapify(heads)
    left = rest
    while heads:
        _, t, at = heappop(heads)
        task, n = choice.tasks[t], lines[t][at]
        if task.items[n].cost > left:
            continue
        left -= task.items[n].cost
        fills[t].counts[n] = fills[t].counts.get(n, 0) + 1
        if at + 1 < len(lines[t]):
            heappush(heads, (_unit(task, lines[t][at + 1]), t, at + 1))
    for task, fill, before in zip(choice.tasks, fills, choice.fills, strict=True):
        whole = sum(fill.counts.values()) == sum(before.counts.values())
        made = sum(task.items[n].units * count for n, count in fill.counts.items())
        fill.missing = before.missing if whole else max(before.missing, task.need - made)
    return replace(choice, fills=tuple(fills), over=choice.cost)


def _unit(task: Task, n: int) -> float:
    return task.items[n].cost / task.items[n].units


def _line(task: Task, fill: Fill) -> list[int]:
    """A pool's machines in the order in which to make them: each beginning of it keeps the base, and stays even."""
    seen: dict[int, int] = {}
    line: list[tuple[bool, int, float, int]] = []
    for n in sorted(fill.counts, key=lambda n: (task.items[n].spot, _unit(task, n), n)):
        for _ in range(fill.counts[n]):
            domain = task.domain(task.items[n], task.pool.spread) if task.pool.spread != "None" else n
            seen[domain] = seen.get(domain, 0) + 1
            level = seen[domain] if task.pool.spread != "None" else 0
            line.append((task.items[n].spot and task.base > 0, level, _unit(task, n), n))
    return [n for _, _, _, n in sorted(line)]
