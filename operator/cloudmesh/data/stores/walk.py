"""Listings in the order of keys over a tree of folders that can only be read one by one.

A folder's names come all at once, however many they are. So those of large folders are kept between two pages of one
listing: what appears or goes while it is made may be on it or not, as with any listing of pages.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cloudmesh.data.stores.ports import Object, Page
from cloudmesh.engine.errors import AuthFailed

KEEP_NAMES: Final = 1000
"""Names in a folder from which on they are kept."""
KEEP_SECONDS: Final = 60.0
KEEP_LISTINGS: Final = 8

Entry = bytes
"""One name in a folder with what is known of it, as one text: so a million of them takes 100 MB and not 400."""
Read = Callable[[str], Awaitable[list[Entry] | None]]
"""Reads a folder by its path, empty or with a slash at its end: in any order, None where there is none."""


def entry(name: bytes, *, folder: bool = False, size: int = 0, modified: int = 0, tag: str = "") -> Entry | None:
    """A name in a folder, None for one that no key can have.

    Args:
        name: As the store tells it.
        folder: Whether it is one.
        size: Bytes.
        modified: Microseconds.
        tag: Entity tag.
    """
    if name in (b"", b".", b"..") or b"/" in name or b"\0" in name:
        return None
    try:
        name.decode()
    except UnicodeDecodeError:
        return None
    return b"%s%s\0%d %d %s" % (name, b"/" if folder else b"", size, modified, tag.encode())


@dataclass(slots=True)
class _Frame:
    """A folder on the way."""

    path: str
    entries: list[Entry]
    at: int


class Walk:
    """Makes the pages of one store.

    Args:
        read: Reads a folder; AuthFailed of one below the first makes the page incomplete.
        hidden: Whether a key, or a folder's path, is no object.
    """

    def __init__(self, read: Read, hidden: Callable[[str], bool]) -> None:
        self._read = read
        self._hidden = hidden
        self._kept: OrderedDict[tuple[str, str], tuple[float, dict[str, list[Entry]]]] = OrderedDict()

    async def page(self, prefix: str, after: str, limit: int) -> Page:
        """Objects whose key begins with `prefix`, after a mark."""
        head, _, _ = prefix.rpartition("/")
        if head and any(part in ("", ".", "..") for part in head.split("/")):
            return Page(())
        known = self._take(prefix, after)
        complete = True
        found: list[Object] = []
        first = await self._frame(f"{head}/" if head else "", prefix, after, known)
        stack = [first] if first is not None else []
        while stack:
            frame = stack[-1]
            if frame.at == len(frame.entries):
                stack.pop()
                continue
            name, _, told = frame.entries[frame.at].partition(b"\0")
            frame.at += 1
            key = frame.path + name.decode()
            folder = key.endswith("/")
            if not (key.startswith(prefix) or (folder and prefix.startswith(key))):
                if key > prefix:
                    stack.pop()  # all that follows is behind the prefix too
                continue
            if self._hidden(key):
                continue
            if folder:
                try:
                    inner = await self._frame(key, prefix, after, known)
                except AuthFailed:
                    complete = False
                    continue
                if inner is not None:
                    stack.append(inner)
                continue
            if len(found) == limit:
                self._keep(prefix, found[-1].key, stack)
                return Page(tuple(found), found[-1].key, complete)
            size, modified, tag = told.split(b" ", 2)
            found.append(Object(key, int(size), tag.decode(), int(modified)))
        return Page(tuple(found), "", complete)

    async def _frame(self, path: str, prefix: str, after: str, known: dict[str, list[Entry]]) -> _Frame | None:
        """A folder from where keys after the mark and with the prefix begin."""
        if after > path and not after.startswith(path):
            return None
        entries = known.get(path)
        if entries is None:
            entries = await self._read(path)
            if entries is None:
                return None
            entries.sort()
        begin = 0
        if prefix.startswith(path):
            begin = bisect_left(entries, prefix[len(path) :].partition("/")[0].encode())
        if after.startswith(path):
            inner, slash, _ = after[len(path) :].encode().partition(b"/")
            # a name ends with a zero, which no name has: behind it come the folder of that name and longer names
            begin = max(begin, bisect_left(entries, inner + (b"/" if slash else b"\1")))
        return _Frame(path, entries, begin)

    def _keep(self, prefix: str, mark: str, stack: list[_Frame]) -> None:
        large = {frame.path: frame.entries for frame in stack if len(frame.entries) >= KEEP_NAMES}
        if large:
            self._kept[prefix, mark] = (asyncio.get_running_loop().time() + KEEP_SECONDS, large)
            while len(self._kept) > KEEP_LISTINGS:
                self._kept.popitem(last=False)

    def _take(self, prefix: str, after: str) -> dict[str, list[Entry]]:
        now = asyncio.get_running_loop().time()
        for mark in [mark for mark, (until, _) in self._kept.items() if until < now]:
            del self._kept[mark]
        return self._kept.pop((prefix, after), (0.0, {}))[1] if after else {}
