"""The reconcile engine: work queue, level-based reconcilers, Kubernetes access, lease, events, metrics.

What it exports is loaded when it is first asked for: whoever needs the errors only doesn't pay for the client.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudmesh.engine.cache import Cache, Change
    from cloudmesh.engine.engine import Engine
    from cloudmesh.engine.errors import (
        AlreadyExists,
        AuthFailed,
        CapacityUnavailable,
        CloudmeshError,
        Conflict,
        Expired,
        InvalidRequest,
        NameConflict,
        NotFound,
        QuotaExceeded,
        RateLimited,
        Transient,
        Unsupported,
    )
    from cloudmesh.engine.events import Events
    from cloudmesh.engine.finalizers import Finalizers, has_finalizer, is_abandoned, is_deleting
    from cloudmesh.engine.kube import Access, AccessMissing, Kube, connect, create_or_get, own_namespace
    from cloudmesh.engine.lease import Elector, LeaseLost
    from cloudmesh.engine.metrics import Metrics
    from cloudmesh.engine.owners import is_owned_by, own, owner_key, owner_reference
    from cloudmesh.engine.probes import Probes
    from cloudmesh.engine.queue import Queue
    from cloudmesh.engine.reconciler import Reconciler
    from cloudmesh.engine.references import References
    from cloudmesh.engine.resources import CONFIG_MAP, EVENT, LEASE, SECRET, Done, Key, Obj, Resource, key_of
    from cloudmesh.engine.settings import Settings, SettingsError
    from cloudmesh.engine.shared import per_engine
    from cloudmesh.engine.status import Status, utc_now

_MODULES = {
    "Access": "kube",
    "AccessMissing": "kube",
    "AlreadyExists": "errors",
    "AuthFailed": "errors",
    "CONFIG_MAP": "resources",
    "Cache": "cache",
    "CapacityUnavailable": "errors",
    "Change": "cache",
    "CloudmeshError": "errors",
    "Conflict": "errors",
    "Done": "resources",
    "EVENT": "resources",
    "Elector": "lease",
    "Engine": "engine",
    "Events": "events",
    "Expired": "errors",
    "Finalizers": "finalizers",
    "InvalidRequest": "errors",
    "Key": "resources",
    "Kube": "kube",
    "LEASE": "resources",
    "LeaseLost": "lease",
    "Metrics": "metrics",
    "NameConflict": "errors",
    "NotFound": "errors",
    "Obj": "resources",
    "Probes": "probes",
    "Queue": "queue",
    "QuotaExceeded": "errors",
    "RateLimited": "errors",
    "Reconciler": "reconciler",
    "References": "references",
    "Resource": "resources",
    "SECRET": "resources",
    "Settings": "settings",
    "SettingsError": "settings",
    "Status": "status",
    "Transient": "errors",
    "Unsupported": "errors",
    "connect": "kube",
    "create_or_get": "kube",
    "has_finalizer": "finalizers",
    "is_abandoned": "finalizers",
    "is_deleting": "finalizers",
    "is_owned_by": "owners",
    "key_of": "resources",
    "own": "owners",
    "own_namespace": "kube",
    "owner_key": "owners",
    "owner_reference": "owners",
    "per_engine": "shared",
    "utc_now": "status",
}


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


__all__ = [
    "CONFIG_MAP",
    "EVENT",
    "LEASE",
    "SECRET",
    "Access",
    "AccessMissing",
    "AlreadyExists",
    "AuthFailed",
    "Cache",
    "CapacityUnavailable",
    "Change",
    "CloudmeshError",
    "Conflict",
    "Done",
    "Elector",
    "Engine",
    "Events",
    "Expired",
    "Finalizers",
    "InvalidRequest",
    "Key",
    "Kube",
    "LeaseLost",
    "Metrics",
    "NameConflict",
    "NotFound",
    "Obj",
    "Probes",
    "Queue",
    "QuotaExceeded",
    "RateLimited",
    "Reconciler",
    "References",
    "Resource",
    "Settings",
    "SettingsError",
    "Status",
    "Transient",
    "Unsupported",
    "connect",
    "create_or_get",
    "has_finalizer",
    "is_abandoned",
    "is_deleting",
    "is_owned_by",
    "key_of",
    "own",
    "own_namespace",
    "owner_key",
    "owner_reference",
    "per_engine",
    "utc_now",
]
