"""What the gateway gives each caller of time, memory and trust."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import bcrypt
import pytest
from tests.unit.data.gateway_scene import AUTH, HASHED, Served, basic, until
from tests.unit.data.test_webdav import lock

from cloudmesh.data.config import AccessRule, AuthConfig
from cloudmesh.data.gateway import auth, paging
from cloudmesh.data.gateway.settings import GatewaySettings
from cloudmesh.data.gateway.throttle import FREE, MOST, MOST_SECONDS, Throttle, Throttled
from cloudmesh.engine.errors import Conflict

QUIET = GatewaySettings(idle_seconds=0.5)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, settings=QUIET) as found:
        yield found


# -- clients that fall silent


def talk(served: Served, head: str, *parts: bytes) -> bytes:
    """Sends a head and what follows, then nothing; gives what comes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        line.sendall((head + "\n\n").replace("\n", "\r\n").encode("latin-1"))
        for part in parts:
            line.sendall(part)
        return line.recv(65536)


@pytest.mark.parametrize(
    ("head", "part"),
    [
        ("PUT /v1/files/f HTTP/1.1\nHost: x\nContent-Length: 5000000", b"x" * 2_000_000),
        ("PUT /v1/files/f HTTP/1.1\nHost: x\nContent-Length: 50", b"x"),
        ("PUT /v1/files/f HTTP/1.1\nHost: x\nTransfer-Encoding: chunked", b"2\r\nab\r\n"),
        ("PUT /dav/f HTTP/1.1\nHost: x\nContent-Length: 50", b"x"),
        ("POST /v1/move HTTP/1.1\nHost: x\nContent-Type: application/json\nContent-Length: 50", b'{"from": '),
        ("PROPFIND /dav/ HTTP/1.1\nHost: x\nDepth: 0\nContent-Length: 50", b"<"),
    ],
)
def test_whoever_falls_silent_is_told_and_holds_nothing(served: Served, head: str, part: bytes) -> None:
    served.ask("PUT", "/v1/files/f", b"old")
    answer = talk(served, f"{head}\nAuthorization: {basic()}", part)
    assert answer.startswith(b"HTTP/1.1 408 "), answer[:200]
    assert b"Connection: close" in answer
    until(lambda: not served.call(served.gateway.catalog.intents(until=1 << 62)))
    assert served.ask("GET", "/v1/files/f").body == b"old"
    assert served.ask("PUT", "/v1/files/f", b"new").status == 200


def test_whoever_is_slow_but_not_silent_goes_on(tmp_path: Path) -> None:
    patient = GatewaySettings(idle_seconds=1.0)
    with (
        Served(tmp_path, settings=patient) as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=20) as line,
    ):
        head = f"PUT /v1/files/slow HTTP/1.1\nHost: x\nAuthorization: {basic()}\nContent-Length: 6\n\n"
        line.sendall(head.replace("\n", "\r\n").encode())
        for letter in b"abcdef":
            time.sleep(0.2)
            line.sendall(bytes([letter]))
        assert line.recv(65536).startswith(b"HTTP/1.1 201 ")


# -- Expect: 100-continue


def expecting(served: Served, target: str, *headers: str, user: str = "ada", size: int = 7) -> tuple[bytes, bytes]:
    """What comes before the content was sent, and then."""
    lines = [f"PUT {target} HTTP/1.1", "Host: x", "Expect: 100-continue", f"Content-Length: {size}", *headers]
    if user:
        lines.append(f"Authorization: {basic(user)}")
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as line:
        line.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        first = line.recv(65536)
        if not first.startswith(b"HTTP/1.1 100 "):
            return first, b""
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        line.sendall(b"content"[:size])
        return first, line.recv(65536)


