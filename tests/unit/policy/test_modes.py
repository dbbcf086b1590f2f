"""Each mode chooses what its name says, and says why."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from tests.unit.policy.offers import ask, chosen, offer, pool, solve, types

from cloudmesh.api.placementpolicy import PlacementPolicySpec
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Alternative, Mode, Needs, Placement, Policy, PoolRequest, Request, Score, say_id
from cloudmesh.policy.modes import MODES
from cloudmesh.policy.offers import OfferTable
from cloudmesh.policy.place import place
from cloudmesh.policy.scores import Columns
from cloudmesh.policy.words import _lacks, in_words


def by(policy: Policy, replicas: int = 1, **more: object) -> Request:
    return ask(pool(replicas), policy=policy, **more)


def accounts(placement: Placement) -> dict[str, int]:
    found: dict[str, int] = {}
    for decision in placement.decisions:
        found[decision.offer.account] = found.get(decision.offer.account, 0) + decision.count
    return found


def test_every_mode_can_be_asked_for_ranks_and_has_words() -> None:
    told = set(get_args(Mode))
    assert set(MODES) == told == set(get_args(PlacementPolicySpec.model_fields["mode"].annotation))
    for mode in MODES:
        policy = Policy(mode, plugin="p", scores=(Score("Price"),), data_location=("r1",))
        found = solve(ask(pool(), policy=policy), offer(), offer("b"), plugin=lambda columns: columns["nanos"])
        assert not found.missing
        assert found.decisions[0].why.startswith(MODES[mode].words)


def test_cheapest_takes_the_least_cost_and_says_of_how_many() -> None:
    placement = solve(ask(pool(2)), offer(hourly=0.3), offer("b", "n", 0.0464, free=1), offer("c", "o", 0.1))
    assert types(placement) == {"n": 1, "o": 1}
    assert [d.why for d in placement.decisions] == ["cheapest of 3: 0.0464 USD/h", "cheapest but 1 of 3: 0.10 USD/h"]
    assert placement.hourly_nanos == 146_400_000
    assert placement.cheapest_nanos is None


def test_cheapest_counts_units_not_machines() -> None:
    two = PoolRequest("p", 5, (Alternative("s", Needs(type="s")), Alternative("b", Needs(type="b"), 4)))
    placement = solve(ask(two), offer(type_="s", hourly=0.1), offer(type_="b", hourly=0.3))
    assert types(placement) == {"s": 1, "b": 1}
    assert {d.alternative: d.counts_as for d in placement.decisions} == {"s": 1, "b": 4}
    one = PoolRequest("p", 3, two.alternatives)
    assert types(solve(ask(one), offer(type_="s", hourly=0.1), offer(type_="b", hourly=0.25))) == {"b": 1}


def test_ties_are_broken_by_the_id() -> None:
    placement = solve(ask(pool()), offer("b"), offer("a"), offer("c"))
    assert chosen(placement) == {"a/m/r1/z1/OnDemand": 1}


def test_fastest_takes_the_shortest_known_time() -> None:
    placement = solve(
        by(Policy("Fastest"), 2),
        offer(type_="slow", hourly=0.1, start_seconds=90),
        offer(type_="fast", hourly=0.9, start_seconds=20, free=1),
        offer(type_="new", hourly=0.01),
    )
    assert types(placement) == {"fast": 1, "slow": 1}
    assert "fastest of 3, ready in 20 s: 0.90 USD/h" in {d.why for d in placement.decisions}


def test_a_dearer_mode_tells_what_the_cheapest_would_cost() -> None:
    placement = solve(by(Policy("Fastest")), offer(type_="fast", hourly=0.9, start_seconds=20), offer(hourly=0.1))
    assert placement.hourly_nanos == 900_000_000
    assert placement.cheapest_nanos == 100_000_000
    assert placement.cheapest == "1 x a/m/r1/z1/OnDemand"


def test_sequential_takes_the_first_account_until_it_is_full() -> None:
    request = ask(pool(3), accounts=("c", "a", "b"), policy=Policy("Sequential"), account_limits={"c": 2})
    assert accounts(solve(request, offer("a", hourly=0.1), offer("b", hourly=0.1), offer("c", hourly=0.9))) == {
        "c": 2,
        "a": 1,
    }


def test_random_depends_on_the_seed_alone() -> None:
    offers = [offer("a", f"t{n}", 0.1 + n) for n in range(20)]
    found = [chosen(solve(by(Policy("Random", seed=seed)), *offers)) for seed in range(20)]
    assert found == [chosen(solve(by(Policy("Random", seed=seed)), *reversed(offers))) for seed in range(20)]
    assert len({next(iter(f)) for f in found}) > 5


def test_smart_takes_the_account_with_the_most_room_at_that_moment() -> None:
    offers = offer("a", free=5), offer("b", hourly=0.9, free=7), offer("c", free=1)
    placement = solve(by(Policy("Smart"), 6), *offers)
    assert accounts(placement) == {"b": 4, "a": 2}
    assert "account with the most free capacity" in placement.decisions[0].why


def test_smart_counts_the_limit_of_an_account() -> None:
    request = by(Policy("Smart"), 1, account_limits={"b": 2})
    assert accounts(solve(request, offer("a", free=5), offer("b", hourly=0.01, free=70))) == {"a": 1}


def test_frugal_takes_the_account_with_the_least_room_that_still_fits() -> None:
    offers = offer("a", free=5), offer("b", hourly=0.9, free=2), offer("c", hourly=0.01)
    assert accounts(solve(by(Policy("Frugal"), 4), *offers)) == {"b": 2, "a": 2}


def test_spread_uses_accounts_evenly() -> None:
    offers = offer("a", hourly=0.1), offer("a", hourly=0.2, zone="z2"), offer("b", hourly=0.5), offer("c", free=1)
    assert accounts(solve(by(Policy("Spread"), 5), *offers)) == {"a": 2, "b": 2, "c": 1}


def test_data_near_takes_the_nearest_region_then_the_price() -> None:
    request = by(Policy("DataNear", data_location=("r2", "r1")))
    offers = offer(hourly=0.01), offer("b", hourly=0.5, region="r2"), offer("c", hourly=0.4, region="r2")
    assert accounts(solve(request, *offers)) == {"c": 1}
    assert accounts(solve(request, offer("a", region="r9", hourly=0.01), offer("b", hourly=0.5))) == {"b": 1}


@pytest.mark.parametrize(
    ("score", "account"),
    [("Price", "a"), ("Speed", "b"), ("DataNear", "c"), ("Confidence", "a"), ("Order", "b"), ("Free", "c")],
)
def test_each_score_of_mode_weighted(score: str, account: str) -> None:
    from dataclasses import replace

    from tests.unit.policy.offers import price

    offers = (
        replace(offer("a", start_seconds=90, free=5), price=price(0.1, confidence="declared")),
        offer("b", hourly=0.3, start_seconds=10, free=4),
        offer("c", hourly=0.2, region="near", free=9),
    )
    policy = Policy("Weighted", scores=(Score(score),), data_location=("near",))
    request = ask(pool(), accounts=("b", "c", "a"), policy=policy)
    assert accounts(solve(request, *offers)) == {account: 1}


def test_scores_on_demand_and_spread() -> None:
    policy = Policy("Weighted", scores=(Score("Spread"), Score("Price")))
    placement = solve(by(policy, 3), offer(hourly=0.1), offer("b", hourly=0.11), offer("c", hourly=0.5))
    assert accounts(placement) == {"a": 2, "b": 1}
    request = ask(
        pool(above_base="SpotWithFallback"), policy=Policy("Weighted", scores=(Score("OnDemand", 9), Score("Price")))
    )
    # Spot with fallback asks for spot first, whatever a score prefers.
    assert types(solve(request, offer(purchase="Spot", type_="spot"), offer(hourly=0.05))) == {"spot": 1}


def test_weights_decide_between_scores() -> None:
    offers = offer("a", hourly=0.1, start_seconds=100), offer("b", hourly=0.2, start_seconds=40)
    cheap = Policy("Weighted", scores=(Score("Price", 10), Score("Speed", 1)))
    fast = Policy("Weighted", scores=(Score("Price", 1), Score("Speed", 10)))
    assert accounts(solve(by(cheap), *offers)) == {"a": 1}
    assert accounts(solve(by(fast), *offers)) == {"b": 1}


@pytest.mark.parametrize(
    ("score", "says"),
    [
        (Score("Beauty"), "score 'Beauty' must be one of"),
        (Score("Price", 1, {"x": "1"}), "score Price has no parameter"),
    ],
)
def test_a_wrong_score_is_named(score: Score, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        solve(by(Policy("Weighted", scores=(score,))), offer())


def small_first(columns: Columns) -> np.ndarray:
    return -columns["milli_vcpu"]


def test_a_plugin_ranks_by_columns() -> None:
    offers = offer(type_="big", hourly=0.1, milli_vcpu=8000), offer(type_="small", hourly=0.9, milli_vcpu=2000)
    placement = solve(by(Policy("Plugin", plugin="small")), *offers, plugin=small_first)
    assert types(placement) == {"small": 1}


@pytest.mark.parametrize(
    ("plugin", "says"),
    [
        (None, "the plug-in 'p' isn't loaded"),
        (lambda columns: np.zeros(3), "must answer 2 scores"),
        (lambda columns: np.array([np.nan, 0.0]), "must answer finite scores"),
        (lambda columns: 1 / 0, "the plug-in 'p' failed: ZeroDivisionError"),
        (lambda columns: columns["nanos"].fill(0), "failed: ValueError"),
    ],
)
def test_a_plugin_that_answers_wrongly_is_named(plugin: object, says: str) -> None:
    table = OfferTable.from_offers([offer("a"), offer("b")])
    with pytest.raises(PolicyError) as error:
        place(by(Policy("Plugin", plugin="p")), table, plugin=plugin)  # type: ignore[arg-type]
    assert says in str(error.value)


def test_a_mode_stays_within_the_limit_as_far_as_it_can() -> None:
    offers = (
        offer(type_="fastest", hourly=0.9, start_seconds=10),
        offer(type_="fast", hourly=0.3, start_seconds=20),
        offer(type_="slow", hourly=0.1, start_seconds=90),
    )
    request = by(Policy("Fastest"), 2, max_hourly_nanos=600_000_000)
    assert types(solve(request, *offers)) == {"fast": 2}
    request = by(Policy("Fastest"), 2, max_hourly_nanos=250_000_000)
    assert types(solve(request, *offers)) == {"slow": 2}


@pytest.mark.parametrize(
    ("missing", "text"),
    [
        ([("a", 1)], "1 replica of pool a is missing"),
        ([("a", 2)], "2 replicas of pool a are missing"),
        ([("a", 1), ("b", 2)], "1 replica of pool a and 2 of pool b are missing"),
        ([("a", 1), ("b", 2), ("c", 3)], "1 replica of pool a, 2 of pool b and 3 of pool c are missing"),
    ],
)
def test_what_is_missing_in_words(missing: list[tuple[str, int]], text: str) -> None:
    assert _lacks(missing) == text


def test_an_offer_without_region_or_zone_has_no_blanks_in_words() -> None:
    assert say_id("pods/small///OnDemand") == "pods/small/OnDemand"
    assert (
        in_words([("pods/small///OnDemand", 2), ("aws/m5/eu//Spot", 1)])
        == "2 x pods/small/OnDemand, 1 x aws/m5/eu/Spot"
    )
