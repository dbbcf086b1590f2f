"""What must be so when all faults are over and the mover has nothing to do: each file, version, copy and object, and a
catalogue that is made anew."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.data.catalog.ports import Located
from cloudmesh.data.model import MICROS, link_of
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.testing.directories.world import InlineCatalog, World

Allowed = set[bytes | None]
"""Contents that a file may have; None: it may be absent."""


@dataclass
class Tally:
    """What was done, and what went wrong with it."""

    operations: int = 0
    faults: int = 0
    deaths: int = 0
    checks: int = 0
    lost: int = 0
    corrupt: int = 0
    unknown_copies: int = 0
    misplaced: int = 0
    rebuild_unequal: int = 0
    wrong: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing went wrong."""
        return not self.notes

    def blame(self, what: str, note: str) -> None:
        """Counts something that went wrong."""
        setattr(self, what, getattr(self, what) + 1)
        self.notes.append(f"{what}: {note}")


class Checks:
    """Compares a directory with what people may expect of it.

    Args:
        world: The directory.
        tally: Takes what goes wrong.
    """

    def __init__(self, world: World, tally: Tally) -> None:
        self.world = world
        self.tally = tally
        self.files: dict[str, Allowed] = {}
        self.trash: dict[str, dict[str, Allowed]] = {}
        self.older: dict[str, dict[int, bytes]] = {}
        """By file id and version, contents that somebody read or wrote: they are what a version may hold."""
        self.foreign: set[bytes] = set()
        """What somebody else wrote over objects of ours."""
        self.linked: dict[tuple[str, str], bytes | None] = {}
        """By store and key, what somebody else keeps there and links lead to; None for what they removed."""

    async def check(self) -> None:
        world, tally = self.world, self.tally
        tally.checks += 1
        located = [one for one in await world.catalog.walk("", limit=100000, copies=True) if one.entry.kind == "File"]
        there = {one.path: one for one in located}
        for path, allowed in list(self.files.items()):
            if path not in there:
                if None not in allowed:
                    tally.blame("lost", f"{path} isn't there, which should hold {short(allowed)}")
                del self.files[path]
        for path, one in there.items():
            allowed = self.files.get(path, {None})
            try:
                content = await world.read(path)
            except CloudmeshError as error:
                tally.blame("lost", f"{path} can't be read: {error}")
                continue
            if path not in self.files and content in self.foreign:
                # from now on it is a file like others
                allowed = {content}
                self.foreign.discard(content)
            if content not in allowed:
                tally.blame("corrupt", f"{path} holds {content[:12]!r} instead of {short(allowed)}")
            self.files[path] = {content}
            if (link := link_of(one.copies)) is not None:
                if len(one.copies) > 1 or self.linked.get((link.store, link.key)) != content:
                    tally.blame("misplaced", f"the link {path} has {one.copies}")
                continue
            wanted = sorted((await world.tree.why(path)).stores)
            if sorted(c.store for c in one.copies if c.state == "Whole") != wanted or len(one.copies) != len(wanted):
                states = [(c.store, c.state, c.version) for c in one.copies]
                tally.blame("misplaced", f"{path} v{one.entry.version} is in {states} instead of {wanted}")
            for copy in one.copies:
                held = world.place(copy.store).objects.get(copy.key)
                if held is None or held.object.tag != copy.tag or held.content != content:
                    tally.blame("corrupt", f"the copy of {path} in {copy.store} isn't what the catalogue says")
            await self._check_versions(one)
        everywhere = {there.content for name in world.names for there in world.place(name).objects.values()}
        for content in self.foreign - everywhere:
            tally.blame("lost", f"what somebody else wrote is nowhere: {content!r}")
        for (store, key), theirs in self.linked.items():
            held = world.place(store).objects.get(key)
            if (held.content if held else None) != theirs:
                tally.blame("corrupt", f"{key} in {store}, which is somebody else's, was touched")
        await self._check_trash()
        await self._check_objects()
        for words in await world.catalog.fsck():
            tally.blame("wrong", words)
        await self._check_rebuild()

    async def _check_versions(self, one: Located) -> None:
        """Older contents of a file are what they were, and as many as are kept."""
        world, told = self.world, self.older.get(one.entry.id, {})
        _, kept = await world.tree.versions(one.path)
        if len(kept) > world.config.versions:
            self.tally.blame("wrong", f"{one.path} has {len(kept)} versions, {world.config.versions} are kept")
        for thing in kept:
            version = thing.entry.version
            try:
                content = await world.read(one.path, version=version)
            except CloudmeshError as error:
                self.tally.blame("lost", f"version {version} of {one.path} can't be read: {error}")
                continue
            if told.get(version, content) != content:
                self.tally.blame("corrupt", f"version {version} of {one.path} holds {content[:12]!r}")
            told[version] = content

    async def _check_trash(self) -> None:
        world = self.world
        now = {thing.entry.id: thing for thing in await world.catalog.trash(limit=100000)}
        for entry_id in list(self.trash):
            if entry_id not in now:
                # its time may be over, by a clock that was set
                del self.trash[entry_id]
        for entry_id in now:
            self.trash.setdefault(entry_id, {})
        for one in await self.kept():
            await self._check_kept(one)

    async def kept(self) -> list[Located]:
        """Files in the trash that can still be restored, and older contents that are kept; no links."""
        catalog, now, found = self.world.catalog, self.world.now(), []
        things = {thing.entry.id: thing for thing in await catalog.trash(limit=100000, versions=True)}
        for one in await catalog.rows(limit=100000):
            if one.path or one.entry.kind == "Directory" or link_of(one.copies) is not None:
                continue
            top = one.entry
            while top.id not in things and (above := await catalog.by_id(top.parent)) is not None:
                top = above.entry
            thing = things[top.id]
            if thing.at + self.world.config.trash_seconds * MICROS <= now:
                continue
            if not thing.of or top.id in {older.entry.id for older in await self.world.tree.kept(thing.of)}:
                found.append(one)
        return found

    async def _check_kept(self, one: Located) -> None:
        """What could be brought back is what it was, in each of its copies, and in no store that is to be empty."""
        tally, entry = self.tally, one.entry
        allowed = self.trash.get(entry.id, {}).get("")
        if not any(copy.state == "Whole" for copy in one.copies):
            tally.blame("lost", f"{entry.name} in the trash has {one.copies}")
        for copy in one.copies:
            held = self.world.place(copy.store).objects.get(copy.key)
            member = self.world.member(copy.store)
            if copy.state != "Whole" or held is None or held.object.tag != copy.tag:
                tally.blame("corrupt", f"{copy.state} {copy.key} in {copy.store}, in the trash, isn't on record so")
            elif entry.sha256 and hashlib.sha256(held.content).hexdigest() != entry.sha256:
                tally.blame("corrupt", f"{copy.key} in {copy.store}, in the trash, isn't what it was")
            elif allowed is not None and held.content not in allowed:
                tally.blame("corrupt", f"{copy.key} in the trash holds {held.content[:12]!r}, not {short(allowed)}")
            if member.config.access == "Drain" and member.config.capacity is None:
                tally.blame("misplaced", f"{copy.key} is still in {copy.store}, which is to be empty")

    async def _check_objects(self) -> None:
        for store in self.world.names:
            for name in self.world.objects(store, kept=True):
                copy = await self.world.catalog.at_key(store, f"lab/{name}")
                there = self.world.place(store).objects[f"lab/{name}"]
                if copy is None or copy.tag != there.object.tag:
                    self.tally.blame("unknown_copies", f"{name} in {store}, where the catalogue has {copy}")

    async def _check_rebuild(self) -> None:
        world = self.world
        await world.journal.flush()
        path = world.folder / "rebuilt.sqlite"
        for old in world.folder.glob("rebuilt.sqlite*"):
            old.unlink()
        anew, _ = await world.rebuilt(path)
        mine, theirs = await snapshot(world.catalog), await snapshot(anew)
        anew.vanish()
        if mine != theirs:
            differing = [
                f"{key}: {mine.get(key)} became {theirs.get(key)}"
                for key in sorted(mine.keys() | theirs.keys())
                if mine.get(key) != theirs.get(key)
            ]
            self.tally.blame("rebuild_unequal", "; ".join(differing[:3]))


def short(allowed: Allowed) -> list[Any]:
    return sorted((None if c is None else c[:12] for c in allowed), key=repr)


async def snapshot(catalog: InlineCatalog) -> Mapping[str, Any]:
    """All that a rebuild must bring back, by path, and by id in the trash."""
    found: dict[str, Any] = {}
    for one in await catalog.walk("", limit=100000, copies=True):
        entry = one.entry
        copies = sorted((c.store, c.key, c.version, c.state, c.tag, c.size) for c in one.copies)
        found[one.path] = (
            entry.id, entry.parent, entry.kind, entry.size, entry.mtime, entry.sha256, entry.version, dict(entry.tags),
            entry.created, copies,
        )  # fmt: skip
    for thing in await catalog.trash(limit=100000, versions=True):
        located = await catalog.by_id(thing.entry.id)
        # the mover hasn't looked at what failed writes may have left of it
        there = [c for c in located.copies if c.state in ("Whole", "Linked")] if located else []
        held = sorted((c.store, c.key, c.version, c.tag) for c in there)
        told = (thing.path, thing.at, thing.of, thing.entry.kind, thing.entry.size, thing.entry.version)
        found[f"trash {thing.entry.id}"] = (told, held)
    return found
