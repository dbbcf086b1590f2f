"""Threads for plain functions: bounded, started when needed, each call with its own time-out.

`concurrent.futures` would do, but costs two futures and two locks a call.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any


class ExpiredError(Exception):
    """A call took longer than allowed; its thread goes on."""


class ThreadPool:
    """Daemon threads that run calls for one event loop.

    Args:
        size: threads at most; further calls wait.
        ended: called in the loop when a call's thread is free again, also long after its time-out.
    """

    def __init__(self, size: int, ended: Callable[[], None]) -> None:
        self._size = size
        self._ended = ended
        self._jobs: queue.SimpleQueue[tuple[asyncio.AbstractEventLoop, asyncio.Future[Any], Callable[[], Any]]]
        self._jobs = queue.SimpleQueue()
        self._threads = 0
        self._busy = 0

    async def run(self, seconds: float, call: Callable[..., Any], *arguments: Any) -> Any:
        """Runs `call(*arguments)` in a thread, with the caller's context variables.

        Raises:
            ExpiredError: after `seconds`.
            Exception: whatever the call raises.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        self._busy += 1
        if self._busy > self._threads and self._threads < self._size:
            self._grow()
        self._jobs.put((loop, future, lambda: context.run(call, *arguments)))
        timer = loop.call_later(seconds, _expire, future)
        try:
            return await future
        finally:
            timer.cancel()

    def _grow(self) -> None:
        try:
            threading.Thread(target=self._work, name=f"function-{self._threads}", daemon=True).start()
        except RuntimeError:
            # the container's limit of processes: those that are there go on
            if not self._threads:
                self._busy -= 1
                self._ended()
                raise
            self._size = self._threads
        else:
            self._threads += 1

    def _work(self) -> None:
        while True:
            loop, future, call = self._jobs.get()
            result: Any = None
            failure: BaseException | None = None
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits
                loop.call_soon_threadsafe(self._finish, future, result, failure)
            del result, failure, future, call  # nothing is kept until the next call

    def _finish(self, future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
        self._busy -= 1
        self._ended()
        if future.done():
            return
        if failure is None:
            future.set_result(result)
        else:
            future.set_exception(failure)


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(ExpiredError())
