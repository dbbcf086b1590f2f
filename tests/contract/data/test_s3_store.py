"""What only S3 has: its errors by both libraries, credentials that come from nowhere else, memory, large copies."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, s3

from cloudmesh.data.errors import Changed, Exists, Full
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.data.stores.s3 import LONG, S3Store, make
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    InvalidRequest,
    NameConflict,
    RateLimited,
    Transient,
    Unsupported,
)
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.s3 import S3Harness

KEYS = {"aws_access_key_id": ACCESS_KEY.encode(), "aws_secret_access_key": SECRET_KEY.encode()}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3() as started:
        yield started.url


@pytest.fixture
async def harness(server: str) -> AsyncIterator[S3Harness]:
    made = S3Harness(server, ACCESS_KEY, SECRET_KEY)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


# status, code, what a write is told, what a listing is told; codes from the S3 API's page of errors
ERRORS = [
    (403, "AccessDenied", AuthFailed),
    (403, "SignatureDoesNotMatch", AuthFailed),
    (403, "RequestTimeTooSkewed", AuthFailed),
    (400, "ExpiredToken", AuthFailed),
    (401, "", AuthFailed),
    (404, "NoSuchBucket", InvalidRequest),
    (301, "PermanentRedirect", InvalidRequest),
    (400, "AuthorizationHeaderMalformed", InvalidRequest),
    (400, "InvalidArgument", InvalidRequest),
    (400, "RequestTimeout", Transient),
    (400, "IncompleteBody", Transient),
    (400, "BadDigest", Transient),
    (409, "OperationAborted", Transient),
    (429, "TooManyRequests", RateLimited),
    (503, "SlowDown", RateLimited),
    (500, "InternalError", Transient),
    (502, "", Transient),
    (503, "ServiceUnavailable", Transient),
    (501, "NotImplemented", Unsupported),
    (507, "InsufficientStorage", Full),
    (400, "QuotaExceeded", Full),
    (400, "ObjectParentIsFile", NameConflict),
]


@pytest.mark.parametrize(("status", "code", "kind"), ERRORS)
async def test_errors_are_told_alike_by_both_libraries(
    harness: S3Harness, status: int, code: str, kind: type[CloudmeshError]
) -> None:
    store = await harness.store()
    harness.proxy.add("answer", times=None, status=status, code=code, message="what the store says")
    for call in (
        lambda: store.write("x", chunks(b"1")), lambda: store.list(""), lambda: store.delete("x"),
        lambda: _read(store, "x"),
    ):  # fmt: skip
        with pytest.raises(CloudmeshError) as caught:
            await call()
        assert type(caught.value) is kind, caught.value
        assert SECRET_KEY not in str(caught.value)
        assert code in str(caught.value) or status == 301  # of a redirect obstore doesn't keep the words


@pytest.mark.parametrize(("code", "status"), [("PreconditionFailed", 412), ("ConditionalRequestConflict", 409)])
async def test_a_lost_race_is_told_by_what_was_asked_for(harness: S3Harness, code: str, status: int) -> None:
    store = await harness.store()
    harness.proxy.add("answer", "PutObject", times=None, status=status, code=code)
    with pytest.raises(Exists):
        await store.write("x", chunks(b"1"), if_absent=True)
    with pytest.raises(Changed) as caught:
        await store.write("x", chunks(b"1"), if_tag='"a"')
    assert type(caught.value) is Changed


async def test_the_store_says_how_long_to_wait(harness: S3Harness) -> None:
    store = await harness.store()
    harness.proxy.add("answer", times=None, status=503, code="SlowDown", retry_after=7)
    with pytest.raises(RateLimited) as caught:
        await store.delete("x")
    assert caught.value.retry_after == 7


async def test_a_completion_that_fails_in_a_success_is_no_success(harness: S3Harness) -> None:
    store = await harness.store()
    # as S3 does when it has begun to answer before it knows
    harness.proxy.add("answer", "CompleteMultipartUpload", status=200, code="InternalError")
    with pytest.raises(Transient):
        await store.write("x", chunks(noise(2 * harness.part)))
    assert await harness.truth() == {} and await harness.leftovers() == 0


async def test_calls_that_change_something_go_out_once_and_others_up_to_three_times(harness: S3Harness) -> None:
    store = await harness.store()
    harness.proxy.add("answer", times=None, status=500, code="InternalError")
    for call in (store.write("x", chunks(b"1")), store.delete("x"), store.list(""), _read(store, "x")):
        with pytest.raises(Transient):
            await call
    counts = {name: harness.proxy.count(name) for name in ("PutObject", "DeleteObject", "ListObjectsV2", "GetObject")}
    assert counts == {"PutObject": 1, "DeleteObject": 1, "ListObjectsV2": 3, "GetObject": 3}


async def test_a_large_copy_goes_by_parts(harness: S3Harness) -> None:
    store = await harness.store()
    content = noise(5 * harness.part + 3)  # the harness copies at most two parts at once
    seen = await store.write("x", chunks(content), attributes={"id": "1"})
    made = await store.copy("x", "y", if_tag=seen.tag)  # type: ignore[attr-defined]
    assert harness.proxy.count("UploadPartCopy") == 3 and harness.proxy.count("CopyObject") == 0
    assert (await harness.truth())["y"] == content and await harness.leftovers() == 0
    found = await store.stat("y")
    assert found is not None and found.tag == made.tag and found.attributes == {"id": "1"}
    await store.write("x", chunks(b"changed"))
    with pytest.raises(Changed):
        await store.copy("x", "y", if_tag=seen.tag)  # type: ignore[attr-defined]


async def test_a_sweep_ends_old_uploads_below_its_prefix_only(harness: S3Harness) -> None:
    store = await harness.store()
    for key in ("a/x", "a/y", "b/x"):
        await asyncio.to_thread(harness._client.create_multipart_upload, Bucket=harness.bucket, Key=key)
    assert await store.sweep("a/", 3600) == 0  # type: ignore[attr-defined]
    assert await store.sweep("a/", 0) == 2  # type: ignore[attr-defined]
    assert await harness.leftovers() == 1


async def test_a_sweep_spares_uploads_of_others(harness: S3Harness) -> None:
    store = await harness.store()
    for key in ("a/x", "a/y"):
        await asyncio.to_thread(harness._client.create_multipart_upload, Bucket=harness.bucket, Key=key)

    async def ours(key: str) -> bool:
        return key == "a/y"

    assert await store.sweep("a/", 0, ours=ours) == await harness.leftovers() == 1  # type: ignore[attr-defined]
    assert await store.sweep("a/y", 0) == 0  # type: ignore[attr-defined]


async def test_parts_grow_where_their_number_would_be_too_high() -> None:
    store = S3Store("lab", KEYS, endpoint="http://127.0.0.1:1", part=10)

    async def sizes(size: int | None, total: int) -> list[int]:
        return [len(part) async for part in store._parts(chunks(b"x" * total, size=7), size)]

    assert await sizes(25, 25) == [10, 10, 5] and await sizes(None, 30) == [10, 10, 10]
    assert await sizes(None, 0) == []
    assert set((await sizes(200_001, 200_001))[:-1]) == {21}
    grown = await sizes(None, 35_000)
    assert grown[:1000] == [10] * 1000 and grown[1000:2000] == [20] * 1000 and sum(grown) == 35_000
    await store.close()


async def test_no_credentials_or_addresses_from_the_environment(harness: S3Harness) -> None:
    """Nor from files or a metadata service: what is said is all there is."""
    strange = {
        "AWS_ACCESS_KEY_ID": "environment", "AWS_SECRET_ACCESS_KEY": "environment", "AWS_SESSION_TOKEN": "leaked",
        "AWS_PROFILE": "nobody", "AWS_REGION": "eu-north-1", "AWS_DEFAULT_REGION": "eu-north-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_SKIP_SIGNATURE": "true", "AWS_BUCKET": "other",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true", "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:1/",
        "AWS_ROLE_ARN": "arn:aws:iam::1:role/x", "AWS_WEB_IDENTITY_TOKEN_FILE": "/dev/null", "AWS_S3_EXPRESS": "true",
    }  # fmt: skip
    program = f"""
