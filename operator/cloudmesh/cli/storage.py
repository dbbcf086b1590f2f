"""`cms storage`: files between folders of this machine and directories, written as NAME:/path."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cloudmesh.cli import connection, output, sides, transfer, vdir
from cloudmesh.cli.connection import UsageError

COPYING = {
    "put": "Copies from this machine into a directory",
    "get": "Copies out of a directory to this machine",
    "copy": "Copies from anywhere to anywhere, one of them a directory",
    "sync": "Copies what differs",
}


def add_to(nouns: Any) -> None:
    """Adds the noun."""
    noun = nouns.add_parser("storage", help="files between this machine and directories", description=__doc__)
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    shared = [connection.options(), output.options()]
    for name, text in COPYING.items():
        made = verbs.add_parser(name, help=text, description=text, parents=[*shared, transfer.options()])
        spelled = name in ("copy", "sync")
        for word in ("source", "target"):
            made.add_argument(word, metavar=word.upper(), **({"nargs": "?", "default": ""} if spelled else {}))
            if spelled:
                made.add_argument(f"--{word}", dest=f"{word}_option", default="", help=f"the same as {word.upper()}")
        made.add_argument("--recursive", action="store_true", help="a folder with all below it; sync always does so")
        made.set_defaults(run=copy, verb=name, delete=False, force=False)
        if name == "sync":
            made.add_argument("--delete", action="store_true", help="also remove what only the target has")
            made.add_argument("--force", action="store_true", help="remove it even if it is much of the target")
    text = "What is in a directory"
    made = verbs.add_parser("list", help=text, description=text, parents=shared)
    made.add_argument("path", metavar="PATH", nargs="?", default="")
    made.add_argument("--recursive", action="store_true")
    made.set_defaults(run=vdir.ls)
    text = "Finds files by the pattern of their names"
    made = verbs.add_parser("search", help=text, description=text, parents=shared)
    made.add_argument("pattern", metavar="PATTERN")
    made.add_argument("path", metavar="PATH")
    made.set_defaults(run=vdir.search, tag=[])
    text = "Moves a file or directory to the trash"
    made = verbs.add_parser("delete", help=text, description=text, parents=shared)
    made.add_argument("path", metavar="PATH")
    made.add_argument("--recursive", action="store_true")
    made.add_argument("--dryrun", "--dry-run", action="store_true", help="only say what would be deleted")
    made.set_defaults(run=delete)
    text = "Makes a directory and those above it"
    made = verbs.add_parser("create", help=text, description=text, parents=shared)
    made.add_argument("what", choices=("dir",))
    made.add_argument("path", metavar="PATH")
    made.set_defaults(run=vdir.mkdir)


def copy(chosen: argparse.Namespace) -> int:
    """Copies or syncs."""
    for word in ("source", "target"):
        given = [one for one in (getattr(chosen, word), getattr(chosen, f"{word}_option", "")) if one]
        if len(given) != 1:
            raise UsageError(f"write the {word} once, as {word.upper()} or as --{word}")
        setattr(chosen, word, given[0])
    local = [connection.remote(word) is None for word in (chosen.source, chosen.target)]
    if chosen.verb == "put" and local != [True, False]:
        raise UsageError("put copies a local path into NAME:/path")
    if chosen.verb == "get" and local != [False, True]:
        raise UsageError("get copies NAME:/path to a local path")
    sync = chosen.verb == "sync"
    if sync and local[0] and Path(chosen.source).is_file():
        raise UsageError("sync compares folders: use put or copy for one file")
    wish = transfer.wish(chosen, differing=sync, delete=chosen.delete, force=chosen.force)
    return sides.transfer(chosen, chosen.source, chosen.target, wish, recursive=chosen.recursive or sync)


def delete(chosen: argparse.Namespace) -> int:
    """Moves to the trash."""
    if not chosen.dryrun:
        return vdir.remove(chosen)
    return vdir.ls(chosen)
