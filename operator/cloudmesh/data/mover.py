"""Keeps each file where policy wants it: places, repairs, verifies, drains, empties the trash.

Level-based like the operator: a file that is due is looked at, the plan says what to do now and when to look again. A
copy is removed only after fresh proof of enough others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace

from cloudmesh.data.affording import Affording
from cloudmesh.data.balance import fill, uneven
from cloudmesh.data.copying import Copying
from cloudmesh.data.hands import Hands
from cloudmesh.data.leisure import Leisure
from cloudmesh.data.links import follow
from cloudmesh.data.model import MICROS, OVER, Work
from cloudmesh.data.placement import Chosen, choose
from cloudmesh.data.plan import (
    Action,
    Check,
    Drop,
    Follow,
    Forget,
    Plan,
    Purge,
    Scrub,
    Write,
    as_it_lies,
    ends_at,
    is_kept_well,
    plan,
    readable,
    rules_of_trash,
)
from cloudmesh.data.removing import Removing
from cloudmesh.data.settling import Settling, is_cheap
from cloudmesh.data.tree import Tree, facts_of
from cloudmesh.data.verifying import Verifying
from cloudmesh.data.writer import own_key
from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Files that are worked on side by side."""
FAILED_AGAIN = 30 * MICROS
LOOK_SECONDS = 30.0
EVEN_SECONDS = 3600.0
"""Between looks at how full stores are, beside each other."""


