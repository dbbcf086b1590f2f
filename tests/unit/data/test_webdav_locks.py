"""Locks of two gateways of one directory, as there are while a new version begins."""

from __future__ import annotations

from tests.unit.data.virtual import virtual

from cloudmesh.data.gateway.webdav_locks import BUCKETS, Lock, Locks
from cloudmesh.testing.directories.world import World


async def _add(locks: Locks, path: str, user: str) -> Lock:
    return await locks.add(path, deep=False, shared=False, user=user, owner="", seconds=600)


@virtual("ab")
async def test_a_second_gateway_writes_over_no_lock_of_the_first(w: World) -> None:
    old, new = Locks(w.catalog, w.now), Locks(w.catalog, w.now)
    await old.load()
    await new.load()
    lock = await _add(old, "f", "ada")
    given_back = await _add(old, "g", "ada")
    for number in range(8 * BUCKETS):
        await _add(new, f"bob{number}", "bob")
    # by now it has met them, and they bind there too
    assert [one.user for one in new.closed(frozenset(), "bob", "f")] == ["ada"]
    longer = await old.renew(lock, 1200)
    await old.remove([given_back])
    later = Locks(w.catalog, w.now)
    await later.load()
    assert later.closed(frozenset(), "bob", "f") == [longer]
    assert len(later.below("")) == 8 * BUCKETS + 1
