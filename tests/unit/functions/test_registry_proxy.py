"""The proxy passes bytes on, one direction at a time, and outlives whatever it passes them to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from cloudmesh.functions.registry_proxy import Limits, Proxy, parse_address

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _server(handler: Handler, port: int = 0) -> AsyncIterator[int]:
    server = await asyncio.start_server(handler, "127.0.0.1", port)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@asynccontextmanager
async def _proxy(to: int, limits: Limits | None = None) -> AsyncIterator[int]:
    proxy = Proxy(("127.0.0.1", to), limits or Limits(grace=0.1))
    try:
        yield await proxy.listen("127.0.0.1", 0)
    finally:
        await proxy.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read()  # until the other side closes its half
    writer.write(data[::-1])
    await writer.drain()
    writer.close()


async def test_bytes_pass_and_half_close_works() -> None:
    async with _server(_echo) as to, _proxy(to) as port:
        for size in (1, 100_000, 3_000_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            data = os.urandom(size)
            writer.write(data)
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 10) == data[::-1]
            writer.close()


async def test_a_slow_reader_holds_the_sender_back() -> None:
    sent = [0]

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while sent[0] < 200 << 20:
                writer.write(bytes(1 << 16))
                await writer.drain()
                sent[0] += 1 << 16
        except OSError:
            pass
        writer.close()

    async with _server(pour) as to, _proxy(to) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        await reader.readexactly(1000)
        before = -1
        while sent[0] != before:
            before = sent[0]
            await asyncio.sleep(0.3)
        assert sent[0] < 50 << 20  # socket buffers, not the 200 MiB
        writer.close()


async def test_the_registry_may_be_away_and_come_back(unused_tcp_port: int) -> None:
    async with _proxy(unused_tcp_port) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        async with _server(_echo, unused_tcp_port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"abc")
            writer.write_eof()
            assert await asyncio.wait_for(reader.read(), 5) == b"cba"
            writer.close()


async def test_a_registry_that_breaks_off_ends_the_connection() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.transport.abort()

    async with _server(cut) as to, _proxy(to) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"abc")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_an_idle_connection_ends() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with _server(silent) as to, _proxy(to, Limits(idle=0.2, grace=0.1)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_connections_are_bounded() -> None:
    async with _server(_echo) as to, _proxy(to, Limits(connections=1, grace=0.1)) as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.sleep(0.05)
        reader, second = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        first.close()
        second.close()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_the_process_serves_both_families_and_ends_on_sigterm(unused_tcp_port: int) -> None:
    async with _server(_echo) as to:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cloudmesh.functions.registry_proxy"),
            *("--listen", f"127.0.0.1:{unused_tcp_port}", "--listen", f"[::1]:{unused_tcp_port}"),
            *("--to", f"127.0.0.1:{to}"),
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(20):
                while b"passing on" not in await process.stderr.readline():
                    pass
            for host in ("127.0.0.1", "::1") if _has_ipv6() else ("127.0.0.1",):
                reader, writer = await asyncio.open_connection(host, unused_tcp_port)
                writer.write(b"abc")
                writer.write_eof()
                assert await asyncio.wait_for(reader.read(), 5) == b"cba"
                writer.close()
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(10):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_a_port_that_is_taken_ends_the_process_with_an_error() -> None:
    async with _server(_echo) as taken:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cloudmesh.functions.registry_proxy"),
            *("--listen", f"127.0.0.1:{taken}", "--to", "127.0.0.1:1"),
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 1
        assert b"can't be used" in errors


def test_addresses() -> None:
    assert parse_address("127.0.0.1:25500") == ("127.0.0.1", 25500)
    assert parse_address("[::1]:25500") == ("::1", 25500)
    assert parse_address("cloudmesh-registry.x.svc:5001") == ("cloudmesh-registry.x.svc", 5001)
    for text in ("::1:25500", "host", "host:", ":1", "host:99999", "host:x"):
        with pytest.raises(ValueError, match="address"):
            parse_address(text)
