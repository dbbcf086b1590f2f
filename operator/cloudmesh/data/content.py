"""The content of a write: its size where that is soon known, and its beginning, kept in case a store fails."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Final

SMALL: Final = 1 << 20
"""A content whose size isn't told is read so far before its stores are chosen; so much of any is kept."""


async def sized(chunks: AsyncIterable[bytes], size: int | None) -> tuple[AsyncIterable[bytes], int | None]:
    """The stream, and its size where it is known or small."""
    if size is not None:
        return chunks, size
    iterator, total = aiter(chunks), 0
    first: list[bytes] = []
    while total <= SMALL:
        try:
            chunk = await anext(iterator)
        except StopAsyncIteration:
            return _chain(first, None), total
        first.append(chunk)
        total += len(chunk)
    return _chain(first, iterator), None


async def _chain(first: list[bytes], rest: AsyncIterator[bytes] | None) -> AsyncIterator[bytes]:
    for chunk in first:
        yield chunk
    if rest is not None:
        async for chunk in rest:
            yield chunk


class Kept:
    """A content that can be begun once more, as long as no more than `SMALL` of it was taken.

    Args:
        chunks: The content.
    """

    def __init__(self, chunks: AsyncIterable[bytes]) -> None:
        self._rest = aiter(chunks)
        self._first: list[bytes] = []
        self._size = 0

    @property
    def again(self) -> bool:
        """Whether it can be."""
        return self._size <= SMALL

    async def chunks(self) -> AsyncIterator[bytes]:
        """From its beginning."""
        for chunk in tuple(self._first):
            yield chunk
        async for chunk in self._rest:
            self._size += len(chunk)
            if self._size <= SMALL:
                self._first.append(chunk)
            else:
                self._first.clear()
            yield chunk
