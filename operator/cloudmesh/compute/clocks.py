"""The time by which cost, quotes and lifetimes are counted: never one that a wrong clock of this machine tells.

Objects carry the API server's times, and a machine's wall clock may jump. So the wall clock counts only while it agrees
with what the API server told in its last answers (their header `Date`); else the API server's time does, carried on by
a clock that never jumps.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from collections.abc import Callable

from cloudmesh.compute.prices.moments import to_time
from cloudmesh.engine import Engine, per_engine

log = logging.getLogger(__name__)

TOLERANCE_SECONDS = 5.0
"""Clocks that are kept in step differ by less; `Date` itself is cut off to seconds."""

Heard = Callable[[], tuple[str, float] | None]


class Clock:
    """One clock for all that counts.

    Args:
        heard: The last `Date` that the API server told, and when on the loop's clock; None before its first answer.
        wall: Seconds since 1970 as this machine has them.
        monotonic: Seconds on a clock that never goes back; the one that `heard` uses.
    """

    def __init__(
        self,
        heard: Heard,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        self._heard = heard
        self._wall = wall
        self._monotonic = monotonic or (lambda: asyncio.get_running_loop().time())
        self._read: tuple[str, float | None] = ("", None)
        self._is_off = False

    def now(self) -> str:
        """RFC 3339 time."""
        wall = self._wall()
        theirs = self._theirs()
        off = theirs is not None and abs(wall - theirs) > TOLERANCE_SECONDS
        if off and not self._is_off and theirs is not None:
            seconds = round(wall - theirs)
            log.warning("the clock of this machine isn't the API server's: that one counts", extra={"seconds": seconds})
        self._is_off = off
        return to_time(int(theirs if off and theirs is not None else wall))

    def _theirs(self) -> float | None:
        """What the API server's clock shows now, None if nobody knows."""
        heard = self._heard()
        if heard is None:
            return None
        text, at = heard
        if text != self._read[0]:
            self._read = (text, _seconds(text))
        begun = self._read[1]
        return None if begun is None else begun + self._monotonic() - at


def _seconds(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None


@per_engine
def clock_of(engine: Engine) -> Clock:
    """The clock of an engine: the same for all of its reconcilers."""
    kube = engine.kube
    return Clock(lambda: kube.heard)
