"""Keys as paths in a folder, and the texts that are kept with files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cloudmesh.data.errors import InvalidName

OWN = ".cloudmesh"
RESERVED = ("tmp", "meta", "lock")
"""Names in the folder's `.cloudmesh` that are no objects."""


def parts(key: str) -> list[str]:
    """Parts of a key that can't lead outside.

    Raises:
        InvalidName: It could, or it names what isn't an object.
    """
    found = key.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in found):
        raise InvalidName(f"{key!r} can't be a file: it has an empty part, '.', '..' or a NUL")
    if hidden(key):
        raise InvalidName(f"{key!r} is the store's own: choose another name")
    return found


def hidden(key: str) -> bool:
    """Whether it is no object: our own folders, and what a file system's check leaves."""
    first, _, rest = key.partition("/")
    return (first == OWN and rest.split("/")[0] in RESERVED) or key.startswith("lost+found/")


def sidecar(key: str, inode: int) -> tuple[list[str], str]:
    """Folder and name of the file that keeps an object's record."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    return [OWN, "meta", digest[:2]], f"{digest[2:34]}-{inode:x}"


def decoded(text: bytes) -> Mapping[str, Any] | None:
    """A record; None if it is none."""
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) and isinstance(found.get("attributes"), dict) else None
