"""Builds: what is pushed, what is reused, and what a fault at any request leaves behind."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.unit.functions.bench import SOURCE, Bench, bench, make_settings
from tests.unit.functions.fake_index import FakeIndex
from tests.unit.functions.fake_registry import FakeRegistry, times
from tests.unit.functions.wheels import wheel_bytes

from cloudmesh.functions.builder.publish import OPENAPI
from cloudmesh.functions.builder.requests import Body, LockRequest, request_id
from cloudmesh.functions.image.guard import AddressRefused
from cloudmesh.functions.image.layer import decompress
from cloudmesh.functions.image.oci import MANIFEST
from cloudmesh.functions.image.signing import BUNDLE


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry(auth="basic").running() as running:
        yield running


@pytest.fixture
async def index() -> AsyncIterator[FakeIndex]:
    async with FakeIndex().running() as running:
        yield running


@pytest.fixture
async def builder(registry: FakeRegistry, index: FakeIndex, tmp_path: Path) -> AsyncIterator[Bench]:
    settings = make_settings(tmp_path, registry.host, index=index.url, credentials=("user", "word"))
    async with bench(settings) as running:
        yield running


def _image(
    registry: FakeRegistry, name: str, reference: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Manifest, configuration and files of the last layer."""
    manifest = json.loads(registry.manifests[name][reference][1])
    config = json.loads(registry.blobs[name][manifest["config"]["digest"]])
    layer = decompress(registry.blobs[name][manifest["layers"][-1]["digest"]], 1 << 20)
    files = {}
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        for member in archive:
            stream = archive.extractfile(member)
            if stream is not None:
                files[member.name] = stream.read()
    return manifest, config, files


async def test_a_build(builder: Bench, registry: FakeRegistry) -> None:
    body = builder.body()
    build = await builder.build(body)
    result = build["result"]
    assert build["state"] == "Succeeded"
    assert result["image"] == f"localhost:25500/fn/default/stats@{result['digest']}"
    assert (result["key"], result["reused"], result["layersMounted"]) == (body["key"], False, 2)
    assert 1000 < result["uploadedBytes"] < 16 << 10
    manifest, config, files = _image(registry, "fn/default/stats", f"k-{body['key']}")
    assert len(manifest["layers"]) == len(config["rootfs"]["diff_ids"]) == 3
    assert config["config"]["Entrypoint"] == ["/usr/bin/python3.11", "-m", "cloudmesh_function"]
    assert config["config"]["User"] == "65532:65532"
    assert "PYTHONPATH=/opt/cloudmesh/runtime:/opt/cloudmesh/site" in config["config"]["Env"]
    assert files["opt/cloudmesh/app/function.py"] == SOURCE.encode()
    assert json.loads(files["opt/cloudmesh/app/function.json"]) == {
        "name": "stats",
        "module": "stats",
        "basePath": "/cloudmesh",
        "expose": {"functions": {"names": ["*"]}},
        "source": "function.py",
    }
    document = json.loads(files["opt/cloudmesh/app/openapi.json"])
    assert "/double" in document["paths"]
    listed = json.loads(registry.manifests["fn/default/stats"][result["digest"].replace(":", "-")][1])["manifests"]
    assert {item["artifactType"] for item in listed} == {BUNDLE, OPENAPI}


async def test_the_same_again_is_a_look(builder: Bench, registry: FakeRegistry) -> None:
    first = await builder.build(builder.body())
    registry.log.clear()
    again = await builder.build(builder.body())
    assert again["result"]["reused"] is True
    assert again["result"]["image"] == first["result"]["image"]
    assert again["result"]["uploadedBytes"] == 0
    assert {method for method, _, _ in registry.log} == {"HEAD", "GET"}


async def test_rebuild_gives_the_same_digest(builder: Bench) -> None:
    first = await builder.build(builder.body())
    again = await builder.build(builder.body(rebuild=True))
    assert again["result"]["reused"] is False
    assert again["result"]["digest"] == first["result"]["digest"]


async def test_the_same_digest_from_another_builder(tmp_path: Path) -> None:
    digests = set()
    for number in range(3):
        async with FakeRegistry().running() as registry:
            folder = tmp_path / str(number)
            folder.mkdir()
            async with bench(make_settings(folder, registry.host)) as builder:
                digests.add((await builder.build(builder.body()))["result"]["digest"])
    assert len(digests) == 1


