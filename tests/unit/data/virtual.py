"""Tests of a whole directory on a virtual clock: `virtual` runs an async test with a World that has begun."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from cloudmesh.testing.directories.world import World
from cloudmesh.testing.virtualtime import run_virtual


def virtual(stores: Any = "abc", **config: Any) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Any]:
    """Decorates `async def test(w, …)`; other arguments are pytest's."""

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> Any:
        def test(tmp_path: Path, **given: Any) -> None:
            async def main() -> None:
                world = World(tmp_path, stores, **config)
                try:
                    await world.start()
                    await function(world, **given)
                finally:
                    await world.end()

            run_virtual(main(), seed=1)

        test.__name__, test.__doc__ = function.__name__, function.__doc__
        parameters = list(inspect.signature(function).parameters.values())[1:]
        path = inspect.Parameter("tmp_path", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = inspect.Signature([path, *parameters])  # type: ignore[attr-defined]
        test.pytestmark = getattr(function, "pytestmark", [])  # type: ignore[attr-defined]
        return test

    return decorate


async def died(w: World, number: int, work: Coroutine[Any, Any, Any]) -> bool:
    """Runs `work` to its end, or until the process dies before its effect of that number; whether it died.

    A death leaves what was done before it, so one before each effect, and one after the last, are all there are.
    """
    w.faults.kill_before = number
    task, dead = asyncio.create_task(work), asyncio.create_task(w.faults.dead.wait())
    await asyncio.wait({task, dead}, return_when=asyncio.FIRST_COMPLETED)
    dead.cancel()
    w.faults.kill_before = None
    return w.faults.dead.is_set()


def until_it_lives(
    act: Callable[[World, int], Coroutine[Any, Any, bool]], folder: Path, most: int, stores: Any = "abc"
) -> int:
    """Runs `act(w, number)`, which says whether the process died then, for each effect in a world of its own.

    Returns:
        How many effects there were to die before; at the number of that name it lived.
    """
    for number in range(most):
        own, told = folder / str(number), list[bool]()
        own.mkdir()

        @virtual(stores)
        async def run(w: World, number: int = number, told: list[bool] = told) -> None:
            told.append(await act(w, number))

        run(own)
        if not told[0]:
            return number
    raise AssertionError(f"it dies before effect {most} still")
