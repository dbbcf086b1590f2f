"""The pages of the stores: what they tell to write is read, and the stores that it makes hold files."""

from __future__ import annotations

import asyncio
import os
import re
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from tests.testbed import azurite, gcsserver, swiftserver
from tests.testbed.davserver import PASSWORD as DAV_PASSWORD
from tests.testbed.davserver import UID as DAV_UID
from tests.testbed.davserver import USER as DAV_USER
from tests.testbed.davserver import dav
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, s3
from tests.testbed.sftpserver import PASSWORD, UID, USER, sftp
from tests.testbed.swiftserver import swift

from cloudmesh.api.datastore import DataStore
from cloudmesh.api.virtualdirectory import VirtualDirectory
from cloudmesh.data.stores import azure_auth, gcs_auth
from cloudmesh.data.stores.azure import open_store
from cloudmesh.data.stores.registry import StoreContext, maker
from cloudmesh.testing.stores.azure import AzureHarness
from cloudmesh.testing.stores.gcs import GcsHarness

PAGES = Path(__file__).resolve().parents[3] / "docs/reference"
KEYS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}


def documents(page: str) -> list[dict[str, Any]]:
    """All objects that a page writes out."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (PAGES / page).read_text(), re.MULTILINE | re.DOTALL)
    found = [document for block in blocks for document in yaml.safe_load_all(block)]
    for document in found:
        model: Any = {"DataStore": DataStore, "VirtualDirectory": VirtualDirectory}.get(document["kind"])
        if model is not None:
            model.model_validate(document, extra="forbid")
    return found


async def content() -> AsyncIterator[bytes]:
    yield b"kept"


async def holds_a_file(kind: str, context: StoreContext) -> None:
    store = maker(kind)(context)
    try:
        await store.probe()
        await store.write("physics/notes/a.txt", content(), if_absent=True)
        assert b"".join([chunk async for chunk in store.read("physics/notes/a.txt")]) == b"kept"
    finally:
        await store.close()


async def test_azure_blob() -> None:
    page = (PAGES / "store-azureblob.md").read_text()
    found = documents("store-azureblob.md")
    stores = {d["metadata"]["name"]: d["spec"]["azureBlob"] for d in found if d["kind"] == "DataStore"}
    assert set(stores) == {"azure", "gov"}
    told = set(re.findall(r"--from-literal=(\w+)=", page))
    (secret,) = [d["stringData"] for d in found if d["kind"] == "Secret"]
    assert told == {azure_auth.TENANT, azure_auth.CLIENT, azure_auth.SECRET}
    assert set(secret) == {azure_auth.KEY, "hosts"} and f"`{azure_auth.SAS}`" in page
    assert urlsplit(stores["gov"]["endpoint"]).hostname == secret["hosts"]
    example = dict.fromkeys(told, b"00000000-0000")
    open_store(stores["azure"]["account"], stores["azure"]["container"], example)
    open_store("labgov", "lab", {azure_auth.KEY: secret[azure_auth.KEY].encode()}, endpoint=stores["gov"]["endpoint"])
    with azurite.azurite() as server:
        harness = AzureHarness(server.url, azurite.ACCOUNT, azurite.KEY)
        for name, spec in stores.items():
            await asyncio.to_thread(harness.send, "PUT", f"{spec['container']}?restype=container")
            settings = spec | {"endpoint": server.url, "account": azurite.ACCOUNT}
            context = StoreContext(name, settings, {azure_auth.KEY: azurite.KEY.encode()}, allow_private=True)
            await holds_a_file("azureBlob", context)


async def test_gcs() -> None:
    page = (PAGES / "store-gcs.md").read_text()
    found = documents("store-gcs.md")
    stores = {d["metadata"]["name"]: d["spec"]["gcs"] for d in found if d["kind"] == "DataStore"}
    assert set(stores) == {"google", "google-eu"} and f"--from-file={gcs_auth.KEY}=key.json" in page
    (secret,) = [d["stringData"] for d in found if d["kind"] == "Secret"]
    assert set(secret) == {gcs_auth.KEY, "hosts"}
    assert urlsplit(stores["google-eu"]["endpoint"]).hostname == secret["hosts"]
    with gcsserver.gcs("127.0.0.1", *(spec["bucket"] for spec in stores.values())) as server:
        harness = GcsHarness(server.url)
        await harness.start()
        try:
            for name, spec in stores.items():
                settings = spec | {"endpoint": harness.proxy.url}
                await holds_a_file("gcs", StoreContext(name, settings, harness.credentials, allow_private=True))
        finally:
            await harness.stop()


async def test_s3() -> None:
    found = documents("store-s3.md")
    stores = {d["metadata"]["name"]: d for d in found if d["kind"] == "DataStore"}
    assert set(stores) == {"aws", "campus"}
    told = re.findall(r"--from-literal=(\w+)=", (PAGES / "store-s3.md").read_text())
    assert set(told) == set(KEYS)
    (secret,) = [d["stringData"] for d in found if d["kind"] == "Secret"]
    assert set(secret) == {*KEYS, "hosts"}
    assert urlsplit(stores["campus"]["spec"]["s3"]["endpoint"]).hostname == secret["hosts"]
    for store in stores.values():
        spec = store["spec"]["s3"]
        with s3("127.0.0.1", spec["bucket"]) as server:
            settings = {"region": "us-east-1"} | spec | {"endpoint": server.url}
            keys = {name: value.encode() for name, value in KEYS.items()}
            context = StoreContext(store["metadata"]["name"], settings, keys, allow_private=True)
            await holds_a_file("s3", context)


async def test_sftp() -> None:
    found = documents("store-sftp.md")
    stores = {d["metadata"]["name"]: d for d in found if d["kind"] == "DataStore"}
    secrets = {d["metadata"]["name"]: d["stringData"] for d in found if d["kind"] == "Secret"}
    text = (PAGES / "store-sftp.md").read_text()
    told = re.search(r"secret generic nas-data.*?\n.*?hosts=(\S+) --from-file=([\w-]+)=nas-key", text)
    assert told is not None and set(stores) == {"nas", "attic"}
    assert stores["nas"]["spec"]["sftp"]["host"] == told[1]
    assert stores["attic"]["spec"]["sftp"]["host"] == secrets["attic-data"]["hosts"]
    with sftp() as server:
        keys = {"nas": {told[2]: server.client_key}, "attic": secrets["attic-data"] | {"password": PASSWORD}}
        for name, store in stores.items():
            here = {"host": server.host, "port": server.port, "user": USER, "hostKey": server.host_key}
            settings = store["spec"]["sftp"] | here | {"path": f"{server.path}/{name}"}
            (server.files / name).mkdir()
            os.chown(server.files / name, UID, UID)
            secret = {key: value.encode() for key, value in keys[name].items()}
            await holds_a_file("sftp", StoreContext(name, settings, secret, allow_private=True))
            assert (server.files / name / "physics/notes/a.txt").read_bytes() == b"kept"


async def test_webdav() -> None:
    found = documents("store-webdav.md")
    stores = {d["metadata"]["name"]: d["spec"]["webdav"] for d in found if d["kind"] == "DataStore"}
    secrets = {d["metadata"]["name"]: d["stringData"] for d in found if d["kind"] == "Secret"}
    told = re.findall(r"--from-(?:literal|file)=([\w.]+)=", (PAGES / "store-webdav.md").read_text())
    assert set(stores) == {"box", "inner"} and told == ["hosts", "username", "password"]
    assert set(secrets["inner-data"]) == {"username", "password", "hosts", "ca.crt"}
    assert urlsplit(stores["inner"]["endpoint"]).hostname == secrets["inner-data"]["hosts"]
    with dav(tls=True) as server:
        keys = {"username": DAV_USER, "password": DAV_PASSWORD, "hosts": "x", "ca.crt": server.authority}
        for name, place in stores.items():
            (server.files / name).mkdir()
            os.chown(server.files / name, DAV_UID, DAV_UID)
            settings = place | {"endpoint": f"{server.url}/{name}/"}
            secret = {key: value.encode() for key, value in keys.items()}
            await holds_a_file("webdav", StoreContext(name, settings, secret, allow_private=True))
            assert (server.files / name / "physics/notes/a.txt").read_bytes() == b"kept"


async def test_swift() -> None:
    found = documents("store-swift.md")
    stores = {d["metadata"]["name"]: d["spec"]["swift"] for d in found if d["kind"] == "DataStore"}
    (secret,) = [d["stringData"] for d in found if d["kind"] == "Secret"]
    text = (PAGES / "store-swift.md").read_text()
    told = re.findall(r"--from-literal=(\w+)=(\S+)", text)
    assert set(stores) == {"swift", "campus"}
    assert [key for key, _ in told] == ["application_credential_id", "application_credential_secret", "hosts"]
    assert urlsplit(stores["swift"]["authUrl"]).hostname == told[-1][1]
    assert urlsplit(stores["campus"]["authUrl"]).hostname == secret.pop("hosts")
    application = {key: b"replace-me" for key, _ in told[:-1]}
    # Keystone's part is in the tests of the store; here, that settings and Secrets go together
    for name, keys in (("swift", application), ("campus", {key: value.encode() for key, value in secret.items()})):
        assert maker("swift")(StoreContext(name, stores[name], keys)).info.kind == "swift"
    with swift() as server:
        storage, token = server.login()
        request = urllib.request.Request(f"{storage}/lab", headers={"X-Auth-Token": token}, method="PUT")
        with urllib.request.urlopen(request):
            pass
        keys = {"username": swiftserver.USER.encode(), "password": swiftserver.KEY.encode()}
        settings = {"authUrl": server.auth_url, "container": "lab"}
        await holds_a_file("swift", StoreContext("own", settings, keys, allow_private=True))


async def test_local(tmp_path: Path) -> None:
    found = {d["kind"]: d for d in documents("store-local.md")}
    assert found["VirtualDirectory"]["spec"]["stores"] == [{"name": found["DataStore"]["metadata"]["name"]}]
    spec = found["DataStore"]["spec"]["local"]
    assert spec["persistentVolumeClaimRef"]["name"] == found["PersistentVolumeClaim"]["metadata"]["name"]
    await holds_a_file("local", StoreContext("files", spec, mount=str(tmp_path)))
    assert (tmp_path / "physics/notes/a.txt").read_bytes() == b"kept"
