"""Which offers are shown, and in which order; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.prices.sheets import matches
from cloudmesh.policy.model import Offer

SORTS = ("price", "vcpu", "memory", "type", "account")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which offers.

    Args:
        type: Pattern of the machine type, empty for any; as those that follow.
        region: Pattern of the region.
        zone: Pattern of the zone.
        purchase: `OnDemand` or `Spot`.
        arch: `amd64` or `arm64`.
        gpu: Pattern of the GPU's model, compared without case.
        min_milli_vcpu: Least vCPUs, in thousandths.
        min_memory_mib: Least memory.
        max_hourly: Most that an hour may cost; unknown prices are out then.
        priced: Only offers whose price is known.
        sort: One of SORTS; unknown prices come last.
        limit: So many at most, None for all.
    """

    type: str = ""
    region: str = ""
    zone: str = ""
    purchase: str = ""
    arch: str = ""
    gpu: str = ""
    min_milli_vcpu: int = 0
    min_memory_mib: int = 0
    max_hourly: int | None = None
    priced: bool = False
    sort: str = "price"
    limit: int | None = None


def choose(offers: Iterable[Offer], wanted: Wanted) -> list[Offer]:
    """The offers that are wanted, in order."""
    found = sorted((offer for offer in offers if _fits(offer, wanted)), key=lambda offer: _order(offer, wanted.sort))
    return found[: wanted.limit]


def _fits(offer: Offer, wanted: Wanted) -> bool:
    price = offer.price
    return (
        matches(wanted.type, offer.type)
        and matches(wanted.region, offer.region)
        and matches(wanted.zone, offer.zone)
        and wanted.purchase in ("", offer.purchase)
        and wanted.arch in ("", offer.arch)
        and (not wanted.gpu or (offer.gpu_count > 0 and matches(wanted.gpu.lower(), offer.gpu_model.lower())))
        and offer.milli_vcpu >= wanted.min_milli_vcpu
        and offer.memory_mib >= wanted.min_memory_mib
        and (price is not None or not (wanted.priced or wanted.max_hourly is not None))
        and (wanted.max_hourly is None or (price is not None and price.nanos <= wanted.max_hourly))
    )


def _order(offer: Offer, sort: str) -> tuple[Any, ...]:
    price = (offer.price is None, offer.price.nanos if offer.price is not None else 0)
    first: dict[str, tuple[Any, ...]] = {
        "price": price,
        "vcpu": (offer.milli_vcpu, offer.memory_mib, *price),
        "memory": (offer.memory_mib, offer.milli_vcpu, *price),
        "type": (offer.type,),
        "account": (offer.account,),
    }
    return (*first[sort], offer.account, offer.type, offer.region, offer.zone, offer.purchase)
