"""What harnesses of stores do with the folder that a server of theirs serves."""

from __future__ import annotations

from pathlib import Path

from cloudmesh.data.stores.records import hidden


def files(root: Path) -> dict[str, bytes]:
    """Objects of a user by key."""
    found = {}
    for path in root.rglob("*"):
        key = path.relative_to(root).as_posix()
        if not hidden(key) and path.is_file():
            found[key] = path.read_bytes()
    return found


def fill(path: Path) -> None:
    """Makes a file that takes all room."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError:
                continue
