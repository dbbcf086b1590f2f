"""ConfigMaps and Secrets that users own: who refers to which, and a metadata-only watch that tells of changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from cloudmesh.engine.cache import Name
from cloudmesh.engine.resources import Key, Obj, resource_version

Reference = tuple[str, str, str]
"""Kind, namespace, name."""


class References:
    """Index from a referenced object to the keys that use it.

    Declare a reference before reading the object, so that no change falls between the two.

    Args:
        enqueue: Called with each key whose referenced object changed.
        on_kind: Called when a kind is referred to for the first time, to start its watch.
    """

    def __init__(self, enqueue: Callable[[Key], None], on_kind: Callable[[str], None] | None = None) -> None:
        self._enqueue = enqueue
        self._on_kind = on_kind
        self._of_key: dict[Key, frozenset[Reference]] = {}
        self._users: dict[Reference, set[Key]] = {}
        self._kinds: set[str] = set()

    def set(self, key: Key, references: Iterable[Reference]) -> None:
        """Says what an object refers to now; an empty set forgets it."""
        new = frozenset(references)
        old = self._of_key.get(key, frozenset())
        if new == old:
            return
        for reference in old - new:
            users = self._users[reference]
            users.discard(key)
            if not users:
                del self._users[reference]
        for reference in new - old:
            self._users.setdefault(reference, set()).add(key)
        if new:
            self._of_key[key] = new
        else:
            self._of_key.pop(key, None)
        for kind in {reference[0] for reference in new} - self._kinds:
            self._kinds.add(kind)
            if self._on_kind is not None:
                self._on_kind(kind)

    def users(self, reference: Reference) -> list[Key]:
        """Keys that refer to an object, in order."""
        return sorted(self._users.get(reference, ()))

    def changed(self, reference: Reference) -> None:
        """Puts all users of an object into the queue."""
        for key in self.users(reference):
            self._enqueue(key)


class ReferenceSink:
    """Informer sink that keeps nothing of an object but its version."""

    def __init__(self, kind: str, references: References, namespace: str | None = None) -> None:
        self._kind = kind
        self._references = references
        self._namespace = namespace
        self._versions: dict[Name, int] = {}

    def put(self, obj: Obj) -> None:
        """Tells a version that wasn't seen before."""
        meta = obj["metadata"]
        name = (meta.get("namespace", ""), meta["name"])
        version = resource_version(obj)
        if self._versions.get(name) != version:
            self._versions[name] = version
            self._references.changed((self._kind, *name))

    def remove(self, obj: Obj) -> None:
        """Tells that an object is gone."""
        meta = obj["metadata"]
        self._gone((meta.get("namespace", ""), meta["name"]))

    def listed(self, seen: set[Name], list_version: str) -> None:
        """Tells what went while nobody watched."""
        for name in [name for name in self._versions if name not in seen]:
            self._gone(name)

    def _gone(self, name: Name) -> None:
        if self._versions.pop(name, None) is not None:
            self._references.changed((self._kind, *name))
