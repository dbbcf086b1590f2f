"""What a process that ended left open: each intent is replayed or taken back, by what the stores themselves show."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace

from cloudmesh.data.catalog.ports import Located
from cloudmesh.data.model import Copy, Intent, Target, link_of
from cloudmesh.data.ours import digest_of
from cloudmesh.data.placement import Facts, rule_of
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.tree import Tree
from cloudmesh.data.upload import is_of, written
from cloudmesh.data.writer import STAT_SECONDS, goes_over, leftover
from cloudmesh.engine.errors import CloudmeshError, NotFound, Transient

log = logging.getLogger(__name__)


class Recovery:
    """Ends what is open.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def run(self, until: int) -> int:
        """Looks at all intents on which nobody works since then (`ALL` is right where nobody else opens the catalogue);
        gives the number of those that stay open because a store doesn't answer."""
        left = 0
        writer = self._tree.writer
        for intent in await self._tree.catalog.intents(until=until):
            if intent.id in writer.live or intent.id in writer.copying:
                # a clock that was set doesn't end what this process works on
                continue
            try:
                await self._one(intent)
            except CloudmeshError as error:
                left += 1
                log.warning("intent %s (%s of %s) stays open: %s", intent.id, intent.kind, intent.name, error)
            except Exception:
                # one that can't be ended keeps no other from its end
                left += 1
                log.exception("intent %s (%s of %s) stays open", intent.id, intent.kind, intent.name)
        return left

    async def _one(self, intent: Intent) -> None:
        catalog = self._tree.catalog
        if intent.kind == "Delete":
            # what is gone is found by the mover, which looks before it removes
            await catalog.looked(intent.entry, intent.version, self._tree.now())
            await catalog.end(intent.id)
            return
        if intent.kind == "Settle":
            await self._settle(intent)
            return
        seen, away = await self._look(intent)
        if intent.kind == "Put":
            await self._put(intent, seen, away)
        else:
            await self._copy(intent, seen, away)

    async def _look(self, intent: Intent) -> tuple[dict[str, Object], dict[str, str]]:
        """Objects of its targets that this intent wrote; and of stores that don't answer, why not."""
        found: dict[str, Object] = {}
        away: dict[str, str] = {}
        for target in intent.targets:
            member = self._tree.mesh.members.get(target.store)
            if member is None:
                continue
            if not member.up:
                away[target.store] = member.message
                continue
            try:
                async with asyncio.timeout(STAT_SECONDS):
                    seen = await member.store.stat(target.key)
                if seen is None and not await member.absence_counts():
                    away[target.store] = member.message
            except (CloudmeshError, TimeoutError) as error:
                away[target.store] = str(error) or f"no answer within {STAT_SECONDS:g} s"
                continue
            if seen is not None and is_of(intent, seen, intent.size):
                found[target.store] = seen
        return found, away

    async def _put(self, intent: Intent, seen: Mapping[str, Object], away: Mapping[str, str]) -> None:
        tree, catalog = self._tree, self._tree.catalog
        located = await catalog.by_id(intent.entry)
        # a link holds nothing of ours that a write goes over
        held = {} if located is None or link_of(located.copies) else {c.store: c for c in located.copies}
        copies = [
            self._copy_of(intent, target, seen[target.store]) for target in intent.targets if target.store in seen
        ]
        newer = located is not None and located.entry.version >= intent.version
        over = [target.store for target in intent.targets if target.store in seen and goes_over(target, held)]
        kept = located is not None and not newer and await tree.writer.proved(located.entry, held.values(), over)
        fits = bool(copies) and not newer and len({c.size for c in copies}) == 1
        if fits and (self._counting(intent, copies) or (held and not kept and not away)):
            digests = {o.attributes.get("sha256", "") for o in seen.values()} - {""}
            failed = {t.store: "the writer ended" for t in intent.targets if t.store not in seen}
            try:
                await catalog.commit_put(
                    intent.id, size=copies[0].size, whole=copies, failed=failed, due=tree.now(),
                    keep=bool(tree.mesh.config.versions),
                    sha256=intent.sha256 or (digests.pop() if len(digests) == 1 else ""),
                )  # fmt: skip
            except NotFound:
                log.info("the name of %s was given to another file, or its directory is gone", intent.name)
            else:
                log.info("the write of %s was whole and is kept", intent.name)
                return
        if held and not newer and not kept and away:
            raise Transient("; ".join(f"{store}: {why}" for store, why in away.items()))
        await self._take_back(intent, located, seen, away)

    async def _take_back(
        self, intent: Intent, located: Located | None, seen: Mapping[str, Object], away: Mapping[str, str]
    ) -> None:
        """Removes what a write that broke off made, or keeps a record of it where the mover mends it.

        Raises:
            Transient: A store in which there may be something of a new file doesn't answer.
        """
        tree, catalog = self._tree, self._tree.catalog
        held = {} if located is None else {c.store: c for c in located.copies}
        link = link_of(held.values())
        stale, was, left = [], [], []
        for target in intent.targets:
            before, there = held.get(target.store), seen.get(target.store)
            if there is None and target.store not in away:
                continue
            if link is not None or (before is not None and not goes_over(target, held)):
                tag, size = (there.tag, there.size) if there else ("", 0)
                left.append(Copy(intent.entry, target.store, target.key, intent.version, "Stale", tag, size))
            elif before is None and there is not None:
                await tree.mesh.members[target.store].store.delete(target.key, if_tag=there.tag)
            elif located is not None and not (before and there and before.state == "Whole" and before.tag == there.tag):
                stale.append(leftover(intent, target, before, there.tag if there else ""))
                was.append(before)
        if located is not None:
            await catalog.put_copies(stale, was=was, due=tree.now())
        elif away:
            raise Transient("; ".join(f"{store}: {why}" for store, why in away.items()))
        await catalog.end(intent.id, left=left)
        log.info("the write of %s had broken off and is taken back", intent.name)

    async def _settle(self, intent: Intent) -> None:
        """A copy was to get another key: of both objects the one on record stays, the other is nobody's.

        Raises:
            Transient: A store that keeps no attributes doesn't answer.
        """
        catalog, left = self._tree.catalog, []
        located = await catalog.by_id(intent.entry)
        places = set() if located is None else {(c.store, c.key) for c in located.copies}
        for target in intent.targets:
            member = self._tree.mesh.members.get(target.store)
            if member is None or (target.store, target.key) in places:
                continue
            tag = target.expect
            if not tag and not member.store.info.attributes:
                # by its content alone it is told from somebody else's
                try:
                    async with asyncio.timeout(STAT_SECONDS):
                        seen = await member.store.stat(target.key)
                except TimeoutError:
                    raise Transient(f"{member.name}: no answer within {STAT_SECONDS:g} s") from None
                if seen is None or located is None or seen.size != located.entry.size:
                    continue
                if await digest_of(member, target.key, seen) != located.entry.sha256:
                    continue
                tag = seen.tag
            left.append(Copy(intent.entry, target.store, target.key, intent.version, "Stale", tag))
        await catalog.end(intent.id, left=left)
        if located is not None:
            await catalog.looked(intent.entry, located.entry.version, self._tree.now())

    def _counting(self, intent: Intent, copies: list[Copy]) -> bool:
        """Whether so many copies could have been acknowledged."""
        tree = self._tree
        facts = Facts(intent.path, copies[0].size, intent.mtime, intent.content_type, intent.tags)
        rule, _ = rule_of(facts, tree.mesh.config.rules, tree.now())
        weak = rule.weak_copies == "Count"
        return sum(1 for c in copies if weak or tree.mesh.members[c.store].store.info.strong) >= rule.min_copies

    async def _copy(self, intent: Intent, seen: Mapping[str, Object], away: Mapping[str, str]) -> None:
        catalog = self._tree.catalog
        located = await catalog.by_id(intent.entry)
        held = {} if located is None else {c.store: c for c in located.copies}
        left = []
        for target in intent.targets:
            before, there = held.get(target.store), seen.get(target.store)
            if there is None and target.store not in away:
                continue
            if before is not None and before.state == "Whole" and before.key != target.key:
                # a put took a key of its own meanwhile
                tag, size = (there.tag, there.size) if there else ("", 0)
                left.append(Copy(intent.entry, target.store, target.key, intent.version, "Stale", tag, size))
                continue
            if before is not None and there is not None and before.tag == there.tag:
                continue
            if located is not None:
                # written, or perhaps, and nobody compared its digest: the mover does it anew
                unsure = before or Copy(intent.entry, target.store, target.key, 0, "Stale")
                unsure = replace(unsure, key=target.key, state="Stale", error="the mover ended while it wrote it")
                if there is not None:
                    # of a file in the trash nobody looks at it again before it goes
                    unsure = replace(unsure, version=intent.version, tag=there.tag, size=there.size)
                elif unsure.version <= intent.version:
                    # of no version: what of ours is found there is newer
                    unsure = replace(unsure, version=0)
                await catalog.put_copies([unsure], was=[before], due=self._tree.now())
            elif there is not None:
                await self._tree.mesh.members[target.store].store.delete(target.key, if_tag=there.tag)
            else:
                raise Transient(f"{target.store}: {away[target.store]}")
        if located is not None:
            await catalog.looked(intent.entry, located.entry.version, self._tree.now())
        await catalog.end(intent.id, left=left)

    def _copy_of(self, intent: Intent, target: Target, seen: Object) -> Copy:
        return written(intent, target, seen, self._tree.now())
