"""The port between machines and a cloud: what every provider does, and the powers that only some have.

A provider raises errors of `cloudmesh.engine.errors` only. A Transient at a create is an *unknown outcome*: the caller
looks the token up before any second try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from cloudmesh.compute.tokens import Scope
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.policy.model import Offer

NodeState = Literal["Pending", "Running", "Stopping", "Stopped", "Suspended", "Deleting", "Deleted", "Failed"]
"""`Deleted` is a machine that is seen ended; `Failed` one that the cloud gave up on, which may still be billed."""

GONE: tuple[NodeState, ...] = ("Deleted",)


@dataclass(frozen=True, slots=True)
class ProviderInfo:
    """What a provider declares.

    Args:
        kind: Member of CloudAccount.spec that chooses it.
        grace_seconds: A node not listed is unknown, not absent, until it is so old.
        create_seconds: How long a create call may take before it is given up.
        native_tokens: The cloud itself makes one machine for one token.
        user: Login name of its machines.
        ssh: Its machines can be logged in to; else Running is reachable.
        poll_seconds: How often an account is listed while something changes; ten times as long when nothing does.
        requests_per_second: Calls a second of an account that names no rate of its own; None for no limit.
        max_disk_gib: Largest disk of a machine in GiB, None where there is no limit that matters.
        quota_seconds: How long a limit of the account that was hit isn't tried again, at first and at most: each time
            in a row takes twice as long.
        lacks: Names of `TRAITS` that its cloud doesn't have, each with a sentence why.
        hosts_stay: A machine that is deleted is given back, with its disk.
    """

    kind: str
    grace_seconds: int
    create_seconds: int
    native_tokens: bool
    user: str = "root"
    ssh: bool = True
    poll_seconds: float = 5.0
    requests_per_second: float | None = None
    max_disk_gib: int | None = None
    quota_seconds: tuple[int, int] = (900, 900)
    lacks: Mapping[str, str] = field(default_factory=dict)
    hosts_stay: bool = False


@dataclass(frozen=True, slots=True)
class Access:
    """How a new machine lets people and the operator in.

    Args:
        authorized_keys: Public keys, one line each.
        host_key: Private host key in OpenSSH form, made beforehand so that the first login is strict.
        host_public_key: Its public part.
        secret_name: Secret of the account's namespace that holds the same under `authorized_keys`,
            `ssh_host_ed25519_key` and `ssh_host_ed25519_key.pub`; for clouds that can mount it.
    """

    authorized_keys: tuple[str, ...] = ()
    host_key: str = field(default="", repr=False)
    host_public_key: str = ""
    secret_name: str = ""


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What a cluster needs in an account besides its nodes: a name service, a firewall, a key.

    Args:
        scope: Account.
        name: Name of the VirtualCluster (or of a VirtualMachine that stands alone).
        uid: Its uid.
        source_ranges: Networks that may log in.
        public_key: Public key of the cluster.
        owner: Reference to it, for what lives in the same Kubernetes.
    """

    scope: Scope
    name: str
    uid: str
    source_ranges: tuple[str, ...] = ()
    public_key: str = ""
    owner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One machine to be made.

    Args:
        token: Create token, unique to it.
        name: Host name.
        scope: Account.
        cluster: Name of its cluster, empty for none.
        uid: Uid of its VirtualMachine.
        offer: What and where.
        image: The cloud's own image id.
        access: Logins.
        disk_gib: Disk, 0 for the offer's.
        tags: All tags, token and scope among them.
        public_address: Whether it needs an address of the internet.
        ground: What `Groundwork.prepare` gave for its cluster.
        owner: Reference to its VirtualMachine, for clouds that are the same Kubernetes.
    """

    token: str
    name: str
    scope: Scope
    cluster: str
    uid: str
    offer: Offer
    image: str
    access: Access = field(default_factory=Access)
    disk_gib: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)
    public_address: bool = False
    ground: Mapping[str, str] = field(default_factory=dict)
    owner: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Node:
    """One machine as the cloud tells it.

    Args:
        id: The cloud's id (providerID).
        token: Create token from its tags, empty for a stranger's.
        state: What it is doing.
        tags: All tags, mapped back to ours.
        type: Machine type; these and the following serve to see drift.
        region: Region.
        zone: Zone.
        purchase: How it is paid.
        image: The cloud's image id.
        private_address: Address inside its network.
        public_address: Address of the internet.
        host: Name or address for logins, empty while unknown.
        port: Port for logins.
        created_at: RFC 3339 time.
        paid_since: RFC 3339 time from which it costs something; empty: since it was made; None: nothing yet.
        boot_id: Changes when it starts anew and has lost what lay in memory.
        host_key: Public host key, where the cloud tells it.
        failure: Why the cloud gave it up, already of the taxonomy.
        details: More, such as `preempted: true`. `diskGiB`, the size of its root disk where the cloud tells it,
            serves to see drift. `lastEnd`: how its life before the present one ended.
    """

    id: str
    token: str
    state: NodeState
    tags: Mapping[str, str] = field(default_factory=dict)
    type: str = ""
    region: str = ""
    zone: str = ""
    purchase: str = "OnDemand"
    image: str = ""
    private_address: str = ""
    public_address: str = ""
    host: str = ""
    port: int = 22
    created_at: str = ""
    paid_since: str | None = ""
    boot_id: str = ""
    host_key: str = ""
    failure: CloudmeshError | None = None
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Complete:
    """All nodes of a scope at a moment; the only answer that may prove absence."""

    nodes: tuple[Node, ...]
    as_of: str


@dataclass(frozen=True, slots=True)
class Partial:
    """Some nodes: a page, a zone or a region didn't answer."""

    nodes: tuple[Node, ...]
    as_of: str
    reason: str


