"""WebDAV: what no suite of others asks."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.unit.data.gateway_scene import AUTH, Answer, Served, basic, until

from cloudmesh.data.config import AccessRule, AuthConfig
from cloudmesh.engine.errors import Transient

LOCKINFO = (
    b'<D:lockinfo xmlns:D="DAV:"><D:lockscope><D:%s/></D:lockscope><D:locktype><D:write/></D:locktype>'
    b"<D:owner>me</D:owner></D:lockinfo>"
)
D = "{DAV:}"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path) as started:
        yield started


def patch(inner: str) -> bytes:
    return f'<D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:x">{inner}</D:propertyupdate>'.encode()


def put_property(name: str, value: str = "v") -> bytes:
    return patch(f"<D:set><D:prop><x:{name}>{value}</x:{name}></D:prop></D:set>")


def find(served: Served, path: str, depth: str = "0", body: bytes | None = None, user: str = "ada") -> Answer:
    return served.ask("PROPFIND", path, body, {"Depth": depth}, user=user)


def hrefs(answer: Answer) -> list[str]:
    assert answer.status == 207, answer.body
    return [str(one.text) for one in ElementTree.fromstring(answer.body).iter(f"{D}href")]


def lock(served: Served, path: str, scope: bytes = b"exclusive", user: str = "ada", **headers: str) -> str:
    answer = served.ask("LOCK", path, LOCKINFO % scope, headers, user=user)
    assert answer.status in (200, 201), answer.body
    return answer.headers["Lock-Token"]


def test_a_file_goes_in_and_out_and_is_the_same_as_by_rest(served: Served) -> None:
    assert served.ask("MKCOL", "/dav/a").status == 201
    put = served.ask("PUT", "/dav/a/b%20%C3%BC", b"content", {"X-OC-Mtime": "1600000000.5"})
    assert (put.status, put.headers["X-OC-Mtime"]) == (201, "accepted")
    stat = served.ask("GET", "/v1/stat/a/b%20%C3%BC").json
    assert (stat["etag"], stat["modified"]) == (put.headers["ETag"], "2020-09-13T12:26:40.000000Z")
    part = served.ask("GET", "/dav/a/b%20%C3%BC", headers={"Range": "bytes=3-5"})
    assert (part.status, part.body) == (206, b"ten")
    assert served.ask("PUT", "/dav/a/b%20%C3%BC", b"other", {"If-Match": '"x"'}).status == 412
    assert served.ask("PUT", "/dav/a/b%20%C3%BC", b"other", {"If-None-Match": "*"}).status == 412
    assert served.ask("PUT", "/dav/a/b%20%C3%BC", b"o", {"Content-Range": "bytes 0-0/1"}).status == 400
    assert served.ask("PUT", "/dav/a/c/", b"o").status == 405
    assert served.ask("PUT", "/dav/no/c", b"o").status == 409
    assert served.ask("GET", "/dav/a").status == 200
    assert served.ask("DELETE", "/dav/a", headers={"Depth": "0"}).status == 400
    assert served.ask("DELETE", "/dav/a").status == 204
    assert [t["path"] for t in served.ask("GET", "/v1/trash").json["entries"]] == ["a"]


def test_it_asks_who_you_are_and_can_be_closed(served: Served) -> None:
    answer = find(served, "/dav/", user="")
    assert answer.status == 401
    assert "Basic" in answer.headers["WWW-Authenticate"]
    assert served.ask("OPTIONS", "/dav/", user="").headers["DAV"] == "1, 2"
    assert served.ask("POST", "/dav/a").status == 405
    served.reconfigure(webdav=False)
    assert find(served, "/dav/").status == 404
    assert served.ask("GET", "/v1/list/").status == 200


def test_a_path_rule_holds_and_hides(tmp_path: Path) -> None:
    rules = (
        AccessRule(path="secret/**", users=("bob",), access="None"),
        AccessRule(path="open/shut/**", users=("bob",), access="None"),
        AccessRule(path="read/**", users=("bob",), access="ReadOnly"),
    )
    with Served(tmp_path, auth=AuthConfig(kubernetes=False, basic=AUTH.basic, rules=rules)) as served:
        for path in ("secret/a", "open/shut/a", "open/b", "read/a"):
            assert served.ask("PUT", f"/v1/files/{path}", b"x").status == 201
        assert hrefs(find(served, "/dav/", "1", user="bob")) == ["/dav/", "/dav/open/", "/dav/read/"]
        for method, path, headers in (
            ("PROPFIND", "/dav/secret", {"Depth": "0"}),
            ("GET", "/dav/secret/a", {}),
            ("PUT", "/dav/read/a", {}),
            ("DELETE", "/dav/read/a", {}),
            ("DELETE", "/dav/open", {}),
            ("MOVE", "/dav/open", {"Destination": "/dav/new"}),
            ("MOVE", "/dav/read/a", {"Destination": "/dav/new"}),
            ("COPY", "/dav/secret/a", {"Destination": "/dav/new"}),
            ("COPY", "/dav/open/b", {"Destination": "/dav/read/b"}),
            ("MKCOL", "/dav/read/b", {}),
            ("PROPPATCH", "/dav/read/a", {}),
            ("LOCK", "/dav/read/a", {}),
        ):
            answer = served.ask(method, path, headers=headers, user="bob")
            assert answer.status == 403, (method, path, answer.status, answer.body)
        assert served.ask("LOCK", "/dav/open", LOCKINFO % b"shared", user="bob").status == 403
        assert served.ask("LOCK", "/dav/open", LOCKINFO % b"shared", {"Depth": "0"}, user="bob").status == 200
        assert served.ask("COPY", "/dav/open", headers={"Destination": "/dav/new"}, user="bob").status == 201
        listed = served.ask("GET", "/v1/list/new?recursive=true").json["entries"]
        assert [one["path"] for one in listed] == ["new/b"], "what is hidden from a user isn't copied for them"


def test_a_quota_that_is_used_up_is_507(tmp_path: Path) -> None:
    with Served(tmp_path, quota_bytes=10) as served:
        assert served.ask("PUT", "/dav/a", b"x" * 8).status == 201
        assert served.ask("PUT", "/dav/b", b"x" * 8).status == 507
        assert served.ask("COPY", "/dav/a", headers={"Destination": "/dav/c"}).status == 507
        body = b'<propfind xmlns="DAV:"><prop><quota-available-bytes/><quota-used-bytes/></prop></propfind>'
        told = find(served, "/dav/", body=body).body.decode()
        assert "<D:quota-available-bytes>2</" in told
        assert "<D:quota-used-bytes>8</" in told


# -- XML


BOMB = b'<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + b"".join(
    b'<!ENTITY %c "%s">' % (name, b"&%c;" % (name - 1) * 10) for name in range(ord("b"), ord("k"))
)
BAD = {
    "bomb": BOMB + b']><propfind xmlns="DAV:"><prop><b>&j;</b></prop></propfind>',
    "external entity": b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><propfind xmlns="DAV:">&x;</propfind>',
    "external document type": b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a"><propfind xmlns="DAV:"><allprop/></propfind>',
    "deep": b"<a>" * 1000 + b"</a>" * 1000,
    "many": b'<propfind xmlns="DAV:"><prop>' + b"<a/>" * 5000 + b"</prop></propfind>",
    "many names": b'<propfind xmlns="DAV:"><prop>'
    + b"".join(b"<a%d/>" % n for n in range(300))
    + b"</prop></propfind>",
    "large": b'<propfind xmlns="DAV:"><prop>' + b" " * 300_000 + b"<a/></prop></propfind>",
    "two roots": b"<a/><b/>",
    "no xml": b"hello",
    "half": b"<propfind",
    "another encoding": b'<?xml version="1.0" encoding="rot13"?><a/>',
    "no propfind": b'<lockinfo xmlns="DAV:"/>',
    "two kinds": b'<propfind xmlns="DAV:"><allprop/><propname/></propfind>',
    "no prefix": b"<D:propfind><D:allprop/></D:propfind>",
}


@pytest.mark.parametrize("method", ["PROPFIND", "PROPPATCH", "LOCK"])
@pytest.mark.parametrize("name", BAD)
def test_xml_that_harms_or_is_none_is_refused(served: Served, name: str, method: str) -> None:
    served.ask("PUT", "/dav/a", b"x")
    began = time.monotonic()
    answer = served.ask(method, "/dav/a", BAD[name], {"Depth": "0"})
    assert answer.status == 400, answer.body
    assert b"root:" not in answer.body
    assert time.monotonic() - began < 20
    assert served.ask("GET", "/healthz").body == b"ok"


def test_names_are_escaped_in_addresses_and_in_xml(served: Served) -> None:
    for name in ("a&b<c>\"'", "]]>", "x\r\nSet-Cookie: a=b", "ü\u0001\ufffe", "100%25 #?"):
        assert served.vdir().mkdir(name)
    answer = find(served, "/dav/", "1")
    names = {str(one.text) for one in ElementTree.fromstring(answer.body).iter(f"{D}displayname")}
    assert {"a&b<c>\"'", "]]>", "100%25 #?"} < names
    for address in hrefs(answer):
        assert re.fullmatch(r"[-A-Za-z0-9._~/%]+", address), address
        assert hrefs(find(served, address)) == [address]


# -- headers


@pytest.mark.parametrize(
    ("destination", "status"),
    [
        ("http://elsewhere.example/dav/b", 502),
        ("/v1/files/b", 400),
        ("", 400),
        ("/dav/../../etc/passwd", 422),
        ("/dav/a%2F..%2F..%2Fb", 422),
        ("/dav/.cloudmesh/journal/x", 422),
        ("/dav/%FF", 422),
        ("/dav/b%00", 422),
        ("http://[bad/dav/b", 502),
        ("/dav/a", 403),
        ("/dav/a/below", 403),
        ("/dav/", 403),
        ("/dav/no/b", 409),
    ],
)
@pytest.mark.parametrize("method", ["COPY", "MOVE"])
def test_a_destination_that_is_none_is_refused(served: Served, method: str, destination: str, status: int) -> None:
    served.ask("PUT", "/dav/a", b"x")
    answer = served.ask(method, "/dav/a", headers={"Destination": destination})
    assert answer.status == status, answer.body
    assert served.ask("GET", "/dav/a").body == b"x"
    assert [one["path"] for one in served.ask("GET", "/v1/list/").json["entries"]] == ["a"]


def test_a_header_of_ours_never_holds_what_a_client_sent_raw(served: Served) -> None:
    answer = served.raw(
        "PUT /dav/a%0d%0aX-Evil:%201 HTTP/1.1\nHost: h\nContent-Length: 1\nAuthorization: " + basic(), b"x"
    )
    head = answer.split(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 201")
    assert b"X-Evil" not in head
    split = "MOVE /dav/a HTTP/1.1\nHost: h\nDestination: /dav/b\rX-Evil: 1\nAuthorization: "
    assert served.raw_status(split + basic()) == 400


@pytest.mark.parametrize(
    "header", ["", "()", "(", "<urn:x>", "([a])", "(Not)", "(<a>" * 50, "(<a>)" * 100, " " * 8000 + "x", "(<a> ["]
)
def test_an_if_header_that_is_none_is_refused(served: Served, header: str) -> None:
    assert served.ask("PUT", "/dav/a", b"x", {"If": header}).status == 400


def test_an_if_header_is_about_what_it_names(served: Served) -> None:
    tag = served.ask("PUT", "/dav/a", b"1").headers["ETag"]
    served.ask("PUT", "/dav/b", b"1")
    for header, status in (
        (f"([{tag}])", 204),
        (f"([{tag}])", 412),
        ("(Not [" + tag + "])", 204),
        ("(<DAV:no-lock>)", 412),
        ("(Not <DAV:no-lock>)", 204),
        (f"</dav/b> ([{tag}])", 412),
        (f"</dav/b> (Not [{tag}])", 204),
        (f"<http://127.0.0.1:{served.port}/dav/b> (Not [{tag}])", 204),
        ("<http://elsewhere.example/dav/a> (<urn:x>)", 412),
        (f"([{tag}]) (Not <DAV:no-lock>)", 204),
    ):
        assert served.ask("PUT", "/dav/a", b"2", {"If": header}).status == status, header


# -- listings


def test_a_large_directory_is_told_in_pages_and_never_all_below(served: Served) -> None:
    async def fill() -> None:
        for number in range(2_345):
            await served.gateway.catalog.mkdir(f"big/{number:05}", parents=True)

    served.call(fill())
    answer = find(served, "/dav/big", "1")
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert hrefs(answer) == ["/dav/big/", *(f"/dav/big/{number:05}/" for number in range(2_345))]
    for headers in ({"Depth": "infinity"}, {}):
        refused = served.ask("PROPFIND", "/dav/big", headers=headers)
        assert (refused.status, b"propfind-finite-depth" in refused.body) == (403, True)
    assert find(served, "/dav/big", "7").status == 400
    assert find(served, "/dav/none").status == 404


# -- properties of clients


def test_properties_go_with_the_entry_and_are_no_tags(served: Served) -> None:
    served.ask("PUT", "/dav/a", b"x")
    served.vdir().set_tags("a", {"mine": "1"})
    assert served.ask("PROPPATCH", "/dav/a", put_property("color", "red &amp; <y>blue</y>")).status == 207
    assert served.ask("GET", "/v1/stat/a").json["tags"] == {"mine": "1"}
    served.vdir().set_tags("a", {"mine": "2"})
    served.vdir().move("a", "b")
    served.ask("PUT", "/dav/b", b"other")
    served.ask("MKCOL", "/dav/d")
    served.ask("PROPPATCH", "/dav/d", put_property("kept"))
    served.ask("COPY", "/dav/b", headers={"Destination": "/dav/d/c"})
    served.ask("COPY", "/dav/d", headers={"Destination": "/dav/e"})
    body = b'<propfind xmlns="DAV:" xmlns:x="urn:x"><prop><x:color/><x:kept/></prop></propfind>'
    for path, names in (("/dav/b", {"color"}), ("/dav/e/c", {"color"}), ("/dav/e", {"kept"})):
        told = ElementTree.fromstring(find(served, path, body=body).body)
        good = next(stat for stat in told.iter(f"{D}propstat") if "200" in stat.findtext(f"{D}status", ""))
        assert {one.tag for one in good.find(f"{D}prop") or ()} == {"{urn:x}" + name for name in names}
    color = ElementTree.fromstring(find(served, "/dav/b", body=body).body).find(".//{urn:x}color")
    assert color is not None
    assert (color.text, color.findtext("y")) == ("red & ", "blue")
    assert served.ask("GET", "/v1/stat/b").json["tags"] == {"mine": "2"}
    assert served.ask("GET", "/v1/stat/d").json.get("tags") is None


def test_properties_change_together_or_not_at_all(served: Served) -> None:
    served.ask("PUT", "/dav/a", b"x")
    both = patch("<D:set><D:prop><x:one>1</x:one><D:getetag>2</D:getetag></D:prop></D:set>")
    told = served.ask("PROPPATCH", "/dav/a", both).body
    assert b"403 Forbidden" in told
    assert b"424 Failed" in told
    assert b"urn:x" not in find(served, "/dav/a").body
    assert b"507 Insufficient" in served.ask("PROPPATCH", "/dav/a", put_property("big", "x" * 70_000)).body
    assert b"403 Forbidden" in served.ask("PROPPATCH", "/dav/", put_property("root")).body


# -- locks


def test_a_lock_keeps_others_out_until_it_ends(served: Served) -> None:
    served.ask("MKCOL", "/dav/d")
    served.ask("PUT", "/dav/d/a", b"1")
    served.ask("PUT", "/dav/b", b"1")
    token = lock(served, "/dav/d", Timeout="Second-100")
    to_d, shown = {"Destination": "/dav/d/new"}, {"If": f"</dav/d> ({token})"}
    for method, path, headers in (
        ("PUT", "/dav/d/a", {}), ("PUT", "/dav/d/b", {}), ("DELETE", "/dav/d/a", {}), ("DELETE", "/dav/d", {}),
        ("MKCOL", "/dav/d/c", {}), ("MOVE", "/dav/b", to_d), ("COPY", "/dav/b", to_d), ("PROPPATCH", "/dav/d/a", {}),
        ("MOVE", "/dav/d/a", {"Destination": "/dav/out"}), ("LOCK", "/dav/d/a", {}),
    ):  # fmt: skip
        body = {"PROPPATCH": put_property("x"), "LOCK": LOCKINFO % b"shared"}.get(method)
        answer = served.ask(method, path, body, headers)
        assert answer.status == 423, (method, path, answer.status)
        assert b"<D:href>/dav/d</D:href>" in answer.body
        # the token alone doesn't do: it is somebody else's
        if method != "LOCK":
            assert served.ask(method, path, body, headers | shown, user="bob").status == 423
    assert served.ask("PUT", "/dav/d/a", b"2", shown).status == 204
    assert served.ask("COPY", "/dav/b", headers=to_d | shown).status == 201
    assert b"Second-100" in find(served, "/dav/d/a").body or b"Second-99" in find(served, "/dav/d/a").body
    assert served.ask("UNLOCK", "/dav/d", headers={"Lock-Token": token}, user="bob").status == 403
    assert served.ask("UNLOCK", "/dav/b", headers={"Lock-Token": token}).status == 409
    assert served.ask("UNLOCK", "/dav/d/a", headers={"Lock-Token": token}).status == 204
    assert served.ask("PUT", "/dav/d/a", b"3").status == 204


def test_a_lock_ends_by_itself_and_with_what_it_was_on(served: Served) -> None:
    now = served.gateway.tree.now
    served.ask("PUT", "/dav/a", b"1")
    door = served.gateway.webdav
    token = lock(served, "/dav/a", Timeout="Second-5, Infinite")
    try:
        door.locks._now = lambda: now() + 4_000_000
        assert served.ask("LOCK", "/dav/a", headers={"If": f"({token})", "Timeout": "Second-20"}).status == 200
        door.locks._now = lambda: now() + 20_000_000
        assert served.ask("PUT", "/dav/a", b"2").status == 423
        door.locks._now = lambda: now() + 25_000_000
        assert served.ask("PUT", "/dav/a", b"2").status == 204
        assert served.ask("LOCK", "/dav/a", headers={"If": f"({token})"}).status == 412
    finally:
        door.locks._now = now
    token = lock(served, "/dav/a")
    assert served.ask("MOVE", "/dav/a", headers={"Destination": "/dav/b", "If": f"({token})"}).status == 201
    assert served.ask("PUT", "/dav/b", b"3").status == 204
    assert served.ask("PUT", "/dav/a", b"3").status == 201


def test_locks_outlive_the_process(served: Served) -> None:
    served.ask("PUT", "/dav/a", b"1")
    first, second = lock(served, "/dav/a", b"shared"), lock(served, "/dav/a", b"shared", user="bob")
    door = served.gateway.webdav
    door.locks = type(door.locks)(served.gateway.catalog, served.gateway.tree.now)
    assert served.ask("PUT", "/dav/a", b"2").status == 423
    assert served.ask("PUT", "/dav/a", b"2", {"If": f"({second})"}).status == 423
    assert served.ask("PUT", "/dav/a", b"2", {"If": f"({first})"}).status == 204


def test_a_lock_taken_while_a_file_is_written_keeps_it(served: Served) -> None:
    served.ask("PUT", "/dav/a", b"old")
    sent, go = threading.Event(), threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        sent.set()
        go.wait(20)
        yield b"y"

    found: list[int] = []
    headers = {"Transfer-Encoding": "chunked"}
    writer = threading.Thread(
        target=lambda: found.append(served.ask("PUT", "/dav/a", pieces(), headers, user="bob").status)
    )
    writer.start()
    assert sent.wait(20)
    until(lambda: served.call(served.gateway.catalog.intents(until=1 << 62)))
    token = lock(served, "/dav/a")
    go.set()
    writer.join(20)
    assert found == [423]
    assert served.ask("GET", "/dav/a").body == b"old"
    assert served.ask("PUT", "/dav/a", b"new", {"If": f"({token})"}).status == 204


def test_there_are_only_so_many_locks(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudmesh.data.gateway.webdav_locks.MOST_OF_USER", 3)
    for name in "abc":
        lock(served, f"/dav/{name}")
    assert served.ask("LOCK", "/dav/d", LOCKINFO % b"exclusive").status == 507
    assert served.ask("GET", "/dav/d").status == 404
    lock(served, "/dav/e", user="bob")


def test_a_lock_that_nobody_was_told_of_isnt_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.ask("PUT", "/dav/a", b"1")

    async def fails(*_: object) -> None:
        raise Transient("the catalogue doesn't answer")

    with monkeypatch.context() as patched:
        patched.setattr(served.gateway.catalog, "set", fails)
        assert served.ask("LOCK", "/dav/a", LOCKINFO % b"exclusive").status == 503
    assert served.ask("PUT", "/dav/a", b"2").status == 204


# -- copies and moves


def test_what_stands_at_the_destination_is_replaced_and_can_be_restored(served: Served) -> None:
    for path in ("src/a", "src/sub/b", "dst/old"):
        served.ask("PUT", f"/v1/files/{path}", path.encode())
    refused = served.ask("MOVE", "/dav/src", headers={"Destination": "/dav/dst", "Overwrite": "F"})
    assert refused.status == 412
    assert served.ask("COPY", "/dav/src", headers={"Destination": "/dav/dst"}).status == 204
    paths = [one["path"] for one in served.ask("GET", "/v1/list/dst?recursive=true").json["entries"]]
    assert paths == ["dst/a", "dst/sub", "dst/sub/b"]
    assert [t["path"] for t in served.ask("GET", "/v1/trash").json["entries"]] == ["dst"]
    assert served.ask("COPY", "/dav/src", headers={"Destination": "/dav/flat", "Depth": "0"}).status == 201
    assert served.ask("GET", "/v1/list/flat").json["entries"] == []
    assert served.ask("MOVE", "/dav/src", headers={"Destination": "/dav/dst"}).status == 204
    assert served.ask("GET", "/dav/dst/sub/b").body == b"src/sub/b"
    assert served.ask("MOVE", "/dav/dst/a", headers={"Destination": "/dav/flat"}).status == 204
    assert served.ask("GET", "/dav/flat").body == b"src/a"


def test_a_replacement_that_fails_leaves_what_was_there(served: Served) -> None:
    for path in ("src", "dst/old"):
        served.ask("PUT", f"/v1/files/{path}", path.encode() * 10_000)
    with contextlib.ExitStack() as stack:
        for store in ("one", "two"):
            place = served.place(store)
            place.room = sum(held.object.size for held in place.objects.values()) + 10_000
            stack.callback(setattr, place, "room", None)
        assert served.ask("COPY", "/dav/src", headers={"Destination": "/dav/dst"}).status == 507
    assert served.ask("GET", "/v1/list/dst").json["entries"][0]["path"] == "dst/old"
