"""The subprocess that reads sources from strangers.

Requests and answers are JSON, each behind its length in four bytes, on standard input and output. Once warm, an audit
hook refuses everything that reading text doesn't need, so that a fault in the reader can't become a way to run code.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import sys
from typing import Any, BinaryIO, Final

MEMORY: Final = 768 * 1024 * 1024
"""Bytes of address space."""
CPU_SECONDS: Final = 3
"""Processor time for one source."""
MAX_REQUEST: Final = 4 * 1024 * 1024

_FORBIDDEN: Final = (
    *("exec", "socket.", "subprocess.", "os.", "shutil.", "ctypes.", "code.", "pty.", "ftplib.", "urllib."),
    *("webbrowser.", "glob.", "tempfile.", "cpython.run_"),
)


class ForbiddenError(RuntimeError):
    """The reader tried what reading doesn't need."""


def hook(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuses running code, importing, writing, starting processes and the network."""
    if event == "import":
        raise ForbiddenError(f"import of {arguments[0]}")
    if event == "open":
        path, mode, flags = arguments
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        if writes or (isinstance(mode, str) and set(mode) & set("wax+")):
            raise ForbiddenError(f"opening {path} for writing")
    elif event.startswith(_FORBIDDEN):
        raise ForbiddenError(event)


def limit() -> None:
    """Sets the limits of memory, files and core dumps; processor time is set for each source."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_seconds(seconds: int) -> None:
    """Allows so much more processor time; the kernel ends the process beyond it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit_at = int(used.ru_utime + used.ru_stime) + 1 + seconds
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (limit_at, hard))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Reads one source; see `cloudmesh.functions.signatures.read`."""
    from cloudmesh.functions.signatures import SourceError
    from cloudmesh.functions.signatures.reader import read_source
    from cloudmesh_function.model import Expose

    try:
        found = read_source(
            request["source"],
            request["name"],
            request["module"],
            Expose.from_json(request["expose"]),
            request["base_path"],
            request["requirements"],
        )
    except SourceError as error:
        return {"error": [error.line, error.column, error.message]}
    return {
        "canonical": found.canonical_openapi.decode(),
        "imports": found.imports,
        "positions": found.import_positions,
        "warnings": found.warnings,
    }


def read_message(stream: BinaryIO) -> bytes | None:
    """One message; None at the end of the stream."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    (size,) = struct.unpack(">I", head)
    if size > MAX_REQUEST:
        return None
    body = stream.read(size)
    return body if len(body) == size else None


def write_message(stream: BinaryIO, data: bytes) -> None:
    """Writes one message."""
    stream.write(struct.pack(">I", len(data)) + data)
    stream.flush()


def main() -> int:
    """Warms up, shuts the door, and answers until standard input ends."""
    warm = {
        "source": WARM,
        "name": "warm",
        "module": "warm",
        "expose": None,
        "base_path": "/cloudmesh",
        "requirements": None,
    }
    answer(warm)
    answer({**warm, "source": "def f(:\n"})
    limit()
    sys.addaudithook(hook)
    out = sys.stdout.buffer
    write_message(out, b"{}")  # ready: from now on the clock runs
    while (body := read_message(sys.stdin.buffer)) is not None:
        allow_seconds(CPU_SECONDS)
        try:
            found = answer(json.loads(body))
        except Exception as error:  # noqa: BLE001 - the parent must always get an answer
            found = {"error": [1, 1, f"the source can't be read ({type(error).__name__})"]}
        write_message(out, json.dumps(found).encode())
    return 0


WARM: Final = '''
import enum
from dataclasses import dataclass
from typing import Literal, Optional

class Color(enum.Enum):
    RED = "r"

@dataclass
class Point:
    x: float = 0.0

def mean(values: list[float], at: Optional[Point] = None, *rest: Literal["a"], color: "Color" = Color.RED) -> float:
    """Mean.

    :param values: the numbers
    """
'''

if __name__ == "__main__":
    sys.exit(main())
