"""XML of WebDAV: read without document types, entities, depth or size that harm; written as text."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

from aiohttp import web

from cloudmesh.data.gateway import streams
from cloudmesh.data.model import Entry
from cloudmesh.engine.errors import InvalidRequest

MAX_BODY = 256 << 10
MAX_DEPTH = 64
MAX_ELEMENTS = 4096
MAX_NAMES = 256
"""Properties that one request may name."""
MAX_DEAD = 64 << 10
"""Characters of all properties that clients keep at one file."""
KEPT = "webdav:properties"
"""The tag that keeps them: no user's own can have a colon. So they go where the entry goes, and outlive the
catalogue."""
DAV = "{DAV:}"
_XML = "http://www.w3.org/XML/1998/namespace"
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
Element = ElementTree.Element


class _Builder(ElementTree.TreeBuilder):
    """A tree of bounded size."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = self._count = 0

    def doctype(self, *_: Any) -> None:
        """Refuses: entities, and what they grow to, are declared there."""
        raise InvalidRequest("the XML must not have a document type")

    def start(self, tag: Any, attrs: Any) -> Element:
        """Counts."""
        self._depth += 1
        self._count += 1
        if self._depth > MAX_DEPTH or self._count > MAX_ELEMENTS:
            raise InvalidRequest(f"the XML has more than {MAX_ELEMENTS} elements, or more than {MAX_DEPTH} deep")
        return super().start(tag, attrs)

    def end(self, tag: str) -> Element:
        """Counts."""
        self._depth -= 1
        return super().end(tag)


def parse(body: bytes) -> Element:
    """The document's element.

    Raises:
        InvalidRequest: It isn't XML, or has what isn't taken.
    """
    try:
        parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 - see _Builder
        parser.feed(body)
        found = parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InvalidRequest(f"the body must be XML: {str(error)[:120]}") from None
    assert isinstance(found, ElementTree.Element)  # noqa: S101 - what the builder gives
    return found


async def body_of(request: web.Request) -> Element | None:
    """The body's XML, None without one.

    Raises:
        InvalidRequest: It is something else, or too much.
    """
    raw = bytearray()
    async for chunk in streams.pieces(request):
        raw += chunk
        if len(raw) > MAX_BODY:
            raise InvalidRequest(f"the body must be XML of {MAX_BODY} bytes at most")
    return parse(bytes(raw)) if raw else None


# -- writing


def text(value: str) -> str:
    """A text within an element; characters that XML hasn't become U+FFFD."""
    return escape(_ILLEGAL.sub("\ufffd", value))


def href(root: str, path: str, *, directory: bool) -> str:
    """Address of a path, escaped in both ways."""
    slash = "/" if directory and path else ""
    return f"{root}{quote(path, safe='/~')}{slash}"


def empty(name: str) -> str:
    """An empty element of this name (`{namespace}local`)."""
    namespace, _, local = name[1:].rpartition("}") if name.startswith("{") else ("", "", name)
    match namespace:
        case "DAV:":
            return f"<D:{local}/>"
        case "":
            return f"<{local}/>"
        case _ if namespace == _XML:
            return f"<xml:{local}/>"
        case _:
            return f"<x:{local} xmlns:x={quoteattr(namespace)}/>"


def element(value: Element) -> str:
    """An element as it came."""
    value.tail = None
    return ElementTree.tostring(value, encoding="unicode")


def propstat(status: str, parts: Iterable[str], more: str = "") -> str:
    """Properties that have one status; nothing for none."""
    found = "".join(parts)
    if not found:
        return ""
    return f"<D:propstat><D:prop>{found}</D:prop><D:status>HTTP/1.1 {status}</D:status>{more}</D:propstat>"


def response(address: str, content: str) -> str:
    """One resource of a multistatus."""
    return f"<D:response><D:href>{address}</D:href>{content}</D:response>\n"


def multistatus(parts: Iterable[str]) -> str:
    """The document of several answers."""
    return f'{HEAD}<D:multistatus xmlns:D="DAV:">\n{"".join(parts)}</D:multistatus>\n'


def error(condition: str) -> str:
    """The document of a condition that doesn't hold."""
    return f'{HEAD}<D:error xmlns:D="DAV:">{condition}</D:error>\n'


# -- properties of clients


def dead(entry: Entry) -> dict[str, str]:
    """Properties that clients keep at an entry: by name, as XML."""
    kept = entry.tags.get(KEPT)
    return dict(json.loads(kept)) if kept else {}


def with_dead(tags: Mapping[str, str], properties: Mapping[str, str]) -> dict[str, str]:
    """Tags that keep them."""
    rest = {name: value for name, value in tags.items() if name != KEPT}
    return rest | {KEPT: json.dumps(properties, ensure_ascii=False)} if properties else rest
