"""Older contents of files through the doors: REST, Python, and who may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.data.gateway_scene import AUTH, Served, basic

from cloudmesh.data.config import AccessRule
from cloudmesh.data.errors import Changed, Missing

RULES = (AccessRule(path="hidden/**", users=("bob",), access="None"), AccessRule(users=("bob",), access="ReadOnly"))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    auth = type(AUTH)(kubernetes=False, basic=AUTH.basic, rules=RULES)
    with Served(tmp_path_factory.mktemp("gateway"), versions=3, auth=auth) as served:
        yield served


def put(served: Served, path: str, *contents: bytes) -> list[dict]:
    return [served.ask("PUT", f"/v1/files/{path}", content).json for content in contents]


def test_listed_and_read(served: Served) -> None:
    first, second, third = put(served, "read/f", b"one", b"second", b"3")
    told = served.ask("GET", "/v1/versions/read/f").json
    assert (told["path"], told["current"]) == ("read/f", third)
    assert [(one["version"], one["size"], one["etag"], one["sha256"]) for one in told["versions"]] == [
        (e["version"], e["size"], e["etag"], e["sha256"]) for e in (second, first)
    ]
    assert all(one["replaced"] >= one["modified"] for one in told["versions"])
    for entry, content in ((first, b"one"), (second, b"second"), (third, b"3")):
        got = served.ask("GET", f"/v1/files/read/f?version={entry['version']}")
        assert (got.status, got.body, got.headers["ETag"]) == (200, content, entry["etag"])
    part = served.ask("GET", "/v1/files/read/f?version=2", headers={"Range": "bytes=2-3"})
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, b"co", "bytes 2-3/6")
    head = served.ask("HEAD", "/v1/files/read/f?version=2")
    assert (head.status, head.headers["Content-Length"]) == (200, "6")
    assert served.ask("GET", "/v1/files/read/f?version=2", headers={"If-None-Match": second["etag"]}).status == 304
    assert served.ask("GET", "/v1/files/read/f?version=2", headers={"If-Match": third["etag"]}).status == 412


def test_restored_only_over_what_is_known(served: Served) -> None:
    first, second = put(served, "back/f", b"one", b"two")
    path = "/v1/versions/back/f"
    asked = {"version": 1}
    assert served.ask("POST", path, asked, {"If-Match": first["etag"]}).status == 412
    back = served.ask("POST", path, asked, {"If-Match": second["etag"]})
    assert (back.status, back.json["version"], back.headers["ETag"]) == (200, 3, back.json["etag"])
    assert back.json["modified"] == first["modified"]
    assert served.ask("GET", "/v1/files/back/f").body == b"one"
    assert [one["version"] for one in served.ask("GET", path).json["versions"]] == [2, 1]


def test_given_up(served: Served) -> None:
    put(served, "less/f", b"one", b"two", b"three")
    assert served.ask("DELETE", "/v1/versions/less/f?version=1").status == 204
    assert [one["version"] for one in served.ask("GET", "/v1/versions/less/f").json["versions"]] == [2]
    for method, path in (
        ("DELETE", "/v1/versions/less/f?version=1"), ("DELETE", "/v1/versions/less/f?version=3"),
        ("GET", "/v1/files/less/f?version=1"), ("GET", "/v1/versions/less/none"), ("GET", "/v1/files/less/f?version=9"),
    ):  # fmt: skip
        assert served.ask(method, path).problem == (404, "Missing"), path
    assert served.ask("POST", "/v1/versions/less/f", {"version": 1}).problem == (404, "Missing")


@pytest.mark.parametrize("body", [b"{}", b'{"version": "1"}', b'{"version": 0}', b'{"version": true}', b"[]"])
def test_bodies_that_are_refused(served: Served, body: bytes) -> None:
    put(served, "wrong/f", b"one", b"two")
    assert served.ask("POST", "/v1/versions/wrong/f", body, {"Content-Type": "application/json"}).status == 400


@pytest.mark.parametrize("query", ["", "?version=", "?version=0", "?version=x", "?version=-1"])
def test_queries_that_are_refused(served: Served, query: str) -> None:
    assert served.ask("DELETE", f"/v1/versions/wrong/f{query}").status == 400
    if query:
        assert served.ask("GET", f"/v1/files/wrong/f{query}").status == 400


def test_a_directory_has_none(served: Served) -> None:
    put(served, "folder/f", b"one")
    assert served.ask("GET", "/v1/versions/folder").status == 422
    assert served.ask("GET", "/v1/versions/").status == 422


def test_who_may(served: Served) -> None:
    put(served, "shared/f", b"one", b"two")
    put(served, "hidden/f", b"one", b"two")
    bob = {"Authorization": basic("bob")}
    assert served.ask("GET", "/v1/versions/shared/f", headers=bob).status == 200
    assert served.ask("GET", "/v1/files/shared/f?version=1", headers=bob).body == b"one"
    assert served.ask("POST", "/v1/versions/shared/f", {"version": 1}, bob).status == 403
    assert served.ask("DELETE", "/v1/versions/shared/f?version=1", headers=bob).status == 403
    assert served.ask("GET", "/v1/versions/hidden/f", headers=bob).status == 403
    assert served.ask("GET", "/v1/files/hidden/f?version=1", headers=bob).status == 403


def test_from_python(served: Served, tmp_path) -> None:
    vdir = served.vdir()
    for content in (b"one", b"two", b"three"):
        entry = vdir.write("python/f", content)
    told = vdir.versions("python/f")
    assert told["current"] == entry
    assert [vdir.read("python/f", version=one["version"]) for one in told["versions"]] == [b"two", b"one"]
    assert vdir.read("python/f", version=2, start=1) == b"wo"
    assert vdir.get("python/f", tmp_path / "old", version=1).read_bytes() == b"one"
    with pytest.raises(Changed):
        vdir.restore_version("python/f", 1, etag=told["versions"][0]["etag"])
    assert vdir.restore_version("python/f", 1, etag=entry["etag"])["version"] == 4
    assert vdir.read("python/f") == b"one"
    vdir.delete_version("python/f", 2)
    with pytest.raises(Missing):
        vdir.read("python/f", version=2)


def test_nothing_is_kept_unless_asked_for(tmp_path) -> None:
    with Served(tmp_path) as plain:
        put(plain, "f", b"one", b"two")
        assert plain.ask("GET", "/v1/versions/f").json["versions"] == []
        assert {name for name in plain.place("one").objects if ".cloudmesh" not in name} == {"f"}
