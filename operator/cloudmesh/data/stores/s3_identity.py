"""Credentials of S3: the Secret's two keys, or those of a role, for a token of the Pod's service account."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.credentials import Credentials, DeferredRefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cloudmesh.data.stores.common import needed, secret_texts
from cloudmesh.data.stores.s3_errors import classify
from cloudmesh.engine.errors import AuthFailed, InvalidRequest

KEY_ID, SECRET_KEY, SESSION_TOKEN = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
SESSION_SECONDS = 3600
NAME_LENGTH = 64
"""Of the name of a role's session, as STS takes it."""
LOOKED_AT_SECONDS = 600
"""How long obstore goes by what it was given; it asks again five minutes before."""


@dataclass(frozen=True, slots=True)
class Role:
    """What the token of a service account is good for.

    Args:
        arn: The role.
        name: Name of its sessions, of which as many characters are taken as STS takes.
        token_file: File with the token, which is read each time: it is renewed there.
    """

    arn: str
    name: str
    token_file: str


def of_secret(data: Mapping[str, bytes]) -> Credentials:
    """The keys of a Secret.

    Raises:
        AuthFailed: A key is missing.
        InvalidRequest: A key means nothing here.
    """
    values = secret_texts(data, {KEY_ID, SECRET_KEY, SESSION_TOKEN})
    needed(values, KEY_ID, SECRET_KEY)
    return Credentials(values[KEY_ID], values[SECRET_KEY], values.get(SESSION_TOKEN), method="cloudmesh")


def of_role(sts: Any, role: Role) -> DeferredRefreshableCredentials:
    """Keys of a role, asked for at the first call, and anew a quarter of an hour before they end.

    Args:
        sts: A client of STS that signs nothing.
        role: Which, and by which token.

    Raises:
        AuthFailed: At a call: there is no token, STS doesn't believe it, or the role doesn't trust it.
        Transient: At a call: STS doesn't answer.
    """
    name = role.name[:NAME_LENGTH]
    what = f"AssumeRoleWithWebIdentity {role.arn} as {name}"

    def renew() -> dict[str, str]:
        try:
            token = Path(role.token_file).read_text().strip()
        except OSError as error:
            raise AuthFailed(f"{what}: there is no token: {error.strerror}") from None
        try:
            answer = sts.assume_role_with_web_identity(
                RoleArn=role.arn, RoleSessionName=name, WebIdentityToken=token, DurationSeconds=SESSION_SECONDS
            )
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            found = classify(error, what)
            # whatever STS finds wrong is wrong with the token or the role
            raise (AuthFailed(str(found)) if isinstance(found, InvalidRequest) else found) from None
        made = answer["Credentials"]
        return {
            "access_key": made["AccessKeyId"],
            "secret_key": made["SecretAccessKey"],
            "token": made["SessionToken"],
            "expiry_time": made["Expiration"].isoformat(),
        }

    return DeferredRefreshableCredentials(renew, method="cloudmesh")


def for_obstore(credentials: Credentials) -> Callable[[], dict[str, Any]]:
    """What gives obstore the same."""
    ends = isinstance(credentials, DeferredRefreshableCredentials)

    def give() -> dict[str, Any]:
        now = credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            "expires_at": datetime.now(UTC) + timedelta(seconds=LOOKED_AT_SECONDS) if ends else None,
        }

    return give
