"""The contract suite of catalogues on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.model import ROOT, Entry
from cloudmesh.testing.catalogs import CASES, run_case


class SqliteHarness:
    """A file in a folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "catalog.sqlite"

    async def open(self, clock: Callable[[], int]) -> SqliteCatalog:
        catalog = SqliteCatalog(self._path, clock=clock, readers=1)
        await catalog.open()
        return catalog

    async def settled(self, catalog: Catalog) -> None:
        assert isinstance(catalog, SqliteCatalog)
        await catalog.settle()

    async def wrong(self, catalog: Catalog) -> Sequence[str]:
        assert isinstance(catalog, SqliteCatalog)
        return await catalog.fsck()


@pytest.mark.parametrize("id_", sorted(CASES))
async def test_case(id_: str, tmp_path: Path) -> None:
    await run_case(SqliteHarness(tmp_path), CASES[id_])


async def test_what_is_loaded_at_once_leaves_no_log(tmp_path: Path) -> None:
    """Else the first change after it waits until the system has cut a log as large as the catalogue."""
    catalog = await SqliteHarness(tmp_path).open(lambda: 1)
    try:
        many = [Entry(f"{n + 16:016x}", ROOT, f"file-{n}", "File", 1, 1, "", 1, "", {}, 1) for n in range(5000)]
        await catalog.load(many, [], [], due=0)
        log = (tmp_path / "catalog.sqlite-wal").stat().st_size
        assert (await catalog.totals()).files == 5000
    finally:
        await catalog.close()
    assert log == 0
