"""Writing status: by server-side apply, and not at all when nothing would change."""

from __future__ import annotations

import datetime
import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from cloudmesh.engine.cache import Cache
from cloudmesh.engine.errors import Conflict
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import Obj, Resource, resource_version

REMEMBERED = 100_000


def utc_now() -> str:
    """RFC 3339 time in UTC, to the second, as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Status:
    """Applies `/status` as our field manager: what is left out of it is given up.

    Args:
        kube: The client.
        cache: Where the newest known status is.
        metrics: Counts what was written and what skipped.
        now: RFC 3339 time for conditions that changed and bring none.
    """

    def __init__(
        self, kube: Kube, cache: Cache, metrics: Metrics | None = None, now: Callable[[], str] = utc_now
    ) -> None:
        self._kube = kube
        self._cache = cache
        self._metrics = metrics or Metrics()
        self._now = now
        # what we last sent and what came back, as hashes: tells a server's own defaults from a stranger's change
        self._sent: OrderedDict[str, tuple[bytes, bytes]] = OrderedDict()

    async def write(self, resource: Resource, obj: Obj, status: dict[str, Any], *, only_this: bool = False) -> Obj:
        """Makes the object's status be this and returns the object; costs no call when it is already.

        A condition whose status is unchanged keeps its lastTransitionTime.

        Args:
            resource: The kind.
            obj: The object.
            status: The whole status.
            only_this: Write only if this very version of the object is still the newest one; then the call is made
                even if nothing would change.

        Raises:
            NotFound: The object is gone.
            Conflict: An object of another uid has its name, or there is a newer version.
        """
        meta = obj["metadata"]
        namespace, name, uid = meta.get("namespace"), meta["name"], meta["uid"]
        current = self._cache.get(resource, namespace, name) or obj
        if current["metadata"].get("uid") != uid or resource_version(current) < resource_version(obj):
            current = obj
        held = current.get("status") or {}
        wanted = self._keep_times(status, held)
        sent = _digest(wanted)
        if not only_this and (wanted == held or self._sent.get(uid) == (sent, _digest(held))):
            self._metrics.status_writes.labels(resource.kind, "skipped").inc()
            return current
        target: Obj = {"metadata": {"name": name}, "status": wanted}
        if only_this:
            target["metadata"]["resourceVersion"] = meta["resourceVersion"]
        if namespace:
            target["metadata"]["namespace"] = namespace
        answer = await self._kube.apply(resource, target, subresource="status")
        if answer["metadata"]["uid"] != uid:
            # an apply of status can't be bound to a uid; the new object's own reconcile puts it right
            raise Conflict(f"{resource.kind} {name} was deleted and made anew")
        self._metrics.status_writes.labels(resource.kind, "written").inc()
        self._sent[uid] = (sent, _digest(answer.get("status") or {}))
        self._sent.move_to_end(uid)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        return answer

    def forget(self, uid: str) -> None:
        """Drops what is remembered of an object that is gone."""
        self._sent.pop(uid, None)

    def _keep_times(self, status: dict[str, Any], held: dict[str, Any]) -> dict[str, Any]:
        if "conditions" not in status:
            return status
        old = {condition.get("type"): condition for condition in held.get("conditions") or ()}
        conditions = []
        for condition in status["conditions"]:
            before = old.get(condition.get("type")) or {}
            if before.get("status") == condition.get("status") and "lastTransitionTime" in before:
                time = before["lastTransitionTime"]
            else:
                time = condition.get("lastTransitionTime") or self._now()
            conditions.append(condition | {"lastTransitionTime": time})
        return status | {"conditions": conditions}


def _digest(value: Any) -> bytes:
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).digest()
