"""A VirtualMachine as other parts see it: one flat view, read from the object without validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.policy.model import offer_id

Obj = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class MachineView:
    """One machine.

    Args:
        uid: Uid of the VirtualMachine.
        name: Its name, and its host name.
        namespace: Its namespace.
        cluster: Name of its cluster, empty for one that stands alone.
        pool: Its pool, empty without a cluster.
        ordinal: Place in the pool.
        attempt: Which try at that place it is.
        counts_as: Replicas it stands for.
        alternative: The pool's alternative that it was made of.
        account: Name of its CloudAccount.
        offer_id: Identity of its offer, as `policy.model.Offer.id`.
        node_id: The cloud's id, empty until it is known.
        host: Name or address for logins, empty until it is known.
        port: Port for logins.
        user: Login name.
        host_key: Public host key that the cloud tells; empty where it is the cluster's own.
        login_command: ProxyCommand by which people reach it, empty where they connect to the host directly.
        private_address: Address inside its network.
        public_address: Address of the internet.
        network: Machines with the same non-empty value reach each other directly.
        state: What the cloud says it is doing.
        boot_id: Changes when it has lost what lay in memory.
        ready: Condition Ready is True.
        reachable: Condition Reachable is True.
        bootstrapped: Condition Bootstrapped is True.
        reason: Reason of the condition Ready.
        message: Its message.
        since: When Ready last changed, RFC 3339.
        failed: It will never be ready: it wasn't made, was lost, or was taken away.
        deleting: Its deletion was asked for.
        started_at: RFC 3339 time from which it is paid, empty before.
        ended_at: RFC 3339 time at which it was seen gone, empty before.
        hourly_nanos: Price in nano-units per hour with its disk, None if unknown.
        currency: Of the price.
        drift: What differs from what was asked for, by field: expected and found.
    """

    uid: str
    name: str
    namespace: str
    cluster: str
    pool: str
    ordinal: int
    attempt: int
    counts_as: int
    alternative: str
    account: str
    offer_id: str
    node_id: str = ""
    host: str = ""
    port: int = 22
    user: str = "root"
    host_key: str = ""
    login_command: str = ""
    private_address: str = ""
    public_address: str = ""
    network: str = ""
    state: str = ""
    boot_id: str = ""
    ready: bool = False
    reachable: bool = False
    bootstrapped: bool = False
    reason: str = ""
    message: str = ""
    since: str = ""
    failed: bool = False
    deleting: bool = False
    started_at: str = ""
    ended_at: str = ""
    hourly_nanos: int | None = None
    currency: str = "USD"
    drift: Mapping[str, tuple[str, str]] | None = None


REASON_GONE = "Gone"
REASON_PREEMPTED = "Preempted"
REASON_FAILED = "Failed"
"""The cloud gave the machine up after it had been made."""
LOST_REASONS = frozenset({REASON_GONE, REASON_PREEMPTED, REASON_FAILED})


def offer_named(account: str, offer: Mapping[str, Any]) -> str:
    """Identity of the offer that a VirtualMachine's spec names."""
    place = offer.get("region") or "", offer.get("zone") or ""
    return offer_id(account, offer["type"], *place, offer.get("purchase") or "OnDemand")


def is_failed(status: Mapping[str, Any]) -> bool:
    """Whether a machine with this status will never be ready."""
    conditions = status.get("conditions") or ()
    created = c.find_condition(conditions, c.CREATED)
    if created is not None and created.get("status") == c.FALSE:
        return True
    ready = c.find_condition(conditions, c.READY)
    return ready is not None and ready.get("status") == c.FALSE and ready.get("reason") in LOST_REASONS


def view(obj: Obj) -> MachineView:
    """The view of a VirtualMachine."""
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    by_type = {condition["type"]: condition for condition in status.get("conditions") or ()}
    ready = by_type.get(c.READY) or {}
    account = spec["accountRef"]["name"]
    addresses = {item["type"]: item["address"] for item in status.get("addresses") or ()}
    price = status.get("hourlyPrice")
    return MachineView(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta["namespace"],
        cluster=(spec.get("clusterRef") or {}).get("name", ""),
        pool=spec.get("pool", ""),
        ordinal=spec.get("ordinal", 0),
        attempt=spec.get("attempt", 1),
        counts_as=spec.get("countsAs", 1),
        alternative=spec.get("alternative", ""),
        account=account,
        offer_id=offer_named(account, spec["offer"]),
        node_id=status.get("providerID", ""),
        host=status.get("sshHost", ""),
        port=status.get("sshPort", 22),
        user=status.get("sshUser", "root"),
        host_key=status.get("sshHostKey", ""),
        login_command=status.get("sshProxyCommand", ""),
        private_address=addresses.get("Private", ""),
        public_address=addresses.get("Public", ""),
        network=status.get("network", ""),
        state=status.get("state", ""),
        boot_id=status.get("bootID", ""),
        ready=ready.get("status") == c.TRUE,
        reachable=(by_type.get(c.REACHABLE) or {}).get("status") == c.TRUE,
        bootstrapped=(by_type.get(c.BOOTSTRAPPED) or {}).get("status") == c.TRUE,
        reason=ready.get("reason", ""),
        message=ready.get("message", ""),
        since=ready.get("lastTransitionTime", ""),
        failed=is_failed(status),
        deleting=bool(meta.get("deletionTimestamp")),
        started_at=status.get("startedAt", ""),
        ended_at=status.get("endedAt", ""),
        hourly_nanos=to_nanos(price["amount"]) + to_nanos(status.get("diskHourly", "0")) if price else None,
        currency=price["currency"] if price else "USD",
        drift={item["field"]: (item["expected"], item["found"]) for item in status.get("drift") or ()},
    )
