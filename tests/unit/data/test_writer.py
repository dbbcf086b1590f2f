"""Writes that fail, break off, meet each other, and die: old content or new content, never neither and never a mix."""

import asyncio
import itertools

import pytest
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data.catalog.ports import ABSENT
from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.errors import Changed, Exists, InvalidName, Weak
from cloudmesh.data.placement import never_written
from cloudmesh.data.upload import SourceFailed
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, Transient
from cloudmesh.testing.directories.world import Fault, World, chunked

OLD, NEW, THIRD = b"old content " * 50, b"new content, longer " * 60, b"third " * 10
WAYS = ("fine", "before", "after", "stat", "full")
"""How a store answers a write: well; not at all; done, and the answer lost; the same and silent when asked; refused."""


def spoil(w: World, store: str, way: str) -> None:
    if way in ("before", "after", "stat"):
        w.faults.planned.append(Fault(store, "publish", "before" if way == "before" else "after", key="lab/f"))
    if way == "stat":
        w.faults.planned.append(Fault(store, "stat", key="lab/f", times=3))
    if way == "full":
        w.place(store).room = w.place(store).used


@pytest.mark.parametrize("least", [1, 2])
@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize(("one", "two"), list(itertools.product(WAYS, WAYS)))
def test_write_whose_stores_fail(tmp_path, one, two, fresh, least):
    @virtual("ab", rules=(PlacementRule(prefer="Sequential", copies=2, min_copies=least),))
    async def run(w: World):
        if not fresh:
            await w.put("f", OLD)
        spoil(w, "a", one)
        spoil(w, "b", two)
        try:
            await w.put("f", NEW)
            acknowledged = True
        except CloudmeshError:
            acknowledged = False
        if not acknowledged and not fresh and "stat" not in (one, two):
            assert await w.read("f") in (OLD, NEW)
        w.faults.clear()
        for name in w.names:
            w.place(name).room = None
        await w.back()
        await w.settle()
        there = {one.path for one in await w.tree.walk("")}
        if acknowledged:
            assert await w.read("f") == NEW
        elif not fresh:
            assert await w.read("f") in (OLD, NEW)
        if there:
            assert w.holders(await w.read("f")) == "ab"
        else:
            assert fresh
            assert not w.objects("a")
            assert not w.objects("b")
        if "fine" in (one, two) and least == 1:
            assert acknowledged
        # and anybody can write again
        await w.put("f", THIRD)
        await w.settle()
        assert (w.holders(THIRD), w.holders(OLD), w.holders(NEW)) == ("ab", "", "")

    run(tmp_path)


@pytest.mark.parametrize("fresh", [False, True])
def test_death_at_every_call_of_a_write(tmp_path, fresh):
    outcomes = set()

    async def at(w: World, number: int) -> bool:
        """Whether the process died in the write at that call."""
        if not fresh:
            await w.put("f", OLD)
        await w.settle()
        dead = await died(w, number, w.put("f", NEW))
        await w.restart()
        await w.back()
        await w.settle()
        there = [one.path for one in await w.tree.walk("")]
        content = await w.read("f") if there else None
        assert content in ((None, NEW) if fresh else (OLD, NEW))
        assert dead or content == NEW
        if content is not None:
            assert w.holders(content) == "ab"
        assert len(w.objects("a")) + len(w.objects("b")) == (2 if there else 0)
        assert w.objects("c") == {}
        outcomes.add(content)
        return dead

    assert 2 < until_it_lives(at, tmp_path, 200) < 100
    assert outcomes == {None if fresh else OLD, NEW}


