"""What only Swift has: logins and tokens, segments and manifests, its errors, and a server of which a part is away."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.testbed import swiftserver
from tests.testbed.swiftserver import KEY, KEYSTONE_PASSWORD, KEYSTONE_PROJECT, KEYSTONE_USER, REGION, USER, SwiftServer

from cloudmesh.data.errors import Changed, Exists, Full, Missing
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.data.stores.swift import SwiftStore, _check, make
from cloudmesh.data.stores.swift_auth import V1, Login, Tokens
from cloudmesh.data.stores.swift_segments import FOLDER
from cloudmesh.data.stores.swift_words import packed, unpacked
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, InvalidRequest, RateLimited, Transient, Unsupported
from cloudmesh.testing.proxy import Answer, Call
from cloudmesh.testing.proxy.core import Upstream
from cloudmesh.testing.proxy.swift import SwiftDialect
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.swift import LINK_KEY, SwiftHarness

KEYS = {"username": USER.encode(), "password": KEY.encode()}
KEYSTONE = {"username": KEYSTONE_USER.encode(), "password": KEYSTONE_PASSWORD.encode()}
PART = 64 << 10
NOT_LOGIN = "(?!Login).*"


@pytest.fixture(scope="module")
def server() -> Iterator[SwiftServer]:
    with swiftserver.swift() as started:
        yield started


@pytest.fixture(scope="module")
def keystone() -> Iterator[SwiftServer]:
    """One of its own: it shows each token to Keystone, those of Swift's own login too, and is slow."""
    with swiftserver.swift(keystone=True) as started:
        yield started


@pytest.fixture
async def harness(server: SwiftServer) -> AsyncIterator[SwiftHarness]:
    made = SwiftHarness(server.url, USER, KEY)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


async def small(harness: SwiftHarness, fan: int = 6, seconds: float = 20.0) -> SwiftStore:
    """A store with small parts, by the proxy."""
    auth = V1(f"{harness.proxy.url}/auth/v1.0", USER, KEY)
    store = SwiftStore(auth, harness.container, part=PART, fan=fan, call_seconds=seconds)
    harness._stores.append(store)
    return store


async def got(store: SwiftStore, key: str, **more: Any) -> bytes:
    return b"".join([piece async for piece in store.read(key, **more)])


# status, words, what is told; of a write's own call, of a listing, of a delete's own call, of a read
ERRORS = [
    (403, "Forbidden", AuthFailed),
    (401, "Unauthorized", AuthFailed),
    (400, "Bad Request", InvalidRequest),
    (413, "Upload exceeds quota.", Full),
    (413, "Request Entity Too Large", InvalidRequest),
    (507, "Insufficient Storage", Full),
    (429, "Too Many Requests", RateLimited),
    (498, "Rate Limited", RateLimited),
    (501, "Not Implemented", Unsupported),
    (408, "Request Timeout", Transient),
    (409, "Conflict", Transient),
    (422, "Unprocessable Entity", Transient),
    (499, "Client Disconnect", Transient),
    (500, "Internal Error", Transient),
    (503, "Service Unavailable", Transient),
]


@pytest.mark.parametrize(("status", "words", "kind"), ERRORS)
async def test_errors_are_told_in_our_words(
    harness: SwiftHarness, status: int, words: str, kind: type[CloudmeshError]
) -> None:
    store = await small(harness)
    await store.write("x", chunks(b"1"))
    harness.proxy.add("answer", "PutObject|ListObjects|DeleteObject|GetObject", times=None, status=status, code=words)
    for call in (store.write("x", chunks(b"2")), store.list(""), store.delete("x"), got(store, "x")):
        with pytest.raises(CloudmeshError) as caught:
            await call
        assert type(caught.value) is kind, caught.value
        assert KEY not in str(caught.value) and words in str(caught.value)
    assert await harness.truth() == {"x": b"1"}


