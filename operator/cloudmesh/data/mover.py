"""Keeps each file where policy wants it: places, repairs, verifies, drains, empties the trash.

Level-based like the operator: a file that is due is looked at, the plan says what to do now and when to look again. A
copy is removed only after fresh proof of enough others.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace

from cloudmesh.data import names
from cloudmesh.data.balance import fill, uneven
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.errors import Changed, Missing, Suspicious
from cloudmesh.data.leisure import Leisure
from cloudmesh.data.links import follow
from cloudmesh.data.memory import of_read, of_write
from cloudmesh.data.mesh import Member, Mesh
from cloudmesh.data.model import MICROS, OVER, Copy, Entry, Intent, Target, Work, link_of
from cloudmesh.data.ours import is_ours
from cloudmesh.data.placement import choose
from cloudmesh.data.plan import Action, Check, Drop, Follow, Forget, Plan, Purge, Scrub, Write, plan, readable
from cloudmesh.data.settling import Settling, is_cheap
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.strangers import take_in
from cloudmesh.data.tree import Tree, facts_of
from cloudmesh.data.upload import attributes_of, is_of, written
from cloudmesh.data.writer import LEASE, STAT_SECONDS, own_key
from cloudmesh.engine.errors import CloudmeshError, Conflict, NotFound, Transient

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Files that are worked on side by side."""
FAILED_AGAIN = 30 * MICROS
LOOK_SECONDS = 30.0
EVEN_SECONDS = 3600.0
"""Between looks at how full stores are, beside each other."""


@dataclass(slots=True)
class Done:
    """What the mover did since it began, for metrics."""

    written: int = 0
    written_bytes: int = 0
    dropped: int = 0
    scrubbed: int = 0
    corrupt: int = 0
    failed: int = 0
    settled: int = 0
    shifted: int = 0
    conflicts: int = 0


