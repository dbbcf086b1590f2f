"""From a definite capacity error to the next offer: operators' code on a real API server, clouds without room.

Once with a few clusters that fail at the same moment, and once, as `burst`, with so many that CPU time is what they
wait for. The aim is for the few: the benchmark fails when they miss it.

Each cluster has an account and a memory cloud of its own, whose cheapest offers have no room and say so at the create
call only, so that no cluster learns from another. What is measured is the time from the cloud's refusal to its next
create call for the same cluster: two writes and a decision lie between them.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests import install
from tests.testbed import clusters
from tests.testbed.clusters import Cluster

from cloudmesh.compute import account_controller, budget_controller, choices, cluster_controller, machine_controller
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.providers import memory
from cloudmesh.compute.providers.memory import CloudError, Instance, MemoryCloud, Stock
from cloudmesh.engine import Engine, Kube, Obj, Resource, Settings, connect
from cloudmesh.engine.kube import Access, HttpTransport
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.testing.world import World

CLUSTERS = int(os.environ.get("BENCH_CLUSTERS", "10"))
BURST = int(os.environ.get("BENCH_BURST", "60"))
WITHOUT_ROOM = int(os.environ.get("BENCH_WITHOUT_ROOM", "5"))
LIMIT_SECONDS = 300.0
AIM_SECONDS = 1.0
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
OPERATOR = ("cloudmesh-system", "cloudmesh-operator")


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies, by the nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


class Watched(MemoryCloud):
    """A memory cloud that notes when it refused and when it was asked again."""

    def __init__(self, name: str, *, without_room: int) -> None:
        super().__init__(name, stock=Stock(types=8))
        rows = [row for row in self.stock.rows.values() if row.purchase == "OnDemand" and row.milli_vcpu >= 2000]
        for row in sorted(rows, key=lambda row: (row.hourly_nanos, row.place))[:without_room]:
            row.free, row.tell_free, row.fails_late = 0, False, False
        self.gaps: list[float] = []
        self._refused_at: float | None = None

    def run_instance(self, order: Any) -> Instance:
        """Makes a machine, or refuses."""
        if self._refused_at is not None:
            self.gaps.append(time.monotonic() - self._refused_at)
            self._refused_at = None
        try:
            return super().run_instance(order)
        except CloudError:
            self._refused_at = time.monotonic()
            raise


def objects(number: int, namespace: str) -> tuple[Obj, Obj]:
    """An account and a cluster that uses it."""
    name = f"c-{number:03}"
    account = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"memory": {"settings": {"cloud": f"{namespace}-{name}"}}},
    }
    machine = {"vcpu": {"min": "2"}}
    cluster = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": 1,
            "accounts": [{"name": name}],
            "pools": [{"name": "workers", "alternatives": [{"name": "any", "machine": machine}]}],
        },
    }
    return account, cluster


def is_ready(obj: Obj) -> bool:
    """Whether Ready is True."""
    found = (obj.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in found)


async def fail_over(cluster: Cluster, kube: Kube, namespace: str, count: int) -> list[float]:
    """Seconds of each fail-over of so many clusters at once."""
    clouds = [Watched(f"{namespace}-c-{n:03}", without_room=WITHOUT_ROOM) for n in range(count)]
    for cloud in clouds:
        memory.cloud(cloud.name, cloud)
    settings = Settings.from_environ({"CLOUDMESH_NAMESPACE": namespace})

    def made(factory: Any) -> Any:
        def make(engine: Engine) -> Reconciler:
            found: Reconciler = factory(engine, settings)
            return found

        return make

    factories: Sequence[Any] = (
        account_controller.reconciler,
        machine_controller.reconciler,
        cluster_controller.reconciler,
        budget_controller.reconciler,
        choices.price_sheets,
        choices.policies,
    )
    transport = HttpTransport(await Access.load(str(cluster.kubeconfig)))
    world = World()
    async with world.engine(*map(made, factories), transport=transport, workers=8, namespaces=[namespace]):
        for number in range(count):
            account, vc = objects(number, namespace)
            await kube.create(CLOUD_ACCOUNT, account)
            await kube.create(VIRTUAL_CLUSTER, vc)
        end = time.monotonic() + LIMIT_SECONDS
        while True:
            await asyncio.sleep(1.0)
            items, _ = await kube.list(VIRTUAL_CLUSTER, namespace)
            ready = sum(is_ready(obj) for obj in items)
            if ready == count:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{ready} of {count} clusters are ready")
        for cloud in clouds:
            if len(cloud.living()) != 1:
                raise RuntimeError(f"{cloud.name} has {len(cloud.living())} machines")
    await transport.close()
    return [gap for cloud in clouds for gap in cloud.gaps]


async def measure(cluster: Cluster) -> int:
    """Prints the figures; 1 if the aim is missed."""
    await asyncio.to_thread(install.build_images)
    await asyncio.to_thread(install.install, cluster)
    kube = await connect(str(cluster.kubeconfig))
    installed = await kube.get(DEPLOYMENT, *OPERATOR)
    replicas = int(installed["spec"]["replicas"]) if installed else 0
    try:
        await kube.patch(DEPLOYMENT, *OPERATOR, {"spec": {"replicas": 0}})
        say("the installed operator rests meanwhile")
        found = tell("next_offer", await in_namespace(cluster, kube, CLUSTERS), CLUSTERS, aim=AIM_SECONDS)
        tell("next_offer_burst", await in_namespace(cluster, kube, BURST), BURST)
    finally:
        await kube.patch(DEPLOYMENT, *OPERATOR, {"spec": {"replicas": replicas}})
        await kube.close()
    if found > AIM_SECONDS:
        say(f"missed: next_offer_p99 is {found:.3f} s, the aim {AIM_SECONDS:g} s")
        return 1
    return 0


async def in_namespace(cluster: Cluster, kube: Kube, count: int) -> list[float]:
    """Seconds of each fail-over, in a namespace that is removed afterwards."""
    namespace = f"bench-failover-{secrets.token_hex(3)}"
    try:
        await kube.create(NAMESPACE, {"metadata": {"name": namespace}})
        return sorted(await fail_over(cluster, kube, namespace, count))
    finally:
        for resource in (VIRTUAL_MACHINE, VIRTUAL_CLUSTER, CLOUD_ACCOUNT):
            for obj in (await kube.list(resource, namespace))[0]:
                if obj["metadata"].get("finalizers"):
                    await kube.patch(resource, namespace, obj["metadata"]["name"], {"metadata": {"finalizers": None}})
        await kube.delete(NAMESPACE, None, namespace)


def tell(name: str, gaps: list[float], count: int, **more: float) -> float:
    """Prints the median and the 99th percentile, and gives the latter."""
    found = {"p50": percentile(gaps, 0.5), "p99": percentile(gaps, 0.99)}
    for which, value in found.items():
        line: dict[str, object] = {"name": f"{name}_{which}", "value": round(value, 3), "unit": "s"}
        line |= {"failovers": len(gaps), "clusters_at_once": count, **more}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
    return found["p99"]


def main() -> int:
    """The benchmark."""
    return asyncio.run(measure(clusters.up()))
