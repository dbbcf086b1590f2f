"""Makes a lost catalogue anew from what the stores hold: the journal, the attributes of objects, their listings.

Nothing is changed in a store. A store that doesn't answer, or can't say that a listing is complete, ends it before the
catalogue is touched: an absent object must never look like a deleted one. Memory holds no more than a page: what is
found out lies in a file, see `workspace`.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cloudmesh.data import names
from cloudmesh.data.borders import Borders
from cloudmesh.data.catalog.journal import JOURNAL, SNAPSHOT, number
from cloudmesh.data.catalog.ports import Catalog, Record
from cloudmesh.data.catalog.records import lines
from cloudmesh.data.catalog.sql_tree import new_id
from cloudmesh.data.catalog.workspace import Held, Node, Workspace
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.mesh import HIDDEN, KEPT
from cloudmesh.data.model import ROOT, TRASH, Copy, Entry
from cloudmesh.data.stores.ports import Object, Store
from cloudmesh.engine.errors import Transient

log = logging.getLogger(__name__)

AT_ONCE: Final = 32
"""Objects that are looked at side by side."""
GAP: Final = 1_000_000
"""Numbers of records that are left out, for those that lie in a store which wasn't asked."""
STEP: Final = 500
"""Records between two turns of the loop."""
_ID: Final = re.compile("[0-9a-f]{16}")
_SHA256: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Source:
    """A store to rebuild from.

    Args:
        name: Name of the store.
        prefix: Of the directory in it.
        store: The store.
        counted: Reads from it in place of its own `read`, where somebody counts what is read.
    """

    name: str
    prefix: str
    store: Store
    counted: Callable[..., AsyncIterator[bytes]] | None = None

    def read(self, seen: Object) -> AsyncIterator[bytes]:
        """The bytes of an object, as it was seen."""
        return (self.counted or self.store.read)(seen.key, if_tag=seen.tag)


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
        foreign: By prefix, directories of others that lie within this one; nothing of theirs is taken.
    """

    files: int = 0
    directories: int = 0
    copies: int = 0
    records: int = 0
    adopted: int = 0
    stale: int = 0
    ignored: int = 0
    foreign: dict[str, str] = field(default_factory=dict)


async def rebuild(
    sources: Sequence[Source], catalog: Catalog, *, now: int, adopt: bool = True, scratch: Path | None = None
) -> Rebuilt:
    """Fills an empty catalogue.

    Args:
        sources: All stores of the directory.
        catalog: Empty.
        now: Microseconds.
        adopt: Files of others, which no record and no attribute knows, are taken in.
        scratch: Folder for what is found out meanwhile, about as large as the catalogue will be.

    Raises:
        Transient: A store doesn't answer, or can't list everything.
        Conflict: The catalogue isn't empty.
    """
    with Workspace(scratch, now) as work:
        state = _State(work, now, adopt=adopt)
        last = await _snapshot(sources, work)
        for source in sources:
            await _records(source, work)
        await state.replay_all(last)
        result = state.result
        result.records, newest = work.counted()
        for source in sources:
            await state.objects(source)
        for words in work.finish():
            if words:
                log.warning("%s", words)
            await asyncio.sleep(0)
        seq = max(last, newest)
        result.files, result.directories, result.copies, result.stale = work.sums()
        await catalog.load(
            work.entries(), work.copies(), work.trashed(), due=now, seq=seq + GAP if seq > 0 else 0, fresh=work.fresh()
        )
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


async def _snapshot(sources: Sequence[Source], work: Workspace) -> int:
    """Stages the newest snapshot that is whole; gives the number of the last record before it, -1 without one."""
    found = []
    for source in sources:
        async for objects in _pages(source, source.prefix + JOURNAL):
            found += [(number(seen.key), source, seen) for seen in objects if SNAPSHOT in seen.key]
    for seq, source, seen in sorted(found, key=lambda one: -one[0]):
        if seq >= 0 and await _stage(source, seen, work):
            return seq
        work.unstage()
    return -1


async def _stage(source: Source, seen: Object, work: Workspace) -> bool:
    """Reads a snapshot; says whether it is whole."""
    count, end, batch = 0, None, list[Record]()
    try:
        async for record in lines(source.read(seen)):
            if end is not None or (count == 0) is not (record.body["op"] == "snapshot"):
                return False
            if record.body["op"] == "end":
                end = record.body.get("lines")
            elif count:
                batch.append(record)
            count += 1
            if len(batch) >= STEP:
                work.stage(batch)
                batch = []
    except ValueError as error:
        log.warning("%s in store %s isn't a snapshot: %s", seen.key, source.name, error)
        return False
    work.stage(batch)
    return end == count - 2


async def _records(source: Source, work: Workspace) -> None:
    """Keeps the records of all objects of the journal."""
    async for objects in _pages(source, source.prefix + JOURNAL):
        for seen in objects:
            if SNAPSHOT in seen.key:
                continue
            try:
                work.keep([record async for record in lines(source.read(seen))])
            except ValueError as error:
                log.warning("%s in store %s isn't a journal: %s", seen.key, source.name, error)


@dataclass(frozen=True, slots=True)
class _Claim:
    """What an object is a copy of.

    Args:
        entry: Id of the file, empty for none.
        version: Of its content.
        rank: How sure that is: 4 and more as a record or the object itself says.
        tag: Of the copy on record, if this isn't that; None if it is.
    """

    entry: str
    version: int
    rank: int
    tag: str | None = None


class _State:
    """Finds out what the tree is.

    Args:
        work: Where it is kept.
        now: Microseconds.
        adopt: Files of others are taken in.
    """

    def __init__(self, work: Workspace, now: int, *, adopt: bool) -> None:
        self._work = work
        self._now = now
        self._adopts = adopt
        self.result = Rebuilt()

    # -- the journal

    async def replay_all(self, last: int) -> None:
        """Takes the snapshot, then the records after it."""
        for found in (self._work.staged(), self._work.records(last)):
            for count, record in enumerate(found):
                try:
                    self.replay(record)
                except (KeyError, TypeError, ValueError) as error:
                    log.warning("journal record %d can't be read and is left out: %r", record.seq, error)
                if count % STEP == 0:
                    await asyncio.sleep(0)
        self._work.unstage()

    def replay(self, record: Record) -> None:
        """Takes a record; one of something unknown says enough to make it."""
        body, work = record.body, self._work
        op, entry_id = body["op"], str(body.get("id", ""))
        match op:
            case "mkdir":
                work.back(entry_id)
                made = Entry(entry_id, body["parent"], body["name"], "Directory", created=int(body["created"]))
                work.put(made, body["path"], told=True)
            case "put":
                self._file(body)
            case "keep":
                self._kept(body)
            case "copy":
                work.lies(body["store"], body["key"], entry_id, int(body["version"]), body["tag"])
            case "move" | "restore":
                self._known(record)
                work.move(entry_id, body["parent"], body["name"], body["path"])
            case "delete":
                self._known(record)
                work.throw(entry_id, body["path"], record.at)
            case "expire":
                work.expire(entry_id)
            case "purge":
                work.purge(entry_id)
            case "tags":
                work.tag(entry_id, body["tags"])
            case _:
                log.warning("journal record %d has an unknown op '%s'", record.seq, op)

    def _file(self, body: Mapping[str, Any]) -> None:
        content = self._content(body)
        node = self._work.node(content.id)
        if node is None:
            self._work.put(content, body["path"], told=True)
        elif content.version >= node.version:
            self._work.content(content)

    def _content(self, body: Mapping[str, Any]) -> Entry:
        version, linked = int(body["version"]), bool(body.get("link"))
        self._work.unlink(str(body["id"]))
        for store, (key, tag) in body["copies"].items():
            if linked:
                self._work.link(Copy(str(body["id"]), store, key, version, "Linked", tag, int(body["size"])))
            else:
                self._work.lies(store, key, str(body["id"]), version, tag)
        return Entry(
            str(body["id"]), body["parent"], body["name"], "File", int(body["size"]), int(body["mtime"]),
            body["sha256"], version, body["type"], dict(body["tags"]), int(body["created"]),
        )  # fmt: skip

    def _kept(self, body: Mapping[str, Any]) -> None:
        """An older content of a file, or objects that nobody wants: in the trash from the beginning."""
        content = self._content(body)
        self._work.put(content, "", told=True, thrown=body["path"], at=int(body["since"]), of=str(body["of"]))

    def _known(self, record: Record) -> None:
        entry_id, kind = str(record.body["id"]), record.body["kind"]
        if self._work.node(entry_id) is None:
            made = Entry(entry_id, "", "", kind, version=0 if kind == "File" else 1, created=record.at)
            self._work.put(made, "", told=True)

    # -- objects

    async def objects(self, source: Source) -> None:
        """Takes all objects of a store but our own; those that the journal doesn't know with their attributes."""
        places, name = asyncio.Semaphore(AT_ONCE), len(source.prefix)
        borders = Borders(source.store, source.prefix)

        async def look(seen: Object) -> Object | None:
            aside = seen.key.startswith(KEPT, name)
            if self._as_told(source, seen) is not None:
                return seen
            if aside and (seen.tag or self._work.place(source.name, seen.key) is None):
                # of what is in the trash, where a record says so; nothing else that is ours is a file
                return None
            async with places:
                if not aside and await borders.foreign(seen.key):
                    self.result.ignored += 1
                    return None
                whole = await source.store.stat(seen.key)
            return None if aside and (whole is None or self._as_told(source, whole) is None) else whole

        async for objects in _pages(source, source.prefix):
            mine = [
                o for o in objects
                if len(o.key) > name and not o.key.endswith("/")
                and (o.key.startswith(KEPT, name) or not o.key.startswith(HIDDEN, name))
                and not self._work.linked(source.name, o.key)
            ]  # fmt: skip
            for seen in await asyncio.gather(*(look(o) for o in mine)):
                if seen is not None:
                    self._found(source, seen)
        self.result.foreign |= borders.found

    def _as_told(self, source: Source, seen: Object) -> tuple[str, int] | None:
        """What the journal says that an object is, if it is still the same one."""
        place = self._work.place(source.name, seen.key)
        return place[:2] if place is not None and seen.tag and place[2] == seen.tag else None

    def _found(self, source: Source, seen: Object) -> None:
        known = self._as_told(source, seen)
        claim = _Claim(*known, 5) if known is not None else self._whose(source, seen)
        entry_id = claim.entry
        if entry_id and self._work.ended(entry_id):
            self.result.ignored += 1
            return
        mtime = _number(seen.attributes.get("mtime", "")) or seen.modified
        told = seen.attributes.get("sha256", "")
        sha256 = told if _SHA256.fullmatch(told) else ""
        node = self._work.node(entry_id) if entry_id else None
        if node is None and claim.tag is not None:
            # the record is of something that was never told
            claim, entry_id = _Claim("", 1, 3), ""
        if node is None:
            key, version = seen.key, max(claim.version, 1)
            copy = Copy(entry_id or new_id(), source.name, key, version, "Whole", seen.tag, seen.size)
            self._adopt(source, Held(copy, claim.rank, mtime, sha256), given=bool(entry_id), created=seen.modified)
            return
        copy = Copy(entry_id, source.name, seen.key, claim.version, "Whole", seen.tag, seen.size)
        if claim.tag is not None:
            copy = replace(copy, state="Stale", tag=claim.tag)
        self._take(source, Held(copy, claim.rank, mtime, sha256), node, told=known is not None or claim.tag is not None)

    def _whose(self, source: Source, seen: Object) -> _Claim:
        """What an object is that no record tells as it is now: a newer content of ours, somebody else's, or somebody's
        edit that kept our attributes. The last two are told as the record has the copy, see `ours`."""
        place = self._work.place(source.name, seen.key)
        told, entry_id = seen.attributes, seen.attributes.get("id", "")
        version = _number(told.get("version", ""))
        if _ID.fullmatch(entry_id) and entry_id not in (ROOT, TRASH):
            node = self._work.node(entry_id)
            if place is not None and not place[2] and self._is_for(place, entry_id, version):
                return _Claim(place[0], place[1], 5)
            older = place is not None and self._work.node(place[0])
            edited = place is not None and place[2] and place[0] == entry_id and version <= place[1]
            if place is not None and older and older.origin == entry_id and version <= place[1]:
                # an older content of the file that was written over: it goes with that
                edited = True
            at = told.get("at")
            fits = node is None or not node.directory
            if not edited and fits and at in (None, names.mark_of(source.prefix, seen.key)):
                return _Claim(entry_id, version, 4 if at else 2 if seen.key.endswith(f".~{entry_id}") else 3)
        if place is not None:
            # ours once: whoever mends copies compares it, and knows whose it is
            return _Claim(place[0], place[1], 1, place[2])
        return _Claim("", 1, 3)

    def _is_for(self, place: tuple[str, int, str], entry_id: str, version: int) -> bool:
        """A record without a tag: nobody knew yet what lies there."""
        node = self._work.node(place[0])
        return place[1] == version and (place[0] == entry_id or (node is not None and node.origin == entry_id))

    def _take(self, source: Source, held: Held, node: Node, *, told: bool) -> None:
        """A store has one copy of a file: the newest, and of equal ones that which is surest."""
        copy = held.copy
        left = self._work.take(held)
        if left is not None:
            self._second(source, left)
            if left is held:
                return
        if not told and copy.version > node.version:
            self._work.newer(copy.entry, copy.version, copy.size, held.mtime)
        elif copy.version == node.version and not node.digest and self._work.agreed(held):
            self._work.digest(copy.entry, held.sha256)

    def _second(self, source: Source, left: Held) -> None:
        """Another object that says it is the same copy: a rest of ours, or one that somebody copied in the store."""
        if left.rank >= 4:
            self.result.ignored += 1
            return
        log.warning(
            "%s in store %s was copied from another object: it is a file of its own", left.copy.key, source.name
        )
        copy = Copy(new_id(), left.copy.store, left.copy.key, 1, "Whole", left.copy.tag, left.copy.size)
        self._adopt(source, Held(copy, 3, left.mtime, left.sha256), given=False, created=0)

    def _adopt(self, source: Source, held: Held, *, given: bool, created: int) -> None:
        """An entry for an object of which no record speaks.

        Args:
            source: Its store.
            held: The object.
            given: The id is one of ours.
            created: When the store got it.
        """
        copy = held.copy
        try:
            path = names.clean_path(names.path_of(source.prefix, copy.key, source.store.info))
        except InvalidName as error:
            log.warning("%s in store %s can't be a file of the directory: %s", copy.key, source.name, error)
            self.result.ignored += 1
            return
        if not given and not self._adopts:
            self.result.ignored += 1
            return
        if given:
            # behind a name that was taken, be it the file's own or that of a directory above it
            path = path.replace(f".~{copy.entry}", "")
        # what one object alone says of its digest may be of another content, before somebody's edit
        content = (copy.size, held.mtime, "", copy.version)
        entry = Entry(copy.entry, "", path.rpartition("/")[2], "File", *content, created=created or self._now)
        self._work.put(entry, path, told=False)
        self._work.take(held)
        self.result.adopted += 1


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 18 else 0
