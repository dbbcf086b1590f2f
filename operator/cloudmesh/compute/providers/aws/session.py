"""Calls of EC2: credentials of the account's Secret or role only, each in a thread, with a limit, errors classified."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError

from cloudmesh.compute.providers.aws.errors import classify
from cloudmesh.compute.providers.aws.roles import assumed
from cloudmesh.engine.connections import connect_by, refusal
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import AuthFailed, InvalidRequest, Transient

KEY_ID, SECRET_KEY, SESSION_TOKEN = "aws_access_key_id", "aws_secret_access_key", "aws_session_token"
THREADS = 16
CONNECT_SECONDS, READ_SECONDS, CREATE_SECONDS = 5, 30, 60
LIST_SECONDS = 120.0
_SAFE_KEYS = frozenset({KEY_ID, SECRET_KEY, SESSION_TOKEN, "hosts"})


@cache
def _loader() -> Loader:
    """The descriptions of the services, read once for all accounts: that of EC2 takes a fifth of a second and 30 MB."""
    return Loader(extra_search_paths=[Loader.BUILTIN_DATA_PATH], include_default_search_paths=False)


@dataclass(frozen=True, slots=True)
class Role:
    """What the operator's own token is good for.

    Args:
        arn: The role.
        name: Name of its sessions.
        token_file: File with the token.
        seconds: How long a session lasts.
    """

    arn: str
    name: str
    token_file: str
    seconds: int


class Session:
    """One region of one account.

    Args:
        region: Region of all calls.
        proof: A role; or data of the Secret: the two keys, perhaps a session token; other keys are refused.
        endpoint: Another URL than AWS's own, empty for that.
        read_seconds: How long an answer may take.
        create_seconds: How long that of RunInstances may take.
        guard: Makes the connections.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: It holds a key that means nothing here.
    """

    def __init__(
        self,
        region: str,
        proof: Mapping[str, bytes] | Role,
        endpoint: str = "",
        read_seconds: float = READ_SECONDS,
        create_seconds: float = CREATE_SECONDS,
        guard: Guard = ANYWHERE,
    ) -> None:
        self.region = region
        self._guard = guard
        self._closed = False
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="aws")
        self._unsigned: Any = None
        credentials = self._of_role(proof, endpoint, read_seconds) if isinstance(proof, Role) else _of_secret(proof)
        self._ec2 = self._client("ec2", credentials, endpoint, read_seconds)
        self._slow = self._client("ec2", credentials, endpoint, create_seconds)
        self._sts = self._client("sts", credentials, endpoint, read_seconds)

    def __repr__(self) -> str:
        return f"Session(region={self.region!r})"

    def _of_role(self, role: Role, endpoint: str, read_seconds: float) -> Credentials:
        self._unsigned = self._client("sts", None, endpoint, read_seconds)
        return assumed(self._unsigned, role.arn, role.name, role.token_file, role.seconds)

    def _client(self, service: str, credentials: Credentials | None, endpoint: str, read_seconds: float) -> Any:
        # a core session of its own: no file, no environment and no metadata service is asked for credentials or regions
        core = botocore.session.Session(
            session_vars={
                "profile": (None, None, None, None),
                "config_file": (None, None, "/dev/null", None),
                "credentials_file": (None, None, "/dev/null", None),
            }
        )
        core.register_component("data_loader", _loader())
        core._credentials = credentials  # type: ignore[attr-defined]  # botocore's own setter asks the chain
        options: dict[str, Any] = {
            # a repeat is the caller's decision: it knows the token
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": read_seconds,
            "max_pool_connections": THREADS,
            "ignore_configured_endpoint_urls": True,
        }
        if credentials is None:
            options["signature_version"] = UNSIGNED  # nor is the chain asked then
        session: Any = boto3.session.Session(botocore_session=core, region_name=self.region)
        client = session.client(service, endpoint_url=endpoint or None, config=Config(**options))
        connect_by(client, self._guard)
        return client

    async def call(self, operation: str, what: str = "", **parameters: Any) -> dict[str, Any]:
        """One call of EC2.

        Args:
            operation: Name as botocore spells it, such as `run_instances`.
            what: What is being done, for errors.
            **parameters: Those of the operation.

        Raises:
            CloudmeshError: Of the taxonomy; Transient where the outcome is unknown.
        """
        client = self._slow if operation == "run_instances" else self._ec2
        return await self._run(getattr(client, operation), what or operation, **parameters)

    async def identity(self) -> dict[str, Any]:
        """Whose credentials these are."""
        return await self._run(self._sts.get_caller_identity, "GetCallerIdentity")

    async def pages(self, operation: str, key: str, **parameters: Any) -> list[dict[str, Any]]:
        """All items of all pages of a list.

        Raises:
            CloudmeshError: A page failed; what came before is not given, since it proves nothing.
        """
        items: list[dict[str, Any]] = []
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(asyncio.timeout(LIST_SECONDS))
            token = ""
            while True:
                more = {"NextToken": token} if token else {}
                page = await self.call(operation, **parameters, **more)
                items += page.get(key, [])
                token = str(page.get("NextToken") or "")
                if not token:
                    return items

    async def _run(self, function: Callable[..., dict[str, Any]], what: str, **parameters: Any) -> dict[str, Any]:
        if self._closed:
            raise Transient(f"{what}: the account was closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(**parameters))
        except (ClientError, BotoCoreError, ResponseParserError) as error:
            if refused := refusal(error):
                raise type(refused)(f"{what}: {refused}") from None
            raise classify(error, what) from None  # the chain would hold the request with its signature
        except TimeoutError:
            raise Transient(f"{what}: time-out") from None

    def close(self) -> None:
        """Lets threads end; calls under way are not waited for."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._ec2.close()
        self._slow.close()
        self._sts.close()
        if self._unsigned is not None:
            self._unsigned.close()


def _of_secret(data: Mapping[str, bytes]) -> Credentials:
    if strange := sorted(set(data) - _SAFE_KEYS):
        raise InvalidRequest(f"the Secret's key {strange[0]!r} isn't used; known are {', '.join(sorted(_SAFE_KEYS))}")
    if missing := [key for key in (KEY_ID, SECRET_KEY) if not data.get(key)]:
        raise AuthFailed(f"the Secret lacks the key {missing[0]!r}")
    values = {key: value.decode().strip() for key, value in data.items()}
    return Credentials(values[KEY_ID], values[SECRET_KEY], values.get(SESSION_TOKEN) or None, method="cloudmesh")


def filters(values: Mapping[str, str | Sequence[str]]) -> list[dict[str, Any]]:
    """EC2's form of filters."""
    return [
        {"Name": name, "Values": [value] if isinstance(value, str) else list(value)} for name, value in values.items()
    ]
