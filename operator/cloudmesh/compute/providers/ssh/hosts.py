"""The hosts of an account, and what a claim on one says. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.api.cloudaccount import Ssh
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute.ports import Node, NodeSpec
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.ssh import SshTarget
from cloudmesh.compute.tokens import TAG_CLUSTER, TAG_TOKEN
from cloudmesh.engine.errors import AuthFailed, InvalidRequest
from cloudmesh.policy.model import Offer

KEY = "ssh-privatekey"
CLAIM_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Host:
    """One machine of one's own.

    Args:
        name: Its name, which is the machine type too.
        target: How to log in.
        slots: VirtualMachines at a time.
        milli_vcpu: Thousandths of CPUs of one slot.
        memory_mib: Memory of one slot in MiB.
        arch: Architecture.
        gpu_model: Model of its GPUs.
        gpu_count: Number of GPUs of one slot.
        zone: Hosts of one zone reach each other directly; empty if nobody said.
    """

    name: str
    target: SshTarget
    slots: int = 1
    milli_vcpu: int = 1000
    memory_mib: int = 1024
    arch: str = "amd64"
    gpu_model: str = ""
    gpu_count: int = 0
    zone: str = ""

    def offer(self, account: str, free: int) -> Offer:
        """What a machine on it is; its price is its owner's to say."""
        return Offer(
            account=account,
            type=self.name,
            zone=self.zone,
            arch=self.arch,
            milli_vcpu=self.milli_vcpu,
            memory_mib=self.memory_mib,
            gpu_model=self.gpu_model,
            gpu_count=self.gpu_count,
            free=free,
            network=f"{account}/{self.zone}" if self.zone else "",
        )


@dataclass(frozen=True, slots=True)
class Claim:
    """A slot of a host that somebody has.

    Args:
        text: The line as it stands on the host.
        tags: All tags.
        created_at: RFC 3339 time.
        image: Image that was asked for; the host keeps the system it has.
    """

    text: str
    tags: Mapping[str, str]
    created_at: str = ""
    image: str = ""

    @property
    def token(self) -> str:
        """Create token of its machine."""
        return self.tags.get(TAG_TOKEN, "")

    @property
    def cluster(self) -> str:
        """Name of its cluster."""
        return self.tags.get(TAG_CLUSTER, "")


def read_hosts(context: Context) -> dict[str, Host]:
    """The hosts of a CloudAccount by name.

    Raises:
        AuthFailed: Its Secret has no key to log in with.
        InvalidRequest: `spec.ssh` can't be read.
    """
    key = context.credentials.get(KEY, b"").decode("utf-8", "replace")
    if not key.strip():
        raise AuthFailed(f"the account's Secret has no key `{KEY}`")
    try:
        spec = Ssh.model_validate(dict(context.spec))
    except ValueError as error:
        raise InvalidRequest(f"spec.ssh: {error}") from None
    hosts = {}
    for item in spec.hosts:
        target = SshTarget(item.address, item.port, item.user, key, (item.host_key,), item.name)
        gpus = item.gpu.count if item.gpu is not None else 0
        hosts[item.name] = Host(
            name=item.name,
            target=target,
            slots=item.slots,
            milli_vcpu=int(parse_quantity(item.vcpu) * 1000) // item.slots,
            memory_mib=int(parse_quantity(item.memory) / 2**20) // item.slots,
            arch=item.arch,
            gpu_model=(item.gpu.model or "") if item.gpu is not None else "",
            gpu_count=gpus // item.slots,
            zone=item.zone or "",
        )
    return hosts


def write_claim(spec: NodeSpec, now: str) -> str:
    """The line that says whose a slot is: tags and creation in one, so that neither is there without the other.

    Raises:
        InvalidRequest: The tags are too long.
    """
    tags = {**spec.tags, TAG_TOKEN: spec.token}
    return join_claim(Claim("", tags, now, spec.image))


def join_claim(claim: Claim) -> str:
    """The line of a claim.

    Raises:
        InvalidRequest: The tags are too long.
    """
    told: dict[str, Any] = {"tags": dict(sorted(claim.tags.items())), "createdAt": claim.created_at}
    text = json.dumps(told | {"image": claim.image}, separators=(",", ":"))
    if len(text) > CLAIM_BYTES:
        raise InvalidRequest(f"the tags of a machine take more than {CLAIM_BYTES} bytes")
    return text


def read_claim(text: str) -> Claim:
    """A claim of its line; one that can't be read has no tags: a stranger's."""
    try:
        told = json.loads(text)
        tags = {str(k): str(v) for k, v in told["tags"].items()}
        return Claim(text, tags, str(told.get("createdAt", "")), str(told.get("image", "")))
    except (ValueError, TypeError, KeyError, AttributeError):
        return Claim(text, {})


def node_id(host: str, token: str) -> str:
    """Id of a machine: another claim on the same host is another machine."""
    return f"{host}/{token}"


def split_id(node: str) -> tuple[str, str]:
    """Host and token of an id."""
    host, _, token = node.partition("/")
    return host, token


def to_node(host: Host, folder: str, claim: Claim, boot_id: str) -> Node:
    """A claim in the words of the port.

    Args:
        host: Where it is.
        folder: Name of its folder, which is its token.
        claim: What it says.
        boot_id: Of the host's present life.
    """
    return Node(
        id=node_id(host.name, folder),
        token=claim.token,
        state="Running",
        tags=claim.tags,
        type=host.name,
        zone=host.zone,
        image=claim.image,
        private_address=host.target.host,
        host=host.target.host,
        port=host.target.port,
        created_at=claim.created_at,
        boot_id=boot_id,
        host_key=host.target.host_keys[0],
        details={"user": host.target.user},
    )
