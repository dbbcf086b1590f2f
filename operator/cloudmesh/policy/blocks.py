"""Failure memory: which offers a failure is about, and which rows a block takes out."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import numpy as np

from cloudmesh.policy.model import Block, Offer
from cloudmesh.policy.offers import Mask, OfferTable, Rows

QUOTA = "QuotaExceeded"
_PURCHASES = ("OnDemand", "Spot")


def block_key(error: str, offer: Offer) -> str:
    """What a failure of this offer is remembered for.

    Args:
        error: Reason of the taxonomy: a quota holds for its part of the account, missing capacity for this kind in this
            zone, and anything else for the whole account.
        offer: The offer that failed.
    """
    if error == QUOTA:
        return f"{offer.account}/{offer.region}/{offer.quota}"
    if error in ("CapacityUnavailable", "InvalidRequest", "Unsupported"):
        return f"{offer.account}/{offer.type}/{offer.zone}/{offer.purchase}"
    return offer.account


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
    """Rows that a block takes out; none if its key names nothing that is there."""
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
