"""Cases of files: intents, versions, copies."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import replace

from cloudmesh.data.catalog.ports import ABSENT
from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.model import ROOT, TRASH, Copy, Intent, Target
from cloudmesh.engine.errors import CloudmeshError, Conflict
from cloudmesh.testing.catalogs.case import Bench, case, need, refused


def _mover(entry: str, version: int, kind: str = "Copy", store: str = "s9", key: str = "k9") -> Intent:
    return Intent(secrets.token_hex(8), kind, entry, "", "n", version, (Target(store, key),), 1)  # type: ignore[arg-type]


@case("put/new")
async def _new(bench: Bench) -> None:
    """A new file is there when its put is committed, with directories above it, and all that was told."""
    intent = await bench.begin("a/b/f", stores=("s1", "s2"), tags={"x": "1"})
    need(await bench.names() == ["a", "a/b"], f"before the commit there are {await bench.names()}")
    entry = await bench.commit(intent, size=12, due=77)
    read = await bench.catalog.entry("a/b/f")
    need(read == entry and read is not None, f"committed {entry}, read {read}")
    told = (entry.id, entry.kind, entry.version, entry.size, entry.mtime, entry.content_type, dict(entry.tags))
    need(told == (intent.entry, "File", 1, 12, intent.mtime, "text/plain", {"x": "1"}), f"it is {entry}")
    copies = await bench.catalog.copies(entry.id)
    held = [(c.store, c.key, c.state, c.size) for c in copies]
    need(held == [("s1", "a/b/f", "Whole", 12), ("s2", "a/b/f", "Whole", 12)], f"copies {copies}")
    totals = await bench.catalog.totals()
    need((totals.files, totals.directories, totals.bytes, totals.pending) == (1, 2, 12, 1), f"totals {totals}")
    need(totals.stores == {"s1": (1, 12), "s2": (1, 12)} and totals.states == {}, f"totals {totals}")
    need(await bench.catalog.next_due() == 77, "it isn't due when it was said")
    await refused(Missing, bench.commit(intent), "a second commit")
    need(await bench.catalog.intents(until=1 << 60) == [], "the intent is still open")


@case("put/over")
async def _over(bench: Bench) -> None:
    """A write over a file keeps its id and raises its version; copies that weren't written are stale."""
    first = await bench.put("f", stores=("s1", "s2", "s3"), tags={"a": "1"})
    intent = await bench.begin("f", stores=("s1", "s2", "s4"))
    second = await bench.commit(intent, size=20, failed={"s2": "lost", "s4": "lost too"})
    need(
        (second.id, second.version, second.size, dict(second.tags)) == (first.id, 2, 20, {"a": "1"}), f"it is {second}"
    )
    need(second.etag != first.etag, "the entity tag is the same")
    copies = {c.store: (c.state, c.version, c.error) for c in await bench.catalog.copies(first.id)}
    expected = {
        "s1": ("Whole", 2, ""), "s2": ("Stale", 1, "lost"), "s3": ("Stale", 1, ""), "s4": ("Stale", 0, "lost too"),
    }  # fmt: skip
    need(copies == expected, f"copies {copies}")
    totals = await bench.catalog.totals()
    need(totals.stores == {"s1": (1, 20)} and totals.states == {"Stale": 3} and totals.bytes == 20, f"totals {totals}")


@case("put/further-targets")
async def _further(bench: Bench) -> None:
    """A write that goes on elsewhere gets targets there; they are known, held, and part of what is committed."""
    other = await bench.put("other", stores=("s3",))
    intent = await bench.begin("f", stores=("s1",))
    catalog = bench.catalog
    await refused(Conflict, catalog.aim(intent.id, [Target("s1", "again")]), "a second target in one store")
    await refused(Conflict, catalog.aim(intent.id, [Target("s3", "other")]), "another file's key")
    await refused(Missing, catalog.aim("0" * 16, [Target("s2", "f")]), "no such intent")
    await catalog.aim(intent.id, [Target("s2", "f2"), Target("s4", "f4")])
    (found,) = await catalog.intents(until=1 << 60)
    told = [(target.store, target.key) for target in found.targets]
    need(told == [("s1", "f"), ("s2", "f2"), ("s4", "f4")], f"targets {told}")
    held = await catalog.at_key("s2", "f2")
    need(held is not None and held.entry == intent.entry, f"at the key is {held}")
    entry = await bench.commit(found, failed={"s1": "lost"})
    states = {c.store: (c.key, c.state) for c in await catalog.copies(entry.id)}
    expected = {"s1": ("f", "Stale"), "s2": ("f2", "Whole"), "s4": ("f4", "Whole")}
    need(states == expected, f"copies {states}")
    need((await catalog.copies(other.id))[0].state == "Whole", "the other file's copy")


