"""Who is let in: passwords, Kubernetes tokens against an API server, path rules."""

from __future__ import annotations

import asyncio
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.gateway_scene import AUTH, HASHED, Served, basic

from cloudmesh.data.config import AccessRule, AuthConfig
from cloudmesh.data.gateway import auth
from cloudmesh.data.gateway.auth import Doorkeeper, Forbidden, Unauthenticated, User
from cloudmesh.data.model import Entry


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("gateway")) as served:
        assert served.ask("PUT", "/v1/files/a", b"x").status == 201
        yield served


ROUTES = [
    ("GET", "/v1/files/a"), ("HEAD", "/v1/files/a"), ("PUT", "/v1/files/a"), ("DELETE", "/v1/files/a"),
    ("GET", "/v1/stat/a"), ("GET", "/v1/list/"), ("PUT", "/v1/directories/d"), ("PUT", "/v1/tags/a"),
    ("GET", "/v1/where/a"), ("GET", "/v1/why/a"), ("POST", "/v1/move"), ("POST", "/v1/copy"), ("POST", "/v1/restore"),
    ("GET", "/v1/trash"), ("GET", "/v1/search"), ("GET", "/v1/usage"), ("POST", "/v1/snapshot"),
    ("POST", "/v1/rebuild"), ("POST", "/v1/believe"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target"), ROUTES)
def test_every_route_asks_who(served: Served, method: str, target: str) -> None:
    answer = served.ask(method, target, user="")
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="cloudmesh", Basic realm="cloudmesh"'
    if method != "HEAD":
        assert answer.problem == (401, "Unauthenticated")


@pytest.mark.parametrize(
    "authorization",
    [basic("ada", "wrong"), basic("eve"), basic("ada", ""), basic("", ""), basic("ada", "x" * 100), "Basic", "Basic ",
     "Basic ====", "Basic YWRh", "Basic \xff\xfe", "Basic " + "A" * 8000, basic("ada", "a\0b"), "Bearer token",
     "Bearer", "Digest x", "nonsense", " ", basic("ada").replace("Basic", "Bearer"), "Negotiate " + "é"],
    ids=str,
)  # fmt: skip
def test_who_is_not_let_in(served: Served, authorization: str) -> None:
    assert served.ask("GET", "/v1/files/a", headers={"Authorization": authorization}).problem == (
        401,
        "Unauthenticated",
    )


def test_the_scheme_is_of_any_case(served: Served) -> None:
    for scheme in ("basic", "BASIC"):
        told = {"Authorization": basic().replace("Basic", scheme)}
        assert served.ask("GET", "/v1/files/a", headers=told).status == 200


def test_a_password_that_ends_at_a_change_of_the_configuration(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        assert served.ask("GET", "/v1/usage").status == 200
        served.reconfigure(auth=AuthConfig(kubernetes=False, basic={"bob": HASHED}))
        assert served.ask("GET", "/v1/usage").problem == (401, "Unauthenticated")
        assert served.ask("GET", "/v1/usage", user="bob").status == 200
        served.reconfigure(auth=AUTH)
        assert served.ask("GET", "/v1/usage").status == 200


@pytest.mark.parametrize(
    ("level", "read", "write"), [("None", 401, 401), ("ReadOnly", 200, 403), ("ReadWrite", 200, 200)]
)
def test_nobody_in_particular(tmp_path: Path, level: Any, read: int, write: int) -> None:
    with Served(tmp_path, auth=AuthConfig(kubernetes=False, basic={"ada": HASHED}, anonymous=level)) as served:
        assert served.ask("PUT", "/v1/files/a", b"x").status == 201
        assert served.ask("GET", "/v1/files/a", user="").status == read
        assert served.ask("PUT", "/v1/files/a", b"x", user="").status == write
        # somebody who says a wrong password isn't taken for nobody
        assert served.ask("GET", "/v1/files/a", headers={"Authorization": basic("ada", "wrong")}).status == 401


# -- path rules

RULES = (
    AccessRule("shared/open/**"),
    AccessRule("shared/**", access="ReadOnly", users=("bob",)),
    AccessRule("team/secret/**", access="None", users=("bob",)),
    AccessRule("hidden/**", access="None", users=("bob",)),
    AccessRule("*/private.txt", access="None", users=("bob",)),
)


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("gateway"), auth=AuthConfig(False, AUTH.basic, "None", RULES)) as served:
        yield served


FILES = ("shared/a", "shared/open/b", "team/secret/c", "team/d", "hidden/e", "own/f", "own/private.txt")


@pytest.fixture
def rules(ruled: Served) -> Served:
    for path in FILES:
        assert ruled.ask("PUT", f"/v1/files/{path}", path.encode()).status in (200, 201)
    return ruled


def test_what_bob_may(rules: Served) -> None:
    bob = {"user": "bob"}
    seen = {path: rules.ask("GET", f"/v1/files/{path}", **bob).status for path in FILES}
    assert seen == {
        "shared/a": 200, "shared/open/b": 200, "team/secret/c": 403, "team/d": 200, "hidden/e": 403, "own/f": 200,
        "own/private.txt": 403,
    }  # fmt: skip
    changed = {path: rules.ask("PUT", f"/v1/files/{path}", b"x", **bob).status for path in FILES}
    assert changed == {
        "shared/a": 403, "shared/open/b": 200, "team/secret/c": 403, "team/d": 200, "hidden/e": 403, "own/f": 200,
        "own/private.txt": 403,
    }  # fmt: skip
    for what in ("stat", "where", "why"):
        assert rules.ask("GET", f"/v1/{what}/hidden/e", **bob).problem == (403, "Forbidden")
    assert rules.ask("GET", "/v1/list/hidden", **bob).problem == (403, "Forbidden")
    assert rules.ask("GET", "/v1/list/team/secret", **bob).problem == (403, "Forbidden")
    assert rules.ask("GET", "/v1/search?under=hidden", **bob).problem == (403, "Forbidden")
    assert rules.ask("PUT", "/v1/tags/shared/a", {}, **bob).problem == (403, "Forbidden")
    assert rules.ask("PUT", "/v1/directories/hidden/d", **bob).problem == (403, "Forbidden")
    assert rules.ask("DELETE", "/v1/files/shared/a", **bob).problem == (403, "Forbidden")
    assert rules.ask("POST", "/v1/copy", {"from": "hidden/e", "to": "own/x"}, **bob).problem == (403, "Forbidden")
    assert rules.ask("POST", "/v1/copy", {"from": "own/f", "to": "shared/x"}, **bob).problem == (403, "Forbidden")
    assert rules.ask("POST", "/v1/move", {"from": "shared/a", "to": "own/x"}, **bob).problem == (403, "Forbidden")
    # what is encoded is the same path
    assert rules.ask("GET", "/v1/files/hidden%2Fe", **bob).problem == (403, "Forbidden")
    assert rules.ask("GET", "/v1/files/h%69dden/e", **bob).problem == (403, "Forbidden")


def test_listings_tell_no_hidden_name(rules: Served) -> None:
    hidden = ("hidden", "secret", "private")
    for target in ("list/?recursive=true&limit=1", "search?limit=1", "list/?limit=1"):
        found, ask = [], f"/v1/{target}"
        while ask:
            page = rules.ask("GET", ask, user="bob")
            assert page.status == 200
            assert not any(word in page.body.decode() + str(page.headers) for word in hidden), page.body
            found += [e["path"] for e in page.json["entries"]]
            assert len(page.json["entries"]) <= 1
            link = page.headers["Link"]
            ask = link[1 : link.index(">")] if link else ""
        wanted = {"own", "shared", "team"}
        if not target.startswith("list/?limit"):
            wanted |= {"own/f", "shared/a", "shared/open", "shared/open/b", "team/d"}
        assert set(found) == wanted


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("team", "mine"),
        ("own", "mine"),
        ("shared", "mine"),
        ("", "mine"),
        ("own", "hidden/x"),
        ("own", "team/secret/x"),
    ],
)
def test_a_hidden_file_gets_no_other_path(rules: Served, source: str, target: str) -> None:
    """A directory above it moves only with whoever may change all that is in it."""
    answer = rules.ask("POST", "/v1/move", {"from": source, "to": target}, user="bob")
    assert answer.status in (403, 422)
    assert rules.ask("DELETE", f"/v1/files/{source}?recursive=true", user="bob").status in (403, 422)
    assert rules.ask("GET", "/v1/stat/mine").status == 404
    assert {path: rules.ask("GET", f"/v1/stat/{path}").status for path in FILES} == dict.fromkeys(FILES, 200)


