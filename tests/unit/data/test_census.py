"""Files that lack copies or can't be read are counted, as they are."""

from __future__ import annotations

import asyncio

from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule
from cloudmesh.data.gateway.census import LATEST, Census, Counted
from cloudmesh.data.mesh import GONE_SECONDS
from cloudmesh.testing.directories.world import World


@virtual("ab", rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_counts(w: World) -> None:
    census = Census(w.tree)
    task = asyncio.create_task(census.run())
    await w.put("d/f", b"1")
    await w.put("g", b"2")
    await w.put("gone", b"3")
    await w.tree.delete("gone")
    await w.settle()
    await asyncio.sleep(10)
    assert census.counted == Counted(0, 0)
    # a moment of silence takes no copy away, but what only lies there can't be read
    w.faults.down.add("a")
    w.faults.down.add("b")
    await asyncio.sleep(20)
    assert census.counted == Counted(0, 2)
    await asyncio.sleep(GONE_SECONDS)
    assert census.counted == Counted(2, 2)
    w.faults.down.discard("a")
    await asyncio.sleep(20)
    assert census.counted == Counted(2, 0)
    w.faults.clear()
    await w.back()
    await w.settle()
    await asyncio.sleep(LATEST)
    assert census.counted == Counted(0, 0)
    w.lose("a", "g")
    assert await w.read("g") == b"2"
    await asyncio.sleep(LATEST)
    await w.settle()
    assert census.counted == Counted(0, 0)
    task.cancel()


@virtual("a", rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_more_files_than_a_page(w: World) -> None:
    for number in range(450):
        await w.put(f"f{number}", b"")
    assert await Census(w.tree).count() == Counted(450, 0)


@virtual("ab", rules=(PlacementRule(copies=2, prefer="Sequential"),))
async def test_files_whose_last_copy_is_damaged(w: World) -> None:
    await w.put("f", b"1")
    await w.put("g", b"2")
    w.flip("a", "f")
    w.lose("b", "f")
    await w.use(verify_seconds=60)
    await asyncio.sleep(200)
    assert await Census(w.tree).count() == Counted(1, 1, 1)