@case("put/guards")
async def _guards(bench: Bench) -> None:
    """A put begins only on the version that was asked for, and only once at a time."""
    entry = await bench.put("f")
    await refused(Changed, bench.begin("f", if_version=ABSENT), "absent, and it is there")
    await refused(Changed, bench.begin("f", if_version=2), "another version")
    await refused(Changed, bench.begin("g", if_version=1), "a version of nothing")
    old = Intent(secrets.token_hex(8), "Put", entry.id, "", "f", 1, (), 1)
    await refused(Changed, bench.catalog.begin(old), "the version is there already")
    other = Intent(secrets.token_hex(8), "Put", secrets.token_hex(8), "", "f", 1, (), 1)
    await refused(Changed, bench.catalog.begin(other), "the name belongs to another entry")
    intent = await bench.begin("f", if_version=1)
    await refused(Conflict, bench.begin("f"), "two puts of one file")
    await bench.catalog.end(intent.id)
    await bench.catalog.end(intent.id)
    await refused(Missing, bench.commit(intent), "it was given up")
    await bench.commit(await bench.begin("f"))
    await bench.catalog.mkdir("d")
    directory = await bench.catalog.entry("d")
    assert directory is not None  # noqa: S101 - just made
    over = Intent(secrets.token_hex(8), "Put", directory.id, "", "d", 2, (), 1)
    await refused(InvalidName, bench.catalog.begin(over), "over a directory")
    await refused(InvalidName, bench.begin("f/g"), "below a file")
    await refused(Missing, bench.catalog.begin(_mover(secrets.token_hex(8), 1)), "a copy of nothing")


@case("put/one-of-many")
async def _race(bench: Bench) -> None:
    """Of many writers of one version, and of one new name, one wins."""
    for path, version in (("new", ABSENT), ("old", 1)):
        if version:
            await bench.put(path)
        results = await asyncio.gather(
            *(bench.begin(path, if_version=version) for _ in range(8)), return_exceptions=True
        )
        won = [result for result in results if isinstance(result, Intent)]
        lost = [result for result in results if not isinstance(result, Intent)]
        need(len(won) == 1, f"{len(won)} writers of '{path}' won")
        need(all(isinstance(error, Conflict) for error in lost), f"the others got {lost}")
        await bench.commit(won[0])


@case("put/keys")
async def _keys(bench: Bench) -> None:
    """No two entries share a key, also while one is only meant to lie there."""
    first = await bench.begin("a", keys={"s1": "key"})
    writing = await bench.catalog.at_key("s1", "key")
    need(writing is not None and (writing.entry, writing.state) == (first.entry, "Writing"), f"meant {writing}")
    await refused(Conflict, bench.begin("b", keys={"s1": "key"}), "a key that another intent has")
    entry = await bench.commit(first)
    held = await bench.catalog.at_key("s1", "key")
    need(held is not None and (held.entry, held.state) == (entry.id, "Whole"), f"held {held}")
    await bench.catalog.move("a", "c")
    await refused(Conflict, bench.begin("a", keys={"s1": "key"}), "a key that another entry has")
    other = await bench.commit(await bench.begin("a", keys={"s1": "key.~2"}))
    clash = Copy(other.id, "s1", "key", 1, "Whole")
    await refused(Conflict, bench.catalog.put_copies([clash]), "a copy at another's key")
    need(await bench.catalog.at_key("s1", "nowhere") is None, "nothing lies there")
    need(await bench.catalog.at_key("s2", "key") is None, "another store")


