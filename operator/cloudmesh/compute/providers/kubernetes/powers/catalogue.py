"""Powers Images and Flavors: what the account's spec names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.kubernetes.core import PodCore
from cloudmesh.compute.providers.kubernetes.sizes import DEFAULT_IMAGE


class Catalogue(PodCore):
    """Lists images and sizes."""

    async def list_images(self) -> Sequence[Mapping[str, str]]:
        """The installation's own machine image, and those that the account maps."""
        found = {DEFAULT_IMAGE: self.settings.machine_image, **self.settings.images}
        return [{"id": image, "name": name, "arch": "amd64"} for name, image in sorted(found.items())]

    async def list_flavors(self) -> Sequence[Mapping[str, str]]:
        """The sizes, smallest first."""
        sizes = sorted(self.settings.sizes.values(), key=lambda size: (size.milli_vcpu, size.memory_mib, size.name))
        return [
            {
                "name": size.name,
                "vcpu": f"{size.milli_vcpu / 1000:g}",
                "memoryMiB": str(size.memory_mib),
                "arch": "amd64",
            }
            for size in sizes
        ]
