"""Keeps nonsense in a refreshed price list from being believed: what is doubtful keeps its last good price. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cloudmesh.compute.prices.money import to_text
from cloudmesh.policy.model import Offer, Price

JUMP = 10
"""A price that is so many times higher or lower than before is doubted."""
SHRINK_PERCENT = 20
"""A list that has lost so many of its prices came in parts."""
TOLD = 5


@dataclass(frozen=True, slots=True)
class Screened:
    """A list that can be used.

    Args:
        offers: All offers; those doubted have their last good price, or none.
        doubts: What was doubted and why, for people.
    """

    offers: tuple[Offer, ...]
    doubts: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """All doubts in a sentence for a condition, empty if there are none."""
        more = f"; and {len(self.doubts) - TOLD} more" if len(self.doubts) > TOLD else ""
        return "; ".join(self.doubts[:TOLD]) + more


def screen(good: Sequence[Offer], fresh: Iterable[Offer]) -> Screened:
    """Looks a refreshed list through. Declared prices are taken as they are.

    Args:
        good: The last list that was used; empty at first, and when the account was changed.
        fresh: The list as it was fetched.
    """
    offers = tuple(fresh)
    before = {offer.id: price for offer in good if (price := _fetched(offer)) is not None}
    now = sum(1 for offer in offers if (price := _fetched(offer)) is not None and price.nanos > 0)
    if before and now * 100 <= len(before) * (100 - SHRINK_PERCENT):
        return Screened(tuple(good), (f"the list shrank from {len(before)} prices to {now}: the last one is kept",))
    kept, doubts = [], []
    for offer in offers:
        price, old = _fetched(offer), before.get(offer.id)
        if price is None:
            kept.append(offer)
        elif price.nanos <= 0:
            doubts.append(f"{offer.id}: a price of {to_text(price.nanos)}")
            kept.append(replace(offer, price=old))
        elif old is not None and old.currency == price.currency and _jumps(old.nanos, price.nanos):
            doubts.append(f"{offer.id}: from {to_text(old.nanos)} to {to_text(price.nanos)} at once")
            kept.append(replace(offer, price=old))
        else:
            kept.append(offer)
    return Screened(tuple(kept), tuple(doubts))


def _fetched(offer: Offer) -> Price | None:
    return offer.price if offer.price is not None and offer.price.confidence != "declared" else None


def _jumps(old: int, new: int) -> bool:
    return new >= old * JUMP or old >= new * JUMP
