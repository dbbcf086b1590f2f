"""Whom tokens of service accounts are for, by the cloud that is to take them, and which addresses are its own. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloudmesh.api.places import address

IDENTITY_FOLDER = "/var/run/secrets/cloudmesh.org/identity"
"""Where a gateway has the tokens of its service account for clouds, if stores of it need some."""
GOOGLE_HOST: Final = "googleapis.com"
GOOGLE_RESOURCE: Final = "iam.googleapis.com"
"""Names of providers begin with it, in full."""


@dataclass(frozen=True, slots=True)
class AzureCloud:
    """One of Azure's clouds.

    Args:
        domain: End of all its addresses.
        authority: Where it gives tokens.
        audience: Whom a token is for that is traded there.
    """

    domain: str
    authority: str
    audience: str


AZURE: Final = AzureCloud("core.windows.net", "https://login.microsoftonline.com", "api://AzureADTokenExchange")
AZURE_CLOUDS: Final = (
    AZURE,
    AzureCloud("core.chinacloudapi.cn", "https://login.chinacloudapi.cn", "api://AzureADTokenExchangeChina"),
    AzureCloud("core.usgovcloudapi.net", "https://login.microsoftonline.us", "api://AzureADTokenExchangeUSGov"),
)


def azure_cloud(endpoint: str) -> AzureCloud:
    """The cloud that an account's endpoint belongs to; the public one for any other address."""
    host = _host(endpoint)
    return next((cloud for cloud in AZURE_CLOUDS if host.endswith(f".{cloud.domain}")), AZURE)


def is_own(kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether a store is where its cloud puts it: a token that is sent there reaches nobody else.

    Args:
        kind: Member of DataStore.spec.
        settings: That member.
    """
    endpoint = str(settings.get("endpoint") or "")
    if not endpoint:
        return True
    host, secure = _host(endpoint), endpoint.startswith("https:")
    if kind == "azureBlob":
        own = {f"{settings['account']}.blob.{cloud.domain}" for cloud in AZURE_CLOUDS}
        return secure and host in own
    return kind == "gcs" and secure and host.endswith(f".{GOOGLE_HOST}")


def audience(kind: str, settings: Mapping[str, Any], identity: Mapping[str, str], aws: str) -> str:
    """Whom the token is for by which a store's gateway proves who it is.

    Args:
        kind: Member of DataStore.spec.
        settings: That member.
        identity: What `spec.credentials.workloadIdentity` says.
        aws: What AWS takes, as the installation says.
    """
    if kind == "azureBlob":
        return azure_cloud(str(settings.get("endpoint") or "")).audience
    return f"https://{GOOGLE_RESOURCE}/{identity['provider']}" if kind == "gcs" else aws


def identity_token(audience: str) -> str:
    """Path of the token for whoever the audience names."""
    return f"{IDENTITY_FOLDER}/{hashlib.sha256(audience.encode()).hexdigest()[:16]}"


def _host(url: str) -> str:
    return address(url)[0].rstrip(".")
