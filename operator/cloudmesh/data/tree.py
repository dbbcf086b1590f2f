"""The directory as people see it: one tree of files, whatever store holds them.

A write is acknowledged when enough stores hold it and the catalogue says so; a rename, deletion or change of tags when
its journal record is in a store. What a crash leaves open is in the catalogue's intents, see `recovery`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudmesh.data import names
from cloudmesh.data.catalog.journal import Journal
from cloudmesh.data.catalog.ports import ABSENT, ANY, Catalog, Located, Query, at_work
from cloudmesh.data.errors import Changed, InvalidName, Missing
from cloudmesh.data.memory import READ_WAIT, Memory, of_read
from cloudmesh.data.mesh import Member, Mesh, own_path
from cloudmesh.data.model import MICROS, Copy, CopyState, Entry, Totals, Trashed
from cloudmesh.data.money import monthly_nanos
from cloudmesh.data.placement import Chosen, Facts, choose
from cloudmesh.data.writer import Writer
from cloudmesh.engine.errors import CloudmeshError, Conflict, NotFound, Transient

log = logging.getLogger(__name__)

VERIFIED = 4 << 20
"""Files up to this size are compared with their digest before the first byte is given, if they are read whole."""
WAITS = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 0.0)
"""Seconds between tries to read a file that is being written."""


def wall() -> int:
    """Now, in microseconds."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Where:
    """One copy for people: its store, state, and what it costs a month in nano-units (None: unknown)."""

    copy: Copy
    up: bool
    monthly: int | None


