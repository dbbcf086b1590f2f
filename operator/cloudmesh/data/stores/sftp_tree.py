"""Files, folders and records of an SFTP server's folder, by single calls."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import asyncssh

from cloudmesh.data.errors import Full, Missing, ReadOnly
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.stores.records import MOST, Record, decoded, path_of
from cloudmesh.data.stores.sftp_link import Link, Opened, Refused
from cloudmesh.data.stores.walk import Entry, entry
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, NameConflict, Transient

LOOKS: Final = 5
"""How often what changes under the eyes is looked at again."""
READ_ONLY_FLAG: Final = 1
BLOCK: Final = 4096


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as it was found; `write` and `attributes` are empty where somebody else has written it."""

    size: int
    seconds: int
    write: str = ""
    attributes: Mapping[str, str] | None = None

    @classmethod
    def of(cls, attrs: asyncssh.SFTPAttrs) -> Seen:
        """What the server tells of it."""
        return cls(attrs.size or 0, int(attrs.mtime or 0))

    @property
    def mark(self) -> str:
        """What its record is for."""
        return f"{self.size:x}-{self.seconds:x}"

    @property
    def tag(self) -> str:
        """Its entity tag."""
        return f"{self.mark}-{self.write}"

    def object(self, key: str) -> Object:
        """In the port's words."""
        return Object(key, self.size, self.tag, self.seconds * 1_000_000, self.attributes or {})


