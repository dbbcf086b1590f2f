"""Objects get the names that their files have: at leisure, one after the other, and never is one lost on the way."""

import asyncio

import pytest
from tests.unit.data.test_mover import all_known
from tests.unit.data.virtual import died, until_it_lives, virtual

from cloudmesh.data import settling
from cloudmesh.data.config import PlacementRule
from cloudmesh.data.hands import Hands
from cloudmesh.data.leisure import AGAIN, WAITING, Leisure
from cloudmesh.data.model import MICROS
from cloudmesh.data.recovery import Recovery
from cloudmesh.data.tree import Tree
from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.testing.directories.model import snapshot
from cloudmesh.testing.directories.world import EPOCH, Fault, World

OLD, NEW = b"old content " * 50, b"new content, longer " * 60


@virtual()
async def test_after_a_rename(w: World):
    await w.put("d/f", OLD)
    await w.put("d/g", NEW)
    await w.tree.move("d", "e")
    await w.settle()
    assert w.objects("a") == w.objects("b") == {"e/f": OLD, "e/g": NEW}
    assert await w.read("e/f") == OLD
    await all_known(w)


@virtual(settle_names=False)
async def test_never(w: World):
    await w.put("f", OLD)
    await w.tree.move("f", "g")
    await w.settle()
    await asyncio.sleep(5000)
    assert w.objects("a") == {"f": OLD}


@virtual()
async def test_two_that_changed_names(w: World):
    await w.put("f", OLD)
    await w.put("g", NEW)
    for source, target in (("f", "h"), ("g", "f"), ("h", "g")):
        await w.tree.move(source, target)
    await asyncio.sleep(3000)
    assert w.objects("a") == w.objects("b") == {"f": NEW, "g": OLD}
    await all_known(w)


@virtual()
async def test_what_lies_in_the_trash_goes_aside(w: World):
    await w.put("f", OLD)
    gone = await w.tree.delete("f")
    await w.put("f", NEW)
    await asyncio.sleep(3000)
    assert w.objects("a") == {"f": NEW}
    back = await w.tree.restore(gone.id, "g")
    assert back.id == gone.id
    assert await w.read("g") == OLD
    await asyncio.sleep(3000)
    assert w.objects("a") == {"f": NEW, "g": OLD}
    await all_known(w)


@virtual()
async def test_somebody_elses_object_under_the_new_name_stays(w: World):
    await w.put("f", OLD)
    await w.settle()
    w.place("a").put("lab/g", b"a stranger's")
    await w.tree.move("f", "g")
    await w.settle()
    assert w.place("a").objects["lab/g"].content == b"a stranger's"
    assert await w.read("g") == OLD


@virtual()
async def test_what_somebody_else_writes_under_the_new_name_meanwhile_stays(w: World):
    await w.put("f", OLD)
    await w.settle()
    await w.tree.move("f", "g")
    place, written = w.place("a"), []
    before = place.hook

    async def hook(moment, operation, key):
        if (moment, operation) == ("before", "copy") and not written:
            written.append(key)
            place.put("lab/g", b"a stranger's")
        await before(moment, operation, key)

    place.hook = hook
    await asyncio.sleep(5000)
    assert written == ["lab/f"]
    assert place.objects["lab/g"].content == b"a stranger's"
    assert await w.read("g") == OLD
    assert w.objects("b") == {"g": OLD}


class Dumb:
    """A store that can't copy by itself."""

    def __init__(self, store):
        self._store = store

    def __getattr__(self, name):
        if name == "copy":
            raise AttributeError(name)
        return getattr(self._store, name)


@virtual()
async def test_where_the_store_cannot_copy_only_small_ones(w: World, monkeypatch):
    monkeypatch.setattr(settling, "SMALL", len(OLD))
    for store in "ab":
        w.member(store).store = Dumb(w.member(store).store)
    await w.put("f", OLD)
    await w.put("g", NEW)
    await w.tree.mkdir("d")
    await w.tree.move("f", "d/f")
    await w.tree.move("g", "d/g")
    await asyncio.sleep(3000)
    assert w.objects("a") == {"d/f": OLD, "g": NEW}
    await all_known(w)


@pytest.mark.parametrize("operation", ["copy", "delete", "stat"])
@pytest.mark.parametrize("moment", ["before", "after"])
@virtual()
async def test_calls_that_fail(w: World, operation: str, moment: str):
    await w.put("f", OLD)
    await w.settle()
    w.faults.planned.append(Fault("a", operation, moment, key="lab/"))
    await w.tree.move("f", "g")
    await w.settle()
    assert await w.read("g") == OLD
    await asyncio.sleep(3000)
    await w.settle()
    assert w.objects("a") == w.objects("b") == {"g": OLD}
    await all_known(w)


