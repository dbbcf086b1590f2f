"""The core port of EC2: check, offers, listings, create once, delete."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from cloudmesh.compute.ports import Access, Complete, Finding, Listing, Node, NodeSpec, Partial, ProviderInfo
from cloudmesh.compute.prices.money import to_text
from cloudmesh.compute.providers.aws.check import CHANGES, LOOKS, Examples, knows_dry_run, not_tried, try_all
from cloudmesh.compute.providers.aws.errors import Denied
from cloudmesh.compute.providers.aws.images import DEFAULT, Images, read_images
from cloudmesh.compute.providers.aws.nodes import from_tags, root_volume, to_node, to_tags
from cloudmesh.compute.providers.aws.offers import read_offers
from cloudmesh.compute.providers.aws.powers.base import Power, Subnets
from cloudmesh.compute.providers.aws.session import Session, filters
from cloudmesh.compute.tokens import TAG_TOKEN, TAG_UID, Scope
from cloudmesh.engine import utc_now
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, NotFound, Transient
from cloudmesh.policy.model import Offer

USER = "cm"
LIVING = ("pending", "running", "stopped")
DISK_SECONDS = 30.0
"""Sizes of disks are read so often, beside the listings: another one is seen within a minute."""
REQUESTS_PER_SECOND = 20.0
"""EC2's buckets hold 100 calls that look and 50 that change, and fill by 20 and 5 a second; others use them too."""


