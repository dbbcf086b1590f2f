"""What only Azure Blob has: its errors, three ways to prove who one is, blocks nobody commits, names, copies."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from tests.testbed.azurite import ACCOUNT, KEY, Azurite, azurite
from tests.unit.data.token_scene import CLIENT, TENANT, givers

from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores.azure import AzureStore, open_store
from cloudmesh.data.stores.azure_auth import VERSION
from cloudmesh.data.stores.azure_words import attributes_of, metadata_instead, metadata_of
from cloudmesh.data.stores.federation import Workload
from cloudmesh.data.stores.ports import Presigner
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.testing.proxy import Answer, Call
from cloudmesh.testing.proxy.azure_blob import AzureBlobDialect
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.azure import AzureHarness

KEYS = {"azure_storage_key": KEY.encode()}
APPLICATION = {"azure_tenant_id": b"tenant-1", "azure_client_id": b"app", "azure_client_secret": b"app-secret-5b1c"}


@pytest.fixture(scope="module")
def server() -> Iterator[Azurite]:
    with azurite() as started:
        yield started


@pytest.fixture
async def harness(server: Azurite) -> AsyncIterator[AzureHarness]:
    made = AzureHarness(server.url, ACCOUNT, KEY)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


async def read(store: Any, key: str, **more: Any) -> bytes:
    return b"".join([piece async for piece in store.read(key, **more)])


# codes from the service's pages of errors
ERRORS = [
    (403, "AuthenticationFailed", AuthFailed),
    (403, "AuthorizationPermissionMismatch", AuthFailed),
    (401, "InvalidAuthenticationInfo", AuthFailed),
    (403, "", AuthFailed),
    (404, "ContainerNotFound", InvalidRequest),
    (409, "ContainerBeingDeleted", InvalidRequest),
    (409, "BlobImmutableDueToPolicy", ReadOnly),
    (409, "LeaseIdMissing", Transient),
    (412, "LeaseLost", Transient),
    (409, "SnapshotsPresent", InvalidRequest),
    (409, "BlobArchived", InvalidRequest),
    (400, "InvalidHeaderValue", InvalidRequest),
    (400, "Md5Mismatch", Transient),
    (409, "BlobBeingRehydrated", Transient),
    (429, "TooManyRequests", RateLimited),
    (503, "ServerBusy", RateLimited),
    (500, "InternalError", Transient),
    (500, "OperationTimedOut", Transient),
    (404, "", Transient),
    (502, "", Transient),
    (501, "NotImplemented", Unsupported),
    (507, "InsufficientStorage", Full),
]


@pytest.mark.parametrize(("status", "code", "kind"), ERRORS)
async def test_errors_are_told_alike_by_all_calls(
    harness: AzureHarness, status: int, code: str, kind: type[CloudmeshError]
) -> None:
    store: Any = await harness.store()
    harness.proxy.add("answer", times=None, status=status, code=code, message="signed with something")
    for call in (
        store.write("x", chunks(b"1")), store.list(""), store.delete("x"), read(store, "x"), store.stat("x"),
        store.write("x", chunks(noise(2 * harness.part))), store.copy("x", "y"), store.probe(),
    ):  # fmt: skip
        with pytest.raises(CloudmeshError) as caught:
            await call
        assert type(caught.value) is kind, caught.value
        assert code in str(caught.value) and "signed with" not in str(caught.value)


@pytest.mark.parametrize(("code", "status"), [("ConditionNotMet", 412), ("BlobAlreadyExists", 409)])
async def test_a_lost_race_is_told_by_what_was_asked_for(harness: AzureHarness, code: str, status: int) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"1"))
    harness.proxy.add("answer", "PutBlob|PutBlockList", times=None, status=status, code=code)
    for content in (b"1", noise(2 * harness.part)):
        with pytest.raises(Exists):
            await store.write("y", chunks(content), if_absent=True)
        seen = await store.stat("x")
        assert seen is not None
        with pytest.raises(Changed) as caught:
            await store.write("x", chunks(content), if_tag=seen.tag)
        assert type(caught.value) is Changed


async def test_the_store_says_how_long_to_wait(harness: AzureHarness) -> None:
    store = await harness.store()
    harness.proxy.add("answer", times=None, status=503, code="ServerBusy", retry_after=7)
    with pytest.raises(RateLimited) as caught:
        await store.delete("x")
    assert caught.value.retry_after == 7


async def test_calls_that_change_something_go_out_once_and_others_up_to_three_times(harness: AzureHarness) -> None:
    store = await harness.store()
    harness.proxy.add("answer", times=None, status=500, code="InternalError")
    for call in (store.write("x", chunks(b"1")), store.delete("x"), store.list(""), read(store, "x")):
        with pytest.raises(Transient):
            await call
    counts = {name: harness.proxy.count(name) for name in ("PutBlob", "DeleteBlob", "ListBlobs", "GetBlob")}
    assert counts == {"PutBlob": 1, "DeleteBlob": 1, "ListBlobs": 3, "GetBlob": 3}


async def test_blocks_of_a_write_that_was_given_up_are_seen_by_nobody(harness: AzureHarness) -> None:
    store = await harness.store()
    old = await store.write("x", chunks(b"old"))
    for key in ("x", "new"):
        with pytest.raises(InvalidRequest):
            await store.write(key, chunks(noise(3 * harness.part)), size=3 * harness.part + 1)
    assert await harness.truth() == {"x": b"old"} and [o.key for o in (await store.list("")).objects] == ["x"]
    seen = await store.stat("x")
    assert seen is not None and seen.tag == old.tag and await store.stat("new") is None
    # nothing that takes them away spares the object; the service does at its next write (the emulator doesn't)
    assert await asyncio.to_thread(_uncommitted, harness, "x") > 0
    await store.write("x", chunks(noise(2 * harness.part)), if_tag=old.tag)
    assert await harness.truth() == {"x": noise(2 * harness.part)}


def _uncommitted(harness: AzureHarness, key: str) -> int:
    answer = harness.send("GET", f"{harness.container}/{key}?comp=blocklist&blocklisttype=uncommitted")
    return answer.body.count(b"<Block>")


async def test_a_writer_whose_blocks_another_one_took_away_learns_what_it_asked_for(harness: AzureHarness) -> None:
    store = await harness.store()
    # as the service answers then; the emulator keeps the blocks
    harness.proxy.add("answer", "PutBlockList", times=None, status=400, code="InvalidBlockList")

    async def source() -> AsyncIterator[bytes]:
        yield noise(2 * harness.part)
        yield noise(harness.part, 1)
        await harness.meddle("x", b"theirs")

    old = await store.write("x", chunks(b"old"))
    with pytest.raises(Changed):
        await store.write("x", source(), if_tag=old.tag)
    await store.delete("x")
    with pytest.raises(Exists):
        await store.write("x", source(), if_absent=True)
    with pytest.raises(Transient):
        await store.write("x", source())
    assert await harness.truth() == {"x": b"theirs"}


async def test_a_damaged_block_is_refused_by_the_service(harness: AzureHarness) -> None:
    class Flips(AzureBlobDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation in ("PutBlob", "PutBlock"):
                call = replace(call, body=call.body[:-1] + bytes([call.body[-1] ^ 1]))
            return await super().serve(call, upstream)

    store = await harness.store()
    harness.proxy.dialect = Flips()
    for content in (b"content", noise(2 * harness.part)):
        with pytest.raises((Transient, InvalidRequest)):
            await store.write("x", chunks(content))
    assert await harness.truth() == {}


# -- copies


class Slow(AzureBlobDialect):
    """Copies that take their time, as between accounts or of very large objects."""

    def __init__(self, *states: str) -> None:
        super().__init__()
        self.states = list(states)

    async def serve(self, call: Call, upstream: Any) -> Answer:
        answer = await super().serve(call, upstream)
        copied = any(name.lower() == "x-ms-copy-status" for name in answer.headers)
        if copied and call.operation in ("CopyBlob", "GetBlobProperties") and self.states:
            state = self.states.pop(0)
            kept = {name: text for name, text in answer.headers.items() if name.lower() != "x-ms-copy-status"}
            return replace(answer, headers={**kept, "x-ms-copy-status": state})
        return answer


async def test_a_copy_that_takes_its_time_is_waited_for(harness: AzureHarness) -> None:
    store: Any = await harness.store()
    seen = await store.write("x", chunks(b"content"), attributes={"id": "1"})
    harness.proxy.dialect = Slow("pending", "pending", "success")
    made = await store.copy("x", "y", if_tag=seen.tag)
    found = await store.stat("y")
    assert found.tag == made.tag and found.attributes == {"id": "1"} and harness.proxy.count("GetBlobProperties") == 4


@pytest.mark.parametrize("states", [("pending", "failed", "failed"), ("pending", *["pending"] * 50)])
async def test_a_copy_that_fails_or_is_given_up_leaves_no_half(harness: AzureHarness, states: tuple[str, ...]) -> None:
    store: Any = await harness.store()
    await store.write("x", chunks(b"content"))
    harness.proxy.dialect = Slow(*states)
    if "failed" in states:
        with pytest.raises(Transient, match="failed"):
            await store.copy("x", "y")
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await store.copy("x", "y")
    assert await harness.truth() == {"x": b"content"} and harness.proxy.count("AbortCopyBlob") == 1


async def test_a_copy_may_have_no_attributes_although_its_source_has(harness: AzureHarness) -> None:
    store: Any = await harness.store()
    await store.write("x", chunks(b"content"), attributes={"id": "1"})
    await store.copy("x", "y", attributes={})
    assert (await store.stat("y")).attributes == {}


# -- names and listings

NAME = st.text("abcxyz0189-", min_size=1, max_size=12)


@given(st.dictionaries(NAME, st.just("v"), max_size=6))
def test_attributes_come_back_whatever_their_names(texts: dict[str, str]) -> None:
    for sent in (metadata_of(texts), metadata_instead(texts)):
        assert all(name.removeprefix("x-ms-meta-").isidentifier() for name in sent)
        assert attributes_of({name.lower(): text for name, text in sent.items()}) == texts


class Folders(AzureBlobDialect):
    """An account with a hierarchical namespace: folders are listed as well, and answer as objects do."""

    async def serve(self, call: Call, upstream: Any) -> Answer:
        answer = await super().serve(call, upstream)
        if call.operation == "ListBlobs":
            found = b"<Blob><Name>d</Name><Properties><Content-Length>0</Content-Length><Etag>1</Etag>"
            found += b"<Last-Modified>Mon, 23 Nov 2026 14:00:00 GMT</Last-Modified>"
            found += b"<ResourceType>directory</ResourceType></Properties></Blob>"
            return replace(answer, body=answer.body.replace(b"<Blobs>", b"<Blobs>" + found))
        if call.operation == "GetBlobProperties" and call.parameters["Blob"] == "d":
            return Answer(200, b"", {"ETag": '"1"', "Content-Length": "0", "x-ms-meta-hdi_isfolder": "true"})
        return answer


async def test_what_stands_for_a_folder_only_is_no_object(harness: AzureHarness) -> None:
    store = await harness.store()
    await store.write("d/x", chunks(b"1"))
    harness.proxy.dialect = Folders()
    assert [each.key for each in (await store.list("")).objects] == ["d/x"]
    assert await store.stat("d") is None and await store.stat("d/x") is not None


async def test_a_page_without_objects_is_not_the_end(harness: AzureHarness) -> None:
    store = await harness.store()
    for key in ("a", "b", "c"):
        await store.write(key, chunks(b"1"))

    class Gaps(AzureBlobDialect):
        seen = 0

        async def serve(self, call: Call, upstream: Any) -> Answer:
            if call.operation == "ListBlobs":
                Gaps.seen += 1
                if Gaps.seen <= 3:
                    body = f'<EnumerationResults ContainerName="{harness.container}"><Blobs/>'
                    marker = call.parameters.get("marker", "")
                    return Answer(200, f"{body}<NextMarker>{marker or 'a'}</NextMarker></EnumerationResults>".encode())
            return await super().serve(call, upstream)

    harness.proxy.dialect = Gaps()
    page = await store.list("")
    assert [each.key for each in page.objects] == ["b", "c"] and Gaps.seen == 4


@pytest.mark.parametrize(
    "body",
    [
        b"", b"<EnumerationResults>", b"<EnumerationResults><Blobs/></EnumerationResults>", b"<html></html>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>',
        b'<EnumerationResults ContainerName="other"><Blobs/><NextMarker/></EnumerationResults>',
        b"<EnumerationResults><Blobs><Blob><Name>x</Name></Blob></Blobs><NextMarker/></EnumerationResults>",
    ],
)  # fmt: skip
async def test_what_is_no_whole_listing_proves_nothing(harness: AzureHarness, body: bytes) -> None:
    class Other(AzureBlobDialect):
        async def serve(self, call: Call, upstream: Any) -> Answer:
            return Answer(200, body)

    store = await harness.store()
    harness.proxy.dialect = Other()
    with pytest.raises(Transient):
        await store.list("")
    with pytest.raises(Transient):
        await store.probe()


async def test_a_name_that_would_become_another_one_on_its_way_is_refused(harness: AzureHarness) -> None:
    store: Any = await harness.store()
    await store.write("b", chunks(b"1"))
    for key in ("a/../b", "./b", ".."):
        for call in (store.stat(key), store.write(key, chunks(b"2")), store.delete(key), read(store, key)):
            with pytest.raises(InvalidName):
                await call
    assert await harness.truth() == {"b": b"1"}


# -- who one is


def sas(container: str, permissions: str = "rcwdl", seconds: int = 600) -> str:
    """A token for one container, made as the documentation of service SAS says."""
    ends = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    fields = [permissions, "", ends, f"/blob/{ACCOUNT}/{container}", "", "", "", VERSION, "c", *[""] * 7]
    made = hmac.new(base64.b64decode(KEY), "\n".join(fields).encode(), hashlib.sha256).digest()
    told = {"sv": VERSION, "sr": "c", "sp": permissions, "se": ends, "sig": base64.b64encode(made).decode()}
    return urlencode(told, quote_via=quote)


async def test_a_sas_token_does_all_but_links_and_stands_in_no_error_and_no_log(
    harness: AzureHarness, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    token = sas(harness.container)
    signature = parse_qs(token)["sig"][0]
    store: Any = harness.made({"azure_storage_sas_token": f"?{token}".encode()})
    assert not isinstance(store, Presigner)
    seen = await store.write("a/x", chunks(noise(3 * harness.part)), if_absent=True)
    assert await read(store, "a/x", if_tag=seen.tag) == noise(3 * harness.part)
    await store.copy("a/x", "y")
    assert [each.key for each in (await store.list("")).objects] == ["a/x", "y"]
    await store.delete("a/x", if_tag=seen.tag)
    errors = []
    other: Any = harness.made({"azure_storage_sas_token": sas(harness.container, "r").encode()})
    for call in (other.list(""), other.write("z", chunks(b"1")), other.delete("y")):
        with pytest.raises(AuthFailed) as caught:
            await call
        errors.append(str(caught.value))
    dead = open_store(
        ACCOUNT, "x", {"azure_storage_sas_token": token.encode()}, endpoint="http://127.0.0.1:9", plain=True
    )
    with pytest.raises(Transient) as gone:
        await dead.stat("x")
    await dead.close()
    told = " ".join((*errors, str(gone.value), caplog.text, repr(store)))
    assert "GET /" in told
    for word in (signature, quote(signature, safe=""), "sig=", KEY):
        assert word not in told


async def tokens(seconds: int = 3600) -> tuple[web.AppRunner, str, list[dict[str, list[str]]]]:
    """A place that gives tokens to one application: its end, its address, and what was asked."""
    asked: list[dict[str, list[str]]] = []

    async def give(request: web.Request) -> web.Response:
        form = parse_qs(await request.text())
        asked.append(form)
        if request.path != "/tenant-1/oauth2/v2.0/token" or form["client_secret"] != ["app-secret-5b1c"]:
            return web.json_response({"error": "invalid_client", "error_description": "app-secret"}, status=401)
        return web.json_response({"access_token": f"token-{len(asked)}", "expires_in": seconds, "token_type": "Bearer"})

    app = web.Application()
    app.router.add_post("/{path:.*}", give)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}", asked


async def test_an_application_asks_for_a_token_once_and_for_another_when_that_one_is_refused(
    harness: AzureHarness,
) -> None:
    runner, authority, asked = await tokens()
    try:
        harness.dialect.bearer = "token-1"
        store: Any = harness.made(APPLICATION, authority=authority)
        assert not isinstance(store, Presigner)
        await asyncio.gather(*(store.write(f"k{n}", chunks(b"1")) for n in range(8)))
        assert len(asked) == 1 and asked[0]["scope"] == ["https://storage.azure.com/.default"]
        harness.dialect.bearer = "token-2"  # the other one was revoked
        await store.write("x", chunks(noise(2 * harness.part)), if_absent=True)
        assert await read(store, "x") == noise(2 * harness.part) and len(asked) == 2
        wrong: Any = harness.made({**APPLICATION, "azure_client_secret": b"wrong-secret-31"}, authority=authority)
        with pytest.raises(AuthFailed, match="invalid_client") as caught:
            await wrong.list("")
        assert "secret" not in str(caught.value).replace("azure_client_secret", "")
    finally:
        await runner.cleanup()


async def test_a_token_is_renewed_before_it_ends_and_who_gives_none_is_no_refusal(harness: AzureHarness) -> None:
    runner, authority, asked = await tokens(seconds=60)  # less than how long before its end it isn't used any more
    harness.dialect.bearer = "token-1"
    store: Any = harness.made(APPLICATION, authority=authority)
    await store.probe()
    await asyncio.sleep(1.1)
    harness.dialect.bearer = "token-2"
    await store.probe()
    assert len(asked) == 2
    await runner.cleanup()
    await asyncio.sleep(1.1)
    await store.probe()  # it is still good
    harness.dialect.bearer = "token-3"
    with pytest.raises(Transient):
        await store.probe()


async def test_a_token_of_a_service_account_does_all_but_links(harness: AzureHarness, tmp_path: Path) -> None:
    file, second = tmp_path / "token", "the-second-token-4567"
    with givers() as cloud:
        cloud.given = lambda token: setattr(harness.dialect, "bearer", token)
        file.write_text(cloud.believed)
        who = Workload({"tenantId": TENANT, "clientId": CLIENT}, str(file))
        store: Any = harness.made(who, authority=cloud.url)
        assert not isinstance(store, Presigner)
        await store.write("x", chunks(noise(2 * harness.part)), if_absent=True)
        await store.copy("x", "y")
        assert [each.key for each in (await store.list("")).objects] == ["x", "y"] and len(cloud.asked) == 1
        harness.dialect.bearer = "revoked"
        cloud.believed = second  # the kubelet has renewed it
        file.write_text(second)
        await store.delete("y")
        assert await read(store, "x") == noise(2 * harness.part) and len(cloud.asked) == 2
        file.write_text("somebody else's")
        with pytest.raises(AuthFailed, match=r"`clientId` has this subject .*AADSTS700213"):
            await harness.made(who, authority=cloud.url).probe()


def test_a_secret_that_lacks_a_key_has_two_or_a_strange_one() -> None:
    def made(**keys: str) -> AzureStore:
        return open_store("lab", "data", {name: text.encode() for name, text in keys.items()}, **more)

    more: dict[str, Any] = {}
    with pytest.raises(AuthFailed, match="one of the keys"):
        made(hosts="x")
    with pytest.raises(AuthFailed, match="base64"):
        made(azure_storage_key="not base64!")
    with pytest.raises(AuthFailed, match="SAS token"):
        made(azure_storage_sas_token="sv=1")
    with pytest.raises(AuthFailed, match="'azure_client_id'"):
        made(azure_client_secret="a", azure_tenant_id="b")
    with pytest.raises(InvalidRequest, match="tenant"):
        made(azure_client_secret="a", azure_tenant_id="../x", azure_client_id="c")
    with pytest.raises(InvalidRequest, match="not both"):
        made(azure_storage_key=KEY, azure_storage_sas_token="sig=1")
    with pytest.raises(InvalidRequest, match="'connection_string'"):
        made(azure_storage_key=KEY, connection_string="x")
    more = {"endpoint": "http://blob.example.org/lab"}
    assert made(azure_storage_key=KEY).info.kind == "azureBlob"  # the key isn't sent
    with pytest.raises(InvalidRequest, match="TLS"):
        made(azure_storage_sas_token="sv=1&sig=2")
    with pytest.raises(InvalidRequest, match="TLS"):
        made(azure_client_secret="a", azure_tenant_id="b", azure_client_id="c")


INSIDE = [
    "127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "x.localhost", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "100.100.100.200", "2130706433", "localhost.",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    settings = {"endpoint": f"http://{host}:10000/lab", "account": "lab", "container": "data"}
    with pytest.raises(InvalidRequest, match="loopback"):
        maker("azureBlob")(StoreContext("s", settings, KEYS))
    assert maker("azureBlob")(StoreContext("s", settings, KEYS, allow_private=True)).info.strong


async def test_of_azure_if_nothing_else_is_said() -> None:
    store: Any = maker("azureBlob")(StoreContext("s", {"account": "lab", "container": "data"}, KEYS))
    url = await store.presign("a/b", 10**9)
    assert url.startswith("https://lab.blob.core.windows.net/data/a/b?") and "spr=https&" in url
    assert store.info.failure_domain == "azure" and KEY not in repr(store) + url
    await store.close()


# -- the process


async def test_nothing_from_the_environment(harness: AzureHarness) -> None:
    strange = {
        "AZURE_STORAGE_ACCOUNT_NAME": "other", "AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI=", "AZURE_CLIENT_SECRET": "leaked",
        "AZURE_CLIENT_ID": "other", "AZURE_TENANT_ID": "other", "AZURE_STORAGE_SAS_TOKEN": "sig=leaked",
        "AZURE_STORAGE_CONNECTION_STRING": "x", "HTTP_PROXY": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1",
        "ALL_PROXY": "http://127.0.0.1:1", "NETRC": "/dev/null",
    }  # fmt: skip
    program = f"""
