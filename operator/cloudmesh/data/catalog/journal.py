"""Writes the catalogue's journal records into a store, so that losing the catalogue loses nothing.

Records that wait at the same moment become one object of JSON lines below `.cloudmesh/journal/`, named by the number of
its first record. A record may come twice (an answer was lost, a process ended): its `seq` and `at` tell.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

from cloudmesh.data.catalog.ports import Catalog, Record
from cloudmesh.data.catalog.records import encode
from cloudmesh.data.mesh import HIDDEN, Member, strongest
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
        self._task: asyncio.Task[None] | None = None
        self.objects = 0
        """Written so far."""
        self.error = ""
        """Why records wait; empty if they don't."""

    async def start(self) -> None:
        """Begins to write in the background."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="journal")

    async def stop(self) -> None:
        """Ends, after a last try to write what waits; twice is fine."""
        task, self._task = self._task, None
        if task is None:
            return
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
        count = 0
        while records := await self._catalog.unwritten(limit=BATCH):
            await self._write(records)
            await self._catalog.written(records[-1].seq)
            count += len(records)
            if len(records) < BATCH:
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

    async def _write(self, records: Sequence[Record]) -> None:
        content = encode(records)
        failures = []
        for member in self._candidates():
            key = member.key(f"{JOURNAL}{records[0].seq:020d}-{secrets.token_hex(4)}.jsonl")
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
