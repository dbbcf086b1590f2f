"""The operator process's settings, from environment variables."""

from __future__ import annotations

import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


class SettingsError(Exception):
    """A setting is missing or wrong; the message names the variable and says what to set."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the chart tells the operator.

    Args:
        namespace: The operator's own namespace: its Lease and generated Secrets live there.
        watch_namespaces: Namespaces to serve; empty means all.
        builder_url: Base URL of the builder.
        registry_pull_secret: Secret, in each namespace with functions, that nodes pull with; empty for none.
        version: Version of this operator.
        pod_name: Name of this Pod.
        identity: Unique to this process.
        log_level: DEBUG, INFO, WARNING or ERROR.
        http_port: Port of probes and metrics.
        lease_name: Name of the Lease.
        workers: How many objects are reconciled at once.
    """

    namespace: str
    watch_namespaces: tuple[str, ...] = ()
    builder_url: str = ""
    registry_pull_secret: str = ""
    version: str = "0.0.0"
    pod_name: str = ""
    identity: str = ""
    log_level: str = "INFO"
    http_port: int = 8080
    lease_name: str = "cloudmesh-operator"
    workers: int = 8

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, default_namespace: str | None = None) -> Settings:
        """Reads CLOUDMESH_* variables.

        Args:
            environ: The environment.
            default_namespace: Namespace of the Pod's service account, used when CLOUDMESH_NAMESPACE isn't set.

        Raises:
            SettingsError: A variable is missing or can't be used.
        """
        namespace = environ.get("CLOUDMESH_NAMESPACE") or default_namespace or ""
        if not namespace:
            raise SettingsError("CLOUDMESH_NAMESPACE must be set to the namespace that the operator runs in")
        _check_label("CLOUDMESH_NAMESPACE", namespace)
        watched = tuple(
            sorted({part.strip() for part in environ.get("CLOUDMESH_WATCH_NAMESPACES", "").split(",") if part.strip()})
        )
        for name in watched:
            _check_label("CLOUDMESH_WATCH_NAMESPACES", name)
        builder_url = environ.get("CLOUDMESH_BUILDER_URL") or f"https://cloudmesh-builder.{namespace}.svc:8443"
        if not builder_url.startswith(("https://", "http://")):
            raise SettingsError(f"CLOUDMESH_BUILDER_URL must begin with 'https://', not {builder_url!r}")
        level = (environ.get("CLOUDMESH_LOG_LEVEL") or "INFO").upper()
        if level not in LEVELS:
            raise SettingsError(f"CLOUDMESH_LOG_LEVEL must be one of {', '.join(LEVELS)}, not {level!r}")
        pod_name = environ.get("CLOUDMESH_POD_NAME") or socket.gethostname()
        return cls(
            namespace=namespace,
            watch_namespaces=watched,
            builder_url=builder_url.rstrip("/"),
            registry_pull_secret=environ.get("CLOUDMESH_REGISTRY_PULL_SECRET") or "",
            version=environ.get("CLOUDMESH_VERSION") or "0.0.0",
            pod_name=pod_name,
            identity=f"{pod_name}_{secrets.token_hex(4)}",
            log_level=level,
            http_port=_number(environ, "CLOUDMESH_HTTP_PORT", 8080, 0, 65535),
            lease_name=environ.get("CLOUDMESH_LEASE_NAME") or "cloudmesh-operator",
            workers=_number(environ, "CLOUDMESH_WORKERS", 8, 1, 256),
        )


def _check_label(variable: str, value: str) -> None:
    if not _DNS_LABEL.fullmatch(value):
        raise SettingsError(f"{variable} must hold names of namespaces, and {value!r} is none")


def _number(environ: Mapping[str, str], variable: str, default: int, low: int, high: int) -> int:
    text = environ.get(variable) or str(default)
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise SettingsError(f"{variable} must be a whole number from {low} to {high}, not {text!r}")
    return value
