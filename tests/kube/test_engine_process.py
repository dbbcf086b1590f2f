"""Operator processes beside each other on a real API server: one works, the other takes over."""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from benchmarks.engine_parts.process import Process
from benchmarks.engine_parts.widgets import CRD, definition, widget
from tests.testbed.kubectl import TestCluster

from cloudmesh.engine import LEASE, Kube, Resource, connect
from cloudmesh.operator import EXIT_LEASE_LOST

pytestmark = pytest.mark.kube

GROUP = f"t{secrets.token_hex(3)}.process.cloudmesh.org"
WIDGET = Resource(f"{GROUP}/v1", "Widget", "widgets")
DEFINITION = {"apiVersion": CRD.api_version, "kind": CRD.kind} | definition("widgets", "Widget", GROUP)


@pytest.fixture(scope="module")
def served(cluster: TestCluster) -> Iterator[None]:
    """The kind of these tests."""
    cluster.apply(DEFINITION)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{WIDGET.plural}.{WIDGET.group}", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", f"{WIDGET.plural}.{WIDGET.group}", "--wait=false")


@pytest.fixture
async def kube(cluster: TestCluster, served: None) -> AsyncIterator[Kube]:
    """The client."""
    client = await connect(str(cluster.kubeconfig))
    yield client
    await client.close()


class Replicas:
    """Processes that end with the test."""

    def __init__(self, cluster: TestCluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self.all: list[Process] = []

    async def start(self, name: str) -> Process:
        more = {"CLOUDMESH_POD_NAME": name, "BENCH_GROUP": GROUP}
        process = Process("ours", self._cluster.kubeconfig, self._namespace, **more)
        self.all.append(process)
        return await process.start()


@pytest.fixture
async def replicas(cluster: TestCluster, namespace: str) -> AsyncIterator[Replicas]:
    """Starts replicas."""
    made = Replicas(cluster, namespace)
    yield made
    for process in made.all:
        await process.stop()


async def holder(kube: Kube, namespace: str) -> str:
    lease = await kube.get(LEASE, namespace, "cloudmesh-operator")
    return str(lease["spec"].get("holderIdentity") or "") if lease else ""


async def wait_for_holder(kube: Kube, namespace: str, name: str, seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not (await holder(kube, namespace)).startswith(f"{name}_"):
            await asyncio.sleep(0.02)


async def status_of(kube: Kube, namespace: str, name: str, text: str, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while True:
            obj = await kube.get(WIDGET, namespace, name)
            if obj is not None and (obj.get("status") or {}).get("text") == text:
                return obj
            await asyncio.sleep(0.02)


async def test_hand_over_and_take_over(kube: Kube, namespace: str, replicas: Replicas) -> None:
    for number in range(300):
        await kube.create(WIDGET, widget(f"w-{number}", namespace, "x"))
    one = await replicas.start("one")
    await wait_for_holder(kube, namespace, "one")
    async with asyncio.timeout(120):
        while one.handled < 300:
            await asyncio.sleep(0.05)
    before, _ = await kube.list(WIDGET, namespace, metadata_only=True)
    two = await replicas.start("two")
    await asyncio.sleep(5)
    assert two.handled == 0, "the standby works on nothing"

    one.signal(signal.SIGTERM)
    begin = time.monotonic()
    await kube.create(WIDGET, widget("after-term", namespace, "a"))
    await status_of(kube, namespace, "after-term", "a")
    assert time.monotonic() - begin < 10.0, "by release: without one it takes at least the lease's 12 s less a renewal"
    assert await one.wait() == 0
    async with asyncio.timeout(120):
        while two.handled < 300:
            await asyncio.sleep(0.05)
    after, _ = await kube.list(WIDGET, namespace, metadata_only=True)
    versions = {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in after}
    assert all(versions[i["metadata"]["name"]] == i["metadata"]["resourceVersion"] for i in before), "no write at all"

    three = await replicas.start("three")
    await asyncio.sleep(5)
    two.signal(signal.SIGKILL)
    await kube.create(WIDGET, widget("after-kill", namespace, "b"))
    await status_of(kube, namespace, "after-kill", "b", seconds=90)
    await wait_for_holder(kube, namespace, "three")
    assert three.handled > 0


async def test_a_leader_that_slept_steps_down(kube: Kube, namespace: str, replicas: Replicas) -> None:
    one = await replicas.start("one")
    await wait_for_holder(kube, namespace, "one")
    await replicas.start("two")
    await asyncio.sleep(4)
    one.signal(signal.SIGSTOP)
    await wait_for_holder(kube, namespace, "two")
    await kube.create(WIDGET, widget("slept", namespace, "a"))
    written = await status_of(kube, namespace, "slept", "a")
    one.signal(signal.SIGCONT)
    async with asyncio.timeout(60):
        assert await one.wait() == EXIT_LEASE_LOST
    await asyncio.sleep(1)
    assert (await kube.get(WIDGET, namespace, "slept")) == written
    assert (await holder(kube, namespace)).startswith("two_")


async def test_the_operator_waits_for_its_kind(
    cluster: TestCluster, kube: Kube, namespace: str, replicas: Replicas
) -> None:
    cluster.kubectl("delete", "crd", f"{WIDGET.plural}.{WIDGET.group}", "--timeout=60s", timeout=90)
    await replicas.start("patient")
    await asyncio.sleep(4)
    assert not (await holder(kube, namespace)).startswith("patient_"), "not ready, so no candidate"
    cluster.apply(DEFINITION)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{WIDGET.plural}.{WIDGET.group}", "--timeout=30s")
    await wait_for_holder(kube, namespace, "patient")
    async with asyncio.timeout(60):
        while True:
            try:
                await kube.create(WIDGET, widget("first", namespace, "a"))
                break
            except Exception:  # noqa: BLE001 - it is served a moment after it is established
                await asyncio.sleep(0.1)
    await status_of(kube, namespace, "first", "a")
