"""Requests to Swift: with a token that lasts, at the pace that is allowed, with errors in the words of the taxonomy.

An answer without `X-Trans-Id` is none of Swift's: something in between has answered, and nothing is concluded from it.
Requests that publish or delete go out once; an unknown outcome is for the caller to look at.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlencode

import aiohttp
from yarl import URL

from cloudmesh.data.errors import Changed, Full, Missing
from cloudmesh.data.stores.common import Limits
from cloudmesh.data.stores.guarded import GuardedConnector
from cloudmesh.data.stores.swift_auth import OURS, Login, NoAnswer, Tokens, whole
from cloudmesh.data.stores.threads import outlast
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient, Unsupported

CONNECTIONS: Final = 16
CONNECT_SECONDS: Final = 10.0
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.1
_TEXT: Final = re.compile(rb"<[^>]{0,200}>")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer.

    Args:
        status: HTTP status below 300.
        headers: Headers, whatever their case.
        body: Body.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


class SwiftClient:
    """One container.

    Args:
        container: Its name.
        tokens: The login.
        limits: Of requests and bytes.
        seconds: Time without a byte after which a request is given up.
        guard: Says where connections may go.
    """

    def __init__(
        self, container: str, tokens: Tokens, limits: Limits, seconds: float, *, guard: Guard = ANYWHERE
    ) -> None:
        self.container = container
        self._tokens = tokens
        self._limits = limits
        self._seconds = seconds
        self._guard = guard
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    async def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Transient("the store was closed")
        if self._session is None:
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=min(CONNECT_SECONDS, self._seconds), sock_read=self._seconds
            )
            self._session = aiohttp.ClientSession(
                timeout=timeout,
                connector=GuardedConnector(self._guard, limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
                skip_auto_headers=("Content-Type",),
            )
            # a PUT or DELETE whose connection broke mustn't go out again unasked
            self._session._retry_connection = False
        return self._session

    async def login(self) -> Login:
        """Token and URL of the account."""
        return await self._tokens.get(self._open)

    async def look(
        self, method: str, key: str | None, *, query: Mapping[str, str] | None = None, **headers: str
    ) -> Answer:
        """GET or HEAD with a short answer; tried again when the connection broke or the server failed.

        Args:
            method: HTTP method.
            key: Of an object, None for the container itself.
            query: Parameters.
            headers: More headers, `_` for `-`.

        Raises:
            Missing: Status 404: there is no such object, or no container.
        """
        return await self.again(method, key, query=query, headers=_named(headers))

    async def again(
        self, method: str, key: str | None, *, query: Mapping[str, str] | None = None, headers: Mapping[str, str],
        body: bytes = b"",
    ) -> Answer:  # fmt: skip
        """A request that does no harm when it arrives twice."""
        for left in reversed(range(TRIES)):
            try:
                return await self.once(method, key, query=query, headers=headers, body=body)
            except (RateLimited, NoAnswer):
                raise
            except Transient:
                if not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS * 4 ** (TRIES - 1 - left))
        raise AssertionError

    async def change(
        self, method: str, key: str, *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None, body: bytes = b"", seconds: float = 0.0,
    ) -> Answer:  # fmt: skip
        """A request that goes out once, whose end is waited for even by whoever is cancelled.

        Args:
            method: HTTP method.
            key: Of the object.
            query: Parameters.
            headers: More headers.
            body: Body.
            seconds: More time than usual that the answer may take.
        """
        work = self.once(method, key, query=query, headers=headers or {}, body=body, seconds=seconds)
        return await outlast(work)

    async def once(
        self, method: str, key: str | None, *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str], body: bytes = b"", seconds: float = 0.0,
    ) -> Answer:  # fmt: skip
        """One request; a refused token is renewed."""
        async with self.open(method, key, query=query, headers=headers, body=body, seconds=seconds) as answer:
            with told(self._what(key)):
                return Answer(answer.status, answer.headers, await whole(answer))

    @asynccontextmanager
    async def open(
        self, method: str, key: str | None, *, query: Mapping[str, str] | None = None,
        headers: Mapping[str, str], body: bytes = b"", seconds: float = 0.0, also: Collection[int] = (),
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """The same with the body still to come; statuses of `also` are answers too."""
        what = self._what(key)
        for fresh in (False, True):
            await self._limits.request()
            login = await self.login()
            session = await self._open()
            with told(what):
                answer = await session.request(
                    method, self._url(login.url, key, query), data=io.BytesIO(body) if body else None,
                    headers={"X-Auth-Token": login.token, **headers}, allow_redirects=False,
                    timeout=self._timeout(seconds),
                )  # fmt: skip
            async with answer:
                if answer.status == 401:
                    self._tokens.drop(login)
                    if not fresh:
                        continue
                if OURS not in answer.headers or (answer.status >= 300 and answer.status not in also):
                    with told(what):
                        raise classify(answer.status, answer.headers, await whole(answer), what)
                yield answer
                return

    def _timeout(self, more: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None, sock_connect=min(CONNECT_SECONDS, self._seconds), sock_read=self._seconds + more
        )

    def _url(self, storage: str, key: str | None, query: Mapping[str, str] | None) -> URL:
        path = quoted(self.container) + ("" if key is None else f"/{quoted(key)}")
        more = f"?{urlencode(query, quote_via=quote)}" if query else ""
        return URL(f"{storage}/{path}{more}", encoded=True)

    def _what(self, key: str | None) -> str:
        return f"the container {self.container}" if key is None else key

    async def close(self) -> None:
        """Lets go of connections; twice is fine."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


@contextmanager
def told(what: str) -> Iterator[None]:
    """What the library raises, in the words of the taxonomy."""
    try:
        yield
    except TimeoutError:
        raise NoAnswer(f"{what}: no answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(f"{what}: the connection broke: {type(error).__name__}") from None


def classify(status: int, headers: Mapping[str, str], body: bytes, what: str) -> CloudmeshError:
    """The error of the taxonomy for an answer that isn't the one wanted.

    Args:
        status: HTTP status; below 300 where something else than Swift has answered.
        headers: Headers.
        body: Body, which is HTML.
        what: What was being done.
    """
    words = " ".join(_TEXT.sub(b" ", body[:600]).decode("utf-8", "replace").split())[:200]
    text = f"{what}: status {status}{': ' + words if words else ''}"
    if status in (429, 498):
        wait = headers.get("Retry-After", "")
        return RateLimited(text, float(wait) if wait.replace(".", "", 1).isdigit() else None)
    if status in (401, 403):
        return AuthFailed(text)
    if OURS not in headers:
        return Transient(f"{text} (not of Swift)")
    match status:
        case 404:
            return Missing(text)
        case 412:
            return Changed(text)
        case 413 if "quota" in words.lower():
            return Full(text)
        case 507:
            return Full(text)
        case 400 | 405 | 411 | 413 | 414 | 416:
            return InvalidRequest(text)
        case 501:
            return Unsupported(text)
        case _:
            # among them 408, 409, 422 and 499: too slow, overtaken by another write, damaged or broken off on its way
            return Transient(text)


def quoted(text: str) -> str:
    """A name as it stands in a path."""
    return quote(text, safe="/")


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
