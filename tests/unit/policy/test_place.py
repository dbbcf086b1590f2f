"""Placement as a whole: bases, spread, colocation, networks, limits, pins, and what is said when it doesn't fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.policy.offers import ask, chosen, fallen, offer, pool, price, solve, types

from cloudmesh.policy.exact import polish
from cloudmesh.policy.model import Alternative, Block, FilterRule, Needs, Offer, Pin, Policy, PoolRequest
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import SPOT_TYPES, place

SPOT = offer(type_="spot", hourly=0.03, purchase="Spot", free=3)
STEADY = offer(type_="steady", hourly=0.1)


def test_a_base_on_demand_and_spot_above_it() -> None:
    placement = solve(ask(pool(5, base_on_demand=2, above_base="SpotWithFallback")), SPOT, STEADY)
    assert types(placement) == {"steady": 2, "spot": 3}
    assert any("on demand, of the base" in d.why for d in placement.decisions)


def test_spot_falls_back_machine_by_machine_only_where_it_may() -> None:
    placement = solve(ask(pool(5, above_base="SpotWithFallback")), SPOT, STEADY)
    assert types(placement) == {"spot": 3, "steady": 2}
    assert any("on demand instead of spot" in d.why for d in placement.decisions)
    placement = solve(ask(pool(5, above_base="Spot")), SPOT, STEADY)
    assert types(placement) == {"spot": 3}
    assert placement.missing == {"workers": 2}
    assert placement.reason == "CapacityUnavailable"


def test_spot_machines_that_were_taken_are_replaced_by_spot_only_with_many_types() -> None:
    steady = offer("a", "steady", 0.5)
    many = [offer("a", f"spot{n}", 0.01, purchase="Spot", zone=z) for n in range(SPOT_TYPES) for z in ("z1", "z2")]
    # what the pool doesn't accept counts for nothing
    large = [offer("a", f"large{n}", 0.02, purchase="Spot", milli_vcpu=64_000) for n in range(SPOT_TYPES)]

    def got(offers: list[Offer], **more: Any) -> set[str]:
        mine = pool(needs=Needs(vcpu=(1000, 8000)), **{"above_base": "SpotWithFallback", "spot_taken": True, **more})
        return {d.offer.purchase for d in solve(ask(mine), steady, *offers).decisions}

    assert got([*many, *large]) == {"Spot"}
    assert got([*many[2:], *large]) == {"OnDemand"}
    assert got([*many[2:], *large], spot_taken=False) == {"Spot"}
    assert got(many[2:], above_base="Spot") == {"Spot"}


def test_pinned_machines_count_cost_and_stay() -> None:
    pins = (Pin(STEADY, "any", 1, 2), Pin(SPOT, "any", 1, 1))
    placement = solve(ask(pool(4, base_on_demand=3, above_base="SpotWithFallback", pinned=pins)), SPOT, STEADY)
    assert types(placement) == {"steady": 1}
    assert placement.hourly_nanos == 330_000_000
    assert not solve(ask(pool(3, pinned=pins)), SPOT, STEADY).decisions


def test_spread_counts_what_is_pinned_and_is_as_even_as_there_is_room() -> None:
    zones = [offer(zone=f"z{n}", hourly=0.1 * n, free=free) for n, free in ((1, None), (2, None), (3, 1))]
    assert chosen(solve(ask(pool(7, spread="Zone")), *zones)) == {
        "a/m/r1/z1/OnDemand": 3, "a/m/r1/z2/OnDemand": 3, "a/m/r1/z3/OnDemand": 1}  # fmt: skip
    pinned = (Pin(zones[0], "any", 1, 3),)
    assert chosen(solve(ask(pool(7, spread="Zone", pinned=pinned)), *zones)) == {
        "a/m/r1/z2/OnDemand": 3, "a/m/r1/z3/OnDemand": 1}  # fmt: skip
    by_account = ask(pool(4, spread="Account"))
    assert chosen(solve(by_account, offer("a"), offer("a", zone="z2", hourly=0.01), offer("b", hourly=0.9))) == {
        "a/m/r1/z2/OnDemand": 2, "b/m/r1/z1/OnDemand": 2}  # fmt: skip


def test_colocation_takes_the_cheapest_place_with_room_for_all() -> None:
    offers = offer(hourly=0.1, free=2), offer(type_="n", hourly=0.2, zone="z2"), offer("b", hourly=0.15, free=3)
    assert chosen(solve(ask(pool(3, colocate="Zone")), *offers)) == {"b/m/r1/z1/OnDemand": 3}
    pinned = (Pin(offers[1], "any"),)
    assert chosen(solve(ask(pool(3, colocate="Zone", pinned=pinned)), *offers)) == {"a/n/r1/z2/OnDemand": 2}
    placement = solve(ask(pool(3, colocate="Zone")), offers[0], replace(offers[2], free=1))
    assert placement.missing
    assert "no single zone has room for all" in placement.message


def test_one_network_for_all_pools_the_cheapest_that_fits() -> None:
    offers = [
        offer("a", "cpu", 0.1, network="n1"), offer("a", "gpu", 2.0, network="n1", gpu_count=1),
        offer("b", "cpu", 0.2, network="n2"), offer("b", "gpu", 1.0, network="n2", gpu_count=1),
        offer("c", "cpu", 0.01, network="n3"), offer("c", "cpu", 0.001, zone="z9"),
    ]  # fmt: skip
    request = ask(pool(2), pool(1, "gpus", Needs(gpu_count=1)), same_network=True)
    placement = solve(request, *offers)
    assert {d.offer.network for d in placement.decisions} == {"n2"}
    assert fallen(replace(placement, rejected=placement.rejected[:2])) == {"Gpu": 2, "Network": 3}
    assert "network n2" in placement.decisions[0].why
    held = ask(replace(pool(2), pinned=(Pin(offers[0], "any"),)), same_network=True)
    assert {d.offer.network for d in solve(held, *offers).decisions} == {"n1"}


def test_pools_that_want_the_same_room_share_it_as_cheaply_as_can_be() -> None:
    shared = offer(type_="shared", hourly=0.1, free=1, milli_vcpu=8000)
    small, big = offer(type_="small", hourly=0.12), offer(type_="big", hourly=0.9, milli_vcpu=8000)
    request = ask(pool(1, "p1"), pool(1, "p2", Needs(vcpu=(8000, None))))
    placement = solve(request, shared, small, big)
    assert {d.pool: d.offer.type for d in placement.decisions} == {"p1": "small", "p2": "shared"}


def test_limits_of_accounts_hold_over_all_pools() -> None:
    request = ask(pool(3, "p1"), pool(3, "p2"), account_limits={"a": 4, "b": 1})
    placement = solve(request, offer("a"), offer("b", hourly=0.2), offer("c", hourly=0.5))
    assert chosen(placement) == {"a/m/r1/z1/OnDemand": 4, "b/m/r1/z1/OnDemand": 1, "c/m/r1/z1/OnDemand": 1}


def test_alternatives_that_count_more_get_by_with_a_limit_of_machines() -> None:
    both = PoolRequest("p", 8, (Alternative("s", Needs(type="s")), Alternative("b", Needs(type="b"), 4)))
    request = ask(both, account_limits={"a": 2})
    assert types(solve(request, offer(type_="s", hourly=0.01), offer(type_="b", hourly=0.5))) == {"b": 2}


def test_unknown_prices_come_last_and_are_never_free() -> None:
    unknown, dear = offer("a", hourly=None), offer("b", hourly=9.0)
    assert chosen(solve(ask(pool()), unknown, dear)) == {dear.id: 1}
    placement = solve(ask(pool()), unknown)
    assert chosen(placement) == {unknown.id: 1}
    assert placement.hourly_nanos is None
    assert "no known price" in placement.decisions[0].why
    placement = solve(ask(pool(), max_hourly_nanos=10**12), unknown)
    assert not placement.decisions
    assert placement.reason == "NoFeasibleOffer"
    assert "1 has no known price, such as" in placement.message


def test_a_price_in_another_currency_is_not_compared() -> None:
    foreign = replace(offer("a"), price=price(0.01, "EUR"))
    assert chosen(solve(ask(pool()), foreign, offer("b", hourly=9.0))) == {"b/m/r1/z1/OnDemand": 1}
    placement = solve(ask(pool()), foreign)
    assert placement.hourly_nanos is None
    assert "0.01 EUR/h" in placement.decisions[0].why


def test_a_limit_on_the_cost_takes_what_fits_and_tells_both_amounts() -> None:
    request = ask(pool(4), pool(1, "other"), max_hourly_nanos=350_000_000)
    placement = solve(request, offer(hourly=0.1))
    assert sum(placement.missing.values()) == 2
    assert placement.reason == "OverMaxHourlyCost"
    assert "costs 0.50 USD/h, the limit is 0.35 USD/h" in placement.message
    assert placement.hourly_nanos == 300_000_000


def test_what_is_pinned_counts_against_the_limit() -> None:
    pinned = (Pin(offer(hourly=0.3), "any"),)
    request = ask(pool(2, pinned=pinned), max_hourly_nanos=350_000_000)
    assert solve(request, offer(hourly=0.1)).missing == {"workers": 1}
    unknown = (Pin(offer(hourly=None), "any"),)
    placement = solve(ask(pool(2, pinned=unknown), max_hourly_nanos=10**12), offer(hourly=0.1))
    assert placement.missing == {"workers": 1}
    assert placement.hourly_nanos is None
    assert "isn't known" in placement.message


@pytest.mark.parametrize(
    ("request_", "offers", "reason", "says"),
    [
        (ask(pool(needs=Needs(vcpu=(64000, None)))), [offer(), offer("b")], "NoFeasibleOffer",
         "pool workers: 1 of 1 can't be placed; none of 2 offers fits: 2 at Vcpu, such as a/m/r1/z1/OnDemand"),
        (ask(pool()), [], "NoFeasibleOffer", "none of 0 offers fits"),
        (ask(pool(2)), [offer(free=1)], "CapacityUnavailable", "free capacity leaves no room"),
        (ask(pool()), [offer(free=0)], "CapacityUnavailable", "1 has no room left"),
        (ask(pool(2), account_limits={"a": 1}), [offer()], "QuotaExceeded", "quotas and limits"),
        (ask(pool(), blocks=(Block("a/r1/std", "QuotaExceeded", "2027-01-01T00:00:00Z"),)), [offer(quota="std")],
         "QuotaExceeded", "1 is blocked after a failure, such as a/m/"),
        (ask(pool(), blocks=(Block("a/m/z1/OnDemand", "CapacityUnavailable", "2027-01-01T00:00:00Z"),)), [offer()],
         "CapacityUnavailable", "1 is blocked after a failure, such as a/m/"),
        (ask(pool(2, base_on_demand=1, above_base="Spot")), [SPOT], "NoFeasibleOffer", "none on demand"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_explained(request_, offers, reason, says) -> None:
    placement = solve(request_, *offers)
    assert placement.missing
    assert placement.reason == reason
    assert says in placement.message


def test_a_policy_that_costs_money_tells_what_the_cheapest_would_cost() -> None:
    request = ask(pool(), policy=Policy(filters=(FilterRule("NotType", {"in": "cheap"}),)))
    placement = solve(request, offer(type_="cheap", hourly=0.1), offer(type_="dear", hourly=0.4))
    assert types(placement) == {"dear": 1}
    assert (placement.cheapest_nanos, placement.cheapest) == (100_000_000, "1 x a/cheap/r1/z1/OnDemand")


def test_polish_needs_no_more_than_the_optimum_and_leaves_other_modes_alone() -> None:
    table = OfferTable.from_offers([offer(type_="s", hourly=0.1), offer(type_="b", hourly=0.3)])
    request = ask(PoolRequest("p", 5, (Alternative("s", Needs(type="s")), Alternative("b", Needs(type="b"), 4))))
    best = place(request, table)
    assert polish(request, table, best) == best
    dear = replace(best, decisions=(replace(best.decisions[0], count=5),), hourly_nanos=500_000_000)
    assert polish(request, table, dear) == best
    other = replace(request, policy=Policy("Fastest"))
    assert polish(other, table, dear) is dear


def test_a_pool_that_wants_nothing_gets_nothing() -> None:
    placement = solve(ask(pool(0)), offer())
    assert not placement.decisions
    assert not placement.missing
    assert placement.hourly_nanos == 0
