"""`cms vdir`: one VirtualDirectory."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from cloudmesh.cli import connection, output, sides, transfer
from cloudmesh.cli.connection import UsageError
from cloudmesh.data.errors import Exists

Nouns = Any  # what argparse gives for subparsers has no public type
Run = Callable[[argparse.Namespace], int]
ENTRY = ("kind", "size", "modified", "path")


def add_to(nouns: Nouns) -> None:
    """Adds the noun."""
    noun = nouns.add_parser("vdir", help="one VirtualDirectory", description=__doc__)
    verbs = noun.add_subparsers(metavar="VERB", required=True)
    shared = [connection.options(), output.options()]

    def verb(name: str, run: Run, text: str, *words: str, more: tuple[argparse.ArgumentParser, ...] = ()) -> Any:
        made = verbs.add_parser(name, help=text, description=text, parents=[*shared, *more])
        for word in words:
            if word.endswith("?"):
                made.add_argument(word[:-1].lower(), metavar=word[:-1], nargs="?", default="")
            else:
                made.add_argument(word.lower(), metavar=word)
        made.set_defaults(run=run)
        return made

    verb("ls", ls, "What is in a directory", "PATH?").add_argument("--recursive", action="store_true")
    for name, run in (("put", copy), ("get", copy)):
        made = verb(
            name, run, f"Copies a file or folder {'in' if name == 'put' else 'out'}", more=(transfer.options(),)
        )
        made.add_argument("source", metavar="SOURCE")
        made.add_argument("target", metavar="TARGET", **({} if name == "put" else {"nargs": "?", "default": "."}))
        made.add_argument("--recursive", action="store_true", help="a folder with all below it")
        made.set_defaults(verb=name)
    verb("mkdir", mkdir, "Makes a directory and those above it", "PATH")
    for name, run, text in (("mv", move, "Renames a file or directory"), ("cp", duplicate, "Copies a file")):
        verb(name, run, text, "SOURCE", "TARGET").add_argument("--overwrite", action="store_true")
    for name in ("rm", "delete"):
        verb(name, remove, "Moves a file or directory to the trash", "PATH").add_argument(
            "--recursive", action="store_true", help="a directory with all below it"
        )
    made = verb("search", search, "Finds files by the pattern of their names", "PATTERN", "PATH?")
    made.add_argument("--tag", action="append", default=[], metavar="KEY=VALUE")
    verb("add", add, "Links an object of a store, which is read where it lies: SERVICE:/dir/file", "SOURCE", "PATH")
    verb("adopt", adopt, "Makes a link an ordinary file; the linked object stays", "PATH")
    verb("where", where, "Where the copies of a file lie", "PATH")
    verb("why", why, "Why they lie there", "PATH")
    verb("rules", rules, "The rules of the directory, and what brings a file to each", "PATH")
    verb("trash", trash, "What can be restored", "DIRECTORY?")
    verb("restore", restore, "Brings something back from the trash", "ID", "PATH?")
    made = verb("versions", versions, "Older contents of a file; brings one back, saves one, or gives one up", "PATH")
    one = made.add_mutually_exclusive_group()
    one.add_argument("--restore", type=int, metavar="VERSION", help="make it the file's own content again")
    one.add_argument("--get", type=int, metavar="VERSION", help="write it into the file that --to names")
    one.add_argument("--delete", type=int, metavar="VERSION", help="remove it")
    made.add_argument("--to", default="", metavar="FILE", help="a file of this machine that isn't there yet")
    made = verb("tags", tags, "Shows the tags of a file, or replaces them", "PATH")
    made.add_argument("tags", metavar="KEY=VALUE", nargs="*")
    made.add_argument("--none", action="store_true", help="takes all tags away")
    verb("usage", usage, "How much there is", "DIRECTORY?")
    verb("cost", cost, "What it costs a month, by store", "DIRECTORY?")
    made = verb("plan", plan, "What a change takes: the one that waits for approval, or that of a file", "DIRECTORY?")
    made.add_argument("-f", "--file", default="", help="a VirtualDirectory as YAML: what its rules and stores take")
    verb("status", status, "How the stores are", "DIRECTORY?")
    verb("snapshot", snapshot, "Writes the catalogue into the stores", "DIRECTORY?")
    made = verb("rebuild", rebuild, "Throws the catalogue away and makes it anew of what the stores hold", "DIRECTORY?")
    made.add_argument("--yes", action="store_true", help="without asking; until it is done nobody is served")
    made = verb("believe", believe, "Believes a store's listing that shrank: what it lacks is gone", "STORE")
    made.add_argument("directory", metavar="DIRECTORY", nargs="?", default="")
    made.add_argument("--seen", metavar="WORD", required=True, help="what it lacks, as its message in `status` says")


def _at(chosen: argparse.Namespace, word: str) -> tuple[Any, str]:
    name, path = connection.at(chosen, word)
    return connection.connect(chosen, name), path


def _whole(chosen: argparse.Namespace) -> Any:
    word = chosen.directory.removesuffix("/").removesuffix(":")
    return connection.connect(chosen, connection.named(chosen, word))


def _two(chosen: argparse.Namespace) -> tuple[Any, str, str]:
    (name, source), (other, target) = (connection.at(chosen, word) for word in (chosen.source, chosen.target))
    if name != other:
        raise UsageError("both paths must be of one directory; `cms storage copy` copies between two")
    return connection.connect(chosen, name), source, target


def _pairs(words: list[str]) -> dict[str, str]:
    pairs = dict(word.partition("=")[::2] for word in words if "=" in word)
    if len(pairs) != len(words):
        raise UsageError("tags must be written as KEY=VALUE, each key once")
    return pairs


def ls(chosen: argparse.Namespace) -> int:
    """What is in a directory; a file is its own entry."""
    vdir, path = _at(chosen, chosen.path)
    if path and (entry := vdir.stat(path))["kind"] == "File":
        entries: Iterable[dict[str, Any]] = [entry]
    else:
        entries = vdir.list(path, recursive=chosen.recursive)
    output.show(chosen.output, ENTRY, map(_shown, entries) if chosen.output == "table" else entries)
    return 0


def _shown(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a table: a link says where it leads."""
    if "link" not in entry:
        return entry
    return entry | {"kind": "Link", "path": f"{entry['path']} -> {entry['link']['store']}:/{entry['link']['key']}"}


