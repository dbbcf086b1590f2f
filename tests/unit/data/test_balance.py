"""Full stores give files to empty ones: only by rules that balance, slowly, and never back."""

import asyncio

import pytest
from tests.unit.data.test_mover import all_known
from tests.unit.data.virtual import virtual

from cloudmesh.data.balance import Shift, shift
from cloudmesh.data.config import PlacementRule, StoreConfig
from cloudmesh.data.placement import Facts, StoreView
from cloudmesh.data.stores.ports import StoreInfo
from cloudmesh.testing.directories.world import World

STRONG = StoreInfo("memory", "Full")
MIB = 1 << 20
BALANCED = PlacementRule(copies=1)


def view(name: str, used: int, room: int | None = 1000, **more) -> StoreView:
    up = more.pop("up", True)
    return StoreView(StoreConfig(name, "memory", capacity=room, **more), STRONG, up, used)


def wanted(*views: StoreView, size: int = 10, holding: str = "a", rule: PlacementRule = BALANCED) -> Shift | None:
    return shift(Facts("f", size), (rule,), views, 0, frozenset(holding))


def test_from_the_full_to_the_empty():
    assert wanted(view("a", 800), view("b", 100)) == Shift("a", "b")
    assert wanted(view("a", 800), view("b", 300), view("c", 100)) == Shift("a", "c")
    two = PlacementRule(copies=2)
    assert wanted(view("a", 500), view("b", 800), view("c", 100), holding="ab", rule=two) == Shift("b", "c")


@pytest.mark.parametrize(
    ("views", "more"),
    [
        ((view("a", 400), view("b", 310)), {}),
        ((view("a", 100), view("b", 800)), {}),
        ((view("a", 800), view("b", 100, up=False)), {}),
        ((view("a", 800), view("b", 100, access="ReadOnly")), {}),
        ((view("a", 800), view("b", 100, access="Drain")), {}),
        ((view("a", 800), view("b", 100)), {"rule": PlacementRule(copies=1, but=("b",))}),
        # it would be as full as the other one is now
        ((view("a", 800), view("b", 100)), {"size": 400}),
        # a copy too near is no better
        ((view("a", 800, domain="x"), view("b", 100, domain="y"), view("c", 300, domain="y")),
         {"rule": PlacementRule(copies=2, spread="Provider"), "holding": "ac", "size": 1}),
    ],
)  # fmt: skip
def test_nothing_moves(views, more):
    found = wanted(*views, **more)
    assert found is None or found == Shift("c", "b")


def test_room_by_share_or_by_bytes():
    assert wanted(view("a", 400, 500), view("b", 500, 5000)) == Shift("a", "b")
    assert wanted(view("a", 90 * MIB, None), view("b", 10 * MIB, None), size=MIB) == Shift("a", "b")
    assert wanted(view("a", 60 * MIB, None), view("b", 0, None), size=MIB) is None
    assert wanted(view("a", 900 * MIB, None), view("b", 800 * MIB, None), size=MIB) is None


def test_never_back():
    """However sizes fall: a file that moved isn't wanted back by the stores as they then are."""
    for size in (1, 10, 50, 99):
        for used in range(0, 1000, 50):
            for other in range(0, 1000, 50):
                views = view("a", used), view("b", other)
                if wanted(*views, size=size) is not None:
                    moved = view("a", used - size), view("b", other + size)
                    assert wanted(*moved, size=size, holding="b") is None, (size, used, other)


def sized(w: World, **rooms: int | None) -> dict:
    import msgspec

    stores = tuple(msgspec.structs.replace(store, capacity=rooms.get(store.name)) for store in w.config.stores)
    return {"stores": stores}


@virtual("ab")
async def test_a_store_that_comes_gets_its_part_and_then_all_is_quiet(w: World):
    ab = PlacementRule(copies=1, only=("a",))
    await w.use(rules=(ab,), **sized(w, a=20_000, b=20_000))
    for number in range(20):
        await w.put(f"f{number:02}", b"%02d" % number * 400)
    await w.settle()
    assert len(w.objects("a")) == 20
    assert w.objects("b") == {}
    await asyncio.sleep(3)
    await w.use(rules=(PlacementRule(copies=1),))
    await asyncio.sleep(0.2)
    assert (await w.catalog.totals()).pending > 0
    await asyncio.sleep(5000)
    await w.settle()
    first = len(w.objects("a")), len(w.objects("b"))
    assert min(first) >= 8
    assert sum(first) == 20
    shifted = w.mover.done.shifted
    # whatever is looked at again: nothing wanders
    for _ in range(3):
        await w.catalog.wake(due=w.now())
        w.mover.stir()
        await asyncio.sleep(5000)
    assert (len(w.objects("a")), len(w.objects("b")), w.mover.done.shifted) == (*first, shifted)
    for number in range(20):
        assert await w.read(f"f{number:02}") == b"%02d" % number * 400
    await all_known(w)


@virtual("ab")
async def test_stores_that_drift_apart_are_looked_at_by_themselves(w: World):
    await w.use(rules=(PlacementRule(copies=1, only=("a",)), PlacementRule(copies=1)), **sized(w, a=20_000, b=20_000))
    for number in range(10):
        await w.put(f"f{number}", b"x" * 1000)
    await w.settle()
    # as if the files had come to lie so over time
    w.config = type(w.config)(**{f: getattr(w.config, f) for f in w.config.__struct_fields__} | {"rules": (BALANCED,)})
    w.mesh.config = w.config
    await asyncio.sleep(9000)
    assert len(w.objects("b")) >= 3
    assert len(w.objects("a")) + len(w.objects("b")) == 10
