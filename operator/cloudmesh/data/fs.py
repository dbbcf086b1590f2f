"""fsspec: `vdir://NAME/path` for pandas, pyarrow, dask and whatever else opens files by URL."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from fsspec.compression import compr
from fsspec.core import get_compression, has_magic
from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from cloudmesh.data.client import Vdir
from cloudmesh.data.errors import Exists, Full, InvalidName, Missing
from cloudmesh.engine.errors import AuthFailed, CloudmeshError

_NUMBERS: Mapping[type[CloudmeshError], int] = {
    Missing: errno.ENOENT, Exists: errno.EEXIST, AuthFailed: errno.EACCES, Full: errno.ENOSPC,
    InvalidName: errno.EINVAL,
}  # fmt: skip
BLOCK = 4 << 20
"""Bytes that a reader asks for at a time at least."""
CALLERS = 12
"""Callers of `close` that are looked at: wrappers of wrappers."""
IN_MEMORY = 16 << 20
"""What is written lies in memory up to so many bytes, then in a temporary file."""


class VdirFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Directories as a file system; the first part of a path is the VirtualDirectory's name.

    Args:
        namespace: As in `Vdir`.
        endpoint_url: The `url` of `Vdir`; fsspec and pandas take that word for the path.
        token: As in `Vdir`.
        user: As in `Vdir`.
        password: As in `Vdir`.
    """

    protocol = "vdir"
    root_marker = ""

    def __init__(
        self,
        namespace: str = "",
        endpoint_url: str = "",
        token: str = "",
        user: str = "",
        password: str = "",
        **more: Any,
    ) -> None:
        # a listing that is kept would show files that are gone
        super().__init__(**(more | {"use_listings_cache": False}))
        self._told = {"namespace": namespace, "url": endpoint_url, "token": token, "user": user, "password": password}
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

    def exists(self, path: str, **_: Any) -> bool:
        """Whether there is something; an error isn't an answer."""
        return self._kind(path) != ""

    def isdir(self, path: str) -> bool:
        """Whether it is a directory."""
        return self._kind(path) == "directory"

    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        return self._kind(path) == "file"

    def _kind(self, path: str) -> str:
        try:
            return str(self.info(path)["type"])
        except FileNotFoundError:
            return ""

    def find(
        self, path: str, maxdepth: int | None = None, withdirs: bool = False, detail: bool = False, **more: Any
    ) -> Any:
        """All files below a directory, page by page."""
        if maxdepth is not None:
            return super().find(path, maxdepth=maxdepth, withdirs=withdirs, detail=detail, **more)
        vdir, inner = self._at(path)
        with _as_os(path):
            try:
                top = vdir.stat(inner)
                entries = [top] if top["kind"] == "File" or withdirs else []
                entries += vdir.list(inner, recursive=True) if top["kind"] == "Directory" else []
            except Missing:
                entries = []
        told = {
            one["name"]: one
            for one in (self._told_of(vdir.name, e) for e in entries if withdirs or e["kind"] == "File")
        }
        return dict(sorted(told.items())) if detail else sorted(told)

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

    def open(self, path: str, mode: str = "rb", compression: str | None = None, **more: Any) -> Any:
        """Opens a file as fsspec does; whatever is wrapped around it, an exception in its `with` publishes nothing."""
        if "b" not in mode:
            words = {key: more.pop(key) for key in ("encoding", "errors", "newline") if key in more}
            return _Text(self.open(path, mode.replace("t", "") + "b", compression=compression, **more), **words)
        if "r" in mode or get_compression(path, compression) is None:
            return super().open(path, mode, compression=compression, **more)
        return _Compressed(super().open(path, mode, **more), compr[get_compression(path, compression)])

    def _open(
        self, path: str, mode: str = "rb", block_size: int | None = None, autocommit: bool = True, **_: Any
    ) -> io.BufferedIOBase:
        vdir, inner = self._at(path)
        with _as_os(path):
            if mode == "rb":
                return _Buffered(_Reader(vdir, inner), path, block_size or BLOCK)
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
                vdir.put(lpath, inner, new=mode == "create")

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
        # a directory ends with all below it at once, but where only so many levels of it are meant
        whole = recursive and maxdepth is None
        paths = self.expand_path(path, recursive=recursive and not whole, maxdepth=maxdepth if recursive else None)
        for one in reversed(paths):
            vdir, inner = self._at(one)
            with _as_os(one):
                vdir.delete(inner, recursive=whole)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **more: Any) -> None:
        """Renames; of any size at once within a directory."""
        simple = isinstance(path1, str) and isinstance(path2, str) and not has_magic(path1) and maxdepth is None
        if not simple or self._at(path1)[0] is not self._at(path2)[0]:
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **more)
            return
        vdir, source = self._at(path1)
        if path2.endswith("/") or self.isdir(path2):
            path2 = f"{path2.rstrip('/')}/{source.rpartition('/')[2]}"
        _, target = self._at(path2)
        with _as_os(path1):
            vdir.stat(source)
            if "/" in target:
                vdir.mkdir(target.rpartition("/")[0], parents=True)
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
        for ours, number in _NUMBERS.items():
            if isinstance(error, ours):
                # Python makes FileNotFoundError and its like of the number
                raise OSError(number, str(error), self._path) from error
        raise OSError(f"{self._path}: {error}") from error


