"""Cloudmesh for Kubernetes: one mesh out of clouds, containers, batch systems and file stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudmesh.data.client import Vdir

__all__ = ["Vdir"]


def __getattr__(name: str) -> Any:
    """Loads what the package gives when it is first asked for."""
    if name == "Vdir":
        from cloudmesh.data.client import Vdir

        return Vdir
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
