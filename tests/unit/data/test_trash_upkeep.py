"""What lies in the trash, and older contents, are kept like living files: verified, repaired, moved off stores."""

import asyncio

import pytest
from tests.unit.data.test_mover import all_known
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data.config import Match, PlacementRule
from cloudmesh.data.model import Copy
from cloudmesh.testing.directories.world import Fault, World

OLD, NEW = b"what it was " * 40, b"what it is"


async def kept(w: World, *, number: int = 0) -> dict[str, Copy]:
    """Copies of what lies in the trash, by store."""
    thing = (await w.catalog.trash(limit=10, versions=True))[number]
    return {copy.store: copy for copy in await w.catalog.copies(thing.entry.id)}


def key_in(w: World, copy: Copy) -> str:
    return copy.key.removeprefix("lab/")


async def trashed(w: World, how: str, path: str = "d/f") -> None:
    """Something in the trash whose content is OLD: deleted itself or with its directory, or written over."""
    await w.put(path, OLD)
    if how == "older":
        await w.put(path, NEW)
    else:
        await w.tree.delete(path if how == "deleted" else path.partition("/")[0], recursive=True)
    await w.settle()


async def restored(w: World, how: str, path: str = "d/f") -> bytes:
    if how == "older":
        _, (thing,) = await w.tree.versions(path)
        return await w.read(path, version=thing.entry.version)
    at = "back" if how == "deleted" else "back/f"
    await w.tree.restore((await w.catalog.trash(limit=10))[0].entry.id, "back")
    await w.settle()
    return await w.read(at)


async def verified(w: World) -> None:
    await w.use(verify_seconds=60)
    await asyncio.sleep(100)
    await w.settle()
    await w.use(verify_seconds=0)
    await w.settle()


WAYS = pytest.mark.parametrize("how", ["deleted", "with its directory", "older"])


async def entry_copies(w: World, how: str) -> dict[str, Copy]:
    """Copies of the file in the trash, however deep it lies."""
    if how != "with its directory":
        return await kept(w)
    found = [one for one in await w.catalog.rows() if not one.path and one.entry.kind == "File"]
    return {copy.store: copy for copy in found[0].copies}


@WAYS
@pytest.mark.parametrize("wrong", ["flipped", "lost", "foreign"])
@virtual(versions=2)
async def test_a_bad_copy_is_made_anew(w: World, how: str, wrong: str):
    await trashed(w, how)
    bad = (await entry_copies(w, how))["a"]
    if wrong == "flipped":
        w.flip("a", key_in(w, bad))
    elif wrong == "lost":
        w.lose("a", key_in(w, bad))
    else:
        w.place("a").put(bad.key, b"somebody else's")
    await verified(w)
    assert {store: copy.state for store, copy in (await entry_copies(w, how)).items()} == {"a": "Whole", "b": "Whole"}
    assert w.holders(OLD) == "ab" or how == "older"
    # the other one isn't needed any more
    w.lose("b", key_in(w, (await entry_copies(w, how))["b"]))
    assert await restored(w, how) == OLD
    assert (w.mover.done.repaired, w.mover.done.corrupt) == (1, wrong == "flipped")


@WAYS
@virtual(versions=2, trash_seconds=2000)
async def test_a_store_that_drains_is_rid_of_it(w: World, how: str):
    await trashed(w, how)
    await w.access("a", "Drain")
    await w.settle()
    assert w.objects("a", kept=True) == {}
    assert (await w.catalog.totals()).held.get("a", 0) == 0
    assert sorted(await entry_copies(w, how)) == ["b", "c"]
    await all_known(w)
    w.faults.down.add("b")
    await asyncio.sleep(100)
    if how != "older":
        await w.tree.restore((await w.catalog.trash(limit=10))[0].entry.id)
    await asyncio.sleep(10)
    assert await w.read("d/f", version=1) == OLD
    w.faults.down.clear()
    await w.back()
    await asyncio.sleep(2001)
    await w.settle()
    assert (OLD in w.objects("c", kept=True).values()) is (how != "older")


