"""What requests say: paths, query parameters, headers, JSON. All that is wrong is refused, nothing is guessed."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import ABSENT, ANY
from cloudmesh.data.errors import Changed, InvalidName
from cloudmesh.data.gateway import streams
from cloudmesh.data.model import MICROS, Entry
from cloudmesh.engine.errors import InvalidRequest

MAX_JSON = 1 << 20
MAX_MICROS = 253402300799 * MICROS
"""The end of the year 9999."""
_ETAG = re.compile(r'(W/)?"([^"]*)"')
_ETAGS = re.compile(r'\s*(?:(?:W/)?"[^"]*"\s*(?:,\s*|$))*')
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_TAG = re.compile(r"[A-Za-z0-9][-A-Za-z0-9_./]{0,62}")
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


class Satisfied(Exception):
    """Whoever asks has the content already."""


# -- paths and query parameters


def path_of(request: web.Request) -> str:
    """The clean path that stands behind the route's own two parts.

    Raises:
        InvalidName: It can't be one.
    """
    try:
        # taken as it was sent: what a router makes of `..` and of codes that are no UTF-8 isn't what was asked for
        text = unquote(request.rel_url.raw_path.split("/", 3)[3], errors="strict")
    except UnicodeDecodeError:
        raise InvalidName("the path must be UTF-8, each byte that isn't a letter written as %XX") from None
    return names.clean_path(text)


def number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number.

    Raises:
        InvalidRequest: It isn't one, or not between the bounds.
    """
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise InvalidRequest(f"'{name}' must be a whole number from {least} to {most}, not '{text[:40]}'")
    return int(text)


def flag(request: web.Request, name: str) -> bool:
    """A parameter that is `true` or `false`.

    Raises:
        InvalidRequest: It is something else.
    """
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise InvalidRequest(f"'{name}' must be true or false, not '{text[:40]}'")
    return text == "true"


def name_pattern(request: web.Request) -> str:
    """The pattern that names are searched by.

    Raises:
        InvalidRequest: It is too long.
    """
    text = request.query.get("name", "*")
    if len(text) > 255:
        raise InvalidRequest("'name' has 255 characters at most")
    return text


# -- times and tags


def when(micros: int) -> str:
    """A time for people and programs, RFC 3339."""
    whole, rest = divmod(min(max(micros, 0), MAX_MICROS), MICROS)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:06d}Z"


