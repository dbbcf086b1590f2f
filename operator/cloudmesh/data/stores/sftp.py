"""A folder of an SFTP server as a store: objects are plain files under their own names.

New content goes to a random name in `.cloudmesh/tmp`, is brought to disk, its size is read back, and only then it gets
its name: by a hard link where there must be no object yet, which the server refuses over one, else by
`posix-rename@openssh.com`, which replaces at once. A file's time counts whole seconds, so two contents of one size can
look alike; therefore each write keeps a record (see `records`), and gets a time that no other record of the key has.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from cloudmesh.data.errors import Changed, InvalidName, Missing
from cloudmesh.data.stores.common import Limits, checked, fits, measured
from cloudmesh.data.stores.ports import CHUNK, KEYLESS_SECONDS, Object, Ours, Page, Probe, StoreInfo
from cloudmesh.data.stores.records import RECORDS, TEMPORARY, Record, hidden, parts_of, temporary
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.sftp_link import TRIES, Handle, Link, Opened, Refused, again, read_login
from cloudmesh.data.stores.sftp_tree import BLOCK, READ_ONLY_FLAG, Seen, Tree, is_file, is_folder
from cloudmesh.data.stores.threads import outlast
from cloudmesh.data.stores.walk import Walk
from cloudmesh.engine.errors import CloudmeshError, NameConflict, Transient, Unsupported

MAX_PART: Final = 255
MAX_KEY: Final = 3072
"""A path has 4096 bytes at most, that of the store's folder included."""
IN_FLIGHT: Final = 4
"""Pieces of a content that go up at once, and that are read ahead."""
ABANDON_SECONDS: Final = 20.0
"""How long the end of a failed write waits for the server."""
MARKS: Final = 60
"""Seconds that a file's time may be ahead, so that no other record has it."""


