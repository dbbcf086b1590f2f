"""The end of a directory whose files go with it: all its objects are removed, the markers last."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from cloudmesh.data.mesh import HIDDEN, MARKER, Member
from cloudmesh.data.stores.ports import Object, Sweeper
from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

ROUND_SECONDS = 2.0
AT_ONCE = 16
OURS = "id"
"""Attribute of each object that a directory wrote."""


class Emptying:
    """Empties the stores of a directory; nothing else may write to them meanwhile.

    Args:
        members: Gives its stores.
        adopted: Objects that others wrote below its prefixes are its files too.
    """

    def __init__(self, members: Callable[[], Iterable[Member]], *, adopted: bool) -> None:
        self._members = members
        self._adopted = adopted
        self.done = False

    async def run(self) -> None:
        """Works until all is gone, and then waits for its end; a store that doesn't answer is waited for."""
        while True:
            try:
                self.done = self.done or await self.round()
            except CloudmeshError as error:
                log.warning("a store can't be emptied now: %s", error)
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
            for member in clear:
                await member.store.delete(member.key(MARKER))
        return empty

    async def _empty(self, member: Member) -> bool:
        """Removes a store's objects but the marker; says whether a listing then shows none of ours."""
        if isinstance(member.store, Sweeper):
            await member.store.sweep(member.config.prefix, 0)
        after, found = "", False
        while True:
            page = await member.store.list(member.config.prefix, after=after)
            for start in range(0, len(page.objects), AT_ONCE):
                some = page.objects[start : start + AT_ONCE]
                gone = await asyncio.gather(*(self._remove(member, one) for one in some))
                found = found or any(gone)
            if not page.complete:
                found = True
            if not page.after:
                return not found
            after = page.after

    async def _remove(self, member: Member, one: Object) -> bool:
        """Removes an object if it is ours; says whether it was."""
        if one.key == member.key(MARKER):
            return False
        if not self._adopted and not one.key.startswith(member.key(HIDDEN)):
            seen = await member.store.stat(one.key)
            if seen is None or OURS not in seen.attributes:
                return False
        await member.store.delete(one.key)
        return True
