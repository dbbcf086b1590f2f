"""What stores cost: sheets of one's own, then a packaged list of public prices; unknown is never free. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any

from cloudmesh.data.config import Prices
from cloudmesh.policy.amounts import to_nanos, to_text
from cloudmesh.policy.validity import is_valid, matches

FILE = "list.json"
COLUMNS = ("storagePerGibMonth", "writesPerThousand", "readsPerThousand", "egressPerGib")


def prices_of(
    store: str, kind: str, region: str, domain: str, *, sheets: Sequence[Mapping[str, Any]], now: str
) -> Prices:
    """What a store costs, in the words of the first who knows: a sheet, else the packaged list, else nobody.

    Args:
        store: Name of the DataStore.
        kind: Member of its spec, such as `s3`.
        region: Where it is, empty if unknown.
        domain: Host that serves it.
        sheets: PriceSheets as the API server has them, the most important first.
        now: RFC 3339 time.
    """
    for sheet in sheets:
        spec, meta = sheet.get("spec") or {}, sheet["metadata"]
        for item in spec.get("stores") or ():
            match = item.get("match") or {}
            told = (("store", store), ("kind", kind), ("region", region))
            if is_valid(item, now) and all(matches(match.get(name, ""), value) for name, value in told):
                return _prices(
                    [str(item.get(column, "0")) for column in COLUMNS], spec.get("currency", "USD"),
                    f"PriceSheet/{meta['name']}", item.get("validFrom") or meta.get("creationTimestamp") or now,
                    "declared",
                )  # fmt: skip
    return _listed(domain, region)


def sheets_for(store: Mapping[str, Any], sheets: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """PriceSheets as they are asked: the one that the DataStore names, then the others of its namespace by name."""
    first = (store["spec"].get("priceSheetRef") or {}).get("name", "")
    return sorted(sheets, key=lambda sheet: (sheet["metadata"]["name"] != first, sheet["metadata"]["name"]))


def price_status(prices: Prices) -> dict[str, Any]:
    """`status.price` of a DataStore; empty where nobody knows."""
    amounts = (prices.gib_month, prices.thousand_writes, prices.thousand_reads, prices.gib_egress)
    if prices.gib_month is None:
        return {}
    told: dict[str, Any] = {column: to_text(a or 0) for column, a in zip(COLUMNS, amounts, strict=True)}
    told |= {"currency": prices.currency, "source": prices.source, "confidence": prices.confidence}
    return told | ({"asOf": prices.as_of} if prices.as_of else {})


def _prices(amounts: Sequence[str], currency: str, source: str, as_of: str, confidence: str) -> Prices:
    month, writes, reads, egress = (to_nanos(text) for text in amounts)
    return Prices(currency, month, writes, reads, egress, source, confidence, as_of)


@lru_cache(maxsize=1)
def packaged() -> Mapping[str, Any]:
    """The packaged list; read once, at the first call."""
    content: Mapping[str, Any] = json.loads((files(__package__) / FILE).read_text())
    return content


@lru_cache(maxsize=256)
def _listed(domain: str, region: str) -> Prices:
    told = packaged()
    for host, regions in told["hosts"].items():
        if (domain == host or domain.endswith(f".{host}")) and region in regions:
            return _prices(regions[region], told["currency"], told["source"], told["asOf"], "static")
    return Prices()
