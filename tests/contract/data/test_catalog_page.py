"""The page on catalogues in PostgreSQL: its statements make a database that holds one, its objects are read."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg
import yaml
from tests.testbed.postgres import postgres

from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.data.catalog.address import database_in
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.catalog.postgres_schema import schema_of

PAGE = Path(__file__).resolve().parents[3] / "docs/how-to/keep-the-catalogue-in-postgresql.md"


def blocks(language: str) -> list[str]:
    """Blocks of the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


async def test_the_page() -> None:
    (statements,), (objects,) = blocks("sql"), blocks("yaml")
    secret, directory = yaml.safe_load_all(objects)
    asked = VirtualDirectory.model_validate(directory, extra="forbid").spec.catalog.postgresql
    assert asked is not None
    assert asked.uri_secret_ref.name == secret["metadata"]["name"]
    data = {key: text.encode() for key, text in secret["stringData"].items()}
    uri = database_in(data, "lab-database")[0]
    for told in re.findall(r"`(postgresql://\S+)`", PAGE.read_text()):
        database_in({"uri": told.encode()}, "lab-database")
    with postgres("fsync=off") as server:
        server.run(*(statement for statement in statements.split(";") if statement.strip()))
        # the example's server has TLS and a name
        here = uri.replace("db.example.org:5432", f"127.0.0.1:{server.port}").replace("require", "prefer")
        catalog = PostgresCatalog(here, schema_of("8a6f0c1e-0000-4000-8000-000000000001"))
        await catalog.open()
        await catalog.mkdir("a")
        with psycopg.connect(here) as db:
            row = db.execute("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^vdir_8a6f0c1e_'").fetchone()
        assert row == (1,)
        await catalog.drop()
