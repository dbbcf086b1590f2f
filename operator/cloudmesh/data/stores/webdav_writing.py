"""A content on its way into a WebDAV server, and the collections that it lies in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from cloudmesh.data.errors import Changed, Missing, ReadOnly
from cloudmesh.data.stores.common import fits
from cloudmesh.data.stores.ports import Object
from cloudmesh.data.stores.records import MOST, TEMPORARY, Record, parts_of, path_of, temporary
from cloudmesh.data.stores.walk import Entry, entry
from cloudmesh.data.stores.webdav_client import TRIES, DavClient, NoParent, again
from cloudmesh.data.stores.webdav_xml import Resource
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, NameConflict, Transient

ABANDON_SECONDS: Final = 20.0
"""How long the end of a failed write waits for the server."""
MOST_MADE: Final = 1000
"""Collections that are remembered to be there."""


class Writing:
    """One content on its way: a temporary file, then a record, then its name."""

    def __init__(
        self, client: DavClient, key: str, texts: Mapping[str, str], *, if_tag: str = "", if_absent: bool = False
    ) -> None:
        self._client = client
        self._key = key
        self._texts = texts
        self._if_tag = if_tag
        self._if_absent = if_absent
        self._temporary = temporary()
        self._begun = self._placing = False
        self._size = 0
        self._error: BaseException | None = None
        self._seen: Resource | None = None
        self._record: Record | None = None

    async def compare(self) -> Resource | None:
        """What is there, if it is what should be."""
        there = await self._client.look(self._key)
        if there is not None and there.folder:
            raise NameConflict(f"{self._key}: a collection is in the way")
        fits(self._key, there.tag if there else None, self._if_tag, if_absent=self._if_absent)
        return there

    async def take(self, pieces: AsyncIterator[bytes], size: int | None) -> None:
        """Brings the content to the temporary file."""
        first = await anext(pieces, b"")  # what is no content at all makes no request
        await self._begin()
        try:
            if first:
                await self._client.put(self._temporary, self._counted(first, pieces), size)
            else:
                await self._client.put(self._temporary, b"", 0)
        except CloudmeshError as error:
            if self._error is not None:  # the library has made an error of its own of the source's
                raise self._error from None
            if isinstance(error, NoParent | Missing):
                self._client.made.clear()
                raise Transient(f"{self._key}: the collection for temporary files went away") from None
            raise

    async def _begin(self) -> None:
        await make_folders(self._client, TEMPORARY)
        self._begun = True

    async def _counted(self, first: bytes, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        try:
            self._size += len(first)
            yield first
            async for piece in pieces:
                self._size += len(piece)
                yield piece
        except Exception as error:
            self._error = error
            raise

    async def copied(self, source: str, size: int) -> None:
        """Has the server make the temporary file of another one."""
        await self._begin()
        self._size = size
        headers = {"Destination": self._client.url(self._temporary), "Overwrite": "F", "Depth": "0"}
        await self._client.change("COPY", source, headers=headers)

    async def publish(self) -> Object:
        """Gives it its name; nothing is seen of it before."""
        seen, there_now = await asyncio.gather(self._client.look(self._temporary), self.compare())
        if seen is None or seen.folder or seen.size != self._size:
            there = "nothing" if seen is None else f"{seen.size} bytes"
            raise Transient(f"{self._key}: {self._size} bytes were written, and {there} came back")
        self._seen = seen
        if there_now is not None and there_now.mark == seen.mark:
            raise Transient(f"{self._key}: the server's entity tag doesn't tell two contents apart: try again")
        self._record = Record(self._key, seen.mark, self._texts)
        await self._keep(self._record)
        if self._if_tag:
            there_now = await self.compare()  # as late as can be
        await self._place(there_now)
        with suppress(CloudmeshError):  # it is published, whatever else fails
            if there_now is not None:
                await drop(self._client, path_of(self._key, there_now.mark))
            if not self._client.tags_stay:
                seen = await self._moved(seen)
        return Object(self._key, seen.size, seen.tag, seen.modified, self._texts)

    async def _keep(self, record: Record) -> None:
        content = record.encoded()
        for _ in range(2):
            try:
                return await self._client.put(record.path, content, len(content))
            except (NoParent, Missing):
                self._client.made.clear()
                await make_folders(self._client, record.path.rpartition("/")[0] + "/")
        raise Transient(f"{self._key}: its record can't be made")

    async def _place(self, there: Resource | None) -> None:
        folder = self._key.rpartition("/")[0]
        if there is None and folder:
            await make_folders(self._client, folder + "/")  # not all servers say that it is missing
        for _ in range(TRIES):
            # over nothing it is always refused to replace: a collection would go with all in it
            over = "T" if there is not None else "F"
            headers = {"Destination": self._client.url(self._key), "Overwrite": over}
            self._placing = True
            try:
                await self._client.change("MOVE", self._temporary, headers=headers)
            except Transient:
                self._client.made.clear()
                raise
            except NoParent:
                self._client.made.clear()
                if found := await blocked(self._client, parts_of(self._key)):
                    raise NameConflict(f"{self._key}: {found} is in the way") from None
                if folder:
                    await make_folders(self._client, folder + "/")
            except Missing:
                await self._client.absent()
                raise Transient(f"{self._key}: the content went away before it was published") from None
            except Changed:
                there = await self.compare()
            else:
                return
        raise Transient(f"{self._key}: what is there, or its collection, comes and goes")

    async def _moved(self, seen: Resource) -> Resource:
        """What is there now; a server that gives another tag by a MOVE gets a record for that too."""
        there = await self._client.look(self._key)
        if there is not None and there.mark == seen.mark:
            self._client.tags_stay = True
            return seen
        if there is None or there.folder or there.size != seen.size:
            return seen
        if await self._client.get(path_of(self._key, there.mark), MOST) is not None:
            return seen  # another writer's
        await self._keep(Record(self._key, there.mark, self._texts))
        await drop(self._client, path_of(self._key, seen.mark))
        return there

    async def abandon(self) -> None:
        """Removes what isn't published; what fails here is left for a sweep."""
        if not self._begun:
            return
        with suppress(CloudmeshError, TimeoutError):
            async with asyncio.timeout(min(ABANDON_SECONDS, 2 * self._client.seconds)):
                await again(lambda: drop(self._client, self._temporary))
                if self._record is not None and not await self._published():
                    await drop(self._client, self._record.path)

    async def _published(self) -> bool:
        if not self._placing or self._seen is None:
            return False
        there = await self._client.look(self._key)
        return there is not None and there.mark == self._seen.mark


