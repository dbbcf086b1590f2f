"""What the mover does when nothing else is to be done for a file: slowly, one after the other.

What waits is kept in memory only: each file is due again later in any case, at a time of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from cloudmesh.data.model import MICROS
from cloudmesh.engine.errors import CloudmeshError

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.05
"""Between two files."""
WAITING = 10_000
"""Files that are kept in mind."""
AGAIN = 600 * MICROS
"""After which the mover looks again at a file that waits."""


class Leisure:
    """A queue of files.

    Args:
        act: Does what is to be done for a file, by its id.
    """

    def __init__(self, act: Callable[[str], Awaitable[None]]) -> None:
        self._act = act
        self._queue: deque[str] = deque()
        self._known: set[str] = set()
        self._more = asyncio.Event()
        self._behind = 0

    @property
    def busy(self) -> bool:
        """Whether a file waits or is worked on."""
        return bool(self._known)

    def offer(self, entry_id: str, now: int) -> int:
        """Takes a file, or not if there are too many already; gives when to offer it again."""
        if entry_id not in self._known and len(self._known) < WAITING:
            self._known.add(entry_id)
            self._queue.append(entry_id)
            self._more.set()
        elif entry_id not in self._known:
            # each at a time of its own, so that they don't all come at once
            self._behind += 1
            return now + AGAIN + int(self._behind * PAUSE_SECONDS * MICROS)
        return now + AGAIN

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            while not self._queue:
                self._behind = 0
                self._more.clear()
                await self._more.wait()
            entry_id = self._queue.popleft()
            try:
                await self._act(entry_id)
            except CloudmeshError as error:
                log.warning("what was to be done at leisure for %s failed: %s", entry_id, error)
            except Exception:
                log.exception("what was to be done at leisure for %s failed unexpectedly", entry_id)
            finally:
                self._known.discard(entry_id)
            await asyncio.sleep(PAUSE_SECONDS)