Listing = Complete | Partial


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check.

    Args:
        subject: What was tried.
        ok: Whether it works.
        message: What was seen, and what to do if it doesn't work.
        fatal: Whether nothing can be used while it doesn't work: not so for a part of the account, or a cloud that
            doesn't answer at the moment.
        known: Whether it could be found out; if it couldn't, `ok` is False, and nothing speaks against the account.
    """

    subject: str
    ok: bool
    message: str
    fatal: bool = True
    known: bool = True

    @property
    def failed(self) -> bool:
        """Whether it was seen not to work."""
        return self.known and not self.ok


class Provider(Protocol):
    """One account of one cloud; made by the registry from a CloudAccount and its credentials."""

    info: ProviderInfo

    async def check(self) -> Sequence[Finding]:
        """Tries the credentials and permissions and says in words what can't be used.

        Raises:
            AuthFailed: The credentials are refused outright.
        """

    async def offers(self) -> Sequence[Offer]:
        """All offers, with a price where the cloud tells it and without where it doesn't."""

    async def list_nodes(self, scope: Scope) -> Listing:
        """All nodes that carry the scope's tags, also those that ended a moment ago if the cloud still shows them."""

    async def find_node(self, spec: NodeSpec) -> Node | None:
        """The node of a token by the most consistent read there is; None only if the cloud says there is none.

        Raises:
            Conflict: A node of that name or token belongs to somebody else.
        """

    async def ensure_node(self, spec: NodeSpec) -> Node:
        """Makes the node of a token, or returns the one that is there; never a second one.

        Raises:
            CapacityUnavailable: No room for this offer.
            QuotaExceeded: The account's limit.
            Conflict: The token was used for something else.
            Transient: Unknown outcome.
        """

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        """Asks for a node's end; one that is gone is fine. Only a listing shows that it has ended."""

    async def close(self) -> None:
        """Closes connections."""


def traits_of(provider: Provider) -> tuple[str, ...]:
    """Names of the traits that a provider's cloud has, in order."""
    return tuple(name for name in TRAITS if name not in provider.info.lacks)


def powers_of(provider: Provider) -> tuple[str, ...]:
    """Names of the optional powers that a provider has, in order."""
    return tuple(name for name, power in POWERS.items() if isinstance(provider, power))


