"""Refreshed price lists: what is nonsense isn't believed, and is told."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.compute.kinds import CLOUD_ACCOUNT
from cloudmesh.compute.prices.quarantine import screen
from cloudmesh.policy.model import NANO, Offer, Price


def offer(type_: str, nanos: int | None, confidence: Any = "fetched", currency: str = "USD") -> Offer:
    price = None if nanos is None else Price(nanos, currency, "list", "2026-11-23T00:00:00Z", confidence)
    return Offer("aws", type_, "us-east-1", price=price)


def prices(offers: tuple[Offer, ...]) -> dict[str, int | None]:
    return {o.type: None if o.price is None else o.price.nanos for o in offers}


def test_a_first_list_is_taken_but_for_what_cant_be_a_price() -> None:
    found = screen((), [offer("a", NANO), offer("b", 0), offer("c", -5), offer("d", None)])
    assert prices(found.offers) == {"a": NANO, "b": None, "c": None, "d": None}
    assert found.doubts == (
        "aws/b/us-east-1//OnDemand: a price of 0",
        "aws/c/us-east-1//OnDemand: a price of -0.000000005",
    )


def test_nothing_and_jumps_keep_the_last_good_price() -> None:
    good = [offer(name, NANO) for name in "abcdef"]
    fresh = [
        offer("a", 0),
        offer("b", 10 * NANO),
        offer("c", NANO // 10),
        offer("d", 10 * NANO - 1),
        offer("e", NANO // 10 + 1),
        offer("f", NANO),
        offer("new", 1000 * NANO),
    ]
    found = screen(good, fresh)
    assert prices(found.offers) == {
        "a": NANO, "b": NANO, "c": NANO, "d": 10 * NANO - 1, "e": NANO // 10 + 1, "f": NANO, "new": 1000 * NANO,
    }  # fmt: skip
    assert (
        len(found.doubts) == 3 and "from 1 to 10 at once" in found.message and "from 1 to 0.1 at once" in found.message
    )


def test_a_list_that_shrank_by_a_fifth_isnt_used() -> None:
    good = [offer(f"t{n}", NANO) for n in range(100)]
    assert len(screen(good, good[:81]).offers) == 81
    found = screen(good, good[:80])
    assert found.offers == tuple(good) and "from 100 prices to 80" in found.message
    # rows without a price are no prices
    assert screen(good, [*good[:50], *(offer(f"t{n}", None) for n in range(50, 100))]).offers == tuple(good)


def test_a_declared_price_may_be_anything() -> None:
    good = [offer("a", NANO, "declared"), offer("b", NANO, "declared")]
    assert screen(good, [offer("a", 0, "declared")]).offers == (offer("a", 0, "declared"),)
    assert screen([offer("a", NANO)], [offer("a", 0, "declared")]).offers == (offer("a", NANO),)


def test_another_currency_is_no_jump() -> None:
    found = screen([offer("a", NANO)], [offer("a", 100 * NANO, currency="JPY")])
    assert prices(found.offers) == {"a": 100 * NANO} and not found.doubts


def test_the_message_is_short() -> None:
    found = screen((), [offer(f"t{n}", 0) for n in range(9)])
    assert len(found.doubts) == 9 and found.message.endswith("; and 4 more")


@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=3), st.integers(1, 10**12), max_size=8),
    st.dictionaries(st.text("ab", min_size=1, max_size=3), st.integers(-5, 10**12) | st.none(), max_size=8),
)
def test_no_price_is_nothing_and_none_jumps(old: dict[str, int], new: dict[str, int | None]) -> None:
    found = screen([offer(t, n) for t, n in old.items()], [offer(t, n) for t, n in new.items()])
    for type_, nanos in prices(found.offers).items():
        assert nanos is None or nanos > 0
        if nanos is not None and type_ in old:
            assert old[type_] / 10 < nanos < old[type_] * 10


@scene
async def test_an_account_keeps_its_last_good_prices_and_says_so(s: Scene) -> None:
    s.add_account()
    async with s.operator() as (_, accounts):
        await s.until(lambda: s.condition("Ready", "lab", CLOUD_ACCOUNT)[0] == "True")
        account = accounts.get("ns", "lab")
        assert account is not None
        before = {offer.id: offer.price for offer in account.offers}
        rows = s.cloud.stock.rows
        dear = next(iter(rows))
        rows[dear] = dataclasses.replace(rows[dear], hourly_nanos=rows[dear].hourly_nanos * 20)
        account.survey_wanted.set()
        await s.until(lambda: s.condition("PricesFresh", "lab", CLOUD_ACCOUNT) == ("False", "Quarantined"))
        assert {offer.id: offer.price and offer.price.nanos for offer in account.offers} == {
            key: price and price.nanos for key, price in before.items()
        }
        for key in list(rows)[: len(rows) // 2]:
            del rows[key]
        account.survey_wanted.set()
        await s.until(lambda: "shrank" in account.quarantined)
        assert len(account.offers) == len(before)
