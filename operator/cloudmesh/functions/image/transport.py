"""HTTP towards one registry: authentication, redirects, time-outs and retries; failures in the engine's taxonomy."""

from __future__ import annotations

import asyncio
import io
import json
import random
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import aiohttp
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    QuotaExceeded,
    RateLimited,
    Transient,
    Unsupported,
)
from cloudmesh.functions.image.auth import Challenge, Credentials, TokenCache, parse_challenge
from cloudmesh.functions.image.guard import GuardedResolver, check_host

_REDIRECTS = 5
_REGISTRY = re.compile(
    r"([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-f:]+\])(:\d{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)*/?"
)
_SHOWN = 300
_ERROR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A registry and how it is reached.

    Args:
        name: host with port, then the prefix of all repositories if there is one: `registry.example:5000/team`.
        credentials: None for anonymous access.
        ca: PEM of further certificate authorities to trust.
        insecure: speak plain HTTP.
    """

    name: str
    credentials: Credentials | None = None
    ca: str = field(default="", repr=False)
    insecure: bool = False

    @property
    def host(self) -> str:
        """Host with port."""
        return self.name.partition("/")[0]

    @property
    def prefix(self) -> str:
        """What every repository's name begins with: empty, or `path/`."""
        path = self.name.partition("/")[2].strip("/")
        return f"{path}/" if path else ""

    def url(self) -> URL:
        """The root of the registry.

        Raises:
            InvalidRequest: the name is no host.
        """
        if not _REGISTRY.fullmatch(self.name):
            raise InvalidRequest(f"registry {self.name!r}: write it as host, host:port or host:port/path")
        return URL(f"{'http' if self.insecure else 'https'}://{self.host}")


@dataclass(frozen=True, slots=True)
class Timing:
    """Bounds in seconds: to connect, for one request, for all tries of it; how often and how long to wait between."""

    connect: float = 5.0
    request: float = 60.0
    total: float = 150.0
    attempts: int = 5
    first_pause: float = 0.1
    longest_pause: float = 3.0


@dataclass(slots=True)
class Transfer:
    """What one piece of work sent: bytes of request bodies, tries included, and what became of its blobs."""

    uploaded_bytes: int = 0
    requests: int = 0
    uploaded: int = 0
    mounted: int = 0
    present: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL


