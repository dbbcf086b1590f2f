"""Images, machine types, networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudmesh.compute.providers.aws.images import ARCHITECTURES
from cloudmesh.compute.providers.aws.powers.base import Power
from cloudmesh.compute.providers.aws.session import filters

IMAGE_OWNERS = ("self", "136693071363", "099720109477")
"""Whose images are listed: the account's own, Debian's and Canonical's, as both publish their numbers
(https://wiki.debian.org/Cloud/AmazonEC2Image, https://documentation.ubuntu.com/aws/). Anybody may publish an image
under their names. An alias of the account may stand for an image of any owner."""


class Catalogue(Power):
    """What there is to choose from."""

    async def list_images(self) -> Sequence[Mapping[str, str]]:
        """The account's own images and those of Debian and Canonical."""
        items = await self.session.pages(
            "describe_images", "Images", Owners=list(IMAGE_OWNERS), Filters=filters({"state": "available"})
        )
        return [
            {
                "id": str(item["ImageId"]),
                "name": str(item.get("Name", "")),
                "arch": ARCHITECTURES.get(str(item.get("Architecture")), str(item.get("Architecture", ""))),
            }
            for item in items
        ]

    async def list_flavors(self) -> Sequence[Mapping[str, str]]:
        """Machine types of the current generation."""
        items = await self.session.pages(
            "describe_instance_types", "InstanceTypes", Filters=filters({"current-generation": "true"})
        )
        return [
            {
                "name": str(item["InstanceType"]),
                "vcpu": str(item["VCpuInfo"]["DefaultVCpus"]),
                "memoryMiB": str(item["MemoryInfo"]["SizeInMiB"]),
                "arch": "arm64" if "arm64" in item["ProcessorInfo"]["SupportedArchitectures"] else "amd64",
            }
            for item in items
        ]

    async def list_networks(self) -> Sequence[Mapping[str, str]]:
        """Subnets."""
        items = await self.session.pages("describe_subnets", "Subnets")
        return [
            {
                "id": str(item["SubnetId"]),
                "name": next((t["Value"] for t in item.get("Tags", []) if t["Key"] == "Name"), ""),
                "cidr": str(item.get("CidrBlock", "")),
                "zone": str(item.get("AvailabilityZone", "")),
            }
            for item in items
        ]
