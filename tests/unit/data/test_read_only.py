"""Stores with `access: ReadOnly` are read, and neither written nor deleted from; what a write over a file may take."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import msgspec
import pytest
from tests.unit.data.gateway_scene import Served, until
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule, Prices
from cloudmesh.data.errors import Full, ReadOnly
from cloudmesh.testing.directories.world import World

ONE, TWO = (PlacementRule(copies=n, prefer="Sequential") for n in (1, 2))
OLD, NEW = b"old", b"new, longer"


def state(w: World, store: str) -> dict[str, bytes]:
    """All that lies in a store of files, kept ones too."""
    return {key: held.content for key, held in w.place(store).objects.items() if held.content in (OLD, NEW)}


@virtual(rules=(TWO,))
async def test_a_write_goes_to_other_stores(w: World):
    await w.put("f", OLD)
    await w.settle()
    await w.access("a", "ReadOnly")
    await w.put("f", NEW)
    await asyncio.sleep(4000)
    assert [w.objects(store) for store in "abc"] == [{"f": OLD}, {"f": NEW}, {"f": NEW}]
    copies = await w.copies("f")
    assert {store: copy.state for store, copy in copies.items()} == {"a": "Stale", "b": "Whole", "c": "Whole"}
    assert await w.read("f") == NEW
    assert (await w.catalog.totals()).pending == 0
    await w.access("a", "ReadWrite")
    await w.settle()
    assert [w.objects(store) for store in "abc"] == [{"f": NEW}, {"f": NEW}, {}]


@virtual("ab", rules=(PlacementRule(copies=2, min_copies=2, prefer="Sequential"),))
async def test_too_few_others(w: World):
    await w.put("f", OLD)
    await w.settle()
    await w.access("a", "ReadOnly")
    with pytest.raises(ReadOnly, match=r"needs 2 copies .* 1 stores can take one \(a: it is read-only\)"):
        await w.put("f", NEW)
    assert [w.objects(store) for store in "ab"] == [{"f": OLD}, {"f": OLD}]
    assert await w.read("f") == OLD


@virtual("ab", rules=(TWO,), trash_seconds=60)
async def test_what_was_deleted_waits(w: World):
    entry = await w.put("f", OLD)
    await w.settle()
    await w.access("a", "ReadOnly")
    await w.tree.delete("f")
    await asyncio.sleep(4000)
    assert (w.objects("a"), w.objects("b")) == ({"f": OLD}, {})
    assert [thing.entry.id for thing in await w.tree.trash()] == [entry.id]
    assert (await w.catalog.totals()).pending == 0
    await w.access("a", "ReadWrite")
    await w.settle()
    assert (w.objects("a"), await w.tree.trash()) == ({}, [])


@virtual("ab", rules=(TWO,), trash_seconds=60)
async def test_what_was_deleted_is_not_waited_for_when_its_store_leaves(w: World):
    await w.put("f", OLD)
    await w.settle()
    await w.access("a", "ReadOnly")
    await w.tree.delete("f")
    await asyncio.sleep(300)
    await w.use(stores=tuple(store for store in w.config.stores if store.name != "a"))
    await asyncio.sleep(300)
    assert (w.objects("a"), await w.tree.trash()) == ({"f": OLD}, [])


@virtual("abc", rules=(TWO,), versions=1, trash_seconds=60)
async def test_older_contents_wait(w: World):
    await w.put("f", OLD)
    await w.settle()
    before = state(w, "a")
    await w.access("a", "ReadOnly")
    await w.put("f", NEW)
    assert (state(w, "a"), await w.read("f", version=1)) == (before, OLD)
    await asyncio.sleep(4000)
    assert (state(w, "a"), [*state(w, "b").values()], [*state(w, "c").values()]) == (before, [NEW], [NEW])
    await w.access("a", "ReadWrite")
    await w.settle()
    assert [*state(w, "a").values()] == [NEW]
    assert w.holders(OLD) == ""


@virtual("ab", rules=(ONE,))
async def test_writing_over_a_file_keeps_to_the_capacity(w: World):
    await w.use(stores=tuple(msgspec.structs.replace(store, capacity=10) for store in w.config.stores))
    await w.put("f", b"12345678")
    await w.settle()
    # what was there makes room for what replaces it
    await w.put("f", b"123456789x")
    assert (w.objects("a"), w.objects("b")) == ({"f": b"123456789x"}, {})
    await asyncio.sleep(10)
    with pytest.raises(Full, match="a: its capacity of 10 bytes is used up; b: its capacity of 10 bytes is used up"):
        await w.put("f", b"x" * 11)
    assert await w.read("f") == b"123456789x"
    # one that is too full already takes what is less
    await w.use(stores=tuple(msgspec.structs.replace(store, capacity=5) for store in w.config.stores))
    await w.put("f", b"123456")
    assert w.objects("a") == {"f": b"123456"}


@virtual("ab", rules=(ONE,), versions=1)
async def test_an_older_content_that_is_kept_makes_no_room(w: World):
    await w.use(stores=tuple(msgspec.structs.replace(store, capacity=10) for store in w.config.stores))
    await w.put("f", b"12345678")
    await w.settle()
    await asyncio.sleep(10)
    await w.put("f", b"87654321")
    await w.settle()
    assert (w.objects("a", kept=True), w.objects("b")) != ({}, {})
    assert w.holders(b"87654321") == "b"


@virtual("ab", rules=(ONE,))
async def test_writing_over_a_file_keeps_to_known_prices(w: World):
    await w.put("f", OLD)
    await w.settle()
    a, b = w.config.stores
    known = msgspec.structs.replace(b, prices=Prices(gib_month=1), must_be_priced=True)
    await w.use(stores=(msgspec.structs.replace(a, must_be_priced=True), known))
    await w.put("f", NEW)
    await w.settle()
    assert (w.objects("a"), w.objects("b")) == ({}, {"f": NEW})


def test_through_the_door(tmp_path: Path) -> None:
    rules = (PlacementRule(copies=1, prefer="Sequential"),)
    with Served(tmp_path, rules=rules, trash_seconds=0) as served:

        def contents(store: str) -> set[bytes]:
            held = {thing.content for thing in served.place(store).objects.values()}
            return held & {OLD, NEW}

        def access(*given: str) -> None:
            stores = zip(served.config.stores, given, strict=True)
            served.reconfigure(stores=tuple(msgspec.structs.replace(store, access=now) for store, now in stores))

        for path in ("f", "g"):
            assert served.ask("PUT", f"/v1/files/{path}", OLD).status == 201
        access("ReadOnly", "ReadWrite")
        assert served.ask("PUT", "/v1/files/f", NEW).status == 200
        assert (contents("one"), contents("two")) == ({OLD}, {NEW})
        assert served.ask("GET", "/v1/files/f").body == NEW
        where = served.ask("GET", "/v1/where/f").json["copies"]
        assert {copy["store"]: copy["state"] for copy in where} == {"one": "Stale", "two": "Whole"}
        access("ReadOnly", "ReadOnly")
        refused = served.ask("PUT", "/v1/files/f", OLD * 2)
        assert refused.problem == (503, "ReadOnly")
        assert re.search("one: it is read-only; two: it is read-only", refused.json["detail"])
        access("ReadOnly", "ReadWrite")
        assert served.ask("DELETE", "/v1/files/g").status == 204
        assert served.ask("GET", "/v1/files/g").status == 404
        until(lambda: not served.call(served.gateway.catalog.totals()).pending)
        assert sum(thing.content == OLD for thing in served.place("one").objects.values()) == 2
        access("ReadWrite", "ReadWrite")
        until(lambda: OLD not in contents("one"))