def test_a_directory_that_lands_where_rules_hold(rules: Served) -> None:
    """`secret` below another name would come to lie where bob may write nothing, or shadow it."""
    assert rules.ask("PUT", "/v1/files/own2/secret/x", b"x", user="bob").status in (200, 201)
    assert rules.ask("POST", "/v1/move", {"from": "own2", "to": "team2"}, user="bob").status == 403  # */private.txt
    assert rules.ask("POST", "/v1/move", {"from": "own2", "to": "team2"}).status == 200
    assert rules.ask("DELETE", "/v1/files/team2?recursive=true").status == 204


def test_what_is_hidden_is_not_restored_elsewhere(rules: Served) -> None:
    assert rules.ask("DELETE", "/v1/files/hidden/e").status == 204
    assert rules.ask("DELETE", "/v1/files/team?recursive=true").status == 204
    trash = {e["path"]: e["id"] for e in rules.ask("GET", "/v1/trash").json["entries"]}
    seen = {e["path"] for e in rules.ask("GET", "/v1/trash", user="bob").json["entries"]}
    assert "hidden/e" in trash
    assert "hidden/e" not in seen
    for body in (
        {"id": trash["hidden/e"], "to": "own/e"},
        {"id": trash["hidden/e"]},
        {"id": trash["team"], "to": "own/t"},
    ):
        assert rules.ask("POST", "/v1/restore", body, user="bob").problem == (403, "Forbidden")
    assert rules.ask("POST", "/v1/restore", {"id": trash["team"]}).status == 200
    assert rules.ask("POST", "/v1/restore", {"id": trash["hidden/e"]}).status == 200


