"""Where the objects of a write go: keys that are the file's own, never over something that isn't its."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.errors import InvalidName
from cloudmesh.data.mesh import KEPT, Member, Mesh
from cloudmesh.data.model import Copy, Target
from cloudmesh.data.ours import is_ours
from cloudmesh.data.stores.ports import Folders
from cloudmesh.engine.errors import CloudmeshError


class Aim:
    """Chooses keys in the stores of one directory.

    Args:
        catalog: Its catalogue.
        mesh: Its stores.
    """

    def __init__(self, catalog: Catalog, mesh: Mesh) -> None:
        self._catalog = catalog
        self._mesh = mesh

    async def target_of(
        self, member: Member, path: str, intent_id: str, entry_id: str, held: Copy | None, whole: Collection[str]
    ) -> Target:
        """Where a new content goes in a store; what is there stays in those of `whole`, and where the mover makes or
        removes a copy just now: a store that looks and then acts would do it to the new content."""
        if member.name in whole or (held is not None and held.state == "Deleting"):
            return await self.beside(member, path, intent_id)
        settled = held is not None and held.state == "Whole"
        if not settled and await self._catalog.moving(entry_id, member.name):
            return await self.beside(member, path, intent_id)
        return await self.target(member, path, entry_id, held)

    async def target(self, member: Member, path: str, entry_id: str, held: Copy | None) -> Target:
        """Where a file's copy in a store goes, and what must be there: never over something that isn't the file's."""
        info = member.store.info
        if held is not None and held.state == "Whole" and held.tag:
            return Target(member.name, held.key, held.tag)
        first = held.key if held else names.key_of(member.config.prefix, path, info)
        key = await self._free_key(member, path, entry_id, first)
        if not key:
            return await self.beside(member, path, secrets.token_hex(8))
        if held is not None or info.conditional == "None" or not self._mesh.config.adopt:
            seen = await member.look(key)
            recorded = held is not None and held.key == key
            if seen is None:
                ours = True
            elif held is not None and recorded:
                ours = await is_ours(self._catalog, member, held, seen)
            else:
                ours = seen.attributes.get("id") == entry_id
            if not ours:
                # somebody else's: it stays, and comes into the tree as a file of its own
                theirs, key = key, await self._free_key(member, path, entry_id)
                seen = await member.look(key) if key else None
                if key in ("", theirs) or (seen is not None and seen.attributes.get("id") != entry_id):
                    return await self.beside(member, path, secrets.token_hex(8))
            return Target(member.name, key, seen.tag if seen else "")
        return Target(member.name, key)

    async def _free_key(self, member: Member, path: str, entry_id: str, first: str = "") -> str:
        """The first key, or the file's name with its id behind it, that is no other entry's; empty if both are taken
        (that one, by an older content of the file) or the store can't hold so long a name."""
        try:
            if first and await self._free(member, first, entry_id):
                key = first
            else:
                key = names.key_of(member.config.prefix, f"{path}.~{entry_id}", member.store.info)
            key = await self._unblocked(member, key, entry_id)
        except InvalidName:
            return ""
        return key if key == first or await self._free(member, key, entry_id) else ""

    async def _free(self, member: Member, key: str, entry_id: str) -> bool:
        """Whether no other entry's copy, and nothing linked, is on record there."""
        other = await self._catalog.at_key(member.name, key)
        return other is None or (other.entry == entry_id and other.state != "Linked")

    async def beside(self, member: Member, path: str, intent_id: str) -> Target:
        """Where a new content goes so that the one so far stays: a key that nobody else takes."""
        prefix, info = member.config.prefix, member.store.info
        try:
            key = await self._unblocked(member, names.key_of(prefix, f"{path}.~{intent_id}", info), intent_id)
        except InvalidName:
            key = names.key_of(prefix, f"{KEPT}{intent_id}", info)
        return Target(member.name, key)

    @staticmethod
    async def _unblocked(member: Member, key: str, entry_id: str) -> str:
        """A key that can be a file where names are files and folders: the object of a file that had another name, or
        lies in the trash, may still be where a folder must be, or a folder of such objects where the file must be."""
        if not isinstance(member.store, Folders):
            return key
        try:
            blocked = await member.store.blocked(key)
        except CloudmeshError as error:
            member.doubt(error)
            raise
        prefix = member.config.prefix
        if len(blocked) <= len(prefix):
            return key
        parts = names.path_of(prefix, key, member.store.info).split("/")
        # what has its own id behind the name is nobody else's
        parts[blocked.count("/", len(prefix))] += f".~{entry_id}"
        return names.key_of(prefix, "/".join(parts), member.store.info)
