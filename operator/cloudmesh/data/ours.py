"""Whether the object at a copy's key is what we wrote: attributes alone don't say, tools that edit keep them."""

from __future__ import annotations

import hashlib

from cloudmesh.data.catalog.ports import ALL, Catalog
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import Copy
from cloudmesh.data.stores.ports import Object


async def is_ours(catalog: Catalog, member: Member, copy: Copy, seen: Object, *, of: str = "") -> bool:
    """Whether an object is surely ours to write over or remove; one with our attributes may be somebody's edit.

    With a tag on record another one is ours only if a write that is open made it, if it is newer than the record (a
    write of unknown outcome), or if it has the entry's content. Where it tells the digest that it was written with,
    that must be its own.

    Args:
        catalog: Of the directory.
        member: The copy's store.
        copy: The record.
        seen: What lies at its key now.
        of: Id of the file whose older content the copy is; else empty.

    Raises:
        CloudmeshError: The store or the catalogue failed.
    """
    if copy.tag and seen.tag == copy.tag:
        return True
    told = seen.attributes
    if told.get("id", "") not in {copy.entry, of} - {""}:
        return False
    version, claimed = told.get("version", ""), told.get("sha256", "")
    # not one that is merely another: what somebody edited and we took in as a new version tells its first one for ever
    if not copy.tag or (version.isdecimal() and int(version) > copy.version):
        # nobody has seen it yet, or the outcome of a write: where it tells its digest that decides
        return not claimed or claimed == await digest_of(member, copy.key, seen)
    if any(intent.id == told.get("write") for intent in await catalog.intents(until=ALL)):
        return True
    located = await catalog.by_id(copy.entry)
    if located is None or not located.entry.sha256 or seen.size != located.entry.size:
        return False
    return await digest_of(member, copy.key, seen) == located.entry.sha256


async def digest_of(member: Member, key: str, seen: Object) -> str:
    """Digest of the bytes of an object, which has to be the one that was seen."""
    digest = hashlib.sha256()
    async for chunk in member.read(key, if_tag=seen.tag):
        digest.update(chunk)
    return digest.hexdigest()
