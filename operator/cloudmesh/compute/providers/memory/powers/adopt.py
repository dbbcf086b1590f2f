"""Power Adopt."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.ports import Node
from cloudmesh.compute.providers.memory.provider import MemoryProvider, to_node
from cloudmesh.compute.tokens import PREFIX
from cloudmesh.engine.errors import Conflict, InvalidRequest, NotFound


class Adopt(MemoryProvider):
    """Takes a machine over that somebody else made."""

    async def adopt_node(self, node_id: str, tags: Mapping[str, str]) -> Node:
        """Sets our tags on it; it may carry them already."""
        try:
            instance = await self.call("GetInstance", lambda: self.cloud.get_instance(node_id))
        except NotFound:
            raise InvalidRequest(f"there is no machine {node_id}") from None
        theirs = {key: value for key, value in instance.tags.items() if key.startswith(PREFIX)}
        if any(tags.get(key) != value for key, value in theirs.items()):
            raise Conflict(f"{node_id} belongs to another owner")
        return to_node(await self.call("SetTags", lambda: self.cloud.change_tags(node_id, tags)))

    async def release_node(self, node_id: str) -> None:
        """Takes our tags off; the machine goes on."""
        try:
            instance = await self.call("GetInstance", lambda: self.cloud.get_instance(node_id))
            keys = [key for key in instance.tags if key.startswith(PREFIX)]
            await self.call("DeleteTags", lambda: self.cloud.change_tags(node_id, {}, keys))
        except NotFound:
            return
