"""Stop, start, reboot, another type."""

from __future__ import annotations

import secrets

from cloudmesh.compute.providers.aws.nodes import TAG_BOOT
from cloudmesh.compute.providers.aws.powers.base import Power
from cloudmesh.engine.errors import Conflict


class Lifecycle(Power):
    """What happens to a machine between its making and its end."""

    async def stop_node(self, node_id: str) -> None:
        """Stops; only the disk is paid then."""
        await self.session.call("stop_instances", f"StopInstances {node_id}", InstanceIds=[node_id])

    async def start_node(self, node_id: str) -> None:
        """Starts."""
        await self.session.call("start_instances", f"StartInstances {node_id}", InstanceIds=[node_id])

    async def reboot_node(self, node_id: str) -> None:
        """Reboots, and notes it: EC2 itself tells of a reboot nowhere."""
        await self.session.call("reboot_instances", f"RebootInstances {node_id}", InstanceIds=[node_id])
        tags = [{"Key": TAG_BOOT, "Value": secrets.token_hex(4)}]
        await self.session.call("create_tags", f"CreateTags {node_id}", Resources=[node_id], Tags=tags)

    async def resize_node(self, node_id: str, type_: str) -> None:
        """Changes the type.

        Raises:
            Conflict: The machine isn't stopped.
        """
        state = (await self._instance(node_id)).get("State", {}).get("Name")
        if state != "stopped":
            raise Conflict(f"the instance {node_id} is {state}: stop it before its type is changed")
        await self.session.call(
            "modify_instance_attribute",
            f"ModifyInstanceAttribute {node_id}",
            InstanceId=node_id,
            InstanceType={"Value": type_},
        )
