"""The cases, a module a group; importing this package registers them all."""

from __future__ import annotations

from cloudmesh.testing.providers.cases import create, delete, find, listing

__all__ = ["create", "delete", "find", "listing"]