async def test_the_store_says_how_long_to_wait(harness: SwiftHarness) -> None:
    store = await small(harness)
    harness.proxy.add("answer", NOT_LOGIN, times=None, status=498, code="Rate Limited", retry_after=7)
    with pytest.raises(RateLimited) as caught:
        await store.list("")
    assert caught.value.retry_after == 7


async def test_calls_that_change_something_go_out_once_and_others_up_to_three_times(harness: SwiftHarness) -> None:
    store = await small(harness)
    await store.write("x", chunks(b"1"))  # from here on there is a connection to be used again
    for action in ("cut_before", "cut_after", "answer"):
        harness.proxy.clear()
        harness.proxy.calls.clear()
        names = "PutObject|DeleteObject|ListObjects|GetObject"
        harness.proxy.add(action, names, times=None, status=503, code="Service Unavailable")
        for call in (store.write("x", chunks(b"1")), store.delete("x"), store.list(""), got(store, "x")):
            with pytest.raises(Transient):
                await call
        counts = [harness.proxy.count(name) for name in names.split("|")]
        assert counts == [1, 1, 3, 3], action
        harness.proxy.clear()
        await store.write("x", chunks(b"1"))


async def test_a_refused_token_is_renewed_and_nothing_is_lost(harness: SwiftHarness) -> None:
    store = await small(harness)
    await store.write("x", chunks(noise(5 * PART)))
    for operation in ("HeadObject", "PutObject", "PutSegment", "PutManifest", "GetObject", "ListObjects"):
        harness.proxy.calls.clear()
        harness.proxy.add("answer", operation, status=401, code="Unauthorized")
        await store.write("x", chunks(noise(PART)))
        await store.write("x", chunks(noise(5 * PART, 1)))
        assert await got(store, "x") == noise(5 * PART, 1)
        assert [each.key for each in (await store.list("")).objects] == ["x"]
        assert harness.proxy.count("Login") == 1, operation
    assert await harness.leftovers() == 0


async def test_tokens_are_renewed_before_they_end_and_asked_for_once() -> None:
    class Counted:
        logins = 0

        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def login(self, session: object) -> Login:
            await asyncio.sleep(0)
            self.logins += 1
            if self.seconds < 0:
                raise AuthFailed("refused")
            return Login(f"t{self.logins}", "https://swift.example.org/v1/a", self.seconds)

    async def session() -> Any:
        return None

    lasting, ended, refused = Counted(3600), Counted(0), Counted(-1)
    tokens = Tokens(lasting, lambda _: None)
    assert {found.token for found in await asyncio.gather(*(tokens.get(session) for _ in range(20)))} == {"t1"}
    tokens.drop(Login("t0", "", 1))  # an older one
    assert (await tokens.get(session)).token == "t1"
    tokens.drop(await tokens.get(session))
    assert (await tokens.get(session)).token == "t2"
    short = Tokens(ended, lambda _: None)
    assert [(await short.get(session)).token for _ in range(3)] == ["t1", "t2", "t3"]
    wrong = Tokens(refused, lambda _: None)
    for _ in range(3):
        with pytest.raises(AuthFailed):
            await wrong.get(session)
    assert refused.logins == 1  # who tries too often is locked out


# -- large objects


async def test_segments_keep_their_order_whichever_arrives_first(harness: SwiftHarness) -> None:
    store = await small(harness)
    harness.proxy.add("delay", "PutSegment", seconds=0.3)
    harness.proxy.add("delay", "PutSegment", skip=2, seconds=0.2)
    content = noise(11 * PART + 5)
    await store.write("x", chunks(content, size=50_001))
    assert (await harness.truth())["x"] == content


async def test_manifests_of_manifests_are_one_object(harness: SwiftHarness) -> None:
    store = await small(harness)
    content = noise(20 * PART + 1)
    made = await store.write("a/x", chunks(content), attributes={"id": "1"})
    seen = await store.stat("a/x")
    assert seen is not None and (seen.tag, seen.size, seen.attributes) == (made.tag, len(content), {"id": "1"})
    assert (await store.list("")).objects == (
        replace(seen, modified=(await store.list("")).objects[0].modified, attributes={}),
    )
    assert await got(store, "a/x", start=3 * PART - 1, length=10 * PART) == content[3 * PART - 1 :][: 10 * PART]
    assert await store.sweep("", 0) == 0
    await store.copy("a/x", "b", if_tag=made.tag)
    await store.delete("a/x", if_tag=made.tag)
    assert await harness.truth() == {"b": content} and await harness.leftovers() == 0
    await store.write("b", chunks(b"small"))
    assert await harness.keys() == ["b"]


