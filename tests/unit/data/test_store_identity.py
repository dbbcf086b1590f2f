"""Stores without a Secret: the gateway proves who it is by a token of its service account."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import AsyncMock

import pytest
from tests.unit.data.directory_scene import Scene, scene
from tests.unit.data.token_scene import CLIENT, EMAIL, PROVIDER, TENANT

from cloudmesh.data import mesh
from cloudmesh.data.config import StoreConfig
from cloudmesh.data.kinds import DATA_STORE, DEPLOYMENT
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.stores.azure import AzureStore
from cloudmesh.data.stores.clouds import identity_token
from cloudmesh.data.stores.gcs import GcsStore
from cloudmesh.data.stores.s3 import S3Store
from cloudmesh.engine.endpoints import Guard
from cloudmesh.engine.errors import AuthFailed

ROLE = "arn:aws:iam::123456789012:role/lab-data"


def identity_store(s: Scene, name: str = "aws", **fields: Any) -> None:
    spec = {
        "s3": {"region": "us-east-1", "bucket": "lab-data", **fields}, "access": "ReadWrite", "limits": {},
        "credentials": {"workloadIdentity": {"roleArn": ROLE}},
    }  # fmt: skip
    s._put(DATA_STORE, name, {"spec": spec})


AZURE = {"tenantId": TENANT, "clientId": CLIENT}
GOOGLE = {"provider": PROVIDER, "serviceAccountEmail": EMAIL}


def other_store(s: Scene, name: str, kind: str, who: dict[str, str], **place: str) -> None:
    spec = {kind: place, "access": "ReadWrite", "limits": {}, "credentials": {"workloadIdentity": who}}
    s._put(DATA_STORE, name, {"spec": spec})


def azure_store(s: Scene, name: str, **fields: str) -> None:
    other_store(s, name, "azureBlob", AZURE, account="labdata", container="lab-data", **fields)


def allow(s: Scene, *namespaces: str) -> None:
    s.settings = replace(s.settings, identity_namespaces=frozenset(namespaces), identity_audience="sts.example.org")


def pod(s: Scene) -> dict[str, Any]:
    found = s.api.get(DEPLOYMENT, "ns", "lab-vdir")
    assert found is not None
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


@scene
async def test_the_gateway_gets_a_token_and_no_key(s: Scene) -> None:
    allow(s, "other", "ns")
    identity_store(s)
    s.directory("aws")
    async with s.operator():
        await s.settle()
        assert s.condition()[0] == "True"
    (told,) = s.config().stores
    assert not told.credentials
    assert told.identity == {"roleArn": ROLE, "session": "ns@aws", "audience": "sts.example.org"}
    spec = pod(s)
    (volume,) = [each["projected"] for each in spec["volumes"] if "projected" in each]
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "identity"]
    path = identity_token("sts.example.org").removeprefix(f"{mount['mountPath']}/")
    token = {"audience": "sts.example.org", "expirationSeconds": 3600, "path": path}
    assert volume == {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o440}
    assert mount["readOnly"] and "/" not in path
    assert spec["automountServiceAccountToken"] is False, "nor has it one for the API server"
    status = s.status("aws", DATA_STORE)
    assert (status["strength"], s.condition("Ready", "aws", DATA_STORE)[:2]) == ("Strong", ("True", "Checked"))


@scene
async def test_each_cloud_gets_a_token_that_is_for_it_alone(s: Scene) -> None:
    allow(s, "ns")
    identity_store(s)
    azure_store(s, "azure")
    azure_store(s, "gov", endpoint="https://labdata.blob.core.usgovcloudapi.net")
    other_store(s, "google", "gcs", GOOGLE, bucket="lab-data", endpoint="https://storage.me-west1.rep.googleapis.com")
    other_store(s, "google-again", "gcs", GOOGLE, bucket="lab-other")
    s.directory("aws", "azure", "gov", "google", "google-again")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "check_names", AsyncMock())  # names are looked up in real time
        async with s.operator():
            await s.settle()
            assert s.condition()[0] == "True"
    azure, gov = "api://AzureADTokenExchange", "api://AzureADTokenExchangeUSGov"
    google = f"https://iam.googleapis.com/{PROVIDER}"
    told = {each.name: each for each in s.config().stores}
    assert told["azure"].identity == {**AZURE, "session": "ns@azure", "audience": azure}
    assert told["google"].identity == {**GOOGLE, "session": "ns@google", "audience": google}
    assert told["gov"].identity["audience"] == gov and not any(each.credentials for each in told.values())
    spec = pod(s)
    (volume,) = [each["projected"] for each in spec["volumes"] if "projected" in each]
    tokens = [each["serviceAccountToken"] for each in volume["sources"]]
    assert {each["audience"] for each in tokens} == {"sts.example.org", azure, gov, google} and len(tokens) == 4
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "identity"]
    assert all(f"{mount['mountPath']}/{each['path']}" == identity_token(each["audience"]) for each in tokens)
    for name in ("azure", "gov", "google"):
        assert s.condition("Ready", name, DATA_STORE)[:2] == ("True", "Checked")


@scene
async def test_without_such_a_store_there_is_no_token(s: Scene) -> None:
    allow(s, "ns")
    s.secret()
    s.store()
    s.directory("aws")
    async with s.operator():
        await s.settle()
    assert not [each for each in pod(s)["volumes"] if "projected" in each]


@scene
async def test_a_namespace_that_is_not_named_may_not(s: Scene) -> None:
    allow(s, "other")
    identity_store(s)
    s.directory("aws")
    async with s.operator():
        await s.settle()
        status, reason, message = s.condition("Ready", "aws", DATA_STORE)
        assert (status, reason) == ("False", "AuthFailed") and "accounts.workloadIdentity.namespaces" in message
        assert s.condition()[0] == "False" and "DataStore 'aws'" in s.condition()[2]
    assert s.api.get(DEPLOYMENT, "ns", "lab-vdir") is None


@scene
async def test_whoever_names_an_endpoint_elsewhere_gets_no_token(s: Scene) -> None:
    allow(s, "ns")
    identity_store(s, endpoint="https://s3.example.org")
    azure_store(s, "azure", endpoint="https://labdata.blob.example.org")
    other_store(s, "google", "gcs", GOOGLE, bucket="lab-data", endpoint="https://storage.example.org")
    s.directory("azure")
    async with s.operator():
        await s.settle()
        for name, host in (("aws", "s3"), ("azure", "labdata.blob"), ("google", "storage")):
            status, reason, message = s.condition("Ready", name, DATA_STORE)
            assert (status, reason) == ("False", "InvalidRequest") and f"{host}.example.org gets no token" in message
    assert s.api.get(DEPLOYMENT, "ns", "lab-vdir") is None


async def test_the_gateway_opens_the_store_by_its_role() -> None:
    identity = {"roleArn": ROLE, "session": "ns@aws", "audience": "sts.amazonaws.com"}
    at = StoreConfig("aws", "s3", {"region": "eu-central-1", "bucket": "lab-data"}, identity=identity)
    store = mesh.make(at, Guard())
    assert isinstance(store, S3Store)
    assert "sts.eu-central-1.amazonaws.com" in store._sts.meta.endpoint_url
    await store.close()


@pytest.mark.parametrize(
    ("kind", "settings", "who", "made"),
    [
        ("azureBlob", {"account": "labdata", "container": "lab-data"}, AZURE, AzureStore),
        ("gcs", {"bucket": "lab-data"}, GOOGLE, GcsStore),
    ],
)
async def test_the_gateway_opens_other_stores_by_their_tokens(
    kind: str, settings: dict[str, str], who: dict[str, str], made: type[AzureStore | GcsStore]
) -> None:
    at = StoreConfig("lab", kind, settings, identity={**who, "session": "ns@lab", "audience": "some.example.org"})
    store = mesh.make(at, Guard())
    assert isinstance(store, made)
    with pytest.raises(AuthFailed, match="no token of the service account"):
        await store.stat("a")
    await store.close()


def test_the_settings() -> None:
    found = DataSettings.from_environ(
        {"CLOUDMESH_IDENTITY_NAMESPACES": "lab physics", "CLOUDMESH_IDENTITY_AUDIENCE": "sts.example.org"}
    )
    assert found.identity_namespaces == {"lab", "physics"} and found.identity_audience == "sts.example.org"
    assert DataSettings.from_environ({}).identity_namespaces == frozenset()