@case("put/renamed-meanwhile")
async def _renamed(bench: Bench) -> None:
    """A file that is renamed or deleted while it is written keeps the new content, wherever it is."""
    entry = await bench.put("f")
    intent = await bench.begin("f")
    await bench.catalog.move("f", "g")
    done = await bench.commit(intent, size=99)
    need((done.id, done.name, done.version, done.parent) == (entry.id, "g", 2, ROOT), f"renamed: {done}")
    intent = await bench.begin("g")
    await bench.catalog.delete("g")
    done = await bench.commit(intent)
    need(done.version == 3 and await bench.names() == [], f"deleted: {done}")
    need(done.parent == TRASH, f"a file in the trash is told as written: {done}")
    await bench.catalog.restore(entry.id)
    intent = await bench.begin("d/new")
    await bench.catalog.delete("d", recursive=True)
    new = await bench.commit(intent)
    need(new.parent == TRASH, f"a new file in the trash is told as written: {new}")
    await bench.settled()
    located = await bench.catalog.by_id(new.id)
    need(located is not None and located.path == "", f"in a deleted directory: {located}")
    need((await bench.catalog.totals()).files == 1, "what lies in the trash is counted")
    await bench.put("e/there")
    intent = await bench.begin("e/there")
    await bench.catalog.delete("e", recursive=True)
    need((await bench.commit(intent)).parent == TRASH, "one below a deleted directory is told as written")
    stale = replace(intent, id=secrets.token_hex(8), entry=entry.id, parent="", name="f", version=4)
    await refused(Changed, bench.catalog.begin(stale), "the entry has another name now")


@case("put/beside-the-mover")
async def _beside(bench: Bench) -> None:
    """A put doesn't wait for the mover, the mover for each put; what the mover ends is ended alone."""
    entry = await bench.put("f")
    copying = _mover(entry.id, 1)
    await bench.catalog.begin(copying, if_version=1)
    await refused(Conflict, bench.catalog.begin(_mover(entry.id, 1, key="k8")), "two works of the mover")
    put = await bench.begin("f")
    await bench.catalog.end(copying.id)
    await refused(Conflict, bench.catalog.begin(_mover(entry.id, 1)), "the mover beside a put")
    await refused(Missing, bench.catalog.commit_put(
        copying.id, size=1, sha256="", whole=[], failed={}, due=0), "a copy isn't a put")  # fmt: skip
    await bench.commit(put)
    await refused(Changed, bench.catalog.begin(_mover(entry.id, 1), if_version=1), "the version is gone")


@case("put/keys-of-the-mover")
async def _movers_keys(bench: Bench) -> None:
    """A put uses no key where the mover makes or removes a copy, and the mover none at which a put aims."""
    entry, catalog = await bench.put("f", stores=("s1", "s2")), bench.catalog
    for kind, store in (("Copy", "s3"), ("Delete", "s1")):
        target = Target(store, "f", "t1" if kind == "Delete" else "")
        work = replace(_mover(entry.id, 1, kind), targets=(target,))
        await catalog.begin(work, if_version=1)
        moving = [one for one in ("s1", "s2", "s3") if await catalog.moving(entry.id, one)]
        need(moving == [store], f"{kind} in {store}: {moving}")
        await refused(Conflict, bench.begin("f", stores=("s2", store)), f"a put at the key of a {kind}")
        put = await bench.begin("f", stores=("s2",))
        await refused(Conflict, catalog.aim(put.id, [Target(store, "f")]), f"a further target at the key of a {kind}")
        await catalog.aim(put.id, [Target(store, "f.~1")])
        await catalog.end(put.id)
        # nobody works on it any more
        await catalog.renew(work.id, 0)
        need(not await catalog.moving(entry.id, store), f"{kind}: its time is over")
        await catalog.end((await bench.begin("f", stores=("s2", store))).id)
        await catalog.end(work.id)
    other = await bench.put("g")
    await bench.begin("new", stores=("s3",))
    for kind in ("Copy", "Delete"):
        work = replace(_mover(other.id, 1, kind), targets=(Target("s3", "new"),))
        await refused(Conflict, catalog.begin(work), f"a {kind} at a put's key")
    need(not await catalog.moving(entry.id, "s3"), "a put isn't the mover")


