"""Requests to one collection of a WebDAV server, and what its answers mean."""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Final, TypeVar
from urllib.parse import quote, unquote_to_bytes

import aiohttp
from yarl import URL

from cloudmesh.data.errors import Changed, Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores.guarded import GuardedConnector
from cloudmesh.data.stores.webdav_xml import PROPERTIES, Multistatus, Resource, asked
from cloudmesh.engine.answers import beginning
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    NameConflict,
    RateLimited,
    Transient,
    Unsupported,
)

T = TypeVar("T")
CALL_SECONDS: Final = 60.0
CONNECT_SECONDS: Final = 15.0
CONNECTIONS: Final = 16
IDLE_SECONDS: Final = 4.0
"""Shorter than servers keep a connection: what goes out on one that is being closed is lost without an answer."""
TRIES: Final = 3
PAUSE_SECONDS: Final = 0.1
MOST_OF_ANSWER: Final = 1 << 20
MOST_OF_LISTING: Final = 2 << 30


class NoAnswer(Transient):
    """Nothing came in time."""


class NoParent(NameConflict):
    """Status 409: the collection above isn't there, or isn't one."""


class DavClient:
    """One collection.

    Args:
        base: Its URL.
        user: Login name.
        password: Its password.
        authorities: Certificates in PEM form that are believed besides the system's.
        seconds: Time without a byte after which a request is given up.
        guard: Says where connections may go.

    Raises:
        InvalidRequest: The certificates can't be read, or the URL's host is refused.
    """

    def __init__(
        self, base: str, user: str, password: str, *, authorities: str = "", seconds: float = CALL_SECONDS,
        guard: Guard = ANYWHERE,
    ) -> None:  # fmt: skip
        self.base = base.rstrip("/")
        url = URL(self.base, encoded=True)
        guard.check_hosts([url.host or ""])
        self.host = url.host or ""
        self.root = unquote_to_bytes(url.raw_path.rstrip("/")) + b"/"
        """Path of the collection, decoded."""
        self.seconds = seconds
        self._guard = guard
        login = b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "Accept-Encoding": "identity"}
        self._tls = ssl.create_default_context()
        if authorities:
            try:
                self._tls.load_verify_locations(cadata=authorities)
            except (ssl.SSLError, ValueError):
                raise InvalidRequest(
                    "the Secret's key 'ca.crt' can't be read: certificates in PEM form are needed"
                ) from None
        self.made: set[str] = set()
        """Collections that were there."""
        self.tags_stay = False
        """A MOVE has left an entity tag as it was."""
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def url(self, path: str) -> str:
        """The URL of a path below the collection."""
        return f"{self.base}/{quote(path)}"

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise Transient("the store was closed")
        if self._session is None:
            connector = GuardedConnector(self._guard, limit=CONNECTIONS, ssl=self._tls, keepalive_timeout=IDLE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False,
                headers=self._headers, skip_auto_headers=("Content-Type",),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=min(CONNECT_SECONDS, self.seconds), sock_read=self.seconds
                ),
            )  # fmt: skip
            # a PUT or DELETE whose connection broke mustn't go out again unasked
            self._session._retry_connection = False
        return self._session

    @asynccontextmanager
    async def request(
        self, method: str, path: str, *, also: Collection[int] = (), writing: bool = False,
        headers: Mapping[str, str] | None = None, data: bytes | AsyncIterator[bytes] = b"",
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """One request; its body is still to come.

        Args:
            method: HTTP method.
            path: Below the collection.
            also: Statuses from 300 that are answers too.
            writing: A refusal means that the store takes no writes.
            headers: More headers.
            data: Body.

        Raises:
            InvalidRequest: The host leads where no store may be.
            Missing: Status 404, of whoever has answered.
        """
        what = path or "the collection"
        try:
            async with self._open().request(
                method, URL(self.url(path), encoded=True), headers=headers, data=data or None, allow_redirects=False
            ) as answer:
                if answer.status >= 300 and answer.status not in also:
                    raise classify(answer.status, answer.headers, what, writing=writing)
                yield answer
        except TimeoutError:
            raise NoAnswer(f"{what}: {self.host} doesn't answer") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise AuthFailed(
                f"{what}: the certificate of {self.host} isn't believed: {error.certificate_error}"
            ) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Transient(f"{what}: the connection to {self.host} broke: {type(error).__name__}") from None

    async def change(
        self, method: str, path: str, *, also: Collection[int] = (), headers: Mapping[str, str] | None = None
    ) -> int:
        """A request that changes something and goes out once; gives the status.

        Raises:
            Transient: It failed in part.
        """
        async with self.request(method, path, also=also, headers=headers, writing=True) as answer:
            await _drained(answer)
            if answer.status == 207:
                raise Transient(f"{path}: {method} failed in part")
            return answer.status

    async def put(self, path: str, content: AsyncIterator[bytes] | bytes, size: int | None) -> None:
        """Writes a file; the collection above must be there."""
        headers = {"Content-Type": "application/octet-stream"}
        if size is not None:
            headers["Content-Length"] = str(size)
        try:
            # it begins with the first piece: one may wait for a connection before
            async with asyncio.timeout(None) as limit:
                data = self._watched(_one(content) if isinstance(content, bytes) else content, limit)
                async with self.request("PUT", path, headers=headers, data=data, writing=True) as answer:
                    await _drained(answer)
        except TimeoutError:
            raise NoAnswer(f"{path}: {self.host} takes no more of the content") from None

    async def _watched(self, content: AsyncIterator[bytes], limit: asyncio.Timeout) -> AsyncIterator[bytes]:
        """The content; the time in which a piece must go is limited, that in which the next one comes isn't."""
        loop = asyncio.get_running_loop()
        async for piece in content:
            limit.reschedule(loop.time() + self.seconds)
            yield piece
            limit.reschedule(None)
        limit.reschedule(loop.time() + 2 * self.seconds)

    async def get(self, path: str, most: int) -> bytes | None:
        """The beginning of a small file, None if there surely is none."""

        async def once() -> bytes:
            async with self.request("GET", path) as answer:
                return await beginning(answer.content, most)

        try:
            return await again(once)
        except Missing:
            await self.absent()
            return None

    async def look(self, path: str) -> Resource | None:
        """What lies there, None if surely nothing does."""
        try:
            found, _ = await again(lambda: self.propfind(path))
        except Missing:
            await self.absent()
            return None
        except InvalidRequest:
            if not await self.below_file(path):
                raise
            return None
        return found

    async def below_file(self, path: str) -> bool:
        """Whether nothing can be there since a file is above: servers find such a URL wrong, and not only missing."""
        above = path.rstrip("/") if path.endswith("/") else path.rpartition("/")[0]
        while above:
            seen = await self.look(above)
            if seen is not None:
                return not seen.folder
            above = above.rpartition("/")[0]
        return False

    async def propfind(self, path: str, *names: str) -> tuple[Resource, float | None]:
        """What lies there, and the server's clock in seconds.

        Raises:
            Missing: Status 404, of whoever has answered.
        """
        found: list[Resource] = []
        clock = await self._multistatus(path, "0", asked(*PROPERTIES, *names), found.append)
        if len(found) != 1 or found[0].path.rstrip(b"/") != (self.root + path.encode()).rstrip(b"/"):
            raise Transient(f"{path}: the answer is about something else")
        if not found[0].folder and not found[0].tag:
            raise Unsupported(f"{path}: the server tells no entity tag")
        return found[0], clock

    async def members(self, path: str, found: Callable[[bytes, Resource], None]) -> bool:
        """Tells what lies in a collection, by name; False if there is none.

        Raises:
            Missing: Status 404, of whoever has answered.
        """
        own = self.root + path.encode()
        own = own if own.endswith(b"/") else own + b"/"
        itself: list[Resource] = []

        def take(each: Resource) -> None:
            if each.path.rstrip(b"/") == own.rstrip(b"/"):
                itself.append(each)
                return
            name = each.path.removeprefix(own).removesuffix(b"/")
            if not each.path.startswith(own) or not name or b"/" in name:
                raise Transient(f"{path}: the answer names {each.path[:200]!r}, which doesn't lie in it")
            found(name, each)

        await self._multistatus(path, "1", asked(*PROPERTIES), take)
        if len(itself) != 1:
            raise Transient(f"{path}: the answer doesn't tell of the collection itself")
        return itself[0].folder

    async def _multistatus(self, path: str, depth: str, body: bytes, found: Callable[[Resource], None]) -> float | None:
        headers = {"Depth": depth, "Content-Type": "application/xml; charset=utf-8"}
        most = MOST_OF_ANSWER if depth == "0" else MOST_OF_LISTING
        async with self.request("PROPFIND", path, headers=headers, data=body) as answer:
            if answer.status != 207:
                raise Transient(f"{path or 'the collection'}: no multistatus, but status {answer.status}")
            reader = Multistatus(path or "the collection", found)
            async for chunk in answer.content.iter_any():
                most -= len(chunk)
                if most < 0:
                    raise Transient(f"{path}: the answer is too large")
                reader.feed(chunk)
            reader.end()
            return clock_of(answer.headers)

    async def absent(self) -> None:
        """Makes sure that what has said that something isn't there was the server, and that it has the collection.

        Raises:
            InvalidRequest: There is no such collection.
            Transient: Something in between has answered.
        """
        try:
            found, _ = await again(lambda: self.propfind(""))
        except Missing:
            async with self.request("OPTIONS", "", also=range(300, 600)) as answer:
                if "DAV" not in answer.headers:
                    raise Transient(f"{self.host} doesn't answer as a WebDAV server") from None
            raise InvalidRequest(f"there is no collection {self.base}/: make it, or name another one") from None
        if not found.folder:
            raise InvalidRequest(f"{self.base} is no collection")

    async def close(self) -> None:
        """Lets go of connections; twice is fine."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


async def again(function: Callable[[], Awaitable[T]]) -> T:
    """Does what changes nothing once more, where the connection broke or the server failed."""
    for attempt in range(TRIES - 1):
        try:
            return await function()
        except NoAnswer:
            raise
        except Transient:
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
    return await function()


def classify(status: int, headers: Mapping[str, str], what: str, *, writing: bool) -> CloudmeshError:
    """The error of the taxonomy.

    Args:
        status: HTTP status from 300.
        headers: Of the answer.
        what: What was being done, with the key.
        writing: Whether it would have changed something.
    """
    text = f"{what}: {status} {responses.get(status, '')}".rstrip()
    wait = headers.get("Retry-After", "")
    seconds = float(wait) if wait.replace(".", "", 1).isdigit() else None
    match status:
        case 401 | 407:
            return AuthFailed(f"{text}: the user name or password of the Secret is refused")
        case 403:
            return ReadOnly(text) if writing else AuthFailed(text)
        case 404 | 410:
            return Missing(text)
        case 405 | 501:
            return Unsupported(f"{text}: the server can't do that")
        case 409:
            return NoParent(f"{text}: the collection above isn't there, or is a file")
        case 412:
            return Changed(text)
        case 414:
            return InvalidName(f"{text}: the name is too long for the server")
        case 423 | 424:
            return Conflict(f"{text}: somebody holds a lock")
        case 429:
            return RateLimited(text, seconds)
        case 503 if wait:
            return RateLimited(text, seconds)
        case 507:
            return Full(text)
        case _ if status < 400:
            return InvalidRequest(f"{text}: the server sends elsewhere, which isn't followed: name that URL")
        case 408 | 425:
            return Transient(text)
        case _ if status < 500:
            return InvalidRequest(text)
        case _:
            return Transient(text)


def clock_of(headers: Mapping[str, str]) -> float | None:
    """The server's clock in seconds, None if it doesn't tell."""
    try:
        # told in whole seconds: half of one is added
        return parsedate_to_datetime(headers.get("Date", "")).timestamp() + 0.5
    except (ValueError, TypeError):
        return None


async def _one(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content


async def _drained(answer: aiohttp.ClientResponse) -> None:
    """Reads what a short answer says, so that its connection can be used again."""
    await beginning(answer.content, MOST_OF_ANSWER)