class Mover:
    """The mover of one directory.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._catalog = tree.catalog
        self._mesh = tree.mesh
        self._hands = Hands(tree)
        self._copying = Copying(self._hands)
        self._removing = Removing(self._hands)
        self._verifying = Verifying(self._hands)
        self._settling = Settling(self._hands)
        self._stirred = asyncio.Event()
        self.affording = Affording(tree.mesh, tree.writer.allowance)
        self.leisure = Leisure(self._settle_or_shift)
        self.done = self._hands.done

    def stir(self) -> None:
        """There is something to do."""
        self._stirred.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        beside = [
            asyncio.create_task(self.leisure.run(), name="mover at leisure"),
            asyncio.create_task(self._even_stores(), name="mover, even stores"),
        ]
        try:
            await self._work()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _work(self) -> None:
        while True:
            self._stirred.clear()
            try:
                busy = await self.round()
            except CloudmeshError as error:
                log.warning("the mover can't work: %s", error)
                busy = False
            if busy:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(await self._seconds_until_due()):
                    await self._stirred.wait()

    async def _seconds_until_due(self) -> float:
        try:
            due = await self._catalog.next_due()
        except CloudmeshError:
            return LOOK_SECONDS
        return LOOK_SECONDS if not due else min(LOOK_SECONDS, max(0.05, (due - self._tree.now()) / MICROS))

    async def round(self) -> bool:
        """Looks at the files that are due; says whether there were any."""
        batch = await self._catalog.work(self._tree.now(), limit=AT_ONCE * 8)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(work: Work) -> None:
            async with places:
                await self._look_carefully(work)

        await asyncio.gather(*(one(work) for work in batch))
        return bool(batch)

    async def _look_carefully(self, work: Work) -> None:
        try:
            await self.look(work)
        except CloudmeshError as error:
            log.warning("moving %s failed: %s", work.where, error)
        except Exception:
            log.exception("moving %s failed unexpectedly", work.where)
        else:
            return
        self.done.failed += 1
        with contextlib.suppress(CloudmeshError):
            due = self._tree.now() + FAILED_AGAIN
            await self._catalog.looked(work.entry.id, work.entry.version, due, pending=True, stamp=work.stamp)

    async def look(self, work: Work) -> None:
        """Brings one file nearer to where it belongs."""
        now = self._tree.now()
        if work.path and work.entry.kind == "Directory":
            # it was looked at in the trash, and again since: there is nothing to do for one of the tree
            await self._catalog.looked(work.entry.id, work.entry.version, 0, stamp=work.stamp)
            return
        # by a clock that the stores' don't bear out nothing is old enough to be removed
        aged = self._mesh.bounded(now) if work.trashed else now
        if work.of:
            work = await self._counted(work)
        if self._is_kept(work, aged) and not is_kept_well(work, self._mesh.views()):
            work = replace(work, was=await self._hands.was(work))
        todo, chosen = self._planned(work, aged)
        self._mesh.missed(work.entry.id)
        again, failures = False, []
        async with self.affording.paid(work, todo, chosen, now) as todo:
            for action in todo.actions:
                try:
                    again |= await self._act(work, action)
                except CloudmeshError as error:
                    failures.append(error)
                    self._mesh.missed(work.entry.id)
                    log.warning("%s of %s failed: %s", action, work.where, error)
        self.done.failed += len(failures)
        self._mesh.missed(work.entry.id)
        due = now + FAILED_AGAIN if failures else now if again else todo.due
        if (todo.settles or todo.shift) and due != now:
            later = self.leisure.offer(work.entry.id, now)
            due = min(due, later) if due else later
        if aged < now:
            due = max(due, now + FAILED_AGAIN)
        # a change since the work was read makes it due at once, whatever is said here
        await self._catalog.looked(
            work.entry.id, work.entry.version, due, pending=todo.pending or bool(failures), stamp=work.stamp
        )

    def _is_kept(self, work: Work, now: int) -> bool:
        """Whether it is a file in the trash that can still be restored."""
        return bool(work.trashed) and work.entry.kind == "File" and now < ends_at(work, self._mesh.config)

    def _planned(self, work: Work, now: int) -> tuple[Plan, Chosen]:
        config, views = self._mesh.config, self._mesh.views()
        holding = frozenset(c.store for c in work.copies if c.state == "Whole" and c.version == work.entry.version)
        own: dict[str, str] = {}
        if config.settle_names and work.path:
            for member in (self._mesh.members.get(name) for name in holding):
                if member is not None and is_cheap(member, work.entry.size) and (key := own_key(member, work.path)):
                    own[member.name] = key
        chosen = self._chosen(work, holding, now)
        return plan(work, chosen, views, config, now, own), chosen

    def _chosen(self, work: Work, holding: frozenset[str], now: int) -> Chosen:
        """Where a file belongs: one of the tree where its rule says, one in the trash where it lies, as long as it is
        well there, and only for another reason where that rule says."""
        rules, views = self._mesh.config.rules, self._mesh.views()
        if not work.trashed:
            return choose(facts_of(work.path, work.entry), rules, views, now, holding=holding)
        if is_kept_well(work, views):
            return as_it_lies(work, rules)
        facts = facts_of(work.was, work.entry)
        return choose(facts, rules_of_trash(work, rules), views, now, holding=holding, stays=True)

    async def _counted(self, work: Work) -> Work:
        """An older content of a file: over if nobody can read it any more."""
        kept = [thing.entry.id for thing in await self._tree.kept(work.of)]
        return work if work.entry.id in kept else replace(work, trashed=OVER)

    # -- at leisure

    async def _settle_or_shift(self, entry_id: str) -> None:
        located = await self._catalog.by_id(entry_id)
        if located is None or not located.path:
            return
        work, now = Work(located.entry, located.path, located.copies, 0, 0), self._tree.now()
        self._mesh.count((await self._catalog.totals()).stores)
        todo, _ = self._planned(work, now)
        if todo.actions:
            return
        for store, key in todo.settles:
            if await self._settling.settle(work, self._hands.member(store), key):
                self.done.settled += 1
        if todo.shift is not None:
            sources = readable(work, {view.config.name: view for view in self._mesh.views()})
            async with self.affording.moved(work, todo.shift.source, todo.shift.target) as may:
                if not may:
                    return
                await self._copying.write(work, Write(todo.shift.target, tuple(copy.store for copy in sources)))
            await self._catalog.looked(entry_id, work.entry.version, now)
            self.stir()
            self.done.shifted += 1
        elif todo.pending:
            await self._catalog.looked(entry_id, work.entry.version, now)

    async def _even_stores(self) -> None:
        """Files of the fullest store are looked at again where stores of a rule that balances differ too much."""
        while True:
            await asyncio.sleep(EVEN_SECONDS)
            views = [view for view in self._mesh.views() if view.up]
            if len(views) < 2 or not any(rule.prefer == "Balanced" for rule in self._mesh.config.rules):
                continue
            fullest = max(views, key=fill)
            if any(uneven(fullest, view, 0) for view in views):
                with contextlib.suppress(CloudmeshError):
                    await self._catalog.wake(store=fullest.config.name, due=self._tree.now())
                    self.stir()

    async def _act(self, work: Work, action: Action) -> bool:
        """Does one thing; says whether the file has to be looked at again after it."""
        match action:
            case Write():
                await self._copying.write(work, action)
                return True
            case Drop():
                await self._removing.drop(work, action)
                return True
            case Scrub():
                return not await self._verifying.scrub(work, action.store)
            case Check():
                return await self._verifying.check(work, action.store)
            case Purge():
                await self._catalog.purge(work.entry.id)
                return False
            case Follow():
                await follow(self._tree, self._hands.member(action.store), work)
                return False
            case Forget():
                await self._removing.drop(work, Drop(action.store, 0))
                log.warning("the link '%s' is forgotten: store %s is to leave", work.where, action.store)
                return False
