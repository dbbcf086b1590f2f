"""An API server in memory, good enough for unit tests of controllers: the real one decides about everything else."""

from __future__ import annotations

from cloudmesh.testing.apiserver.server import MemoryApi

__all__ = ["MemoryApi"]
