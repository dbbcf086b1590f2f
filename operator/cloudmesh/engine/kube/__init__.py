"""The only place that imports the `kubernetes` client."""

from __future__ import annotations

from cloudmesh.engine.kube.access import Access, AccessMissing, Login, own_namespace
from cloudmesh.engine.kube.client import Kube, create_or_get
from cloudmesh.engine.kube.http import HttpTransport
from cloudmesh.engine.kube.transport import Reply, Request, Transport
from cloudmesh.engine.metrics import Metrics

__all__ = [
    "Access",
    "AccessMissing",
    "HttpTransport",
    "Kube",
    "Login",
    "Reply",
    "Request",
    "Transport",
    "connect",
    "create_or_get",
    "own_namespace",
]


async def connect(kubeconfig: str | None = None, *, metrics: Metrics | None = None) -> Kube:
    """A client for the API server that the process was given.

    Raises:
        AccessMissing: No service account and no kubeconfig can be used.
    """
    return Kube(HttpTransport(await Access.load(kubeconfig)), metrics=metrics)