# -- path rules without a gateway


def door(*rules: AccessRule) -> Doorkeeper:
    class Config:
        auth = AuthConfig(rules=rules)

    return Doorkeeper(lambda: Config, None)  # type: ignore[arg-type]


BOB = User("bob", frozenset({"staff"}), 2)
FOLDER = Entry("a" * 16, "0" * 16, "x", "Directory")


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ((), "a", True),
        ((AccessRule("b/**", access="None"),), "a", True),
        ((AccessRule("a/b/**", access="None"),), "a", False),
        ((AccessRule("a/b/**", access="None"),), "a/b", False),
        ((AccessRule("a/b/**", access="None"),), "a/b/c", False),
        ((AccessRule("a/b/**", access="None"),), "a/bc", True),
        ((AccessRule("a/b/**", access="ReadOnly"),), "a", False),
        ((AccessRule("a/b", access="None"),), "a", False),
        ((AccessRule("a/b", access="None"),), "a/b/c", True),
        ((AccessRule("a/b/**", access="None", users=("ada",)),), "a", True),
        ((AccessRule("a/b/**", access="None", groups=("staff",)),), "a", False),
        ((AccessRule("**/secret", access="None"),), "a", False),
        # the first that fits all of it decides
        ((AccessRule("a/**"), AccessRule("**", access="None")), "a", True),
        ((AccessRule("a/**"), AccessRule("**", access="None")), "b", False),
        ((AccessRule("a/*"), AccessRule("a/**", access="None")), "a", False),
        ((AccessRule("**"), AccessRule("a/b/**", access="None")), "a", True),
    ],
)
def test_directories_above_what_rules_keep(rules: tuple[AccessRule, ...], path: str, allowed: bool) -> None:
    if allowed:
        door(*rules).check_below(BOB, path, FOLDER)
    else:
        with pytest.raises(Forbidden):
            door(*rules).check_below(BOB, path, FOLDER)


def test_rules_keep_what_they_name_in_every_form_of_unicode() -> None:
    # as an editor on another system writes it
    keeper = door(AccessRule("se\u0301cret/**", access="None"))
    with pytest.raises(Forbidden):
        keeper.check(BOB, "s\u00e9cret/a", "get")
    with pytest.raises(Forbidden):
        keeper.check_below(BOB, "s\u00e9cret", FOLDER)
    keeper.check(BOB, "secret/a", "get")


# -- tokens of Kubernetes


