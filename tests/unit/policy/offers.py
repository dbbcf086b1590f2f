"""Offers and requests for the tests of the scheduler."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudmesh.policy.model import NANO, Alternative, Needs, Offer, Placement, PoolRequest, Price, Request
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import place


def price(hourly: float, currency: str = "USD", confidence: Any = "fetched") -> Price:
    """A price of so much an hour."""
    return Price(round(hourly * NANO), currency, "list", "2026-01-01T00:00:00Z", confidence)


def offer(account: str = "a", type_: str = "m", hourly: float | None = 0.1, **more: Any) -> Offer:
    """An offer of 4 virtual CPUs and 16 GiB."""
    known = {"milli_vcpu": 4000, "memory_mib": 16384, "region": "r1", "zone": "z1"}
    return Offer(account, type_, price=None if hourly is None else price(hourly), **{**known, **more})


def pool(replicas: int = 1, name: str = "workers", needs: Needs | None = None, **more: Any) -> PoolRequest:
    """A pool with one alternative."""
    return PoolRequest(name, replicas, (Alternative("any", needs or Needs()),), **more)


def ask(*pools: PoolRequest, accounts: tuple[str, ...] = ("a", "b", "c"), **more: Any) -> Request:
    """A request."""
    return Request(pools, accounts, **more)


def solve(request: Request, *offers: Offer, **more: Any) -> Placement:
    """The placement among some offers."""
    return place(request, OfferTable.from_offers(offers), **more)


def chosen(placement: Placement) -> dict[str, int]:
    """Machines by id of the offer."""
    found: dict[str, int] = {}
    for decision in placement.decisions:
        found[decision.offer.id] = found.get(decision.offer.id, 0) + decision.count
    return found


def types(placement: Placement) -> dict[str, int]:
    """Machines by type."""
    found: dict[str, int] = {}
    for decision in placement.decisions:
        found[decision.offer.type] = found.get(decision.offer.type, 0) + decision.count
    return found


def fallen(placement: Placement) -> dict[str, int]:
    """Offers by the filter at which they fell."""
    return {rejection.filter: rejection.count for rejection in placement.rejected}


def but(request: Request, **changes: Any) -> Request:
    """The request with other fields."""
    return replace(request, **changes)
