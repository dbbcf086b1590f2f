"""Which calls of EC2 are allowed: each one tried without effect, by DryRun where it would change something.

Only DryRunOperation, or the answer to a call that looks, says that a call is allowed, and only a refusal that can't
come from the example says that it isn't. A policy that is bound to tags refuses the id of a thing that is nobody's, so
calls about a machine or a group are tried on one of ours, and aren't known while there is none.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cloudmesh.compute.ports import Finding
from cloudmesh.compute.providers.aws.errors import Denied, DryRunPassed
from cloudmesh.compute.providers.aws.powers.base import token_tags
from cloudmesh.compute.providers.aws.session import Session, filters
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient

AT_ONCE = 8
FEW: Mapping[str, Any] = {"MaxResults": 5}
NOBODY = "0123456789abcdef0"
_KEY = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
PUBLIC_KEY = b"ssh-ed25519 " + base64.b64encode(_KEY)

Subject = Literal["", "image", "instance", "group", "other"]


@dataclass(frozen=True, slots=True)
class Examples:
    """What calls are tried with.

    Args:
        tags: Tags that all things of the account carry.
        zone: A zone of the region.
        type: A machine type.
        image: Id of an image, empty if none is known.
        subnet: Id of a subnet, empty for the default network.
        vpc: Id of the network, likewise.
        subnet_ids: Subnets that the account names.
        instance: Id of a machine of ours, empty if there is none.
        group: Id of a security group of ours, likewise.
    """

    tags: Mapping[str, str]
    zone: str
    type: str = "t3.micro"
    image: str = ""
    subnet: str = ""
    vpc: str = ""
    subnet_ids: tuple[str, ...] = ()
    instance: str = ""
    group: str = ""

    def has(self, subject: Subject) -> bool:
        """Whether a refusal on this subject is one of the call itself."""
        owned = {"": True, "image": True, "instance": bool(self.instance), "group": bool(self.group), "other": False}
        return owned[subject]

    def narrowed(self) -> dict[str, Any]:
        """Parameters of a look at machine types."""
        return {"Filters": filters({"instance-type": self.type}), **FEW}

    def run(self) -> dict[str, Any]:
        """Parameters of RunInstances, as alike to those of a real machine as can be."""
        face = {"DeviceIndex": 0, "DeleteOnTermination": True} | ({"SubnetId": self.subnet} if self.subnet else {})
        return {
            "ImageId": self.image,
            "InstanceType": self.type,
            "MinCount": 1,
            "MaxCount": 1,
            "TagSpecifications": token_tags(self.tags, "instance") + token_tags(self.tags, "volume"),
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "NetworkInterfaces": [face],
        }

    def make_group(self) -> dict[str, Any]:
        """Parameters of CreateSecurityGroup."""
        tags = token_tags(self.tags, "security-group")
        made = {"GroupName": "cloudmesh-check", "Description": "made by cloudmesh", "TagSpecifications": tags}
        return made | ({"VpcId": self.vpc} if self.vpc else {})

    def rule(self) -> dict[str, Any]:
        """Parameters of a rule's coming and going."""
        port = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "192.0.2.0/24"}]}
        return {"GroupId": self.group or f"sg-{NOBODY}", "IpPermissions": [port]}

    def machine(self) -> str:
        """Id of a machine."""
        return self.instance or f"i-{NOBODY}"


@dataclass(frozen=True, slots=True)
class Trial:
    """One call.

    Args:
        operation: As botocore spells it.
        needed: What can't be done without it.
        parameters: Made of the examples.
        subject: What it is about: things that the call makes, or whose id it needs.
        vital: Whether a cluster of machines needs it.
    """

    operation: str
    needed: str
    parameters: Callable[[Examples], Mapping[str, Any]]
    subject: Subject = ""
    vital: bool = True

    @property
    def name(self) -> str:
        """EC2's own name of the call."""
        return "".join(word.capitalize() for word in self.operation.split("_"))