class AwsCore(Power):
    """EC2 of one region.

    Args:
        session: Calls.
        account: Name of the CloudAccount.
        spec: `{"region", "zones", "instanceTypes", "subnetIds"}`, as spec.aws of the account holds it.
        create_seconds: How long a create call may take.
        disk_seconds: How old the sizes of disks may be.
        scope: Whose machines; without an installation where none is known.
        images: Image aliases and EC2's own ids.
    """

    def __init__(
        self,
        session: Session,
        account: str,
        spec: Mapping[str, Any],
        create_seconds: int,
        disk_seconds: float = DISK_SECONDS,
        scope: Scope | None = None,
        images: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.info = ProviderInfo(
            kind="aws",
            grace_seconds=300,
            create_seconds=create_seconds,
            native_tokens=True,
            user=USER,
            requests_per_second=REQUESTS_PER_SECOND,
            lacks={"PartialListings": "EC2 has no listing that leaves a zone out and succeeds"},
        )
        self.session = session
        self.account = account
        self.trusted = not spec.get("endpoint")
        """Whether the endpoint is AWS's own: a dry run on a machine of ours ends none there."""
        self._scope = scope or Scope("", "", account)
        self._images = images
        self._living = ""
        self._zones: tuple[str, ...] = tuple(spec.get("zones") or ())
        self._types: tuple[str, ...] = tuple(spec.get("instanceTypes") or ())
        self._root_devices: dict[str, str] = {}
        self._subnet_ids = tuple(spec.get("subnetIds") or ())
        self._disk_seconds = disk_seconds
        self._sizes: Mapping[str, int] = {}
        self._sizes_until = 0.0

    def __repr__(self) -> str:
        return f"<aws account {self.account} in {self.session.region}>"

    @property
    def default_image(self) -> str:
        """Id of what machines are made of that name no image, empty if the account has none."""
        return self._images.get(DEFAULT, "")

    async def close(self) -> None:
        """Closes connections."""
        self.session.close()

    async def check(self) -> Sequence[Finding]:
        """Who we are, and each call that the powers need, tried without effect."""
        identity = await self.session.identity()
        found = [Finding("credentials", True, f"account {identity.get('Account')}, {identity.get('Arn')}")]
        images = Images({}, {})
        with contextlib.suppress(CloudmeshError):  # the look at images tells
            images = await read_images(self.session, self._images)
            found.append(images.finding())
        examples = await self._examples(images)
        found += await try_all(self.session, LOOKS, examples, dry=False)
        if self.trusted or await knows_dry_run(self.session):
            return found + await try_all(self.session, CHANGES, examples, dry=True)
        return found + not_tried(CHANGES, "the endpoint doesn't know dry runs, and nothing else has no effect")

    async def _examples(self, images: Images) -> Examples:
        """What calls are tried with; things of ours only where a dry run is one for sure."""
        subnets, group = Subnets({}, ""), ""
        with contextlib.suppress(CloudmeshError):  # the look at subnets tells
            subnets = await self.subnets()
        if self.trusted and self._scope.installation:
            wanted = filters({f"tag:{key}": value for key, value in self._scope.tags().items()})
            with contextlib.suppress(CloudmeshError):  # the look at machines tells
                if not self._living:
                    await self.list_nodes(self._scope)
            with contextlib.suppress(CloudmeshError):  # the look at groups tells
                groups = await self.session.pages("describe_security_groups", "SecurityGroups", Filters=wanted)
                group = next((str(g["GroupId"]) for g in groups if self._scope.holds(from_tags(g.get("Tags")))), "")
        zone, subnet = next(iter(subnets.by_zone.items()), ((*self._zones, f"{self.session.region}a")[0], ""))
        type_, image = images.example(self._images, (*self._types, "t3.micro", "t4g.micro"))
        return Examples(
            {key: value for key, value in self._scope.tags().items() if value},
            zone,
            type_,
            image,
            subnet,
            subnets.vpc,
            self._subnet_ids,
            self._living if self.trusted else "",
            group,
        )

    async def offers(self) -> Sequence[Offer]:
        """All offers of the region; on demand without a price, which the catalogue knows."""
        subnets = await self.subnets()
        zones = self._zones or tuple(subnets.by_zone)
        network = f"{self.session.region}/{subnets.vpc or 'default'}"
        images = await read_images(self.session, self._images)
        return await read_offers(self.session, self.account, images, zones=zones, types=self._types, network=network)

    async def list_nodes(self, scope: Scope) -> Listing:
        """All of the scope's instances; EC2 shows those that ended for about an hour more."""
        wanted = filters({f"tag:{key}": value for key, value in scope.tags().items()})
        instances: dict[str, Mapping[str, Any]] = {}  # pages may repeat an instance
        token = partial = ""
        while True:
            more = {"NextToken": token} if token else {}
            try:
                page = await self.session.call("describe_instances", Filters=wanted, MaxResults=1000, **more)
            except CloudmeshError as error:
                if not instances:
                    raise
                partial = f"a page failed: {error}"
                break
            instances |= {
                str(instance["InstanceId"]): instance
                for reservation in page.get("Reservations", [])
                for instance in reservation.get("Instances", [])
                if scope.holds(from_tags(instance.get("Tags")))
            }
            token = str(page.get("NextToken") or "")
            if not token:
                break
        as_of = utc_now()
        self._living = next((name for name, i in instances.items() if i["State"]["Name"] in LIVING), "")
        if any(root_volume(instance) for instance in instances.values()):
            await self._read_sizes(wanted)
        nodes = tuple(to_node(instance, self.session.region, self._sizes) for instance in instances.values())
        return Partial(nodes, as_of, partial) if partial else Complete(nodes, as_of)

    async def _read_sizes(self, wanted: list[dict[str, Any]]) -> None:
        """Reads the sizes of our disks, now and then; a listing without them is a listing all the same."""
        clock = asyncio.get_running_loop().time()
        if clock < self._sizes_until:
            return
        self._sizes_until = clock + self._disk_seconds
        with contextlib.suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(self._disk_seconds):
                volumes = await self.session.pages("describe_volumes", "Volumes", Filters=wanted)
            self._sizes = {str(volume["VolumeId"]): int(volume.get("Size") or 0) for volume in volumes}

    async def find_node(self, spec: NodeSpec) -> Node | None:
        """The instance of a token: by the filter `client-token`, then by our tag, each answer looked at again."""
        for wanted in ({"client-token": spec.token}, {f"tag:{TAG_TOKEN}": spec.token}):
            try:
                reservations = await self.session.pages("describe_instances", "Reservations", Filters=filters(wanted))
            except InvalidRequest:
                continue  # a cloud that looks like EC2 and doesn't know the filter
            instances = [i for r in reservations for i in r.get("Instances", [])]
            mine = [to_node(i, self.session.region, self._sizes) for i in instances if _has_token(i, spec.token)]
            if mine:
                mine.sort(key=lambda node: (node.state in ("Deleted", "Deleting"), node.created_at, node.id))
                self._check_owner(mine[0], spec)
                return mine[0]
        return None

    def _check_owner(self, node: Node, spec: NodeSpec) -> None:
        owner = node.tags.get(TAG_UID, "")
        if not spec.scope.holds(node.tags) or (spec.uid and owner and owner != spec.uid):
            raise Conflict(f"the instance {node.id} of token {spec.token} belongs to somebody else")

    async def ensure_node(self, spec: NodeSpec) -> Node:
        """Runs the instance of a token; EC2 itself gives the same one for the same token and zone."""
        what = f"RunInstances {spec.offer.type} {spec.offer.purchase} in {spec.offer.zone or self.session.region}"
        answer = await self.session.call("run_instances", what, **await self._request(spec))
        instances = answer.get("Instances") or []
        if not instances:
            raise Transient(f"{what}: the answer names no instance")
        node = to_node(instances[0], self.session.region)
        self._check_owner(node, spec)
        return node

    async def _request(self, spec: NodeSpec) -> dict[str, Any]:
        if spec.offer.region != self.session.region:
            raise InvalidRequest(f"the region {spec.offer.region!r} isn't the account's, {self.session.region!r}")
        if not (image := spec.image or self.default_image):
            raise InvalidRequest(
                f"no image is named, and spec.images of the CloudAccount has none of the alias {DEFAULT!r}"
            )
        tags = to_tags({**spec.tags, **spec.scope.tags(), TAG_TOKEN: spec.token, TAG_UID: spec.uid})
        kinds = ["instance", "volume", *(["spot-instances-request"] if spec.offer.purchase == "Spot" else [])]
        subnet = (await self.subnets()).by_zone.get(spec.offer.zone, "")
        groups = [group] if (group := spec.ground.get("securityGroupId", "")) else []
        request: dict[str, Any] = {
            "ImageId": image,
            "InstanceType": spec.offer.type,
            "MinCount": 1,
            "MaxCount": 1,
            "ClientToken": spec.token,
            # in the call itself: a tag that came later would leave a moment in which nobody owns the machine
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in kinds],
            "UserData": user_data(spec.name, spec.access),  # botocore encodes it
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "InstanceInitiatedShutdownBehavior": "terminate" if spec.offer.purchase == "Spot" else "stop",
        }
        if spec.offer.zone:
            request["Placement"] = {"AvailabilityZone": spec.offer.zone}
        # said either way: a subnet may give public addresses by itself
        face = {"DeviceIndex": 0, "AssociatePublicIpAddress": spec.public_address, "DeleteOnTermination": True}
        request["NetworkInterfaces"] = [
            face | ({"SubnetId": subnet} if subnet else {}) | ({"Groups": groups} if groups else {})
        ]
        if spec.disk_gib:
            disk = {"VolumeSize": spec.disk_gib, "VolumeType": "gp3", "DeleteOnTermination": True}
            request["BlockDeviceMappings"] = [{"DeviceName": await self._root_device(image), "Ebs": disk}]
        if spec.offer.purchase == "Spot":
            options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            if (price := spec.offer.price) is not None and price.currency == "USD" and price.confidence == "fetched":
                # EC2 bills what spot costs at the moment: beyond what was quoted it shall take the machine away instead
                options["MaxPrice"] = to_text(price.nanos)
            request["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
        return request

    async def _root_device(self, image: str) -> str:
        """Name of an image's root device: a mapping of another name would make a second disk."""
        if image not in self._root_devices:
            found = await self.session.pages("describe_images", "Images", ImageIds=[image])
            if not found:
                raise InvalidRequest(f"there is no image {image!r} in {self.session.region}")
            self._root_devices[image] = str(found[0].get("RootDeviceName") or "/dev/sda1")
        return self._root_devices[image]

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        """Terminates an instance after a look at whose it is; one too young to be seen is ended all the same."""
        nodes: list[Node] = []
        with contextlib.suppress(NotFound):
            reservations = await self.session.pages("describe_instances", "Reservations", InstanceIds=[node_id])
            nodes = [to_node(i, self.session.region) for r in reservations for i in r.get("Instances", [])]
            for node in nodes:
                if not scope.holds(node.tags):
                    raise Conflict(f"the instance {node_id} isn't ours: its tags name another owner")
                if node.state == "Deleted":
                    return
        try:
            await self.session.call("terminate_instances", f"TerminateInstances {node_id}", InstanceIds=[node_id])
        except NotFound:
            return
        except Denied:
            if nodes:
                raise
            # a policy bound to tags allows nothing on what isn't there; if it is young, a listing brings it back


def user_data(name: str, access: Access) -> str:
    """Cloud-init's configuration: a user, its keys, and the host key that clients expect already."""
    config: dict[str, Any] = {
        "hostname": name,
        "preserve_hostname": False,
        "ssh_pwauth": False,
        "users": [
            "default",
            {
                "name": USER,
                "shell": "/bin/bash",
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": list(access.authorized_keys),
            },
        ],
    }
    if access.host_key:
        config["ssh_deletekeys"] = True
        config["ssh_keys"] = {"ed25519_private": access.host_key, "ed25519_public": access.host_public_key}
    return "#cloud-config\n" + json.dumps(config, indent=1)


def _has_token(instance: Mapping[str, Any], token: str) -> bool:
    tags = {tag["Key"]: tag.get("Value", "") for tag in instance.get("Tags") or ()}
    return token in (instance.get("ClientToken"), tags.get(TAG_TOKEN))