async def names_in(client: DavClient, path: str) -> list[Entry] | None:
    """Names in a collection; None if there is none."""

    async def once() -> list[Entry] | None:
        names: list[Entry] = []

        def found(name: bytes, each: Resource) -> None:
            made = entry(name, folder=each.folder, size=each.size, modified=each.modified, tag=each.tag)
            if made is not None:
                names.append(made)

        return names if await client.members(path, found) else None

    try:
        return await again(once)
    except Missing:
        await client.absent()
        return None
    except InvalidRequest:
        if not path or not await client.below_file(path):
            raise
        return None


async def drop(client: DavClient, path: str) -> bool:
    """Removes a file; False if there is none."""
    try:
        await client.change("DELETE", path)
    except Missing:
        await client.absent()
        return False
    return True


async def make_folders(client: DavClient, path: str) -> None:
    """Makes a collection below the store's, and those above it; `path` ends with a slash.

    Raises:
        InvalidRequest: The store's own collection isn't there.
    """
    missing: list[str] = []
    whole = path
    if whole in client.made:
        return
    while path:
        try:
            await _make_folder(client, path)
            break
        except (NoParent, Missing):
            missing.append(path)
            path = path[:-1].rpartition("/")[0]
            path = path + "/" if path else ""
    else:
        await client.absent()
    for each in reversed(missing):
        await _make_folder(client, each)
    if len(client.made) >= MOST_MADE:
        client.made.clear()
    client.made.add(whole)


async def _make_folder(client: DavClient, path: str) -> None:
    try:
        await client.change("MKCOL", path, also=(405,))
    except (ReadOnly, InvalidRequest):
        # servers say so too where another one has made it at the same moment, or where there is a file
        seen = await client.look(path.removesuffix("/"))
        if seen is None:
            raise
        if not seen.folder:
            raise NameConflict(f"{path}: a file is where a collection must be") from None


async def blocked(client: DavClient, parts: Sequence[str]) -> str:
    """The beginning of a key that is no collection, or the key if that is one; empty if nothing is in its way."""
    for depth in range(len(parts), 0, -1):
        path = "/".join(parts[:depth])
        seen = await client.look(path)
        if seen is not None:
            return path if seen.folder == (depth == len(parts)) else ""
    return ""
