"""A namespace with the operator's rights in it isn't deleted while something is to be ended there: the chart's policies
on a real API server, over copies of the definitions.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = [pytest.mark.kube]
ROOT = Path(__file__).resolve().parents[2]
SUFFIX = secrets.token_hex(3)
GROUP = f"going-{SUFFIX}.cloudmesh.org"
KINDS = {
    "cloudaccounts": "CloudAccount",
    "clusterjobs": "ClusterJob",
    "virtualclusters": "VirtualCluster",
    "virtualmachines": "VirtualMachine",
}
REFUSED = "the namespace goes last: the operator has to end "


@pytest.fixture(scope="module")
def guarded(cluster: TestCluster) -> Iterator[str]:
    """A namespace that the policies are for."""
    name = f"t-going-{SUFFIX}"
    crds = []
    for plural in KINDS:
        crd = yaml.safe_load((ROOT / f"crds/{plural}.cloudmesh.org.yaml").read_text())
        crd["metadata"]["name"], crd["spec"]["group"] = f"{plural}.{GROUP}", GROUP
        for more in ("shortNames", "categories"):
            crd["spec"]["names"].pop(more, None)
        for version in crd["spec"]["versions"]:  # what is in them is of no matter
            version["schema"] = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
            version["subresources"] = {}
            version.pop("additionalPrinterColumns", None)
        crds.append(crd)
    text = cluster.helm(
        *("template", "cloudmesh", str(ROOT / "charts/cloudmesh"), "-n", name),
        *("--set", f"watchNamespaces={{other,{name}}}", "--show-only", "templates/namespaces.yaml"),
    )
    assert "apiVersion: cloudmesh.org/v1alpha1" in text
    policies = [obj for obj in yaml.safe_load_all(text.replace("cloudmesh.org/v1alpha1", f"{GROUP}/v1alpha1")) if obj]
    assert len(policies) == len(KINDS) * 3, "a policy and two bindings each"
    cluster.kubectl("create", "namespace", name)
    cluster.apply(*crds)
    try:
        for plural in KINDS:
            cluster.kubectl("wait", "--for=condition=Established", f"crd/{plural}.{GROUP}", "--timeout=30s")
        cluster.apply(*policies)
        yield name
    finally:
        for obj in (*policies, *crds):
            cluster.kubectl("delete", obj["kind"], obj["metadata"]["name"], "--ignore-not-found", "--timeout=50s")
        cluster.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def delete(cluster: TestCluster, namespace: str) -> str:
    """What the API server says to a deletion that is only tried; empty if it would be done."""
    try:
        cluster.kubectl("delete", "namespace", namespace, "--dry-run=server")
    except CommandFailed as error:
        return error.output
    return ""


@pytest.mark.parametrize("plural", KINDS)
def test_what_has_to_be_ended_keeps_its_namespace(cluster: TestCluster, guarded: str, plural: str) -> None:
    metadata = {"name": "held", "finalizers": [f"{GROUP}/cleanup"]}
    cluster.apply({"apiVersion": f"{GROUP}/v1alpha1", "kind": KINDS[plural], "metadata": metadata}, namespace=guarded)
    until = time.monotonic() + 40
    while f"{REFUSED}{KINDS[plural]} held first" not in (said := delete(cluster, guarded)):
        assert time.monotonic() < until, f"the policy isn't acted on: {said}"
        time.sleep(0.5)
    cluster.kubectl(
        *("-n", guarded, "patch", f"{plural}.{GROUP}/held", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    )
    until = time.monotonic() + 40
    while said := delete(cluster, guarded):
        assert time.monotonic() < until, said
        time.sleep(0.2)


def test_others_are_free(cluster: TestCluster, guarded: str, namespace: str) -> None:
    metadata = {"name": "held", "finalizers": [f"{GROUP}/cleanup"]}
    obj = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VirtualMachine", "metadata": metadata}
    cluster.apply(obj, namespace=namespace)
    try:
        assert delete(cluster, namespace) == ""
    finally:
        cluster.kubectl(
            *("-n", namespace, "patch", f"virtualmachines.{GROUP}/held", "--type=merge"),
            *("-p", '{"metadata": {"finalizers": null}}'),
        )
