"""The CRD on a real API server: established, explained, and of one mind with the pydantic models.

Objects are tried on a copy of the CRD with another group and other names, so that no operator takes them for its own
and no `kubectl get functionservices` of another test finds them.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.testbed.kubectl import CommandFailed, TestCluster
from tests.unit.api.corpus import (
    BAD_NAMES,
    GOOD_NAMES,
    INVALID,
    NAME_MESSAGE,
    UNKNOWN,
    VALID,
    Bad,
    make_object,
    spec,
)

from cloudmesh.api.functionservice import FunctionService
from cloudmesh.api.lint import walk
from cloudmesh.api.schema import drop_empty

pytestmark = [pytest.mark.kube]
CRDS = Path(__file__).resolve().parents[2] / "crds"
GROUP = "api-test.cloudmesh.org"
API_VERSION = f"{GROUP}/v1alpha1"
PLURAL = "apitrials"
RESOURCE = f"{PLURAL}.{GROUP}"
TYPE = {"apiVersion": API_VERSION, "kind": "ApiTrial"}
OURS = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": "FunctionService"}


@pytest.fixture(scope="module")
def crd(cluster: TestCluster) -> Iterator[dict[str, Any]]:
    """The copy, as the API server holds it once it is established."""
    copy = yaml.safe_load((CRDS / "functionservices.cloudmesh.org.yaml").read_text())
    copy["metadata"]["name"] = RESOURCE
    copy["spec"]["group"] = GROUP
    copy["spec"]["names"] = {"kind": "ApiTrial", "listKind": "ApiTrialList", "plural": PLURAL, "singular": "apitrial"}
    cluster.apply(copy)
    try:
        cluster.kubectl("wait", "--for=condition=Established", f"crd/{RESOURCE}", "--timeout=30s")
        yield cluster.get("crd", RESOURCE)
    finally:
        cluster.kubectl("delete", "crd", RESOURCE, "--timeout=50s")  # another module makes it again


@pytest.fixture(scope="module")
def api(cluster: TestCluster, crd: dict[str, Any], namespace: str) -> Iterator[httpx.Client]:
    """A client of the copy's resources in the test's namespace."""
    command = ["kubectl", "proxy", "--port=0"]
    with subprocess.Popen(command, env=cluster.info.environment(), stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        address = proxy.stdout.readline().split()[-1]
        base = f"http://{address}/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}"
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as client:
            until = time.monotonic() + 30
            while client.get("").status_code != 200 and time.monotonic() < until:
                time.sleep(0.1)
            yield client
        proxy.terminate()


def create(api: httpx.Client, obj: dict[str, Any]) -> httpx.Response:
    return api.post("", json=obj, params={"dryRun": "All", "fieldValidation": "Strict"})


def causes(answer: httpx.Response) -> dict[str, str]:
    """Message by field of a refusal; the whole message under the empty field."""
    body = answer.json()
    found = {c.get("field", ""): c["message"] for c in body.get("details", {}).get("causes", [])}
    return {**found, "": body["message"]}


def test_real_crd_is_taken_as_it_is(cluster: TestCluster) -> None:
    for file in CRDS.glob("*.yaml"):
        told = cluster.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", str(file))
        assert f"{file.stem} serverside-applied" in told


def test_established_and_structural(crd: dict[str, Any]) -> None:
    conditions = {c["type"]: c["status"] for c in crd["status"]["conditions"]}
    assert conditions.get("Established") == "True"
    assert conditions.get("NamesAccepted") == "True"
    assert "NonStructuralSchema" not in conditions
    assert "KubernetesAPIApprovalPolicyConformant" not in conditions


@pytest.mark.parametrize("name", VALID)
def test_both_accept_and_fill_in_the_same(api: httpx.Client, name: str) -> None:
    answer = create(api, make_object(name, VALID[name], **TYPE))
    assert answer.status_code == 201, answer.text
    ours = FunctionService.model_validate(make_object(name, VALID[name]), extra="forbid").to_dict()["spec"]
    theirs = FunctionService.model_validate(answer.json() | OURS)
    assert theirs.to_dict()["spec"] == ours
    assert drop_empty(numbers_as_text(answer.json()["spec"])) == ours


def numbers_as_text(stored: dict[str, Any]) -> dict[str, Any]:
    """The server keeps `cpu: 1` as a number, the model as text."""
    for amounts in stored.get("runtime", {}).get("resources", {}).values():
        amounts.update({key: str(value) for key, value in amounts.items()})
    return stored


@pytest.mark.parametrize(("name", "bad"), INVALID.items(), ids=INVALID)
def test_both_refuse(api: httpx.Client, name: str, bad: Bad) -> None:
    answer = create(api, make_object(name, bad.spec, **TYPE))
    assert answer.status_code == 422, answer.text
    told = causes(answer)
    assert any(field.startswith(bad.field) for field in told), told
    assert bad.message in told[""]


@pytest.mark.parametrize(("name", "unknown"), UNKNOWN.items(), ids=UNKNOWN)
def test_unknown_fields(api: httpx.Client, name: str, unknown: tuple[dict[str, Any], str]) -> None:
    body, field = unknown
    answer = create(api, make_object(name, body, **TYPE))
    assert answer.status_code == 400
    assert f'unknown field "{field}"' in causes(answer)[""]


def test_names(api: httpx.Client) -> None:
    for name in GOOD_NAMES:
        assert create(api, make_object(name, spec(), **TYPE)).status_code == 201
    for name in BAD_NAMES:
        answer = create(api, make_object(name, spec(), **TYPE))
        assert answer.status_code == 422
        assert NAME_MESSAGE in causes(answer)[""]


def test_explain_has_text_for_every_field(cluster: TestCluster, crd: dict[str, Any]) -> None:
    shown = cluster.kubectl(
        "explain", PLURAL, "--recursive", f"--api-version={API_VERSION}", "-o", "plaintext-openapiv2"
    )
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    fields = [
        path for path, _ in walk(schema) if path.startswith(("spec", "status")) and not path.endswith(("[]", "{}"))
    ]
    assert all(path.rpartition(".")[2] in shown for path in fields)
    for path in ("spec", "spec.runtime", "spec.source.configMapRef", "status.build", "status.conditions"):
        told = cluster.kubectl("explain", f"{PLURAL}.{path}", f"--api-version={API_VERSION}")
        assert "<no description>" not in told
        assert "DESCRIPTION" in told


def test_columns_scale_and_status(cluster: TestCluster, api: httpx.Client, namespace: str) -> None:
    cluster.apply(make_object("columns", spec(), **TYPE), namespace=namespace)
    status = {
        "observedGeneration": 1,
        "replicas": 2,
        "selector": "a=b",
        "url": "http://columns.x.svc/cloudmesh",
        "servingRevision": "columns-00001",
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "AsSpecified",
                "message": "",
                "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    written = api.patch(
        "/columns/status", json={"status": status}, headers={"content-type": "application/merge-patch+json"}
    )
    assert written.status_code == 200, written.text
    header, row = cluster.kubectl("-n", namespace, "get", f"{RESOURCE}/columns").splitlines()
    assert header.split() == ["NAME", "READY", "REASON", "URL", "REVISION", "REPLICAS", "AGE"]
    assert row.split()[:6] == ["columns", "True", "AsSpecified", status["url"], "columns-00001", "2"]
    cluster.kubectl("-n", namespace, "wait", "--for=condition=Ready", f"{RESOURCE}/columns", "--timeout=5s")
    cluster.kubectl("-n", namespace, "scale", f"{RESOURCE}/columns", "--replicas=3")
    stored = cluster.get("-n", namespace, f"{RESOURCE}/columns")
    assert (stored["spec"]["replicas"], stored["metadata"]["generation"]) == (3, 2)
    scale = json.loads(cluster.kubectl("get", "--raw", str(api.base_url.join("columns/scale").raw_path.decode())))
    assert (scale["status"]["replicas"], scale["status"]["selector"]) == (2, "a=b")
    bad = {"status": {"build": {"seconds": "soon"}}}
    refused = api.patch("/columns/status", json=bad, headers={"content-type": "application/merge-patch+json"})
    assert refused.status_code == 422


def test_message_that_a_user_sees(cluster: TestCluster, crd: dict[str, Any], namespace: str) -> None:
    two = make_object("two", {"source": {"inline": "x", "configMapRef": {"name": "a"}}}, **TYPE)
    with pytest.raises(CommandFailed) as caught:
        cluster.apply(two, namespace=namespace)
    assert "spec.source: Invalid value" in caught.value.output
    assert "`spec.source` must have exactly one of `inline` and `configMapRef`" in caught.value.output
