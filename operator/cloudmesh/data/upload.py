"""Writing one content to several stores at once, out of one stream that is read once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.data import names
from cloudmesh.data.content import SMALL
from cloudmesh.data.errors import Changed, Full
from cloudmesh.data.mesh import Member
from cloudmesh.data.model import Copy, Intent, Target
from cloudmesh.data.stores.ports import Object
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient

AHEAD = 8
"""Chunks that a slow store may lie behind the others, each at most as large as the source's."""
STALL_SECONDS = 60.0
"""A store that takes nothing for so long is left behind if others are enough."""
ABANDON_SECONDS = 60.0
"""How long stores that are told to end are waited for."""
STALLS = 10
"""So often that time may pass after the last byte before stores are given up that haven't answered."""

LOCKED = 2047
"""Bytes up to which hashlib keeps the lock, see `hashlib.new` in Python's library."""
HASHED_AT_ONCE = 8 * LOCKED


@dataclass(slots=True)
class Outcome:
    """What became of an upload.

    Args:
        size: Bytes.
        sha256: Digest.
        whole: Copies that are there.
        failed: By store, why there is surely none of the new content.
        unknown: By store, why nobody knows.
        differs: Stores of those that failed, whose object isn't the one on record.
        error: The first error of a store, None if there was none.
    """

    size: int = 0
    sha256: str = ""
    whole: list[Copy] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)
    differs: set[str] = field(default_factory=set)
    error: CloudmeshError | None = None

    def add(self, more: Outcome) -> None:
        """The same content went to further stores."""
        if not self.whole:
            # the first may have ended with all its stores, before the content did
            self.size, self.sha256 = more.size, more.sha256
        self.whole += more.whole
        self.failed |= more.failed
        self.unknown |= more.unknown
        self.differs |= more.differs
        self.error = self.error or more.error


class SourceFailed(Exception):
    """The content ended before its end; what was the reason is the cause."""


Item = bytes | BaseException | None
"""A chunk, why there are no more, or the end."""


