"""Compressed layers on disk, found again by their diffID or by what they were made of.

The identity of a layer is its diffID. It is compressed once; its compressed digest is remembered, so that equal
content keeps one digest even if a later compressor would give other bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import mmap
import os
import tempfile
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.image.layer import Entry, compress, write_tar
from cloudmesh.functions.image.oci import LAYER_ZSTD, Descriptor

_IN_MEMORY = 4 * 1024 * 1024
_COPY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """Content with its descriptor: bytes in memory, or a file."""

    descriptor: Descriptor
    source: bytes | Path

    @classmethod
    def of(cls, media_type: str, data: bytes) -> Blob:
        """A blob in memory."""
        return cls(Descriptor.of(media_type, data), data)

    def open(self) -> BinaryIO:
        """A stream over the content; the caller closes it."""
        return io.BytesIO(self.source) if isinstance(self.source, bytes) else self.source.open("rb")

    def read(self) -> bytes:
        """The whole content."""
        return self.source if isinstance(self.source, bytes) else self.source.read_bytes()


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer and the identity of what it holds."""

    diff_id: str
    blob: Blob

    @property
    def descriptor(self) -> Descriptor:
        """Media type, digest and size of the compressed layer."""
        return self.blob.descriptor


def layer_of(entries: Iterable[Entry]) -> Layer:
    """A layer in memory, for what is small."""
    buffer = io.BytesIO()
    diff_id, _ = write_tar(entries, buffer)
    return Layer(diff_id, Blob.of(LAYER_ZSTD, compress(buffer.getbuffer())))


class LayerStore:
    """A folder of compressed layers. Several processes may share it; a crash leaves nothing half written.

    Args:
        root: the folder; made if it isn't there. It may be lost at any time: everything in it can be made again.
        limit: bytes of compressed layers to keep; the longest unused go first.
    """

    def __init__(self, root: Path, *, limit: int = 4 << 30) -> None:
        self._root = root
        self._limit = limit
        for name in ("blobs", "diff", "input"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def get_or_make(self, input_key: str, make: Callable[[], Iterable[Entry]]) -> Layer:
        """The layer for `input_key`, made with `make` when it isn't at hand.

        Args:
            input_key: names everything the entries depend on; equal keys mean equal entries.
            make: gives the entries.
        """
        layer = self.find(input_key)
        if layer is None:
            layer = self._make(make())
            self._write(self._record(input_key), _dump(layer))
        return layer

    def find(self, input_key: str) -> Layer | None:
        """The layer for `input_key` if it is at hand."""
        return self._load(self._record(input_key))

    def _record(self, input_key: str) -> Path:
        return self._root / "input" / hashlib.sha256(input_key.encode()).hexdigest()

    def _load(self, record: Path) -> Layer | None:
        try:
            value = json.loads(record.read_bytes())
            diff_id, digest, size = value["diffId"], value["digest"], value["size"]
            path = self._blob_path(digest)
            if path.stat().st_size != size:
                return None
            os.utime(path)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Layer(diff_id, Blob(Descriptor(LAYER_ZSTD, digest, size), path))

    def _make(self, entries: Iterable[Entry]) -> Layer:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=str(self._root)) as spool:
            diff_id, size = write_tar(entries, spool)  # type: ignore[arg-type]  # it has all of BinaryIO that is used
            memo = self._root / "diff" / diff_id.removeprefix("sha256:")
            known = self._load(memo)
            if known is not None:
                return known
            spool.flush()
            spool.seek(0)
            if size <= _IN_MEMORY:
                data = compress(spool.read())
            else:
                with mmap.mmap(spool.fileno(), size, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                    data = compress(view)
        descriptor = Descriptor.of(LAYER_ZSTD, data)
        path = self._blob_path(descriptor.digest)
        self._write(path, data)
        layer = Layer(diff_id, Blob(descriptor, path))
        self._write(memo, _dump(layer))
        evict((self._root / "blobs").iterdir(), self._limit, {path})
        return layer

    def verified(self, layer: Layer) -> bool:
        """Whether the file still holds what its digest says; if not it is removed, so that it is made again."""
        hashed = hashlib.sha256()
        try:
            with layer.blob.open() as stream:
                while chunk := stream.read(_COPY):
                    hashed.update(chunk)
        except OSError:
            return False
        if f"sha256:{hashed.hexdigest()}" == layer.descriptor.digest:
            return True
        if isinstance(layer.blob.source, Path):
            layer.blob.source.unlink(missing_ok=True)
        return False

    def _blob_path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or not value.isalnum():
            raise InvalidRequest(f"layer store: {digest!r} is no sha256 digest")
        return self._root / "blobs" / value

    def _write(self, path: Path, data: bytes) -> None:
        with tempfile.NamedTemporaryFile(dir=self._root, delete=False) as out:
            try:
                out.write(data)
                out.flush()
                Path(out.name).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(out.name).unlink()
                raise


def evict(paths: Iterable[Path], limit: int, keep: Collection[Path]) -> None:
    """Removes files, the longest unused first, until the rest has at most `limit` bytes; those of `keep` stay."""
    files = []
    for path in paths:
        with contextlib.suppress(OSError):
            stat = path.stat()
            files.append((stat.st_mtime_ns, stat.st_size, path))
    total = sum(size for _, size, _ in files)
    for _, size, path in sorted(files):
        if total <= limit:
            break
        if path not in keep:
            path.unlink(missing_ok=True)
            total -= size


def _dump(layer: Layer) -> bytes:
    value = {"diffId": layer.diff_id, "digest": layer.descriptor.digest, "size": layer.descriptor.size}
    return json.dumps(value, sort_keys=True).encode()
