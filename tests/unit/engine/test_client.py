"""The client's promises, on the memory API server with faults in front."""

from __future__ import annotations

import asyncio

import pytest

from cloudmesh.engine import (
    CONFIG_MAP,
    SECRET,
    AlreadyExists,
    Conflict,
    Expired,
    InvalidRequest,
    Kube,
    NotFound,
    Obj,
    RateLimited,
    Resource,
    Transient,
    create_or_get,
)
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")
NODE = Resource("v1", "Namespace", "namespaces", namespaced=False)


def config(name: str, **data: str) -> Obj:
    return {"metadata": {"name": name, "namespace": "default"}, "data": data}


def client() -> tuple[Kube, MemoryApi, Faults]:
    api, faults = MemoryApi([WIDGET]), Faults()
    return Kube(FaultyTransport(api, faults)), api, faults


def test_paths() -> None:
    assert CONFIG_MAP.path("ns", "a") == "/api/v1/namespaces/ns/configmaps/a"
    assert WIDGET.path("ns", "a", "status") == "/apis/test.cloudmesh.org/v1/namespaces/ns/widgets/a/status"
    assert WIDGET.path() == "/apis/test.cloudmesh.org/v1/widgets"
    assert NODE.path("ignored", "x") == "/api/v1/namespaces/x"
    assert (WIDGET.group, WIDGET.version, NODE.group, NODE.version) == ("test.cloudmesh.org", "v1", "", "v1")


def test_get_is_none_only_for_a_real_404() -> None:
    async def main() -> None:
        kube, api, faults = client()
        assert await kube.get(CONFIG_MAP, "default", "a") is None
        api.put(CONFIG_MAP, config("a", x="1"))
        assert (await kube.get(CONFIG_MAP, "default", "a"))["data"] == {"x": "1"}
        faults.add("answer", status=404)
        with pytest.raises(Transient):
            await kube.get(CONFIG_MAP, "default", "a")
        api.withdraw(WIDGET)
        with pytest.raises(Transient, match="custom resource definition"):
            await kube.get(WIDGET, "default", "a")

    run_virtual(main())


def test_every_call_has_a_limit() -> None:
    async def main() -> None:
        kube, _, faults = client()
        loop = asyncio.get_running_loop()
        faults.add("hang", times=None)
        calls = [
            kube.get(CONFIG_MAP, "default", "a"),
            kube.list(CONFIG_MAP),
            kube.create(CONFIG_MAP, config("a")),
            kube.apply(CONFIG_MAP, config("a")),
            kube.replace(CONFIG_MAP, config("a")),
            kube.patch(CONFIG_MAP, "default", "a", {}),
            kube.delete(CONFIG_MAP, "default", "a"),
        ]
        for call in calls:
            begin = loop.time()
            with pytest.raises(Transient, match="time-out"):
                await call
            assert loop.time() - begin <= 30

    run_virtual(main())


def test_list_follows_pages_and_is_complete_or_fails() -> None:
    async def main() -> None:
        kube, api, faults = client()
        for number in range(1234):
            api.put(CONFIG_MAP, config(f"c{number:04}"))
        items, version = await kube.list(CONFIG_MAP)
        assert len(items) == 1234
        assert version == str(api.store.version)
        assert items[0]["kind"] == "ConfigMap"
        assert items[0]["apiVersion"] == "v1"
        assert faults.count("limit=500") == 3
        partial, _ = await kube.list(CONFIG_MAP, metadata_only=True)
        assert all("data" not in item for item in partial)
        faults.add("answer", path="continue=", status=500, skip=1)
        with pytest.raises(Transient):
            await kube.list(CONFIG_MAP)
        pages = kube.pages(CONFIG_MAP)
        await anext(pages)
        api.store.version += 1
        api.store.compact()
        with pytest.raises(Expired):
            await anext(pages)

    run_virtual(main())


def test_selectors_narrow_lists() -> None:
    async def main() -> None:
        kube, api, _ = client()
        for name, team in (("a", "red"), ("b", "blue"), ("c", "red")):
            api.put(CONFIG_MAP, {"metadata": {"name": name, "namespace": name, "labels": {"team": team}}})
        for selector, names in {
            "team=red": "ac",
            "team!=red": "b",
            "team in (blue, green)": "b",
            "team notin (blue)": "ac",
            "team": "abc",
            "!team": "",
        }.items():
            items, _ = await kube.list(CONFIG_MAP, label_selector=selector)
            assert "".join(item["metadata"]["name"] for item in items) == names
        items, _ = await kube.list(CONFIG_MAP, field_selector="metadata.name=b")
        assert [item["metadata"]["name"] for item in items] == ["b"]
        items, _ = await kube.list(CONFIG_MAP, "a")
        assert [item["metadata"]["name"] for item in items] == ["a"]
        with pytest.raises(InvalidRequest):
            await kube.list(CONFIG_MAP, label_selector="team in (")

    run_virtual(main())


def test_create_replace_patch_and_their_conflicts() -> None:
    async def main() -> None:
        kube, _, _ = client()
        made = await kube.create(CONFIG_MAP, config("a", x="1"))
        with pytest.raises(AlreadyExists):
            await kube.create(CONFIG_MAP, config("a"))
        assert (await create_or_get(kube, CONFIG_MAP, config("a", x="9")))["data"] == {"x": "1"}
        newer = await kube.patch(CONFIG_MAP, "default", "a", {"data": {"y": "2", "x": None}})
        assert newer["data"] == {"y": "2"}
        with pytest.raises(Conflict):
            await kube.replace(CONFIG_MAP, made)
        stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}, "data": {}}
        with pytest.raises(Conflict):
            await kube.patch(CONFIG_MAP, "default", "a", stale)
        with pytest.raises(NotFound):
            await kube.patch(CONFIG_MAP, "default", "gone", {"data": {}})
        assert (await kube.replace(CONFIG_MAP, newer | {"data": {"z": "3"}}))["data"] == {"z": "3"}

    run_virtual(main())


