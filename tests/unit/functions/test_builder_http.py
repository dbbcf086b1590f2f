"""The builder's HTTP face: token, TLS, errors that name the field; and that it runs nothing it reads."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import io
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.functions.bench import SOURCE, Bench, bench, make_settings
from tests.unit.functions.fake_registry import FakeRegistry

from cloudmesh.functions.builder import http
from cloudmesh.functions.builder.http import application
from cloudmesh.functions.builder.settings import Settings
from cloudmesh.functions.signatures import Parsed, SourceError, sandbox

_TOKEN = {"Authorization": "Bearer t0ken"}


@pytest.fixture
async def builder(tmp_path: Path) -> AsyncIterator[Bench]:
    async with FakeRegistry().running() as registry, bench(make_settings(tmp_path, registry.host)) as running:
        yield running


@pytest.fixture
async def client(builder: Bench) -> AsyncIterator[TestClient[Any, Any]]:
    async with TestClient(TestServer(application(builder.service))) as running:
        yield running


async def _json(client: TestClient[Any, Any], method: str, path: str, body: object = None) -> tuple[int, Any]:
    async with client.request(method, path, json=body, headers=_TOKEN) as answer:
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer wrong", "Basic t0ken", "Bearer t0kenx", "t0ken", "Bearer \xe9"]
)
async def test_without_the_token_nothing_is_told(client: TestClient[Any, Any], header: str | None) -> None:
    for method, path in (("GET", "/v1/info"), ("POST", "/v1/parse"), ("POST", "/v1/builds"), ("GET", "/v1/builds/x")):
        async with client.request(method, path, headers={"Authorization": header} if header else {}) as answer:
            assert answer.status == 401
            assert "digest" not in await answer.text()


async def test_probes_need_no_token(client: TestClient[Any, Any]) -> None:
    for path in ("/healthz", "/readyz"):
        async with client.get(path) as answer:
            assert answer.status == 200


async def test_info_and_parse(client: TestClient[Any, Any]) -> None:
    status, info = await _json(client, "GET", "/v1/info")
    assert status == 200
    assert (info["version"], info["python"], info["platforms"]) == ("1.2.3", "3.11", ["linux/amd64"])
    status, parsed = await _json(client, "POST", "/v1/parse", {"name": "a", "module": "a", "source": SOURCE})
    assert status == 200
    assert parsed["operations"][0]["operationId"] == "a.double"
    assert parsed["digest"].startswith("sha256:")
    body = {"name": "a", "module": "a", "source": "def f(x int): pass"}
    status, refused = await _json(client, "POST", "/v1/parse", body)
    assert status == 422
    assert (refused["error"]["class"], refused["error"]["line"]) == ("SourceInvalid", 1)


async def test_slow_sources_get_their_verdict_and_stop_nobody(client: TestClient[Any, Any], builder: Bench) -> None:
    lines = ["A0 = int", *(f"A{i} = tuple[A{i - 1}, A{i - 1}]" for i in range(1, 26)), "def f(x: A25) -> int: ..."]
    bodies = [{"name": "a", "module": "a", "source": "\n".join([*lines, f"# {index}", ""])} for index in range(6)]
    begun = time.monotonic()
    waiting = [asyncio.create_task(_json(client, "POST", "/v1/parse", body)) for body in bodies]
    status, _ = await _json(client, "POST", "/v1/parse", {"name": "a", "module": "a", "source": SOURCE})
    assert status == 200
    for status, answer in await asyncio.gather(*waiting):
        assert (status, answer["error"]["class"], answer["error"]["line"]) == (422, "SourceInvalid", 27)
    assert time.monotonic() - begun < 10
    build = await builder.build(builder.body(bodies[0]["source"]))
    assert build["error"]["class"] == "SourceInvalid"


async def test_a_refused_source_is_read_once(client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    async def parse(source: str, **_: object) -> Parsed:
        read.append(source)
        raise SourceError(1, 2, "too slow")

    monkeypatch.setattr(sandbox, "parse", parse)
    for _ in range(3):
        status, answer = await _json(client, "POST", "/v1/parse", {"name": "a", "module": "a", "source": SOURCE})
        assert (status, answer["error"]["message"]) == (422, "too slow")
    assert len(read) == 1


async def test_a_caller_that_has_gone_is_not_worked_for(
    client: TestClient[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, dropped = asyncio.Event(), asyncio.Event()

    async def parse(_: str, **__: object) -> Parsed:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            dropped.set()
        raise AssertionError

    monkeypatch.setattr(sandbox, "parse", parse)
    monkeypatch.setattr(http, "_LOOK_SECONDS", 0.05)
    body = {"name": "a", "module": "a", "source": SOURCE}
    async with aiohttp.ClientSession() as session:
        call = asyncio.create_task(session.post(client.make_url("/v1/parse"), json=body, headers=_TOKEN))
        await begun.wait()
        call.cancel()
        await asyncio.wait({call})
    async with asyncio.timeout(5):
        await dropped.wait()


async def test_build_and_poll(client: TestClient[Any, Any], builder: Bench) -> None:
    status, started = await _json(client, "POST", "/v1/builds", builder.body())
    assert status == 202
    for _ in range(200):
        status, build = await _json(client, "GET", f"/v1/builds/{started['id']}")
        if build["state"] in ("Succeeded", "Failed"):
            break
        await asyncio.sleep(0.02)
    assert build["state"] == "Succeeded"
    assert build["result"]["seconds"] > 0
    status, _ = await _json(client, "GET", f"/v1/builds/{'0' * 64}")
    assert status == 404


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("namespace", "../x"),
        ("namespace", "a/b"),
        ("name", "UPPER"),
        ("module", "a-b"),
        ("source", 5),
        ("source", "x" * 131_073),
        ("key", "k"),
        ("python", "2.7"),
        ("platforms", ["plan9/mips"]),
        ("platforms", []),
        ("platforms", "linux/amd64"),
        ("lock", "not a lock"),
        ("requirements", [1]),
        ("rebuild", "yes"),
        ("expose", []),
        ("repository", {"push": "host"}),
        ("repository", {"push": "host/UPPER"}),
        ("repository", {"push": "host/x:tag"}),
        ("repository", {"push": "host:99999/x"}),
        ("repository", {"push": "ho_st/x"}),
        ("index", {"url": "file:///etc"}),
        ("index", {"url": "https://[x/simple"}),
    ],
)
async def test_a_wrong_field_is_named(client: TestClient[Any, Any], builder: Bench, field: str, value: object) -> None:
    status, answer = await _json(client, "POST", "/v1/builds", {**builder.body(), field: value})
    if status == 202:  # what only the build itself sees
        await asyncio.sleep(0.2)
        answer = (await _json(client, "GET", f"/v1/builds/{answer['id']}"))[1]
        assert answer["state"] == "Failed"
    else:
        assert status == 400
    assert field in answer["error"]["message"] or "key" in answer["error"]["message"]


async def test_requirements_that_are_refused(client: TestClient[Any, Any], builder: Bench) -> None:
    builder.service._locker._retries = 0
    body = {"requirements": ["x @ git+https://host.example/x"], "python": "3.11", "platforms": ["linux/amd64"]}
    status, answer = await _json(client, "POST", "/v1/lock", body)
    assert (status, answer["error"]["class"]) == (422, "DependenciesUnsatisfiable")
    body = {"requirements": ["x"], "index": {"url": "http://127.0.0.1:9/simple"}}
    status, answer = await _json(client, "POST", "/v1/lock", body)
    assert (status, answer["error"]["class"]) == (503, "IndexUnavailable")


async def test_a_refused_index_is_the_users_to_mend(tmp_path: Path) -> None:
    async with FakeRegistry().running() as registry:
        settings = dataclasses.replace(make_settings(tmp_path, registry.host), local_endpoints=False)
        async with bench(settings) as builder, TestClient(TestServer(application(builder.service))) as client:
            body = {"requirements": ["x"], "index": {"url": "https://169.254.169.254/simple"}}
            status, answer = await _json(client, "POST", "/v1/lock", body)
    assert (status, answer["error"]["class"]) == (422, "BuildFailed")
    assert answer["error"]["message"].startswith("`spec.python.indexRef`: 169.254.169.254: ")


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b"\xff", b"null"])
async def test_bodies_that_are_no_objects(client: TestClient[Any, Any], body: bytes) -> None:
    for path in ("/v1/parse", "/v1/lock", "/v1/builds"):
        async with client.post(path, data=body, headers=_TOKEN) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["class"] == "InvalidRequest"


async def test_a_body_that_is_too_large(client: TestClient[Any, Any]) -> None:
    async with client.post("/v1/parse", data=io.BytesIO(b"x" * (9 << 20)), headers=_TOKEN) as answer:
        assert answer.status == 413


_EVIL = """
import os
open({marker!r}, "w").write("ran")
print("ran")

