"""Offers and requests from a seed, and what every placement must keep, written without the scheduler's own parts."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from cloudmesh.policy.model import (
    Alternative,
    Needs,
    Offer,
    Placement,
    PoolRequest,
    Price,
    Purchase,
    Request,
)

AS_OF = "2026-01-01T00:00:00Z"
TYPES = [(f"t{v}-{f}", v, v * f) for v in (1, 2, 4, 8, 16, 32) for f in (2, 4, 8)]


def price(nanos: int, currency: str = "USD") -> Price:
    """A fetched price."""
    return Price(nanos, currency, "list", AS_OF, "fetched")


def make_offers(chance: random.Random, count: int, accounts: int = 4, regions: int = 2, zones: int = 3) -> list[Offer]:
    """So many offers: sizes and prices like those of clouds, spot at a third, some with little room."""
    found: dict[str, Offer] = {}
    while len(found) < count:
        type_, vcpu, gib = chance.choice(TYPES)
        account, region, zone = chance.randrange(accounts), chance.randrange(regions), chance.randrange(zones)
        purchase: Purchase = chance.choice(["OnDemand", "OnDemand", "Spot"])
        hourly = (vcpu * 0.03 + gib * 0.004) * (0.35 if purchase == "Spot" else 1) * chance.uniform(0.7, 1.4)
        offer = Offer(
            account=f"a{account}",
            type=type_,
            region=f"r{region}",
            zone=f"z{zone}",
            purchase=purchase,
            milli_vcpu=vcpu * 1000,
            memory_mib=gib * 1024,
            price=price(round(hourly * 1000) * 10**6),
            free=chance.choice([None, 1, 2, 3, 5, 10]),
            quota=chance.choice(["", "standard"]),
            start_seconds=chance.choice([None, 20, 40, 90]),
            network=f"n{account}-{region}",
        )
        found[offer.id] = offer
    return list(found.values())


def make_pool(chance: random.Random, name: str, most: int = 20) -> PoolRequest:
    """A pool with one or two alternatives, some of them spread or colocated, some with spot."""
    vcpu = chance.choice([1, 2, 4])
    gib = chance.choice([0, 2, 4, 8]) * vcpu
    alternatives = [Alternative("small", Needs(vcpu=(vcpu * 1000, None), memory_mib=(gib * 1024, None)))]
    if chance.random() < 0.5:
        alternatives.append(Alternative("big", Needs(vcpu=(vcpu * 4000, None)), chance.choice([2, 3, 4])))
    replicas = chance.randint(1, most)
    shape = chance.choice(["None"] * 9 + ["spread", "spread", "spread", "colocate"])
    over: Literal["Zone", "Account"] = chance.choice(["Zone", "Account"])
    return PoolRequest(
        name,
        replicas,
        tuple(alternatives),
        base_on_demand=chance.choice([0, 0, min(replicas, chance.randint(0, 4))]),
        above_base=chance.choice(["OnDemand", "Spot", "SpotWithFallback", "SpotWithFallback"]),
        spread=over if shape == "spread" else "None",
        colocate=over if shape == "colocate" else "None",
    )


def make_request(chance: random.Random, pools: int, accounts: int = 4, most: int = 20) -> Request:
    """A request with limits of some accounts."""
    names = tuple(f"a{n}" for n in range(accounts))
    return Request(
        tuple(make_pool(chance, f"p{n}", most) for n in range(pools)),
        names,
        account_limits={name: chance.randint(3, 25) for name in names if chance.random() < 0.3},
    )


def with_disks(chance: random.Random, offers: list[Offer], request: Request) -> tuple[list[Offer], Request]:
    """The same where some alternatives want disks, and most accounts know what these cost."""
    month = {f"a{n}": chance.choice([None, 40_000_000, 80_000_000, 300_000_000]) for n in range(4)}
    offers = [
        replace(o, price=replace(o.price, gib_month=month[o.account])) if o.price is not None else o for o in offers
    ]
    pools = []
    for pool in request.pools:
        sized = [
            replace(a, needs=replace(a.needs, disk_gib=chance.choice([0, 50, 200, 1000]))) for a in pool.alternatives
        ]
        pools.append(replace(pool, alternatives=tuple(sized)))
    return offers, replace(request, pools=tuple(pools))


def as_told(offer: Offer, gib: int) -> Offer:
    """An offer with a disk in its price."""
    if offer.price is None or not offer.price.gib_month or not gib:
        return offer
    disk = math.ceil(gib * offer.price.gib_month / 730)
    return replace(offer, price=replace(offer.price, nanos=offer.price.nanos + disk, disk=disk))


def suits(offer: Offer, pool: PoolRequest, needs: Needs) -> bool:
    """Whether an offer is what an alternative of a pool asks for."""
    low, high = needs.vcpu
    least, most = needs.memory_mib
    gpus = offer.gpu_count >= max(1, needs.gpu_count) and needs.gpu_model.lower() in ("", offer.gpu_model.lower())
    if not needs.gpu_model and needs.gpu_count == 0:
        gpus = offer.gpu_count == 0 or bool(needs.type)
    paid = {"OnDemand": ["OnDemand"], "Spot": ["Spot"], "SpotWithFallback": ["OnDemand", "Spot"]}[pool.above_base]
    if pool.base_on_demand:
        paid = [*paid, "OnDemand"]
    if pool.base_on_demand >= pool.replicas:
        paid = [kind for kind in paid if kind != "Spot"]
    return (
        needs.type in ("", offer.type)
        and (not needs.arch or offer.arch in needs.arch)
        and low <= offer.milli_vcpu <= (high or offer.milli_vcpu)
        and least <= offer.memory_mib <= (most or offer.memory_mib)
        and gpus
        and (offer.disk_gib == 0 or offer.disk_gib >= needs.disk_gib)
        and (not pool.image or offer.images is None or pool.image in offer.images)
        and (not pool.regions or offer.region in pool.regions)
        and (not pool.zones or offer.zone in pool.zones)
        and offer.purchase in paid
    )


def blocked(offer: Offer, request: Request) -> bool:
    """Whether the failure memory takes an offer out."""
    keys = {
        offer.account,
        f"{offer.account}/{offer.region}/{offer.quota}",
        f"{offer.account}/{offer.type}/{offer.zone}/{offer.purchase}",
    }
    return any(block.key in keys for block in request.blocks)


def usable(offer: Offer, pool: PoolRequest, request: Request) -> int:
    """What a machine of an offer counts as for a pool, 0 if it can't serve it at all."""
    limited = request.max_hourly_nanos is not None
    if (
        offer.account not in request.accounts
        or blocked(offer, request)
        or offer.free == 0
        or request.account_limits.get(offer.account, 1) <= 0
        or (request.same_network and not offer.network)
        or (limited and (offer.price is None or offer.price.currency != request.currency))
        or (limited and offer.price is not None and offer.price.nanos == 0 and offer.price.confidence != "declared")
    ):
        return 0
    return max((a.counts_as for a in pool.alternatives if suits(offer, pool, a.needs)), default=0)


