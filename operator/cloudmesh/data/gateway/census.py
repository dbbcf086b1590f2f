"""How many files lack copies, and how many can't be read: counted in the background, a page at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cloudmesh.data.catalog.ports import Located
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import link_of
from cloudmesh.data.placement import rule_of
from cloudmesh.data.tree import Tree, facts_of

PAGE: Final = 200
SHARE: Final = 0.1
"""Of the time is spent on counting at most."""
SOONEST: Final = 2.0
LATEST: Final = 300.0
"""Between counts: the first when something has changed, the second if nothing seems to have."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted.

    Args:
        under_replicated: Files with fewer whole copies than their rule wants.
        unreachable: Files without a whole copy in a store that answers.
        beyond_repair: Files without any whole copy, of which a damaged one is left.
    """

    under_replicated: int = 0
    unreachable: int = 0
    beyond_repair: int = 0


class Census:
    """Counts the files of one directory.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self.counted = Counted()

    async def run(self) -> None:
        """Counts until it is cancelled: when something changed, and every few minutes."""
        seen: object = None
        while True:
            signs = await self._signs()
            if signs != seen:
                seen = signs
                self.counted = await self.count()
            for _ in range(int(LATEST / SOONEST)):
                await asyncio.sleep(SOONEST)
                if await self._signs() != seen:
                    break
            else:
                seen = None

    async def _signs(self) -> object:
        """What differs when the count may."""
        mesh = self._tree.mesh
        states = tuple((name, member.state) for name, member in mesh.members.items())
        return await self._tree.totals(), states, mesh.config.rules

    async def count(self) -> Counted:
        """Counts all files once."""
        lacking = away = damaged = 0
        after = ""
        while True:
            page = await self._tree.catalog.rows(after=after, limit=PAGE)
            begun = time.monotonic()
            for located in page:
                # a link is where somebody else keeps it
                if located.path and located.entry.kind == "File" and link_of(located.copies) is None:
                    few, none = self._of(located, self._tree.mesh.members)
                    lacking, away = lacking + few, away + none
                    states = {copy.state for copy in located.copies}
                    damaged += "Corrupt" in states and "Whole" not in states
            if len(page) < PAGE:
                return Counted(lacking, away, damaged)
            after = page[-1].entry.id
            # the doors come first
            await asyncio.sleep((time.monotonic() - begun) / SHARE)

    def _of(self, located: Located, members: Mapping[str, Member]) -> tuple[bool, bool]:
        whole = [
            members[copy.store].state
            for copy in located.copies
            if copy.state == "Whole" and copy.version == located.entry.version and copy.store in members
        ]
        # a moment of silence takes nothing away
        lasting = sum(state in ("Up", "Unknown") for state in whole)
        facts = facts_of(located.path, located.entry)
        rule, _ = rule_of(facts, self._tree.mesh.config.rules, self._tree.now())
        return lasting < rule.copies, "Up" not in whole
