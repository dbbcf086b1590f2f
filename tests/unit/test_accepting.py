"""Servers that close while somebody connects."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from typing import Any

import pytest


async def test_a_connection_accepted_as_the_server_closes_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    loop: Any = asyncio.get_running_loop()
    server: asyncio.Server
    accept = type(loop)._accept_connection

    def accept_and_close(*args: Any, **options: Any) -> None:
        accept(loop, *args, **options)
        server.close()

    monkeypatch.setattr(loop, "_accept_connection", accept_and_close)
    server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    with (
        warnings.catch_warnings(record=True) as seen,
        socket.create_connection(server.sockets[0].getsockname()) as client,
    ):
        warnings.simplefilter("always")
        client.setblocking(False)
        assert await asyncio.wait_for(loop.sock_recv(client, 1), 5) == b""
        gc.collect()
    assert [str(w.message) for w in seen if issubclass(w.category, ResourceWarning)] == []