def test_a_client_is_told_to_send_only_what_can_be_taken(tmp_path: Path) -> None:
    rules = (AccessRule("kept/**", users=("bob",), access="ReadOnly"),)
    with Served(tmp_path, auth=AuthConfig(False, AUTH.basic, rules=rules), quota_bytes=1000) as served:
        served.ask("PUT", "/v1/files/there", b"old")
        token = lock(served, "/dav/there")
        for status, target, headers, more in (
            (401, "/v1/files/f", (), {"user": ""}),
            (403, "/v1/files/kept/f", (), {"user": "bob"}),
            (409, "/v1/files/there", ("If-None-Match: *", f"If: ({token})"), {}),
            (412, "/v1/files/there", ('If-Match: "x"', f"If: ({token})"), {}),
            (423, "/v1/files/there", (), {}),
            (507, "/v1/files/f", (), {"size": 5000}),
            (422, "/v1/files/.cloudmesh/f", (), {}),
            (415, "/v1/files/f", ("Content-Encoding: gzip",), {}),
            (412, "/dav/there", ("If-None-Match: *", f"If: ({token})"), {}),
            (409, "/dav/no/such/f", (), {}),
        ):
            first, _ = expecting(served, target, *headers, **more)  # type: ignore[arg-type]
            assert first.startswith(f"HTTP/1.1 {status} ".encode()), (status, target, first[:200])
            # what the client does next on this connection isn't known
            assert b"Connection: close" in first, (status, target)
        for target in ("/v1/files/f", "/dav/g"):
            _, answer = expecting(served, target)
            assert answer.startswith(b"HTTP/1.1 201 "), answer
        assert served.ask("GET", "/v1/files/f").body == b"content"
        assert served.raw_status(f"PUT /v1/files/h HTTP/1.1\nHost: x\nExpect: tea\nAuthorization: {basic()}") == 417


# -- links into the store


def test_a_link_is_given_only_to_what_is_surely_the_file(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served.ask("PUT", "/v1/files/linked", b"content")
    for name, member in served.gateway.mesh.members.items():

        async def presign(key: str, seconds: int, name: str = name) -> str:
            return f"https://{name}.example/{key}"

        monkeypatch.setattr(member.store, "presign", presign, raising=False)
    ask = "/v1/files/linked?redirect=allow"
    assert served.ask("GET", ask).headers["Location"] == "https://one.example/linked"
    served.place("one").put("linked", b"not it!")
    assert served.ask("GET", ask).headers["Location"] == "https://two.example/linked"
    served.place("two").remove("linked")
    served.place("two").put("linked", b"not the length")
    answer = served.ask("GET", ask)
    assert (answer.status, answer.headers["Location"]) == (503, None)


# -- searches and listings


def test_a_search_ends_at_a_bound_and_goes_on_from_there(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "ROWS", 40)
    monkeypatch.setattr(paging, "STEP", 20)
    for number in range(100):
        served.call(served.gateway.tree.put(f"d{number % 3}/f{number:03}", content(), size=1))
    found, after, pages = [], "", 0
    while True:
        page = served.ask("GET", f"/v1/search?name=f*5&after={quote(after)}").json
        found += [entry["name"] for entry in page["entries"]]
        pages += 1
        assert page.get("truncated", False) is ("after" in page)
        if not (after := page.get("after", "")):
            break
    assert sorted(found) == [f"f{number:03}" for number in range(5, 100, 10)]
    assert pages == 3
    assert len(list(served.vdir().search("f*5"))) == 10
    # time is one too
    ticks = iter(range(0, 10**6, 3))
    served.gateway.rest._pager._clock = lambda: next(ticks)
    page = served.ask("GET", "/v1/search?name=nothing").json
    assert page["truncated"] is True
    assert page["entries"] == []


async def content() -> AsyncIterator[bytes]:
    yield b"x"


def test_a_mark_tells_no_hidden_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "ROWS", 10)
    monkeypatch.setattr(paging, "LEAST", 10)
    rules = (AccessRule("secret*", users=("bob",), access="None"),)
    with Served(tmp_path, auth=AuthConfig(False, AUTH.basic, rules=rules)) as served:
        for number in range(35):
            served.call(served.gateway.tree.put(f"secret{number:02}", content(), size=1))
        served.call(served.gateway.tree.put("zebra", content(), size=1))
        found, after, pages = [], "", 0
        while True:
            page = served.ask("GET", f"/v1/list/?limit=5&after={quote(after)}", user="bob").json
            found += page["entries"]
            pages += 1
            if not (after := page.get("after", "")):
                break
            assert "secret" not in after
        assert [entry["name"] for entry in found] == ["zebra"]
        assert pages == 4
        assert served.ask("GET", "/v1/list/?after=/made-up", user="bob").problem == (400, "InvalidRequest")


