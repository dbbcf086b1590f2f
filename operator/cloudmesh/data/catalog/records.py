"""The forms of journal records, for whoever keeps them and whoever writes down a whole catalogue."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

from cloudmesh.data.catalog.ports import Record
from cloudmesh.data.model import Copy, Entry, Trashed, link_of

LONGEST: Final = 16 << 20
"""Bytes of a line at most."""


def mkdir(entry: Entry, path: str) -> Mapping[str, Any]:
    """A directory was made."""
    told = {"op": "mkdir", "id": entry.id, "parent": entry.parent, "name": entry.name, "path": path}
    return {**told, "created": entry.created}


def put(entry: Entry, path: str, copies: Iterable[Copy]) -> Mapping[str, Any]:
    """A file has a content; `copies` are the whole ones, or the linked one."""
    copies = tuple(copies)
    told = {"link": True} if link_of(copies) is not None else {}
    return {
        "op": "put",
        "id": entry.id,
        "parent": entry.parent,
        "name": entry.name,
        "path": path,
        "version": entry.version,
        "size": entry.size,
        "mtime": entry.mtime,
        "sha256": entry.sha256,
        "type": entry.content_type,
        "tags": dict(entry.tags),
        "created": entry.created,
        "copies": {copy.store: [copy.key, copy.tag] for copy in sorted(copies, key=lambda copy: copy.store)},
        **told,
    }


def copied(copy: Copy) -> Mapping[str, Any]:
    """A copy was made."""
    told = {"op": "copy", "id": copy.entry, "version": copy.version, "store": copy.store}
    return {**told, "key": copy.key, "tag": copy.tag}


def tagged(entry: Entry, path: str) -> Mapping[str, Any]:
    """It has these tags."""
    return {"op": "tags", "id": entry.id, "path": path, "tags": dict(entry.tags)}


def moved(entry: Entry, path: str, source: str) -> Mapping[str, Any]:
    """It has another name."""
    told = {"op": "move", "id": entry.id, "parent": entry.parent, "name": entry.name, "source": source}
    return {**told, "path": path, "kind": entry.kind}


def deleted(entry: Entry, path: str) -> Mapping[str, Any]:
    """It went to the trash, from a path."""
    return {"op": "delete", "id": entry.id, "path": path, "kind": entry.kind}


def restored(entry: Entry, path: str) -> Mapping[str, Any]:
    """It came back from the trash."""
    told = {"op": "restore", "id": entry.id, "parent": entry.parent, "name": entry.name}
    return {**told, "path": path, "kind": entry.kind}


def purged(entry_id: str) -> Mapping[str, Any]:
    """It is gone for good."""
    return {"op": "purge", "id": entry_id}


def kept(thing: Trashed, copies: Iterable[Copy]) -> Mapping[str, Any]:
    """Objects are an older content of a file, or nothing that anybody wants."""
    return {**put(thing.entry, thing.path, copies), "op": "keep", "of": thing.of, "since": thing.at}


def expired(entry_id: str) -> Mapping[str, Any]:
    """It can't be restored any more."""
    return {"op": "expire", "id": entry_id}


def encode(records: Iterable[Record]) -> bytes:
    """Records as JSON lines."""
    lines = [{"seq": record.seq, "at": record.at, **record.body} for record in records]
    return "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines).encode()


def decode(content: bytes) -> list[Record]:
    """Records of JSON lines.

    Raises:
        ValueError: It is something else.
    """
    return [_record(line) for line in content.split(b"\n") if line]


async def lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[Record]:
    """Records of JSON lines that come in pieces, however many.

    Raises:
        ValueError: It is something else.
    """
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield _record(line)
        if len(rest) > LONGEST:
            raise ValueError("no journal record: the line is too long")
    if rest:
        yield _record(rest)


def _record(line: bytes) -> Record:
    body = json.loads(line)
    if not isinstance(body, dict) or not {"op", "seq", "at"} <= body.keys():
        raise ValueError(f"no journal record: {line[:100]!r}")
    return Record(int(body.pop("seq")), int(body.pop("at")), body)
