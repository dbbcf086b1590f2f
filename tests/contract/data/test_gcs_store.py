"""What only Google Cloud Storage has: its errors, sessions, generations, haste, tokens and signed addresses."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as elliptic
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.testbed.gcsserver import GcsServer, gcs
from tests.unit.data.token_scene import EMAIL as SERVICE_ACCOUNT
from tests.unit.data.token_scene import PROVIDER, givers

from cloudmesh.data.errors import Changed, Exists, Full, Missing, ReadOnly
from cloudmesh.data.stores.federation import Workload
from cloudmesh.data.stores.gcs import make, open_store
from cloudmesh.data.stores.gcs_auth import KEY
from cloudmesh.data.stores.ports import Presigner
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.testing.proxy import Answer, Call
from cloudmesh.testing.proxy.gcs import GcsDialect
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.gcs import EMAIL, GcsHarness, service_account

RSA = generate_private_key(65537, 2048)
GOOD = service_account(RSA, "https://oauth2.googleapis.com/token")


@pytest.fixture(scope="module")
def server() -> Iterator[GcsServer]:
    with gcs() as started:
        yield started


@pytest.fixture
async def harness(server: GcsServer) -> AsyncIterator[GcsHarness]:
    made = GcsHarness(server.url)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


def mended(harness: GcsHarness, kind: type[GcsDialect]) -> None:
    """Puts another dialect, with the same tokens and sessions, in the place of the harness's."""
    made = kind(EMAIL, harness._key.public_key())
    made.tokens, made.sessions = harness.dialect.tokens, harness.dialect.sessions
    harness.proxy.dialect = harness.dialect = made


async def read(store: Any, key: str, **more: Any) -> bytes:
    return b"".join([piece async for piece in store.read(key, **more)])


# reasons from the JSON API's page of errors
ERRORS = [
    (401, "authError", AuthFailed),
    (403, "forbidden", AuthFailed),
    (403, "insufficientPermissions", AuthFailed),
    (403, "accountDisabled", AuthFailed),
    (403, "retentionPolicyNotMet", ReadOnly),
    (403, "objectUnderActiveHold", ReadOnly),
    (403, "rateLimitExceeded", RateLimited),
    (403, "storageQuotaExceeded", Full),
    (400, "invalid", InvalidRequest),
    (400, "userProjectMissing", InvalidRequest),
    (413, "uploadTooLarge", InvalidRequest),
    (409, "conflict", Transient),
    (408, "timeout", Transient),
    (429, "rateLimitExceeded", RateLimited),
    (500, "internalError", Transient),
    (503, "backendError", Transient),
    (501, "notImplemented", Unsupported),
]


@pytest.mark.parametrize(("status", "reason", "kind"), ERRORS)
async def test_errors_are_told_alike_by_all_calls(
    harness: GcsHarness, status: int, reason: str, kind: type[CloudmeshError]
) -> None:
    store: Any = await harness.store()
    operations = "(Insert|List|Delete|Get|Rewrite)Objects?|StartSession"
    harness.proxy.add("answer", operations, times=None, status=status, code=reason, message="what it says")
    for call in (
        store.write("x", chunks(b"1")), store.list(""), store.delete("x"), store.stat("x"), store.copy("x", "y"),
        store.write("x", chunks(noise(2 * harness.part))), store.probe(),
    ):  # fmt: skip
        with pytest.raises(CloudmeshError) as caught:
            await call
        assert type(caught.value) is kind, caught.value
        assert reason in str(caught.value)
    assert harness.dialect.open_sessions == 0


@pytest.mark.parametrize(("status", "kind"), [(401, AuthFailed), (403, AuthFailed), (412, Changed), (500, Transient)])
async def test_a_content_that_is_refused_has_no_words_but_its_status(
    harness: GcsHarness, status: int, kind: type[CloudmeshError]
) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"1"))
    harness.proxy.add("answer", "GetContent", times=None, status=status)
    with pytest.raises(CloudmeshError) as caught:
        await read(store, "x")
    assert type(caught.value) is kind


