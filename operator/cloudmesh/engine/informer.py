"""List and watch of one collection, for ever: paging, bookmarks, inactivity, 410, made-up deletes, back-off."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.cache import Cache, Change, Name
from cloudmesh.engine.errors import CloudmeshError, Expired, RateLimited
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import Obj, Resource

log = logging.getLogger(__name__)

WATCH_SECONDS = 290
WATCH_JITTER_SECONDS = 20
INACTIVITY_SECONDS = 75.0


class Sink(Protocol):
    """Where an informer puts what it sees."""

    def put(self, obj: Obj) -> None:
        """An object is there, or has changed."""

    def remove(self, obj: Obj) -> None:
        """An object is gone."""

    def listed(self, seen: set[Name], list_version: str) -> None:
        """A list is complete: what isn't in it and isn't newer is gone."""


class CacheSink:
    """Feeds the cache and tells each real change.

    Args:
        cache: The cache.
        resource: The kind.
        namespace: The informer's namespace, None for all.
        on_change: Called with each change that was news to the cache.
    """

    def __init__(
        self, cache: Cache, resource: Resource, namespace: str | None, on_change: Callable[[Change], None]
    ) -> None:
        self._cache = cache
        self._resource = resource
        self._namespace = namespace
        self._on_change = on_change
        cache.watch(resource)

    def put(self, obj: Obj) -> None:
        """Takes an object in."""
        if (change := self._cache.put(self._resource, obj)) is not None:
            self._on_change(change)

    def remove(self, obj: Obj) -> None:
        """Drops an object."""
        if (change := self._cache.remove(self._resource, obj)) is not None:
            self._on_change(change)

    def listed(self, seen: set[Name], list_version: str) -> None:
        """Makes up the deletes that happened while nobody watched."""
        for gone in self._cache.drop_missing(self._resource, seen, list_version, self._namespace):
            self._on_change(Change(gone, None))


class Informer:
    """Keeps a sink in step with one collection.

    Args:
        kube: The client.
        resource: The kind to watch.
        sink: Where objects go.
        namespace: One namespace, None for all.
        label_selector: Only objects with these labels.
        field_selector: Only objects with these fields.
        metadata_only: Ask for PartialObjectMetadata: the server sends no spec and no data.
        metrics: Restarts and events.
        backoff: Waits after failures.
        rng: Source of the jitter.
        inactivity_seconds: A watch without event and bookmark for so long is given up as dead.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        sink: Sink,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        metrics: Metrics | None = None,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
        inactivity_seconds: float = INACTIVITY_SECONDS,
    ) -> None:
        self.resource = resource
        self.namespace = namespace
        self.synced = asyncio.Event()
        """Set once the first list is complete."""
        self._kube = kube
        self._sink = sink
        self._labels = label_selector
        self._fields = field_selector
        self._metadata_only = metadata_only
        self._metrics = metrics or Metrics()
        self._backoff = backoff or Backoff(base_seconds=0.5, cap_seconds=30.0, full_jitter=True)
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._inactivity = inactivity_seconds
        self._last_activity = asyncio.get_event_loop().time()
        self._version = ""
        self._failures = 0

    @property
    def silence_seconds(self) -> float:
        """Seconds since the API server last said anything on this collection."""
        return asyncio.get_event_loop().time() - self._last_activity

    async def run(self) -> None:
        """Lists and watches until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                reason = await self._watch()
            except Expired as error:
                self._version, reason = "", "expired"
                log.debug("list again", extra={"kind": self.resource.kind, "error": str(error)})
                await self._rest(None)
            except CloudmeshError as error:
                reason = error.reason
                log.warning("watch failed", extra={"kind": self.resource.kind, "error": str(error)})
                await self._rest(error)
            except Exception:
                # a malformed object must not end the watch of all others for ever: list again
                self._version, reason = "", "unexpected"
                log.exception("watch failed unexpectedly", extra={"kind": self.resource.kind})
                await self._rest(None)
            self._metrics.watch_restarts.labels(self.resource.kind, reason).inc()

    async def _list(self) -> None:
        seen: set[Name] = set()
        version = ""
        async for page, version in self._kube.pages(  # noqa: B007 - the last page's version is the list's
            self.resource,
            self.namespace,
            label_selector=self._labels,
            field_selector=self._fields,
            metadata_only=self._metadata_only,
        ):
            self._touch()
            for obj in page:
                meta = obj["metadata"]
                seen.add((meta.get("namespace", ""), meta["name"]))
                self._sink.put(obj)
            await asyncio.sleep(0)  # a page is up to 500 objects: others get a turn
        self._sink.listed(seen, version)
        self._version = version
        self._failures = 0
        self.synced.set()

    async def _watch(self) -> str:
        """Watches until the stream ends; returns why it did."""
        stream = self._kube.watch(
            self.resource,
            self.namespace,
            resource_version=self._version,
            timeout_seconds=WATCH_SECONDS + self._rng.randint(0, WATCH_JITTER_SECONDS),
            label_selector=self._labels,
            field_selector=self._fields,
            metadata_only=self._metadata_only,
            on_open=self._touch,
        )
        begin = asyncio.get_running_loop().time()
        got_any = False
        try:
            async with asyncio.timeout(self._inactivity) as limit:
                async for event in stream:
                    self._touch()
                    self._take(event)
                    got_any, self._failures = True, 0
                    limit.reschedule(asyncio.get_running_loop().time() + self._inactivity)
        except TimeoutError:
            return "inactive"
        finally:
            await stream.aclose()
        if not got_any and asyncio.get_running_loop().time() - begin < 1.0:
            await self._rest(None)  # a server that ends every watch at once must not be hammered
        return "ended"

    def _take(self, event: Obj) -> None:
        obj: Obj = event["object"]
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                self._sink.put(obj)
            case "DELETED":
                self._sink.remove(obj)
            case "BOOKMARK":
                pass
            case _:
                return
        self._metrics.watch_events.labels(self.resource.kind).inc()
        self._version = obj["metadata"].get("resourceVersion", self._version)

    async def _rest(self, error: CloudmeshError | None) -> None:
        self._failures += 1
        delay = self._backoff.delay(self._failures, self._rng)
        if isinstance(error, RateLimited) and error.retry_after:
            delay = max(delay, error.retry_after)
        await asyncio.sleep(delay)

    def _touch(self) -> None:
        self._last_activity = asyncio.get_event_loop().time()
