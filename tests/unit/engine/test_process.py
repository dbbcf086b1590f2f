"""Settings, logs, probes, and the operator process with kopf against the memory API server behind a real socket."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from cloudmesh import operator as composition
from cloudmesh.engine import (
    CONFIG_MAP,
    LEASE,
    Access,
    AccessMissing,
    Done,
    Engine,
    Key,
    Kube,
    Metrics,
    Obj,
    Probes,
    Resource,
    Settings,
    SettingsError,
    Transient,
    connect,
    own,
)
from cloudmesh.engine.lease import Elector
from cloudmesh.engine.logs import JsonFormatter, logging_key, set_up
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual
from cloudmesh.testing.front import Front

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")


def test_settings_have_defaults_from_the_namespace() -> None:
    settings = Settings.from_environ({"CLOUDMESH_NAMESPACE": "cm", "CLOUDMESH_WATCH_NAMESPACES": "b, a,,b"})
    assert settings.watch_namespaces == ("a", "b")
    assert settings.builder_url == "https://cloudmesh-builder.cm.svc:8443"
    other = Settings.from_environ({"CLOUDMESH_POD_NAME": "pod"}, default_namespace="own")
    assert other.namespace == "own"
    assert other.watch_namespaces == ()
    again = Settings.from_environ({"CLOUDMESH_POD_NAME": "pod"}, default_namespace="own")
    assert other.identity.startswith("pod_")
    assert other.identity != again.identity, "a restarted container is another candidate"


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "CLOUDMESH_NAMESPACE must be set"),
        ({"CLOUDMESH_NAMESPACE": "Not A Name"}, "CLOUDMESH_NAMESPACE must hold"),
        ({"CLOUDMESH_NAMESPACE": "a", "CLOUDMESH_WATCH_NAMESPACES": "x_y"}, "CLOUDMESH_WATCH_NAMESPACES"),
        ({"CLOUDMESH_NAMESPACE": "a", "CLOUDMESH_BUILDER_URL": "builder:1"}, "must begin with 'https://'"),
        ({"CLOUDMESH_NAMESPACE": "a", "CLOUDMESH_LOG_LEVEL": "loud"}, "CLOUDMESH_LOG_LEVEL must be one of"),
        ({"CLOUDMESH_NAMESPACE": "a", "CLOUDMESH_HTTP_PORT": "x"}, "CLOUDMESH_HTTP_PORT must be a whole number"),
        ({"CLOUDMESH_NAMESPACE": "a", "CLOUDMESH_WORKERS": "0"}, "from 1 to 256"),
    ],
)
def test_wrong_settings_are_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        Settings.from_environ(environ)


def test_log_lines_carry_the_key() -> None:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up("info", stream)
        log = logging.getLogger("cloudmesh.test")
        with logging_key(Key("Widget", "ns", "a")):
            log.info("built", extra={"seconds": 1.5, "path": Path("/x")})
        log.debug("not told")
        try:
            raise ValueError("bad\nvalue")
        except ValueError:
            log.exception("failed")
        with pytest.raises(ValueError, match="log level must be one of"):
            set_up("loud")
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert first["key"] == "Widget/ns/a"
    assert (first["message"], first["seconds"], first["path"], first["level"]) == ("built", 1.5, "/x", "info")
    assert "key" not in second
    assert "ValueError: bad" in second["exception"]
    assert isinstance(logging.Formatter(), logging.Formatter)
    assert issubclass(JsonFormatter, logging.Formatter)


async def test_probes_answer_what_their_checks_say() -> None:
    metrics, wrong, refreshed = Metrics(), [""], []
    probes = Probes(metrics, alive=[lambda: wrong[0]], ready=[lambda: ""], refresh=lambda: refreshed.append(1))
    await probes.start("127.0.0.1", 0)
    base = f"http://127.0.0.1:{probes.port}"
    async with aiohttp.ClientSession() as session:
        async with session.get(base + "/healthz") as answer:
            assert (answer.status, await answer.text()) == (200, "ok\n")
        wrong[0] = "the watch is silent"
        async with session.get(base + "/healthz") as answer:
            assert (answer.status, await answer.text()) == (503, "the watch is silent\n")
        async with session.get(base + "/readyz") as answer:
            assert answer.status == 200
        async with session.get(base + "/metrics") as answer:
            assert "cloudmesh_leader 0.0" in await answer.text()
    assert refreshed == [1]
    await probes.stop()
    await probes.stop()


def test_health_tells_of_silent_watches_and_a_queue_that_stands() -> None:
    async def main() -> None:
        api, faults = MemoryApi([WIDGET]), Faults()
        engine = Engine(Kube(FaultyTransport(api, faults)))

        class Stuck(Marker):
            async def reconcile(self, key: Key, obj: Obj) -> Done:
                await asyncio.Event().wait()
                return Done()

        engine.add(Stuck(engine))
        assert engine.unsynced() != ""
        stop = asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await engine.synced.wait()
        await asyncio.sleep(200)
        assert engine.watch_silence() == engine.queue_standstill() == engine.unsynced() == ""
        for number in range(20):
            engine.observe(WIDGET, "ADDED", api.put(WIDGET, {"metadata": {"name": f"w{number}"}}))
        await asyncio.sleep(130)
        assert "12 keys wait" in engine.queue_standstill()
        faults.add("hang", path="watch=true", times=None)
        faults.add("answer", path="configmaps", status=500, times=None)
        api.store.close_watches()
        await asyncio.sleep(260)
        assert "no sign of the watch of ConfigMap" in engine.watch_silence()
        stop.set()
        await running

    run_virtual(main())


def test_health_notices_a_watch_that_doesn_t_tell_our_own_writes() -> None:
    async def main() -> None:
        api = MemoryApi([WIDGET])
        engine = Engine(Kube(api))
        engine.add(Marker(engine))
        stop = asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await engine.synced.wait()
        engine.observe(WIDGET, "ADDED", api.put(WIDGET, {"metadata": {"name": "a"}}))
        await asyncio.sleep(130)
        assert "hasn't told a write of ours" in engine.watch_silence()
        engine.observe(WIDGET, "MODIFIED", api.get(WIDGET, "default", "a"))
        assert engine.watch_silence() == ""
        stop.set()
        await running

    run_virtual(main())


class Marker:
    """Writes the spec's text into the status and keeps a ConfigMap."""

    resource = WIDGET
    owns = (CONFIG_MAP,)

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        text = str((obj.get("spec") or {}).get("text", ""))
        await self.engine.kube.apply(CONFIG_MAP, own({"metadata": {"name": key.name}, "data": {"text": text}}, obj))
        await self.engine.status.write(WIDGET, obj, {"text": text})
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing is held."""


def test_without_the_lease_nothing_is_written() -> None:
    async def main() -> None:
        api = MemoryApi([WIDGET])
        kube = Kube(api)
        elector = Elector(kube, "cm", "lease", "me")
        engine = Engine(kube, elector=elector)
        engine.add(Marker(engine))
        obj = api.put(WIDGET, {"metadata": {"name": "a"}, "spec": {}})
        with pytest.raises(Transient, match="lease"):
            await engine.status.write(WIDGET, obj, {"text": "x"})
        await elector.acquire()
        engine.require_lease(6.0)
        with pytest.raises(Transient):
            engine.require_lease(60.0)
        await engine.status.write(WIDGET, obj, {"text": "x"})
        await engine.stop()
        with pytest.raises(Transient):
            engine.require_lease()

    run_virtual(main())


def test_two_replicas_fill_their_caches_and_one_works() -> None:
    async def main() -> None:
        api = MemoryApi([WIDGET])
        worked: list[str] = []
        lost: list[str] = []

        class Telling(Marker):
            def __init__(self, engine: Engine, name: str) -> None:
                super().__init__(engine)
                self.name = name

            async def reconcile(self, key: Key, obj: Obj) -> Done:
                worked.append(self.name)
                await asyncio.sleep(0.2)
                return await super().reconcile(key, obj)

        async def replica(name: str, stop: asyncio.Event, faults: Faults) -> Engine:
            kube = Kube(FaultyTransport(api, faults))
            elector = Elector(kube, "cm", "lease", name)
            engine = Engine(kube, elector=elector, on_lease_lost=lambda _: lost.append(name))
            engine.add(Telling(engine, name))
            tasks.append(asyncio.create_task(engine.run(stop)))
            await engine.synced.wait()
            return engine

        tasks: list[asyncio.Task[None]] = []
        for number in range(3):
            api.put(WIDGET, {"metadata": {"name": f"w{number}"}, "spec": {"text": "x"}})
        stops, faults = [asyncio.Event() for _ in range(3)], [Faults() for _ in range(3)]
        await replica("one", stops[0], faults[0])
        await asyncio.sleep(1)
        two = await replica("two", stops[1], faults[1])
        assert set(worked) == {"one"}
        assert two.cache.count(WIDGET) == 3
        await asyncio.sleep(10)
        begin = asyncio.get_running_loop().time()
        two.observe(WIDGET, "ADDED", api.put(WIDGET, {"metadata": {"name": "new"}, "spec": {"text": "y"}}))
        stops[0].set()
        while api.get(WIDGET, "default", "new").get("status") is None:
            await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - begin <= 2
        assert worked[-1] == "two"
        await replica("three", stops[2], faults[2])
        faults[1].add("hang", path="leases", times=None)
        await asyncio.sleep(20)
        assert lost == ["two"]
        assert api.get(LEASE, "cm", "lease")["spec"]["holderIdentity"] == "three"
        stops[2].set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["NoneType", "LeaseLost", "NoneType"]

    run_virtual(main())


def test_background_work_runs_while_leading_and_again_after_errors() -> None:
    async def main() -> None:
        engine = Engine(Kube(MemoryApi()))
        tries: list[float] = []

        async def work() -> None:
            tries.append(asyncio.get_running_loop().time())
            if len(tries) == 1:
                raise Transient("not yet")
            if len(tries) == 2:
                raise KeyError("a bug")

        engine.background("secrets", work)
        stop = asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await asyncio.sleep(60)
        assert len(tries) == 3
        text = engine.metrics.text().decode()
        assert 'cloudmesh_reconcile_errors_total{kind="secrets",reason="Unexpected"} 1.0' in text
        stop.set()
        await running

    run_virtual(main())


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[tuple[MemoryApi, Faults, Path]]:
    api, faults = MemoryApi([WIDGET]), Faults()
    async with Front(FaultyTransport(api, faults)) as server:
        yield api, faults, server.write_kubeconfig(tmp_path / "kubeconfig")


async def until(condition: object, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("namespaces", [(), ("default", "other")])
async def test_the_operator_with_kopf(
    front: tuple[MemoryApi, Faults, Path], namespaces: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, faults, kubeconfig = front
    api.put(WIDGET, {"metadata": {"name": "early"}, "spec": {"text": "one"}})
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    stop = asyncio.Event()
    settings = Settings(namespace="default", watch_namespaces=namespaces, identity="me", http_port=0)
    engines: list[Engine] = []

    def factory(engine: Engine, settings: Settings) -> Marker:
        engines.append(engine)
        return Marker(engine)

    running = asyncio.create_task(composition.serve(settings, await Access.load(), [factory], stop))

    def shows(name: str, text: str) -> bool:
        obj = api.get(WIDGET, "default", name)
        return obj is not None and (obj.get("status") or {}).get("text") == text

    await until(lambda: shows("early", "one"))
    api.put(WIDGET, {"metadata": {"name": "late"}, "spec": {"text": "two"}})
    await until(lambda: shows("late", "two"))
    api.put(WIDGET, {"metadata": {"name": "late"}, "spec": {"text": "three"}})
    await until(lambda: shows("late", "three"))
    if namespaces:
        api.put(WIDGET, {"metadata": {"name": "far", "namespace": "elsewhere"}, "spec": {"text": "x"}})
    api.remove(WIDGET, "default", "late")
    await until(lambda: engines[0].cache.get(WIDGET, "default", "late") is None)
    assert api.get(WIDGET, "elsewhere", "far") is None or "status" not in api.get(WIDGET, "elsewhere", "far")
    assert not any(
        call.startswith("PATCH") and "/status" not in call and "configmaps" not in call for call in api.calls
    )
    assert faults.count("customresourcedefinitions|kopfpeerings|namespaces\\?") == 0
    await until(lambda: engines[0].metrics.registry.get_sample_value("cloudmesh_leader") == 1.0)
    stop.set()
    async with asyncio.timeout(60):
        assert await running == 0
    assert api.get(LEASE, "default", "cloudmesh-operator")["spec"]["holderIdentity"] == ""


async def test_the_operator_goes_on_after_watches_were_dropped(
    front: tuple[MemoryApi, Faults, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, faults, kubeconfig = front
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    stop = asyncio.Event()
    settings = Settings(namespace="default", identity="me", http_port=0)
    factory = lambda engine, settings: Marker(engine)  # noqa: E731
    running = asyncio.create_task(composition.serve(settings, await Access.load(), [factory], stop))
    for number in range(4):
        name = f"w{number}"
        api.put(WIDGET, {"metadata": {"name": name}, "spec": {"text": name}})
        await until(lambda name=name: (api.get(WIDGET, "default", name).get("status") or {}).get("text") == name)
        faults.add("drop", path="watch=true.*", times=1)
        api.store.compact()
        api.store.close_watches()
    stop.set()
    assert await running == 0


async def test_a_client_through_a_socket(front: tuple[MemoryApi, Faults, Path]) -> None:
    api, faults, kubeconfig = front
    kube = await connect(str(kubeconfig))
    obj = {"metadata": {"name": "a b".replace(" ", "-"), "namespace": "default"}, "data": {"x": "1"}}
    await kube.create(CONFIG_MAP, obj)
    assert (await kube.apply(CONFIG_MAP, obj | {"data": {"y": "2"}}))["data"] == {"x": "1", "y": "2"}
    assert len((await kube.list(CONFIG_MAP, label_selector="!x,y notin (a,b)"))[0]) == 1
    faults.add("drop", method="GET", times=2)  # aiohttp tries a kept connection that breaks once more by itself
    with pytest.raises(Transient):
        await kube.get(CONFIG_MAP, "default", "a-b")
    slow = Kube(kube._transport, call_seconds=0.3)
    faults.add("hang", method="GET")
    with pytest.raises(Transient, match="time-out"):
        await slow.get(CONFIG_MAP, "default", "a-b")
    faults.add("cut", path="watch=true", events=1)
    watch = kube.watch(CONFIG_MAP, resource_version="", timeout_seconds=20)
    assert (await anext(watch))["type"] == "ADDED"
    with pytest.raises(Transient):
        await anext(watch)
    await kube.delete(CONFIG_MAP, "default", "a-b")
    assert api.all(CONFIG_MAP) == []
    await kube.close()


async def test_login_facts_are_not_shown(front: tuple[MemoryApi, Faults, Path]) -> None:
    login = await (await Access.load(str(front[2]))).login()
    assert (login.token, login.scheme) == ("not-checked", "Bearer")
    assert "not-checked" not in repr(login)


async def test_no_access_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(AccessMissing, match="set KUBECONFIG"):
        await Access.load(str(tmp_path / "missing"))
    (tmp_path / "bad").write_text("a: [b")
    with pytest.raises(AccessMissing):
        await Access.load(str(tmp_path / "bad"))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    with pytest.raises(AccessMissing, match="service account"):
        await Access.load()


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({}, "CLOUDMESH_NAMESPACE must be set"),
        ({"CLOUDMESH_NAMESPACE": "cm", "KUBECONFIG": "/nonexistent"}, "set KUBECONFIG to a readable file"),
    ],
)
def test_the_process_says_what_is_missing(environ: dict[str, str], told: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLOUDMESH_", "KUBE"))}
    done = subprocess.run(
        [sys.executable, "-m", "cloudmesh.operator"],
        env=kept | environ | {"PYTHONPATH": str(Path(composition.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == composition.EXIT_CONFIGURATION
    assert told in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_port_in_use_is_named(front: tuple[MemoryApi, Faults, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(front[2]))
    other = Probes(Metrics())
    await other.start(None, 0)
    settings = Settings(namespace="default", identity="me", http_port=other.port)
    with pytest.raises(SettingsError, match=f"CLOUDMESH_HTTP_PORT {other.port} can't be listened on"):
        await composition.serve(settings, await Access.load(), [], asyncio.Event())
    await other.stop()


def test_a_reconciler_that_can_t_be_loaded_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cloudmesh\.nowhere:reconciler"):
        composition.load(["cloudmesh.nowhere:reconciler"])
    assert composition.load(["cloudmesh.engine.engine:Engine"]) == [Engine]
