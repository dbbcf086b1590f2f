"""The end of a directory whose files go with it: its objects are removed, then its journal, the markers last.

Only what is on record goes, and what carries our attributes where we put it: what others laid beside the files and was
never taken into the tree, or was copied from them, stays and is counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from cloudmesh.data import names
from cloudmesh.data.borders import Borders
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.mesh import HIDDEN, MARKER, Member
from cloudmesh.data.stores.ports import Object, Sweeper
from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

ROUND_SECONDS = 2.0
AT_ONCE = 16
OWN = frozenset({"id", "version", "write"})
"""Attributes of each object that we wrote."""


class Emptying:
    """Empties the stores of a directory; nothing else may write to them meanwhile.

    Args:
        members: Gives its stores.
        catalog: What is on record.
        ready: Fills the catalogue if it is new; gives what it waits for, empty when it is there.
    """

    def __init__(
        self,
        members: Callable[[], Iterable[Member]],
        catalog: Catalog,
        ready: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._members = members
        self._catalog = catalog
        self._ready = ready
        self._left: dict[str, int] = {}
        self.done = False

    @property
    def strangers(self) -> int:
        """Objects of others that stay."""
        return sum(self._left.values())

    async def run(self) -> None:
        """Works until all is gone, and then waits for its end; a store that doesn't answer is waited for."""
        while True:
            try:
                if self._ready is not None and (why := await self._ready()):
                    log.warning("%s", why)
                else:
                    self._ready = None
                    self.done = self.done or await self.round()
            except CloudmeshError as error:
                log.warning("a store can't be emptied now: %s", error)
            except Exception:
                log.exception("a store can't be emptied now")
            await asyncio.sleep(ROUND_SECONDS)

    async def round(self) -> bool:
        """Removes what can be removed now; says whether nothing is left.

        Raises:
            CloudmeshError: A store fails.
        """
        clear, empty = [], True
        for member in list(self._members()):
            # another directory's prefix, and a store in which nothing may be deleted, stay as they are
            if member.state == "Claimed" or member.config.access == "ReadOnly":
                continue
            # without its marker a store is believed only in that nothing is left: the marker goes last
            if member.up:
                if await self._empty(member):
                    clear.append(member)
                    continue
            elif member.state == "Suspicious" and not (await member.store.list(member.config.prefix, limit=1)).objects:
                continue
            empty = False
        if empty:
            # until here the journal tells a process with a new catalogue what was ours
            for member in clear:
                while not await self._clear(member):
                    pass
            for member in clear:
                await member.store.delete(member.key(MARKER))
        return empty

    async def _empty(self, member: Member) -> bool:
        """Removes a store's files; says whether a listing then shows none of ours."""
        borders = Borders(member.store, member.config.prefix)

        async def begun(key: str) -> bool:
            if key.startswith(member.key(HIDDEN)):
                return True
            # others may just be writing beside our files
            copy = await self._catalog.at_key(member.name, key)
            return copy is not None and copy.state != "Linked" and not await borders.foreign(key)

        if isinstance(member.store, Sweeper):
            await member.store.sweep(member.config.prefix, 0, ours=begun)
        after, found, left = "", False, 0
        while True:
            page = await member.store.list(member.config.prefix, after=after)
            files = [one for one in page.objects if not one.key.startswith(member.key(HIDDEN))]
            for start in range(0, len(files), AT_ONCE):
                some = files[start : start + AT_ONCE]
                gone = await asyncio.gather(*(self._remove(member, borders, one) for one in some))
                found = found or any(gone)
                left += sum(1 for one in gone if one is False)
            if not page.complete:
                found = True
            if not page.after:
                self._left[member.name] = left
                return not found
            after = page.after

    async def _remove(self, member: Member, borders: Borders, one: Object) -> bool | None:
        """Removes an object if it is ours; says whether it was, None for one of another directory."""
        copy = await self._catalog.at_key(member.name, one.key)
        if copy is not None and copy.state == "Linked":
            return False
        if copy is not None and copy.tag and one.tag == copy.tag:
            await member.store.delete(one.key, if_tag=one.tag)
            return True
        if await borders.foreign(one.key):
            return None
        seen = await member.store.stat(one.key)
        if seen is None:
            return None
        recorded = copy is not None and copy.tag and seen.tag == copy.tag
        if not recorded and not await self._written(member, seen):
            return False
        await member.store.delete(one.key, if_tag=seen.tag)
        return True

    async def _written(self, member: Member, seen: Object) -> bool:
        """Whether an object carries all that we keep with each, and lies where we put it."""
        told = seen.attributes
        if not told.keys() >= OWN:
            return False
        if "at" in told:
            return told["at"] == names.mark_of(member.config.prefix, seen.key)
        # written by a gateway that didn't keep where
        located = await self._catalog.by_id(told["id"])
        return located is not None and located.entry.kind == "File"

    @staticmethod
    async def _clear(member: Member) -> bool:
        """Removes what is below our own folder but the marker; says whether nothing of it was left."""
        found, after = False, ""
        while True:
            page = await member.store.list(member.key(HIDDEN), after=after)
            for one in page.objects:
                if one.key != member.key(MARKER):
                    found = True
                    await member.store.delete(one.key)
            after = page.after
            if not after:
                return not found
