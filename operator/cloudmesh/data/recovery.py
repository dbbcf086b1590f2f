"""What a process that ended left open: each intent is replayed or taken back, by what the stores themselves show."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from cloudmesh.data.model import Copy, Intent, Target
from cloudmesh.data.placement import Facts, rule_of
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.tree import Tree
from cloudmesh.data.upload import is_of, written
from cloudmesh.engine.errors import CloudmeshError, Transient

log = logging.getLogger(__name__)

ALL = 1 << 62
"""As a time: intents on which somebody might still work too; right where nobody else opens the catalogue."""
STAT_SECONDS = 10.0


class Recovery:
    """Ends what is open.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def run(self, until: int) -> int:
        """Looks at all intents on which nobody works since then; gives the number of those that stay open because a
        store doesn't answer."""
        left = 0
        for intent in await self._tree.catalog.intents(until=until):
            try:
                await self._one(intent)
            except CloudmeshError as error:
                left += 1
                log.warning("intent %s (%s of %s) stays open: %s", intent.id, intent.kind, intent.name, error)
        return left

    async def _one(self, intent: Intent) -> None:
        seen = await self._look(intent)
        match intent.kind:
            case "Put":
                await self._put(intent, seen)
            case "Copy" | "Settle":
                await self._copy(intent, seen)
            case "Delete":
                # what is gone is found by the mover, which looks before it removes
                await self._tree.catalog.looked(intent.entry, intent.version, self._tree.now())
                await self._tree.catalog.end(intent.id)

    async def _look(self, intent: Intent) -> dict[str, Object]:
        """Objects of its targets that this intent wrote.

        Raises:
            Transient: A store doesn't answer: nothing can be said of it yet.
        """
        found = {}
        for target in intent.targets:
            member = self._tree.mesh.members.get(target.store)
            if member is None:
                continue
            if not member.up:
                raise Transient(f"{target.store}: {member.message}")
            try:
                async with asyncio.timeout(STAT_SECONDS):
                    seen = await member.store.stat(target.key)
            except TimeoutError as error:
                raise Transient(f"{target.store}: no answer within {STAT_SECONDS:g} s") from error
            if seen is not None and is_of(intent, seen, intent.size):
                found[target.store] = seen
        return found

    async def _put(self, intent: Intent, seen: Mapping[str, Object]) -> None:
        tree, catalog = self._tree, self._tree.catalog
        located = await catalog.by_id(intent.entry)
        held = {} if located is None else {c.store: c for c in located.copies}
        kept = [c for c in held.values() if c.state == "Whole" and c.store not in seen]
        copies = [
            self._copy_of(intent, target, seen[target.store]) for target in intent.targets if target.store in seen
        ]
        sizes = {c.size for c in copies}
        if copies and len(sizes) == 1 and (self._counting(intent, copies) or (held and not kept)):
            digests = {o.attributes.get("sha256", "") for o in seen.values()} - {""}
            failed = {t.store: "the writer ended" for t in intent.targets if t.store not in seen}
            await catalog.commit_put(
                intent.id, size=sizes.pop(), sha256=intent.sha256 or (digests.pop() if len(digests) == 1 else ""),
                whole=copies, failed=failed, due=tree.now(),
            )  # fmt: skip
            log.info("the write of %s was whole and is kept", intent.name)
            return
        stale = []
        for copy in copies:
            if copy.store in held:
                why = "overwritten by a write that broke off"
                stale.append(replace(held[copy.store], state="Stale", error=why, tag=copy.tag))
            else:
                await tree.mesh.members[copy.store].store.delete(copy.key, if_tag=copy.tag)
        if stale and located is not None:
            await catalog.put_copies(stale)
            await catalog.looked(intent.entry, located.entry.version, tree.now())
        await catalog.end(intent.id)
        log.info("the write of %s had broken off and is taken back", intent.name)

    def _counting(self, intent: Intent, copies: list[Copy]) -> bool:
        """Whether so many copies could have been acknowledged."""
        path = f"{intent.parent}/{intent.name}".strip("/")
        tree = self._tree
        facts = Facts(path, copies[0].size, intent.mtime, intent.content_type, intent.tags)
        rule, _ = rule_of(facts, tree.mesh.config.rules, tree.now())
        weak = rule.weak_copies == "Count"
        return sum(1 for c in copies if weak or tree.mesh.members[c.store].store.info.strong) >= rule.min_copies

    async def _copy(self, intent: Intent, seen: Mapping[str, Object]) -> None:
        catalog = self._tree.catalog
        located = await catalog.by_id(intent.entry)
        for target in intent.targets:
            if target.store not in seen:
                continue
            copy = self._copy_of(intent, target, seen[target.store])
            if located is not None and located.entry.version == intent.version:
                # written, and nobody compared its digest: the mover reads it before it counts
                await catalog.put_copies([replace(copy, state="Stale", error="the mover ended while it wrote it")])
            elif located is None or all(c.key != copy.key for c in located.copies if c.store == copy.store):
                await self._tree.mesh.members[target.store].store.delete(copy.key, if_tag=copy.tag)
        if located is not None:
            await catalog.looked(intent.entry, located.entry.version, self._tree.now())
        await catalog.end(intent.id)

    def _copy_of(self, intent: Intent, target: Target, seen: Object) -> Copy:
        return written(intent, target, seen, self._tree.now())
