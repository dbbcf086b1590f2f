"""Stores without a Secret: the gateway proves who it is by a token of its service account."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data import mesh
from cloudmesh.data.config import IDENTITY_TOKEN, StoreConfig
from cloudmesh.data.kinds import DATA_STORE, DEPLOYMENT
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.stores.s3 import S3Store
from cloudmesh.engine.endpoints import Guard

ROLE = "arn:aws:iam::123456789012:role/lab-data"


def identity_store(s: Scene, name: str = "aws", **fields: Any) -> None:
    spec = {
        "s3": {"region": "us-east-1", "bucket": "lab-data", **fields}, "access": "ReadWrite", "limits": {},
        "credentials": {"workloadIdentity": {"roleArn": ROLE}},
    }  # fmt: skip
    s._put(DATA_STORE, name, {"spec": spec})


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
    token = {"audience": "sts.example.org", "expirationSeconds": 3600, "path": "token"}
    assert volume == {"sources": [{"serviceAccountToken": token}], "defaultMode": 0o440}
    (mount,) = [each for each in spec["containers"][0]["volumeMounts"] if each["name"] == "identity"]
    assert mount["readOnly"] and f"{mount['mountPath']}/token" == IDENTITY_TOKEN
    assert spec["automountServiceAccountToken"] is False, "nor has it one for the API server"
    status = s.status("aws", DATA_STORE)
    assert (status["strength"], s.condition("Ready", "aws", DATA_STORE)[:2]) == ("Strong", ("True", "Checked"))


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
async def test_whoever_names_an_endpoint_gets_no_keys_of_a_role(s: Scene) -> None:
    allow(s, "ns")
    identity_store(s, endpoint="https://s3.example.org")
    async with s.operator():
        await s.settle()
        status, reason, message = s.condition("Ready", "aws", DATA_STORE)
    assert (status, reason) == ("False", "InvalidRequest") and "s3.example.org gets no keys of a role" in message


async def test_the_gateway_opens_the_store_by_its_role() -> None:
    identity = {"roleArn": ROLE, "session": "ns@aws", "audience": "sts.amazonaws.com"}
    at = StoreConfig("aws", "s3", {"region": "eu-central-1", "bucket": "lab-data"}, identity=identity)
    store = mesh.make(at, Guard())
    assert isinstance(store, S3Store)
    assert "sts.eu-central-1.amazonaws.com" in store._sts.meta.endpoint_url
    await store.close()


def test_the_settings() -> None:
    found = DataSettings.from_environ(
        {"CLOUDMESH_IDENTITY_NAMESPACES": "lab physics", "CLOUDMESH_IDENTITY_AUDIENCE": "sts.example.org"}
    )
    assert found.identity_namespaces == {"lab", "physics"} and found.identity_audience == "sts.example.org"
    assert DataSettings.from_environ({}).identity_namespaces == frozenset()