@pytest.mark.parametrize("fresh", [False, True])
@virtual()
async def test_content_that_breaks_off(w: World, fresh: bool):
    if not fresh:
        await w.put("f", OLD)

    async def broken():
        yield b"half of it"
        raise ConnectionResetError("the client went away")

    with pytest.raises(SourceFailed):
        await w.tree.put("f", broken(), size=1000)
    with pytest.raises(InvalidRequest):
        await w.tree.put("f", chunked(NEW), size=len(NEW) + 1)
    with pytest.raises(InvalidRequest):
        await w.tree.put("f", chunked(NEW), size=len(NEW), sha256="0" * 64)
    assert await w.catalog.intents(until=1 << 62) == []
    if fresh:
        assert await w.tree.walk("") == []
        assert w.objects("a") == {}
    else:
        assert await w.read("f") == OLD
    await w.put("f", NEW)
    assert await w.read("f") == NEW


@virtual()
async def test_writer_that_is_cancelled_blocks_nobody(w: World):
    async def endless():
        while True:
            yield b"x" * 100
            await asyncio.sleep(1)

    task = asyncio.create_task(w.tree.put("f", endless(), size=1 << 20))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await w.put("f", NEW)
    assert await w.read("f") == NEW


@virtual()
async def test_two_writers(w: World):
    contents = [b"%d " % n * 100 for n in range(10)]
    results = await asyncio.gather(*(w.put("f", c) for c in contents), return_exceptions=True)
    written = [r for r in results if not isinstance(r, BaseException)]
    assert len(written) == 10
    await w.settle()
    last = max(written, key=lambda entry: entry.version)
    assert (await w.tree.stat("f")).sha256 == last.sha256
    assert w.holders(await w.read("f")) == "ab"
    # of those that all want to be the first, one is
    results = await asyncio.gather(*(w.put("g", c, if_version=ABSENT) for c in contents), return_exceptions=True)
    assert sum(isinstance(r, Exists) for r in results) == 9
    version = (await w.tree.stat("g")).version
    results = await asyncio.gather(*(w.put("g", c, if_version=version) for c in contents), return_exceptions=True)
    assert sum(isinstance(r, Changed) for r in results) == 9


@virtual()
async def test_a_writer_waits_for_a_slow_one_but_not_for_ever(w: World):
    async def slow():
        yield b"x"
        await asyncio.sleep(60)

    task = asyncio.create_task(w.tree.put("f", slow(), size=1))
    await asyncio.sleep(1)
    with pytest.raises(Conflict, match="being written"):
        await w.put("f", NEW)
    await task
    await w.put("f", NEW)


@virtual()
async def test_reading_while_it_is_overwritten(w: World):
    await w.put("f", OLD)
    seen = set()

    async def read_on():
        for _ in range(200):
            seen.add(await w.read("f"))
            await asyncio.sleep(0.01)

    async def write_on():
        for number in range(20):
            await w.put("f", OLD if number % 2 else NEW)
            await asyncio.sleep(number % 3 / 10)

    await asyncio.gather(read_on(), read_on(), write_on())
    assert seen == {OLD, NEW}
    await w.settle()
    assert w.holders(OLD) == "ab"


@virtual()
async def test_directory_renamed_and_deleted_while_files_are_written(w: World):
    await w.put("d/there", OLD)

    async def slow(content):
        yield content[:3]
        await asyncio.sleep(5)
        yield content[3:]

    tasks = [
        asyncio.create_task(w.tree.put("d/there", slow(NEW), size=len(NEW))),
        asyncio.create_task(w.tree.put("d/new", slow(THIRD), size=len(THIRD))),
    ]
    await asyncio.sleep(1)
    await w.tree.move("d", "e")
    await asyncio.gather(*tasks)
    assert (await w.read("e/there"), await w.read("e/new")) == (NEW, THIRD)
    task = asyncio.create_task(w.tree.put("e/more", slow(OLD), size=len(OLD)))
    await asyncio.sleep(1)
    gone = await w.tree.delete("e", recursive=True)
    with pytest.raises(Changed, match="deleted while it was written"):
        await task
    assert await w.tree.walk("") == []
    await w.tree.restore(gone.id)
    assert (await w.read("e/there"), await w.read("e/more")) == (NEW, OLD)
    await w.settle()
    assert [w.holders(c) for c in (OLD, NEW, THIRD)] == ["ab"] * 3


