"""Fills a catalogue that is new: the directory may be older than it, and what its stores hold is the truth."""

from __future__ import annotations

import logging
from pathlib import Path

from cloudmesh.data.catalog.journal import JOURNAL
from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.catalog.rebuild import Source, rebuild
from cloudmesh.data.mesh import HIDDEN, Member, Mesh
from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

FILLED = "filled"
"""Text of a catalogue that was filled once; without it the catalogue is new."""


async def fill(
    catalog: Catalog, mesh: Mesh, now: int, *, adopt: bool = True, ending: bool = False, scratch: Path | None = None
) -> str:
    """Makes a new catalogue of what the stores hold; does nothing with one that isn't new.

    All stores have to answer if one that does holds something of the directory already: what lies in the others alone
    would look deleted. A directory that is new, since no store that answers knew it, begins with those that are there.

    Args:
        catalog: The catalogue.
        mesh: The stores.
        now: Microseconds.
        adopt: Files of others are taken in.
        ending: The directory is to be emptied: prefixes of others aren't waited for.
        scratch: Folder for what is found out meanwhile.

    Returns:
        What it waits for; empty when it is done.
    """
    if await catalog.get(FILLED):
        return ""
    if await catalog.children("", limit=1) or await catalog.trash(limit=1):
        # it was loaded, which is one commit, and the process ended before it could say so
        await catalog.set(FILLED, "rebuilt")
        return ""
    away = [m for m in mesh.members.values() if not m.up and not (ending and m.state == "Claimed")]
    there = mesh.up()
    try:
        if not there:
            return "the catalogue is new, and no store answers: " + _tell(away)
        if await _is_empty(there) and (not away or all(m.claimed for m in there)):
            await catalog.set(FILLED, "empty")
            return ""
        if away:
            return "the catalogue is made anew when all stores answer: " + _tell(away)
        sources = [Source(m.name, m.config.prefix, m.store, m.read) for m in there]
        found = await rebuild(sources, catalog, now=now, adopt=adopt, scratch=scratch)
    except CloudmeshError as error:
        # it may name a file
        log.warning("the catalogue can't be made anew yet: %s: %s", error.reason, error)
        return f"the catalogue can't be made anew yet: {error.reason} (the gateway's log tells more)"
    await catalog.set(FILLED, "rebuilt")
    log.info(
        "catalogue made anew: %d files, %d directories, %d copies, %d journal records",
        found.files, found.directories, found.copies, found.records,
    )  # fmt: skip
    for prefix, whose in found.foreign.items():
        log.warning("'%s' is of the directory %s: nothing of it is taken in", prefix, whose)
    return ""


def _tell(members: list[Member]) -> str:
    return "; ".join(f"{m.name}: {m.message}" for m in members)


async def _is_empty(members: list[Member]) -> bool:
    """Whether no store holds anything of the directory but its marker."""
    for member in members:
        for prefix in (member.config.prefix, member.key(JOURNAL)):
            page = await member.store.list(prefix, limit=10)
            if any(prefix.endswith(JOURNAL) or not o.key.startswith(member.key(HIDDEN)) for o in page.objects):
                return False
            if page.after and not prefix.endswith(JOURNAL):
                return False
    return True