@pytest.mark.parametrize("operation", ["InsertObject", "StartSession", "FinishSession"])
async def test_a_lost_race_is_told_by_what_was_asked_for(harness: GcsHarness, operation: str) -> None:
    store = await harness.store()
    seen = await store.write("x", chunks(b"1"))
    harness.proxy.add("answer", operation, times=None, status=412, code="conditionNotMet")
    content = b"1" if operation == "InsertObject" else noise(2 * harness.part)
    with pytest.raises(Exists):
        await store.write("y", chunks(content), if_absent=True)
    with pytest.raises(Changed) as caught:
        await store.write("x", chunks(content), if_tag=seen.tag)
    assert type(caught.value) is Changed and harness.dialect.open_sessions == 0


async def test_calls_that_change_something_go_out_once_and_others_up_to_three_times(harness: GcsHarness) -> None:
    store = await harness.store()
    await store.probe()
    harness.proxy.calls.clear()
    harness.proxy.add("answer", times=None, status=500, code="internalError")
    for call in (store.write("x", chunks(b"1")), store.delete("x"), store.list(""), read(store, "x")):
        with pytest.raises(Transient):
            await call
    counts = {name: harness.proxy.count(name) for name in ("InsertObject", "DeleteObject", "ListObjects", "GetContent")}
    assert counts == {"InsertObject": 1, "DeleteObject": 1, "ListObjects": 3, "GetContent": 3}


# -- haste: one write a second to one name


async def test_a_write_that_came_too_soon_is_made_again_and_not_for_ever(harness: GcsHarness) -> None:
    store = await harness.store()
    harness.proxy.add("answer", "InsertObject", times=2, status=429, code="rateLimitExceeded")
    await store.write("x", chunks(b"small"))
    harness.proxy.add("answer", "FinishSession", times=1, status=429, code="rateLimitExceeded")
    await store.write("x", chunks(noise(2 * harness.part)))
    assert await harness.truth() == {"x": noise(2 * harness.part)}
    harness.proxy.calls.clear()
    harness.proxy.add("answer", "InsertObject", times=None, status=429, code="rateLimitExceeded")
    with pytest.raises(RateLimited):
        await store.write("x", chunks(b"other"))
    assert harness.proxy.count("InsertObject") == 3  # once, and after each of the two waits
    harness.proxy.clear()
    harness.proxy.calls.clear()
    harness.proxy.add("answer", "DeleteObject", times=None, status=429, code="rateLimitExceeded", retry_after=30)
    with pytest.raises(RateLimited) as caught:
        await store.delete("x")
    assert caught.value.retry_after == 30 and harness.proxy.count("DeleteObject") == 1  # longer than it is patient


# -- sessions


async def test_a_write_that_is_given_up_ends_its_session(harness: GcsHarness) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"old"))
    with pytest.raises(InvalidRequest):
        await store.write("x", chunks(noise(3 * harness.part)), size=3 * harness.part + 1)
    assert len(harness.dialect.sessions) == 1 and harness.dialect.open_sessions == 0
    assert harness.proxy.count("CancelSession") == 1 and await harness.truth() == {"x": b"old"}


