"""A token bucket that hands out turns, so that ten thousand callers don't come back at one moment."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

LONGEST_PAUSE = 60.0
SPOILED_SECONDS = 5.0


class Bucket:
    """Calls a second of one account.

    Args:
        rate: Calls a second; None for no limit.
        burst: Calls at once after a silence.
    """

    def __init__(self, rate: float | None, burst: int = 10) -> None:
        self.rate = rate
        self.burst = burst
        self._next = 0.0
        self._turns: OrderedDict[Hashable, float] = OrderedDict()
        self._paused_until = 0.0
        self._pauses = 0

    def wait(self, caller: Hashable, now: float) -> float:
        """Seconds until this caller's turn; 0 takes the turn."""
        paused = self._paused_until - now
        if paused > 0:
            return paused
        if self.rate is None:
            return 0.0
        turn = self._turns.pop(caller, None)
        if turn is None or turn < now - SPOILED_SECONDS:
            # the line begins at most a burst in the past
            self._next = turn = max(self._next + 1.0 / self.rate, now - (self.burst - 1) / self.rate)
        if turn <= now:
            return 0.0
        self._turns[caller] = turn
        while len(self._turns) > 100_000:
            self._turns.popitem(last=False)
        return turn - now

    def pause(self, seconds: float | None, now: float) -> None:
        """The cloud asked for fewer calls: none for so long, or for a doubling time where it named none."""
        self._pauses += 1
        backoff = min(LONGEST_PAUSE, 0.5 * 2.0**self._pauses)
        self._paused_until = max(self._paused_until, now + (backoff if seconds is None else max(0.0, seconds)))

    def went_well(self) -> None:
        """A call was answered: the next pause begins small again."""
        self._pauses = 0