async def test_an_image_that_the_registry_lost_is_built_again(builder: Bench, registry: FakeRegistry) -> None:
    first = await builder.build(builder.body())
    registry.manifests["fn/default/stats"].clear()
    registry.blobs["fn/default/stats"].clear()
    registry.blobs["base"].clear()
    again = await builder.build(builder.body())
    assert (again["state"], again["result"]["reused"]) == ("Succeeded", False)
    assert again["result"]["layersMounted"] == 0
    assert again["result"]["digest"] == first["result"]["digest"]


async def test_a_tag_without_our_signature_does_not_count(builder: Bench, registry: FakeRegistry) -> None:
    body = builder.body()
    first = await builder.build(body)
    other = await builder.build(builder.body("def evil(x: int) -> int:\n    return 0\n"))
    store = registry.manifests["fn/default/stats"]
    store[f"k-{body['key']}"] = store[other["result"]["digest"]]
    again = await builder.build(body)
    assert (again["result"]["reused"], again["result"]["digest"]) == (False, first["result"]["digest"])


async def test_a_key_of_other_inputs_is_refused(builder: Bench) -> None:
    with pytest.raises(Exception, match=r"key: 0+ is not the key of this request"):
        await builder.build(builder.body(key="0" * 32))


async def test_wheels_become_layers_that_are_mounted(builder: Bench, registry: FakeRegistry, index: FakeIndex) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes(requires=("click",)))
    index.add("click-8.5.1-py3-none-any.whl", wheel_bytes("click", "8.5.1"))
    lock = await builder.lock(["demo"])
    source = "import demo\n" + SOURCE
    first = await builder.build(builder.body(source, lock=lock, requirements=["demo"]))
    assert first["state"] == "Succeeded", first
    manifest, _, _ = _image(registry, "fn/default/stats", first["result"]["digest"])
    assert len(manifest["layers"]) == 4  # base, runtime, demo, code: click lies in the runtime already
    wheel_digest = manifest["layers"][2]["digest"]
    assert wheel_digest in registry.blobs["layers"]
    listing = [json.loads(data) for _, data in registry.manifests["layers"].values()]
    assert any(wheel_digest in [layer["digest"] for layer in item["layers"]] for item in listing)
    index.log.clear()
    second = await builder.build(builder.body(source + "\n", name="other", lock=lock, requirements=["demo"]))
    assert second["result"]["layersMounted"] == 3
    assert second["result"]["uploadedBytes"] < 16 << 10
    assert index.log == []


async def test_an_import_that_nothing_provides_is_named_before_the_build(builder: Bench, index: FakeIndex) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    lock = await builder.lock(["demo"])
    source = "import demo\nfrom nosuch.thing import x\n" + SOURCE
    build = await builder.build(builder.body(source, lock=lock, requirements=["demo"]))
    assert build["state"] == "Failed"
    assert (build["error"]["class"], build["error"]["line"], build["error"]["column"]) == ("SourceInvalid", 2, 1)
    assert "nosuch" in build["error"]["message"]


async def test_a_wheel_that_differs_from_its_hash_is_never_used(builder: Bench, index: FakeIndex) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    index.swapped["demo-1.0-py3-none-any.whl"] = wheel_bytes(files={"demo.py": b"import os"})
    with pytest.raises(Exception, match="differs from the lock's hash"):
        await builder.lock(["demo"])


async def test_wheels_may_lie_elsewhere_and_credentials_stay(tmp_path: Path, registry: FakeRegistry) -> None:
    name = "demo-1.0-py3-none-any.whl"
    async with FakeIndex(login="user:word").running() as index, FakeIndex().running() as storage:
        index.add(name, wheel_bytes())
        storage.add(name, wheel_bytes())
        index.moved[name] = storage.url.replace("/simple", f"/files/{name}")
        settings = make_settings(tmp_path, registry.host, credentials=("user", "word"))
        async with bench(settings) as builder:
            own = {"url": index.url, "username": "user", "password": "word"}
            request = LockRequest.from_body(Body({"requirements": ["demo"], "index": own}))
            assert (await builder.service.lock(request))["provides"] == {"demo": "demo"}
        assert set(storage.log) == {f"/files/{name}"}
        assert set(storage.authorizations) == {""}


async def test_a_wrong_source_names_line_and_column(builder: Bench) -> None:
    build = await builder.build(builder.body("def f(x: int) -> int:\n    return (\n"))
    assert build["state"] == "Failed"
    assert build["error"]["class"] == "SourceInvalid"
    assert build["error"]["line"] == 2


