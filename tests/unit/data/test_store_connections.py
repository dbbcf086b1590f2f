"""Where stores connect to: what a name stands for when the connection is made counts, not what it stood for before."""

from __future__ import annotations

import asyncio
import base64
import http.server
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from tests.unit.compute.test_endpoints import tls_server

from cloudmesh.data import mesh
from cloudmesh.data.catalog.sqlite import SqliteCatalog
from cloudmesh.data.config import DirectoryConfig, StoreConfig
from cloudmesh.data.mesh import Mesh
from cloudmesh.data.stores.gcs_auth import KEY as GCS_KEY
from cloudmesh.data.stores.ports import Store
from cloudmesh.data.stores.s3 import S3Store
from cloudmesh.data.stores.s3_clients import bytes_client
from cloudmesh.data.stores.s3_identity import of_secret
from cloudmesh.engine.endpoints import Guard, Option
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest
from cloudmesh.testing.stores import chunks
from cloudmesh.testing.stores.gcs import service_account

NAME = "store.example.org"
OUTSIDE, SERVER = "198.51.100.7", "10.96.0.1"
S3_KEYS = {"aws_access_key_id": b"AKIAEXAMPLE", "aws_secret_access_key": b"s3cret"}
LOGIN = {"username": b"u", "password": b"p"}
HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1V0nqjd3h7kAGb7ZcPzq6Ytq8x0lXwqXfNQ2oJ9Y2F"
RSA = generate_private_key(65537, 2048)


