"""From `kubectl apply` of a function to its first answer, beside a plain Deployment and Service of a ready image.

The peer is the floor on this cluster: the same image, which the node has already, the same probes and resources, no
build and no operator. Both are applied through the API by the same client, one after the other, in turns, and asked
through their ClusterIP until they answer 200.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import ssl
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
from tests import install
from tests.testbed import clusters

from cloudmesh.engine import SECRET, CloudmeshError, Kube, Resource, connect
from cloudmesh.functions.key import build_key

FUNCTION = Resource("cloudmesh.org/v1alpha1", "FunctionService", "functionservices")
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
SERVICE = Resource("v1", "Service", "services")
SPACE = Resource("v1", "Namespace", "namespaces", namespaced=False)
POD = Resource("v1", "Pod", "pods")

PEER = "plain Deployment and Service of a ready image"
COUNT = int(os.environ.get("BENCH_FUNCTIONS", "20"))
EDITS = int(os.environ.get("BENCH_EDITS", "5"))
BURST = int(os.environ.get("BENCH_BURST", "100"))
BUILDS = int(os.environ.get("BENCH_BUILDS", "100"))
INSIDE = "CLOUDMESH_BENCH_INSIDE"
LOAD_PER_SECOND = 100

Obj = dict[str, Any]
T = TypeVar("T")


def say(text: str) -> None:
    """Talk goes to stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


def figure(name: str, value: float, unit: str, peer_value: float | None = None) -> None:
    """Prints one figure; with a peer the ratio is the peer's by ours, since less is better."""
    line: Obj = {"name": name, "value": round(value, 3), "unit": unit}
    if peer_value is not None:
        line |= {"peer": PEER, "peer_value": round(peer_value, 3), "ratio": round(peer_value / value, 3)}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of them lies, by the nearest rank."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def source(number: int) -> str:
    """A function without dependencies that answers `number`."""
    return f"def answer() -> int:\n    return {number}\n"


def function(namespace: str, name: str, number: int) -> Obj:
    """A FunctionService."""
    return {
        "apiVersion": FUNCTION.api_version,
        "kind": FUNCTION.kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"source": {"inline": source(number)}},
    }


