"""The address of a catalogue's database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from cloudmesh.data.config import DirectoryConfig
from cloudmesh.engine.errors import InvalidRequest

URI_KEY: Final = "uri"
AUTHORITY_KEY: Final = "ca.crt"
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


def database_in(data: Mapping[str, bytes], secret: str) -> tuple[str, str]:
    """Address of a Secret's key `uri`, and certificates of its key `ca.crt`, empty for none.

    Raises:
        InvalidRequest: There is no address, or it can't be used.
    """
    if URI_KEY not in data:
        raise InvalidRequest(
            f"Secret '{secret}' must have a key `{URI_KEY}`, such as postgresql://user:password@host/db"
        )
    try:
        uri, authority = data[URI_KEY].decode().strip(), data.get(AUTHORITY_KEY, b"").decode()
        check_uri(uri)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"Secret '{secret}' isn't text") from error
    except InvalidRequest as error:
        raise InvalidRequest(f"Secret '{secret}': {error}") from error
    return uri, authority


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