@virtual()
async def test_file_deleted_while_it_is_written_anew_is_not_acknowledged(w: World):
    entry = await w.put("f", OLD)

    async def slow():
        yield NEW[:3]
        await asyncio.sleep(5)
        yield NEW[3:]

    task = asyncio.create_task(w.tree.put("f", slow(), size=len(NEW)))
    await asyncio.sleep(1)
    await w.tree.delete("f")
    with pytest.raises(Changed, match="deleted while it was written"):
        await task
    assert await w.tree.walk("") == []
    assert [(t.path, t.entry.size) for t in await w.tree.trash()] == [("f", len(NEW))]
    await w.put("f", THIRD)
    await w.tree.delete("f")
    await w.tree.restore(entry.id)
    await w.settle()
    assert await w.read("f") == NEW
    assert len(w.holders(NEW)) == 2


@virtual()
async def test_name_is_free_though_a_dead_write_waits_for_a_store(w: World):
    w.faults.planned.append(Fault("a", "publish", "after", error=None))

    async def put():
        with pytest.raises(asyncio.CancelledError):
            await w.put("f", OLD)

    task = asyncio.create_task(put())
    await asyncio.sleep(1)
    w.faults.down.add("a")
    await w.restart()
    await asyncio.sleep(30)
    task.cancel()
    await w.put("f", NEW)
    assert await w.read("f") == NEW
    w.faults.clear()
    await w.back()
    await w.settle()
    assert await w.read("f") == NEW
    assert w.holders(OLD) == ""
    assert len(w.objects("a")) + len(w.objects("b")) + len(w.objects("c")) == 2


@virtual()
async def test_store_that_hangs_is_left_behind(w: World):
    w.faults.planned.append(Fault("a", "publish", error=None, key="lab/f"))
    await w.put("f", NEW)
    assert await w.read("f") == NEW
    await w.settle()
    assert len(w.holders(NEW)) == 2


@virtual()
async def test_clock_that_is_set_ends_no_write(w: World):
    async def slow():
        yield NEW[:3]
        await asyncio.sleep(40)
        yield NEW[3:]

    task = asyncio.create_task(w.tree.put("f", slow(), size=len(NEW)))
    await asyncio.sleep(1)
    w.skew = 10**10
    await task
    assert await w.read("f") == NEW
    w.skew = -(10**10)
    await w.put("g", OLD)
    await w.settle()
    assert (w.holders(OLD), w.holders(NEW)) == ("ab", "ab")


@virtual()
async def test_version_of_a_failed_write_never_means_another_content(w: World):
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=2, min_copies=2),))
    await w.put("f", OLD)
    w.faults.planned.append(Fault("a", "publish", "after", key="lab/f"))
    w.faults.planned.append(Fault("a", "stat", key="lab/f", times=-1))
    w.faults.planned.append(Fault("b", "publish", key="lab/f"))
    with pytest.raises(Transient):
        await w.put("f", NEW)
    w.faults.down.add("a")
    w.faults.planned.clear()
    await asyncio.sleep(100)
    entry = await w.put("f", THIRD)
    there = w.place("a").objects["lab/f"]
    assert there.content == NEW
    assert int(there.object.attributes["version"]) < entry.version
    await w.journal.flush()
    w.faults.clear()
    anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
    copies = {c.store: c.state for c in await anew.copies(entry.id)}
    assert copies["a"] == "Stale"
    anew.vanish()