LOOKS: Sequence[Trial] = (
    Trial("describe_instances", "see machines", lambda e: FEW),
    Trial("describe_volumes", "see the sizes of disks", lambda e: FEW, vital=False),
    Trial("describe_security_groups", "see security groups", lambda e: FEW),
    Trial("describe_images", "see images", lambda e: {"Owners": ["self"]}),
    Trial("describe_instance_types", "see machine types", Examples.narrowed),
    Trial("describe_instance_type_offerings", "see machine types by zone", Examples.narrowed),
    Trial("describe_spot_price_history", "see prices of spot", lambda e: {"InstanceTypes": [e.type], **FEW}),
    Trial("describe_subnets", "see subnets", lambda e: {"SubnetIds": list(e.subnet_ids)} if e.subnet_ids else FEW),
    Trial("describe_key_pairs", "see key pairs", lambda e: {}, vital=False),
    Trial("describe_addresses", "see addresses", lambda e: {}, vital=False),
)
CHANGES: Sequence[Trial] = (
    Trial("run_instances", "make machines", Examples.run, "image"),
    Trial("create_security_group", "make security groups", Examples.make_group),
    Trial("authorize_security_group_ingress", "open ports", Examples.rule, "group"),
    Trial("revoke_security_group_ingress", "close ports", Examples.rule, "group"),
    Trial("delete_security_group", "delete security groups", lambda e: {"GroupId": e.group or f"sg-{NOBODY}"}, "group"),
    Trial("terminate_instances", "end machines", lambda e: {"InstanceIds": [e.machine()]}, "instance"),
    Trial("stop_instances", "stop machines", lambda e: {"InstanceIds": [e.machine()]}, "instance"),
    Trial("start_instances", "start machines", lambda e: {"InstanceIds": [e.machine()]}, "instance"),
    Trial("reboot_instances", "restart machines", lambda e: {"InstanceIds": [e.machine()]}, "instance"),
    Trial(
        "create_tags",
        "note restarts and set tags",
        lambda e: {"Resources": [e.machine()], "Tags": [{"Key": "Name", "Value": "check"}]},
        "instance",
    ),
    Trial(
        "delete_tags",
        "give machines back",
        lambda e: {"Resources": [e.machine()], "Tags": [{"Key": "cloudmesh.org/check"}]},
        "instance",
    ),
    Trial(
        "modify_instance_attribute",
        "resize machines",
        lambda e: {"InstanceId": e.machine(), "InstanceType": {"Value": e.type}},
        "instance",
        vital=False,
    ),
    Trial("get_console_output", "read consoles", lambda e: {"InstanceId": e.machine()}, "instance", vital=False),
    Trial(
        "import_key_pair",
        "make key pairs",
        lambda e: {
            "KeyName": "cloudmesh-check",
            "PublicKeyMaterial": PUBLIC_KEY,
            "TagSpecifications": token_tags(e.tags, "key-pair"),
        },
        vital=False,
    ),
    Trial("delete_key_pair", "delete key pairs", lambda e: {"KeyName": "cloudmesh-check"}, "other", vital=False),
    Trial(
        "allocate_address",
        "make addresses",
        lambda e: {"Domain": "vpc", "TagSpecifications": token_tags(e.tags, "elastic-ip")},
        vital=False,
    ),
    Trial(
        "associate_address",
        "bind addresses",
        lambda e: {"AllocationId": f"eipalloc-{NOBODY}", "InstanceId": e.machine()},
        "other",
        vital=False,
    ),
    Trial(
        "disassociate_address",
        "free addresses",
        lambda e: {"AssociationId": f"eipassoc-{NOBODY}"},
        "other",
        vital=False,
    ),
    Trial(
        "release_address",
        "give addresses back",
        lambda e: {"AllocationId": f"eipalloc-{NOBODY}"},
        "other",
        vital=False,
    ),
    Trial(
        "create_volume",
        "make volumes",
        lambda e: {
            "Size": 1,
            "AvailabilityZone": e.zone,
            "VolumeType": "gp3",
            "TagSpecifications": token_tags(e.tags, "volume"),
        },
        vital=False,
    ),
    Trial(
        "attach_volume",
        "bind volumes",
        lambda e: {"VolumeId": f"vol-{NOBODY}", "InstanceId": e.machine(), "Device": "/dev/sdz"},
        "other",
        vital=False,
    ),
    Trial("detach_volume", "free volumes", lambda e: {"VolumeId": f"vol-{NOBODY}"}, "other", vital=False),
    Trial("delete_volume", "delete volumes", lambda e: {"VolumeId": f"vol-{NOBODY}"}, "other", vital=False),
)


async def knows_dry_run(session: Session) -> bool:
    """Whether a dry run is one here: a cloud that ignores the word would do what is only to be tried.

    Raises:
        CloudmeshError: It doesn't answer that.
    """
    try:
        await session.call("describe_instances", DryRun=True)
    except DryRunPassed:
        return True
    except (Denied, InvalidRequest):
        pass
    return False


async def try_all(session: Session, trials: Sequence[Trial], examples: Examples, *, dry: bool) -> list[Finding]:
    """Tries calls, a few at a time.

    Raises:
        AuthFailed: The credentials themselves are refused.
    """
    places = asyncio.Semaphore(AT_ONCE)

    async def one(trial: Trial) -> Finding:
        async with places:
            return await _try(session, trial, examples, dry=dry)

    return await asyncio.gather(*map(one, trials))


def not_tried(trials: Sequence[Trial], why: str) -> list[Finding]:
    """Findings of calls that can't be tried."""
    return [_unknown(trial, why) for trial in trials]


async def _try(session: Session, trial: Trial, examples: Examples, *, dry: bool) -> Finding:
    if trial.subject == "image" and not examples.image:
        return _unknown(trial, "spec.images of the account names no image to try it with")
    more = {"DryRun": True} if dry else {}
    try:
        await session.call(trial.operation, trial.name, **trial.parameters(examples), **more)
    except DryRunPassed:
        return Finding(trial.name, True, f"allowed: {trial.needed}")
    except Denied as error:
        if examples.has(trial.subject):
            message = f"grant ec2:{trial.name}, needed to {trial.needed}: {error}"
            return Finding(trial.name, False, message, fatal=trial.vital)
        return _unknown(trial, f"refused for an id that is nobody's, as a policy bound to tags does as well: {error}")
    except AuthFailed:
        raise
    except (Transient, RateLimited) as error:
        message = f"not known, since EC2 doesn't answer: {trial.needed}: {error}"
        return Finding(trial.name, False, message, fatal=False)
    except CloudmeshError as error:
        return _unknown(trial, str(error))
    if dry:
        return _unknown(trial, "the cloud answered the dry run as if it wasn't one")
    return Finding(trial.name, True, f"allowed: {trial.needed}")


def _unknown(trial: Trial, why: str) -> Finding:
    return Finding(trial.name, False, f"not known whether we may {trial.needed}: {why}", known=False)
