"""Either side of a transfer: a folder of this machine, or a path of a directory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path

from cloudmesh.data import names
from cloudmesh.data.client import Vdir
from cloudmesh.data.errors import InvalidName, Missing
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest

PIECE = 1 << 20
_START = datetime(1970, 1, 1, tzinfo=UTC)
Refused = Callable[[str, str], None]
"""Is told of a file that can't be taken: its name and why."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a side.

    Args:
        path: Below the side's own, in NFC.
        size: Bytes.
        modified: Microseconds.
        sha256: Where it is known without reading.
        at: Where the side has it, if that isn't `path`.
    """

    path: str
    size: int
    modified: int
    sha256: str = ""
    at: str = ""


class Local:
    """A file or folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def shown(self) -> str:
        """As people write it."""
        return str(self.root)

    def kind(self) -> str:
        """What is there."""
        return "Directory" if self.root.is_dir() else "File" if os.path.lexists(self.root) else ""

    def path(self, file: File) -> Path:
        """Where a file lies; of one that isn't there yet, where it will."""
        path = file.at or names.clean_path(file.path)  # a name like `..` must not lead out of the folder
        return self.root / path if path else self.root

    def files(self, refused: Refused) -> Iterator[File]:
        """All regular files; symbolic links, and what else is no file, are refused by name and never followed."""
        if self.kind() != "Directory":
            yield self._file("", "")
            return

        def failed(error: OSError) -> None:
            refused(os.path.relpath(error.filename, self.root), error.strerror or "can't be read")

        seen: set[str] = set()
        for folder, folders, found in os.walk(self.root, onerror=failed):
            folders.sort()
            linked = [name for name in folders if (Path(folder) / name).is_symlink()]
            for name in sorted([*found, *linked]):
                at = os.path.relpath(Path(folder) / name, self.root)
                try:
                    file = self._file(names.clean_path(at), at)
                    if file.path in seen:
                        raise InvalidName("another file has the same name, written with other characters")
                    seen.add(file.path)
                except (CloudmeshError, OSError) as error:
                    refused(at, reason(error))
                else:
                    yield file

    def _file(self, path: str, at: str) -> File:
        # what somebody names is what they mean; what is found below it must not lead out of it
        found = (self.root / at).lstat() if at else self.root.stat()
        if stat.S_ISLNK(found.st_mode):
            raise InvalidRequest("is a symbolic link: they aren't followed")
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequest("is no regular file")
        return File(path, found.st_size, found.st_mtime_ns // 1000, at=at)

    def sha256(self, file: File) -> str:
        """The sum of the content."""
        with self.open(file) as content:
            return hashlib.file_digest(content, "sha256").hexdigest()

    def open(self, file: File) -> BufferedReader:
        """Its content; what was a file when it was found isn't followed if it is a link by now."""
        flags = os.O_RDONLY | os.O_CLOEXEC | (os.O_NOFOLLOW if file.at else 0)
        return open(os.open(self.path(file), flags), "rb")  # noqa: PTH123 - a descriptor

    def place(self, file: File) -> Path:
        """Where a file comes to lie, with the folders above it.

        Raises:
            InvalidRequest: One of them is a symbolic link.
        """
        path = self.path(file)
        above = self.root
        for part in path.relative_to(self.root).parts[:-1]:
            above = above / part
            if above.is_symlink():
                raise InvalidRequest(f"'{above}' is a symbolic link: nothing is written through it")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def delete(self, file: File) -> None:
        """Removes a file."""
        self.path(file).unlink()


class Remote:
    """A path of a directory."""

    def __init__(self, vdir: Vdir, root: str) -> None:
        self.vdir, self.root = vdir, root

    @property
    def shown(self) -> str:
        """As people write it."""
        return f"{self.vdir.name}:/{self.root}"

    def kind(self) -> str:
        """What is there."""
        if not self.root:
            return "Directory"
        try:
            return str(self.vdir.stat(self.root)["kind"])
        except Missing:
            return ""

    def path(self, file: File) -> str:
        """Where a file lies."""
        return "/".join(part for part in (self.root, file.path) if part)

    def files(self, refused: Refused) -> Iterator[File]:
        """All files."""
        if self.kind() == "File":
            yield _told(self.vdir.stat(self.root), "")
            return
        cut = len(self.root) + 1 if self.root else 0
        for entry in self.vdir.list(self.root, recursive=True):
            if entry["kind"] == "File":
                yield _told(entry, str(entry["path"])[cut:])

    def sha256(self, file: File) -> str:
        """The sum of the content: the one that the gateway knows, else of what it gives."""
        if file.sha256:
            return file.sha256
        digest = hashlib.sha256()
        for piece in self.vdir.chunks(self.path(file)):
            digest.update(piece)
        return digest.hexdigest()

    def delete(self, file: File) -> None:
        """Moves a file to the trash."""
        self.vdir.delete(self.path(file))


Side = Local | Remote


def _told(entry: dict[str, object], path: str) -> File:
    since = datetime.fromisoformat(str(entry["modified"])) - _START
    return File(path, int(str(entry["size"])), since // timedelta(microseconds=1), str(entry.get("sha256", "")))


def reason(error: Exception) -> str:
    """Why, in words."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else str(error)


def write(source: Side, file: File, target: Side, at: File) -> None:
    """Copies one file, with its time; it is there whole or as it was before."""
    if isinstance(source, Local):
        if isinstance(target, Local):
            raise InvalidRequest("one side must be a directory")
        with source.open(file) as content:
            modified = str(os.fstat(content.fileno()).st_mtime_ns // 1000)
            target.vdir.write(target.path(at), content, modified=modified)
    elif isinstance(target, Local):
        path = target.place(at)
        source.vdir.get(source.path(file), path)
        os.utime(path, ns=(file.modified * 1000, file.modified * 1000))
    elif target.vdir is source.vdir:
        source.vdir.copy(source.path(file), target.path(at), overwrite=True)
    else:
        target.vdir.write(target.path(at), source.vdir.chunks(source.path(file)), modified=str(file.modified))
