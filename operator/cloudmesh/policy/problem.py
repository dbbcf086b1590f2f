"""The placement problem in small: what each pool still wants, the few offers that can matter, and shared room."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cloudmesh.policy.filters import Sifted
from cloudmesh.policy.model import PoolRequest, Request
from cloudmesh.policy.offers import UNLIMITED, Longs, OfferTable, Rows


@dataclass(frozen=True, slots=True)
class Item:
    """An offer as one pool sees it.

    Args:
        row: Row of the table.
        units: What a machine counts as.
        alternative: Index of the pool's alternative.
        cost: Nano-units per hour and machine, `UNKNOWN_COST` if not known.
        spot: Whether it can be taken away.
        account: Code of the account.
        place: Code of `account/region/zone`.
        uses: Resources with limits that a machine takes, and how much of each.
    """

    row: int
    units: int
    alternative: int
    cost: int
    spot: bool
    account: int
    place: int
    uses: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """What is left to do for a pool.

    Args:
        pool: The pool.
        need: Units wanted besides what is pinned.
        base: Units of these that must be on demand.
        spot_only: What is above the base must be spot.
        items: Offers worth looking at, the cheapest first.
        held_places: Machines pinned by place code.
        held_accounts: Machines pinned by account code.
        shared: Resources that several items use: limits of accounts.
        rooms: Machines that each domain of its spread holds for this pool alone.
    """

    pool: PoolRequest
    need: int
    base: int
    spot_only: bool
    items: tuple[Item, ...]
    held_places: Mapping[int, int]
    held_accounts: Mapping[int, int]
    shared: tuple[int, ...]
    rooms: Mapping[int, int]

    @property
    def sizes(self) -> tuple[int, ...]:
        """What machines may count as; several need more than taking the cheapest first."""
        return tuple(sorted({alternative.counts_as for alternative in self.pool.alternatives}))

    def domain(self, item: Item, over: str) -> int:
        """Where an item lies, for spread or colocation over zones or accounts."""
        return item.account if over == "Account" else item.place

    def held(self, over: str) -> Mapping[int, int]:
        """Pinned machines by domain; a domain that no offer has is below zero."""
        return self.held_accounts if over == "Account" else self.held_places


@dataclass(slots=True)
class Fill:
    """Machines for one pool by index of its items.

    Args:
        counts: Machines by item.
        missing: Units that don't fit.
        uneven: Machines that domains lack to an even spread although the pool by itself would find room there.
    """

    counts: dict[int, int]
    missing: int = 0
    uneven: int = 0

    def cost(self, task: Task) -> int:
        """Nano-units per hour."""
        return sum(task.items[n].cost * count for n, count in self.counts.items())


class Resources:
    """Limits that machines share, numbered: free capacity of an offer, an account's limit."""

    def __init__(self, request: Request, table: OfferTable) -> None:
        self._table = table
        self._ids: dict[tuple[str, int], int] = {}
        self.left: list[int] = []
        self._accounts = _by_code(table.account.values, request.account_limits)
        self._account_left = _as_column(self._accounts, len(table.account.values))

    def fresh(self) -> Resources:
        """The same limits with nothing taken into account yet."""
        _ = self.caps  # made once for all
        found = copy.copy(self)
        found._ids, found.left = {}, []
        return found

    def limits(self) -> dict[int, int]:
        """What is left of accounts with limits, by their codes."""
        return dict(self._accounts)

    def uses(self, rows: Rows) -> Iterator[tuple[tuple[int, int], ...]]:
        """What one machine of each row takes."""
        table = self._table
        for row, free, account in zip(
            rows.tolist(),
            table.free[rows].tolist(),
            table.account.codes[rows].tolist(),
            strict=True,
        ):
            found = []
            if free != UNLIMITED:
                found.append((self._id("free", row, free), 1))
            if account in self._accounts:
                found.append((self._id("account", account, self._accounts[account]), 1))
            yield tuple(found)

    def kinds(self) -> list[str]:
        """What each resource is: `free` or `account`."""
        return [kind for kind, _ in self._ids]

    @cached_property
    def caps(self) -> Longs:
        """How many machines of each row of the table fit while nothing else is taken."""
        table = self._table
        caps = table.free.astype(np.int64)
        if self._accounts:
            caps = np.minimum(caps, self._account_left[table.account.codes])
        return np.maximum(caps, 0)

    def _id(self, kind: str, number: int, left: int) -> int:
        known = self._ids.get((kind, number))
        if known is None:
            known = self._ids[kind, number] = len(self.left)
            self.left.append(max(0, left))
        return known


