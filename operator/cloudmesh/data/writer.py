"""Writing a file: choose stores, keep an intent, stream to all of them, commit, or take back."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import ABSENT, ANY, Catalog
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, ReadOnly
from cloudmesh.data.mesh import Member, Mesh, own_path
from cloudmesh.data.model import MICROS, Copy, Entry, Intent, Target
from cloudmesh.data.placement import Chosen, Facts, choose
from cloudmesh.data.upload import Outcome, SourceFailed, upload
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

log = logging.getLogger(__name__)

LEASE = 60 * MICROS
"""An upload that isn't renewed for so long is somebody's who died."""
SMALL = 1 << 20
"""A content whose size isn't told is read so far before its stores are chosen."""
WAIT_SECONDS = 10.0
"""How long a write waits for another one of the same file."""


class Writer:
    """Writes files of one directory.

    Args:
        catalog: Its catalogue.
        mesh: Its stores, and how they are used.
        now: Microseconds.
        stir: Called when the mover has something to do.
    """

    def __init__(self, catalog: Catalog, mesh: Mesh, *, now: Callable[[], int], stir: Callable[[], None]) -> None:
        self.catalog = catalog
        self.mesh = mesh
        self.now = now
        self._stir = stir
        self._writing: dict[str, asyncio.Lock] = {}

    @property
    def config(self) -> DirectoryConfig:
        """How the directory is to be."""
        return self.mesh.config

    async def put(
        self,
        path: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        mtime: int | None = None,
        sha256: str = "",
        content_type: str = "",
        tags: Mapping[str, str] | None = None,
        if_version: int = ANY,
    ) -> Entry:
        """Writes a file: acknowledged when `minCopies` stores hold it.

        Args:
            path: Where; directories are made.
            chunks: The content.
            size: Bytes, None if unknown.
            mtime: When it was changed, None for now.
            sha256: Digest that it must have, empty for any.
            content_type: Media type.
            tags: Tags of a new file.
            if_version: Only over this version, `ABSENT` for a new file only, `ANY` for whatever is there.

        Raises:
            Changed: `if_version` doesn't fit.
            InvalidName: The path can't be held, or is a directory.
            Full: Quota or stores are full.
            Transient: Not enough stores answer.
            SourceFailed: The content broke off: what was there is still there.
        """
        clean = own_path(path)
        lock = self._writing.setdefault(clean, asyncio.Lock())
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await lock.acquire()
        except TimeoutError:
            raise Conflict(f"'{clean}' is being written by somebody else: try again") from None
        try:
            stream, size = await _sized(chunks, size)
            return await self._put(
                clean, stream, size, mtime=mtime, sha256=sha256, content_type=content_type, tags=tags,
                if_version=if_version,
            )  # fmt: skip
        finally:
            lock.release()
            if not lock.locked() and not getattr(lock, "_waiters", None):
                self._writing.pop(clean, None)

    async def _put(
        self,
        path: str,
        chunks: AsyncIterable[bytes],
        size: int | None,
        *,
        mtime: int | None,
        sha256: str,
        content_type: str,
        tags: Mapping[str, str] | None,
        if_version: int,
    ) -> Entry:
        now = self.now()
        old = await self.catalog.entry(path)
        _check(path, old, if_version)
        left = await self._left(old, size or 0)
        parent, _, name = path.rpartition("/")
        entry_id = old.id if old else secrets.token_hex(8)
        held = {} if old is None else {c.store: c for c in await self.catalog.copies(old.id)}
        facts = Facts(path, size or 0, mtime or now, content_type, dict(tags or {}) or (dict(old.tags) if old else {}))
        whole = frozenset(c.store for c in held.values() if c.state == "Whole")
        chosen = choose(facts, self.config.rules, self.mesh.views(), now, holding=whole)
        if not chosen.enough:
            raise self._not_enough(chosen, path)
        targets = [await self.target(self.mesh.members[s], path, entry_id, held.get(s)) for s in chosen.stores]
        version = old.version + 1 if old else 1
        intent = Intent(
            secrets.token_hex(8), "Put", entry_id, parent, name, version, tuple(targets), now + LEASE, sha256,
            -1 if size is None else size, mtime or now, content_type, dict(tags or {}),
        )  # fmt: skip
        await self.catalog.begin(intent, if_version=old.version if old else ABSENT)
        members = [self.mesh.members[t.store] for t in targets]
        renewing = asyncio.create_task(self._renew(intent.id))
        for member in members:
            member.reserved += size or 0
        try:
            outcome = await upload(intent, members, chunks, _limit(left), now)
        except BaseException as error:
            # every store was told to keep what it had; one that didn't is found by the recovery of the intent
            if isinstance(error, SourceFailed | CloudmeshError) and await self._nothing_written(intent):
                await self.catalog.end(intent.id)
            raise
        finally:
            renewing.cancel()
            for member in members:
                member.reserved -= size or 0
        return await self._conclude(intent, chosen, outcome, list(held.values()))

    async def _conclude(self, intent: Intent, chosen: Chosen, outcome: Outcome, held: Sequence[Copy]) -> Entry:
        """Commits a write that is in enough stores; takes back or keeps what is in too few."""
        weak = chosen.rule.weak_copies == "Count"
        counting = sum(1 for c in outcome.whole if weak or self.mesh.members[c.store].store.info.strong)
        overwritten = {c.store for c in outcome.whole} | set(outcome.unknown)
        kept = [c for c in held if c.state == "Whole" and c.store not in overwritten]
        enough = counting >= chosen.rule.min_copies
        if not enough and (kept or not held):
            await self._take_back(intent, outcome, held)
            raise outcome.error or self._not_enough(chosen, intent.name)
        if not outcome.whole:
            # nothing of the old content may be left either: the intent stays, and its recovery looks again
            raise outcome.error or Transient(f"'{intent.name}' could not be written")
        missing = len(outcome.whole) < chosen.rule.copies or bool(outcome.failed) or bool(outcome.unknown)
        entry = await self.catalog.commit_put(
            intent.id,
            size=outcome.size,
            sha256=outcome.sha256,
            whole=outcome.whole,
            failed=outcome.failed | outcome.unknown,
            due=self.now() if missing or self._wants_look(chosen, intent, outcome) else self._verify_at(chosen),
        )
        self._stir()
        if not enough:
            raise Transient(
                f"'{intent.name}' is in {counting} stores instead of {chosen.rule.min_copies}; its old content was"
                f" overwritten there: {outcome.error}"
            )
        return entry

    def _wants_look(self, chosen: Chosen, intent: Intent, outcome: Outcome) -> bool:
        """Whether the size, when it became known, may change where the file belongs."""
        return intent.size < 0 and outcome.size > 0

    def _verify_at(self, chosen: Chosen) -> int:
        verify = self.now() + self.config.verify_seconds * MICROS if self.config.verify_seconds else 0
        return min(filter(None, (verify, chosen.changes_at)), default=0)

    async def _take_back(self, intent: Intent, outcome: Outcome, held: Sequence[Copy]) -> None:
        """Removes what a failed write made, so that nothing unknown is left; what can't be removed stays an intent."""
        before = {c.store: c for c in held}
        whole, clean = {c.store: c for c in outcome.whole}, not outcome.unknown
        stale = []
        for store, copy in whole.items():
            if store in before:
                # it holds the new content: the mover brings back the old one
                stale.append(
                    replace(before[store], state="Stale", error="overwritten by a write that failed", tag=copy.tag)
                )
                continue
            try:
                await self.mesh.members[store].store.delete(copy.key, if_tag=copy.tag)
            except CloudmeshError as error:
                log.warning("%s in %s could not be taken back: %s", copy.key, store, error)
                clean = False
        if stale:
            await self.catalog.put_copies(stale)
            await self.catalog.looked(intent.entry, intent.version - 1, self.now())
            self._stir()
        if clean:
            await self.catalog.end(intent.id)

    async def _nothing_written(self, intent: Intent) -> bool:
        """Whether no store has anything of an upload that was broken off."""
        for target in intent.targets:
            try:
                async with asyncio.timeout(10):
                    seen = await self.mesh.members[target.store].store.stat(target.key)
            except (CloudmeshError, TimeoutError, KeyError):
                return False
            if seen is not None and seen.attributes.get("write") == intent.id:
                return False
        return True

    async def _renew(self, intent_id: str) -> None:
        while True:
            await asyncio.sleep(LEASE / MICROS / 3)
            await self.catalog.renew(intent_id, self.now() + LEASE)

    async def target(self, member: Member, path: str, entry_id: str, held: Copy | None) -> Target:
        """Where a file's copy in a store goes, and what must be there: never over something that isn't the file's."""
        info = member.store.info
        if held is not None and held.state in ("Whole", "Stale", "Corrupt"):
            if held.state == "Whole" and held.tag:
                return Target(member.name, held.key, held.tag)
            seen = await member.store.stat(held.key)
            return Target(member.name, held.key, seen.tag if seen else "")
        key = held.key if held else names.key_of(member.config.prefix, path, info)
        other = await self.catalog.at_key(member.name, key)
        if other is not None and other.entry != entry_id:
            key = names.key_of(member.config.prefix, f"{path}.~{entry_id}", info)
        if held is not None or info.conditional == "None" or not self.config.adopt:
            seen = await member.store.stat(key)
            if seen is not None and seen.attributes.get("id") != entry_id:
                key = names.key_of(member.config.prefix, f"{path}.~{entry_id}", info)
                seen = await member.store.stat(key)
            return Target(member.name, key, seen.tag if seen else "")
        return Target(member.name, key)

    async def _left(self, old: Entry | None, size: int) -> int | None:
        """Bytes that a file may have by the quota, None without one."""
        config = self.config
        if config.quota_bytes is None and config.quota_files is None:
            return None
        totals = await self.catalog.totals()
        if config.quota_files is not None and old is None and totals.files >= config.quota_files:
            raise Full(f"the directory's quota of {config.quota_files} files is used up")
        if config.quota_bytes is None:
            return None
        left = config.quota_bytes - totals.bytes + (old.size if old else 0)
        if size > max(left, old.size if old else 0):
            raise Full(f"the directory's quota of {config.quota_bytes} bytes would be exceeded by this file")
        return max(left, size)

    def _not_enough(self, chosen: Chosen, path: str) -> CloudmeshError:
        facts = Facts(path, 0)
        told = choose(facts, self.config.rules, self.mesh.views(), self.now(), explain=True)
        reasons = [f"{v.store}: {v.why}" for v in told.verdicts if not v.chosen]
        message = (
            f"rule '{chosen.rule.name}' needs {chosen.rule.min_copies} copies before a write is acknowledged, and"
            f" {chosen.counting} stores can take one ({'; '.join(reasons) or 'there are no others'})"
        )
        if all("doesn't answer" not in reason for reason in reasons):
            return ReadOnly(message) if any("read-only" in reason for reason in reasons) else Full(message)
        return Transient(message)


