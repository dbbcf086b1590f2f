"""Endpoints that are names: what they stand for counts, not how they read, and not only when they are looked at."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.unit.compute.machine_scene import Scene, scene
from tests.unit.compute.test_accounts import put_secret, ready

from cloudmesh.compute.endpoints import guard_of
from cloudmesh.compute.providers.aws.session import Session
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.compute.ssh import SshPool, SshTarget, probe
from cloudmesh.engine import InvalidRequest, Kube, Transient
from cloudmesh.engine.endpoints import ENDPOINT_SLICE, Guard
from cloudmesh.testing import Faults, FaultyTransport
from cloudmesh.testing.apiserver import MemoryApi

OUTSIDE = "198.51.100.7"
KEYS = {"aws_access_key_id": b"AKIAEXAMPLE", "aws_secret_access_key": b"s3cret"}


def resolve(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    async def getaddrinfo(self: Any, host: str, *_: Any, **__: Any) -> list[Any]:
        if host not in names:
            raise OSError("unknown")
        return [(2, 1, 6, "", (names[host], 0))]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)


class Resolver:
    """Answers for `cloud.example.org` one address after the other, the last one for ever."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked = 0

    def lookup(self, host: str, port: Any, *_: Any, **__: Any) -> list[Any]:
        assert host == "cloud.example.org"
        self.asked += 1
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, int(port or 0))) for each in address.split()]

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def later(loop: Any, host: str, port: Any, **options: Any) -> list[Any]:
            return self.lookup(host, port)

        monkeypatch.setattr(socket, "getaddrinfo", self.lookup)
        monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", later)


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, list[socket.socket]]]:
    """A port of loopback, and the connections that came."""
    came: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    came.append(server.accept()[0])

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        yield server.getsockname()[1], came
        server.shutdown(socket.SHUT_RDWR)
        acceptor.join()
    for link in came:
        link.close()


