"""Power KeyPairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.memory.provider import MemoryProvider


class KeyPairs(MemoryProvider):
    """Public keys that the cloud knows by name."""

    async def list_key_pairs(self) -> Sequence[Mapping[str, str]]:
        """Each with `name`, `fingerprint`."""
        pairs = await self.call("ListKeyPairs", lambda: list(self.cloud.resources.key_pairs.values()))
        return [{"name": pair.name, "fingerprint": pair.fingerprint} for pair in pairs]

    async def import_key_pair(self, name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Makes it; the same key under the same name is fine."""
        await self.call("ImportKeyPair", lambda: self.cloud.resources.import_key_pair(name, public_key, tags))

    async def delete_key_pair(self, name: str) -> None:
        """Deletes it; an absent one is fine."""
        await self.call("DeleteKeyPair", lambda: self.cloud.resources.key_pairs.pop(name, None))
