"""Status, finalizers, owners, events, references."""

from __future__ import annotations

import asyncio

import pytest

from cloudmesh.engine import (
    CONFIG_MAP,
    EVENT,
    Cache,
    Conflict,
    Events,
    Finalizers,
    Key,
    Kube,
    Metrics,
    NotFound,
    Obj,
    References,
    Resource,
    Status,
    has_finalizer,
    is_abandoned,
    is_owned_by,
    own,
    owner_key,
)
from cloudmesh.engine.references import ReferenceSink
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")


def ready(status: str = "True", message: str = "ok") -> Obj:
    return {"conditions": [{"type": "Ready", "status": status, "reason": "AsSpecified", "message": message}]}


class Setting:
    def __init__(self) -> None:
        self.api, self.faults, self.cache = MemoryApi([WIDGET]), Faults(), Cache()
        self.kube = Kube(FaultyTransport(self.api, self.faults))
        self.times = iter(f"2026-01-01T00:00:{second:02}Z" for second in range(60))
        self.status = Status(self.kube, self.cache, now=lambda: next(self.times))
        self.finalizers = Finalizers(self.kube)
        self.obj = self.api.put(WIDGET, {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})

    def live(self) -> Obj:
        found = self.api.get(WIDGET, "default", "a")
        assert found is not None
        return found