@case("put/beside-what-goes")
async def _beside_what_goes(bench: Bench) -> None:
    """What lay, or may lie, at another key than the one on record after a put is left to the mover."""
    for failed in ({}, {"s1": "lost"}):
        path = "lost" if failed else "made"
        entry = await bench.put(path, stores=("s1", "s2"))
        (copy, _), before = await bench.catalog.copies(entry.id), len(await bench.catalog.trash(versions=True))
        going = replace(copy, state="Deleting")
        await bench.catalog.put_copies([going])
        intent = await bench.begin(path, stores=("s1", "s2"), keys={"s1": f"{path}.~1"})
        await bench.commit(intent, failed=failed)
        # whoever removed the old one meanwhile takes no record of the new one away
        await bench.catalog.drop_copy(entry.id, "s1", was=going)
        held = {c.store: (c.key, c.state) for c in await bench.catalog.copies(entry.id)}
        expected = {"s1": (path, "Stale") if failed else (f"{path}.~1", "Whole"), "s2": (path, "Whole")}
        need(held == expected, f"copies {held}")
        left = await bench.catalog.at_key("s1", f"{path}.~1" if failed else path)
        need(left is not None and (left.state, left.tag) == ("Deleting", "" if failed else copy.tag), f"left {left}")
        need(left is not None and left.entry != entry.id, "it is the file's own")
        need(len(await bench.catalog.trash(versions=True)) == before + 1, "not in the trash")


@case("intent/leases")
async def _leases(bench: Bench) -> None:
    """Open intents are found when nobody works on them, with all that was kept of them."""
    one = await bench.begin("d/one", stores=("s1", "s2"), until=bench.now + 10_000_000, tags={"t": "v"})
    two = await bench.begin("two", until=bench.now + 20_000_000)
    need(await bench.catalog.intents(until=bench.now) == [], "they are leased")
    need(await bench.catalog.intents(until=one.until) == [one], "the first lease is over")
    await bench.catalog.renew(one.id, two.until + 1)
    need(await bench.catalog.intents(until=two.until) == [two], "the first was renewed")
    await bench.catalog.end(two.id)
    await refused(Missing, bench.catalog.renew(two.id, 1), "renew of an ended one")
    await bench.open()
    found = await bench.catalog.intents(until=1 << 60)
    need([replace(i, until=0) for i in found] == [replace(one, until=0)], f"after a restart {found}")
    await bench.commit(one)


@case("intent/of-an-ended-process")
async def _ended(bench: Bench) -> None:
    """What a process that ended meant to write stands in nobody's way, and never comes over newer content."""
    entry = await bench.put("f")
    over, new, lone = await bench.begin("f"), await bench.begin("d/new"), await bench.begin("lone")
    await bench.open()
    bench.now += 2_000_000
    # whoever looks after what is open asks by the time
    need(len(await bench.catalog.intents(until=bench.now)) == 3, "their time isn't over")
    again, other = await bench.begin("f"), await bench.begin("d/new", keys={"s1": "d/new.~2"})
    await refused(Conflict, bench.commit(over), "while somebody writes the file")
    await bench.commit(again, size=50)
    await bench.commit(other, size=60)
    await refused(Missing, bench.commit(over), "over a content of the same version")
    await refused(Missing, bench.commit(new), "its name is another's")
    await bench.commit(lone)
    for intent in (over, new):
        await bench.catalog.end(intent.id)
    read = await bench.catalog.entry("f")
    need(read is not None and (read.id, read.version, read.size) == (entry.id, 2, 50), f"it is {read}")
    need(await bench.names() == ["d", "d/new", "f", "lone"], f"there are {await bench.names()}")


