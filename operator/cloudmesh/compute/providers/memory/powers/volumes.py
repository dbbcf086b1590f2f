"""Power Volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.memory.provider import MemoryProvider
from cloudmesh.compute.tokens import Scope


class Volumes(MemoryProvider):
    """Disks that outlive a machine."""

    async def list_volumes(self, scope: Scope) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `sizeGiB`, `zone`, `state`, `nodeId`."""
        held = await self.call("ListVolumes", lambda: list(self.cloud.resources.volumes.values()))
        return [
            {
                "id": each.id,
                "sizeGiB": str(each.size_gib),
                "zone": each.zone,
                "state": "InUse" if each.node_id else "Available",
                "nodeId": each.node_id,
            }
            for each in held
            if scope.holds(each.tags)
        ]

    async def ensure_volume(self, token: str, size_gib: int, zone: str, tags: Mapping[str, str]) -> str:
        """Gives the id of the volume of this token; never a second one."""
        resources = self.cloud.resources
        return await self.call(
            "CreateVolume",
            lambda: resources.hold(resources.volumes, "vol", token, tags, size_gib=size_gib, zone=zone),
        )

    async def attach_volume(self, volume_id: str, node_id: str, device: str) -> None:
        """Binds it; the device is the machine's to name."""
        await self.call("AttachVolume", lambda: self.cloud.bind(self.cloud.resources.volumes, volume_id, node_id))

    async def detach_volume(self, volume_id: str) -> None:
        """Frees it."""
        await self.call("DetachVolume", lambda: self.cloud.resources.free(self.cloud.resources.volumes, volume_id))

    async def delete_volume(self, volume_id: str) -> None:
        """Deletes it; an absent one is fine."""
        await self.call("DeleteVolume", lambda: self.cloud.resources.drop(self.cloud.resources.volumes, volume_id))
