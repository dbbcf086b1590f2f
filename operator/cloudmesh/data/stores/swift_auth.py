"""Logins of Swift: Keystone's v3 with a password or an application credential, and Swift's own v1."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import aiohttp

from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient

USER: Final = "username"
PASSWORD: Final = "password"  # noqa: S105 - a key's name
APPLICATION_ID: Final = "application_credential_id"
APPLICATION_SECRET: Final = "application_credential_secret"  # noqa: S105 - a key's name
DEFAULT_DOMAIN: Final = "Default"
V1_SECONDS: Final = 3600.0
"""How long a token of v1 is used where the answer doesn't say."""
EARLY: Final = 0.2
"""Part of a token's life that is left when it is renewed, of at most `EARLY_SECONDS`."""
EARLY_SECONDS: Final = 120.0
REFUSED_SECONDS: Final = 15.0
"""How long a refusal is believed without asking again: whoever tries too often is locked out."""
OURS: Final = "X-Trans-Id"
"""Header of whatever Swift answers."""
KEYSTONES: Final = "X-Openstack-Request-Id"
"""Header of whatever Keystone answers."""
MOST_BYTES: Final = 16 << 20
"""Of an answer that isn't an object: a listing of 10,000 long names, a manifest of 1,000 segments."""


class NoAnswer(Transient):
    """It took too long: to ask again would take as long again."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a login gave.

    Args:
        token: To be shown with each request.
        url: Where the account's containers are.
        seconds: How long the token lives.
    """

    token: str = field(repr=False)
    url: str
    seconds: float


class Auth(Protocol):
    """One way to log in."""

    async def login(self, session: aiohttp.ClientSession) -> Login:
        """Asks for a token.

        Raises:
            AuthFailed: The credentials are refused.
            InvalidRequest: What the settings name isn't there.
            Transient: No answer that can be read.
        """


@dataclass(frozen=True, slots=True)
class V1:
    """Swift's own login.

    Args:
        url: Such as `https://swift.example.org/auth/v1.0`.
        user: Such as `account:user`.
        key: Of the user.
    """

    url: str
    user: str
    key: str = field(repr=False)

    async def login(self, session: aiohttp.ClientSession) -> Login:
        """As `Auth` says."""
        headers, _ = await _ask(session, "GET", self.url, {"X-Auth-User": self.user, "X-Auth-Key": self.key})
        token, url = headers.get("X-Auth-Token", ""), headers.get("X-Storage-Url", "")
        if not token or not url:
            raise Transient(f"{self.url}: the answer is no login of Swift")
        told = headers.get("X-Auth-Token-Expires", "")
        return Login(token, url.rstrip("/"), float(told) if told.isdigit() else V1_SECONDS)


@dataclass(frozen=True, slots=True)
class Keystone:
    """Keystone's v3; the storage is the public one of its catalogue.

    Args:
        url: Such as `https://keystone.example.org:5000/v3`.
        user: Name, or id of an application credential.
        secret: Password, or secret of an application credential.
        application: Whether it is an application credential, which has its project in itself.
        project: Name.
        project_domain: Name.
        user_domain: Name.
        region: Region of the catalogue, empty for the only one there is.
    """

    url: str
    user: str
    secret: str = field(repr=False)
    application: bool = False
    project: str = ""
    project_domain: str = DEFAULT_DOMAIN
    user_domain: str = DEFAULT_DOMAIN
    region: str = ""

    async def login(self, session: aiohttp.ClientSession) -> Login:
        """As `Auth` says."""
        body = json.dumps({"auth": self._asked()}).encode()
        headers, text = await _ask(
            session, "POST", f"{self.url}/auth/tokens", {"Content-Type": "application/json"}, body
        )
        try:
            told = json.loads(text)["token"]
            life = datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["issued_at"])
            token, url = headers["X-Subject-Token"], self._storage(told.get("catalog") or ())
        except (ValueError, LookupError, TypeError, AttributeError):
            raise Transient(f"{self.url}: the answer is no token of Keystone") from None
        return Login(token, url.rstrip("/"), life.total_seconds())

    def _asked(self) -> dict[str, Any]:
        if self.application:
            credential = {"id": self.user, "secret": self.secret}
            return {"identity": {"methods": ["application_credential"], "application_credential": credential}}
        user = {"name": self.user, "domain": {"name": self.user_domain}, "password": self.secret}
        return {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": self.project, "domain": {"name": self.project_domain}}},
        }

    def _storage(self, catalogue: Any) -> str:
        found: dict[str, str] = {}
        for service in catalogue:
            if service["type"] != "object-store":
                continue
            for endpoint in service["endpoints"]:
                if endpoint["interface"] == "public":
                    found.setdefault(str(endpoint.get("region_id") or endpoint.get("region") or ""), endpoint["url"])
        regions = ", ".join(f"'{name}'" for name in sorted(found)) or "none"
        if self.region:
            if self.region not in found:
                raise InvalidRequest(f"Keystone names no object store in region '{self.region}', but in: {regions}")
            return found[self.region]
        if len(found) != 1:
            raise InvalidRequest(f"`spec.swift.region` must name one of the object store's regions: {regions}")
        return next(iter(found.values()))


