"""What the memory cloud keeps of a machine, and how it says no."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudmesh.compute.ports import NodeState

BILLED: frozenset[NodeState] = frozenset(("Pending", "Running", "Stopping", "Suspended", "Deleting", "Failed"))
"""A stopped machine costs its disk only; one that failed costs until somebody deletes it."""


class CloudError(Exception):
    """An answer of the memory cloud that isn't a success, with a code of its own as clouds have them.

    Args:
        code: Such as `InsufficientCapacity`.
        message: For people.
        retry_after: Seconds, where the cloud names them.
    """

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after


class ConnectionLost(Exception):
    """The connection broke; whether the cloud has acted can't be known."""


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine in the cloud's own words; a change is a new object, so that who holds one holds a moment.

    Args:
        id: The cloud's id; ids sort by age.
        name: Name, which need not be unique.
        client_token: Create token, empty when made by hand.
        tags: Tags.
        type: Machine type.
        region: Region.
        zone: Zone.
        purchase: How it is paid.
        image: Image id.
        state: What it does.
        created: Seconds since the epoch.
        listed: Whether listings show it already.
        private_address: Inside address.
        public_address: Address of the internet, empty without.
        boot_id: Changes at each start.
        groups: Ids of security groups.
        disk_gib: Disk.
        authorized_keys: Logins.
        host_key: Public host key.
        failure: Code of what went wrong after the create call had succeeded.
        ended: Seconds since the epoch, once it ended.
        details: More, such as `preempted`.
    """

    id: str
    name: str
    client_token: str
    tags: Mapping[str, str]
    type: str
    region: str
    zone: str
    purchase: str
    image: str
    state: NodeState
    created: float
    private_address: str
    listed: bool = True
    public_address: str = ""
    boot_id: str = ""
    groups: tuple[str, ...] = ()
    disk_gib: int = 0
    authorized_keys: tuple[str, ...] = ()
    host_key: str = ""
    failure: str = ""
    ended: float | None = None
    details: Mapping[str, str] = field(default_factory=dict)

    def with_(self, **changes: object) -> Instance:
        """The same machine a moment later."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing.

    Args:
        instances: Machines.
        next_mark: What to ask for the next page with; empty on the last.
        warning: What this answer doesn't hold although it is a success.
    """

    instances: tuple[Instance, ...]
    next_mark: str = ""
    warning: str = ""


@dataclass(frozen=True, slots=True)
class Order:
    """A create call in the cloud's own words."""

    name: str
    client_token: str
    tags: Mapping[str, str]
    type: str
    region: str
    zone: str
    purchase: str
    image: str
    groups: tuple[str, ...] = ()
    disk_gib: int = 0
    authorized_keys: tuple[str, ...] = ()
    host_key: str = ""
    public_address: bool = False

    def same_as(self, made: Instance) -> bool:
        """Whether a machine was made by this very call."""
        return (made.type, made.region, made.zone, made.purchase, made.image) == (
            self.type, self.region, self.zone, self.purchase, self.image,
        )  # fmt: skip
