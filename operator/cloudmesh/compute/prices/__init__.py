"""What machines cost: sheets of one's own, what a cloud tells, and a packaged catalogue; unknown is never free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudmesh.compute.prices.catalogue import Catalogue
from cloudmesh.compute.prices.sheets import Item, items_for, next_change
from cloudmesh.policy.model import Offer, Price

__all__ = ["Catalogue", "next_change", "price_offers"]


def price_offers(
    offers: Iterable[Offer],
    *,
    account: str,
    kind: str,
    sheets: Sequence[Mapping[str, Any]],
    catalogue: Catalogue,
    now: str,
) -> list[Offer]:
    """The offers with the best known price: a sheet's, else the provider's own, else the catalogue's, else none.

    Args:
        offers: As the provider tells them.
        account: Name of the CloudAccount.
        kind: Its kind, such as `kubernetes`.
        sheets: PriceSheets as the API server has them, the most important first; the first item that fits and tells
            a machine's price counts, and for disks the first that tells theirs, if it is in the same currency.
        catalogue: The packaged prices.
        now: RFC 3339 time.
    """
    items = items_for(account, sheets, now)
    declared: dict[tuple[str, str, str, str], tuple[Price | None, Item | None]] = {}
    priced = []
    for offer in offers:
        place = (offer.type, offer.region, offer.zone, offer.purchase)
        if items and place not in declared:
            declared[place] = _declared(items, offer)
        sheet, storage = declared.get(place, (None, None))
        price = sheet or _own(offer.price) or catalogue.find(kind, offer.type, offer.region, offer.purchase)
        if storage is not None and price is not None and price.currency == storage.currency:
            price = replace(price, gib_month=storage.gib_month)
        priced.append(offer if price == offer.price else replace(offer, price=price))
    return priced


def _declared(items: Sequence[Item], offer: Offer) -> tuple[Price | None, Item | None]:
    """The machine's price, and the item that tells what its disk costs."""
    fits = [item for item in items if item.holds_for(offer)]
    price = next((item.price for item in fits if item.price is not None), None)
    return price, next((item for item in fits if item.gib_month is not None), None)


def _own(price: Price | None) -> Price | None:
    """A provider's own price, if it can be one: only what somebody declared may be nothing."""
    if price is None or price.confidence == "unknown" or price.nanos < 0:
        return None
    return price if price.nanos or price.confidence == "declared" else None