import asyncio
from cloudmesh.data.stores.azure import open_store
async def one(n):
    for _ in range(n): yield b"x" * (1 << 20)
async def main():
    store = open_store({ACCOUNT!r}, {harness.container!r}, {KEYS!r}, endpoint={harness.endpoint!r}, part=5 << 20)
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
    told = json.dumps([dict(call.headers) | {"target": call.target} for call in harness.proxy.received])
    assert "leaked" not in told and told.count(f"SharedKey {ACCOUNT}:") == len(harness.proxy.received)


@pytest.mark.parametrize("how", ["known", "unknown"])
async def test_memory_stays_small_whatever_the_size(server: Azurite, harness: AzureHarness, how: str) -> None:
    """160 MiB with parts of 8 MiB: at most what the store tells that it holds."""
    program = f"""
import asyncio, resource
from cloudmesh.data.stores.azure import open_store
async def source():
    for _ in range(160): yield bytes(1 << 20)
async def main():
    store = open_store({ACCOUNT!r}, {harness.container!r}, {KEYS!r}, endpoint={server.url!r})
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


async def test_processes_end_well(server: Azurite, harness: AzureHarness) -> None:
    program = f"""
import asyncio
from cloudmesh.data.stores.azure import open_store
async def one(): yield b"1"
async def main():
    store = open_store({ACCOUNT!r}, {harness.container!r}, {KEYS!r}, endpoint={server.url!r})
    await asyncio.gather(*(store.write(f"k{{n}}", one()) for n in range(30)))
asyncio.run(main())
"""
    for _ in range(4):
        run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
        assert run.returncode == 0, run.stderr.decode()[-2000:]


async def test_a_dead_server_is_transient_and_soon() -> None:
    store = open_store("lab", "data", KEYS, endpoint="http://127.0.0.1:9/lab", call_seconds=2)
    for call in (store.probe(), store.stat("x"), store.write("x", chunks(b"1")), store.delete("x")):
        with pytest.raises(Transient):
            await call
    await store.close()


async def test_what_is_read_of_a_server_that_came_back(harness: AzureHarness, server: Azurite) -> None:
    store = await harness.store()
    seen = await store.write("x", chunks(noise(3 * harness.part)))
    await asyncio.to_thread(server.stop)
    with pytest.raises(Transient):
        await read(store, "x")
    await asyncio.to_thread(server.start)
    assert await read(store, "x", if_tag=seen.tag) == noise(3 * harness.part)
    with pytest.raises(Missing):
        await read(store, "y")
