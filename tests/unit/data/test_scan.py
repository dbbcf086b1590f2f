"""What stores hold already comes into the tree; a listing takes nothing away."""

import asyncio

from tests.unit.data.virtual import virtual

from cloudmesh.data.scan import adopt
from cloudmesh.testing.directories.world import World


@virtual()
async def test_adopts_what_is_there(w: World):
    await asyncio.sleep(5)
    w.place("a").put("lab/data/x.csv", b"1,2")
    w.place("b").put("lab/data/x.csv", b"3,4")
    w.place("b").put("lab/data/../up", b"no")
    w.place("b").put("elsewhere", b"no")
    first, second = await adopt(w.tree, w.member("a")), await adopt(w.tree, w.member("b"))
    assert (first.adopted, second.adopted, second.unreadable) == (1, 1, 1)
    await w.settle()
    # two files of one name are two files
    assert await w.read("data/x.csv") == b"1,2"
    assert await w.read("data/x.csv.~b") == b"3,4"
    assert len(w.holders(b"1,2")) == len(w.holders(b"3,4")) == 2
    assert (await w.tree.stat("data/x.csv")).sha256
    assert w.place("b").objects["elsewhere"].content == b"no"


@virtual()
async def test_adopts_while_files_are_written_and_copied(w: World):
    async def write():
        for number in range(30):
            await w.put(f"f{number % 7}", b"%d" % number * 50)

    async def scan():
        for _ in range(20):
            for name in w.names:
                found = await adopt(w.tree, w.member(name))
                assert found.adopted == 0

    await asyncio.gather(write(), scan())
    await w.settle()
    assert len(await w.tree.walk("")) == 7
    assert sum(len(w.objects(name)) for name in w.names) == 14


@virtual()
async def test_empty_listing_removes_nothing(w: World):
    await w.put("f", b"content")
    for _ in range(100):
        w.place("a")._shown.clear()
        w.place("a")._late.clear()
        assert (await adopt(w.tree, w.member("a"))).objects == 0
    assert await w.states("f") == "a:Whole b:Whole"
    assert await w.read("f") == b"content"
