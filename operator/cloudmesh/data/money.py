"""What files cost: storage by the month, requests and egress by use; None where nobody knows. Pure.

Whole nano-units of a currency, rounded up.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from cloudmesh.data.config import Prices, StoreConfig
from cloudmesh.policy.amounts import to_text

GIB = 1 << 30
THOUSAND = 1000
ORDER = ("unknown", "static", "declared")
"""Confidences, the least sure first."""


def _up(amount: int, unit: int) -> int:
    return -(-amount // unit)


def monthly_nanos(prices: Prices, size: int) -> int | None:
    """What keeping so many bytes costs a month, None if nobody knows."""
    return None if prices.gib_month is None else _up(prices.gib_month * size, GIB)


def write_nanos(prices: Prices, count: int) -> int | None:
    """What so many requests cost that write."""
    return None if prices.thousand_writes is None else _up(prices.thousand_writes * count, THOUSAND)


def read_nanos(prices: Prices, count: int) -> int | None:
    """What so many requests cost that read, without what they read."""
    return None if prices.thousand_reads is None else _up(prices.thousand_reads * count, THOUSAND)


def egress_nanos(prices: Prices, size: int) -> int | None:
    """What so many bytes cost that are read and leave the store's place."""
    return None if prices.gib_egress is None else _up(prices.gib_egress * size, GIB)


def month_of_use(prices: Prices, size: int) -> int | None:
    """What a file costs in a month in which it is written once and read once."""
    parts = (
        monthly_nanos(prices, size), write_nanos(prices, 1), read_nanos(prices, 1), egress_nanos(prices, size),
    )  # fmt: skip
    return None if None in parts else sum(part or 0 for part in parts)


def in_currency(prices: Prices, currency: str) -> Prices:
    """The prices, if they can be added to others of a currency; else as if nobody knew them."""
    return prices if prices.currency == currency or prices.gib_month is None else Prices(currency=currency)


def common_currency(prices: Iterable[Prices], asked: str = "") -> str:
    """In which currency costs are told: the one asked for, else the first that a known price is in, else USD."""
    return asked or next((p.currency for p in prices if p.gib_month is not None), "USD")


def confidence(stores: Iterable[StoreConfig], held: Mapping[str, tuple[int, int]]) -> str:
    """How sure the cost of what lies in stores is: that of the least sure price that counts in it.

    Args:
        stores: The directory's.
        held: By store, files and bytes.
    """
    used = [s.prices.confidence for s in stores if held.get(s.name, (0, 0))[1]]
    return min(used or [s.prices.confidence for s in stores], key=ORDER.index, default="unknown")


def say(nanos: int, currency: str) -> str:
    """An amount for people, such as `0.0464 USD`."""
    return f"{to_text(nanos)} {currency}"