def is_ready(obj: Obj) -> bool:
    """Whether its condition Ready is True."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in (obj.get("status") or {}).get("conditions", []))


class Bench:
    """All measurements on one cluster, in a namespace of their own."""

    def __init__(self, kube: Kube, web: aiohttp.ClientSession, namespace: str) -> None:
        self._kube = kube
        self._web = web
        self._namespace = namespace

    async def until(self, look: Callable[[], Awaitable[T | None]], what: str, seconds: float = 180) -> T:
        """Looks every 10 ms until there is something."""
        end = time.perf_counter() + seconds
        while True:
            found = await look()
            if found is not None:
                return found
            if time.perf_counter() > end:
                raise SystemExit(f"not within {seconds:g} s: {what}")
            await asyncio.sleep(0.01)

    async def address(self, name: str) -> str:
        """The Service's ClusterIP, as soon as there is one."""

        async def look() -> str | None:
            found = await self._kube.get(SERVICE, self._namespace, name)
            return str(found["spec"]["clusterIP"]) if found else None

        return await self.until(look, f"Service {name}")

    async def get(self, address: str) -> str | None:
        """The function's answer, or None."""
        try:
            async with self._web.get(f"http://{address}/cloudmesh/answer") as reply:
                return await reply.text() if reply.status == 200 else None
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None

    async def first_answer(self, name: str, expected: int) -> None:
        """Returns when the function answers this."""
        address = await self.address(name)

        async def look() -> bool | None:
            return True if await self.get(address) == str(expected) else None

        await self.until(look, f"{name} answers {expected}")

    async def status(self, name: str) -> Obj:
        """The function's status."""
        found = await self._kube.get(FUNCTION, self._namespace, name)
        return dict((found or {}).get("status") or {})

    async def ready(self, name: str) -> bool | None:
        """Whether it is Ready, or None."""
        found = await self._kube.get(FUNCTION, self._namespace, name)
        if found is None or not is_ready(found):
            return None
        return True if found["status"].get("observedGeneration") == found["metadata"]["generation"] else None

    async def apply_function(self, name: str, number: int) -> float:
        """Seconds from the apply to the first 200."""
        began = time.perf_counter()
        await self._kube.apply(FUNCTION, function(self._namespace, name, number))
        await self.first_answer(name, number)
        return time.perf_counter() - began

    async def apply_plain(self, name: str, model: str, number: int) -> float:
        """The same of a plain Deployment and Service with the image and Pod template of the function `model`."""
        found = await self._kube.get(DEPLOYMENT, self._namespace, model)
        if found is None:
            raise SystemExit(f"no Deployment {model}")
        pod = {**found["spec"]["template"]["spec"]}
        labels = {"app": name}
        deployment: Obj = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
        service: Obj = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self._namespace},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": "http"}]},
        }
        began = time.perf_counter()
        await self._kube.apply(DEPLOYMENT, deployment)
        await self._kube.apply(SERVICE, service)
        await self.first_answer(name, number)
        return time.perf_counter() - began

    async def apply_times(self) -> None:
        """apply_to_200_p50 and _p95, ours and the peer's in turns."""
        await self.apply_function("warm", 1)
        ours, plain = [], []
        for number in range(COUNT):
            name = f"f{number}"
            ours.append(await self.apply_function(name, 1000 + number))
            await self.until(lambda n=name: self.ready(n), f"{name} Ready")  # type: ignore[misc]
            plain.append(await self.apply_plain(f"plain-{number}", name, 1000 + number))
            say(f"{name}: {ours[-1]:.2f} s, plain {plain[-1]:.2f} s")
            await self._kube.delete(FUNCTION, self._namespace, name)
            await self._kube.delete(DEPLOYMENT, self._namespace, f"plain-{number}")
            await self._kube.delete(SERVICE, self._namespace, f"plain-{number}")
            await self.until(self._idle, "no Pods but one")
        figure("apply_to_200_p50", statistics.median(ours), "s", statistics.median(plain))
        figure("apply_to_200_p95", percentile(ours, 0.95), "s", percentile(plain, 0.95))

    async def _idle(self) -> bool | None:
        pods, _ = await self._kube.list(POD, self._namespace)
        return True if len(pods) <= 1 else None

    async def edits(self) -> None:
        """edit_to_200, edit_uploaded and edit_failed_requests: one line changes under load."""
        await self.until(lambda: self.ready("warm"), "warm Ready")
        address = await self.address("warm")
        wrong: list[str] = []
        calls = 0
        stop = asyncio.Event()

        async def load() -> None:
            nonlocal calls
            while not stop.is_set():
                try:
                    async with self._web.get(f"http://{address}/cloudmesh/answer") as reply:
                        await reply.read()
                        if reply.status != 200:
                            wrong.append(f"status {reply.status}")
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    wrong.append(repr(error))
                calls += 1
                await asyncio.sleep(4 / LOAD_PER_SECOND)

        tasks = [asyncio.create_task(load()) for _ in range(4)]
        seconds, uploaded = [], []
        for number in range(2, EDITS + 2):
            seconds.append(await self.apply_function("warm", number))
            await self.until(lambda: self.ready("warm"), "warm Ready")
            uploaded.append(int((await self.status("warm"))["build"]["uploadedBytes"]))
            say(f"edit {number}: {seconds[-1]:.2f} s, {uploaded[-1]} bytes")
        await asyncio.sleep(2)
        stop.set()
        await asyncio.gather(*tasks)
        say(f"{calls} calls under the edits, {len(wrong)} failed {sorted(set(wrong))[:3]}")
        figure("edit_to_200", statistics.median(seconds), "s")
        figure("edit_uploaded", max(uploaded), "bytes")
        figure("edit_failed_requests", len(wrong), "requests")

    async def burst(self) -> None:
        """burst_100_ready: so many functions at once, until all are Ready."""
        names = [f"burst-{n}" for n in range(BURST)]
        began = time.perf_counter()
        await asyncio.gather(
            *(self._kube.apply(FUNCTION, function(self._namespace, n, 5000 + i)) for i, n in enumerate(names))
        )

        async def all_ready() -> bool | None:
            await asyncio.sleep(0.25)
            found, _ = await self._kube.list(FUNCTION, self._namespace)
            good = sum(is_ready(f) for f in found if f["metadata"]["name"] in names)
            return True if good == BURST else None

        await self.until(all_ready, f"{BURST} functions Ready", 600)
        figure(f"burst_{BURST}_ready", time.perf_counter() - began, "s")
        for name in names:
            await self._kube.delete(FUNCTION, self._namespace, name)

    async def digests(self) -> None:
        """digest_equal: the share of builds of one source that give the same image, half of them after a restart."""
        secret = await self._kube.get(SECRET, install.NAMESPACE, "cloudmesh-builder")
        if secret is None:
            raise SystemExit("no Secret cloudmesh-builder")
        data = {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
        context = ssl.create_default_context(cadata=data["ca.crt"])
        found = await self._kube.get(SERVICE, install.NAMESPACE, "cloudmesh-builder")
        if found is None:
            raise SystemExit("no Service cloudmesh-builder")
        base = f"https://{found['spec']['clusterIP']}:8443"
        more: Obj = {
            "ssl": context,
            "server_hostname": f"cloudmesh-builder.{install.NAMESPACE}.svc",
            "headers": {"Authorization": f"Bearer {data['token']}"},
        }
        images: list[str] = []
        for number in range(BUILDS):
            if number == BUILDS // 2:
                await self._restart_builder()
            # A request that was made before is answered, not built: each one is for another repository.
            images.append(
                await self._digest(base, {"namespace": f"equal-{number}", **await self._request(base, more)}, more)
            )
        share = max(images.count(i) for i in set(images)) / len(images)
        figure("digest_equal", share, "share of builds")

    async def _request(self, base: str, more: Obj) -> Obj:
        async with self._web.get(f"{base}/v1/info", **more) as reply:
            info = await reply.json()
        inputs: Obj = {
            "name": "equal",
            "module": "equal",
            "source": source(1),
            "base_path": "/cloudmesh",
            "expose": {"functions": {"names": ["*"]}},
            "lock": "",
            "python": "3.11",
            "platforms": ["linux/amd64"],
        }
        key = build_key(**inputs, base=info["base"]["digest"], runtime=info["runtime"]["digest"])
        inputs["basePath"] = inputs.pop("base_path")
        return {**inputs, "requirements": [], "key": key, "repository": None, "index": None, "rebuild": True}

    async def _digest(self, base: str, body: Obj, more: Obj) -> str:
        async def start() -> str | None:
            try:
                async with self._web.post(f"{base}/v1/builds", json=body, **more) as reply:
                    answer = await reply.json()
                    if reply.status >= 400:
                        raise SystemExit(f"the builder refuses: {answer}")
                    return str(answer["id"])
            except (aiohttp.ClientError, TimeoutError, OSError):
                return None

        build = await self.until(start, "the builder takes the build")

        async def done() -> str | None:
            async with self._web.get(f"{base}/v1/builds/{build}", **more) as reply:
                answer = await reply.json()
            if answer.get("state") == "Failed":
                raise SystemExit(f"the build failed: {answer}")
            return str(answer["result"]["digest"]) if answer.get("state") == "Succeeded" else None

        return await self.until(done, f"build {build}")

    async def _restart_builder(self) -> None:
        pods, _ = await self._kube.list(POD, install.NAMESPACE, label_selector="app.kubernetes.io/component=builder")
        for pod in pods:
            await self._kube.delete(POD, install.NAMESPACE, pod["metadata"]["name"])

        async def new() -> bool | None:
            found, _ = await self._kube.list(
                POD, install.NAMESPACE, label_selector="app.kubernetes.io/component=builder"
            )
            old = {p["metadata"]["name"] for p in pods}
            return True if any(p["metadata"]["name"] not in old and is_ready(p) for p in found) else None

        await self.until(new, "a new builder")
        await asyncio.sleep(2)  # until its address is in the Service everywhere


async def _measure() -> None:
    kube = await connect(str(clusters.current().kubeconfig))
    namespace = f"bench-{int(time.time())}"
    await kube.create(SPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    # A connection a call: one that is kept would stay with the Pod that is ending.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=5)) as web:
            bench = Bench(kube, web, namespace)
            await bench.apply_times()
            await bench.edits()
            await bench.burst()
            await bench.digests()
    finally:
        try:
            await kube.delete(SPACE, None, namespace)
        except CloudmeshError as error:
            say(f"namespace {namespace} stays: {error}")
        await kube.close()


def main() -> int:
    """Brings the cluster up, installs, and measures; on our own test bed from inside its network namespace."""
    if not os.environ.get(INSIDE):
        cluster = clusters.up()
        install.build_images()
        install.install(cluster)
        if cluster.kind == "own":
            command = [sys.executable, "-m", "benchmarks", "function-deploy"]
            inside = clusters.own().enter(command, only_network=True)
            os.execvpe(inside[0], inside, {**os.environ, INSIDE: "1"})
    asyncio.run(_measure())
    return 0
