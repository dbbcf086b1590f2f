"""Stores as they live: believed, doubted, given up, exchanged."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import Match, PlacementRule, StoreConfig
from cloudmesh.data.errors import Full
from cloudmesh.data.mesh import AHEAD_MS, CAPACITY_SECONDS, GONE_SECONDS, LEAVING_SECONDS, MARKER, SLOW_LOOKS, SLOW_MS
from cloudmesh.data.model import MICROS, Work
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.testing.directories.world import Fault, World


@virtual()
async def test_goes_and_comes(w: World):
    member = w.member("a")
    assert member.state == "Up"
    w.faults.down.add("a")
    await asyncio.sleep(11)
    assert member.state == "Unknown"
    assert "a is down" in member.message
    await asyncio.sleep(GONE_SECONDS + 2)
    assert member.state == "Gone"
    w.faults.clear()
    await asyncio.sleep(2)
    assert member.state == "Up"


@pytest.mark.parametrize(
    ("error", "believed"),
    [(Transient("x"), False), (AuthFailed("x"), False), (RateLimited("x"), True), (Full("x"), True)],
)
@virtual()
async def test_which_errors_make_a_store_doubtful(w: World, error: CloudmeshError, believed: bool):
    w.member("a").doubt(error)
    assert w.member("a").up is believed
    await asyncio.sleep(2)
    assert w.member("a").up


@virtual()
async def test_what_failed_is_named_by_the_log_alone(w: World, caplog: pytest.LogCaptureFixture):
    w.member("a").doubt(Transient("lab/private.txt timed out with very-secret-key"))
    assert w.member("a").message == "Transient: a call failed (the gateway's log tells which)"
    assert "lab/private.txt timed out" in caplog.text


@virtual()
async def test_a_server_that_does_not_know_how_full_it_is(w: World, monkeypatch: pytest.MonkeyPatch):
    asked = []

    async def capacity() -> tuple[int, int]:
        asked.append(1)
        raise Unsupported("the server tells no quota")

    monkeypatch.setattr(w.member("a").store, "capacity", capacity, raising=False)
    states = set()
    for _ in range(int(2 * CAPACITY_SECONDS)):
        await asyncio.sleep(1)
        states.add(w.member("a").state)
    assert asked and states == {"Up"}


@virtual()
async def test_revoked_credentials(w: World):
    await w.put("f", b"x")
    w.faults.planned.append(Fault("a", error=AuthFailed("revoked"), times=-1))
    assert await w.read("f") == b"x"
    await w.put("g", b"y")
    assert (await w.copies("g")).keys() >= {"b", "c"}
    assert w.member("a").state == "Unknown"


@virtual()
async def test_absence_counts_only_beside_the_marker(w: World):
    assert await w.member("a").absence_counts()
    w.place("a").remove(f"lab/{MARKER}")
    assert not await w.member("a").absence_counts()
    assert not w.member("a").up


@virtual()
async def test_configuration_that_cannot_be_used_changes_nothing(w: World):
    before = dict(w.mesh.members)
    wrong = msgspec.structs.replace(
        w.config, stores=(*w.config.stores[1:], StoreConfig("new", "memory"), StoreConfig("d", "no-such-store"))
    )
    with pytest.raises(InvalidRequest):
        await w.mesh.use(wrong)
    assert w.mesh.members == before
    assert w.mesh.config is w.config
    await w.put("f", b"x")


@virtual()
async def test_a_change_that_could_not_be_told_is_told_again(w: World):
    told = []

    async def on_change(name: str) -> None:
        told.append(name)
        if len(told) == 1:
            raise Transient("the catalogue is away")

    w.mesh._on_change = on_change
    w.faults.down.add("a")
    await asyncio.sleep(GONE_SECONDS + 30)
    assert told == ["a", "a"]
    assert w.member("a").state == "Gone"


@virtual()
async def test_a_mesh_is_behind_until_all_is_due_that_a_change_makes_due(w: World):
    go_on, acting = asyncio.Event(), asyncio.Event()
    act = w.mesh._on_change
    assert act is not None

    async def on_change(name: str) -> None:
        acting.set()
        await go_on.wait()
        await act(name)

    w.mesh._on_change = on_change
    await w.put("f", b"content")
    assert not w.mesh.behind
    w.faults.down.add("c")
    await asyncio.sleep(GONE_SECONDS / 2)
    # nobody knows whether it is away: there is nothing to do yet
    assert (w.member("c").state, w.mesh.behind) == ("Unknown", False)
    await acting.wait()
    assert (w.member("c").state, w.mesh.behind) == ("Gone", True)
    go_on.set()
    await asyncio.sleep(1)
    assert not w.mesh.behind
    go_on.clear()
    acting.clear()
    w.faults.clear()
    await acting.wait()
    assert (w.member("c").state, w.mesh.behind) == ("Up", True)
    # one that is opened anew meanwhile, with other limits, goes on where it was
    *others, last = w.config.stores
    await w.use(stores=(*others, msgspec.structs.replace(last, requests_per_second=99)))
    assert w.mesh.behind
    acting.clear()
    await acting.wait()
    assert w.mesh.behind
    go_on.set()
    await asyncio.sleep(1)
    assert not w.mesh.behind


@virtual()
async def test_a_mesh_is_behind_while_other_rules_are_told(w: World, monkeypatch: pytest.MonkeyPatch):
    wake, seen = w.catalog.wake, []

    async def watched(*, store: str = "", due: int) -> int:
        seen.append(w.mesh.behind)
        if len(seen) == 1:
            raise Transient("the catalogue is away")
        return await wake(store=store, due=due)

    monkeypatch.setattr(w.catalog, "wake", watched)
    await w.mesh.use(msgspec.structs.replace(w.config, rules=(PlacementRule("b", Match(path="x/**")), *w.config.rules)))
    assert w.mesh.behind
    await asyncio.sleep(30)
    assert seen == [True, True]
    assert not w.mesh.behind


@virtual()
async def test_store_taken_out_and_put_back(w: World):
    await w.put("f", b"content")
    stores = w.config.stores
    await w.use(stores=stores[1:])
    await w.settle()
    assert await w.read("f") == b"content"
    assert w.holders(b"content") == "abc"
    await w.use(stores=stores)
    await w.back()
    await w.settle()
    assert len(w.holders(b"content")) == 2


def looked_at(w: World) -> list[str]:
    """Files that the mover looks at from now on."""
    seen: list[str] = []
    look = w.mover.look

    async def spied(work: Work) -> None:
        seen.append(work.path)
        await look(work)

    w.mover.look = spied
    return seen


@virtual()
async def test_a_moment_of_silence_wakes_only_what_was_missed(w: World):
    for number in range(30):
        await w.put(f"f{number}", b"content")
    await w.settle()
    listed = 0

    async def count(moment: str, operation: str, key: str) -> None:
        nonlocal listed
        listed += operation == "list" and moment == "before"

    seen = looked_at(w)
    w.place("a").hook = count
    w.member("a").doubt(Transient("a blip"))
    await w.put("during", b"written meanwhile")
    assert "a" not in await w.copies("during")
    await asyncio.sleep(30)
    assert w.member("a").up
    await w.settle()
    assert set(seen) == {"during"}
    assert listed == 0
    assert "a" in await w.copies("during")


@virtual()
async def test_a_mesh_is_behind_until_what_a_silent_store_missed_is_due(w: World):
    behind, again = [], w.mesh._on_blip
    assert again is not None

    async def on_blip(name: str, missed: Sequence[str]) -> None:
        behind.append((name, len(missed), w.mesh.behind))
        await again(name, missed)

    w.mesh._on_blip = on_blip
    w.faults.down.add("a")
    await asyncio.sleep(GONE_SECONDS / 3)
    await w.put("during", b"written meanwhile")
    assert (w.member("a").state, w.mesh.behind) == ("Unknown", False)
    w.faults.clear()
    await asyncio.sleep(30)
    assert behind == [("a", 1, True)]
    assert not w.mesh.behind


@virtual()
async def test_a_store_that_was_gone_wakes_what_has_or_wants_a_copy_there(w: World):
    for number in range(10):
        await w.put(f"f{number}", b"content")
    w.faults.down.add("a")
    await asyncio.sleep(GONE_SECONDS + 20)
    assert w.member("a").state == "Gone"
    await w.put("during", b"written meanwhile")
    await w.put("tagged/elsewhere", b"not for a", tags={"k": "v"})
    await w.settle()
    rules = (PlacementRule("b", Match(path="tagged/**"), but=("a",)), *w.config.rules)
    w.config = w.mesh.config = msgspec.structs.replace(w.config, rules=rules)
    seen = looked_at(w)
    w.faults.clear()
    await w.back()
    await w.settle()
    assert set(seen) == {"during", *(f"f{number}" for number in range(10))}
    assert w.holders(b"written meanwhile") == "ab"


@virtual(trash_seconds=60)
async def test_nothing_is_purged_by_a_clock_that_is_ahead_of_the_stores(w: World, caplog: pytest.LogCaptureFixture):
    entry = await w.put("f", b"precious")
    await w.put("g", b"gone")
    await w.tree.delete("f")
    await w.tree.delete("g")
    w.skew = 30 * 86400 * MICROS
    for name in "abc":
        w.place(name).skew_ms = -30 * 86400 * 1000
    await asyncio.sleep(11)
    await w.catalog.wake(due=1)
    w.mover.stir()
    await asyncio.sleep(30)
    assert w.mesh.ahead_ms() > AHEAD_MS
    assert "nothing is removed for its age" in caplog.text
    assert w.holders(b"precious") == w.holders(b"gone") == "ab"
    await w.tree.restore(entry.id)
    assert await w.read("f") == b"precious"
    w.skew = 0
    for name in "abc":
        w.place(name).skew_ms = 0
    await asyncio.sleep(120)
    assert (w.holders(b"precious"), w.holders(b"gone")) == ("ab", "")


@virtual()
async def test_a_slow_store_is_read_last_and_told(w: World):
    member = w.member("a")
    w.place("a").latency_ms = SLOW_MS
    for _ in range(SLOW_LOOKS - 1):
        await asyncio.sleep(10)
    assert member.shown == "Up"
    await asyncio.sleep(11)
    assert (member.shown, member.up) == ("Slow", True)
    await w.put("f", b"content")
    w.place("a").latency_ms = 0
    w.place("b").latency_ms = 100
    await asyncio.sleep(11)
    entry = await w.tree.stat("f")
    assert [one.name for _, one in await w.tree.readable(entry)] == ["b", "a"]
    await asyncio.sleep(30)
    assert member.shown == "Up"


@virtual("ab", rules=(PlacementRule(copies=1, prefer="Sequential"),))
async def test_a_rotation_cuts_nothing_that_is_under_way(w: World):
    """The old store is closed when its last user is done; the new one is believed at once."""
    content = bytes(3 << 20)
    await w.put("there", content)
    begun, go_on, closed = asyncio.Event(), asyncio.Event(), []

    async def chunks() -> AsyncIterator[bytes]:
        yield content
        begun.set()
        await go_on.wait()
        yield content

    old = w.member("a")

    async def close() -> None:
        closed.append(asyncio.get_running_loop().time())

    old.store.close = close
    writing = asyncio.create_task(w.tree.put("f", chunks(), size=2 * len(content)))
    await begun.wait()
    _, reading = await w.tree.read("there", start=1)
    await anext(reading)
    stores = (msgspec.structs.replace(w.config.stores[0], requests_per_second=1000), *w.config.stores[1:])
    await w.use(stores=stores)
    new = w.member("a")
    assert new is not old
    assert new.up
    await asyncio.sleep(5 * LEAVING_SECONDS[0])
    assert not closed
    assert len(b"".join([piece async for piece in reading])) == len(content) - 1 - (1 << 20)
    go_on.set()
    entry = await writing
    assert entry.size == 2 * len(content)
    assert (await w.copies("f"))["a"].state == "Whole"
    await asyncio.sleep(1)
    assert len(closed) == 1


@virtual()
async def test_a_user_that_never_ends_is_not_waited_for_ever(w: World):
    old = w.member("a")
    closed = []

    async def close() -> None:
        closed.append(1)

    old.store.close = close
    with old.used():
        await w.use(
            stores=(msgspec.structs.replace(w.config.stores[0], bytes_per_second=1 << 30), *w.config.stores[1:])
        )
        await asyncio.sleep(LEAVING_SECONDS[1] - 60)
        assert not closed
        await asyncio.sleep(120)
        assert closed


@virtual()
async def test_what_a_store_is_used_for_changes_without_opening_it(w: World):
    old = w.member("a")
    await w.access("a", "ReadOnly")
    assert w.member("a") is old
    assert old.config.access == "ReadOnly"
