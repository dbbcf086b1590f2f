"""A loopback TCP proxy in front of a server: it cuts connections at a byte, stalls, resets, and answers garbage."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Literal

PAGE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n\r\n<!doctype html><html><h1>Bad Gateway</h1></html>\n"
PIECE = 65536
Way = Literal["up", "down"]


class TcpProxy:
    """Moves bytes; use with `async with`.

    Args:
        host: Of the server.
        port: Of the server.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._there = port
        self._server: asyncio.Server | None = None
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flow = asyncio.Event()
        self._cuts: dict[Way, int] = {}
        self.port = 0
        self.accepted = 0
        """Connections so far."""
        self.moved: dict[Way, int] = {"up": 0, "down": 0}
        """Bytes so far, to the server and from it."""
        self.refuse = False
        """New connections are reset."""
        self.garbage = False
        """A page of HTML comes instead of an answer."""

    async def __aenter__(self) -> TcpProxy:
        self._flow.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def clear(self) -> None:
        """Everything works again; connections that were cut stay so."""
        self.refuse = self.garbage = False
        self._cuts.clear()
        self._flow.set()

    def cut(self) -> None:
        """Resets all connections."""
        for pair in list(self._links):
            for writer in pair:
                writer.transport.abort()
        self._links.clear()

    def cut_after(self, way: Way, count: int) -> None:
        """Resets all connections when so many more bytes have gone this way."""
        self._cuts[way] = self.moved[way] + count

    def stall(self) -> None:
        """Nothing moves any more; connections stay open, and new ones are accepted."""
        self._flow.clear()

    def spoil(self) -> None:
        """Answers with a page of HTML, on connections that are open too."""
        self.garbage = True
        for client, _ in list(self._links):
            client.write(PAGE)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            writer.transport.abort()
            return
        if self.garbage:
            writer.write(PAGE)
            writer.close()
            return
        try:
            back, forth = await asyncio.open_connection(self._host, self._there)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, forth)
        self._links.add(pair)
        pumps = [
            asyncio.create_task(self._pump("up", reader, forth)),
            asyncio.create_task(self._pump("down", back, writer)),
        ]
        self._tasks.update(pumps)
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in pumps:
                task.cancel()
                self._tasks.discard(task)
            for each in pair:
                each.transport.abort()
            self._links.discard(pair)

    async def _pump(self, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(PIECE):
                await self._flow.wait()
                limit = self._cuts.get(way)
                if limit is not None and self.moved[way] + len(data) >= limit:
                    target.write(data[: limit - self.moved[way]])
                    await target.drain()
                    await asyncio.sleep(0.02)  # what was let through arrives
                    del self._cuts[way]
                    self.moved[way] = limit
                    self.cut()
                    return
                self.moved[way] += len(data)
                target.write(data)
                await target.drain()