def http_date(micros: int) -> str:
    """A time as HTTP's headers have it."""
    return _http_date(min(max(micros, 0), MAX_MICROS) // MICROS)


@lru_cache(maxsize=1024)
def _http_date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")


def micros(text: str) -> int:
    """A time as RFC 3339, or as whole microseconds.

    Raises:
        InvalidRequest: It is neither, or not from 1970 to 9999.
    """
    try:
        if text.isascii() and text.isdigit():
            found = int(text[:19])
        else:
            at = datetime.fromisoformat(text)
            since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
            found = (since.days * 86400 + since.seconds) * MICROS + since.microseconds
    except (ValueError, OverflowError):
        found = -1
    if not 0 <= found <= MAX_MICROS:
        raise InvalidRequest(f"'{text[:40]}' must be a time such as 2026-01-31T12:00:00Z, not before 1970")
    return found


def tags_of(text: str) -> dict[str, str]:
    """Tags written as `a=1&b=2`.

    Raises:
        InvalidRequest: They aren't.
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, max_num_fields=64) if text else []
    except ValueError:
        raise InvalidRequest("tags must be written like a=1&b=2") from None
    return checked_tags(dict(pairs))


def checked_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags that can be kept.

    Raises:
        InvalidRequest: One of them can't.
    """
    if len(tags) > 32:
        raise InvalidRequest("a file has 32 tags at most")
    for key, value in tags.items():
        if not _TAG.fullmatch(key):
            raise InvalidRequest(f"the tag '{key[:64]}' must be letters, digits and -_./ and no longer than 63")
        if not isinstance(value, str) or len(value) > 256 or _CONTROL.search(value):
            raise InvalidRequest(f"the value of tag '{key}' must be a text of 256 characters without control ones")
    return dict(tags)


def users_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that are users' own: a door keeps its under names with a colon, which no user's has."""
    return {name: value for name, value in tags.items() if ":" not in name}


def doors_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The others."""
    return {name: value for name, value in tags.items() if ":" in name}


# -- conditions


def _etags(header: str, *, weak: bool) -> set[str]:
    """Entity tags of a header, with quotes; weak ones only where they are compared weakly.

    Raises:
        Changed: It holds something else, which no file has.
    """
    if not _ETAGS.fullmatch(header):
        raise Changed(f"entity tags stand in quotes, with commas between them: not {header[:80]}")
    return {f'"{tag}"' for mark, tag in _ETAG.findall(header) if weak or not mark}


def condition(request: web.Request, entry: Entry) -> None:
    """Whether a file is to be read, by If-Match and If-None-Match.

    Raises:
        Changed: No, it is another one.
        Satisfied: No, whoever asks has it.
    """
    match, none = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if match is not None and match != "*" and entry.etag not in _etags(match, weak=False):
        raise Changed(f"the file has the entity tag {entry.etag}")
    if none is not None and (none == "*" or entry.etag in _etags(none, weak=True)):
        raise Satisfied


def expected(request: web.Request, entry: Entry | None) -> int:
    """The version that a change is tied to by If-Match and If-None-Match.

    Raises:
        Changed: It is another one already.
    """
    match, none = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if none == "*":
        return ABSENT
    if none is not None and entry is not None and entry.etag in _etags(none, weak=True):
        raise Changed(f"the file has the entity tag {entry.etag}")
    if match is None:
        return ANY
    if entry is None:
        raise Changed("there is no file")
    if match != "*" and entry.etag not in _etags(match, weak=False):
        raise Changed(f"the file has the entity tag {entry.etag}, not {match[:80]}")
    return entry.version


def span(header: str, size: int) -> tuple[int, int] | None:
    """Begin and end of a range; None for all of it (also where there are several ranges).

    Raises:
        web.HTTPRequestRangeNotSatisfiable: It begins after the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or found.group(0) == "bytes=-":
        return None
    first, last = found.groups()
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= size or stop <= start:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, stop


# -- content


def digest(request: web.Request) -> str:
    """The digest that the content must have, hexadecimal; empty for any.

    Raises:
        InvalidRequest: It is told in another way than `sha-256=:BASE64:`.
    """
    header = request.headers.get("Content-Digest", "")
    if not header:
        return ""
    found = _DIGEST.search(header)
    try:
        return base64.b64decode(found.group(1), validate=True).hex() if found else _no_digest()
    except binascii.Error:
        return _no_digest()


def _no_digest() -> str:
    raise InvalidRequest("`Content-Digest` must be like sha-256=:BASE64:")


def content_type(request: web.Request) -> str:
    """The media type; empty if there is none that can be kept."""
    text = request.headers.get("Content-Type", "")
    return text if len(text) <= 255 and text.isascii() and text.isprintable() else ""


async def json_of(request: web.Request) -> dict[str, Any]:
    """The body, a JSON object.

    Raises:
        InvalidRequest: It is something else, or too much.
        web.HTTPUnsupportedMediaType: It doesn't say that it is JSON: a form on a stranger's page can send all but that
            with the password that a browser keeps.
    """
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType
    raw = bytearray()
    async for chunk in streams.pieces(request):
        raw += chunk
        if len(raw) > MAX_JSON:
            raise InvalidRequest(f"the body must be JSON of {MAX_JSON} bytes at most")
    try:
        body = json.loads(bytes(raw))
    except (ValueError, RecursionError):
        raise InvalidRequest("the body must be JSON") from None
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    return body
