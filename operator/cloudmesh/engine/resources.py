"""Small shared types: what the API server calls a resource, the key of an object, the answer of a reconcile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
"""A Kubernetes object as plain JSON. What the cache hands out is shared: copy before changing."""


Objs = list[Obj]
"""Several of them; a name of its own, since the clients' method `list` hides the builtin."""


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object as the API server serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group, empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """API version without its group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """URL path of the collection, of one object, or of its subresource.

        Args:
            namespace: Ignored for cluster-scoped kinds; None or empty means all namespaces.
            name: Object name, None for the collection.
            subresource: Such as `status`.
        """
        parts = ["", "apis" if self.group else "api", self.api_version]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        if name is not None:
            parts.append(name)
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Identity of an object in the queue."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Done:
    """A reconcile went through.

    Args:
        requeue_after: Seconds until the key comes back by itself; None waits for an event.
    """

    requeue_after: float | None = None


def key_of(resource: Resource, obj: Obj) -> Key:
    """The queue key of an object."""
    meta = obj["metadata"]
    return Key(resource.kind, meta.get("namespace", ""), meta["name"])


def resource_version(obj: Obj) -> int:
    """The object's resourceVersion as a number that orders writes; 0 where there is none.

    Kubernetes promises the order since 1.35 and every release before kept it.
    """
    try:
        return int(obj["metadata"].get("resourceVersion", "0"))
    except (TypeError, ValueError):
        return 0


CONFIG_MAP = Resource("v1", "ConfigMap", "configmaps")
SECRET = Resource("v1", "Secret", "secrets")
EVENT = Resource("events.k8s.io/v1", "Event", "events")
LEASE = Resource("coordination.k8s.io/v1", "Lease", "leases")