class Later:
    """Work that begins after some time, unless it is cancelled before.

    Args:
        seconds: How long.
        work: What begins.
    """

    def __init__(self, seconds: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._task: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(seconds, self._begin)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._work())

    def cancel(self) -> None:
        """Ends it."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


class _Lane:
    """The way to one store.

    Args:
        member: The store.
        target: Where in it.
        write: Writes there.
        small: The store is asked when all of the content is there, which then needs no queue.
    """

    def __init__(
        self,
        member: Member,
        target: Target,
        write: Callable[[AsyncIterator[bytes]], Coroutine[Any, Any, Object]],
        *,
        small: bool,
    ) -> None:
        self.member = member
        self.target = target
        self._write = write
        self._items: list[Item] = []
        self._queue: asyncio.Queue[Item] | None = None if small else asyncio.Queue(AHEAD)
        self.task = None if small else asyncio.create_task(write(self._chunks()))

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            item = self._items.pop(0) if self._queue is None else await self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    @property
    def full(self) -> bool:
        """Whether whoever hands on has to wait."""
        return self._queue is not None and self._queue.full()

    async def put(self, item: Item) -> bool:
        """Hands a chunk on; False if the store has ended or stalled."""
        if self._queue is None or self.task is None:
            self._items.append(item)
            if not isinstance(item, bytes):
                self.task = asyncio.create_task(self._write(self._chunks()))
            return True
        if self.task.done():
            return False
        if not self._queue.full():
            self._queue.put_nowait(item)
            return True
        putting = asyncio.ensure_future(self._queue.put(item))
        await asyncio.wait({putting, self.task}, timeout=STALL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if putting.done():
            return True
        putting.cancel()
        return False


async def upload(
    intent: Intent,
    members: Sequence[Member],
    chunks: AsyncIterable[bytes],
    limit: Callable[[int], Awaitable[None]],
    now: int,
    room: Callable[[Member, int], None] | None = None,
) -> Outcome:
    """Writes the content to all targets of an intent, side by side; a store that fails doesn't stop the others.

    Args:
        intent: Names the targets.
        members: Their stores, in the same order.
        chunks: The content.
        limit: Called with the bytes so far; raises to refuse more.
        now: Microseconds.
        room: Called with a store and the bytes so far; raises Full if that store takes no more: others go on.

    Raises:
        SourceFailed: The content broke off, or `limit` refused: every store kept what it had.
    """
    lanes = [_lane(intent, member, target) for member, target in zip(members, intent.targets, strict=True)]
    digest, size = hashlib.sha256(), 0
    going, full = list(lanes), set[_Lane]()
    try:
        async for chunk in chunks:
            if not chunk:
                continue
            size += len(chunk)
            await limit(size)
            _hash(digest, chunk)
            if room is not None:
                full |= await _fill(going, room, size)
                going = [lane for lane in going if lane not in full]
            going = [lane for lane, ok in zip(going, await _spread(going, chunk), strict=True) if ok]
            if not going:
                break
        if going:
            _compare(intent, size, digest.hexdigest())
    except BaseException as error:
        await _abort(lanes)
        if isinstance(error, asyncio.CancelledError | Full | InvalidRequest):
            raise
        raise SourceFailed(str(error)) from error
    await _spread(going, None)
    for lane in lanes:
        if lane not in going and lane not in full and lane.task is not None:
            lane.task.cancel()
    outcome = Outcome(size, digest.hexdigest())
    try:
        results = await _ends([lane.task for lane in lanes if lane.task is not None])
    except asyncio.CancelledError:
        await _abort(lanes)
        raise
    for lane, result in zip(lanes, results, strict=True):
        await _settle(outcome, intent, lane, result, now)
    return outcome


def _hash(digest: hashlib._Hash, chunk: bytes) -> None:
    """Takes a chunk into a digest: a short one in pieces for which hashlib keeps the interpreter's lock, since to get
    it back from the stores' threads takes longer than the digest."""
    if len(chunk) > HASHED_AT_ONCE:
        digest.update(chunk)
        return
    view = memoryview(chunk)
    for begin in range(0, len(chunk), LOCKED):
        digest.update(view[begin : begin + LOCKED])


def _compare(intent: Intent, size: int, sha256: str) -> None:
    if intent.size not in (-1, size):
        raise InvalidRequest(f"{intent.size} bytes were announced, {size} came")
    if intent.sha256 not in ("", sha256):
        raise InvalidRequest("the content has another digest than was announced")


def _lane(intent: Intent, member: Member, target: Target) -> _Lane:
    def write(chunks: AsyncIterator[bytes]) -> Coroutine[Any, Any, Object]:
        return write_to(intent, member, target, chunks)

    return _Lane(member, target, write, small=0 <= intent.size <= SMALL)


async def _fill(lanes: Sequence[_Lane], room: Callable[[Member, int], None], size: int) -> set[_Lane]:
    """Ends the way to stores that have no room for so many bytes; gives those."""
    ended = set()
    for lane in lanes:
        try:
            room(lane.member, size)
        except Full as error:
            if await lane.put(error):
                ended.add(lane)
    return ended


async def _spread(lanes: Sequence[_Lane], chunk: bytes | None) -> list[bool]:
    if not any(lane.full for lane in lanes):
        return [await lane.put(chunk) for lane in lanes]
    return list(await asyncio.gather(*(lane.put(chunk) for lane in lanes)))


async def _ends(tasks: Sequence[asyncio.Task[Object]]) -> list[Object | BaseException]:
    """Results of all; a store that doesn't end while others have is left behind."""
    left: set[asyncio.Task[Object]] = set(tasks)
    for _ in range(STALLS):
        ended, left = await asyncio.wait(left, timeout=STALL_SECONDS)
        if not left:
            break
        if not ended and any(task.done() and not task.cancelled() and not task.exception() for task in tasks):
            break
    await _ended(left)
    return [_result(task) for task in tasks]


