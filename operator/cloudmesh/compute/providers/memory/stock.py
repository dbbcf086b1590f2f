"""What the memory cloud sells: machine types by region, zone and purchase, with prices that a seed draws."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

NANO = 10**9
Place = tuple[str, str, str, str]
"""Type, region, zone, purchase."""


@dataclass(slots=True)
class Row:
    """One thing for sale.

    Args:
        type: Machine type.
        region: Region.
        zone: Zone.
        purchase: OnDemand or Spot.
        arch: Architecture.
        milli_vcpu: Thousandths of virtual CPUs.
        memory_mib: Memory.
        gpu_model: GPU, empty without.
        gpu_count: Number of GPUs.
        hourly_nanos: What is billed.
        quota: Name of the quota.
        told: Whether the price is told in offers; the bill knows it anyway.
        free: Machines that still fit, None without a limit.
        tell_free: Whether offers say so.
        fails_late: Too little room is not refused at the call: the machine is made and fails.
    """

    type: str
    region: str
    zone: str
    purchase: str
    arch: str
    milli_vcpu: int
    memory_mib: int
    gpu_model: str
    gpu_count: int
    hourly_nanos: int
    quota: str
    told: bool = True
    free: int | None = None
    tell_free: bool = True
    fails_late: bool = False

    @property
    def place(self) -> Place:
        """What a create call names."""
        return (self.type, self.region, self.zone, self.purchase)


FAMILIES = (("c", 2048, 40), ("m", 4096, 48), ("r", 8192, 63), ("t", 2048, 21))
"""Name, memory for each vCPU, and thousandths of a dollar for each vCPU and hour."""
GPUS = ("A100", "H100", "L4", "T4")


class Stock:
    """All rows, by place.

    Args:
        types: Number of machine types.
        regions: Number of regions.
        zones: Zones a region.
        seed: Draws prices.
        spot: Whether each type is sold as spot too.
    """

    def __init__(self, *, types: int = 8, regions: int = 2, zones: int = 2, seed: int = 1, spot: bool = True) -> None:
        rng = random.Random(seed)  # noqa: S311 - a repeatable catalogue
        self.rows: dict[Place, Row] = {}
        for shape in _shapes(types):
            for region in range(1, regions + 1):
                # Regions differ by up to a fifth, zones don't, spot is at 25 to 60 percent and differs by zone.
                price = shape.hourly_nanos * rng.randint(90, 110) // 100
                for zone in range(zones):
                    place = (f"region-{region}", f"region-{region}{chr(ord('a') + zone)}")
                    self.add(_sold(shape, *place, "OnDemand", price, shape.quota))
                    if spot:
                        self.add(_sold(shape, *place, "Spot", price * rng.randint(25, 60) // 100, "spot"))

    def add(self, row: Row) -> None:
        """Sells one thing more, or in place of what was sold under its name."""
        self.rows[row.place] = row

    def regions(self) -> set[str]:
        """All regions."""
        return {row.region for row in self.rows.values()}

    def types(self) -> dict[str, Row]:
        """One row of each machine type."""
        return {row.type: row for row in self.rows.values()}


def _shapes(count: int) -> Iterator[Row]:
    for index in range(count):
        family, memory, mills = FAMILIES[index % len(FAMILIES)]
        size = 1 << (index // len(FAMILIES) % 7)
        generation = 1 + index // (len(FAMILIES) * 7)
        gpu = GPUS[generation % len(GPUS)] if family == "r" and size >= 16 else ""
        yield Row(
            type=f"{family}{generation}.{size * 2}",
            region="",
            zone="",
            purchase="OnDemand",
            arch="arm64" if family == "t" and size > 1 else "amd64",
            milli_vcpu=size * 2000,
            memory_mib=size * 2 * memory,
            gpu_model=gpu,
            gpu_count=1 if gpu else 0,
            hourly_nanos=size * 2 * mills * NANO // 1000 + (2 * NANO if gpu else 0),
            quota="gpu" if gpu else "standard",
        )


def _sold(shape: Row, region: str, zone: str, purchase: str, nanos: int, quota: str) -> Row:
    return Row(
        shape.type, region, zone, purchase, shape.arch, shape.milli_vcpu, shape.memory_mib, shape.gpu_model,
        shape.gpu_count, nanos, quota,
    )  # fmt: skip