async def test_a_registry_of_the_users_own(builder: Bench) -> None:
    async with FakeRegistry(auth="bearer").running() as own:
        repository = {
            "push": f"{own.host}/team/stats",
            "pull": "registry.example.org/team/stats",
            "credentials": {"username": "user", "password": "word"},
            "insecure": True,
        }
        build = await builder.build(builder.body(repository=repository))
        assert build["state"] == "Succeeded", build
        assert build["result"]["image"].startswith("registry.example.org/team/stats@sha256:")
        assert set(own.blobs) == {"team/stats"}
        assert build["result"]["layersMounted"] == 0


@pytest.fixture
async def guarded(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[Bench]:
    settings = make_settings(tmp_path, registry.host, credentials=("user", "word"))
    async with bench(dataclasses.replace(settings, local_endpoints=False)) as running:
        yield running


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:1", "169.254.169.254", "localhost:1", "[::1]:1", "0.0.0.0", "127.1", "2130706433", "0x7f.1"),
        *("kubernetes.default.svc", "kubernetes.default.svc.cluster.local:443", "kubernetes"),
    ],
)
async def test_addresses_of_the_cluster_itself_are_refused(guarded: Bench, host: str) -> None:
    build = await guarded.build(guarded.body(repository={"push": f"{host}/x", "insecure": True}))
    assert build["error"]["class"] == "BuildFailed"
    assert build["error"]["message"].startswith("`spec.image.repository`: ")
    assert "not taken; name a registry outside of the cluster" in build["error"]["message"]
    url = f"https://{host}/simple"
    request = LockRequest.from_body(Body({"requirements": ["x"], "index": {"url": url}}))
    with pytest.raises(AddressRefused, match=r"^`spec\.python\.indexRef`: .* not taken; write the address"):
        await guarded.service.lock(request)
    build = await guarded.build(guarded.body(index={"url": url}))
    assert build["error"]["class"] == "BuildFailed"
    assert build["error"]["message"].startswith("`spec.python.indexRef`: ")