def f(x: int = (lambda: open({marker!r}, "w"))()) -> int:
    return x

@(lambda g: open({marker!r}, "w") and g)
def g(x: int) -> int:
    return x

class K:
    open({marker!r}, "w")
"""

_AUDITED = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
folder = Path(sys.argv[3])
seen = []

def hook(event, arguments):
    if event == "exec":
        name = getattr(arguments[0], "co_filename", "")
        if "function" in name.rpartition("/")[2] or "/site/" in name or name.startswith("<") and name not in allowed:
            seen.append(("exec", name))
    elif event == "import" and arguments[0] in ("stats", "evilmod", "cpu"):
        seen.append(("import", arguments[0]))

from tests.unit.functions.bench import bench, make_settings
from tests.unit.functions.fake_index import FakeIndex
from tests.unit.functions.fake_registry import FakeRegistry
from tests.unit.functions.wheels import wheel_bytes

allowed = {"<string>", "<attrs generated init>", "<frozen importlib._bootstrap>"}

async def main():
    source = (folder / "source.py").read_text()
    async with FakeRegistry().running() as registry, FakeIndex().running() as index:
        evil = (folder / "evil.py").read_bytes()
        index.add("evilmod-1.0-py3-none-any.whl", wheel_bytes("evilmod", files={"evilmod/__init__.py": evil}))
        async with bench(make_settings(folder, registry.host, index=index.url)) as builder:
            lock = await builder.lock(["evilmod"])
            sys.addaudithook(hook)
            text = "import evilmod\\n" + source
            build = await builder.build(builder.body(text, lock=lock, requirements=["evilmod"]))
            print(build["state"], build.get("error"), seen)

asyncio.run(main())
"""