def copy(chosen: argparse.Namespace) -> int:
    """Copies in or out."""
    words = {"source": chosen.source, "target": chosen.target}
    inside, outside = ("target", "source") if chosen.verb == "put" else ("source", "target")
    if connection.remote(words[outside]):
        raise UsageError(f"the {outside} of {chosen.verb} is on this machine: write ./ before its name")
    name, path = connection.at(chosen, words[inside])
    slash = "/" if path and words[inside].endswith("/") else ""
    words[inside] = f"{name}:/{path}{slash}"
    return sides.transfer(chosen, words["source"], words["target"], transfer.wish(chosen), recursive=chosen.recursive)


def mkdir(chosen: argparse.Namespace) -> int:
    """Makes a directory."""
    vdir, path = _at(chosen, chosen.path)
    output.show(chosen.output, ENTRY, [vdir.mkdir(path)])
    return 0


def move(chosen: argparse.Namespace) -> int:
    """Renames."""
    vdir, source, target = _two(chosen)
    output.show(chosen.output, ENTRY, [vdir.move(source, target, overwrite=chosen.overwrite)])
    return 0


def duplicate(chosen: argparse.Namespace) -> int:
    """Copies a file."""
    vdir, source, target = _two(chosen)
    output.show(chosen.output, ENTRY, [vdir.copy(source, target, overwrite=chosen.overwrite)])
    return 0


def remove(chosen: argparse.Namespace) -> int:
    """Moves to the trash."""
    vdir, path = _at(chosen, chosen.path)
    try:
        vdir.delete(path, recursive=chosen.recursive)
    except Exists as error:
        raise Exists(f"{error}: add --recursive to remove all below it too") from None
    return 0


def search(chosen: argparse.Namespace) -> int:
    """Finds files."""
    vdir, path = _at(chosen, chosen.path)
    query = {"under": path} if path else {}
    if chosen.tag:
        query["tags"] = connection.encoded(_pairs(chosen.tag))
    output.show(chosen.output, ENTRY, vdir.search(chosen.pattern, **query))
    return 0


def add(chosen: argparse.Namespace) -> int:
    """Links an object of a store."""
    store, colon, key = chosen.source.partition(":/")
    if not colon or not store or not key or "/" in store:
        raise UsageError("write what is linked as SERVICE:/dir/file, where SERVICE is a store of the directory")
    vdir, path = _at(chosen, chosen.path)
    told = vdir.link(path, store, key)
    output.show(chosen.output, ENTRY, [_shown(told) if chosen.output == "table" else told])
    return 0


def adopt(chosen: argparse.Namespace) -> int:
    """Makes a link a file."""
    vdir, path = _at(chosen, chosen.path)
    output.show(chosen.output, ENTRY, [vdir.adopt(path)])
    return 0


def where(chosen: argparse.Namespace) -> int:
    """Where the copies lie."""
    vdir, path = _at(chosen, chosen.path)
    output.show(
        chosen.output,
        ("store", "state", "up", "size", "verified", "monthly", "key"),
        _priced(vdir.where(path)["copies"]),
    )
    return 0


