"""Which files the mover has to look at when a store comes, goes, or was silent for a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cloudmesh.data.catalog.ports import Catalog, Located
from cloudmesh.data.mesh import Mesh
from cloudmesh.data.placement import StoreView, choose
from cloudmesh.data.tree import Tree, facts_of

PAGE: Final = 100
"""Entries that are looked at before the doors get their turn."""


async def store_changed(tree: Tree, name: str) -> None:
    """Makes due what has a copy in a store that came or went for good, and what wants one there now that it is back."""
    await tree.catalog.wake(store=name, due=tree.now())
    member = tree.mesh.members.get(name)
    if member is not None and member.up:
        await _wake_wanting(tree, name)


async def _wake_wanting(tree: Tree, name: str) -> None:
    """A file that was placed while the store was away may belong there."""
    after = ""
    while True:
        page = await tree.catalog.rows(after=after, limit=PAGE)
        views = tree.mesh.views()
        for located in _wanting(tree.mesh, views, page, name, tree.now()):
            await _look_again(tree.catalog, located, tree.now())
        if len(page) < PAGE:
            return
        after = page[-1].entry.id
        await asyncio.sleep(0)


def _wanting(mesh: Mesh, views: Sequence[StoreView], page: Sequence[Located], name: str, now: int) -> list[Located]:
    found = []
    for located in page:
        if (
            not located.path
            or located.entry.kind != "File"
            or any(c.store == name or c.state == "Linked" for c in located.copies)
        ):
            continue
        whole = frozenset(c.store for c in located.copies if c.state == "Whole")
        facts = facts_of(located.path, located.entry)
        if name in choose(facts, mesh.config.rules, views, now, holding=whole).stores:
            found.append(located)
    return found


async def look_again(tree: Tree, entry_ids: Sequence[str]) -> None:
    """Makes files due that were looked at while nobody knew whether a store is away."""
    for entry_id in entry_ids:
        located = await tree.catalog.by_id(entry_id)
        if located is not None:
            await _look_again(tree.catalog, located, tree.now())


async def _look_again(catalog: Catalog, located: Located, now: int) -> None:
    await catalog.looked(located.entry.id, located.entry.version, now, pending=True)