class _Reader(io.RawIOBase):
    """Reads a file from any place; all reads are of one version."""

    def __init__(self, vdir: Vdir, path: str) -> None:
        self._vdir, self._path, self._at = vdir, path, 0
        entry = vdir.stat(path)
        if entry["kind"] == "Directory":
            raise IsADirectoryError(path)
        self.size, self._etag = int(entry["size"]), str(entry["etag"])
        self.name, self.mode = path, "rb"

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
        view = memoryview(buffer).cast("B")
        data = self._read(self._at + len(view))
        view[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(self.size)

    def _read(self, stop: int) -> bytes:
        with _as_os(self._path):
            data = self._vdir.read(self._path, start=self._at, stop=min(self.size, stop), etag=self._etag)
        self._at += len(data)
        return data


class _Buffered(io.BufferedReader):
    """A reader that asks for blocks."""

    def __init__(self, raw: _Reader, path: str, block: int) -> None:
        super().__init__(raw, block)
        self.path, self.size = path, raw.size


class _Text(io.TextIOWrapper):
    """Text of a file."""

    def __exit__(self, *_: object) -> None:
        # in Python, so that a writer below finds it among those who call
        self.close()


class _Compressed(io.BufferedIOBase):
    """Compresses what is written; fsspec's own way leaves the file below open."""

    def __init__(self, file: Any, compress: Callable[..., Any]) -> None:
        self._file, self._compressor = file, compress(file, mode="wb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return int(self._compressor.write(data))

    def close(self) -> None:
        if not self.closed:
            try:
                self._compressor.close()
                self._file.close()
            finally:
                super().close()

    def __exit__(self, *_: object) -> None:
        self.close()


class _Writer(io.BufferedIOBase):
    """Collects what is written; the file is there when this is closed, and not at all after an exception."""

    def __init__(self, vdir: Vdir, path: str, *, new: bool, autocommit: bool) -> None:
        self._vdir, self._path, self._new, self._autocommit = vdir, path, new, autocommit
        self._handled = sys.exc_info()[1]
        self._file = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - closed with this one
        if new and vdir.exists(path):
            self.discard()
            raise FileExistsError(errno.EEXIST, "it is there already", path)

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
            if self._left_by_exception():
                self.discard()
            elif self._autocommit:
                self.commit()
        finally:
            super().close()

    def commit(self) -> None:
        """Publishes it; called by fsspec at the end of a transaction."""
        if self._file.closed:
            return
        self._file.seek(0)
        with self._file, _as_os(self._path):
            self._vdir.write(self._path, self._file, new=self._new)

    def discard(self) -> None:
        """Drops it."""
        self._autocommit = False
        self._file.close()

    def _left_by_exception(self) -> bool:
        """Whether a `with` around this, such as fsspec's and pandas' own, is being left by an exception that came while
        it was open: these close what they hold without a word of why."""
        error, frame = sys.exc_info()[1], sys._getframe(1)
        if error is None or error is self._handled:
            return False
        for _ in range(CALLERS):
            if frame.f_code.co_name == "__exit__":
                return True
            if frame.f_back is None:
                return False
            frame = frame.f_back
        return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self.discard()
        self.close()

    def __del__(self) -> None:
        # what nobody closed may be a part only: it isn't published, unlike what Python does with files
        if not self.closed and self._autocommit:
            warnings.warn(f"{self._path} was written and never closed: it isn't published", ResourceWarning, 2, self)
            self.discard()
        super().close()
