"""The work queue: one flight a key, fair between kinds, delays that never postpone an earlier one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable

from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import Key


class QueueClosed(Exception):
    """The queue hands out no more keys."""


class Queue:
    """Keys to reconcile.

    A key waits at most once; an add while it is in flight marks it dirty, and `done` puts it back. Kinds take turns,
    so ten thousand objects of one kind don't hold up one of another. Must be used inside one event loop.

    Args:
        metrics: Depth and age.
        backoff: Waits after failures.
        clock: Monotonic seconds; the event loop's when None.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        *,
        metrics: Metrics | None = None,
        backoff: Backoff | None = None,
        clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._metrics = metrics or Metrics()
        self._backoff = backoff or Backoff()
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._ready: dict[str, deque[Key]] = {}
        self._turns: deque[str] = deque()
        self._since: dict[Key, float] = {}
        self._flying: set[Key] = set()
        self._dirty: set[Key] = set()
        self._due: dict[Key, float] = {}
        self._timers: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._failures: dict[Key, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._landed = asyncio.Event()
        self._landed.set()
        self._closed = False
        self.last_move = self._now()
        """When a key was last taken or given back, on the queue's clock."""

    def __len__(self) -> int:
        return len(self._since)

    @property
    def in_flight(self) -> int:
        """Keys handed out and not given back."""
        return len(self._flying)

    @property
    def delayed(self) -> int:
        """Keys that wait for their time."""
        return len(self._due)

    def add(self, key: Key) -> None:
        """Puts a key in now; no effect while it waits already."""
        if self._closed:
            return
        self._due.pop(key, None)
        if key in self._flying:
            self._dirty.add(key)
        elif key not in self._since:
            self._push(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Puts a key in later; of several times the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        if self._closed or key in self._since:
            return
        due = self._now() + seconds
        if due < self._due.get(key, float("inf")):
            self._due[key] = due
            heapq.heappush(self._timers, (due, next(self._order), key))
            self._arm()

    def retry(self, key: Key, *, at_least: float = 0.0) -> float:
        """Puts a key in after its back-off and returns the seconds until then."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, self._backoff.delay(failures, self._rng))
        self.add_after(key, delay)
        return delay

    def reset(self, key: Key) -> None:
        """Forgets a key's failures."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """Failures in a row so far."""
        return self._failures.get(key, 0)

    def discard(self, key: Key) -> None:
        """Drops a key whose object is gone, with its failures and delays."""
        self._failures.pop(key, None)
        self._due.pop(key, None)
        self._dirty.discard(key)

    async def get(self) -> Key:
        """Takes the next key; it is in flight until `done`.

        Raises:
            QueueClosed: After `close`.
        """
        while True:
            if self._closed:
                raise QueueClosed
            if (key := self._pop()) is not None:
                return key
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()  # the wake-up was ours and is passed on
                raise
            finally:
                if not waiter.done():
                    waiter.cancel()

    def done(self, key: Key) -> None:
        """Gives a key back; it waits again if it was added meanwhile."""
        self._flying.discard(key)
        self.last_move = self._now()
        if key in self._dirty:
            self._dirty.discard(key)
            if not self._closed:
                self._due.pop(key, None)
                self._push(key)
        self._metrics.in_flight.set(len(self._flying))
        self._settle()

    def oldest_age(self) -> float:
        """Seconds that the longest waiting key has waited."""
        heads = [self._since[line[0]] for line in self._ready.values() if line]
        return self._now() - min(heads) if heads else 0.0

    def close(self) -> None:
        """Hands out no more keys; flights go on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._wake()

    async def wait_idle(self) -> None:
        """Returns when nothing is ready or in flight (delayed keys don't count)."""
        await self._idle.wait()

    async def wait_landed(self) -> None:
        """Returns when nothing is in flight; use after `close`."""
        await self._landed.wait()

    def observe(self) -> None:
        """Brings the gauges up to date; called when metrics are read."""
        for kind, line in self._ready.items():
            self._metrics.queue_depth.labels(kind).set(len(line))
        self._metrics.queue_age.set(self.oldest_age())
        self._metrics.in_flight.set(len(self._flying))

    def _push(self, key: Key) -> None:
        line = self._ready.get(key.kind)
        if line is None:
            line = self._ready[key.kind] = deque()
        if not line:
            self._turns.append(key.kind)
        line.append(key)
        self._since[key] = self._now()
        self._idle.clear()
        self._wake()

    def _pop(self) -> Key | None:
        if not self._turns:
            return None
        kind = self._turns.popleft()
        line = self._ready[kind]
        key = line.popleft()
        if line:
            self._turns.append(kind)
        del self._since[key]
        self._flying.add(key)
        self._landed.clear()
        self.last_move = self._now()
        return key

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _settle(self) -> None:
        if not self._flying:
            self._landed.set()
        if not self._since and not self._flying:
            self._idle.set()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._timers and not self._closed:
            delay = max(0.0, self._timers[0][0] - self._now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._now()
        while self._timers and self._timers[0][0] <= now + 1e-9:
            due, _, key = heapq.heappop(self._timers)
            if self._due.get(key) == due:  # else an earlier or immediate add has replaced it
                self.add(key)
        self._arm()

    def _now(self) -> float:
        return self._clock() if self._clock is not None else asyncio.get_event_loop().time()
