"""Links through the doors: REST, and who may."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.unit.data.gateway_scene import AUTH, Served

from cloudmesh.data.config import AccessRule

RULES = (AccessRule(path="open/**", users=("bob",)), AccessRule(users=("bob",), access="ReadOnly"))
BODY = {"store": "one", "key": "archive/run.csv"}


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    auth = type(AUTH)(kubernetes=False, basic=AUTH.basic, rules=RULES)
    with Served(tmp_path_factory.mktemp("gateway"), auth=auth, adopt=False) as served:
        served.place("one").put("archive/run.csv", b"theirs")
        yield served


def test_made_read_listed_and_adopted(served: Served) -> None:
    made = served.ask("PUT", "/v1/links/a/b", BODY)
    assert (made.status, made.json["link"], made.headers["ETag"]) == (201, BODY, made.json["etag"])
    got = served.ask("GET", "/v1/files/a/b", headers={"Range": "bytes=1-3"})
    assert (got.status, got.body, "Repr-Digest" in got.headers) == (206, b"hei", False)
    assert served.ask("GET", "/v1/files/a/b?redirect=allow").body == b"theirs"
    for path in ("/v1/list/a", "/v1/list/?recursive=true", "/v1/search?name=b"):
        assert [one["link"] for one in served.ask("GET", path).json["entries"] if one["name"] == "b"] == [BODY], path
    assert served.ask("GET", "/v1/stat/a/b").json["link"] == BODY
    (copy,) = served.ask("GET", "/v1/where/a/b").json["copies"]
    assert (copy["state"], copy["store"], copy["key"], "monthly" in copy) == ("Linked", "one", BODY["key"], False)
    assert served.ask("PUT", "/v1/links/a/b", BODY).problem == (409, "Exists")
    assert served.ask("PUT", "/v1/links/a/c", BODY).problem[0] == 409
    adopted = served.ask("POST", "/v1/links/a/b", {})
    assert (adopted.status, adopted.json["version"], "link" in adopted.json) == (200, 2, False)
    assert len(served.ask("GET", "/v1/where/a/b").json["copies"]) == 2
    assert served.ask("POST", "/v1/links/a/b", {}).problem[0] == 409
    assert served.place("one").objects["archive/run.csv"].content == b"theirs"


def test_gone_and_changed_is_said(served: Served) -> None:
    served.ask("PUT", "/v1/links/f", BODY)
    served.place("one").put("archive/run.csv", b"other")
    assert served.ask("GET", "/v1/files/f").problem[0] == 409
    served.place("one").remove("archive/run.csv")
    served.ask("PUT", "/v1/links/g", BODY | {"key": "none"})
    gone = served.ask("GET", "/v1/files/f")
    assert gone.status in (404, 409)
    assert "is a link to one:/archive/run.csv" in gone.json["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"[]", 400), (b"{}", 400), (b'{"store": "one"}', 400), (b'{"store": 1, "key": "x"}', 400),
        (b'{"store": "one", "key": ""}', 400), (b'{"store": "none", "key": "x"}', 404),
        (b'{"store": "one", "key": "none"}', 404), (b'{"store": "one", "key": "../x"}', 422),
        (b'{"store": "one", "key": "a/.cloudmesh/x"}', 422),
    ],
)  # fmt: skip
def test_bodies_that_are_refused(served: Served, body: bytes, status: int) -> None:
    assert served.ask("PUT", "/v1/links/f", body, {"Content-Type": "application/json"}).status == status


def test_only_who_may_change_all_makes_links(served: Served) -> None:
    assert served.ask("PUT", "/v1/links/open/f", BODY, user="bob").status == 403
    assert served.ask("PUT", "/v1/links/f", BODY, user="").status == 401
    assert served.ask("PUT", "/v1/links/open/f", BODY).status == 201
    assert served.ask("GET", "/v1/files/open/f", user="bob").body == b"theirs"
    assert served.ask("PUT", "/v1/links/f", BODY | {"key": "none"}, user="bob").status == 403
    assert served.ask("POST", "/v1/links/open/f", {}, user="bob").status == 200
    assert served.ask("POST", "/v1/links/f", {}, user="bob").status == 403
