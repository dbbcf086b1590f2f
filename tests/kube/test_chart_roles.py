"""The chart's roles on a real API server: what view, edit, admin and the operator may do, and nothing beyond."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.testbed.kubectl import TestCluster

pytestmark = [pytest.mark.kube]
CHART = Path(__file__).resolve().parents[2] / "charts/cloudmesh"
PREFIX = f"t{secrets.token_hex(3)}-"


CASES = [
    ("viewer", "list", "functionservices.cloudmesh.org", True),
    ("viewer", "get", "functionservices.cloudmesh.org/status", True),
    ("viewer", "create", "functionservices.cloudmesh.org", False),
    ("viewer", "patch", "functionservices.cloudmesh.org/scale", False),
    ("editor", "watch", "functionservices.cloudmesh.org", True),
    ("editor", "create", "functionservices.cloudmesh.org", True),
    ("editor", "patch", "functionservices.cloudmesh.org/scale", True),
    ("editor", "patch", "functionservices.cloudmesh.org/status", False),
    ("viewer", "get", "budgets.cloudmesh.org/status", True),
    ("viewer", "list", "cloudaccounts.cloudmesh.org", True),
    ("viewer", "create", "virtualclusters.cloudmesh.org", False),
    ("editor", "create", "virtualclusters.cloudmesh.org", True),
    ("editor", "patch", "virtualclusters.cloudmesh.org/scale", True),
    ("editor", "approve", "virtualclusters.cloudmesh.org", False),
    ("editor", "approve", "virtualdirectories.cloudmesh.org", False),
    ("editor", "delete", "virtualmachines.cloudmesh.org", True),
    ("editor", "create", "clusterjobs.cloudmesh.org", True),
    ("editor", "patch", "clusterjobs.cloudmesh.org/status", False),
    ("editor", "create", "cloudaccounts.cloudmesh.org", False),
    ("editor", "update", "budgets.cloudmesh.org", False),
    ("editor", "patch", "pricesheets.cloudmesh.org", False),
    ("editor", "create", "placementpolicies.cloudmesh.org", False),
    ("viewer", "get", "virtualdirectories.cloudmesh.org/files", True),
    ("viewer", "update", "virtualdirectories.cloudmesh.org/files", False),
    ("viewer", "list", "datastores.cloudmesh.org", True),
    ("editor", "create", "virtualdirectories.cloudmesh.org", True),
    ("editor", "update", "virtualdirectories.cloudmesh.org/files", True),
    ("editor", "create", "datastores.cloudmesh.org", False),
    ("administrator", "update", "virtualdirectories.cloudmesh.org/files", True),
    ("administrator", "create", "datastores.cloudmesh.org", True),
    ("administrator", "approve", "virtualclusters.cloudmesh.org", True),
    ("administrator", "approve", "virtualdirectories.cloudmesh.org", True),
    ("administrator", "update", "budgets.cloudmesh.org", True),
    ("administrator", "create", "pricesheets.cloudmesh.org", True),
    ("administrator", "deletecollection", "functionservices.cloudmesh.org", True),
    ("administrator", "create", "cloudaccounts.cloudmesh.org", True),
    ("operator", "patch", "functionservices.cloudmesh.org", False),
    ("operator", "patch", "functionservices.cloudmesh.org/status", True),
    ("operator", "create", "functionservices.cloudmesh.org", False),
    ("operator", "delete", "functionservices.cloudmesh.org", False),
    ("operator", "create", "deployments.apps", True),
    ("operator", "create", "pods", True),
    ("operator", "patch", "virtualclusters.cloudmesh.org/status", True),
    ("operator", "delete", "virtualclusters.cloudmesh.org", False),
    ("operator", "approve", "virtualclusters.cloudmesh.org", False),
    ("operator", "approve", "virtualdirectories.cloudmesh.org", False),
    ("operator", "create", "virtualmachines.cloudmesh.org", True),
    ("operator", "patch", "virtualdirectories.cloudmesh.org/status", True),
    ("operator", "get", "virtualdirectories.cloudmesh.org/files", False),
    ("operator", "delete", "virtualdirectories.cloudmesh.org", False),
    ("operator", "delete", "persistentvolumeclaims", False),
    ("operator", "create", "pods/exec", False),
    ("operator", "create", "secrets", True),
    ("operator", "delete", "secrets", False),
    ("operator", "create", "rolebindings.rbac.authorization.k8s.io", False),
    ("operator", "create", "serviceaccounts/token", False),
]


def renamed(obj: dict[str, Any]) -> dict[str, Any]:
    """The same role under another name, beside those of the release that other tests share."""
    obj["metadata"] |= {"name": PREFIX + obj["metadata"]["name"]}
    return obj


@pytest.fixture(scope="module")
def roles(cluster: TestCluster, namespace: str) -> Iterator[str]:
    """Aggregated roles, the operator's role, and users who have one each in the test's namespace."""
    text = cluster.helm("template", "cloudmesh", str(CHART), "-n", namespace)
    made = [renamed(o) for o in yaml.safe_load_all(text) if o and o["kind"] == "ClusterRole"]
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": user, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": PREFIX + user}],
        }
        for user, role in (
            ("viewer", "view"),
            ("editor", "edit"),
            ("administrator", "admin"),
            ("operator", f"{PREFIX}cloudmesh-operator"),
        )
    ]
    cluster.apply(*made, *bindings)
    try:
        yield namespace
    finally:
        cluster.kubectl("delete", "clusterrole", *(o["metadata"]["name"] for o in made), "--wait=false")


def review(user: str, verb: str, resource: str, namespace: str) -> dict[str, Any]:
    """Asks whether a user may do something with `resource.group` or `resource.group/subresource`."""
    whole, _, subresource = resource.partition("/")
    plural, _, group = whole.partition(".")
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": plural, "subresource": subresource}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": PREFIX + user, "resourceAttributes": attributes},
    }


def answers(cluster: TestCluster, namespace: str) -> list[bool]:
    """The API server's word on each of `CASES`, asked at once."""
    asked = {"apiVersion": "v1", "kind": "List", "items": [review(*case[:3], namespace) for case in CASES]}
    of = "{.spec.resourceAttributes.verb} {.spec.resourceAttributes.resource} {.status.allowed}"
    told = cluster.kubectl("create", "-f", "-", "-o", f'jsonpath={of}{{"\\n"}}', stdin=json.dumps(asked)).splitlines()
    words = [line.split() for line in told]
    plurals = [(verb, resource.partition(".")[0].partition("/")[0]) for _, verb, resource, _ in CASES]
    assert [(verb, plural) for verb, plural, _ in words] == plurals, "in the order of the questions"
    return [word == "true" for *_, word in words]


@pytest.fixture(scope="module")
def allowed(cluster: TestCluster, roles: str) -> dict[tuple[str, str, str], bool]:
    """What each may, once the controller manager has aggregated the roles and the API server has taken them up."""
    until = time.monotonic() + 30
    while True:
        told = answers(cluster, roles)
        granted = all(word for word, (*_, expected) in zip(told, CASES, strict=True) if expected)
        if granted or time.monotonic() > until:
            return {case[:3]: word for case, word in zip(CASES, told, strict=True)}
        time.sleep(0.2)


@pytest.mark.parametrize(("user", "verb", "resource", "expected"), CASES)
def test_may(allowed: dict[tuple[str, str, str], bool], user: str, verb: str, resource: str, expected: bool) -> None:
    assert allowed[user, verb, resource] is expected
