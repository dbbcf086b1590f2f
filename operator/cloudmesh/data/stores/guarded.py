"""Connections of aiohttp by the guard."""

from __future__ import annotations

import socket
from typing import Any

import aiohttp
from aiohttp.abc import ResolveResult

from cloudmesh.engine.endpoints import Guard


class GuardedResolver(aiohttp.ThreadedResolver):
    """Looks names up for connections, which then are made to what was looked at here and to nothing else.

    Args:
        guard: Says which addresses may be connected to.
    """

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a name.

        Raises:
            InvalidRequest: One of them is refused.
            OSError: There are none.
        """
        found = await super().resolve(host, port, family)
        self._guard.check(host, [each["host"] for each in found])
        return found


class GuardedConnector(aiohttp.TCPConnector):
    """Connections of a session, also to hosts that are addresses, which are never looked up.

    Args:
        guard: Says where they may go.
        more: As of the library's.
    """

    def __init__(self, guard: Guard, **more: Any) -> None:
        super().__init__(resolver=GuardedResolver(guard), **more)
        self._guard = guard

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - of the library
    ) -> aiohttp.connector.Connection:
        """One connection for a request, new or not.

        Raises:
            InvalidRequest: The host is refused.
        """
        self._guard.check_hosts([(req.url.raw_host or "").lower().rstrip(".")])
        return await super().connect(req, traces, timeout)
