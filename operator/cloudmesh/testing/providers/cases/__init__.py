"""The cases, a module a group; importing this package registers them all."""

from __future__ import annotations

from cloudmesh.testing.providers.cases import (
    create,
    delete,
    drift,
    errors,
    find,
    life,
    listing,
    offers,
    powers_account,
    powers_machine,
    secrets,
)

__all__ = [
    "create", "delete", "drift", "errors", "find", "life", "listing", "offers", "powers_account", "powers_machine",
    "secrets",
]  # fmt: skip
