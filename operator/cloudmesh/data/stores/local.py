"""A volume as a store: objects are plain files under their own names. See `folder` for how they are kept whole."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any, ParamSpec, TypeVar

from cloudmesh.data.errors import Changed, Missing
from cloudmesh.data.stores.common import Limits, checked, measured
from cloudmesh.data.stores.folder import Folder, Seen, Temporary
from cloudmesh.data.stores.ports import CHUNK, KEYLESS_SECONDS, Object, Ours, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.system_errors import told
from cloudmesh.data.stores.threads import Handle, Threads, outlast
from cloudmesh.engine.errors import InvalidRequest, Transient

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
THREADS = 8
CALL_SECONDS = 30.0
"""A small call that takes longer hangs: the volume's server doesn't answer."""
LIST_SECONDS = 300.0
PATIENCE = 5.0
"""How long a write that is broken off waits for its thread."""
COPY_STEP = 64 << 20
INFO = StoreInfo("local", "Full", max_key=4096, max_part=255, max_size=8 << 60)


class LocalStore:
    """A folder.

    Args:
        folder: Where.
        name: Of the store.
        limits: Of requests and bytes.
        call_seconds: Time within which a small call must be done.
    """

    def __init__(
        self,
        folder: Folder,
        name: str = "local",
        limits: Limits | None = None,
        *,
        call_seconds: float = CALL_SECONDS,
    ) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self._threads = Threads(name, THREADS, PATIENCE)
        self._seconds = call_seconds

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return INFO

    async def probe(self) -> Probe:
        """Whether the folder is there and takes writes."""
        return await self._threads.within(self._seconds, self._folder.probe)

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        await self._limits.request()
        return await self._threads.within(self._seconds, self._folder.stat, key)

    async def blocked(self, key: str) -> str:
        """As the power Folders says."""
        return await self._threads.within(self._seconds, self._folder.blocked, key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; a file or folder that may not be read makes it incomplete."""
        await self._limits.request()
        return await self._threads.within(LIST_SECONDS, self._folder.page, prefix, after, limit)

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says; a file that is changed in place while it is read is found out at the end."""
        await self._limits.request()
        handle, seen = await self._open(key, if_tag)
        try:
            end = seen.size if length is None else min(seen.size, start + length)
            position = start
            while position < end:
                piece = partial(
                    _piece, key=key, count=min(CHUNK, end - position), position=position, end=end, seen=seen
                )
                chunk = await handle.within(self._seconds, piece)
                position += len(chunk)
                await self._limits.moved(len(chunk))
                yield chunk
        finally:
            handle.close()

    async def _open(self, key: str, if_tag: str) -> tuple[Handle, Seen]:
        """An object's file, and what it is.

        Raises:
            Missing: There is none.
            Changed: It has another tag.
        """

        def let_go(fd: int | None) -> None:
            if fd is not None:
                self._threads.later(partial(os.close, fd))

        try:
            async with asyncio.timeout(self._seconds):
                fd = await self._threads.obtain(let_go, self._folder.open, key)
        except TimeoutError:
            raise Transient(f"{key} hangs: it can't be opened within {self._seconds:g} s") from None
        if fd is None:
            raise Missing(f"there is no {key}")
        handle = Handle(self._threads, fd)
        try:
            seen = await handle.within(self._seconds, partial(self._folder.look, key=key))
        except BaseException:
            handle.close()
            raise
        if if_tag and seen.tag != if_tag:
            handle.close()
            raise Changed(f"{key} has the tag {seen.tag}, not {if_tag}")
        return handle, seen

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
        self._folder.check(key)
        await self._limits.request()
        async with _Writing(self._folder, self._threads) as writing:
            async for chunk in measured(chunks, size, INFO.max_size, self._limits):
                await writing.call(self._folder.append, writing.temporary, chunk)
            return await writing.call(
                self._folder.publish, writing.temporary, key, if_tag=if_tag, if_absent=if_absent, attributes=kept
            )

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says."""
        await self._limits.request()
        await self._threads.finish(self._folder.delete, key, if_tag=if_tag)

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says; on file systems that can, both share their blocks."""
        kept = None if attributes is None else checked(attributes)
        await self._limits.request()
        handle, seen = await self._open(source, if_tag)
        try:
            async with _Writing(self._folder, self._threads) as writing:
                step = partial(self._folder.copy_range, temporary=writing.temporary, count=COPY_STEP)
                while await handle.within(LIST_SECONDS, step):
                    pass
                if not await handle.within(self._seconds, seen.holds):
                    raise Changed(f"{source} was changed while it was copied")
                texts = seen.attributes if kept is None else kept
                return await writing.call(
                    self._folder.publish, writing.temporary, target, if_tag="", if_absent=if_absent, attributes=texts
                )
        finally:
            handle.close()

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """As the power Sweeper says; temporary files are one folder's for all prefixes."""
        older_than_seconds = older_than_seconds if ours is None else max(older_than_seconds, KEYLESS_SECONDS)
        return await self._threads.within(LIST_SECONDS, self._folder.sweep, older_than_seconds)

    async def capacity(self) -> tuple[int, int]:
        """Bytes used and free of the file system."""
        return await self._threads.within(self._seconds, self._folder.capacity)

    async def close(self) -> None:
        """Lets go of the threads."""
        self._threads.close()


class _Writing:
    """A temporary file that is dropped at the end, whatever happens in between."""

    temporary: Temporary

    def __init__(self, folder: Folder, threads: Threads) -> None:
        self._folder = folder
        self._threads = threads
        self._last: Future[Any] | None = None

    async def __aenter__(self) -> _Writing:
        def let_go(temporary: Temporary) -> None:
            self._threads.later(partial(self._folder.drop, temporary))

        self.temporary = await self._threads.obtain(let_go, self._folder.begin)
        return self

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls something with the file; whoever is cancelled waits for it, but not for ever."""
        call = self._last = self._threads.start(function, *args, **kwargs)
        return await outlast(asyncio.wrap_future(call), patience=PATIENCE)

    async def __aexit__(self, *_: object) -> None:
        # what still hangs must not be published when everybody thinks that it wasn't
        self.temporary.given_up = True
        drop = partial(self._folder.drop, self.temporary)
        if self._last is not None and not self._last.done():
            self._threads.later(drop, self._last)
            return
        try:
            async with asyncio.timeout(PATIENCE):
                await asyncio.shield(asyncio.wrap_future(self._threads.start(drop)))
        except Transient:
            self._threads.later(drop)
        except TimeoutError:
            log.warning("a temporary file hangs: it is let go of when the volume answers")


def _piece(fd: int, *, key: str, count: int, position: int, end: int, seen: Seen) -> bytes:
    """The next bytes; the last ones only if the file was the same all along.

    Raises:
        Changed: It wasn't.
    """
    with told(key):
        chunk = os.pread(fd, count, position)
        if not chunk:
            raise Changed(f"{key} became shorter while it was read")
        if position + len(chunk) >= end and not seen.holds(fd):
            raise Changed(f"{key} was changed while it was read")
        return chunk


def make(context: StoreContext) -> LocalStore:
    """The store of a mounted volume.

    Raises:
        InvalidRequest: It isn't said where it is mounted.
    """
    if not context.mount.startswith("/"):
        raise InvalidRequest(f"the volume of the store '{context.name}' isn't mounted here")
    limits = Limits(context.requests_per_second, context.bytes_per_second)
    return LocalStore(Folder(context.mount), context.name, limits)