import asyncio
from cloudmesh.data.stores.s3 import S3Store
async def one(n):
    for _ in range(n): yield b"x" * (1 << 20)
async def main():
    store = S3Store({harness.bucket!r}, {KEYS!r}, endpoint={harness.proxy.url!r}, part=5 << 20)
    await store.write("small", one(1)); await store.write("large", one(11))
    print(len((await store.list("")).objects), sum([len(c) async for c in store.read("large")]))
    await store.close()
asyncio.run(main())
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env={**os.environ, **strange}, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    assert run.stdout.split() == [b"2", str(11 << 20).encode()]
    names = [{name.lower() for name in call.headers} for call in harness.proxy.received]
    assert not any("x-amz-security-token" in each or "x-amz-s3session-token" in each for each in names)
    signed = [
        call.headers.get("Authorization", call.headers.get("authorization", "")) for call in harness.proxy.received
    ]
    assert all(f"Credential={ACCESS_KEY}/" in each and "/us-east-1/s3/" in each for each in signed)


class Strict(Guard):
    """As of an installation, but that it leads to a server on this machine."""

    def __init__(self) -> None:
        super().__init__()
        self.made = 0

    def connect(self, host: str, port: int, *_: Any) -> socket.socket:
        self.made += 1
        return socket.create_connection((host, port), 20)


