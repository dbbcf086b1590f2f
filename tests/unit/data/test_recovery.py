"""What a process left open, while stores are away."""

import asyncio

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.catalog.ports import ALL
from cloudmesh.data.config import PlacementRule
from cloudmesh.testing.directories.world import Fault, World

OLD, NEW = b"old content " * 50, b"new content, longer " * 60


async def die_writing(w: World, *, at: str = "b") -> None:
    """The process ends when all stores but one have the content."""
    w.faults.planned.append(Fault(at, "publish", error=None, key="lab/f"))
    writing = asyncio.create_task(w.put("f", NEW))
    await asyncio.sleep(5)
    assert not writing.done()
    w.faults.planned.clear()


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("away", ["", "a", "b"])
def test_half_written(tmp_path, least, fresh, away):
    @virtual("ab", rules=(PlacementRule(prefer="Sequential", copies=2, min_copies=least),))
    async def run(w: World):
        if not fresh:
            await w.put("f", OLD)
        await die_writing(w)
        w.faults.down.update(away)
        await w.restart()
        await asyncio.sleep(60)
        if not fresh and not away:
            assert await w.read("f") == (NEW if least == 1 else OLD)
        w.faults.clear()
        await w.back()
        await w.settle()
        there = {one.path for one in await w.tree.walk("")}
        if fresh and (least == 2 or not there):
            assert not there
            assert (w.objects("a"), w.objects("b")) == ({}, {})
        else:
            content = await w.read("f")
            assert content in (OLD, NEW)
            assert w.holders(content) == "ab"
        assert await w.catalog.intents(until=ALL) == []

    run(tmp_path)


@virtual()
async def test_live_writes_are_left_alone(w: World):
    async def slow():
        yield NEW[:5]
        await asyncio.sleep(5)
        yield NEW[5:]

    writing = asyncio.create_task(w.tree.put("f", slow(), size=len(NEW)))
    await asyncio.sleep(1)
    assert await w.recovery.run(ALL) == 0
    assert len(await w.catalog.intents(until=ALL)) == 1
    await writing
    assert await w.read("f") == NEW


@virtual()
async def test_store_that_left_the_directory_keeps_nothing_open(w: World):
    await die_writing(w)
    stores = w.config.stores
    w.config = type(w.config)(**{f: getattr(w.config, f) for f in w.config.__struct_fields__} | {"stores": stores[1:]})
    await w.restart()
    await w.settle()
    assert await w.catalog.intents(until=ALL) == []
    await w.put("f", OLD)
    assert await w.read("f") == OLD
