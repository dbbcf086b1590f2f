"""Memory: many uploads at once take turns, so that the process never has none left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.memory import QUEUED, Budget, Memory, of_read, of_write
from cloudmesh.data.stores.ports import Object, StoreInfo
from cloudmesh.engine.errors import RateLimited
from cloudmesh.testing.directories.world import World
from cloudmesh.testing.virtualtime import run_virtual

MIB = 1 << 20
S3 = StoreInfo("s3", "Full", write_holds=56 * MIB, read_holds=16 * MIB, holds_for=80 << 30)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (4096, 4 * 4096), (MIB, 4 * MIB), (-1, QUEUED + 56 * MIB), (1 << 30, QUEUED + 56 * MIB),
     (200 << 30, QUEUED + 3 * 56 * MIB)],
)  # fmt: skip
def test_what_a_write_takes(size: int, expected: int) -> None:
    assert of_write(S3, size) == expected


def test_what_a_read_takes() -> None:
    assert (of_read(S3, 4096), of_read(S3, 1 << 30)) == (8192, 16 * MIB)


def test_who_asks_first_is_served_first_and_nobody_is_forgotten() -> None:
    async def main() -> None:
        budget, order = Budget(10), []

        async def one(name: str, amount: int) -> None:
            async with budget.taken(amount):
                assert budget.used <= 10
                order.append(name)
                await asyncio.sleep(1)

        tasks = []
        for who in [("a", 8), ("large", 10), ("b", 1), ("over", 99), ("c", 2)]:
            tasks.append(asyncio.create_task(one(*who)))
            await asyncio.sleep(0.1)
        tasks[1].cancel()
        await asyncio.wait(tasks)
        assert order == ["a", "b", "over", "c"]
        assert budget.used == 0
        async with budget.taken(10):
            with pytest.raises(RateLimited):
                async with budget.taken(1, seconds=5):
                    pass
        assert budget.used == 0

    run_virtual(main(), seed=1)


@virtual("a", rules=(PlacementRule(copies=1),))
async def test_thirty_large_uploads_stay_under_the_bound(w: World) -> None:
    """Each is held by its store as large uploads are; together they never hold more than what was granted."""
    memory = w.tree.writer.memory = Memory(256 * MIB)
    store: Any = w.member("a").store
    store._info = replace(store.info, write_holds=20 * MIB)
    held = most = 0

    async def write(key: str, chunks: AsyncIterator[bytes], *, attributes: Any = None, **_: Any) -> Object:
        nonlocal held, most
        mine = size = 0
        try:
            async for chunk in chunks:
                # a part is full before it is sent, and then gone
                mine, held, size = mine + len(chunk), held + len(chunk), size + len(chunk)
                most = max(most, held)
                if mine >= 20 * MIB:
                    await asyncio.sleep(1)
                    held, mine = held - mine, 0
        finally:
            held -= mine
        return Object(key, size, key, attributes=attributes)

    store.write = write
    piece = bytes(MIB)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(24):
            yield piece
            await asyncio.sleep(0)

    await asyncio.gather(*(w.tree.put(f"f{number}", content(), size=24 * MIB) for number in range(30)))
    assert 20 * MIB <= most <= memory.writes.total
    assert memory.writes.used == held == 0
    for number in range(30):
        assert (await w.tree.stat(f"f{number}")).size == 24 * MIB


@virtual("a", rules=(PlacementRule(copies=1),))
async def test_readers_that_hold_on_make_others_wait_or_tell_them(w: World) -> None:
    w.tree.writer.memory = Memory(100 * MIB)
    store: Any = w.member("a").store
    store._info = replace(store.info, read_holds=10 * MIB)
    await w.put("f", bytes(8 * MIB))
    first, second = [(await w.tree.read("f", start=1))[1] for _ in range(2)]
    waiting = asyncio.create_task(w.tree.read("f", start=1))
    await asyncio.sleep(5)
    assert not waiting.done()
    await first.aclose()
    _, third = await waiting
    with pytest.raises(RateLimited):
        await w.tree.read("f", start=1)
    await second.aclose()
    await third.aclose()
    assert w.tree.writer.memory.reads.used == 0


@virtual("ab", rules=(PlacementRule(copies=2),))
async def test_a_failed_upload_gives_back_what_it_took(w: World) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("gone")

    with pytest.raises(Exception, match="gone"):
        await w.tree.put("f", broken(), size=10)
    assert w.tree.writer.memory.writes.used == 0


@virtual("a", rules=(PlacementRule(copies=1),))
async def test_beginnings_of_uploads_of_unknown_size_take_turns(w: World) -> None:
    """Clients that say no size and are slow: what of theirs is there before anything is written stays under a bound."""
    memory = w.tree.writer.memory = Memory(60 * MIB)
    held = most = 0

    async def content(number: int, size: int) -> AsyncIterator[bytes]:
        nonlocal held, most
        for _ in range(size):
            held += 1
            most = max(most, held)
            yield bytes(MIB >> 2)
            await asyncio.sleep(1)
        held -= size
        if number % 10 == 9:
            raise OSError("gone")

    puts = [w.tree.put(f"f{number}", content(number, 1 + number % 8)) for number in range(40)]
    done = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(one, BaseException) for one in done) == 4
    # 6 MiB are for them, 2 MiB of each
    assert 8 <= most <= 3 * 8
    assert memory.beginnings.used == memory.writes.used == 0