def _check(path: str, old: Entry | None, if_version: int) -> None:
    if old is not None and old.kind == "Directory":
        raise InvalidName(f"'{path}' is a directory")
    if if_version == ABSENT and old is not None:
        raise Exists(f"'{path}' is there already")
    if if_version > 0 and (old is None or old.version != if_version):
        raise Changed(f"'{path}' is of version {old.version if old else 'none'}, not {if_version}")


async def _sized(chunks: AsyncIterable[bytes], size: int | None) -> tuple[AsyncIterable[bytes], int | None]:
    """The stream, and its size where it is known or small."""
    if size is not None:
        return chunks, size
    iterator, total = aiter(chunks), 0
    first: list[bytes] = []
    while total <= SMALL:
        try:
            chunk = await anext(iterator)
        except StopAsyncIteration:
            return _chain(first, None), total
        first.append(chunk)
        total += len(chunk)
    return _chain(first, iterator), None


async def _chain(first: list[bytes], rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    for chunk in first:
        yield chunk
    if rest is not None:
        async for chunk in rest:
            yield chunk


def _limit(left: int | None) -> Callable[[int], None]:
    """Refuses more bytes than the quota has, when the size wasn't told before."""

    def check(size: int) -> None:
        if left is not None and size > left:
            raise Full(f"the directory's quota would be exceeded by this file: it has room for {left} bytes")

    return check
