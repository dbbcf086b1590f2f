"""A collection of a WebDAV server as a store: objects are plain files under their own names.

New content goes to a random name in `.cloudmesh/tmp` by one PUT, its size is read back, its record is made (see
`records`), and only then it gets its name by MOVE. RFC 4918 has a MOVE over a file delete that first, and servers do:
for a moment, and if the server dies just then, neither is there under the name, and the whole new content under the
other. So the store doesn't declare to be atomic.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from time import perf_counter, time
from typing import Final

from cloudmesh.data.errors import Changed, InvalidName, Missing
from cloudmesh.data.stores.common import Limits, checked, fits, measured, needed, secret_texts
from cloudmesh.data.stores.ports import KEYLESS_SECONDS, Object, Ours, Page, Probe, StoreInfo
from cloudmesh.data.stores.records import (
    MOST,
    RECORDS,
    TEMPORARY,
    Record,
    decoded,
    hidden,
    parts_of,
    path_of,
)
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.threads import outlast
from cloudmesh.data.stores.walk import Walk
from cloudmesh.data.stores.webdav_client import TRIES, DavClient, again
from cloudmesh.data.stores.webdav_writing import Writing, blocked, drop, names_in
from cloudmesh.data.stores.webdav_xml import QUOTA, Resource
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient, Unsupported

MAX_PART: Final = 255
MAX_KEY: Final = 2048
"""A URL has 8190 bytes at most with Apache, where each byte of a name can take three."""
KNOWN: Final = frozenset({"username", "password", "ca.crt"})
CONTROLS: Final = "".join(map(chr, (*range(1, 32), 127)))
"""What many servers refuse in names; XML can't tell most of them."""


