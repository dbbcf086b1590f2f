"""The reconcile engine: work queue, level-based reconcilers, Kubernetes access, lease, events, metrics."""

from __future__ import annotations

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
from cloudmesh.engine.status import Status, utc_now

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
    "utc_now",
]
