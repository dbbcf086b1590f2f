"""Reads copies to see whether they are whole, and whether one that isn't by the record is after all."""

from __future__ import annotations

import hashlib
import logging
import secrets
from dataclasses import replace

from cloudmesh.data.errors import Changed
from cloudmesh.data.hands import Corrupted, Hands, SourceBad
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import Copy, Intent, Target, Work
from cloudmesh.data.ours import is_ours
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.writer import LEASE
from cloudmesh.engine.errors import CloudmeshError, NotFound

log = logging.getLogger(__name__)


class Verifying:
    """Of one directory's mover.

    Args:
        hands: What it works with.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def scrub(self, work: Work, store: str) -> bool:
        """Reads a copy and compares its digest; says whether it is whole.

        Raises:
            CloudmeshError: The store failed.
        """
        copy, member = next(c for c in work.copies if c.store == store), self._hands.member(store)
        digest = hashlib.sha256()
        try:
            async for _ in self._hands.checked(member, copy, work.entry.sha256, digest):
                pass
        except SourceBad as bad:
            await self._hands.found_bad(member, copy, bad.error)
            if isinstance(bad.error, Corrupted | NotFound | Changed):
                return False
            raise bad.error from bad
        now = self._hands.tree.now()
        await self._hands.catalog.put_copies([replace(copy, verified=now, scrubbed=now, error="")], was=[copy])
        if not work.entry.sha256:
            await self._hands.catalog.set_digest(work.entry.id, work.entry.version, digest.hexdigest())
        self._hands.done.scrubbed += 1
        return True

    async def check(self, work: Work, store: str) -> bool:
        """Looks whether a copy that isn't whole by the record is after all; says whether it is."""
        copy, member, entry = next(c for c in work.copies if c.store == store), self._hands.member(store), work.entry
        now = self._hands.tree.now()
        try:
            seen = await member.store.stat(copy.key)
            if seen is None:
                if await member.absence_counts() and copy.state != "Missing":
                    await self._hands.catalog.put_copies([replace(copy, state="Missing")], was=[copy])
                return False
            digest = hashlib.sha256()
            if seen.size == entry.size:
                async for chunk in member.read(copy.key, if_tag=seen.tag):
                    digest.update(chunk)
        except CloudmeshError as error:
            member.doubt(error)
            raise
        ours = await is_ours(self._hands.catalog, member, copy, seen, of=work.of)
        is_its = seen.attributes.get("id", "") in {entry.id, work.of} - {""}
        told = is_its and seen.attributes.get("version") == str(entry.version)
        known = digest.hexdigest() == entry.sha256 if entry.sha256 else ours and told
        if seen.size == entry.size and known:
            whole = replace(copy, version=entry.version, state="Whole", tag=seen.tag, size=seen.size, error="")
            await self._hands.catalog.put_copies([replace(whole, verified=now, scrubbed=now)], was=[copy])
            return True
        looked = replace(copy, scrubbed=now)
        await self._hands.catalog.put_copies([looked], was=[copy])
        if work.trashed or not member.store.info.attributes or not self._hands.mesh.config.adopt or ours:
            return False
        return await self._yield_to(work, looked, member, seen)

    async def _yield_to(self, work: Work, copy: Copy, member: Member, seen: Object) -> bool:
        """Somebody else's object lies where the last copy was: it becomes the file's content; says whether it did."""
        entry, copies = work.entry, await self._hands.catalog.copies(work.entry.id)
        others = [c for c in copies if c.store != copy.store]
        away = [c for c in others if (m := self._hands.mesh.members.get(c.store)) is not None and not m.up]
        if away or copy not in copies or any(c.state == "Whole" for c in others):
            return False
        if any(c.state not in ("Missing", "Deleting") and not c.scrubbed for c in others):
            # first the others are looked at, then this one again
            await self._hands.catalog.put_copies([replace(copy, scrubbed=0)], was=[copy])
            return False
        digest = hashlib.sha256()
        async for chunk in member.read(copy.key, if_tag=seen.tag):
            digest.update(chunk)
        now, (above, _, name) = self._hands.tree.now(), work.path.rpartition("/")
        version = max(entry.version, *(c.version for c in copies)) + 1
        intent = Intent(
            secrets.token_hex(8), "Put", entry.id, above, name, version, (Target(copy.store, copy.key, seen.tag),),
            now + LEASE, digest.hexdigest(), seen.size, seen.modified, entry.content_type,
        )  # fmt: skip
        with self._hands.living(intent):
            await self._hands.catalog.begin(intent, if_version=entry.version)
            whole = Copy(entry.id, copy.store, copy.key, version, "Whole", seen.tag, seen.size, now, now)
            await self._hands.catalog.commit_put(
                intent.id, size=seen.size, sha256=digest.hexdigest(), whole=[whole], failed={}, due=now
            )
        log.warning(
            "no copy of '%s' is left: what somebody else wrote over it in %s is its content now", work.path, member.name
        )
        self._hands.done.found_conflict()
        return True
