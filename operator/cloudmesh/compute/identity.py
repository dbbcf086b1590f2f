"""Who a CloudAccount is without a Secret: the operator itself, by a token of its service account.

All accounts without a Secret share that one identity, so they are taken only in namespaces that the installation names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import AuthFailed, InvalidRequest


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """What an account proves its identity with.

    Args:
        spec: `spec.credentials.workloadIdentity`, such as `{"roleArn": …}`.
        token_file: Where the token is; it is renewed there, and read again for each use.
    """

    spec: Mapping[str, Any]
    token_file: str


def identity_of(obj: Mapping[str, Any], hosts: tuple[str, ...], settings: ComputeSettings) -> WorkloadIdentity | None:
    """The identity that a CloudAccount asks for; None if it has a Secret, or needs nothing.

    Args:
        obj: The CloudAccount.
        hosts: Hosts that it names.
        settings: Of the installation.

    Raises:
        InvalidRequest: It names a host: a token of the operator would be sent to whom the account's author likes.
        AuthFailed: Its namespace may not.
    """
    asked = (obj["spec"].get("credentials") or {}).get("workloadIdentity")
    if not asked:
        return None
    if hosts and not settings.allow_private_endpoints:
        raise InvalidRequest(
            f"an account with an endpoint needs `spec.credentials.secretRef`: {hosts[0]} gets no token of the operator"
        )
    namespace = obj["metadata"]["namespace"]
    if namespace not in settings.identity_namespaces or not settings.identity_token_file:
        raise AuthFailed(
            f"CloudAccounts of namespace '{namespace}' may not use the operator's identity: whoever installs Cloudmesh "
            "allows it by the chart's value `accounts.workloadIdentity.namespaces`; or use "
            "`spec.credentials.secretRef`"
        )
    return WorkloadIdentity(asked, settings.identity_token_file)
