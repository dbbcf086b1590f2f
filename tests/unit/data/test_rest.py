"""REST through a real gateway: every route, conditions, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from openapi_spec_validator import validate
from tests.unit.data.gateway_scene import OPERATOR_TOKEN, Served, basic, until

from cloudmesh.engine.errors import Transient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("gateway")) as served:
        yield served


def put(served: Served, path: str, content: bytes = b"content", **headers: str) -> dict:
    answer = served.ask("PUT", f"/v1/files/{path}", content, {k.replace("_", "-"): v for k, v in headers.items()})
    assert answer.status in (200, 201), answer.body
    return answer.json


# -- every route


def test_a_file_that_is_deleted_while_it_is_sent_is_not_told_as_written(served: Served) -> None:
    there = put(served, "meanwhile", b"old")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)) as sending:
        sending.putrequest("PUT", "/v1/files/meanwhile")
        sending.putheader("Authorization", basic())
        sending.putheader("Content-Length", "4")
        sending.endheaders()
        sending.send(b"ab")
        until(lambda: served.call(served.gateway.catalog.intents(until=1 << 62)))
        assert served.ask("DELETE", "/v1/files/meanwhile").status == 204
        sending.send(b"cd")
        answer = sending.getresponse()
        told = json.loads(answer.read())
    assert (answer.status, told["reason"]) == (412, "Changed")
    assert "deleted while it was written" in told["detail"]
    assert served.ask("GET", "/v1/files/meanwhile").status == 404
    assert served.ask("POST", "/v1/restore", {"id": there["id"]}).status == 200
    assert served.ask("GET", "/v1/files/meanwhile").body == b"abcd"


def test_a_file_lives(served: Served) -> None:
    content = b"hello\n" * 7
    made = served.ask(
        "PUT", "/v1/files/life/a.txt", content,
        {"Content-Type": "text/plain", "Cloudmesh-Modified": "2020-02-03T04:05:06.000007Z", "Cloudmesh-Tags": "a=1&b="},
    )  # fmt: skip
    entry = made.json
    assert made.status == 201
    assert made.headers["ETag"] == entry["etag"]
    assert entry == {
        "path": "life/a.txt", "name": "a.txt", "kind": "File", "id": entry["id"], "size": 42, "version": 1,
        "modified": "2020-02-03T04:05:06.000007Z", "etag": f'"{entry["id"]}-1"', "contentType": "text/plain",
        "sha256": hashlib.sha256(content).hexdigest(), "tags": {"a": "1", "b": ""},
    }  # fmt: skip
    assert served.ask("GET", "/v1/stat/life/a.txt").json == entry
    got = served.ask("GET", "/v1/files/life/a.txt")
    assert (got.status, got.body) == (200, content)
    digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
    assert {name: got.headers[name] for name in (
        "ETag", "Last-Modified", "Accept-Ranges", "Content-Type", "Content-Length", "Repr-Digest",
        "X-Content-Type-Options", "Content-Security-Policy", "Cache-Control",
    )} == {
        "ETag": entry["etag"], "Last-Modified": "Mon, 03 Feb 2020 04:05:06 GMT", "Accept-Ranges": "bytes",
        "Content-Type": "text/plain", "Content-Length": "42", "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox", "Cache-Control": "private, no-cache",
    }  # fmt: skip
    again = served.ask("PUT", "/v1/files/life/a.txt", b"other")
    assert (again.status, again.json["id"], again.json["version"]) == (200, entry["id"], 2)
    gone = served.ask("DELETE", "/v1/files/life/a.txt")
    assert (gone.status, gone.body) == (204, b"")
    assert served.ask("GET", "/v1/files/life/a.txt").problem == (404, "Missing")
    assert served.ask("DELETE", "/v1/files/life/a.txt").problem == (404, "Missing")


def test_the_object_is_the_file_under_its_own_name(served: Served) -> None:
    put(served, "plain/f%C3%BCr.bin", b"\0\1\2")
    for store in ("one", "two"):
        assert served.place(store).objects["plain/für.bin"].content == b"\0\1\2"


def test_the_empty_file(served: Served) -> None:
    assert put(served, "empty", b"")["size"] == 0
    for headers in ({}, {"Range": "bytes=0-9"}):
        got = served.ask("GET", "/v1/files/empty", headers=headers)
        assert (got.status, got.body, got.headers["Content-Length"]) == (200, b"", "0")
    assert served.ask("HEAD", "/v1/files/empty").headers["Content-Length"] == "0"


def test_head_tells_what_get_would_give(served: Served) -> None:
    put(served, "head.txt", b"12345", Content_Type="text/plain")
    got, head = served.ask("GET", "/v1/files/head.txt"), served.ask("HEAD", "/v1/files/head.txt")
    assert (head.status, head.body) == (200, b"")
    assert {k: v for k, v in got.headers.items() if k != "Date"} == {
        k: v for k, v in head.headers.items() if k != "Date"
    }
    # ranges are of GET alone
    ranged = served.ask("HEAD", "/v1/files/head.txt", headers={"Range": "bytes=0-1"})
    assert (ranged.status, ranged.headers["Content-Length"]) == (200, "5")
    assert served.ask("HEAD", "/v1/files/nothing").status == 404


def test_directories(served: Served) -> None:
    assert served.ask("PUT", "/v1/directories/dirs/deep").problem == (404, "Missing")
    made = served.ask("PUT", "/v1/directories/dirs/deep?parents=true")
    assert (made.status, made.json["kind"], made.json["path"]) == (201, "Directory", "dirs/deep")
    assert made.json["modified"] > "2020"
    assert served.ask("PUT", "/v1/directories/dirs/deep?parents=true").status == 200
    assert served.ask("PUT", "/v1/directories/dirs/deep").problem == (409, "Exists")
    assert served.ask("GET", "/v1/files/dirs").problem == (422, "InvalidName")
    assert served.ask("PUT", "/v1/files/dirs", b"x").problem == (422, "InvalidName")
    put(served, "dirs/file")
    assert served.ask("PUT", "/v1/directories/dirs/file?parents=true").problem[0] == 409
    assert served.ask("PUT", "/v1/files/dirs/file/below", b"x").problem == (422, "InvalidName")
    assert served.ask("DELETE", "/v1/files/dirs").problem == (409, "Exists")
    assert served.ask("DELETE", "/v1/files/dirs?recursive=true").status == 204
    assert served.ask("GET", "/v1/stat/dirs/deep").problem == (404, "Missing")
    assert served.ask("GET", "/v1/list/dirs").problem == (404, "Missing")


def test_listings_come_in_pages(served: Served) -> None:
    names = sorted(["a b", "c&d", "e+f", "g%25", "ü", "z"])
    for name in names:
        put(served, f"pages/{quote(name)}")
    put(served, "pages/e+f.d/inner")
    for query, expected in (("", sorted([*names, "e+f.d"])), ("recursive=true&", None)):
        found, target = [], f"/v1/list/pages?{query}limit=2"
        while target:
            page = served.ask("GET", target)
            assert len(page.json["entries"]) <= 2
            found += [entry["path"].removeprefix("pages/") for entry in page.json["entries"]]
            link = page.headers["Link"]
            assert (link is None) == ("after" not in page.json)
            # the link is what a client follows
            target = link[1 : link.index(">")] if link else ""
        if expected is None:
            assert sorted(found) == sorted([*names, "e+f.d", "e+f.d/inner"])
        else:
            assert found == expected


def test_tags_move_copy(served: Served) -> None:
    put(served, "m/a", b"1")
    tagged = served.ask("PUT", "/v1/tags/m/a", {"k": "v"})
    assert (tagged.status, tagged.json["tags"]) == (200, {"k": "v"})
    copied = served.ask("POST", "/v1/copy", {"from": "m/a", "to": "m/b"})
    assert (copied.status, copied.json["path"], copied.json["tags"]) == (201, "m/b", {"k": "v"})
    assert served.ask("POST", "/v1/copy", {"from": "m/a", "to": "m/b"}).problem == (409, "Exists")
    assert served.ask("POST", "/v1/copy", {"from": "m/a", "to": "m/b", "overwrite": True}).json["version"] == 2
    moved = served.ask("POST", "/v1/move", {"from": "m/a", "to": "m/c"})
    assert (moved.status, moved.json["path"]) == (200, "m/c")
    assert served.ask("POST", "/v1/move", {"from": "m/c", "to": "m/b"}).problem == (409, "Exists")
    assert served.ask("POST", "/v1/move", {"from": "m/c", "to": "m/b", "overwrite": True}).status == 200
    assert served.ask("POST", "/v1/move", {"from": "m/c", "to": "m/d"}).problem == (404, "Missing")
    assert served.ask("POST", "/v1/move", {"from": "m", "to": "m/inside"}).problem == (422, "InvalidName")
    assert [e["name"] for e in served.ask("GET", "/v1/list/m").json["entries"]] == ["b"]
    assert served.ask("GET", "/v1/files/m/b").body == b"1"


def test_what_the_quota_has_no_room_for_is_told_alike_by_every_way_in(tmp_path: Path) -> None:
    with Served(tmp_path, quota_files=1) as served:
        put(served, "one")
        assert served.ask("DELETE", "/v1/files/one").status == 204
        (gone,) = served.ask("GET", "/v1/trash").json["entries"]
        put(served, "two")
        for answer in (
            served.ask("PUT", "/v1/files/three", b"x"),
            served.ask("POST", "/v1/restore", {"id": gone["id"]}),
        ):
            assert answer.problem == (507, "Full")
            assert answer.json["detail"] == "the directory's quota of 1 files is used up"
        assert served.ask("DELETE", "/v1/files/two").status == 204
        assert served.ask("POST", "/v1/restore", {"id": gone["id"]}).status == 200


def test_a_name_that_no_store_can_hold(tmp_path: Path) -> None:
    served = Served(tmp_path)
    stores = tuple(msgspec.structs.replace(store, prefix="physics/lab/") for store in served.config.stores)
    served.config = msgspec.structs.replace(served.config, stores=stores)
    # with what stands before it in each store it is too long there
    path = "/".join("n" * 1000 for _ in range(4)) + "/" + "n" * 90
    with served:
        assert served.ask("PUT", "/v1/files/" + path[:-20], b"x").status == 201
        for base in ("/v1/files/", "/dav/"):
            answer = served.ask("PUT", base + path, b"x")
            assert answer.status == 422
            for store in ("one", "two"):
                assert f"{store}: the key " in answer.body.decode()
                assert "4096 are the most" in answer.body.decode()
        assert served.ask("PUT", "/v1/files/" + path, b"x").problem == (422, "InvalidName")


def test_the_trash_gives_back(served: Served) -> None:
    put(served, "t/deep/a", b"1")
    put(served, "t/b", b"2")
    assert served.ask("DELETE", "/v1/files/t/deep?recursive=true").status == 204
    assert served.ask("DELETE", "/v1/files/t/b").status == 204
    trash = {e["path"]: e for e in served.ask("GET", "/v1/trash").json["entries"] if e["path"].startswith("t/")}
    assert set(trash) == {"t/deep", "t/b"}
    assert trash["t/b"]["deleted"].endswith("Z")
    assert served.ask("POST", "/v1/restore", {"id": trash["t/deep"]["id"]}).json["path"] == "t/deep"
    assert served.ask("GET", "/v1/files/t/deep/a").body == b"1"
    back = served.ask("POST", "/v1/restore", {"id": trash["t/b"]["id"], "to": "t/new/c"})
    assert (back.status, back.json["path"]) == (200, "t/new/c")
    assert served.ask("GET", "/v1/files/t/new/c").body == b"2"
    for wrong in (trash["t/b"]["id"], "0" * 16, "f" * 16, "x", "\ud800", ""):
        assert served.ask("POST", "/v1/restore", {"id": wrong}).problem == (404, "Missing")
    assert served.ask("POST", "/v1/restore", {"id": 5}).problem == (400, "InvalidRequest")
    page = served.ask("GET", "/v1/trash?limit=1").json
    assert (len(page["entries"]), page.get("after", page["entries"][0]["id"])) == (1, page["entries"][0]["id"])


def test_what_is_over_is_not_offered_while_its_store_keeps_it(tmp_path: Path) -> None:
    async def kept(moment: str, operation: str, key: str) -> None:
        if operation == "delete":
            raise Transient("away")

    with Served(tmp_path) as own:
        put(own, "a", b"1")
        assert own.ask("DELETE", "/v1/files/a").status == 204
        assert len(own.ask("GET", "/v1/trash").json["entries"]) == 1
        for store in ("one", "two"):
            own.place(store).hook = kept
        own.reconfigure(trash_seconds=0)
        assert own.ask("GET", "/v1/trash").json["entries"] == []


def test_search(served: Served) -> None:
    put(served, "s/big.csv", b"x" * 100, Cloudmesh_Tags="team=blue", Cloudmesh_Modified="2020-01-01T00:00:00Z")
    put(served, "s/small.CSV", b"x", Cloudmesh_Modified="2024-01-01T00:00:00+02:00")
    put(served, "s/x/big.txt", b"x" * 100)

    def found(query: str) -> list[str]:
        answer = served.ask("GET", f"/v1/search?under=s&{query}")
        assert answer.status == 200, answer.body
        return [entry["path"].removeprefix("s/") for entry in answer.json["entries"] if entry["kind"] == "File"]

    assert found("name=*.csv") == ["big.csv", "small.CSV"]
    assert found("name=big.*") == ["big.csv", "x/big.txt"]
    assert found("tags=team%3Dblue") == found("tags=team%3D") == ["big.csv"]
    assert found("minSize=100") == ["big.csv", "x/big.txt"]
    assert found("maxSize=99") == ["small.CSV"]
    assert found("older=2022-01-01T00:00:00Z") == ["big.csv"]
    assert found("newer=1700000000000000&older=2024-06-01T00:00:00Z") == ["small.CSV"]
    first = served.ask("GET", "/v1/search?under=s&name=*.csv&limit=1").json
    assert (len(first["entries"]), first["after"]) == (1, "s/big.csv")
    assert found("name=*.csv&after=s/big.csv") == ["small.CSV"]


def test_no_pattern_takes_for_ever(served: Served) -> None:
    put(served, "stars/" + "a" * 1000)
    began = time.monotonic()
    assert served.ask("GET", f"/v1/search?under=stars&name={'*a' * 100}*b").json["entries"] == []
    assert len(served.ask("GET", f"/v1/search?under=stars&name={'*a' * 100}*").json["entries"]) == 1
    assert time.monotonic() - began < 20
    put(served, "stars/[x]")
    assert [e["name"] for e in served.ask("GET", "/v1/search?under=stars&name=%5Bx*").json["entries"]] == ["[x]"]


def test_where_why_usage(served: Served) -> None:
    put(served, "w", b"abc")
    where = served.ask("GET", "/v1/where/w").json
    assert [(c["store"], c["key"], c["state"], c["up"], c["size"]) for c in where["copies"]] == [
        ("one", "w", "Whole", True, 3), ("two", "w", "Whole", True, 3),
    ]  # fmt: skip
    why = served.ask("GET", "/v1/why/w").json
    assert (why["rule"], {s["store"]: s["chosen"] for s in why["stores"]}) == (
        {"name": "default", "copies": 2, "minCopies": 1}, {"one": True, "two": True},
    )  # fmt: skip
    usage = served.ask("GET", "/v1/usage").json
    assert usage["files"] >= 1
    assert {s["name"]: s["state"] for s in usage["stores"]} == {"one": "Up", "two": "Up"}
    assert served.ask("GET", "/v1/where/none").problem == served.ask("GET", "/v1/why/none").problem == (404, "Missing")


def test_doors_of_the_cluster(served: Served) -> None:
    assert served.ask("GET", "/healthz", user="").body == served.ask("GET", "/readyz", user="").body == b"ok"
    assert served.ask("GET", "/internal/summary").problem == (401, "Unauthenticated")
    for wrong in ("Bearer \xff", "Bearer", f"Bearer {OPERATOR_TOKEN}x", f"bearer {OPERATOR_TOKEN}"):
        assert served.ask("GET", "/internal/summary", headers={"Authorization": wrong}).status == 401
    summary = served.ask("GET", "/internal/summary", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"})
    assert summary.status == 200
    assert {s["name"]: s["state"] for s in summary.json["stores"]} == {"one": "Up", "two": "Up"}


def test_the_document_is_one(served: Served) -> None:
    answer = served.ask("GET", "/openapi.json", user="")
    validate(answer.json)
    told = {(m.upper(), p) for p, methods in answer.json["paths"].items() for m in methods if m != "parameters"}
    routes = {
        (route.method, route.resource.canonical)
        for route in served.gateway.app().router.routes()
        if route.resource is not None and route.resource.canonical.startswith("/v1/")
    }
    assert told == routes


# -- conditions


def test_conditional_writes(served: Served) -> None:
    first = put(served, "c/a")
    etag = first["etag"]
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-None-Match": "*"}).problem == (409, "Exists")
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-None-Match": f'"x", {etag}'}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-Match": '"0000000000000000-1"'}).problem == (412, "Changed")
    # a weak tag never ties a write
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-Match": f"W/{etag}"}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-Match": etag.strip('"')}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-None-Match": "x"}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/new", b"2", {"If-Match": "*"}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/new", b"2", {"If-Match": etag}).problem == (412, "Changed")
    assert served.ask("GET", "/v1/files/c/a").body == b"content"
    assert served.ask("PUT", "/v1/files/c/new", b"2", {"If-None-Match": "*"}).status == 201
    assert served.ask("PUT", "/v1/files/c/a", b"2", {"If-Match": f'"other-1", {etag}'}).status == 200
    assert served.ask("PUT", "/v1/files/c/a", b"3", {"If-Match": etag}).problem == (412, "Changed")
    assert served.ask("PUT", "/v1/files/c/a", b"3", {"If-Match": "*"}).json["version"] == 3
    assert served.ask("DELETE", "/v1/files/c/a", headers={"If-Match": etag}).problem == (412, "Changed")
    now = served.ask("GET", "/v1/stat/c/a").json["etag"]
    assert served.ask("DELETE", "/v1/files/c/a", headers={"If-Match": now}).status == 204
    assert served.ask("DELETE", "/v1/files/c/a", headers={"If-Match": now}).problem == (412, "Changed")


def test_conditional_reads(served: Served) -> None:
    etag = put(served, "c/r")["etag"]
    for held in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = served.ask("GET", "/v1/files/c/r", headers={"If-None-Match": held})
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", etag)
        assert served.ask("HEAD", "/v1/files/c/r", headers={"If-None-Match": held}).status == 304
    assert served.ask("GET", "/v1/files/c/r", headers={"If-None-Match": '"x"'}).status == 200
    assert served.ask("GET", "/v1/files/c/r", headers={"If-Match": etag}).status == 200
    assert served.ask("GET", "/v1/files/c/r", headers={"If-Match": "*"}).status == 200
    assert served.ask("GET", "/v1/files/c/r", headers={"If-Match": '"x"'}).problem == (412, "Changed")
    # both: the one that ties comes first
    both = {"If-Match": etag, "If-None-Match": etag}
    assert served.ask("GET", "/v1/files/c/r", headers=both).status == 304


def test_digests(served: Served) -> None:
    put(served, "d", b"old")
    right = base64.b64encode(hashlib.sha256(b"new").digest()).decode()
    wrong = base64.b64encode(hashlib.sha256(b"other").digest()).decode()
    for header in (f"sha-256=:{wrong}:", "sha-256=abc", "md5=:AAAA:", "sha-256=:====:"):
        assert served.ask("PUT", "/v1/files/d", b"new", {"Content-Digest": header}).problem == (400, "InvalidRequest")
    assert served.ask("GET", "/v1/files/d").body == b"old"
    assert served.ask("PUT", "/v1/files/d", b"new", {"Content-Digest": f"sha-256=:{right}:"}).status == 200


# -- uploads


def test_an_upload_without_length(served: Served) -> None:
    pieces = [b"a" * 700_000, b"b", b"c" * 900_000]
    answer = served.ask("PUT", "/v1/files/chunked", iter(pieces), {"Transfer-Encoding": "chunked"})
    assert (answer.status, answer.json["size"]) == (201, 1_600_001)
    assert served.ask("GET", "/v1/files/chunked").body == b"".join(pieces)
    assert served.ask("PUT", "/v1/files/nobody", iter([]), {"Transfer-Encoding": "chunked"}).json["size"] == 0


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_goes_away_changes_nothing(served: Served, chunked: bool) -> None:
    path = f"away/{chunked}"
    old = put(served, path, b"old")
    how = "Transfer-Encoding: chunked" if chunked else "Content-Length: 5000000"
    # an upload begins when so much came that it must be a large file
    body = (b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n") * 2 if chunked else b"x" * 1_000_000
    for target in (path, f"{path}.new"):
        served.send_a_part(f"PUT /v1/files/{target} HTTP/1.1\nHost: x\nAuthorization: {AUTHORIZATION}\n{how}", body)
    assert served.ask("GET", f"/v1/stat/{path}").json == old
    assert served.ask("GET", f"/v1/files/{path}").body == b"old"
    assert served.ask("GET", f"/v1/stat/{path}.new").problem == (404, "Missing")
    until(lambda: served.call(served.gateway.catalog.intents(until=1 << 62)) == [])
    for store in ("one", "two"):
        objects = served.place(store).objects
        assert objects[path].content == b"old"
        assert f"{path}.new" not in objects
    # and the name isn't held
    assert served.ask("PUT", f"/v1/files/{path}", b"new").json["version"] == 2


def test_coded_content_is_refused(served: Served) -> None:
    assert served.ask("PUT", "/v1/files/gz", b"x", {"Content-Encoding": "gzip"}).problem == (415, "Unsupported")
    assert served.ask("PUT", "/v1/files/gz", b"x", {"Content-Encoding": "identity"}).status == 201
    told = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    bomb = served.ask("PUT", "/v1/tags/gz", gzip.compress(b"{}"), told)
    assert bomb.problem == (400, "InvalidRequest")


# -- what is refused

BAD_PATHS = {
    "..": 422, "a/..": 422, "a/../b": 422, "%2e%2e": 422, "%2E%2e/%2e%2e/etc/passwd": 422, "a/%2e%2e/b": 422,
    "a%2f..%2fb": 422, "..%2f": 422, ".": 422, "a/./b": 422, "a//b": 422, "//": 422, "%2f%2f": 422, "a%00b": 422,
    "%00": 422, "a%FFb": 422, "%C3%28": 422, "%ED%A0%80": 422, "a" * 1025: 422, "%C3%BC" * 513: 422,
    "/".join(["a" * 1000] * 5): 422, ".cloudmesh": 422, ".cloudmesh/store.json": 422, "%2Ecloudmesh/x": 422, "": 422,
}  # fmt: skip


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda path: path[:30] or "root")
def test_paths_that_are_refused(served: Served, path: str) -> None:
    before = {store: set(served.place(store).objects) for store in ("one", "two")}
    assert served.ask("PUT", f"/v1/files/{path}", b"x").problem == (BAD_PATHS[path], "InvalidName")
    assert served.ask("PUT", f"/v1/directories/{path}?parents=true").problem == (BAD_PATHS[path], "InvalidName")
    assert served.ask("PUT", f"/v1/tags/{path}", {}).problem == (BAD_PATHS[path], "InvalidName")
    assert served.ask("DELETE", f"/v1/files/{path}?recursive=true").problem == (BAD_PATHS[path], "InvalidName")
    assert served.ask("GET", f"/v1/files/{path}").problem[0] in (404, 422)
    assert {store: set(served.place(store).objects) for store in ("one", "two")} == before


def test_paths_in_bodies_are_held_to_the_same(served: Served) -> None:
    put(served, "b/a")
    for path in ("..", "a/../b", "a//b", ".cloudmesh/x", "", "a\0b", "\ud800", "x" * 2000):
        for body in ({"from": "b/a", "to": path}, {"from": path, "to": "b/c"}):
            assert served.ask("POST", "/v1/move", body).problem == (422, "InvalidName")
            assert served.ask("POST", "/v1/copy", body).problem[0] in (404, 422)
    for body in ({}, {"from": "b/a"}, {"from": 1, "to": "x"}, {"from": "b/a", "to": "b/b", "overwrite": "yes"}):
        assert served.ask("POST", "/v1/move", body).problem == (400, "InvalidRequest")


@pytest.mark.parametrize(
    "name", ["a\r\nSet-Cookie: x=1", "tab\tbell\x07", "ünï/çödé", "q?u#e&s=t", "%41", "a b+c", "\x7f"]
)
def test_odd_names_live_and_put_nothing_into_headers(served: Served, name: str) -> None:
    target = quote(f"odd/{name}")
    assert served.ask("PUT", f"/v1/files/{target}", b"x").json["path"] == f"odd/{name}"
    for answer in (served.ask("GET", f"/v1/files/{target}"), served.ask("GET", "/v1/list/odd?recursive=true&limit=1")):
        assert answer.status == 200
        assert "Set-Cookie" not in answer.headers
    page = served.ask("GET", "/v1/list/odd?recursive=true")
    assert f"odd/{name}" in [e["path"] for e in page.json["entries"]]
    assert served.ask("DELETE", f"/v1/files/{target}").status == 204


def test_raw_requests_that_break_the_rules_of_http(served: Served) -> None:
    host = f"Host: x\nAuthorization: {AUTHORIZATION}"
    put(served, "raw")
    assert served.raw_status(f"GET /v1/files/../../etc/passwd HTTP/1.1\n{host}") == 422
    assert served.raw_status(f"GET /v1/files/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\n{host}") == 422
    assert served.raw_status(f"GET /v1/files/raw\x00 HTTP/1.1\n{host}") == 400
    assert served.raw_status(f"GET /v1/files/raw HTTP/1.1\n{host}\nX: a\x00b") == 400
    assert (
        served.raw_status(f"PUT /v1/files/raw HTTP/1.1\n{host}\nContent-Length: 1\nTransfer-Encoding: chunked") == 400
    )
    assert served.raw_status(f"PUT /v1/files/raw HTTP/1.1\n{host}\nContent-Length: -1") == 400
    assert served.raw_status(f"GET /v1/files/raw HTTP/1.1\n{host}\nX: {'a' * 20000}") == 400
    assert served.raw_status(f"GET /v1/files/{'a' * 70000} HTTP/1.1\n{host}") in (400, 414)
    assert served.ask("GET", "/v1/files/raw").body == b"content"


def test_media_types_can_carry_no_header(served: Served) -> None:
    answer = served.raw(
        f"PUT /v1/files/mt HTTP/1.1\nHost: x\nAuthorization: {AUTHORIZATION}\nContent-Length: 1\n"
        "Content-Type: text/html\x0bX: y", b"x"
    )  # fmt: skip
    assert b"200" in answer[:20] or b"201" in answer[:20] or b"400" in answer[:20]
    assert b"contentType" not in answer
    put(served, "mt2", Content_Type="x" * 300)
    assert served.ask("GET", "/v1/files/mt2").headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize("told", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_form_on_another_page_can_send(served: Served, told: str) -> None:
    put(served, "form")
    headers = {"Content-Type": told} if told else {}
    for target in ("/v1/move", "/v1/copy"):
        answer = served.ask("POST", target, b'{"from": "form", "to": "stolen"}', headers)
        assert answer.problem == (415, "UnsupportedMediaType")
    assert served.ask("GET", "/v1/stat/stolen").status == 404
    answer = served.ask("GET", "/v1/stat/form", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_a_link_of_the_store_itself(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    put(served, "linked")
    assert served.ask("GET", "/v1/files/linked?redirect=allow").status == 200
    asked = []

    async def presign(key: str, seconds: int) -> str:
        asked.append((key, seconds))
        return f"https://store.example/{key}?signed"

    for member in served.gateway.mesh.members.values():
        monkeypatch.setattr(member.store, "presign", presign, raising=False)
    answer = served.ask("GET", "/v1/files/linked?redirect=allow")
    assert (answer.status, answer.headers["Location"]) == (307, "https://store.example/linked?signed")
    assert asked == [("linked", 300)]
    # only for who asks for it
    assert served.ask("GET", "/v1/files/linked").body == b"content"
    assert served.ask("GET", "/v1/files/linked?redirect=yes").problem == (400, "InvalidRequest")
    assert served.ask("GET", "/v1/files/linked?redirect=allow", user="").status == 401
    assert served.ask("HEAD", "/v1/files/linked?redirect=allow").status == 200


BODIES = {
    "deep": b'{"a":' * 100_000, "list": b"[]", "cut": b'{"a": "b"', "no text": b"\xff\xfe{}", "number": b"1" * 5000,
    "much": b'{"a": "' + b"x" * (1 << 20) + b'"}', "none": b"", "nested": b"[" * 1_000_000,
    "keys": b"{" + b",".join(b'"k%d": "v"' % n for n in range(50_000)) + b"}",
}  # fmt: skip


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_json_that_is_refused(served: Served, body: bytes) -> None:
    put(served, "json")
    for method, target in (("PUT", "/v1/tags/json"), ("POST", "/v1/move"), ("POST", "/v1/restore")):
        answer = served.ask(method, target, body, {"Content-Type": "application/json"})
        assert answer.problem == (400, "InvalidRequest")
    assert "tags" not in served.ask("GET", "/v1/stat/json").json


@pytest.mark.parametrize(
    "tags", [{"": "x"}, {"a b": "x"}, {"a": 1}, {"a": None}, {"a": "x" * 257}, {"a": "x\ny"}, {"a": "\ud800"},
             {"ü": ""}, {"k" * 64: ""}, {str(n): "" for n in range(33)}], ids=str
)  # fmt: skip
def test_tags_that_are_refused(served: Served, tags: dict) -> None:
    put(served, "tagged")
    assert served.ask("PUT", "/v1/tags/tagged", tags).problem == (400, "InvalidRequest")


@pytest.mark.parametrize(
    "query",
    ["list/?limit=0", "list/?limit=-1", "list/?limit=1001", "list/?limit=x", "list/?limit=%C2%B2", "list/?limit=",
     "list/?recursive=yes", "trash?limit=0", "search?minSize=-1", "search?maxSize=1e3", "search?newer=yesterday",
     "search?older=9999-99-99", "search?newer=0001-01-01T00:00:00Z", "search?tags=a", "search?tags=a%3D%0A",
     "search?minSize=99999999999999999999999", "search?pattern=*.csv", "search?q=x", "search?name=x&Under=a"],
)  # fmt: skip
def test_queries_that_are_refused(served: Served, query: str) -> None:
    assert served.ask("GET", f"/v1/{query}").problem == (400, "InvalidRequest")


@pytest.mark.parametrize(
    "when", ["yesterday", "999999999999999999", "-1", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "\xff",
             "9999-12-31T23:59:59-23:59", "12:00"]
)  # fmt: skip
def test_times_that_are_refused(served: Served, when: str) -> None:
    assert served.ask("PUT", "/v1/files/when", b"x", {"Cloudmesh-Modified": when}).problem == (400, "InvalidRequest")


def test_unknown_routes_and_methods(served: Served) -> None:
    assert served.ask("GET", "/v2/files/a").problem == (404, "NotFound")
    assert served.ask("GET", "/v1").problem == (404, "NotFound")
    answer = served.ask("POST", "/v1/files/a", b"")
    assert answer.problem == (405, "MethodNotAllowed")
    assert answer.headers["Allow"] == "DELETE,GET,HEAD,PUT"
    assert served.ask("DELETE", "/v1/stat/a").headers["Allow"] == "GET"


AUTHORIZATION = "Basic YWRhOmNvcnJlY3QgaG9yc2U="


def test_answers_in_json_end_a_line_and_files_stay_as_they_are(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        asked = [
            ("PUT", "/v1/files/f.json"), ("GET", "/v1/where/f.json"), ("GET", "/v1/usage"), ("GET", "/v1/rules/f.json"),
            ("GET", "/v1/files/nothing"), ("GET", "/openapi.json"), ("GET", "/v1/nowhere"),
        ]  # fmt: skip
        for method, path in asked:
            body = b"{}" if method == "PUT" else None
            answer = served.ask(method, path, body, headers={"Content-Type": "application/json"})
            assert answer.body.endswith(b"}\n"), path
            assert answer.json
        assert served.ask("GET", "/v1/files/f.json").body == b"{}"
