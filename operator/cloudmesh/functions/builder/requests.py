"""The bodies that the builder takes, checked field by field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.auth import Credentials
from cloudmesh.functions.image.oci import Platform, canonical_json, sha256
from cloudmesh.functions.image.transport import Endpoint
from cloudmesh.functions.lock import Index
from cloudmesh_function.model import Expose

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MODULE = re.compile(r"[^\W\d]\w{0,127}(\.[^\W\d]\w{0,127}){0,15}")
_KEY = re.compile(r"[0-9a-f]{32}")
_REPOSITORY = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*")
_PUSH = "repository.push (`spec.image.repository`)"
_LONGEST_SOURCE = 131_072
_LONGEST_LOCK = 1 << 20
_MOST_REQUIREMENTS = 200


class Body:
    """A JSON object from a caller; every getter names the field in its error."""

    def __init__(self, value: object, where: str = "") -> None:
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where or 'the body'}: must be an object")
        self._value: Mapping[str, Any] = value
        self._prefix = f"{where}." if where else ""

    def text(self, name: str, *, longest: int = 1024, default: str | None = None) -> str:
        """A string field."""
        value = self._value.get(name, default)
        if not isinstance(value, str):
            raise InvalidRequest(f"{self._prefix}{name}: must be a string")
        if len(value) > longest:
            raise InvalidRequest(f"{self._prefix}{name}: {len(value)} characters, over the limit of {longest}")
        return value

    def matching(self, name: str, pattern: re.Pattern[str], *, default: str | None = None) -> str:
        """A string field of a given form."""
        value = self.text(name, default=default)
        if not pattern.fullmatch(value):
            raise InvalidRequest(f"{self._prefix}{name}: {value!r} must match {pattern.pattern}")
        return value

    def texts(self, name: str, *, most: int = 100, default: list[str] | None = None) -> tuple[str, ...]:
        """A field that is a list of strings."""
        value = self._value.get(name, default)
        if not isinstance(value, list) or not all(isinstance(item, str) and len(item) <= 1024 for item in value):
            raise InvalidRequest(f"{self._prefix}{name}: must be a list of strings")
        if len(value) > most:
            raise InvalidRequest(f"{self._prefix}{name}: {len(value)} items, over the limit of {most}")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """A boolean field, false when it is left out."""
        value = self._value.get(name, False)
        if not isinstance(value, bool):
            raise InvalidRequest(f"{self._prefix}{name}: must be true or false")
        return value

    def object(self, name: str) -> Body | None:
        """A field that is an object or left out."""
        value = self._value.get(name)
        return None if value is None else Body(value, f"{self._prefix}{name}")

    def raw(self, name: str) -> Any:
        """The field as it came."""
        return self._value.get(name)


@dataclass(frozen=True, slots=True)
class ParseRequest:
    """What is to be read: a source and what it offers."""

    name: str
    module: str
    source: str
    base_path: str
    expose: Expose
    requirements: tuple[str, ...]

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read the body of `POST /v1/parse`.

        Raises:
            InvalidRequest: a field is wrong.
        """
        return cls(
            name=body.matching("name", _NAME),
            module=body.matching("module", _MODULE),
            source=body.text("source", longest=_LONGEST_SOURCE),
            base_path=body.text("basePath", default="/cloudmesh"),
            expose=_expose(body),
            requirements=body.texts("requirements", most=_MOST_REQUIREMENTS, default=[]),
        )


def _expose(body: Body) -> Expose:
    part = body.object("expose")
    if part is None:
        return Expose()
    functions, class_ = part.object("functions"), part.object("class")
    if class_ is not None:
        return Expose(class_name=class_.text("name"))
    return Expose(names=functions.texts("names", default=["*"]) if functions is not None else ("*",))


@dataclass(frozen=True, slots=True)
class LockRequest:
    """What is to be locked, for which Python and platforms, from which index (None: the builder's own)."""

    requirements: tuple[str, ...]
    python: str
    platforms: tuple[Platform, ...]
    index: Index | None
    relock: bool = False

    @classmethod
    def from_body(cls, body: Body) -> Self:
        """Read the body of `POST /v1/lock`.

        Raises:
            InvalidRequest: a field is wrong.
        """
        return cls(
            requirements=body.texts("requirements", most=_MOST_REQUIREMENTS),
            python=_python(body),
            platforms=_platforms(body),
            index=_index(body),
            relock=body.flag("relock"),
        )


