"""Bodies of HTTP answers, which come in pieces: a library's `read(n)` gives what has arrived, not what there is."""

from __future__ import annotations

from typing import Protocol

from cloudmesh.engine.errors import Transient


class Stream(Protocol):
    """A body that is read piece by piece, such as aiohttp's."""

    async def read(self, n: int = -1) -> bytes:
        """At most `n` bytes of what has arrived; none at the end."""


async def beginning(stream: Stream, most: int) -> bytes:
    """The first `most` bytes, or all if there are fewer."""
    pieces, left = [], most
    while left and (piece := await stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


async def whole(stream: Stream, most: int) -> bytes:
    """All of it.

    Raises:
        Transient: It has more than `most` bytes.
    """
    body = await beginning(stream, most + 1)
    if len(body) > most:
        raise Transient(f"the answer has more than {most} bytes")
    return body
