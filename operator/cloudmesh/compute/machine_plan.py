"""What is done next for a machine: a pure function of what is asked for, what is known, and what is not.

| known | next |
|---|---|
| nothing can have been made | Stamp: store the token, then create |
| a create whose outcome isn't known | Look, until it is found or proven absent |
| there is a node | Live |
| the node is seen gone, or proven absent | Lost |
| the cloud gave it up | GiveUp |
| deletion was asked for, and there is, or may be, a node | Delete, Look, Wait |
| deletion was asked for, and there is none for sure | End |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cloudmesh.compute.machines import offer_named
from cloudmesh.compute.ports import GONE, Node
from cloudmesh.compute.tokens import make_token

Outcome = Literal["clear", "unknown", "made"]
"""What is known of the create calls: none can have made anything; one may have; there is or was a node."""

Step = Literal["Stamp", "Look", "Wait", "Live", "Lost", "GiveUp", "CleanUp", "Rest", "Delete", "End"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A VirtualMachine's spec, read once.

    Args:
        uid: Its uid.
        name: Its name.
        namespace: Its namespace.
        cluster: Name of its cluster, empty for none.
        owner_uid: Uid of the cluster that made it, empty if a user did.
        account: Name of the CloudAccount.
        offer: Type, region, zone and purchase.
        offer_id: Identity of the offer.
        token: Create token.
        image: Image alias, empty for the default.
        disk_gib: Disk, 0 for the offer's.
        adopt: The cloud's id of a machine to be taken over, empty to make one.
        power: powerState.
        pool: Pool, empty for none.
    """

    uid: str
    name: str
    namespace: str
    cluster: str
    owner_uid: str
    account: str
    offer: Mapping[str, str]
    offer_id: str
    token: str
    image: str
    disk_gib: int
    adopt: str
    power: str
    pool: str = ""


def read(obj: Mapping[str, Any], disk_gib: int, owner_uid: str) -> Wanted:
    """Reads the spec of a VirtualMachine, which the API server has validated."""
    meta, spec = obj["metadata"], obj["spec"]
    account = spec["accountRef"]["name"]
    offer = {name: str(spec["offer"].get(name) or "") for name in ("type", "region", "zone", "purchase")}
    offer["purchase"] = offer["purchase"] or "OnDemand"
    identity = offer_named(account, offer)
    pool = spec.get("pool", "")
    return Wanted(
        uid=meta["uid"],
        name=meta["name"],
        namespace=meta["namespace"],
        cluster=(spec.get("clusterRef") or {}).get("name", ""),
        owner_uid=owner_uid,
        account=account,
        offer=offer,
        offer_id=identity,
        token=make_token(meta["uid"], pool, spec.get("ordinal", 0), spec.get("attempt", 1), identity),
        image=(spec.get("image") or {}).get("name", ""),
        disk_gib=disk_gib,
        adopt=(spec.get("adopt") or {}).get("providerID", ""),
        power=spec.get("powerState", "Running"),
        pool=pool,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a machine.

    Args:
        node: As it was last seen, None if it wasn't.
        absent: It is proven that there is none.
        outcome: Of the create calls.
        failed: Its status says that it will never be ready.
        deleting: Its deletion was asked for.
        released: An adopted machine was given back.
    """

    node: Node | None = None
    absent: bool = False
    outcome: Outcome = "clear"
    failed: bool = False
    deleting: bool = False
    released: bool = False


def decide(known: Known) -> Step:
    """The next step."""
    node = known.node
    there = node is not None and node.state not in GONE
    if known.deleting:
        if known.released:
            return "End"
        if there:
            return "Delete"
        if node is not None or known.outcome == "clear" or known.absent:
            return "End"
        return "Look" if known.outcome == "unknown" else "Wait"
    if known.failed:
        return "CleanUp" if there else "Rest"
    if node is not None:
        if node.state in GONE:
            return "Lost"
        return "GiveUp" if node.state == "Failed" else "Live"
    if known.outcome == "made":
        return "Lost" if known.absent else "Wait"
    return "Look" if known.outcome == "unknown" else "Stamp"
