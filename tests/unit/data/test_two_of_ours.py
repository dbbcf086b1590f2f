"""A write and the mover at one file's copy in a store that looks and then acts: neither undoes the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.recovery import Recovery
from cloudmesh.engine.errors import Transient
from cloudmesh.testing.directories.world import Fault, World

ONE, TWO, THREE = b"one" * 100, b"two" * 100, b"three" * 100
WEAK = StoreConfig("w", "memory", settings={"conditional": "None"})
STORES = [StoreConfig("a", "memory"), WEAK]
THREE_STORES = [StoreConfig("a", "memory"), StoreConfig("journal", "memory"), WEAK]


def rules(copies: int = 1, only: tuple[str, ...] = ()) -> tuple[PlacementRule, ...]:
    return (PlacementRule(prefer="Sequential", copies=copies, min_copies=1, weak_copies="Count", only=only),)


class Held:
    """The first call of an operation at a key of the weak store, which has looked, waits until it is let go."""

    def __init__(self, w: World, operation: str, key: str = "lab/f") -> None:
        self.waits, self.gate, self.error = asyncio.Event(), asyncio.Event(), Transient("")
        place = w.place("w")
        before, self.fails = place.hook, False

        async def hook(moment: str, called: str, at: str) -> None:
            first = not self.waits.is_set() and (moment, called, at) == ("before", operation, key)
            if first:
                self.waits.set()
                await self.gate.wait()
                if self.fails:
                    raise Transient("the connection broke")
            assert before is not None
            await before(moment, called, at)  # type: ignore[arg-type]

        place.hook = hook

    async def come(self) -> None:
        async with asyncio.timeout(900):
            await self.waits.wait()

    def go(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.gate.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(900):
        while not condition():
            await asyncio.sleep(1)


async def all_well(w: World, content: bytes, store: str) -> None:
    """The content is there, under its own name, and nothing else of the file."""
    assert await w.read("f") == content
    await until(lambda: w.objects(store) == {"f": content})
    await w.settle()
    assert await w.states("f") == f"{store}:Whole"
    assert await w.catalog.intents(until=1 << 62) == []
    assert await w.catalog.trash(versions=True) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_goes_on_to_where_a_copy_is_being_removed(tmp_path, fails):
    @virtual(STORES, rules=rules(only=("w",)))
    async def run(w: World):
        await w.put("f", ONE)
        removing = Held(w, "delete")
        # it belongs to a now
        await w.use(rules=rules())
        await removing.come()
        w.faults.planned.append(Fault("a", "publish", key="lab/f"))
        await w.put("f", TWO)
        removing.go(fails=fails)
        await all_well(w, TWO, "a")
        assert w.objects("w") == {}

    run(tmp_path)


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_to_where_a_copy_is_being_removed(tmp_path, fails):
    @virtual(STORES, rules=rules(only=("w",)))
    async def run(w: World):
        await w.put("f", ONE)
        removing = Held(w, "delete")
        await w.use(rules=rules())
        await removing.come()
        await w.use(rules=rules(only=("w",)))
        await w.put("f", TWO)
        removing.go(fails=fails)
        await all_well(w, TWO, "w")
        assert w.objects("a") == {}

    run(tmp_path)


async def copied_while_written(w: World) -> Held:
    """The mover is about to publish the second content in the weak store, where the third was just acknowledged."""
    await w.put("f", ONE)
    w.faults.down.add("w")
    await asyncio.sleep(30)
    await w.put("f", TWO)
    copying = Held(w, "publish")
    w.faults.down.clear()
    await copying.come()
    # the mover has read all of it
    w.faults.down.add("a")
    w.member("a").told("Unknown", "away")
    await w.put("f", THREE)
    return copying


@pytest.mark.parametrize("fails", [False, True])
def test_a_write_to_where_a_copy_is_being_made(tmp_path, fails):
    @virtual(THREE_STORES, rules=rules(copies=2, only=("a", "w")))
    async def run(w: World):
        copying = await copied_while_written(w)
        copying.go(fails=fails)
        await asyncio.sleep(5)
        w.faults.down.clear()
        await w.back()
        assert await w.read("f") == THREE
        await until(lambda: w.objects("w") == {"f": THREE} and w.objects("a") == {"f": THREE})
        assert await w.states("f") == "a:Whole w:Whole"
        assert await w.catalog.trash(versions=True) == []

    run(tmp_path)


@virtual(THREE_STORES, rules=rules(copies=2, only=("a", "w")))
async def test_a_copy_of_a_mover_that_died_takes_no_place_of_what_was_written(w: World):
    await copied_while_written(w)
    (intent,) = await w.catalog.intents(until=1 << 62)
    held = await w.catalog.copies(intent.entry)
    # it had published its copy
    attributes = {"id": intent.entry, "version": "2", "write": intent.id}
    w.place("w").put(intent.targets[0].key, TWO, attributes)
    w.tree.writer.copying.clear()
    assert await Recovery(w.tree).run(1 << 62) == 0
    assert await w.catalog.copies(intent.entry) == held
    assert await w.read("f") == THREE
    left = await w.catalog.at_key("w", intent.targets[0].key)
    assert left is not None
    assert (left.state, left.entry != intent.entry) == ("Deleting", True)
