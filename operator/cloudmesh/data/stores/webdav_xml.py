"""What a WebDAV server tells of its resources (RFC 4918, `multistatus`), read as it comes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit
from xml.parsers import expat

from cloudmesh.data.stores.records import Record
from cloudmesh.engine.errors import Transient

PROPERTIES: Final = ("resourcetype", "getcontentlength", "getetag", "getlastmodified")
QUOTA: Final = ("quota-used-bytes", "quota-available-bytes")
MAX_TEXT: Final = 65536
MAX_DEPTH: Final = 32
_STATUS: Final = re.compile(r"HTTP/\d(?:\.\d)? (\d{3})")


def asked(*names: str) -> bytes:
    """Body of a PROPFIND for these properties of `DAV:`."""
    wanted = "".join(f"<{name}/>" for name in names)
    return f'<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>{wanted}</prop></propfind>'.encode()


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource.

    Args:
        path: Path of its URL, decoded; it need not be UTF-8.
        folder: Whether it is a collection.
        size: Bytes.
        tag: Entity tag without quotes and without the sign that it is weak: Apache's is weak for a second.
        modified: Microseconds.
        used: Bytes used of what it belongs to, None where nobody says.
        free: Bytes free there.
    """

    path: bytes
    folder: bool
    size: int
    tag: str
    modified: int
    used: int | None = None
    free: int | None = None

    @property
    def mark(self) -> str:
        """What its record is for."""
        return f"{self.size:x}-{self.tag}"

    def is_of(self, record: Record, key: str) -> bool:
        """Whether a record is for this content of the key."""
        return (record.key, record.mark) == (key, self.mark)


class Multistatus:
    """Reads one answer.

    Args:
        what: For messages.
        found: Is told each resource.
    """

    def __init__(self, what: str, found: Callable[[Resource], None]) -> None:
        self._what = what
        self._found = found
        self._path: list[str] = []
        self._text: list[str] = []
        self._length = 0
        self._href = ""
        self._status = ""
        self._set: dict[str, str] = {}
        self._good: dict[str, str] = {}
        self._ended = False
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._begin
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._more
        # no answer needs one, and entities are how a small text becomes a large one
        self._parser.StartDoctypeDeclHandler = self._refuse
        self._parser.EntityDeclHandler = self._refuse

    def feed(self, chunk: bytes) -> None:
        """Reads on.

        Raises:
            Transient: It is no multistatus.
        """
        try:
            self._parser.Parse(chunk, False)
        except expat.ExpatError as error:
            raise Transient(f"{self._what}: the answer can't be read: {error}") from None

    def end(self) -> None:
        """Makes sure that it was whole.

        Raises:
            Transient: It wasn't.
        """
        try:
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise Transient(f"{self._what}: the answer breaks off: {error}") from None
        if not self._ended:
            raise Transient(f"{self._what}: the answer is no multistatus")

    def _refuse(self, *_: object) -> None:
        raise Transient(f"{self._what}: the answer has a document type or entities")

    def _begin(self, name: str, _: dict[str, str]) -> None:
        if not self._path and name != "DAV: multistatus":
            raise Transient(f"{self._what}: the answer is no multistatus")
        if len(self._path) == MAX_DEPTH:
            raise Transient(f"{self._what}: the answer is too deep")
        self._path.append(name.removeprefix("DAV: "))
        self._text, self._length = [], 0
        match self._path[1:]:
            case ["response"]:
                self._href, self._status, self._good = "", "", {}
            case ["response", "propstat"]:
                self._set, self._status = {}, ""
            case ["response", "propstat", "prop", "resourcetype", "collection"]:
                self._set["collection"] = "yes"
            case _:
                pass

    def _more(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_TEXT:
            raise Transient(f"{self._what}: a text in the answer is too long")
        self._text.append(text)

    def _end(self, _: str) -> None:
        text = "".join(self._text).strip()
        match self._path[1:]:
            case ["response", "href"]:
                self._href = text
            case ["response", "status"] | ["response", "propstat", "status"]:
                self._status = text
            case ["response", "propstat", "prop", name]:
                self._set[name] = text
            case ["response", "propstat"]:
                if self._code() // 100 == 2:
                    self._good |= self._set
                self._status = ""
            case ["response"]:
                self._tell()
            case []:
                self._ended = True
            case _:
                pass
        self._path.pop()
        self._text, self._length = [], 0

    def _code(self) -> int:
        found = _STATUS.match(self._status)
        return int(found[1]) if found is not None else 0

    def _tell(self) -> None:
        if not self._href or not self._good:
            raise Transient(f"{self._what}: the server tells nothing of {self._href or 'a resource'}: {self._status}")
        good = self._good
        try:
            path = unquote_to_bytes(urlsplit(self._href).path)
        except ValueError:
            raise Transient(f"{self._what}: the answer names {self._href[:100]!r}") from None
        self._found(
            Resource(
                path, "collection" in good, _number(good.get("getcontentlength")) or 0,
                good.get("getetag", "").removeprefix("W/").strip('"'), modified_of(good.get("getlastmodified", "")),
                _number(good.get("quota-used-bytes")), _number(good.get("quota-available-bytes")),
            )
        )  # fmt: skip


def modified_of(text: str) -> int:
    """Microseconds of a date as HTTP has it, 0 if it is none."""
    try:
        return round(parsedate_to_datetime(text).timestamp()) * 1_000_000
    except (ValueError, TypeError):
        return 0


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() and len(text) < 20 else None