def domain(offer: Offer, over: str) -> str:
    """Where an offer lies, for spread and colocation."""
    return offer.account if over == "Account" else f"{offer.account}/{offer.region}/{offer.zone}"


def check(request: Request, offers: Iterable[Offer], placement: Placement) -> None:
    """Asserts that a placement keeps every limit and says what it lacks."""
    offers = list(offers)
    known = {offer.id: offer for offer in offers}
    total = Counter[str]()
    for decision in placement.decisions:
        assert decision.count > 0
        pool = next(p for p in request.pools if p.name == decision.pool)
        needs = next(a.needs for a in pool.alternatives if a.name == decision.alternative)
        assert as_told(known[decision.offer.id], needs.disk_gib) == decision.offer
        assert decision.why
        total[decision.offer.id] += decision.count
    for name, count in total.items():
        free = known[name].free
        assert free is None or count <= free, f"{name}: {count} taken"
    _check_limits(request, known, total)
    for pool in request.pools:
        _check_pool(request, pool, offers, total, placement)
    if request.same_network:
        networks = {d.offer.network for d in placement.decisions}
        held = {pin.offer.network for pool in request.pools for pin in pool.pinned if pin.offer.network}
        assert len(networks) <= 1
        assert "" not in networks
        assert not held or networks <= held
    assert bool(placement.missing) == bool(placement.reason) == bool(placement.message)
    pins = [(pin.offer, pin.count) for pool in request.pools for pin in pool.pinned]
    chosen = [*pins, *((d.offer, d.count) for d in placement.decisions)]
    if all(o.price is not None and o.price.currency == request.currency for o, _ in chosen):
        hourly = sum(o.price.nanos * count for o, count in chosen if o.price is not None)
        assert placement.hourly_nanos == hourly
        if request.max_hourly_nanos is not None and placement.decisions:
            assert hourly <= request.max_hourly_nanos
    else:
        assert placement.hourly_nanos is None
        assert request.max_hourly_nanos is None or not placement.decisions