async def _ask(
    session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
) -> tuple[Mapping[str, str], bytes]:
    """Headers and body of a login that succeeded; no error shows what was sent or came back."""
    try:
        async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
            status, told, text = answer.status, answer.headers.copy(), await whole(answer)
    except TimeoutError:
        raise NoAnswer(f"{url}: no answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Transient(f"{url}: {type(error).__name__}") from None
    if status in (200, 201, 204):
        return told, text
    raise _refusal(url, status, told)


async def whole(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer that isn't an object.

    Raises:
        aiohttp.ClientError: It is too large, or breaks off.
    """
    found = bytearray()
    async for piece in answer.content.iter_any():
        found += piece
        if len(found) > MOST_BYTES:
            raise aiohttp.ClientPayloadError("the answer is too large")
    return bytes(found)


def _refusal(url: str, status: int, headers: Mapping[str, str]) -> CloudmeshError:
    if status in (401, 403):
        return AuthFailed(f"{url}: the login is refused")
    if status in (429, 498):
        retry_after = headers.get("Retry-After", "")
        return RateLimited(f"{url}: too many logins", float(retry_after) if retry_after.isdigit() else None)
    known = OURS in headers or KEYSTONES in headers
    if known and status in (300, 301, 302, 307, 308, 400, 404, 405):
        return InvalidRequest(f"{url}: status {status}: there is no such login: is `spec.swift.authUrl` right?")
    return Transient(f"{url}: status {status}{'' if known else ' (not of OpenStack)'}")


class Tokens:
    """The token of one store, renewed before it ends and when it is refused.

    Args:
        auth: The login.
        check: Looks at the URL of the storage; raises where it isn't allowed.
    """

    def __init__(self, auth: Auth, check: Callable[[str], None]) -> None:
        self._auth = auth
        self._check = check
        self._login: Login | None = None
        self._until = 0.0
        self._refused: tuple[float, AuthFailed] | None = None
        self._lock = asyncio.Lock()

    async def get(self, open_session: Callable[[], Awaitable[aiohttp.ClientSession]]) -> Login:
        """A login that still lasts.

        Raises:
            AuthFailed: The credentials are refused, or were a moment ago.
        """
        clock = asyncio.get_running_loop().time
        if self._login is not None and clock() < self._until:
            return self._login
        async with self._lock:
            if self._login is not None and clock() < self._until:
                return self._login
            if self._refused is not None and clock() < self._refused[0]:
                raise AuthFailed(str(self._refused[1]))
            begin = clock()
            try:
                found = await self._auth.login(await open_session())
            except AuthFailed as error:
                self._refused = (clock() + REFUSED_SECONDS, error)
                raise
            self._check(found.url)
            self._refused = None
            self._until = begin + found.seconds - min(EARLY_SECONDS, EARLY * found.seconds)
            self._login = found
            return found

    def drop(self, login: Login) -> None:
        """A token was refused: the next request asks for another one."""
        if self._login is login:
            self._login = None


def auth_of(settings: Mapping[str, Any], credentials: Mapping[str, bytes]) -> Auth:
    """The login that settings and Secret ask for.

    Raises:
        AuthFailed: A key is missing.
        InvalidRequest: They don't go together.
    """
    values = {key: value.decode("utf-8", "replace").strip() for key, value in credentials.items()}
    url = str(settings["authUrl"]).rstrip("/")
    applies = bool(values.get(APPLICATION_ID) or values.get(APPLICATION_SECRET))
    names = (APPLICATION_ID, APPLICATION_SECRET) if applies else (USER, PASSWORD)
    if applies and (values.get(USER) or values.get(PASSWORD)):
        raise InvalidRequest("the Secret must have either a user's name and password or an application credential")
    if missing := [name for name in names if not values.get(name)]:
        raise AuthFailed(f"the Secret lacks the key {missing[0]!r}")
    user, secret = (values[name] for name in names)
    if not is_keystone(url):
        if applies:
            raise InvalidRequest(f"{url} is Swift's own login, which knows no application credentials")
        return V1(url, user, secret)
    project = str(settings.get("project") or "")
    if applies and project:
        raise InvalidRequest("`spec.swift.project` can't be set: an application credential has its project in itself")
    if not applies and not project:
        raise InvalidRequest("`spec.swift.project` must be set where the Secret has a user's name and password")
    return Keystone(
        url,
        user,
        secret,
        application=applies,
        project=project,
        project_domain=str(settings.get("projectDomain") or DEFAULT_DOMAIN),
        user_domain=str(settings.get("userDomain") or DEFAULT_DOMAIN),
        region=str(settings.get("region") or ""),
    )


def is_keystone(url: str) -> bool:
    """Whether the login at a URL is Keystone's, by its path."""
    return urlsplit(url).path.rstrip("/").endswith("/v3")
