"""Files of a VirtualDirectory as other wings read and write them; the wing of files gives it to the engine."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class FileOf:
    """A file below a folder.

    Args:
        path: Its path, from the folder on.
        size: Bytes.
        tag: Entity tag, another one for another content.
    """

    path: str
    size: int
    tag: str


class OpenDirectory(Protocol):
    """A directory that answers."""

    def files(self, folder: str) -> AsyncIterator[FileOf]:
        """All files below a folder, in order; the empty name is the whole directory.

        Raises:
            NotFound: There is no such folder.
            InvalidRequest: It is a file.
            Transient: No answer.
        """

    def read(self, path: str, tag: str) -> AsyncIterator[bytes]:
        """The content of that tag.

        Raises:
            NotFound: It is gone.
            Conflict: It has another content by now.
            Transient: No answer, or one that broke off.
        """

    async def write(self, path: str, chunks: AsyncIterable[bytes], size: int) -> None:
        """Writes a file; folders are made.

        Raises:
            InvalidRequest: It can't be written so: name, quota or budget.
            Transient: No answer.
        """


class Directories(Protocol):
    """Opens directories."""

    def open(self, namespace: str, name: str) -> AbstractAsyncContextManager[OpenDirectory]:
        """A directory to be used for a while.

        Raises:
            NotFound: There is no VirtualDirectory of that name, or it isn't served yet.
        """

    async def admits(self, namespace: str, name: str, login: str, folder: str) -> None:
        """Makes sure that whoever shows a login finds a folder over WebDAV.

        Raises:
            NotFound: There is no VirtualDirectory of that name, it isn't served yet, or has no such folder.
            InvalidRequest: It isn't served by WebDAV.
            Transient: Its gateway doesn't answer, or hasn't heard of the login yet.
        """

    async def regions(self, namespace: str, name: str) -> tuple[str, ...]:
        """Regions of a directory's stores, in its order, those that are known.

        Raises:
            NotFound: There is no VirtualDirectory of that name.
        """
