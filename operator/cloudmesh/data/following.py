"""Compares each store's listing with the record, when it comes up and every hour: what others do there is followed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from cloudmesh.data.borders import Borders
from cloudmesh.data.errors import Missing
from cloudmesh.data.mesh import Member
from cloudmesh.data.scan import Lacking, Scan, Scanned
from cloudmesh.data.stores.ports import Sweeper
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError, Conflict

log = logging.getLogger(__name__)

EVERY_SECONDS: Final = 3600.0
DOUBTED_SECONDS: Final = 600.0
"""Between looks at a listing that isn't believed."""
AGAIN_SECONDS: Final = (30.0, 3600.0)
"""After a failure; twice as long after each one that follows, up to the second."""
TURN_SECONDS: Final = 1.0
SWEEP_SECONDS: Final = 86400


class Following:
    """Looks at all stores of a directory, each by itself: one that fails keeps no other waiting.

    Args:
        tree: The directory.
        stir: Called when there is something for the mover.
        clock: Seconds, monotonic.
    """

    def __init__(self, tree: Tree, *, stir: Callable[[], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree
        self._stir = stir
        self._clock = clock
        self._due: dict[str, float] = {}
        self._failed: dict[str, int] = {}
        self._seen: dict[str, Lacking] = {}
        """By store, what its listing lacked when that was told to people."""
        self._believed: dict[str, Lacking] = {}
        self._known: set[str] = set()
        self.troubles: dict[str, str] = {}
        """By store, what went wrong with its last listing; without keys, which rules by path may hide from whoever sees
        the status."""

    async def run(self) -> None:
        """Looks for ever."""
        running: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                running = {name: task for name, task in running.items() if not task.done()}
                for member in self._tree.mesh.up():
                    if member.name not in running and self._clock() >= self._due.get(member.name, 0.0):
                        running[member.name] = asyncio.create_task(self._look(member), name=f"listing {member.name}")
                await asyncio.sleep(TURN_SECONDS)
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.gather(*running.values(), return_exceptions=True)

    def soon(self, name: str) -> None:
        """A store came or went: it is looked at when it is up."""
        self._due.pop(name, None)

    def believe(self, name: str, word: str) -> None:
        """A person says that what they saw a store's listing lack is gone: that, and nothing that it lacks since.

        Args:
            name: The store.
            word: What its message says of what is lacking.

        Raises:
            Missing: There is no such store, or its listing isn't doubted.
            Conflict: By now it lacks something else.
        """
        member = self._tree.mesh.members.get(name)
        if member is None or not member.shrunk:
            raise Missing(f"the listing of '{name}' isn't doubted")
        seen = self._seen.get(name)
        if seen is None:
            raise Conflict(f"the listing of '{name}' is being looked at anew: read its message again in a moment")
        if seen.word != word:
            raise Conflict(f"by now it is something else that the listing of '{name}' lacks: {member.shrunk}")
        self._believed[name] = seen
        self.soon(name)

    async def _look(self, member: Member) -> None:
        """Looks at one store, and says when it is due again."""
        name = member.name
        try:
            found = await self.look(member)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # told, and tried again: nothing of one store may end the others
            if isinstance(error, CloudmeshError):
                member.doubt(error)
                log.warning("the listing of %s failed: %s", name, error)
            else:
                log.exception("looking at the listing of %s failed unexpectedly", name)
            told = error.reason if isinstance(error, CloudmeshError) else type(error).__name__
            self.troubles[name] = f"its listing can't be followed: {told} (the gateway's log tells more)"
            number = self._failed[name] = self._failed.get(name, 0) + 1
            first, most = AGAIN_SECONDS
            self._due[name] = self._clock() + min(most, first * 2 ** min(number - 1, 10))
        else:
            self._failed.pop(name, None)
            self._due[name] = self._clock() + (DOUBTED_SECONDS if member.shrunk else EVERY_SECONDS)
            if found.left and found.vanished:
                # a person waits for the rest of what they believe; one that gets no further would go round for ever
                self.soon(name)
        self._stir()

    async def look(self, member: Member) -> Scanned:
        """One comparison, and what follows from it for the store."""
        tree, name = self._tree, member.name
        if name not in self._known:
            member.shrunk = await tree.catalog.get(f"shrunk/{name}")
            self._known.add(name)
        believed = self._believed.get(name)
        found = await Scan(tree, member, adopt=tree.mesh.config.adopt, believe=believed).run()
        if found.complete:
            await self._doubt(member, found)
            if believed is not None and not found.left:
                self._believed.pop(name, None)
        troubles = []
        if found.failed:
            troubles.append(f"{found.failed} objects can't be looked at (the gateway's log names them)")
        for at, whose in list(found.foreign.items())[:5]:
            log.warning("store %s: '%s' is of the directory %s", name, at, whose)
        troubles += [f"a part of it is of the directory {whose}" for whose in sorted(set(found.foreign.values()))[:5]]
        self.troubles.pop(name, None)
        if troubles:
            self.troubles[name] = "; ".join(troubles)
        log.info(
            "store %s: %d objects, %d adopted, %d overwritten, %d gone", name, found.objects, found.adopted,
            found.changed, found.vanished,
        )  # fmt: skip
        if isinstance(member.store, Sweeper) and member.config.access == "ReadWrite":
            borders = Borders(member.store, member.config.prefix)

            async def ours(key: str) -> bool:
                return not await borders.foreign(key)

            await member.store.sweep(member.config.prefix, SWEEP_SECONDS, ours=ours)
        return found

    async def _doubt(self, member: Member, found: Scanned) -> None:
        """Keeps why a listing isn't believed; what people were told stands while nothing more is lacking than that."""
        seen = self._seen.get(member.name)
        if found.lacking is not None and seen is not None and found.lacking <= seen and member.shrunk:
            return
        self._seen.pop(member.name, None)
        if found.lacking is not None:
            self._seen[member.name] = found.lacking
        if found.shrunk != member.shrunk:
            await self._tree.catalog.set(f"shrunk/{member.name}", found.shrunk)
            log.warning("store %s: %s", member.name, found.shrunk or "its listing is believed again")
            member.shrunk = found.shrunk