@virtual(stores="ab", trash_seconds=100_000)
async def test_a_copy_goes_only_after_proof_of_another(w: World):
    await trashed(w, "deleted")
    # nobody knows yet that the other one is lost
    w.lose("b", "d/f")
    w.faults.planned.append(Fault("b", "publish", times=-1))
    await w.access("a", "Drain")
    await asyncio.sleep(20)
    assert w.objects("a") == {"d/f": OLD}
    w.faults.clear()
    await asyncio.sleep(200)
    await w.settle()
    assert (w.holders(OLD), (await kept(w)).keys()) == ("b", {"b"})
    await w.access("a", "ReadWrite")
    assert await restored(w, "deleted") == OLD


ONLY = (
    PlacementRule("secret", Match(path="d/**"), prefer="Sequential", copies=2, only=("a", "d")),
    PlacementRule(prefer="Sequential", copies=1),
)


@WAYS
@virtual(stores="abcd", rules=ONLY, versions=2)
async def test_it_goes_where_the_rule_of_its_path_says(w: World, how: str):
    await trashed(w, how)
    assert sorted(await entry_copies(w, how)) == ["a", "d"]
    # with fewer places there are fewer copies, but none where the rule has none
    await w.access("a", "Drain")
    await asyncio.sleep(100)
    assert sorted(await entry_copies(w, how)) == ["d"]
    assert w.objects("b", kept=True) == w.objects("c", kept=True) == {}


@virtual(versions=2, trash_seconds=100_000)
async def test_other_rules_move_nothing_that_is_well(w: World):
    await trashed(w, "deleted")
    done = w.mover.done.written
    await w.use(rules=(PlacementRule(prefer="Sequential", copies=3, only=("a", "b", "c")),))
    await w.use(rules=(PlacementRule(prefer="Cheapest", copies=1),))
    await w.settle()
    assert (w.mover.done.written, sorted(await kept(w))) == (done, ["a", "b"])


@virtual(versions=2, trash_seconds=100_000)
async def test_what_nobody_can_mend_is_told_and_waits(w: World):
    await trashed(w, "older")
    copies = await kept(w)
    for store in "ab":
        w.flip(store, key_in(w, copies[store]))
    await verified(w)
    assert {copy.state for copy in (await kept(w)).values()} == {"Corrupt"}
    # it keeps nobody busy
    totals = await w.catalog.totals()
    assert (totals.states, totals.pending) == ({"Corrupt": 2}, 0)
    # one is back from somebody's backup
    held = w.place("b").objects[copies["b"].key]
    w.place("b").put(copies["b"].key, OLD, held.object.attributes)
    await asyncio.sleep(4000)
    await w.settle()
    assert {copy.state for copy in (await kept(w)).values()} == {"Whole"}
    assert await restored(w, "older") == OLD


@virtual(versions=2, trash_seconds=100_000)
async def test_somebody_elses_content_never_becomes_that_of_something_in_the_trash(w: World):
    await trashed(w, "deleted")
    for store in "ab":
        w.place(store).put("lab/d/f", b"somebody else's in " + store.encode())
    await verified(w)
    await asyncio.sleep(4000)
    assert {copy.state for copy in (await kept(w)).values()} == {"Stale"}
    assert w.objects("a")["d/f"] == b"somebody else's in a"


def test_death_during_a_repair_and_a_move(tmp_path):
    async def mended(w: World) -> None:
        await w.access("a", "Drain")
        await w.use(verify_seconds=60)
        await asyncio.sleep(100)
        await w.settle()
        await w.use(verify_seconds=0)

    async def act(w: World, number: int) -> bool:
        await w.use(versions=2, trash_seconds=100_000)
        await trashed(w, "older")
        w.lose("b", key_in(w, (await kept(w))["b"]))
        dead = await died(w, number, mended(w))
        if dead:
            await w.restart()
            await w.back()
            await mended(w)
        assert sorted(await kept(w)) == ["b", "c"]
        assert w.objects("a", kept=True) == {}
        assert await restored(w, "older") == OLD
        await all_known(w)
        return dead

    assert until_it_lives(act, tmp_path, 100) > 10
