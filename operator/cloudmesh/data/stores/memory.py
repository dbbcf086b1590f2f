"""A store in the process: the reference for the others, and what property tests run on.

Faults come in by one hook that is called before and after each operation acts and may raise, wait, or kill.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cloudmesh.data.errors import Changed, Full, Missing, ReadOnly
from cloudmesh.data.stores.common import Limits, checked, fits, measured
from cloudmesh.data.stores.ports import CHUNK, Conditional, Object, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.engine.errors import Transient

Moment = Literal["before", "after"]
Operation = Literal["probe", "stat", "list", "read", "publish", "delete", "copy"]
Hook = Callable[[Moment, Operation, str], Awaitable[None]]
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Held:
    """One object with its content."""

    object: Object
    content: bytes = field(repr=False)


@dataclass(slots=True)
class Place:
    """What stores of one name share, as processes share a bucket.

    Args:
        objects: By key, what is there now.
        hook: Called around each operation.
        lag: Seconds after which a listing shows a change.
        room: Bytes at most, None for no limit.
        read_only: It takes no writes.
        reads_end: Bytes of a read after which the connection breaks, None for never.
        latency_ms: What a probe tells of it.
        skew_ms: Its clock minus ours, as a probe tells it.
        bare: Its listings show neither tags nor attributes, as those of some servers don't.
    """

    objects: dict[str, Held] = field(default_factory=dict)
    hook: Hook | None = None
    lag: float = 0.0
    room: int | None = None
    read_only: bool = False
    reads_end: int | None = None
    latency_ms: int = 0
    skew_ms: int | None = 0
    bare: bool = False
    _shown: dict[str, Object] = field(default_factory=dict)
    _late: deque[tuple[float, str, Object | None]] = field(default_factory=deque)

    def put(self, key: str, content: bytes, attributes: Mapping[str, str] | None = None) -> Object:
        """Puts an object there at once, behind the back of all stores."""
        made = Object(key, len(content), f"m{next(_numbers)}", time.time_ns() // 1000, dict(attributes or {}))
        self.objects[key] = Held(made, content)
        self._changed(key, made)
        return made

    def remove(self, key: str) -> None:
        """Takes an object away."""
        if self.objects.pop(key, None) is not None:
            self._changed(key, None)

    def _changed(self, key: str, now: Object | None) -> None:
        due = self._clock() + self.lag if self.lag else 0.0
        self._late.append((due, key, now))

    def shown(self) -> Mapping[str, Object]:
        """What a listing shows."""
        while self._late and self._late[0][0] <= self._clock():
            _, key, seen = self._late.popleft()
            if seen is None:
                self._shown.pop(key, None)
            else:
                self._shown[key] = seen
        return self._shown

    @staticmethod
    def _clock() -> float:
        try:
            return asyncio.get_running_loop().time()
        except RuntimeError:
            return 0.0

    @property
    def used(self) -> int:
        """Bytes of all objects."""
        return sum(held.object.size for held in self.objects.values())


PLACES: dict[str, Place] = {}
"""By name; a test that needs a fresh one takes a new name."""


class MemoryStore:
    """One store on a place.

    Args:
        place: What it shares with others.
        conditional: What its writes can be tied to; where that is less than asked for, it looks before it takes the
            content, and so can undo another's write unseen.
        limits: Of requests and bytes.
        info: Changes what it declares, such as `max_part`.
    """

    def __init__(
        self, place: Place, *, conditional: Conditional = "Full", limits: Limits | None = None, **info: Any
    ) -> None:
        self.place = place
        self._limits = limits or Limits()
        listing: Any = "Eventual" if place.lag else "Strong"
        self._info = replace(StoreInfo("memory", conditional, listing, max_key=4096, max_part=1024), **info)

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    async def _around(self, moment: Moment, operation: Operation, key: str = "") -> None:
        if moment == "before":
            await self._limits.request()
        if self.place.hook is not None:
            await self.place.hook(moment, operation, key)

    async def probe(self) -> Probe:
        """Answers at once."""
        await self._around("before", "probe")
        return Probe(self.place.latency_ms, self.place.skew_ms, writable=not self.place.read_only)

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        await self._around("before", "stat", key)
        held = self.place.objects.get(key)
        return held.object if held else None

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; with a lag, objects as they were."""
        await self._around("before", "list", prefix)
        shown = self.place.shown()
        keys = sorted(key for key in shown if key.startswith(prefix) and key > after)
        found = tuple(shown[key] for key in keys[:limit])
        if self.place.bare:
            found = tuple(replace(seen, tag="", attributes={}) for seen in found)
        return Page(found, found[-1].key if len(keys) > limit else "")

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says."""
        await self._around("before", "read", key)
        held = self.place.objects.get(key)
        if held is None:
            raise Missing(f"there is no {key}")
        fits(key, held.object.tag, if_tag)
        end = held.object.size if length is None else min(held.object.size, start + length)
        for position in range(start, end, CHUNK):
            chunk = held.content[position : min(end, position + CHUNK)]
            ends = self.place.reads_end
            if ends is not None and position - start + len(chunk) > ends:
                raise Transient(f"the connection broke while {key} was read")
            await self._limits.moved(len(chunk))
            yield chunk
            await asyncio.sleep(0)

    async def write(
        self,
        key: str,
        chunks: AsyncIterable[bytes],
        *,
        size: int | None = None,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the port says."""
        kept = checked(attributes)
        tied = self._info.conditional == "Full" or (if_absent and self._info.conditional == "Create")
        if not tied:
            self._fits(key, if_tag, if_absent)
        content = b"".join([chunk async for chunk in measured(chunks, size, self._info.max_size, self._limits)])
        await self._around("before", "publish", key)
        if self.place.read_only:
            raise ReadOnly("the store takes no writes")
        if tied:
            self._fits(key, if_tag, if_absent)
        there = self.place.objects.get(key)
        if self.place.room is not None:
            more = len(content) - (there.object.size if there else 0)
            if self.place.used + more > self.place.room:
                raise Full(f"the store has {self.place.room - self.place.used} bytes left")
        made = self.place.put(key, content, kept)
        await self._around("after", "publish", key)
        return made

    def _fits(self, key: str, if_tag: str, if_absent: bool) -> None:
        there = self.place.objects.get(key)
        fits(key, there.object.tag if there else None, if_tag, if_absent=if_absent)

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says; where nothing can be tied to a tag it looks, and then removes whatever is there."""
        there = self.place.objects.get(key)
        await self._around("before", "delete", key)
        if self.place.read_only:
            raise ReadOnly("the store takes no writes")
        if self._info.conditional == "Full":
            there = self.place.objects.get(key)
        if there is not None and if_tag and there.object.tag != if_tag:
            raise Changed(f"{key} has the tag {there.object.tag}, not {if_tag}")
        if there is not None:
            self.place.remove(key)
        await self._around("after", "delete", key)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says."""
        await self._around("before", "copy", source)
        held = self.place.objects.get(source)
        if held is None:
            raise Missing(f"there is no {source}")
        fits(source, held.object.tag, if_tag)
        if self.place.read_only:
            raise ReadOnly("the store takes no writes")
        self._fits(target, "", if_absent)
        kept = held.object.attributes if attributes is None else checked(attributes)
        made = self.place.put(target, held.content, kept)
        await self._around("after", "copy", source)
        return made

    async def capacity(self) -> tuple[int, int]:
        """Bytes used and free."""
        room = (1 << 50) if self.place.room is None else self.place.room
        return self.place.used, room - self.place.used

    async def close(self) -> None:
        """Nothing is held."""


def make(context: StoreContext) -> MemoryStore:
    """A store on the place `settings.place`; `settings.conditional` may be Full, Create or None."""
    settings = context.settings
    place = PLACES.setdefault(str(settings.get("place", context.name)), Place())
    limits = Limits(context.requests_per_second, context.bytes_per_second)
    return MemoryStore(place, conditional=settings.get("conditional", "Full"), limits=limits)
