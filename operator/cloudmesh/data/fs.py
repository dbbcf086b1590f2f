"""fsspec: `vdir://NAME/path` for pandas, pyarrow, dask and whatever else opens files by URL."""

from __future__ import annotations

import io
import os
import tempfile
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from cloudmesh.data.client import Vdir
from cloudmesh.data.errors import Exists, Missing
from cloudmesh.engine.errors import AuthFailed, CloudmeshError

BLOCK = 4 << 20
"""Bytes that a reader asks for at a time at least."""
IN_MEMORY = 16 << 20
"""What is written lies in memory up to so many bytes, then in a temporary file."""


class VdirFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Directories as a file system; the first part of a path is the VirtualDirectory's name.

    Args:
        namespace: As in `Vdir`.
        url: As in `Vdir`.
        token: As in `Vdir`.
        user: As in `Vdir`.
        password: As in `Vdir`.
    """

    protocol = "vdir"
    root_marker = ""

    def __init__(
        self, namespace: str = "", url: str = "", token: str = "", user: str = "", password: str = "", **more: Any
    ) -> None:
        # a listing that is kept would show files that are gone
        super().__init__(**(more | {"use_listings_cache": False}))
        self._told = {"namespace": namespace, "url": url, "token": token, "user": user, "password": password}
        self._open_ones: dict[str, Vdir] = {}

    def _at(self, path: str) -> tuple[Vdir, str]:
        name, _, inner = self._strip_protocol(path).partition("/")
        if not name:
            raise ValueError("a path must begin with the name of a VirtualDirectory: vdir://NAME/path")
        if name not in self._open_ones:
            self._open_ones[name] = Vdir(name, **self._told)
        return self._open_ones[name], inner

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(p) for p in path]
        text = stringify_path(path)
        return text.removeprefix("vdir://").removeprefix("vdir::").strip("/")

    @staticmethod
    def _told_of(name: str, entry: dict[str, Any]) -> dict[str, Any]:
        kind = "file" if entry["kind"] == "File" else "directory"
        full = f"{name}/{entry['path']}".rstrip("/")
        return {"name": full, "size": entry.get("size", 0), "type": kind} | {
            key: entry[key] for key in ("modified", "etag", "sha256", "tags") if key in entry
        }

    # -- looking

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """What is at a path."""
        vdir, inner = self._at(path)
        with _as_os(path):
            return self._told_of(vdir.name, vdir.stat(inner))

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """What is in a directory."""
        vdir, inner = self._at(path)
        with _as_os(path):
            entry = vdir.stat(inner)
            entries = [entry] if entry["kind"] == "File" else list(vdir.list(inner))
        found = [self._told_of(vdir.name, e) for e in entries]
        return found if detail else [e["name"] for e in found]

    def modified(self, path: str) -> datetime:
        """When a file was changed."""
        return datetime.fromisoformat(self.info(path)["modified"]).astimezone(UTC)

    created = modified

    def ukey(self, path: str) -> str:
        """What changes with the content."""
        info = self.info(path)
        return str(info.get("etag") or info["name"])

    checksum = ukey

    # -- contents

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True, **_: Any
    ) -> io.RawIOBase | io.BufferedIOBase:
        vdir, inner = self._at(path)
        with _as_os(path):
            if mode == "rb":
                return io.BufferedReader(_Reader(vdir, inner), block_size or BLOCK)
            if mode in ("wb", "xb"):
                return _Writer(vdir, inner, new=mode == "xb", autocommit=autocommit)
            if mode == "ab":
                writer = _Writer(vdir, inner, new=False, autocommit=autocommit)
                writer.begin_with_old()
                return writer
        raise ValueError(f"mode {mode!r} isn't one of rb, wb, xb and ab")

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Bytes of a file, negative ends counted from its end."""
        vdir, inner = self._at(path)
        with _as_os(path):
            size = vdir.stat(inner)["size"] if (start or 0) < 0 or (end or 0) < 0 else 0
            first = max(0, size + start) if start is not None and start < 0 else start or 0
            last = size + end if end is not None and end < 0 else end
            return vdir.read(inner, start=first, stop=last)

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """Writes a file at once."""
        vdir, inner = self._at(path)
        with _as_os(path):
            vdir.write(inner, value, new=mode == "create")

    def put_file(self, lpath: str, rpath: str, callback: Any = None, mode: str = "overwrite", **_: Any) -> None:
        """Writes a local file or makes a directory."""
        vdir, inner = self._at(rpath)
        with _as_os(rpath):
            if os.path.isdir(lpath):  # noqa: PTH112 - fsspec hands texts
                vdir.mkdir(inner)
            else:
                vdir.put(lpath, inner)

    # -- the tree

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Makes a directory that isn't there."""
        vdir, inner = self._at(path)
        with _as_os(path):
            vdir_exists = inner == "" or vdir.exists(inner)
            if vdir_exists:
                raise FileExistsError(path)
            vdir.mkdir(inner, parents=create_parents)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Makes a directory and those above it."""
        vdir, inner = self._at(path)
        with _as_os(path):
            if not exist_ok and (inner == "" or vdir.exists(inner)):
                raise FileExistsError(path)
            if inner:
                vdir.mkdir(inner, parents=True)

    def rmdir(self, path: str) -> None:
        """Removes an empty directory."""
        vdir, inner = self._at(path)
        with _as_os(path):
            vdir.delete(inner)

    def rm_file(self, path: str) -> None:
        """Moves a file to the trash."""
        self.rmdir(path)

    _rm = rm_file

    def rm(self, path: str | list[str], recursive: bool = False, maxdepth: int | None = None) -> None:
        """Moves files and, if `recursive`, directories to the trash."""
        paths = self.expand_path(path, recursive=False) if recursive else self.expand_path(path, maxdepth=maxdepth)
        for one in reversed(paths):
            vdir, inner = self._at(one)
            with _as_os(one):
                vdir.delete(inner, recursive=recursive)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **more: Any) -> None:
        """Renames; of any size at once within a directory."""
        (vdir, source), (other, target) = self._at(path1), self._at(path2)
        if vdir is not other or "*" in path1:
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **more)
            return
        with _as_os(path1):
            vdir.move(source, target, overwrite=True)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copies a file, or makes the directory."""
        (vdir, source), (other, target) = self._at(path1), self._at(path2)
        with _as_os(path1):
            if vdir.stat(source)["kind"] == "Directory":
                other.mkdir(target)
            elif vdir is other:
                vdir.copy(source, target, overwrite=True)
            else:
                other.write(target, vdir.chunks(source))


