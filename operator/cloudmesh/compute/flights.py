"""Calls of clouds under way: each machine has at most one, none of them holds up a worker."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import weakref
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

AT_ONCE = 64
"""Of one lane: a cloud that hangs fills its own lanes and no others."""


class Flights:
    """Runs work in tasks of its own while this process leads.

    Args:
        at_once: Calls of one lane under way at most; others wait their turn.
    """

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._lanes: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def busy(self, name: str) -> bool:
        """Whether something of this name is under way."""
        return name in self._tasks

    def start(self, name: str, work: Callable[[], Coroutine[Any, Any, None]], lane: str = "") -> None:
        """Starts work; what it raises is logged: it must handle its errors.

        Args:
            name: Nothing of this name may be under way.
            work: The calls.
            lane: Whose turns it waits for.
        """
        if (slots := self._lanes.get(lane)) is None:
            slots = self._lanes[lane] = asyncio.Semaphore(self._at_once)

        async def run() -> None:
            try:
                async with slots:
                    await work()
            except Exception:
                log.exception("a call of a cloud was not handled", extra={"work": name})
            finally:
                self._tasks.pop(name, None)

        self._tasks[name] = asyncio.create_task(run(), name=name, context=contextvars.Context())

    async def run(self) -> None:
        """Lasts as long as this process leads; then all that is under way is given up."""
        try:
            await asyncio.Event().wait()
        finally:
            await self.cancel()

    async def cancel(self) -> None:
        """Gives up what is under way: its outcome is unknown."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
