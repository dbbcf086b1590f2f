"""Byte code for a layer: .pyc files that need no check of their source (`unchecked-hash`, PEP 552).

A fresh interpreter with a fixed environment compiles, because marshal marks references by reference counts, which
depend on what the process did before. Compiling runs nothing, but it gets limits: source can make a compiler blow up.
"""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence

from cloudmesh.engine.errors import Transient

_PROGRAM = r"""
import importlib._bootstrap_external as b, resource, struct, sys
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (300, 300))
i, o = sys.stdin.buffer, sys.stdout.buffer
while head := i.read(8):
    n, m = struct.unpack("<II", head)
    path, source = i.read(n).decode(), i.read(m)
    try:
        code = compile(source, "/" + path, "exec", dont_inherit=True, optimize=0)
        data = bytes(b._code_to_hash_pyc(code, b._imp.source_hash(b._RAW_MAGIC_NUMBER, source), False))
        del code
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        data = b""
    o.write(struct.pack("<I", len(data)) + data)
o.flush()
"""
_BATCH = 16 << 20
_SECONDS = 600


class Interpreter:
    """A CPython that compiles.

    Args:
        version: its full version such as `3.11.2`; part of the identity of what it makes.
        command: how it is started, the program's arguments left out; the running interpreter by default.
    """

    def __init__(self, version: str, command: Sequence[str] = (sys.executable,)) -> None:
        self._command = (*command, "-I", "-S", "-B", "-c", _PROGRAM)
        major, minor = version.split(".")[:2]
        self._tag = f"cpython-{major}{minor}"
        self.identity = f"pyc-1-{version}"

    @classmethod
    def running(cls, version: str) -> Interpreter | None:
        """The running interpreter if it is exactly CPython `version`, else None: another would make other bytes."""
        own = ".".join(str(part) for part in sys.version_info[:3])
        return cls(version) if own == version and sys.implementation.name == "cpython" else None

    def compile(self, sources: Mapping[str, bytes]) -> dict[str, bytes]:
        """Compile `sources` (path in the image -> source) to path of the .pyc -> content.

        A source that doesn't compile is left out, as an installer does.

        Raises:
            Transient: the compiler ended early or took too long.
        """
        done: dict[str, bytes] = {}
        batch: list[tuple[str, bytes]] = []
        size = 0
        for path in sorted(sources):
            batch.append((path, sources[path]))
            size += len(sources[path])
            if size > _BATCH:
                done |= self._batch(batch)
                batch, size = [], 0
        return done | self._batch(batch) if batch else done

    def _batch(self, batch: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
        sent = bytearray()
        for path, source in batch:
            encoded = path.encode("utf-8", "surrogateescape")
            sent += struct.pack("<II", len(encoded), len(source)) + encoded + source
        try:
            run = subprocess.run(
                self._command,
                input=bytes(sent),
                capture_output=True,
                timeout=_SECONDS,
                check=True,
                env={"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Transient(f"byte code: the compiler ended early ({type(error).__name__})") from error
        done: dict[str, bytes] = {}
        offset = 0
        for path, _ in batch:
            (length,) = struct.unpack_from("<I", run.stdout, offset)
            data = run.stdout[offset + 4 : offset + 4 + length]
            offset += 4 + length
            if data:
                folder, slash, name = path.rpartition("/")
                done[f"{folder}{slash}__pycache__/{name.removesuffix('.py')}.{self._tag}.pyc"] = data
        return done
