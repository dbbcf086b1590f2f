"""Crash before and after the k-th outside call, for every k.

A process can die at any moment, and what the outside world has seen of it is exactly the calls that got through. A
`CrashPoint` counts the calls of all ports it wraps; at its own call it raises `Crash` before the call (the request was
never sent) or after it (it was done, the answer is lost), and from then on at every call: the dead do nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar, cast

T = TypeVar("T")
Moment = Literal["before", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "after")
READS = frozenset(
    {"get", "pages", "list", "watch", "read_log", "check", "identity", "offers", "list_nodes", "find_node"}
    | {"list_security_groups"}
)
"""Calls of the API server and of clouds that change nothing: who dies at one leaves what the call before it left."""


class Crash(BaseException):
    """The process dies here; not an Exception, so that no error handling of the code under test survives it."""


class CrashPoint:
    """One place to die.

    Args:
        at: Number of the call, from 1; None never crashes and only counts.
        moment: Before the call is done, or after.
        spares: Names of calls that don't count.
    """

    def __init__(
        self, at: int | None = None, moment: Moment = "before", *, spares: frozenset[str] = frozenset()
    ) -> None:
        self.at = at
        self.moment = moment
        self._spares = spares
        self._counted = 0
        self._died_at = "never reached"
        self.calls: list[str] = []
        """Names of the calls so far, for the message of a failing test."""
        self.crashed = False
        self._event = asyncio.Event()

    def __repr__(self) -> str:
        return f"crash {self.moment} call {self.at} ({self._died_at})"

    def wrap(self, port: T) -> T:
        """A stand-in for a port (any object with async methods) whose calls are counted and may crash."""
        return cast(T, _Port(port, self))

    async def call(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Does one outside call.

        Raises:
            Crash: This is the place, or it has been already.
        """
        number = self._enter(name)
        result = await work()
        self._leave(number, name)
        return result

    async def until_crash(self, life: Coroutine[Any, Any, Any]) -> bool:
        """Lives until the work ends or the crash comes; returns whether it came. All of the work's tasks are ended."""
        task = asyncio.ensure_future(life)
        watch = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not self.crashed:
                await task
        except Crash:
            return True
        else:
            return self.crashed
        finally:
            for each in (task, watch):
                each.cancel()
            await asyncio.gather(task, watch, return_exceptions=True)

    def _enter(self, name: str) -> int:
        if self.crashed:
            raise Crash(name)
        self.calls.append(name)
        if name in self._spares:
            return 0
        self._counted += 1
        if self._counted == self.at and self.moment == "before":
            self._die(name)
        return self._counted

    def _leave(self, number: int, name: str) -> None:
        if self.crashed or (number == self.at and self.moment == "after"):
            self._die(name)

    def _die(self, name: str) -> None:
        if not self.crashed:
            self._died_at = name
        self.crashed = True
        self._event.set()
        raise Crash(name)


class _Port:
    def __init__(self, port: Any, point: CrashPoint) -> None:
        object.__setattr__(self, "_port", port)
        object.__setattr__(self, "_point", point)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._port, name, value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        point: CrashPoint = self._point
        if inspect.iscoroutinefunction(found):

            async def call(*args: Any, **kwargs: Any) -> Any:
                return await point.call(name, lambda: found(*args, **kwargs))

            return call
        if inspect.isasyncgenfunction(found):

            async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
                number = point._enter(name)
                source = found(*args, **kwargs)
                try:
                    async for item in source:
                        point._leave(number, name)
                        yield item
                finally:
                    await source.aclose()

            return stream
        return found


async def for_every_crash(
    scenario: Callable[[CrashPoint], Awaitable[None]],
    *,
    moments: Sequence[Moment] = MOMENTS,
    spares: frozenset[str] = frozenset(),
    limit: int = 2000,
) -> int:
    """Runs a scenario with a crash before and after call 1, 2, 3 … until a run gets to its end without one.

    The scenario builds a fresh world, lives a first life on ports wrapped by the crash point (usually with
    `until_crash`), then a second life on bare ports, and asserts what must hold. It may wrap the second life with a
    crash point of its own to try pairs.

    Args:
        scenario: What is run.
        moments: Before the call, after it, or both.
        spares: Names of calls that nobody dies at, such as `READS` where nobody but the operator acts meanwhile.
        limit: Calls.

    Returns:
        The number of runs that crashed.

    Raises:
        AssertionError: The scenario's, with the crash point told in a note; or `limit` calls were not enough.
    """
    crashes = 0
    for moment in moments:
        for number in range(1, limit + 1):
            point = CrashPoint(number, moment, spares=spares)
            try:
                await scenario(point)
            except Exception as error:
                error.add_note(f"after a {point!r}; calls: {', '.join(point.calls)}")
                raise
            if not point.crashed:
                break
            crashes += 1
        else:
            raise AssertionError(f"the scenario still crashes at call {limit}: is there a loop without end?")
    return crashes
