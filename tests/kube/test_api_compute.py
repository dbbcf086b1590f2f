"""The definitions of the compute wing on a real API server: taken, explained, and of one mind with the models.

Objects are tried on copies of the definitions with another group and other names, so that no operator takes them for
its own.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.kube.test_api import causes
from tests.kube.test_api_agreement import values
from tests.testbed.kubectl import CommandFailed, TestCluster
from tests.unit.api.kinds import CHANGES, CORPORA, FINE_CHANGES, INVALID, MODELS, UNKNOWN, VALID, made

from cloudmesh.api.datastore import PLACES
from cloudmesh.api.lint import walk
from cloudmesh.api.names import PLURALS
from cloudmesh.api.schema import Model, drop_empty

pytestmark = [pytest.mark.kube]
CRDS = Path(__file__).resolve().parents[2] / "crds"
GROUP = "compute-test.cloudmesh.org"
API_VERSION = f"{GROUP}/v1alpha1"
SCHEMAS: dict[str, dict[str, Any]] = {}
"""Structural schema of each kind's spec."""


def trial(kind: str) -> dict[str, Any]:
    """The definition of a kind in another group."""
    copy: dict[str, Any] = yaml.safe_load((CRDS / f"{PLURALS[kind]}.cloudmesh.org.yaml").read_text())
    SCHEMAS[kind] = copy["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    copy["metadata"]["name"] = f"trial{PLURALS[kind]}.{GROUP}"
    copy["spec"]["group"] = GROUP
    copy["spec"]["names"] = {
        "kind": f"Trial{kind}",
        "listKind": f"Trial{kind}List",
        "plural": f"trial{PLURALS[kind]}",
        "singular": f"trial{kind.lower()}",
    }
    return copy


@pytest.fixture(scope="module")
def crds(cluster: TestCluster) -> Iterator[list[str]]:
    """The copies, established."""
    names = [f"crd/trial{PLURALS[kind]}.{GROUP}" for kind in CORPORA]
    cluster.apply(*map(trial, CORPORA))
    try:
        cluster.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
        yield names
    finally:
        cluster.kubectl("delete", *names, "--timeout=50s")


@pytest.fixture(scope="module")
def api(cluster: TestCluster, crds: list[str], namespace: str) -> Iterator[httpx.Client]:
    """A client of the copies' resources in the test's namespace."""
    command = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(command, env=cluster.info.environment(), stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().split()[-1]
        with httpx.Client(
            base_url=f"http://{address}/apis/{API_VERSION}/namespaces/{namespace}", trust_env=False, timeout=30
        ) as client:
            until = time.monotonic() + 30
            for kind in CORPORA:
                while client.get(path(kind)).status_code != 200 and time.monotonic() < until:
                    time.sleep(0.1)
            yield client
        proxy.terminate()


def path(kind: str) -> str:
    return f"/trial{PLURALS[kind]}"


def copy_of(kind: str, name: str, spec: Any) -> dict[str, Any]:
    return made(kind, name, spec) | {"apiVersion": API_VERSION, "kind": f"Trial{kind}"}


def create(api: httpx.Client, kind: str, name: str, spec: Any) -> httpx.Response:
    params = {"dryRun": "All", "fieldValidation": "Strict"}
    return api.post(path(kind), json=copy_of(kind, name, spec), params=params)


def as_text(stored: Any, schema: dict[str, Any]) -> Any:
    """What the server stored, with text for the numbers it keeps where both are allowed."""
    if isinstance(stored, dict):
        inner = schema.get("properties", {})
        return {k: as_text(v, inner.get(k, schema.get("additionalProperties", {}))) for k, v in stored.items()}
    if isinstance(stored, list):
        return [as_text(item, schema["items"]) for item in stored]
    return str(stored) if schema.get("x-kubernetes-int-or-string") else stored


@pytest.mark.parametrize("kind", CORPORA)
def test_established_and_structural(cluster: TestCluster, crds: list[str], kind: str) -> None:
    found = cluster.get("crd", f"trial{PLURALS[kind]}.{GROUP}")
    conditions = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert (conditions.get("Established"), conditions.get("NamesAccepted")) == ("True", "True")
    assert not conditions.keys() & {"NonStructuralSchema", "KubernetesAPIApprovalPolicyConformant"}


@pytest.mark.parametrize(("kind", "name"), VALID)
def test_both_accept_and_fill_in_the_same(api: httpx.Client, kind: str, name: str) -> None:
    spec = CORPORA[kind].valid[name]
    answer = create(api, kind, "a", spec)
    assert answer.status_code == 201, answer.text
    ours = MODELS[kind].model_validate(made(kind, "a", spec), extra="forbid").to_dict()["spec"]
    stored = as_text(answer.json()["spec"], SCHEMAS[kind]["properties"]["spec"])
    assert drop_empty(stored) == drop_empty(ours)
    theirs = MODELS[kind].model_validate(answer.json() | {"apiVersion": "cloudmesh.org/v1alpha1", "kind": kind})
    assert theirs.to_dict()["spec"] == ours


def test_examples_are_taken(api: httpx.Client) -> None:
    for file in sorted((CRDS.parent / "manifests/examples").glob("*/*.yaml")):
        for obj in yaml.safe_load_all(file.read_text()):
            if obj.get("kind") in CORPORA:
                answer = create(api, obj["kind"], obj["metadata"]["name"], obj["spec"])
                assert answer.status_code == 201, (file.name, answer.text)


@pytest.mark.parametrize(("kind", "name"), INVALID)
def test_both_refuse(api: httpx.Client, kind: str, name: str) -> None:
    bad = CORPORA[kind].invalid[name]
    answer = create(api, kind, "a", bad.spec)
    assert answer.status_code == 422, answer.text
    told = causes(answer)
    assert any(field.startswith(bad.field) for field in told), told
    assert bad.message in told[""]


@pytest.mark.parametrize(("kind", "name"), UNKNOWN)
def test_unknown_fields(api: httpx.Client, kind: str, name: str) -> None:
    spec, field = CORPORA[kind].unknown[name]
    answer = create(api, kind, "a", spec)
    assert answer.status_code == 400
    assert f'unknown field "{field}"' in causes(answer)[""]


@st.composite
def specs(draw: st.DrawFn, kind: str, schema: dict[str, Any]) -> Any:
    """A spec; that of a store often has one place, since of many members one alone is rarely drawn."""
    spec = draw(values(schema))
    if kind == "DataStore" and isinstance(spec, dict) and draw(st.booleans()):
        place = draw(st.sampled_from(sorted(PLACES)))
        spec = {name: value for name, value in spec.items() if name not in {*PLACES, "credentials"}}
        spec[place] = draw(values(schema["properties"][place]))
        if PLACES[place].CREDENTIALS != "None":
            spec["credentials"] = {"secretRef": {"name": "a"}}
    return spec


@pytest.mark.parametrize("kind", CORPORA)
def test_one_mind_about_random_specs(api: httpx.Client, kind: str) -> None:
    seen: Counter[bool] = Counter()
    schema = SCHEMAS[kind]["properties"]["spec"]

    # these have most to get wrong
    tries = {"CloudAccount": 600, "DataStore": 400, "PriceSheet": 400, "VirtualDirectory": 600}.get(kind, 240)

    @settings(
        max_examples=tries, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(specs(kind, schema))
    def agree(spec: Any) -> None:
        answer = create(api, kind, "a", spec)
        ours: Model | ValidationError
        try:
            ours = MODELS[kind].model_validate(made(kind, "a", spec), extra="forbid")
        except ValidationError as error:
            ours = error
        assert answer.status_code in (201, 400, 422), answer.text
        seen[answer.status_code == 201] += 1
        assert (answer.status_code == 201) is isinstance(ours, Model), f"{answer.text}\n{json.dumps(spec)}\n{ours}"
        if isinstance(ours, Model):
            stored = as_text(answer.json()["spec"], schema)
            assert drop_empty(stored) == drop_empty(ours.to_dict()["spec"])

    agree()
    assert min(seen[True], seen[False]) >= 3, seen  # both answers were drawn


@pytest.fixture
def update(api: httpx.Client) -> Callable[[str, str, Any, Any], httpx.Response]:
    """Makes an object, and tries to change it."""

    def change(kind: str, name: str, before: Any, after: Any) -> httpx.Response:
        stored = api.post(path(kind), json=copy_of(kind, name, before))
        assert stored.status_code == 201, stored.text
        body = copy_of(kind, name, after)
        body["metadata"]["resourceVersion"] = stored.json()["metadata"]["resourceVersion"]
        return api.put(f"{path(kind)}/{name}", json=body, params={"fieldValidation": "Strict"})

    return change


@pytest.mark.parametrize("name", CHANGES)
def test_what_cannot_be_changed(update: Callable[..., httpx.Response], name: str) -> None:
    kind, before, after, message = CHANGES[name]
    MODELS[kind].model_validate(made(kind, name, after), extra="forbid")  # right by itself
    answer = update(kind, name, before, after)
    assert answer.status_code == 422, answer.text
    assert message in causes(answer)[""]


@pytest.mark.parametrize("name", FINE_CHANGES)
def test_what_can_be_changed(update: Callable[..., httpx.Response], name: str) -> None:
    kind, before, after = FINE_CHANGES[name]
    answer = update(kind, f"fine-{name}", before, after)
    assert answer.status_code == 200, answer.text
    assert answer.json()["metadata"]["generation"] == 2


@pytest.mark.parametrize("kind", CORPORA)
def test_names(api: httpx.Client, kind: str) -> None:
    longest = {"VirtualMachine": 63, "VirtualCluster": 45}.get(kind, 48)
    spec = next(iter(CORPORA[kind].valid.values()))
    assert create(api, kind, "n" * longest, spec).status_code == 201
    for name in ("n" * (longest + 1), "1a", "a.b"):
        answer = create(api, kind, name, spec)
        assert answer.status_code == 422
        assert "`metadata.name`" in causes(answer)[""]


@pytest.mark.parametrize("kind", CORPORA)
def test_explain_has_text_for_every_field(cluster: TestCluster, crds: list[str], kind: str) -> None:
    plural = f"trial{PLURALS[kind]}"
    shown = cluster.kubectl(
        "explain", plural, "--recursive", f"--api-version={API_VERSION}", "-o", "plaintext-openapiv2"
    )
    fields = [p for p, _ in walk(SCHEMAS[kind]) if p.startswith(("spec", "status")) and not p.endswith(("[]", "{}"))]
    assert all(p.rpartition(".")[2] in shown for p in fields)
    for part in ("spec", "status.conditions"):
        told = cluster.kubectl("explain", f"{plural}.{part}", f"--api-version={API_VERSION}")
        assert "DESCRIPTION" in told
        assert "<no description>" not in told


def test_cluster_as_people_see_it(cluster: TestCluster, api: httpx.Client, namespace: str) -> None:
    resource = f"trialvirtualclusters.{GROUP}"
    cluster.apply(copy_of("VirtualCluster", "seen", {"replicas": 2}), namespace=namespace)
    status = {
        "observedGeneration": 1,
        "desiredReplicas": 2,
        "replicas": 2,
        "readyReplicas": 1,
        "selector": "a=b",
        "clouds": "pods,aws",
        "cost": {"currency": "USD", "hourly": "0.052", "accrued": "1.5"},
        "quote": {"hash": "0a1b2c"},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "Provisioning",
                "message": "1 of 2 machines is ready",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    merge = {"content-type": "application/merge-patch+json"}
    at = f"{path('VirtualCluster')}/seen"
    written = api.patch(f"{at}/status", json={"status": status}, headers=merge)
    assert written.status_code == 200, written.text
    header, row = cluster.kubectl("-n", namespace, "get", f"{resource}/seen").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "DESIRED", "READY-N", "CLOUDS", "$/H", "ACCRUED", "AGE"]
    assert row.split()[:8] == ["seen", "False", "Provisioning", "2", "1", "pods,aws", "0.052", "1.5"]
    cluster.kubectl("-n", namespace, "scale", f"{resource}/seen", "--replicas=3")
    assert cluster.get("-n", namespace, f"{resource}/seen")["spec"]["replicas"] == 3
    scale = json.loads(cluster.kubectl("get", "--raw", api.base_url.join(f".{at}/scale").raw_path.decode()))
    assert (scale["status"]["replicas"], scale["status"]["selector"]) == (2, "a=b")
    refused = api.patch(f"{at}/status", json={"status": {"cost": {"currency": "USD", "hourly": -1}}}, headers=merge)
    assert refused.status_code == 422


def test_scaling_a_cluster_without_such_a_pool_is_refused(
    cluster: TestCluster, api: httpx.Client, namespace: str
) -> None:
    cluster.apply(copy_of("VirtualCluster", "own", {"pools": [{"name": "a", "replicas": 1}]}), namespace=namespace)
    with pytest.raises(CommandFailed) as caught:
        cluster.kubectl("-n", namespace, "scale", f"trialvirtualclusters.{GROUP}/own", "--replicas=3")
    assert "`spec.replicas` must be left out when each pool has its own `replicas`" in caught.value.output
