"""Builds under way: each runs once, however often it is asked for, and a bounded number at a time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.engine.errors import CloudmeshError, InvalidRequest
from cloudmesh.functions.lock import DependenciesUnsatisfiable, IndexUnavailable
from cloudmesh.functions.signatures import SourceError

_log = logging.getLogger(__name__)
_KEPT = 2000


class RegistryUnavailable(CloudmeshError):
    """The registry refused, or doesn't answer."""

    reason = "RegistryUnavailable"


@dataclass(slots=True)
class Build:
    """One build: where it stands and what came of it."""

    id: str
    state: str = "Queued"
    stage: str = "Queued"
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """The answer to `GET /v1/builds/{id}`."""
        value: dict[str, Any] = {"id": self.id, "state": self.state, "stage": self.stage}
        if self.result is not None:
            value["result"] = self.result
        if self.error is not None:
            value["error"] = self.error
        return value


def error_json(error: BaseException) -> dict[str, Any]:
    """What a caller is told about a failure: class, place in the source, message."""
    line = column = 0
    message = str(error) or type(error).__name__
    match error:
        case SourceError():
            name, line, column, message = "SourceInvalid", error.line, error.column, error.message
        case DependenciesUnsatisfiable() | IndexUnavailable() | RegistryUnavailable():
            name = error.reason
        case _:
            name = "BuildFailed"
    return {"class": name, "line": line, "column": column, "message": message[:4000]}


class Builds:
    """Runs builds and remembers the latest of them, in memory only.

    Args:
        concurrency: builds at a time; the others wait as Queued.
    """

    def __init__(self, concurrency: int) -> None:
        self._slots = asyncio.Semaphore(concurrency)
        self._builds: OrderedDict[str, Build] = OrderedDict()

    def start(self, build_id: str, run: Callable[[Build], Awaitable[dict[str, Any]]]) -> Build:
        """Start a build, or join the one of the same id that is under way.

        One that has ended runs again: the registry may have lost its image since, and else it ends at the first look.
        """
        build = self._builds.get(build_id)
        if build is not None and build.state in ("Queued", "Running"):
            return build
        build = Build(build_id)
        self._builds[build_id] = build
        self._builds.move_to_end(build_id)
        while len(self._builds) > _KEPT:
            oldest = next(iter(self._builds.values()))
            if oldest.state in ("Queued", "Running"):
                break
            del self._builds[oldest.id]
        build.task = asyncio.create_task(self._run(build, run))
        return build

    def get(self, build_id: str) -> Build | None:
        """A build by id; None if this process doesn't know it."""
        return self._builds.get(build_id)

    async def _run(self, build: Build, run: Callable[[Build], Awaitable[dict[str, Any]]]) -> None:
        async with self._slots:
            build.state, start = "Running", time.monotonic()
            try:
                result = await run(build)
            except (CloudmeshError, SourceError) as error:
                build.error = error_json(error)
            except asyncio.CancelledError:
                build.error = {"class": "BuildFailed", "line": 0, "column": 0, "message": "the builder is stopping"}
                build.state = "Failed"
                raise
            except Exception as error:  # noqa: BLE001  # one build's fault is not the process's
                _log.exception("build %s", build.id)
                build.error = error_json(error)
            else:
                build.result = {**result, "seconds": round(time.monotonic() - start, 3)}
            build.state = "Succeeded" if build.error is None else "Failed"
            outcome = build.error or {"image": build.result["image"]} if build.result else build.error
            _log.info("build %s %s in %.3f s: %s", build.id[:12], build.state, time.monotonic() - start, outcome)

    async def close(self) -> None:
        """End what is under way."""
        tasks = [build.task for build in self._builds.values() if build.task and not build.task.done()]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


__all__ = ["Build", "Builds", "InvalidRequest", "RegistryUnavailable", "error_json"]