def _python(body: Body) -> str:
    value = body.text("python", default="3.11")
    if value != "3.11":
        raise InvalidRequest(f"python: {value!r} is not to be had; use 3.11")
    return value


def _platforms(body: Body) -> tuple[Platform, ...]:
    platforms = tuple(
        sorted({Platform.parse(item) for item in body.texts("platforms", default=["linux/amd64"])}, key=str)
    )
    for platform in platforms:
        if platform != Platform("linux", "amd64"):
            raise InvalidRequest(f"platforms: {platform} is not to be had; use linux/amd64")
    if not platforms:
        raise InvalidRequest("platforms: name at least one, such as linux/amd64")
    return platforms


def _index(body: Body) -> Index | None:
    part = body.object("index")
    if part is None:
        return None
    url = part.text("url", longest=2048)
    username, password = part.text("username", default=""), part.text("password", longest=8192, default="")
    ca = part.text("caCrt", longest=1 << 20, default="")
    try:
        return Index(url, username, password, ca, guarded=True)
    except (InvalidRequest, ValueError) as error:  # a ValueError: brackets around what is no IPv6 address
        raise InvalidRequest(f"index.url (`spec.python.indexRef`, key `url` of its Secret): {error}") from error


@dataclass(frozen=True, slots=True)
class Destination:
    """A repository of the user's: where it is pushed, and what nodes call it."""

    endpoint: Endpoint
    name: str
    pull: str


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """One image to build."""

    namespace: str
    parse: ParseRequest
    expose: Mapping[str, Any] = field(hash=False)
    lock: str
    python: str
    platforms: tuple[Platform, ...]
    key: str
    destination: Destination | None
    index: Index | None
    rebuild: bool
    id: str = field(default="")

    @classmethod
    def from_body(cls, body: Body, raw: Mapping[str, Any]) -> Self:
        """Read the body of `POST /v1/builds`.

        Raises:
            InvalidRequest: a field is wrong.
        """
        return cls(
            namespace=body.matching("namespace", _NAME),
            parse=ParseRequest.from_body(body),
            expose=body.raw("expose") or {},
            lock=body.text("lock", longest=_LONGEST_LOCK, default=""),
            python=_python(body),
            platforms=_platforms(body),
            key=body.matching("key", _KEY),
            destination=_destination(body),
            index=_index(body),
            rebuild=body.flag("rebuild"),
            id=request_id(raw),
        )


def _destination(body: Body) -> Destination | None:
    part = body.object("repository")
    if part is None:
        return None
    push = part.text("push")
    host, slash, name = push.partition("/")
    if not slash or not _REPOSITORY.fullmatch(name):
        raise InvalidRequest(f"{_PUSH}: {push!r} must be host/path in lower case, without tag or digest")
    login = part.object("credentials")
    credentials = None
    if login is not None:
        credentials = Credentials(login.text("username"), login.text("password", longest=16384))
    ca = part.raw("caCrt")
    endpoint = Endpoint(host, credentials, str(ca or ""), part.flag("insecure"))
    try:
        endpoint.url()
    except (InvalidRequest, ValueError) as error:  # a ValueError: the port is out of range
        raise InvalidRequest(f"{_PUSH}: {error}") from error
    return Destination(endpoint, name, part.text("pull", default=push) or push)


def request_id(raw: Mapping[str, Any]) -> str:
    """The id of a build: the hash of its canonical request, without the words that only let one in."""
    shown = dict(raw)
    for name, secrets in (("repository", ("credentials", "caCrt")), ("index", ("username", "password", "caCrt"))):
        value = shown.get(name)
        if isinstance(value, dict):
            shown[name] = {field: item for field, item in value.items() if field not in secrets}
    return sha256(canonical_json(shown)).removeprefix("sha256:")
