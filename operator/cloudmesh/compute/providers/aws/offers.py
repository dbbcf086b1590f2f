"""Which machine types can be had in which zone, and what spot costs now."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from cloudmesh.compute.providers.aws.images import ARCHITECTURES, Images
from cloudmesh.compute.providers.aws.session import Session, filters
from cloudmesh.policy.model import NANO, Offer, Price

PLATFORM = "Linux/UNIX"
_STANDARD = "acdhimrtz"
_QUOTAS: Mapping[str, frozenset[str]] = {
    "inf": frozenset({"inf"}),
    "dl": frozenset({"dl"}),
    "hpc": frozenset({"hpc"}),
    "high-memory": frozenset({"u"}),
    "g-and-vt": frozenset({"g", "gr", "vt"}),
    "mac": frozenset({"mac"}),
    "trn": frozenset({"trn"}),
}


async def read_offers(
    session: Session,
    account: str,
    images: Images,
    *,
    zones: Sequence[str] = (),
    types: Sequence[str] = (),
    network: str = "",
) -> list[Offer]:
    """All offers of a region.

    Args:
        session: The region.
        account: Name of the CloudAccount.
        images: What machines can be made of.
        zones: Only these zones, empty for all.
        types: Only these machine types, empty for all of the current generation.
        network: Name of the network that all machines get into.
    """
    wanted = {"InstanceTypes": list(types)} if types else {"Filters": filters({"current-generation": "true"})}
    described, places, spot = await asyncio.gather(
        session.pages("describe_instance_types", "InstanceTypes", **wanted),
        _places(session, types),
        _spot_prices(session, types),
    )
    shapes = {str(item["InstanceType"]): item for item in described}
    found: list[Offer] = []
    for type_, zone in sorted(places):
        shape = shapes.get(type_)
        if shape is None or (zones and zone not in zones):
            continue
        for arch in _architectures(shape):
            base = _offer(shape, account, session.region, zone, arch, network, images.of(arch))
            if "on-demand" in shape.get("SupportedUsageClasses", ("on-demand",)):
                found.append(base())
            if (price := spot.get((type_, zone))) is not None:
                found.append(base(purchase="Spot", price=price))
    return found


async def _places(session: Session, types: Sequence[str]) -> set[tuple[str, str]]:
    narrowed = {"Filters": filters({"instance-type": list(types)})} if types else {}
    items = await session.pages(
        "describe_instance_type_offerings", "InstanceTypeOfferings", LocationType="availability-zone", **narrowed
    )
    return {(str(item["InstanceType"]), str(item["Location"])) for item in items}


async def _spot_prices(session: Session, types: Sequence[str]) -> dict[tuple[str, str], Price]:
    now = datetime.datetime.now(datetime.UTC)
    narrowed = {"InstanceTypes": list(types)} if types else {}
    items = await session.pages(
        "describe_spot_price_history", "SpotPriceHistory", StartTime=now, ProductDescriptions=[PLATFORM], **narrowed
    )
    return newest_prices(items, now.strftime("%Y-%m-%dT%H:%M:%SZ"))


def newest_prices(items: Iterable[Mapping[str, Any]], as_of: str) -> dict[tuple[str, str], Price]:
    """The newest spot price of each type and zone; what isn't a positive number is left out."""
    newest: dict[tuple[str, str], tuple[Any, int]] = {}
    for item in items:
        try:
            nanos = int(Decimal(str(item["SpotPrice"])) * NANO)
        except (InvalidOperation, ValueError, KeyError, OverflowError):
            continue
        key, when = (str(item["InstanceType"]), str(item["AvailabilityZone"])), item["Timestamp"]
        if nanos > 0 and (key not in newest or newest[key][0] < when):
            newest[key] = (when, nanos)
    return {key: Price(nanos, "USD", "spot price history", as_of, "fetched") for key, (_, nanos) in newest.items()}


def quota_of(type_: str) -> str:
    """Name of the quota of vCPUs that a machine type counts against; spot and on demand are counted apart.

    Source: EC2 user guide, "On-Demand Instance quotas" and "Spot Instance quotas".
    """
    family = re.match(r"[a-z]+", type_)
    letters = family[0] if family else type_
    for name, members in _QUOTAS.items():
        if letters in members:
            return name
    return "standard" if letters[:1] in _STANDARD else letters


def _architectures(shape: Mapping[str, Any]) -> list[str]:
    told = shape.get("ProcessorInfo", {}).get("SupportedArchitectures", [])
    return [ARCHITECTURES[name] for name in told if name in ARCHITECTURES][:1]


def _offer(
    shape: Mapping[str, Any], account: str, region: str, zone: str, arch: str, network: str, images: frozenset[str]
) -> Any:
    gpus = shape.get("GpuInfo", {}).get("Gpus", [])
    type_ = str(shape["InstanceType"])

    def make(**more: Any) -> Offer:
        return Offer(
            account=account,
            type=type_,
            region=region,
            zone=zone,
            arch=arch,
            milli_vcpu=1000 * int(shape["VCpuInfo"]["DefaultVCpus"]),
            memory_mib=int(shape["MemoryInfo"]["SizeInMiB"]),
            gpu_model=str(gpus[0].get("Name", "")) if gpus else "",
            gpu_count=sum(int(gpu.get("Count", 0)) for gpu in gpus),
            quota=quota_of(type_) + ("-spot" if more.get("purchase") == "Spot" else ""),
            images=images,
            network=network,
            **more,
        )

    return make
