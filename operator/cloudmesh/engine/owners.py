"""Owner references and the labels by which a child finds its owner."""

from __future__ import annotations

from collections.abc import Iterable

from cloudmesh.api.names import (
    LABEL_MANAGED_BY,
    LABEL_OWNER_KIND,
    LABEL_OWNER_NAME,
    LABEL_OWNER_UID,
    MANAGED_BY,
    owner_labels,
)
from cloudmesh.engine.resources import Key, Obj

MANAGED_SELECTOR = f"{LABEL_MANAGED_BY}={MANAGED_BY}"


def owner_reference(owner: Obj) -> Obj:
    """The controller reference to an owner; the garbage collector follows it."""
    meta = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def own(child: Obj, owner: Obj) -> Obj:
    """A copy of a child that carries the owner's reference, namespace and labels."""
    meta = owner["metadata"]
    labels = dict(child["metadata"].get("labels") or {})
    labels |= owner_labels(owner["kind"], meta["name"], meta["uid"])
    new_meta = child["metadata"] | {"labels": labels, "ownerReferences": [owner_reference(owner)]}
    if namespace := meta.get("namespace"):
        new_meta["namespace"] = namespace
    return child | {"metadata": new_meta}


def owner_key(child: Obj, kinds: Iterable[str] | None = None) -> Key | None:
    """The key of a child's owner by its labels; None for strangers and for kinds not asked for."""
    meta = child["metadata"]
    labels = meta.get("labels") or {}
    kind, name = labels.get(LABEL_OWNER_KIND), labels.get(LABEL_OWNER_NAME)
    if labels.get(LABEL_MANAGED_BY) != MANAGED_BY or not kind or not name:
        return None
    if kinds is not None and kind not in kinds:
        return None
    return Key(kind, meta.get("namespace", ""), name)


def is_owned_by(child: Obj, owner_uid: str) -> bool:
    """Whether a child is this owner's: by its controller reference, or by label where it has none."""
    meta = child["metadata"]
    for reference in meta.get("ownerReferences") or ():
        if reference.get("controller"):
            return bool(reference.get("uid") == owner_uid)
    return bool((meta.get("labels") or {}).get(LABEL_OWNER_UID) == owner_uid)
