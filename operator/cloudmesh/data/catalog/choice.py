"""Which catalogue a directory has."""

from __future__ import annotations

from pathlib import Path

from cloudmesh.data.catalog.address import address
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.catalog.postgres_schema import schema_of
from cloudmesh.data.catalog.sql import SqlCatalog
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.engine.endpoints import Guard


def guard_of(config: DirectoryConfig) -> Guard:
    """Where the database may be: where stores may."""
    return Guard(config.forbidden, inside=config.allow_private)


def catalog_of(config: DirectoryConfig, folder: Path) -> SqlCatalog:
    """The catalogue of a directory, to be opened.

    Args:
        config: What the gateway is told.
        folder: Where files of it lie.
    """
    if config.postgres:
        return PostgresCatalog(address(config, folder), schema_of(config.uid), guard=guard_of(config))
    return SqliteCatalog(folder / "catalog.sqlite")