async def test_an_index_that_sends_the_builder_into_the_cluster_is_refused(
    guarded: Bench, index: FakeIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    own = {"url": index.url}
    guarded.service.settings = dataclasses.replace(guarded.service.settings, local_endpoints=True)
    request = LockRequest.from_body(Body({"requirements": ["demo"], "index": own}))
    lock = (await guarded.service.lock(request))["lock"]
    for path in (guarded.service.settings.cache / "wheels").rglob("*.whl"):
        path.unlink()

    async def elsewhere(_: object) -> None:
        """The name led somewhere else when it was looked at."""

    monkeypatch.setattr("cloudmesh.functions.builder.service.check_address", elsewhere)
    guarded.service.settings = dataclasses.replace(guarded.service.settings, local_endpoints=False)
    build = await guarded.build(guarded.body("import demo\n" + SOURCE, lock=lock, requirements=["demo"], index=own))
    assert build["error"]["class"] == "BuildFailed", build
    assert "`spec.python.indexRef`: 127.0.0.1: loopback" in build["error"]["message"]


@pytest.mark.parametrize(
    ("credentials", "says"),
    [
        ({"username": "user", "password": "wrong"}, "put a login into the Secret that may push to"),
        (None, "name a Secret with a login that may push to"),
    ],
)
@pytest.mark.parametrize("auth", ["basic", "bearer"])
async def test_a_login_that_the_users_registry_refuses_is_the_users_to_mend(
    builder: Bench, auth: str, credentials: dict[str, str] | None, says: str
) -> None:
    async with FakeRegistry(auth=auth).running() as own:
        repository = {"push": f"{own.host}/team/stats", "credentials": credentials, "insecure": True}
        build = await builder.build(builder.body(repository=repository))
    assert build["error"]["class"] == "BuildFailed"
    assert build["error"]["message"].startswith("`spec.image.pushSecretRef`: ")
    assert f"{says} {own.host}/team/stats" in build["error"]["message"]


@pytest.mark.parametrize(
    ("status", "kind", "field"),
    [
        (403, "BuildFailed", "`spec.image.pushSecretRef`: "),
        (404, "BuildFailed", "`spec.image.repository`: "),
        (405, "BuildFailed", "`spec.image.repository`: "),
        (507, "RegistryUnavailable", "registry "),
    ],
)
async def test_what_refuses_a_push(builder: Bench, registry: FakeRegistry, status: int, kind: str, field: str) -> None:
    """The user's registry speaks of the user's spec; ours never does."""
    async with FakeRegistry().running() as own:
        own.faults.append(times(99, "POST", "/uploads/", lambda: web.Response(status=status)))
        build = await builder.build(builder.body(repository={"push": f"{own.host}/team/stats", "insecure": True}))
    assert (build["error"]["class"], build["error"]["message"].startswith(field)) == (kind, True), build
    registry.faults.append(times(99, "POST", "/uploads/", lambda: web.Response(status=status)))
    build = await builder.build(builder.body())
    assert build["error"]["class"] == "RegistryUnavailable"
    assert "spec." not in build["error"]["message"]


async def test_a_login_that_our_registry_refuses_is_tried_again(builder: Bench, registry: FakeRegistry) -> None:
    registry.password = "changed"
    build = await builder.build(builder.body())
    assert build["error"]["class"] == "RegistryUnavailable"


async def test_a_lock_is_made_once_for_all_builders(
    builder: Bench, registry: FakeRegistry, index: FakeIndex, tmp_path: Path
) -> None:
    index.add("demo-1.0-py3-none-any.whl", wheel_bytes())
    first = await builder.lock(["demo"])
    index.add("demo-2.0-py3-none-any.whl", wheel_bytes(version="2.0"))
    settings = make_settings(tmp_path, registry.host, index=index.url, credentials=("user", "word"))
    other = dataclasses.replace(settings, cache=tmp_path / "other-cache")
    async with bench(other) as second:
        assert await second.lock(["demo"]) == first
        request = LockRequest.from_body(Body({"requirements": ["demo"], "relock": True}))
        assert (await second.service.lock(request))["packages"] == [{"name": "demo", "version": "2.0"}]
        # A lock that somebody else wrote doesn't count.
        (tag,) = (name for name in registry.manifests["layers"] if name.startswith("lock-"))
        forged = json.loads(registry.manifests["layers"][tag][1])
        forged["annotations"] = {}
        registry.manifests["layers"][tag] = (MANIFEST, json.dumps(forged).encode())
        assert 'version = "2.0"' in await second.lock(["demo"])


async def test_two_requests_at_once_are_one_build(builder: Bench, registry: FakeRegistry) -> None:
    registry.log.clear()
    results = await asyncio.gather(*(builder.build(builder.body()) for _ in range(5)))
    assert len({result["id"] for result in results}) == 1
    puts = [path for method, path, _ in registry.log if method == "PUT" and "/manifests/k-" in path]
    assert len(puts) == 1


async def test_the_id_does_not_depend_on_what_only_lets_one_in(builder: Bench) -> None:
    one = builder.body(index={"url": "https://host.example/simple", "username": "a", "password": "b"})
    two = builder.body(index={"url": "https://host.example/simple", "username": "c", "password": "d"})
    three = builder.body(index={"url": "https://other.example/simple"})
    assert request_id(one) == request_id(two)
    assert request_id(one) != request_id(three)


async def test_a_crash_at_any_request_leaves_no_half_image_and_the_next_try_mends_it(
    builder: Bench, registry: FakeRegistry
) -> None:
    """Refuse from the k-th write on, for every k: without the tag the key finds nothing, and with it all is there."""
    for k in range(40):
        body, count = builder.body(name=f"stats-{k}"), [0]

        async def refuse(request: web.Request, count: list[int] = count, k: int = k) -> web.Response | None:
            if request.method in ("POST", "PUT", "PATCH"):
                count[0] += 1
                if count[0] > k:
                    return web.Response(status=400)
            return None

        registry.faults.append(refuse)
        build = await builder.build(body)
        tagged = f"k-{body['key']}" in registry.manifests[f"fn/default/stats-{k}"]
        assert tagged == (build["state"] == "Succeeded")
        registry.faults.clear()
        again = await builder.build(body)
        assert again["state"] == "Succeeded"
        assert again["result"]["reused"] is tagged
        if tagged:
            assert k > 8
            return
        assert build["error"]["class"] == "RegistryUnavailable"
    pytest.fail("the build never succeeded")


async def test_the_service_is_ready_when_base_and_runtime_are_pushed(tmp_path: Path) -> None:
    async with FakeRegistry().running() as registry:
        registry.faults.append(times(8, "HEAD", "/manifests/", lambda: web.Response(status=503)))
        async with bench(make_settings(tmp_path, registry.host), prepared=False) as builder:
            preparing = asyncio.create_task(builder.service.prepare())
            await asyncio.sleep(0.1)
            assert builder.service.ready is False
            await asyncio.wait_for(preparing, 20)
            assert builder.service.ready is True
            info = builder.service.info()
            assert info["base"]["digest"] in registry.manifests["base"]
            assert info["runtime"]["digest"] in registry.manifests["base"]
