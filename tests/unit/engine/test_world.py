"""The engine on a memory API server, in virtual time: convergence, no needless write, crashes, two leaders."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import pytest

from cloudmesh.engine import (
    CONFIG_MAP,
    Conflict,
    Done,
    Engine,
    InvalidRequest,
    Key,
    Kube,
    Obj,
    Resource,
    Transient,
    own,
)
from cloudmesh.testing import CrashPoint, Faults, FaultyTransport, MemoryApi, World, for_every_crash, run_virtual

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")
GADGET = Resource("test.cloudmesh.org/v1", "Gadget", "gadgets")


def widget(name: str, **spec: object) -> Obj:
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


class Copier:
    """Keeps a ConfigMap with what the spec says, and a finalizer while it lives."""

    owns: Sequence[Resource] = (CONFIG_MAP,)

    def __init__(self, engine: Engine, resource: Resource = WIDGET) -> None:
        self.engine = engine
        self.resource = resource
        self.seen: list[Key] = []
        self.forgotten: list[Key] = []
        self.running: set[Key] = set()

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        assert key not in self.running, "one flight a key"
        self.running.add(key)
        try:
            return await self._reconcile(key, obj)
        finally:
            self.running.discard(key)

    async def _reconcile(self, key: Key, obj: Obj) -> Done:
        self.seen.append(key)
        engine = self.engine
        name = f"{key.name}-copy"
        if obj["metadata"].get("deletionTimestamp"):
            await engine.kube.delete(CONFIG_MAP, key.namespace, name)
            await engine.finalizers.remove(self.resource, obj)
            return Done()
        if obj["spec"].get("wrong"):
            raise InvalidRequest("spec.wrong must not be set")
        obj = await engine.finalizers.ensure(self.resource, obj)
        text = str(obj["spec"].get("text", ""))
        child = engine.cache.get(CONFIG_MAP, key.namespace, name)
        if child is None or child.get("data") != {"text": text}:
            wanted = own({"metadata": {"name": name}, "data": {"text": text}}, obj)
            await engine.kube.apply(CONFIG_MAP, wanted)
        condition = {"type": "Ready", "status": "True", "reason": "AsSpecified", "message": text}
        status = {"observedGeneration": obj["metadata"]["generation"], "conditions": [condition]}
        await engine.status.write(self.resource, obj, status)
        return Done()

    def forget(self, key: Key) -> None:
        self.forgotten.append(key)


def check(world: World, name: str, text: str) -> None:
    child = world.api.get(CONFIG_MAP, "default", f"{name}-copy")
    assert child is not None and child["data"] == {"text": text}
    obj = world.api.get(WIDGET, "default", name)
    assert obj is not None and obj["status"]["conditions"][0]["message"] == text
    assert obj["status"]["observedGeneration"] == obj["metadata"]["generation"]
    assert obj["metadata"]["finalizers"] == ["cloudmesh.org/cleanup"]


def test_create_change_delete_and_no_write_for_the_unchanged() -> None:
    async def main() -> None:
        world = World([WIDGET])
        made: list[Copier] = []

        def make(engine: Engine) -> Copier:
            made.append(Copier(engine))
            return made[-1]

        world.api.put(WIDGET, widget("a", text="one"))
        async with world.engine(make) as engine:
            await world.settle()
            check(world, "a", "one")
            before = world.api.writes()
            for resource in engine.fed:
                await engine.resync(resource)
            await world.settle()
            assert world.api.writes() == before
            stamp = world.api.get(WIDGET, "default", "a")["status"]["conditions"][0]["lastTransitionTime"]

            world.api.put(WIDGET, widget("a", text="two"))
            await world.settle()
            check(world, "a", "two")
            assert world.api.get(WIDGET, "default", "a")["status"]["conditions"][0]["lastTransitionTime"] == stamp

            world.api.remove(CONFIG_MAP, "default", "a-copy")  # a stranger's hand
            await world.settle()
            check(world, "a", "two")

            world.api.remove(WIDGET, "default", "a")
            await world.settle()
            assert world.api.get(WIDGET, "default", "a") is None
            assert world.api.all(CONFIG_MAP) == []
            assert made[0].forgotten == [Key("Widget", "default", "a")]
            assert engine.cache.count(WIDGET) == engine.cache.count(CONFIG_MAP) == 0

    run_virtual(main())


def test_a_restart_writes_nothing() -> None:
    async def main() -> None:
        world = World([WIDGET])
        for number in range(30):
            world.api.put(WIDGET, widget(f"w{number}", text=str(number)))
        async with world.engine(Copier):
            await world.settle()
        before = world.api.writes()
        calls = len([call for call in world.api.calls if not call.startswith("GET")])
        async with world.engine(Copier):
            await world.settle()
        assert world.api.writes() == before
        assert len([call for call in world.api.calls if not call.startswith("GET")]) == calls

    run_virtual(main())


def test_a_world_serves_the_namespaces_that_it_is_told() -> None:
    async def main() -> None:
        world = World([WIDGET])
        world.api.put(WIDGET, widget("a", text="one"))
        world.api.put(WIDGET, {"metadata": {"name": "b", "namespace": "other"}, "spec": {"text": "two"}})
        async with world.engine(Copier, namespaces=["other"]):
            await world.settle()
        assert [obj["metadata"]["namespace"] for obj in world.api.all(CONFIG_MAP)] == ["other"]

    run_virtual(main())


class Late(Copier):
    """Comes too late so many times."""

    times = 5

    async def _reconcile(self, key: Key, obj: Obj) -> Done:
        if self.times:
            self.times -= 1
            raise Conflict("the object has been modified")
        return await super()._reconcile(key, obj)


@pytest.mark.parametrize(("times", "warnings"), [(5, 0), (7, 2)])
def test_a_conflict_is_no_warning_unless_it_lasts(times: int, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    def make(engine: Engine) -> Late:
        late = Late(engine)
        late.times = times
        return late

    async def main() -> None:
        world = World([WIDGET])
        world.api.put(WIDGET, widget("a", text="one"))
        async with world.engine(make):
            await world.settle()
            check(world, "a", "one")

    with caplog.at_level(logging.INFO, "cloudmesh.engine.reconciler"):
        run_virtual(main())
    told = [record.levelno for record in caplog.records]
    assert (len(told), told.count(logging.WARNING)) == (times, warnings)


@pytest.mark.parametrize("seed", range(5))
def test_two_leaders_converge(seed: int) -> None:
    async def main() -> None:
        world = World([WIDGET], seed=seed)
        world.api.latency_seconds = 0.01
        async with world.engine(Copier), world.engine(Copier):
            for number in range(8):
                world.api.put(WIDGET, widget(f"w{number}", text="x"))
                await asyncio.sleep(0.02)
            await world.settle()
            for number in range(8):
                check(world, f"w{number}", "x")
            assert len(world.api.all(CONFIG_MAP)) == 8
            for number in range(8):
                world.api.remove(WIDGET, "default", f"w{number}")
            await world.settle()
            assert world.api.all(WIDGET) == world.api.all(CONFIG_MAP) == []

    run_virtual(main(), seed=seed)


def test_crash_at_every_call() -> None:
    async def scenario(point: CrashPoint) -> None:
        world = World([WIDGET])
        world.api.put(WIDGET, widget("a", text="one"))

        async def first_life() -> None:
            async with world.engine(Copier, crash=point):
                await world.settle(quiet_seconds=1)
                world.api.put(WIDGET, widget("a", text="two"))
                await world.settle(quiet_seconds=1)

        await point.until_crash(first_life())
        world.api.put(WIDGET, widget("a", text="two"))
        async with world.engine(Copier):
            await world.settle()
            check(world, "a", "two")
            world.api.remove(WIDGET, "default", "a")
            await world.settle()
        assert world.api.all(WIDGET) == world.api.all(CONFIG_MAP) == []

    async def main() -> None:
        assert await for_every_crash(scenario) >= 12

    run_virtual(main())


def test_faults_of_the_api_server_are_waited_out() -> None:
    async def main() -> None:
        world = World([WIDGET])
        faults = Faults()
        faults.add("answer", method="PATCH", status=500, times=3)
        faults.add("answer", method="PATCH", status=429, retry_after=3.0, times=2)
        faults.add("answer", method="PATCH", status=409, times=2)
        faults.add("hang", method="PATCH", times=1)
        faults.add("lose", method="PATCH", times=2)
        faults.add("drop", method="GET", path="widgets", times=2)
        faults.add("cut", path="watch=true", events=1, times=4)
        faults.add("expire", path="watch=true", times=2)
        async with world.engine(Copier, transport=FaultyTransport(world.api, faults)):
            for number in range(4):
                world.api.put(WIDGET, widget(f"w{number}", text="x"))
            await world.settle(seconds=600, quiet_seconds=30)
            for number in range(4):
                check(world, f"w{number}", "x")
            world.api.store.compact()
            world.api.store.close_watches()
            world.api.remove(WIDGET, "default", "w0")
            await world.settle(seconds=600, quiet_seconds=30)
            assert world.api.get(WIDGET, "default", "w0") is None

    run_virtual(main())


def test_invalid_stops_until_the_generation_changes() -> None:
    async def main() -> None:
        world = World([WIDGET])
        made: list[Copier] = []

        def make(engine: Engine) -> Copier:
            made.append(Copier(engine))
            return made[-1]

        async with world.engine(make) as engine:
            world.api.put(WIDGET, widget("a", wrong=1))
            await asyncio.sleep(200)
            assert len(made[0].seen) == 1
            engine.queue.add(Key("Widget", "default", "a"))
            await asyncio.sleep(10)
            assert len(made[0].seen) == 1
            world.api.put(WIDGET, widget("a", text="good"))
            await world.settle()
            check(world, "a", "good")

    run_virtual(main())


def test_unexpected_errors_back_off_and_are_counted() -> None:
    class Broken(Copier):
        async def _reconcile(self, key: Key, obj: Obj) -> Done:
            self.seen.append(key)
            if len(self.seen) < 4:
                raise KeyError("a bug")
            if len(self.seen) < 6:
                raise Transient("later")
            return Done(requeue_after=30.0)

    async def main() -> None:
        world = World([WIDGET])
        made: list[Broken] = []

        def make(engine: Engine) -> Broken:
            made.append(Broken(engine))
            return made[-1]

        async with world.engine(make) as engine:
            world.api.put(WIDGET, widget("a"))
            await asyncio.sleep(10)
            assert len(made[0].seen) == 6
            await asyncio.sleep(30)
            assert len(made[0].seen) == 7
            text = engine.metrics.text().decode()
            assert 'cloudmesh_reconcile_errors_total{kind="Widget",reason="Unexpected"} 3.0' in text
            assert 'cloudmesh_reconcile_errors_total{kind="Widget",reason="Transient"} 2.0' in text

    run_virtual(main())


def test_what_went_unseen_is_forgotten() -> None:
    class Quiet(Copier):
        async def _reconcile(self, key: Key, obj: Obj) -> Done:
            if obj["spec"].get("write"):
                await self.engine.status.write(WIDGET, obj, {"seen": key.name})
            return Done()

    async def main() -> None:
        api = MemoryApi([WIDGET])
        engine = Engine(Kube(api))
        reconciler = Quiet(engine)
        engine.add(reconciler)
        for name in ("a", "b", "c"):
            api.put(WIDGET, widget(name))
        stop = asyncio.Event()
        running = asyncio.create_task(engine.run(stop))
        await engine.synced.wait()
        await asyncio.sleep(1)

        api.remove(WIDGET, "default", "a")
        engine.observe(WIDGET, None, api.get(WIDGET, "default", "b"))  # listed again, which tells no delete
        await asyncio.sleep(12)
        assert reconciler.forgotten == [Key("Widget", "default", "a")]

        api.remove(WIDGET, "default", "b")
        await asyncio.sleep(4000)
        assert reconciler.forgotten[1:] == [Key("Widget", "default", "b")], "at the hourly resync"

        ghost = api.put(WIDGET, widget("c", write=1))
        api.remove(WIDGET, "default", "c")
        engine.observe(WIDGET, "MODIFIED", ghost)
        await asyncio.sleep(10)
        assert reconciler.forgotten[2:] == [Key("Widget", "default", "c")], "a write found nobody"
        stop.set()
        await running

    run_virtual(main())


def test_fair_between_kinds() -> None:
    order: list[str] = []

    class Slow(Copier):
        async def _reconcile(self, key: Key, obj: Obj) -> Done:
            await asyncio.sleep(0.1)
            order.append(key.kind)
            return Done()

    async def main() -> None:
        world = World([WIDGET, GADGET])
        for number in range(50):
            world.api.put(WIDGET, widget(f"w{number}"))
        for number in range(3):
            world.api.put(GADGET, widget(f"g{number}"))
        async with world.engine(lambda e: Slow(e, WIDGET), lambda e: Slow(e, GADGET), workers=1):
            await world.settle(quiet_seconds=1)
        assert [place for place, kind in enumerate(order) if kind == "Gadget"][-1] <= 8

    run_virtual(main())


def test_a_changed_reference_wakes_its_users() -> None:
    class Reader(Copier):
        async def _reconcile(self, key: Key, obj: Obj) -> Done:
            self.engine.references.set(key, {("ConfigMap", "default", "source")})
            found = await self.engine.kube.get(CONFIG_MAP, "default", "source")
            text = found["data"]["text"] if found else "missing"
            await self.engine.status.write(WIDGET, obj, {"text": text})
            return Done()

    async def main() -> None:
        world = World([WIDGET])
        async with world.engine(Reader):
            world.api.put(WIDGET, widget("a"))
            await world.settle()
            assert world.api.get(WIDGET, "default", "a")["status"]["text"] == "missing"
            source = {"metadata": {"name": "source", "namespace": "default"}, "data": {"text": "one"}}
            for text in ("one", "two"):
                world.api.put(CONFIG_MAP, source | {"data": {"text": text}})
                await world.settle()
                assert world.api.get(WIDGET, "default", "a")["status"]["text"] == text
            world.api.remove(CONFIG_MAP, "default", "source")
            await world.settle()
            assert world.api.get(WIDGET, "default", "a")["status"]["text"] == "missing"

    run_virtual(main())