def hints_of(provider: Provider) -> tuple[str, ...]:
    """Names of the hints that a provider gives, in order."""
    return tuple(name for name, hint in HINTS.items() if isinstance(provider, hint))


# -- optional powers: a provider has one if it implements its methods ---------------------------------------------


@runtime_checkable
class Groundwork(Protocol):
    """Makes what a cluster needs in an account before its first node, and takes it away after its last."""

    async def prepare(self, cluster: ClusterSpec) -> Mapping[str, str]:
        """Makes it, or finds it as it should be; what it gives goes into each NodeSpec."""

    async def clear(self, cluster: ClusterSpec) -> bool:
        """Takes it away; False while something still holds it."""


@runtime_checkable
class StartStop(Protocol):
    """Stops a machine so that only its disk is paid, and starts it again."""

    async def stop_node(self, node_id: str) -> None:
        """Asks for a stop."""

    async def start_node(self, node_id: str) -> None:
        """Asks for a start."""


@runtime_checkable
class Reboot(Protocol):
    """Starts a running machine anew."""

    async def reboot_node(self, node_id: str) -> None:
        """Asks for a reboot."""


@runtime_checkable
class Suspend(Protocol):
    """Keeps a machine's memory while it sleeps."""

    async def suspend_node(self, node_id: str) -> None:
        """Asks for it."""

    async def resume_node(self, node_id: str) -> None:
        """Wakes it."""


@runtime_checkable
class Resize(Protocol):
    """Changes the type of a stopped machine."""

    async def resize_node(self, node_id: str, type_: str) -> None:
        """Asks for another type."""


@runtime_checkable
class Rename(Protocol):
    """Changes the name that the cloud shows."""

    async def rename_node(self, node_id: str, name: str) -> None:
        """Sets it."""


@runtime_checkable
class Console(Protocol):
    """What a machine wrote to its console."""

    async def console_output(self, node_id: str) -> str:
        """The text, newest last; empty if there is none yet."""


@runtime_checkable
class Metadata(Protocol):
    """Tags of a user's own on a machine."""

    async def set_metadata(self, node_id: str, tags: Mapping[str, str]) -> None:
        """Sets or replaces."""

    async def delete_metadata(self, node_id: str, keys: Sequence[str]) -> None:
        """Removes; absent ones are fine."""


@runtime_checkable
class Adopt(Protocol):
    """Takes a machine over that somebody else made."""

    async def adopt_node(self, node_id: str, tags: Mapping[str, str]) -> Node:
        """Sets our tags on it.

        Raises:
            Conflict: It carries another owner's.
            InvalidRequest: There is no such machine.
        """

    async def release_node(self, node_id: str) -> None:
        """Takes our tags off; the machine goes on."""


