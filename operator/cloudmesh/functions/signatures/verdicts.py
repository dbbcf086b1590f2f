"""Remembers what reading a source gave, be it an error, and lets equal readings under way be one."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from cloudmesh.functions.signatures import Parsed, SourceError

KEPT: Final = 256
PASSING_SECONDS: Final = 60.0
"""How long an error counts that a busy machine may have caused."""


class PassingError(SourceError):
    """Reading was cut off, which may be the machine's fault as well as the source's."""


@dataclass(slots=True)
class _Reading:
    task: asyncio.Task[Parsed | SourceError]
    waiting: int = 0


class Verdicts:
    """The latest verdicts by key.

    Args:
        kept: how many of them.
        clock: seconds that never go back.
    """

    def __init__(self, kept: int = KEPT, clock: Callable[[], float] = time.monotonic) -> None:
        self._kept = kept
        self._clock = clock
        self._verdicts: OrderedDict[str, tuple[Parsed | SourceError, float]] = OrderedDict()
        self._under_way: dict[str, _Reading] = {}

    async def get(self, key: str, read: Callable[[], Awaitable[Parsed]]) -> Parsed:
        """What `read` gives for a key: remembered, shared with who waits for it already, or read now.

        A reading that nobody waits for any more is cancelled.

        Args:
            key: same key, same source and settings.
            read: reads it.

        Raises:
            SourceError: the source can't be served.
        """
        verdict, until = self._verdicts.get(key, (None, 0.0))
        if verdict is not None and self._clock() < until:
            self._verdicts.move_to_end(key)
            return _told(verdict)
        reading = self._under_way.get(key)
        if reading is None:
            reading = _Reading(asyncio.ensure_future(self._read(key, read)))
            self._under_way[key] = reading
        reading.waiting += 1
        try:
            return _told(await asyncio.shield(reading.task))
        finally:
            reading.waiting -= 1
            if not reading.waiting:
                reading.task.cancel()
                if self._under_way.get(key) is reading:
                    del self._under_way[key]

    async def _read(self, key: str, read: Callable[[], Awaitable[Parsed]]) -> Parsed | SourceError:
        verdict: Parsed | SourceError
        try:
            verdict = await read()
        except SourceError as error:
            verdict = error
        passing = isinstance(verdict, PassingError)
        self._verdicts[key] = verdict, self._clock() + PASSING_SECONDS if passing else float("inf")
        self._verdicts.move_to_end(key)
        while len(self._verdicts) > self._kept:
            self._verdicts.popitem(last=False)
        return verdict


def _told(verdict: Parsed | SourceError) -> Parsed:
    if isinstance(verdict, SourceError):
        # a new one for everybody: one that is raised again keeps all its earlier tracebacks
        raise SourceError(verdict.line, verdict.column, verdict.message)
    return verdict
