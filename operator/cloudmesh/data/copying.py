"""Makes copies: from the first one that gives the content on record, into a store that has none or a bad one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from cloudmesh.data.errors import Changed, InvalidName
from cloudmesh.data.hands import Hands, SourceBad
from cloudmesh.data.memory import of_read, of_write
from cloudmesh.data.mesh import KEPT, Member
from cloudmesh.data.model import Copy, Entry, Intent, Target, Work
from cloudmesh.data.plan import Write
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.upload import is_of, write_to, written
from cloudmesh.data.writer import LEASE, STAT_SECONDS
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

log = logging.getLogger(__name__)


class Copying:
    """Of one directory's mover.

    Args:
        hands: What it works with.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def write(self, work: Work, action: Write) -> None:
        """Makes or renews a copy.

        Raises:
            Conflict: No source could be read, or the file is written just now.
            CloudmeshError: The store failed; its record says what is known.
        """
        entry, member = work.entry, self._hands.member(action.store)
        held = {c.store: c for c in work.copies}
        before = held.get(member.name)
        target = await self._target(member, work, before)
        if before is not None and target.key != before.key and self._hands.mesh.config.adopt:
            before = await self._give_way(work, member, before, target)
        now = self._hands.tree.now()
        intent = Intent(
            secrets.token_hex(8), "Copy", entry.id, "", entry.name, entry.version, (target,), now + LEASE,
            entry.sha256, entry.size, entry.mtime, entry.content_type,
        )  # fmt: skip
        with self._hands.living(intent):
            await self._hands.catalog.begin(intent, if_version=entry.version)
            made = await self._copied(work, [held[name] for name in action.sources], member, intent, before)
            if made is None:
                after = await self._hands.catalog.copies(entry.id)
                # a put has another key there since: whether something lies at this one is unknown
                beside = any(c.store == member.name and c.key != target.key for c in after)
                lost = Copy(entry.id, member.name, target.key, entry.version, "Stale")
                await self._hands.catalog.end(intent.id, left=[lost] if beside else [])
                raise Conflict(f"'{work.where}' could not be copied to {member.name}")
            copy, digest = made
            now_there = await self._hands.catalog.by_id(entry.id)
            if now_there is not None and now_there.entry.version == entry.version:
                await self._hands.catalog.put_copies([copy], was=[before])
                if not entry.sha256:
                    await self._hands.catalog.set_digest(entry.id, entry.version, digest)
            if copy not in await self._hands.catalog.copies(entry.id):
                # the file was written anew meanwhile: this copy is of no version any more
                await member.store.delete(copy.key, if_tag=copy.tag)
            await self._hands.catalog.end(intent.id)
        self._hands.done.written += 1
        self._hands.done.repaired += before is not None
        self._hands.done.written_bytes += entry.size

    async def _target(self, member: Member, work: Work, before: Copy | None) -> Target:
        writer, entry_id = self._hands.tree.writer, work.entry.id
        if work.path:
            return await writer.target(member, work.path, entry_id, before)
        if work.was:
            # what lies in the trash takes nobody's own name
            with contextlib.suppress(InvalidName):
                return await writer.target(member, f"{work.was}.~{entry_id}", entry_id, before)
        return await writer.target(member, f"{KEPT}{entry_id}", entry_id, before)

    async def _give_way(self, work: Work, member: Member, before: Copy, target: Target) -> Copy:
        """Somebody else's object lies where our copy was: it becomes a file of its own, ours gets another key."""
        after = Copy(before.entry, before.store, target.key, 0, "Stale", target.expect, error=before.error)
        await self._hands.catalog.put_copies([after], was=[before])
        await self._hands.take_in(work, member, before.key)
        return after

    async def _copied(
        self, work: Work, sources: Sequence[Copy], member: Member, intent: Intent, before: Copy | None
    ) -> tuple[Copy, str] | None:
        """Streams from the first source that gives the content of the digest on record; None if there is none, or the
        store failed, in which case its record says what is known."""
        entry, target = work.entry, intent.targets[0]
        failures: list[str] = []
        for source in sources:
            reader = self._hands.mesh.members.get(source.store)
            if reader is None:
                continue
            digest = hashlib.sha256()
            stream = self._hands.checked(reader, source, entry.sha256, digest)
            try:
                async with self._memory(reader, member, entry.size):
                    seen = await write_to(intent, member, target, stream)
            except SourceBad as bad:
                failures.append(f"{source.store}: {bad.error}")
                await self._hands.found_bad(reader, source, bad.error)
                continue
            except CloudmeshError as error:
                member.doubt(error)
                # it may answer again before the failure is dealt with
                member.miss(entry.id)
                found = await self._outcome(entry, member, intent, before, error)
                if found is None:
                    return None
                seen = found
            return written(intent, target, seen, self._hands.tree.now()), digest.hexdigest()
        log.warning("no copy of '%s' could be read: %s", work.where, "; ".join(failures))
        return None

    @contextlib.asynccontextmanager
    async def _memory(self, reader: Member, member: Member, size: int) -> AsyncIterator[None]:
        """Both stores are used, when there is memory for it: as a write, for what is read too."""
        needed = of_write(member.store.info, size) + of_read(reader.store.info, size)
        async with self._hands.tree.writer.memory.writes.taken(needed):
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
        await self._hands.catalog.put_copies([unsure], was=[before])
        return None
