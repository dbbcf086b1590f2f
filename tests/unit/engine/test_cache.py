"""The cache."""

from __future__ import annotations

from typing import Any

from cloudmesh.engine import CONFIG_MAP, Cache, Obj, Resource
from cloudmesh.engine.cache import Change

WIDGET = Resource("test.cloudmesh.org/v1", "Widget", "widgets")


def obj(name: str = "a", version: int = 1, uid: str = "u1", namespace: str = "ns", **rest: Any) -> Obj:
    meta = {"name": name, "namespace": namespace, "uid": uid, "resourceVersion": str(version)}
    return {"metadata": meta | rest.pop("metadata", {}), **rest}


def test_only_newer_objects_go_in() -> None:
    cache = Cache()
    assert cache.put(WIDGET, obj(version=5)) == Change(None, obj(version=5))
    assert cache.put(WIDGET, obj(version=5)) is None
    assert cache.put(WIDGET, obj(version=4)) is None
    change = cache.put(WIDGET, obj(version=10))
    assert change is not None
    assert change.old == obj(version=5)
    assert cache.get(WIDGET, "ns", "a") == obj(version=10)
    assert cache.get(WIDGET, "ns", "b") is None
    assert cache.get(WIDGET, "other", "a") is None


def test_the_deleted_don_t_come_back() -> None:
    cache = Cache()
    cache.put(WIDGET, obj(version=5))
    assert cache.remove(WIDGET, obj(version=9)) == Change(obj(version=5), None)
    assert cache.put(WIDGET, obj(version=7)) is None, "a late answer of our own write"
    assert cache.put(WIDGET, obj(version=12, uid="u2")) is not None, "made anew under the same name"
    assert cache.remove(WIDGET, obj(version=9)) is None, "the old one's event comes twice"
    assert cache.count(WIDGET) == 1


def test_the_answer_to_the_last_finalizer_s_removal_removes() -> None:
    cache = Cache()
    deleting = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x"]}
    cache.put(WIDGET, obj(version=5, metadata=deleting))
    change = cache.put(WIDGET, obj(version=6, metadata=deleting | {"finalizers": []}))
    assert change is not None
    assert change.new is None
    assert cache.count(WIDGET) == 0
    pod = Resource("v1", "Pod", "pods")
    cache.put(pod, obj(version=5, uid="p1"))
    lingering = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 30}
    cache.put(pod, obj(version=6, uid="p1", metadata=lingering))
    assert cache.count(pod) == 1, "a Pod that ends gracefully is still there"


def test_children_by_label_and_by_reference() -> None:
    cache = Cache()
    labelled = obj("b", uid="c1", metadata={"labels": {"cloudmesh.org/owner-uid": "o"}})
    referring = obj("a", uid="c2", metadata={"ownerReferences": [{"uid": "o", "controller": True}]})
    other = obj("c", uid="c3", metadata={"ownerReferences": [{"uid": "o"}]})
    for child in (labelled, referring, other):
        cache.put(CONFIG_MAP, child)
    assert [child["metadata"]["name"] for child in cache.children("o", CONFIG_MAP)] == ["a", "b"]
    assert cache.children("o", WIDGET) == []
    cache.put(CONFIG_MAP, obj("b", uid="c1", version=2, metadata={"labels": {"cloudmesh.org/owner-uid": "p"}}))
    assert [child["metadata"]["name"] for child in cache.children("o", CONFIG_MAP)] == ["a"]
    assert [child["metadata"]["name"] for child in cache.children("p", CONFIG_MAP)] == ["b"]
    cache.remove(CONFIG_MAP, referring)
    assert cache.children("o", CONFIG_MAP) == []


def test_drop_missing_spares_the_newer_and_other_namespaces() -> None:
    cache = Cache()
    for name, version, namespace in (("old", 3, "ns"), ("kept", 4, "ns"), ("new", 30, "ns"), ("far", 3, "other")):
        cache.put(WIDGET, obj(name, version, uid=name, namespace=namespace))
    gone = cache.drop_missing(WIDGET, {("ns", "kept")}, "20", "ns")
    assert [item["metadata"]["name"] for item in gone] == ["old"]
    assert sorted(cache.names(WIDGET)) == [("ns", "kept"), ("ns", "new"), ("other", "far")]
    assert [name for _, name in cache.names(WIDGET, "other")] == ["far"]
    assert len(cache.list(WIDGET, "ns")) == 2
    assert len(cache.list(WIDGET)) == 3


def test_managed_fields_are_not_kept_and_the_source_is_untouched() -> None:
    cache = Cache()
    source = obj(metadata={"managedFields": [{"manager": "x"}]}, spec={"managedFields": "a user's word"})
    cache.put(WIDGET, source)
    held = cache.get(WIDGET, "ns", "a")
    assert held is not None
    assert "managedFields" not in held["metadata"]
    assert held["spec"] == {"managedFields": "a user's word"}
    assert "managedFields" in source["metadata"]


def test_a_change_besides_status() -> None:
    before = obj(version=1, metadata={"generation": 1}, spec={"x": 1}, status={"a": 1})
    assert not Change(before, obj(version=2, metadata={"generation": 1}, spec={"x": 1}, status={"a": 2})).besides_status
    assert Change(before, obj(version=2, metadata={"generation": 2}, spec={"x": 2})).besides_status
    assert Change(before, obj(version=2, metadata={"generation": 1, "annotations": {"a": "b"}})).besides_status
    assert Change(None, before).besides_status
    assert Change(obj(data={"x": "1"}), obj(version=2, data={"x": "2"})).besides_status
    assert not Change(obj(data={"x": "1"}), obj(version=2, data={"x": "1"})).besides_status


def test_kinds_are_declared() -> None:
    cache = Cache()
    assert not cache.knows(WIDGET)
    cache.watch(WIDGET)
    assert cache.knows(WIDGET)
    assert cache.count(WIDGET) == 0


def test_indexes_of_ones_own_follow_every_change() -> None:
    cache = Cache()

    def colours(obj: Obj) -> list[str]:
        return list(obj["data"].get("colours", "").split())

    def put(name: str, version: int, said: str, namespace: str = "n") -> None:
        meta = {"name": name, "namespace": namespace, "uid": f"{namespace}/{name}", "resourceVersion": str(version)}
        cache.put(CONFIG_MAP, {"metadata": meta, "data": {"colours": said}})

    def named(key: str) -> list[str]:
        return [obj["metadata"]["name"] for obj in cache.indexed(CONFIG_MAP, "colour", key)]

    put("a", 1, "red")
    cache.add_index(CONFIG_MAP, "colour", colours)
    put("b", 2, "red blue")
    assert named("red") == ["a", "b"] and cache.count_indexed(CONFIG_MAP, "colour", "blue") == 1
    put("a", 3, "blue")
    put("b", 1, "green")  # older than what is there
    assert named("red") == ["b"] and sorted(named("blue")) == ["a", "b"] and named("green") == []
    cache.add_index(CONFIG_MAP, "colour", lambda obj: ["another"])  # the first one stays
    put("c", 4, "red", namespace="m")
    assert [obj["metadata"]["name"] for obj in cache.list(CONFIG_MAP, "m")] == ["c"]
    assert sorted(cache.names(CONFIG_MAP, "n")) == [("n", "a"), ("n", "b")]
    cache.drop_missing(CONFIG_MAP, [("n", "a")], "9")
    assert named("red") == [] and named("blue") == ["a"]
    assert cache.list(CONFIG_MAP, "m") == [] and len(cache.list(CONFIG_MAP)) == 1
