"""What stores of objects do alike: reads by windows, contents in parts, and uploads that nothing is left of."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Final

from cloudmesh.data.errors import Changed, Missing
from cloudmesh.data.stores.common import Limits, checked
from cloudmesh.data.stores.ports import CHUNK, Object
from cloudmesh.data.stores.threads import outlast
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient

Pieces = list[bytes]
Get = Callable[[int, int, str], Coroutine[Any, Any, tuple[Object, Pieces]]]
"""Asks for the bytes from the first to before the second number, of the object with that tag if it isn't empty."""

WINDOW = 4 << 20
"""Bytes that a read asks for at once."""
AHEAD = 3
"""Such pieces that come while others are taken."""
READ_HOLDS: Final = (AHEAD + 1) * WINDOW
IN_FLIGHT = 4
HOLDS: Final = IN_FLIGHT + 3
"""Parts of a write that are in memory at most: those under way, one that is gathered, one that is joined, and one
that waits."""
GROW_EVERY = 1_000
"""Parts after which parts of an upload of unknown size become twice as large: so it can be terabytes."""
ABANDON_SECONDS = 20.0
"""How long the end of a failed upload waits for the store."""
CONTROLS: Final = "".join(map(chr, (*range(1, 32), 127)))


class BeyondEnd(InvalidRequest):
    """The range begins where the object has ended."""


async def windows(
    key: str,
    get: Get,
    stat: Callable[[str], Awaitable[Object | None]],
    limits: Limits,
    *,
    start: int = 0,
    length: int | None = None,
    if_tag: str = "",
) -> AsyncGenerator[bytes, None]:
    """The bytes of an object as the port's `read` says: window by window, each tied to the tag of the first one.

    Args:
        key: Of the object.
        get: Brings one window, which may end before; raises BeyondEnd.
        stat: Looks at the object.
        limits: The store's.
        start: First byte.
        length: Bytes at most, None for all.
        if_tag: Tag that it must have.
    """
    end = None if length is None else start + length
    coming: deque[asyncio.Task[tuple[Object, Pieces]]] = deque()
    position, asked, tag = start, start, if_tag
    try:
        while end is None or position < end:
            while len(coming) < (AHEAD if tag and end is not None else 1) and (end is None or asked < end):
                stop = asked + WINDOW if end is None else min(end, asked + WINDOW)
                coming.append(asyncio.create_task(get(asked, stop, tag)))
                asked = stop
            try:
                found, pieces = await coming[0]
            except BeyondEnd:
                if position > start:
                    raise Changed(f"{key} became shorter while it was read") from None
                break
            coming.popleft()
            tag, end = found.tag, found.size if end is None else min(end, found.size)
            stop = min(end, position + WINDOW)
            position += sum(map(len, pieces))
            if position != stop:
                raise Transient(f"{key}: {position} bytes came, not {stop}")
            for piece in pieces:
                await limits.moved(len(piece))
                yield piece
        if position == start:  # nothing was there to be read, so nothing was compared
            seen = await stat(key)
            if seen is None:
                raise Missing(f"there is no {key}")
            if if_tag and seen.tag != if_tag:
                raise Changed(f"{key} has the tag {seen.tag}, not {if_tag}")
    finally:
        for task in coming:
            task.cancel()
            task.add_done_callback(heed)


