"""Who asks, and what they may do: tokens of Kubernetes, names and passwords, path rules.

A Kubernetes token is checked with itself: the gateway asks the API server, as the user, who that is and whether they
may `get` or `update` virtualdirectories/files of this name. So the gateway needs no rights and no token of its own.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import bcrypt

from cloudmesh.api.mounts import GROUP as CLUSTERS
from cloudmesh.data.config import AccessRule, AuthConfig, DirectoryConfig
from cloudmesh.data.gateway.throttle import Throttle
from cloudmesh.data.model import Entry
from cloudmesh.data.placement import path_matches
from cloudmesh.engine.errors import CloudmeshError, Transient

Verb = Literal["get", "update"]
KEPT_SECONDS = 60.0
"""A verdict about a token or password is asked for again after so long."""
KEPT = 4096
HASHES = 4
"""Passwords that are compared at the same time: each takes a processor."""
ASK_SECONDS = 10.0
JOBS = "cloudmesh:jobs"
"""User that the operator is when it moves files for jobs: rules for paths may name it."""
LEVELS = {"None": 0, "ReadOnly": 1, "ReadWrite": 2}


class Unauthenticated(CloudmeshError):
    """Nobody knows who asks."""

    reason = "Unauthenticated"


class Forbidden(CloudmeshError):
    """Whoever asks may not."""

    reason = "Forbidden"


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.

    Args:
        name: User name; empty for nobody in particular.
        groups: Groups.
        level: What may be done at most: 0 nothing, 1 read, 2 write too.
        folder: All that may be seen; empty for everything.
    """

    name: str
    groups: frozenset[str]
    level: int
    folder: str = ""


