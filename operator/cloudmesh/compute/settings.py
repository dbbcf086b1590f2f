"""Settings of the compute wing, from the operator's environment."""

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
class ComputeSettings:
    """What the chart tells about machines.

    Args:
        machine_image: Image of Pod machines.
        pod_hourly_per_vcpu: Price of a vCPU of a Pod machine per hour, as decimal text.
        pod_hourly_per_gib: Price of a GiB of its memory per hour, as decimal text.
        pod_currency: Currency of both.
        allow_private_endpoints: Whether loopback and link-local endpoints may stand in a CloudAccount.
        forbidden_hosts: Hosts of this cluster that no endpoint may name.
        identity_namespaces: Namespaces whose CloudAccounts may use the operator's own identity.
        identity_token_file: Its token for clouds, empty if there is none.
    """

    machine_image: str = "cloudmesh.local/machine"
    pod_hourly_per_vcpu: str = "0.01"
    pod_hourly_per_gib: str = "0.001"
    pod_currency: str = "USD"
    allow_private_endpoints: bool = False
    forbidden_hosts: tuple[str, ...] = _API_SERVER_NAMES
    identity_namespaces: frozenset[str] = frozenset()
    identity_token_file: str = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> ComputeSettings:
        """Reads CLOUDMESH_* variables; what isn't set keeps its default."""
        default = cls()
        host = environ.get("KUBERNETES_SERVICE_HOST", "")
        return cls(
            machine_image=environ.get("CLOUDMESH_MACHINE_IMAGE") or default.machine_image,
            pod_hourly_per_vcpu=environ.get("CLOUDMESH_POD_HOURLY_PER_VCPU") or default.pod_hourly_per_vcpu,
            pod_hourly_per_gib=environ.get("CLOUDMESH_POD_HOURLY_PER_GIB") or default.pod_hourly_per_gib,
            pod_currency=environ.get("CLOUDMESH_POD_CURRENCY") or default.pod_currency,
            allow_private_endpoints=environ.get("CLOUDMESH_ALLOW_PRIVATE_ENDPOINTS", "").lower() == "true",
            forbidden_hosts=(*_API_SERVER_NAMES, *((host,) if host else ())),
            identity_namespaces=frozenset(environ.get("CLOUDMESH_IDENTITY_NAMESPACES", "").split()),
            identity_token_file=environ.get("CLOUDMESH_IDENTITY_TOKEN_FILE", ""),
        )

    def defaults(self) -> Mapping[str, str]:
        """What providers are told of it; each reads what is its own."""
        return {
            "machineImage": self.machine_image,
            "hourlyPerVcpu": self.pod_hourly_per_vcpu,
            "hourlyPerGiB": self.pod_hourly_per_gib,
            "currency": self.pod_currency,
        }