class WebdavStore:
    """One collection.

    Args:
        client: Its requests.
        limits: Of requests and bytes.
    """

    def __init__(self, client: DavClient, *, limits: Limits | None = None) -> None:
        self._client = client
        self._limits = limits or Limits()
        self._walk = Walk(partial(names_in, client), hidden)
        self._info = StoreInfo(
            "webdav", "None", atomic=False, max_key=MAX_KEY, max_part=MAX_PART, max_size=8 << 60, refuses=CONTROLS,
            failure_domain=client.host, write_holds=2 << 20, read_holds=1 << 20,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"WebdavStore({self._client.base!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    # -- looking

    async def probe(self) -> Probe:
        """Looks at the collection."""
        await self._limits.request()
        begin = perf_counter()
        try:
            found, clock = await again(lambda: self._client.propfind(""))
        except Missing:
            await self._client.absent()
            raise Transient("the collection comes and goes") from None
        if not found.folder:
            raise InvalidRequest(f"{self._client.base} is no collection")
        took = perf_counter() - begin
        return Probe(round(took * 1000), None if clock is None else round((clock - time() + took / 2) * 1000))

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        await self._limits.request()
        if not _holdable(key):
            return None
        seen = await self._file(key)
        if seen is None:
            return None
        record = await self._record(key, seen)
        return Object(key, seen.size, seen.tag, seen.modified, record.attributes if record is not None else {})

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says, with tags; a collection that may not be read makes it incomplete."""
        await self._limits.request()
        return await self._walk.page(prefix, after, limit)

    async def _file(self, key: str) -> Resource | None:
        """The file, None also for collections."""
        seen = await self._client.look(key)
        return None if seen is None or seen.folder else seen

    async def _record(self, key: str, seen: Resource) -> Record | None:
        text = await self._client.get(path_of(key, seen.mark), MOST)
        record = decoded(text) if text is not None else None
        return record if record is not None and seen.is_of(record, key) else None

    # -- reading

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says; looked at before and after, since a server may write into a file that is being read."""
        await self._limits.request()
        seen = await self._file(key) if _holdable(key) else None
        if seen is None:
            raise Missing(f"there is no {key}")
        fits(key, seen.tag, if_tag)
        end = seen.size if length is None else min(seen.size, start + length)
        position, tries = start, TRIES
        while position < end:
            source = self._pieces(key, seen, position, end)
            try:
                async for piece in source:
                    position += len(piece)
                    tries = TRIES
                    await self._limits.moved(len(piece))
                    if position >= end:
                        await self._same(key, seen)
                    yield piece
            except Transient:
                tries -= 1
                if not tries or position >= end:
                    raise
                await asyncio.sleep(0.1)
            finally:
                await source.aclose()

    async def _pieces(self, key: str, seen: Resource, position: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from a place, of the content that was seen."""
        headers = {"Range": f"bytes={position}-{end - 1}"}
        try:
            async with self._client.request("GET", key, headers=headers, also=(416,)) as answer:
                if answer.status == 416:
                    raise Changed(f"{key} became shorter while it was read")
                tag = answer.headers.get("ETag", "").removeprefix("W/").strip('"')
                if tag and tag != seen.tag:
                    await self._same(key, seen)  # else the server has two ways to tell a tag
                skip = position if answer.status == 200 else 0
                if not skip and answer.status == 206 and not _begins(answer.headers.get("Content-Range", ""), position):
                    raise Transient(f"{key}: other bytes came than were asked for")
                left = end - position
                async for piece in answer.content.iter_any():
                    kept = piece[skip:]
                    skip = max(0, skip - len(piece))
                    kept = kept[:left]
                    left -= len(kept)
                    if kept:
                        yield kept
                    if not left:
                        return
        except Missing:
            await self._client.absent()
            raise Changed(f"{key} was removed while it was read") from None
        raise Transient(f"{key}: {left} bytes are missing at the end")

    async def _same(self, key: str, seen: Resource) -> None:
        """Makes sure that a file is what it was.

        Raises:
            Changed: It isn't.
        """
        there = await self._file(key)
        if there is None or there.mark != seen.mark:
            raise Changed(f"{key} was changed while it was read")

    # -- writing

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
        """As the port says; what it is tied to is compared as late as can be, but not by the server."""
        writing = self._writing(key, checked(attributes), if_tag=if_tag, if_absent=if_absent)
        await self._limits.request()
        if if_tag or if_absent:
            await writing.compare()  # what can be known now needn't be told after gigabytes
        try:
            await writing.take(measured(chunks, size, self._info.max_size, self._limits), size)
            return await outlast(writing.publish())
        except BaseException:
            await outlast(writing.abandon())
            raise

    def _writing(self, key: str, texts: Mapping[str, str], *, if_tag: str = "", if_absent: bool = False) -> Writing:
        if not _holdable(key):
            raise InvalidName(f"{key[:80]!r}: a name has {MAX_PART} bytes at most, a key {MAX_KEY}")
        return Writing(self._client, key, texts, if_tag=if_tag, if_absent=if_absent)

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says; collections stay, since to delete one is to delete all in it."""
        await self._limits.request()
        there = await self._file(key) if _holdable(key) else None
        if there is None:
            return
        fits(key, there.tag, if_tag)
        await outlast(self._remove(key, there))

    async def _remove(self, key: str, there: Resource) -> None:
        record = path_of(key, there.mark)
        try:
            await drop(self._client, key)
        except Transient:
            with suppress(CloudmeshError):
                if await self._file(key) is None:
                    await drop(self._client, record)
            raise
        with suppress(CloudmeshError):
            await drop(self._client, record)

    # -- powers

    async def copy(
        self,
        source: str,
        target: str,
        *,
        if_tag: str = "",
        if_absent: bool = False,
        attributes: Mapping[str, str] | None = None,
    ) -> Object:
        """As the power Copier says: the server copies to a name that nobody sees."""
        texts: Mapping[str, str] | None = None if attributes is None else checked(attributes)
        await self._limits.request()
        seen = await self._file(source) if _holdable(source) else None
        if seen is None:
            raise Missing(f"there is no {source}")
        fits(source, seen.tag, if_tag)
        if texts is None:
            record = await self._record(source, seen)
            texts = record.attributes if record is not None else {}
        writing = self._writing(target, texts, if_absent=if_absent)
        try:
            await outlast(writing.copied(source, seen.size))
            await self._same(source, seen)
            return await outlast(writing.publish())
        except BaseException:
            await outlast(writing.abandon())
            raise

    async def blocked(self, key: str) -> str:
        """As the power Folders says."""
        await self._limits.request()
        return await blocked(self._client, parts_of(key))

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """As the power Sweeper says; temporary files and records are one collection's for all prefixes."""
        older_than_seconds = older_than_seconds if ours is None else max(older_than_seconds, KEYLESS_SECONDS)
        _, clock = await again(lambda: self._client.propfind(""))
        until = round(((time() if clock is None else clock) - older_than_seconds) * 1_000_000)
        count = 0
        for path in await self._old(TEMPORARY, until):
            count += await drop(self._client, path)
        for found in sorted(await names_in(self._client, RECORDS) or ()):
            name = found.partition(b"\0")[0].decode()
            if name.endswith("/"):
                for path in await self._old(RECORDS + name, until):
                    count += await self._sweep_record(path)
        return count

    async def _old(self, folder: str, until: int) -> Sequence[str]:
        """Files in a collection that weren't changed since."""
        found = []
        for each in await names_in(self._client, folder) or ():
            name, _, told = each.partition(b"\0")
            if not name.endswith(b"/") and int(told.split(b" ", 2)[1]) <= until:
                found.append(folder + name.decode())
        return found

    async def _sweep_record(self, path: str) -> bool:
        text = await self._client.get(path, MOST)
        record = decoded(text) if text is not None else None
        seen = None
        if record is not None and path == record.path:
            with suppress(InvalidName):
                seen = await self._file(record.key) if _holdable(record.key) else None
        if record is not None and seen is not None and seen.is_of(record, record.key):
            return False
        return await drop(self._client, path)

    async def capacity(self) -> tuple[int, int]:
        """Bytes used and free, as the server's quota tells (RFC 4331).

        Raises:
            Unsupported: It doesn't.
        """
        await self._limits.request()
        found, _ = await again(lambda: self._client.propfind("", *QUOTA))
        if found.used is None or found.free is None:
            raise Unsupported("the server tells no quota")
        return found.used, found.free

    async def close(self) -> None:
        """Lets go of connections."""
        await self._client.close()


def _holdable(key: str) -> bool:
    """Whether the server could hold such a name.

    Raises:
        InvalidName: The key leads outside.
    """
    return all(len(part.encode()) <= MAX_PART for part in parts_of(key)) and len(key.encode()) <= MAX_KEY


def _begins(told: str, position: int) -> bool:
    """Whether a Content-Range begins there."""
    return told.removeprefix("bytes").strip().startswith(f"{position}-")


def make(context: StoreContext) -> WebdavStore:
    """The store of a collection.

    Raises:
        AuthFailed: The Secret lacks a key.
        InvalidRequest: It has a key that means nothing, or the endpoint is an address of this machine.
    """
    secret = secret_texts(context.credentials, KNOWN)
    needed(secret, "username", "password")
    client = DavClient(
        str(context.settings["endpoint"]), secret["username"], secret["password"],
        authorities=secret.get("ca.crt", ""), guard=context.guarded(),
    )  # fmt: skip
    return WebdavStore(client, limits=Limits(context.requests_per_second, context.bytes_per_second))