async def _ended(tasks: Iterable[asyncio.Task[Object]]) -> None:
    """Cancels them, and waits for their end; one that hangs isn't waited for for ever."""
    left = [task for task in tasks if not task.done()]
    for task in left:
        task.cancel()
        task.add_done_callback(_heed)
    if left:
        await asyncio.wait(left, timeout=ABANDON_SECONDS)


def _result(task: asyncio.Task[Object]) -> Object | BaseException:
    if not task.done() or task.cancelled():
        return asyncio.CancelledError()
    return task.exception() or task.result()


def _heed(task: asyncio.Task[Object]) -> None:
    """Hears an exception that nobody waits for."""
    if not task.cancelled():
        task.exception()


async def _abort(lanes: Sequence[_Lane]) -> None:
    tasks = [lane.task for lane in lanes if lane.task is not None]
    for task in tasks:
        task.add_done_callback(_heed)
    with contextlib.suppress(asyncio.CancelledError):
        await _ended(tasks)


async def _settle(outcome: Outcome, intent: Intent, lane: _Lane, result: Object | BaseException, now: int) -> None:
    member, target = lane.member, lane.target
    if isinstance(result, Object):
        outcome.whole.append(written(intent, target, result, now))
        return
    error: CloudmeshError
    if isinstance(result, asyncio.CancelledError):
        error = Transient(f"it took nothing for {STALL_SECONDS:g} s")
    elif isinstance(result, CloudmeshError):
        error = result
    elif isinstance(result, Exception):
        error = Transient(f"{type(result).__name__}: {result}")
    else:
        raise result
    member.doubt(error)
    outcome.error = outcome.error or error
    told = f"{error.reason}: {error}"
    # a lost answer to a write that was done looks like a time-out, and a second try of the library like a conflict
    if isinstance(error, Transient | Changed):
        try:
            async with asyncio.timeout(10):
                seen = await member.store.stat(target.key)
        except (CloudmeshError, TimeoutError) as second:
            outcome.unknown[member.name] = f"{told}; then {second}"
            return
        if seen is not None and is_of(intent, seen, outcome.size):
            outcome.whole.append(written(intent, target, seen, now))
            return
        if seen is None and not await member.absence_counts():
            outcome.unknown[member.name] = told
            return
        if (seen.tag if seen else "") != target.expect:
            outcome.differs.add(member.name)
    outcome.failed[member.name] = told


def write_to(
    intent: Intent, member: Member, target: Target, chunks: AsyncIterator[bytes]
) -> Coroutine[Any, Any, Object]:
    """Writes the content to one target of an intent, tied to what has to be there as far as the store can."""
    info = member.store.info
    return member.store.write(
        target.key,
        chunks,
        size=intent.size if intent.size >= 0 else None,
        if_tag=target.expect if info.conditional == "Full" else "",
        if_absent=not target.expect and info.conditional != "None",
        attributes=_attributes_of(intent, member, target.key) if info.attributes else None,
    )


def _attributes_of(intent: Intent, member: Member, key: str) -> dict[str, str]:
    """What is kept with an object, so that the catalogue can be made anew from the stores."""
    kept = {"id": intent.entry, "version": str(intent.version), "write": intent.id, "mtime": str(intent.mtime)}
    # who copies or renames the object in the store takes the attributes along, and this then says so
    kept["at"] = names.mark_of(member.config.prefix, key)
    return kept | ({"sha256": intent.sha256} if intent.sha256 else {})


def is_of(intent: Intent, seen: Object, size: int) -> bool:
    """Whether an object was written by this intent."""
    return seen.attributes.get("write") == intent.id and size in (-1, seen.size)


def written(intent: Intent, target: Target, seen: Object, now: int) -> Copy:
    """The copy that an intent made."""
    return Copy(intent.entry, target.store, target.key, intent.version, "Whole", seen.tag, seen.size, now)
