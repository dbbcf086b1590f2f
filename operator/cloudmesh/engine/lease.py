"""Leader election by one Lease: judged on the monotonic clock, each request with its own limit.

A leader renews every `retry_seconds`. One that could not renew for `renew_seconds` must stop at once (`LeaseLost`),
which is before anybody else may take over: a standby waits until the Lease has not changed for its whole duration on
the standby's own clock. Clocks of machines are never compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import random

from cloudmesh.engine.errors import CloudmeshError, Conflict
from cloudmesh.engine.kube.client import Kube
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import LEASE, Obj, resource_version

log = logging.getLogger(__name__)

DURATION_SECONDS = 12
RENEW_SECONDS = 8.0
RETRY_SECONDS = 2.0
POLL_SECONDS = 1.0
RELEASE_SECONDS = 1.0


class LeaseLost(Exception):
    """This process may no longer act as leader and must end."""


class Elector:
    """Takes, keeps and releases one Lease.

    Args:
        kube: The client.
        namespace: Namespace of the Lease.
        name: Name of the Lease.
        identity: Unique to this process, not only to the Pod: a restarted container is another candidate.
        duration_seconds: How long a Lease holds after its last renewal.
        renew_seconds: A leader that couldn't renew for so long gives up.
        retry_seconds: Between renewals.
        poll_seconds: Between a standby's looks at the Lease; a watch makes it look sooner.
        metrics: Leader gauge.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        identity: str,
        *,
        duration_seconds: int = DURATION_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        metrics: Metrics | None = None,
        rng: random.Random | None = None,
    ) -> None:
        if not retry_seconds < renew_seconds < duration_seconds:
            raise ValueError("lease times must rise: retry_seconds, renew_seconds, duration_seconds")
        self.identity = identity
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._duration = duration_seconds
        self._renew = renew_seconds
        self._retry = retry_seconds
        self._poll = poll_seconds
        self._metrics = metrics or Metrics()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self._held: Obj | None = None
        self._renewed_at = float("-inf")
        self._seen_version = -1
        self._seen_at = 0.0
        self._seen_duration = float(duration_seconds)
        self._news = asyncio.Event()
        self._released: Obj | None = None

    @property
    def valid_until(self) -> float:
        """Event-loop time until which nobody else can hold the Lease; in the past when this process doesn't lead."""
        return self._renewed_at + self._duration if self._held is not None else float("-inf")

    def is_valid(self, margin_seconds: float = 0.0) -> bool:
        """Whether the Lease is held for at least that much longer."""
        return self.valid_until > _clock() + margin_seconds

    async def acquire(self) -> None:
        """Returns as soon as this process leads."""
        watcher = asyncio.create_task(self._watch(), name="lease watch")
        try:
            while not await self._try():
                self._news.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._wait_seconds()):
                        await self._news.wait()
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
        self._metrics.leader.set(1)
        self._metrics.lease_transitions.inc()
        log.info("lease taken", extra={"lease": self._name, "identity": self.identity})

    async def hold(self) -> None:
        """Renews for ever.

        Raises:
            LeaseLost: It couldn't be renewed in time, or somebody else holds it.
        """
        while True:
            await asyncio.sleep(self._retry * self._rng.uniform(0.9, 1.0))
            deadline = self._renewed_at + self._renew
            while not await self._renew_once(deadline):  # noqa: ASYNC110 - it is the API server that is waited for
                await asyncio.sleep(min(self._retry / 4, max(0.0, deadline - _clock())))

    async def release(self) -> None:
        """Lets a standby take over at once; gives up quietly, since the Lease ends by itself."""
        held, self._held = self._held, None
        self._metrics.leader.set(0)
        if held is None:
            return
        spec = held["spec"] | {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time()}
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._kube.replace(LEASE, held | {"spec": spec})
            log.info("lease released", extra={"lease": self._name})
        except (CloudmeshError, TimeoutError) as error:
            log.warning("lease not released", extra={"lease": self._name, "error": str(error)})

    async def _try(self) -> bool:
        begin = _clock()
        try:
            async with asyncio.timeout(self._renew / 2):
                # a release that the watch told is acted on as it is: if it is old, the replace fails
                lease, self._released = self._released, None
                if lease is None:
                    lease = await self._kube.get(LEASE, self._namespace, self._name)
                if lease is None:
                    lease = {
                        "apiVersion": LEASE.api_version,
                        "kind": LEASE.kind,
                        "metadata": {"name": self._name, "namespace": self._namespace},
                        "spec": self._spec({}),
                    }
                    self._take(await self._kube.create(LEASE, lease), begin)
                    return True
                if not self._is_free(lease):
                    return False
                begin = _clock()
                mine = lease | {"spec": self._spec(lease.get("spec") or {})}
                self._take(await self._kube.replace(LEASE, mine), begin)
                return True
        except Conflict:
            return False
        except (CloudmeshError, TimeoutError) as error:
            log.warning("lease can't be read or taken", extra={"lease": self._name, "error": str(error)})
            return False

    async def _renew_once(self, deadline: float) -> bool:
        begin = _clock()
        if self._held is None or begin >= deadline:
            raise self._lost("it could not be renewed in time")
        spec = self._held["spec"] | {"renewTime": _micro_time(), "leaseDurationSeconds": self._duration}
        try:
            async with asyncio.timeout(min(self._renew / 2, deadline - begin)):
                self._take(await self._kube.replace(LEASE, self._held | {"spec": spec}), begin)
        except Conflict:
            return await self._look_again(deadline)
        except (CloudmeshError, TimeoutError) as error:
            log.warning("lease not renewed", extra={"lease": self._name, "error": str(error)})
            return False
        return True

    async def _look_again(self, deadline: float) -> bool:
        """After a conflict: an earlier renewal whose answer was lost, or somebody else's hand."""
        try:
            async with asyncio.timeout(max(0.0, deadline - _clock())):
                lease = await self._kube.get(LEASE, self._namespace, self._name)
        except (CloudmeshError, TimeoutError):
            return False
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self.identity:
            raise self._lost("somebody else holds it")
        self._held = lease
        return False

    def _take(self, lease: Obj, begin: float) -> None:
        self._held = lease
        # counted from before the request: the server may have stamped it at any moment since
        self._renewed_at = begin

    def _lost(self, why: str) -> LeaseLost:
        self._held = None
        self._metrics.leader.set(0)
        return LeaseLost(f"lease {self._namespace}/{self._name} is lost: {why}")

    def _is_free(self, lease: Obj) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        self._observe(lease)
        return holder in ("", self.identity) or _clock() >= self._seen_at + self._seen_duration

    def _observe(self, lease: Obj) -> None:
        """Notes when the Lease was last seen to change, by this process's clock."""
        if (version := resource_version(lease)) > self._seen_version:
            self._seen_version, self._seen_at = version, _clock()
            duration = (lease.get("spec") or {}).get("leaseDurationSeconds")
            self._seen_duration = float(max(1, int(duration or self._duration)))

    def _wait_seconds(self) -> float:
        poll = self._poll * self._rng.uniform(0.9, 1.0)
        until_expiry = self._seen_at + self._seen_duration - _clock()
        return min(poll, until_expiry) if until_expiry > 0 else poll

    def _spec(self, old: Obj) -> Obj:
        now = _micro_time()
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self._duration,
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + (1 if old else 0),
        }

    async def _watch(self) -> None:
        """Tells renewals and a release at once; without it the standby notices them when it polls."""
        while True:
            try:
                stream = self._kube.watch(
                    LEASE,
                    self._namespace,
                    resource_version="",
                    timeout_seconds=60,
                    field_selector=f"metadata.name={self._name}",
                )
                async with contextlib.aclosing(stream):
                    async for event in stream:
                        lease = event["object"]
                        if event["type"] == "DELETED":
                            self._news.set()
                        elif event["type"] != "BOOKMARK":
                            self._observe(lease)
                            if not (lease.get("spec") or {}).get("holderIdentity"):
                                self._released = lease
                                self._news.set()
            except CloudmeshError as error:
                log.debug("lease watch ended", extra={"error": str(error)})
            await asyncio.sleep(self._retry * self._rng.uniform(0.5, 1.0))


def _clock() -> float:
    return asyncio.get_running_loop().time()


def _micro_time() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
