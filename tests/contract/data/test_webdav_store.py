"""What only WebDAV has: statuses, redirects, TLS, servers with habits of their own, cuts anywhere."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.testbed import pki
from tests.testbed.davserver import PASSWORD, USER, DavServer, dav

from cloudmesh.data.errors import Changed, Full, InvalidName, Missing, ReadOnly
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.records import RECORDS, TEMPORARY
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.data.stores.webdav import WebdavStore
from cloudmesh.data.stores.webdav_client import DavClient
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    NameConflict,
    RateLimited,
    Transient,
    Unsupported,
)
from cloudmesh.testing.proxy import Answer, Call
from cloudmesh.testing.proxy.core import Upstream
from cloudmesh.testing.proxy.tcp import TcpProxy
from cloudmesh.testing.stores import chunks, noise
from cloudmesh.testing.stores.webdav import WebdavHarness

SECRET = {"username": USER.encode(), "password": PASSWORD.encode()}


@pytest.fixture(scope="module")
def server() -> Iterator[DavServer]:
    with dav() as started:
        yield started


@pytest.fixture
async def harness(server: DavServer) -> AsyncIterator[WebdavHarness]:
    made = WebdavHarness(server.url, USER, PASSWORD, server.files, room=False)
    await made.start()
    await made.open()
    yield made
    await made.shut()
    await made.stop()


async def read(store: Store, key: str) -> bytes:
    return b"".join([piece async for piece in store.read(key)])


# -- answers

# status, what a write is told, what a look is told
STATUSES = [
    (301, InvalidRequest, InvalidRequest),
    (307, InvalidRequest, InvalidRequest),
    (400, InvalidRequest, InvalidRequest),
    (401, AuthFailed, AuthFailed),
    (403, ReadOnly, AuthFailed),
    (405, Unsupported, Unsupported),
    (413, InvalidRequest, InvalidRequest),
    (414, InvalidName, InvalidName),
    (423, Conflict, Conflict),
    (429, RateLimited, RateLimited),
    (500, Transient, Transient),
    (501, Unsupported, Unsupported),
    (502, Transient, Transient),
    (503, Transient, Transient),
    (507, Full, Full),
]


@pytest.mark.parametrize(("status", "writing", "looking"), STATUSES)
async def test_statuses(
    harness: WebdavHarness, status: int, writing: type[CloudmeshError], looking: type[CloudmeshError]
) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"old"))
    for method in ("MOVE", "PUT"):
        harness.proxy.add("answer", method, times=None, status=status)
        with pytest.raises(CloudmeshError) as caught:
            await store.write("x", chunks(b"new"))
        assert type(caught.value) is writing, caught.value
        harness.proxy.clear()
    assert await harness.truth() == {"x": b"old"} and await harness.leftovers() == 0
    harness.proxy.add("answer", times=None, status=status)
    for call in (store.stat("x"), store.list(""), read(store, "x"), store.probe()):
        with pytest.raises(looking) as caught_look:
            await call
        assert PASSWORD not in str(caught_look.value)


async def test_the_server_says_how_long_to_wait(harness: WebdavHarness) -> None:
    store = await harness.store()
    for status in (429, 503):
        harness.proxy.clear()
        harness.proxy.add("answer", times=None, status=status, retry_after=7)
        with pytest.raises(RateLimited) as caught:
            await store.delete("x")
        assert caught.value.retry_after == 7


async def test_what_changes_something_goes_out_once_and_looks_up_to_three_times(harness: WebdavHarness) -> None:
    store = await harness.store()
    await store.write("x", chunks(b"1"))
    for method, call in (("MOVE", store.write("x", chunks(b"2"))), ("DELETE", store.delete("x"))):
        harness.proxy.clear()
        before = harness.proxy.count(method)
        harness.proxy.add("answer", method, times=1, status=500)
        with pytest.raises(Transient):
            await call
        assert harness.proxy.count(method) - before == 1
    harness.proxy.clear()
    before = harness.proxy.count("PROPFIND:0")
    harness.proxy.add("answer", "PROPFIND:0", times=None, status=500)
    with pytest.raises(Transient):
        await store.stat("x")
    assert harness.proxy.count("PROPFIND:0") - before == 3


async def test_a_redirect_is_not_followed(harness: WebdavHarness) -> None:
    heard: list[str] = []

    async def elsewhere(request: web.Request) -> web.Response:
        heard.append(request.headers.get("Authorization", ""))
        return web.Response(status=207)

    runner = web.AppRunner(web.Application())
    runner.app.router.add_route("*", "/{path:.*}", elsewhere)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    serve = harness.proxy.dialect.serve

    async def sends_elsewhere(call: Call, upstream: Upstream) -> Answer:
        return Answer(302, b"", {"Location": target})

    harness.proxy.dialect.serve = sends_elsewhere  # type: ignore[method-assign]
    store = await harness.store()
    for call in (store.probe(), store.stat("x"), read(store, "x"), store.write("x", chunks(b"1")), store.delete("x")):
        with pytest.raises(InvalidRequest, match="sends elsewhere"):
            await call
    harness.proxy.dialect.serve = serve  # type: ignore[method-assign]
    await runner.cleanup()
    assert heard == []


# -- listings


def answer(*responses: str) -> str:
    return f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{"".join(responses)}</D:multistatus>'


def response(href: str, props: str, status: str = "HTTP/1.1 200 OK") -> str:
    stat = f"<D:propstat><D:prop>{props}</D:prop><D:status>{status}</D:status></D:propstat>"
    return f"<D:response><D:href>{href}</D:href>{stat}</D:response>"


@pytest.mark.parametrize(
    "text",
    [
        answer(response("/other/", "<D:resourcetype><D:collection/></D:resourcetype>")),
        answer(),
        answer(response("/PLACE/", "<D:resourcetype><D:collection/></D:resourcetype>"), response("/x", "<D:getetag/>")),
        answer(
            response("/PLACE/", "<D:resourcetype><D:collection/></D:resourcetype>"),
            response("/PLACE/../../etc/x", "<D:resourcetype/>"),
        ),
    ],
)
async def test_a_listing_of_something_else_is_no_listing(harness: WebdavHarness, text: str) -> None:
    body = text.replace("PLACE", harness.root.name).encode()

    async def serve(call: Call, upstream: Upstream) -> Answer:
        return Answer(207, body, {"Content-Type": "application/xml"})

    harness.proxy.dialect.serve = serve  # type: ignore[method-assign]
    store = await harness.store()
    with pytest.raises(Transient):
        await store.list("")
    del harness.proxy.dialect.serve  # type: ignore[method-assign]


# -- who is talked to


async def test_tls_with_an_authority_of_ones_own() -> None:
    with dav(tls=True) as server:
        settings = {"endpoint": f"{server.url}/"}
        store = maker("webdav")(
            StoreContext("s", settings, {**SECRET, "ca.crt": server.authority.encode()}, allow_private=True)
        )
        await store.write("x", chunks(b"1"))
        assert (server.files / "x").read_bytes() == b"1" and (await store.probe()).skew_ms is not None
        await store.close()
        other = pki.issue("others").certificate_pem
        for secret in (SECRET, {**SECRET, "ca.crt": other}):
            store = maker("webdav")(StoreContext("s", settings, secret, allow_private=True))
            with pytest.raises(AuthFailed, match="certificate"):
                await store.probe()
            await store.close()
        local = {"endpoint": f"https://localhost:{server.port}/"}
        context = StoreContext("s", local, {**SECRET, "ca.crt": server.authority.encode()}, allow_private=True)
        store = maker("webdav")(context)
        with pytest.raises(AuthFailed, match="certificate"):
            await store.probe()
        await store.close()


def test_a_secret_that_can_not_be_used() -> None:
    def made(**secret: bytes) -> None:
        maker("webdav")(StoreContext("s", {"endpoint": "https://dav.example.org/"}, secret))

    with pytest.raises(AuthFailed, match="'password'"):
        made(username=b"x")
    with pytest.raises(AuthFailed, match="'username'"):
        made(username=b" ", password=b"x")
    with pytest.raises(InvalidRequest, match="'token' isn't used"):
        made(username=b"x", password=b"y", token=b"z")
    with pytest.raises(InvalidRequest, match=r"'ca\.crt' can't be read"):
        made(username=b"x", password=b"y", **{"ca.crt": b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"})


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "169.254.169.254", "0.0.0.0", "x.localhost"])
def test_addresses_of_this_machine_are_refused_unless_allowed(host: str) -> None:
    context = StoreContext("s", {"endpoint": f"http://{host}:8080/"}, SECRET)
    with pytest.raises(InvalidRequest, match="loopback"):
        maker("webdav")(context)
    assert maker("webdav")(replace(context, allow_private=True)).info.kind == "webdav"


async def test_a_name_that_leads_to_this_machine_is_refused(server: DavServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lookup(*_: Any, **__: Any) -> list[Any]:
        return [(2, 1, 6, "", ("127.0.0.1", server.port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    client = DavClient(f"http://files.example.org:{server.port}", USER, PASSWORD, guard=Guard())
    store = WebdavStore(client)
    with pytest.raises(InvalidRequest, match="refused as an endpoint"):
        await store.probe()
    await store.close()


# -- names and what is in the way


@pytest.mark.parametrize(
    "key", ["../out", "a/../../out", "/out", "a//b", "a/./b", "", "a/", f"{TEMPORARY}x", f"{RECORDS}00/x", "a\0b"]
)
async def test_no_way_out(harness: WebdavHarness, key: str) -> None:
    store = await harness.store()
    for call in (store.stat(key), read(store, key), store.write(key, chunks(b"x")), store.delete(key)):
        with pytest.raises(InvalidName):
            await call
    assert harness.proxy.received == []


async def test_a_file_and_a_collection_of_one_name(harness: WebdavHarness) -> None:
    store = await harness.store()
    await store.write("a", chunks(b"1"))
    await store.write("c/d", chunks(b"3"))
    with pytest.raises(NameConflict):
        await store.write("a/b", chunks(b"2"))
    with pytest.raises(NameConflict):
        await store.write("c", chunks(b"4"))
    await store.delete("c")
    assert await harness.truth() == {"a": b"1", "c/d": b"3"} and await harness.leftovers() == 0
    asked = ["a", "a/b", "a/b/c", "c", "c/d", "c/d/e", "c/x", "x/y"]
    assert [await store.blocked(key) for key in asked] == ["", "a", "a", "c", "", "c/d", "", ""]  # type: ignore[attr-defined]


async def test_a_collection_that_appears_at_the_last_moment_is_not_replaced(harness: WebdavHarness) -> None:
    store = await harness.store()
    await store.write("warm", chunks(b"1"))

    def appears(_: Call) -> bool:
        (harness.root / "x").mkdir(exist_ok=True)
        (harness.root / "x/precious").write_bytes(b"theirs")
        for path in (harness.root / "x", harness.root / "x/precious"):
            harness.hand_over(path)
        return False

    harness.proxy.add("answer", "MOVE", when=appears)
    with pytest.raises(NameConflict):
        await store.write("x", chunks(b"mine"))
    assert (await harness.truth())["x/precious"] == b"theirs" and await harness.leftovers() == 0


async def test_what_is_tied_to_a_tag_is_looked_at_again_before_it_is_replaced(harness: WebdavHarness) -> None:
    store = await harness.store()
    seen = await store.write("x", chunks(b"mine"))

    def appears(call: Call) -> bool:
        if RECORDS in call.parameters["Path"]:
            (harness.root / "x").write_bytes(b"theirs!")
        return False

    harness.proxy.add("answer", "PUT", when=appears)
    with pytest.raises(Changed):
        await store.write("x", chunks(b"newer"), if_tag=seen.tag)
    assert await harness.truth() == {"x": b"theirs!"}


async def test_a_collection_that_may_not_be_read_makes_a_listing_incomplete(harness: WebdavHarness) -> None:
    store = await harness.store()
    await store.write("a/x", chunks(b"1"))
    await store.write("b", chunks(b"1"))
    harness.proxy.add(
        "answer", "PROPFIND:1", times=None, status=403, when=lambda call: call.parameters["Path"].endswith("/a/")
    )
    page = await store.list("")
    assert [each.key for each in page.objects] == ["b"] and not page.complete
    with pytest.raises(AuthFailed):
        await store.list("a/")


async def test_a_large_collection_is_read_once_for_all_pages(harness: WebdavHarness) -> None:
    store = await harness.store()
    (harness.root / "many").mkdir()
    for number in range(2500):
        (harness.root / f"many/f{number:04}").write_bytes(b"12")
    found, after = [], ""
    while True:
        page = await store.list("many/", after=after, limit=500)
        found += page.objects
        after = page.after
        if not after:
            break
    assert [each.key for each in found] == [f"many/f{number:04}" for number in range(2500)]
    assert all(each.size == 2 and each.modified and each.tag for each in found)
    assert harness.proxy.count("PROPFIND:1") == 1
    assert len((await store.list("many/")).objects) == 1000 and harness.proxy.count("PROPFIND:1") == 2


# -- servers with habits of their own


def habit(harness: WebdavHarness, change: Callable[[Call, Answer], Answer], before: Callable[[Call], Call]) -> None:
    async def serve(call: Call, upstream: Upstream) -> Answer:
        return change(call, await upstream(before(call)))

    harness.proxy.dialect.serve = serve  # type: ignore[method-assign]


def same(call: Call) -> Call:
    return call


async def test_a_server_that_gives_the_whole_where_a_range_was_asked_for(harness: WebdavHarness) -> None:
    def without(call: Call) -> Call:
        return replace(call, headers={name: text for name, text in call.headers.items() if name.lower() != "range"})

    habit(harness, lambda _, got: got, without)
    store = await harness.store()
    content = noise(500_000)
    await store.write("x", chunks(content))
    for start, length in ((0, None), (1, 10), (300_000, 100_000), (499_999, 5)):
        end = None if length is None else start + length
        assert b"".join([p async for p in store.read("x", start=start, length=length)]) == content[start:end]


async def test_a_server_that_gives_another_tag_by_a_move(harness: WebdavHarness) -> None:
    def tags(call: Call, got: Answer) -> Answer:
        sign = b"t" if TEMPORARY in call.parameters["Path"] else b"f"
        body = got.body.replace(b'getetag>"', b'getetag>"' + sign).replace(b'getetag>W/"', b'getetag>W/"' + sign)
        return Answer(got.status, body, got.headers)

    habit(harness, tags, same)
    store = await harness.store()
    made = await store.write("x", chunks(b"1"), attributes={"id": "7"})
    seen = await store.stat("x")
    assert seen is not None and (seen.tag, seen.attributes) == (made.tag, {"id": "7"}) and made.tag.startswith("f")
    assert await read(store, "x") == b"1"
    assert len(list((harness.root / RECORDS).glob("*/*"))) == 1


async def test_a_server_whose_tags_do_not_tell_contents_apart(harness: WebdavHarness) -> None:
    def tags(_: Call, got: Answer) -> Answer:
        import re

        body = re.sub(rb'getetag>(W/)?"[^"]*"', b'getetag>"second"', got.body)
        return Answer(got.status, body, {k: v for k, v in got.headers.items() if k.lower() != "etag"})

    habit(harness, tags, same)
    store = await harness.store()
    await store.write("x", chunks(b"one"), attributes={"id": "1"})
    with pytest.raises(Transient, match="doesn't tell two contents apart"):
        await store.write("x", chunks(b"two"), attributes={"id": "2"})
    seen = await store.stat("x")
    assert seen is not None and seen.attributes == {"id": "1"} and await harness.truth() == {"x": b"one"}
    assert len(list((harness.root / RECORDS).glob("*/*"))) == 1 and not list((harness.root / TEMPORARY).glob("*"))


async def test_a_server_without_tags_or_quota_is_told(server: DavServer, harness: WebdavHarness) -> None:
    store = await harness.store()
    direct = WebdavStore(DavClient(server.url, USER, PASSWORD))
    with pytest.raises(Unsupported, match="quota"):
        await direct.capacity()
    await direct.close()
    await store.write("x", chunks(b"1"))

    def without(_: Call, got: Answer) -> Answer:
        return Answer(got.status, got.body.replace(b"getetag", b"other"), got.headers)

    habit(harness, without, same)
    with pytest.raises(Unsupported, match="entity tag"):
        await store.stat("x")


async def test_a_server_that_keeps_less_than_it_got(harness: WebdavHarness) -> None:
    def half(call: Call) -> Call:
        return replace(call, body=call.body[: len(call.body) // 2]) if call.method == "PUT" else call

    habit(harness, lambda _, got: got, half)
    store = await harness.store()
    with pytest.raises(Transient, match="came back"):
        await store.write("x", chunks(b"content"))
    assert await harness.truth() == {} and await harness.leftovers() == 0


# -- what breaks


async def test_a_read_goes_on_where_it_broke_and_not_with_another_content(server: DavServer) -> None:
    async with TcpProxy(server.host, server.port) as proxy:
        store = WebdavStore(DavClient(f"http://127.0.0.1:{proxy.port}", USER, PASSWORD, seconds=5.0))
        content = noise(5_000_000)
        await store.write("long", chunks(content))
        for count in (700_000, 4_000_000):
            proxy.cut_after("down", count)
            assert await read(store, "long") == content
        got = b""

        async def replaced() -> None:
            nonlocal got
            async for piece in store.read("long"):
                if not got:
                    await store.write("long", chunks(noise(5_000_000, 1)))
                    proxy.cut()
                got += piece

        with pytest.raises(Changed):
            await replaced()
        assert content.startswith(got)
        await store.delete("long")
        await store.close()


async def test_a_file_that_is_changed_in_place_while_it_is_read(harness: WebdavHarness) -> None:
    store = await harness.store()
    await store.write("x", chunks(noise(6 << 20)))

    async def meddled() -> None:
        async for _ in store.read("x"):
            with (harness.root / "x").open("r+b") as file:
                file.write(b"somebody else")

    with pytest.raises(Changed):
        await meddled()
    with pytest.raises(Missing):
        await read(store, "y")


@pytest.mark.parametrize("tenth", range(11))
async def test_a_cut_at_each_tenth_of_an_overwrite_leaves_the_old_or_the_new(
    server: DavServer, harness: WebdavHarness, tenth: int
) -> None:
    """Each further connection is refused, so that nothing is mended."""
    async with TcpProxy(server.host, server.port) as proxy:
        client = DavClient(f"http://127.0.0.1:{proxy.port}/{harness.root.name}", USER, PASSWORD, seconds=5.0)
        store = WebdavStore(client)
        old, new = noise(300_000), noise(400_000, 1)
        await store.write("x", chunks(old), attributes={"id": "old"})
        proxy.cut_after("up", 1 + tenth * 40_250)
        proxy.refuse = True
        write: Awaitable[object] = store.write("x", chunks(new), attributes={"id": "new"})
        (result,) = await asyncio.gather(write, return_exceptions=True)
        there = (await harness.truth())["x"]
        assert there in (old, new)
        if not isinstance(result, Transient):
            assert there == new
        await store.close()
        fresh = await harness.store()
        seen = await fresh.stat("x")
        assert seen is not None and seen.attributes == {"id": "old" if there == old else "new"}
        await fresh.sweep("", 0)  # type: ignore[attr-defined]
        assert await harness.leftovers() == 0 and await read(fresh, "x") == there


async def test_a_server_that_takes_no_more_of_a_content_is_given_up(server: DavServer, harness: WebdavHarness) -> None:
    async with TcpProxy(server.host, server.port) as proxy:
        client = DavClient(f"http://127.0.0.1:{proxy.port}/{harness.root.name}", USER, PASSWORD, seconds=1.0)
        store = WebdavStore(client)
        await store.write("x", chunks(b"old"))

        async def source() -> AsyncIterator[bytes]:
            for number in range(64):
                if number == 2:
                    proxy.stall()
                yield noise(1 << 20)

        async with asyncio.timeout(20):
            with pytest.raises(Transient):
                await store.write("x", source())
        await store.close()
        assert await harness.truth() == {"x": b"old"}


async def test_a_server_that_is_killed_in_mid_transfer_and_comes_back() -> None:
    with dav() as server:
        store = WebdavStore(DavClient(server.url, USER, PASSWORD, seconds=5.0))
        await store.write("x", chunks(b"old"))

        async def source() -> AsyncIterator[bytes]:
            for number in range(6):
                yield noise(1 << 20, number)
                if number == 3:
                    server.stop()

        with pytest.raises(Transient):
            await store.write("x", source())
        with pytest.raises(Transient):
            await store.stat("x")
        assert (server.files / "x").read_bytes() == b"old"
        server.start()
        assert await read(store, "x") == b"old"
        await store.sweep("", 0)
        assert (await store.write("x", chunks(b"new"))).size == 3
        # what Apache itself had begun is hidden by it, and so not ours to remove
        assert all(path.name.startswith(".davfs.tmp") for path in (server.files / TEMPORARY).iterdir())
        await store.close()


async def anybodys(_: str) -> bool:
    """Says of each key that it is ours."""
    return True


async def test_records_of_files_that_are_gone_are_swept_and_strange_ones(harness: WebdavHarness) -> None:
    store = await harness.store()
    for key in ("x", "y"):
        await store.write(key, chunks(b"1"), attributes={"id": key})
    (harness.root / "x").unlink()
    await harness.meddle(f"{TEMPORARY}left", b"half")
    strange = b'{"key": "../../etc/passwd", "mark": "1-1", "write": "", "attributes": {}}'
    await harness.meddle(f"{RECORDS}00/strange", strange)
    assert await store.sweep("", 3600) == 0  # type: ignore[attr-defined]
    # these tell no key, and others may just be writing them
    assert await store.sweep("", -1, ours=anybodys) == 0  # type: ignore[attr-defined]
    assert await store.sweep("", -1) == 3  # type: ignore[attr-defined]
    assert await store.sweep("", -1) == 0  # type: ignore[attr-defined]
    seen = await store.stat("y")
    assert seen is not None and seen.attributes == {"id": "y"}


async def test_memory_stays_small_whatever_the_size(server: DavServer, tmp_path: Path) -> None:
    """200 MiB, of a size that isn't known."""
    program = f"""
import asyncio, resource
from cloudmesh.data.stores.webdav import WebdavStore
from cloudmesh.data.stores.webdav_client import DavClient
async def source(count):
    for _ in range(count): yield bytes(1 << 20)
async def main():
    store = WebdavStore(DavClient({server.url!r}, {USER!r}, {PASSWORD!r}))
    await store.write("warm", source(4))
    assert sum([len(c) async for c in store.read("warm")]) == 4 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await store.write("large", source(200))
    assert sum([len(c) async for c in store.read("large")]) == 200 << 20
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    await store.delete("large")
    await store.close()
asyncio.run(main())
"""
    run = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()[-2000:]
    assert int(run.stdout) < 16 << 10, f"{int(run.stdout)} KiB"
