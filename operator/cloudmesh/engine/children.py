"""Children of an object: written when they differ from what is wanted, never taken from a stranger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudmesh.api import names
from cloudmesh.engine.applied import differs
from cloudmesh.engine.errors import AlreadyExists, NameConflict, Transient
from cloudmesh.engine.owners import is_owned_by
from cloudmesh.engine.resources import Obj, Resource

if TYPE_CHECKING:
    from cloudmesh.engine.cache import Cache
    from cloudmesh.engine.kube.client import Kube


async def ensure_child(kube: Kube, cache: Cache, resource: Resource, owner: Obj, desired: Obj) -> bool:
    """Makes a child be as desired; says whether a write was needed.

    Args:
        kube: The client.
        cache: Holds the children of this kind.
        resource: The kind.
        owner: Whose child it is.
        desired: The child, `stamped`.

    Raises:
        NameConflict: Something that isn't the owner's has the name.
        Transient: One of that name is going.
    """
    namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
    known = cache.get(resource, namespace, name)
    if known is not None and is_owned_by(known, owner["metadata"]["uid"]) and not _is_going(known):
        if not differs(desired, known):
            return False
        await kube.apply(resource, desired)
        return True
    # never seen: a create fails where something has the name, an apply would take it over
    try:
        await kube.create(resource, desired)
    except AlreadyExists:
        check_own(resource, owner, await kube.get(resource, namespace, name), name)
        await kube.apply(resource, desired)
    return True


def check_own(resource: Resource, owner: Obj, found: Obj | None, name: str) -> None:
    """Makes sure that what has a name is the owner's and stays.

    Raises:
        NameConflict: It is a stranger's.
        Transient: It is going, or gone.
    """
    if found is None or _is_going(found):
        raise Transient(f"{resource.kind} '{name}' is being deleted")
    if is_owned_by(found, owner["metadata"]["uid"]):
        return
    labels = found["metadata"].get("labels") or {}
    mine = (names.MANAGED_BY, owner["kind"], owner["metadata"]["name"])
    if mine == tuple(labels.get(n) for n in (names.LABEL_MANAGED_BY, names.LABEL_OWNER_KIND, names.LABEL_OWNER_NAME)):
        raise Transient(f"{resource.kind} '{name}' of a deleted {owner['kind']} of this name is going")
    raise NameConflict(
        f"{resource.kind} '{name}' exists and isn't of this {owner['kind']}; "
        f"delete it or give the {owner['kind']} another name"
    )


def _is_going(obj: Obj) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))
