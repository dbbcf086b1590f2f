"""What the mover may spend: copies that take a directory over its `maxMonthlyCost` wait, but those that repair don't.

A file is repaired to so many copies as it had, and to as many as its rule needs at least, whatever that costs: it was
granted, or is needed. All else that would cost more by the month waits until there is money.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from cloudmesh.data.allowance import Allowance
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.errors import OverBudget
from cloudmesh.data.mesh import Mesh
from cloudmesh.data.model import MICROS, Work
from cloudmesh.data.money import monthly_nanos
from cloudmesh.data.placement import Chosen, StoreView, counts
from cloudmesh.data.plan import Plan, Write, readable

log = logging.getLogger(__name__)

WAIT = 3600 * MICROS
"""A file whose copies wait for money is looked at again so much later, if nothing changes."""
MOST = 100_000
"""Files that are known to wait."""


class Affording:
    """Holds back what a directory can't pay for.

    Args:
        mesh: Its stores, and what it may cost.
        allowance: Shares its money out.
    """

    def __init__(self, mesh: Mesh, allowance: Allowance) -> None:
        self._mesh = mesh
        self._allowance = allowance
        self._waiting: set[str] = set()

    @property
    def waiting(self) -> int:
        """Files some of whose copies wait for money."""
        return len(self._waiting)

    @asynccontextmanager
    async def paid(self, work: Work, todo: Plan, chosen: Chosen, now: int) -> AsyncGenerator[Plan, None]:
        """What of a plan may be done; its money is held meanwhile."""
        writes = [action for action in todo.actions if isinstance(action, Write)]
        before = (c.store for c in work.copies if c.state == "Whole" and c.version == work.entry.version)
        more = 0 if work.trashed or not writes else self._more(work.entry.size, before, chosen.stores)
        try:
            grant = await self._allowance.spend(more)
        except OverBudget as error:
            if len(self._waiting) < MOST:
                self._waiting.add(work.entry.id)
            log.info("copies of %s wait: %s", work.where, error)
            views = {view.config.name: view for view in self._mesh.views()}
            held_back = set(writes) - set(repairing(work, writes, chosen, views))
            actions = tuple(action for action in todo.actions if action not in held_back)
            due = min(todo.due, now + WAIT) if todo.due else now + WAIT
            yield replace(todo, actions=actions, due=due, pending=True)
            return
        self._waiting.discard(work.entry.id)
        try:
            yield todo
        finally:
            grant.release(kept=True)

    @asynccontextmanager
    async def moved(self, work: Work, source: str, target: str) -> AsyncGenerator[bool, None]:
        """Whether a copy may go from one store to another; its money is held meanwhile."""
        try:
            grant = await self._allowance.spend(self._more(work.entry.size, [source], [target]))
        except OverBudget:
            yield False
            return
        try:
            yield True
        finally:
            grant.release(kept=True)

    def _more(self, size: int, before: Iterable[str], after: Iterable[str]) -> int:
        """What it costs more by the month to keep so many bytes in other stores."""
        prices = _prices(self._mesh.config, size)
        return sum(prices.get(store, 0) for store in after) - sum(prices.get(store, 0) for store in before)


def _prices(config: DirectoryConfig, size: int) -> dict[str, int]:
    return {store.name: monthly_nanos(store.prices, size) or 0 for store in config.stores}


def repairing(work: Work, writes: Iterable[Write], chosen: Chosen, views: Mapping[str, StoreView]) -> list[Write]:
    """Those of the copies to be made that the file had, or needs at least."""
    rule, whole = chosen.rule, [copy.store for copy in readable(work, views)]
    had = min(rule.copies, sum(1 for copy in work.copies if copy.state not in ("Deleting", "Linked")))
    needed = rule.min_copies - sum(1 for store in whole if counts(rule, views[store].info))
    first = sorted(writes, key=lambda write: not counts(rule, views[write.store].info))
    return first[: max(0, needed, had - len(whole))]
