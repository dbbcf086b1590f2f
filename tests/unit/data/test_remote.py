"""Files of directories as the operator reads and writes them for jobs: who it is there, what errors become."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.unit.data.gateway_scene import AUTH, HASHED, Served

from cloudmesh.data import config as configs
from cloudmesh.data.config import AccessRule, AuthConfig, Guest
from cloudmesh.data.kinds import DATA_STORE, VIRTUAL_DIRECTORY
from cloudmesh.data.remote import Gateways
from cloudmesh.engine import SECRET, own
from cloudmesh.engine.errors import Conflict, InvalidRequest, NotFound, Transient
from cloudmesh.testing import World


def world(served: Served | None = None) -> World:
    made = World((VIRTUAL_DIRECTORY, DATA_STORE, SECRET))
    stores = [{"name": "east"}, {"name": "gone"}, {"name": "west"}, {"name": "disk"}]
    owner = made.api.put(
        VIRTUAL_DIRECTORY, {"metadata": {"name": "lab", "namespace": "ns"}, "spec": {"stores": stores}}
    )
    if served is not None:
        config = base64.b64encode(configs.dump(served.config)).decode()
        secret = {"metadata": {"name": "lab-vdir", "namespace": "ns"}, "data": {"config.json": config}}
        made.api.put(SECRET, own(secret, owner))
    return made


async def some(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def broken() -> AsyncIterator[bytes]:
    yield b"1"
    raise Transient("it broke off")


async def test_regions_are_those_of_the_stores_in_their_order() -> None:
    made = world()
    bucket = {"bucket": "lab", "region": "us-east-1"}
    for name, labels, spec in (
        ("east", {}, {"s3": bucket, "credentials": {"secretRef": {"name": "s"}}}),
        ("west", {"region": "eu-west-1"}, {"s3": bucket, "credentials": {"secretRef": {"name": "s"}}}),
        ("disk", {}, {"local": {"persistentVolumeClaimRef": {"name": "d"}}}),
    ):
        metadata = {"name": name, "namespace": "ns", "labels": labels}
        made.api.put(DATA_STORE, {"metadata": metadata, "spec": spec})
    async with made.engine() as engine:
        gateways = Gateways(engine.kube)
        assert await gateways.regions("ns", "lab") == ("us-east-1", "eu-west-1")
        with pytest.raises(NotFound, match="VirtualDirectory 'other' isn't there"):
            await gateways.regions("ns", "other")


async def test_files_are_listed_read_and_written_with_errors_in_words(tmp_path: Path) -> None:
    # the rule for all others narrows jobs too
    rules = (AccessRule("secret/**", users=("ada",)), AccessRule("secret/**", access="None"))
    auth = AuthConfig(kubernetes=False, basic=AUTH.basic, rules=rules)
    with Served(tmp_path, auth=auth, quota_files=3) as served:
        vdir = served.vdir()
        vdir.write("raw/a b%.txt", b"1234")
        vdir.write("secret/x", b"5")
        async with world(served).engine() as engine:
            gateways = Gateways(engine.kube, lambda namespace, name: served.url)
            async with gateways.open("ns", "lab") as lab:
                (file,) = [f async for f in lab.files("raw")]
                assert (file.path, file.size) == ("a b%.txt", 4)
                assert [f.path async for f in lab.files("")] == ["raw/a b%.txt"]
                assert b"".join([c async for c in lab.read("raw/a b%.txt", file.tag)]) == b"1234"
                vdir.write("raw/a b%.txt", b"other")
                with pytest.raises(Conflict):
                    _ = [c async for c in lab.read("raw/a b%.txt", file.tag)]
                with pytest.raises(NotFound):
                    _ = [f async for f in lab.files("none")]
                with pytest.raises(InvalidRequest, match="is a file: name its folder"):
                    _ = [f async for f in lab.files("raw/a b%.txt")]
                with pytest.raises(InvalidRequest):
                    await lab.write("secret/y", some(b"1"), 1)
                await lab.write("out/ü", some(b"12"), 2)
                assert vdir.read("out/ü") == b"12"
                with pytest.raises(InvalidRequest, match="quota"):
                    await lab.write("out/more", some(b"12"), 2)
                with pytest.raises(Transient):
                    await lab.write("out/ü", broken(), 5)
                assert vdir.read("out/ü") == b"12"


async def test_a_folder_of_many_files_is_listed_whole(tmp_path: Path) -> None:
    names = [f"a file with a long name so that a page of the listing is large {n:05d}.csv" for n in range(1203)]
    with Served(tmp_path) as served:
        vdir = served.vdir()
        for name in names:
            vdir.write(f"raw/{name}", b"")
        async with world(served).engine() as engine:
            gateways = Gateways(engine.kube, lambda namespace, name: served.url)
            async with gateways.open("ns", "lab") as lab:
                assert [f.path async for f in lab.files("raw")] == names


async def test_a_directory_that_isnt_served_is_named() -> None:
    async with world().engine() as engine:
        gateways = Gateways(engine.kube, lambda namespace, name: "http://127.0.0.1:9")
        with pytest.raises(NotFound, match="'lab' isn't served yet"):
            async with gateways.open("ns", "lab"):
                pass


async def test_a_login_is_admitted_once_its_gateway_knows_it(tmp_path: Path) -> None:
    async def told(served: Served, login: str = "vc-1", folder: str = "raw/x y") -> str:
        async with world(served).engine() as engine:
            try:
                await Gateways(engine.kube, lambda namespace, name: served.url).admits("ns", "lab", login, folder)
            except (InvalidRequest, NotFound, Transient) as error:
                return str(error)
            return ""

    auth = AuthConfig(kubernetes=False, basic=AUTH.basic, guests={"vc-1": Guest("cloudmesh:cluster:c", HASHED)})
    with Served(tmp_path) as served:
        vdir = served.vdir()
        vdir.write("raw/x y/a", b"1")
        assert await told(served) == "VirtualDirectory 'lab' hasn't heard of this mount yet"
        before = served.config
        # the Secret is ahead of the gateway
        served.config = msgspec.structs.replace(before, auth=auth)
        assert await told(served) == "VirtualDirectory 'lab' hasn't taken up this mount yet"
        served.reconfigure(auth=auth)
        assert await told(served) == ""
        assert await told(served, folder="") == ""
        assert await told(served, folder="none") == "VirtualDirectory 'lab' has no folder 'none': make it first"
        assert "is a file: name its folder" in await told(served, folder="raw/x y/a")
        served.reconfigure(webdav=False)
        assert "a mount needs `spec.expose.webdav: Enabled`" in await told(served)
    async with world().engine() as engine:
        with pytest.raises(NotFound, match="'lab' isn't served yet"):
            await Gateways(engine.kube, lambda namespace, name: "http://127.0.0.1:9").admits("ns", "lab", "vc-1", "")
