"""A store of one's own: from the DataStore that names it to the gateway that opens it; and which place Swift is."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from cloudmesh.api.virtualdirectory import DirectoryStore
from cloudmesh.data import mesh
from cloudmesh.data.asked import location_of, store_config
from cloudmesh.data.stores import registry
from cloudmesh.data.stores.memory import MemoryStore, Place
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import AuthFailed, InvalidRequest

seen: list[StoreContext] = []


def make(context: StoreContext) -> MemoryStore:
    seen.append(context)
    if context.settings.get("depth") == "wrong":
        raise ValueError("depth must be a number")
    if context.settings.get("depth") == "shut":
        raise AuthFailed("no key")
    return MemoryStore(Place())


@pytest.fixture(autouse=True)
def plugged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = [
        EntryPoint("box", f"{__name__}:make", registry.GROUP),
        EntryPoint("torn", "no_such_module_anywhere:make", registry.GROUP),
    ]
    monkeypatch.setattr(EntryPoint, "load", lambda self: make if self.name == "box" else __import__("no_such_module"))

    def entry_points(*, group: str, name: str = "") -> list[EntryPoint]:
        return [point for point in points if group == registry.GROUP and name in ("", point.name)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    registry._installed.cache_clear()
    maker.cache_clear()
    seen.clear()
    yield
    registry._installed.cache_clear()
    maker.cache_clear()


def data_store(name: str = "mine", plugin: str = "box", **settings: str) -> dict[str, Any]:
    return {
        "apiVersion": "cloudmesh.org/v1alpha1",
        "kind": "DataStore",
        "metadata": {"name": name, "namespace": "lab", "uid": "u1"},
        "spec": {"plugin": {"name": plugin, "settings": settings}, "credentials": {"secretRef": {"name": "key"}}},
    }


async def test_the_gateway_opens_what_the_data_store_names() -> None:
    obj = data_store(endpoint="https://box.example.org:8443/v1", depth="3")
    config = store_config(DirectoryStore(name="mine"), "lab", "files", obj, {"key": b"s3cret"})
    assert (config.kind, config.domain, config.mount) == ("plugin", "box.example.org", "")
    assert config.credentials == {"key": base64.b64encode(b"s3cret").decode()}
    store = mesh.make(config, Guard())
    (context,) = seen
    assert context.name == "mine" and context.credentials == {"key": b"s3cret"}
    assert context.settings == {"endpoint": "https://box.example.org:8443/v1", "depth": "3"}
    assert (await store.probe()).message == ""


def test_without_an_endpoint_the_store_itself_says_what_it_is_lost_together_with() -> None:
    assert store_config(DirectoryStore(name="mine"), "lab", "files", data_store(), {}).domain == ""


def test_what_a_plug_in_can_not_do_is_told() -> None:
    def opened(**more: str) -> object:
        obj = data_store(**more)
        return maker("plugin")(StoreContext("mine", obj["spec"]["plugin"]))

    with pytest.raises(InvalidRequest, match="plugged in are: box, torn"):
        opened(plugin="bxo")
    with pytest.raises(InvalidRequest, match="'torn' can't be loaded"):
        opened(plugin="torn")
    with pytest.raises(InvalidRequest, match=r"'box' can't use .*depth must be a number"):
        opened(depth="wrong")
    with pytest.raises(AuthFailed):
        opened(depth="shut")
    # a member of the house isn't one that can be plugged in by its name
    with pytest.raises(InvalidRequest, match="there is no store 's3'"):
        opened(plugin="s3")


def test_the_same_name_and_settings_are_the_same_place() -> None:
    one = location_of(data_store("one", file="a", depth="1"))
    assert one == location_of(data_store("two", depth="1", file="a"))
    assert one != location_of(data_store("one", file="b", depth="1"))
    assert one != location_of(data_store("one", plugin="other", file="a", depth="1"))


def test_which_place_a_container_of_swift_is() -> None:
    def swift(secret: str = "key", **more: str) -> dict[str, Any]:
        asked = {"authUrl": "https://Keystone.example.org/v3", "container": "lab", "region": "R1"} | more
        spec = {"swift": asked, "credentials": {"secretRef": {"name": secret}}}
        return data_store() | {"spec": spec}

    assert location_of(swift()) == location_of(swift(authUrl="https://keystone.example.org:443/v3/"))
    for other in ({"container": "other"}, {"region": "R2"}, {"project": "p"}, {"authUrl": "https://k.example.org/v3"}):
        assert location_of(swift()) != location_of(swift(**other))
    # only a Secret knows the project of an application credential
    assert location_of(swift("other")) != location_of(swift())
    assert location_of(swift("other", project="p")) == location_of(swift(project="p"))
    config = store_config(DirectoryStore(name="mine"), "lab", "files", swift(project="physics"), {})
    assert (config.kind, config.domain, config.region) == ("swift", "keystone.example.org", "R1")
    assert config.settings["project"] == "physics"
