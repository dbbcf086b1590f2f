"""The contract suite of catalogues fails where a catalogue has a mistake that is easily made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudmesh.data.catalog.ports import ANY, Catalog, Check
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import Intent
from cloudmesh.testing.catalogs import CASES, CaseFailed, run_case


class ForgetsStamps(SqliteCatalog):
    """What changed while the mover looked is lost."""

    async def looked(self, entry_id: str, version: int, due: int, *, pending: bool = False, stamp: int = 0) -> None:
        await super().looked(entry_id, version, due, pending=pending)


class IgnoresVersions(SqliteCatalog):
    """Whoever comes last wins."""

    async def begin(self, intent: Intent, *, if_version: int = ANY) -> None:
        await super().begin(intent)


class WalksByPath(SqliteCatalog):
    """Orders paths as text."""

    async def walk(self, path: str, **asked: Any) -> Any:
        return sorted(await super().walk(path, **asked), key=lambda found: found.path)


class KeepsStale(SqliteCatalog):
    """Copies of older contents stay whole."""

    async def commit_put(self, intent_id: str, **told: Any) -> Any:
        (intent,) = [i for i in await self.intents(until=1 << 60) if i.id == intent_id] or [None]
        before = await self.copies(intent.entry) if intent else ()
        entry = await super().commit_put(intent_id, **told)
        written = {copy.store for copy in told["whole"]}
        await self.put_copies([copy for copy in before if copy.store not in written])
        return entry


class SharesKeys(SqliteCatalog):
    """Doesn't see where somebody is about to write."""

    async def at_key(self, store: str, key: str) -> Any:
        found = await super().at_key(store, key)
        return None if found and found.state == "Writing" else found


class WakesAll(SqliteCatalog):
    """Doesn't look at the store."""

    async def wake(self, *, store: str = "", due: int) -> int:
        return await super().wake(due=due)


class EndsTooSoon(SqliteCatalog):
    """A file in the trash ends with any of its copies."""

    async def drop_copy(self, entry_id: str, store: str, **told: Any) -> None:
        located = await self.by_id(entry_id)
        await super().drop_copy(entry_id, store, **told)
        if located is not None and not located.path:
            for copy in located.copies:
                await super().drop_copy(entry_id, copy.store)


class ForgetsTheJournal(SqliteCatalog):
    """Records are gone when somebody has read them."""

    async def unwritten(self, *, limit: int = 10000) -> Any:
        found = await super().unwritten(limit=limit)
        if found:
            await self.written(found[-1].seq)
        return found


class PagesFromTheMark(SqliteCatalog):
    """A page begins with the last name of the one before."""

    async def children(self, path: str, *, after: str = "", limit: int = 1000, copies: bool = False) -> Any:
        return await super().children(path, after=after[:-1], limit=limit, copies=copies)


class AlwaysRecursive(SqliteCatalog):
    """Deletes directories with all below them, asked for or not."""

    async def delete(self, path: str, *, recursive: bool = False, if_version: int = ANY) -> Any:
        return await super().delete(path, recursive=True, if_version=if_version)


class ChecksLater(SqliteCatalog):
    """Looks at the sums when the change is made."""

    async def restore(self, entry_id: str, path: str = "", *, check: Check | None = None) -> Any:
        entry = await super().restore(entry_id, path)
        if check is not None:
            check(await self.totals())
        return entry


class WeighsTheTop(SqliteCatalog):
    """Counts what lies in a directory itself."""

    async def weigh(self, entry_id: str) -> tuple[int, int]:
        located = await self.by_id(entry_id)
        return (1, located.entry.size) if located else (0, 0)


MISTAKES = {
    ForgetsStamps: "work/changed-meanwhile",
    IgnoresVersions: "put/guards",
    WalksByPath: "tree/walk-pages",
    KeepsStale: "put/over",
    SharesKeys: "put/keys",
    WakesAll: "work/wake",
    EndsTooSoon: "end/file",
    ForgetsTheJournal: "journal/records",
    PagesFromTheMark: "tree/children-pages",
    AlwaysRecursive: "tree/delete-directory",
    ChecksLater: "sums/check",
    WeighsTheTop: "trash/weigh",
}


class Harness:
    def __init__(self, kind: type[SqliteCatalog], path: Path) -> None:
        self._kind, self._path = kind, path

    async def open(self, clock: Callable[[], int]) -> Catalog:
        catalog = self._kind(self._path, clock=clock, readers=1)
        await catalog.open()
        return catalog

    async def settled(self, catalog: Catalog) -> None:
        assert isinstance(catalog, SqliteCatalog)
        await catalog.settle()

    async def wrong(self, catalog: Catalog) -> list[str]:
        return []


@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
async def test_a_mistake_is_found(kind: type[SqliteCatalog], tmp_path: Path) -> None:
    with pytest.raises(CaseFailed):
        await run_case(Harness(kind, tmp_path / "c.sqlite"), CASES[MISTAKES[kind]])
