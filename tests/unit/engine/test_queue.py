"""The work queue."""

from __future__ import annotations

import asyncio
import random

import pytest

from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.queue import Queue, QueueClosed
from cloudmesh.engine.resources import Key
from cloudmesh.testing import run_virtual

A, B = Key("Widget", "default", "a"), Key("Widget", "default", "b")


def test_keys_read_well_and_sort() -> None:
    assert str(A) == "Widget/default/a"
    assert str(Key("Node", "", "n")) == "Node/n"
    assert sorted([B, A]) == [A, B]


def test_adds_coalesce() -> None:
    async def main() -> None:
        queue = Queue()
        for _ in range(5):
            queue.add(A)
        queue.add(B)
        assert len(queue) == 2
        assert await queue.get() == A
        assert await queue.get() == B
        assert queue.in_flight == 2

    run_virtual(main())


def test_one_flight_a_key_and_dirty_comes_back() -> None:
    async def main() -> None:
        queue = Queue()
        queue.add(A)
        assert await queue.get() == A
        queue.add(A)
        queue.add(A)
        assert len(queue) == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 1)
        queue.done(A)
        assert await queue.get() == A
        queue.done(A)
        await queue.wait_idle()
        assert len(queue) == queue.in_flight == 0

    run_virtual(main())


def test_of_several_delays_the_earliest_counts() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        queue = Queue()
        begin = loop.time()
        queue.add_after(A, 10)
        queue.add_after(A, 5)
        queue.add_after(A, 60)
        assert await queue.get() == A
        assert loop.time() - begin == pytest.approx(5)
        queue.done(A)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 200)

    run_virtual(main())


def test_an_add_replaces_a_delay() -> None:
    async def main() -> None:
        queue = Queue()
        queue.add_after(A, 10)
        assert queue.delayed == 1
        queue.add(A)
        assert await queue.get() == A
        queue.add_after(A, 3)  # while it flies: comes when its time has come
        queue.done(A)
        assert len(queue) == 0
        assert await queue.get() == A
        queue.done(A)
        queue.add_after(A, 0)
        assert len(queue) == 1

    run_virtual(main())


def test_a_delay_that_ends_during_a_flight_is_not_lost() -> None:
    async def main() -> None:
        queue = Queue()
        queue.add(A)
        await queue.get()
        queue.add_after(A, 1)
        await asyncio.sleep(5)
        assert len(queue) == 0
        queue.done(A)
        assert await queue.get() == A

    run_virtual(main())


def test_kinds_take_turns() -> None:
    async def main() -> None:
        queue = Queue()
        for number in range(100):
            queue.add(Key("Many", "default", f"m{number}"))
        for kind in ("Few", "Rare"):
            queue.add(Key(kind, "default", "x"))
        kinds = [(await queue.get()).kind for _ in range(4)]
        assert kinds[:3].count("Many") == 1
        assert {"Few", "Rare"} <= set(kinds)

    run_virtual(main())


def test_backoff_grows_with_jitter_and_resets() -> None:
    async def main() -> None:
        queue = Queue(backoff=Backoff(1.0, 60.0), rng=random.Random(3))
        waits = [queue.retry(A) for _ in range(10)]
        assert queue.failures(A) == 10
        for failures, wait in enumerate(waits, 1):
            bound = min(60.0, 2.0 ** (failures - 1))
            assert bound / 2 <= wait <= bound
        assert queue.retry(A, at_least=500) == 500
        queue.reset(A)
        assert queue.retry(A) <= 1.0

    run_virtual(main())


def test_full_jitter_spreads_from_zero() -> None:
    backoff, rng = Backoff(1.0, 8.0, full_jitter=True), random.Random(1)
    waits = [backoff.delay(10, rng) for _ in range(500)]
    assert min(waits) < 0.5
    assert 7.5 < max(waits) <= 8.0


def test_close_ends_workers_and_flights_land() -> None:
    async def main() -> None:
        queue = Queue()
        queue.add(A)
        assert await queue.get() == A
        waiting = [asyncio.create_task(queue.get()) for _ in range(3)]
        await asyncio.sleep(0)
        queue.add(A)
        queue.close()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, QueueClosed) for result in results)
        queue.add(B)
        queue.add_after(B, 1)
        assert len(queue) == 0
        landing = asyncio.create_task(queue.wait_landed())
        await asyncio.sleep(1)
        assert not landing.done()
        queue.done(A)
        await landing

    run_virtual(main())


def test_a_cancelled_waiter_passes_its_wake_up_on() -> None:
    async def main() -> None:
        queue = Queue()
        first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.add(A)
        first.cancel()
        assert await asyncio.wait_for(second, 1) == A
        assert first.cancelled()

    run_virtual(main())


def test_depth_and_age_are_told() -> None:
    async def main() -> None:
        metrics = Metrics()
        queue = Queue(metrics=metrics)
        queue.add(A)
        await asyncio.sleep(7)
        queue.add(B)
        queue.observe()
        text = metrics.text().decode()
        assert 'cloudmesh_queue_depth{kind="Widget"} 2.0' in text
        assert "cloudmesh_queue_age_seconds 7.0" in text

    run_virtual(main())


def test_discard_drops_delays_and_failures() -> None:
    async def main() -> None:
        queue = Queue()
        queue.retry(A)
        queue.discard(A)
        assert queue.failures(A) == queue.delayed == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(queue.get(), 100)

    run_virtual(main())
