"""The operator dies before and after every call: no second machine, and none is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.unit.compute.machine_scene import Scene

from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.testing import CrashPoint, for_every_crash, run_virtual


def once(s: Scene) -> None:
    """No token made two machines."""
    tokens = Counter(line.token for line in s.cloud.meter.lines.values())
    assert not [token for token, count in tokens.items() if count > 1], tokens


def lagging(native: bool) -> Scene:
    """A cloud whose calls take a while, and whose reads lag behind."""
    s = Scene(native=native, grace=4)
    s.cloud.habits.list_lag_seconds = s.cloud.habits.find_lag_seconds = 3.0
    s.cloud.habits.latency_seconds = 0.3
    return s


@pytest.mark.parametrize("native", [True, False])
def test_birth(native: bool) -> None:
    async def scenario(crash: CrashPoint) -> None:
        s = lagging(native)
        s.add_account()
        cluster = s.add_cluster()
        s.add_machine(cluster=cluster)

        async def first() -> None:
            async with s.operator(crash):
                await s.until(s.is_ready)

        await crash.until_crash(first())
        async with s.operator():
            await s.until(s.is_ready)
            await asyncio.sleep(20.0)
            assert len(s.living()) == 1
            once(s)
            assert len(s.cloud.meter.lines) == 1

    async def main() -> None:
        assert await for_every_crash(scenario) > 20

    run_virtual(main())


@pytest.mark.parametrize("native", [True, False])
def test_end(native: bool) -> None:
    async def scenario(crash: CrashPoint) -> None:
        s = lagging(native)
        s.add_account()
        cluster = s.add_cluster()
        s.add_machine(cluster=cluster)
        async with s.operator():
            await s.until(s.is_ready)
        await s.delete(VIRTUAL_MACHINE, "m")

        async def first() -> None:
            async with s.operator(crash):
                await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))

        await crash.until_crash(first())
        async with s.operator():
            await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
            assert s.living() == []
            assert s.cloud.resources.groups == {}
            once(s)

    async def main() -> None:
        assert await for_every_crash(scenario) > 10

    run_virtual(main())


@pytest.mark.parametrize("native", [True, False])
def test_deleted_while_it_is_made(native: bool) -> None:
    async def scenario(crash: CrashPoint) -> None:
        s = lagging(native)
        s.add_account()
        cluster = s.add_cluster()
        s.add_machine(cluster=cluster)

        async def first() -> None:
            async with s.operator(crash):
                await s.until(s.is_ready)

        await crash.until_crash(first())
        await s.delete(VIRTUAL_MACHINE, "m")
        async with s.operator():
            await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
            await asyncio.sleep(30.0)
            assert not s.is_there(VIRTUAL_MACHINE, "m")
            assert s.living() == []
            once(s)

    async def main() -> None:
        assert await for_every_crash(scenario) > 20

    run_virtual(main())