class FakeApi:
    """An API server that knows some tokens, and what their users may."""

    def __init__(self) -> None:
        self.may: dict[str, set[str]] = {"reader": {"get"}, "writer": {"get", "update"}, "stranger": set()}
        self.asked: Counter[str] = Counter()
        self.reviews: list[dict[str, Any]] = []
        self.fails: int | bytes = 0
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                # as API servers do: whatever else stands behind it
                token = self.headers["Authorization"].split(" ")[1]
                api.asked[body["kind"]] += 1
                if isinstance(api.fails, bytes):
                    return self.send(201, api.fails)
                if api.fails:
                    return self.send(api.fails, b"{}")
                if token not in api.may:
                    return self.send(401, b"{}")
                if self.path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
                    status: dict[str, Any] = {"userInfo": {"username": f"system:{token}", "groups": [f"g-{token}"]}}
                else:
                    assert self.path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
                    api.reviews.append(body["spec"]["resourceAttributes"])
                    status = {"allowed": body["spec"]["resourceAttributes"]["verb"] in api.may[token]}
                return self.send(201, json.dumps({**body, "status": status}).encode())

            def send(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.close()


@pytest.fixture
def kubernetes(tmp_path: Path, api: FakeApi) -> Iterator[Served]:
    rules = (AccessRule("closed/**", access="None", groups=("g-reader",)),)
    told = AuthConfig(True, {"ada": HASHED}, "None", rules)
    with Served(tmp_path, auth=told, api_server=api.url) as served:
        assert served.ask("PUT", "/v1/files/a", b"x").status == 201
        assert served.ask("PUT", "/v1/files/closed/b", b"x").status == 201
        yield served


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_tokens_are_asked_about_with_themselves(kubernetes: Served, api: FakeApi) -> None:
    expected = {"reader": (200, 403), "writer": (200, 200), "stranger": (403, 403), "unknown": (401, 401)}
    for token, (read, write) in expected.items():
        assert kubernetes.ask("GET", "/v1/files/a", headers=bearer(token)).status == read
        assert kubernetes.ask("PUT", "/v1/files/a", b"y", bearer(token)).status == write
    assert api.reviews[0] == {
        "namespace": "default", "name": "lab", "verb": "get", "group": "cloudmesh.org",
        "resource": "virtualdirectories", "subresource": "files",
    }  # fmt: skip
    forbidden = kubernetes.ask("PUT", "/v1/files/a", b"y", bearer("reader"))
    assert forbidden.problem == (403, "Forbidden")
    assert "system:reader" in forbidden.json["detail"]
    assert kubernetes.ask("GET", "/v1/files/closed/b", headers=bearer("reader")).problem == (403, "Forbidden")
    assert kubernetes.ask("GET", "/v1/files/closed/b", headers=bearer("writer")).status == 200
    # a verdict is kept for a while: one review of each token
    assert api.asked["SelfSubjectReview"] == 4


def test_a_verdict_ends(kubernetes: Served, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "KEPT_SECONDS", 0.1)
    assert kubernetes.ask("PUT", "/v1/files/a", b"y", bearer("writer")).status == 200
    api.may["writer"] = {"get"}
    time.sleep(0.15)
    assert kubernetes.ask("PUT", "/v1/files/a", b"y", bearer("writer")).status == 403
    del api.may["writer"]
    time.sleep(0.15)
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer("writer")).problem == (401, "Unauthenticated")


@pytest.mark.parametrize("fails", [500, 429, 302, b"not json", b"[]", b"{}", b'{"status": null}'], ids=str)
def test_an_api_server_that_fails_lets_nobody_in(kubernetes: Served, api: FakeApi, fails: Any) -> None:
    api.fails = fails
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer("writer")).problem == (503, "Transient")
    # passwords need none, and what was no verdict isn't kept
    assert kubernetes.ask("GET", "/v1/files/a").status == 200
    api.fails = 0
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer("writer")).status == 200


@pytest.mark.parametrize("shown", ["writer x", "writer  writer", "writer\tx", "x writer", " "])
def test_a_token_is_one_word(kubernetes: Served, api: FakeApi, shown: str) -> None:
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer(shown)).problem == (401, "Unauthenticated")
    assert not api.asked
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer(" writer ")).status == 200


def test_an_api_server_that_is_away(kubernetes: Served, api: FakeApi) -> None:
    api.close()
    assert kubernetes.ask("GET", "/v1/files/a", headers=bearer("writer")).problem == (503, "Transient")
    assert kubernetes.ask("GET", "/v1/files/a").status == 200
    api.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    threading.Thread(target=api.server.serve_forever, args=(0.01,), daemon=True).start()


def test_tokens_where_they_are_not_wanted(tmp_path: Path, api: FakeApi) -> None:
    with Served(tmp_path, auth=AUTH, api_server=api.url) as served:
        assert served.ask("GET", "/v1/usage", headers=bearer("writer")).problem == (401, "Unauthenticated")
    assert not api.asked


async def test_one_question_for_many_who_ask_at_once() -> None:
    asked = []

    class Api:
        async def who(self, token: str, namespace: str, name: str) -> User | None:
            asked.append(token)
            await asyncio.sleep(0.01)
            return User(token, frozenset(), 2) if token == "good" else None

    class Config:
        namespace = name = "x"
        operator_token = ""
        auth = AuthConfig()

    keeper = Doorkeeper(lambda: Config, Api())  # type: ignore[arg-type]
    found = await asyncio.gather(*(keeper.user("Bearer good") for _ in range(50)))
    assert {u.name for u in found} == {"good"}
    refused = await asyncio.gather(*(keeper.user("Bearer bad") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(r, Unauthenticated) for r in refused)
    assert asked == ["good", "bad"]
    assert not keeper._asking
