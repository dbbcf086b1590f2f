"""Kubernetes Events (events.k8s.io/v1): repeated ones are counted, similar ones combined, floods dropped."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import secrets
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Literal

from cloudmesh.api.names import FIELD_MANAGER
from cloudmesh.engine.errors import AlreadyExists, CloudmeshError, NotFound, RateLimited, Transient
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import EVENT, Obj

log = logging.getLogger(__name__)

WINDOW_SECONDS = 600.0
SERIES_SECONDS = 30.0
SIMILAR_LIMIT = 10
BURST = 25
REFILL_SECONDS = 300.0
WAITING_LIMIT = 1000
REMEMBERED = 4096
NOTE_LIMIT = 1024
COMBINED = "(combined from similar events) "

Identity = tuple[str, str, str, str]


@dataclass(slots=True)
class _Series:
    body: Obj
    last: float
    count: int = 1
    written: int = 0
    created: bool = False


@dataclass(slots=True)
class _Object:
    tokens: float
    refilled: float
    messages: dict[tuple[str, str], tuple[float, set[str]]] = field(default_factory=dict)


class Events:
    """Takes events without waiting and writes them in the background.

    Args:
        kube: The client.
        instance: Name of this process, such as the Pod's.
        metrics: Counts written, counted and dropped events.
    """

    def __init__(self, kube: Kube, instance: str, metrics: Metrics | None = None) -> None:
        self._kube = kube
        self._instance = instance[:128]
        self._metrics = metrics or Metrics()
        self._series: OrderedDict[Identity, _Series] = OrderedDict()
        self._objects: OrderedDict[str, _Object] = OrderedDict()
        self._waiting: deque[_Series] = deque()
        self._repeated: dict[Identity, _Series] = {}
        self._wake = asyncio.Event()

    def emit(
        self, obj: Obj, type_: Literal["Normal", "Warning"], reason: str, message: str, *, action: str = "Reconcile"
    ) -> None:
        """Tells what happened to an object; returns at once.

        Args:
            obj: What the event regards.
            type_: `Normal` or `Warning`.
            reason: One CamelCase word.
            message: For people, without secrets; cut at 1,024 characters.
            action: One CamelCase word: what was being done.
        """
        now = _clock()
        uid = obj["metadata"].get("uid", "")
        state = self._state(uid, now)
        note = self._combine(state, type_, reason, message[:NOTE_LIMIT], now)
        text = COMBINED if note.startswith(COMBINED) else note
        identity = (uid, type_, reason, text)
        series = self._series.get(identity)
        if series is not None and now - series.last < WINDOW_SECONDS:
            series.count += 1
            series.last = now
            self._series.move_to_end(identity)
            self._repeated[identity] = series
            self._metrics.events.labels("counted").inc()
            return
        if state.tokens < 1.0 or len(self._waiting) >= WAITING_LIMIT:
            self._metrics.events.labels("dropped").inc()
            return
        state.tokens -= 1.0
        series = _Series(self._body(obj, type_, reason, note, action), now)
        self._series[identity] = series
        while len(self._series) > REMEMBERED:
            old, _ = self._series.popitem(last=False)
            self._repeated.pop(old, None)
        self._waiting.append(series)
        self._wake.set()

    async def run(self) -> None:
        """Writes events until cancelled."""
        flushed = _clock()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SERIES_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.flush(series=_clock() - flushed >= SERIES_SECONDS)
            if _clock() - flushed >= SERIES_SECONDS:
                flushed = _clock()

    async def flush(self, *, series: bool = True) -> None:
        """Writes what waits: new events, and with `series` the counts of repeated ones."""
        while self._waiting:
            item = self._waiting[0]
            try:
                await self._create(item)
            except (RateLimited, Transient) as error:
                log.debug("event waits", extra={"error": str(error)})
                wait = error.retry_after if isinstance(error, RateLimited) else None
                asyncio.get_running_loop().call_later(wait or 5.0, self._wake.set)
                return
            except CloudmeshError as error:
                self._metrics.events.labels("dropped").inc()
                log.debug("event dropped", extra={"error": str(error)})
            self._waiting.popleft()
        if series:
            repeated, self._repeated = self._repeated, {}
            for item in repeated.values():
                if item.created and item.count > item.written:
                    await self._count(item)

    async def _create(self, item: _Series) -> None:
        with contextlib.suppress(AlreadyExists):  # an earlier try whose answer was lost
            await self._kube.create(EVENT, item.body)
        item.created, item.written = True, item.count
        self._metrics.events.labels("written").inc()

    async def _count(self, item: _Series) -> None:
        meta = item.body["metadata"]
        series = {"count": item.count, "lastObservedTime": _micro_time()}
        try:
            await self._kube.patch(EVENT, meta["namespace"], meta["name"], {"series": series})
            item.written = item.count
            self._metrics.events.labels("written").inc()
        except NotFound:  # the API server keeps events for an hour
            self._series = OrderedDict((k, v) for k, v in self._series.items() if v is not item)
        except CloudmeshError as error:
            log.debug("event not counted", extra={"error": str(error)})

    def _state(self, uid: str, now: float) -> _Object:
        state = self._objects.get(uid)
        if state is None:
            state = self._objects[uid] = _Object(tokens=float(BURST), refilled=now)
            while len(self._objects) > REMEMBERED:
                self._objects.popitem(last=False)
        state.tokens = min(float(BURST), state.tokens + (now - state.refilled) / REFILL_SECONDS)
        state.refilled = now
        self._objects.move_to_end(uid)
        return state

    def _combine(self, state: _Object, type_: str, reason: str, note: str, now: float) -> str:
        begin, messages = state.messages.get((type_, reason), (now, set()))
        if now - begin >= WINDOW_SECONDS:
            begin, messages = now, set()
        if note not in messages and len(messages) >= SIMILAR_LIMIT:
            return (COMBINED + note)[:NOTE_LIMIT]
        messages.add(note)
        state.messages[(type_, reason)] = (begin, messages)
        return note

    def _body(self, obj: Obj, type_: str, reason: str, note: str, action: str) -> Obj:
        meta = obj["metadata"]
        regarding = {
            "apiVersion": obj.get("apiVersion", ""),
            "kind": obj.get("kind", ""),
            "name": meta["name"],
            "uid": meta.get("uid", ""),
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        if namespace := meta.get("namespace"):
            regarding["namespace"] = namespace
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                # named before it is sent, so that a second try after a lost answer makes no second event
                "name": f"{meta['name'][:200]}.{secrets.token_hex(8)}",
                "namespace": namespace or "default",
            },
            "eventTime": _micro_time(),
            "reportingController": FIELD_MANAGER,
            "reportingInstance": self._instance,
            "action": action[:128],
            "reason": reason[:128],
            "type": type_,
            "note": note,
            "regarding": regarding,
        }


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _micro_time() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
