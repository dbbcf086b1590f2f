"""What stores cost: whose price counts, in which order, and where it is told."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.config import Prices
from cloudmesh.data.kinds import DATA_STORE, PRICE_SHEET
from cloudmesh.data.money import common_currency, confidence, in_currency, monthly_nanos
from cloudmesh.data.prices import packaged, price_status, prices_of, sheets_for

NOW = "2026-11-23T12:00:00Z"
MICRO = 1000


def sheet(*stores: dict[str, Any], name: str = "campus", currency: str = "USD") -> dict[str, Any]:
    """A PriceSheet."""
    return {"metadata": {"name": name}, "spec": {"currency": currency, "stores": list(stores)}}


def priced(*sheets: dict[str, Any], store: str = "nas", kind: str = "local", region: str = "", domain: str = "cluster"):
    """What it costs."""
    return prices_of(store, kind, region, domain, sheets=sheets, now=NOW)


def test_a_sheet_tells_all_of_a_stores_price():
    found = priced(sheet({"storagePerGibMonth": "0.004", "egressPerGib": "0.01"}))
    assert found == Prices("USD", 4_000_000, 0, 0, 10_000_000, "PriceSheet/campus", "declared", NOW)


def test_unknown_is_never_free():
    assert priced() == Prices()
    assert priced().gib_month is None
    assert price_status(priced()) == {}
    assert monthly_nanos(priced(), 1 << 40) is None


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({}, True),
        ({"store": "n*"}, True),
        ({"store": "aws"}, False),
        ({"kind": "local", "region": "campu?"}, True),
        ({"kind": "s3"}, False),
        ({"region": "us-*"}, False),
    ],
)
def test_the_first_item_that_matches(match, fits):
    first = {"match": match, "storagePerGibMonth": "1"}
    found = priced(sheet(first, {"storagePerGibMonth": "2"}), region="campus")
    assert found.gib_month == (1 if fits else 2) * 10**9


def test_an_item_holds_from_and_until():
    late = {"storagePerGibMonth": "1", "validFrom": "2026-12-01T00:00:00Z"}
    over = {"storagePerGibMonth": "2", "validTo": NOW}
    now = {"storagePerGibMonth": "3", "validFrom": NOW}
    assert priced(sheet(late, over, now)).gib_month == 3 * 10**9
    assert priced(sheet(late, over)).gib_month is None


def test_the_sheet_that_is_named_comes_first_then_by_name():
    sheets = [sheet({"storagePerGibMonth": n}, name=name) for name, n in (("c", "3"), ("a", "1"), ("b", "2"))]
    named = sheets_for({"spec": {"priceSheetRef": {"name": "b"}}}, sheets)
    assert [one["metadata"]["name"] for one in named] == ["b", "a", "c"]
    assert [one["metadata"]["name"] for one in sheets_for({"spec": {}}, sheets)] == ["a", "b", "c"]


def test_the_packaged_list_says_of_when_it_is():
    found = priced(kind="s3", region="us-east-1", domain="amazonaws.com")
    assert (found.gib_month, found.gib_egress, found.confidence) == (23_000_000, 90_000_000, "static")
    assert found.as_of == packaged()["asOf"]
    assert price_status(found)["storagePerGibMonth"] == "0.023"
    # a host of one's own in a region of that name isn't theirs
    assert priced(kind="s3", region="us-east-1", domain="s3.example.org").gib_month is None
    assert priced(kind="s3", region="us-east-1", domain="notamazonaws.com").gib_month is None
    assert priced(kind="s3", region="eu-west-1", domain="s3.eu-west-1.amazonaws.com").gib_month == 23_000_000
    for region in packaged()["hosts"]["amazonaws.com"]:
        prices = priced(kind="s3", region=region, domain="amazonaws.com")
        assert 0 < (prices.thousand_reads or 0) < (prices.thousand_writes or 0) < (prices.gib_month or 0), region
        assert (prices.gib_month or 0) < (prices.gib_egress or 0) < 10**9, region


def test_prices_of_another_currency_cant_be_added():
    euro, dollar = Prices("EUR", 1, 0, 0, 0), Prices("USD", 2, 0, 0, 0)
    assert common_currency([Prices(), euro, dollar]) == "EUR"
    assert common_currency([euro], "USD") == "USD"
    assert common_currency([Prices()]) == "USD"
    assert in_currency(dollar, "EUR").gib_month is None
    assert in_currency(euro, "EUR") is euro
    assert confidence([], {}) == "unknown"


def test_money_is_rounded_up():
    assert monthly_nanos(Prices(gib_month=1), 1) == 1
    assert monthly_nanos(Prices(gib_month=0), 1 << 60) == 0
    assert monthly_nanos(Prices(gib_month=7), 3 << 29) == 11


@scene
async def test_a_stores_status_and_its_directories_take_up_a_price(s: Scene) -> None:
    s.secret()
    s.store()
    s.volume()
    s.watched = (PRICE_SHEET,)
    s.directory("aws", "nas")
    async with s.operator():
        await s.settle()
        told = s.status("aws", DATA_STORE)["price"]
        assert (told["storagePerGibMonth"], told["egressPerGib"], told["confidence"]) == ("0.023", "0.09", "static")
        assert "price" not in s.status("nas", DATA_STORE)
        assert [store.prices.gib_month for store in s.config().stores] == [23_000_000, None]
        s.sheet({"match": {"store": "nas"}, "storagePerGibMonth": "0.004"})
        await s.settle(75)
        told = s.status("nas", DATA_STORE)["price"]
        assert (told["storagePerGibMonth"], told["source"]) == ("0.004", "PriceSheet/campus")
        assert [store.prices.gib_month for store in s.config().stores] == [23_000_000, 4_000_000]
        s.api.remove(PRICE_SHEET, "ns", "campus")
        await s.settle(75)
        assert "price" not in s.status("nas", DATA_STORE)


@scene
async def test_a_price_in_another_currency_is_as_if_nobody_knew_it(s: Scene) -> None:
    s.secret()
    s.store()
    s.volume()
    s.watched = (PRICE_SHEET,)
    s.sheet({"match": {"store": "nas"}, "storagePerGibMonth": "0.004"}, currency="EUR")
    s.directory("aws", "nas")
    async with s.operator():
        await s.settle()
        assert s.config().currency == "USD"
        assert [store.prices.gib_month for store in s.config().stores] == [23_000_000, None]
        assert s.status("nas", DATA_STORE)["price"]["currency"] == "EUR"
