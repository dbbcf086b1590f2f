"""Writes the catalogue's journal records into a store, so that losing the catalogue loses nothing.

Records that wait at the same moment become one object of JSON lines below `.cloudmesh/journal/`, named by the number of
its first record. A record may come twice (an answer was lost, a process ended): its `seq` and `at` tell.

When there are many such objects, the whole catalogue is written down as records, `<number>-snapshot-….jsonl`, all with
the number of the last record before it; then the older objects go. Changes that come while it is written are in it or
not, and in later records in any case: replayed in order, they end in the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog.ports import Catalog, Record
from cloudmesh.data.catalog.records import encode
from cloudmesh.data.mesh import HIDDEN, Member, strongest
from cloudmesh.data.stores.ports import Object
from cloudmesh.engine.errors import CloudmeshError, Transient

log = logging.getLogger(__name__)

JOURNAL: Final = HIDDEN + "journal/"
WINDOW_SECONDS: Final = 0.002
"""For which the first who waits is joined by others."""
IDLE_SECONDS: Final = 5.0
"""After which records that nobody waits for are written too."""
WRITE_SECONDS: Final = 15.0
"""After which a store that takes a record is left for the next one."""
BATCH: Final = 5000
"""Records of one object at most."""
SNAPSHOT: Final = "-snapshot-"
COMPACT_SECONDS: Final = 3600.0
"""Between looks at how much journal there is."""
COMPACT_OBJECTS: Final = 500
"""Objects from which on the journal is made short, if they have more bytes than the last snapshot."""
HOLDERS: Final = 2
"""Stores that get a snapshot, where there are so many."""


class Stores(Protocol):
    """Whoever knows the stores."""

    @property
    def members(self) -> Mapping[str, Member]:
        """By name, in the user's order."""


