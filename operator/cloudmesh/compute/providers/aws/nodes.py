"""An EC2 instance as a node, and tags both ways. EC2 takes our tag names as they are."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cloudmesh.compute.ports import Node, NodeState
from cloudmesh.compute.providers.aws.errors import of_code
from cloudmesh.compute.tokens import PREFIX, TAG_MACHINE, TAG_TOKEN
from cloudmesh.engine.errors import CloudmeshError

_STATES: Mapping[str, NodeState] = {
    "pending": "Pending",
    "running": "Running",
    "stopping": "Stopping",
    "stopped": "Stopped",
    "shutting-down": "Deleting",
    "terminated": "Deleted",
}
TAG_BOOT = PREFIX + "boot"
"""Changes with each reboot that we asked for."""


def to_tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """EC2's list of tags, with the `Name` that its console shows."""
    name = {"Name": tags[TAG_MACHINE]} if TAG_MACHINE in tags else {}
    return [{"Key": key, "Value": value} for key, value in {**name, **tags}.items()]


def from_tags(tags: Sequence[Mapping[str, str]] | None) -> dict[str, str]:
    """Our tags back."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or () if tag["Key"] != "Name"}


def root_volume(instance: Mapping[str, Any]) -> str:
    """Id of the volume that an instance starts from, empty if it isn't told."""
    devices = {each.get("DeviceName"): each.get("Ebs") or {} for each in instance.get("BlockDeviceMappings") or ()}
    return str(devices.get(instance.get("RootDeviceName"), {}).get("VolumeId", ""))


def to_node(instance: Mapping[str, Any], region: str, sizes: Mapping[str, int] = MappingProxyType({})) -> Node:
    """The node of an instance as DescribeInstances and RunInstances tell it.

    Args:
        instance: What they tell.
        region: Its region.
        sizes: GiB of volumes, by id.
    """
    tags = from_tags(instance.get("Tags"))
    state = _STATES.get(instance.get("State", {}).get("Name", ""), "Pending")
    public, private = instance.get("PublicIpAddress") or "", instance.get("PrivateIpAddress") or ""
    launched = instance.get("LaunchTime")
    spot = instance.get("InstanceLifecycle") == "spot"
    reason = instance.get("StateReason") or {}
    details = {"name": str(n)} if (n := _name(instance)) else {}
    if size := sizes.get(root_volume(instance)):
        details["diskGiB"] = str(size)
    if reason.get("Code"):
        details["reason"] = f"{reason['Code']}: {reason.get('Message', '')}"[:300]
    if reason.get("Code") in ("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"):
        details["preempted"] = "true"
    created = launched.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if launched else ""
    return Node(
        id=str(instance["InstanceId"]),
        token=tags.get(TAG_TOKEN, ""),
        state=state,
        tags=tags,
        type=str(instance.get("InstanceType", "")),
        region=region,
        zone=str(instance.get("Placement", {}).get("AvailabilityZone", "")),
        purchase="Spot" if spot else "OnDemand",
        image=str(instance.get("ImageId", "")),
        private_address=private,
        public_address=public,
        host=public or private,
        created_at=created,
        boot_id=(launched.isoformat() if launched else "")
        + tags.get(TAG_BOOT, ""),  # EC2 sets LaunchTime anew at each start, not at a reboot
        failure=_failure(state, reason),
        details=details,
    )


def _name(instance: Mapping[str, Any]) -> str:
    return next((tag.get("Value", "") for tag in instance.get("Tags") or () if tag["Key"] == "Name"), "")


def _failure(state: NodeState, reason: Mapping[str, str]) -> CloudmeshError | None:
    """Why an instance ended that nobody asked to end: EC2 accepts a request and may find no room afterwards."""
    code = str(reason.get("Code") or "")
    if state not in ("Deleted", "Deleting") or not code or code.startswith("Client.User"):
        return None
    return of_code(code, f"the instance ended: {code}: {reason.get('Message', '')}"[:500])