# -- wrong passwords


def test_wrong_passwords_wait_longer_each_time() -> None:
    now = [1000.0]
    throttle = Throttle(lambda: now[0])
    waits = []
    for _ in range(20):
        try:
            throttle.check("ada", "10.0.0.1")
        except Throttled as error:
            waits.append(error.seconds)
            now[0] += error.seconds
            throttle.check("ada", "10.0.0.1")
        throttle.wrong("ada", "10.0.0.1")
    assert len(waits) == 20 - FREE
    assert waits[:3] == [0.5, 1.0, 2.0]
    assert max(waits) == waits[-1] == MOST_SECONDS
    throttle.check("ada", "10.0.0.2")
    throttle.check("bob", "10.0.0.1")
    throttle.right("ada", "10.0.0.1")
    throttle.check("ada", "10.0.0.1")
    for number in range(MOST + 100):
        throttle.wrong(f"user{number}", "10.0.0.1")
    assert len(throttle._wrong) == MOST
    for _ in range(FREE):
        throttle.wrong("eve", "10.0.0.1")
    with pytest.raises(Throttled):
        throttle.check("eve", "10.0.0.1")
    now[0] += 1000
    throttle.check("eve", "10.0.0.1")


def test_a_guesser_is_held_up_and_others_arent(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloudmesh.data.gateway.throttle.FIRST_SECONDS", 60.0)
    assert served.ask("GET", "/v1/usage").status == 200
    for number in range(FREE):
        told = {"Authorization": basic("ada", f"guess {number}")}
        assert served.ask("GET", "/v1/usage", headers=told).status == 401
    answer = served.ask("GET", "/v1/usage", headers={"Authorization": basic("ada", "one more")})
    assert answer.problem == (429, "Throttled")
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    # whoever is in stays in, others come in, and nobody else's name is held up
    assert served.ask("GET", "/v1/usage").status == 200
    assert served.ask("GET", "/v1/usage", user="bob").status == 200
    served.gateway.door._kept = {key: (0.0, *kept[1:]) for key, kept in served.gateway.door._kept.items()}
    assert served.ask("GET", "/v1/usage").status == 200


def test_a_name_that_isnt_known_costs_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = []

    def check(password: bytes, hashed: bytes) -> bool:
        costs.append(hashed[4:6])
        return bcrypt.kdf is None

    monkeypatch.setattr(auth.bcrypt, "checkpw", check)
    cheap, dear = "$2b$04$" + "a" * 53, "$2b$12$" + "a" * 53
    config = AuthConfig(False, {"ada": cheap, "bob": dear})
    for user in ("bob", "nobody"):
        assert auth._basic(basic(user).removeprefix("Basic "), config) is None
    assert costs == [b"12", b"12"]
    assert HASHED.startswith("$2b$")


# -- locks of WebDAV bind other doors


def test_locks_bind_rest_too(served: Served) -> None:
    served.ask("MKCOL", "/dav/d")
    served.ask("PUT", "/dav/d/a", b"1")
    served.ask("PUT", "/dav/b", b"1")
    gone = served.ask("PUT", "/dav/d/gone", b"1")
    assert gone.status == 201
    served.ask("DELETE", "/dav/d/gone")
    trashed = served.ask("GET", "/v1/trash").json["entries"][0]["id"]
    token = lock(served, "/dav/d", Timeout="Second-100")
    changes: list[tuple[str, str, Any]] = [
        ("PUT", "/v1/files/d/a", b"2"), ("PUT", "/v1/files/d/new/deep", b"2"), ("DELETE", "/v1/files/d/a", None),
        ("DELETE", "/v1/files/d?recursive=true", None), ("PUT", "/v1/directories/d/c", None),
        ("PUT", "/v1/tags/d/a", {"a": "1"}), ("POST", "/v1/move", {"from": "d/a", "to": "out"}),
        ("POST", "/v1/move", {"from": "b", "to": "d/b"}), ("POST", "/v1/copy", {"from": "b", "to": "d/b"}),
        ("POST", "/v1/restore", {"id": trashed}), ("POST", "/v1/versions/d/a", {"version": 1}),
        ("DELETE", "/v1/versions/d/a?version=1", None),
    ]  # fmt: skip
    for method, target, body in changes:
        for user in ("ada", "bob"):
            answer = served.ask(method, target, body, user=user)
            assert answer.problem == (423, "Locked"), (method, target)
            assert "locked by 'ada'" in answer.json["detail"]
        assert served.ask(method, target, body, {"If": f"({token})"}, user="bob").status == 423
    assert served.ask("PUT", "/v1/files/d/a", b"2", {"If": f"({token})"}).status == 200
    assert served.ask("PUT", "/v1/files/outside", b"2").status == 201
    with pytest.raises(Conflict, match="locked by 'ada'"):
        served.vdir("bob").write("d/a", b"2")
    assert served.ask("GET", "/v1/files/d/a", user="bob").body == b"2"
    assert served.ask("DELETE", "/v1/files/d?recursive=true", headers={"If": f"({token})"}).status == 204
    assert served.ask("MKCOL", "/dav/d", user="bob").status == 201


def test_a_lock_of_a_directory_alone_binds_what_comes_into_it(served: Served) -> None:
    served.ask("MKCOL", "/dav/d")
    served.ask("PUT", "/dav/d/a", b"1")
    lock(served, "/dav/d", Depth="0")
    assert served.ask("PUT", "/v1/files/d/a", b"2", user="bob").status == 200
    assert served.ask("PUT", "/v1/files/d/b", b"2", user="bob").status == 423
    assert served.ask("PUT", "/v1/files/d/x/y/z", b"2", user="bob").status == 423


def test_a_lock_taken_during_an_upload_by_rest(served: Served) -> None:
    served.ask("PUT", "/dav/a", b"old")
    sent, go, found = threading.Event(), threading.Event(), []

    def pieces() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        sent.set()
        go.wait(0.4)
        yield b"y"

    headers = {"Transfer-Encoding": "chunked"}
    writer = threading.Thread(
        target=lambda: found.append(served.ask("PUT", "/v1/files/a", pieces(), headers, user="bob").status)
    )
    writer.start()
    assert sent.wait(20)
    until(lambda: served.call(served.gateway.catalog.intents(until=1 << 62)))
    lock(served, "/dav/a")
    go.set()
    writer.join(20)
    assert found == [423]
    assert served.ask("GET", "/dav/a").body == b"old"


# -- what the process is told


def test_settings() -> None:
    read = GatewaySettings.from_environ
    assert read({}) == GatewaySettings()
    told = {"CLOUDMESH_MEMORY_LIMIT": "536870912", "CLOUDMESH_IDLE_SECONDS": "10"}
    assert read(told) == GatewaySettings(memory=512 << 20, idle_seconds=10)
    for wrong in ("x", "0", "-1", "1e9", "٣"):
        assert read({"CLOUDMESH_MEMORY_LIMIT": wrong}) == GatewaySettings()


def test_the_budget_follows_the_memory_that_there_is(tmp_path: Path) -> None:
    with Served(tmp_path, settings=GatewaySettings(memory=100 << 20)) as served:
        memory = served.gateway.tree.writer.memory
        assert memory.writes.total + memory.reads.total < 100 << 20


def test_which_directory_it_is_is_told_to_users_alone(served: Served) -> None:
    meant = {"Cloudmesh-Directory": "other"}
    for headers in (meant, meant | {"Authorization": basic("ada", "wrong")}):
        answer = served.ask("GET", "/v1/list/", user="", headers=headers)
        assert (answer.status, b"lab" in answer.body) == (401, False)
    assert served.ask("GET", "/v1/list/", headers=meant | {"Authorization": basic()}).problem == (421, "Misdirected")
