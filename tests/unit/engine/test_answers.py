"""Bodies that come in pieces, as each way to read an answer meets them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import pytest

from cloudmesh.engine.answers import beginning, whole
from cloudmesh.engine.errors import Transient


@contextlib.asynccontextmanager
async def server(body: bytes, piece: int) -> AsyncIterator[str]:
    """Answers with a body in pieces, each in a packet of its own."""

    answering: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):  # the client need not read it all
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            for start in range(0, len(body), piece):
                writer.write(body[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0.01)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.add(asyncio.create_task(answer(reader, writer)))

    listening = await asyncio.start_server(begin, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    await asyncio.gather(*answering)


BODY = bytes(range(256)) * 40


@pytest.mark.parametrize("piece", [1000, 5000, len(BODY)])
async def test_all_pieces_are_read(piece: int) -> None:
    async with server(BODY, piece) as url, aiohttp.ClientSession() as session:
        async with session.get(url) as answer:
            assert await whole(answer.content, len(BODY)) == BODY
        async with session.get(url) as answer:
            assert await beginning(answer.content, 7000) == BODY[:7000]
        async with session.get(url) as answer:
            assert await beginning(answer.content, 1 << 20) == BODY


async def test_a_body_that_is_too_long_is_no_answer() -> None:
    async with server(BODY, 3000) as url, aiohttp.ClientSession() as session, session.get(url) as answer:
        with pytest.raises(Transient, match="more than 9999 bytes"):
            await whole(answer.content, 9999)
