"""Contents that come and answers that are sent piece by piece."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Final

from aiohttp import web

from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

PIECE: Final = 1 << 20
"""Bytes that are handed on at a time."""
IDLE_SECONDS: Final = 60.0
IDLE: Final = web.AppKey("idle", float)
"""Seconds that a client may be silent in the middle of what it sends."""
EXPECTS: Final = web.RequestKey("expects", bool)
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Silent(CloudmeshError):
    """A client sends nothing any more."""

    reason = "Silent"


async def asked_first(request: web.Request) -> None:
    """Takes `Expect: 100-continue`: the client is told to send when somebody begins to read, after all that can refuse
    the request without its body.

    Raises:
        web.HTTPExpectationFailed: It expects something else.
    """
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed
    request[EXPECTS] = True


def refused_first(request: web.Request, answer: web.StreamResponse) -> None:
    """Closes the connection after an answer to a client that was never told to send: what it does next isn't known."""
    if request.get(EXPECTS) and not answer.prepared:
        answer.force_close()


async def pieces(request: web.Request) -> AsyncIterator[bytes]:
    """What a client sends, as it comes.

    Raises:
        Silent: Nothing came for too long.
    """
    if request.get(EXPECTS):
        request[EXPECTS] = False
        await request.writer.write(CONTINUE)
        # the answer itself hasn't begun
        request.writer.output_size = 0
    limit, content = request.app.get(IDLE, IDLE_SECONDS), request.content
    while True:
        # what is there already needs no clock
        piece = content.read_nowait()
        if not piece and not content.at_eof():
            try:
                async with asyncio.timeout(limit):
                    piece = await content.readany()
            except TimeoutError:
                raise Silent(f"nothing came for {limit:g} s") from None
        if not piece:
            return
        yield piece


async def body(request: web.Request) -> AsyncIterator[bytes]:
    """What a client sends, in larger pieces.

    Raises:
        Silent: Nothing came for too long.
    """
    found: list[bytes] = []
    size = 0
    async for piece in pieces(request):
        found.append(piece)
        size += len(piece)
        if size >= PIECE:
            yield b"".join(found)
            found, size = [], 0
    if found:
        yield b"".join(found)


async def send(
    request: web.Request, response: web.StreamResponse, first: bytes, rest: AsyncIterator[bytes], what: str
) -> web.StreamResponse:
    """Sends an answer whose first piece is there already.

    Args:
        request: What is answered.
        response: Status and headers.
        first: The first piece: what can't be read at all is an error, not an empty answer.
        rest: The other pieces.
        what: What is done, for the log, such as `reading`.

    Raises:
        ConnectionResetError: It broke off. That is too late for another status: the connection is cut, so that nobody
            takes the part for the whole.
    """
    await response.prepare(request)
    await response.write(first)
    try:
        async for piece in rest:
            await response.write(piece)
    except CloudmeshError as error:
        log.warning("%s %s broke off: %s", what, request.rel_url.raw_path, error)
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError(f"{what} broke off") from error
    await response.write_eof()
    return response
