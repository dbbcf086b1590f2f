"""The few offers of a pool that can matter: of thousands that differ in little but the rank, the first ones.

What counts is how many machines fit, the limits of accounts included: when the offers seen so far hold what
all pools together want, those behind them are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.filters import Sifted
from cloudmesh.policy.offers import OfferTable, Rows
from cloudmesh.policy.problem import Resources, wanted

FIRST = 2048
"""Offers looked at by rank where there is a key."""
SPARE = 16
"""Zones or accounts kept besides those that a pool needs."""
CHUNK = 512

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Picker:
    """Picks the offers of a pool.

    Args:
        sifted: Its offers.
        table: The table.
        resources: Shared limits.
        currency: Currency to compare in.
        total: Units that all pools want together, or more to keep more.
        group: What machines are told apart by: `None`, `Account` or `Zone`.
        keys: Key of each row, the least first; None for the price alone.
        flat: Keys are equal within an account.
    """

    sifted: Sifted
    table: OfferTable
    resources: Resources
    currency: str
    total: int
    group: str
    keys: Floats | None = None
    flat: bool = False

    def pick(self) -> Rows:
        """Indexes into the rows, the best first; spot before its fallback where there is a key."""
        rows = self.sifted.rows
        if not len(rows):
            return np.empty(0, dtype=np.intp)
        if self.group != "None":
            kept = [self._by_domain(mine) for mine in self._in_domains(list(self._kinds(len(rows))))]
        elif self.keys is not None:
            kept = [self._enough(self._first(mine)) for mine in self._kinds(len(rows))]
        else:
            kept = self._cheapest()
        picked = np.concatenate(kept)
        cost = self.sifted.costs(self.table, self.currency, picked)
        if self.keys is None:
            return picked[np.lexsort((rows[picked], cost))]
        unit = cost / self.sifted.units[picked]
        fallback = ~self.table.spot[rows[picked]] & (self.sifted.pool.above_base == "SpotWithFallback")
        return picked[np.lexsort((rows[picked], unit, self.keys[picked], fallback))]

    def _cheapest(self) -> list[Rows]:
        """The cheapest of each kind; as a rule they are among the first of all."""
        size = len(self.sifted.rows)
        looked = FIRST if self.sifted.in_order(self.table) else size
        while True:
            kept = [self._enough(mine) for mine in self._kinds(min(looked, size))]
            caps = self.resources.caps
            if looked >= size or all(int(caps[self.sifted.rows[some]].sum()) >= self.total for some in kept):
                return kept
            looked *= 8

    def _kinds(self, most: int) -> Iterator[Rows]:
        """Of the first so many, those that count alike and are paid alike, each in order of the price."""
        pool, rows = self.sifted.pool, self.sifted.rows[:most]
        every = np.arange(len(rows))
        if not self.sifted.in_order(self.table):
            # Rows are in order of the bare numbers, whatever the currency and the disk.
            every = np.argsort(self.sifted.costs(self.table, self.currency, every), kind="stable")
        sizes = sorted({alternative.counts_as for alternative in pool.alternatives})
        spot = self.table.spot[rows[every]] if pool.above_base != "OnDemand" else None
        for size in sizes:
            alike = np.ones(len(rows), np.bool_) if len(sizes) == 1 else self.sifted.units[every] == size
            if spot is None:
                yield every if len(sizes) == 1 else every[alike]
            else:
                yield every[alike & spot]
                yield every[alike & ~spot]

    def _first(self, mine: Rows) -> Rows:
        """The first of a kind by its key, and by price where that is equal."""
        if self.keys is None:
            return mine
        key = self.keys[mine]
        if len(mine) > FIRST:
            edge = np.partition(key, FIRST)[FIRST]
            below, equal = np.flatnonzero(key < edge), np.flatnonzero(key == edge)
            some = np.concatenate([below, equal[: FIRST - len(below)]])
            mine, key = mine[some], key[some]
        return mine[np.argsort(key, kind="stable")]

    def _enough(self, mine: Rows) -> Rows:
        """The first until what all pools want fits, under limits that they share among themselves."""
        table, rows = self.table, self.sifted.rows
        kept: list[int] = []
        got = 0
        accounts = self.resources.limits()
        for start in range(0, len(mine), CHUNK):
            part = mine[start : start + CHUNK]
            here = rows[part]
            caps = self.resources.caps[here].tolist()
            if not accounts:
                before = got + np.cumsum(np.array([0, *caps[:-1]], dtype=np.int64))
                kept.extend(part[before < self.total].tolist())
                got += sum(caps)
            else:
                columns = zip(
                    part.tolist(),
                    caps,
                    table.account.codes[here].tolist(),
                    strict=True,
                )
                for n, cap, account in columns:
                    most = min(cap, accounts.get(account, cap))
                    if account in accounts:
                        accounts[account] -= most
                    if most > 0:
                        kept.append(n)
                        got += most
                        if got >= self.total:
                            break
            if got >= self.total:
                break
        return np.array(kept, dtype=np.intp)

    def _domain(self, mine: Rows) -> NDArray[np.int32]:
        column = self.table.place if self.group == "Zone" else self.table.account
        return column.codes[self.sifted.rows[mine]]

    def _in_domains(self, kinds: list[Rows]) -> list[Rows]:
        """The same in the domains that can matter: the best, those with pins, and only those with room for all."""
        pool, table = self.sifted.pool, self.table
        column = table.place if self.group == "Zone" else table.account
        size = len(column.values)
        if size <= SPARE:
            return kinds
        least, key = np.full(size, np.inf), np.full(size, np.inf)
        room = np.zeros(size)
        for mine in kinds:
            domain, rows = self._domain(mine), self.sifted.rows[mine]
            units = self.sifted.units[mine]
            np.minimum.at(least, domain, self.sifted.costs(table, self.currency, mine) / units)
            if self.keys is not None:
                np.minimum.at(key, domain, self.keys[mine])
            if pool.colocate != "None":
                caps = np.minimum(self.resources.caps[rows], 10**6)
                room += np.bincount(domain, weights=caps * units, minlength=size)
        need = wanted(pool)[0]
        if pool.colocate != "None" and (room >= need).any():
            key[room < need] = least[room < need] = np.inf
        best = np.lexsort((least, key)) if self.keys is not None else np.argsort(least, kind="stable")
        chosen = np.zeros(size, dtype=np.bool_)
        chosen[best[: SPARE if pool.colocate != "None" else need + SPARE]] = True
        for pin in pool.pinned:
            offer = pin.offer
            name = f"{offer.account}/{offer.region}/{offer.zone}" if self.group == "Zone" else offer.account
            if (code := column.code(name)) >= 0:
                chosen[code] = True
        return [mine[chosen[self._domain(mine)]] for mine in kinds]

    def _by_domain(self, mine: Rows) -> Rows:
        """The first of each domain until enough fits for the pool, or for what an even spread could put there."""
        if not len(mine):
            return mine
        pool = self.sifted.pool
        domain = self._domain(mine)
        if self.keys is not None and not self.flat:
            order = np.lexsort((self.keys[mine], domain))
        else:
            # Few domains are sorted by radix.
            order = np.argsort(domain.astype(np.int16) if int(domain.max()) < 2**15 else domain, kind="stable")
        ordered, domain = mine[order], domain[order]
        starts = np.flatnonzero(np.r_[True, domain[1:] != domain[:-1]])
        # Other pools may take some of it, as a rule not most.
        need = wanted(pool)[0]
        if pool.spread != "None" and pool.colocate == "None":
            need = -(-need // len(starts))
        most = min(self.total, 2 * need + 8)
        caps = self.resources.caps[self.sifted.rows[ordered]]
        before = np.cumsum(caps) - caps
        lengths = np.diff(np.r_[starts, len(ordered)])
        return ordered[before - np.repeat(before[starts], lengths) < most]
