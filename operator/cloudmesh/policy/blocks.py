"""Failure memory: which offers a failure is about, and which rows a block takes out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np

from cloudmesh.policy.model import Block, Offer
from cloudmesh.policy.offers import Mask, OfferTable, Rows

QUOTA = "QuotaExceeded"
_PURCHASES = ("OnDemand", "Spot")


def offer_key(offer: Offer) -> str:
    """What a failure is remembered for that is about what an account makes in one place, such as missing capacity."""
    return f"{offer.account}/{offer.type}/{offer.zone}/{offer.purchase}"


def quota_key(offer: Offer) -> str:
    """What a failure is remembered for that is about the quota that an offer counts against."""
    return f"{offer.account}/{offer.region}/{offer.quota}"


def still_held(blocks: Iterable[Block], now: str) -> list[Block]:
    """Those that aren't over.

    Args:
        blocks: Blocks with RFC 3339 times.
        now: RFC 3339 time, or empty to keep all.
    """
    if not now:
        return list(blocks)
    moment = datetime.fromisoformat(now)
    return [block for block in blocks if datetime.fromisoformat(block.until) > moment]


def blocked_rows(table: OfferTable, block: Block) -> Rows:
    """Rows that a block takes out, by its `offer_key`, `quota_key` or account; none if that names nothing there is."""
    account, *rest = block.key.split("/")
    if not rest:
        return np.flatnonzero(table.account.codes == table.account.code(account))
    if len(rest) >= 3 and rest[-1] in _PURCHASES:
        # A type may have slashes of its own.
        return _of_kind(table, account, "/".join(rest[:-2]), rest[-2], rest[-1])
    region, quota = rest[0], "/".join(rest[1:])
    if quota:
        return np.flatnonzero(table.quota.codes == table.quota.code(f"{account}/{region}/{quota}"))
    where: Mask = table.account.codes == table.account.code(account)
    where &= table.region.codes == table.region.code(region)
    where &= table.quota.codes == table.quota.code("")
    return np.flatnonzero(where)


def _of_kind(table: OfferTable, account: str, type_: str, zone: str, purchase: str) -> Rows:
    codes = table.account.code(account), table.type.code(type_), table.zone.code(zone)
    if min(codes) < 0:
        return np.empty(0, dtype=np.intp)
    key = ((codes[0] * len(table.type.values) + codes[1]) * len(table.zone.values) + codes[2]) * 2
    key += purchase == "Spot"
    first, last = np.searchsorted(table.sorted_kinds, [key, key + 1])
    return table.by_kind[first:last]
