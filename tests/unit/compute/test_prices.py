"""Money, sheets, the catalogue and their precedence."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudmesh.compute.prices import Catalogue, next_change, price_offers
from cloudmesh.compute.prices.moments import month_of, to_month, to_seconds, to_time
from cloudmesh.compute.prices.money import MoneyError, cost, from_list, rounded, to_nanos, to_text
from cloudmesh.policy.model import NANO, Offer, Price

NOW = "2026-11-23T05:00:00Z"
EMPTY = Catalogue()


def sheet(*items: dict[str, Any], name: str = "campus", currency: str = "USD") -> dict[str, Any]:
    meta = {"name": name, "namespace": "lab", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": meta, "spec": {"currency": currency, "items": list(items)}}


def priced(offer: Offer, *sheets: dict[str, Any], catalogue: Catalogue = EMPTY, now: str = NOW) -> Price | None:
    [found] = price_offers([offer], account=offer.account, kind="aws", sheets=sheets, catalogue=catalogue, now=now)
    return found.price


def price(nanos: int, confidence: Any = "fetched") -> Price:
    return Price(nanos, "USD", "provider", NOW, confidence)


# -- money -------------------------------------------------------------------------------------------------------------


@given(st.integers(min_value=0, max_value=10**15 * NANO - 1))
def test_text_and_nanos_are_the_same_amount(nanos: int) -> None:
    assert to_nanos(to_text(nanos)) == nanos
    assert Fraction(to_text(nanos)) == Fraction(nanos, NANO)
    assert to_text(-nanos) == ("-" if nanos else "") + to_text(nanos)


@pytest.mark.parametrize(
    ("text", "nanos"),
    [("0", 0), ("0.0464", 46_400_000), ("12.50", 12_500_000_000), ("0.000000001", 1), ("007", 7 * NANO)],
)
def test_amounts(text: str, nanos: int) -> None:
    assert to_nanos(text) == nanos


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1e3", "1.", ".5", "NaN", "inf", "0.0000000001", "1,5", " 1", "1\n", "٣"]
)
def test_what_isnt_an_amount_is_refused(text: str) -> None:
    with pytest.raises(MoneyError, match="must be an amount such as"):
        to_nanos(text)


@pytest.mark.parametrize(
    "value", ["0", "0.0000000000", "-0.5", "NaN", "sNaN", "Infinity", "-Infinity", "", "free", "1e99999999"]
)
def test_a_list_has_no_price_that_cant_be_one(value: str) -> None:
    assert from_list(value) is None


def test_a_price_of_a_list_is_exact() -> None:
    assert from_list("0.0464000000") == from_list(Decimal("0.0464")) == 46_400_000
    assert from_list("0.1") == 100_000_000


@pytest.mark.parametrize(
    ("nanos", "places", "text"),
    [(46_400_000, 4, "0.0464"), (46_450_000, 4, "0.0465"), (12_500_000_000, 2, "12.50"), (999_999_999, 2, "1.00"),
     (-1_005_000_000, 2, "-1.01"), (-1, 2, "0.00"), (1_500_000_000, 0, "2")],
)  # fmt: skip
def test_amounts_for_people(nanos: int, places: int, text: str) -> None:
    assert rounded(nanos, places) == text


@given(st.integers(0, 10**13), st.integers(-(10**6), 10**9))
def test_cost_is_rounded_up_by_less_than_a_nano(hourly: int, seconds: int) -> None:
    exact = Fraction(hourly * max(0, seconds), 3600)
    assert exact <= cost(hourly, seconds) < exact + 1


# -- times -------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 4_000_000_000))
def test_every_second_lies_in_its_month(seconds: int) -> None:
    begin, until = month_of(seconds)
    assert begin <= seconds < until
    assert to_month(begin) == to_month(until - 1) == to_time(seconds)[:7]
    assert to_time(begin).endswith("-01T00:00:00Z") and to_time(until).endswith("-01T00:00:00Z")
    assert (until - begin) // 86_400 in (28, 29, 30, 31)


def test_months_of_leap_years() -> None:
    assert month_of(to_seconds("2028-02-29T23:59:59Z")) == (
        to_seconds("2028-02-01T00:00:00Z"),
        to_seconds("2028-03-01T00:00:00Z"),
    )
    begin, until = month_of(to_seconds("2100-02-10T00:00:00Z"))
    assert until - begin == 28 * 86_400


def test_times_with_offsets_and_fractions() -> None:
    assert to_seconds("2026-11-23T06:00:00+01:00") == to_seconds("2026-11-23T05:00:00.999999Z") == to_seconds(NOW)


# -- precedence --------------------------------------------------------------------------------------------------------


def catalogue() -> Catalogue:
    header = {"currency": "USD", "source": "catalogue (test)", "asOf": "2025-03-02T00:00:00Z"}
    return Catalogue(header, {}, {"aws": {"m5.large": {"OnDemand": {"us-east-1": 96_000_000}}}})


def test_a_sheet_wins_over_the_providers_price_and_that_over_the_catalogue() -> None:
    offer = Offer("aws", "m5.large", "us-east-1")
    own = Offer("aws", "m5.large", "us-east-1", price=price(90_000_000))
    listed = Price(96_000_000, "USD", "catalogue (test)", "2025-03-02T00:00:00Z", "static")
    assert priced(offer, catalogue=catalogue()) == listed
    assert priced(own, catalogue=catalogue()) == price(90_000_000)
    assert priced(own, sheet({"hourly": "0.05"}), catalogue=catalogue()) == Price(
        50_000_000, "USD", "PriceSheet/campus", "2026-01-01T00:00:00Z", "declared"
    )


def test_unknown_is_never_free() -> None:
    assert priced(Offer("aws", "x1")) is None
    assert priced(Offer("aws", "x1", price=price(0))) is None
    assert priced(Offer("aws", "x1", price=price(-5))) is None
    assert priced(Offer("aws", "x1", price=price(5, "unknown"))) is None
    assert priced(Offer("aws", "m5.large", "us-east-1", price=price(0)), catalogue=catalogue()) == priced(
        Offer("aws", "m5.large", "us-east-1"), catalogue=catalogue()
    )


def test_what_disks_cost_is_declared_beside_any_price_in_the_same_currency() -> None:
    told = Offer("aws", "x1", price=price(5))
    disks = sheet({"match": {"account": "aws"}, "storagePerGibMonth": "0.08"})
    found = priced(told, disks)
    assert found is not None and (found.nanos, found.source, found.gib_month) == (5, "provider", 80_000_000)
    both = sheet({"match": {"type": "x*"}, "hourly": 1}, {"hourly": 2, "storagePerGibMonth": "0.1"})
    found = priced(told, both, disks)
    assert found is not None and (found.nanos, found.gib_month) == (NANO, 100_000_000)
    free = priced(told, sheet({"storagePerGibMonth": 0}))
    assert free is not None and free.gib_month == 0
    foreign = priced(told, sheet({"storagePerGibMonth": "0.08"}, currency="EUR"))
    assert foreign is not None and foreign.gib_month is None
    assert priced(Offer("aws", "x1"), disks) is None, "who knows the disk doesn't know the machine"
    late = sheet({"storagePerGibMonth": "0.08", "validFrom": "2027-01-01T00:00:00Z"})
    later = priced(told, late)
    assert later is not None and later.gib_month is None


def test_nothing_may_be_declared() -> None:
    assert priced(Offer("pods", "small", price=price(0, "declared"))) == price(0, "declared")
    found = priced(Offer("pods", "small"), sheet({"hourly": 0}))
    assert found is not None and (found.nanos, found.confidence) == (0, "declared")


def test_the_catalogue_is_for_its_region_and_purchase_only() -> None:
    for offer in (
        Offer("aws", "m5.large", "us-east-2"),
        Offer("aws", "m5.large", "us-east-1", purchase="Spot"),
        Offer("aws", "m5.xlarge", "us-east-1"),
    ):
        assert priced(offer, catalogue=catalogue()) is None


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"account": "hpc"}, True),
        ({"account": "hp"}, False),
        ({"account": "h*"}, True),
        ({"type": "a100-*"}, True),
        ({"type": "a100-?"}, True),
        ({"type": "a100-??"}, False),
        ({"type": "A100-8"}, False),
        ({"region": "north"}, True),
        ({"region": "south"}, False),
        ({"zone": "n1"}, True),
        ({"zone": "n2"}, False),
        ({"purchase": "OnDemand"}, True),
        ({"purchase": "Spot"}, False),
        ({"account": "hpc", "type": "a100-8", "region": "south"}, False),
    ],
)
def test_an_item_fits_if_all_of_its_match_does(match: dict[str, str], fits: bool) -> None:
    offer = Offer("hpc", "a100-8", "north", "n1")
    assert (priced(offer, sheet({"match": match, "hourly": "1"})) is not None) is fits


def test_signs_of_patterns_are_literal_but_two() -> None:
    assert priced(Offer("a", "m5.large"), sheet({"match": {"type": "m5.l*"}, "hourly": "1"}))
    assert priced(Offer("a", "m5xlarge"), sheet({"match": {"type": "m5.l*"}, "hourly": "1"})) is None
    assert priced(Offer("a", "x"), sheet({"match": {"type": "[x]"}, "hourly": "1"})) is None


def test_the_first_item_that_fits_counts_and_the_first_sheet() -> None:
    special, rest = {"match": {"type": "big"}, "hourly": "4"}, {"hourly": "1"}
    found = price_offers(
        [Offer("hpc", "big"), Offer("hpc", "small")],
        account="hpc",
        kind="ssh",
        sheets=[sheet(special, rest, name="mine"), sheet({"hourly": "9"}, name="other", currency="EUR")],
        catalogue=EMPTY,
        now=NOW,
    )
    assert [(o.price.nanos // NANO, o.price.source) for o in found if o.price] == [
        (4, "PriceSheet/mine"),
        (1, "PriceSheet/mine"),
    ]


def test_a_sheet_keeps_its_currency() -> None:
    found = priced(Offer("hpc", "big"), sheet({"hourly": "9"}, currency="EUR"))
    assert found is not None and found.currency == "EUR"


def test_validity_is_half_open() -> None:
    item = {"hourly": "2", "validFrom": "2026-12-01T00:00:00Z", "validTo": "2027-01-01T00:00:00Z"}
    offer = Offer("hpc", "big")
    for now, known in (
        ("2026-11-30T23:59:59Z", False),
        ("2026-12-01T00:00:00Z", True),
        ("2026-12-31T23:59:59Z", True),
        ("2027-01-01T00:00:00Z", False),
    ):
        found = priced(offer, sheet(item), now=now)
        assert (found is not None) is known
        assert found is None or found.as_of == "2026-12-01T00:00:00Z"
    assert next_change([sheet(item)], NOW) == "2026-12-01T00:00:00Z"
    assert next_change([sheet(item)], "2026-12-01T00:00:00Z") == "2027-01-01T00:00:00Z"
    assert next_change([sheet(item)], "2027-01-01T00:00:00Z") == ""


def test_offers_stay_otherwise_as_they_are() -> None:
    offer = Offer("aws", "m5.large", "us-east-1", price=price(1), free=3, quota="standard")
    [same] = price_offers([offer], account="aws", kind="aws", sheets=[], catalogue=catalogue(), now=NOW)
    assert same is offer
