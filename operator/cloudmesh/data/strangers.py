"""Objects that somebody else wrote over ours: nothing of theirs is ever written over, nothing of ours lost for it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from cloudmesh.data import names
from cloudmesh.data.errors import Exists, InvalidName
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import MICROS, Copy, Entry
from cloudmesh.data.tree import Tree

log = logging.getLogger(__name__)


def conflict_names(path: str, store: str, at: int) -> Iterator[str]:
    """Paths for a content that stands beside a file, `NAME (conflict STORE DATE).EXT` first.

    Args:
        path: Of the file.
        store: Where the other content was found.
        at: When it was written, in microseconds.
    """
    above, slash, name = path.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not stem:
        stem, dot, ending = name, "", ""
    when = datetime.fromtimestamp(at // MICROS, UTC)
    dates = [f"{when:%Y-%m-%d}", f"{when:%Y-%m-%d %H%M%S}", *(f"{when:%Y-%m-%d %H%M%S} {n}" for n in range(2, 100))]
    for date in dates:
        yield f"{above}{slash}{stem} (conflict {store} {date}){dot}{ending}"


async def take_in(tree: Tree, member: Member, key: str, path: str) -> Entry | None:
    """Takes an object of somebody else into the tree, beside the file at whose key it lies; None if there is none.

    Raises:
        Conflict: The key belongs to an entry's copy.
        CloudmeshError: The store or the catalogue failed.
    """
    seen = await member.store.stat(key)
    if seen is None:
        return None
    now = tree.now()
    copy = Copy("", member.name, key, 1, "Whole", seen.tag, seen.size, now)
    for candidate in conflict_names(path, member.name, seen.modified or now):
        try:
            names.clean_path(candidate)
            entry = await tree.catalog.adopt(candidate, copy, mtime=max(0, seen.modified))
        except Exists:
            continue
        except InvalidName:
            # too long a name: the next listing takes it in under another one
            return None
        log.warning("%s in %s was written by somebody else: it is '%s' now", key, member.name, candidate)
        return entry
    return None
