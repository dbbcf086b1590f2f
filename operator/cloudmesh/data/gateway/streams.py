"""Answers that are sent piece by piece."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

from aiohttp import web

from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)


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
