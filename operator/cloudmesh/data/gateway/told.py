"""Entries as JSON."""

from __future__ import annotations

from typing import Any

from cloudmesh.data.gateway import reading
from cloudmesh.data.model import Entry

MOST = (1 << 63) - 1
"""Numbers are at most this."""


def told(path: str, entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    body: dict[str, Any] = {
        "path": path, "name": entry.name, "kind": entry.kind, "id": entry.id,
        "modified": reading.when(entry.mtime or entry.created),
    }  # fmt: skip
    if entry.kind == "File":
        body |= {"size": entry.size, "version": entry.version, "etag": entry.etag}
        body |= {"sha256": entry.sha256} if entry.sha256 else {}
        body |= {"contentType": entry.content_type} if entry.content_type else {}
    tags = reading.users_tags(entry.tags)
    return body | ({"tags": tags} if tags else {})
