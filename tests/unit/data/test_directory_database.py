"""The controller of VirtualDirectory with a catalogue in a database."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.catalog.address import address, check_uri
from cloudmesh.data.catalog.choice import catalog_of
from cloudmesh.data.catalog.postgres_threads import guarded
from cloudmesh.data.config import DirectoryConfig
from cloudmesh.data.kinds import CLAIM, DEPLOYMENT, VIRTUAL_DIRECTORY
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import InvalidRequest, Transient

URI = "postgresql://app:pass-word@db.ns.svc:5432/lab?sslmode=require"
CATALOG = {"postgresql": {"uriSecretRef": {"name": "db"}}}


def template(s: Scene) -> dict[str, object]:
    found = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
    assert found is not None
    spec: dict[str, object] = found["spec"]
    return spec


@scene
async def test_the_gateway_is_told_and_has_no_volume(s: Scene) -> None:
    s.secret()
    s.store()
    s.directory(catalog=CATALOG)
    async with s.operator():
        await s.settle()
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "CatalogUnavailable")
        assert "Secret 'db' isn't there" in message
        for text, words in (
            ({"address": URI}, "key `uri`"),
            ({"uri": "mysql://app:pass-word@db/lab"}, "postgresql://"),
            ({"uri": "postgresql://app:pass-word@db/lab?sslkey=/etc/cloudmesh/config.json"}, "sslkey"),
            ({"uri": "postgresql://db.ns.svc/lab"}, "no user"),
        ):
            s.secret("db", "Opaque", **text)
            await s.settle(40)
            status, reason, message = s.condition()
            assert (status, reason) == ("False", "CatalogUnavailable")
            assert words in message
            assert "pass-word" not in message
        s.secret("db", "Opaque", **{"uri": URI + "\n", "ca.crt": "PEM"})
        await s.settle(40)
        assert s.condition()[0] == "True"
        assert (s.config().postgres, s.config().postgres_ca) == (URI, "PEM")
        assert "pass-word" not in repr(s.config())
        assert s.api.get(CLAIM, "ns", "lab-vdir") is None
        spec = template(s)
        assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
        # its Secret is watched: a password that changes comes to the gateway
        s.secret("db", "Opaque", uri=URI.replace("pass-word", "another"))
        await s.settle(40)
        assert "another" in s.config().postgres
        assert s.condition()[0] == "True"


@scene
async def test_a_volume_is_mounted_by_one_gateway_at_a_time(s: Scene) -> None:
    s.volume()
    s.secret("db", "Opaque", uri=URI)
    s.directory("nas", catalog=CATALOG)
    async with s.operator():
        await s.settle()
        assert template(s)["strategy"] == {"type": "Recreate"}


@scene
async def test_the_catalogue_goes_with_the_directory(s: Scene) -> None:
    s.secret()
    s.store()
    s.secret("db", "Opaque", uri=URI)
    s.directory(catalog=CATALOG)
    async with s.operator():
        await s.settle()
        assert s.finalizers(VIRTUAL_DIRECTORY, "lab") == ["cloudmesh.org/cleanup"]
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(20)
        told = s.gateways.told[-1]
        assert (told.ending, told.emptying) == (True, False)
        status, reason, message = s.condition()
        assert (status, reason) == ("False", "Deleting")
        assert "writes the catalogue into the stores" in message
        s.gateway.summary = {"ended": True}
        await s.settle(20)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None


@scene
async def test_a_database_that_is_gone_can_be_given_up(s: Scene) -> None:
    s.secret()
    s.store()
    s.secret("db", "Opaque", uri=URI)
    s.directory(catalog=CATALOG)
    async with s.operator():
        await s.settle()
        s.gateways.up = False
        s.api.remove(VIRTUAL_DIRECTORY, "ns", "lab")
        await s.settle(20)
        found = s.api.get(VIRTUAL_DIRECTORY, "ns", "lab")
        assert found is not None
        found["metadata"]["annotations"] = {"cloudmesh.org/abandon": found["metadata"]["uid"]}
        s.api.put(VIRTUAL_DIRECTORY, found)
        await s.settle(10)
        assert s.api.get(VIRTUAL_DIRECTORY, "ns", "lab") is None


@pytest.mark.parametrize(
    "uri",
    [
        "host=db user=app dbname=lab",
        "postgresql://app:x@db/lab?options=-csynchronous_commit%3Doff",
        "postgresql://app:x@db/lab?service=other",
        "postgresql://app:x@db/lab?passfile=/etc/passwd",
        "postgresql://app:x@:99999999999999:/lab",
        "postgresql:///lab?user=app",
    ],
)
def test_an_address_that_is_refused(uri: str) -> None:
    with pytest.raises(InvalidRequest):
        check_uri(uri)


def test_the_server_s_certificate_must_be_of_the_authority_that_is_named(tmp_path: Path) -> None:
    config = DirectoryConfig("ns", "lab", "uid", "installation", (), postgres="postgresql://app:x@db,db2/lab")
    assert address(config, tmp_path) == config.postgres
    with_authority = msgspec.structs.replace(config, postgres_ca="PEM")
    told = conninfo_to_dict(address(with_authority, tmp_path))
    assert (told["sslmode"], told["host"]) == ("verify-full", "db,db2")
    assert Path(str(told["sslrootcert"])).read_text() == "PEM"


def resolved(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    def look_up(host: str, *_: object, **__: object) -> list[Any]:
        if host not in names:
            raise socket.gaierror(f"{host} isn't known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, 0)) for found in names[host].split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def test_connections_go_to_the_addresses_that_were_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, db="192.0.2.1 192.0.2.2", db2="192.0.2.3")
    told = guarded({"host": "db,db2,gone", "port": "5432,5433,5434", "user": "app"}, Guard())
    assert told == {
        "user": "app", "host": "db,db,db2", "hostaddr": "192.0.2.1,192.0.2.2,192.0.2.3", "port": "5432,5432,5433",
    }  # fmt: skip
    assert guarded({"host": "db", "port": "1"}, Guard(inside=True)) == {"host": "db", "port": "1"}


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "10.96.0.1", "::1", "fd00:ec2::254", "::ffff:127.0.0.1"]
)
def test_a_database_is_not_at_this_machine_nor_the_api_server(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolved(monkeypatch, db=f"192.0.2.1 {address}", **{address: address})
    for host in ("db", address):
        with pytest.raises(psycopg.OperationalError, match=r"refused|API server"):
            guarded({"host": host}, Guard(["10.96.0.1"]))


async def test_the_catalogue_connects_by_the_guard(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        uri = f"postgresql://app:x@127.0.0.1:{listening.getsockname()[1]}/lab"
        catalog = catalog_of(DirectoryConfig("ns", "lab", "uid", "installation", (), postgres=uri), tmp_path)
        with pytest.raises(Transient, match="refused"):
            await catalog.open()
        await catalog.close()
        with pytest.raises(BlockingIOError):
            listening.accept()
