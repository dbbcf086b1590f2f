"""Stores as they live: believed, doubted, given up, exchanged."""

import asyncio

import msgspec
import pytest
from tests.unit.data.virtual import virtual

from cloudmesh.data.config import StoreConfig
from cloudmesh.data.errors import Full
from cloudmesh.data.mesh import GONE_SECONDS, MARKER
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient
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
    w.member("a").doubt(Transient("x"))
    await asyncio.sleep(30)
    assert told == ["a", "a"]
    assert w.member("a").up


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
