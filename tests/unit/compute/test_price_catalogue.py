"""The packaged catalogue: its header is true, its figures make sense, and the generator makes the same of the same."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from cloudmesh.compute.prices import Catalogue, build, price_offers
from cloudmesh.compute.prices.catalogue import FILE, Shape
from cloudmesh.policy.model import NANO, Offer

DATA = (files("cloudmesh.compute.prices") / FILE).read_bytes()
CONTENT: dict[str, Any] = json.loads(gzip.decompress(DATA))


def test_the_file_is_small_and_says_what_it_is() -> None:
    header = CONTENT["header"]
    assert len(DATA) <= 2**20
    assert header["source"] == f"catalogue (apache-libcloud {build.LIBCLOUD})"
    assert header["currency"] == "USD" and header["confidence"] == "static"
    assert "2025-01-01" < header["asOf"] < "2027-01-01" and header["asOf"].endswith("Z")


def test_the_header_counts_what_is_there() -> None:
    header, rows = CONTENT["header"], 0
    for part in CONTENT["kinds"].values():
        assert part["regions"] == sorted(set(part["regions"])) and len(part["regions"]) == header["regions"]
        types = [row["type"] for row in part["types"]]
        assert types == sorted(set(types)) and len(types) == header["types"]
        for row in part["types"]:
            for pairs in row["prices"].values():
                rows += len(pairs)
                assert len({region for region, _ in pairs}) == len(pairs)
    assert rows == header["rows"] > 10_000
    assert set(header["dropped"]) == {"noPrice", "noShape", "noRegion"} and header["dropped"]["noPrice"] > 0


def test_no_price_is_nothing_and_every_type_has_a_shape() -> None:
    for part in CONTENT["kinds"].values():
        for row in part["types"]:
            milli_vcpu, memory_mib, arch, model, count = row["shape"]
            assert (
                milli_vcpu >= 1000 and memory_mib >= 512 and arch in ("amd64", "arm64") and bool(model) == (count > 0)
            )
            for pairs in row["prices"].values():
                # a machine of an hour: more than a tenth of a cent, less than a thousand dollars
                assert all(isinstance(nanos, int) and NANO // 1000 < nanos < 1000 * NANO for _, nanos in pairs)


def test_bigger_machines_of_a_family_cost_more() -> None:
    """The list isn't free of errors, so in nearly all regions is enough."""
    catalogue = Catalogue.load()
    worse = better = 0
    for family in ("m5", "c5", "r5", "m6g", "c6i"):
        for small, big in (("large", "xlarge"), ("xlarge", "2xlarge"), ("2xlarge", "4xlarge")):
            regions = CONTENT["kinds"]["aws"]["regions"]
            for region in regions:
                one = catalogue.find("aws", f"{family}.{small}", region, "OnDemand")
                two = catalogue.find("aws", f"{family}.{big}", region, "OnDemand")
                if one is not None and two is not None:
                    good = 1.8 * one.nanos <= two.nanos <= 2.2 * one.nanos
                    better, worse = better + good, worse + (not good)
    assert better > 100 and worse <= better // 100


def test_known_rows() -> None:
    catalogue = Catalogue.load()
    found = catalogue.find("aws", "m5.large", "us-east-1", "OnDemand")
    assert found is not None
    assert (found.nanos, found.currency, found.confidence) == (96_000_000, "USD", "static")
    assert found.source.startswith("catalogue") and found.as_of == CONTENT["header"]["asOf"]
    assert catalogue.shapes["aws"]["m5.large"] == Shape(2000, 8192, "amd64")
    assert catalogue.shapes["aws"]["m6g.xlarge"].arch == "arm64"
    assert catalogue.shapes["aws"]["p4d.24xlarge"].gpu_model == "A100"
    # the list has 0.0 there: unknown, not free
    assert catalogue.find("aws", "m5.xlarge", "us-east-1", "OnDemand") is None
    assert catalogue.find("aws", "m5.large", "us-east-1", "Spot") is None
    assert catalogue.find("aws", "m5.large", "mars-1", "OnDemand") is None
    assert catalogue.find("other", "m5.large", "us-east-1", "OnDemand") is None
    assert Catalogue.load() is catalogue


def test_it_prices_offers() -> None:
    offers = [Offer("mine", "m5.large", "us-east-1"), Offer("mine", "m5.xlarge", "us-east-1")]
    now = "2026-11-23T00:00:00Z"
    first, second = price_offers(offers, account="mine", kind="aws", sheets=[], catalogue=Catalogue.load(), now=now)
    assert first.price is not None and first.price.nanos == 96_000_000 and second.price is None


PRICING = """{"updated": 1740936978, "compute": {"ec2_us_east": {"a.small": 9.0}, "ec2_linux": {
  "a.small": {"us-east-1": 0.1, "eu-west-1": 0.0, "us-west-2-lax-1": 0.2, "us-west-2": -1},
  "b.big": {"us-east-1": 0.123456789, "us-west-2": 1e-1},
  "c.none": {"us-east-1": 5}
}}}"""
REGIONS = frozenset({"us-east-1", "us-west-2", "eu-west-1", "unused-1"})
SHAPES = {"a.small": Shape(1000, 2048, "amd64"), "b.big": Shape(8000, 65536, "arm64", "T4", 2)}


def made() -> dict[str, Any]:
    return build.build(json.loads(PRICING, parse_float=Decimal), SHAPES, REGIONS)


def test_the_generator_joins_drops_and_counts() -> None:
    content = made()
    assert content["header"]["asOf"] == "2025-03-02T17:36:18Z"
    assert {name: content["header"][name] for name in ("rows", "types", "dropped")} == {
        "rows": 3, "types": 2, "dropped": {"noPrice": 2, "noRegion": 1, "noShape": 1},
    }  # fmt: skip
    catalogue = Catalogue.from_bytes(build.pack(content))
    found = catalogue.find("aws", "b.big", "us-east-1", "OnDemand")
    assert found is not None and found.nanos == 123_456_789
    other = catalogue.find("aws", "b.big", "us-west-2", "OnDemand")
    assert other is not None and other.nanos == 100_000_000
    assert catalogue.shapes["aws"]["b.big"] == SHAPES["b.big"]


def test_the_same_list_makes_the_same_bytes() -> None:
    assert build.pack(made()) == build.pack(made())
    assert build.pack(CONTENT) == DATA, "the file isn't what the generator writes"


def test_the_command_writes_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pricing, output = tmp_path / "pricing.json", tmp_path / FILE
    pricing.write_text('{"updated": 1740936978, "compute": {"ec2_linux": {"m5.large": {"us-east-1": 0.096}}}}')
    assert build.main(["--pricing", str(pricing), "--output", str(output)]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 1
    found = Catalogue.from_bytes(output.read_bytes())
    # shapes come of the packages of the development environment, as those of the packaged file did
    assert found.shapes["aws"] == {"m5.large": Catalogue.load().shapes["aws"]["m5.large"]}
