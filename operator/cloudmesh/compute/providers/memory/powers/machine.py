"""Powers Reboot, Resize, Rename, Console and Metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.memory.provider import MemoryProvider
from cloudmesh.compute.tokens import PREFIX
from cloudmesh.engine.errors import InvalidRequest


class Reboot(MemoryProvider):
    """Starts a running machine anew."""

    async def reboot_node(self, node_id: str) -> None:
        """Asks for a reboot."""
        await self.call("RebootInstance", lambda: self.cloud.reboot(node_id))


class Resize(MemoryProvider):
    """Changes the type of a stopped machine."""

    async def resize_node(self, node_id: str, type_: str) -> None:
        """Asks for another type."""
        await self.call("ResizeInstance", lambda: self.cloud.resize(node_id, type_))


class Rename(MemoryProvider):
    """Changes the name that the cloud shows."""

    async def rename_node(self, node_id: str, name: str) -> None:
        """Sets it."""
        await self.call("RenameInstance", lambda: self.cloud.change(node_id, name=name))


class Console(MemoryProvider):
    """What a machine wrote to its console."""

    async def console_output(self, node_id: str) -> str:
        """The text, newest last; empty if there is none yet."""
        return await self.call("GetConsole", lambda: self.cloud.console(node_id))


class Metadata(MemoryProvider):
    """Tags of a user's own on a machine."""

    async def set_metadata(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Sets or replaces."""
        _check_keys(tags)
        await self.call("SetTags", lambda: self.cloud.change_tags(node_id, tags))

    async def delete_metadata(self, node_id: str, keys: Sequence[str]) -> None:
        """Removes; absent ones are fine."""
        _check_keys(keys)
        await self.call("DeleteTags", lambda: self.cloud.change_tags(node_id, {}, keys))


def _check_keys(keys: Sequence[str] | Mapping[str, str]) -> None:
    """A user's tags never touch those by which a machine is found again."""
    if ours := [key for key in keys if key.startswith(PREFIX)]:
        raise InvalidRequest(f"the tags {', '.join(ours)} are the operator's own")