def fits(item: Item, left: Sequence[int]) -> int:
    """How many machines of an item fit."""
    most = UNLIMITED
    for resource, amount in item.uses:
        most = min(most, left[resource] // amount)
    return most


def take(item: Item, count: int, left: list[int]) -> None:
    """Takes room for machines; a negative count gives it back."""
    for resource, amount in item.uses:
        left[resource] -= amount * count


def drop_needless(task: Task, room: list[int], fill: Fill, spare: int, *, steady: int = 0) -> int:
    """Takes machines out that the units can do without, the dearest first, and says how many units these were.

    Args:
        task: The task.
        room: Room by resource, which grows.
        fill: Loses the machines.
        spare: Units beyond those wanted.
        steady: Units on demand that must stay.
    """
    left = spare
    firm = sum(task.items[n].units * count for n, count in fill.counts.items() if not task.items[n].spot) - steady
    for n in sorted(fill.counts, key=lambda n: (-task.items[n].cost, n)):
        item = task.items[n]
        count = min(fill.counts[n], (left if item.spot else min(left, firm)) // item.units)
        if count > 0:
            take(item, -count, room)
            fill.counts[n] -= count
            left -= count * item.units
            firm -= 0 if item.spot else count * item.units
    fill.counts = {n: count for n, count in fill.counts.items() if count}
    return spare - left


def wanted(pool: PoolRequest) -> tuple[int, int]:
    """Units that a pool wants besides what is pinned, and how many of them on demand."""
    need = max(0, pool.replicas - sum(pin.count * pin.counts_as for pin in pool.pinned))
    steady = sum(pin.count * pin.counts_as for pin in pool.pinned if pin.offer.purchase == "OnDemand")
    return need, min(need, max(0, min(pool.base_on_demand, pool.replicas) - steady))


def make_task(
    sifted: Sifted,
    table: OfferTable,
    resources: Resources,
    currency: str,
    picked: Rows | None = None,
) -> Task:
    """The task of a pool.

    Args:
        sifted: Its offers.
        table: The table.
        resources: Shared limits; those of the items are added.
        currency: Currency to compare in.
        picked: Indexes of the rows to look at, the best first, see `shortlist`; None for all, the cheapest first.
    """
    pool = sifted.pool
    need, base = wanted(pool)
    places: dict[int, int] = {}
    accounts: dict[int, int] = {}
    for order, pin in enumerate(pool.pinned):
        offer = pin.offer
        # What the table doesn't have gets a number of its own below zero.
        place, account = (
            code if code >= 0 else -1 - order
            for code in (
                table.place.code(f"{offer.account}/{offer.region}/{offer.zone}"),
                table.account.code(offer.account),
            )
        )
        places[place] = places.get(place, 0) + pin.count
        accounts[account] = accounts.get(account, 0) + pin.count
    if picked is None:
        picked = np.argsort(sifted.costs(table, currency), kind="stable")
    rows = sifted.rows[picked]
    items = tuple(
        map(
            Item,
            rows.tolist(),
            sifted.units[picked].tolist(),
            sifted.alternative[picked].tolist(),
            sifted.costs(table, currency, picked).tolist(),
            table.spot[rows].tolist(),
            table.account.codes[rows].tolist(),
            table.place.codes[rows].tolist(),
            resources.uses(rows),
        )
    )
    kinds = resources.kinds()
    shared = tuple(sorted({r for item in items for r, _ in item.uses if kinds[r] != "free"}))
    task = Task(pool, need, base, pool.above_base == "Spot", items, places, accounts, shared, {})
    return replace(task, rooms=_rooms(task, resources.left)) if pool.spread != "None" else task


def _rooms(task: Task, left: Sequence[int]) -> dict[int, int]:
    inside: dict[int, list[Item]] = {}
    for item in task.items:
        inside.setdefault(task.domain(item, task.pool.spread), []).append(item)
    found: dict[int, int] = {}
    for domain, items in inside.items():
        room, count = list(left), 0
        # Those first that take from the fewest limits.
        for item in sorted(items, key=lambda item: (sum(amount for _, amount in item.uses), item.row)):
            if count > task.need:
                break
            # Above the base there may be spot machines only.
            barred = task.spot_only and item.spot == (task.base >= task.need)
            more = 0 if barred else min(fits(item, room), task.need + 1)
            take(item, more, room)
            count += more
        found[domain] = count
    return found


def _as_column(limits: Mapping[int, int], size: int) -> Longs:
    column = np.full(size, 2**62, dtype=np.int64)
    column[list(limits)] = list(limits.values())
    return column


def _by_code(values: Sequence[str], limits: Mapping[str, int]) -> dict[int, int]:
    return {code: limits[value] for code, value in enumerate(values) if value in limits}
