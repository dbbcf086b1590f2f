from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from tests.unit.functions.objects import function, wanted

from cloudmesh.api.functionservice import FunctionService
from cloudmesh.engine import CONFIG_MAP, SECRET, Kube
from cloudmesh.functions.inputs import Inputs, SourceMissing, references
from cloudmesh.testing import MemoryApi

LOGIN = "kubernetes.io/dockerconfigjson"
CREDENTIALS = "cloudmesh.org/credentials"
AGAIN = "delete it and create it again with that type"


def secret(api: MemoryApi, name: str, type_: str, data: dict[str, str]) -> None:
    encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
    metadata = {"name": name, "namespace": "ns"}
    api.put(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": type_, "data": encoded})


def docker(host: str, entry: dict[str, str]) -> dict[str, str]:
    return {".dockerconfigjson": json.dumps({"auths": {host: entry}})}


PUSH: dict[str, Any] = {
    "repository": "reg.example.org/team/stats",
    "pushSecretRef": {"name": "login"},
    "platforms": ["linux/amd64"],
}


@pytest.mark.parametrize(
    ("host", "entry"),
    [
        ("reg.example.org", {"username": "u", "password": "p:w"}),
        ("https://reg.example.org/v2/", {"auth": base64.b64encode(b"u:p:w").decode()}),
    ],
)
async def test_a_login_is_read_in_both_forms(host: str, entry: dict[str, str]) -> None:
    api = MemoryApi([SECRET])
    secret(api, "login", LOGIN, docker(host, entry))
    sources = await Inputs(Kube(api)).sources(wanted(image=PUSH))
    assert sources.repository is not None
    assert sources.repository["credentials"] == {"username": "u", "password": "p:w"}
    assert "p:w" not in repr(sources)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, "there is no Secret 'login'"),
        ({}, "must hold a login for 'reg.example.org'"),
        ({".dockerconfigjson": "{"}, "must hold a login"),
        (docker("other.example.org", {"username": "u", "password": "p"}), "a login for 'reg.example.org'"),
        (docker("reg.example.org", {"auth": "not base64 !"}), "must hold a login"),
        (docker("reg.example.org", {"username": "u"}), "must hold a login"),
    ],
)
async def test_a_login_that_does_not_fit_names_the_field(data: dict[str, str] | None, says: str) -> None:
    api = MemoryApi([SECRET])
    if data is not None:
        secret(api, "login", LOGIN, data)
    with pytest.raises(SourceMissing, match=r"`spec\.image\.pushSecretRef\.name`") as raised:
        await Inputs(Kube(api)).sources(wanted(image=PUSH))
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"url": "http://index.example.org/simple", "hosts": "index.example.org"}, "https:// address"),
        ({"url": "https://index.example.org/simple"}, "list 'index.example.org' under its key 'hosts'"),
        ({"url": "https://evil@other.example.org/", "hosts": "evil"}, "list 'other.example.org'"),
    ],
)
async def test_an_index_must_be_https_and_listed(data: dict[str, str], says: str) -> None:
    api = MemoryApi([SECRET])
    secret(api, "index", CREDENTIALS, data)
    with pytest.raises(SourceMissing) as raised:
        await Inputs(Kube(api)).sources(wanted(index_secret="index"))
    assert says in str(raised.value)


@pytest.mark.parametrize("type_", ["Opaque", "", LOGIN, CREDENTIALS, "kubernetes.io/service-account-token"])
async def test_a_secret_of_another_type_is_not_read(type_: str) -> None:
    api = MemoryApi([SECRET])
    secret(api, "login", type_, docker("reg.example.org", {"username": "u", "password": "p"}))
    secret(api, "index", type_, {"url": "https://i.example.org/simple", "hosts": "i.example.org"})
    for asked, right, says in (
        (wanted(image=PUSH), LOGIN, f"`spec.image.pushSecretRef.name`: Secret 'login' must be of type {LOGIN}"),
        (
            wanted(index_secret="index"),
            CREDENTIALS,
            f"`spec.python.indexRef.name`: Secret 'index' must be of type {CREDENTIALS}",
        ),
    ):
        if type_ == right:
            await Inputs(Kube(api)).sources(asked)
            continue
        with pytest.raises(SourceMissing) as raised:
            await Inputs(Kube(api)).sources(asked)
        assert str(raised.value) == f"{says}, and is of type {type_ or 'Opaque'}; {AGAIN}"


async def test_an_index_is_read() -> None:
    api = MemoryApi([SECRET])
    secret(
        api,
        "index",
        CREDENTIALS,
        {"url": "https://i.example.org/simple", "hosts": "a, i.example.org", "username": "u", "ca.crt": "PEM"},
    )
    sources = await Inputs(Kube(api)).sources(wanted(index_secret="index"))
    assert sources.index == {"url": "https://i.example.org/simple", "username": "u", "password": "", "caCrt": "PEM"}


async def test_the_content_ignores_defaults_and_sees_changes() -> None:
    inputs = Inputs(Kube(MemoryApi([CONFIG_MAP])))

    async def content(**spec: Any) -> str:
        obj = function(**spec)
        return (await inputs.wanted(obj, FunctionService.model_validate(obj))).content

    plain = await content()
    assert await content(runtime={"timeoutSeconds": 30}) == plain
    assert await content(replicas=3) == plain
    scaled = await content(autoscaling={"maxReplicas": 5})
    assert await content(autoscaling={"maxReplicas": 9, "targetCPUPercent": 50}) == scaled != plain
    assert await content(revision={"pin": "stats-00001"}, revisionHistoryLimit=3) == plain
    others = [
        await content(runtime={"timeoutSeconds": 31}),
        await content(runtime={"env": [{"name": "A", "value": "1"}]}),
        await content(python={"requirements": ["numpy"]}),
        await content(source={"inline": "def g() -> int:\n    return 1\n"}),
        await content(source={"inline": "def f(x: int) -> int:\n    return x\n", "module": "other"}),
        await content(expose={"functions": {"names": ["f"]}}),
    ]
    assert len({plain, *others}) == 7


def test_references_are_what_the_spec_names() -> None:
    obj = function(
        source={"configMapRef": {"name": "code"}},
        python={"indexRef": {"name": "index"}},
        image={"repository": "r.example.org/a", "pushSecretRef": {"name": "login"}},
    )
    assert references(FunctionService.model_validate(obj)) == {
        ("ConfigMap", "ns", "code"),
        ("Secret", "ns", "index"),
        ("Secret", "ns", "login"),
    }