def test_nothing_of_the_user_is_executed(tmp_path: Path) -> None:
    """An audit hook in the builder's process, and marker files that code in any process would leave."""
    marker = tmp_path / "marker"
    source = _EVIL.format(marker=str(marker))
    (tmp_path / "source.py").write_text(source)
    (tmp_path / "evil.py").write_text(source)
    root = Path(__file__).parents[3]
    run = subprocess.run(
        [sys.executable, "-c", _AUDITED, str(root), str(root / "operator"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("Succeeded None []"), run.stdout
    assert not marker.exists()


def _certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "tls.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )


async def test_the_process_waits_for_its_files_serves_tls_and_ends_on_sigterm(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    async with FakeRegistry().running() as registry:
        settings: Settings = make_settings(tmp_path, registry.host)
        environment = {
            **os.environ,
            "CLOUDMESH_BUILDER_PORT": str(unused_tcp_port),
            "CLOUDMESH_BUILDER_TLS": str(settings.tls),
            "CLOUDMESH_SIGNING_KEY": str(settings.signing_key),
            "CLOUDMESH_LAYOUT": str(settings.layout),
            "CLOUDMESH_CACHE": str(settings.cache),
            "CLOUDMESH_REGISTRY_PUSH": registry.host,
            "CLOUDMESH_REGISTRY_INSECURE": "true",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cloudmesh.functions.builder", env=environment, stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(30):
                while b"waiting for" not in await process.stderr.readline():
                    pass
                _certificate(settings.tls)
                while b"ready: base" not in await process.stderr.readline():
                    pass
            context = ssl.create_default_context(cafile=str(settings.tls / "tls.crt"))
            async with aiohttp.ClientSession() as session:
                url = f"https://localhost:{unused_tcp_port}"
                async with session.get(f"{url}/readyz", ssl=context) as answer:
                    assert answer.status == 200
                async with session.get(f"{url}/v1/info", ssl=context, headers=_TOKEN) as answer:
                    assert (await answer.json())["python"] == "3.11"
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


@pytest.mark.parametrize(
    ("name", "value"),
    [("CLOUDMESH_REGISTRY_PUSH", ""), ("CLOUDMESH_BUILDER_PORT", "x"), ("CLOUDMESH_BUILDER_CONCURRENCY", "0")],
)
def test_settings_name_the_variable_that_is_wrong(name: str, value: str) -> None:
    environment = {"CLOUDMESH_REGISTRY_PUSH": "registry:5000", name: value}
    with pytest.raises(Exception, match=name):
        Settings.from_environment(environment)
