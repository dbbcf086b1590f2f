"""Paths of the tree, and the keys that objects have for them in stores. Pure.

A key is the path below the directory's prefix, byte for byte, but for characters that a store can't hold, or not at the
end of a name: these are written as `%0A`. What would then read as such a code gets `25` behind its `%`, as often as it
takes. So every path has one key, every key of the store one path, and names without such characters and codes, nearly
all, stay what they are.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache

from cloudmesh.data.errors import InvalidName
from cloudmesh.data.stores.ports import StoreInfo

MAX_PATH = 4096
"""Bytes of a path in UTF-8."""
MAX_PART = 1024
"""Bytes of a path's part."""


@lru_cache(maxsize=256)
def clean_path(path: str) -> str:
    """The path in NFC without slashes at its ends; empty for the root.

    Raises:
        InvalidName: A part is empty, `.` or `..`, too long, or has a NUL or half a surrogate pair.
    """
    if path in ("", "/"):
        return ""
    stripped = path.removeprefix("/").removesuffix("/")
    parts = unicodedata.normalize("NFC", stripped).split("/")
    for part in parts:
        if not part:
            raise InvalidName(f"{path!r} has an empty part: write one '/' between names")
        if part in (".", ".."):
            raise InvalidName(f"{path!r} has the part '{part}': write the path without it")
        if "\0" in part:
            raise InvalidName(f"{path!r} has a NUL character: choose another name")
        if _size(part) > MAX_PART:
            raise InvalidName(f"the name '{part[:40]}…' has {_size(part)} bytes: {MAX_PART} are the most")
    clean = "/".join(parts)
    if _size(clean) > MAX_PATH:
        raise InvalidName(f"the path '{clean[:40]}…' has {_size(clean)} bytes: {MAX_PATH} are the most")
    return clean


def key_of(prefix: str, path: str, info: StoreInfo) -> str:
    """The key of a clean path in a store.

    Args:
        prefix: Of the directory in that store, ends in a slash or is empty.
        path: A clean path.
        info: What the store declares.

    Raises:
        InvalidName: The name is too long for the store.
    """
    codes = _codes(info.refuses, info.refuses_last)
    if codes is not None:
        escaped, refused = codes
        path = refused.sub(_code, escaped.sub(lambda found: "%25" + found[0][1:], path))
    for part in path.split("/"):
        if _size(part) > info.max_part:
            raise InvalidName(f"the name '{part[:40]}…' takes {_size(part)} bytes there: {info.max_part} are the most")
    key = prefix + path
    if _size(key) > info.max_key:
        raise InvalidName(f"the key '{key[:40]}…' takes {_size(key)} bytes there: {info.max_key} are the most")
    return key


def path_of(prefix: str, key: str, info: StoreInfo) -> str:
    """The path that an object of this key has, as it is: not in NFC, perhaps not a clean one.

    Raises:
        InvalidName: It doesn't lie below the prefix.
    """
    if not key.startswith(prefix):
        raise InvalidName(f"{key!r} doesn't lie below {prefix!r}")
    path = key[len(prefix) :]
    codes = _codes(info.refuses, info.refuses_last)
    return path if codes is None else codes[0].sub(_decoded, path)


def mark_of(prefix: str, key: str) -> str:
    """What is kept with an object to tell whether it still lies at the key that we gave it.

    Args:
        prefix: Of the directory in that store.
        key: The object's.
    """
    return hashlib.sha256(key[len(prefix) :].encode(errors="surrogateescape")).hexdigest()[:16]


def _size(text: str) -> int:
    try:
        return len(text.encode())
    except UnicodeEncodeError:
        raise InvalidName(f"{text!r} has half of a surrogate pair: choose another name") from None


@lru_cache(maxsize=64)
def _codes(refuses: str, last: str = "") -> tuple[re.Pattern[str], re.Pattern[str]] | None:
    """What reads as a code, escaped or not; and the characters that need one. None where the store holds all."""
    last = "".join(sorted(set(last) - set(refuses)))
    if set(refuses + last) & set("%/0123456789ABCDEF"):
        raise ValueError("a store that can't hold '%', '/' or hexadecimal digits needs another way to write names")
    reads, needs = [], []
    for characters, where in ((refuses, ""), (last, r"(?=/|\Z)")):
        if characters:
            codes = "|".join(sorted(_hex(character) for character in set(characters)))
            reads.append(f"%(?:25)*(?:{codes}){where}")
            needs.append(f"[{re.escape(characters)}]{where}")
    return (re.compile("|".join(reads)), re.compile("|".join(needs))) if reads else None


def _hex(character: str) -> str:
    return "%".join(f"{byte:02X}" for byte in character.encode())


def _code(found: re.Match[str]) -> str:
    return "%" + _hex(found[0])


def _decoded(found: re.Match[str]) -> str:
    text = found[0]
    if text.startswith("%25"):
        return "%" + text[3:]
    return bytes.fromhex(text.replace("%", "")).decode()