@virtual()
async def test_put_begins_though_the_mover_is_dropping(w: World):
    """A copy that is just being removed is none that a failed write may fall back on."""
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3, min_copies=2),))
    await w.put("f", OLD)
    w.faults.planned.append(Fault("c", "delete", error=None, key="lab/f"))
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=2, min_copies=2),))
    await asyncio.sleep(2)
    assert "c:Deleting" in await w.states("f")
    w.faults.planned += [Fault("b", "publish", key="lab/f"), Fault("c", "publish", key="lab/f")]
    with pytest.raises(Transient):
        await w.put("f", NEW)
    await w.restart()
    w.faults.clear()
    await w.back()
    await w.settle()
    assert await w.read("f") in (OLD, NEW)
    assert w.holders(await w.read("f")) == "ab"


LONG = "n" * 300


@virtual([StoreConfig("a", "memory"), StoreConfig("b", "memory"), StoreConfig("c", "memory")])
async def test_names(w: World):
    for name in ("", "/", "a/../b", ".cloudmesh/store.json", ".cloudmesh", "x\0y", "a//b", "n" * 1025):
        with pytest.raises(InvalidName):
            await w.put(name, OLD)
    for name in ("ü", "u\u0308", "a.", "A", LONG, "deep/" * 100 + "f", "%0A", "new\nline", "d/.cloudmesh/x"):
        await w.put(name, OLD)
        assert await w.read(name) == OLD
    assert await w.read("u\u0308") == await w.read("ü")
    await w.put("empty", b"")
    assert await w.read("empty") == b""
    with pytest.raises(InvalidName):
        await w.put("d", OLD)
    with pytest.raises(InvalidName):
        await w.put("A/below", OLD)


@virtual([StoreConfig("a", "memory")], rules=(PlacementRule(prefer="Sequential", copies=1),))
async def test_a_name_without_room_for_an_id_is_written_again_after_its_deletion(w: World):
    name = "n" * 1020
    await w.put(name, OLD)
    await w.tree.delete(name)
    await w.put(name, NEW)
    assert await w.read(name) == NEW
    await w.settle()
    assert (w.objects("a"), w.mover.done.failed) == ({name: NEW}, 0)


WEAK_ONE, WEAK_TWO = (StoreConfig(name, "memory", settings={"conditional": "None"}) for name in ("weak", "weaker"))


@virtual([WEAK_ONE, WEAK_TWO])
async def test_a_refusal_names_stores_that_are_weak_and_the_field(w: World):
    with pytest.raises(Weak, match=r"weak, weaker can't tie a write .* only if the rule says `weakCopies: Count`"):
        await w.put("f", NEW)
    assert never_written(w.config.rules, w.mesh.views())
    await w.use(rules=(PlacementRule(prefer="Sequential", weak_copies="Count"),))
    assert not never_written(w.config.rules, w.mesh.views())
    await w.put("f", NEW)
    assert await w.read("f") == NEW


@virtual([WEAK_ONE, WEAK_TWO, StoreConfig("strong", "memory")])
async def test_while_the_strong_store_is_away_a_refusal_is_for_now(w: World):
    await w.put("f", OLD)
    assert sorted(await w.copies("f")) == ["strong", "weak"]
    w.faults.down.add("strong")
    await asyncio.sleep(60)
    with pytest.raises(Transient, match=r"`weakCopies: Count` \(strong: it doesn't answer"):
        await w.put("g", NEW)


# -- a chosen store fails while others could take its place


LARGE = b"0123456789abcdef" * (3 << 16)


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("way", ["before", "full"])
def test_a_write_goes_on_elsewhere_when_its_strong_store_fails(tmp_path, way, fresh):
    @virtual([StoreConfig("a", "memory"), WEAK_ONE, StoreConfig("c", "memory")])
    async def run(w: World):
        if not fresh:
            await w.put("f", OLD)
        spoil(w, "a", way)
        entry = await w.put("f", NEW)
        assert await w.read("f") == NEW
        assert {s for s, copy in (await w.copies("f")).items() if copy.state == "Whole"} == {"weak", "c"}
        assert entry.version == (1 if fresh else 2)
        w.faults.clear()
        w.place("a").room = None
        await w.back()
        await w.settle()
        # and then it lies where the rule wants it
        assert (w.objects("a"), w.objects("weak"), w.objects("c")) == ({"f": NEW}, {"f": NEW}, {})

    run(tmp_path)


