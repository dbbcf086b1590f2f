"""Python 3.11's event loop forgets a connection that it accepts in the turn in which the server is closed.

The transport is made for a closed server, which an assertion refuses, and its socket is left to the garbage collector
(`asyncio.selector_events`, `_accept_connection2`). As an "unclosed transport" it makes some later test fail.
"""

from __future__ import annotations

import asyncio
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from typing import Any

_accept = BaseSelectorEventLoop._accept_connection2  # type: ignore[attr-defined]


async def _accept_or_close(
    loop: Any, factory: Any, conn: socket.socket, extra: Any, sslcontext: Any, server: asyncio.Server | None, *more: Any
) -> None:
    if server is not None and not server.sockets:
        conn.close()
    else:
        await _accept(loop, factory, conn, extra, sslcontext, server, *more)


def mend() -> None:
    """Have each event loop close such a connection."""
    BaseSelectorEventLoop._accept_connection2 = _accept_or_close  # type: ignore[attr-defined]