@case("copies/deleting")
async def _deleting(bench: Bench) -> None:
    """A copy that is to be deleted is `Deleting`, if it is still the one that was meant."""
    entry = await bench.put("f", stores=("s1", "s2"))
    targets = (Target("s1", "f", "t1"), Target("s2", "f", "another tag"))
    await bench.catalog.begin(Intent(secrets.token_hex(8), "Delete", entry.id, "", "f", 1, targets, 1))
    states = [copy.state for copy in await bench.catalog.copies(entry.id)]
    need(states == ["Deleting", "Whole"], f"states {states}")
    one, two = await bench.catalog.copies(entry.id)
    await bench.catalog.drop_copy(entry.id, "s1", was=replace(one, tag="x"))
    need(len(await bench.catalog.copies(entry.id)) == 2, "another copy than was meant is gone")
    changed = replace(two, state="Missing")
    await bench.catalog.put_copies([changed], was=[one])
    await bench.catalog.put_copies([replace(two, store="s3", key="x")], was=[two])
    need(await bench.catalog.copies(entry.id) == (one, two), "it was written though the record was another")
    await bench.catalog.put_copies([changed, replace(two, store="s3", key="x")], was=[two, None])
    await bench.catalog.drop_copy(entry.id, "s1", was=one)
    held = {copy.store: copy.state for copy in await bench.catalog.copies(entry.id)}
    need(held == {"s2": "Missing", "s3": "Whole"}, f"copies {held}")


@case("copies/counted")
async def _counted(bench: Bench) -> None:
    """Copies are written as told, only of entries that are there, and sums follow."""
    entry = await bench.put("f", stores=("s1", "s2"))
    copies = await bench.catalog.copies(entry.id)
    changed = [replace(copies[0], state="Corrupt", error="digest"), Copy("e" * 16, "s1", "x", 1, "Whole", size=5)]
    await bench.catalog.put_copies(changed)
    await bench.catalog.put_copies(changed)
    need(await bench.catalog.copies(entry.id) == (changed[0], copies[1]), "copies aren't as told")
    need(await bench.catalog.copies("e" * 16) == (), "a copy of nothing")
    totals = await bench.catalog.totals()
    need((totals.stores, totals.states) == ({"s2": (1, 10)}, {"Corrupt": 1}), f"totals {totals}")
    await bench.catalog.put_copies([replace(copies[0], key="f2", size=11), Copy(entry.id, "s3", "f", 1, "Missing")])
    totals = await bench.catalog.totals()
    need((totals.stores, totals.states) == ({"s1": (1, 11), "s2": (1, 10)}, {"Missing": 1}), f"totals {totals}")
    await bench.catalog.drop_copy(entry.id, "s1")
    await bench.catalog.drop_copy(entry.id, "s1")
    need([c.store for c in await bench.catalog.copies(entry.id)] == ["s2", "s3"], "the copy is still there")
    need(await bench.catalog.at_key("s1", "f2") is None, "its key is still held")


@case("copies/digest")
async def _digest(bench: Bench) -> None:
    """A digest that is found later is kept for the version it is of, and never replaces one."""
    entry = await bench.commit(await bench.begin("f"), sha256="")
    await bench.catalog.set_digest(entry.id, 2, "cd" * 32)
    await bench.catalog.set_digest(entry.id, 1, "ab" * 32)
    await bench.catalog.set_digest(entry.id, 1, "ef" * 32)
    read = await bench.catalog.entry("f")
    need(read is not None and read.sha256 == "ab" * 32, f"it is {read}")


@case("copies/adopt")
async def _adopt(bench: Bench) -> None:
    """A file that a store holds comes into the tree where it lies, unless the path is taken."""
    copy = Copy("", "s1", "p/a/f", 1, "Whole", "tag", 33)
    entry = await bench.catalog.adopt("a/f", copy, mtime=5)
    need((entry.size, entry.mtime, entry.sha256, entry.version) == (33, 5, "", 1), f"adopted {entry}")
    need(await bench.catalog.copies(entry.id) == (replace(copy, entry=entry.id),), "its copy isn't there")
    await refused(Exists, bench.catalog.adopt("a/f", replace(copy, key="other"), mtime=5), "a path that is taken")
    await refused(Exists, bench.catalog.adopt("a", replace(copy, key="other"), mtime=5), "a directory's path")
    await refused(CloudmeshError, bench.catalog.adopt("b", copy, mtime=5), "a key that is taken")
    given = await bench.catalog.adopt("b", replace(copy, key="b"), mtime=5, sha256="cd" * 32, entry_id="d" * 16)
    need((given.id, given.sha256) == ("d" * 16, "cd" * 32), f"adopted {given}")
    need(len(await bench.catalog.work(bench.now)) == 2, "the mover doesn't look at them")
    need((await bench.catalog.totals()).bytes == 66, "bytes are miscounted")