@virtual([StoreConfig("a", "memory"), WEAK_ONE, StoreConfig("c", "memory")])
async def test_what_is_too_large_to_keep_is_read_back_from_the_store_that_has_it(w: World):
    spoil(w, "a", "before")
    await w.put("f", LARGE, pieces=9)
    assert await w.read("f") == LARGE
    assert w.holders(LARGE) == "weakc"


@virtual([StoreConfig("a", "memory"), StoreConfig("b", "memory"), StoreConfig("c", "memory")], rules=(
    PlacementRule(prefer="Sequential", copies=2, min_copies=2),
))  # fmt: skip
async def test_no_write_is_acknowledged_with_fewer_copies_than_the_least(w: World):
    spoil(w, "a", "before")
    spoil(w, "c", "before")
    with pytest.raises(Transient):
        await w.put("f", LARGE)
    assert [one.path for one in await w.tree.walk("")] == []
    await w.back()
    await w.settle()
    assert not any(w.objects(name) for name in "abc")
    spoil(w, "b", "before")
    await w.put("f", LARGE)
    assert w.holders(LARGE) == "ac"


@virtual("abc", rules=(PlacementRule(prefer="Sequential", copies=1),))
async def test_a_large_content_that_is_gone_is_asked_for_again(w: World):
    w.faults.down.add("a")
    with pytest.raises(Transient, match="and b can take it: send it again"):
        await w.put("f", LARGE)
    await w.put("f", LARGE)
    assert w.holders(LARGE) == "b"


@virtual([StoreConfig("a", "memory"), WEAK_ONE, StoreConfig("c", "memory")])
async def test_where_what_was_written_first_can_not_be_read_back_nothing_is_acknowledged(w: World):
    spoil(w, "a", "before")
    w.faults.planned.append(Fault("weak", "read", key="lab/f"))
    with pytest.raises(CloudmeshError):
        await w.put("f", LARGE)
    await w.back()
    await w.settle()
    assert [one.path for one in await w.tree.walk("")] == []
    assert not any(w.objects(name) for name in w.names)
    await w.put("f", LARGE)


def test_death_at_every_call_of_a_write_that_goes_on_elsewhere(tmp_path):
    outcomes = set()

    async def at(w: World, number: int) -> bool:
        await w.settle()
        spoil(w, "a", "before")
        dead = await died(w, number, w.put("f", NEW))
        w.faults.clear()
        await w.restart()
        await w.back()
        await w.settle()
        there = [one.path for one in await w.tree.walk("")]
        assert there == (["f"] if there else [])
        assert sum(len(w.objects(name)) for name in w.names) == (2 if there else 0)
        assert dead or there
        outcomes.add(bool(there))
        return dead

    stores = [StoreConfig("a", "memory"), WEAK_ONE, StoreConfig("c", "memory")]
    assert until_it_lives(at, tmp_path, 100, stores) > 5
    assert outcomes == {True, False}


@virtual("a", rules=(PlacementRule(copies=1),))
async def test_a_long_write_keeps_its_intent_while_the_catalogue_is_away_for_a_moment(w: World):
    renew, asked = w.catalog.renew, []

    async def unsteady(intent_id: str, until: int) -> None:
        asked.append(until)
        if len(asked) in (1, 3):
            raise Transient("the database is away")
        await renew(intent_id, until)

    async def content():
        for _ in range(3):
            yield b"x"
            await asyncio.sleep(45)
            # nobody may take it for one that was left behind
            assert await w.catalog.intents(until=w.now()) == []

    w.catalog.renew = unsteady
    await w.tree.put("f", content(), size=3)
    assert len(asked) == 6
    assert await w.read("f") == b"xxx"
