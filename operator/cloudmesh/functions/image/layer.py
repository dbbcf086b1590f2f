"""Deterministic layers: a set of files becomes one tar stream and one compressed blob, the same on any machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

import zstandard

from cloudmesh.engine.errors import InvalidRequest

LEVEL = 3


@dataclass(frozen=True, slots=True)
class File:
    """A regular file; `read` gives its `size` bytes when the layer is written."""

    path: str
    size: int
    read: Callable[[], bytes]
    executable: bool = False

    @classmethod
    def of(cls, path: str, data: bytes, *, executable: bool = False) -> File:
        """A file whose content is at hand."""
        return cls(path, len(data), lambda: data, executable)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that must be there although it is empty, or whose mode isn't 0755 or owner (and group) not 0."""

    path: str
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True, slots=True)
class Symlink:
    """A symbolic link; only images that we compose ourselves have them."""

    path: str
    target: str


Entry = File | Directory | Symlink


class _Tee(io.RawIOBase):
    """Pass what is written on, and hash it."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.hash = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.size

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self.hash.update(data)
        self.size += len(data)
        self._out.write(data)
        return len(data)


def check_path(path: str) -> str:
    """Return `path` if it is a plain relative POSIX path.

    Raises:
        InvalidRequest: it is absolute or empty, climbs with `..`, or has empty or odd components.
    """
    parts = path.split("/")
    if "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(f"path {path!r}: not a plain relative path")
    return path


def _sort_key(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def write_tar(entries: Iterable[Entry], out: BinaryIO) -> tuple[str, int]:
    """Write `entries` as one tar stream.

    Directories are made explicit, parents come first, order is by bytes of the full path; owner 0, time 0, modes 0755
    and 0644 only (but for directories that name others).

    Returns:
        The diffID (digest of the stream) and its size in bytes.

    Raises:
        InvalidRequest: a path is not plain, stands there twice, or is a directory and a file at once.
    """
    by_path: dict[str, Entry] = {}
    parents: set[str] = set()
    for entry in entries:
        path = check_path(entry.path)
        if path in by_path:
            raise InvalidRequest(f"path {path!r}: there twice")
        by_path[path] = entry
        while "/" in path:
            path = path.rpartition("/")[0]
            if path in parents:
                break
            parents.add(path)
    for parent in parents:
        if not isinstance(by_path.setdefault(parent, Directory(parent)), Directory):
            raise InvalidRequest(f"path {parent!r}: a file and a directory at once")
    tee = _Tee(out)
    with tarfile.open(fileobj=tee, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(by_path, key=_sort_key):
            _add(archive, by_path[path])
    return f"sha256:{tee.hash.hexdigest()}", tee.size


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.path)
    info.mtime = 0
    info.mode = 0o755
    match entry:
        case Directory(mode=mode, owner=owner):
            info.type = tarfile.DIRTYPE
            info.mode = mode
            info.uid = info.gid = owner
            archive.addfile(info)
        case Symlink(target=target):
            info.type = tarfile.SYMTYPE
            info.mode = 0o777
            info.linkname = target
            archive.addfile(info)
        case File():
            data = entry.read()
            if len(data) != entry.size:
                raise InvalidRequest(f"path {entry.path!r}: {len(data)} bytes instead of {entry.size}")
            info.size = entry.size
            info.mode = 0o755 if entry.executable else 0o644
            archive.addfile(info, io.BytesIO(data))


def compress(tar: bytes | memoryview) -> bytes:
    """Compress a whole tar stream. One shot, one thread, one level: other ways give other bytes for equal content."""
    return zstandard.ZstdCompressor(level=LEVEL, threads=0).compress(tar)


def decompress(data: bytes, limit: int) -> bytes:
    """Undo `compress`.

    Raises:
        InvalidRequest: it is no zstd frame of known size, or holds more than `limit` bytes.
    """
    try:
        size = zstandard.frame_content_size(data)
        if size < 0 or size > limit:
            raise InvalidRequest(f"layer: unpacked size {size} is unknown or over the limit of {limit} bytes")
        return zstandard.ZstdDecompressor().decompress(data)
    except zstandard.ZstdError as error:
        raise InvalidRequest(f"layer: {error}") from error
