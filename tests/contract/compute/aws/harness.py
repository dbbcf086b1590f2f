"""moto behind the fault proxy in the hands of the conformance suite."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import boto3
from botocore.config import Config

from cloudmesh.compute.ports import Provider
from cloudmesh.compute.providers.aws import make
from cloudmesh.compute.providers.aws.nodes import from_tags, to_tags
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import PREFIX, TAG_INSTALLATION, TAG_TOKEN, Scope
from cloudmesh.policy.model import Offer
from cloudmesh.testing.providers import BaseHarness, Injection, Seen
from cloudmesh.testing.providers.harness import Operation
from cloudmesh.testing.proxy import Call, FaultProxy
from cloudmesh.testing.proxy.aws import AwsDialect

IMAGE, OTHER_IMAGE = "ami-1e749f67", "ami-12c6146b"
ARM_IMAGE = "ami-0e9271c829888680e"
IMAGES = {"suite": IMAGE, "other": OTHER_IMAGE}
GOOD, BAD = "AKIASUITEGOOD", "AKIASUITEBAD"
GOOD_SECRET, BAD_SECRET = "good-secret-5f1c9d", "bad-secret-77be02"
READ_SECONDS = 4
CREATE_SECONDS = 6


def _asks(call: Call, name: str) -> bool:
    return any(entry["Name"] == name for entry in call.parameters.get("Filters") or ())


def _is_find(call: Call) -> bool:
    return call.operation == "DescribeInstances" and (_asks(call, "client-token") or _asks(call, f"tag:{TAG_TOKEN}"))


def _is_list(call: Call) -> bool:
    return call.operation == "DescribeInstances" and _asks(call, f"tag:{TAG_INSTALLATION}")


def _named(*operations: str) -> Callable[[Call], bool]:
    return lambda call: call.operation in operations


CALLS: Mapping[Operation, Callable[[Call], bool]] = {
    "create": lambda call: call.operation == "RunInstances" and not call.parameters.get("DryRun"),
    "find": _is_find,
    "list": _is_list,
    "delete": lambda call: call.operation == "TerminateInstances" and not call.parameters.get("DryRun"),
    "offers": _named("DescribeInstanceTypes", "DescribeInstanceTypeOfferings", "DescribeSpotPriceHistory"),
    "check": _named("GetCallerIdentity"),
    "any": lambda call: True,
}


class AwsHarness(BaseHarness):
    """EC2 of one region; moto is emptied before each case.

    Args:
        moto: Base URL of the emulator.
    """

    name = "aws"
    kind = "aws"
    image = IMAGE
    many = 12
    settle_seconds = 15.0
    call_seconds = 3.0 * READ_SECONDS
    case_seconds = 90.0
    secrets = (GOOD_SECRET, BAD_SECRET)

    def __init__(self, moto: str) -> None:
        self._moto = moto
        self._scope = Scope("", "", "")
        self._providers: list[Provider] = []
        self._numbers = itertools.count(1)
        self.dialect = AwsDialect()
        self._proxy: FaultProxy | None = None
        self._warm = False
        self._ec2: Any = boto3.client(
            "ec2",
            region_name="us-east-1",
            endpoint_url=moto,
            aws_access_key_id="harness",
            aws_secret_access_key="harness",
            config=Config(retries={"total_max_attempts": 1}),
        )

    @property
    def proxy(self) -> FaultProxy:
        """The proxy of this case."""
        assert self._proxy is not None
        return self._proxy

    async def open(self, scope: Scope) -> None:
        """An empty emulator and a proxy that hinders nothing."""
        self._scope = scope
        await asyncio.to_thread(self._reset)
        if not self._warm:  # the emulator reads its types at the first request, which takes seconds
            await asyncio.to_thread(self._ec2.describe_instance_types, InstanceTypes=["t3.micro"])
            await asyncio.to_thread(self._ec2.describe_instance_type_offerings)
            self._warm = True
        self.dialect = AwsDialect(access_keys=frozenset({GOOD}), blind_finds=False)
        self._proxy = await FaultProxy(self._moto, self.dialect).__aenter__()

    def _reset(self) -> None:
        with urllib.request.urlopen(urllib.request.Request(self._moto + "/moto-api/reset", method="POST"), timeout=30):
            pass
        # one of the account's own, since those that are listed of others' are all for x86_64
        self._ec2.copy_image(Name="suite-arm64", SourceImageId=ARM_IMAGE, SourceRegion="us-east-1")

    async def shut(self) -> None:
        """Closes what the case opened; a request that the service doesn't know fails the case."""
        for provider in self._providers:
            await provider.close()
        self._providers.clear()
        await self.proxy.__aexit__(None, None, None)
        assert not self.dialect.invalid, f"not in the service's model: {self.dialect.invalid}"

    async def provider(self, *, bad_credentials: bool = False) -> Provider:
        """A new provider through the proxy."""
        key, secret = (BAD, BAD_SECRET) if bad_credentials else (GOOD, GOOD_SECRET)
        context = Context(
            self._scope.namespace,
            self._scope.account,
            "uid",
            {"region": "us-east-1", "endpoint": self.proxy.url, "instanceTypes": ["t3.micro", "t3.small", "m5.large"]},
            images=IMAGES,
            credentials={"aws_access_key_id": key.encode(), "aws_secret_access_key": secret.encode()},
            defaults={"readSeconds": str(READ_SECONDS), "createSeconds": str(CREATE_SECONDS), "diskSeconds": "1"},
        )
        self._providers.append(make(context))
        return self._providers[-1]

    async def inject(self, injection: Injection) -> None:
        """All that EC2 can do wrong."""
        proxy, dialect = self.proxy, self.dialect
        rule: dict[str, Any] = {"times": injection.times, "when": CALLS[injection.operation]}
        match injection.what:
            case "fail":
                proxy.add("answer", status=500, code="InternalError", **rule)
            case "fail-after":
                proxy.add("answer_after", status=500, code="InternalError", **rule)
            case "drop":
                proxy.add("cut_before", **rule)
            case "lose":
                proxy.add("cut_after", **rule)
            case "hang":
                proxy.add("hang", **rule)
            case "delay":
                proxy.add("delay", seconds=injection.seconds, **rule)
            case "twice":
                proxy.add("duplicate", **rule)
            case "limit":
                wait = injection.seconds or None
                proxy.add("answer", status=503, code="RequestLimitExceeded", retry_after=wait, **rule)
            case "capacity":
                proxy.add("answer", status=500, code="InsufficientInstanceCapacity", times=None, when=CALLS["create"])
            case "capacity-late":
                dialect.doom = "Server.InsufficientInstanceCapacity"
            case "quota":
                proxy.add("answer", status=400, code="VcpuLimitExceeded", times=None, when=CALLS["create"])
            case "revoked":
                dialect.access_keys = frozenset({"AKIASOMEBODYELSE"})
            case "lag":
                dialect.lag_seconds = injection.seconds
            case "stale":
                dialect.frozen = {
                    instance["InstanceId"]: (str(instance["State"]["Code"]), str(instance["State"]["Name"]))
                    for instance in await self._instances()
                }
            case "pages":
                dialect.page_size = injection.number
            case "page-fails":
                dialect.page_size = 2
                token = f"p{2 * (injection.number - 1)}" if injection.number > 1 else None
                proxy.add(
                    "answer", status=503, code="Unavailable", times=None,
                    when=lambda call: _is_list(call) and call.parameters.get("NextToken") == token,
                )  # fmt: skip
            case "repeats":
                dialect.page_size, dialect.repeats = 2, True
            case "filter":
                dialect.ignore_filters = True
            case "unpriced":
                pass  # those on demand always are
            case "slow-delete":
                dialect.ending_seconds = injection.seconds
            case unknown:
                raise NotImplementedError(unknown)

    async def heal(self) -> None:
        """All is well again; what has happened to machines stays."""
        self.proxy.clear()
        dialect = self.dialect
        dialect.access_keys = frozenset({GOOD})
        dialect.page_size, dialect.repeats, dialect.ignore_filters = 1000, False, False
        dialect.lag_seconds, dialect.ending_seconds, dialect.doom, dialect.frozen = 0.0, 0.0, "", None
        dialect.young.clear()
        dialect.ending.clear()

    async def _instances(self) -> list[dict[str, Any]]:
        answer = await asyncio.to_thread(self._ec2.describe_instances)
        return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]

    async def machines(self) -> Sequence[Seen]:
        """What moto has, by its own account."""
        hidden = self.dialect.ending
        now = time.monotonic()
        return [
            await self._seen(instance, ending=now < hidden.get(instance["InstanceId"], 0.0))
            for instance in await self._instances()
        ]

    async def _seen(self, instance: Mapping[str, Any], *, ending: bool) -> Seen:
        tags = from_tags(instance.get("Tags"))
        config = await asyncio.to_thread(self._user_data, instance["InstanceId"])
        users = [user for user in config.get("users", []) if isinstance(user, dict)]
        return Seen(
            id=instance["InstanceId"],
            token=tags.get(TAG_TOKEN, "") if self._scope.holds(tags) else "",
            ended=instance["State"]["Name"] == "terminated" and not ending,
            name=next((tag["Value"] for tag in instance.get("Tags", []) if tag["Key"] == "Name"), ""),
            type=instance["InstanceType"],
            image=self.dialect.images.get(instance["InstanceId"], instance["ImageId"]),
            purchase="Spot" if instance.get("InstanceLifecycle") == "spot" else "OnDemand",
            disk_gib=await asyncio.to_thread(self._disk, instance),
            authorized_keys=tuple(key for user in users for key in user.get("ssh_authorized_keys", [])),
            host_key=config.get("ssh_keys", {}).get("ed25519_public", ""),
            resting=instance["State"]["Name"] == "stopped",
        )

    def _user_data(self, instance: str) -> dict[str, Any]:
        answer = self._ec2.describe_instance_attribute(InstanceId=instance, Attribute="userData")
        text = base64.b64decode(answer.get("UserData", {}).get("Value", "")).decode()
        found: dict[str, Any] = json.loads(text.removeprefix("#cloud-config\n")) if text else {}
        return found

    def _disk(self, instance: Mapping[str, Any]) -> int:
        volumes = [
            mapping["Ebs"]["VolumeId"] for mapping in instance.get("BlockDeviceMappings", []) if "Ebs" in mapping
        ]
        if not volumes:
            return 0
        return int(self._ec2.describe_volumes(VolumeIds=volumes[:1])["Volumes"][0]["Size"])

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        """An instance made by hand."""
        token = (tags or {}).get(TAG_TOKEN)
        items = [{"Key": "Name", "Value": name}, *(tag for tag in to_tags(tags or {}) if tag["Key"] != "Name")]
        answer = await asyncio.to_thread(
            self._ec2.run_instances,
            ImageId=IMAGE,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": items}],
            **({"ClientToken": token} if token else {}),
        )
        return str(answer["Instances"][0]["InstanceId"])

    async def meddle(self, what: str, node_id: str) -> None:
        """With a console of EC2's own, so to speak."""
        ec2, ids = self._ec2, [node_id]
        match what:
            case "stop":
                await asyncio.to_thread(ec2.stop_instances, InstanceIds=ids)
            case "end":
                await asyncio.to_thread(ec2.terminate_instances, InstanceIds=ids)
            case "reclaim":
                self.dialect.reasons[node_id] = "Server.SpotInstanceTermination"
                await asyncio.to_thread(ec2.terminate_instances, InstanceIds=ids)
            case "resize":
                (instance,) = [i for i in await self._instances() if i["InstanceId"] == node_id]
                other = "t3.small" if instance["InstanceType"] != "t3.small" else "m5.large"
                await asyncio.to_thread(ec2.stop_instances, InstanceIds=ids)
                await asyncio.to_thread(
                    ec2.modify_instance_attribute, InstanceId=node_id, InstanceType={"Value": other}
                )
                await asyncio.to_thread(ec2.start_instances, InstanceIds=ids)
            case "grow":
                (instance,) = [i for i in await self._instances() if i["InstanceId"] == node_id]
                (root,) = [each["Ebs"]["VolumeId"] for each in instance["BlockDeviceMappings"]]
                await asyncio.to_thread(ec2.modify_volume, VolumeId=root, Size=41)
            case "image":
                self.dialect.images[node_id] = OTHER_IMAGE
            case "untag":
                (instance,) = [i for i in await self._instances() if i["InstanceId"] == node_id]
                ours = [{"Key": tag["Key"]} for tag in instance["Tags"] if tag["Key"].startswith(PREFIX)]
                await asyncio.to_thread(ec2.delete_tags, Resources=ids, Tags=ours)
            case unknown:
                raise NotImplementedError(unknown)

    async def requests(self, operation: Operation) -> int:
        """Counted by the proxy."""
        return sum(1 for call in self.proxy.received if CALLS[operation](call))

    async def pick(self, offers: Sequence[Offer]) -> Sequence[Offer]:
        """The small types of two zones."""
        small = [offer for offer in offers if offer.type in ("t3.micro", "t3.small") and offer.zone[-1] in "ab"]
        return sorted(small, key=lambda offer: (offer.type, offer.zone))