def test_death_at_every_call(tmp_path):
    async def at(w: World, number: int) -> bool:
        await w.put("f", OLD)
        await w.settle()
        await w.tree.move("f", "g")
        dead = await died(w, number, asyncio.sleep(30))
        assert w.holders(OLD) == "ab"
        await w.restart()
        await w.back()
        # in the middle of it the stores alone say what is what
        await w.journal.flush()
        anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
        assert await anew.entry("g") is not None
        anew.vanish()
        await w.settle()
        assert await w.read("g") == OLD
        await asyncio.sleep(3000)
        await w.settle()
        assert w.objects("a") == w.objects("b") == {"g": OLD}
        await all_known(w)
        return dead

    # thirty seconds have the effects of looks at the stores too
    assert 12 < until_it_lives(at, tmp_path, 60) < 40


@virtual()
async def test_a_rebuild_afterwards(w: World):
    await w.put("d/f", OLD)
    await w.tree.move("d", "e")
    await w.settle()
    await w.journal.flush()
    anew, _ = await w.rebuilt(w.folder / "anew.sqlite")
    assert await snapshot(anew) == await snapshot(w.catalog)
    anew.vanish()


@virtual()
async def test_who_reads_meanwhile_reads_on(w: World):
    await w.use(rules=(w.config.rules[0].__class__(prefer="Sequential", copies=1),))
    content = b"0123456789" * 400_000 + b"end" * 300_000
    await w.put("f", content)
    await w.settle()
    _, chunks = await w.tree.read("f", start=1)
    first = await anext(chunks)
    copy = (await w.copies("f"))["a"]
    await w.tree.move("f", "g")
    await w.settle()
    assert (await w.copies("g"))["a"].key != copy.key
    assert first + b"".join([chunk async for chunk in chunks]) == content[1:]
    # who looked before and reads after
    await w.tree.move("g", "h")
    reading = [asyncio.create_task(w.read("h")) for _ in range(5)]
    assert set(await asyncio.gather(*reading)) == {content}


@virtual()
async def test_a_write_meanwhile_wins(w: World):
    await w.put("f", OLD)
    await w.settle()
    for number in range(40):
        await w.tree.move("f" if number % 2 == 0 else "g", "g" if number % 2 == 0 else "f")
        await asyncio.sleep(0.01 * number)
        name = "g" if number % 2 == 0 else "f"
        content = b"%d" % number * 30
        try:
            await w.put(name, content)
        except CloudmeshError:
            continue
        assert await w.read(name) == content
    await w.settle()
    await asyncio.sleep(1300)
    await w.settle()
    assert w.objects("a") == {"f": content}
    await all_known(w)


def test_what_is_too_much_is_put_off_to_times_of_its_own():
    async def act(entry_id: str) -> None:
        raise NotImplementedError

    async def main() -> None:
        leisure = Leisure(act)
        now = EPOCH
        assert {leisure.offer(f"{n}", now) for n in range(WAITING)} == {now + AGAIN}
        later = [leisure.offer(f"more{n}", now) for n in range(100)]
        assert len(set(later)) == 100
        assert max(later) <= now + AGAIN + 10 * MICROS
        # one that waits already isn't taken twice
        assert leisure.offer("0", now) == now + AGAIN

    asyncio.run(main())


@virtual(stores="a", rules=(PlacementRule(copies=1),))
@pytest.mark.parametrize("stalled", [False, True])
async def test_a_slow_copy_beside_another_gateway(w: World, monkeypatch: pytest.MonkeyPatch, stalled: bool):
    place, other = w.place("a"), Recovery(Tree(w.catalog, w.mesh, w.journal, now=w.now, stir=w._stir))
    own = place.hook

    async def slow(moment: str, operation: str, key: str) -> None:
        await own(moment, operation, key)
        if (moment, operation) == ("after", "copy"):
            await asyncio.sleep(300)

    async def never(*args: object) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(place, "hook", slow)
    if stalled:
        monkeypatch.setattr(Hands, "_renew", never)
    await w.put("f", OLD)
    await w.tree.move("f", "g")
    for _ in range(40):
        await asyncio.sleep(15)
        await other.run(w.now())
    assert await w.read("g") == OLD
    assert w.objects("a") == ({"f": OLD} if stalled else {"g": OLD})
