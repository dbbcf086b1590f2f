"""Removes copies, only after fresh proof of enough others; what was deleted too long ago needs none."""

from __future__ import annotations

import logging
import secrets
from dataclasses import replace

from cloudmesh.data.errors import Changed, Missing
from cloudmesh.data.hands import Hands
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import Copy, Intent, Target, Work, link_of
from cloudmesh.data.ours import is_ours
from cloudmesh.data.plan import Drop
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.writer import LEASE
from cloudmesh.engine.errors import CloudmeshError, Conflict

log = logging.getLogger(__name__)


class Removing:
    """Of one directory's mover.

    Args:
        hands: What it works with.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def drop(self, work: Work, action: Drop) -> None:
        """Removes a copy.

        Raises:
            Conflict: Too few others are proved, or it was restored or changed meanwhile.
            CloudmeshError: A store failed.
        """
        copy = next(c for c in work.copies if c.store == action.store)
        member = self._hands.mesh.members.get(action.store)
        if member is None or copy.state == "Linked":
            # a linked object is nobody's to remove
            if work.trashed:
                await self._still_trashed(work)
            await self._hands.catalog.drop_copy(work.entry.id, action.store, was=copy)
            self._hands.done.dropped += 1
            return
        seen = await member.look(copy.key)
        intent = Intent(
            secrets.token_hex(8), "Delete", work.entry.id, "", work.entry.name, work.entry.version,
            (Target(copy.store, copy.key, copy.tag),), self._hands.tree.now() + LEASE,
        )  # fmt: skip
        with self._hands.living(intent):
            # no put counts on the copy from here on; one that is under way keeps this from beginning
            await self._hands.catalog.begin(intent, if_version=work.entry.version)
            going = replace(copy, state="Deleting")
            try:
                if going not in await self._hands.catalog.copies(work.entry.id):
                    raise Conflict(f"the copy of '{work.where}' in {action.store} changed meanwhile")
                if action.keep:
                    await self._prove(work, action)
                elif link_of(work.copies) is None:
                    await self._still_trashed(work)
            except CloudmeshError:
                await self._hands.catalog.put_copies([copy], was=[going])
                await self._hands.catalog.end(intent.id)
                raise
            try:
                strange = await self._remove(member, copy, seen, work)
            except CloudmeshError as error:
                member.doubt(error)
                await self._hands.catalog.end(intent.id)
                raise
            await self._hands.catalog.drop_copy(work.entry.id, action.store, was=going)
            await self._hands.catalog.end(intent.id)
        self._hands.done.dropped += 1
        self._hands.done.trashed += bool(work.trashed) and not action.keep
        if strange and seen is not None and self._hands.mesh.config.adopt and (work.path or seen.attributes.get("id")):
            # with our attributes a listing would take it for a rest of ours
            await self._hands.take_in(work, member, copy.key)

    async def _still_trashed(self, work: Work) -> None:
        located = await self._hands.catalog.by_id(work.entry.id)
        if located is not None and located.path:
            raise Conflict(f"'{located.path}' was restored meanwhile")

    async def _remove(self, member: Member, copy: Copy, seen: Object | None, work: Work) -> bool:
        """Removes an object if it is surely ours: another tag means that somebody else wrote it; says whether so."""
        if seen is None:
            return False
        if await is_ours(self._hands.catalog, member, copy, seen, of=work.of):
            await member.store.delete(copy.key, if_tag=seen.tag)
            return False
        log.warning("%s in %s was changed by somebody else: it stays there", copy.key, member.name)
        return True

    async def _prove(self, work: Work, action: Drop) -> None:
        """Fresh proof that enough counting copies are elsewhere: each store itself says so, now.

        Raises:
            Conflict: There are too few.
        """
        proved = 0
        for copy in await self._hands.catalog.copies(work.entry.id):
            member = self._hands.mesh.members.get(copy.store)
            if (
                copy.store == action.store or copy.state != "Whole" or copy.version != work.entry.version
                or member is None or not member.up or not (action.weak or member.store.info.strong)
                or member.config.access == "Drain"
            ):  # fmt: skip
                continue
            seen = await member.store.stat(copy.key)
            if seen is None:
                await self._hands.tree.found_bad(copy, member, Missing(f"{copy.key} isn't there any more"))
            elif seen.tag != copy.tag or seen.size != work.entry.size:
                await self._hands.tree.found_bad(copy, member, Changed(f"{copy.key} has another tag or size"))
            else:
                proved += 1
        if proved < max(action.keep, 1):
            raise Conflict(f"'{work.where}' has {proved} proved copies elsewhere, {action.keep} are needed")
