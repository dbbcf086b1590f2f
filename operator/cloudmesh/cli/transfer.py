"""Copies between two sides: what differs is planned first, then done by several at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any, Literal

from cloudmesh.cli.output import Progress, complain, show
from cloudmesh.cli.places import File, Remote, Side, reason, write
from cloudmesh.data.placement import path_matches
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest

MOST_PARALLEL = 16
FEW = 10
"""So many files of the target may be deleted whatever their share is."""
SHARE = 0.2
"""More of the target than this isn't deleted without being told twice."""
Action = Literal["copy", "delete"]
_DONE = {"copy": "copied", "delete": "deleted"}


@dataclass(frozen=True, slots=True)
class Wish:
    """How a transfer is to be.

    Args:
        differing: Only what differs.
        delete: Also remove what only the target has.
        force: Even if that is much of it.
        include: Patterns, one of which a file must be of; none for all.
        exclude: Patterns of files to leave alone on both sides.
        check: Change nothing, tell what differs by content.
        dryrun: Change nothing, tell what would be done.
        parallel: How many at once.
        form: Of the output.
    """

    differing: bool = False
    delete: bool = False
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    check: bool = False
    dryrun: bool = False
    parallel: int = 4
    form: str = "table"
    force: bool = False

    def has(self, path: str) -> bool:
        """Whether a file is one of those."""
        return (not self.include or any(path_matches(one, path) for one in self.include)) and not any(
            path_matches(one, path) for one in self.exclude
        )


def options() -> argparse.ArgumentParser:
    """The options of all that copies."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--include", action="append", default=[], metavar="PATTERN", help="only these; may be repeated")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help="not these; may be repeated")
    parser.add_argument("--dryrun", "--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--check", action="store_true", help="only compare by sha256; 1 if something differs")
    parser.add_argument("--parallel", type=_parallel, default=4, metavar="N", help="copies at once, 4 if left out")
    return parser


def _parallel(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_PARALLEL:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST_PARALLEL}, not '{text}'")
    return int(text)


def wish(chosen: argparse.Namespace, *, differing: bool = False, delete: bool = False, force: bool = False) -> Wish:
    """What the command line asks for."""
    return Wish(
        differing, delete, chosen.include, chosen.exclude, chosen.check, chosen.dryrun, chosen.parallel, chosen.output,
        force,
    )  # fmt: skip


class Transfer:
    """One transfer.

    Args:
        source: From where.
        target: To where.
        wish: How.
        label: What a source that is one file is called.
    """

    def __init__(self, source: Side, target: Side, wish: Wish, label: str) -> None:
        self._source, self._target, self._wish, self._label = source, target, wish, label
        self._failures = 0

    def run(self) -> int:
        """Does it; the exit code."""
        kind = self._source.kind()
        if not kind:
            raise InvalidRequest(f"there is nothing at the source '{self._source.shown}'")
        sources = self._listed(self._source)
        targets: dict[str, File] = {}
        if self._wish.check or self._wish.differing:
            there = self._target.kind()
            if there and there != kind:
                raise InvalidRequest(f"the source is a {kind.lower()} and the target a {there.lower()}")
            if there:
                targets = self._listed(self._target)
        if self._wish.check:
            return self._check(sources, targets)
        plan: list[tuple[Action, File]] = []
        for path, file in sources.items():
            other = targets.get(path)
            if not self._wish.differing or other is None or self._differs(file, other):
                plan.append(("copy", file))
        if self._wish.delete and not sources and targets:
            raise InvalidRequest(
                "the source is empty: is it the right one, and mounted? Nothing is deleted at the target"
            )
        gone = [file for path, file in targets.items() if path not in sources] if self._wish.delete else []
        much = ""
        if len(gone) > FEW and len(gone) > SHARE * len(targets) and not self._wish.force:
            much = (
                f"{len(gone)} of {len(targets)} files at the target would be deleted: is the source whole? If so, add"
                " --force"
            )
        if self._wish.dryrun:
            rows = [self._row(*one) for one in plan] + [self._row("delete", file) for file in gone]
            show(self._wish.form, ("action", "path", "size"), rows)
            if much:
                complain(much)
            return int(self._failures > 0 or bool(much))
        if much:
            raise InvalidRequest(f"{much}; nothing was changed")
        rows = self._do(plan, targets)
        if gone and self._failures:
            complain("nothing is deleted, since not all could be copied")
        elif gone:
            rows += self._do([("delete", file) for file in gone], targets)
        show(self._wish.form, ("action", "path", "size"), rows)
        if self._failures:
            complain(f"{self._failures} failed, {len(rows)} done")
        return int(self._failures > 0)

    def _listed(self, place: Side) -> dict[str, File]:
        return {file.path: file for file in place.files(self._refused) if not file.path or self._wish.has(file.path)}

    def _refused(self, path: str, why: str) -> None:
        if self._wish.has(path):
            self._failures += 1
            complain(f"{path}: {why}")

    def _differs(self, file: File, other: File) -> bool:
        if file.size != other.size:
            return True
        return file.modified != other.modified and self._source.sha256(file) != self._target.sha256(other)

    def _check(self, sources: dict[str, File], targets: dict[str, File]) -> int:
        rows = []
        for path in sorted(sources.keys() | targets.keys()):
            file, other = sources.get(path), targets.get(path)
            if file is None or other is None:
                rows.append({"difference": "missing" if other is None else "extra", "path": path or self._label})
            elif file.size != other.size or self._source.sha256(file) != self._target.sha256(other):
                rows.append({"difference": "differs", "path": path or self._label})
        show(self._wish.form, ("difference", "path"), rows)
        return int(bool(rows) or self._failures > 0)

    def _do(self, plan: Sequence[tuple[Action, File]], targets: dict[str, File]) -> list[dict[str, Any]]:
        rows, progress = [], Progress(len(plan))
        with ThreadPoolExecutor(self._wish.parallel) as pool:
            started = {pool.submit(self._one, *one, targets): one for one in plan}
            try:
                for done, future in enumerate(as_completed(started), 1):
                    action, file = started[future]
                    try:
                        future.result()
                    except (CloudmeshError, OSError) as error:
                        self._failures += 1
                        complain(f"{file.path or self._label}: {reason(error)}")
                    else:
                        rows.append(self._row(_DONE[action], file))
                    progress.at(done)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return sorted(rows, key=lambda row: row["path"])

    def _one(self, action: Action, file: File, targets: dict[str, File]) -> None:
        if action == "delete":
            self._target.delete(file)
        else:
            # where the target has the file under its name in other characters, that one is written
            write(self._source, file, self._target, targets.get(file.path) or File(file.path, 0, 0))

    def _row(self, action: str, file: File) -> dict[str, Any]:
        return {"action": action, "path": file.path or self._label, "size": file.size}


def within(source: Side, target: Side) -> bool:
    """Whether one side lies within the other, so that a transfer would read what it writes."""
    if not isinstance(source, Remote) or not isinstance(target, Remote) or source.vdir is not target.vdir:
        return False
    one, other = (f"/{side.root}/".replace("//", "/") for side in (source, target))
    return one.startswith(other) or other.startswith(one)
