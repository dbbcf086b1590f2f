"""The contract suite of catalogues on PostgreSQL."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest
from tests.testbed.postgres import Postgres, postgres

from cloudmesh.data.catalog.ports import Catalog
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.testing.catalogs import CASES, run_case

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres("fsync=off", "full_page_writes=off") as found:
        yield found


class PostgresHarness:
    """A schema of its own."""

    def __init__(self, server: Postgres) -> None:
        self._uri, self._schema = server.uri, f"case_{next(_numbers)}"

    async def open(self, clock: Callable[[], int]) -> PostgresCatalog:
        catalog = PostgresCatalog(self._uri, self._schema, clock=clock, readers=1)
        await catalog.open()
        return catalog

    async def settled(self, catalog: Catalog) -> None:
        assert isinstance(catalog, PostgresCatalog)
        await catalog.settle()

    async def wrong(self, catalog: Catalog) -> Sequence[str]:
        assert isinstance(catalog, PostgresCatalog)
        return await catalog.fsck()


@pytest.mark.parametrize("id_", sorted(CASES))
async def test_case(id_: str, server: Postgres) -> None:
    await run_case(PostgresHarness(server), CASES[id_])