class _as_os:
    """Turns our errors into those that programs expect of a file system."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not isinstance(error, CloudmeshError):
            return
        told: type[OSError] = OSError
        if isinstance(error, Missing):
            told = FileNotFoundError
        elif isinstance(error, Exists):
            told = FileExistsError
        elif isinstance(error, AuthFailed):
            told = PermissionError
        raise told(f"{self._path}: {error}") from error


class _Reader(io.RawIOBase):
    """Reads a file from any place; all reads are of one version."""

    def __init__(self, vdir: Vdir, path: str) -> None:
        self._vdir, self._path, self._at = vdir, path, 0
        entry = vdir.stat(path)
        if entry["kind"] == "Directory":
            raise IsADirectoryError(path)
        self.size, self._etag = int(entry["size"]), str(entry["etag"])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + (0, self._at, self.size)[whence]
        if at < 0:
            raise ValueError(f"can't seek to {at}")
        self._at = at
        return at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        with _as_os(self._path):
            data = self._vdir.read(
                self._path, start=self._at, stop=min(self.size, self._at + len(view)), etag=self._etag
            )
        view[: len(data)] = data
        self._at += len(data)
        return len(data)


class _Writer(io.BufferedIOBase):
    """Collects what is written; the file is there when this is closed, and not at all after an exception."""

    def __init__(self, vdir: Vdir, path: str, *, new: bool, autocommit: bool) -> None:
        self._vdir, self._path, self._new, self._autocommit = vdir, path, new, autocommit
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed with this one
        if new and vdir.exists(path):
            raise FileExistsError(path)

    def begin_with_old(self) -> None:
        """What is there already comes first."""
        if self._vdir.exists(self._path):
            for chunk in self._vdir.chunks(self._path):
                self._file.write(chunk)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        if self.closed:
            return
        try:
            if self._autocommit:
                self.commit()
        finally:
            if self._autocommit:
                self._file.close()
            super().close()

    def commit(self) -> None:
        """Publishes it; called by fsspec at the end of a transaction."""
        self._file.seek(0)
        with _as_os(self._path):
            self._vdir.write(self._path, self._file, new=self._new)
        self._file.close()

    def discard(self) -> None:
        """Drops it."""
        self._autocommit = False
        self._file.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self.discard()
        self.close()
