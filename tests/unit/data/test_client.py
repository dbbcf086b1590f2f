"""`Vdir` and its errors, through a real gateway and one that misbehaves."""

from __future__ import annotations

import http.server
import io
import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from tests.unit.data.gateway_scene import AUTH, PASSWORD, Served, until

from cloudmesh.data import client as client_module
from cloudmesh.data.client import Vdir
from cloudmesh.data.config import AccessRule, AuthConfig
from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing
from cloudmesh.engine.errors import AuthFailed, Conflict, InvalidRequest, Transient


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    rules = (AccessRule("closed/**", access="None", users=("bob",)),)
    told = AuthConfig(False, AUTH.basic, "None", rules)
    with Served(tmp_path_factory.mktemp("gateway"), auth=told, quota_bytes=50 << 20) as served:
        yield served


@pytest.fixture
def vdir(served: Served) -> Iterator[Vdir]:
    vdir = served.vdir()
    yield vdir
    vdir.close()


class Piece(io.RawIOBase):
    """A file that can't be rewound."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        return self._content.readinto(buffer)


CONTENT = b"0123456789" * 1000
KINDS = {
    "bytes": lambda: CONTENT,
    "bytearray": lambda: bytearray(CONTENT),
    "memoryview": lambda: memoryview(CONTENT),
    "file": lambda: io.BytesIO(CONTENT),
    "pieces": lambda: (CONTENT[at : at + 999] for at in range(0, len(CONTENT), 999)),
    "list": lambda: [CONTENT[:5], CONTENT[5:]],
    "pipe": lambda: Piece(CONTENT),
}


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_content(vdir: Vdir, kind: str) -> None:
    entry = vdir.write(f"kinds/{kind}", KINDS[kind](), content_type="text/x", tags={"k": "ü &="}, modified="5")
    assert (entry["size"], entry["contentType"], entry["tags"]) == (len(CONTENT), "text/x", {"k": "ü &="})
    assert entry["modified"] == "1970-01-01T00:00:00.000005Z"
    assert vdir.read(f"kinds/{kind}") == CONTENT


def test_a_file_from_where_it_stands(vdir: Vdir) -> None:
    file = io.BytesIO(CONTENT)
    file.seek(7)
    vdir.write("at", file)
    assert vdir.read("at") == CONTENT[7:]


def test_parts(vdir: Vdir) -> None:
    vdir.write("parts", CONTENT)
    assert vdir.read("parts", start=3, stop=8) == CONTENT[3:8]
    assert vdir.read("parts", start=9990) == CONTENT[9990:]
    assert vdir.read("parts", stop=5) == CONTENT[:5]
    assert vdir.read("parts", start=5, stop=5) == vdir.read("parts", start=6, stop=5) == b""
    assert vdir.read("parts", start=10_000) == vdir.read("parts", start=99_999, stop=100_000) == b""
    assert vdir.read("parts", start=9_999, stop=99_999) == CONTENT[-1:]
    etag = vdir.stat("parts")["etag"]
    assert vdir.read("parts", etag=etag) == CONTENT
    vdir.write("parts", b"new")
    with pytest.raises(Changed):
        vdir.read("parts", etag=etag)


def test_the_tree(vdir: Vdir) -> None:
    vdir.mkdir("tree/deep/er")
    vdir.write("tree/a b/ü&?#%41.txt", b"x")
    assert vdir.exists("tree/a b/ü&?#%41.txt")
    assert [e["path"] for e in vdir.list("tree")] == ["tree/a b", "tree/deep"]
    assert [e["path"] for e in vdir.list("/tree/", recursive=True)] == [
        "tree/a b", "tree/a b/ü&?#%41.txt", "tree/deep", "tree/deep/er",
    ]  # fmt: skip
    assert [e["path"] for e in vdir.search("*.TXT", under="tree", minSize=1)] == ["tree/a b/ü&?#%41.txt"]
    vdir.set_tags("tree/deep", {"a": "b"})
    assert vdir.stat("tree/deep")["tags"] == {"a": "b"}
    vdir.move("tree/a b", "tree/moved")
    vdir.copy("tree/moved/ü&?#%41.txt", "tree/copy")
    with pytest.raises(Exists):
        vdir.copy("tree/moved/ü&?#%41.txt", "tree/copy")
    vdir.copy("tree/moved/ü&?#%41.txt", "tree/copy", overwrite=True)
    with pytest.raises(Exists):
        vdir.delete("tree")
    vdir.delete("tree", recursive=True)
    assert not vdir.exists("tree")
    (gone,) = [e for e in vdir.trash() if e["path"] == "tree"]
    vdir.restore(gone["id"])
    assert vdir.read("tree/copy") == b"x"
    assert vdir.usage()["files"] > 0
    assert {c["store"] for c in vdir.where("tree/copy")["copies"]} == {"one", "two"}
    assert vdir.why("tree/copy")["rule"]["name"] == "default"


def test_listings_of_many_pages(vdir: Vdir, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(7):
        vdir.write(f"many/{n}&{n}", b"")
    asked = []
    inner = vdir._json

    def counted(method: str, target: str, *more, **others):
        asked.append(target)
        return inner(method, f"{target}&limit=3" if "?" in target else target, *more, **others)

    monkeypatch.setattr(vdir, "_json", counted)
    assert [e["name"] for e in vdir.list("many")] == [f"{n}&{n}" for n in range(7)]
    assert len(asked) == 3


def test_files_of_this_machine(vdir: Vdir, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(CONTENT)
    os.utime(source, ns=(1, 1_577_836_800_000_001_000))
    assert vdir.put(source, "local")["modified"] == "2020-01-01T00:00:00.000001Z"
    with pytest.raises(Exists):
        vdir.put(source, "local", new=True)
    (tmp_path / ".target.part").write_bytes(b"a file of the user's")
    target = vdir.get("local", tmp_path / "target")
    assert target.read_bytes() == CONTENT
    # what can't be read leaves what was there, and nothing beside it
    with pytest.raises(Missing):
        vdir.get("none", target)
    assert target.read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == [".target.part", "source", "target"]


def test_errors(served: Served, vdir: Vdir) -> None:
    entry = vdir.write("errors", b"x")
    vdir.write("closed/a", b"x")
    with pytest.raises(Missing, match="there is no 'none'"):
        vdir.stat("none")
    with pytest.raises(Missing):
        vdir.read("none")
    with pytest.raises(Exists):
        vdir.write("errors", b"y", new=True)
    with pytest.raises(Changed):
        vdir.write("errors", b"y", etag='"0000000000000000-1"')
    with pytest.raises(Changed):
        vdir.delete("errors", etag='"0000000000000000-1"')
    with pytest.raises(InvalidName):
        vdir.write("errors/below", b"y")
    with pytest.raises(InvalidName):
        vdir.mkdir(".cloudmesh/x")
    with pytest.raises(InvalidName):
        vdir.read("")
    with pytest.raises(InvalidRequest):
        vdir.set_tags("errors", {"a b": "x"})
    with pytest.raises(InvalidRequest):
        vdir.write("errors", b"y", modified="yesterday")
    with pytest.raises(Full, match="quota"):
        vdir.write("full", b"y" * ((50 << 20) + 1))
    with pytest.raises(Full):
        vdir.write("full", itertools.repeat(b"y" * (1 << 20), 60))
    with pytest.raises(AuthFailed):
        served.vdir("bob").read("closed/a")
    with pytest.raises(AuthFailed):
        served.vdir("bob", "wrong").stat("errors")
    assert vdir.stat("errors") == entry


@pytest.mark.parametrize("path", ["a/../errors", "..", "../../v1/usage", "a/./b", "a//b", "a\0b", "\ud800", "x" * 2000])
def test_paths_are_never_resolved_on_the_way(vdir: Vdir, path: str) -> None:
    for ask in (
        vdir.stat,
        vdir.read,
        vdir.delete,
        vdir.where,
        lambda p: vdir.write(p, b"x"),
        lambda p: list(vdir.list(p)),
    ):
        with pytest.raises(InvalidName):
            ask(path)


def test_content_that_breaks_publishes_nothing(served: Served, vdir: Vdir) -> None:
    vdir.write("broken", b"old")

    def pieces() -> Iterator[bytes]:
        yield b"x" * (2 << 20)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        vdir.write("broken", pieces())
    assert vdir.read("broken") == b"old"
    until(lambda: not served.call(served.gateway.catalog.intents(until=1 << 62)))
    assert vdir.write("broken", b"new")["version"] == 2


def test_a_read_that_is_left_leaves_no_rest(vdir: Vdir) -> None:
    vdir.write("left", b"x" * (5 << 20))
    for _ in range(5):
        pieces = vdir.chunks("left")
        next(pieces)
        pieces.close()
        assert vdir.stat("left")["size"] == 5 << 20


def test_after_a_fork(vdir: Vdir) -> None:
    vdir.write("fork", CONTENT)
    before = vdir._pool
    vdir._process = -1
    assert vdir.read("fork") == CONTENT
    assert vdir._pool is not before


# -- where it asks, and as whom


def test_where_and_who(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CLOUDMESH_VDIR_URL", "CLOUDMESH_VDIR_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    token, namespace = tmp_path / "token", tmp_path / "namespace"
    monkeypatch.setattr(client_module, "TOKEN_FILE", token)
    monkeypatch.setattr(client_module, "NAMESPACE_FILE", namespace)
    assert Vdir("lab").url == "http://lab-vdir.default.svc"
    assert Vdir("lab")._authorization() == ""
    token.write_text("first\n")
    namespace.write_text("team\n")
    lab = Vdir("lab")
    assert lab.url == "http://lab-vdir.team.svc"
    assert lab._authorization() == "Bearer first"
    # it is renewed while we live
    token.write_text("second")
    assert lab._authorization() == "Bearer second"
    assert Vdir("lab", namespace="other").url == "http://lab-vdir.other.svc"
    monkeypatch.setenv("CLOUDMESH_VDIR_URL", "http://elsewhere:1/")
    monkeypatch.setenv("CLOUDMESH_VDIR_TOKEN", "mine")
    assert Vdir("lab").url == "http://elsewhere:1"
    assert Vdir("lab")._authorization() == "Bearer mine"
    assert Vdir("lab", user="ada", password="ü")._authorization() == "Basic YWRhOsO8"
    assert PASSWORD not in repr(Vdir("lab", user="ada", password=PASSWORD))


# -- a gateway that misbehaves


class Odd(http.server.BaseHTTPRequestHandler):
    """Says what the test wants."""

    protocol_version = "HTTP/1.1"
    answers: ClassVar[list[bytes]] = []
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.wfile.write(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        self.close_connection = True

    do_PUT = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def odd() -> Iterator[tuple[Vdir, type[Odd]]]:
    handler = type("One", (Odd,), {"answers": [], "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield Vdir("lab", url=f"http://127.0.0.1:{server.server_address[1]}", token="t"), handler
    server.shutdown()
    server.server_close()


def test_answers_that_are_cut(odd: tuple[Vdir, type[Odd]]) -> None:
    vdir, gateway = odd
    gateway.answers = [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345"]
    with pytest.raises(Transient, match="broke off"):
        vdir.read("a")
    gateway.answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"]
    with pytest.raises(Transient):
        vdir.read("a")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", Transient),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\n<ht>", Transient),
        (b"HTTP/1.1 409 No\r\nContent-Length: 2\r\n\r\n[]", Conflict),
        (b"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", InvalidRequest),
        (b"HTTP/1.1 418 No\r\nContent-Length: 0\r\n\r\n", InvalidRequest),
        (b"nonsense\r\n\r\n", Transient),
        (b"", Transient),
    ],
)
def test_answers_that_are_none(
    odd: tuple[Vdir, type[Odd]], answer: bytes, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    vdir, gateway = odd
    gateway.answers = [answer]
    with pytest.raises(kind):
        vdir.write("a", b"x")
    # a write is never sent twice
    assert gateway.asked == ["/v1/files/a"]


def test_reads_are_tried_again(odd: tuple[Vdir, type[Odd]]) -> None:
    vdir, gateway = odd
    gateway.answers = [
        b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ]
    assert vdir.read("a") == b"ok"
    assert len(gateway.asked) == 2


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    vdir = Vdir("lab", url="http://127.0.0.1:1", token="t")
    vdir._pool.connection_pool_kw["retries"] = False
    with pytest.raises(Transient, match="doesn't answer"):
        vdir.stat("a")
