"""Wrong passwords: whoever shows one waits before the next one is looked at, twice as long each time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cloudmesh.engine.errors import CloudmeshError

FREE: Final = 5
"""People mistype: so many cost nothing."""
FIRST_SECONDS: Final = 0.5
MOST_SECONDS: Final = 60.0
FORGOTTEN_SECONDS: Final = 900.0
"""After so long without another one they are forgotten."""
MOST: Final = 8192
"""Pairs of user and address that are kept in mind."""


class Throttled(CloudmeshError):
    """Too many wrong passwords came: the next one isn't looked at yet."""

    reason = "Throttled"

    def __init__(self, seconds: float) -> None:
        super().__init__("too many wrong passwords came for this user from this address: wait before you try again")
        self.seconds = seconds


class Throttle:
    """Wrong passwords by user and address.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        """How many in a row, and when the last one came."""

    def check(self, user: str, address: str) -> None:
        """Whether a password is looked at now.

        Raises:
            Throttled: No.
        """
        count, last = self._of(user, address)
        wait = last + self._pause(count) - self._clock()
        if count and wait > 0:
            raise Throttled(wait)

    def wrong(self, user: str, address: str) -> None:
        """A wrong one came."""
        count, _ = self._of(user, address)
        self._wrong[user, address] = count + 1, self._clock()
        self._wrong.move_to_end((user, address))
        while len(self._wrong) > MOST:
            self._wrong.popitem(last=False)

    def right(self, user: str, address: str) -> None:
        """A right one came."""
        self._wrong.pop((user, address), None)

    def _of(self, user: str, address: str) -> tuple[int, float]:
        count, last = self._wrong.get((user, address), (0, 0.0))
        return (0, 0.0) if self._clock() - last > FORGOTTEN_SECONDS else (count, last)

    @staticmethod
    def _pause(count: int) -> float:
        return 0.0 if count < FREE else float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(count - FREE, 10)))
