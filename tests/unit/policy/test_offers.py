"""The table of offers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.policy.offers import offer, price

from cloudmesh.policy.model import Offer
from cloudmesh.policy.offers import UNLIMITED, UNPRICED, OfferTable

OFFERS = [
    offer("a", "big", 0.4, arch="arm64", gpu_model="A100", gpu_count=2, free=3, network="n1"),
    offer("a", "small", 0.1, images=frozenset({"ubuntu"}), quota="standard"),
    offer("b", "small", 0.1, zone="z2", start_seconds=30),
    offer("b", "odd", None),
]


def test_rows_are_in_order_of_price_then_id_and_unpriced_ones_are_last() -> None:
    table = OfferTable.from_offers(OFFERS)
    assert [o.type for o in table.offers] == ["small", "small", "big", "odd"]
    assert table.ids == ("a/small/r1/z1/OnDemand", "b/small/r1/z2/OnDemand", "a/big/r1/z1/OnDemand",
                         "b/odd/r1/z1/OnDemand")  # fmt: skip
    assert table.nanos.tolist() == [100_000_000, 100_000_000, 400_000_000, UNPRICED]
    assert table.free.tolist() == [UNLIMITED, UNLIMITED, 3, UNLIMITED]
    assert table.quota.values[table.quota.codes[0]] == "a/r1/standard"
    assert table.gpu_model.values[table.gpu_model.codes[2]] == "a100"
    assert table.offer(2) == OFFERS[0]


def test_the_later_of_two_offers_with_one_id_counts() -> None:
    table = OfferTable.from_offers([offer(hourly=0.3), offer(hourly=0.2)])
    assert table.nanos.tolist() == [200_000_000]
    merged = OfferTable.merge(
        [OfferTable.from_offers([offer(hourly=0.1)]), OfferTable.from_offers([offer(hourly=0.2)])]
    )
    assert merged.nanos.tolist() == [200_000_000]


def test_merging_gives_the_same_table_as_making_it_at_once() -> None:
    whole = OfferTable.from_offers(OFFERS)
    parts = OfferTable.merge(
        [OfferTable.from_offers(OFFERS[:2]), OfferTable.from_offers(()), OfferTable.from_offers(OFFERS[2:])]
    )
    assert parts.ids == whole.ids
    assert parts.offers == whole.offers
    for name in ("account", "zone", "images", "quota", "network"):
        one, other = getattr(parts, name), getattr(whole, name)
        assert [one.values[c] for c in one.codes] == [other.values[c] for c in other.codes]
    for name in ("nanos", "free", "spot", "milli_vcpu", "start_seconds", "confidence"):
        assert getattr(parts, name).tolist() == getattr(whole, name).tolist()


def test_an_empty_table_has_no_rows() -> None:
    assert len(OfferTable.from_offers(())) == 0
    assert len(OfferTable.merge([])) == 0


@pytest.mark.parametrize(
    ("odd", "known"),
    [
        (replace(offer(), price=price(0.0)), False),
        (replace(offer(), price=price(-1.0)), False),
        (replace(offer(), price=price(0.0, confidence="declared")), True),
        (replace(offer(), price=None), False),
    ],
)
def test_zero_is_a_price_only_where_somebody_declared_it(odd: Offer, known: bool) -> None:
    assert (OfferTable.from_offers([odd]).nanos[0] != UNPRICED) == known
