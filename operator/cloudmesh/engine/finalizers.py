"""Finalizers: set before the first outside effect, taken off when nothing is left to clean up."""

from __future__ import annotations

from cloudmesh.api.names import ANNOTATION_ABANDON, FINALIZER_CLEANUP, FINALIZER_IN_USE
from cloudmesh.engine.errors import Conflict, NotFound
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.resources import Obj, Resource

TRIES = 5


def is_deleting(obj: Obj) -> bool:
    """Whether deletion was asked for."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def has_finalizer(obj: Obj, finalizer: str) -> bool:
    """Whether an object carries a finalizer."""
    return finalizer in (obj["metadata"].get("finalizers") or ())


def is_abandoned(obj: Obj) -> bool:
    """Whether the user gave up this very object's clean-up: the annotation must hold its uid."""
    meta = obj["metadata"]
    wanted = (meta.get("annotations") or {}).get(ANNOTATION_ABANDON)
    return bool(wanted) and wanted == meta.get("uid")


class Finalizers:
    """Adds and removes finalizers; an object that has what is wanted costs no call.

    Args:
        kube: The client.
    """

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    async def ensure(self, resource: Resource, obj: Obj, finalizer: str = FINALIZER_CLEANUP) -> Obj:
        """Sets a finalizer and returns the object as it is then.

        Raises:
            Conflict: The object is being deleted (the API server allows no new finalizer) or was made anew.
        """
        if has_finalizer(obj, finalizer):
            return obj
        if is_deleting(obj):
            raise Conflict(f"{resource.kind} {obj['metadata']['name']} is being deleted: no finalizer can be set")
        return await self._change(resource, obj, finalizer, present=True)

    async def remove(self, resource: Resource, obj: Obj, finalizer: str = FINALIZER_CLEANUP) -> None:
        """Takes a finalizer off; an object that is gone or lacks it is fine."""
        if not has_finalizer(obj, finalizer):
            return
        try:
            await self._change(resource, obj, finalizer, present=False)
        except NotFound:
            return

    async def hold(self, resource: Resource, obj: Obj) -> Obj:
        """Sets `cloudmesh.org/in-use` on what a living object still needs for its clean-up."""
        return await self.ensure(resource, obj, FINALIZER_IN_USE)

    async def release(self, resource: Resource, obj: Obj) -> None:
        """Takes `cloudmesh.org/in-use` off."""
        await self.remove(resource, obj, FINALIZER_IN_USE)

    async def _change(self, resource: Resource, obj: Obj, finalizer: str, *, present: bool) -> Obj:
        # a merge patch replaces the list: without a resourceVersion it would drop what somebody else sets meanwhile
        meta = obj["metadata"]
        namespace, name, uid = meta.get("namespace"), meta["name"], meta.get("uid")
        current = obj
        for _ in range(TRIES):
            held = list(current["metadata"].get("finalizers") or ())
            if (finalizer in held) == present:
                return current
            wanted = [*held, finalizer] if present else [item for item in held if item != finalizer]
            version = current["metadata"]["resourceVersion"]
            patch: Obj = {"metadata": {"uid": uid, "resourceVersion": version, "finalizers": wanted}}
            try:
                return await self._kube.patch(resource, namespace, name, patch)
            except NotFound:
                raise
            except Conflict:
                fresh = await self._kube.get(resource, namespace, name)
                if fresh is None or fresh["metadata"].get("uid") != uid:
                    raise NotFound(f"{resource.kind} {name} of uid {uid} is gone") from None
                if present and is_deleting(fresh):
                    raise
                current = fresh
        raise Conflict(f"{resource.kind} {name} changes too fast to set its finalizers")
