"""What all stores share: turns, sizes, attributes, threads and cancellation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest

from cloudmesh.data.stores.common import Limits, Pace, checked, measured
from cloudmesh.data.stores.threads import Threads, outlast
from cloudmesh.engine.errors import InvalidRequest, Transient
from cloudmesh.testing.virtualtime import VirtualLoop


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for each in given:
        yield each


def test_turns() -> None:
    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        pace = Pace(10)
        begin = loop.time()
        await asyncio.gather(*(pace.take() for _ in range(21)))
        first = loop.time() - begin
        await asyncio.sleep(100)  # a silence isn't saved up
        begin = loop.time()
        await asyncio.gather(*(pace.take() for _ in range(21)))
        return first, loop.time() - begin

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main()) == pytest.approx((1.9, 1.9))


def test_bytes_go_at_their_pace_and_no_limit_is_none() -> None:
    async def main(limits: Limits) -> float:
        begin = asyncio.get_running_loop().time()
        got = [chunk async for chunk in measured(pieces(*[b"x" * 100] * 50), None, 10**9, limits)]
        assert len(got) == 50
        return asyncio.get_running_loop().time() - begin

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(main(Limits(size=1000))) == pytest.approx(4.8)
        assert runner.run(main(Limits())) == 0


@pytest.mark.parametrize(
    ("given", "size", "most", "words"),
    [
        ((b"ab", b"c"), 2, 99, "2 bytes were announced, and there are more"),
        ((b"ab", b"c"), 4, 99, "4 bytes were announced, and there are 3"),
        ((), 1, 99, "there are 0"),
        ((b"ab",), 100, 99, "larger than the 99"),
        ((b"ab", b"c"), None, 2, "larger than the 2"),
    ],
)
async def test_sizes(given: tuple[bytes, ...], size: int | None, most: int, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        [chunk async for chunk in measured(pieces(*given), size, most, Limits())]


def test_attributes() -> None:
    assert checked(None) == {}
    assert checked({"a-1": "x y"}) == {"a-1": "x y"}
    assert checked({"a": "x" * 1023}) == {"a": "x" * 1023}
    for wrong in ({"A": "x"}, {"": "x"}, {"a": ""}, {"a": "x "}, {"a": "a  b"}, {"a": "\x7f"}, {"a": "x" * 1024}):
        with pytest.raises(InvalidRequest):
            checked(wrong)


async def test_work_that_outlasts_its_caller_is_let_go_of() -> None:
    threads, released, go = Threads("t", 2), [], threading.Event()
    task = asyncio.create_task(threads.obtain(released.append, lambda: (go.wait(60), "thing")[1]))
    await asyncio.sleep(0.01)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert released == ["thing"]
    assert await threads.obtain(released.append, lambda: "kept") == "kept" and released == ["thing"]
    threads.close()


async def test_run_does_not_wait_for_its_thread() -> None:
    threads, go = Threads("t", 1), threading.Event()
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await threads.run(go.wait, 60)
    assert time.monotonic() - begin < 20
    go.set()
    threads.close()
    with pytest.raises(Transient, match="closed"):
        await threads.run(time.time)


async def test_an_exception_behind_a_cancellation_is_heard() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("nobody waits")

    task = asyncio.create_task(outlast(fail()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
