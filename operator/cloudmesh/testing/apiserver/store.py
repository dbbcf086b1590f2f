"""Objects, their history and their watchers: the part of the memory API server that knows no HTTP."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cloudmesh.engine.resources import Obj, Resource
from cloudmesh.testing.apiserver.apply import copied

Name = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Event:
    """One change: the object before and after; one of them None at creation and removal. Nobody may change them."""

    version: int
    resource: Resource
    old: Obj | None
    new: Obj | None


class Store:
    """All objects with one counter for all resourceVersions, as etcd has.

    Args:
        now: RFC 3339 time.
    """

    def __init__(self, now: Callable[[], str]) -> None:
        self.version = 100
        self.compacted = 0
        """Watches from before this version get 410."""
        self.objects: dict[Resource, dict[Name, Obj]] = {}
        """Replaced at each change, never changed: events and lists share them."""
        self.history: list[Event] = []
        self.watchers: dict[asyncio.Queue[Event | None], Resource] = {}
        self.owned: dict[str, dict[str, set[tuple[str, ...]]]] = {}
        self.writes: list[tuple[str, Resource, Name]] = []
        """Every change that was stored: `create`, `update`, `delete`."""
        self._now = now

    def get(self, resource: Resource, name: Name) -> Obj | None:
        """A copy of an object."""
        return copied(self.objects.get(resource, {}).get(name))

    def create(self, resource: Resource, name: Name, obj: Obj, *, has_status: bool) -> Obj:
        """Stores a new object with all that a server fills in."""
        meta = obj["metadata"]
        meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._now(), "name": name[1]}
        if name[0]:
            meta["namespace"] = name[0]
        for unwanted in ("deletionTimestamp", "deletionGracePeriodSeconds", "managedFields"):
            meta.pop(unwanted, None)
        if has_status:
            meta["generation"] = 1
        self._record("create", resource, name, None, obj)
        return self.get(resource, name) or obj

    def update(self, resource: Resource, name: Name, new: Obj, *, has_status: bool) -> Obj:
        """Stores a changed object; one that is equal changes nothing, not even its version."""
        old = self.objects[resource][name]
        for kept in ("uid", "creationTimestamp", "name", "namespace", "generation", "deletionTimestamp"):
            if kept in old["metadata"]:
                new["metadata"][kept] = old["metadata"][kept]
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return copied(old)
        if has_status and _asked(new) != _asked(old):
            new["metadata"]["generation"] += 1
        if old["metadata"].get("deletionTimestamp") and not new["metadata"].get("finalizers"):
            self._record("delete", resource, name, new, None)
            return copied(new)  # with the version from before, as the real one answers
        self._record("update", resource, name, old, new)
        return copied(new)

    def delete(self, resource: Resource, name: Name) -> Obj:
        """Removes an object, or marks it while finalizers hold it."""
        old = self.objects[resource][name]
        if not old["metadata"].get("finalizers"):
            self._record("delete", resource, name, old, None)
            return copied(old)
        if old["metadata"].get("deletionTimestamp"):
            return copied(old)
        new = copied(old)
        new["metadata"] |= {"deletionTimestamp": self._now(), "deletionGracePeriodSeconds": 0}
        if "generation" in new["metadata"]:
            new["metadata"]["generation"] += 1
        self._record("update", resource, name, old, new)
        return copied(new)

    def compact(self) -> None:
        """Forgets the history: watches and list pages from before now get 410."""
        self.compacted = self.version
        self.history.clear()

    def close_watches(self) -> None:
        """Ends all watches, as a server that restarts does."""
        for queue in self.watchers:
            queue.put_nowait(None)

    def _record(self, act: str, resource: Resource, name: Name, old: Obj | None, new: Obj | None) -> None:
        self.version += 1
        kind = self.objects.setdefault(resource, {})
        if new is not None:
            new["metadata"]["resourceVersion"] = str(self.version)
            new = kind[name] = copied(new)
        else:
            kind.pop(name, None)
            old = copied(old or {})
            old["metadata"]["resourceVersion"] = str(self.version)
        event = Event(self.version, resource, old, new)
        self.history.append(event)
        self.writes.append((act, resource, name))
        for queue, watched in self.watchers.items():
            if watched == resource:
                queue.put_nowait(event)
        if new is None and old is not None:
            self.owned.pop(old["metadata"]["uid"], None)
            self._collect(old["metadata"]["uid"])

    def _collect(self, uid: str) -> None:
        """Deletes what the gone object owned, in the background."""
        for resource, kind in list(self.objects.items()):
            for name, obj in list(kind.items()):
                if any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ()):
                    self.delete(resource, name)


def _asked(obj: Obj) -> dict[str, Any]:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}
