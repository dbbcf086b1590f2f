"""The packaged price list: on-demand prices of public clouds with the shapes of their machines, made by `build`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from cloudmesh.policy.model import Offer, Price, Purchase

FILE = "catalogue.json.gz"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a machine type has."""

    milli_vcpu: int
    memory_mib: int
    arch: str
    gpu_model: str = ""
    gpu_count: int = 0


@dataclass(frozen=True)
class Catalogue:
    """Prices by kind, type, region and purchase.

    Args:
        header: What the file says of itself: source, asOf, currency and counts.
        shapes: By kind and type.
        prices: Nano-units per hour by kind, type, purchase and region.
    """

    header: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, Mapping[str, Shape]] = field(default_factory=dict)
    prices: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Catalogue:
        """The packaged one; read once, at the first call."""
        return _load()

    @classmethod
    def from_bytes(cls, data: bytes) -> Catalogue:
        """A catalogue of a file's content."""
        content = json.loads(gzip.decompress(data))
        shapes: dict[str, dict[str, Shape]] = {}
        prices: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
        for kind, part in content["kinds"].items():
            regions = part["regions"]
            shapes[kind] = {row["type"]: Shape(*row["shape"]) for row in part["types"]}
            prices[kind] = {
                row["type"]: {
                    purchase: {regions[index]: nanos for index, nanos in pairs}
                    for purchase, pairs in row["prices"].items()
                }
                for row in part["types"]
            }
        return cls(content["header"], shapes, prices)

    def find(self, kind: str, type_: str, region: str, purchase: str) -> Price | None:
        """The price of a machine type in a region, None if the list has none."""
        nanos = self.prices.get(kind, {}).get(type_, {}).get(purchase, {}).get(region)
        return None if nanos is None else self._price(nanos)

    def offers(self, kind: str, account: str) -> list[Offer]:
        """All of a cloud's rows as offers of an account, for clouds that can't be asked."""
        found = []
        for type_, by_purchase in self.prices.get(kind, {}).items():
            shape = self.shapes[kind][type_]
            for purchase, by_region in by_purchase.items():
                paid: Purchase = "Spot" if purchase == "Spot" else "OnDemand"
                found += [
                    Offer(
                        account=account,
                        type=type_,
                        region=region,
                        purchase=paid,
                        arch=shape.arch,
                        milli_vcpu=shape.milli_vcpu,
                        memory_mib=shape.memory_mib,
                        gpu_model=shape.gpu_model,
                        gpu_count=shape.gpu_count,
                        price=self._price(nanos),
                    )
                    for region, nanos in by_region.items()
                ]
        return found

    def _price(self, nanos: int) -> Price:
        header = self.header
        return Price(nanos, header["currency"], header["source"], header["asOf"], "static")


@lru_cache(maxsize=1)
def _load() -> Catalogue:
    return Catalogue.from_bytes((files(__package__) / FILE).read_bytes())
