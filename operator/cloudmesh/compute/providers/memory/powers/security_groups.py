"""Power SecurityGroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.compute.providers.memory.provider import MemoryProvider


class SecurityGroups(MemoryProvider):
    """Firewalls with rules of what may come in."""

    async def list_security_groups(self) -> Sequence[Mapping[str, Any]]:
        """Each with `id`, `name`, `rules`."""
        groups = await self.call("ListGroups", lambda: list(self.cloud.resources.groups.values()))
        return [{"id": group.id, "name": group.name, "rules": [dict(rule) for rule in group.rules]} for group in groups]

    async def ensure_security_group(
        self, name: str, rules: Sequence[Mapping[str, Any]], tags: Mapping[str, str]
    ) -> str:
        """Makes it have exactly these rules; gives its id."""
        return await self.call("PutGroup", lambda: self.cloud.resources.put_group(name, rules, tags))

    async def delete_security_group(self, name: str) -> bool:
        """Deletes it; False while machines hold it."""
        return await self.call("DeleteGroup", lambda: self.cloud.delete_group(name))