@runtime_checkable
class Images(Protocol):
    """Lists images."""

    async def list_images(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `name`, `arch`."""


@runtime_checkable
class Flavors(Protocol):
    """Lists machine types."""

    async def list_flavors(self) -> Sequence[Mapping[str, str]]:
        """Each with `name`, `vcpu`, `memoryMiB`, `arch`."""


@runtime_checkable
class KeyPairs(Protocol):
    """Public keys that the cloud knows by name."""

    async def list_key_pairs(self) -> Sequence[Mapping[str, str]]:
        """Each with `name`, `fingerprint`."""

    async def import_key_pair(self, name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Makes it; the same key under the same name is fine.

        Raises:
            Conflict: Another key has the name.
        """

    async def delete_key_pair(self, name: str) -> None:
        """Deletes it; an absent one is fine."""


@runtime_checkable
class SecurityGroups(Protocol):
    """Firewalls with rules of what may come in."""

    async def list_security_groups(self) -> Sequence[Mapping[str, Any]]:
        """Each with `id`, `name`, `rules`: a list of `protocol`, `from`, `to`, `source`."""

    async def ensure_security_group(
        self, name: str, rules: Sequence[Mapping[str, Any]], tags: Mapping[str, str]
    ) -> str:
        """Makes it have exactly these rules; gives its id."""

    async def delete_security_group(self, name: str) -> bool:
        """Deletes it; False while machines hold it."""


@runtime_checkable
class Networks(Protocol):
    """Lists networks and subnets."""

    async def list_networks(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `name`, `cidr`, `zone`."""


@runtime_checkable
class Addresses(Protocol):
    """Addresses of the internet that outlive a machine."""

    async def list_addresses(self) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `address`, `nodeId`."""

    async def allocate_address(self, token: str, tags: Mapping[str, str]) -> str:
        """Gives the id of the address of this token; never a second one."""

    async def attach_address(self, address_id: str, node_id: str) -> None:
        """Binds it."""

    async def detach_address(self, address_id: str) -> None:
        """Frees it."""

    async def release_address(self, address_id: str) -> None:
        """Gives it back; an absent one is fine."""


@runtime_checkable
class Volumes(Protocol):
    """Disks that outlive a machine."""

    async def list_volumes(self, scope: Scope) -> Sequence[Mapping[str, str]]:
        """Each with `id`, `sizeGiB`, `zone`, `state`, `nodeId`."""

    async def ensure_volume(self, token: str, size_gib: int, zone: str, tags: Mapping[str, str]) -> str:
        """Gives the id of the volume of this token; never a second one."""

    async def attach_volume(self, volume_id: str, node_id: str, device: str) -> None:
        """Binds it."""

    async def detach_volume(self, volume_id: str) -> None:
        """Frees it."""

    async def delete_volume(self, volume_id: str) -> None:
        """Deletes it; an absent one is fine."""


POWERS: Mapping[str, type] = {
    power.__name__: power
    for power in (
        Groundwork, StartStop, Reboot, Suspend, Resize, Rename, Console, Metadata, Adopt, Images, Flavors, KeyPairs,
        SecurityGroups, Networks, Addresses, Volumes,
    )
}  # fmt: skip

# -- hints: what the operator uses where it is there; nobody asks for one, so the status lists none of them ----------


@runtime_checkable
class Release(Protocol):
    """Lets a machine go: the part of Adopt that those have too who can't take machines over."""

    async def release_node(self, node_id: str) -> None:
        """Takes our tags off; the machine goes on. One that is gone is fine."""


@runtime_checkable
class Identity(Protocol):
    """Tells which account of the cloud the credentials belong to: listings of another one prove nothing."""

    async def identity(self) -> str:
        """A name that stays when credentials of the same account are renewed; never empty."""


HINTS: Mapping[str, type] = {hint.__name__: hint for hint in (Release, Identity)}
"""No powers: without Release a machine that is let go keeps its tags, and without Identity new credentials are believed
to be those of the same account."""

TRAITS: Mapping[str, str] = {
    "Credentials": "there are credentials, and they can be wrong",
    "ImageChoice": "a machine is made from an image of one's choice",
    "DiskChoice": "the size of a machine's disk can be chosen",
    "PublicAddresses": "a machine can have an address of the internet",
    "OwnAddresses": "each machine has an address and port of its own",
    "HostKeys": "a machine takes the host key that was made for it",
    "Spot": "machines are sold as spot, and taken away",
    "Regions": "there are regions",
    "Zones": "there are zones that can be chosen",
    "Quotas": "the account has a limit, and a create beyond it is refused",
    "RateLimits": "calls are refused that come too fast",
    "LateFailures": "that there is no room may be said after a create has succeeded",
    "DelayedListings": "a machine may be missing in listings for a while, or shown as it was",
    "PartialListings": "a listing that succeeds may leave a part of the machines out",
    "Pages": "listings come in pages",
    "RepeatingPages": "a machine may stand on two pages of one listing",
    "SlowEnds": "a machine that is told to end takes its time, and is billed meanwhile",
    "Stops": "a machine can be stopped by its owner",
    "TypeChanges": "the type of a machine can be changed by its owner",
    "ImageChanges": "a machine can have another image than it was made from",
    "DiskChanges": "the disk of a machine can be made larger by its owner",
}
"""What clouds have besides powers, or do to those who use them; a provider has those that it doesn't say it lacks."""
