"""What belongs to an object besides its bytes, where the store has no place for it: a file beside the objects.

A record lies below `.cloudmesh/records`, under a name made of the object's key and of a mark of its content, which it
repeats within. So the record of a new content stands before that content is published, the old one's stays until then,
and neither says anything of what somebody else has put there.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from cloudmesh.data.errors import InvalidName

OWN: Final = ".cloudmesh"
TEMPORARY: Final = f"{OWN}/tmp/"  # noqa: S108 - in the store
RECORDS: Final = f"{OWN}/records/"
MOST: Final = 65536
"""Bytes of a record that are read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Args:
        key: Of the object.
        mark: Of its content.
        attributes: Texts kept with it.
        write: Random, so that no two writes look alike.
    """

    key: str
    mark: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    write: str = field(default_factory=lambda: secrets.token_hex(6))

    @property
    def path(self) -> str:
        """Where it lies."""
        return path_of(self.key, self.mark)

    def encoded(self) -> bytes:
        """As it lies there: one line of JSON."""
        told = {"attributes": dict(self.attributes), "key": self.key, "mark": self.mark, "write": self.write}
        return json.dumps(told, sort_keys=True).encode() + b"\n"


def path_of(key: str, mark: str) -> str:
    """Where the record of an object with this content lies."""
    digest = hashlib.sha256(f"{key}\0{mark}".encode()).hexdigest()
    return f"{RECORDS}{digest[:2]}/{digest[2:50]}"


def decoded(text: bytes) -> Record | None:
    """A record of what lies there, None if it is none."""
    try:
        told = json.loads(text)
        texts = {str(name): str(value) for name, value in told["attributes"].items()}
        return Record(str(told["key"]), str(told["mark"]), texts, str(told["write"]))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def temporary() -> str:
    """A new name for a content that isn't published."""
    return TEMPORARY + secrets.token_hex(16)


def hidden(key: str) -> bool:
    """Whether a key, or a folder's path, is no object: our own, and what a file system's check leaves."""
    return key.startswith((TEMPORARY, RECORDS, "lost+found/"))


def parts_of(key: str) -> list[str]:
    """Parts of a key that can't lead outside.

    Raises:
        InvalidName: It could, or it names what isn't an object.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise InvalidName(f"{key!r} can't be a file: it has an empty part, '.', '..' or a NUL")
    if hidden(key) or hidden(key + "/"):
        raise InvalidName(f"{key!r} is the store's own: choose another name")
    return parts
