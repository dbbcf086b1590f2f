"""Follows what others do in a store: its listing is compared with the record. New objects are taken into the tree,
those that were overwritten or are gone are told to whoever mends copies.

A listing alone never removes anything: before a copy counts as gone, the store is asked for that very object, and shows
its marker. A listing that is complete and yet lacks over a fifth of what is on record isn't believed at all
(`SuspiciousShrink`) until the objects are back or a person says that it is true.
"""

from __future__ import annotations

import hashlib
import logging
import re
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Final

from cloudmesh.data import names
from cloudmesh.data.borders import Borders
from cloudmesh.data.catalog.ports import at_work
from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing, Suspicious
from cloudmesh.data.mesh import HIDDEN, KEPT, Member
from cloudmesh.data.model import MICROS, Copy
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import AuthFailed, RateLimited, Transient

log = logging.getLogger(__name__)

SHRINK_SHARE: Final = 0.2
"""A listing that lacks a larger share of what is on record isn't believed,"""
SHRINK_OBJECTS: Final = 10
"""if these are more than so many."""
SAMPLE: Final = 16
"""Objects that are asked for one by one, to tell a listing that is wrong from objects that are gone."""
MOST: Final = 100_000
"""Copies that are looked for after one listing; the next one brings the others."""
LATE_SECONDS: Final = 3600
"""For which a listing that is late may not show what was written."""
_MTIME: Final = re.compile("[1-9][0-9]{0,16}")
_AWAY: Final = (Transient, AuthFailed, RateLimited, Suspicious)
"""What says that the store is away, not that an object can't be looked at."""


class Lacking:
    """Objects that a listing lacks, as hashes: what a person believes is these, and no others.

    Args:
        copies: Hashes of them, in any order.
    """

    def __init__(self, copies: array[int]) -> None:
        self._hashes = array("Q", sorted(copies))
        digest = hashlib.blake2b(self._hashes.tobytes(), digest_size=3).hexdigest()
        self.word = f"{len(self._hashes)}-{digest}"
        """By which a person names them."""

    def __contains__(self, number: int) -> bool:
        at = bisect_left(self._hashes, number)
        return at < len(self._hashes) and self._hashes[at] == number

    def __le__(self, other: Lacking) -> bool:
        there = iter(other._hashes)
        # both in order: each is searched for behind the one before it
        return all(number in there for number in self._hashes)


def hash_of(copy: Copy) -> int:
    """Hash of a copy's object."""
    told = f"{copy.key}\0{copy.tag}".encode()
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "big")


@dataclass(slots=True)
class Scanned:
    """What a scan found.

    Args:
        objects: Objects of files in the listing.
        adopted: Files that were taken into the tree.
        changed: Objects that somebody overwrote.
        vanished: Copies that are gone.
        back: Copies that were gone and are there again.
        unreadable: Objects whose names can't be held.
        failed: Objects that couldn't be looked at.
        complete: The store says that its listing is.
        shrunk: Why the listing isn't believed; empty if it is.
        lacking: What it lacks then.
        left: A person believes that more is gone than was looked for this time.
        foreign: By prefix, directories of others that lie within this one.
    """

    objects: int = 0
    adopted: int = 0
    changed: int = 0
    vanished: int = 0
    back: int = 0
    unreadable: int = 0
    failed: int = 0
    complete: bool = True
    shrunk: str = ""
    lacking: Lacking | None = None
    left: bool = False
    foreign: dict[str, str] = field(default_factory=dict)


