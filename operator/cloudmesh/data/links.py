"""Links: entries whose one copy is somebody else's object, at a key that we didn't choose. It is read where it lies,
and never written, moved or removed by us.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import Final

from cloudmesh.data.borders import identity
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.errors import Exists, InvalidName, Missing
from cloudmesh.data.mesh import HIDDEN, MARKER, Member, own_path
from cloudmesh.data.model import Copy, Entry, Work, link_of
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

log = logging.getLogger(__name__)

MOST_KEY: Final = 4096
"""Bytes of a key."""


async def link(tree: Tree, path: str, store: str, key: str) -> Entry:
    """Makes a link at a path to an object of a store of the directory; directories are made.

    Args:
        tree: The directory.
        path: Where.
        store: Name of the store.
        key: The object's key in the store, from its beginning: not from the directory's prefix.

    Raises:
        Exists: The path is taken.
        Missing: There is no such store or object.
        InvalidName: The path or the key can't be.
        Conflict: The object is another directory's, or is in this one already.
        Transient: The store doesn't answer.
        Full: The quota has no room for it.
    """
    clean, key = own_path(path), _checked(key)
    if not clean:
        raise InvalidName("a link needs a name")
    member = tree.mesh.members.get(store)
    if member is None:
        raise Missing(f"'{store[:100]}' isn't a store of this directory")
    if member.config.access == "Drain":
        raise Conflict(f"store {store} is to leave the directory: nothing of it is linked any more")
    if not member.up:
        raise Transient(f"store {store}: {member.message or member.state}")
    if await tree.catalog.entry(clean) is not None:
        raise Exists(f"there is already something at '/{clean}'")
    try:
        await _refuse_others(tree, member, key)
        await _refuse_own(tree.catalog, store, key)
        seen = await member.store.stat(key)
    except CloudmeshError as error:
        member.doubt(error)
        raise
    if seen is None:
        raise Missing(f"there is no object '{key}' in store {store}")
    now = tree.now()
    copy = Copy("", store, key, 1, "Linked", seen.tag, seen.size, now)
    allowance = tree.writer.allowance
    grant = await allowance.take(1, seen.size)
    try:
        async with allowance.counting(grant) as check:
            entry = await tree.catalog.adopt(clean, copy, mtime=max(0, seen.modified), check=check)
    finally:
        grant.release()
    # no listing tells of it: it is there when a store's journal says so
    await tree.journal.sync()
    return entry


async def adopt(tree: Tree, path: str) -> Entry:
    """Makes a link an ordinary file: its content is copied to where the rules place it; the linked object stays.

    Raises:
        Missing: There is no such entry, or its object is gone.
        Conflict: It is no link, or its object was changed.
    """
    entry = await tree.stat(own_path(path))
    if link_of(await tree.catalog.copies(entry.id)) is None:
        raise Conflict(f"'{path}' isn't a link")
    there, chunks = await tree.read(path)
    async with contextlib.aclosing(chunks):
        if there.etag != entry.etag:
            raise Conflict(f"'{path}' was changed meanwhile: try again")
        return await tree.put(
            path, chunks, size=entry.size, mtime=entry.mtime, content_type=entry.content_type, if_version=entry.version
        )


async def follow(tree: Tree, member: Member, work: Work) -> None:
    """Compares a linked object with the record: one that was changed is the link's new version.

    Raises:
        CloudmeshError: The store failed.
    """
    copy = link_of(work.copies)
    if copy is None or copy.store != member.name:
        return
    seen = await member.look(copy.key)
    now = tree.now()
    if seen is None:
        gone = replace(copy, error=f"there is no object '{copy.key}' any more")
        await tree.catalog.put_copies([gone], was=[copy])
    elif seen.tag == copy.tag and seen.size == copy.size:
        await tree.catalog.put_copies([replace(copy, verified=now, error="")], was=[copy])
    else:
        changed = replace(copy, tag=seen.tag, size=seen.size, verified=now, error="")
        if not await tree.catalog.relink(changed, was=copy, mtime=max(0, seen.modified)):
            raise Conflict(f"'{work.path}' changed meanwhile")
        log.info("%s in %s was changed: it is the new version of the link '%s'", copy.key, member.name, work.path)


def _checked(key: str) -> str:
    """A key as stores have it.

    Raises:
        InvalidName: It can't be one of an object.
    """
    key = key.removeprefix("/")
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\0" in key:
        raise InvalidName(f"'{key[:100]}' can't be the key of an object to link")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise InvalidName("the key has half a surrogate pair") from None
    if size > MOST_KEY:
        raise InvalidName(f"the key has {size} bytes: {MOST_KEY} are the most")
    if HIDDEN[:-1] in parts:
        raise InvalidName(f"'{HIDDEN}' is Cloudmesh's own: what lies in it can't be linked")
    return key


async def _refuse_others(tree: Tree, member: Member, key: str) -> None:
    """What lies below another directory's marker is that one's.

    Raises:
        Conflict: It does.
    """
    config = tree.mesh.config
    mine = (config.installation, config.namespace, config.name)
    ends = [0, *(n + 1 for n, character in enumerate(key) if character == "/")]
    for folder in (key[:end] for end in ends):
        if await member.store.stat(folder + MARKER) is None:
            continue
        there = await identity(member.store, folder)
        if there is not None and there != mine:
            whose = "/".join(there[1:]) if any(there) else "somebody else"
            raise Conflict(f"'{key}' in store {member.name} lies in what is of the directory {whose}")


async def _refuse_own(catalog: Catalog, store: str, key: str) -> None:
    """What is in the directory already isn't there twice; a link in the trash gives way.

    Raises:
        Conflict: It is.
    """
    there = await catalog.at_key(store, key)
    if there is None:
        return
    located = await catalog.by_id(there.entry)
    if located is not None and not located.path and there.state == "Linked":
        await catalog.drop_copy(there.entry, store, was=there)
        return
    what = f"'/{located.path}'" if located is not None and located.path else "in its trash, or is being written"
    raise Conflict(f"'{key}' in store {store} is in this directory already: {what}")
