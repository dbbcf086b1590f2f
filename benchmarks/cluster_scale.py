"""Many clusters of machines on the memory provider, beside a minimal client that writes the same objects."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time

from tests import install
from tests.testbed import clusters
from tests.testbed.clusters import Cluster

from benchmarks.scale_parts.floor import replay
from benchmarks.scale_parts.operator_process import Operator
from cloudmesh.api.names import API_VERSION
from cloudmesh.compute.account_status import COUNTERS_SECONDS
from cloudmesh.engine import CONFIG_MAP, SECRET, Kube, Obj, Resource, connect
from cloudmesh.engine.cache import Name
from cloudmesh.engine.informer import Informer

CLUSTERS = int(os.environ.get("BENCH_CLUSTERS", "1000"))
MACHINES = int(os.environ.get("BENCH_MACHINES", "10"))
QUIET_SECONDS = int(os.environ.get("BENCH_QUIET_SECONDS", "600"))
LIMIT_SECONDS = float(os.environ.get("BENCH_LIMIT_SECONDS", "1800"))
PEER = "a minimal client writing the same objects"
NAMESPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
VIRTUAL_CLUSTER = Resource(API_VERSION, "VirtualCluster", "virtualclusters")
VIRTUAL_MACHINE = Resource(API_VERSION, "VirtualMachine", "virtualmachines")
CLOUD_ACCOUNT = Resource(API_VERSION, "CloudAccount", "cloudaccounts")
OPERATOR_NAMESPACE, OPERATOR_NAME = "cloudmesh-system", "cloudmesh-operator"


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, peer_value: float | None = None, **more: object) -> None:
    """Prints one figure; less is better for all of them."""
    line: dict[str, object] = {"name": name, "value": round(value, 3), "unit": unit}
    if peer_value is not None:
        line |= {"peer": PEER, "peer_value": round(peer_value, 3), "ratio": round(peer_value / value, 3)}
    sys.stdout.write(json.dumps(line | more) + "\n")
    sys.stdout.flush()


def virtual_cluster(number: int, namespace: str) -> Obj:
    """One cluster of the benchmark."""
    machine = {"vcpu": {"min": "2"}, "memory": {"min": "4Gi"}}
    return {
        "metadata": {"name": f"c-{number:04}", "namespace": namespace},
        "spec": {
            "replicas": MACHINES,
            "accounts": [{"name": "memory"}],
            "pools": [{"name": "workers", "alternatives": [{"name": "any", "machine": machine}]}],
        },
    }


def is_ready(obj: Obj) -> bool:
    """Whether its Ready is True for its newest generation."""
    return any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and condition.get("observedGeneration") == obj["metadata"]["generation"]
        for condition in (obj.get("status") or {}).get("conditions") or ()
    )


def without_money(obj: Obj) -> Obj:
    """An object without what changes by the passing of time: cost, and the server's own bookkeeping."""
    status = {
        key: value for key, value in (obj.get("status") or {}).items() if key not in ("cost", "hourly", "running")
    }
    meta = {key: value for key, value in obj["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return obj | {"metadata": meta, "status": status}


class Ready:
    """Keeps the names of clusters that are ready."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def put(self, obj: Obj) -> None:
        """Takes an object in."""
        name = obj["metadata"]["name"]
        if is_ready(obj):
            self.names.add(name)
        else:
            self.names.discard(name)

    def remove(self, obj: Obj) -> None:
        """Drops an object."""
        self.names.discard(obj["metadata"]["name"])

    def listed(self, seen: set[Name], list_version: str) -> None:
        """Nothing is deleted here."""


class Bench:
    """The measurement on one cluster.

    Args:
        kube: For what the benchmark itself does.
        cluster: The test bed.
    """

    def __init__(self, kube: Kube, cluster: Cluster) -> None:
        self._kube = kube
        self._cluster = cluster
        self._spaces: list[str] = []
        self._paused: int | None = None

    async def prepare(self) -> None:
        """The chart is installed, and no operator of it serves the benchmark's namespaces."""
        await asyncio.to_thread(install.build_images)
        await asyncio.to_thread(install.install, self._cluster)
        installed = await self._kube.get(DEPLOYMENT, OPERATOR_NAMESPACE, OPERATOR_NAME)
        if installed is not None:
            self._paused = int(installed["spec"]["replicas"])
            await self._scale(0)
            say("the installed operator rests meanwhile")

    async def _scale(self, replicas: int) -> None:
        await self._kube.patch(DEPLOYMENT, OPERATOR_NAMESPACE, OPERATOR_NAME, {"spec": {"replicas": replicas}})

    async def namespace(self) -> str:
        """A namespace of the benchmark's own."""
        name = f"bench-scale-{secrets.token_hex(3)}"
        await self._kube.create(NAMESPACE, {"metadata": {"name": name}})
        self._spaces.append(name)
        return name

    async def clean_up(self) -> None:
        """The namespaces go, the installed operator comes back; memory machines went with their process."""
        for name in self._spaces:
            await self._release(name)
            await self._kube.delete(NAMESPACE, None, name)
        if self._paused is not None:
            await self._scale(self._paused)

    async def _release(self, namespace: str) -> None:
        gate = asyncio.Semaphore(32)

        async def one(resource: Resource, obj: Obj) -> None:
            async with gate:
                await self._kube.patch(resource, namespace, obj["metadata"]["name"], {"metadata": {"finalizers": None}})

        for resource in (VIRTUAL_MACHINE, VIRTUAL_CLUSTER, CLOUD_ACCOUNT):
            items, _ = await self._kube.list(resource, namespace)
            await asyncio.gather(*(one(resource, obj) for obj in items if obj["metadata"].get("finalizers")))

    async def run(self) -> None:
        """All figures."""
        namespace = await self.namespace()
        operator = Operator(self._cluster.kubeconfig, namespace)
        account = {
            "metadata": {"name": "memory", "namespace": namespace},
            "spec": {"memory": {}, "limits": {"machines": CLUSTERS * MACHINES * 2, "requestsPerSecond": 1000}},
        }
        await self._kube.create(CLOUD_ACCOUNT, account)
        await operator.start()
        try:
            seconds = await self._until_ready(namespace)
            writes = await operator.writes()
            rss = operator.peak_rss_mib()
            say(f"ready after {seconds:.1f} s; writes {writes}; cpu {operator.cpu_seconds():.0f} s; peak {rss:.0f} MiB")
            await self._quiet(operator, namespace)
            rss = operator.peak_rss_mib()
        finally:
            await operator.stop()
        objects = {resource: (await self._kube.list(resource, namespace))[0] for resource in (
            VIRTUAL_CLUSTER, VIRTUAL_MACHINE, CLOUD_ACCOUNT, SECRET, CONFIG_MAP
        )}  # fmt: skip
        objects = {r: [o for o in items if r.kind != "ConfigMap" or o["metadata"]["name"] != "kube-root-ca.crt"]
                   for r, items in objects.items()}  # fmt: skip
        floor, _ = await replay(self._kube, await self.namespace(), objects, writes, say)
        size = {"clusters": CLUSTERS, "machines": CLUSTERS * MACHINES}
        figure("ready_10000", seconds, "s", floor, **size, writes=sum(writes.values()))
        once, least = await replay(self._kube, await self.namespace(), objects, None, say)
        figure("floor_once", once, "s", **size, writes=least)
        figure("rss", rss, "MiB")

    async def _until_ready(self, namespace: str) -> float:
        gate = asyncio.Semaphore(32)

        async def create(number: int) -> None:
            async with gate:
                await self._kube.create(VIRTUAL_CLUSTER, virtual_cluster(number, namespace))

        begin = time.monotonic()
        # a list every few seconds would be a good part of what this API server has to do meanwhile
        ready = Ready()
        watching = asyncio.create_task(Informer(self._kube, VIRTUAL_CLUSTER, ready, namespace=namespace).run())
        try:
            await asyncio.gather(*(create(number) for number in range(CLUSTERS)))
            say(f"{CLUSTERS} clusters of {MACHINES} applied in {time.monotonic() - begin:.1f} s")
            told = 0.0
            while len(ready.names) < CLUSTERS:
                await asyncio.sleep(0.2)
                took = time.monotonic() - begin
                if took > LIMIT_SECONDS:
                    raise TimeoutError(f"{len(ready.names)} of {CLUSTERS} clusters are ready after {took:.0f} s")
                if took - told > 20:
                    told = took
                    say(f"{len(ready.names)} ready after {took:.0f} s")
            took = time.monotonic() - begin
        finally:
            watching.cancel()
        machines, _ = await self._kube.list(VIRTUAL_MACHINE, namespace)
        good = sum(1 for obj in machines if is_ready(obj))
        if good != CLUSTERS * MACHINES or len(machines) != good:
            raise RuntimeError(f"all clusters are ready with {good} of {len(machines)} machines ready")
        return took

    async def _quiet(self, operator: Operator, namespace: str) -> None:
        """Writes while nothing is asked for: those of money, and all others."""
        await asyncio.sleep(COUNTERS_SECONDS + 10)  # an account's counters of the busy time are written late
        kinds = (VIRTUAL_CLUSTER, VIRTUAL_MACHINE, CLOUD_ACCOUNT)

        async def look() -> dict[str, Obj]:
            return {
                obj["metadata"]["uid"]: obj for kind in kinds for obj in (await self._kube.list(kind, namespace))[0]
            }

        before, first, cpu = await look(), await operator.writes(), operator.cpu_seconds()
        await asyncio.sleep(QUIET_SECONDS)
        after, last = await look(), await operator.writes()
        used = operator.cpu_seconds() - cpu
        writes = sum(last.values()) - sum(first.values())
        money = sum(
            1
            for uid, obj in after.items()
            if uid in before
            and obj["metadata"]["resourceVersion"] != before[uid]["metadata"]["resourceVersion"]
            and without_money(obj) == without_money(before[uid])
        )
        say(f"{writes} writes in {QUIET_SECONDS} s, {money} objects changed by money alone; cpu {used:.0f} s")
        looked_at = sum(last.get(kind.kind, 0) - first.get(kind.kind, 0) for kind in kinds)
        other = writes - looked_at if _only_money(before, after) else writes
        figure("noop_writes", other, "writes", seconds=QUIET_SECONDS)
        figure("cost_writes", writes - other, "writes", seconds=QUIET_SECONDS, objects=len(after))


def _only_money(before: dict[str, Obj], after: dict[str, Obj]) -> bool:
    """Whether all that changed is money."""
    return before.keys() == after.keys() and all(
        without_money(obj) == without_money(before[uid]) for uid, obj in after.items()
    )


async def measure(cluster: Cluster) -> None:
    """Runs it all."""
    kube = await connect(str(cluster.kubeconfig))
    bench = Bench(kube, cluster)
    try:
        await bench.prepare()
        await bench.run()
    finally:
        await bench.clean_up()
        await kube.close()


def main() -> int:
    """The benchmark."""
    asyncio.run(measure(clusters.up()))
    return 0
