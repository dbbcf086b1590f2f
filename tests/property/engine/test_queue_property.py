"""The queue against a model: whatever the order of acts, no key is lost and none flies twice."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cloudmesh.engine.queue import Queue
from cloudmesh.engine.resources import Key
from cloudmesh.testing import VirtualLoop

KEYS = [Key(kind, "ns", name) for kind in ("A", "B") for name in ("x", "y", "z")]
keys = st.sampled_from(KEYS)


class QueueMachine(RuleBasedStateMachine):
    """Rules act on the queue and on sets that say what must be so."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        asyncio.set_event_loop(self.loop)
        self.queue = Queue(clock=self.loop.time)
        self.waiting: set[Key] = set()
        self.flying: set[Key] = set()
        self.dirty: set[Key] = set()
        self.due: dict[Key, float] = {}

    def teardown(self) -> None:
        self.queue.close()
        self.loop.close()
        asyncio.set_event_loop(None)

    def _added(self, key: Key) -> None:
        self.due.pop(key, None)
        if key in self.flying:
            self.dirty.add(key)
        else:
            self.waiting.add(key)

    async def _in_loop(self, function: object, *arguments: object) -> object:
        return function(*arguments)  # type: ignore[operator]

    def _do(self, function: object, *arguments: object) -> object:
        return self.loop.run_until_complete(self._in_loop(function, *arguments))

    @rule(key=keys)
    def add(self, key: Key) -> None:
        self._do(self.queue.add, key)
        self._added(key)

    @rule(key=keys, seconds=st.integers(1, 50))
    def add_after(self, key: Key, seconds: int) -> None:
        self._do(self.queue.add_after, key, float(seconds))
        if key not in self.waiting:
            self.due[key] = min(self.due.get(key, float("inf")), self.loop.time() + seconds)

    @precondition(lambda self: self.waiting)
    @rule()
    def get(self) -> None:
        key = self.loop.run_until_complete(asyncio.wait_for(self.queue.get(), 0.5))
        assert key in self.waiting
        assert key not in self.flying
        self.waiting.discard(key)
        self.flying.add(key)
        self._pass(0)

    @precondition(lambda self: self.flying)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.flying)))
        self._do(self.queue.done, key)
        self.flying.discard(key)
        if key in self.dirty:
            self.dirty.discard(key)
            self.due.pop(key, None)
            self.waiting.add(key)

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self._pass(seconds)

    def _pass(self, seconds: int) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        for key in [key for key, due in self.due.items() if due <= self.loop.time() + 1e-9]:
            self._added(key)

    @invariant()
    def agrees(self) -> None:
        assert len(self.queue) == len(self.waiting)
        assert self.queue.in_flight == len(self.flying)
        assert self.queue.delayed == len(self.due)


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
