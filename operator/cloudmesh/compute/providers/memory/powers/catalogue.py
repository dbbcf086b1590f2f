"""Powers Images, Flavors and Networks: what there is to choose from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.memory.provider import MemoryProvider


class Images(MemoryProvider):
    """Lists images."""

    async def list_images(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `name`, `arch`."""
        images = await self.call("ListImages", lambda: dict(self.cloud.images))
        return [{"id": image, "name": image, "arch": arch} for image, arch in images.items()]


class Flavors(MemoryProvider):
    """Lists machine types."""

    async def list_flavors(self) -> Sequence[Mapping[str, str]]:
        """Each with `name`, `vcpu`, `memoryMiB`, `arch`."""
        rows = await self.call("ListStock", self.cloud.stock.types)
        return [
            {"name": row.type, "vcpu": f"{row.milli_vcpu / 1000:g}", "memoryMiB": str(row.memory_mib), "arch": row.arch}
            for row in rows.values()
        ]


class Networks(MemoryProvider):
    """Lists networks and subnets."""

    async def list_networks(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `name`, `cidr`, `zone`: one a region, over all of its zones."""
        regions = sorted(await self.call("ListNetworks", self.cloud.stock.regions))
        return [
            {"id": f"net-{number}", "name": region, "cidr": f"10.{number}.0.0/16", "zone": ""}
            for number, region in enumerate(regions)
        ]
