"""A volume as a store: objects are plain files under their own names. See `folder` for how they are kept whole."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping

from cloudmesh.data.errors import Changed, Missing
from cloudmesh.data.stores.common import Limits, checked, measured
from cloudmesh.data.stores.folder import Folder, Temporary
from cloudmesh.data.stores.ports import CHUNK, Object, Page, Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.system_errors import told
from cloudmesh.data.stores.threads import Threads
from cloudmesh.engine.errors import InvalidRequest

THREADS = 8
COPY_STEP = 64 << 20
INFO = StoreInfo("local", "Full", max_key=4096, max_part=255, max_size=8 << 60)


class LocalStore:
    """A folder.

    Args:
        folder: Where.
        name: Of the store.
        limits: Of requests and bytes.
    """

    def __init__(self, folder: Folder, name: str = "local", limits: Limits | None = None) -> None:
        self._folder = folder
        self._limits = limits or Limits()
        self._threads = Threads(name, THREADS)

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return INFO

    async def probe(self) -> Probe:
        """Whether the folder is there and takes writes."""
        return await self._threads.run(self._folder.probe)

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        await self._limits.request()
        return await self._threads.run(self._folder.stat, key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says; a file or folder that may not be read makes it incomplete."""
        await self._limits.request()
        return await self._threads.run(self._folder.page, prefix, after, limit)

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says; a file that is changed in place while it is read is found out at the end."""
        await self._limits.request()
        fd = await self._threads.obtain(_closed, self._folder.open, key)
        if fd is None:
            raise Missing(f"there is no {key}")
        try:
            seen = await self._threads.finish(self._folder.look, fd, key)
            if if_tag and seen.tag != if_tag:
                raise Changed(f"{key} has the tag {seen.tag}, not {if_tag}")
            end = seen.size if length is None else min(seen.size, start + length)
            position = start
            while position < end:
                chunk = await self._threads.finish(_piece, fd, key, min(CHUNK, end - position), position)
                if not chunk:
                    raise Changed(f"{key} became shorter while it was read")
                position += len(chunk)
                await self._limits.moved(len(chunk))
                if position >= end and not seen.holds(fd):
                    raise Changed(f"{key} was changed while it was read")
                yield chunk
        finally:
            os.close(fd)

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
        async with _Writing(self._folder, self._threads) as temporary:
            async for chunk in measured(chunks, size, INFO.max_size, self._limits):
                await self._threads.finish(self._folder.append, temporary, chunk)
            return await self._threads.finish(
                self._folder.publish, temporary, key, if_tag=if_tag, if_absent=if_absent, attributes=kept
            )

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says."""
        await self._limits.request()
        await self._threads.finish(self._folder.delete, key, if_tag=if_tag)

    async def copy(
        self, source: str, target: str, *, if_tag: str = "", attributes: Mapping[str, str] | None = None
    ) -> Object:
        """As the power Copier says; on file systems that can, both share their blocks."""
        kept = None if attributes is None else checked(attributes)
        await self._limits.request()
        fd = await self._threads.obtain(_closed, self._folder.open, source)
        if fd is None:
            raise Missing(f"there is no {source}")
        try:
            seen = await self._threads.finish(self._folder.look, fd, source)
            if if_tag and seen.tag != if_tag:
                raise Changed(f"{source} has the tag {seen.tag}, not {if_tag}")
            async with _Writing(self._folder, self._threads) as temporary:
                while await self._threads.finish(self._folder.copy_range, fd, temporary, COPY_STEP):
                    pass
                if not seen.holds(fd):
                    raise Changed(f"{source} was changed while it was copied")
                texts = seen.attributes if kept is None else kept
                return await self._threads.finish(
                    self._folder.publish, temporary, target, if_tag="", if_absent=False, attributes=texts
                )
        finally:
            os.close(fd)

    async def sweep(self, prefix: str, older_than_seconds: int) -> int:
        """As the power Sweeper says; temporary files are one folder's for all prefixes."""
        return await self._threads.run(self._folder.sweep, older_than_seconds)

    async def capacity(self) -> tuple[int, int]:
        """Bytes used and free of the file system."""
        return await self._threads.run(self._folder.capacity)

    async def close(self) -> None:
        """Lets go of the threads."""
        self._threads.close()


class _Writing:
    """A temporary file that is dropped at the end, whatever happens in between."""

    def __init__(self, folder: Folder, threads: Threads) -> None:
        self._folder = folder
        self._threads = threads
        self._temporary: Temporary | None = None

    async def __aenter__(self) -> Temporary:
        self._temporary = await self._threads.obtain(self._folder.drop, self._folder.begin)
        return self._temporary

    async def __aexit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._folder.drop(self._temporary)


def _closed(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _piece(fd: int, key: str, count: int, position: int) -> bytes:
    with told(key):
        return os.pread(fd, count, position)


def make(context: StoreContext) -> LocalStore:
    """The store of a mounted volume.

    Raises:
        InvalidRequest: It isn't said where it is mounted.
    """
    if not context.mount.startswith("/"):
        raise InvalidRequest(f"the volume of the store '{context.name}' isn't mounted here")
    limits = Limits(context.requests_per_second, context.bytes_per_second)
    return LocalStore(Folder(context.mount), context.name, limits)