def test_apply_gives_up_what_is_left_out_and_minds_the_uid() -> None:
    async def main() -> None:
        kube, api, faults = client()
        made = await kube.apply(CONFIG_MAP, config("a", x="1", y="2"))
        api.put(CONFIG_MAP, {"metadata": {"name": "a", "namespace": "default"}, "data": {"x": "1", "y": "2", "z": "3"}})
        assert (await kube.apply(CONFIG_MAP, config("a", x="1")))["data"] == {"x": "1", "z": "3"}
        before = api.writes()
        await kube.apply(CONFIG_MAP, config("a", x="1"))
        assert api.writes() == before, "an apply that changes nothing stores nothing"
        strange = config("a", x="2")
        strange["metadata"]["uid"] = "another"
        with pytest.raises(Conflict):
            await kube.apply(CONFIG_MAP, strange)
        missing = {"metadata": {"name": "gone", "namespace": "default", "uid": made["metadata"]["uid"]}}
        with pytest.raises(Conflict):
            await kube.apply(CONFIG_MAP, missing)
        with pytest.raises(NotFound):
            await kube.apply(WIDGET, {"metadata": {"name": "w", "namespace": "default"}}, subresource="status")
        assert any("fieldManager=cloudmesh-operator&force=true" in call for call in faults.calls)

    run_virtual(main())


def test_delete_counts_absence_and_another_uid_as_done() -> None:
    async def main() -> None:
        kube, api, faults = client()
        await kube.delete(CONFIG_MAP, "default", "gone")
        api.put(CONFIG_MAP, config("a"))
        await kube.delete(CONFIG_MAP, "default", "a", uid="another")
        assert api.get(CONFIG_MAP, "default", "a") is not None
        uid = api.get(CONFIG_MAP, "default", "a")["metadata"]["uid"]
        faults.add("lose", method="DELETE")
        with pytest.raises(Transient):
            await kube.delete(CONFIG_MAP, "default", "a", uid=uid)
        await kube.delete(CONFIG_MAP, "default", "a", uid=uid)
        assert api.get(CONFIG_MAP, "default", "a") is None
        faults.add("answer", method="DELETE", status=409)
        with pytest.raises(Conflict):
            await kube.delete(CONFIG_MAP, "default", "a")
        faults.add("answer", method="DELETE", status=429, retry_after=2)
        with pytest.raises(RateLimited) as caught:
            await kube.delete(CONFIG_MAP, "default", "a")
        assert caught.value.retry_after == 2

    run_virtual(main())


def test_writes_are_seen_and_can_be_forbidden() -> None:
    async def main() -> None:
        kube, api, _ = client()
        seen: list[tuple[str, str]] = []
        kube.on_write = lambda resource, obj: seen.append((resource.kind, obj["metadata"]["name"]))
        await kube.create(CONFIG_MAP, config("a"))
        await kube.patch(CONFIG_MAP, "default", "a", {"data": {"x": "1"}})
        await kube.get(CONFIG_MAP, "default", "a")
        assert seen == [("ConfigMap", "a")] * 2

        def forbid(resource: Resource) -> None:
            raise Transient(f"no {resource.kind}")

        kube.write_guard = forbid
        before = api.writes()
        for call in (kube.create(CONFIG_MAP, config("b")), kube.delete(CONFIG_MAP, "default", "a")):
            with pytest.raises(Transient, match="no ConfigMap"):
                await call
        assert api.writes() == before
        assert await kube.get(CONFIG_MAP, "default", "a") is not None

    run_virtual(main())


def test_a_refused_secret_is_not_quoted() -> None:
    async def main() -> None:
        kube, api, _ = client()

        def refuse(act: str, resource: Resource, obj: Obj) -> None:
            from cloudmesh.testing.apiserver.server import Refused

            raise Refused(422, "Invalid", f"Invalid value: {obj['data']}")

        api.admit.append(refuse)
        with pytest.raises(InvalidRequest) as caught:
            await kube.create(SECRET, config("s", password="aHVudGVyMg=="))
        assert "aHVudGVyMg" not in str(caught.value)
        with pytest.raises(InvalidRequest, match="visible"):
            await kube.create(CONFIG_MAP, config("c", x="visible"))

    run_virtual(main())


def test_watch_tells_errors_in_the_stream() -> None:
    async def main() -> None:
        kube, api, faults = client()
        version = str(api.store.version)
        api.put(CONFIG_MAP, config("a"))
        api.remove(CONFIG_MAP, "default", "a")
        events = [
            event["type"] async for event in kube.watch(CONFIG_MAP, resource_version=version, timeout_seconds=120)
        ]
        assert events[:2] == ["ADDED", "DELETED"]
        assert set(events[2:]) == {"BOOKMARK"}
        faults.add("expire", path="watch=true", events=1)
        with pytest.raises(Expired):
            async for _ in kube.watch(CONFIG_MAP, resource_version=version, timeout_seconds=120):
                pass
        api.store.compact()
        with pytest.raises(Expired):
            async for _ in kube.watch(CONFIG_MAP, resource_version=version, timeout_seconds=120):
                pass

    run_virtual(main())
