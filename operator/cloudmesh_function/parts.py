"""Which distributions lie in the runtime layer of a function's image."""

from __future__ import annotations

from typing import Final

RUNTIME: Final[tuple[str, ...]] = ("msgspec", "granian", "click", "swagger-ui-bundle-v2")
"""Distributions of the runtime layer, with what they declare to need (of the Swagger UI wheel only the
assets are read, so that its Jinja2 stays out)."""

PROVIDES: Final[frozenset[str]] = frozenset({"cloudmesh_function", "msgspec", "granian", "click"})
"""Top-level import names that the runtime layer provides."""
