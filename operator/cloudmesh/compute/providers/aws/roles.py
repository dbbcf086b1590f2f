"""Credentials of a role, for a token of the operator's service account: an hour long, renewed before they end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.credentials import DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cloudmesh.compute.providers.aws.errors import Denied, classify
from cloudmesh.engine.connections import refusal
from cloudmesh.engine.errors import AuthFailed

SESSION_SECONDS = 3600
NAME_LENGTH = 64
"""Of the name of a role's session, as STS takes it."""


def session_name(namespace: str, account: str) -> str:
    """Names the session after the account, so that a role's trust policy can ask for `NAMESPACE@*`."""
    return f"{namespace}@{account}"[:NAME_LENGTH]


def assumed(
    client: Any, role: str, name: str, token_file: str, seconds: int = SESSION_SECONDS
) -> DeferredRefreshableCredentials:
    """Credentials that are asked for at the first call, and anew a quarter of an hour before they end.

    Args:
        client: A client of STS that signs nothing.
        role: ARN of the role.
        name: Name of the session.
        token_file: File with the token.
        seconds: How long a session lasts.

    Raises:
        AuthFailed: At a call: STS doesn't believe the token, or the role doesn't trust it.
        Transient: At a call: STS doesn't answer.
    """
    what = f"AssumeRoleWithWebIdentity {role} as {name}"

    def renew() -> dict[str, str]:
        try:
            token = Path(token_file).read_text().strip()
        except OSError as error:
            raise AuthFailed(f"{what}: the operator has no token: {error.strerror}") from None
        try:
            answer = client.assume_role_with_web_identity(
                RoleArn=role, RoleSessionName=name, WebIdentityToken=token, DurationSeconds=seconds
            )
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            told = refusal(error) or classify(error, what)
            # of the role: it isn't one call that is denied
            raise AuthFailed(str(told)) if isinstance(told, Denied) else told from None
        made = answer["Credentials"]
        return {
            "access_key": made["AccessKeyId"],
            "secret_key": made["SecretAccessKey"],
            "token": made["SessionToken"],
            "expiry_time": made["Expiration"].isoformat(),
        }

    return DeferredRefreshableCredentials(renew, method="cloudmesh")
