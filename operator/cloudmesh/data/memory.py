"""How much memory transfers may take together: who comes when it is used up waits."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from cloudmesh.data.stores.ports import StoreInfo
from cloudmesh.engine.errors import RateLimited

POD: Final = 1 << 30
"""Bytes that a process has if nobody says so."""
WRITES: Final = 0.4
READS: Final = 0.2
"""Shares of it for what writes and reads have in memory."""
BEGINNINGS: Final = 0.1
"""Share for the beginnings of writes whose size nobody told: they are there before a write knows what else it takes."""
BEGINNING: Final = 2 << 20
"""Bytes of one: what is read before its stores are chosen, and the chunk that comes last."""
QUEUED: Final = 8 << 20
"""Bytes of a write that wait for its slowest store."""
READ_WAIT: Final = 30.0


class Budget:
    """Bytes that may be in use together; who asks first is served first.

    Args:
        total: Bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self.used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def taken(self, amount: int, *, seconds: float | None = None) -> AsyncIterator[None]:
        """Waits until there is room, and holds it.

        Args:
            amount: Bytes; more than there are at all is taken for all.
            seconds: How long to wait at most, None for ever.

        Raises:
            RateLimited: There was none in that time.
        """
        amount = min(amount, self.total)
        await self._take(amount, seconds)
        try:
            yield
        finally:
            self.used -= amount
            self._serve()

    async def _take(self, amount: int, seconds: float | None) -> None:
        if not self._waiting and self.used + amount <= self.total:
            self.used += amount
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            async with asyncio.timeout(seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.used -= amount
            else:
                turn.cancel()
            self._serve()
            if isinstance(error, TimeoutError):
                raise RateLimited("too much is read at the same time: try again") from None
            raise

    def _serve(self) -> None:
        while self._waiting:
            amount, turn = self._waiting[0]
            if not turn.done():
                if self.used + amount > self.total:
                    return
                self.used += amount
                turn.set_result(None)
            self._waiting.popleft()


class Memory:
    """What writes and reads may take. Who reads may wait for a write, never the other way round; who has begun may wait
    for both, and nobody who has a part of those waits to begin.

    Args:
        limit: Bytes that the process has.
    """

    def __init__(self, limit: int = POD) -> None:
        self.writes = Budget(int(limit * WRITES))
        self.reads = Budget(int(limit * READS))
        self.beginnings = Budget(int(limit * BEGINNINGS))


def of_write(info: StoreInfo, size: int) -> int:
    """Bytes that a write to a store has in memory at most.

    Args:
        info: What the store declares.
        size: Of the content, -1 where unknown.
    """
    if size < 0:
        return QUEUED + info.write_holds
    parts = -(-size // info.holds_for) if info.holds_for else 1
    # gathered, joined and sent, each once
    return min(QUEUED, size) + min(3 * size, info.write_holds * max(1, parts))


def of_read(info: StoreInfo, size: int) -> int:
    """Bytes that a read of so many has in memory at most."""
    return min(2 * size, info.read_holds)
