"""Engines on a memory API server: one, or two leaders at once, each with clients that may fail or crash."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.engine import Engine, PrimarySink
from cloudmesh.engine.informer import Informer
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.kube.transport import Transport
from cloudmesh.engine.lease import Elector
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.engine.resources import EVENT, LEASE, Resource
from cloudmesh.testing.apiserver import MemoryApi
from cloudmesh.testing.crash import CrashPoint

Make = Callable[[Engine], Reconciler]


class World:
    """A memory API server and the engines on it.

    Args:
        resources: Kinds to serve besides the built-in ones.
        seed: Of all jitter.
    """

    def __init__(self, resources: Iterable[Resource] = (), *, seed: int = 1) -> None:
        self.api = MemoryApi(resources)
        self.rng = random.Random(seed)  # noqa: S311 - a repeatable test
        self.engines: list[Engine] = []
        self._feed_metrics = Metrics()

    @contextlib.asynccontextmanager
    async def engine(
        self,
        *makers: Make,
        transport: Transport | None = None,
        crash: CrashPoint | None = None,
        elector: Callable[[Kube], Elector] | None = None,
        workers: int = 4,
        namespaces: Iterable[str] = (),
    ) -> AsyncIterator[Engine]:
        """An engine that runs inside the block.

        Args:
            makers: Make the reconcilers.
            transport: How it reaches the API server, such as a `FaultyTransport`; directly when None.
            crash: Counts the writes and reads of reconciles and may end them.
            elector: Makes an elector; the engine leads at once when None, beside any other.
            workers: Reconciles at once.
            namespaces: Namespaces to serve, empty for all.
        """
        metrics = Metrics()
        kube = Kube(transport or self.api, metrics=metrics)
        client: Any = crash.wrap(kube) if crash is not None else kube
        engine = Engine(
            client,
            metrics=metrics,
            elector=elector(kube) if elector is not None else None,
            workers=workers,
            backoff=Backoff(base_seconds=0.05, cap_seconds=2.0),
            rng=self.rng,
            namespaces=namespaces,
        )
        for make in makers:
            engine.add(make(engine))
        stop = asyncio.Event()
        told = self._feed_metrics
        seen = Kube(transport or self.api, metrics=told)
        feeds = []
        for resource, namespace in itertools.product(engine.fed, engine.namespaces):
            sink = PrimarySink(engine, resource, namespace)
            informer = Informer(seen, resource, sink, namespace=namespace, rng=self.rng, metrics=told)
            feeds.append(asyncio.create_task(informer.run()))
        running = asyncio.create_task(engine.run(stop))
        self.engines.append(engine)
        try:
            yield engine
        finally:
            self.engines.remove(engine)
            if crash is not None and crash.crashed:
                running.cancel()  # the dead don't say goodbye
            stop.set()
            for task in feeds:
                task.cancel()
            await asyncio.gather(running, *feeds, return_exceptions=True)

    async def settle(self, *, seconds: float = 120.0, quiet_seconds: float = 5.0) -> None:
        """Waits until no engine has work and nothing was stored for a while.

        Raises:
            AssertionError: They don't come to rest within `seconds` of the loop's clock.
        """
        loop = asyncio.get_running_loop()
        end, quiet_since, seen, log = loop.time() + seconds, loop.time(), -1, self.api.store.writes
        while loop.time() - quiet_since < quiet_seconds:
            if loop.time() > end:
                raise AssertionError(f"no rest within {seconds:g} s: the last writes were {self._last_writes()}")
            await asyncio.sleep(min(0.05, quiet_seconds / 5))
            busy = any(len(engine.queue) or engine.queue.in_flight for engine in self.engines)
            written = seen < 0 or any(kind not in (LEASE, EVENT) for _, kind, _ in log[seen:])
            if busy or written:
                quiet_since = loop.time()
            seen = len(log)

    def _last_writes(self) -> list[str]:
        return [f"{act} {kind.kind} {name[1]}" for act, kind, name in self.api.store.writes[-8:]]
