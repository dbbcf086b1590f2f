"""The engine: what all reconcilers of a process share, and its life from start to a graceful end."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from cloudmesh.engine.backoff import Backoff
from cloudmesh.engine.cache import Cache, Change, Name
from cloudmesh.engine.directories import Directories
from cloudmesh.engine.errors import CloudmeshError, Transient
from cloudmesh.engine.events import Events
from cloudmesh.engine.finalizers import Finalizers
from cloudmesh.engine.informer import CacheSink, Informer
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.lease import Elector, LeaseLost
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.owners import MANAGED_SELECTOR, owner_key
from cloudmesh.engine.queue import Queue
from cloudmesh.engine.reconciler import RECONCILE_SECONDS, Reconciler, Workers
from cloudmesh.engine.references import References, ReferenceSink
from cloudmesh.engine.resources import CONFIG_MAP, EVENT, LEASE, SECRET, Key, Obj, Resource, key_of, resource_version
from cloudmesh.engine.status import Status

log = logging.getLogger(__name__)

RESYNC_SECONDS = 3600.0
RECHECK_SECONDS = 10.0
GRACE_SECONDS = 1.0
SILENCE_SECONDS = 120.0
REFERABLE = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"
"""Secrets that nobody can refer to, left out of the watch: Helm keeps one a release and revision."""

Background = Callable[[], Awaitable[None]]


class PrimarySink:
    """Feeds a reconciled kind that the engine watches by itself.

    Args:
        engine: The engine.
        resource: The kind.
        namespace: The informer's namespace, None for all.
    """

    def __init__(self, engine: Engine, resource: Resource, namespace: str | None) -> None:
        self._engine = engine
        self._resource = resource
        self._namespace = namespace

    def put(self, obj: Obj) -> None:
        """Takes an object in."""
        self._engine.observe(self._resource, "MODIFIED", obj)

    def remove(self, obj: Obj) -> None:
        """Drops an object."""
        self._engine.observe(self._resource, "DELETED", obj)

    def listed(self, seen: set[Name], list_version: str) -> None:
        """Drops what went while nobody watched."""
        self._engine.drop_missing(self._resource, seen, list_version, self._namespace)


class Engine:
    """Cache, queue, watches and workers for a set of reconcilers.

    Both replicas fill their cache (`start`); only the leader drains the queue (`lead`).

    Args:
        kube: The client; the engine sees its writes and forbids them without the lease.
        metrics: The process's metrics.
        namespaces: Namespaces to serve, empty for all.
        instance: Name of this process in events.
        elector: Holds the lease; None for a process that always leads (tests, tools).
        workers: Reconciles at once.
        backoff: Waits after failed reconciles.
        rng: Source of all jitter.
        reconcile_seconds: Limit on one reconcile.
        on_lease_lost: Called at the moment the lease is lost, before anything is tidied up; the operator ends the
            process there.
    """

    def __init__(
        self,
        kube: Kube,
        *,
        metrics: Metrics | None = None,
        namespaces: Iterable[str] = (),
        instance: str = "cloudmesh-operator",
        elector: Elector | None = None,
        workers: int = 8,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
        reconcile_seconds: float = RECONCILE_SECONDS,
        on_lease_lost: Callable[[LeaseLost], object] | None = None,
    ) -> None:
        self.kube = kube
        self.metrics = metrics or Metrics()
        self.namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self.elector = elector
        self.cache = Cache(self.metrics)
        self.queue = Queue(metrics=self.metrics, backoff=backoff, rng=rng)
        self.status = Status(kube, self.cache, self.metrics)
        self.finalizers = Finalizers(kube)
        self.events = Events(kube, instance, self.metrics)
        self.references = References(self._reference_changed, self._watch_reference)
        self.directories: Directories | None = None
        """Files of VirtualDirectories, where the wing that serves them is loaded."""
        self.synced = asyncio.Event()
        """Set when the cache holds all objects and children."""
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._reconcilers: dict[str, Reconciler] = {}
        self._primaries: dict[Resource, Reconciler] = {}
        self._owned: set[Resource] = set()
        self._listeners: dict[Resource, list[Callable[[Obj], None]]] = {}
        self._watched: set[Resource] = set()
        self._informers: list[Informer] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._leading: set[asyncio.Task[None]] = set()
        self._backgrounds: list[tuple[str, Background]] = []
        self._size = workers
        self._relisted = asyncio.Event()
        self._unseen: dict[Resource, tuple[int, float]] = {}
        self._on_lease_lost = on_lease_lost
        self._failure: asyncio.Future[None] = asyncio.get_event_loop().create_future()
        self._workers = Workers(
            self.queue,
            self.cache,
            kube,
            self._reconcilers,
            self.metrics,
            on_gone=self._gone,
            limit_seconds=reconcile_seconds,
        )
        kube.on_write = self._written
        kube.write_guard = self._guard

    def add(self, reconciler: Reconciler) -> None:
        """Takes a reconciler on; before `start`.

        Raises:
            ValueError: The kind has one already.
        """
        kind = reconciler.resource.kind
        if kind in self._reconcilers:
            raise ValueError(f"two reconcilers for {kind}")
        self._reconcilers[kind] = reconciler
        self._primaries[reconciler.resource] = reconciler
        self._owned |= set(reconciler.owns)
        self.cache.watch(reconciler.resource)

    def watch(self, resource: Resource) -> None:
        """Watches a reconciled kind by itself; before `start`.

        For kinds that are made by the thousand: an event costs kopf, which watches the others, several times as much.
        """
        self._watched.add(resource)

    def listen(self, resource: Resource, told: Callable[[Obj], None]) -> None:
        """Watches our objects of a kind, and tells of each that is new, has changed or is gone; before `start`."""
        self._owned.add(resource)
        self._listeners.setdefault(resource, []).append(told)

    def background(self, name: str, work: Background) -> None:
        """Runs work while this process leads, again with back-off when it fails; before `lead`."""
        self._backgrounds.append((name, work))

    @property
    def fed(self) -> tuple[Resource, ...]:
        """Kinds that have a reconciler and whose events somebody must hand to `observe`."""
        return tuple(resource for resource in self._primaries if resource not in self._watched)

    def enqueue(self, key: Key, after: float | None = None) -> None:
        """Puts a key in, now or in so many seconds, even if it had stopped after an error."""
        self._workers.release(key)
        if after is None:
            self.queue.add(key)
        else:
            self.queue.add_after(key, after)

    def observe(self, resource: Resource, type_: str | None, obj: Obj) -> None:
        """Takes in what a watch of a reconciled kind told; `type_` None means that it was listed."""
        if type_ is None:
            self._relisted.set()
        if resource in self._unseen and resource_version(obj) >= self._unseen[resource][0]:
            del self._unseen[resource]
        change = self.cache.remove(resource, obj) if type_ == "DELETED" else self.cache.put(resource, obj)
        if change is not None:
            self.queue.add(key_of(resource, obj))
            self._child_changed(change)

    async def start(self) -> None:
        """Starts the watches, fills the cache, and returns when it is complete."""
        for resource in sorted(self._owned, key=lambda r: r.kind):
            for namespace in self.namespaces:
                sink = CacheSink(self.cache, resource, namespace, functools.partial(self._watched_changed, resource))
                self._inform(resource, sink, namespace, label_selector=MANAGED_SELECTOR)
        for resource in sorted(self._watched, key=lambda r: r.kind):
            for namespace in self.namespaces:
                self._inform(resource, PrimarySink(self, resource, namespace), namespace)
        for resource in self.fed:
            await self._resync_until_done(resource)
        for informer in self._informers:
            await informer.synced.wait()
        self._spawn(self._tasks, "resync", self._resync_forever)
        self._spawn(self._tasks, "recheck", self._recheck_forever)
        self._spawn(self._tasks, "events", self.events.run)
        self.synced.set()

    def lead(self) -> None:
        """Starts the workers; this process holds the lease."""
        for number in range(self._size):
            self._spawn(self._leading, f"worker {number}", self._workers.run)
        for name, work in self._backgrounds:
            self._spawn(self._leading, name, self._supervised(name, work))

    async def run(self, stop: asyncio.Event, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Fills the cache, waits for the lease, works, and ends gracefully when `stop` is set.

        Raises:
            LeaseLost: The process must end at once.
        """
        try:
            if not await self._or_stop(self.start(), stop):
                return
            if self.elector is not None:
                if not await self._or_stop(self.elector.acquire(), stop):
                    return
            else:
                self.metrics.leader.set(1)
            self.lead()
            if self.elector is not None:
                await self._or_stop(self.elector.hold(), stop)
            else:
                await stop.wait()
        except LeaseLost as error:
            if self._on_lease_lost is not None:
                self._on_lease_lost(error)
            grace_seconds = 0.0
            raise
        finally:
            await self.stop(grace_seconds=grace_seconds)

    async def stop(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """Hands out no more keys, lets flights finish within a limit, releases the lease, ends all tasks."""
        self.queue.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self.queue.wait_landed()
        await _cancel(self._leading)
        if self.elector is not None:
            await self.elector.release()
        self.metrics.leader.set(0)
        await _cancel(self._tasks)
        if self._failure.done() and not self._failure.cancelled():
            self._failure.exception()
        else:
            self._failure.cancel()

    def require_lease(self, margin_seconds: float = 0.0) -> None:
        """Makes sure that nobody else leads for so long; to be called before an outside effect, with its time limit.

        Raises:
            Transient: The lease isn't held, or not for long enough.
        """
        if self.elector is not None and not self.elector.is_valid(margin_seconds):
            raise Transient(f"nothing may be changed: the lease isn't held for another {margin_seconds:g} s")

    # checks for the probes: an empty string when all is well

    def watch_silence(self) -> str:
        """Says which watch the API server hasn't spoken on for too long."""
        for informer in self._informers:
            if informer.silence_seconds > SILENCE_SECONDS:
                return f"no sign of the watch of {informer.resource.kind} for {informer.silence_seconds:.0f} s"
        for resource, (_, since) in self._unseen.items():
            if (silence := asyncio.get_running_loop().time() - since) > SILENCE_SECONDS:
                return f"the watch of {resource.kind} hasn't told a write of ours for {silence:.0f} s"
        return ""

    def queue_standstill(self) -> str:
        """Says if keys wait and none moves, though this process leads."""
        still = asyncio.get_running_loop().time() - self.queue.last_move
        if self._leading and len(self.queue) and still > SILENCE_SECONDS and self.queue.oldest_age() > SILENCE_SECONDS:
            return f"{len(self.queue)} keys wait and none has moved for {still:.0f} s"
        return ""

    def unsynced(self) -> str:
        """Says if the cache isn't complete yet."""
        return "" if self.synced.is_set() else "the cache is being filled"

    async def resync(self, resource: Resource) -> None:
        """Reads all objects of a reconciled kind, enqueues them and those that are gone."""
        for namespace in self.namespaces:
            seen: set[Name] = set()
            version = ""
            async for page, version in self.kube.pages(resource, namespace):  # noqa: B007 - the last one counts
                for obj in page:
                    key = key_of(resource, obj)
                    seen.add((key.namespace, key.name))
                    self.cache.put(resource, obj)
                    self.queue.add(key)
                await asyncio.sleep(0)
            self.drop_missing(resource, seen, version, namespace)

    async def recheck(self, resource: Resource) -> None:
        """Drops objects that are gone, by a list of names only."""
        for namespace in self.namespaces:
            items, version = await self.kube.list(resource, namespace, metadata_only=True)
            seen = {(item["metadata"].get("namespace", ""), item["metadata"]["name"]) for item in items}
            self.drop_missing(resource, seen, version, namespace)

    def drop_missing(self, resource: Resource, seen: set[Name], version: str, namespace: str | None) -> None:
        """Drops objects of a reconciled kind that a complete list hasn't shown and that aren't newer."""
        for gone in self.cache.drop_missing(resource, seen, version, namespace):
            self.queue.add(key_of(resource, gone))
            self._child_changed(Change(gone, None))

    async def _resync_until_done(self, resource: Resource) -> None:
        backoff, failures = Backoff(base_seconds=0.5, cap_seconds=15.0), 0
        while True:
            try:
                await self.resync(resource)
            except CloudmeshError as error:
                failures += 1
                log.warning("objects can't be listed", extra={"kind": resource.kind, "error": str(error)})
                await asyncio.sleep(backoff.delay(failures, self._rng))
            else:
                return

    async def _resync_forever(self) -> None:
        while True:
            await asyncio.sleep(RESYNC_SECONDS * self._rng.uniform(0.9, 1.1))
            for resource in self._primaries:
                await self._resync_until_done(resource)

    async def _recheck_forever(self) -> None:
        # kopf lists again after a 410 without telling what went meanwhile
        while True:
            await self._relisted.wait()
            await asyncio.sleep(RECHECK_SECONDS)
            self._relisted.clear()
            try:
                for resource in self.fed:
                    await self.recheck(resource)
            except CloudmeshError as error:
                log.warning("names can't be listed", extra={"error": str(error)})
                self._relisted.set()

    def _inform(self, resource: Resource, sink: Any, namespace: str | None, **selection: Any) -> None:
        informer = Informer(
            self.kube, resource, sink, namespace=namespace, metrics=self.metrics, rng=self._rng, **selection
        )
        self._informers.append(informer)
        self._spawn(self._tasks, f"informer {resource.kind} {namespace or ''}".rstrip(), informer.run)

    def _watch_reference(self, kind: str) -> None:
        resource = {"ConfigMap": CONFIG_MAP, "Secret": SECRET}.get(kind)
        if resource is None:
            raise ValueError(f"references to {kind} aren't watched, only those to ConfigMap and Secret")
        fields = REFERABLE if kind == "Secret" else ""
        for namespace in self.namespaces:
            sink = ReferenceSink(kind, self.references, namespace)
            self._inform(resource, sink, namespace, field_selector=fields, metadata_only=True)

    def _watched_changed(self, resource: Resource, change: Change) -> None:
        self._child_changed(change)
        if (obj := change.new or change.old) is not None:
            for told in self._listeners.get(resource, ()):
                told(obj)

    def _child_changed(self, change: Change) -> None:
        for obj in (change.old, change.new):
            if obj is not None and (key := owner_key(obj, self._reconcilers)) is not None:
                self.queue.add(key)

    def _reference_changed(self, key: Key) -> None:
        self._workers.release(key)
        self.queue.add(key)

    def _written(self, resource: Resource, obj: Obj) -> None:
        if not self.cache.knows(resource):
            return
        change = self.cache.put(resource, obj)
        if change is None:
            return
        # the answer may hold a change by somebody else whose own event will now count as old
        if resource in self._primaries:
            if change.new is not None:
                self._unseen.setdefault(resource, (resource_version(obj), asyncio.get_running_loop().time()))
            if change.besides_status:
                self.queue.add(key_of(resource, obj))
        self._child_changed(change)

    def _guard(self, resource: Resource) -> None:
        if resource not in (LEASE, EVENT):
            self.require_lease()

    def _gone(self, key: Key, uid: str) -> None:
        self.references.set(key, ())
        if uid:
            self.status.forget(uid)

    def _supervised(self, name: str, work: Background) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            backoff, failures = Backoff(base_seconds=0.5, cap_seconds=30.0), 0
            while True:
                try:
                    await work()
                except Exception as error:
                    failures += 1
                    delay = backoff.delay(failures, self._rng)
                    reason = error.reason if isinstance(error, CloudmeshError) else "Unexpected"
                    self.metrics.errors.labels(name, reason).inc()
                    if isinstance(error, CloudmeshError):
                        log.warning("background work failed", extra={"work": name, "error": str(error)})
                    else:
                        log.exception("background work failed unexpectedly", extra={"work": name})
                    await asyncio.sleep(delay)
                else:
                    return

        return run

    def _spawn(self, group: set[asyncio.Task[None]], name: str, work: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await work()
            except Exception as error:
                # no task of the engine ends by an error; if one does, the process must not go on half alive
                log.exception("a task of the engine failed", extra={"task": name})
                if not self._failure.done():
                    self._failure.set_exception(error)

        # an empty context: the key of the reconcile that happened to start it would stand in all its log lines
        task = asyncio.create_task(run(), name=name, context=contextvars.Context())
        group.add(task)

    async def _or_stop(self, work: Awaitable[Any], stop: asyncio.Event) -> bool:
        """Awaits work until it ends (True), `stop` is set (False), or a task of the engine fails."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({doing, stopping, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            if doing.done():
                await doing
                return True
            return False
        finally:
            for task in (doing, stopping):
                task.cancel()
            await asyncio.gather(doing, stopping, return_exceptions=True)


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    tasks.clear()