async def in_parts(
    chunks: AsyncIterable[bytes], size: int | None, part: int, most: int, *, grow: bool = True
) -> AsyncGenerator[bytes, None]:
    """A content in parts of equal size but for the last; larger ones where their number would be too high.

    Args:
        chunks: The content.
        size: Bytes, None where unknown.
        part: Bytes of a part.
        most: Parts at most.
        grow: Parts of an unknown size become larger.
    """
    if size is not None:
        part = max(part, -(-size // most))
    gathered: list[bytes] = []
    held = made = 0
    async for chunk in chunks:
        view = memoryview(chunk)
        while view:
            taken = view[: part - held]
            gathered.append(bytes(taken) if len(taken) < len(chunk) else chunk)
            held, view = held + len(taken), view[len(taken) :]
            if held == part:
                yield b"".join(gathered)
                gathered, held, made = [], 0, made + 1
                if grow and size is None and made % GROW_EVERY == 0:
                    part *= 2
    if held:
        yield b"".join(gathered)


async def source_of_copy(
    stat: Callable[[str], Awaitable[Object | None]], source: str, if_tag: str, attributes: Mapping[str, str] | None
) -> tuple[Object, Mapping[str, str]]:
    """The source of a copy, and the attributes that the copy is to have: those that are given, else the source's.

    Raises:
        Missing: There is no such object.
        Changed: It has another tag than `if_tag`.
    """
    texts = None if attributes is None else checked(attributes)
    seen = await stat(source)
    if seen is None:
        raise Missing(f"there is no {source}")
    if if_tag and seen.tag != if_tag:
        raise Changed(f"{source} has the tag {seen.tag}, not {if_tag}")
    return seen, seen.attributes if texts is None else texts


class Upload(ABC):
    """One upload of parts, from its begin to its completion; whatever ends it before drops it.

    Args:
        key: Of the object.
        most: Parts at most.
        in_flight: Parts that are under way at the same moment.
    """

    def __init__(self, key: str, most: int, in_flight: int = IN_FLIGHT) -> None:
        self.key = key
        self.size = 0
        self._most = most
        self._in_flight = in_flight
        self._running: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def open(self) -> None:
        """Begins it."""

    @abstractmethod
    async def send(self, number: int, part: bytes) -> None:
        """Sends one part, counted from 1."""

    @abstractmethod
    async def complete(self) -> str:
        """Publishes what was sent; gives the tag."""

    @abstractmethod
    async def drop(self) -> None:
        """Has the service forget what it was sent; also where `open` or `complete` has failed."""

    async def run(self, head: Pieces, parts: AsyncIterator[bytes]) -> str:
        """Sends all parts, first those that are there already, which it takes; gives the tag of the object."""
        async with _Session(self):
            number = 0
            while head:
                number += 1
                await self.begin(number, self._counted(number, head.pop(0)))
            async for part in parts:
                number += 1
                await self.begin(number, self._counted(number, part))
            return await self.finish()

    async def works(self, works: AsyncIterator[Coroutine[Any, Any, None]]) -> str:
        """Does some works that each bring a part, and publishes; gives the tag of the object."""
        async with _Session(self):
            number = 0
            async for work in works:
                number += 1
                await self.begin(number, work)
            return await self.finish()

    def _counted(self, number: int, part: bytes) -> Coroutine[Any, Any, None]:
        self.size += len(part)
        return self.send(number, part)

    async def begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        """Starts one part when there is room; raises what another one has raised."""
        if number > self._most:
            work.close()
            raise InvalidRequest(f"{self.key} has more than {self._most} parts")
        self._running.add(asyncio.ensure_future(work))
        if len(self._running) >= self._in_flight:
            await self._wait(asyncio.FIRST_COMPLETED)

    async def finish(self) -> str:
        """Waits for all parts and publishes."""
        await self._wait(asyncio.ALL_COMPLETED)
        return await self.complete()

    async def _wait(self, until: str) -> None:
        if not self._running:
            return
        done, self._running = await asyncio.wait(self._running, return_when=until)
        failed = [error for task in done if (error := task.exception()) is not None]
        if failed:
            raise failed[0]

    async def abandon(self) -> None:
        """Waits for the parts that are under way, and drops; what fails here is left for a sweep."""
        for task in self._running:
            task.add_done_callback(heed)
        if self._running:
            await asyncio.wait(self._running, timeout=ABANDON_SECONDS)
        with suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(ABANDON_SECONDS):
                await self.drop()


class _Session:
    """An open upload, which is abandoned whatever ends it before it is complete."""

    def __init__(self, upload: Upload) -> None:
        self._upload = upload

    async def __aenter__(self) -> None:
        opening = asyncio.ensure_future(self._upload.open())
        try:
            await outlast(opening)
        except BaseException:
            await outlast(self._upload.abandon())
            raise

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            await outlast(self._upload.abandon())


def published(key: str, size: int, tag: str | None, texts: Mapping[str, str]) -> Object:
    """What a write tells.

    Raises:
        Transient: The answer had no tag.
    """
    if tag:
        return Object(key, size, tag, 0, texts)
    raise Transient(f"{key}: the answer has no entity tag")


def pieces(content: bytes) -> Pieces:
    """A content as readers give it."""
    return [content[at : at + CHUNK] for at in range(0, len(content), CHUNK)]


def heed(task: asyncio.Task[Any]) -> None:
    """Hears an exception that nobody waits for."""
    if not task.cancelled():
        task.exception()
