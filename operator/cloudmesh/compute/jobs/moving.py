"""Files of a VirtualDirectory on their way to machines and back, streamed through the operator: a tar there, single
files back. A machine needs neither a token nor a way to the directory."""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from cloudmesh.compute.ssh import Ssh, SshTarget
from cloudmesh.engine import CloudmeshError, Conflict, InvalidRequest, NotFound, Transient
from cloudmesh.engine.directories import Directories, FileOf, OpenDirectory

MOST_FILES = 10_000
MOST_BYTES = 10 << 30
AT_ONCE = 4
SECONDS = 3600.0
BLOCK = tarfile.BLOCKSIZE
# its name is that of its content: what is whole stays, runs may be reading it
_UNPACK = """[ -f "$1.ok" ] && exit 0
rm -rf "$1.part" && mkdir -p "$1.part" && tar -xf - -C "$1.part" && rm -rf "$1" && mv "$1.part" "$1\""""


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a VirtualDirectory."""

    namespace: str
    name: str
    folder: str

    def path(self, path: str) -> str:
        """Path in the directory of something in the folder."""
        return f"{self.folder}/{path}".lstrip("/")


@dataclass(frozen=True, slots=True)
class Inputs:
    """Files of a folder as they were listed once: each run finds the same.

    Args:
        place: The folder.
        files: The files.
    """

    place: Place
    files: Sequence[FileOf]

    @property
    def digest(self) -> str:
        """Another one for other files."""
        return hashlib.sha256(repr([(f.path, f.size, f.tag) for f in self.files]).encode()).hexdigest()[:16]


class Mover:
    """Moves the files of one job.

    Args:
        ssh: How machines are reached.
        directories: Opens directories; None where none are served.
    """

    def __init__(self, ssh: Ssh, directories: Directories | None) -> None:
        self._ssh = ssh
        self._directories = directories
        self._turns = asyncio.Semaphore(AT_ONCE)
        self.stale = False
        """A file isn't any more what was listed."""

    @property
    def _open(self) -> Directories:
        if self._directories is None:
            raise NotFound("this operator serves no VirtualDirectories")
        return self._directories

    async def list(self, place: Place) -> Inputs:
        """The files of a folder as they are now.

        Raises:
            NotFound: There is no such directory or folder.
            InvalidRequest: They are too many or too large.
            Transient: The directory doesn't answer.
        """
        files, size = [], 0
        async with self._open.open(place.namespace, place.name) as directory:
            async for file in directory.files(place.folder):
                files.append(file)
                size += file.size
                if len(files) > MOST_FILES or size > MOST_BYTES:
                    raise InvalidRequest(
                        f"spec.files.directory: VirtualDirectory '{place.name}' has more than {MOST_FILES} files or"
                        f" {MOST_BYTES >> 30} GiB in '{place.folder or '/'}': name a smaller folder, or let the command"
                        " read it itself"
                    )
        self.stale = False
        return Inputs(place, files)

    async def bring(self, inputs: Inputs, target: SshTarget, folder: str) -> None:
        """Puts the files into a folder of a machine, all of them or none.

        Raises:
            Conflict: A file isn't any more what was listed.
            Transient: The machine or the directory doesn't answer.
        """
        place = inputs.place
        try:
            async with (
                self._turns,
                self._open.open(place.namespace, place.name) as directory,
                aclosing(packed(directory, inputs)) as chunks,
            ):
                argv = ["sh", "-c", _UNPACK, "sh", folder]
                done = await self._ssh.run(target, argv, stdin=chunks, seconds=SECONDS)
        except Conflict:
            self.stale = True
            raise
        if done.status != 0:
            raise Transient(f"{target}: the files of the job can't be unpacked: {done.complaint}")

    async def fetch(self, target: SshTarget, source: str, size: int, place: Place, path: str) -> None:
        """Writes a machine's file into a directory.

        Args:
            target: The machine.
            source: The file there.
            size: Its bytes; what came to it later is left out.
            place: Where it goes.
            path: Its path there.

        Raises:
            InvalidRequest: The directory doesn't take it.
            NotFound: There is no such directory.
            Transient: One of them doesn't answer.
        """
        async with self._turns, self._open.open(place.namespace, place.name) as directory:
            # the library reads in a task of its own; what is open on the machine is closed by the one that opened it
            pieces: asyncio.Queue[bytes | CloudmeshError] = asyncio.Queue(8)
            pumping = asyncio.create_task(self._pump(target, source, size, pieces))
            failed: list[CloudmeshError] = []
            try:
                await directory.write(place.path(path), _content(pieces, failed), size)
            except Transient:
                if failed:
                    raise failed[0] from None
                raise
            finally:
                pumping.cancel()
                await asyncio.gather(pumping, return_exceptions=True)

    async def _pump(
        self, target: SshTarget, source: str, size: int, pieces: asyncio.Queue[bytes | CloudmeshError]
    ) -> None:
        left = size
        try:
            argv = ["head", "-c", str(size), source]
            async with aclosing(self._ssh.stream(target, argv, seconds=SECONDS)) as chunks:
                async for chunk in chunks:
                    left -= len(chunk)
                    await pieces.put(chunk)
        except CloudmeshError as error:
            await pieces.put(error)
        else:
            await pieces.put(Transient(f"{target}: {source} became shorter while it was read") if left else b"")


async def _content(pieces: asyncio.Queue[bytes | CloudmeshError], failed: list[CloudmeshError]) -> AsyncIterator[bytes]:
    while piece := await pieces.get():
        if isinstance(piece, CloudmeshError):
            failed.append(piece)
            raise piece
        yield piece


async def packed(directory: OpenDirectory, inputs: Inputs) -> AsyncGenerator[bytes, None]:
    """The files as a tar.

    Raises:
        Transient: A file ended early.
    """
    for file in inputs.files:
        header = tarfile.TarInfo(file.path)
        header.size, header.mode = file.size, 0o644
        yield header.tobuf(tarfile.PAX_FORMAT)
        path, left = inputs.place.path(file.path), file.size
        async for chunk in directory.read(path, file.tag):
            left -= len(chunk)
            yield chunk
        if left:
            raise Transient(f"'{path}' ended {left} bytes early")
        yield b"\0" * (-file.size % BLOCK)
    yield b"\0" * (2 * BLOCK)
