"""Settings of a gateway, from its environment."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

from cloudmesh.data.gateway.streams import IDLE_SECONDS
from cloudmesh.data.memory import POD

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the operator tells a gateway's process.

    Args:
        memory: Bytes of memory that it may use in all.
        idle_seconds: How long a client may be silent in the middle of what it sends.
    """

    memory: int = POD
    idle_seconds: float = IDLE_SECONDS

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> GatewaySettings:
        """Reads CLOUDMESH_* variables; what isn't set, or is no number above 0, keeps its default."""
        default = cls()
        memory = _number(environ, "CLOUDMESH_MEMORY_LIMIT", default.memory)
        return cls(int(memory), _number(environ, "CLOUDMESH_IDLE_SECONDS", default.idle_seconds))


def _number(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "")
    if not text:
        return default
    if not text.isascii() or not text.isdigit() or not int(text[:18]):
        log.warning("%s isn't a whole number above 0: %s is used", name, default)
        return default
    return float(text[:18])
