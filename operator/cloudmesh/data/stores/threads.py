"""Blocking calls of one store in its own bounded threads, and work that a cancellation must not tear apart."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from cloudmesh.engine.errors import CloudmeshError, Transient

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
PATIENCE = 120.0
"""Seconds for which somebody who is cancelled waits for a thread."""


class Threads:
    """Threads of one store.

    Args:
        name: Of the store, for whoever looks at threads.
        count: How many at most.
        patience: How long a thread is waited for after a cancellation: one that hangs is left alone then.
    """

    def __init__(self, name: str, count: int, patience: float = PATIENCE) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(count, thread_name_prefix=f"store-{name}")
        self._patience = patience
        self._closed = False

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it in a thread; a cancellation doesn't wait for the thread, whose result nobody hears.

        Raises:
            Transient: The store was closed.
        """
        return await self._submit(function, *args, **kwargs)

    async def within(self, seconds: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, but no longer than that.

        Raises:
            Transient: It hangs, or the store was closed.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._submit(function, *args, **kwargs)
        except TimeoutError:
            raise Transient(f"store {self._name} hangs: no answer within {seconds:g} s") from None

    async def finish(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls it in a thread; a cancellation is raised when the thread is done.

        Raises:
            Transient: The store was closed.
        """
        return await outlast(self._submit(function, *args, **kwargs), patience=self._patience)

    async def obtain(
        self, release: Callable[[T], object], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The same for what must be let go of: after a cancellation by `release`, which must not block.

        Raises:
            Transient: The store was closed.
        """
        return await outlast(self._submit(function, *args, **kwargs), release, patience=self._patience)

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begins a call.

        Raises:
            Transient: The store was closed.
        """
        if self._closed:
            raise Transient("the store was closed")
        return self._pool.submit(function, *args, **kwargs)

    def later(self, function: Callable[[], object], after: Future[object] | None = None) -> None:
        """Calls it in a thread some time, even if the store is closed, for what must be let go of.

        Args:
            function: What is called; its errors are logged.
            after: What must have ended before.
        """

        def act() -> None:
            try:
                function()
            except (CloudmeshError, OSError) as error:
                log.warning("store %s: letting go failed: %s", self._name, error)

        def aside() -> None:
            threading.Thread(target=act, daemon=True).start()

        def go(_: object = None) -> None:
            try:
                call = self._pool.submit(act)
            except RuntimeError:  # closed
                aside()
            else:
                call.add_done_callback(lambda ended: aside() if ended.cancelled() else None)

        if after is None:
            go()
        else:
            after.add_done_callback(go)

    def _submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        return asyncio.wrap_future(self.start(lambda: function(*args, **kwargs)))

    def close(self) -> None:
        """Lets threads end; calls under way aren't waited for."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)


class Handle:
    """An open file, closed off the loop when no thread uses it any more.

    Args:
        threads: Where it is used.
        fd: The descriptor.
    """

    def __init__(self, threads: Threads, fd: int) -> None:
        self._threads = threads
        self._fd = fd
        self._last: Future[object] | None = None

    async def within(self, seconds: float, function: Callable[[int], T]) -> T:
        """What a call says of the descriptor.

        Raises:
            Transient: It hangs, or the store was closed.
        """
        call = self._threads.start(function, self._fd)
        self._last = call  # type: ignore[assignment]
        try:
            async with asyncio.timeout(seconds):
                # not cancelled with its waiter: the descriptor is in use until it ends
                return await asyncio.shield(asyncio.wrap_future(call))
        except TimeoutError:
            raise Transient(f"it hangs: no answer within {seconds:g} s") from None

    def close(self) -> None:
        """Closes it, as soon as that can be; doesn't wait."""
        fd = self._fd
        self._threads.later(lambda: os.close(fd), self._last)


async def outlast(work: Awaitable[T], release: Callable[[T], object] | None = None, *, patience: float = PATIENCE) -> T:
    """The result of some work that is done to its end even if the caller is cancelled, which then comes after it.

    Args:
        work: The work.
        release: What then becomes of the result.
        patience: How long the end is waited for after a cancellation.
    """
    future = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        end = asyncio.get_running_loop().time() + patience
        while not future.done() and (left := end - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.wait([future], timeout=left)
            except asyncio.CancelledError:
                continue  # it is raised below
        if future.done():
            _released(future, release)
        else:
            future.add_done_callback(lambda done: _released(done, release))
        raise


def _released(future: asyncio.Future[T], release: Callable[[T], object] | None) -> None:
    # the exception is asked for, so that nobody complains that it wasn't
    if not future.cancelled() and future.exception() is None and release is not None:
        release(future.result())