def _check_limits(request: Request, known: dict[str, Offer], total: Counter[str]) -> None:
    for account, limit in request.account_limits.items():
        assert sum(count for name, count in total.items() if known[name].account == account) <= limit


def _check_pool(
    request: Request, pool: PoolRequest, offers: list[Offer], total: Counter[str], placement: Placement
) -> None:
    mine = [d for d in placement.decisions if d.pool == pool.name]
    for decision in mine:
        assert decision.counts_as == usable(decision.offer, pool, request)
        alternative = next(a for a in pool.alternatives if a.name == decision.alternative)
        assert alternative.counts_as == decision.counts_as
        assert suits(decision.offer, pool, alternative.needs)
    held = sum(pin.count * pin.counts_as for pin in pool.pinned)
    made = sum(d.count * d.counts_as for d in mine)
    missing = placement.missing.get(pool.name, 0)
    need = max(0, pool.replicas - held)
    assert made + missing >= need
    assert 0 <= missing <= need
    steady = sum(pin.count * pin.counts_as for pin in pool.pinned if pin.offer.purchase == "OnDemand")
    made_steady = sum(d.count * d.counts_as for d in mine if d.offer.purchase == "OnDemand")
    base = min(need, max(0, min(pool.base_on_demand, pool.replicas) - steady))
    assert made_steady + missing >= base
    if pool.above_base == "Spot":
        assert all(made_steady - d.counts_as < base for d in mine if d.offer.purchase == "OnDemand")
    if pool.above_base == "OnDemand":
        assert all(d.offer.purchase == "OnDemand" for d in mine)
    if not missing and pool.spread == "None":
        assert all(made - d.counts_as < need for d in mine if d.offer.purchase == "Spot"), "a machine too many"
    if pool.colocate != "None":
        where = {domain(d.offer, pool.colocate) for d in mine}
        assert len(where) <= 1
        pinned = {domain(pin.offer, pool.colocate) for pin in pool.pinned if pin.count}
        assert not where or not pinned or where <= pinned
    if pool.spread != "None" and not placement.missing and pool.above_base == "OnDemand":
        networks = {d.offer.network for d in placement.decisions}
        near = [o for o in offers if o.network in networks] if request.same_network else offers
        _check_spread(request, pool, near, total, placement)
    fit = sum(1 for offer in offers if usable(offer, pool, request))
    fallen = sum(r.count for r in placement.rejected if r.pool == pool.name)
    if not request.policy.filters and not request.same_network:
        assert fallen == len(offers) - fit
    assert all(r.count > 0 and r.example for r in placement.rejected)
    names = [r.filter for r in placement.rejected if r.pool == pool.name]
    assert len(names) == len(set(names))


def _check_spread(
    request: Request, pool: PoolRequest, offers: list[Offer], total: Counter[str], placement: Placement
) -> None:
    """A domain with two machines less than another must be full."""
    here = Counter[str]({domain(o, pool.spread): 0 for o in offers if usable(o, pool, request)})
    new = Counter[str]()
    for pin in pool.pinned:
        here[domain(pin.offer, pool.spread)] += pin.count
    for decision in placement.decisions:
        if decision.pool == pool.name:
            new[domain(decision.offer, pool.spread)] += decision.count
    here.update(new)
    top = max((here[d] for d in new), default=0)
    for low, count in here.items():
        if count < top - 1:
            for offer in offers:
                if domain(offer, pool.spread) == low and usable(offer, pool, request):
                    assert not _fits(request, offers, offer, total), f"{offer.id} would make {pool.name} more even"


def _fits(request: Request, offers: list[Offer], offer: Offer, total: Counter[str]) -> bool:
    """Whether one machine more of an offer fits."""
    more = total + Counter([offer.id])
    try:
        _check_limits(request, {o.id: o for o in offers}, more)
    except AssertionError:
        return False
    return offer.free is None or more[offer.id] <= offer.free
