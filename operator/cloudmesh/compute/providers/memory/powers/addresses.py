"""Power Addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.memory.provider import MemoryProvider


class Addresses(MemoryProvider):
    """Addresses of the internet that outlive a machine."""

    async def list_addresses(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `address`, `nodeId`."""
        held = await self.call("ListAddresses", lambda: list(self.cloud.resources.addresses.values()))
        return [{"id": each.id, "address": each.address, "nodeId": each.node_id} for each in held]

    async def allocate_address(self, token: str, tags: Mapping[str, str]) -> str:
        """Gives the id of the address of this token; never a second one."""
        return await self.call("AllocateAddress", lambda: self.cloud.resources.hold_address(token, tags))

    async def attach_address(self, address_id: str, node_id: str) -> None:
        """Binds it."""
        await self.call("AttachAddress", lambda: self.cloud.bind(self.cloud.resources.addresses, address_id, node_id))

    async def detach_address(self, address_id: str) -> None:
        """Frees it."""
        await self.call("DetachAddress", lambda: self.cloud.resources.free(self.cloud.resources.addresses, address_id))

    async def release_address(self, address_id: str) -> None:
        """Gives it back; an absent one is fine."""
        await self.call("ReleaseAddress", lambda: self.cloud.resources.drop(self.cloud.resources.addresses, address_id))
