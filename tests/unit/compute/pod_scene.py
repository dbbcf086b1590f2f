"""Clusters whose machines are Pods, on a memory API server with as much of a scheduler and a kubelet as they need."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from typing import Any

from tests.unit.compute import cluster_scene
from tests.unit.compute.machine_scene import NAMESPACES, now, runs_in, wall

from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute.account_controller import AccountReconciler
from cloudmesh.compute.accounts import Accounts
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.providers.kubernetes.news import listen
from cloudmesh.compute.providers.kubernetes.pods import CONTAINER, DISK
from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.compute.providers.kubernetes.sizes import read_settings
from cloudmesh.compute.providers.registry import Context
from cloudmesh.engine import CONFIG_MAP, SECRET, Engine, Obj, Resource
from cloudmesh.engine.kube import Request
from cloudmesh.testing import CrashPoint, World
from cloudmesh.testing.apiserver.server import Refused

POD = Resource("v1", "Pod", "pods")
SERVICE = Resource("v1", "Service", "services")
TICK_SECONDS = 0.5
NODE_DISK = 100 * 2**30
SMALL = {"vcpu": {"min": "500m"}}


async def answers(*_: Any) -> None:
    """A probe that every machine answers."""


class PodScene(cluster_scene.Scene):
    """One namespace with the account `pods`.

    Args:
        quota: Pods that the namespace's quota allows, None for all.
        held: The scheduler is away.
    """

    def __init__(self) -> None:
        super().__init__()
        self.world = World((*cluster_scene.KINDS, POD, SERVICE))
        self.api = self.world.api
        self.api.store._now = now
        self.api.put(NAMESPACES, {"metadata": {"name": "kube-system"}})
        self.api.admit.append(self._admit)
        self.quota: int | None = None
        self.held = False
        self.settings: dict[str, str] = {}
        plain = self.api.handle

        def handle(request: Request) -> Any:
            if request.path.endswith("/selfsubjectaccessreviews"):
                return 201, {**request.body, "status": {"allowed": True}}
            return plain(request)

        self.api.handle = handle  # type: ignore[method-assign]
        self._put(CLOUD_ACCOUNT, "pods", {"kubernetes": {}})

    def cluster(self, name: str = "lab", replicas: int = 1, **options: Any) -> Obj:
        """Makes a VirtualCluster with one pool of Pods."""
        machine = options.pop("machine", SMALL)
        pool = {"alternatives": [{"name": "any", "machine": machine}], **options.pop("pool", {})}
        return super().cluster(name, replicas, pool=pool, accounts=[{"name": "pods"}], **options)

    def foreign(self, resource: Resource, name: str) -> None:
        """Makes an object that is nobody's here."""
        self.api.put(resource, {"metadata": {"name": name, "namespace": "ns"}, "spec": {}})

    def types(self) -> set[str]:
        """Types of all VirtualMachines."""
        return {machine["spec"]["offer"]["type"] for machine in self.machines()}

    def made(self) -> int:
        """VirtualMachines that were ever made."""
        first = [obj for act, kind, obj in self.api.store.writes if kind == VIRTUAL_MACHINE]
        return len({str(name) for name in first})

    def waits(self) -> float:
        """Seconds that the account still waits."""
        moments = [datetime.datetime.fromisoformat(failure["until"]).timestamp() for failure in self.failures()]
        return max(moments, default=0.0) - wall()

    def failures(self) -> list[Obj]:
        """What the account remembers."""
        return list((self.get(CLOUD_ACCOUNT, "pods").get("status") or {}).get("failures") or ())

    def maker(self, crash: CrashPoint | None) -> Callable[[str], Any]:
        """Finds the maker of providers."""

        def make(context: Context) -> Any:
            assert context.kube is not None
            defaults = {**context.defaults, **self.settings}
            context = Context(
                context.namespace, context.name, context.uid, context.spec, kube=context.kube, defaults=defaults
            )
            return PodProvider(context.kube, read_settings(context, now()), now)  # type: ignore[arg-type]

        return lambda kind: make

    def account_reconciler(self, engine: Engine, accounts: Accounts) -> AccountReconciler:
        """As the operator makes it."""
        listen(engine, accounts.hint)
        return super().account_reconciler(engine, accounts)

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None, **options: Any) -> AsyncIterator[tuple[Engine, Accounts]]:
        """An operator, and what moves Pods."""
        mover = asyncio.create_task(self._move())
        try:
            async with super().operator(crash, probe=answers, **options) as found:
                yield found
        finally:
            mover.cancel()

    async def _move(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            for number, pod in enumerate(self.api.all(POD)):
                self._tick(pod, number)

    def _tick(self, pod: Obj, number: int) -> None:
        meta, spec = pod["metadata"], pod.get("spec") or {}
        if not spec.get("containers") or self.held or (pod.get("status") or {}).get("phase"):
            return
        disk = spec["containers"][0]["resources"]["requests"].get(DISK, "0")
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": now()}
        if parse_quantity(disk) > NODE_DISK:
            scheduled |= {"status": "False", "reason": "Unschedulable"}
            scheduled["message"] = "0/1 nodes are available: 1 Insufficient ephemeral-storage."
            status: Obj = {"phase": "Pending", "conditions": [scheduled]}
        else:
            running = {"startedAt": now()}
            container = {"name": CONTAINER, "containerID": f"containerd://{meta['uid']}", "state": {"running": running}}
            status = {"phase": "Running", "podIP": f"192.0.2.{number + 1}", "startTime": now()}
            status |= {"conditions": [scheduled], "containerStatuses": [container]}
        self.api.set_status(POD, meta["namespace"], meta["name"], status)

    def _admit(self, act: str, resource: Resource, obj: Obj) -> None:
        there = len(self.api.all(POD)) if resource == POD else 0
        if act == "create" and resource == POD and self.quota is not None and there >= self.quota:
            name = obj["metadata"]["name"]
            text = (
                f'pods "{name}" is forbidden: exceeded quota: few, requested: pods=1, used: pods={there}, '
                f"limited: pods={self.quota}"
            )
            raise Refused(403, "Forbidden", text, name=name)

    def data(self, resource: Resource, name: str) -> Obj:
        """What a Secret or ConfigMap holds; nothing if it isn't there."""
        return dict((self.api.get(resource, "ns", name) or {}).get("data") or {})

    def remove(self, resource: Resource, name: str) -> None:
        """Takes an object away as somebody would who shouldn't."""
        assert resource in (SERVICE, SECRET, CONFIG_MAP, POD)
        self.api.remove(resource, "ns", name)


pod_scene = runs_in(PodScene)