async def test_without_tls_contents_go_by_connections_of_the_guard(harness: S3Harness) -> None:
    guard = Strict()
    store = S3Store(harness.bucket, KEYS, endpoint=harness.proxy.url, part=5 << 20, guard=guard)
    try:
        made = await store.write("a b", chunks(b"0123456789"), if_absent=True, attributes={"at": "x"})
        seen = await store.stat("a b")
        assert seen is not None and (seen.size, seen.tag, seen.attributes) == (10, made.tag, {"at": "x"})
        assert b"".join([piece async for piece in store.read("a b", start=3, length=4, if_tag=made.tag)]) == b"3456"
        with pytest.raises(Exists):
            await store.write("a b", chunks(b"x"), if_absent=True)
        again = await store.write("a b", chunks(b""), if_tag=made.tag)
        with pytest.raises(Changed):
            await store.write("a b", chunks(b"x"), if_tag=made.tag)
        with pytest.raises(Changed):
            _ = [piece async for piece in store.read("a b", if_tag=made.tag)]
        assert [piece async for piece in store.read("a b", if_tag=again.tag)] == []
        assert await store.stat("nothing") is None
        large = noise(20 << 20)
        await store.write("large", chunks(large), size=len(large))
        assert b"".join([piece async for piece in store.read("large")]) == large
        assert guard.made
    finally:
        await store.close()


def test_a_secret_that_lacks_a_key_or_has_a_strange_one() -> None:
    with pytest.raises(AuthFailed, match="aws_secret_access_key"):
        S3Store("lab", {"aws_access_key_id": b"a"})
    with pytest.raises(AuthFailed, match="aws_access_key_id"):
        S3Store("lab", {"aws_access_key_id": b" ", "aws_secret_access_key": b"b"})
    with pytest.raises(InvalidRequest, match="'profile'"):
        S3Store("lab", {**KEYS, "profile": b"x"})


INSIDE = [
    "127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "x.localhost", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "100.100.100.200", "2130706433", "localhost.",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    settings = {"endpoint": f"http://{host}:9000", "bucket": "lab"}
    with pytest.raises(InvalidRequest, match="loopback"):
        make(StoreContext("s", settings, KEYS))
    assert maker("s3")(StoreContext("s", settings, KEYS, allow_private=True)).info.kind == "s3"


async def test_of_aws_if_nothing_else_is_said() -> None:
    store = make(StoreContext("s", {"bucket": "lab-data", "region": "eu-west-1"}, KEYS))
    url = await store.presign("a/b", 10**9)
    assert url.startswith("https://s3.eu-west-1.amazonaws.com/lab-data/a/b?") and "X-Amz-Expires=604800" in url
    assert store.info.failure_domain == "aws" and SECRET_KEY not in repr(store) + url
    await store.close()


@pytest.mark.parametrize("how", ["known", "unknown"])
async def test_memory_stays_small_whatever_the_size(server: str, harness: S3Harness, how: str) -> None:
    """160 MiB with parts of 8 MiB: at most the parts in flight and two more are held."""
    program = f"""
import asyncio, resource
from cloudmesh.data.stores.s3 import S3Store
async def source():
    for _ in range(160): yield bytes(1 << 20)
async def main():
    store = S3Store({harness.bucket!r}, {KEYS!r}, endpoint={server!r})
    await store.write("warm", one())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store.write("x", source(), size={"160 << 20" if how == "known" else None})
    assert sum([len(c) async for c in store.read("x")]) == 160 << 20
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()
async def one(): yield b"1"
asyncio.run(main())
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    assert int(run.stdout) < 110_000, f"{int(run.stdout)} KiB more"


async def test_processes_end_well(server: str, harness: S3Harness) -> None:
    """Threads of libraries must not abort a process that has succeeded."""
    program = f"""
import asyncio
from cloudmesh.data.stores.s3 import S3Store
async def one(): yield b"1"
async def main():
    store = S3Store({harness.bucket!r}, {KEYS!r}, endpoint={server!r})
    await asyncio.gather(*(store.write(f"k{{n}}", one()) for n in range(30)))
asyncio.run(main())
"""
    for _ in range(4):
        run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
        assert run.returncode == 0, run.stderr.decode()[-2000:]


async def test_a_dead_server_is_transient_and_soon(harness: S3Harness) -> None:
    store = S3Store("lab", KEYS, endpoint="http://127.0.0.1:9", call_seconds=2)
    for call in (store.probe(), store.stat("x"), store.write("x", chunks(b"1")), store.delete("x")):
        with pytest.raises(Transient):
            await call
    await store.close()


async def test_a_server_may_take_longer_to_make_a_large_object_of_its_parts() -> None:
    store = S3Store("lab", KEYS, endpoint="http://127.0.0.1:9", call_seconds=2)
    waits = [store.publisher(size).meta.config.read_timeout for size in (LONG - 1, LONG)]
    assert waits == [2, 10]
    assert store.publisher(LONG) is store.publisher(2 * LONG)
    await store.close()


async def _read(store: object, key: str) -> bytes:
    return b"".join([piece async for piece in store.read(key)])  # type: ignore[attr-defined]
