"""The optional powers of hosts of one's own: tags, and their list as machine types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudmesh.compute.providers.ssh.core import SshCore
from cloudmesh.compute.providers.ssh.hosts import join_claim
from cloudmesh.compute.tokens import PREFIX
from cloudmesh.engine import InvalidRequest


class Metadata(SshCore):
    """Tags of a user's own, kept in the claim."""

    async def set_metadata(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Sets or replaces."""
        self._refuse_ours(tags)
        _, claim = await self.read(node_id)
        await self.retag(node_id, claim, join_claim(replace(claim, tags={**claim.tags, **tags})))

    async def delete_metadata(self, node_id: str, keys: Sequence[str]) -> None:
        """Removes; absent ones are fine."""
        self._refuse_ours(keys)
        _, claim = await self.read(node_id)
        left = {key: value for key, value in claim.tags.items() if key not in keys}
        await self.retag(node_id, claim, join_claim(replace(claim, tags=left)))

    def _refuse_ours(self, keys: Mapping[str, str] | Sequence[str]) -> None:
        if ours := [key for key in keys if key.startswith(PREFIX)]:
            raise InvalidRequest(f"tags under {PREFIX} are the operator's own: {', '.join(ours)}")


class Flavors(SshCore):
    """The hosts as machine types."""

    async def list_flavors(self) -> Sequence[Mapping[str, str]]:
        """Each with `name`, `vcpu`, `memoryMiB`, `arch`."""
        return [
            {
                "name": host.name,
                "vcpu": f"{host.milli_vcpu / 1000:g}",
                "memoryMiB": str(host.memory_mib),
                "arch": host.arch,
            }
            for host in self.hosts.values()
        ]


class SshProvider(Metadata, Flavors):
    """Hosts of one's own with all that they can."""
