"""Tags of a user's own, names, console, and machines that somebody else made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.ports import Node
from cloudmesh.compute.providers.aws.nodes import from_tags, to_node, to_tags
from cloudmesh.compute.providers.aws.powers.base import Power
from cloudmesh.compute.tokens import PREFIX, TAG_ACCOUNT, TAG_INSTALLATION, TAG_NAMESPACE, TAG_UID
from cloudmesh.engine.errors import Conflict, InvalidRequest

MAX_KEY, MAX_VALUE, MAX_TAGS = 128, 256, 50


class Labels(Power):
    """Words on machines."""

    async def set_metadata(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Sets tags; ours can't be changed here.

        Raises:
            InvalidRequest: A key or value that EC2 doesn't take, or one of ours.
        """
        _check(tags)
        items = [{"Key": key, "Value": value} for key, value in tags.items()]
        await self.session.call("create_tags", f"CreateTags {node_id}", Resources=[node_id], Tags=items)

    async def delete_metadata(self, node_id: str, keys: Sequence[str]) -> None:
        """Removes tags."""
        _check(dict.fromkeys(keys, ""))
        items = [{"Key": key} for key in keys]
        if items:
            await self.session.call("delete_tags", f"DeleteTags {node_id}", Resources=[node_id], Tags=items)

    async def rename_node(self, node_id: str, name: str) -> None:
        """Sets the tag `Name`."""
        tags = [{"Key": "Name", "Value": name}]
        await self.session.call("create_tags", f"CreateTags {node_id}", Resources=[node_id], Tags=tags)

    async def console_output(self, node_id: str) -> str:
        """The console's text."""
        answer = await self.session.call("get_console_output", f"GetConsoleOutput {node_id}", InstanceId=node_id)
        return str(answer.get("Output") or "")

    async def adopt_node(self, node_id: str, tags: Mapping[str, str]) -> Node:
        """Sets our tags on an instance that has no owner yet."""
        instance = await self._instance(node_id)
        held = from_tags(instance.get("Tags"))
        for key in (TAG_INSTALLATION, TAG_NAMESPACE, TAG_ACCOUNT, TAG_UID):
            if held.get(key, tags.get(key)) != tags.get(key):
                raise Conflict(f"the instance {node_id} is owned already: its tag {key} is {held[key]!r}")
        if instance.get("State", {}).get("Name") in ("terminated", "shutting-down"):
            raise InvalidRequest(f"the instance {node_id} has ended")
        ours = [tag for tag in to_tags(tags) if tag["Key"] != "Name"]
        await self.session.call("create_tags", f"CreateTags {node_id}", Resources=[node_id], Tags=ours)
        return to_node(await self._instance(node_id), self.session.region)

    async def release_node(self, node_id: str) -> None:
        """Takes our tags off."""
        held = from_tags((await self._instance(node_id)).get("Tags"))
        ours = [{"Key": key} for key in held if key.startswith(PREFIX)]
        if ours:
            await self.session.call("delete_tags", f"DeleteTags {node_id}", Resources=[node_id], Tags=ours)


def _check(tags: Mapping[str, str]) -> None:
    if len(tags) > MAX_TAGS:
        raise InvalidRequest(f"EC2 takes at most {MAX_TAGS} tags on a machine")
    for key, value in tags.items():
        if key.startswith(PREFIX) or key.lower().startswith("aws:"):
            raise InvalidRequest(f"the tag {key!r} is reserved")
        if not 1 <= len(key) <= MAX_KEY or len(value) > MAX_VALUE:
            raise InvalidRequest(f"the tag {key[:40]!r}: EC2 takes keys of 1 to {MAX_KEY} and values to {MAX_VALUE}")
