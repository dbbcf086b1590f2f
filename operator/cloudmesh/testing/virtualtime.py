"""An event loop whose clock jumps to the next timer when nothing is left to do: back-off tests take milliseconds."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

STUCK_TURNS = 20_000
NUDGE_SECONDS = 1e-6


class Deadlock(Exception):
    """Nothing is ready, no timer is set, no file is open: the program would wait for ever."""


class _Selector(selectors.DefaultSelector):
    """Never waits for time to pass, only for real input of files that other threads or processes feed."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if found or timeout == 0:
            return found
        if timeout is None:
            if len(self.get_map()) > 1:  # more than the loop's own wake-up pipe
                return super().select(1.0)
            raise Deadlock("every task waits for something that never comes")
        self.loop.advance(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a virtual clock.

    Args:
        seed: With one, callbacks that are ready at the same moment run in an order drawn from it, so that a run with
            another interleaving can be had and repeated.
    """

    def __init__(self, seed: int | None = None) -> None:
        selector = _Selector()
        selector.loop = self
        self._virtual = 1000.0
        self._turns = 0
        self._shuffle = random.Random(seed) if seed is not None else None  # noqa: S311 - a repeatable order
        super().__init__(selector)

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual

    def advance(self, seconds: float) -> None:
        """Moves the clock on."""
        self._turns = 0
        self._virtual += max(0.0, seconds)

    def still(self) -> float:
        """Seconds in which nothing but time goes by: no callback is ready, and no timer fires before they are over."""
        if self._ready:  # type: ignore[attr-defined]
            return 0.0
        timers: Any = self._scheduled  # type: ignore[attr-defined]
        return max(0.0, timers[0].when() - self._virtual) if timers else math.inf

    def _run_once(self) -> None:
        self._turns += 1
        if self._turns > STUCK_TURNS:  # a timer fires within the clock's resolution, a hair before its deadline
            self.advance(NUDGE_SECONDS)
        ready: Any = self._ready  # type: ignore[attr-defined]
        if self._shuffle is not None and len(ready) > 1:
            items = list(ready)
            self._shuffle.shuffle(items)
            ready.clear()
            ready.extend(items)
        super()._run_once()  # type: ignore[misc]


async def tick(seconds: float, most: float = 1.0) -> None:
    """Sleeps between two looks at something; while all else sleeps too, many times as long, but no more than `most`.

    Whoever looks sees what he had seen with a look every `seconds`, but what changes with the clock alone: that he sees
    up to `most` seconds late.
    """
    loop = asyncio.get_running_loop()
    still = loop.still() if isinstance(loop, VirtualLoop) else 0.0
    await asyncio.sleep(seconds * max(1, int(min(still, most) / seconds)))


def run_virtual(main: Coroutine[Any, Any, T], *, seed: int | None = None) -> T:
    """Runs a coroutine on a fresh virtual loop, as `asyncio.run` does on a real one.

    Raises:
        Deadlock: All tasks wait for ever.
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(seed)) as runner:
        return runner.run(main)