INSIDE = [
    "127.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1", "10.96.0.1", "::7f00:1", "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::", "fd00:ec2::254", "100.100.100.200", "0.0.0.0",
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
async def test_a_name_that_leads_inside_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolve(monkeypatch, cloud=address)
    with pytest.raises(InvalidRequest, match="cloud leads to"):
        await Guard(("10.96.0.1",)).check_names(["cloud"])
    await Guard(inside=True).check_names(["cloud"])


async def test_other_names_and_those_that_nobody_knows_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(monkeypatch, cloud=OUTSIDE, campus="10.1.2.3", six="2001:db8::7", nat="64:ff9b::c633:6407")
    await Guard().check_names(["cloud", "campus", "six", "nat", "nobody"])


# -- names that change their mind ------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", ["127.0.0.1", f"{OUTSIDE} 127.0.0.1", "169.254.169.254"])
async def test_a_cloud_whose_name_leads_inside_after_the_look_gets_no_byte(
    monkeypatch: pytest.MonkeyPatch, later: str
) -> None:
    resolver = Resolver(OUTSIDE, later)
    resolver.use(monkeypatch)
    guard = Guard()
    await guard.check_names(["cloud.example.org"])
    with listening() as (port, came):
        session = Session("us-east-1", KEYS, f"http://cloud.example.org:{port}/", guard=guard)
        with pytest.raises(InvalidRequest, match=r"GetCallerIdentity: cloud.example.org leads to (127|169)") as caught:
            await session.identity()
        session.close()
        assert came == [] and resolver.asked == 2
    assert caught.value.__cause__ is None


async def test_a_cloud_is_connected_to_by_the_address_that_was_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look-up a connection: there is no second answer that could differ."""
    resolver = Resolver("127.0.0.1", OUTSIDE)
    resolver.use(monkeypatch)
    with listening() as (port, came):
        guard = Guard(inside=True)
        link = await asyncio.to_thread(guard.connect, "cloud.example.org", port, 5.0)
        assert link.getpeername() == ("127.0.0.1", port)
        async with asyncio.timeout(60):
            while not came:  # another thread takes it in
                await asyncio.sleep(0.01)
        link.close()
    assert resolver.asked == 1 and len(came) == 1


async def test_tls_is_still_to_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Resolver("127.0.0.1").use(monkeypatch)
    names: list[str | None] = []
    async with tls_server(tmp_path, names) as port:
        session = Session("us-east-1", KEYS, f"https://cloud.example.org:{port}/", 5, guard=Guard(inside=True))
        with pytest.raises(Transient, match="SSLError"):  # nobody vouches for its certificate
            await session.identity()
        session.close()
    assert names == ["cloud.example.org"]


@contextlib.asynccontextmanager
async def tls_server(folder: Path, names: list[str | None]) -> AsyncIterator[int]:
    """A server with a certificate of its own that notes which names clients ask for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cloud.example.org")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    (folder / "crt").write_bytes(built.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    (folder / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    context.sni_callback = lambda _, asked, __: names.append(asked)
    server = await asyncio.start_server(lambda _, writer: writer.close(), sock=_bound(), ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def _bound() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


async def test_a_host_whose_name_leads_inside_after_the_look_gets_no_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import asyncssh

    key = asyncssh.generate_private_key("ssh-ed25519")
    resolver = Resolver(OUTSIDE, "127.0.0.1")
    resolver.use(monkeypatch)
    guard = Guard()
    await guard.check_names(["cloud.example.org"])
    with listening() as (port, came):
        public = key.export_public_key().decode().strip()
        target = SshTarget("cloud.example.org", port, "ada", key.export_private_key().decode(), (public,))
        pool = SshPool(guard=guard)
        with pytest.raises(InvalidRequest, match="leads to 127"):
            await pool.run(target, ["true"])
        with pytest.raises(InvalidRequest, match="leads to 127"):
            await probe("cloud.example.org", port, guard=guard)
        await pool.close()
        assert came == [] and resolver.asked == 3


# -- the API server's own addresses ----------------------------------------------------------------------------------


def slice_of(*addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


@pytest.mark.parametrize("host", ["203.0.113.5", "[::ffff:203.0.113.5]", "::ffff:203.0.113.5"])
async def test_the_addresses_of_the_api_servers_are_refused(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    api = MemoryApi(())
    api.put(ENDPOINT_SLICE, slice_of("203.0.113.4", "203.0.113.5"))
    resolve(monkeypatch, cloud=host.strip("[]"))
    guard = Guard()
    guard.check_hosts([host])
    await guard.learn(Kube(api))
    with pytest.raises(InvalidRequest, match="is the API server"):
        guard.check_hosts([host])
    with pytest.raises(InvalidRequest, match="cloud leads to"):
        await guard.check_names(["cloud"])
    with pytest.raises(InvalidRequest, match="cloud leads to"):
        await guard.open("cloud", 443)


async def test_what_was_read_once_outlives_an_api_server_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    api = MemoryApi(())
    faults = Faults()
    kube = Kube(FaultyTransport(api, faults))
    guard = Guard()
    faults.add("answer", path="endpointslices", times=None)
    with pytest.raises(Transient, match="own addresses"):
        await guard.learn(kube)
    faults.clear()
    api.put(ENDPOINT_SLICE, slice_of("203.0.113.5"))
    await guard.learn(kube)
    monkeypatch.setattr("cloudmesh.engine.endpoints.FRESH_SECONDS", 0.0)
    for status in (500, 403, 429):
        faults.add("answer", path="endpointslices", times=None, status=status)
        await guard.learn(kube)
        faults.clear()
    with pytest.raises(InvalidRequest, match="is the API server"):
        guard.check_hosts(["203.0.113.5"])


@scene
async def test_an_account_whose_endpoint_is_the_api_server_is_refused(s: Scene) -> None:
    s.api.put(ENDPOINT_SLICE, slice_of("203.0.113.5"))
    put_secret(s, hosts="*")
    for name, host in (("inside", "203.0.113.5"), ("outside", "203.0.113.6")):
        aws = {"region": "us-east-1", "endpoint": f"https://{host}:6443/"}
        s.add_account(name, aws=aws, credentials={"secretRef": {"name": "login"}})
    async with s.operator() as (engine, accounts):
        await s.until(lambda: ready(s, "outside") == ("True", "Checked"))
        assert ready(s, "inside") == ("False", "InvalidRequest")
        assert [context.name for context in s.contexts] == ["outside"]
        assert s.contexts[0].guard is accounts.guard is guard_of(engine, ComputeSettings())
