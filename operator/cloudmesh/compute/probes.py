"""Looks whether machines answer: many at once, in the background, often while they start and seldom later."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cloudmesh.engine import CloudmeshError, Key
from cloudmesh.engine.endpoints import ANYWHERE, Guard

AT_ONCE = 64
PROBE_SECONDS = 5.0
FIRST_SECONDS = 1.0
SLOWEST_SECONDS = 10.0
HEALTH_SECONDS = 30.0
FAILURES = 2
"""A machine that answered is called unreachable after so many tries in a row."""

Probe = Callable[[str, int], Awaitable[None]]


async def probe_ssh(host: str, port: int, *, guard: Guard = ANYWHERE) -> None:
    """Connects and waits for the greeting of sshd.

    Raises:
        InvalidRequest: The guard refuses what the host stands for.
        Transient: Nobody answers, or somebody else does.
    """
    from cloudmesh.compute.ssh import probe  # its library is heavy, and only some machines need it

    await probe(host, port, timeout=PROBE_SECONDS, guard=guard)


@dataclass(slots=True)
class _Target:
    key: Key
    place: tuple[str, int, str]
    reached: bool | None = None
    trouble: str = ""
    failures: int = 0
    task: asyncio.Task[None] | None = None


class Probes:
    """What is known of machines' ports, and who looks at them.

    Args:
        enqueue: Called with the key of a machine whose answer changed.
        probe: Tries one host and port.
    """

    def __init__(self, enqueue: Callable[[Key], None], probe: Probe = probe_ssh) -> None:
        self._enqueue = enqueue
        self._probe = probe
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._targets: dict[str, _Target] = {}

    def result(self, uid: str, key: Key, host: str, port: int, boot_id: str) -> tuple[bool | None, str]:
        """Whether a machine answers, None while nobody knows; from now on it is looked at."""
        target = self._targets.get(uid)
        place = (host, port, boot_id)
        if target is None or target.place != place:
            self.forget(uid)
            target = self._targets[uid] = _Target(key, place)
            target.task = asyncio.create_task(
                self._watch(target), name=f"probe {key.name}", context=contextvars.Context()
            )
        return target.reached, target.trouble

    def forget(self, uid: str) -> None:
        """Looks no more."""
        target = self._targets.pop(uid, None)
        if target is not None and target.task is not None:
            target.task.cancel()

    async def run(self) -> None:
        """Lasts as long as this process leads."""
        try:
            await asyncio.Event().wait()
        finally:
            tasks = [target.task for target in self._targets.values() if target.task is not None]
            self._targets.clear()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, target: _Target) -> None:
        host, port, _ = target.place
        pause = FIRST_SECONDS
        while True:
            trouble = ""
            async with self._slots:
                try:
                    await self._probe(host, port)
                except CloudmeshError as error:
                    trouble = str(error)
            if not trouble:
                target.failures = 0
                pause = HEALTH_SECONDS
                self._set(target, True, "")
            else:
                target.failures += 1
                if target.reached and target.failures < FAILURES:
                    pause = FIRST_SECONDS
                else:
                    pause = min(SLOWEST_SECONDS, FIRST_SECONDS * 1.5 ** min(target.failures, 10))
                    self._set(target, False, trouble)
            await asyncio.sleep(pause)

    def _set(self, target: _Target, reached: bool, trouble: str) -> None:
        if target.reached is not reached:
            target.reached, target.trouble = reached, trouble
            self._enqueue(target.key)