class Mover:
    """The mover of one directory.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._catalog: Catalog = tree.catalog
        self._mesh: Mesh = tree.mesh
        self._stirred = asyncio.Event()
        self._settling = Settling(tree)
        self.leisure = Leisure(self._at_leisure)
        self.done = Done()

    def stir(self) -> None:
        """There is something to do."""
        self._stirred.set()

    async def run(self) -> None:
        """Works until it is cancelled."""
        beside = [
            asyncio.create_task(self.leisure.run(), name="mover at leisure"),
            asyncio.create_task(self._even_out(), name="mover, even stores"),
        ]
        try:
            await self._run()
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    async def _run(self) -> None:
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
                async with asyncio.timeout(await self._pause()):
                    await self._stirred.wait()

    async def _pause(self) -> float:
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
                await self._one(work)

        await asyncio.gather(*(one(work) for work in batch))
        return bool(batch)

    async def _one(self, work: Work) -> None:
        try:
            await self.look(work)
        except CloudmeshError as error:
            log.warning("moving %s failed: %s", work.path or work.entry.id, error)
        except Exception:
            log.exception("moving %s failed unexpectedly", work.path or work.entry.id)
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
        todo = self._planned(work, aged)
        self._mesh.missed(work.entry.id)
        again, failures = False, []
        for action in todo.actions:
            try:
                again |= await self._act(work, action)
            except CloudmeshError as error:
                failures.append(error)
                self._mesh.missed(work.entry.id)
                log.warning("%s of %s failed: %s", action, work.path or work.entry.id, error)
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

    def _planned(self, work: Work, now: int) -> Plan:
        config, views = self._mesh.config, self._mesh.views()
        holding = frozenset(c.store for c in work.copies if c.state == "Whole" and c.version == work.entry.version)
        chosen = choose(facts_of(work.path, work.entry), config.rules, views, now, holding=holding)
        own: dict[str, str] = {}
        if config.settle_names and work.path:
            for member in (self._mesh.members.get(name) for name in holding):
                if member is not None and is_cheap(member, work.entry.size) and (key := own_key(member, work.path)):
                    own[member.name] = key
        return plan(work, chosen, views, config, now, own)

    async def _counted(self, work: Work) -> Work:
        """An older content of a file: over if nobody can read it any more."""
        kept = [thing.entry.id for thing in await self._tree.kept(work.of)]
        return work if work.entry.id in kept else replace(work, trashed=OVER)

    # -- at leisure

    async def _at_leisure(self, entry_id: str) -> None:
        located = await self._catalog.by_id(entry_id)
        if located is None or not located.path:
            return
        work, now = Work(located.entry, located.path, located.copies, 0, 0), self._tree.now()
        self._mesh.count((await self._catalog.totals()).stores)
        todo = self._planned(work, now)
        if todo.actions:
            return
        for store, key in todo.settles:
            if await self._settling.settle(work, self._member(store), key):
                self.done.settled += 1
        if todo.shift is not None:
            sources = readable(work, {view.config.name: view for view in self._mesh.views()})
            await self._write(work, Write(todo.shift.target, tuple(copy.store for copy in sources)))
            await self._catalog.looked(entry_id, work.entry.version, now)
            self.stir()
            self.done.shifted += 1
        elif todo.pending:
            await self._catalog.looked(entry_id, work.entry.version, now)

    async def _even_out(self) -> None:
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
                await self._write(work, action)
                return True
            case Drop():
                await self._drop(work, action)
                return True
            case Scrub():
                return not await self._scrub(work, action.store)
            case Check():
                return await self._check(work, action.store)
            case Purge():
                await self._catalog.purge(work.entry.id)
                return False
            case Follow():
                await follow(self._tree, self._member(action.store), work)
                return False
            case Forget():
                await self._drop(work, Drop(action.store, 0))
                log.warning("the link '%s' is forgotten: store %s is to leave", work.path, action.store)
                return False

    # -- making a copy

    async def _write(self, work: Work, action: Write) -> None:
        entry, member = work.entry, self._member(action.store)
        held = {c.store: c for c in work.copies}
        before = held.get(member.name)
        target = await self._tree.writer.target(member, work.path, entry.id, before)
        if before is not None and target.key != before.key and self._mesh.config.adopt:
            before = await self._give_way(work, member, before, target)
        now = self._tree.now()
        intent = Intent(
            secrets.token_hex(8), "Copy", entry.id, "", entry.name, entry.version, (target,), now + LEASE,
            entry.sha256, entry.size, entry.mtime, entry.content_type,
        )  # fmt: skip
        with self._living(intent):
            await self._catalog.begin(intent, if_version=entry.version)
            made = await self._copied(work, [held[name] for name in action.sources], member, intent, before)
            if made is None:
                await self._catalog.end(intent.id)
                raise Conflict(f"'{work.path}' could not be copied to {member.name}")
            copy, digest = made
            now_there = await self._catalog.by_id(entry.id)
            if now_there is not None and now_there.entry.version == entry.version:
                await self._catalog.put_copies([copy], was=[before])
                if not entry.sha256:
                    await self._catalog.set_digest(entry.id, entry.version, digest)
            if copy not in await self._catalog.copies(entry.id):
                # the file was written anew meanwhile: this copy is of no version any more
                await member.store.delete(copy.key, if_tag=copy.tag)
            await self._catalog.end(intent.id)
        self.done.written += 1
        self.done.written_bytes += entry.size

    async def _give_way(self, work: Work, member: Member, before: Copy, target: Target) -> Copy:
        """Somebody else's object lies where our copy was: it becomes a file of its own, ours gets another key."""
        after = Copy(before.entry, before.store, target.key, 0, "Stale", target.expect, error=before.error)
        await self._catalog.put_copies([after], was=[before])
        await self._take_in(work, member, before.key)
        return after

    async def _take_in(self, work: Work, member: Member, key: str) -> None:
        path = work.path or names.path_of(member.config.prefix, key, member.store.info)
        if await take_in(self._tree, member, key, path) is not None:
            self.done.conflicts += 1

    @contextlib.contextmanager
    def _living(self, intent: Intent) -> Iterator[None]:
        live = self._tree.writer.copying
        live.add(intent.id)
        renewing = asyncio.create_task(self._renew(intent.id))
        try:
            yield
        finally:
            renewing.cancel()
            live.discard(intent.id)

    async def _renew(self, intent_id: str) -> None:
        """Another process must not take it for what one that ended left."""
        with contextlib.suppress(Missing):
            while True:
                await asyncio.sleep(LEASE / MICROS / 3)
                with contextlib.suppress(Transient):
                    await self._catalog.renew(intent_id, self._tree.now() + LEASE)

    async def _copied(
        self, work: Work, sources: Sequence[Copy], member: Member, intent: Intent, before: Copy | None
    ) -> tuple[Copy, str] | None:
        """Streams from the first source that gives the content of the digest on record; None if there is none, or the
        store failed, in which case its record says what is known."""
        entry, target = work.entry, intent.targets[0]
        failures: list[str] = []
        for source in sources:
            reader = self._mesh.members.get(source.store)
            if reader is None:
                continue
            digest = hashlib.sha256()
            stream = self._checked(reader, source, entry.sha256, digest)
            info = member.store.info
            try:
                async with self._memory(reader, member, entry.size):
                    seen = await member.store.write(
                        target.key,
                        stream,
                        size=entry.size,
                        if_tag=target.expect if info.conditional == "Full" else "",
                        if_absent=not target.expect and info.conditional != "None",
                        attributes=attributes_of(intent, member, target.key) if info.attributes else None,
                    )
            except _SourceBad as bad:
                failures.append(f"{source.store}: {bad.error}")
                await self._bad(reader, source, bad.error)
                continue
            except CloudmeshError as error:
                member.doubt(error)
                # it may answer again before the failure is dealt with
                member.miss(entry.id)
                found = await self._outcome(entry, member, intent, before, error)
                if found is None:
                    return None
                seen = found
            return written(intent, target, seen, self._tree.now()), digest.hexdigest()
        log.warning("no copy of '%s' could be read: %s", work.path, "; ".join(failures))
        return None

    @contextlib.asynccontextmanager
    async def _memory(self, reader: Member, member: Member, size: int) -> AsyncIterator[None]:
        """Both stores are used, when there is memory for it: as a write, for what is read too."""
        needed = of_write(member.store.info, size) + of_read(reader.store.info, size)
        async with self._tree.writer.memory.writes.taken(needed):
            with reader.used(), member.used():
                yield

    async def _outcome(
        self, entry: Entry, member: Member, intent: Intent, before: Copy | None, error: CloudmeshError
    ) -> Object | None:
        """The object, if a write that failed was done after all; else the copy's record says that nobody knows."""
        log.warning("copying %s to %s failed: %s: %s", intent.targets[0].key, member.name, error.reason, error)
        if not isinstance(error, Transient | Changed):
            return None
        with contextlib.suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(STAT_SECONDS):
                seen = await member.store.stat(intent.targets[0].key)
            if seen is not None and is_of(intent, seen, entry.size):
                return seen
        unsure = before or Copy(entry.id, member.name, intent.targets[0].key, 0, "Stale")
        # of no version: what of ours is found there is newer
        version = unsure.version if unsure.version > entry.version else 0
        unsure = replace(unsure, key=intent.targets[0].key, version=version, state="Stale")
        unsure = replace(unsure, error=f"{error.reason}: {error}")
        await self._catalog.put_copies([unsure], was=[before])
        return None

    async def _checked(self, reader: Member, source: Copy, sha256: str, digest: hashlib._Hash) -> AsyncIterator[bytes]:
        try:
            async for chunk in reader.store.read(source.key, if_tag=source.tag):
                digest.update(chunk)
                reader.sent += len(chunk)
                yield chunk
        except CloudmeshError as error:
            raise _SourceBad(error) from error
        if sha256 and digest.hexdigest() != sha256:
            raise _SourceBad(Corrupted(f"digest {digest.hexdigest()} instead of {sha256}"))

    async def _bad(self, reader: Member, source: Copy, error: CloudmeshError) -> None:
        if isinstance(error, Corrupted):
            self.done.corrupt += 1
            corrupt = replace(source, state="Corrupt", error=str(error))
            await self._catalog.put_copies([corrupt], was=[source], due=self._tree.now())
        else:
            await self._tree.found_bad(source, reader, error)

    # -- removing a copy

    async def _drop(self, work: Work, action: Drop) -> None:
        copy = next(c for c in work.copies if c.store == action.store)
        member = self._mesh.members.get(action.store)
        if member is None or copy.state == "Linked":
            # a linked object is nobody's to remove
            if work.trashed:
                await self._still_trashed(work)
            await self._catalog.drop_copy(work.entry.id, action.store, was=copy)
            self.done.dropped += 1
            return
        try:
            seen = await member.store.stat(copy.key)
        except CloudmeshError as error:
            member.doubt(error)
            raise
        if seen is None and not await member.absence_counts():
            raise Suspicious(f"store {member.name} isn't believed: {member.message}")
        intent = Intent(
            secrets.token_hex(8), "Delete", work.entry.id, "", work.entry.name, work.entry.version,
            (_target(copy),), self._tree.now() + LEASE,
        )  # fmt: skip
        with self._living(intent):
            # no put counts on the copy from here on; one that is under way keeps this from beginning
            await self._catalog.begin(intent, if_version=work.entry.version)
            going = replace(copy, state="Deleting")
            try:
                if going not in await self._catalog.copies(work.entry.id):
                    raise Conflict(f"the copy of '{work.path}' in {action.store} changed meanwhile")
                if action.keep:
                    await self._prove(work, action)
                elif link_of(work.copies) is None:
                    await self._still_trashed(work)
            except CloudmeshError:
                await self._catalog.put_copies([copy], was=[going])
                await self._catalog.end(intent.id)
                raise
            try:
                strange = await self._remove(member, copy, seen, work)
            except CloudmeshError as error:
                member.doubt(error)
                await self._catalog.end(intent.id)
                raise
            await self._catalog.drop_copy(work.entry.id, action.store, was=going)
            await self._catalog.end(intent.id)
        self.done.dropped += 1
        if strange and seen is not None and self._mesh.config.adopt and (work.path or seen.attributes.get("id")):
            # with our attributes a listing would take it for a rest of ours
            await self._take_in(work, member, copy.key)

    async def _still_trashed(self, work: Work) -> None:
        located = await self._catalog.by_id(work.entry.id)
        if located is not None and located.path:
            raise Conflict(f"'{located.path}' was restored meanwhile")

    async def _remove(self, member: Member, copy: Copy, seen: Object | None, work: Work) -> bool:
        """Removes an object if it is surely ours: another tag means that somebody else wrote it; says whether so."""
        if seen is None:
            return False
        if await is_ours(self._catalog, member, copy, seen, of=work.of):
            await member.store.delete(copy.key, if_tag=seen.tag)
            return False
        log.warning("%s in %s was changed by somebody else: it stays there", copy.key, member.name)
        return True

    async def _prove(self, work: Work, action: Drop) -> None:
        """Fresh proof that enough counting copies are elsewhere: each store itself says so, now.

        Raises:
            Conflict: There are too few.
        """
        chosen = choose(facts_of(work.path, work.entry), self._mesh.config.rules, self._mesh.views(), self._tree.now())
        weak, proved = chosen.rule.weak_copies == "Count", 0
        for copy in await self._catalog.copies(work.entry.id):
            member = self._mesh.members.get(copy.store)
            if (
                copy.store == action.store or copy.state != "Whole" or copy.version != work.entry.version
                or member is None or not member.up or not (weak or member.store.info.strong)
                or member.config.access == "Drain"
            ):  # fmt: skip
                continue
            seen = await member.store.stat(copy.key)
            if seen is None:
                await self._tree.found_bad(copy, member, Missing(f"{copy.key} isn't there any more"))
            elif seen.tag != copy.tag or seen.size != work.entry.size:
                await self._tree.found_bad(copy, member, Changed(f"{copy.key} has another tag or size"))
            else:
                proved += 1
        if proved < max(action.keep, 1):
            raise Conflict(f"'{work.path}' has {proved} proved copies elsewhere, {action.keep} are needed")

    # -- reading a copy to see if it is whole

    async def _scrub(self, work: Work, store: str) -> bool:
        copy, member = next(c for c in work.copies if c.store == store), self._member(store)
        digest = hashlib.sha256()
        try:
            async for _ in self._checked(member, copy, work.entry.sha256, digest):
                pass
        except _SourceBad as bad:
            await self._bad(member, copy, bad.error)
            if isinstance(bad.error, Corrupted | NotFound | Changed):
                return False
            raise bad.error from bad
        now = self._tree.now()
        await self._catalog.put_copies([replace(copy, verified=now, scrubbed=now, error="")], was=[copy])
        if not work.entry.sha256:
            await self._catalog.set_digest(work.entry.id, work.entry.version, digest.hexdigest())
        self.done.scrubbed += 1
        return True

    async def _check(self, work: Work, store: str) -> bool:
        """Looks whether a copy that isn't whole by the record is after all; says whether it is."""
        copy, member, entry = next(c for c in work.copies if c.store == store), self._member(store), work.entry
        now = self._tree.now()
        try:
            seen = await member.store.stat(copy.key)
            if seen is None:
                if await member.absence_counts() and copy.state != "Missing":
                    await self._catalog.put_copies([replace(copy, state="Missing")], was=[copy])
                return False
            digest = hashlib.sha256()
            if seen.size == entry.size:
                async for chunk in member.store.read(copy.key, if_tag=seen.tag):
                    digest.update(chunk)
        except CloudmeshError as error:
            member.doubt(error)
            raise
        told = (seen.attributes.get("id"), seen.attributes.get("version"))
        ours = await is_ours(self._catalog, member, copy, seen)
        known = digest.hexdigest() == entry.sha256 if entry.sha256 else ours and told == (entry.id, str(entry.version))
        if seen.size == entry.size and known:
            whole = replace(copy, version=entry.version, state="Whole", tag=seen.tag, size=seen.size, error="")
            await self._catalog.put_copies([replace(whole, verified=now, scrubbed=now)], was=[copy])
            return True
        looked = replace(copy, scrubbed=now)
        await self._catalog.put_copies([looked], was=[copy])
        if not member.store.info.attributes or not self._mesh.config.adopt or ours:
            return False
        return await self._yield_to(work, looked, member, seen)

    async def _yield_to(self, work: Work, copy: Copy, member: Member, seen: Object) -> bool:
        """Somebody else's object lies where the last copy was: it becomes the file's content; says whether it did."""
        entry, copies = work.entry, await self._catalog.copies(work.entry.id)
        others = [c for c in copies if c.store != copy.store]
        away = [c for c in others if (m := self._mesh.members.get(c.store)) is not None and not m.up]
        if away or copy not in copies or any(c.state == "Whole" for c in others):
            return False
        if any(c.state not in ("Missing", "Deleting") and not c.scrubbed for c in others):
            # first the others are looked at, then this one again
            await self._catalog.put_copies([replace(copy, scrubbed=0)], was=[copy])
            return False
        digest = hashlib.sha256()
        async for chunk in member.store.read(copy.key, if_tag=seen.tag):
            digest.update(chunk)
        now, (above, _, name) = self._tree.now(), work.path.rpartition("/")
        version = max(entry.version, *(c.version for c in copies)) + 1
        intent = Intent(
            secrets.token_hex(8), "Put", entry.id, above, name, version, (Target(copy.store, copy.key, seen.tag),),
            now + LEASE, digest.hexdigest(), seen.size, seen.modified, entry.content_type,
        )  # fmt: skip
        with self._living(intent):
            await self._catalog.begin(intent, if_version=entry.version)
            whole = Copy(entry.id, copy.store, copy.key, version, "Whole", seen.tag, seen.size, now, now)
            await self._catalog.commit_put(
                intent.id, size=seen.size, sha256=digest.hexdigest(), whole=[whole], failed={}, due=now
            )
        log.warning(
            "no copy of '%s' is left: what somebody else wrote over it in %s is its content now", work.path, member.name
        )
        self.done.conflicts += 1
        return True

    def _member(self, store: str) -> Member:
        member = self._mesh.members.get(store)
        if member is None:
            raise Conflict(f"{store} isn't a store of this directory any more")
        return member


class Corrupted(CloudmeshError):
    """The bytes of a copy have another digest than the one on record."""

    reason = "Corrupted"


class _SourceBad(CloudmeshError):
    """Reading the source failed, not writing the target."""

    def __init__(self, error: CloudmeshError) -> None:
        super().__init__(str(error))
        self.error = error


def _target(copy: Copy) -> Target:
    return Target(copy.store, copy.key, copy.tag)
