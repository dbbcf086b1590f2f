"""The engine on a real API server; and that the memory API server of the unit tests answers as the real one does."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from benchmarks.engine_parts.widgets import CRD, definition
from tests.testbed.kubectl import TestCluster

from cloudmesh.engine import (
    CONFIG_MAP,
    EVENT,
    LEASE,
    SECRET,
    AlreadyExists,
    Cache,
    CloudmeshError,
    Conflict,
    Done,
    Elector,
    Engine,
    Finalizers,
    InvalidRequest,
    Key,
    Kube,
    NotFound,
    Obj,
    Resource,
    Status,
    Transient,
    connect,
    own,
)
from cloudmesh.engine.cache import Change
from cloudmesh.engine.engine import PrimarySink
from cloudmesh.engine.informer import CacheSink, Informer
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi
from cloudmesh.testing.front import fault_proxy

pytestmark = pytest.mark.kube

GROUP = f"t{secrets.token_hex(3)}.engine.cloudmesh.org"
WIDGET = Resource(f"{GROUP}/v1", "Widget", "widgets")


@pytest.fixture(scope="module")
def served(cluster: TestCluster) -> Any:
    """The kind of these tests, on the real server."""
    made = {"apiVersion": CRD.api_version, "kind": CRD.kind} | definition("widgets", "Widget", GROUP)
    cluster.apply(made)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/widgets.{GROUP}", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", f"widgets.{GROUP}", "--wait=false")


@pytest.fixture(params=["memory", "real"])
async def kube(request: pytest.FixtureRequest, cluster: TestCluster, served: None) -> AsyncIterator[Kube]:
    """The client on either server."""
    if request.param == "memory":
        yield Kube(MemoryApi([WIDGET]))
        return
    client = await connect(str(cluster.kubeconfig))
    yield client
    await client.close()


@pytest.fixture
async def real(cluster: TestCluster, served: None) -> AsyncIterator[Kube]:
    """The client on the real server."""
    client = await connect(str(cluster.kubeconfig))
    yield client
    await client.close()


def name_of(test: str) -> str:
    return f"{test}-{secrets.token_hex(3)}"


def meta(name: str, namespace: str, **more: Any) -> Obj:
    return {"name": name, "namespace": namespace, **more}


async def error_of(call: Awaitable[Any]) -> type[CloudmeshError] | None:
    try:
        await call
    except CloudmeshError as error:
        return type(error)
    return None


async def until(condition: Callable[[], Any], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


async def test_reads_and_their_errors(kube: Kube, namespace: str) -> None:
    name = name_of("reads")
    assert await kube.get(CONFIG_MAP, namespace, name) is None
    unserved = Resource(f"{GROUP}/v1", "Gadget", "gadgets")
    assert await error_of(kube.get(unserved, namespace, "x")) is Transient
    assert await error_of(kube.list(unserved)) is Transient
    assert await error_of(kube.list(CONFIG_MAP, namespace, label_selector="a in (")) is InvalidRequest
    for number in range(7):
        labels = {"test": name, "odd": str(number % 2)}
        await kube.create(
            CONFIG_MAP, {"metadata": meta(f"{name}-{number}", namespace, labels=labels), "data": {"n": "1"}}
        )
    pages = [page async for page in kube.pages(CONFIG_MAP, namespace, label_selector=f"test={name}", page_size=3)]
    assert [len(items) for items, _ in pages] == [3, 3, 1]
    assert len({version for _, version in pages}) == 1, "all pages are of one moment"
    odd, _ = await kube.list(CONFIG_MAP, namespace, label_selector=f"test={name},odd notin (0)")
    assert len(odd) == 3
    assert odd[0]["kind"] == "ConfigMap"
    one, _ = await kube.list(CONFIG_MAP, field_selector=f"metadata.name={name}-3")
    assert len(one) == 1
    partial, _ = await kube.list(CONFIG_MAP, namespace, label_selector=f"test={name}", metadata_only=True)
    assert len(partial) == 7
    assert all("data" not in item for item in partial)


async def test_writes_and_their_errors(kube: Kube, namespace: str) -> None:
    name = name_of("writes")
    made = await kube.create(CONFIG_MAP, {"metadata": meta(name, namespace), "data": {"x": "1"}})
    assert await error_of(kube.create(CONFIG_MAP, {"metadata": meta(name, namespace)})) is AlreadyExists
    patched = await kube.patch(CONFIG_MAP, namespace, name, {"data": {"y": "2", "x": None}})
    assert patched["data"] == {"y": "2"}
    assert await error_of(kube.replace(CONFIG_MAP, made)) is Conflict
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {"z": "1"}}
    assert await error_of(kube.patch(CONFIG_MAP, namespace, name, stale)) is Conflict
    strange = {"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}, "data": {"z": "1"}}
    assert await error_of(kube.patch(CONFIG_MAP, namespace, name, strange)) is Conflict
    assert await error_of(kube.patch(CONFIG_MAP, namespace, "gone", {"data": {}})) is NotFound
    same = await kube.patch(CONFIG_MAP, namespace, name, {"data": {"y": "2"}})
    assert same["metadata"]["resourceVersion"] == patched["metadata"]["resourceVersion"], "no change, no version"
    wrong_uid = "00000000-0000-0000-0000-000000000000"
    await kube.delete(CONFIG_MAP, namespace, name, uid=wrong_uid)
    assert await kube.get(CONFIG_MAP, namespace, name) is not None
    await kube.delete(CONFIG_MAP, namespace, name, uid=made["metadata"]["uid"])
    await kube.delete(CONFIG_MAP, namespace, name, uid=made["metadata"]["uid"])
    assert await kube.get(CONFIG_MAP, namespace, name) is None


async def test_server_side_apply(kube: Kube, namespace: str) -> None:
    name = name_of("apply")
    base = {"metadata": meta(name, namespace)}
    made = await kube.apply(WIDGET, base | {"spec": {"a": "1", "b": {"c": "2", "d": "3"}}})
    assert made["metadata"]["generation"] == 1
    again = await kube.apply(WIDGET, base | {"spec": {"a": "1", "b": {"c": "2", "d": "3"}}})
    assert again["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "no change, no version"
    await kube.patch(WIDGET, namespace, name, {"spec": {"user": "x"}})
    less = await kube.apply(WIDGET, base | {"spec": {"a": "9", "b": {"c": "2"}}})
    assert less["spec"] == {"a": "9", "b": {"c": "2"}, "user": "x"}
    assert less["metadata"]["generation"] == 3
    status = await kube.apply(WIDGET, base | {"status": {"s": "1", "t": "2"}}, subresource="status")
    assert status["metadata"]["generation"] == 3
    fewer = await kube.apply(WIDGET, base | {"status": {"s": "1"}}, subresource="status")
    assert fewer["status"] == {"s": "1"}
    assert fewer["spec"] == less["spec"], "the status is another manager entry"
    spec_only = await kube.apply(WIDGET, base | {"spec": {"a": "9", "b": {"c": "2"}}})
    assert spec_only["status"] == {"s": "1"}
    other = {"metadata": meta(name, namespace, uid="00000000-0000-0000-0000-000000000000")}
    assert await error_of(kube.apply(WIDGET, other | {"spec": {"a": "0"}})) is Conflict
    answer = await kube.apply(WIDGET, other | {"status": {"s": "0"}}, subresource="status")
    assert answer["metadata"]["uid"] == made["metadata"]["uid"], "for the status the server doesn't mind the uid"
    assert await error_of(Status(kube, Cache()).write(WIDGET, {"metadata": other["metadata"]}, {"s": "1"})) is Conflict
    gone = {"metadata": meta(name_of("gone"), namespace)}
    assert await error_of(kube.apply(WIDGET, gone | {"status": {"s": "0"}}, subresource="status")) is NotFound
    gone["metadata"]["uid"] = made["metadata"]["uid"]
    assert await error_of(kube.apply(WIDGET, gone | {"spec": {"s": "0"}})) is Conflict
    await kube.delete(WIDGET, namespace, name)


async def test_finalizers_and_status(kube: Kube, namespace: str) -> None:
    name, cache = name_of("fin"), Cache()
    cache.watch(WIDGET)
    kube.on_write = lambda resource, obj: (cache.put(resource, obj), None)[1] if resource == WIDGET else None
    finalizers, status = Finalizers(kube), Status(kube, cache)
    obj = await kube.create(WIDGET, {"metadata": meta(name, namespace), "spec": {"x": "1"}})
    held = await finalizers.ensure(WIDGET, obj)
    written = await status.write(WIDGET, held, {"conditions": [{"type": "Ready", "status": "True"}], "n": 1})
    assert await status.write(WIDGET, held, {"conditions": [{"type": "Ready", "status": "True"}], "n": 1}) == cache.get(
        WIDGET, namespace, name
    )
    await finalizers.ensure(WIDGET, obj, "example.org/other")
    await kube.delete(WIDGET, namespace, name)
    deleting = await kube.get(WIDGET, namespace, name)
    assert deleting is not None
    assert deleting["metadata"]["deletionTimestamp"]
    assert deleting["metadata"]["generation"] == 2
    assert await error_of(finalizers.hold(WIDGET, written)) is Conflict
    await finalizers.remove(WIDGET, deleting, "example.org/other")
    await finalizers.remove(WIDGET, held)
    assert await kube.get(WIDGET, namespace, name) is None
    assert cache.get(WIDGET, namespace, name) is None, "the last answer took it out"
    assert await error_of(status.write(WIDGET, held, {"n": 2})) is NotFound
    await finalizers.remove(WIDGET, held)


async def test_watches(kube: Kube, namespace: str) -> None:
    name = name_of("watch")
    _, version = await kube.list(CONFIG_MAP, namespace)
    labelled = {"metadata": meta(name, namespace, labels={"w": name}), "data": {"x": "1"}}
    await kube.create(CONFIG_MAP, labelled)
    await kube.patch(CONFIG_MAP, namespace, name, {"data": {"x": "2"}})
    await kube.patch(CONFIG_MAP, namespace, name, {"metadata": {"labels": {"w": "other"}}})
    await kube.delete(CONFIG_MAP, namespace, name)
    got = []
    watch = kube.watch(
        CONFIG_MAP,
        namespace,
        resource_version=version,
        timeout_seconds=5,
        label_selector=f"w={name}",
        metadata_only=True,
    )
    async with contextlib.aclosing(watch):
        async for event in watch:
            got.append(event["type"])
            assert "data" not in event["object"]
            if event["type"] == "DELETED":
                break
    assert got == ["ADDED", "MODIFIED", "DELETED"]
    by_name = kube.watch(
        LEASE, namespace, resource_version="", timeout_seconds=5, field_selector=f"metadata.name={name}"
    )
    await kube.create(LEASE, {"metadata": meta(name, namespace), "spec": {"holderIdentity": "x"}})
    async with contextlib.aclosing(by_name):
        assert (await anext(by_name))["object"]["spec"]["holderIdentity"] == "x"


async def test_a_refused_secret_is_not_quoted(real: Kube, namespace: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await real.create(SECRET, {"metadata": meta("s", namespace), "data": {"password": "not-base64-hunter2"}})
    assert "hunter2" not in str(caught.value)


class Copier:
    """Keeps a ConfigMap and a status as the spec says."""

    resource = WIDGET
    owns = (CONFIG_MAP,)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        engine = self.engine
        if obj["metadata"].get("deletionTimestamp"):
            await engine.kube.delete(CONFIG_MAP, key.namespace, key.name)
            await engine.finalizers.remove(WIDGET, obj)
            return Done()
        obj = await engine.finalizers.ensure(WIDGET, obj)
        text = str(obj["spec"].get("text", ""))
        child = engine.cache.get(CONFIG_MAP, key.namespace, key.name)
        if child is None or child.get("data") != {"text": text}:
            await engine.kube.apply(CONFIG_MAP, own({"metadata": {"name": key.name}, "data": {"text": text}}, obj))
        engine.events.emit(obj, "Normal", "Copied", "the text was copied")
        await engine.status.write(WIDGET, obj, {"text": text, "conditions": [{"type": "Ready", "status": "True"}]})
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


@contextlib.asynccontextmanager
async def engine_on(kubeconfig: str, namespace: str) -> AsyncIterator[Engine]:
    kube, feed = await connect(kubeconfig), await connect(kubeconfig)
    engine = Engine(kube, namespaces=[namespace], instance="test")
    engine.add(Copier(engine))
    stop = asyncio.Event()
    informer = Informer(feed, WIDGET, PrimarySink(engine, WIDGET, namespace), namespace=namespace)
    tasks = [asyncio.create_task(engine.run(stop)), asyncio.create_task(informer.run())]
    await engine.synced.wait()
    try:
        yield engine
    finally:
        stop.set()
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await kube.close()
        await feed.close()


async def test_converges_through_a_faulty_api_server(
    cluster: TestCluster, real: Kube, namespace: str, tmp_path: Any
) -> None:
    faults = Faults()
    async with await fault_proxy(str(cluster.kubeconfig), faults) as proxy:
        kubeconfig = str(proxy.write_kubeconfig(tmp_path / "kubeconfig"))
        faults.add("cut", path="watch=true", events=2, times=4)
        faults.add("expire", path="watch=true", times=2)
        faults.add("answer", method="PATCH", status=500, times=3)
        faults.add("answer", method="PATCH", status=429, retry_after=1, times=2)
        faults.add("answer", method="PATCH", status=409, times=2)
        faults.add("lose", method="PATCH", times=3)
        faults.add("drop", method="PATCH", times=3)
        faults.add(None, path="configmaps", delay_seconds=0.3, times=5)
        async with engine_on(kubeconfig, namespace) as engine:
            names = [name_of("fault") for _ in range(12)]
            for name in names:
                await real.create(WIDGET, {"metadata": meta(name, namespace), "spec": {"text": name}})

            async def converged() -> bool:
                for name in names:
                    obj, child = await real.get(WIDGET, namespace, name), await real.get(CONFIG_MAP, namespace, name)
                    if child is None or child["data"] != {"text": name}:
                        return False
                    if obj is None or (obj.get("status") or {}).get("text") != name:
                        return False
                return True

            async with asyncio.timeout(150):
                while not await converged():
                    await asyncio.sleep(0.2)
            await engine.queue.wait_idle()
            faults.rules.clear()

            # an unchanged object costs no write
            await asyncio.sleep(1)
            faults.calls.clear()
            await engine.resync(WIDGET)
            await asyncio.sleep(2)
            assert faults.count(r"^(POST|PUT|PATCH|DELETE) .*(widgets|configmaps)") == 0

            for name in names:
                await real.delete(WIDGET, namespace, name)
            async with asyncio.timeout(90):
                while (await real.list(WIDGET, namespace))[0]:
                    await asyncio.sleep(0.1)
            left, _ = await real.list(CONFIG_MAP, namespace, label_selector="app.kubernetes.io/managed-by=cloudmesh")
            assert left == []
            events, _ = await real.list(EVENT, namespace)
            assert {event["reason"] for event in events if event["regarding"]["kind"] == "Widget"} == {"Copied"}


async def test_an_informer_makes_up_deletes(cluster: TestCluster, real: Kube, namespace: str) -> None:
    faults, cache, changes = Faults(), Cache(), list[Change]()
    name = name_of("inf")
    through = Kube(FaultyTransport(real._transport, faults))
    sink = CacheSink(cache, CONFIG_MAP, namespace, changes.append)
    informer = Informer(through, CONFIG_MAP, sink, namespace=namespace, label_selector=f"i={name}")
    for number in range(3):
        await real.create(CONFIG_MAP, {"metadata": meta(f"{name}-{number}", namespace, labels={"i": name})})
    faults.add("expire", path="watch=true")
    task = asyncio.create_task(informer.run())
    await until(lambda: cache.count(CONFIG_MAP) == 3)
    faults.add("drop", path="configmaps", times=2)
    await real.delete(CONFIG_MAP, namespace, f"{name}-1")
    await until(lambda: cache.count(CONFIG_MAP) == 2)
    await real.patch(CONFIG_MAP, namespace, f"{name}-2", {"data": {"x": "1"}})
    await until(lambda: (cache.get(CONFIG_MAP, namespace, f"{name}-2") or {}).get("data") == {"x": "1"})
    assert [c.old["metadata"]["name"] for c in changes if c.new is None and c.old] == [f"{name}-1"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_electors_hand_over(cluster: TestCluster, real: Kube, namespace: str) -> None:
    name = name_of("lease")
    first = Elector(real, namespace, name, "one")
    await first.acquire()
    holding = asyncio.create_task(first.hold())
    second = Elector(real, namespace, name, "two")
    acquiring = asyncio.create_task(second.acquire())
    await asyncio.sleep(3)
    assert not acquiring.done()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    begin = asyncio.get_running_loop().time()
    await first.release()
    await acquiring
    assert asyncio.get_running_loop().time() - begin < 8, "by release, not by expiry"
    lease = await real.get(LEASE, namespace, name)
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == "two"
    await second.release()