async def test_more_than_manifests_can_hold_is_refused(harness: SwiftHarness) -> None:
    store = await small(harness, fan=2)
    with pytest.raises(InvalidRequest, match="larger"):
        await store.write("x", chunks(noise(4 * PART + 1)))
    assert await harness.keys() == []


async def test_a_manifest_that_gets_no_answer_in_time_keeps_its_segments_for_a_sweep(harness: SwiftHarness) -> None:
    store = await small(harness, seconds=1.0)
    await store.write("x", chunks(b"old"))
    harness.proxy.add("hang", "PutManifest")
    with pytest.raises(Transient):
        await store.write("x", chunks(noise(3 * PART)))
    assert await harness.truth() == {"x": b"old"} and await harness.leftovers() == 1
    assert await store.sweep("", 3600) == 0 and await store.sweep("y", 0) == 0
    assert await store.sweep("x", 0) == 1
    assert await harness.keys() == ["x"]


async def test_a_killed_writer_leaves_what_a_sweep_takes_away(harness: SwiftHarness) -> None:
    program = f"""
import asyncio, os, signal
from cloudmesh.data.stores.swift import SwiftStore
from cloudmesh.data.stores.swift_auth import V1
async def source():
    for _ in range(6): yield bytes({PART})
    await asyncio.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    store = SwiftStore(V1({harness.proxy.url + "/auth/v1.0"!r}, {USER!r}, {KEY!r}), {harness.container!r}, part={PART})
    await store.write("x", source())
asyncio.run(main())
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == -9, run.stderr.decode()[-2000:]
    assert await harness.truth() == {} and await harness.leftovers() == 1
    store = await small(harness)

    async def ours(key: str) -> bool:
        return key != "x"

    assert await store.sweep("", 0, ours=ours) == 0
    assert await store.sweep("", 3600) == 0 and await store.sweep("", 0) == 1
    assert await harness.keys() == []


async def test_segments_of_others_stay_whatever_becomes_of_the_object(harness: SwiftHarness) -> None:
    store = await small(harness)
    for number in range(2):
        await harness.ask("PUT", f"/theirs/{number}", noise(1000, number))
    listed = [{"path": f"/{harness.container}/theirs/{number}"} for number in range(2)]
    await harness.ask("PUT", "/big?multipart-manifest=put", json.dumps(listed).encode())
    content = noise(1000) + noise(1000, 1)
    assert await got(store, "big") == content
    made = await store.copy("big", "copy")
    seen = await store.stat("copy")
    assert seen is not None and seen.tag == made.tag and await got(store, "copy") == content
    await store.write("big", chunks(b"ours"))
    await store.delete("big")
    assert await harness.keys() == ["copy", "theirs/0", "theirs/1"]


class Bent(SwiftDialect):
    """A Swift behind something that changes what goes through."""

    def __init__(self, operation: str, change: Any) -> None:
        self.operation, self.change = operation, change

    async def serve(self, call: Call, upstream: Upstream) -> Answer:
        if call.operation == self.operation or (self.operation == "Manifest" and "multipart-manifest" in call.target):
            call = self.change(call)
        return await super().serve(call, upstream)


async def test_what_is_damaged_on_its_way_is_refused_by_the_server(harness: SwiftHarness) -> None:
    store = await small(harness)
    for operation, size in (("PutObject", 100), ("PutSegment", 3 * PART)):
        harness.proxy.dialect = Bent(operation, lambda call: replace(call, body=b"\0" + call.body[1:]))
        with pytest.raises(Transient, match="422"):
            await store.write("x", chunks(noise(size)))
        harness.proxy.dialect = SwiftDialect()
        assert await harness.keys() == []


async def test_where_manifests_are_not_known_nothing_is_taken_for_one(harness: SwiftHarness) -> None:
    store = await small(harness)
    harness.proxy.dialect = Bent("Manifest", lambda call: replace(call, target=call.target.partition("?")[0]))
    with pytest.raises(Unsupported, match="slo"):
        await store.write("x", chunks(noise(3 * PART)))
    assert await harness.keys() == []
    await store.write("x", chunks(noise(PART)))


# -- names, attributes, listings


def test_long_attributes_go_into_several_headers() -> None:
    texts = {"a": "x" * 256, "b": "y" * 255 + " " + "z" * 600, "c-1": "w" * 256 + " v", "d": "q"}
    headers = packed(texts)
    assert all(len(value) <= 256 and value == value.strip() for value in headers.values())
    assert unpacked({name.title(): value for name, value in headers.items()}) == texts


async def test_long_attributes_come_back(harness: SwiftHarness) -> None:
    store = await small(harness)
    texts = {"path": "é".encode().hex() * 120 + " " + "x" * 500}
    await store.write("x", chunks(b"1"), attributes=texts)
    await store.copy("x", "y")
    for key in ("x", "y"):
        seen = await store.stat(key)
        assert seen is not None and seen.attributes == texts


async def test_a_listing_steps_over_segments(harness: SwiftHarness) -> None:
    store = await small(harness)
    keys = ["!first", ".cloudmesh/journal", ".cloudmesh/store.json", "a", "b"]
    for key in keys:
        await store.write(key, chunks(noise(5 * PART) if key == "b" else b"1"))
    found, after = [], ""
    while True:
        page = await store.list("", after=after, limit=2)
        found += [each.key for each in page.objects]
        after = page.after
        if not after:
            break
    assert found == keys
    assert any(key.startswith(FOLDER) for key in await harness.keys())


async def test_conditions_are_looked_at_since_the_server_ties_no_write_to_them(harness: SwiftHarness) -> None:
    store = await small(harness)
    assert (store.info.conditional, store.info.strong, store.info.listing) == ("None", False, "Eventual")
    first = await store.write("x", chunks(b"1"), if_absent=True)
    for size in (1, 3 * PART):
        with pytest.raises(Exists):
            await store.write("x", chunks(noise(size)), if_absent=True)
        with pytest.raises(Changed):
            await store.write("x", chunks(noise(size)), if_tag="0" * 32)
        with pytest.raises(Changed):
            await store.write("y", chunks(noise(size)), if_tag=first.tag)
    assert await harness.keys() == ["x"]
    # what comes between the look and the write is refused by the server, if it is there already
    harness.proxy.add("answer", "HeadObject", status=404, code="Not Found")
    with pytest.raises(Exists):
        await store.write("x", chunks(b"2"), if_absent=True)


# -- powers


async def test_capacity_is_told_where_there_is_a_quota(harness: SwiftHarness) -> None:
    store = await small(harness)
    await harness.ask("POST", "", X_Container_Meta_Quota_Bytes="1000")
    assert await store.capacity() == (0, 1000)
    await harness.ask("POST", "", X_Remove_Container_Meta_Quota_Bytes="x")
    assert await store.capacity() is None


def test_links_are_made_where_there_is_a_key() -> None:
    settings = {"authUrl": "https://swift.example.org/auth/v1.0", "container": "lab"}
    assert not hasattr(make(StoreContext("s", settings, KEYS)), "presign")
    assert hasattr(make(StoreContext("s", settings, {**KEYS, "temp_url_key": LINK_KEY.encode()})), "presign")


# -- Keystone


async def keystone_store(keystone: SwiftServer, secret: dict[str, bytes], **settings: str) -> SwiftStore:
    told = {"authUrl": keystone.keystone_url, "container": "keystone", "region": REGION, **settings}
    return make(StoreContext("s", told, secret, allow_private=True))


async def test_keystone_with_a_password(keystone: SwiftServer) -> None:
    store = await keystone_store(keystone, KEYSTONE, project=KEYSTONE_PROJECT)
    with pytest.raises(InvalidRequest, match="no container 'keystone'"):
        await store.probe()
    login = await store._client.login()
    assert login.url.startswith(f"{keystone.url}/v1/AUTH_") and 3000 < login.seconds <= 3600
    await asyncio.to_thread(swiftserver._ask, "PUT", f"{login.url}/keystone", None, {"X-Auth-Token": login.token})
    await store.write("x", chunks(b"by keystone"))
    # a token that is revoked is renewed
    gone = {"X-Auth-Token": login.token, "X-Subject-Token": login.token}
    await asyncio.to_thread(swiftserver._ask, "DELETE", f"{keystone.keystone_url}/auth/tokens", None, gone)
    store._client._tokens._login = replace(login, token="gAAAAA-revoked")
    assert await got(store, "x") == b"by keystone"
    await store.close()


async def test_keystone_with_an_application_credential(keystone: SwiftServer) -> None:
    def credential() -> dict[str, bytes]:
        (user,) = keystone.keystone("GET", f"/users?name={KEYSTONE_USER}")["users"]
        asked = {"application_credential": {"name": "cloudmesh", "roles": [{"name": "admin"}]}}
        made = keystone.keystone("POST", f"/users/{user['id']}/application_credentials", asked)[
            "application_credential"
        ]
        return {
            "application_credential_id": made["id"].encode(),
            "application_credential_secret": made["secret"].encode(),
        }

    store = await keystone_store(keystone, await asyncio.to_thread(credential))
    login = await store._client.login()
    await asyncio.to_thread(swiftserver._ask, "PUT", f"{login.url}/keystone", None, {"X-Auth-Token": login.token})
    await store.write("y", chunks(b"1"))
    assert [each.key for each in (await store.list("y")).objects] == ["y"]
    await store.close()


@pytest.mark.parametrize(
    ("secret", "settings", "kind", "words"),
    [
        ({"password": b"wrong-password-77"}, {}, AuthFailed, "the login is refused"),
        ({}, {"project": "nobodys"}, AuthFailed, "the login is refused"),
        ({}, {"region": "nowhere"}, InvalidRequest, "no object store in region 'nowhere', but in: 'RegionOne', 'else"),
        ({}, {"region": ""}, InvalidRequest, "`spec.swift.region` must name one of the object store's regions"),
        ({}, {"authUrl": "/nothing/v3"}, InvalidRequest, "is `spec.swift.authUrl` right?"),
    ],
)
async def test_keystone_refuses(
    keystone: SwiftServer, secret: dict[str, bytes], settings: dict[str, str], kind: type[CloudmeshError], words: str
) -> None:
    if "authUrl" in settings:
        settings = {"authUrl": keystone.keystone_url.removesuffix("/v3") + settings["authUrl"]}
    store = await keystone_store(keystone, KEYSTONE | secret, **{"project": KEYSTONE_PROJECT, **settings})
    with pytest.raises(kind) as caught:
        await store.probe()
    told = str(caught.value)
    assert words.partition(", but in")[0] in told
    for password in (KEYSTONE_PASSWORD, "wrong-password-77"):
        assert password not in told
    await store.close()


SETTINGS = {"authUrl": "https://keystone.example.org:5000/v3", "container": "lab", "project": "physics"}
V1_SETTINGS = {"authUrl": "https://swift.example.org/auth/v1.0", "container": "lab"}
APPLICATION = {"application_credential_id": b"a", "application_credential_secret": b"b"}


@pytest.mark.parametrize(
    ("settings", "secret", "kind", "words"),
    [
        (SETTINGS, {"username": b"u"}, AuthFailed, "lacks the key 'password'"),
        (SETTINGS, {"password": b"p", "username": b" "}, AuthFailed, "lacks the key 'username'"),
        (SETTINGS, {"application_credential_id": b"a"}, AuthFailed, "'application_credential_secret'"),
        (SETTINGS, {**KEYS, **APPLICATION}, InvalidRequest, "either"),
        (SETTINGS, APPLICATION, InvalidRequest, "`spec.swift.project` can't be set"),
        ({**SETTINGS, "project": ""}, KEYS, InvalidRequest, "`spec.swift.project` must be set"),
        (V1_SETTINGS, APPLICATION, InvalidRequest, "knows no application credentials"),
        (SETTINGS, {**KEYS, "profile": b"x"}, InvalidRequest, "'profile'"),
    ],
)
def test_secrets_and_settings_that_do_not_go_together(
    settings: dict[str, str], secret: dict[str, bytes], kind: type[CloudmeshError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        make(StoreContext("s", settings, secret))


INSIDE = [
    "127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "x.localhost", "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "100.100.100.200", "2130706433", "localhost.",
]  # fmt: skip


@pytest.mark.parametrize("host", INSIDE)
def test_addresses_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    settings = {**V1_SETTINGS, "authUrl": f"http://{host}:8080/auth/v1.0"}
    with pytest.raises(InvalidRequest, match="loopback"):
        make(StoreContext("s", settings, KEYS))
    with pytest.raises(InvalidRequest, match="loopback"):
        _check(f"http://{host}:8080/v1/a", Guard(), False)
    made = maker("swift")(StoreContext("s", settings, KEYS, allow_private=True))
    assert made.info.kind == "swift" and made.info.failure_domain == host.strip("[]")
    assert KEY not in repr(made)


def test_a_token_of_a_safe_login_is_not_sent_in_the_clear() -> None:
    with pytest.raises(InvalidRequest, match="TLS"):
        _check("http://swift.example.org/v1/a", Guard(), True)
    _check("https://swift.example.org/v1/a", Guard(), True)


# -- servers and processes


async def test_without_its_container_server_objects_are_read_and_no_absence_is_believed(
    server: SwiftServer, harness: SwiftHarness
) -> None:
    store = await small(harness)
    await store.write("x", chunks(b"there"))
    await asyncio.to_thread(server.end, "container")
    try:
        assert await got(store, "x") == b"there"
        for call in (store.list(""), store.stat("y"), got(store, "y"), store.delete("y"), store.probe()):
            with pytest.raises(CloudmeshError) as caught:
                await call
            assert isinstance(caught.value, Transient) and not isinstance(caught.value, Missing)
    finally:
        server.begin("container")
        await asyncio.to_thread(server.wait_for, "container")


async def test_a_dead_server_is_transient_and_soon() -> None:
    store = SwiftStore(V1("http://127.0.0.1:9/auth/v1.0", "u", "k"), "lab", call_seconds=2)
    for call in (store.probe(), store.stat("x"), store.write("x", chunks(b"1")), store.delete("x")):
        with pytest.raises(Transient):
            await call
    await store.close()
    with pytest.raises(Transient, match="closed"):
        await store.probe()


async def test_processes_end_well_and_memory_stays_small(server: SwiftServer, harness: SwiftHarness) -> None:
    """160 MiB with parts of 8 MiB: at most the parts in flight and a few more are held."""
    program = f"""
import asyncio, resource
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.data.stores.swift import make
async def source():
    for _ in range(160): yield bytes(1 << 20)
async def one(): yield b"1"
async def main():
    settings = {{"authUrl": {server.auth_url!r}, "container": {harness.container!r}}}
    store = make(StoreContext("s", settings, {KEYS!r}, allow_private=True))
    await asyncio.gather(*(store.write(f"k{{n}}", one()) for n in range(10)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store.write("x", source())
    assert sum([len(c) async for c in store.read("x")]) == 160 << 20
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.close()
asyncio.run(main())
"""
    run = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "error", "-c", program], capture_output=True, check=False
    )
    assert run.returncode == 0 and not run.stderr, run.stderr.decode()[-2000:]
    assert int(run.stdout) < 110_000, f"{int(run.stdout)} KiB more"