class SftpStore:
    """One folder of a server.

    Args:
        link: The connection.
        root: Path of the folder, absolute.
        limits: Of requests and bytes.
    """

    def __init__(self, link: Link, root: str, *, limits: Limits | None = None) -> None:
        self._link = link
        self._tree = Tree(link, root)
        self._limits = limits or Limits()
        self._walk = Walk(self._tree.folder, hidden)
        self._info = StoreInfo(
            "sftp", "Create", max_key=MAX_KEY, max_part=MAX_PART, max_size=8 << 60, failure_domain=link.login.host,
            write_holds=2 * (IN_FLIGHT + 1) * CHUNK, read_holds=2 * IN_FLIGHT * CHUNK,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"SftpStore({str(self._link.login)!r}, {self._tree.root!r})"

    @property
    def info(self) -> StoreInfo:
        """What it declares."""
        return self._info

    # -- looking

    async def probe(self) -> Probe:
        """Looks at the folder; nothing is written."""
        await self._limits.request()
        begin = perf_counter()
        await self._tree.rooted()
        took = round((perf_counter() - begin) * 1000)
        with suppress(Unsupported):
            if (await self._tree.room_of()).flags & READ_ONLY_FLAG:
                return Probe(took, None, False, f"{self._tree.root} is mounted read-only on the server")
        return Probe(took)

    async def stat(self, key: str) -> Object | None:
        """As the port says."""
        await self._limits.request()
        if not _holdable(key):
            return None
        seen = await self._tree.look(key)
        return seen.object(key) if seen is not None else None

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        """As the port says, without tags; a folder that may not be read makes it incomplete."""
        await self._limits.request()
        return await self._walk.page(prefix, after, limit)

    # -- reading

    async def read(
        self, key: str, *, start: int = 0, length: int | None = None, if_tag: str = ""
    ) -> AsyncIterator[bytes]:
        """As the port says; a file that is changed in place while it is read is found out at the end."""
        await self._limits.request()
        seen = await again(lambda: self._tree.look(key)) if _holdable(key) else None
        if seen is None:
            raise Missing(f"there is no {key}")
        fits(key, seen.tag, if_tag)
        end = seen.size if length is None else min(seen.size, start + length)
        source = Handle(lambda: self._opened(key, seen))
        coming: deque[asyncio.Task[bytes]] = deque()
        asked = position = start
        try:
            while position < end:
                while len(coming) < IN_FLIGHT and asked < end:
                    count = min(CHUNK, end - asked)
                    coming.append(asyncio.create_task(_piece(source, key, asked, count)))
                    asked += count
                piece = await coming[0]
                coming.popleft()
                position += len(piece)
                await self._limits.moved(len(piece))
                if position >= end:
                    await again(lambda: _same(source, key, seen))
                yield piece
        finally:
            for task in coming:
                task.cancel()
                task.add_done_callback(_heed)
            source.close_later()

    async def _opened(self, key: str, seen: Seen) -> Opened:
        """The file open, if it is what was seen."""
        try:
            opened = await Opened.open(self._link, "open", self._tree.path(key), "rb", key)
        except Missing:
            raise Changed(f"{key} was removed while it was read") from None
        try:
            attrs, record = await asyncio.gather(opened.stat(), self._tree.record(key, seen.mark))
            # the same size and time may be another content's, if the first one was deleted meanwhile
            write = record.write if record is not None else ""
            same = is_file(attrs) and Seen.of(attrs).mark == seen.mark and write == seen.write
        except BaseException:
            opened.close_later()
            raise
        if not same:
            opened.close_later()
            raise Changed(f"{key} was replaced while it was read")
        return opened

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
        """As the port says; a tag is compared as late as can be, but not by the server."""
        texts = checked(attributes)
        if not _holdable(key):
            raise InvalidName(f"{key[:80]!r}: a name has {MAX_PART} bytes at most, a key {MAX_KEY}")
        await self._limits.request()
        writing = _Writing(self._link, self._tree, key, texts, if_tag=if_tag, if_absent=if_absent)
        if if_tag or if_absent:
            await writing.compare()  # what can be known now needn't be told after gigabytes
        try:
            await writing.take(measured(chunks, size, self._info.max_size, self._limits))
            return await outlast(writing.publish())
        except BaseException:
            await outlast(writing.abandon())
            raise

    async def delete(self, key: str, *, if_tag: str = "") -> None:
        """As the port says, and folders above that are empty then; the tag is looked at right before."""
        await self._limits.request()
        if not _holdable(key):
            return
        there = await self._tree.look(key)
        if there is None:
            return
        fits(key, there.tag, if_tag)
        await outlast(self._remove(key, there))

    async def _remove(self, key: str, there: Seen) -> None:
        try:
            await self._tree.drop_file(key, "remove")
        except Transient:
            with suppress(CloudmeshError):
                if await again(lambda: self._tree.bare(key)) is None:
                    await self._tree.drop_record(key, there)
            raise
        with suppress(CloudmeshError):
            await self._tree.drop_record(key, there)
            while key := key.rpartition("/")[0]:
                await self._tree.drop_folder(key)

    # -- powers

    async def blocked(self, key: str) -> str:
        """As the power Folders says."""
        parts = parts_of(key)
        await self._limits.request()
        for depth in range(len(parts), 0, -1):
            path = "/".join(parts[:depth])
            attrs = await self._tree.attrs(path)
            if attrs is not None:
                fits = is_file(attrs) if depth == len(parts) else is_folder(attrs)
                return "" if fits else path
        return ""

    async def sweep(self, prefix: str, older_than_seconds: int, *, ours: Ours | None = None) -> int:
        """As the power Sweeper says; temporary files and records are one folder's for all prefixes."""
        older_than_seconds = older_than_seconds if ours is None else max(older_than_seconds, KEYLESS_SECONDS)
        now = await self._server_time()
        count = 0
        for path in await self._old(TEMPORARY, now - older_than_seconds):
            count += await self._tree.drop_file(path)
        for found in sorted(await self._tree.folder(RECORDS) or ()):
            name = found.partition(b"\0")[0].decode()
            if name.endswith("/"):
                for path in await self._old(RECORDS + name, now - older_than_seconds):
                    count += await self._sweep_record(path)
        return count

    async def _sweep_record(self, path: str) -> bool:
        record = await self._tree.record_at(path)
        seen = None
        if record is not None and path == record.path:
            with suppress(InvalidName):
                seen = await self._tree.bare(record.key) if _holdable(record.key) else None
        if record is not None and seen is not None and seen.mark == record.mark:
            return False
        return await self._tree.drop_file(path)

    async def _old(self, folder: str, until: int) -> Sequence[str]:
        """Files in a folder that weren't changed since."""
        found = []
        for each in await self._tree.folder(folder) or ():
            name, _, told = each.partition(b"\0")
            seconds = int(told.split(b" ", 2)[1]) // 1_000_000
            if not name.endswith(b"/") and seconds <= until:
                found.append(folder + name.decode())
        return found

    async def _server_time(self) -> int:
        """The server's clock, in seconds: only a new file tells it."""
        writing = _Writing(self._link, self._tree, "the clock", {})
        try:
            return (await (await writing.file.get()).stat()).mtime or 0
        finally:
            await outlast(writing.abandon())

    async def capacity(self) -> tuple[int, int]:
        """Bytes used and free of the file system."""
        await self._limits.request()
        found = await self._tree.room_of()
        return (found.blocks - found.bfree) * found.frsize, found.bavail * found.frsize

    async def close(self) -> None:
        """Ends the connection."""
        await self._link.close()


class _Writing:
    """One content on its way: a temporary file, then a record, then its name."""

    def __init__(
        self, link: Link, tree: Tree, key: str, texts: Mapping[str, str], *, if_tag: str = "", if_absent: bool = False
    ) -> None:
        self._link = link
        self._tree = tree
        self._key = key
        self._texts = texts
        self._if_tag = if_tag
        self._if_absent = if_absent
        self._temporary = temporary()
        self._made = False
        self._record: Record | None = None
        self._reserved = False
        """The record's file is surely our own."""
        self._placing = False
        self._size = 0
        self._running: deque[asyncio.Task[None]] = deque()
        self.file = Handle(self._open)

    async def _open(self) -> Opened:
        path = self._tree.path(self._temporary)
        if self._made:
            return await Opened.open(self._link, "create", path, "r+b", self._key)
        made = await self._created("create", self._temporary)
        self._made = True
        return made

    async def _created(self, kind: str, path: str) -> Opened:
        """A new file of ours, with its folder."""
        try:
            return await Opened.open(self._link, kind, self._tree.path(path), "xb", path)
        except Missing:
            await self._tree.make_folders(path.rpartition("/")[0])
        return await Opened.open(self._link, kind, self._tree.path(path), "xb", path)

    async def compare(self) -> Seen | None:
        """What is there, if it is what should be."""
        attrs = await self._tree.attrs(self._key)
        if attrs is not None and not is_file(attrs):
            raise NameConflict(f"{self._key}: a folder, a symbolic link or the like is in the way")
        there = await self._tree.look(self._key) if attrs is not None else None
        fits(self._key, there.tag if there else None, self._if_tag, if_absent=self._if_absent)
        return there

    async def take(self, pieces: AsyncIterator[bytes]) -> None:
        """Brings the content to the temporary file."""
        held: list[bytes] = []
        count = 0
        try:
            await self.file.get()
        except Refused as error:
            raise await self._tree.room(error, BLOCK) from None
        async for piece in pieces:
            held.append(piece)
            count += len(piece)
            if count >= CHUNK:
                await self._send(b"".join(held))
                held, count = [], 0
        if held:
            await self._send(b"".join(held))
        await self._drain(0)

    async def _send(self, content: bytes) -> None:
        self._running.append(asyncio.create_task(self._put(self._size, content)))
        self._size += len(content)
        await self._drain(IN_FLIGHT - 1)

    async def _drain(self, most: int) -> None:
        while len(self._running) > most:
            await self._running[0]
            self._running.popleft()

    async def _put(self, at: int, content: bytes) -> None:
        """Writes a piece; where the connection broke, once more, at the same place of the same file."""
        for attempt in range(TRIES):
            try:
                await (await self.file.get()).write("write", at, content)
            except Transient as error:
                found = await self._tree.room(error, len(content)) if isinstance(error, Refused) else error
                if attempt == TRIES - 1 or not isinstance(found, Transient):
                    raise found from None
            else:
                return
            await asyncio.sleep(0.05 * 2**attempt)

    async def publish(self) -> Object:
        """Gives it its name; nothing is seen of it before."""
        there = await self.compare()
        file = await self.file.get()
        await file.sync()
        found = Seen.of(await file.stat())
        if found.size != self._size:
            raise Transient(f"{self._key}: {self._size} bytes were written, and {found.size} are there")
        made = await self._recorded(found, there)
        if made.seconds != found.seconds:
            await file.set_time(made.seconds)
            if Seen.of(await file.stat()).mark != made.mark:
                raise Unsupported(f"{self._key}: the server doesn't set the time of a file")
        self.file.close_later()
        self._placing = True
        await self._place()
        with suppress(CloudmeshError):  # it is published, whatever else fails
            if there is not None:
                await self._tree.drop_record(self._key, there)
            folder = await Opened.open(
                self._link, "sync", self._tree.path(self._key.rpartition("/")[0]), "rb", self._key
            )
            folder.close_later()
            await folder.sync()
        return made.object(self._key)

    async def _recorded(self, found: Seen, there: Seen | None) -> Seen:
        """Makes the record, of a time that neither what is there nor another record has."""
        seconds = found.seconds
        if there is not None and there.size == found.size:
            seconds = max(seconds, there.seconds + 1)
        for later in range(MARKS):
            seen = Seen(found.size, seconds + later, attributes=self._texts)
            record = self._record = Record(self._key, seen.mark, self._texts)
            try:
                file = await self._created("reserve", record.path)
                self._reserved = True
            except Refused as error:
                self._record = None
                if await self._tree.attrs(record.path) is None:
                    raise await self._tree.room(error, BLOCK) from None
                continue
            try:
                await file.write("reserve", 0, record.encoded())
                await file.sync()
            except Refused as error:
                raise await self._tree.room(error, BLOCK) from None
            finally:
                file.close_later()
            return Seen(seen.size, seen.seconds, record.write, self._texts)
        raise Transient(f"{self._key}: it was written too often in the last {MARKS} s")

    async def _place(self) -> None:
        source, target = self._tree.path(self._temporary), self._tree.path(self._key)
        for _ in range(TRIES):
            try:
                if self._if_absent:
                    await self._link.call("publish", self._key, lambda sftp: sftp.link(source, target), writing=True)
                else:
                    await self._link.call(
                        "publish", self._key, lambda sftp: sftp.posix_rename(source, target), writing=True
                    )
            except Missing:
                if folder := self._key.rpartition("/")[0]:
                    await self._tree.make_folders(folder)
                else:
                    await self._tree.rooted()
            except Refused as error:
                await self.compare()
                found = await self._tree.room(error, BLOCK)
                if self._if_absent and found is error:
                    found = Transient(f"{error}: perhaps the server's file system has no hard links, which are needed")
                raise found from None
            else:
                if self._if_absent:
                    with suppress(CloudmeshError):
                        await self._tree.drop_file(self._temporary)
                return
        raise Transient(f"{self._key}: its folder, or the content itself, goes away all the time")

    async def abandon(self) -> None:
        """Removes what isn't published; what fails here is left for a sweep."""
        for task in self._running:
            task.cancel()
            task.add_done_callback(_heed)
        if self._running:
            await asyncio.wait(self._running)
        self.file.close_later()
        with suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(min(ABANDON_SECONDS, 2 * self._link.seconds)):
                await again(lambda: self._tree.drop_file(self._temporary))
                record = self._record
                if record is not None and await again(lambda: self._needless(record)):
                    await self._tree.drop_file(record.path)

    async def _needless(self, record: Record) -> bool:
        """Whether the record is surely ours, and its content wasn't published after all."""
        if self._placing:
            there = await self._tree.bare(self._key)
            if there is not None and there.mark == record.mark:
                return False
        found = await self._tree.record_at(record.path)
        # one without content may be that of another writer who has just begun it
        return found.write == record.write if found is not None else self._reserved


async def _piece(source: Handle, key: str, at: int, count: int) -> bytes:
    """Some bytes of a file, all of them."""
    piece: bytes = await again(lambda: _read(source, at, count))
    if len(piece) != count:
        raise Changed(f"{key} became shorter while it was read")
    return piece


async def _read(source: Handle, at: int, count: int) -> bytes:
    return await (await source.get()).read("read", at, count)


async def _same(source: Handle, key: str, seen: Seen) -> None:
    """Makes sure that the open file is still what it was.

    Raises:
        Changed: It isn't.
    """
    if Seen.of(await (await source.get()).stat()).mark != seen.mark:
        raise Changed(f"{key} was changed while it was read")


def _holdable(key: str) -> bool:
    """Whether the server could hold such a name.

    Raises:
        InvalidName: The key leads outside.
    """
    return all(len(part.encode()) <= MAX_PART for part in parts_of(key)) and len(key.encode()) <= MAX_KEY


def _heed(task: asyncio.Task[Any]) -> None:
    """Hears an exception that nobody waits for."""
    if not task.cancelled():
        task.exception()


def make(context: StoreContext) -> SftpStore:
    """The store of a folder.

    Raises:
        AuthFailed: The Secret lacks a key and a password.
        InvalidRequest: It has a key that means nothing, or a key can't be read.
    """
    link = Link(read_login(context.settings, context.credentials), guard=context.guarded())
    limits = Limits(context.requests_per_second, context.bytes_per_second)
    return SftpStore(link, str(context.settings["path"]), limits=limits)