class Transport:
    """Keep-alive connections to one registry. An async context manager.

    Args:
        endpoint: the registry.
        timing: time-outs and retries.
        connections: connections at once.
        guarded: refuse loopback, link-local and API server addresses: the registry's name comes from a user.

    Attributes:
        has_referrers: whether the registry has the referrers API; None until it was asked.
    """

    def __init__(
        self, endpoint: Endpoint, timing: Timing | None = None, *, connections: int = 16, guarded: bool = False
    ) -> None:
        self.endpoint = endpoint
        self._root = endpoint.url()
        self._timing = timing or Timing()
        self._guarded = guarded
        self._tokens = TokenCache()
        self._challenge: Challenge | None = None
        self.has_referrers: bool | None = None
        context: ssl.SSLContext | bool = True
        if endpoint.ca and not endpoint.insecure:
            context = ssl.create_default_context()
            try:
                context.load_verify_locations(cadata=endpoint.ca)
            except (ssl.SSLError, ValueError) as error:
                raise InvalidRequest(f"registry {endpoint.host}: the CA is no PEM certificate ({error})") from error
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=connections, ssl=context, keepalive_timeout=30, resolver=GuardedResolver() if guarded else None
            ),
            timeout=aiohttp.ClientTimeout(total=self._timing.request, sock_connect=self._timing.connect),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=True,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connections."""
        await self._session.close()

    async def request(
        self,
        method: str,
        target: str | URL,
        *,
        scopes: Sequence[str],
        transfer: Transfer,
        expect: Sequence[int],
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: bytes | memoryview | None = None,
        limit: int = 4 << 20,
        tries: int | None = None,
    ) -> Answer:
        """Ask, and ask again after transient faults.

        Args:
            method: HTTP method.
            target: path below the root, or a whole URL that the registry gave.
            scopes: rights to ask a token for, `repository:NAME:pull,push`.
            transfer: counts what is sent.
            expect: status codes that are no error.
            headers: further headers.
            params: added to the query.
            body: what is sent.
            limit: most bytes to read of the answer.
            tries: how often to try; 1 for what must not be sent twice.

        Raises:
            CloudmeshError: the registry refused, or didn't answer after all tries.
        """
        url = self._root.join(URL(target, encoded=True)) if isinstance(target, str) else self._root.join(target)
        if params:
            url = url.update_query(params)
        tries = tries or self._timing.attempts
        what = f"registry {self.endpoint.host}: {method} {url.path}"
        try:
            async with asyncio.timeout(self._timing.total):
                for attempt in range(tries):
                    try:
                        answer = await self._authorized(method, url, scopes, transfer, headers or {}, body, limit)
                        if answer.status in expect:
                            return answer
                        raise error_of(answer, what)
                    except (Transient, RateLimited) as error:
                        if attempt + 1 == tries:
                            raise
                        await asyncio.sleep(self._pause(attempt, error))
        except TimeoutError as error:
            raise Transient(f"{what}: no answer within {self._timing.total:.0f} s") from error
        raise Transient(what)

    def _pause(self, attempt: int, error: Transient | RateLimited) -> float:
        asked = error.retry_after if isinstance(error, RateLimited) else None
        pause = asked if asked is not None else self._timing.first_pause * 2**attempt
        return min(pause, self._timing.longest_pause) * random.uniform(0.75, 1.25)  # noqa: S311  # jitter

    async def _authorized(
        self,
        method: str,
        url: URL,
        scopes: Sequence[str],
        transfer: Transfer,
        headers: Mapping[str, str],
        body: bytes | memoryview | None,
        limit: int,
    ) -> Answer:
        authorization = await self._authorization(scopes)
        answer = await self._follow(method, url, transfer, headers, authorization, body, limit)
        if answer.status != 401:
            return answer
        challenge = parse_challenge(", ".join(answer.headers.getall("WWW-Authenticate", [])))
        if challenge is None:
            return answer
        if authorization is not None and challenge == self._challenge and challenge.scheme == "basic":
            return answer
        self._challenge = challenge
        self._tokens.drop(challenge, scopes)
        authorization = await self._authorization(scopes)
        if authorization is None:
            return answer
        return await self._follow(method, url, transfer, headers, authorization, body, limit)

    async def _authorization(self, scopes: Sequence[str]) -> str | None:
        challenge, credentials = self._challenge, self.endpoint.credentials
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            return credentials.basic() if credentials else None
        token = self._tokens.get(challenge, scopes)
        if token is None:
            token = await self._fetch_token(challenge, scopes)
        return f"Bearer {token}"

    async def _fetch_token(self, challenge: Challenge, scopes: Sequence[str]) -> str:
        what = f"registry {self.endpoint.host}: token"
        try:
            realm = URL(challenge.realm)
        except ValueError as error:
            raise AuthFailed(f"{what}: the realm {challenge.realm!r} is no URL") from error
        if realm.scheme not in (("https", "http") if self.endpoint.insecure else ("https",)):
            raise AuthFailed(f"{what}: the realm {challenge.realm!r} is not HTTPS")
        query = [("service", challenge.service)] if challenge.service else []
        url = realm.extend_query([*query, *(("scope", scope) for scope in scopes)])
        credentials = self.endpoint.credentials
        basic = credentials.basic() if credentials else None
        answer = await self._follow("GET", url, Transfer(), {}, basic, None, 1 << 20)
        if answer.status != 200:
            raise error_of(answer, what)
        try:
            value = json.loads(answer.body)
            token = value.get("token") or value["access_token"]
            seconds = float(value.get("expires_in") or 0) or None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AuthFailed(f"{what}: the realm's answer has no token") from error
        self._tokens.put(challenge, scopes, str(token), seconds)
        return str(token)

    async def _follow(
        self,
        method: str,
        url: URL,
        transfer: Transfer,
        headers: Mapping[str, str],
        authorization: str | None,
        body: bytes | memoryview | None,
        limit: int,
    ) -> Answer:
        """Send one request; GET and HEAD follow redirects, but the credentials stay on the host they are for."""
        origin = url.origin()
        for _ in range(_REDIRECTS):
            sent: CIMultiDict[str] = CIMultiDict(headers)
            if authorization and url.origin() == origin:
                sent["Authorization"] = authorization
            answer = await self._send(method, url, transfer, sent, body, limit)
            location = answer.headers.get("Location")
            if method not in ("GET", "HEAD") or answer.status not in (301, 302, 303, 307, 308) or not location:
                return answer
            following = url.join(URL(location))
            if following.scheme not in ("https", url.scheme):
                raise InvalidRequest(f"registry {self.endpoint.host}: redirects to {following.scheme}")
            url = following
        raise InvalidRequest(f"registry {self.endpoint.host}: over {_REDIRECTS} redirects")

    async def _send(
        self,
        method: str,
        url: URL,
        transfer: Transfer,
        headers: Mapping[str, str],
        body: bytes | memoryview | None,
        limit: int,
    ) -> Answer:
        what = f"registry {self.endpoint.host}: {method} {url.path}"
        if self._guarded:
            check_host(url.host or "")
        transfer.requests += 1
        transfer.uploaded_bytes += len(body) if body else 0
        sent = dict(headers)
        if body is not None:
            sent["Content-Length"] = str(len(body))
        try:
            async with self._session.request(
                method,
                url,
                headers=sent,
                data=io.BytesIO(body) if body else None,
                allow_redirects=False,
            ) as response:
                data = await _read(response, limit)
                return Answer(response.status, response.headers, data, url)
        except (aiohttp.ClientSSLError, aiohttp.InvalidURL) as error:
            raise InvalidRequest(f"{what}: {error}") from error
        except TimeoutError as error:
            raise Transient(f"{what}: no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Transient(f"{what}: {error or type(error).__name__}") from error


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body; of an error only the beginning."""
    failed = response.status >= 300
    data = bytearray()
    async for chunk in response.content.iter_chunked(65536):
        data += chunk
        if failed and len(data) > _ERROR_BYTES:
            response.close()
            break
        if not failed and len(data) > limit:
            response.close()
            raise InvalidRequest(f"{response.url.host}: the answer is over {limit} bytes")
    return bytes(data)


def error_of(answer: Answer, what: str) -> CloudmeshError:
    """The error of the taxonomy that an unwanted answer stands for."""
    code, text = _first_error(answer.body)
    message = f"{what}: {answer.status} {code} {text}".rstrip()
    match answer.status:
        case 401 | 403:
            return AuthFailed(message)
        case 429:
            return RateLimited(message, retry_after=_seconds(answer.headers.get("Retry-After")))
        case 507:
            return QuotaExceeded(message)
        case 409:
            return Conflict(message)
        case 405 | 501:
            return Unsupported(message)
        case 408:
            return Transient(message)
        case status if status >= 500:
            return Transient(message)
        case _:
            return InvalidRequest(message)


def _first_error(body: bytes) -> tuple[str, str]:
    """Code and message of a registry's error document; the bare text where it is none."""
    try:
        first = json.loads(body)["errors"][0]
        detail = first.get("detail")
        text = str(first.get("message") or "") + (f" ({json.dumps(detail)})" if detail else "")
        return str(first.get("code") or ""), text[:_SHOWN]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "", body[:_SHOWN].decode("utf-8", "replace").strip()


def _seconds(header: str | None) -> float | None:
    try:
        return max(0.0, float(header)) if header is not None else None
    except ValueError:
        return None
