"""How requests reach an API server: a small port, so that tests put one in memory behind the same client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One call to the API server."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str = "application/json"
    accept: str = "application/json"
    timeout_seconds: float | None = 10.0
    """Limit on the whole call; None for watches, which end by their own rules."""


class Reply(Protocol):
    """An answer whose body is still to be read, whole or line by line."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The whole body."""

    def lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines as they arrive."""

    def close(self) -> None:
        """Gives the connection up; harmless when called twice."""


class Transport(Protocol):
    """Sends requests; raises `Transient` when no answer came."""

    async def send(self, request: Request) -> Reply:
        """Sends one request and returns when the answer's head is there.

        Raises:
            Transient: No connection, time-out, broken answer.
        """

    async def close(self) -> None:
        """Closes all connections."""
