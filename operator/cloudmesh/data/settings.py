"""Settings of the data wing, from the operator's environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

_API_SERVER_NAMES = (
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class DataSettings:
    """What the chart tells about directories.

    Args:
        gateway_image: Image of gateways: the operator's own.
        allow_private_endpoints: Whether loopback and link-local endpoints may stand in a DataStore.
        forbidden_hosts: Hosts of this cluster that no endpoint may name.
        identity_namespaces: Namespaces whose DataStores may use the identity of a service account.
        identity_audience: Whom its tokens for AWS are for.
        log_level: Of gateways.
    """

    gateway_image: str = "cloudmesh.local/operator"
    allow_private_endpoints: bool = False
    forbidden_hosts: tuple[str, ...] = _API_SERVER_NAMES
    identity_namespaces: frozenset[str] = frozenset()
    identity_audience: str = "sts.amazonaws.com"
    log_level: str = "INFO"

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> DataSettings:
        """Reads CLOUDMESH_* variables; what isn't set keeps its default."""
        default = cls()
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        return cls(
            gateway_image=environ.get("CLOUDMESH_GATEWAY_IMAGE") or default.gateway_image,
            allow_private_endpoints=environ.get("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "").lower() == "true",
            forbidden_hosts=(*_API_SERVER_NAMES, *((host,) if host else ())),
            identity_namespaces=frozenset(environ.get("CLOUDMESH_IDENTITY_NAMESPACES", "").split()),
            identity_audience=environ.get("CLOUDMESH_IDENTITY_AUDIENCE") or default.identity_audience,
            log_level=(environ.get("CLOUDMESH_LOG_LEVEL") or default.log_level).upper(),
        )
