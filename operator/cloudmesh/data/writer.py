"""Writing a file: choose stores, keep an intent, stream to all of them, commit, or take back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudmesh.data import names
from cloudmesh.data.aiming import Aim
from cloudmesh.data.allowance import Allowance, Grant
from cloudmesh.data.catalog.ports import ABSENT, ANY, Catalog
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.content import Kept, sized
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing, ReadOnly, Weak
from cloudmesh.data.memory import BEGINNING, Memory, of_read, of_write
from cloudmesh.data.mesh import Member, Mesh, own_path
from cloudmesh.data.model import MICROS, TRASH, Copy, Entry, Intent, Target, link_of
from cloudmesh.data.placement import Chosen, Facts, choose, counts, nameless, weakness
from cloudmesh.data.plan import SETTLE_AFTER
from cloudmesh.data.room import Room
from cloudmesh.data.upload import Later, Outcome, SourceFailed, upload
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, Transient

log = logging.getLogger(__name__)

LEASE = 60 * MICROS
"""An upload that isn't renewed for so long is somebody's who died."""
STAT_SECONDS = 10.0
SOON = 30 * MICROS
"""The mover looks by itself as often."""
WAITS = (0.0, 0.05, 0.2, 0.5)
"""Seconds between tries to begin a write."""
PLAIN = ("", "application/octet-stream")
"""Media types that say nothing."""
WAIT_SECONDS = 10.0
"""How long a write waits for another one of the same file."""


class Writer:
    """Writes files of one directory.

    Args:
        catalog: Its catalogue.
        mesh: Its stores, and how they are used.
        now: Microseconds.
        stir: Called when the mover has something to do.
        journaled: Returns when what was committed is in a store's journal too.
        memory: What transfers may take of it.
    """

    def __init__(
        self,
        catalog: Catalog,
        mesh: Mesh,
        *,
        now: Callable[[], int],
        stir: Callable[[], None],
        journaled: Callable[[], Awaitable[None]],
        memory: Memory | None = None,
    ) -> None:
        self.catalog = catalog
        self.mesh = mesh
        self.now = now
        self._stir = stir
        self._journaled = journaled
        self.memory = memory or Memory()
        self.aim = Aim(catalog, mesh)
        self.target = self.aim.target
        self.allowance = Allowance(catalog, lambda: self.config)
        self._writing: dict[str, asyncio.Lock] = {}
        self.live: dict[str, str] = {}
        """Writes that this process works on: intents and their entries."""
        self.copying: set[str] = set()
        """Intents that the mover works on."""

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
            Changed: `if_version` doesn't fit, or the file was deleted while it was written.
            InvalidName: The path can't be held, by any store that the rule allows, or is a directory.
            Full: Quota or stores are full.
            Transient: Not enough stores answer.
            SourceFailed: The content broke off: what was there is still there.
        """
        clean = own_path(path)
        lock = self._writing.setdefault(clean, asyncio.Lock())
        try:
            # one that nobody has or waits for needs no clock
            taken = lock.locked() or getattr(lock, "_waiters", None)
            async with asyncio.timeout(WAIT_SECONDS) if taken else contextlib.nullcontext():
                await lock.acquire()
        except TimeoutError:
            raise Conflict(f"'{clean}' is being written by somebody else: try again") from None
        beginning = contextlib.AsyncExitStack()
        try:
            if size is None:
                # what is refused anyway is refused before anything is read
                _check(clean, await self.catalog.entry(clean), if_version)
                await beginning.enter_async_context(self.memory.beginnings.taken(BEGINNING))
            stream, size = await sized(chunks, size)
            wish = _Wish(clean, size, mtime, sha256, content_type, dict(tags or {}), if_version)
            begun = await self._begin_surely(wish)
            try:
                entry = await self._put(begun, stream)
            finally:
                self.live.pop(begun.intent.id, None)
                begun.grant.release()
            carried = all(t.key == own_key(begun.members[t.store], clean) for t in begun.intent.targets)
            kept = begun.old is not None and self.config.versions
            if entry.tags or entry.content_type not in PLAIN or kept or not carried:
                # what no object carries, such as its name if it lies elsewhere, and rules or people come back to
                await self._journaled()
            return entry
        finally:
            await beginning.aclose()
            lock.release()
            if not lock.locked() and not getattr(lock, "_waiters", None):
                self._writing.pop(clean, None)

    async def _begin_surely(self, wish: _Wish) -> _Begun:
        """Begins; tries again where somebody moved or deleted the file just then, or a store turns out to be away."""
        for wait in WAITS:
            up = len(self.mesh.up())
            try:
                return await self._begin(wish)
            except Changed:
                if wish.if_version != ANY:
                    raise
            except CloudmeshError as error:
                if len(self.mesh.up()) >= up and not isinstance(error, Conflict):
                    raise
            await asyncio.sleep(wait)
        return await self._begin(wish)

    async def _begin(self, wish: _Wish) -> _Begun:
        now, path, size, mtime, tags = self.now(), wish.path, wish.size, wish.mtime, wish.tags
        members, under = dict(self.mesh.members), self._under()
        old = await self.catalog.entry(path)
        _check(path, old, wish.if_version)
        parent, _, name = path.rpartition("/")
        entry_id = old.id if old else secrets.token_hex(8)
        copies = () if old is None else await self.catalog.copies(old.id)
        # a linked object is nothing to write over
        held = {c.store: c for c in copies if c.state != "Linked"}
        facts = Facts(path, size or 0, mtime or now, wish.content_type, tags or (dict(old.tags) if old else {}))
        whole = frozenset(c.store for c in held.values() if c.state == "Whole" and old and c.version == old.version)
        # unknown is at least something; an older content that is kept makes no room
        beside = bool(self.config.versions)
        growth = 1 if size is None else size - (old.size if old and not beside else 0)
        chosen = choose(facts, self.config.rules, self.mesh.views(), now, holding=whole, growth=growth)
        if not beside and self.allowance.may_refuse(old, whole, chosen, size):
            # nothing that was there may be written over where the write may be refused in the end
            beside, growth = True, 1 if size is None else size
            chosen = choose(facts, self.config.rules, self.mesh.views(), now, holding=whole, growth=growth)
        if not chosen.enough:
            raise self._not_enough(facts, whole, growth)
        intent_id = secrets.token_hex(8)
        grant = await self.allowance.grant(old, whole, chosen, size)
        try:
            try:
                targets = [
                    await self.aim.target_of(
                        members[s], path, intent_id, entry_id, held.get(s), whole if beside else ()
                    )
                    for s in chosen.stores
                ]
            except KeyError as error:
                raise Conflict(f"store {error} was just taken out of the directory: try again") from None
            # a copy may hold the content of a write that failed, under a version that must never mean another one
            dead = [i.version for i in await self.catalog.intents(until=0) if i.entry == entry_id] if old else []
            aside = [thing.entry.version for thing in await self.catalog.versions(entry_id, over=True)] if old else []
            version = max([old.version, *(copy.version for copy in held.values()), *dead, *aside]) + 1 if old else 1
            intent = Intent(
                intent_id, "Put", entry_id, parent, name, version, tuple(targets), now + LEASE, wish.sha256,
                -1 if size is None else size, mtime or now, wish.content_type, tags,
            )  # fmt: skip
            self.live[intent.id] = entry_id
            try:
                await self.catalog.begin(intent, if_version=old.version if old else ABSENT)
            except BaseException:
                self.live.pop(intent.id, None)
                raise
        except BaseException:
            grant.release()
            raise
        leaves = bool(held.keys() - set(chosen.stores))
        used = {t.store: members[t.store] for t in targets}
        return _Begun(intent, chosen, old, used, grant, under, leaves, held, whole, beside)

    def _under(self) -> object:
        """What a choice of stores depends on; the mover looks where it changed while a file was written."""
        return self.config.rules, self.config.stores, tuple(member.name for member in self.mesh.up())

    async def _put(self, begun: _Begun, chunks: AsyncIterable[bytes]) -> Entry:
        renewing = Later(LEASE / MICROS / 3, lambda: self._renew(begun.intent.id))
        spare = begun.old.size if begun.old is not None and not begun.beside else 0
        room, content = Room(begun.intent.size, spare, begun.whole), Kept(chunks)
        try:
            outcome = await self._upload(begun, begun.intent, content.chunks(), room)
            while self._counting(begun, outcome) < begun.chosen.rule.min_copies and (
                stores := self._others(begun, outcome)
            ):
                if not await self._elsewhere(begun, outcome, stores, content, room):
                    break
            entry = await self._conclude(begun, outcome)
        except BaseException as error:
            await self._give_up(begun, error)
            raise
        else:
            room.release([copy.store for copy in outcome.whole])
            return entry
        finally:
            renewing.cancel()
            room.release()

    async def _upload(
        self, begun: _Begun, intent: Intent, chunks: AsyncIterable[bytes], room: Room, more: int = 0
    ) -> Outcome:
        """Writes to the targets of an intent, when there is memory for it and `more` bytes."""
        members = [begun.members[target.store] for target in intent.targets]
        for member in members:
            room.enter(member)
        needed = sum(of_write(member.store.info, intent.size) for member in members) + more
        async with self.memory.writes.taken(needed):
            with contextlib.ExitStack() as stack:
                for member in members:
                    stack.enter_context(member.used())
                grow = room.grow if intent.size < 0 else None
                return await upload(intent, members, chunks, begun.grant.grow, self.now(), grow)

    @staticmethod
    def _counting(begun: _Begun, outcome: Outcome) -> int:
        """Copies that are there and count."""
        rule = begun.chosen.rule
        return sum(1 for c in outcome.whole if counts(rule, begun.members[c.store].store.info))

    def _others(self, begun: _Begun, outcome: Outcome) -> list[str]:
        """Stores that can take the place of those that failed, so that the write can be acknowledged; none if there are
        too few, or what failed is that somebody else writes there."""
        if outcome.error is None or outcome.differs or isinstance(outcome.error, Changed):
            return []
        intent, rule, members = begun.intent, begun.chosen.rule, self.mesh.members
        path, size = intent.path, max(0, intent.size, outcome.size)
        facts = Facts(path, size, intent.mtime, intent.content_type, intent.tags)
        views = [view for view in self.mesh.views() if view.config.name not in begun.members]
        found = choose(facts, (rule,), views, self.now()).stores if views else ()
        lacking = rule.min_copies - self._counting(begun, outcome)
        fit = [store for store in found if counts(rule, members[store].store.info)][:lacking]
        return fit if len(fit) == lacking else []

    async def _elsewhere(
        self, begun: _Begun, outcome: Outcome, stores: Sequence[str], content: Kept, room: Room
    ) -> bool:
        """Writes to further stores what is kept of the content, or a store that didn't fail has; False if it can't."""
        intent, source = begun.intent, next(iter(outcome.whole), None)
        if not content.again and source is None:
            others = f"too much of the content had come by then to go on elsewhere, and {', '.join(stores)} can take it"
            if isinstance(outcome.error, Full):
                # the next one whose size nobody tells would come to the same end
                outcome.error = Full(f"{outcome.error}; {others}: send it again, and its size before")
            else:
                outcome.error = Transient(f"{outcome.error}; {others}: send it again")
            return False
        path, spared = intent.path, begun.whole if begun.beside else ()
        try:
            self.allowance.elsewhere(begun.grant, begun.chosen.rule, [*(c.store for c in outcome.whole), *stores])
            members = {store: self.mesh.members[store] for store in stores}
            targets = tuple([
                await self.aim.target_of(member, path, intent.id, intent.entry, begun.held.get(store), spared)
                for store, member in members.items()
            ])  # fmt: skip
            await self.catalog.aim(intent.id, targets)
        except (CloudmeshError, KeyError) as error:
            log.warning("'%s' can't be written to %s instead: %s", path, ", ".join(stores), error)
            outcome.error = error if isinstance(error, Full) else outcome.error
            return False
        log.warning("'%s' is written to %s instead: %s", path, ", ".join(stores), outcome.error)
        begun.intent = replace(intent, targets=(*intent.targets, *targets))
        begun.members = {**begun.members, **members}
        wanted, chunks, more = replace(intent, targets=targets), content.chunks(), 0
        if not content.again and source is not None:
            reader = begun.members[source.store]
            wanted = replace(wanted, size=outcome.size, sha256=outcome.sha256)
            chunks, more = reader.read(source.key, if_tag=source.tag), of_read(reader.store.info, outcome.size)
        try:
            outcome.add(await self._upload(begun, wanted, chunks, room, more))
        except (SourceFailed, InvalidRequest) as error:
            if content.again:
                raise
            log.warning("'%s' could not be read back from %s: %s", path, source.store if source else "", error)
            outcome.unknown |= {target.store: "it was broken off" for target in targets}
            return False
        return True

    async def _give_up(self, begun: _Begun, error: BaseException) -> None:
        """Ends an intent that came to nothing, or leaves it to the recovery at once."""
        with contextlib.suppress(CloudmeshError):
            # every store was told to keep what it had; one that didn't is found by the recovery
            if not isinstance(error, _Undecided) and await self._nothing_written(begun):
                await self.catalog.end(begun.intent.id)
            else:
                await self.catalog.renew(begun.intent.id, 0)

    async def _conclude(self, begun: _Begun, outcome: Outcome) -> Entry:
        """Commits a write that is in enough stores; takes back or keeps what is in too few."""
        intent, chosen = begun.intent, begun.chosen
        counting = self._counting(begun, outcome)
        enough = counting >= chosen.rule.min_copies
        if not enough:
            error = outcome.error or self._not_enough(Facts(intent.name, max(0, intent.size)))
            if await self._spared(begun, outcome):
                await self._taken_back(begun, outcome, error)
                raise error
            if not outcome.whole:
                # nothing of the old content may be left either: the intent stays, and its recovery looks again
                raise _Undecided(str(error)) from error
        missing = len(outcome.whole) < chosen.rule.copies or bool(outcome.failed) or bool(outcome.unknown)
        due = self._due(begun, outcome.whole, work=missing or begun.leaves)
        try:
            entry = await self._commit(begun, outcome, due, checked=enough)
        except Full as error:
            # another process has taken it meanwhile, or somebody lowered the limit
            if await self._spared(begun, outcome):
                await self._taken_back(begun, outcome, error)
                raise
            # it was written over the only content that surely is there: it stays, and the sums tell that it is too much
            log.warning("'%s' goes over a limit, since its old content is overwritten: %s", intent.name, error)
            entry = await self._commit(begun, outcome, due, checked=False)
        self.mesh.missed(intent.entry)
        if begun.old is not None or entry.parent == TRASH or 0 < due < self.now() + SOON:
            # else the mover has nothing to do with it before it looks by itself
            self._stir()
        if entry.parent == TRASH:
            raise Changed(
                f"'{intent.name}' was deleted while it was written: the new content is in the trash, from where it can"
                " be restored; or write it again"
            )
        if not enough:
            raise Transient(
                f"'{intent.name}' is in {counting} stores instead of {chosen.rule.min_copies}; its old content was"
                f" overwritten there: {outcome.error}"
            )
        return entry

    async def _commit(self, begun: _Begun, outcome: Outcome, due: int, *, checked: bool) -> Entry:
        async with self.allowance.counting(begun.grant) as check:
            return await self.catalog.commit_put(
                begun.intent.id,
                size=outcome.size,
                sha256=outcome.sha256,
                whole=outcome.whole,
                failed=outcome.failed | outcome.unknown,
                due=due,
                keep=bool(self.config.versions),
                check=check if checked else None,
            )

    async def _spared(self, begun: _Begun, outcome: Outcome) -> bool:
        """Whether what a write goes over is nothing, or surely is elsewhere too: then it may be taken back."""
        held = {c.store: c for c in await self.catalog.copies(begun.intent.entry)}
        over = {target.store for target in begun.intent.targets if goes_over(target, held)}
        touched = ({c.store for c in outcome.whole} | set(outcome.unknown) | outcome.differs) & over
        return begun.old is None or not touched or bool(await self.proved(begun.old, held.values(), touched))

    def _due(self, begun: _Begun, whole: Iterable[Copy], *, work: bool) -> int:
        """When the mover has to look at what was written."""
        now = self.now()
        if work or begun.intent.size < 0 or begun.under != self._under():
            return now
        verify = now + self.config.verify_seconds * MICROS if self.config.verify_seconds else 0
        # an object beside another one gets the file's own name later
        beside = any(copy.key != own_key(begun.members[copy.store], begun.intent.path) for copy in whole)
        settle = now + SETTLE_AFTER if self.config.settle_names and beside else 0
        return min(filter(None, (verify, settle, begun.chosen.changes_at)), default=0)

    async def proved(self, entry: Entry, copies: Iterable[Copy], but: Collection[str]) -> list[str]:
        """Stores that surely hold an entry's content, as they say themselves just now."""
        found = []
        for copy in copies:
            member = self.mesh.members.get(copy.store)
            if (
                copy.state != "Whole" or copy.version != entry.version or copy.store in but
                or member is None or not member.up
            ):  # fmt: skip
                continue
            try:
                async with asyncio.timeout(STAT_SECONDS):
                    seen = await member.store.stat(copy.key)
            except (CloudmeshError, TimeoutError):
                continue
            if seen is not None and seen.tag == copy.tag and seen.size == entry.size:
                found.append(copy.store)
        return found

    async def _taken_back(self, begun: _Begun, outcome: Outcome, error: CloudmeshError) -> None:
        """Ends a write that came to nothing.

        Raises:
            _Undecided: Its recovery has to look again.
        """
        held = {c.store: c for c in await self.catalog.copies(begun.intent.entry)}
        left = await self._take_back(begun, outcome, held)
        if left is None:
            raise _Undecided(str(error)) from error
        await self.catalog.end(begun.intent.id, left=left)
        self._stir()

    async def _take_back(self, begun: _Begun, outcome: Outcome, held: Mapping[str, Copy]) -> list[Copy] | None:
        """Removes what a failed write made, so that nothing unknown is left. Gives what lies beside the old content and
        could not be removed; None if the recovery has to look again."""
        intent, clean = begun.intent, True
        made = {c.store: c for c in outcome.whole}
        stale, left = [], []
        link = link_of(held.values())
        for target in intent.targets:
            store, copy = target.store, made.get(target.store)
            beside = link is not None or (store in held and not goes_over(target, held))
            if copy is not None and (store not in held or beside):
                try:
                    await begun.members[store].store.delete(copy.key, if_tag=copy.tag)
                    continue
                except CloudmeshError as error:
                    begun.members[store].doubt(error)
                    log.warning("%s in %s could not be taken back: %s", copy.key, store, error)
            elif copy is None and store not in outcome.unknown and store not in outcome.differs:
                continue
            if beside:
                left.append(copy or Copy(intent.entry, store, target.key, intent.version, "Stale"))
                continue
            if begun.old is None:
                clean = clean and copy is None and store not in outcome.unknown
                continue
            # it holds the new content, or may: the mover brings back the old one
            tag = copy.tag if copy else target.expect if store in outcome.differs else ""
            stale.append(leftover(intent, target, held.get(store), tag))
        if stale:
            await self.catalog.put_copies(stale, due=self.now())
            self._stir()
        return left if clean else None

    async def _nothing_written(self, begun: _Begun) -> bool:
        """Whether no store has anything of an upload that was broken off."""
        for target in begun.intent.targets:
            member = begun.members[target.store]
            try:
                async with asyncio.timeout(STAT_SECONDS):
                    seen = await member.store.stat(target.key)
                    if seen is None and not await member.absence_counts():
                        return False
            except (CloudmeshError, TimeoutError):
                return False
            if seen is not None and seen.attributes.get("write") == begun.intent.id:
                return False
        return True

    async def _renew(self, intent_id: str) -> None:
        with contextlib.suppress(Missing):
            while True:
                # a catalogue that is away for a moment doesn't end it
                with contextlib.suppress(Transient):
                    await self.catalog.renew(intent_id, self.now() + LEASE)
                await asyncio.sleep(LEASE / MICROS / 3)

    def _not_enough(
        self, facts: Facts, holding: frozenset[str] = frozenset(), growth: int | None = None
    ) -> CloudmeshError:
        views = self.mesh.views()
        told = choose(facts, self.config.rules, views, self.now(), holding=holding, growth=growth, explain=True)
        if why := nameless(told.rule, facts, views, holding):
            return InvalidName(why)
        reasons = [f"{v.store}: {v.why}" for v in told.verdicts if not v.chosen]
        others = "; ".join(reasons) or "there are no others"
        weak = weakness(told.rule, [view for view in views if view.config.name in told.stores])
        message = (
            f"{weak} ({others})"
            if weak
            else (
                f"rule '{told.rule.name}' needs {told.rule.min_copies} copies before a write is acknowledged, and"
                f" {told.counting} stores can take one ({others})"
            )
        )
        if any("doesn't answer" in reason for reason in reasons):
            return Transient(message)
        if weak:
            return Weak(message)
        return ReadOnly(message) if any("read-only" in reason for reason in reasons) else Full(message)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What somebody wants to write."""

    path: str
    size: int | None
    mtime: int | None
    sha256: str
    content_type: str
    tags: Mapping[str, str]
    if_version: int


@dataclass(slots=True)
class _Begun:
    """A write whose intent is committed; it may get further targets.

    Args:
        intent: The intent.
        chosen: Where it goes.
        old: What was there.
        members: Stores of its targets, in their order.
        grant: Its part of quota and money.
        under: By what its stores were chosen.
        leaves: Stores that it doesn't go to have copies of what was there.
        held: Copies of what was there, by store, if it was no link.
        whole: Stores of those that are whole.
        beside: The new content goes beside those.
    """

    intent: Intent
    chosen: Chosen
    old: Entry | None
    members: Mapping[str, Member]
    grant: Grant
    under: object
    leaves: bool
    held: Mapping[str, Copy]
    whole: frozenset[str]
    beside: bool


class _Undecided(Transient):
    """Whether the write has happened is found out by the recovery."""


def own_key(member: Member, path: str) -> str:
    """The key that a file's object should have; empty if the store can't hold that name."""
    with contextlib.suppress(InvalidName):
        return names.key_of(member.config.prefix, path, member.store.info)
    return ""


def goes_over(target: Target, held: Mapping[str, Copy]) -> bool:
    """Whether an intent writes over a copy on record."""
    return target.store in held and held[target.store].key == target.key


def leftover(intent: Intent, target: Target, held: Copy | None, tag: str) -> Copy:
    """The record of a copy that holds, or may hold, the content of a write that failed."""
    copy = held or Copy(intent.entry, target.store, target.key, 0, "Stale")
    why = "overwritten by a write that failed"
    return replace(copy, key=target.key, version=intent.version, state="Stale", tag=tag, scrubbed=0, error=why)


def _check(path: str, old: Entry | None, if_version: int) -> None:
    if old is not None and old.kind == "Directory":
        raise InvalidName(f"'{path}' is a directory")
    if if_version == ABSENT and old is not None:
        raise Exists(f"'{path}' is there already")
    if if_version > 0 and (old is None or old.version != if_version):
        raise Changed(f"'{path}' is of version {old.version if old else 'none'}, not {if_version}")
