"""Prices that somebody declares: which item of which PriceSheet holds for an offer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudmesh.policy.amounts import to_nanos
from cloudmesh.policy.model import Offer, Price
from cloudmesh.policy.validity import is_valid, matches, next_change, prices_in

__all__ = ["Item", "is_valid", "items_for", "matches", "next_change", "prices_in"]


@dataclass(frozen=True, slots=True)
class Item:
    """One price of a sheet, ready to be matched.

    Args:
        type: Pattern of the machine type, empty for any.
        region: Pattern of the region, empty for any.
        zone: Pattern of the zone, empty for any.
        purchase: How it is paid, empty for both.
        price: What the machine costs, None if the item is about disks only.
        gib_month: Nano-units for a GiB of its disk and a month, None if the item doesn't tell.
        currency: Of both.
    """

    type: str
    region: str
    zone: str
    purchase: str
    price: Price | None
    gib_month: int | None
    currency: str

    def holds_for(self, offer: Offer) -> bool:
        """Whether it is the price of an offer."""
        return (
            matches(self.type, offer.type)
            and matches(self.region, offer.region)
            and matches(self.zone, offer.zone)
            and (not self.purchase or self.purchase == offer.purchase)
        )


def items_for(account: str, sheets: Sequence[Mapping[str, Any]], now: str) -> list[Item]:
    """The items that hold for an account now, in the order in which they are asked.

    Args:
        account: Name of the CloudAccount.
        sheets: PriceSheets as the API server has them, the most important first.
        now: RFC 3339 time.
    """
    found = []
    for sheet in sheets:
        spec, meta = sheet.get("spec") or {}, sheet["metadata"]
        for item in spec.get("items") or ():
            match = item.get("match") or {}
            if not matches(match.get("account", ""), account) or not is_valid(item, now):
                continue
            currency = spec.get("currency", "USD")
            price = (
                Price(
                    nanos=to_nanos(str(item["hourly"])),
                    currency=currency,
                    source=f"PriceSheet/{meta['name']}",
                    as_of=item.get("validFrom") or meta.get("creationTimestamp") or now,
                    confidence="declared",
                )
                if "hourly" in item
                else None
            )
            storage = item.get("storagePerGibMonth")
            found.append(
                Item(
                    type=match.get("type", ""),
                    region=match.get("region", ""),
                    zone=match.get("zone", ""),
                    purchase=match.get("purchase", ""),
                    price=price,
                    gib_month=to_nanos(str(storage)) if storage is not None else None,
                    currency=currency,
                )
            )
    return found