class Scan:
    """One comparison of one store with the record.

    Args:
        tree: The directory.
        member: The store.
        adopt: Files that no entry knows of are taken in.
        believe: A person says that these are gone; None if nobody said anything.
        page: Objects and copies that are read at once.
    """

    def __init__(
        self,
        tree: Tree,
        member: Member,
        *,
        adopt: bool = True,
        believe: Lacking | None = None,
        page: int = 1000,
    ) -> None:
        self._tree = tree
        self._member = member
        self._adopts = adopt
        self._believe = believe
        self._page = page
        self._borders = Borders(member.store, member.config.prefix)
        self._expected = 0
        self._absent = 0
        self._missing: list[Copy] = []
        self._lacking = array("Q")
        self._believed: list[Copy] = []
        self.result = Scanned()

    async def run(self) -> Scanned:
        """Compares.

        Raises:
            CloudmeshError: The store doesn't answer.
        """
        begun = self._tree.now()
        if self._member.store.info.listing == "Eventual":
            begun -= LATE_SECONDS * MICROS
        recorded = self._recorded()
        copy = await anext(recorded, None)
        async for seen in self._listed():
            while copy is not None and copy.key < seen.key:
                self._gone(copy, begun)
                copy = await anext(recorded, None)
            here = copy if copy is not None and copy.key == seen.key else None
            await self._carefully(seen, here)
            if here is not None:
                copy = await anext(recorded, None)
        while copy is not None:
            self._gone(copy, begun)
            copy = await anext(recorded, None)
        self.result.foreign = self._borders.found
        if self.result.complete:
            await self._conclude()
        return self.result

    async def _listed(self) -> AsyncIterator[Object]:
        """Objects of files."""
        after, prefix, name = "", self._member.config.prefix, len(self._member.config.prefix)
        while True:
            found = await self._member.store.list(prefix, after=after, limit=self._page)
            self.result.complete &= found.complete
            for seen in found.objects:
                self.result.objects += 1
                ours = seen.key.startswith(HIDDEN, name) and not seen.key.startswith(KEPT, name)
                if len(seen.key) > name and not ours and not seen.key.endswith("/"):
                    yield seen
            after = found.after
            if not after:
                return

    async def _recorded(self) -> AsyncIterator[Copy]:
        """Copies on record, in the order of the listing."""
        after = ""
        while page := await self._tree.catalog.held(self._member.name, after=after, limit=self._page):
            for copy in page:
                yield copy
            after = page[-1].key

    async def _carefully(self, seen: Object, copy: Copy | None) -> None:
        """Looks at one object; one that can't be looked at doesn't end the scan."""
        try:
            if copy is None:
                await self._unknown(seen)
            else:
                await self._known(seen, copy)
        except _AWAY:
            raise
        except Exception:
            self.result.failed += 1
            log.exception("%s in %s can't be looked at", seen.key, self._member.name)

    # -- what is on record

    async def _known(self, seen: Object, copy: Copy) -> None:
        if copy.state == "Whole":
            self._expected += 1
        same = bool(seen.tag) and seen.tag == copy.tag and seen.size == copy.size
        if copy.state == "Missing" and same:
            found: Copy = replace(copy, state="Whole", verified=self._tree.now(), error="")
            await self._tree.catalog.put_copies([found], was=[copy], due=self._tree.now())
            self.result.back += 1
        elif copy.state == "Whole" and copy.tag and seen.tag and not same:
            await self._changed(copy)
        elif copy.state == "Linked" and (not same or copy.error):
            # the mover asks for the object itself
            await self._tree.catalog.looked(copy.entry, copy.version, self._tree.now())

    async def _changed(self, copy: Copy) -> None:
        """Another object than that on record, if it still is: writes go on meanwhile."""
        tree, member = self._tree, self._member
        if copy.entry in tree.writer.live.values():
            return
        seen, now = await member.store.stat(copy.key), await tree.catalog.at_key(member.name, copy.key)
        if seen is None or now != copy or (seen.tag == copy.tag and seen.size == copy.size):
            return
        if await at_work(tree.catalog, copy.entry):
            return
        self.result.changed += 1
        log.warning("%s in %s was overwritten by somebody else", copy.key, member.name)
        # the mover gives what lies there now an entry of its own, and brings this copy back beside it
        await tree.found_bad(copy, member, Changed(f"{copy.key} was overwritten by somebody else"))

    def _gone(self, copy: Copy, begun: int) -> None:
        """A copy that the listing lacks; what was written since it began may not be in it."""
        if copy.state != "Whole" or copy.verified >= begun:
            return
        self._expected += 1
        number = hash_of(copy)
        if self._believe is not None and number in self._believe:
            if len(self._believed) < MOST:
                self._believed.append(copy)
            else:
                self.result.left = True
            return
        self._absent += 1
        self._lacking.append(number)
        if len(self._missing) < MOST:
            self._missing.append(copy)

    async def _conclude(self) -> None:
        """What the listing lacks is asked for, unless that is too much to be true."""
        await self._ask_for(self._believed)
        if self._absent <= max(SHRINK_OBJECTS, SHRINK_SHARE * self._expected):
            await self._ask_for(self._missing)
            return
        lacking = self.result.lacking = Lacking(self._lacking)
        some = self._missing[:: max(1, len(self._missing) // SAMPLE)][:SAMPLE]
        there = [copy.key for copy in some if await self._member.store.stat(copy.key) is not None]
        said = f"`cms vdir believe {self._member.name} {self._tree.mesh.config.name} --seen {lacking.word}`"
        if there:
            log.warning("the listing of %s lacks %s, which is there", self._member.name, there[0])
            why = f"though {len(there)} of {len(some)} that were asked for are there ({said})"
        else:
            why = f"if they were removed on purpose, say so with {said}; else bring them back"
        self.result.shrunk = (
            f"SuspiciousShrink: its listing lacks {self._absent} of {self._expected} objects on record, {why}"
        )

    async def _ask_for(self, missing: list[Copy]) -> None:
        """Each by itself: what isn't there is lost."""
        for copy in missing:
            if await self._member.store.stat(copy.key) is not None:
                continue
            if not await self._member.absence_counts():
                raise Suspicious(f"store {self._member.name} isn't believed: {self._member.message}")
            if await self._tree.catalog.at_key(self._member.name, copy.key) == copy:
                self.result.vanished += 1
                await self._tree.found_bad(copy, self._member, Missing(f"{copy.key} isn't there any more"))

    # -- what isn't

    async def _unknown(self, seen: Object) -> None:
        tree, member = self._tree, self._member
        prefix = member.config.prefix
        # each is asked for by itself: not where nothing may be taken in
        if not self._adopts or seen.key.startswith(prefix + KEPT):
            return
        # an open write may be making it
        if await tree.catalog.at_key(member.name, seen.key) is not None or await self._borders.foreign(seen.key):
            return
        try:
            path = names.clean_path(names.path_of(prefix, seen.key, member.store.info))
        except InvalidName as error:
            self.result.unreadable += 1
            log.warning("%s in %s can't be a file of the directory: %s", seen.key, member.name, error)
            return
        whole = await member.store.stat(seen.key)
        if whole is None or await self._rest(whole):
            return
        # anybody may have written these, and a digest that isn't its own would make it unreadable: whoever reads it
        # first finds out
        told = whole.attributes.get("mtime", "")
        mtime = int(told) if _MTIME.fullmatch(told) else max(0, whole.modified)
        copy = Copy("", member.name, whole.key, 1, "Whole", whole.tag, whole.size, tree.now())
        # a name that is taken stays with the file that has it
        for candidate in (path, f"{path}.~{member.name}"):
            try:
                entry = await tree.catalog.adopt(candidate, copy, mtime=mtime)
            except Exists:
                continue
            await tree.catalog.looked(entry.id, entry.version, tree.now())
            self.result.adopted += 1
            return

    async def _rest(self, whole: Object) -> bool:
        """Whether an object is a rest of ours: the mover compares it, and keeps or removes it. One that somebody copied
        or renamed in the store carries our attributes too, and isn't."""
        tree, member = self._tree, self._member
        entry_id, at = whole.attributes.get("id", ""), whole.attributes.get("at")
        if at is not None and at != names.mark_of(member.config.prefix, whole.key):
            return False
        located = await tree.catalog.by_id(entry_id) if entry_id else None
        if located is None or located.entry.kind != "File":
            return False
        if any(copy.store == member.name for copy in located.copies):
            # written by a gateway that didn't keep where, it may be anything
            return at is not None or await at_work(tree.catalog, entry_id)
        why = "found in the store"
        # without a tag: nobody has compared it, and an edit may have kept our attributes
        rest = Copy(entry_id, member.name, whole.key, 0, "Stale", "", whole.size, tree.now(), error=why)
        await tree.catalog.put_copies([rest])
        await tree.catalog.looked(entry_id, located.entry.version, tree.now())
        return True


async def scan(
    tree: Tree, member: Member, *, adopt: bool = True, believe: Lacking | None = None, page: int = 1000
) -> Scanned:
    """Compares a store with the record once, see `Scan`."""
    return await Scan(tree, member, adopt=adopt, believe=believe, page=page).run()
