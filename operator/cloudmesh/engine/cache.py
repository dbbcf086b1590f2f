"""The cache of what the API server holds: fed by watches and by the answers of our own writes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from cloudmesh.api.names import LABEL_OWNER_UID
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import Obj, Objs, Resource, resource_version

Name = tuple[str, str]
"""Namespace (empty for cluster-scoped kinds) and name."""

TOMBSTONES = 20_000


@dataclass(frozen=True, slots=True)
class Change:
    """What a put or a removal did.

    Args:
        old: The object before, None if it was not there.
        new: The object now, None if it is gone.
    """

    old: Obj | None
    new: Obj | None

    @property
    def besides_status(self) -> bool:
        """Whether more than status and bookkeeping changed, such as a spec or an annotation."""
        if self.old is None or self.new is None:
            return True
        before, after = self.old["metadata"], self.new["metadata"]
        names = ("uid", "generation", "labels", "annotations", "finalizers", "deletionTimestamp", "ownerReferences")
        if any(before.get(name) != after.get(name) for name in names):
            return True
        if "generation" in after:
            return False
        # kinds without a generation (ConfigMap, Secret ...) are compared whole
        ignored = ("metadata", "status")
        return {k: v for k, v in self.old.items() if k not in ignored} != {
            k: v for k, v in self.new.items() if k not in ignored
        }


class _Index:
    def __init__(self, keys: Callable[[Obj], Iterable[Hashable]]) -> None:
        self._keys = keys
        self.names: dict[Hashable, dict[Name, None]] = {}

    def add(self, name: Name, obj: Obj) -> None:
        for key in self._keys(obj):
            self.names.setdefault(key, {})[name] = None

    def remove(self, name: Name, obj: Obj) -> None:
        for key in self._keys(obj):
            held = self.names.get(key)
            if held is not None:
                held.pop(name, None)
                if not held:
                    del self.names[key]


class Cache:
    """Objects by kind, namespace and name, indexed by their owner's uid.

    A put counts only if its resourceVersion is newer than what is there, so watch events and answers of our own writes
    may arrive in any order. Objects handed out are shared and must not be changed.
    """

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics or Metrics()
        self._objects: dict[Resource, dict[Name, Obj]] = {}
        self._by_owner: dict[tuple[str, Resource], set[Name]] = {}
        self._by_namespace: dict[tuple[str, Resource], dict[Name, None]] = {}
        self._indexes: dict[Resource, dict[str, _Index]] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def get(self, resource: Resource, namespace: str | None, name: str) -> Obj | None:
        """One object, None if the cache doesn't hold it."""
        return self._objects.get(resource, {}).get((namespace or "", name))

    def list(self, resource: Resource, namespace: str | None = None) -> Objs:
        """All objects of a kind, of one namespace or of all."""
        found = self._objects.get(resource, {})
        if namespace is None:
            return list(found.values())
        return [found[name] for name in self._by_namespace.get((namespace, resource), ())]

    def names(self, resource: Resource, namespace: str | None = None) -> Iterator[Name]:
        """Names of what `list` would give."""
        if namespace is None:
            return iter(list(self._objects.get(resource, {})))
        return iter(list(self._by_namespace.get((namespace, resource), ())))

    def children(self, owner_uid: str, resource: Resource) -> Objs:
        """Objects of a kind whose owner label or controller reference names this uid."""
        found = self._objects.get(resource, {})
        return [found[name] for name in sorted(self._by_owner.get((owner_uid, resource), ()))]

    def add_index(self, resource: Resource, index: str, keys: Callable[[Obj], Iterable[Hashable]]) -> None:
        """Keeps objects of a kind sorted by keys of one's own; nothing happens where the index is there already.

        Args:
            resource: The kind.
            index: Name of the index.
            keys: The keys of an object; depends on the object alone.
        """
        held = self._indexes.setdefault(resource, {})
        if index in held:
            return
        made = held[index] = _Index(keys)
        for name, obj in self._objects.get(resource, {}).items():
            made.add(name, obj)

    def indexed(self, resource: Resource, index: str, key: Hashable) -> Objs:
        """Objects that have a key in an index."""
        found = self._objects.get(resource, {})
        return [found[name] for name in self._indexes[resource][index].names.get(key, ())]

    def count_indexed(self, resource: Resource, index: str, key: Hashable) -> int:
        """How many objects have a key in an index; costs the same for one and for many."""
        return len(self._indexes[resource][index].names.get(key, ()))

    def count(self, resource: Resource) -> int:
        """How many objects of a kind there are."""
        return len(self._objects.get(resource, {}))

    def knows(self, resource: Resource) -> bool:
        """Whether the cache was told to hold this kind."""
        return resource in self._objects

    def watch(self, resource: Resource) -> None:
        """Declares a kind: answers of our own writes to other kinds aren't kept, since nobody would renew them."""
        self._objects.setdefault(resource, {})

    def put(self, resource: Resource, obj: Obj) -> Change | None:
        """Takes an object in; None if it is no newer than what is there, or was seen deleted."""
        meta = obj["metadata"]
        name = (meta.get("namespace", ""), meta["name"])
        kind = self._objects.setdefault(resource, {})
        old = kind.get(name)
        uid = meta.get("uid", "")
        if uid in self._gone:
            return None
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and not _lingers(meta):
            # the answer to the removal of the last finalizer, with the version from before: the object is gone
            return self.remove(resource, obj)
        if old is not None and resource_version(obj) <= resource_version(old):
            return None
        new = compact(obj)
        if old is not None:
            self._unindex(resource, name, old)
        kind[name] = new
        for owner in _owners(new):
            self._by_owner.setdefault((owner, resource), set()).add(name)
        if old is None:
            self._by_namespace.setdefault((name[0], resource), {})[name] = None
        for index in self._indexes.get(resource, {}).values():
            index.add(name, new)
        self._metrics.cached.labels(resource.kind).set(len(kind))
        return Change(old, new)

    def remove(self, resource: Resource, obj: Obj) -> Change | None:
        """Drops an object that was seen deleted; None if another one has its name or none is there."""
        meta = obj["metadata"]
        name = (meta.get("namespace", ""), meta["name"])
        if uid := meta.get("uid", ""):
            self._gone[uid] = None
            while len(self._gone) > TOMBSTONES:
                self._gone.popitem(last=False)
        kind = self._objects.setdefault(resource, {})
        old = kind.get(name)
        if old is None or old["metadata"].get("uid") != meta.get("uid"):
            return None
        del kind[name]
        self._unindex(resource, name, old)
        space = self._by_namespace[(name[0], resource)]
        del space[name]
        if not space:
            del self._by_namespace[(name[0], resource)]
        self._metrics.cached.labels(resource.kind).set(len(kind))
        return Change(old, None)

    def drop_missing(
        self, resource: Resource, seen: Iterable[Name], list_version: str, namespace: str | None = None
    ) -> Objs:
        """Drops what a complete list didn't show, unless it is newer than the list; returns what went."""
        present = set(seen)
        limit = int(list_version or 0)
        gone = [
            obj
            for name, obj in self._objects.get(resource, {}).items()
            if name not in present and (namespace is None or name[0] == namespace) and resource_version(obj) <= limit
        ]
        for obj in gone:
            self.remove(resource, obj)
        return gone

    def _unindex(self, resource: Resource, name: Name, obj: Obj) -> None:
        for owner in _owners(obj):
            index = self._by_owner.get((owner, resource))
            if index is not None:
                index.discard(name)
                if not index:
                    del self._by_owner[(owner, resource)]
        for own in self._indexes.get(resource, {}).values():
            own.remove(name, obj)


def compact(obj: Obj) -> Obj:
    """A copy without managedFields, its keys shared with all other objects: a third of the memory."""
    meta = {name: value for name, value in obj["metadata"].items() if name != "managedFields"}
    copy: Obj = _shared(obj | {"metadata": meta})
    return copy


def _shared(value: Any) -> Any:
    if isinstance(value, dict):
        return {sys.intern(key): _shared(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_shared(item) for item in value]
    if isinstance(value, str) and len(value) <= 48:  # names, enums and times come again and again
        return sys.intern(value)
    return value


def _owners(obj: Obj) -> set[str]:
    meta = obj["metadata"]
    owners = {ref["uid"] for ref in meta.get("ownerReferences") or () if ref.get("controller")}
    if label := (meta.get("labels") or {}).get(LABEL_OWNER_UID):
        owners.add(label)
    return owners


def _lingers(meta: dict[str, Any]) -> bool:
    # Pods and other gracefully deleted objects have a deletionTimestamp while they still run
    return bool(meta.get("deletionGracePeriodSeconds"))
