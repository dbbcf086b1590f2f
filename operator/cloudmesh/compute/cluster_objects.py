"""The VirtualMachine that a pool makes. Pure."""

from __future__ import annotations

from typing import Any

from cloudmesh.api import names
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.cluster_status import LABEL_CLUSTER, LABEL_POOL
from cloudmesh.compute.plan import NewMachine
from cloudmesh.compute.prices.money import to_text
from cloudmesh.compute.reading import ANNOTATION_FAILURES, ANNOTATION_QUOTED, ANNOTATION_TEMPLATE
from cloudmesh.engine.owners import own
from cloudmesh.engine.resources import Obj


def make_machine(owner: Obj, asked: Asked, new: NewMachine) -> Obj:
    """The object, owned by its cluster.

    Args:
        owner: The VirtualCluster.
        asked: What it asks for.
        new: The machine.
    """
    offer = new.offer
    place: dict[str, Any] = {"type": offer.type, "purchase": offer.purchase}
    if offer.region:
        place["region"] = offer.region
    if offer.zone:
        place["zone"] = offer.zone
    spec: dict[str, Any] = {
        "clusterRef": {"name": asked.name},
        "pool": new.pool,
        "ordinal": new.place.ordinal,
        "alternative": new.alternative,
        "countsAs": new.counts_as,
        "accountRef": {"name": offer.account},
        "offer": place,
        "attempt": new.place.attempt,
    }
    if new.image and not new.adopt:
        spec["image"] = {"name": new.image}
    if new.disk_gib:
        spec["disk"] = {"size": f"{new.disk_gib}Gi"}
    if new.adopt:
        spec["adopt"] = {"providerID": new.adopt}
    if new.public_address:
        spec["network"] = {"mode": "PublicAddress"}
    annotations: dict[str, str] = {}
    if new.template:
        annotations[ANNOTATION_TEMPLATE] = new.template
    if offer.price is not None:
        annotations[ANNOTATION_QUOTED] = f"{to_text(offer.price.nanos)} {offer.price.currency}"
    if new.place.failures:
        annotations[ANNOTATION_FAILURES] = str(new.place.failures)
    metadata: dict[str, Any] = {
        "name": new.name,
        "labels": {LABEL_CLUSTER: asked.name, LABEL_POOL: new.pool},
        "finalizers": [names.FINALIZER_CLEANUP],
    }
    if annotations:
        metadata["annotations"] = annotations
    body = {"apiVersion": names.API_VERSION, "kind": "VirtualMachine", "metadata": metadata, "spec": spec}
    return own(body, owner)