async def test_a_session_goes_on_where_the_service_has_got_to(harness: GcsHarness) -> None:
    """An answer that is lost costs no byte; a part of which half has arrived costs the other half."""
    store = await harness.store()
    content = noise(4 * harness.part + 5)
    harness.proxy.add("cut_after", "UploadPart", times=1)
    await store.write("x", chunks(content))
    sent = [len(call.body) for call, _ in harness.proxy.calls if call.operation == "UploadPart"]
    assert sent == [harness.part] * 4 and harness.proxy.count("SessionStatus") == 1

    class Halves(GcsDialect):
        done = False

        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation == "UploadPart" and not Halves.done:
                Halves.done = True
                half = call.body[: len(call.body) // 2]
                headers = {name: text for name, text in call.headers.items() if name.lower() != "content-range"}
                call = replace(call, body=half, headers={**headers, "Content-Range": f"bytes 0-{len(half) - 1}/*"})
            return await super().serve(call, upstream)

    mended(harness, Halves)
    harness.proxy.calls.clear()
    await store.write("y", chunks(content))
    sent = [len(call.body) for call, _ in harness.proxy.calls if call.operation == "UploadPart"]
    assert sent == [harness.part, harness.part // 2, *[harness.part] * 3]
    assert await harness.truth() == {"x": content, "y": content} and harness.dialect.open_sessions == 0


async def test_a_session_that_has_gone_is_a_failed_write(harness: GcsHarness) -> None:
    store = await harness.store()

    async def source() -> AsyncIterator[bytes]:
        yield noise(3 * harness.part)
        harness.dialect.sessions.clear()
        yield noise(2 * harness.part)

    with pytest.raises(Transient):
        await store.write("x", source())
    assert await harness.truth() == {}


async def test_tokens_go_to_no_session_elsewhere(harness: GcsHarness) -> None:
    class Elsewhere(GcsDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            answer = await super().serve(call, upstream)
            if call.operation == "StartSession":
                return replace(answer, headers={"Location": "http://169.254.169.254/upload?upload_id=1"})
            return answer

    store = await harness.store()
    mended(harness, Elsewhere)
    with pytest.raises(Transient, match="names no session"):
        await store.write("x", chunks(noise(2 * harness.part)))


@pytest.mark.parametrize("size", [10, 3 << 20])
async def test_what_was_published_is_compared_with_what_was_sent(harness: GcsHarness, size: int) -> None:
    class Flips(GcsDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation == "FinishSession":
                call = replace(call, body=call.body[:-1] + bytes([call.body[-1] ^ 1]))
            if call.operation == "InsertObject":
                call = replace(call, body=call.body.replace(noise(10), noise(10, 1)))
            return await super().serve(call, upstream)

    store = await harness.store()
    mended(harness, Flips)
    with pytest.raises((Transient, InvalidRequest)):
        await store.write("x", chunks(noise(size)))


# -- generations


async def test_each_condition_goes_to_the_service(harness: GcsHarness) -> None:
    store: Any = await harness.store()
    seen = await store.write("x", chunks(b"one"), if_absent=True)
    await read(store, "x", if_tag=seen.tag)
    await store.copy("x", "y", if_tag=seen.tag)
    seen = await store.write("x", chunks(noise(2 * harness.part)), if_tag=seen.tag)
    await store.delete("x", if_tag=seen.tag)
    told = {}
    for call, _ in harness.proxy.calls:
        if tied := {n: v for n, v in call.parameters.items() if n.startswith("if")}:
            told[call.operation] = tied
    assert set(told) == {"InsertObject", "GetContent", "RewriteObject", "StartSession", "DeleteObject"}
    assert told["InsertObject"] == {"ifGenerationMatch": "0"} and set(told["RewriteObject"]) == {
        "ifSourceGenerationMatch"
    }


async def test_a_tag_of_another_kind_fits_nothing(harness: GcsHarness) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"one"))
    for call in (store.write("x", chunks(b"two"), if_tag='"abc"'), store.delete("x", if_tag="-1")):
        with pytest.raises(Changed):
            await call
    assert await harness.truth() == {"x": b"one"}


async def test_what_is_kept_compressed_is_read_as_it_is_kept(harness: GcsHarness) -> None:
    """The service unpacks it on its way for whoever doesn't take it packed: other bytes than size and digest are of."""
    packed = gzip.compress(noise(5000))

    class Packed(GcsDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            told = {name.lower(): text for name, text in call.headers.items()}
            if call.operation != "GetContent" or told.get("accept-encoding") != "gzip":
                return await super().serve(call, upstream)
            begin, end = (int(each) for each in told["range"].removeprefix("bytes=").split("-"))
            part = packed[begin : end + 1]
            span = f"bytes {begin}-{begin + len(part) - 1}/{len(packed)}"
            return Answer(206, part, {"Content-Encoding": "gzip", "Content-Range": span, "X-Goog-Generation": "1"})

    store = await harness.store()
    await store.write("x", chunks(b"unpacked"))
    mended(harness, Packed)
    assert await read(store, "x") == packed and await read(store, "x", start=5, length=7) == packed[5:12]


async def test_a_copy_of_several_calls_ends_as_one_object(harness: GcsHarness) -> None:
    class Steps(GcsDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation == "RewriteObject" and call.parameters.get("rewriteToken") != "2":
                token = str(int(call.parameters.get("rewriteToken", "0")) + 1)
                told = {"kind": "storage#rewriteResponse", "done": False, "rewriteToken": token}
                return Answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
            return await super().serve(call, upstream)

    store: Any = await harness.store()
    await store.write("x", chunks(b"content"), attributes={"id": "1"})
    mended(harness, Steps)
    made = await store.copy("x", "y", attributes={"id": "2"})
    found = await store.stat("y")
    assert found.tag == made.tag and found.attributes == {"id": "2"} and harness.proxy.count("RewriteObject") == 3


async def test_pages_without_objects_are_not_the_end(harness: GcsHarness) -> None:
    class Gaps(GcsDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation == "ListObjects" and "pageToken" not in call.parameters:
                told = {"kind": "storage#objects", "nextPageToken": "a"}
                return Answer(200, json.dumps(told).encode(), {"Content-Type": "application/json"})
            return await super().serve(call, upstream)

    store = await harness.store()
    for key in ("b", "c"):
        await store.write(key, chunks(b"1"))
    mended(harness, Gaps)
    assert [each.key for each in (await store.list("")).objects] == ["b", "c"]


async def test_what_the_proxy_does_is_what_the_server_lacks(harness: GcsHarness, server: GcsServer) -> None:
    """Should the server learn it, the proxy can do less, and the page must say so."""

    def alone() -> dict[str, int]:
        http, own = harness._http, f"{server.url}/storage/v1/b/{harness.bucket}/o"
        upload = f"{server.url}/upload/storage/v1/b/{harness.bucket}/o"

        def status(method: str, url: str, body: bytes = b"", **headers: str) -> int:
            return http.send(method, url, {name.replace("_", "-"): text for name, text in headers.items()}, body).status

        def session(name: str) -> str:
            answer = http.send("POST", f"{upload}?uploadType=resumable&name={name}", {"Content-Type": "a/b"}, b"{}")
            return answer.headers["location"]

        status("POST", f"{upload}?uploadType=media&name=x", b"1", Content_Type="a/b")
        found = {"read": status("GET", f"{own}/x?alt=media&ifGenerationMatch=1")}
        found["delete"] = status("DELETE", f"{own}/x?ifGenerationMatch=1")
        found["asked"] = status("PUT", session("y"), Content_Range="bytes */*")
        ended = session("z")
        status("DELETE", ended)
        found["ended"] = status("PUT", ended, b"1", Content_Range="bytes 0-0/1")
        return found

    assert await asyncio.to_thread(alone) == {"read": 200, "delete": 200, "asked": 200, "ended": 200}


# -- who one is


async def test_a_token_is_asked_for_once_and_another_one_when_it_is_refused(harness: GcsHarness) -> None:
    store: Any = await harness.store()
    await asyncio.gather(*(store.write(f"k{n}", chunks(b"1")) for n in range(8)))
    assert harness.proxy.count("Token") == 1
    harness.dialect.tokens.clear()  # revoked
    await store.write("x", chunks(noise(2 * harness.part)), if_absent=True)
    assert await read(store, "x") == noise(2 * harness.part) and harness.proxy.count("Token") == 2
    harness.proxy.add("answer", "Token", times=None, status=503, code="internal_failure")
    other: Any = await harness.store()
    with pytest.raises(Transient):
        await other.stat("x")
    harness.proxy.clear()
    harness.proxy.add("answer", "Token", times=None, status=429, code="slow_down")
    with pytest.raises(RateLimited):
        await other.stat("x")


@pytest.mark.parametrize("acting", [{}, {"serviceAccountEmail": SERVICE_ACCOUNT}], ids=["itself", "acting"])
async def test_a_token_of_a_service_account_does_all_but_links(
    harness: GcsHarness, tmp_path: Path, acting: dict[str, str]
) -> None:
    file = tmp_path / "token"
    with givers() as cloud:
        cloud.given = harness.dialect.tokens.add
        file.write_text(cloud.believed)
        who, at = Workload({"provider": PROVIDER, **acting}, str(file)), {"sts": cloud.url, "iam": cloud.url}
        store: Any = open_store(harness.bucket, who, endpoint=harness.proxy.url, part=harness.part, **at)
        assert not isinstance(store, Presigner)
        await store.write("x", chunks(noise(3 * harness.part)), if_absent=True)
        await store.copy("x", "y")
        assert [each.key for each in (await store.list("")).objects] == ["x", "y"] and len(cloud.tokens) == 1
        harness.dialect.tokens.clear()  # revoked
        await store.delete("y")
        assert await read(store, "x") == noise(3 * harness.part) and len(cloud.tokens) == 2
        assert harness.proxy.count("Token") == 0
        await store.close()


async def test_no_token_no_key_and_no_session_stands_in_a_log_or_an_error(
    harness: GcsHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    store: Any = await harness.store()
    await store.write("x", chunks(noise(3 * harness.part)))
    errors = []
    for what in ("cut_before", "garbage"):
        harness.proxy.add(what, "FinishSession|UploadPart", times=None, status=502)  # type: ignore[arg-type]
        with pytest.raises(Transient) as caught:
            await store.write("x", chunks(noise(3 * harness.part)))
        errors.append(str(caught.value))
        harness.proxy.clear()
    told = " ".join((*errors, caplog.text, repr(store)))
    for word in (*harness.dialect.tokens, *harness.dialect.sessions, *harness.secrets, "assertion"):
        assert word not in told


def changed(**fields: Any) -> bytes:
    told = {**json.loads(GOOD), **fields}
    return json.dumps({name: value for name, value in told.items() if value is not None}).encode()


CURVE = elliptic(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("keys", "kind", "words"),
    [
        ({}, AuthFailed, f"lacks the key '{KEY}'"),
        ({KEY: b" "}, AuthFailed, f"lacks the key '{KEY}'"),
        ({KEY: b"/path/to/key.json"}, AuthFailed, "JSON file"),
        ({KEY: b"[]"}, AuthFailed, "JSON file"),
        ({KEY: GOOD, "project": b"x"}, InvalidRequest, "'project'"),
        ({KEY: changed(type="authorized_user")}, InvalidRequest, "service_account is needed"),
        ({KEY: changed(type="external_account")}, InvalidRequest, "service_account is needed"),
        ({KEY: changed(client_email=None)}, AuthFailed, "lacks a field"),
        (
            {KEY: changed(private_key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")},
            AuthFailed,
            "damaged",
        ),
        ({KEY: changed(private_key=CURVE)}, AuthFailed, "RSA"),
        ({KEY: changed(token_uri="https://evil.example.org/token")}, InvalidRequest, "token_uri"),
        ({KEY: changed(token_uri="http://169.254.169.254/token")}, InvalidRequest, "token_uri"),
    ],
)
def test_a_secret_that_is_no_key_of_a_service_account(
    keys: dict[str, bytes], kind: type[CloudmeshError], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        open_store("lab", keys)
    assert "PRIVATE" not in str(caught.value) and caught.value.__cause__ is None


INSIDE = [
    "127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "x.localhost", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "100.100.100.200", "2130706433", "localhost.",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    settings = {"endpoint": f"https://{host}:4443", "bucket": "lab"}
    with pytest.raises(InvalidRequest, match="loopback"):
        make(StoreContext("s", settings, {KEY: GOOD}))
    assert maker("gcs")(StoreContext("s", settings, {KEY: GOOD}, allow_private=True)).info.strong


def test_tokens_are_not_sent_in_the_open() -> None:
    with pytest.raises(InvalidRequest, match="TLS"):
        make(StoreContext("s", {"endpoint": "http://storage.example.org", "bucket": "lab"}, {KEY: GOOD}))


async def test_of_google_if_nothing_else_is_said() -> None:
    store: Any = make(StoreContext("s", {"bucket": "lab"}, {KEY: GOOD}))
    url = await store.presign("a/b é", 10**9)
    assert (
        url.startswith("https://storage.googleapis.com/lab/a/b%20%C3%A9?X-Goog-Algorithm=") and "Expires=604800" in url
    )
    assert store.info.failure_domain == "google" and EMAIL not in repr(store)
    await store.close()


async def test_a_link_ends_and_opens_its_own_object_only(harness: GcsHarness) -> None:
    store: Any = await harness.store()
    await store.write("a b/é%41.txt", chunks(b"shared"))
    url = await store.presign("a b/é%41.txt", 1)
    status = await asyncio.to_thread(_status, url)
    assert status == 200
    for other in (url.replace(".txt", ".txu"), url.replace("Expires=1&", "Expires=9000&"), url[:-4] + "0000"):
        assert await asyncio.to_thread(_status, other) == 403
    await asyncio.sleep(2.1)
    assert await asyncio.to_thread(_status, url) == 400


def _status(url: str) -> int:
    run = subprocess.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", url], capture_output=True, check=True)
    return int(run.stdout)


# -- the process


def program(harness: GcsHarness, main: str) -> str:
    """A process of its own that does something with a store on the bucket."""
    keys = {name: base64.b64encode(value) for name, value in harness.credentials.items()}
    return f"""
import asyncio, base64, resource
from cloudmesh.data.stores.gcs import open_store
async def source(n):
    for _ in range(n): yield bytes(1 << 20)
async def main():
    keys = {{name: base64.b64decode(value) for name, value in {keys!r}.items()}}
    store = open_store({harness.bucket!r}, keys, endpoint={harness.proxy.url!r})
    {main}
asyncio.run(main())
"""


async def run(text: str, **environment: str) -> bytes:
    """What it writes; it must end well."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", text],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return done.stdout


async def test_nothing_from_the_environment(harness: GcsHarness) -> None:
    strange = {
        "GOOGLE_APPLICATION_CREDENTIALS": "/nowhere", "STORAGE_EMULATOR_HOST": "http://127.0.0.1:1",
        "GOOGLE_CLOUD_PROJECT": "other", "GCE_METADATA_HOST": "127.0.0.1:1", "HTTP_PROXY": "http://127.0.0.1:1",
        "http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1",
    }  # fmt: skip
    text = program(
        harness,
        """await store.write("small", source(1)); await store.write("large", source(11))
    print(len((await store.list("")).objects), sum([len(c) async for c in store.read("large")]))
    await store.close()""",
    )
    assert (await run(text, **strange)).split() == [b"2", str(11 << 20).encode()]


@pytest.mark.parametrize("how", ["known", "unknown"])
async def test_memory_stays_small_whatever_the_size(harness: GcsHarness, how: str) -> None:
    """160 MiB with parts of 8 MiB: at most what the store tells that it holds."""
    text = program(
        harness,
        f"""await store.write("warm", source(1))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store.write("x", source(160), size={"160 << 20" if how == "known" else None})
    assert sum([len(c) async for c in store.read("x")]) == 160 << 20
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()""",
    )
    assert int(await run(text)) < 110_000


async def test_processes_end_well(harness: GcsHarness) -> None:
    text = program(harness, 'await asyncio.gather(*(store.write(f"k{n}", source(1)) for n in range(30)))')
    for _ in range(4):
        await run(text)


async def test_a_dead_server_is_transient_and_soon() -> None:
    keys = {KEY: service_account(RSA, "http://127.0.0.1:9/token")}
    store = open_store("lab", keys, endpoint="http://127.0.0.1:9", call_seconds=2)
    for call in (store.probe(), store.stat("x"), store.write("x", chunks(b"1")), store.delete("x")):
        with pytest.raises(Transient):
            await call
    await store.close()


async def test_what_is_read_of_a_server_that_came_back() -> None:
    with gcs(keep=True) as server:
        harness = GcsHarness(server.url)
        await harness.start()
        await harness.open()
        store = await harness.store()
        seen = await store.write("a/x", chunks(noise(3 * harness.part)))
        await asyncio.to_thread(server.stop)
        with pytest.raises(Transient):
            await read(store, "a/x")
        await asyncio.to_thread(server.start)
        found = await store.stat("a/x")
        assert found is not None and found.size == seen.size and await read(store, "a/x") == noise(3 * harness.part)
        with pytest.raises(Missing):
            await read(store, "y")
        await harness.shut()
        await harness.stop()
