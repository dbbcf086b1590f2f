"""Offers as columns: what 90,000 of them cost to filter is a few comparisons of arrays, not a walk over objects."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from hashlib import blake2b
from operator import attrgetter
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from cloudmesh.policy.model import HOURS_A_MONTH, Offer

Ints = NDArray[np.int32]
Longs = NDArray[np.int64]
Mask = NDArray[np.bool_]
Rows = NDArray[np.intp]

UNPRICED = -1
UNKNOWN_COST = 10**15
"""What an unknown price counts as where it is allowed: more than any known one."""
UNLIMITED = 2**31 - 1
"""Value of column `free` where nobody knows how many fit."""
CONFIDENCE = ("unknown", "static", "fetched", "declared")
"""From the least to the most trusted; column `confidence` holds the index."""

_MAX = 2**31 - 2
_ODD = np.uint64(0x9E3779B97F4A7C15)
T = TypeVar("T", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Coded(Generic[T]):
    """A column of repeated values: small numbers, and what they stand for."""

    codes: Ints
    values: tuple[T, ...]

    @classmethod
    def of(cls, items: Sequence[T]) -> Coded[T]:
        """Codes in order of first appearance."""
        known = {item: number for number, item in enumerate(dict.fromkeys(items))}
        return cls(np.fromiter(map(known.__getitem__, items), dtype=np.int32, count=len(items)), tuple(known))

    def code(self, value: T) -> int:
        """The number of a value, -1 if no row has it."""
        try:
            return self.values.index(value)
        except ValueError:
            return -1

    def where(self, holds: Callable[[T], bool]) -> Mask:
        """Rows whose value satisfies a predicate, which is asked once a value."""
        good = [n for n, value in enumerate(self.values) if holds(value)]
        if len(good) == len(self.values):
            return np.ones(len(self.codes), dtype=np.bool_)
        if len(good) == 1:
            only: Mask = self.codes == good[0]
            return only
        table = np.zeros(len(self.values) + 1, dtype=np.bool_)
        table[good] = True
        some: Mask = table[self.codes]
        return some

    def take(self, rows: Rows) -> Coded[T]:
        """The same of some rows."""
        return Coded(self.codes[rows], self.values)

    @staticmethod
    def join(columns: Sequence[Coded[T]]) -> Coded[T]:
        """One column below the other."""
        known: dict[T, int] = {}
        parts = []
        for column in columns:
            table = np.array([known.setdefault(v, len(known)) for v in column.values] or [0], dtype=np.int32)
            parts.append(table[column.codes])
        return Coded(np.concatenate(parts), tuple(known))


@dataclass(frozen=True)
class OfferTable:
    """Offers of one or several accounts in columns, by price and then by id; those without a price come last.

    Args:
        offers: The offers, one a row.
        ids: Their ids.
        account: Names of accounts.
        type: Machine types.
        region: Regions.
        zone: Zones.
        arch: Architectures.
        gpu_model: Models of GPUs, in lower case.
        currency: Currencies, empty without a price.
        images: Sets of image aliases, None where all can be had.
        network: Networks.
        quota: `account/region/quota`, empty for none.
        place: `account/region/zone`: what machines lie in together.
        spot: Whether it can be taken away.
        milli_vcpu: Thousandths of virtual CPUs.
        memory_mib: MiB.
        gpu_count: GPUs.
        disk_gib: GiB, 0 if unknown or chosen freely.
        nanos: Price per hour in nano-units, `UNPRICED` if unknown.
        gib_month: Price of a GiB of a disk and month in nano-units, 0 if unknown.
        free: Machines that still fit, `UNLIMITED` if unknown.
        start_seconds: Observed time to Ready, -1 if never observed.
        confidence: Index into `CONFIDENCE`.
    """

    offers: tuple[Offer, ...]
    ids: tuple[str, ...]
    account: Coded[str]
    type: Coded[str]
    region: Coded[str]
    zone: Coded[str]
    arch: Coded[str]
    gpu_model: Coded[str]
    currency: Coded[str]
    images: Coded[frozenset[str] | None]
    network: Coded[str]
    quota: Coded[str]
    place: Coded[str]
    spot: Mask
    milli_vcpu: Ints
    memory_mib: Ints
    gpu_count: Ints
    disk_gib: Ints
    nanos: Longs
    gib_month: Longs
    free: Ints
    start_seconds: Ints
    confidence: Ints

    def __len__(self) -> int:
        return len(self.offers)

    def offer(self, row: int) -> Offer:
        """The offer of a row."""
        return self.offers[row]

    def row(self, offer: Offer) -> int:
        """The row of an offer that the table has."""
        nanos = known_nanos(offer)
        priced = int(np.count_nonzero(self.nanos != UNPRICED))
        if nanos == UNPRICED:
            return bisect_left(self.ids, offer.id, priced)
        prices = self.nanos[:priced]
        return bisect_left(
            self.ids, offer.id, *(int(np.searchsorted(prices, nanos, side)) for side in ("left", "right"))
        )

    @classmethod
    def from_offers(cls, offers: Iterable[Offer]) -> OfferTable:
        """Makes the columns; of two offers with one id the later one counts."""
        unique = {offer.id: offer for offer in offers}
        prices = {name: known_nanos(offer) for name, offer in unique.items()}
        ids = sorted(unique, key=lambda name: _order(prices[name], name))
        rows = tuple(unique[name] for name in ids)
        given: dict[str, list[Any]] = {f.name: list(map(attrgetter(f.name), rows)) for f in fields(Offer)}
        account, region, zone = (Coded.of(given[name]) for name in ("account", "region", "zone"))
        quota = _joined((account, region, Coded.of(given["quota"])))
        return cls(
            offers=rows,
            ids=tuple(ids),
            account=account,
            type=Coded.of(given["type"]),
            region=region,
            zone=zone,
            arch=Coded.of(given["arch"]),
            gpu_model=Coded.of([model.lower() for model in given["gpu_model"]]),
            currency=Coded.of([price.currency if price else "" for price in given["price"]]),
            images=Coded.of(given["images"]),
            network=Coded.of(given["network"]),
            quota=_named(quota, lambda parts: bool(parts[2])),
            place=_named(_joined((account, region, zone))),
            spot=np.array([purchase == "Spot" for purchase in given["purchase"]], dtype=np.bool_),
            milli_vcpu=_ints(given["milli_vcpu"]),
            memory_mib=_ints(given["memory_mib"]),
            gpu_count=_ints(given["gpu_count"]),
            disk_gib=_ints(given["disk_gib"]),
            nanos=np.fromiter(map(prices.__getitem__, ids), dtype=np.int64, count=len(ids)),
            gib_month=np.array([(price.gib_month or 0) if price else 0 for price in given["price"]], dtype=np.int64),
            free=_ints([UNLIMITED if free is None else max(0, min(free, _MAX)) for free in given["free"]]),
            start_seconds=_ints([-1 if start is None else start for start in given["start_seconds"]]),
            confidence=_ints([CONFIDENCE.index(price.confidence) if price else 0 for price in given["price"]]),
        )

    @classmethod
    def merge(cls, tables: Sequence[OfferTable]) -> OfferTable:
        """One table of several; of two offers with one id that of the later table counts."""
        full = [table for table in tables if len(table)]
        if len(full) <= 1:
            return full[0] if full else cls.from_offers(())
        ids = [name for table in full for name in table.ids]
        nanos = np.concatenate([table.nanos for table in full])
        last = {name: row for row, name in enumerate(ids)}
        # Each table is sorted already, so that the sort is a merge of runs.
        keys = [_order(price, name) for price, name in zip(nanos.tolist(), ids, strict=True)]
        order = np.array(sorted(last.values(), key=keys.__getitem__), dtype=np.intp)
        columns: dict[str, Any] = {}
        for name in (f.name for f in fields(cls) if f.name not in ("offers", "ids")):
            parts = [getattr(table, name) for table in full]
            coded = isinstance(parts[0], Coded)
            columns[name] = Coded.join(parts).take(order) if coded else np.concatenate(parts)[order]
        offers = [offer for table in full for offer in table.offers]
        places = order.tolist()
        return cls(offers=tuple(offers[n] for n in places), ids=tuple(ids[n] for n in places), **columns)

    @cached_property
    def kind_key(self) -> Longs:
        """One number for account, type, zone and purchase together."""
        key = self.account.codes.astype(np.int64) * len(self.type.values) + self.type.codes
        return (key * len(self.zone.values) + self.zone.codes) * 2 + self.spot

    @cached_property
    def by_kind(self) -> Rows:
        """Rows in order of `kind_key`."""
        return np.argsort(self.kind_key, kind="stable")

    @cached_property
    def sorted_kinds(self) -> Longs:
        """`kind_key` in order."""
        return self.kind_key[self.by_kind]

    def costs(self, currency: str) -> Longs:
        """Nano-units per hour of each row, `UNKNOWN_COST` where that isn't known or is in another currency."""
        column = self._costs.get(currency)
        if column is None:
            known = self.nanos != UNPRICED
            if any(name not in ("", currency) for name in self.currency.values):
                known &= self.currency.codes == self.currency.code(currency)
            column = self._costs[currency] = np.where(known, self.nanos, UNKNOWN_COST)
        return column

    @cached_property
    def _costs(self) -> dict[str, Longs]:
        return {}

    def disk_costs(self, rows: Rows, gib: Longs) -> Longs:
        """Nano-units per hour of a disk of so many GiB for each of these rows, 0 where nobody knows."""
        return -(-gib * self.gib_month[rows] // HOURS_A_MONTH)

    @cached_property
    def bills_disks(self) -> bool:
        """Whether some row's disks have a price."""
        return bool(self.gib_month.any())

    @cached_property
    def one_disk_price(self) -> bool:
        """Whether a GiB costs the same in all rows that have a price."""
        priced = self.gib_month[self.nanos != UNPRICED]
        return not len(priced) or bool((priced == priced[0]).all())

    @cached_property
    def one_currency(self) -> bool:
        """Whether all prices are in one currency, so that rows are in order of cost."""
        return sum(map(bool, self.currency.values)) <= 1

    @cached_property
    def mixed(self) -> NDArray[np.uint64]:
        """A number a row that depends on its id alone and looks random."""
        total = self.spot.astype(np.uint64)
        for column in (self.account, self.type, self.region, self.zone):
            digests = [blake2b(value.encode(), digest_size=8).digest() for value in column.values] or [bytes(8)]
            total = total * _ODD + np.frombuffer(b"".join(digests), dtype="<u8")[column.codes]
        return total


def known_nanos(offer: Offer) -> int:
    """The price of an offer, `UNPRICED` if nobody knows it: zero is believed only where somebody declared it."""
    price = offer.price
    if price is None or price.nanos < 0 or (price.nanos == 0 and price.confidence != "declared"):
        return UNPRICED
    return price.nanos


def _order(nanos: int, name: str) -> tuple[bool, int, str]:
    return nanos < 0, nanos, name


def _ints(values: Sequence[int]) -> Ints:
    return np.minimum(np.array(values, dtype=np.int64), UNLIMITED).astype(np.int32)


def _joined(columns: Sequence[Coded[str]]) -> Coded[tuple[str, ...]]:
    """Several columns as one of tuples."""
    key = np.zeros(len(columns[0].codes), dtype=np.int64)
    for column in columns:
        key = key * max(1, len(column.values)) + column.codes
    _, first, codes = np.unique(key, return_index=True, return_inverse=True)
    values = tuple(tuple(column.values[column.codes[row]] for column in columns) for row in first.tolist())
    return Coded(codes.astype(np.int32), values)


def _named(column: Coded[tuple[str, ...]], holds: Callable[[tuple[str, ...]], bool] = bool) -> Coded[str]:
    """The parts with slashes between, empty where a predicate says so."""
    names = Coded.of(["/".join(parts) if holds(parts) else "" for parts in column.values])
    return Coded(names.codes[column.codes], names.values)
