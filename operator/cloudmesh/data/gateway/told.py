"""Entries as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cloudmesh.data.gateway import reading
from cloudmesh.data.model import Copy, Entry, link_of

MOST = (1 << 63) - 1
"""Numbers are at most this."""


def told(path: str, entry: Entry, copies: Iterable[Copy] = ()) -> dict[str, Any]:
    """An entry as JSON; `copies` say whether it is a link."""
    body: dict[str, Any] = {
        "path": path, "name": entry.name, "kind": entry.kind, "id": entry.id,
        "modified": reading.when(entry.mtime or entry.created),
    }  # fmt: skip
    if entry.kind == "File":
        body |= {"size": entry.size, "version": entry.version, "etag": entry.etag}
        body |= {"sha256": entry.sha256} if entry.sha256 else {}
        body |= {"contentType": entry.content_type} if entry.content_type else {}
    if (link := link_of(copies)) is not None:
        body["link"] = {"store": link.store, "key": link.key} | ({"error": link.error} if link.error else {})
    tags = reading.users_tags(entry.tags)
    return body | ({"tags": tags} if tags else {})