class Tree:
    """The folder.

    Args:
        link: The connection.
        root: Its path, absolute.
    """

    def __init__(self, link: Link, root: str) -> None:
        self.link = link
        self.root = root.rstrip("/")

    async def look(self, key: str) -> Seen | None:
        """The file with its record; None if there surely is no regular file."""
        found = await self.bare(key)
        for _ in range(LOOKS):
            if found is None:
                return None
            record = await self.record(key, found.mark)
            if record is not None:
                return replace(found, write=record.write, attributes=record.attributes)
            # a file of somebody else, or one that was replaced between the two looks
            again = await self.bare(key)
            if again == found:
                return found
            found = again
        raise Transient(f"{key} changes all the time")

    async def bare(self, key: str) -> Seen | None:
        """The file without its record; None also for folders, links and the like."""
        attrs = await self.attrs(key)
        return Seen.of(attrs) if attrs is not None and is_file(attrs) else None

    async def attrs(self, path: str) -> asyncssh.SFTPAttrs | None:
        """What lies there, None if nothing does."""
        try:
            return await self.link.call("lstat", path, lambda sftp: sftp.lstat(self.path(path)))
        except Missing:
            await self.rooted()
            return None

    async def rooted(self) -> None:
        """Makes sure that the folder is there.

        Raises:
            InvalidRequest: It isn't.
        """
        words = f"there is no folder {self.root or '/'} on {self.link.login}"
        try:
            attrs = await self.link.call("lstat", self.root, lambda sftp: sftp.stat(self.path("")))
        except Missing:
            raise InvalidRequest(f"{words}: make it, or name another one") from None
        if not is_folder(attrs):
            raise InvalidRequest(f"{words}, but a file")

    async def record(self, key: str, mark: str) -> Record | None:
        """The record of a content."""
        record = await self.record_at(path_of(key, mark))
        return record if record is not None and (record.key, record.mark) == (key, mark) else None

    async def record_at(self, path: str) -> Record | None:
        """What a record's file tells, None if there is none or it can't be read."""
        try:
            opened = await Opened.open(self.link, "record", self.path(path), "rb", path)
        except Missing:
            return None
        try:
            return decoded(await opened.read("record", 0, MOST))
        finally:
            opened.close_later()

    async def drop_record(self, key: str, seen: Seen) -> None:
        """Removes the record of a content that is gone, if it is still that content's: after a removal by somebody else
        a third may have made one at the same path, for a content of the same size in the same second."""
        path = path_of(key, seen.mark)
        if seen.write:  # else nobody knows whose it is: a sweep finds out
            record = await self.record_at(path)
            if record is not None and record.write == seen.write:
                await self.drop_file(path)

    async def folder(self, path: str) -> list[Entry] | None:
        """Names in a folder; None if there is none."""
        names: list[Entry] = []
        session = await self.link.session()
        loop = asyncio.get_running_loop()
        seconds = self.link.seconds

        async def read() -> None:
            # the time limit is for each answer, since a large folder has thousands
            async with asyncio.timeout(seconds) as limit:
                async for each in session.sftp.scandir(self.path(path)):
                    if len(names) % 64 == 0:
                        limit.reschedule(loop.time() + seconds)
                    attrs = each.attrs
                    mode = attrs.permissions or 0
                    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                        continue
                    name: Any = each.filename
                    made = entry(
                        name, folder=stat.S_ISDIR(mode), size=attrs.size or 0,
                        modified=(attrs.mtime or 0) * 1_000_000,
                    )  # fmt: skip
                    if made is not None:
                        names.append(made)

        try:
            await self.link.on(session, "scandir", path or self.root, read, limited=False)
        except Missing:
            await self.rooted()
            return None
        return names

    async def make_folders(self, path: str) -> None:
        """Makes a folder below the store's, and those above it.

        Raises:
            InvalidRequest: The store's own folder isn't there.
            NameConflict: A file is in the way.
        """
        missing: list[str] = []
        while not await self._make_folder(path):
            missing.append(path)
            path = path.rpartition("/")[0]
            if not path:
                await self.rooted()
                break
        for each in reversed(missing):
            if not await self._make_folder(each):
                raise Transient(f"{each}: a folder above it went away")

    async def _make_folder(self, path: str) -> bool:
        """Makes a folder; False if the one above it isn't there."""
        try:
            await self.link.call("mkdir", path, lambda sftp: sftp.mkdir(self.path(path)), writing=True)
        except Missing:
            return False
        except Refused as error:
            attrs = await self.attrs(path)
            if attrs is None:
                raise await self.room(error, BLOCK) from None
            if not is_folder(attrs):
                raise NameConflict(f"{path}: a file or a link is where a folder must be") from None
        return True

    async def room(self, error: Refused, need: int) -> CloudmeshError:
        """What a bare "Failure" of a write means, by what the file system tells: it is full, or takes no writes."""
        try:
            found = await self.room_of()
        except CloudmeshError:
            return error
        if found.flags & READ_ONLY_FLAG:
            return ReadOnly(f"{self.root} is mounted read-only on the server")
        if found.bavail * found.frsize < need or (found.files and not found.favail):
            return Full(f"{self.root} has {found.bavail * found.frsize} bytes free")
        return error

    async def room_of(self) -> asyncssh.SFTPVFSAttrs:
        """What the file system tells of itself."""
        return await self.link.call("statvfs", "the folder", lambda sftp: sftp.statvfs(self.path("")))

    async def drop_file(self, path: str, kind: str = "clean") -> bool:
        """Removes a file; False if there is none."""
        try:
            await self.link.call(kind, path, lambda sftp: sftp.remove(self.path(path)), writing=True)
        except Missing:
            return False
        return True

    async def drop_folder(self, path: str) -> None:
        """Removes an empty folder."""
        await self.link.call("rmdir", path, lambda sftp: sftp.rmdir(self.path(path)), writing=True)

    def path(self, key: str) -> bytes:
        """The path of a key on the server."""
        return f"{self.root}/{key}".rstrip("/").encode() or b"/"


def is_file(attrs: asyncssh.SFTPAttrs) -> bool:
    """Whether it is a regular file."""
    return stat.S_ISREG(attrs.permissions or 0)


def is_folder(attrs: asyncssh.SFTPAttrs) -> bool:
    """Whether it is a folder."""
    return stat.S_ISDIR(attrs.permissions or 0)