class Tree:
    """One directory.

    Args:
        catalog: Its catalogue.
        mesh: Its stores, and how they are used.
        journal: Its journal.
        now: Microseconds.
        stir: Called when the mover has something to do.
        memory: What transfers may take of it.
    """

    def __init__(
        self,
        catalog: Catalog,
        mesh: Mesh,
        journal: Journal,
        *,
        now: Callable[[], int] = wall,
        stir: Callable[[], None] = lambda: None,
        memory: Memory | None = None,
    ) -> None:
        self.catalog = catalog
        self.mesh = mesh
        self.journal = journal
        self.now = now
        self._stir = stir
        self.writer = Writer(catalog, mesh, now=now, stir=stir, journaled=journal.sync, memory=memory)
        self.put = self.writer.put

    # -- looking

    async def stat(self, path: str) -> Entry:
        """What is at a path.

        Raises:
            Missing: Nothing is.
        """
        clean = names.clean_path(path)
        entry = await self.catalog.entry(clean)
        if entry is None:
            raise Missing(f"there is no '{clean}'")
        return entry

    async def children(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """Entries of a directory by name, after the name `after`."""
        return await self.catalog.children(names.clean_path(path), after=after, limit=limit, copies=copies)

    async def walk(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> list[Located]:
        """All below a directory, in order, after the path `after`."""
        return await self.catalog.walk(names.clean_path(path), after=after, limit=limit, copies=copies)

    async def search(self, query: Query, *, after: str = "", limit: int = 1000) -> list[Located]:
        """What matches."""
        return await self.catalog.search(query, after=after, limit=limit)

    async def totals(self) -> Totals:
        """Sums."""
        return await self.catalog.totals()

    async def trash(self, *, after: str = "", limit: int = 1000) -> list[Trashed]:
        """What was deleted, also what is over and whose copies are still being removed: `is_over`."""
        return await self.catalog.trash(after=after, limit=limit)

    async def where(self, path: str) -> list[Where]:
        """Where the copies of a file lie."""
        entry = await self.stat(path)
        found = []
        for copy in await self.catalog.copies(entry.id):
            member = self.mesh.members.get(copy.store)
            # for what somebody else keeps there nobody pays here
            cost = None if member is None or copy.state == "Linked" else monthly_nanos(member.config.prices, copy.size)
            found.append(Where(copy, member is not None and member.up, cost))
        return found

    async def why(self, path: str) -> Chosen:
        """Which rule places a file, and what became of each store."""
        entry = await self.stat(path)
        holding = frozenset(c.store for c in await self.catalog.copies(entry.id) if c.state == "Whole")
        facts = facts_of(names.clean_path(path), entry)
        return choose(facts, self.mesh.config.rules, self.mesh.views(), self.now(), holding=holding, explain=True)

    # -- reading

    async def read(
        self,
        path: str,
        *,
        start: int = 0,
        length: int | None = None,
        version: int = 0,
        known: Entry | None = None,
    ) -> tuple[Entry, AsyncGenerator[bytes, None]]:
        """A file and its bytes from `start`; when a store fails in the middle, another copy goes on. With `version` an
        older content that is kept, told as what the file was then. `known` is what was just seen at the path.

        Raises:
            Missing: There is no such file, or no such version of it.
            InvalidName: It is a directory.
            Transient: No store that answers has a whole copy.
        """
        for wait in WAITS:
            there, known = known or await self.stat(path), None
            if there.kind == "Directory":
                raise InvalidName(f"'{path}' is a directory")
            entry = there if version in (0, there.version) else (await self._older(there, version)).entry
            stop = entry.size if length is None else min(entry.size, start + length)
            copies = await self.readable(entry)
            whole = start == 0 and stop == entry.size <= VERIFIED and entry.sha256
            if whole:
                stream = self._within(2 * entry.size, self._verified(entry, copies))
            else:
                most = max((of_read(member.store.info, stop - start) for _, member in copies), default=0)
                stream = self._within(most, self._bytes(entry, copies, start, stop))
            if start >= stop:
                await self._still_linked(entry, copies)
            try:
                first = await anext(stream, b"")
            except Transient:
                # it may be written anew just now: its stores have the new content, the catalogue hasn't yet
                changing = (
                    await self._being_written(there.id) or await self.catalog.entry(names.clean_path(path)) != there
                )
                # or its objects just got other names
                moved = set(await self.readable(entry)) - set(copies)
                if not wait or not (changing or moved):
                    raise
                await asyncio.sleep(wait)
            else:
                if entry is not there:
                    entry = replace(entry, id=there.id, parent=there.parent, name=there.name)
                return entry, _With(first, stream)
        raise AssertionError  # the last try raises

    async def _within(self, amount: int, stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """A stream that begins when there is memory for it."""
        async with self.writer.memory.reads.taken(amount, seconds=READ_WAIT), contextlib.aclosing(stream):
            async for chunk in stream:
                yield chunk

    async def readable(self, entry: Entry) -> list[tuple[Copy, Member]]:
        """Its whole copies in stores that answer, the nearest first."""
        members = self.mesh.members
        found = [
            (copy, members[copy.store])
            for copy in await self.catalog.copies(entry.id)
            if copy.state in ("Whole", "Linked") and copy.version == entry.version
            and copy.store in members and members[copy.store].up
        ]  # fmt: skip
        return sorted(found, key=lambda pair: (pair[1].slow, pair[1].latency_ms))

    async def versions(self, path: str) -> tuple[Entry, list[Trashed]]:
        """A file, and its older contents that are kept, the newest first.

        Raises:
            Missing: There is no such file.
            InvalidName: It is a directory.
        """
        entry = await self.stat(path)
        if entry.kind == "Directory":
            raise InvalidName(f"'{path}' is a directory")
        return entry, await self.kept(entry.id)

    async def kept(self, entry_id: str) -> list[Trashed]:
        """Older contents of a file that aren't over, the newest first: no more than are kept, none too old."""
        newest = (await self.catalog.versions(entry_id))[: self.mesh.config.versions]
        return [thing for thing in newest if not self.is_over(thing)]

    def is_over(self, thing: Trashed) -> bool:
        """Whether something was deleted or replaced too long ago: its copies are being removed."""
        return thing.at <= self.mesh.bounded(self.now()) - self.mesh.config.trash_seconds * MICROS

    async def version(self, path: str, version: int) -> Entry:
        """What a file was when it was of an older version that is kept.

        Raises:
            Missing: There is no such file or version.
        """
        entry = await self.stat(path)
        if version == entry.version:
            return entry
        return replace((await self._older(entry, version)).entry, id=entry.id, parent=entry.parent, name=entry.name)

    async def _older(self, entry: Entry, version: int) -> Trashed:
        for thing in await self.kept(entry.id):
            if thing.entry.version == version:
                return thing
        raise Missing(f"'{entry.name}' has no version {version} any more")

    async def restore_version(self, path: str, version: int, *, if_version: int = ANY) -> Entry:
        """Writes an older content of a file as its new one; that so far becomes an older one by that.

        Raises:
            Missing: There is no such file or version.
            Changed: The file isn't of `if_version`.
        """
        old, chunks = await self.read(path, version=version)
        async with contextlib.aclosing(chunks):
            return await self.put(
                path, chunks, size=old.size, mtime=old.mtime, sha256=old.sha256, content_type=old.content_type,
                if_version=if_version,
            )  # fmt: skip

    async def delete_version(self, path: str, version: int) -> None:
        """Gives an older content of a file up: its objects are removed.

        Raises:
            Missing: There is no such file or version.
        """
        entry = await self.stat(own_path(path))
        await self.catalog.expire((await self._older(entry, version)).entry.id)
        await self.journal.sync()
        self._stir()

    async def _why_unreadable(self, entry: Entry) -> str:
        told = []
        for copy in await self.catalog.copies(entry.id):
            member = self.mesh.members.get(copy.store)
            state = "it isn't a store of this directory any more" if member is None else member.message or member.state
            told.append(f"{copy.store}: copy {copy.state}, {state}")
        return "; ".join(told) or "there is none"

    async def _verified(self, entry: Entry, copies: Sequence[tuple[Copy, Member]]) -> AsyncGenerator[bytes, None]:
        """A small file whole, from the first copy that has the digest on record."""
        failures = [] if copies else [await self._why_unreadable(entry)]
        for copy, member in copies:
            try:
                with member.used():
                    content = b"".join([chunk async for chunk in member.read(copy.key, if_tag=copy.tag)])
            except CloudmeshError as error:
                failures.append(f"{copy.store}: {error.reason}: {error}")
                await self.found_bad(copy, member, error)
                continue
            if hashlib.sha256(content).hexdigest() == entry.sha256:
                if content:
                    yield content
                return
            failures.append(f"{copy.store}: its bytes have another digest than the one on record")
            await self._mark(copy, "Corrupt", failures[-1])
        if entry.size:
            raise Transient(f"no copy of '{entry.name}' could be read: {'; '.join(failures)}")

    async def _bytes(
        self, entry: Entry, copies: Sequence[tuple[Copy, Member]], start: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        at, failures = start, [] if copies else [await self._why_unreadable(entry)]
        left, tried = list(copies), set(copies)
        while left and at < stop:
            copy, member = left.pop(0)
            try:
                with member.used():
                    async for chunk in member.read(copy.key, start=at, length=stop - at, if_tag=copy.tag):
                        at += len(chunk)
                        yield chunk
                if at >= stop:
                    return
                failures.append(f"{copy.store}: it ended after {at} of {stop} bytes")
                await self._mark(copy, "Corrupt", failures[-1])
            except CloudmeshError as error:
                failures.append(f"{copy.store}: {error.reason}: {error}")
                if (broken := await self._broken(entry, copy, member, error)) is not None:
                    raise broken from error
                await self.found_bad(copy, member, error)
            if not left:
                # an object may have got another name meanwhile
                left = [pair for pair in await self.readable(entry) if pair not in tried]
                tried |= set(left)
        if at < stop:
            raise Transient(f"no copy of '{entry.name}' could be read to its end: {'; '.join(failures)}")

    async def found_bad(self, copy: Copy, member: Member, error: CloudmeshError) -> None:
        """A read failed: what that says of the copy or the store is kept, and mended by the mover."""
        log.warning("read of %s in %s failed: %s", copy.key, copy.store, error)
        if not isinstance(error, NotFound | Changed):
            member.doubt(error)
        elif copy.state == "Linked":
            # nothing of it is ours to mend
            return
        elif await self._being_written(copy.entry):
            # a write that isn't committed yet changes the tag too; one that broke off is told by its recovery
            return
        elif not isinstance(error, NotFound):
            await self._mark(copy, "Stale", str(error))
        elif await member.absence_counts():
            await self._mark(copy, "Missing", str(error))

    async def _being_written(self, entry_id: str) -> bool:
        """Whether a write of a file is under way, in this process or through another gateway of the directory."""
        if entry_id in self.writer.live.values():
            return True
        return await at_work(self.catalog, entry_id, kind="Put")

    async def _still_linked(self, entry: Entry, copies: Sequence[tuple[Copy, Member]]) -> None:
        """Where nothing is to be read, whether a link's object is there all the same."""
        for copy, member in copies:
            if copy.state != "Linked":
                continue
            seen = await member.store.stat(copy.key)
            if seen is not None and seen.tag == copy.tag:
                continue
            error = Missing("it isn't there") if seen is None else Changed("it has another tag")
            raise await self._broken(entry, copy, member, error) or Transient(f"store {member.name} isn't believed")

    async def _broken(self, entry: Entry, copy: Copy, member: Member, error: CloudmeshError) -> CloudmeshError | None:
        """What a link says whose object is gone or another one; None if that isn't so, or isn't known."""
        if copy.state != "Linked" or not isinstance(error, NotFound | Changed):
            return None
        where = f"'{entry.name}' is a link to {copy.store}:/{copy.key}, and"
        if isinstance(error, Changed):
            told: CloudmeshError = Conflict(f"{where} the object was changed: soon it is the link's new version")
        elif await member.absence_counts():
            told = Missing(f"{where} there is no such object any more")
        else:
            return None
        await self.catalog.put_copies([replace(copy, error=str(told))], was=[copy], due=self.now())
        self._stir()
        return told

    async def _mark(self, copy: Copy, state: CopyState, why: str) -> None:
        """Keeps what was found of a copy, if its record is still the same, for the mover to mend."""
        log.warning("copy of %s in %s is %s: %s", copy.key, copy.store, state, why)
        await self.catalog.put_copies([replace(copy, state=state, error=why)], was=[copy], due=self.now())
        self._stir()

    # -- the tree

    async def mkdir(self, path: str, *, parents: bool = False) -> Entry:
        """Makes a directory."""
        clean = own_path(path)
        entry = await self.catalog.mkdir(clean, parents=parents)
        await self.journal.sync()
        return entry

    async def move(self, source: str, target: str, *, overwrite: bool = False, if_version: int = ANY) -> Entry:
        """Renames a file or a directory of any size."""
        entry = await self.catalog.move(own_path(source), own_path(target), overwrite=overwrite, if_version=if_version)
        await self.journal.sync()
        self._stir()
        return entry

    async def copy(self, source: str, target: str, *, overwrite: bool = False) -> Entry:
        """Copies a file.

        Raises:
            Exists: There is a target and `overwrite` is False.
        """
        entry, chunks = await self.read(source)
        return await self.put(
            target, chunks, size=entry.size, mtime=entry.mtime, sha256=entry.sha256, content_type=entry.content_type,
            tags=entry.tags, if_version=ANY if overwrite else ABSENT,
        )  # fmt: skip

    async def delete(self, path: str, *, recursive: bool = False, if_version: int = ANY) -> Entry:
        """Moves something to the trash.

        Raises:
            Missing: There is nothing.
        """
        clean = own_path(path)
        entry = await self.catalog.delete(clean, recursive=recursive, if_version=if_version)
        if entry is None:
            raise Missing(f"there is no '{clean}'")
        await self.journal.sync()
        self._stir()
        return entry

    async def restore(self, entry_id: str, path: str = "", *, undo: bool = False) -> Entry:
        """Brings something back from the trash.

        Args:
            entry_id: Its id.
            path: Where to, empty for where it was.
            undo: It was there just before: no quota is asked.

        Raises:
            Missing: It isn't there, or its time is over and its copies are being removed.
            Full: The quota has no room for it.
        """
        thing = await self.catalog.thrown(entry_id)
        if thing is not None and not thing.of and self.is_over(thing):
            raise Missing(f"'{entry_id}' was deleted too long ago: its copies are being removed")
        target = own_path(path) if path else ""
        if undo:
            entry = await self.catalog.restore(entry_id, target)
        else:
            allowance = self.writer.allowance
            files, size = await self.catalog.weigh(entry_id) if allowance.limited else (0, 0)
            grant = await allowance.take(files, size, late=True)
            try:
                async with allowance.counting(grant) as check:
                    entry = await self.catalog.restore(entry_id, target, check=check)
            finally:
                grant.release()
        await self.journal.sync()
        self._stir()
        return entry

    async def set_tags(self, path: str, tags: Mapping[str, str]) -> Entry:
        """Replaces the tags of a file or directory."""
        entry = await self.catalog.set_tags(own_path(path), tags)
        await self.journal.sync()
        self._stir()
        return entry


class _With(AsyncGenerator[bytes, None]):
    """A stream whose first piece was taken; it ends with this one, even if nobody began to read."""

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first = first
        self._rest = rest

    async def asend(self, value: None) -> bytes:
        """The next piece."""
        if self._first:
            first, self._first = self._first, b""
            return first
        return await self._rest.asend(value)

    async def athrow(self, *args: Any) -> bytes:
        """Ends it so."""
        return await self._rest.athrow(*args)

    async def aclose(self) -> None:
        """Ends it."""
        self._first = b""
        await self._rest.aclose()


def facts_of(path: str, entry: Entry) -> Facts:
    """What rules see of an entry."""
    return Facts(path, entry.size, entry.mtime, entry.content_type, entry.tags)
