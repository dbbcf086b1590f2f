"""Makes a lost catalogue anew from what the stores hold: the journal, the attributes of objects, their listings.

Nothing is changed in a store. A store that doesn't answer, or can't say that a listing is complete, ends it before the
catalogue is touched: an absent object must never look like a deleted one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from cloudmesh.data import names
from cloudmesh.data.catalog.journal import JOURNAL
from cloudmesh.data.catalog.ports import Catalog, Record
from cloudmesh.data.catalog.records import decode
from cloudmesh.data.catalog.sqlite_tree import new_id
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.mesh import HIDDEN
from cloudmesh.data.model import ROOT, TRASH, Copy, Entry, Trashed
from cloudmesh.data.stores.ports import Object, Store
from cloudmesh.engine.errors import Transient

log = logging.getLogger(__name__)

AT_ONCE: Final = 32
"""Objects that are looked at side by side."""
GAP: Final = 1_000_000
"""Numbers of records that are left out, for those that lie in a store which wasn't asked."""


@dataclass(frozen=True, slots=True)
class Source:
    """A store to rebuild from.

    Args:
        name: Name of the store.
        prefix: Of the directory in it.
        store: The store.
    """

    name: str
    prefix: str
    store: Store


@dataclass(slots=True)
class Rebuilt:
    """What was found.

    Args:
        files: Files, those in the trash too.
        directories: Directories.
        copies: Copies.
        records: Journal records.
        adopted: Files that no record spoke of.
        stale: Copies that are older than others.
        ignored: Objects that belong to nothing: of files that are gone, or whose names can't be held.
    """

    files: int = 0
    directories: int = 0
    copies: int = 0
    records: int = 0
    adopted: int = 0
    stale: int = 0
    ignored: int = 0


@dataclass(slots=True)
class _Node:
    entry: Entry
    path: str
    """The last one that was told."""
    told: bool
    """A journal record speaks of it."""
    trashed: Trashed | None = None
    copies: dict[str, Copy] = field(default_factory=dict)


async def rebuild(sources: Sequence[Source], catalog: Catalog, *, now: int) -> Rebuilt:
    """Fills an empty catalogue.

    Args:
        sources: All stores of the directory.
        catalog: Empty.
        now: Microseconds.

    Raises:
        Transient: A store doesn't answer, or can't list everything.
        Conflict: The catalogue isn't empty.
    """
    result = Rebuilt()
    state = _State(now)
    records: dict[tuple[int, int], Record] = {}
    written: list[Record] = []
    for source in sources:
        async for found in _records(source):
            if found[0].body["op"] != "snapshot":
                records.update(((record.seq, record.at), record) for record in found)
            elif _complete(found) and (not written or found[0].seq > written[0].seq):
                written = found
    last = written[0].seq if written else -1
    for record in written[1:-1] + [record for (seq, _), record in sorted(records.items()) if seq > last]:
        try:
            state.replay(record)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("journal record %d can't be read and is left out: %r", record.seq, error)
    result.records = len(records)
    for source in sources:
        async for seen in _objects(source, state):
            state.found(source, seen, result)
    entries, trashed = state.finish()
    copies = [copy for node in state.nodes.values() for copy in node.copies.values()]
    last = max(last, 0, *(seq for seq, _ in records))
    fresh = frozenset(node.entry.id for node in state.nodes.values() if not node.told)
    await catalog.load(entries, copies, trashed, due=now, seq=last + GAP if last else 0, fresh=fresh)
    result.files = sum(1 for entry in entries if entry.kind == "File")
    result.directories = len(entries) - result.files
    result.copies = len(copies)
    result.stale = sum(1 for copy in copies if copy.state != "Whole")
    return result


async def _pages(source: Source, prefix: str) -> AsyncIterator[tuple[Object, ...]]:
    after = ""
    while True:
        page = await source.store.list(prefix, after=after)
        if not page.complete:
            raise Transient(f"store {source.name} can't say that its listing is complete: nothing is concluded from it")
        yield page.objects
        after = page.after
        if not after:
            return


async def _records(source: Source) -> AsyncIterator[list[Record]]:
    """The records of each object of the journal."""
    async for objects in _pages(source, source.prefix + JOURNAL):
        for seen in objects:
            content = b"".join([chunk async for chunk in source.store.read(seen.key, if_tag=seen.tag)])
            try:
                found = decode(content)
            except ValueError as error:
                log.warning("%s in store %s isn't a journal: %s", seen.key, source.name, error)
                continue
            if found:
                yield found


def _complete(snapshot: Sequence[Record]) -> bool:
    end = snapshot[-1].body
    return end["op"] == "end" and end.get("lines") == len(snapshot) - 2


