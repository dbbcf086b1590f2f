"""The two sides of a copying command, from its words."""

from __future__ import annotations

import argparse
from pathlib import Path

from cloudmesh.cli import connection
from cloudmesh.cli.connection import UsageError
from cloudmesh.cli.places import Local, Remote, Side
from cloudmesh.cli.transfer import Transfer, Wish, within
from cloudmesh.data.client import Vdir


def transfer(chosen: argparse.Namespace, source: str, target: str, wish: Wish, *, recursive: bool) -> int:
    """Copies from one word to the other; the exit code.

    A file goes into a target that is a folder or ends in '/', else it becomes the target; a folder's files go below the
    target.
    """
    found = [connection.remote(word) for word in (source, target)]
    wanted = {connection.named(chosen, one[0]) for one in found if one}
    if not wanted:
        raise UsageError("one side must be a path of a directory: NAME:/path")
    connection.only_one(chosen, wanted)
    clients = {name: connection.connect(chosen, name) for name in wanted}
    sides = [_place(clients, one, word) for one, word in zip(found, (source, target), strict=True)]
    kind, name = sides[0].kind(), _name(sides[0])
    if kind == "Directory" and not recursive:
        raise UsageError(f"'{source}' is a folder: add --recursive")
    if kind == "File" and (target.endswith(("/", "/.")) or target == "." or sides[1].kind() == "Directory"):
        sides[1] = _below(sides[1], name)
    if within(sides[0], sides[1]):
        raise UsageError("the source and the target lie within one another")
    return Transfer(sides[0], sides[1], wish, name).run()


def _place(clients: dict[str, Vdir], found: tuple[str, str] | None, word: str) -> Side:
    if found:
        return Remote(clients[found[0]], found[1])
    if not word or "\0" in word:
        raise UsageError("a path is empty or has a NUL character")
    return Local(Path(word))


def _name(place: Side) -> str:
    return place.root.rpartition("/")[2] if isinstance(place, Remote) else place.root.name


def _below(place: Side, name: str) -> Side:
    if isinstance(place, Remote):
        return Remote(place.vdir, "/".join(part for part in (place.root, name) if part))
    return Local(place.root / name)
