"""The address of a catalogue's database."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cloudmesh.data.config import DirectoryConfig
from cloudmesh.engine.errors import InvalidRequest

ALLOWED: Final = frozenset({
    "host", "port", "dbname", "user", "password", "sslmode", "channel_binding", "connect_timeout",
    "application_name", "target_session_attrs", "load_balance_hosts", "require_auth",
})  # fmt: skip
"""Parameters of an address; others name files, or change what the gateway relies on."""


def check_uri(uri: str) -> None:
    """Refuses an address that can't be one, or that names files of the gateway.

    Raises:
        InvalidRequest: It can't be used; the message doesn't repeat it, since it may have a password.
    """
    if not uri.startswith(("postgresql://", "postgres://")):
        raise InvalidRequest("the address of the database must begin with postgresql://")
    try:
        told = conninfo_to_dict(uri)
    except psycopg.ProgrammingError:
        raise InvalidRequest("the address of the database can't be read") from None
    if strange := sorted(told.keys() - ALLOWED):
        raise InvalidRequest(f"the address of the database has {', '.join(strange)}: use {', '.join(sorted(ALLOWED))}")
    for name in ("host", "user", "dbname"):
        if not told.get(name):
            raise InvalidRequest(f"the address of the database has no {name}")


def address(config: DirectoryConfig, folder: Path) -> str:
    """How the gateway reaches its database.

    Args:
        config: What it is told.
        folder: Where it may write: the certificate of the database's authority.
    """
    if not config.postgres_ca:
        return config.postgres
    told: dict[str, Any] = conninfo_to_dict(config.postgres)
    authority = folder / "postgresql-ca.crt"
    authority.write_text(config.postgres_ca)
    return make_conninfo(**{"sslmode": "verify-full", **told, "sslrootcert": str(authority)})