def test_an_equal_status_costs_no_call_and_keeps_its_time() -> None:
    async def main() -> None:
        s = Setting()
        first = await s.status.write(WIDGET, s.obj, ready())
        assert first["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
        calls = len(s.faults.calls)
        assert await s.status.write(WIDGET, first, ready()) is first
        assert len(s.faults.calls) == calls
        second = await s.status.write(WIDGET, first, ready(message="other words"))
        assert second["status"]["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
        third = await s.status.write(WIDGET, second, ready("False"))
        assert third["status"]["conditions"][0]["lastTransitionTime"] != "2026-01-01T00:00:00Z"
        assert "generation" in third["metadata"]

    run_virtual(main())


def test_what_is_left_out_of_status_is_given_up() -> None:
    async def main() -> None:
        s = Setting()
        obj = await s.status.write(WIDGET, s.obj, ready() | {"image": "x", "url": "y"})
        obj = await s.status.write(WIDGET, obj, ready() | {"url": "y"})
        assert "image" not in s.live()["status"]

    run_virtual(main())


def test_the_cache_s_newer_status_counts() -> None:
    async def main() -> None:
        s = Setting()
        answer = await s.status.write(WIDGET, s.obj, ready())
        s.cache.put(WIDGET, answer)
        calls = len(s.faults.calls)
        await s.status.write(WIDGET, s.obj, ready())  # the reconcile still holds the object from before
        assert len(s.faults.calls) == calls

    run_virtual(main())


def test_a_server_s_own_additions_don_t_cause_writes_but_a_stranger_s_change_does() -> None:
    async def main() -> None:
        s = Setting()

        def normalise(act: str, resource: Resource, obj: Obj) -> None:
            if "status" in obj:
                obj["status"]["added"] = "by the server"

        s.api.admit.append(normalise)
        obj = await s.status.write(WIDGET, s.obj, ready())
        calls = len(s.faults.calls)
        obj = await s.status.write(WIDGET, obj, ready())
        assert len(s.faults.calls) == calls
        s.api.admit.clear()
        strange = s.api.set_status(WIDGET, "default", "a", {"conditions": []})
        await s.status.write(WIDGET, strange, ready())
        assert s.live()["status"]["conditions"][0]["type"] == "Ready"

    run_virtual(main())


def test_status_of_the_gone_or_replaced_is_not_written() -> None:
    async def main() -> None:
        s = Setting()
        s.api.remove(WIDGET, "default", "a")
        with pytest.raises(NotFound):
            await s.status.write(WIDGET, s.obj, ready())
        s.api.put(WIDGET, {"metadata": {"name": "a", "namespace": "default"}, "spec": {}})
        with pytest.raises(Conflict):
            await s.status.write(WIDGET, s.obj, ready())
        s.status.forget(s.obj["metadata"]["uid"])

    run_virtual(main())


def test_finalizers_come_and_go_beside_those_of_others() -> None:
    async def main() -> None:
        s = Setting()
        obj = await s.finalizers.ensure(WIDGET, s.obj)
        calls = len(s.faults.calls)
        assert await s.finalizers.ensure(WIDGET, obj) is obj
        assert len(s.faults.calls) == calls
        live = s.live()
        live["metadata"]["finalizers"].append("stranger.example/x")
        s.api.put(WIDGET, live)
        await s.finalizers.hold(WIDGET, obj)  # from a stale object
        assert s.live()["metadata"]["finalizers"] == [
            "cloudmesh.org/cleanup",
            "stranger.example/x",
            "cloudmesh.org/in-use",
        ]
        await s.finalizers.release(WIDGET, s.live())
        await s.finalizers.remove(WIDGET, obj)
        assert s.live()["metadata"]["finalizers"] == ["stranger.example/x"]
        assert has_finalizer(s.live(), "stranger.example/x")

    run_virtual(main())


def test_finalizers_of_the_deleting_and_the_gone() -> None:
    async def main() -> None:
        s = Setting()
        obj = await s.finalizers.ensure(WIDGET, s.obj)
        s.api.remove(WIDGET, "default", "a")
        with pytest.raises(Conflict):
            await s.finalizers.hold(WIDGET, s.live())
        with pytest.raises(Conflict):
            await s.finalizers.hold(WIDGET, obj)
        await s.finalizers.remove(WIDGET, obj)
        assert s.api.get(WIDGET, "default", "a") is None
        await s.finalizers.remove(WIDGET, obj)
        s.api.put(WIDGET, {"metadata": {"name": "a", "namespace": "default", "finalizers": ["cloudmesh.org/cleanup"]}})
        await s.finalizers.remove(WIDGET, obj)
        assert has_finalizer(s.live(), "cloudmesh.org/cleanup"), "that of the new object of the same name stays"

    run_virtual(main())


def test_abandoning_names_the_uid() -> None:
    obj: Obj = {"metadata": {"uid": "u1", "annotations": {"cloudmesh.org/abandon": "u1"}}}
    assert is_abandoned(obj)
    obj["metadata"]["annotations"]["cloudmesh.org/abandon"] = "another"
    assert not is_abandoned(obj)
    assert not is_abandoned({"metadata": {"uid": ""}})


def test_owning() -> None:
    meta = {"name": "o", "namespace": "ns", "uid": "u", "labels": {"theirs": "x"}, "annotations": {"a": "b"}}
    owner: Obj = {"apiVersion": "test.cloudmesh.org/v1", "kind": "Widget", "metadata": meta}
    child = own({"metadata": {"name": "c", "labels": {"mine": "y"}}, "data": {}}, owner)
    assert child["metadata"]["namespace"] == "ns"
    assert child["metadata"]["labels"] == {
        "mine": "y",
        "app.kubernetes.io/managed-by": "cloudmesh",
        "cloudmesh.org/owner-kind": "Widget",
        "cloudmesh.org/owner-name": "o",
        "cloudmesh.org/owner-uid": "u",
    }, "nothing is inherited"
    assert "annotations" not in child["metadata"]
    assert child["metadata"]["ownerReferences"][0]["controller"] is True
    assert owner_key(child) == Key("Widget", "ns", "o")
    assert owner_key(child, {"Gadget"}) is None
    assert owner_key({"metadata": {"name": "x"}}) is None
    assert is_owned_by(child, "u")
    assert not is_owned_by(child, "v")
    assert not is_owned_by({"metadata": {"name": "x"}}, "u")


def test_repeated_events_are_counted() -> None:
    async def main() -> None:
        s = Setting()
        metrics = Metrics()
        events = Events(s.kube, "pod-1", metrics)
        task = asyncio.create_task(events.run())
        for _ in range(50):
            events.emit(s.obj, "Normal", "Built", "image is built")
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        (found,) = s.api.all(EVENT)
        assert found["note"] == "image is built"
        assert found["series"]["count"] == 50
        assert found["regarding"]["uid"] == s.obj["metadata"]["uid"]
        assert (found["reportingController"], found["reportingInstance"]) == ("cloudmesh-operator", "pod-1")
        assert s.faults.count("events") <= 5
        await asyncio.sleep(700)
        events.emit(s.obj, "Normal", "Built", "image is built")
        await asyncio.sleep(1)
        assert len(s.api.all(EVENT)) == 2, "after ten minutes it is news again"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main())


def test_similar_events_are_combined_and_floods_dropped() -> None:
    async def main() -> None:
        s = Setting()
        metrics = Metrics()
        events = Events(s.kube, "pod-1", metrics)
        for number in range(100):
            events.emit(s.obj, "Warning", "Failed", f"try {number} failed")
        for number in range(100):
            events.emit(s.obj, "Warning", f"Reason{number}", "x")
        await events.flush()
        notes = [event["note"] for event in s.api.all(EVENT)]
        assert len(notes) == 25
        combined = [note for note in notes if note.startswith("(combined from similar events)")]
        assert len(combined) == 1
        assert 'cloudmesh_events_total{result="dropped"} 86.0' in metrics.text().decode()
        other = s.api.put(WIDGET, {"metadata": {"name": "b", "namespace": "default"}})
        events.emit(other, "Normal", "Fine", "another object has its own allowance")
        await events.flush()
        assert len(s.api.all(EVENT)) == 26

    run_virtual(main())


def test_events_survive_faults_and_are_made_once() -> None:
    async def main() -> None:
        s = Setting()
        events = Events(s.kube, "pod-1")
        task = asyncio.create_task(events.run())
        s.faults.add("lose", method="POST", path="events")
        s.faults.add("answer", method="POST", path="events", status=429, retry_after=4)
        s.faults.add("answer", method="POST", path="events", status=500)
        events.emit(s.obj, "Normal", "Built", "x")
        await asyncio.sleep(60)
        assert len(s.api.all(EVENT)) == 1
        s.faults.add("answer", method="POST", path="events", status=422)
        events.emit(s.obj, "Normal", "Refused", "x")
        events.emit(s.obj, "Normal", "Later", "x" * 5000)
        await asyncio.sleep(60)
        assert sorted(event["reason"] for event in s.api.all(EVENT)) == ["Built", "Later"]
        assert max(len(event["note"]) for event in s.api.all(EVENT)) == 1024
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(main())


def test_an_event_that_the_server_forgot_is_told_anew() -> None:
    async def main() -> None:
        s = Setting()
        events = Events(s.kube, "pod-1")
        events.emit(s.obj, "Normal", "Built", "x")
        await events.flush()
        (found,) = s.api.all(EVENT)
        s.api.remove(EVENT, "default", found["metadata"]["name"])
        events.emit(s.obj, "Normal", "Built", "x")
        await events.flush()
        events.emit(s.obj, "Normal", "Built", "x")
        await events.flush()
        assert len(s.api.all(EVENT)) == 1

    run_virtual(main())


def test_references_index_both_ways() -> None:
    woken: list[Key] = []
    kinds: list[str] = []
    references = References(woken.append, kinds.append)
    a, b = Key("Widget", "ns", "a"), Key("Widget", "ns", "b")
    shared = ("ConfigMap", "ns", "shared")
    references.set(a, {shared, ("Secret", "ns", "s")})
    references.set(b, {shared})
    assert sorted(kinds) == ["ConfigMap", "Secret"]
    references.changed(shared)
    assert woken == [a, b]
    references.set(a, set())
    assert references.users(shared) == [b]
    assert references.users(("Secret", "ns", "s")) == []
    references.set(b, [shared])
    sink = ReferenceSink("ConfigMap", references)
    woken.clear()
    seen = {"metadata": {"name": "shared", "namespace": "ns", "resourceVersion": "5"}}
    sink.put(seen)
    sink.put(seen)
    assert woken == [b]
    sink.listed(set(), "9")
    sink.remove(seen)
    assert woken == [b, b]


def test_the_memory_server_collects_what_a_gone_owner_owned() -> None:
    s = Setting()
    s.api.put(CONFIG_MAP, own({"metadata": {"name": "c"}}, s.obj))
    s.api.remove(WIDGET, "default", "a")
    assert s.api.all(CONFIG_MAP) == []
