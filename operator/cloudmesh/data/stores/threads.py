"""Blocking calls of one store in its own bounded threads, and work that a cancellation must not tear apart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cloudmesh.engine.errors import Transient

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """Threads of one store.

    Args:
        name: Of the store, for whoever looks at threads.
        count: How many at most.
    """

    def __init__(self, name: str, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"store-{name}")
        self._closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it in a thread; a cancellation doesn't wait for the thread, whose result nobody hears.

        Raises:
            Transient: The store was closed.
        """
        return await self._submit(function, *args, **kwargs)

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it in a thread; a cancellation is raised when the thread is done.

        Raises:
            Transient: The store was closed.
        """
        return await outlast(self._submit(function, *args, **kwargs))

    async def obtain(
        self, release: Callable[[T], object], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same for what must be let go of: after a cancellation by `release`, which must not block.

        Raises:
            Transient: The store was closed.
        """
        return await outlast(self._submit(function, *args, **kwargs), release)

    def _submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        if self._closed:
            raise Transient("the store was closed")
        return asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    def close(self) -> None:
        """Lets threads end; calls under way aren't waited for."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


async def outlast(work: Awaitable[T], release: Callable[[T], object] | None = None) -> T:
    """The result of some work that is done to its end even if the caller is cancelled, which then comes after it.

    Args:
        work: The work.
        release: What then becomes of the result.
    """
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        while not future.done():
            try:
                await asyncio.wait([future])
            except asyncio.CancelledError:
                continue  # it is raised below
        # the exception is asked for, so that nobody complains that it wasn't
        if not future.cancelled() and future.exception() is None and release is not None:
            release(future.result())
        raise
