"""Cases of links: entries whose one copy is somebody else's object."""

from __future__ import annotations

from dataclasses import replace

from cloudmesh.data.errors import Exists
from cloudmesh.data.model import Copy, Entry, link_of
from cloudmesh.engine.errors import Conflict
from cloudmesh.testing.catalogs.case import Bench, case, need, refused

KEY = "archive/run.csv"


async def _link(bench: Bench, path: str = "d/NAME", key: str = KEY, store: str = "s1") -> tuple[Entry, Copy]:
    entry = await bench.catalog.adopt(path, Copy("", store, key, 1, "Linked", "t1", 10, bench.now), mtime=7)
    (copy,) = await bench.catalog.copies(entry.id)
    return entry, copy


async def _last(bench: Bench) -> object:
    return (await bench.catalog.unwritten())[-1].body


@case("link/new")
async def _new(bench: Bench) -> None:
    """A link is an entry with its object, counted as a file and as no whole copy; the journal says that it is one."""
    entry, copy = await _link(bench)
    need((entry.kind, entry.size, entry.mtime, entry.sha256, entry.version) == ("File", 10, 7, "", 1), f"it is {entry}")
    need((copy.state, copy.key, copy.tag) == ("Linked", KEY, "t1"), f"its object is {copy}")
    totals = await bench.catalog.totals()
    need((totals.files, totals.bytes, totals.stores, totals.states) == (1, 10, {}, {"Linked": 1}), f"totals {totals}")
    body = (await bench.catalog.unwritten())[-1].body
    need((body["op"], body.get("link"), body["copies"]) == ("put", True, {"s1": [KEY, "t1"]}), f"the record is {body}")
    await bench.put("f")
    need("link" not in (await bench.catalog.unwritten())[-1].body, "a file's record says that it is a link")
    located = await bench.catalog.children("d", copies=True)
    need([link_of(one.copies) for one in located] == [copy], f"listed {located}")


@case("link/taken")
async def _taken(bench: Bench) -> None:
    """Neither a name that is taken is linked, nor an object that is in the directory or about to be."""
    await bench.put("f")
    await refused(Exists, _link(bench, "f"), "a name that is taken")
    await refused(Conflict, _link(bench, "g", "f"), "a file's object")
    await bench.begin("h", keys={"s1": "soon"})
    await refused(Conflict, _link(bench, "g", "soon"), "a key at which somebody is about to write")
    await _link(bench)
    await refused(Conflict, _link(bench, "g"), "what is linked already")
    await refused(Conflict, bench.begin("g", keys={"s1": KEY}), "a write to a linked object")
    await _link(bench, "g", store="s2")


@case("link/write-over")
async def _over(bench: Bench) -> None:
    """A write over a link makes a file of it: its object is forgotten, and never stale, trash or an older version."""
    for keep in (False, True):
        for failed in ({}, {"s1": "no answer"}):
            path, key = f"{keep}-{len(failed)}", f"{keep}-{len(failed)}-theirs"
            entry, _ = await _link(bench, path, key)
            over = await bench.commit(await bench.begin(path, stores=("s1", "s2")), failed=failed, keep=keep)
            need((over.id, over.version) == (entry.id, 2), f"it is {over}")
            need(await bench.catalog.at_key("s1", key) is None, "the linked object is still on record")
            held = {c.store: (c.key, c.state) for c in await bench.catalog.copies(entry.id)}
            wanted = {"s1": (path, "Stale" if failed else "Whole"), "s2": (path, "Whole")}
            need(held == wanted, f"copies {held}")
            need("link" not in (await bench.catalog.unwritten())[-1].body, "the record says that it is a link")
    need(await bench.catalog.trash(versions=True) == [], "something lies in the trash")
    need("Linked" not in (await bench.catalog.totals()).states, "the sums have links")


@case("link/changed")
async def _changed(bench: Bench) -> None:
    """Another content of the object is a version of the link, unless its record changed or somebody writes over it."""
    entry, copy = await _link(bench)
    await bench.catalog.looked(entry.id, 1, 0)
    other = replace(copy, tag="t2", size=30, verified=5)
    need(not await bench.catalog.relink(other, was=replace(copy, tag="t0"), mtime=9), "another record was taken")
    intent = await bench.begin("d/NAME")
    need(not await bench.catalog.relink(other, was=copy, mtime=9), "it changed below a write")
    await bench.catalog.end(intent.id, left=[Copy(entry.id, "s2", "rest", 2, "Stale")])
    need(await bench.catalog.relink(other, was=copy, mtime=9), "it wasn't taken")
    now = await bench.catalog.entry("d/NAME")
    # 2 was a write that failed, of which something may be left
    need(now is not None and (now.version, now.size, now.mtime, now.sha256) == (3, 30, 9, ""), f"it is {now}")
    need(await bench.catalog.copies(entry.id) == (replace(other, version=3),), "its object")
    body = (await bench.catalog.unwritten())[-1].body
    need((body["op"], body.get("link"), body["version"], body["path"]) == ("put", True, 3, "d/NAME"), f"record {body}")
    need(any(w.entry.id == entry.id for w in await bench.catalog.work(1 << 60)), "it isn't due")
    need(not await bench.catalog.relink(other, was=copy, mtime=9), "twice")


@case("link/forgotten")
async def _forgotten(bench: Bench) -> None:
    """A link ends with its object, in the tree and in the trash; not while somebody writes over it."""
    entry, copy = await _link(bench)
    intent = await bench.begin("d/NAME")
    await refused(Conflict, bench.catalog.drop_copy(entry.id, "s1", was=copy), "a link that is written over")
    await bench.catalog.end(intent.id)
    await bench.catalog.drop_copy(entry.id, "s1", was=replace(copy, tag="other"))
    need(await bench.names() == ["d", "d/NAME"], "it ended by another record")
    await bench.catalog.drop_copy(entry.id, "s1", was=copy)
    need(await bench.names() == ["d"], f"there are {await bench.names()}")
    need((await bench.catalog.unwritten())[-1].body == {"op": "purge", "id": entry.id}, f"record {await _last(bench)}")
    entry, copy = await _link(bench)
    await bench.catalog.delete("d/NAME")
    await bench.catalog.drop_copy(entry.id, "s1", was=copy)
    need(await bench.catalog.trash() == [] and await bench.catalog.at_key("s1", KEY) is None, "it lies in the trash")
    entry, copy = await _link(bench)
    await bench.catalog.delete("d", recursive=True)
    await bench.catalog.restore((await bench.catalog.trash())[0].entry.id)
    need(await bench.catalog.copies(entry.id) == (copy,), "it came back otherwise")