class Listener(http.server.ThreadingHTTPServer):
    """Counts who comes; answers as `sends` says."""

    def __init__(self, sends: str = "") -> None:
        self.came: list[str] = []
        self.sends = sends
        super().__init__(("127.0.0.1", 0), _Answers)

    def get_request(self) -> tuple[socket.socket, Any]:
        link, place = super().get_request()
        self.came.append("connected")
        return link, place


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Listener

    def do_GET(self) -> None:
        self.server.came.append(self.path)
        self.send_response(307 if self.server.sends else 200)
        self.send_header("Location", self.server.sends)
        self.send_header("ETag", '"inner"')
        self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"secret")

    do_PUT = do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def listening(sends: str = "") -> Iterator[Listener]:
    made = Listener(sends)
    thread = threading.Thread(target=made.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield made
    finally:
        made.shutdown()
        thread.join()
        made.server_close()


class Rebound:
    """A name that stood for a place outside when it was looked at, and stands for one inside from then on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *inside: str) -> None:
        self.asked: list[str] = []
        self.inside = inside
        monkeypatch.setattr(socket, "getaddrinfo", self.lookup)

    def lookup(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(host)
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port or 0)))
            for each in self.inside
        ]


def opened(kind: str, port: int, guard: Guard, host: str = NAME, **more: bytes) -> Store:
    """A store as a gateway opens it."""
    at = f"{host}:{port}"
    settings: dict[str, tuple[dict[str, Any], dict[str, bytes]]] = {
        "s3": ({"endpoint": f"http://{at}", "bucket": "lab"}, S3_KEYS),
        "azureBlob": (
            {"endpoint": f"http://{at}", "account": "lab", "container": "lab"},
            {"azure_storage_key": base64.b64encode(b"key")},
        ),
        "gcs": (
            {"endpoint": f"https://{at}", "bucket": "lab"},
            {GCS_KEY: service_account(RSA, f"https://{at}/token")},
        ),
        "swift": ({"authUrl": f"http://{at}/auth/v1.0", "container": "lab"}, LOGIN),
        "webdav": ({"endpoint": f"http://{at}/files"}, LOGIN),
        "sftp": ({"host": host, "port": port, "user": "u", "hostKey": HOST_KEY, "path": "/lab"}, {"password": b"p"}),
    }
    told, keys = settings[kind]
    coded = {name: base64.b64encode(value).decode() for name, value in {**keys, **more}.items()}
    return mesh.make(StoreConfig("one", kind, told, coded), guard)


KINDS = ["s3", "azureBlob", "gcs", "swift", "webdav", "sftp"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_secret_may_say_for_whom_it_is_and_when_it_ends(kind: str) -> None:
    ends = b"2026-01-31T12:00:00Z"
    await opened(kind, 443, Guard(), hosts=NAME.encode(), expiration=ends).close()
    with pytest.raises(InvalidRequest, match=r"'profile' isn't used; known are .*expiration"):
        opened(kind, 443, Guard(), profile=b"x")


@pytest.mark.parametrize("addresses", [("127.0.0.1",), ("127.0.0.1", "::1"), ("169.254.169.254",), (SERVER,)])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_leads_inside_by_now_is_not_connected_to(
    kind: str, addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as server:
        store = opened(kind, server.server_port, Guard((SERVER,)))
        name = Rebound(monkeypatch, *addresses)
        try:
            with pytest.raises(InvalidRequest, match=f"{NAME} leads to .*, which is refused"):
                await store.probe()
            with pytest.raises(InvalidRequest, match="refused as an endpoint"):
                await store.stat("a/b")
            with pytest.raises(InvalidRequest, match="refused as an endpoint"):
                await store.write("a/b", chunks(b"content"), size=7)
            with pytest.raises(InvalidRequest, match="refused as an endpoint"):
                async for _ in store.read("a/b"):
                    pass
            assert NAME in name.asked and server.came == []
        finally:
            await store.close()


@pytest.mark.parametrize("kind", KINDS)
async def test_an_address_of_the_api_server_is_refused_once_it_is_known(kind: str) -> None:
    with listening() as server:
        guard = Guard()
        try:
            store = opened(kind, server.server_port, guard, SERVER)
            guard.become((SERVER,), inside=False)
            with pytest.raises(InvalidRequest, match=SERVER):
                await store.probe()
            await store.close()
        finally:
            assert server.came == []


class Led(Guard):
    """Whose one name is a server on this machine; asked for any other, it says where."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self.asked: list[str] = []

    def connect(
        self, host: str, port: int, seconds: float | None = None, options: Iterable[Option] = ()
    ) -> socket.socket:
        self.asked.append(host)
        assert host == NAME
        return socket.create_connection(("127.0.0.1", self.port), seconds)


async def test_an_answer_of_s3_that_sends_elsewhere_is_not_followed() -> None:
    with listening() as inner, listening(f"http://127.0.0.1:{inner.server_port}/secret") as server:
        guard = Led(server.server_port)
        store = S3Store("lab", S3_KEYS, endpoint=f"http://{NAME}:{server.server_port}", guard=guard)
        try:
            for call in (store.stat("a"), store.write("a", chunks(b"content"), size=7)):
                with pytest.raises(CloudmeshError):
                    await call
            with pytest.raises(CloudmeshError):
                async for _ in store.read("a"):
                    pass
            assert "/lab/a" in server.came and inner.came == [] and set(guard.asked) == {NAME}
        finally:
            await store.close()


async def test_whoever_has_no_certificate_of_the_name_is_asked_for_nothing(tmp_path: Path) -> None:
    """obstore looks names up by itself: over TLS that leads to nobody else."""
    names: list[str | None] = []
    async with tls_server(tmp_path, names) as port:
        client = bytes_client("lab", of_secret(S3_KEYS), f"https://localhost:{port}", "us-east-1", 5.0, tries=1)
        with pytest.raises(Exception, match="error sending request") as caught:
            await asyncio.to_thread(client.get, "a")
        assert "certificate" in str(caught.value).lower() and set(names) == {"localhost"}


async def test_the_stores_of_a_gateway_refuse_what_its_configuration_names(tmp_path: Path) -> None:
    at = StoreConfig("one", "webdav", {"endpoint": f"http://{SERVER}/files"}, {"username": "dQ==", "password": "cA=="})
    config = DirectoryConfig("ns", "lab", "u", "i", stores=(), forbidden=(SERVER,))
    catalog = SqliteCatalog(tmp_path / "catalog.sqlite")
    await catalog.open()
    made = Mesh(config, catalog, clock=time.monotonic)
    try:
        await made.use(config)
        with pytest.raises(InvalidRequest, match="API server"):
            await made.use(msgspec.structs.replace(config, stores=(at,)))
    finally:
        await made.close()
        await catalog.close()
