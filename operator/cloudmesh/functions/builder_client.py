"""The operator's side of the builder's HTTP API (HTTPS, bearer token)."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from cloudmesh.engine.errors import AuthFailed, RateLimited, Transient

Json = dict[str, Any]
TOKEN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Refused(Exception):
    """The builder read the request and says no: the user's input is wrong.

    `kind` is the builder's error class (`SourceInvalid`, `DependenciesUnsatisfiable`, …); line and column are 0 where
    they mean nothing.
    """

    kind: str
    message: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return self.text

    @property
    def text(self) -> str:
        """The message, with the place in front where there is one."""
        return f"line {self.line}, column {self.column}: {self.message}" if self.line else self.message


def refused(error: Mapping[str, Any]) -> Refused:
    """An error object of the builder as `Refused`."""
    return Refused(
        kind=str(error.get("class", "BuildFailed")),
        message=str(error.get("message", "the builder gave no reason")),
        line=int(error.get("line") or 0),
        column=int(error.get("column") or 0),
    )


class BuilderClient:
    """Calls the builder.

    Args:
        url: where it listens, without a trailing slash.
        timeout_seconds: bound on a call.
        parse_seconds: bound on `parse`: other sources may be read first.
        lock_seconds: bound on `lock`.
    """

    def __init__(
        self, url: str, *, timeout_seconds: float = 10.0, parse_seconds: float = 30.0, lock_seconds: float = 120.0
    ) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout_seconds
        self._parse_seconds = parse_seconds
        self._lock_seconds = lock_seconds
        self._session: aiohttp.ClientSession | None = None
        self._material: tuple[str, str] | None = None
        self._known = asyncio.Event()
        self._ssl: ssl.SSLContext | bool = True

    async def close(self) -> None:
        """Ends the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def use(self, token: str, ca: str) -> None:
        """Takes the credentials of the builder's Secret; until then every call is Transient."""
        if self._material != (token, ca):
            self._material = (token, ca)
            self._ssl = ssl.create_default_context(cadata=ca) if ca else True
        self._known.set()

    async def _token(self) -> str:
        # A new leader reads the Secret beside its first objects.
        try:
            async with asyncio.timeout(TOKEN_SECONDS):
                await self._known.wait()
        except TimeoutError:
            raise Transient("the builder's token isn't there yet") from None
        assert self._material is not None  # noqa: S101 - set before the event
        return self._material[0]

    async def _call(
        self, method: str, path: str, body: Json | None = None, *, seconds: float | None = None
    ) -> tuple[int, Json]:
        token = await self._token()
        if self._session is None:
            self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64, keepalive_timeout=30))
        try:
            async with self._session.request(
                method,
                self._url + path,
                json=body,
                ssl=self._ssl,
                headers={"Authorization": f"Bearer {token}"},
                timeout=aiohttp.ClientTimeout(total=seconds or self._timeout, sock_connect=3),
            ) as answer:
                raw = await answer.read()
                status, headers = answer.status, answer.headers
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise Transient(f"the builder doesn't answer: {type(error).__name__}: {error}") from error
        try:
            data = json.loads(raw) if raw else {}
        except ValueError as error:
            raise Transient(f"the builder answered {status} with something that isn't JSON") from error
        if status in (401, 403):
            raise AuthFailed("the builder refuses the operator's token")
        if status == 429:
            raise RateLimited("the builder is busy", retry_after=float(headers.get("Retry-After", 1)))
        if status >= 500:
            raise Transient(f"the builder answered {status}: {_message(data)}")
        return status, data if isinstance(data, dict) else {}

    async def parse(self, body: Json) -> Json:
        """Reads a source. Raises `Refused` (SourceInvalid), or the taxonomy."""
        return await self._ok("POST", "/v1/parse", body, seconds=self._parse_seconds)

    async def lock(self, body: Json) -> Json:
        """Locks requirements. Raises `Refused` (DependenciesUnsatisfiable), or the taxonomy."""
        return await self._ok("POST", "/v1/lock", body, seconds=self._lock_seconds)

    async def info(self) -> Json:
        """What the builder builds with: version and digests of base and runtime."""
        return await self._ok("GET", "/v1/info")

    async def start(self, body: Json) -> str:
        """Asks for a build; the same request is the same build. Gives its id."""
        return str((await self._ok("POST", "/v1/builds", body))["id"])

    async def build(self, build_id: str) -> Json | None:
        """How a build stands; None if the builder doesn't know it (it restarted): ask for it again."""
        status, data = await self._call("GET", f"/v1/builds/{build_id}")
        if status == 404:
            return None
        if status >= 400:
            raise refused(data.get("error") or {})
        return data

    async def _ok(self, method: str, path: str, body: Json | None = None, *, seconds: float | None = None) -> Json:
        status, data = await self._call(method, path, body, seconds=seconds)
        if status >= 400:
            raise refused(data.get("error") or {"message": f"the builder answered {status}"})
        return data


def _message(data: object) -> str:
    if isinstance(data, Mapping) and isinstance(error := data.get("error"), Mapping):
        return str(error.get("message", ""))
    return ""
