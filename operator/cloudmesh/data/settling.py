"""Objects get the names that their files have by now.

A copy beside the old object, then one change of the record, then the old object goes: whatever dies in between, one of
both is on record and the other one is found by the intent. What is in the way (an older content, something in the
trash, a file with another name by now) goes aside the same way.
"""

from __future__ import annotations

import hashlib
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from cloudmesh.data import names
from cloudmesh.data.errors import Exists, Missing
from cloudmesh.data.hands import Hands
from cloudmesh.data.mesh import KEPT, Member
from cloudmesh.data.model import Copy, Entry, Intent, Target, Work
from cloudmesh.data.stores.ports import Copier, Folders, Object
from cloudmesh.data.writer import LEASE
from cloudmesh.engine.errors import CloudmeshError, Conflict

log = logging.getLogger(__name__)

SMALL = 1 << 20
"""Bytes up to which an object is read and written anew where the store can't copy by itself."""


def is_cheap(member: Member, size: int) -> bool:
    """Whether an object of so many bytes can get another name without much ado."""
    return isinstance(member.store, Copier) or size <= SMALL


class Settling:
    """Gives objects other keys.

    Args:
        hands: What works on the directory.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._tree = hands.tree
        self._catalog = hands.catalog

    async def settle(self, work: Work, member: Member, key: str) -> bool:
        """Brings a file's copy in a store to its own name; False if that can't be now.

        Raises:
            CloudmeshError: The store failed.
        """
        copy = next((c for c in work.copies if c.store == member.name), None)
        if copy is None or copy.state != "Whole" or not copy.tag:
            return False
        there = await self._catalog.at_key(member.name, key)
        if there is not None and (there.entry == work.entry.id or not await self._aside(member, there)):
            return False
        return await self._rekey(member, work.entry, copy, key)

    async def _aside(self, member: Member, there: Copy) -> bool:
        """Makes room where another entry's object lies; False if that can't be now, or will happen by itself."""
        located = await self._catalog.by_id(there.entry)
        if located is None or there.state != "Whole" or not there.tag or there.version != located.entry.version:
            return False
        if not is_cheap(member, there.size):
            return False
        if not located.path:
            return await self._rekey(member, located.entry, there, member.key(f"{KEPT}{there.entry}"))
        prefix, info = member.config.prefix, member.store.info
        own = names.key_of(prefix, located.path, info)
        if own == there.key:
            return False
        if await self._catalog.at_key(member.name, own) is None:
            # it goes to its own name by itself
            await self._catalog.looked(there.entry, located.entry.version, self._tree.now())
            return False
        # two that have changed names wait for each other
        beside = names.key_of(prefix, f"{located.path}.~{there.entry}", info)
        return there.key != beside and await self._rekey(member, located.entry, there, beside)

    async def _rekey(self, member: Member, entry: Entry, copy: Copy, key: str) -> bool:
        store = member.store
        if isinstance(store, Folders) and await store.blocked(key):
            return False
        if await member.look(key) is not None:
            # somebody else's: it stays, and comes into the tree as a file of its own
            return False
        targets = (Target(member.name, key), Target(member.name, copy.key, copy.tag))
        intent = Intent(
            secrets.token_hex(8), "Settle", entry.id, "", entry.name, entry.version, targets, self._tree.now() + LEASE
        )
        with self._hands.living(intent):
            await self._catalog.begin(intent, if_version=entry.version)
            return await self._move(member, intent, entry, copy, key)

    async def _move(self, member: Member, intent: Intent, entry: Entry, copy: Copy, key: str) -> bool:
        try:
            made = await self._copied(member, entry, copy, key)
        except Exists:
            # somebody else was quicker: that stays. Or it is ours, and the answer to a first try was lost
            await self._catalog.end(intent.id, left=[replace(copy, key=key, tag="")])
            return False
        except CloudmeshError as error:
            member.doubt(error)
            # whether it is there is unknown
            await self._catalog.end(intent.id, left=[replace(copy, key=key, tag="")])
            raise
        there = replace(copy, key=key, tag=made.tag, verified=self._tree.now())
        try:
            await self._catalog.renew(intent.id, self._tree.now() + LEASE)
        except Missing:  # another gateway gave it up meanwhile, and the new object with it
            return False
        moved = await self._catalog.rekey(there, was=copy)
        rest = copy if moved else there
        try:
            await member.store.delete(rest.key, if_tag=rest.tag)
        except CloudmeshError as error:
            member.doubt(error)
            await self._catalog.end(intent.id, left=[rest])
        else:
            await self._catalog.end(intent.id)
        if moved:
            log.info("%s in %s is %s now", copy.key, member.name, key)
        return moved

    async def _copied(self, member: Member, entry: Entry, copy: Copy, key: str) -> Object:
        store = member.store
        seen = await member.look(copy.key)
        if seen is None or seen.tag != copy.tag:
            raise Conflict(f"{copy.key} in {member.name} isn't what is on record")
        attributes = dict(seen.attributes)
        if "at" in attributes:
            attributes["at"] = names.mark_of(member.config.prefix, key)
        if attributes.get("id", entry.id) != entry.id and not key.startswith(member.key(KEPT)):
            # somebody edited it and kept what we wrote: it is another file since, which no record may tell any more
            attributes |= {"id": entry.id, "version": str(entry.version), "sha256": entry.sha256, "write": ""}
            attributes = {name: value for name, value in attributes.items() if value}
        with member.used():
            if isinstance(store, Copier):
                made = await store.copy(copy.key, key, if_tag=copy.tag, if_absent=True, attributes=attributes or None)
            else:
                made = await store.write(
                    key,
                    _compared(member.read(copy.key, if_tag=copy.tag), entry.sha256),
                    size=copy.size,
                    if_absent=True,
                    attributes=attributes if store.info.attributes else None,
                )
        if made.size != copy.size:
            raise Conflict(f"{key} in {member.name} has {made.size} bytes instead of {copy.size}")
        return made


async def _compared(chunks: AsyncIterator[bytes], sha256: str) -> AsyncIterator[bytes]:
    digest = hashlib.sha256()
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk
    if sha256 and digest.hexdigest() != sha256:
        raise Conflict("the object's bytes have another digest than the one on record")
