"""What all parts of the mover work with: the directory, what was done so far, and the bytes of a copy, compared."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

from cloudmesh.data import names
from cloudmesh.data.config import Counters
from cloudmesh.data.errors import Missing
from cloudmesh.data.mesh import HIDDEN, Member
from cloudmesh.data.model import MICROS, TRASH, Copy, Intent, Work
from cloudmesh.data.strangers import take_in
from cloudmesh.data.tree import Tree
from cloudmesh.data.writer import LEASE
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient


@dataclass(slots=True)
class Done:
    """What the mover did since it began, for metrics.

    Args:
        written: Copies that were made.
        written_bytes: Of those.
        repaired: Those of them that took the place of one that was lost, damaged or out of date.
        dropped: Copies that were removed.
        trashed: Those of them that were of something deleted or replaced whose time was over.
        scrubbed: Copies that were read and found whole.
        corrupt: Copies whose bytes weren't those on record.
        failed: Actions that failed; they are tried again.
        settled: Objects that got the names that their files have by now.
        shifted: Copies that went to an emptier store.
        conflicts: Files that were made, or got their content, of what somebody else wrote over a copy.
        conflict: Path of the last one.
    """

    written: int = 0
    written_bytes: int = 0
    repaired: int = 0
    dropped: int = 0
    trashed: int = 0
    scrubbed: int = 0
    corrupt: int = 0
    failed: int = 0
    settled: int = 0
    shifted: int = 0
    conflicts: int = 0

    def told(self) -> Counters:
        """What the gateway tells of it."""
        return Counters(
            verified=self.scrubbed, damaged=self.corrupt, repaired=self.repaired, settled=self.settled,
            shifted=self.shifted, trash_removed=self.trashed, conflicts=self.conflicts,
        )  # fmt: skip

    def found_conflict(self) -> None:
        """Somebody else's content is that of a file now."""
        self.conflicts += 1


class Corrupted(CloudmeshError):
    """The bytes of a copy have another digest than the one on record."""

    reason = "Corrupted"


class SourceBad(CloudmeshError):
    """Reading the source failed, not writing the target."""

    def __init__(self, error: CloudmeshError) -> None:
        super().__init__(str(error))
        self.error = error


class Hands:
    """Of one directory's mover.

    Args:
        tree: The directory.
    """

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.catalog = tree.catalog
        self.mesh = tree.mesh
        self.done = Done()

    def member(self, store: str) -> Member:
        """A store of the directory.

        Raises:
            Conflict: It isn't one any more.
        """
        member = self.mesh.members.get(store)
        if member is None:
            raise Conflict(f"{store} isn't a store of this directory any more")
        return member

    @contextlib.contextmanager
    def living(self, intent: Intent) -> Iterator[None]:
        """While an intent is worked on nobody takes it for what a process that ended left."""
        live = self.tree.writer.copying
        live.add(intent.id)
        renewing = asyncio.create_task(self._renew(intent.id))
        try:
            yield
        finally:
            renewing.cancel()
            live.discard(intent.id)

    async def _renew(self, intent_id: str) -> None:
        with contextlib.suppress(Missing):
            while True:
                await asyncio.sleep(LEASE / MICROS / 3)
                with contextlib.suppress(Transient):
                    await self.catalog.renew(intent_id, self.tree.now() + LEASE)

    async def checked(self, reader: Member, source: Copy, sha256: str, digest: hashlib._Hash) -> AsyncIterator[bytes]:
        """The bytes of a copy, taken into `digest`.

        Raises:
            SourceBad: It can't be read, or, at the end, they aren't those of the digest on record (if there is one).
        """
        try:
            async for chunk in reader.read(source.key, if_tag=source.tag):
                digest.update(chunk)
                yield chunk
        except CloudmeshError as error:
            raise SourceBad(error) from error
        if sha256 and digest.hexdigest() != sha256:
            raise SourceBad(Corrupted(f"digest {digest.hexdigest()} instead of {sha256}"))

    async def found_bad(self, reader: Member, source: Copy, error: CloudmeshError) -> None:
        """Keeps what reading a copy said of it, or of its store."""
        if isinstance(error, Corrupted):
            self.done.corrupt += 1
            corrupt = replace(source, state="Corrupt", error=str(error))
            await self.catalog.put_copies([corrupt], was=[source], due=self.tree.now())
        else:
            await self.tree.found_bad(source, reader, error)

    async def was(self, work: Work) -> str:
        """Path by which something in the trash is placed: that of the file whose older content it is, else where it was
        itself, or a directory above it; empty if it isn't there any more."""
        located = await self.catalog.by_id(work.of or work.entry.id)
        if located is not None and located.path:
            return located.path if work.of else ""
        # an older content may outlive its file for a moment
        here, below = located.entry if located is not None else work.entry, list[str]()
        while here.parent != TRASH:
            above = await self.catalog.by_id(here.parent)
            if above is None:
                return ""
            below.append(here.name)
            here = above.entry
        top = await self.catalog.thrown(here.id)
        return "/".join([top.path, *reversed(below)]) if top is not None else ""

    async def take_in(self, work: Work, member: Member, key: str) -> None:
        """What somebody else wrote where a copy of ours was becomes a file of its own."""
        if key.startswith(member.key(HIDDEN)):
            # nothing in our own folder is a file
            return
        path = work.path or names.path_of(member.config.prefix, key, member.store.info)
        if await take_in(self.tree, member, key, path) is not None:
            self.done.found_conflict()
