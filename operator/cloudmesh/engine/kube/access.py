"""Where the API server is and how to log in: a service account inside a cluster, a kubeconfig outside."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.aio import config
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from yaml import YAMLError

from cloudmesh.engine.errors import AuthFailed

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class AccessMissing(AuthFailed):
    """Neither a service account nor a kubeconfig can be used; the message says what to set."""


@dataclass(frozen=True, slots=True)
class Login:
    """Plain connection facts for other clients in this process; files may be temporary ones of this process."""

    server: str
    ca_path: str | None
    verify: bool
    scheme: str | None
    token: str | None
    certificate_path: str | None
    key_path: str | None
    username: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Login(server={self.server!r})"


class Access:
    """Connection settings that renew themselves (service account tokens rotate)."""

    def __init__(self, configuration: Any) -> None:
        self.configuration = configuration

    @classmethod
    async def load(cls, kubeconfig: str | None = None, context: str | None = None) -> Access:
        """Loads `kubeconfig`, else $KUBECONFIG, else the Pod's service account, else ~/.kube/config.

        Raises:
            AccessMissing: Nothing usable was found.
        """
        settings = Configuration()
        path = kubeconfig or os.environ.get("KUBECONFIG")
        in_cluster = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        try:
            if not path and in_cluster:
                config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=settings
                )
            else:
                await config.load_kube_config(  # type: ignore[no-untyped-call]
                    config_file=path, context=context, client_configuration=settings, persist_config=False
                )
        except (ConfigException, YAMLError, OSError, TypeError, KeyError, ValueError) as error:
            where = (
                "the Pod's service account" if not path and in_cluster else f"kubeconfig {path or '~/.kube/config'!r}"
            )
            raise AccessMissing(
                f"{where} can't be used: {error}; set KUBECONFIG to a readable file or run inside a cluster "
                "with a service account"
            ) from error
        return cls(settings)

    async def authorization(self) -> str | None:
        """Value of the Authorization header, from the freshest token."""
        header: str | None = await self.configuration.get_api_key_with_prefix("BearerToken")
        if header is None and self.configuration.username:
            header = self.configuration.get_basic_auth_token()
        return header

    async def login(self) -> Login:
        """The same connection for another HTTP client."""
        settings = self.configuration
        header = await settings.get_api_key_with_prefix("BearerToken")
        scheme, _, token = (header or "").partition(" ")
        return Login(
            server=settings.host,
            ca_path=settings.ssl_ca_cert or None,
            verify=bool(settings.verify_ssl),
            scheme=(scheme.capitalize() if token else None),
            token=token.strip() or None,
            certificate_path=settings.cert_file or None,
            key_path=settings.key_file or None,
            username=settings.username or None,
            password=settings.password or None,
        )


def own_namespace() -> str | None:
    """The namespace of this Pod's service account, None outside a cluster."""
    try:
        return NAMESPACE_FILE.read_text().strip() or None
    except OSError:
        return None