class Journal:
    """One writer of a catalogue's journal.

    Args:
        catalog: Whose records.
        stores: Where they may go.
        idle_seconds: After which records that nobody waits for are written too.
    """

    def __init__(self, catalog: Catalog, stores: Stores, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._catalog = catalog
        self._stores = stores
        self._idle = idle_seconds
        self._waiting: list[asyncio.Future[None]] = []
        self._asked = asyncio.Event()
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._compacting: asyncio.Task[None] | None = None
        self.objects = 0
        """Written so far."""
        self.error = ""
        """Why records wait; empty if they don't."""

    async def start(self) -> None:
        """Begins to write in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="journal")
            self._compacting = asyncio.create_task(self._compact(), name="journal snapshots")

    async def stop(self) -> None:
        """Ends, after a last try to write what waits; twice is fine."""
        tasks, self._task, self._compacting = (self._task, self._compacting), None, None
        if tasks[0] is None:
            return
        for task in tasks:
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        waiting, self._waiting = self._waiting, []
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self.flush()
        except (CloudmeshError, TimeoutError) as error:
            _tell(waiting, Transient(f"the journal ended: {error}"))
        else:
            _tell(waiting, None)

    async def sync(self) -> None:
        """Returns when every record that was committed before the call is in a store.

        Raises:
            Transient: No store takes it now. The records are written when one does.
        """
        if self._task is None or self._task.done():
            raise Transient("the journal isn't being written")
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._asked.set()
        await future

    async def flush(self) -> int:
        """Writes what isn't in a store yet; gives the number of records.

        Raises:
            Transient: No store takes it.
        """
        async with self._flushing:
            return await self._flush()

    async def _flush(self) -> int:
        count = 0
        while batch := await self._catalog.unwritten(limit=BATCH):
            await self._write(batch)
            await self._catalog.written(batch[-1].seq)
            count += len(batch)
            if len(batch) < BATCH:
                break
        return count

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle):
                    await self._asked.wait()
            self._asked.clear()
            if self._waiting:
                await asyncio.sleep(WINDOW_SECONDS)
            waiting, self._waiting = self._waiting, []
            try:
                await self.flush()
            except asyncio.CancelledError:
                self._waiting[:0] = waiting
                raise
            except Exception as error:  # noqa: BLE001 - told to whoever waits; the records are tried again
                if not self.error:
                    log.warning("the journal can't be written: %s", error)
                self.error = str(error)
                _tell(waiting, error if isinstance(error, CloudmeshError) else Transient(str(error)))
            else:
                self.error = ""
                _tell(waiting, None)

    def _candidates(self) -> list[Member]:
        members = list(self._stores.members.values())
        found = strongest(members)
        if found or any(member.store.info.strong for member in members):
            return found
        # a directory of weak stores only: names of journal objects are never used twice, so nothing can be undone
        return [member for member in members if member.up and member.config.access == "ReadWrite"]

    async def _write(self, batch: Sequence[Record]) -> None:
        content = encode(batch)
        failures = []
        for member in self._candidates():
            key = member.key(f"{JOURNAL}{batch[0].seq:020d}-{secrets.token_hex(4)}.jsonl")
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await member.store.write(
                        key, _one(content), size=len(content), if_absent=member.store.info.conditional != "None"
                    )
            except TimeoutError:
                slow = Transient(f"it took no record within {WRITE_SECONDS:g} s")
                member.doubt(slow)
                failures.append(f"{member.name}: {slow}")
            except CloudmeshError as error:
                member.doubt(error)
                failures.append(f"{member.name}: {error.reason}: {error}")
            else:
                self.objects += 1
                return
        raise Transient("no store takes the journal now: " + ("; ".join(failures) or "none is up"))

    # -- snapshots

    async def _compact(self) -> None:
        while True:
            await asyncio.sleep(COMPACT_SECONDS)
            try:
                if await self._long():
                    await self.snapshot()
            except CloudmeshError as error:
                log.warning("the journal can't be made short now: %s", error)
            except Exception:
                log.exception("the journal can't be made short")

    async def _long(self) -> bool:
        for member in self._candidates():
            objects = [seen async for seen in self._objects(member)]
            last = max((seen.size for seen in objects if SNAPSHOT in seen.key), default=0)
            journal = [seen.size for seen in objects if SNAPSHOT not in seen.key]
            if len(journal) >= COMPACT_OBJECTS and sum(journal) >= last:
                return True
        return False

    @staticmethod
    async def _objects(member: Member) -> AsyncIterator[Object]:
        after = ""
        while True:
            page = await member.store.list(member.key(JOURNAL), after=after)
            for seen in page.objects:
                yield seen
            after = page.after
            if not after:
                return

    async def snapshot(self) -> int:
        """Writes the whole catalogue down, then removes what is older from the stores that answer; gives the number
        of the last record before it.

        Raises:
            Transient: No store takes it.
        """
        await self.flush()
        # what is flushed has numbers up to this one; whatever comes from now on has later ones
        seq = await self._catalog.seq()
        if await self._catalog.unwritten(limit=1):
            seq = (await self._catalog.unwritten(limit=1))[0].seq - 1
        members = self._candidates()
        if not members:
            raise Transient("no store takes a snapshot now: none is up")
        held = 0
        failures = []
        name = f"{JOURNAL}{seq:020d}{SNAPSHOT}{secrets.token_hex(4)}.jsonl"
        for member in members:
            try:
                await member.store.write(
                    member.key(name), self._lines(seq), if_absent=member.store.info.conditional != "None"
                )
            except CloudmeshError as error:
                member.doubt(error)
                failures.append(f"{member.name}: {error.reason}: {error}")
                continue
            held += 1
            if held == HOLDERS:
                break
        if not held:
            raise Transient("no store takes a snapshot now: " + "; ".join(failures))
        for member in members:
            with contextlib.suppress(CloudmeshError):
                for seen in [seen async for seen in self._objects(member)]:
                    if number(seen.key) <= seq and not seen.key.endswith(name):
                        await member.store.delete(seen.key, if_tag=seen.tag)
        log.info("the catalogue is written down up to record %d", seq)
        return seq

    async def _lines(self, seq: int) -> AsyncIterator[bytes]:
        yield encode([Record(seq, 0, {"op": "snapshot"})])
        count, after = 0, ""
        while rows := await self._catalog.rows(after=after):
            told = []
            for row in rows:
                whole = [copy for copy in row.copies if copy.state == "Whole"]
                if row.entry.kind == "File":
                    told.append(records.put(row.entry, row.path, whole))
                    # of older contents too, so that they aren't taken for somebody else's files
                    told += [records.copied(copy) for copy in row.copies if copy.version != row.entry.version]
                else:
                    told.append(records.mkdir(row.entry, row.path))
                    if row.entry.tags:
                        told.append(records.tagged(row.entry, row.path))
            count += len(told)
            yield encode(Record(seq, 0, body) for body in told)
            after = rows[-1].entry.id
        after = ""
        while trash := await self._catalog.trash(after=after):
            count += len(trash)
            yield encode(Record(seq, thing.at, records.deleted(thing.entry, thing.path)) for thing in trash)
            after = trash[-1].entry.id
        yield encode([Record(seq, 0, {"op": "end", "lines": count})])


def number(key: str) -> int:
    """Of the first record of a journal object, or the last before a snapshot; -1 for something else."""
    digits = key.rpartition("/")[2][:20]
    return int(digits) if len(digits) == 20 and digits.isdigit() else -1


async def _one(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _tell(waiting: Sequence[asyncio.Future[None]], error: Exception | None) -> None:
    for future in waiting:
        if future.done():
            continue
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)
