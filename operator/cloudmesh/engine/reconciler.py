"""The loop that takes keys from the queue, calls the reconciler, and turns its answer or error into the next step."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from cloudmesh.engine.cache import Cache
from cloudmesh.engine.errors import CloudmeshError, Conflict, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.logs import logging_key
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.queue import Queue, QueueClosed
from cloudmesh.engine.resources import Done, Key, Obj, Resource

log = logging.getLogger(__name__)

RECONCILE_SECONDS = 300.0
USUAL_CONFLICTS = 5
"""So many in a row are no news: somebody else wrote, or a namespace is on its way out."""


class Reconciler(Protocol):
    """One kind's controller."""

    @property
    def resource(self) -> Resource:
        """The kind it reconciles."""

    @property
    def owns(self) -> Sequence[Resource]:
        """Kinds of children, watched by label and mapped to their owner."""

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """Brings the world nearer to what the object asks for; runs at most once at a time for a key.

        Raises:
            CloudmeshError: InvalidRequest and Unsupported wait for a change of the object; all others are tried again.
        """

    def forget(self, key: Key) -> None:
        """The object is gone: drop what is held in memory for it."""


class Workers:
    """Drains the queue.

    Args:
        queue: Where keys come from.
        cache: Where objects come from.
        kube: For a live look after a conflict.
        reconcilers: By kind.
        metrics: Seconds and errors.
        on_gone: Called for a key whose object is gone, with the uid last seen (empty if never seen).
        limit_seconds: A reconcile that takes longer is ended and tried again.
    """

    def __init__(
        self,
        queue: Queue,
        cache: Cache,
        kube: Kube,
        reconcilers: Mapping[str, Reconciler],
        metrics: Metrics,
        *,
        on_gone: Callable[[Key, str], None] | None = None,
        limit_seconds: float = RECONCILE_SECONDS,
    ) -> None:
        self._queue = queue
        self._cache = cache
        self._kube = kube
        self._reconcilers = reconcilers
        self._metrics = metrics
        self._on_gone = on_gone
        self._limit = limit_seconds
        self._stopped: dict[Key, bytes] = {}
        self._uids: dict[Key, str] = {}

    async def run(self) -> None:
        """One worker: handles keys one after the other until the queue closes."""
        while True:
            try:
                key = await self._queue.get()
            except QueueClosed:
                return
            try:
                with logging_key(key):
                    await self.handle(key)
            finally:
                self._queue.done(key)

    def release(self, key: Key) -> None:
        """Lets a stopped key be tried again, since something outside its object changed."""
        if self._stopped.pop(key, None) is not None:
            self._metrics.stopped.labels(key.kind).dec()

    async def handle(self, key: Key) -> None:
        """Reconciles one key; only cancellation gets out."""
        reconciler = self._reconcilers.get(key.kind)
        if reconciler is None:
            return
        obj = self._cache.get(reconciler.resource, key.namespace, key.name)
        if obj is None:
            self._forget(reconciler, key)
            return
        uid = obj["metadata"].get("uid", "")
        if self._uids.setdefault(key, uid) != uid:  # deleted and made anew between two looks
            self._forget(reconciler, key)
            self._uids[key] = uid
        mark = fingerprint(obj)
        if key in self._stopped:
            if self._stopped[key] == mark:
                return
            self.release(key)
        begin = time.monotonic()
        result = "error"
        try:
            done = await self._call(reconciler, key, obj)
            result = "done"
            self._queue.reset(key)
            if done.requeue_after is not None:
                self._queue.add_after(key, done.requeue_after)
        except CloudmeshError as error:
            await self._failed(reconciler, key, obj, mark, error)
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        except Exception:
            self._metrics.errors.labels(key.kind, "Unexpected").inc()
            delay = self._queue.retry(key)
            log.exception("reconcile failed unexpectedly", extra={"retry_seconds": round(delay, 2)})
        finally:
            self._metrics.reconcile_seconds.labels(key.kind, result).observe(time.monotonic() - begin)

    async def _call(self, reconciler: Reconciler, key: Key, obj: Obj) -> Done:
        limit = asyncio.timeout(self._limit)
        try:
            async with limit:
                return await reconciler.reconcile(key, obj)
        except TimeoutError as error:
            if limit.expired():
                raise Transient(f"the reconcile took longer than {self._limit:g} s") from error
            raise Transient(f"time-out: {error}") from error

    async def _failed(self, reconciler: Reconciler, key: Key, obj: Obj, mark: bytes, error: CloudmeshError) -> None:
        self._metrics.errors.labels(key.kind, error.reason).inc()
        told: dict[str, object] = {"reason": error.reason, "error": str(error)}
        match error:
            case InvalidRequest() | Unsupported():
                self._stopped[key] = mark
                self._metrics.stopped.labels(key.kind).inc()
                self._queue.reset(key)
                log.warning("reconcile stopped until the object changes", extra=told)
                return
            case RateLimited():
                delay = self._queue.retry(key, at_least=error.retry_after or 0.0)
            case Conflict():
                await self._refresh(reconciler.resource, obj)
                delay = self._queue.retry(key)
            case _:
                delay = self._queue.retry(key)
        told["retry_seconds"] = round(delay, 2)
        if isinstance(error, Conflict) and self._queue.failures(key) <= USUAL_CONFLICTS:
            log.info("reconcile came too late", extra=told)
        else:
            log.warning("reconcile failed", extra=told)

    async def _refresh(self, resource: Resource, obj: Obj) -> None:
        """A conflict means the cache is behind: look at the object itself, which may even be gone."""
        meta = obj["metadata"]
        try:
            live = await self._kube.get(resource, meta.get("namespace"), meta["name"])
        except CloudmeshError:
            return
        if live is None:
            self._cache.remove(resource, obj)
        else:
            self._cache.put(resource, live)

    def _forget(self, reconciler: Reconciler, key: Key) -> None:
        self._queue.discard(key)
        self.release(key)
        uid = self._uids.pop(key, "")
        if self._on_gone is not None:
            self._on_gone(key, uid)
        try:
            reconciler.forget(key)
        except Exception:
            self._metrics.errors.labels(key.kind, "Unexpected").inc()
            log.exception("forget failed unexpectedly")


def fingerprint(obj: Obj) -> bytes:
    """What a user can change of an object: its uid, generation, annotations and labels."""
    meta = obj["metadata"]
    parts = [meta.get("uid"), meta.get("generation"), meta.get("annotations"), meta.get("labels")]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).digest()