def _priced(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows with what a month costs in words."""
    return [row | {"monthly": f"{row['monthly']['amount']} {row['monthly']['currency']}"} if "monthly" in row else row
            for row in rows]  # fmt: skip


def why(chosen: argparse.Namespace) -> int:
    """Why they lie there."""
    vdir, path = _at(chosen, chosen.path)
    told = vdir.why(path)
    if chosen.output == "table":
        output.tell("table", {"rule": told["rule"]})
        output.show("table", ("store", "chosen", "score", "monthly", "why"), _priced(told["stores"]))
    else:
        output.tell(chosen.output, told)
    return 0


def rules(chosen: argparse.Namespace) -> int:
    """The rules, and what brings a file to each."""
    vdir, path = _at(chosen, chosen.path)
    told = vdir.rules(path)
    if chosen.output == "table":
        columns = ("name", "current", "possible", "copies", "stores", "monthly", "tags", "to")
        output.show("table", columns, _priced(told["rules"]))
    else:
        output.tell(chosen.output, told)
    return 0


def trash(chosen: argparse.Namespace) -> int:
    """What can be restored."""
    output.show(chosen.output, ("id", "deleted", "kind", "size", "path"), _whole(chosen).trash())
    return 0


def restore(chosen: argparse.Namespace) -> int:
    """Brings something back, to where it was or to another path."""
    vdir, path = _at(chosen, chosen.path)
    output.show(chosen.output, ENTRY, [vdir.restore(chosen.id, path)])
    return 0


def versions(chosen: argparse.Namespace) -> int:
    """Older contents of a file."""
    if bool(chosen.to) is not (chosen.get is not None):
        raise UsageError("--get VERSION and --to FILE go together")
    vdir, path = _at(chosen, chosen.path)
    if chosen.restore is not None:
        output.show(chosen.output, ENTRY, [vdir.restore_version(path, chosen.restore)])
    elif chosen.delete is not None:
        vdir.delete_version(path, chosen.delete)
    elif chosen.get is not None:
        vdir.get(path, _new(chosen.to), version=chosen.get)
    else:
        columns = ("version", "size", "modified", "replaced")
        output.show(chosen.output, columns, vdir.versions(path)["versions"])
    return 0


def _new(name: str) -> Path:
    if Path(name).exists():
        raise UsageError(f"{name} is there already")
    return Path(name)


def tags(chosen: argparse.Namespace) -> int:
    """Shows or replaces the tags."""
    if chosen.tags and chosen.none:
        raise UsageError("--none takes all tags away: name none with it")
    pairs = _pairs(chosen.tags)
    vdir, path = _at(chosen, chosen.path)
    entry = vdir.set_tags(path, pairs) if pairs or chosen.none else vdir.stat(path)
    output.tell(chosen.output, entry.get("tags", {}))
    return 0


def usage(chosen: argparse.Namespace) -> int:
    """Sums."""
    told = _whole(chosen).usage()
    output.tell(chosen.output, {key: value for key, value in told.items() if key != "stores"})
    return 0


def cost(chosen: argparse.Namespace) -> int:
    """What it costs, by store."""
    told = _whole(chosen).cost()
    if chosen.output == "table":
        output.show("table", ("store", "files", "bytes", "monthly", "egress"), told.pop("stores"))
        output.tell("table", told)
    else:
        output.tell(chosen.output, told)
    return 0


def plan(chosen: argparse.Namespace) -> int:
    """What a change takes."""
    if not chosen.file:
        output.tell(chosen.output, _whole(chosen).quote())
        return 0
    # the models of the API take longer to load than all else that a command does
    from cloudmesh.cli import plans

    directory = plans.read(chosen.file)
    chosen.directory = chosen.directory or directory.metadata.name
    output.tell(chosen.output, _whole(chosen).plan(*plans.wanted(directory)))
    return 0


def status(chosen: argparse.Namespace) -> int:
    """The state of the stores."""
    output.show(chosen.output, ("name", "state", "files", "bytes", "message"), _whole(chosen).usage()["stores"])
    return 0


def snapshot(chosen: argparse.Namespace) -> int:
    """Writes the catalogue down."""
    output.tell(chosen.output, _whole(chosen).snapshot())
    return 0


def rebuild(chosen: argparse.Namespace) -> int:
    """Makes the catalogue anew."""
    vdir = _whole(chosen)
    if not chosen.yes and input(f"Throw the catalogue of {vdir.name} away? Type its name: ") != vdir.name:
        raise UsageError("nothing was done; --yes does it without asking")
    output.tell(chosen.output, vdir.rebuild())
    return 0


def believe(chosen: argparse.Namespace) -> int:
    """Believes a listing."""
    output.tell(chosen.output, _whole(chosen).believe(chosen.store, chosen.seen))
    return 0
