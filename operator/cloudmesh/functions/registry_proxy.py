"""Passes a node's loopback port on to the embedded registry, byte for byte.

Container runtimes trust plain HTTP on localhost only; this runs on every node, on its own network.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("cloudmesh.functions.registry_proxy")
_CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds to connect, seconds without a byte either way, connections at once, seconds for the last ones to end."""

    connect: float = 5.0
    idle: float = 300.0
    connections: int = 1000
    grace: float = 5.0


def parse_address(text: str) -> tuple[str, int]:
    """Read `host:port` or `[ipv6]:port`.

    Raises:
        ValueError: it is neither.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"address {text!r}: write an IPv6 address in brackets, [::1]:25500")
    if not colon or not host or not port.isdecimal() or not 0 <= int(port) <= 65535:
        raise ValueError(f"address {text!r}: write it as host:port")
    return host, int(port)


class Proxy:
    """A TCP splice with back-pressure and half-close.

    Args:
        to: host and port of the registry; its name is looked up for each connection, since its address may change.
        limits: bounds.
    """

    def __init__(self, to: tuple[str, int], limits: Limits | None = None) -> None:
        self._to = to
        self._limits = limits or Limits()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, host: str, port: int) -> int:
        """Listen on one address.

        Returns:
            The port, where 0 asked for any.

        Raises:
            OSError: the address can't be used.
        """
        server = await asyncio.start_server(self._accept, host, port, limit=_CHUNK)
        self._servers.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._tasks) >= self._limits.connections:
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._splice(reader, writer)
        except asyncio.CancelledError:
            pass  # the process ends
        finally:
            self._tasks.discard(task)
            _abort(writer)

    async def _splice(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(self._limits.connect):
                far_reader, far_writer = await asyncio.open_connection(*self._to, limit=_CHUNK)
        except (OSError, TimeoutError) as error:
            _log.warning("%s:%d can't be reached: %s", *self._to, error or type(error).__name__)
            return
        loop = asyncio.get_running_loop()
        alive = loop.time()

        def touch() -> None:
            nonlocal alive
            alive = loop.time()

        pipes = [
            asyncio.create_task(_pipe(reader, far_writer, touch)),
            asyncio.create_task(_pipe(far_reader, writer, touch)),
        ]
        try:
            while pending := [pipe for pipe in pipes if not pipe.done()]:
                left = alive + self._limits.idle - loop.time()
                if left <= 0:
                    break
                await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if any(pipe.done() and not pipe.result() for pipe in pipes):
                    break
        finally:
            for pipe in pipes:
                pipe.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)
            _abort(far_writer)

    async def close(self) -> None:
        """Stop listening; connections get a moment to end."""
        for server in self._servers:
            server.close()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=self._limits.grace)
        for task in set(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, touch: Callable[[], None]) -> bool:
    """Copy until the end of the stream, then close that direction only.

    Returns:
        False if the connection broke.
    """
    try:
        while data := await reader.read(_CHUNK):
            touch()
            writer.write(data)
            await writer.drain()
            touch()
        if writer.can_write_eof():
            writer.write_eof()
    except (OSError, RuntimeError):
        return False
    return True


def _abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(Exception):
        writer.close()


async def serve(listen: list[tuple[str, int]], to: tuple[str, int]) -> int:
    """Serve until SIGTERM or SIGINT.

    Returns:
        0, or 1 if not one of the addresses can be used.
    """
    proxy = Proxy(to)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening = 0
    for host, port in listen:
        try:
            await proxy.listen(host, port)
            listening += 1
        except OSError as error:
            if ":" not in host:
                _log.error("%s:%d can't be used: %s", host, port, error)  # the message says it all
                await proxy.close()
                return 1
            _log.warning("no IPv6 on this node, going on without it: %s", error)
    if not listening:
        return 1
    _log.info("passing on to %s:%d", *to)
    await stop.wait()
    await proxy.close()
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.functions.registry_proxy", description=__doc__)
    parser.add_argument("--listen", action="append", required=True, type=parse_address, metavar="HOST:PORT")
    parser.add_argument("--to", required=True, type=parse_address, metavar="HOST:PORT")
    options = parser.parse_args(arguments)
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    return asyncio.run(serve(options.listen, options.to))


if __name__ == "__main__":
    sys.exit(main())
