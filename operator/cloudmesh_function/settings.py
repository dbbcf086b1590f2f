"""Limits of a function's server, from its environment."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

EXIT_NOT_LOADED: Final = 3
"""Exit status for a function that can't be imported, or isn't the one that its document tells of."""


class SettingsError(ValueError):
    """An environment variable that can't be used."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and places.

    Attributes:
        timeout: seconds a call may take.
        concurrency: calls at once.
        max_body: bytes of a request's body.
        port: TCP port.
        host: address to listen on.
        app_dir: folder with function.py, function.json and openapi.json.
        drain: seconds after SIGTERM in which new connections are still served, since load balancers hear of it late.
        grace: seconds after SIGTERM by which the process ends.
        fault: seconds for which a function that can't be loaded answers its probes with the reason, before it ends.
    """

    timeout: float = 30.0
    concurrency: int = 100
    max_body: int = 10_485_760
    port: int = 8080
    host: str = "0.0.0.0"  # noqa: S104 - a container's own network namespace
    app_dir: str = "/opt/cloudmesh/app"
    drain: float = 4.0
    grace: float = 9.0
    fault: float = 5.0


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Reads `CLOUDMESH_*`.

    Raises:
        SettingsError: a value is no number or out of its range; names the variable.
    """
    fall_back = Settings()

    def number(name: str, default: float, least: float, most: float) -> float:
        text = environment.get(name, "")
        if not text:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise SettingsError(f"{name} must be a number from {least:g} to {most:g}, not {text[:60]!r}")
        return value

    return Settings(
        timeout=number("CLOUDMESH_TIMEOUT_SECONDS", fall_back.timeout, 0.001, 86_400),
        concurrency=int(number("CLOUDMESH_CONCURRENCY", fall_back.concurrency, 1, 100_000)),
        max_body=int(number("CLOUDMESH_MAX_BODY_BYTES", fall_back.max_body, 1, 2**40)),
        port=int(number("CLOUDMESH_PORT", fall_back.port, 1, 65_535)),
        host=environment.get("CLOUDMESH_HOST") or fall_back.host,
        app_dir=environment.get("CLOUDMESH_APP_DIR") or fall_back.app_dir,
        drain=number("CLOUDMESH_DRAIN_SECONDS", fall_back.drain, 0, 600),
        grace=number("CLOUDMESH_GRACE_SECONDS", fall_back.grace, 0.1, 86_400),
        fault=number("CLOUDMESH_FAULT_SECONDS", fall_back.fault, 0, 3600),
    )
