"""What is read from a store counts as sent, whatever it is read for: egress is billed by the byte."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.catalog.journal import JOURNAL
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.filling import fill
from cloudmesh.data.model import MICROS, Intent, Target
from cloudmesh.data.stores.memory import MemoryStore
from cloudmesh.data.stores.ports import CHUNK
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.directories.world import Fault, InlineCatalog, World, chunked

ONE = (PlacementRule(copies=1),)
OLD = b"old content " * 50


@virtual("a", rules=ONE)
async def test_a_copy_that_is_known_again(w: World):
    await w.put("f", OLD)
    held = w.place("a").objects["lab/f"]
    w.place("a").put("lab/f", held.content, held.object.attributes)
    await w.catalog.put_copies([replace((await w.copies("f"))["a"], state="Corrupt")], due=w.now())
    w.mover.stir()
    await w.settle()
    assert await w.states("f") == "a:Whole"
    # for its digest, and since its tag is another one for whose it is
    assert w.member("a").sent == 2 * len(OLD)


@virtual("a", rules=ONE)
async def test_what_somebody_wrote_over_the_last_copy(w: World):
    await w.put("f", OLD)
    theirs = b"of somebody else"
    w.place("a").put("lab/f", theirs)
    await w.catalog.put_copies([replace((await w.copies("f"))["a"], state="Corrupt")], due=w.now())
    w.mover.stir()
    await w.settle()
    assert await w.read("f") == theirs
    # another size: only its own digest is made; then it is read by us
    assert w.member("a").sent == 2 * len(theirs)


@virtual("abc", rules=(PlacementRule(prefer="Sequential", copies=2, min_copies=2),))
async def test_what_is_read_back_to_be_written_elsewhere(w: World):
    content = b"x" * (2 << 20)
    w.faults.planned.append(Fault("b", "publish", "before", key="lab/f"))
    await w.tree.put("f", chunked(content, 8), size=len(content))
    assert w.holders(content) == "ac"
    assert w.member("a").sent == len(content)


class _CopiesNothing(MemoryStore):
    copy: Any = None


@virtual("a", rules=ONE)
async def test_an_object_that_gets_another_name_through_us(w: World):
    await w.put("f", OLD)
    w.member("a").store = _CopiesNothing(w.place("a"))
    await w.tree.move("f", "g")
    await w.settle()
    assert w.objects("a") == {"g": OLD}
    assert w.member("a").sent == len(OLD)


@virtual("a", rules=ONE)
async def test_what_a_process_left_half_named_in_a_store_without_attributes(w: World):
    entry = await w.put("f", OLD)
    w.member("a").store = MemoryStore(w.place("a"), attributes=False)
    w.place("a").put("lab/g", OLD)
    at = w.now() - MICROS
    await w.catalog.begin(Intent("i" * 16, "Settle", entry.id, "", "g", 1, (Target("a", "lab/g", ""),), at))
    await w.recovery.run(w.now())
    assert w.member("a").sent == len(OLD)


@virtual("a", rules=ONE)
async def test_a_small_file_that_breaks_off(w: World):
    await w.put("f", b"y" * (2 * CHUNK))
    w.place("a").reads_end = CHUNK
    with pytest.raises(Transient):
        await w.read("f")
    assert w.member("a").sent == CHUNK


@virtual("ab", rules=ONE)
async def test_the_journal(w: World):
    w.faults.down.add("b")
    await w.tree.mkdir("d")
    journal = sum(held.object.size for key, held in w.place("a").objects.items() if JOURNAL in key)
    w.faults.down.clear()
    await asyncio.sleep(150)
    assert any(JOURNAL in key for key in w.place("b").objects)
    assert w.member("a").sent == journal > 0
    held = sum(held.object.size for key, held in w.place("a").objects.items() if JOURNAL in key)
    anew = InlineCatalog(w.folder / "anew.sqlite", clock=w.now)
    await anew.open()
    assert await fill(anew, w.mesh, w.now()) == ""
    assert w.member("a").sent == journal + held
