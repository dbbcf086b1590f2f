"""The engine beside a plain kopf operator with change handlers: writes, relist, memory, take-over."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.testbed import clusters

from benchmarks.engine_parts.process import Process
from benchmarks.engine_parts.widgets import CRD, NAMESPACE, WIDGET, definition, peering_definition, widget
from cloudmesh.engine import CloudmeshError, Kube, Resource, connect
from cloudmesh.testing.faults import Faults
from cloudmesh.testing.front import fault_proxy

PEER = "kopf with change handlers"
OBJECTS = int(os.environ.get("BENCH_OBJECTS", "5000"))
UNCHANGED = 200
REPEATS = int(os.environ.get("BENCH_REPEATS", "3"))
PEERING = Resource("kopf.dev/v1", "KopfPeering", "kopfpeerings")
WRITES = r"^(POST|PUT|PATCH|DELETE) .*/widgets"


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, peer_value: float) -> None:
    """Prints one figure; less is better for all of this benchmark, so the ratio is the peer's by ours."""
    ratio = peer_value / value if value else peer_value + 1.0  # none at all: counted as one less than one
    line = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "peer": PEER,
        "peer_value": round(peer_value, 3),
        "ratio": round(ratio, 3),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


class Bench:
    """All measurements on one cluster.

    Args:
        kube: For what the benchmark itself does.
        kubeconfig: For the operators.
    """

    def __init__(self, kube: Kube, kubeconfig: Path) -> None:
        self._kube = kube
        self._kubeconfig = kubeconfig
        self._spaces: list[str] = []
        self._processes: list[Process] = []

    async def prepare(self) -> None:
        """Installs both kinds and waits until they are served."""
        for made in (definition("widgets", "Widget"), peering_definition()):
            await self._kube.apply(CRD, made)
        for resource in (WIDGET, PEERING):
            await self._until(lambda resource=resource: self._served(resource))  # type: ignore[misc]

    async def namespace(self) -> str:
        """A namespace of the benchmark's own."""
        name = f"bench-engine-{secrets.token_hex(3)}"
        await self._kube.create(NAMESPACE, {"metadata": {"name": name}})
        self._spaces.append(name)
        await self._kube.create(PEERING, {"metadata": {"name": "default", "namespace": name}})
        return name

    async def clean_up(self) -> None:
        """Ends and deletes what was made."""
        for process in self._processes:
            await process.stop()
        for name in self._spaces:
            await self._kube.delete(NAMESPACE, None, name)
        if self._spaces:
            for made in (definition("widgets", "Widget"), peering_definition()):
                await self._kube.delete(CRD, None, made["metadata"]["name"])

    async def fill(self, namespace: str, count: int) -> None:
        """Creates objects."""
        gate = asyncio.Semaphore(16)

        async def one(number: int) -> None:
            async with gate:
                await self._kube.create(WIDGET, widget(f"w-{number:05}", namespace, str(number)))

        await asyncio.gather(*(one(number) for number in range(count)))

    async def unchanged(self, module: str) -> float:
        """Writes that a restarted operator makes to objects that are as they should be."""
        namespace = await self.namespace()
        await self.fill(namespace, UNCHANGED)
        faults = Faults()
        async with await fault_proxy(str(self._kubeconfig), faults) as proxy:
            with tempfile.TemporaryDirectory() as folder:
                through = proxy.write_kubeconfig(Path(folder) / "kubeconfig")
                for _ in range(2):  # the first life makes them as they should be
                    faults.calls.clear()
                    process = await self._start(module, through, namespace)
                    await process.idle(UNCHANGED)
                    await process.stop()
        return float(faults.count(WRITES))

    async def relist(self, module: str) -> tuple[float, float]:
        """Seconds from start to rest, and peak memory, of an operator restarted on many unchanged objects."""
        namespace = await self.namespace()
        say(f"{module}: {OBJECTS} objects")
        await self.fill(namespace, OBJECTS)
        first = await self._start(module, self._kubeconfig, namespace)
        say(f"{module}: all handled for the first time after {await first.idle(OBJECTS):.1f} s")
        await first.stop()
        seconds, mib = [], []
        for _ in range(REPEATS):
            process = await self._start(module, self._kubeconfig, namespace)
            seconds.append(await process.idle(OBJECTS))
            mib.append(process.peak_rss_mib())
            say(f"{module}: restart to idle {seconds[-1]:.1f} s, peak {mib[-1]:.0f} MiB")
            await process.stop()
        await self._kube.delete(NAMESPACE, None, namespace)
        return statistics.median(seconds), statistics.median(mib)

    async def takeover(self, module: str, number: signal.Signals, repeats: int) -> float:
        """Seconds from the leader's end until the other replica has handled an object made after it."""
        namespace = await self.namespace()
        took = []
        replicas = [await self._replica(module, namespace, 100)]
        await self._handled(namespace, "begin")
        replicas.append(await self._replica(module, namespace, 99))
        await replicas[-1].rest()
        for turn in range(repeats):
            leader = replicas.pop(0)
            begin = time.monotonic()
            leader.signal(number)
            await self._handled(namespace, f"turn-{turn}")
            took.append(time.monotonic() - begin)
            say(f"{module}: take-over after {number.name} {took[-1]:.2f} s")
            await leader.wait()
            replicas.append(await self._replica(module, namespace, 98 - turn))
            await replicas[-1].rest()
        for replica in replicas:
            await replica.stop()
        return statistics.median(took)

    async def _replica(self, module: str, namespace: str, priority: int) -> Process:
        identity = f"replica-{priority}"
        return await self._start(
            module, self._kubeconfig, namespace, CLOUDMESH_POD_NAME=identity, PEER_PRIORITY=str(priority)
        )

    async def _start(self, module: str, kubeconfig: Path, namespace: str, **environ: str) -> Process:
        process = Process(module, kubeconfig, namespace, **environ)
        self._processes.append(process)
        return await process.start()

    async def _handled(self, namespace: str, name: str) -> None:
        made = await self._kube.create(WIDGET, widget(name, namespace, name))

        async def done() -> bool:
            obj = await self._kube.get(WIDGET, namespace, made["metadata"]["name"])
            return obj is not None and "status" in obj

        await self._until(done, 180)

    async def _served(self, resource: Resource) -> bool:
        try:
            await self._kube.list(resource)
        except CloudmeshError:
            return False
        return True

    async def _until(self, condition: Callable[[], Awaitable[bool]], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not await condition():
                await asyncio.sleep(0.02)


async def measure(kubeconfig: Path) -> None:
    """Takes all figures."""
    kube = await connect(str(kubeconfig))
    bench = Bench(kube, kubeconfig)
    try:
        await bench.prepare()
        ours, peer = await bench.unchanged("ours"), await bench.unchanged("peer")
        figure("unchanged_writes", ours, f"writes for {UNCHANGED} objects", peer)
        (seconds, mib), (peer_seconds, peer_mib) = await bench.relist("ours"), await bench.relist("peer")
        figure("relist_5000_idle", seconds, "s", peer_seconds)
        figure("relist_5000_rss", mib, "MiB", peer_mib)
        for name, number in (("takeover_kill", signal.SIGKILL), ("takeover_term", signal.SIGTERM)):
            mine = await bench.takeover("ours", number, REPEATS)
            # a minute each, by the peer's own default
            theirs = await bench.takeover("peer", number, REPEATS if number is signal.SIGTERM else 1)
            figure(name, mine, "s", theirs)
    finally:
        await bench.clean_up()
        await kube.close()


def main() -> int:
    """Runs the benchmark on the checkout's cluster, starting it if it isn't up."""
    cluster = clusters.up()
    asyncio.run(measure(cluster.kubeconfig))
    return 0
