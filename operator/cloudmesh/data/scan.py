"""Compares what a store lists with the catalogue: files that are there already are adopted, copies that are not there
are looked for. A listing alone never removes anything."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from cloudmesh.data import names
from cloudmesh.data.errors import Exists, InvalidName
from cloudmesh.data.mesh import HIDDEN, Member
from cloudmesh.data.model import Copy
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.tree import Tree

log = logging.getLogger(__name__)

_MTIME = re.compile("[1-9][0-9]{0,16}")
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(slots=True)
class Scanned:
    """What a scan found."""

    objects: int = 0
    adopted: int = 0
    unreadable: int = 0
    complete: bool = True


async def adopt(tree: Tree, member: Member, *, page: int = 1000) -> Scanned:
    """Takes files into the tree that the store holds under the prefix and that no entry knows of.

    A name that is taken stays with the file that has it: the other one comes in beside it, as `NAME.~STORE`.
    """
    result, after, prefix = Scanned(), "", member.config.prefix
    while True:
        found = await member.store.list(prefix, after=after, limit=page)
        result.complete &= found.complete
        for seen in found.objects:
            result.objects += 1
            await _one(tree, member, seen, result)
        after = found.after
        if not after:
            return result


async def _one(tree: Tree, member: Member, seen: Object, result: Scanned) -> None:
    name = seen.key[len(member.config.prefix) :]
    if name.startswith(HIDDEN) or not name or name.endswith("/"):
        return
    known = await tree.catalog.at_key(member.name, seen.key)
    if known is not None:
        return
    try:
        path = names.clean_path(names.path_of(member.config.prefix, seen.key, member.store.info))
    except InvalidName as error:
        result.unreadable += 1
        log.warning("%s in %s can't be a file of the directory: %s", seen.key, member.name, error)
        return
    whole = await member.store.stat(seen.key)
    if whole is None:
        return
    entry_id = whole.attributes.get("id", "")
    located = await tree.catalog.by_id(entry_id) if entry_id else None
    if located is not None and located.entry.kind == "File":
        # a rest of ours: the mover compares and keeps or removes it
        if all(c.store != member.name for c in located.copies):
            why = "found in the store"
            rest = Copy(entry_id, member.name, whole.key, 0, "Stale", whole.tag, whole.size, tree.now(), error=why)
            await tree.catalog.put_copies([rest])
            await tree.catalog.looked(entry_id, located.entry.version, tree.now())
        return
    # anybody may have written these
    told = whole.attributes.get("mtime", "")
    mtime = int(told) if _MTIME.fullmatch(told) else max(0, whole.modified)
    sha256 = found[0] if (found := _SHA256.fullmatch(whole.attributes.get("sha256", ""))) else ""
    copy = Copy("", member.name, whole.key, 1, "Whole", whole.tag, whole.size, tree.now())
    for candidate in (path, f"{path}.~{member.name}"):
        try:
            entry = await tree.catalog.adopt(candidate, copy, mtime=mtime, sha256=sha256)
        except Exists:
            continue
        await tree.catalog.looked(entry.id, entry.version, tree.now())
        result.adopted += 1
        return