class ApiServer:
    """The Kubernetes API server, asked with users' own tokens.

    Args:
        url: Base URL.
        ca_file: Its certificate authority; empty for the system's.
    """

    def __init__(self, url: str, ca_file: str = "") -> None:
        self._url = url
        self._ca_file = ca_file
        self._session: aiohttp.ClientSession | None = None

    async def who(self, token: str, namespace: str, name: str) -> User | None:
        """Who has this token and what they may do with a directory; None if it is no good.

        Raises:
            Transient: The API server doesn't answer.
        """
        try:
            status, review = await self._post(
                token, "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            )  # fmt: skip
            if status in (401, 403):
                return None
            if status != 201:
                raise Transient(f"the API server answers {status} to a SelfSubjectReview")
            info = review["status"]["userInfo"]
            level = 0
            for verb, gained in (("get", 1), ("update", 2)):
                if level == gained - 1 and await self._may(token, namespace, name, verb):
                    level = gained
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Transient(f"the API server doesn't answer: {type(error).__name__}") from error
        except (ValueError, LookupError, TypeError) as error:
            raise Transient(f"the API server's answer isn't one: {type(error).__name__}") from error
        return User(str(info.get("username", "")), frozenset(info.get("groups") or ()), level)

    async def _may(self, token: str, namespace: str, name: str, verb: str) -> bool:
        attributes = {
            "namespace": namespace, "name": name, "verb": verb, "group": "cloudmesh.org",
            "resource": "virtualdirectories", "subresource": "files",
        }  # fmt: skip
        status, answer = await self._post(
            token, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            {
                "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            },
        )  # fmt: skip
        if status != 201:
            raise Transient(f"the API server answers {status} to a SelfSubjectAccessReview")
        return bool(answer["status"].get("allowed"))

    async def _post(self, token: str, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._ca_file or None)
            timeout = aiohttp.ClientTimeout(total=ASK_SECONDS)
            self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(ssl=context))
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.post(self._url + path, json=body, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.json(content_type=None) if answer.status == 201 else {}

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()


class Doorkeeper:
    """Lets users in.

    Args:
        config: Gives the directory as it is to be now.
        api_server: Asked about tokens; None where there is none.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        config: Callable[[], DirectoryConfig],
        api_server: ApiServer | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._api_server = api_server
        self._clock = clock
        self._throttle = Throttle(clock)
        self._hashing = asyncio.Semaphore(HASHES)
        self._kept: dict[bytes, tuple[float, AuthConfig, User | None]] = {}
        self._asking: dict[bytes, asyncio.Lock] = {}

    async def user(self, authorization: str, address: str = "") -> User:
        """Who sends this `Authorization` header.

        Args:
            authorization: The header.
            address: Where it comes from.

        Raises:
            Throttled: Too many wrong passwords came, and this one isn't known to be right.
            Unauthenticated: The header is missing, or what it says is no good.
            Transient: Nobody can say.
        """
        auth = self._config().auth
        if self._is_operator(authorization):
            return User(JOBS, frozenset(), LEVELS["ReadWrite"])
        if not authorization:
            level = LEVELS[auth.anonymous]
            if not level:
                raise Unauthenticated("say who you are: a Kubernetes token as Bearer, or a name and password as Basic")
            return User("", frozenset(), level)
        scheme, _, shown = authorization.partition(" ")
        key = hashlib.sha256(f"{scheme.lower()} {shown}".encode(errors="surrogateescape")).digest()
        known = self._kept.get(key)
        if known is not None and known[0] >= self._clock() and known[1] is auth and known[2] is not None:
            return known[2]
        lock = self._asking.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(key)
                if kept is None or kept[0] < self._clock() or kept[1] is not auth:
                    name = _name_of(authorization) if auth.basic or auth.guests else ""
                    # whoever was let in by just this before isn't kept out by what others try
                    if name and (kept is None or kept[1] is not auth or kept[2] is None):
                        self._throttle.check(name, address)
                    found = await self._ask(authorization, auth)
                    if name:
                        (self._throttle.wrong if found is None else self._throttle.right)(name, address)
                    if len(self._kept) >= KEPT:
                        self._kept.clear()
                    kept = self._kept[key] = (self._clock() + KEPT_SECONDS, auth, found)
        finally:
            if not lock.locked():
                self._asking.pop(key, None)
        if kept[2] is None:
            raise Unauthenticated("the token or password isn't known here, or has ended")
        return kept[2]

    async def _ask(self, authorization: str, auth: AuthConfig) -> User | None:
        scheme, _, value = authorization.partition(" ")
        if not authorization.isascii():
            return None
        match scheme.lower():
            case "bearer" if auth.kubernetes and self._api_server is not None:
                words = value.split()
                if len(words) != 1:
                    # the API server would go by the first of several words
                    return None
                config = self._config()
                return await self._api_server.who(words[0], config.namespace, config.name)
            case "basic" if auth.basic or auth.guests:
                async with self._hashing:
                    return await asyncio.to_thread(_basic, value, auth)
            case _:
                return None

    def check(self, user: User, path: str, verb: Verb) -> None:
        """Whether a user may do something with a path.

        Raises:
            Forbidden: No.
        """
        needed = 2 if verb == "update" else 1
        level = user.level if _sees(user, path) else 0
        for rule in self._config().auth.rules:
            if _concerns(rule, user) and (path_matches(rule.path, path) or path_matches(rule.path, f"{path}/")):
                level = min(level, LEVELS[rule.access])
                break
        if level < needed:
            what = "change" if needed == 2 else "read"
            raise Forbidden(f"'{user.name or 'anonymous'}' may not {what} '{path or '/'}'")

    def shows(self, user: User, path: str) -> bool:
        """Whether a user may know what is at a path: where many are told, the others are left out."""
        try:
            self.check(user, path, "get")
        except Forbidden:
            return False
        return True

    def check_below(self, user: User, path: str, entry: Entry | None) -> None:
        """Whether a user may move or delete all that lies below a path, where the entry is a directory: what a rule
        keeps from a user must not get another path, or end, with a directory above it.

        Raises:
            Forbidden: No, or not surely.
        """
        if entry is None or entry.kind != "Directory":
            return
        for rule in self._config().auth.rules:
            if not _concerns(rule, user):
                continue
            whole = rule.path.endswith("**") and path_matches(rule.path, f"{path}/\0")
            if LEVELS[rule.access] < 2 and (whole or _reaches_below(rule.path, path)):
                raise Forbidden(f"'{user.name or 'anonymous'}' may not change all below '{path or '/'}'")
            if whole:
                return

    def operator(self, authorization: str) -> None:
        """Whether it is the operator that asks.

        Raises:
            Unauthenticated: No.
        """
        if not self._is_operator(authorization):
            raise Unauthenticated("this is for the operator")

    def _is_operator(self, authorization: str) -> bool:
        token, told = self._config().operator_token, authorization.encode(errors="surrogateescape")
        return bool(token) and hmac.compare_digest(told, f"Bearer {token}".encode())


def _sees(user: User, path: str) -> bool:
    return not user.folder or path == user.folder or path.startswith(f"{user.folder}/")


def _concerns(rule: AccessRule, user: User) -> bool:
    nobody = not rule.users and not rule.groups
    return nobody or user.name in rule.users or not user.groups.isdisjoint(rule.groups)


def _reaches_below(pattern: str, path: str) -> bool:
    """Whether a pattern may match something below a path: by what stands before its first wildcard."""
    literal, inside = re.split(r"[*?]", pattern, maxsplit=1)[0], f"{path}/" if path else ""
    return literal.startswith(inside) or (literal != pattern and inside.startswith(literal))


def _cost(hashed: str) -> str:
    """What a hash of bcrypt costs, as it tells itself."""
    return hashed[4:6]


def _name_of(authorization: str) -> str:
    """The name of a user who shows a password; empty for others."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")[0][:255]
    except (binascii.Error, ValueError):
        return ""


def _basic(value: str, auth: AuthConfig) -> User | None:
    try:
        name, _, password = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    guest = auth.guests.get(name)
    known = auth.basic.get(name) if guest is None else guest.hashed
    # as long for a name that isn't known: by a hash that costs as much
    hashed = known or max((*auth.basic.values(), *(one.hashed for one in auth.guests.values())), key=_cost)
    try:
        good = bcrypt.checkpw(password.encode()[:72], hashed.encode())
    except ValueError:
        return None
    if not good or not known:
        return None
    if guest is None:
        return User(name, frozenset(), 2)
    return User(guest.name, frozenset({CLUSTERS}), LEVELS[guest.access], guest.folder)
