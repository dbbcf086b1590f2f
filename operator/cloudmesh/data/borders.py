"""Prefixes within prefixes: below the marker of another directory nothing is ours, and who comes later gives way."""

from __future__ import annotations

from typing import Final

import msgspec

from cloudmesh.data.errors import Missing
from cloudmesh.data.mesh import MARKER, Marker
from cloudmesh.data.stores.ports import Store

KEPT: Final = 50_000
"""Folders that are kept in mind at most."""

Identity = tuple[str, str, str]
"""Installation, namespace and name of a directory."""


async def identity(store: Store, prefix: str) -> Identity | None:
    """Whose marker lies at a prefix; empty words for one that can't be read, None where there is none."""
    try:
        text = b"".join([chunk async for chunk in store.read(prefix + MARKER, length=4096)])
    except Missing:
        return None
    try:
        marker = msgspec.json.decode(text, type=Marker)
    except msgspec.DecodeError:
        return "", "", ""
    return marker.installation, marker.namespace, marker.name


class Borders:
    """Finds the parts of a directory's prefix in a store that carry a marker of their own, each looked at once.

    Args:
        store: The store.
        prefix: Of the directory in it.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._prefix = prefix
        self._own: Identity | None = None
        self._asked = False
        self._clear: set[str] = set()
        self.found: dict[str, str] = {}
        """By prefix, whose it is."""

    async def foreign(self, key: str) -> str:
        """The prefix of another directory that a key lies in, empty if it lies in none."""
        at = len(self._prefix)
        while (at := key.find("/", at) + 1) > 0:
            folder = key[:at]
            if folder in self.found:
                return folder
            if folder not in self._clear and await self._look(folder):
                return folder
        return ""

    async def _look(self, folder: str) -> bool:
        if not self._asked:
            self._own, self._asked = await identity(self._store, self._prefix), True
        there = None
        if await self._store.stat(folder + MARKER) is not None:
            there = await identity(self._store, folder)
        # a tree that was copied into itself, with its marker, is no other directory
        if there is not None and there != self._own:
            self.found[folder] = "/".join(there[1:]) if any(there) else "somebody"
            return True
        if len(self._clear) >= KEPT:
            self._clear.clear()
        self._clear.add(folder)
        return False

    def told(self) -> str:
        """What was found, in words; empty for nothing."""
        return "; ".join(f"'{prefix}' is of the directory {whose}" for prefix, whose in sorted(self.found.items())[:8])
