"""The operator dies before and after every call: no second machine, and none is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest
from tests.unit.compute.machine_scene import Scene

from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.testing import CrashPoint, for_every_crash, run_virtual

Act = Callable[[Scene], Awaitable[None]]


def survive(
    first: Callable[[Scene], bool], then: Act, *, native: bool, at_least: int, before: Act | None = None,
    between: Act | None = None,
) -> None:  # fmt: skip
    """Lives a first life, towards what holds at its end, that crashes, then a second one, and looks at the end.

    The cloud's calls take a while, and its reads lag behind.
    """

    async def scenario(crash: CrashPoint) -> None:
        s = Scene(native=native, grace=4)
        s.cloud.habits.list_lag_seconds = s.cloud.habits.find_lag_seconds = 3.0
        s.cloud.habits.latency_seconds = 0.3
        s.add_account()
        s.add_machine(cluster=s.add_cluster())
        if before is not None:
            await before(s)

        async def life() -> None:
            async with s.operator(crash):
                await s.until(lambda: first(s))

        await crash.until_crash(life())
        if between is not None:
            await between(s)
        async with s.operator():
            await then(s)
        tokens = Counter(line.token for line in s.cloud.meter.lines.values())
        assert not [token for token, count in tokens.items() if count > 1], tokens

    async def main() -> None:
        assert await for_every_crash(scenario) > at_least

    run_virtual(main())


def gone(s: Scene) -> bool:
    return not s.is_there(VIRTUAL_MACHINE, "m")


async def delete(s: Scene) -> None:
    await s.delete(VIRTUAL_MACHINE, "m")


@pytest.mark.parametrize("native", [True, False])
def test_birth(native: bool) -> None:
    async def one_lives(s: Scene) -> None:
        await s.until(s.is_ready)
        await asyncio.sleep(20.0)
        assert len(s.living()) == 1
        assert len(s.cloud.meter.lines) == 1

    survive(Scene.is_ready, one_lives, native=native, at_least=20)


@pytest.mark.parametrize("native", [True, False])
def test_end(native: bool) -> None:
    async def live_and_delete(s: Scene) -> None:
        async with s.operator():
            await s.until(s.is_ready)
        await delete(s)

    async def nothing_is_left(s: Scene) -> None:
        await s.until(lambda: gone(s))
        assert s.living() == []
        assert s.cloud.resources.groups == {}

    survive(gone, nothing_is_left, native=native, at_least=10, before=live_and_delete)


@pytest.mark.parametrize("native", [True, False])
def test_deleted_while_it_is_made(native: bool) -> None:
    async def nothing_is_left(s: Scene) -> None:
        await s.until(lambda: gone(s))
        await asyncio.sleep(30.0)
        assert gone(s)
        assert s.living() == []

    survive(Scene.is_ready, nothing_is_left, native=native, at_least=20, between=delete)
