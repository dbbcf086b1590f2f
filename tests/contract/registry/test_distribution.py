"""The client and the builder against the real distribution 3 with htpasswd, faults included."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.contract.registry.conftest import Distribution
from tests.unit.functions.bench import bench, make_settings

from cloudmesh.engine.errors import AuthFailed, InvalidRequest, Unsupported
from cloudmesh.functions.image.auth import Credentials
from cloudmesh.functions.image.blobs import Blob
from cloudmesh.functions.image.oci import (
    EMPTY,
    EMPTY_CONFIG,
    EMPTY_JSON,
    INDEX,
    LAYER_ZSTD,
    MANIFEST,
    index_json,
    manifest_json,
)
from cloudmesh.functions.image.registry import MONOLITHIC, Repository
from cloudmesh.functions.image.signing import BUNDLE, artifact_manifest
from cloudmesh.functions.image.transport import Endpoint, Timing, Transport

_SMALL = Blob.of(LAYER_ZSTD, b"layer" * 1000)
_NOTHING = Blob.of(EMPTY, EMPTY_JSON)


def _manifest(*layers: Blob) -> Blob:
    return Blob.of(MANIFEST, manifest_json(EMPTY_CONFIG, [layer.descriptor for layer in layers]))


async def test_push_mount_and_pull(transport: Transport, distribution: Distribution) -> None:
    base, app = Repository(transport, "base"), Repository(transport, "fn/default/a")
    await base.push_blob(_SMALL)
    await app.push_blob(_SMALL, [base])
    await app.push_blob(_NOTHING)
    assert (app.transfer.mounted, app.transfer.uploaded_bytes) == (1, 2)
    await app.put_manifest("k-1", _manifest(_SMALL))
    index = Blob.of(INDEX, index_json([_manifest(_SMALL).descriptor]))
    await app.put_manifest("all", index)
    async with Transport(Endpoint(distribution.pull, insecure=True)) as reader:
        repository = Repository(reader, "fn/default/a")
        found = await repository.head("k-1")
        assert found == _manifest(_SMALL).descriptor
        assert await repository.blob(_SMALL.descriptor.digest, 1 << 20) == _SMALL.read()
        indexed = await repository.manifest("all")
        assert indexed is not None
        assert indexed[0].media_type == INDEX
        assert await repository.head("none") is None
        with pytest.raises(Unsupported):
            await repository.put_manifest("k-2", _manifest(_SMALL))


async def test_pushes_need_the_password(distribution: Distribution) -> None:
    for credentials in (None, Credentials("cloudmesh", "wrong")):
        endpoint = Endpoint(distribution.push, credentials, insecure=True)
        async with Transport(endpoint) as transport:
            with pytest.raises(AuthFailed):
                await Repository(transport, "base").push_blob(_SMALL)


async def test_a_mount_of_what_is_not_there_becomes_an_upload(transport: Transport) -> None:
    app = Repository(transport, "app")
    await app.push_blob(_SMALL, [Repository(transport, "nowhere")])
    assert (app.transfer.mounted, app.transfer.uploaded) == (0, 1)
    assert await app.has_blob(_SMALL.descriptor.digest)


async def test_chunks(transport: Transport, tmp_path: Path) -> None:
    data = os.urandom(2 * MONOLITHIC + 4711)
    blob = Blob.of(LAYER_ZSTD, data)
    path = tmp_path / "blob"
    path.write_bytes(data)
    app = Repository(transport, "app")
    await app.push_blob(Blob(blob.descriptor, path))
    assert await app.blob(blob.descriptor.digest, len(data)) == data
    assert app.transfer.uploaded_bytes == len(data)


async def test_a_manifest_of_blobs_that_are_not_there_is_refused(transport: Transport) -> None:
    with pytest.raises(InvalidRequest, match="MANIFEST_BLOB_UNKNOWN"):
        await Repository(transport, "app").put_manifest("x", _manifest(_SMALL))


async def test_referrers_by_tag(transport: Transport) -> None:
    app = Repository(transport, "app")
    document = Blob.of("text/plain", b"document")
    for blob in (_SMALL, _NOTHING, document):
        await app.push_blob(blob)
    subject = _manifest(_SMALL)
    await app.put_manifest("k-1", subject)
    artifact = artifact_manifest(document, "application/x", subject.descriptor, {})
    await app.attach(subject.descriptor, [artifact])
    (found,) = await app.referrers(subject.descriptor.digest, "application/x")
    assert found.digest == artifact[1].digest
    assert transport.has_referrers is False


@asynccontextmanager
async def _cutting_proxy(to: str, cuts: list[int]) -> AsyncIterator[str]:
    """Passes connections on, each cut after the next number of bytes from the client; whole when none is left."""

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int) -> None:
        try:
            while limit and (data := await reader.read(min(65536, limit))):
                limit -= len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        if not limit:
            writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*to.split(":"))
        limit = cuts.pop(0) if cuts else 1 << 40
        back = asyncio.create_task(pipe(far_reader, writer, 1 << 40))
        try:
            await pipe(reader, far_writer, limit)
            if limit < 1 << 40:
                writer.transport.abort()
        finally:
            far_writer.close()
            await back
            writer.close()
            ended.set()

    ended = asyncio.Event()
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.wait_for(ended.wait(), 10)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("cut", [1, 500, 3000, 200_000, 5 << 20, (8 << 20) + 3000])
async def test_a_connection_that_breaks_in_an_upload(distribution: Distribution, cut: int) -> None:
    data = os.urandom(MONOLITHIC + 100_000)
    blob = Blob.of(LAYER_ZSTD, data)
    async with _cutting_proxy(distribution.push, [cut]) as through:
        endpoint = Endpoint(through, distribution.credentials, insecure=True)
        async with Transport(endpoint, Timing(first_pause=0.05), connections=1) as transport:
            app = Repository(transport, "app")
            await app.push_blob(blob)
            assert await app.blob(blob.descriptor.digest, len(data)) == data


async def test_a_build_while_the_registry_is_killed_and_comes_back(distribution: Distribution, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, distribution.push, credentials=("cloudmesh", distribution.password))
    async with bench(settings) as builder:
        distribution.kill("push")
        building = asyncio.create_task(builder.build(builder.body()))
        await asyncio.sleep(0.3)
        distribution.start("push")
        build = await building
        if build["state"] != "Succeeded":  # the registry took longer than the tries: the caller asks again
            assert build["error"]["class"] == "RegistryUnavailable"
            await distribution.answering()
            build = await builder.build(builder.body())
        assert build["state"] == "Succeeded"


async def test_builds(distribution: Distribution, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, distribution.push, credentials=("cloudmesh", distribution.password))
    async with bench(settings) as builder:
        body = builder.body()
        first = await builder.build(body)
        assert first["state"] == "Succeeded", first
        assert first["result"]["layersMounted"] == 2
        assert first["result"]["uploadedBytes"] <= 16 << 10
        again = await builder.build(body)
        assert (again["result"]["reused"], again["result"]["uploadedBytes"]) == (True, 0)
        rebuilt = await builder.build(builder.body(rebuild=True))
        assert rebuilt["result"]["digest"] == first["result"]["digest"]
        edited = await builder.build(builder.body("def double(x: int) -> int:\n    return x + x\n"))
        assert edited["result"]["uploadedBytes"] <= 16 << 10
        seconds = []
        for number in range(5):
            start = time.monotonic()
            await builder.build(builder.body(f"def double(x: int) -> int:\n    return {number}\n"))
            seconds.append(time.monotonic() - start)
        assert min(seconds) < 1.0
        async with Transport(Endpoint(distribution.pull, insecure=True)) as reader:
            repository = Repository(reader, "fn/default/stats")
            digest = first["result"]["digest"]
            found = await repository.manifest(digest)
            assert found is not None
            for layer in json.loads(found[1])["layers"]:
                assert await repository.has_blob(layer["digest"])
            assert len(await repository.referrers(digest, BUNDLE)) == 1


async def test_many_builds_at_once(distribution: Distribution, tmp_path: Path) -> None:
    settings = make_settings(tmp_path, distribution.push, credentials=("cloudmesh", distribution.password))
    async with bench(settings) as builder:
        builds = await asyncio.gather(*(builder.build(builder.body(name=f"f{number}")) for number in range(20)))
        assert [build["state"] for build in builds] == ["Succeeded"] * 20
        assert len({build["result"]["digest"] for build in builds}) == 20
