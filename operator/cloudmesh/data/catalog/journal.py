"""Writes the catalogue's journal records into a store, so that losing the catalogue loses nothing.

Records that wait at the same moment become one object of JSON lines below `.cloudmesh/journal/`, named by the number of
its first record. It goes to two stores side by side, where there are two, and who waits is told when one has it; what
the second one didn't take is copied there later, see `keep`. A record may come twice (an answer was lost, a process
ended): its `seq` and `at` tell.

When there are many such objects, the whole catalogue is written down as records, `<number>-snapshot-….jsonl`, all with
the number of the last record before it; then the older objects go. Changes that come while it is written are in it or
not, and in later records in any case: replayed in order, they end in the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, Protocol

from cloudmesh.data.catalog import records
from cloudmesh.data.catalog.ports import Catalog, Record
from cloudmesh.data.catalog.records import encode
from cloudmesh.data.mesh import HIDDEN, Member, strongest
from cloudmesh.data.model import Trashed
from cloudmesh.data.stores.ports import Object
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

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
ALONE_SECONDS: Final = 6 * 3600.0
"""After which a process that writes a snapshot must have ended."""
COMPACT_SECONDS: Final = 3600.0
"""Between looks at how much journal there is."""
COMPACT_OBJECTS: Final = 500
"""Objects from which on the journal is made short, if they have more bytes than the last snapshot."""
HOLDERS: Final = 2
"""Stores that get each object, where there are so many."""
BEHIND: Final = 64
"""Objects that a second store may be behind; what is more is copied there later."""
KEEP_SECONDS: Final = (5.0, 60.0)
"""Between looks at whether all is in as many stores as it can be; after one that failed."""


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
        self._keeping: asyncio.Task[None] | None = None
        self._seconds: set[asyncio.Task[None]] = set()
        """Objects that are in a store, and not in another one yet."""
        self._covered: frozenset[str] = frozenset()
        """Stores that together hold all, each object in as many of them as it can be; empty while nobody knows."""
        self._loose = False
        """Since then an object came into one store alone."""
        self._without: set[str] = set()
        """Stores that are lost and without which all is known, since the catalogue was written down."""
        self.snapshot_at = 0
        """When the last snapshot was written, as far as is known, in microseconds; 0 if none was."""
        self.objects = 0
        """Written so far."""
        self.error = ""
        """Why records wait; empty if they don't."""

    async def start(self) -> None:
        """Begins to write in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="journal")
            self._compacting = asyncio.create_task(self._compact(), name="journal snapshots")
            self._keeping = asyncio.create_task(self._keep(), name="journal copies")

    async def stop(self) -> None:
        """Ends, after a last try to write what waits; twice is fine."""
        tasks = (self._task, self._compacting, self._keeping)
        self._task = self._compacting = self._keeping = None
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
        await self._caught_up(WRITE_SECONDS)

    async def _caught_up(self, seconds: float) -> None:
        """Waits until the second stores have what the first ones have; for so long at most."""
        if self._seconds:
            _, late = await asyncio.wait(set(self._seconds), timeout=seconds)
            for task in late:
                task.cancel()

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
        """Returns when one store has it; another one gets it at the same time.

        Raises:
            Transient: None takes it.
        """
        name = f"{JOURNAL}{batch[0].seq:020d}-{secrets.token_hex(4)}.jsonl"
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._spread(name, encode(batch), first), name="journal object")
        self._seconds.add(task)
        task.add_done_callback(self._seconds.discard)
        try:
            await first
        except asyncio.CancelledError:
            task.cancel()
            raise
        self.objects += 1

    async def _spread(self, name: str, content: bytes, first: asyncio.Future[None]) -> None:
        """Writes an object to as many stores as are to hold it; a store that fails is replaced by the next one."""
        waiting, failures, held = self._candidates(), [], 0
        wanted = HOLDERS if len(self._seconds) <= BEHIND else 1
        going: dict[asyncio.Task[str], Member] = {}
        try:
            while held < wanted:
                while waiting and held + len(going) < wanted:
                    member = waiting.pop(0)
                    going[asyncio.create_task(self._put(member, name, content))] = member
                if not going:
                    break
                done, _ = await asyncio.wait(going, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    member = going.pop(task)
                    if why := task.result():
                        failures.append(f"{member.name}: {why}")
                        continue
                    held += 1
                    if not first.done():
                        first.set_result(None)
        finally:
            for task in going:
                task.cancel()
        if not held:
            told = "; ".join(failures) or "none is up"
            if not first.done():
                first.set_exception(Transient(f"no store takes the journal now: {told}"))
        elif held < HOLDERS:
            self._loose = True

    @staticmethod
    async def _put(member: Member, name: str, content: bytes) -> str:
        """Writes an object to one store; gives why it couldn't be."""
        error: CloudmeshError
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await member.store.write(
                    member.key(name),
                    _one(content),
                    size=len(content),
                    if_absent=member.store.info.conditional != "None",
                )
        except TimeoutError:
            error = Transient(f"it took no record within {WRITE_SECONDS:g} s")
        except CloudmeshError as failed:
            error = failed
        except Exception as failed:
            log.exception("store %s failed unexpectedly", member.name)
            error = Transient(f"{type(failed).__name__}: {failed}")
        else:
            return ""
        # looked at now; what only takes no record may be read all the while
        member.doubted.set()
        return f"{error.reason}: {error}"

    # -- in two stores

    async def _keep(self) -> None:
        while True:
            pause = KEEP_SECONDS[0]
            try:
                await self.keep()
            except CloudmeshError as error:
                pause = KEEP_SECONDS[1]
                log.warning("the journal can't be brought into a second store now: %s", error)
            except Exception:
                pause = KEEP_SECONDS[1]
                log.exception("the journal can't be brought into a second store")
            await asyncio.sleep(pause)

    async def keep(self) -> None:
        """Sees to it that all is in two stores that take it, where there are two, whatever store comes, goes or is to
        leave: objects are copied; where they may lie in a store alone that is lost, the catalogue is written down anew.

        Raises:
            CloudmeshError: A store fails.
        """
        now = frozenset(member.name for member in self._candidates())
        if not now or (now == self._covered and not self._loose):
            return
        members = self._stores.members.values()
        if any(member.state == "Unknown" for member in members):
            # soon it is back, or known to be gone
            return
        missing = self._covered - now
        known = self._covered and not self._loose and len(missing) < min(HOLDERS, len(self._covered))
        lost = {member.name for member in members if not member.up} | (missing - self._stores.members.keys())
        self._without &= lost
        if not known and lost - self._without:
            log.info("the catalogue is written down: parts of the journal may lie in stores that are lost")
            await self.snapshot()
            self._without |= lost
        self._loose = False
        try:
            if await self._mirror():
                self._covered = now
        except BaseException:
            # else nobody would try again
            self._loose = True
            raise

    def spares(self, name: str) -> bool:
        """Whether nothing of the journal lies in a store alone: it may leave."""
        now = frozenset(member.name for member in self._candidates())
        return name not in now and bool(now) and now == self._covered and not self._loose and not self._seconds

    async def _mirror(self) -> bool:
        """Copies what too few stores have; says whether all is well then."""
        async with self._flushing:
            # whoever began to write before the stores were what they are now has ended
            pass
        await self._caught_up(WRITE_SECONDS)
        takers = self._candidates()
        held: dict[str, list[tuple[Member, Object]]] = {}
        for member in self._stores.members.values():
            if member.up:
                async for seen in self._objects(member):
                    held.setdefault(seen.key[len(member.config.prefix) :], []).append((member, seen))
        snapshots = [name for name in held if SNAPSHOT in name]
        newest = max(map(number, snapshots), default=-1)
        for name, holders in sorted(held.items()):
            if number(name) < newest or (number(name) == newest and SNAPSHOT not in name):
                continue
            if SNAPSHOT in name:
                self.snapshot_at = max(self.snapshot_at, *(seen.modified for _, seen in holders))
            have = {member.name for member, _ in holders}
            lacking = min(HOLDERS, len(takers)) - sum(1 for member in takers if member.name in have)
            source, seen = holders[0]
            for member in [m for m in takers if m.name not in have][: max(0, lacking)]:
                await member.store.write(
                    member.key(name), source.read(seen.key, if_tag=seen.tag), size=seen.size,
                    if_absent=member.store.info.conditional != "None",
                )  # fmt: skip
        return frozenset(m.name for m in takers) == frozenset(m.name for m in self._candidates()) and not self._loose

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
        """Writes the whole catalogue down, then removes what is older from the stores that answer, or from the one that
        took it if no second one did; gives the number of the last record before it.

        Raises:
            Conflict: Another process does so.
            Transient: No store takes it.
        """
        # two that each remove what is older than their own would remove both
        if not await self._catalog.alone("snapshot", ALONE_SECONDS):
            raise Conflict("another process writes the catalogue down just now")
        try:
            return await self._snapshot()
        finally:
            with contextlib.suppress(CloudmeshError):
                await self._catalog.alone("snapshot", 0)

    async def _snapshot(self) -> int:
        await self.flush()
        # what is flushed has numbers up to this one; whatever comes from now on has later ones
        seq = await self._catalog.seq()
        if await self._catalog.unwritten(limit=1):
            seq = (await self._catalog.unwritten(limit=1))[0].seq - 1
        members = self._candidates()
        if not members:
            raise Transient("no store takes a snapshot now: none is up")
        holders: list[Member] = []
        failures = []
        name = f"{JOURNAL}{seq:020d}{SNAPSHOT}{secrets.token_hex(4)}.jsonl"
        at = 0
        for member in members:
            try:
                written = await member.store.write(
                    member.key(name), self._lines(seq), if_absent=member.store.info.conditional != "None"
                )
            except CloudmeshError as error:
                member.doubt(error)
                failures.append(f"{member.name}: {error.reason}: {error}")
                continue
            holders.append(member)
            at = written.modified or time.time_ns() // 1000
            if len(holders) == HOLDERS:
                break
        if not holders:
            raise Transient("no store takes a snapshot now: " + "; ".join(failures))
        enough = len(holders) == min(HOLDERS, len(members))
        if not enough:
            self._loose = True
        # a store that refused it keeps what it knows, until it has a copy of it
        for member in members if enough else holders:
            with contextlib.suppress(CloudmeshError):
                for seen in [seen async for seen in self._objects(member)]:
                    if number(seen.key) <= seq and not seen.key.endswith(name):
                        await member.store.delete(seen.key, if_tag=seen.tag)
        self.snapshot_at = max(self.snapshot_at, at)
        log.info("the catalogue is written down up to record %d", seq)
        return seq

    async def _lines(self, seq: int) -> AsyncIterator[bytes]:
        yield encode([Record(seq, 0, {"op": "snapshot"})])
        count, after = 0, ""
        while rows := await self._catalog.rows(after=after):
            told = []
            for row in rows:
                whole = [copy for copy in row.copies if copy.state in ("Whole", "Deleting", "Linked")]
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
        while trash := await self._catalog.trash(after=after, versions=True):
            count += len(trash)
            yield encode(Record(seq, thing.at, _thrown(thing)) for thing in trash)
            after = trash[-1].entry.id
        yield encode([Record(seq, 0, {"op": "end", "lines": count})])


def _thrown(thing: Trashed) -> Mapping[str, Any]:
    # where its copies lie is told before
    return records.kept(thing, ()) if thing.of else records.deleted(thing.entry, thing.path)


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