async def _objects(source: Source, state: _State) -> AsyncIterator[Object]:
    """Objects of files, with attributes unless the journal knows what they are."""
    places = asyncio.Semaphore(AT_ONCE)

    async def look(seen: Object) -> Object | None:
        if state.known(source, seen) is not None:
            return seen
        async with places:
            return await source.store.stat(seen.key)

    async for objects in _pages(source, source.prefix):
        name = len(source.prefix)
        mine = [o for o in objects if len(o.key) > name and not o.key.startswith(HIDDEN, name)]
        for seen in await asyncio.gather(*(look(o) for o in mine if not o.key.endswith("/"))):
            if seen is not None:
                yield seen


class _State:
    """The tree as far as it is known."""

    def __init__(self, now: int) -> None:
        self.now = now
        self.nodes: dict[str, _Node] = {}
        self._purged: set[str] = set()
        self._places: dict[tuple[str, str], tuple[str, int, str]] = {}
        """By store and key: entry, version, tag."""
        self._by_path: dict[str, str] = {"": ROOT}
        """Directories that had to be made."""

    # -- the journal

    def replay(self, record: Record) -> None:
        """Takes a record; one of something unknown says enough to make it."""
        body = record.body
        op, entry_id = body["op"], str(body.get("id", ""))
        node = self.nodes.get(entry_id)
        match op:
            case "mkdir":
                self._purged.discard(entry_id)
                self._put(Entry(entry_id, body["parent"], body["name"], "Directory", created=body["created"]), body)
            case "put":
                self._file(entry_id, body, node)
            case "copy":
                self._places[body["store"], body["key"]] = (entry_id, int(body["version"]), body["tag"])
            case "move" | "restore":
                if node is None:
                    node = self._unknown(entry_id, record)
                node.entry = replace(node.entry, parent=body["parent"], name=body["name"])
                node.path, node.trashed = body["path"], None
            case "delete":
                if node is None:
                    node = self._unknown(entry_id, record)
                node.entry = replace(node.entry, parent=TRASH, name=body["path"].rpartition("/")[2])
                node.path, node.trashed = "", Trashed(node.entry, body["path"], record.at)
            case "purge":
                self.nodes.pop(entry_id, None)
                self._purged.add(entry_id)
            case "tags":
                if node is not None:
                    node.entry = replace(node.entry, tags=dict(body["tags"]))
            case _:
                log.warning("journal record %d has an unknown op '%s'", record.seq, op)

    def _put(self, entry: Entry, body: Mapping[str, Any]) -> None:
        self.nodes[entry.id] = _Node(entry, body["path"], told=True)

    def _file(self, entry_id: str, body: Mapping[str, Any], node: _Node | None) -> None:
        version = int(body["version"])
        for store, (key, tag) in body["copies"].items():
            self._places[store, key] = (entry_id, version, tag)
        content = Entry(
            entry_id,
            body["parent"],
            body["name"],
            "File",
            int(body["size"]),
            int(body["mtime"]),
            body["sha256"],
            version,
            body["type"],
            dict(body["tags"]),
            int(body["created"]),
        )
        if node is None:
            self._put(content, body)
        elif version >= node.entry.version:
            node.entry = replace(content, parent=node.entry.parent, name=node.entry.name)

    def _unknown(self, entry_id: str, record: Record) -> _Node:
        kind = record.body["kind"]
        node = _Node(
            Entry(entry_id, "", "", kind, version=0 if kind == "File" else 1, created=record.at), "", told=True
        )
        self.nodes[entry_id] = node
        return node

    # -- objects

    def known(self, source: Source, seen: Object) -> tuple[str, int, str] | None:
        """What the journal says that an object is, if it is still the same one."""
        place = self._places.get((source.name, seen.key))
        return place if place is not None and seen.tag and place[2] == seen.tag else None

    def found(self, source: Source, seen: Object, result: Rebuilt) -> None:
        """Takes an object."""
        known = self.known(source, seen)
        attributes: Mapping[str, str] = seen.attributes
        if known is not None:
            entry_id, version = known[0], known[1]
        elif attributes.get("id"):
            entry_id, version = attributes["id"], _number(attributes.get("version", ""))
        elif (place := self._places.get((source.name, seen.key))) is not None:
            # ours once, and written by something else since: a copy of nothing that is on record
            entry_id, version = place[0], 0
        else:
            entry_id, version = "", 1
        if entry_id in self._purged:
            result.ignored += 1
            return
        node = self.nodes.get(entry_id) if entry_id else None
        if node is None:
            node = self._adopt(source, seen, entry_id, version)
            if node is None:
                result.ignored += 1
                return
            result.adopted += 1
        self._take(node, Copy(node.entry.id, source.name, seen.key, version, "Whole", seen.tag, seen.size, self.now))
        if known is None and version > node.entry.version:
            mtime = _number(attributes.get("mtime", "")) or seen.modified
            sha256 = attributes.get("sha256", "")
            node.entry = replace(node.entry, version=version, size=seen.size, mtime=mtime, sha256=sha256)
        elif version == node.entry.version and not node.entry.sha256:
            node.entry = replace(node.entry, sha256=attributes.get("sha256", ""))

    def _take(self, node: _Node, copy: Copy) -> None:
        """A store has one copy of a file: the newest, and of equal ones that under its own name."""
        there = node.copies.get(copy.store)
        if there is None or (copy.version, _plain(copy)) > (there.version, _plain(there)):
            node.copies[copy.store] = copy

    def _adopt(self, source: Source, seen: Object, entry_id: str, version: int) -> _Node | None:
        try:
            path = names.clean_path(names.path_of(source.prefix, seen.key, source.store.info))
        except InvalidName as error:
            log.warning("%s in store %s can't be a file of the directory: %s", seen.key, source.name, error)
            return None
        if entry_id:
            path = path.removesuffix(f".~{entry_id}")
        mtime = _number(seen.attributes.get("mtime", "")) or seen.modified
        entry = Entry(
            entry_id or new_id(),
            "",
            path.rpartition("/")[2],
            "File",
            seen.size,
            mtime,
            seen.attributes.get("sha256", ""),
            version or 1,
            created=seen.modified or self.now,
        )
        node = _Node(entry, path, told=False)
        self.nodes[entry.id] = node
        return node

    # -- the tree

    def finish(self) -> tuple[list[Entry], list[Trashed]]:
        """All entries, each with a way up to the root or the trash and a name of its own; copies with their states."""
        self._taken: dict[tuple[str, str], str] = {}
        for node in list(self.nodes.values()):
            if node.entry.version == 0:
                # only renames and deletions of it are on record, and no store has it
                del self.nodes[node.entry.id]
        for node in self._told_first():
            if node.entry.parent != TRASH and not self._has_way(node):
                above = self._directory(node.path.rpartition("/")[0])
                node.entry = replace(node.entry, parent=above, name=node.path.rpartition("/")[2] or node.entry.id)
        self._taken.clear()
        for node in self._told_first():
            self._name(node)
        for node in self.nodes.values():
            for store, copy in node.copies.items():
                if copy.version != node.entry.version or copy.size != node.entry.size:
                    node.copies[store] = replace(copy, state="Stale")
        trashed = [replace(node.trashed, entry=node.entry) for node in self.nodes.values() if node.trashed is not None]
        return [node.entry for node in self.nodes.values()], trashed

    def _told_first(self) -> Iterable[_Node]:
        return sorted(self.nodes.values(), key=lambda node: (not node.told, node.entry.created, node.entry.id))

    def _has_way(self, node: _Node) -> bool:
        seen = {node.entry.id}
        above = node.entry.parent
        while above not in (ROOT, TRASH):
            if above in seen or above not in self.nodes or self.nodes[above].entry.kind == "File":
                return False
            seen.add(above)
            above = self.nodes[above].entry.parent
        return True

    def _directory(self, path: str) -> str:
        """Id of a directory by path, made if no record speaks of it."""
        if not self._taken:
            for node in self.nodes.values():
                if node.entry.kind == "Directory" and node.entry.parent != TRASH and self._has_way(node):
                    self._taken[node.entry.parent, node.entry.name] = node.entry.id
        here = ROOT
        for part in path.split("/") if path else []:
            below = self._taken.get((here, part))
            if below is None:
                below = new_id()
                made = Entry(below, here, part, "Directory", created=self.now)
                self.nodes[below] = _Node(made, "", told=False)
                self._taken[here, part] = below
            here = below
        return here

    def _name(self, node: _Node) -> None:
        """Two things of one name: the second gets its id behind it."""
        entry = node.entry
        if entry.parent == TRASH:
            return
        if (entry.parent, entry.name) in self._taken:
            log.warning("two things are called '%s': one is now '%s.~%s'", entry.name, entry.name, entry.id)
            entry = node.entry = replace(entry, name=f"{entry.name}.~{entry.id}")
        self._taken[entry.parent, entry.name] = entry.id


def _plain(copy: Copy) -> bool:
    return not copy.key.endswith(f".~{copy.entry}")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
