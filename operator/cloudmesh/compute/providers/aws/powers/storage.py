"""Addresses and volumes that outlive a machine; made once for a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.compute.providers.aws.nodes import from_tags
from cloudmesh.compute.providers.aws.powers.base import Power, token_tags
from cloudmesh.compute.providers.aws.session import filters
from cloudmesh.compute.tokens import TAG_TOKEN, Scope
from cloudmesh.engine.errors import NotFound


class Storage(Power):
    """Elastic IPs and EBS volumes."""

    async def list_addresses(self) -> Sequence[Mapping[str, str]]:
        """All addresses of the region."""
        return [
            {
                "id": str(item["AllocationId"]),
                "address": str(item["PublicIp"]),
                "nodeId": str(item.get("InstanceId", "")),
            }
            for item in await self._addresses()
        ]

    async def _addresses(self, **parameters: Any) -> list[dict[str, Any]]:
        answer = await self.session.call("describe_addresses", **parameters)
        found: list[dict[str, Any]] = answer.get("Addresses", [])
        return found

    async def allocate_address(self, token: str, tags: Mapping[str, str]) -> str:
        """Gives the address of a token; EC2 has no token here, so the tag in the call itself serves for it."""
        held = [
            item
            for item in await self._addresses(Filters=filters({f"tag:{TAG_TOKEN}": token}))
            if from_tags(item.get("Tags")).get(TAG_TOKEN) == token
        ]
        if held:
            return str(min(item["AllocationId"] for item in held))
        made = await self.session.call(
            "allocate_address",
            "AllocateAddress",
            Domain="vpc",
            TagSpecifications=token_tags({**tags, TAG_TOKEN: token}, "elastic-ip"),
        )
        return str(made["AllocationId"])

    async def attach_address(self, address_id: str, node_id: str) -> None:
        """Binds an address to an instance."""
        await self.session.call("associate_address", AllocationId=address_id, InstanceId=node_id)

    async def detach_address(self, address_id: str) -> None:
        """Frees an address."""
        for item in await self._addresses(AllocationIds=[address_id]):
            if item.get("AssociationId"):
                await self.session.call("disassociate_address", AssociationId=item["AssociationId"])

    async def release_address(self, address_id: str) -> None:
        """Gives an address back."""
        try:
            await self.session.call("release_address", f"ReleaseAddress {address_id}", AllocationId=address_id)
        except NotFound:
            return

    async def list_volumes(self, scope: Scope) -> Sequence[Mapping[str, str]]:
        """The scope's volumes."""
        wanted = filters({f"tag:{key}": value for key, value in scope.tags().items()})
        items = await self.session.pages("describe_volumes", "Volumes", Filters=wanted)
        return [
            {
                "id": str(item["VolumeId"]),
                "sizeGiB": str(item["Size"]),
                "zone": str(item["AvailabilityZone"]),
                "state": str(item["State"]),
                "nodeId": str(next((a["InstanceId"] for a in item.get("Attachments", [])), "")),
            }
            for item in items
            if scope.holds(from_tags(item.get("Tags")))
        ]

    async def ensure_volume(self, token: str, size_gib: int, zone: str, tags: Mapping[str, str]) -> str:
        """Makes the volume of a token; EC2 gives the same one for the same token."""
        made = await self.session.call(
            "create_volume",
            f"CreateVolume {size_gib} GiB in {zone}",
            Size=size_gib,
            AvailabilityZone=zone,
            VolumeType="gp3",
            ClientToken=token,
            TagSpecifications=token_tags({**tags, TAG_TOKEN: token}, "volume"),
        )
        return str(made["VolumeId"])

    async def attach_volume(self, volume_id: str, node_id: str, device: str) -> None:
        """Binds a volume to an instance."""
        await self.session.call("attach_volume", VolumeId=volume_id, InstanceId=node_id, Device=device)

    async def detach_volume(self, volume_id: str) -> None:
        """Frees a volume; one that is free is fine."""
        items = await self.session.pages("describe_volumes", "Volumes", VolumeIds=[volume_id])
        for attachment in (held for item in items for held in item.get("Attachments", [])):
            await self.session.call("detach_volume", VolumeId=volume_id, InstanceId=attachment["InstanceId"])

    async def delete_volume(self, volume_id: str) -> None:
        """Deletes a volume."""
        try:
            await self.session.call("delete_volume", f"DeleteVolume {volume_id}", VolumeId=volume_id)
        except NotFound:
            return
