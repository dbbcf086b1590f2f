"""The operator's rights are what it uses: no more is granted, and nothing that it asked for was refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import install
from tests.e2e.functions import Functions

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

Right = tuple[str, str, str]  # group, resource, verb

USER = f"system:serviceaccount:{install.NAMESPACE}:cloudmesh-operator"

# Granted, but not seen in every run of the tests; each with its reason.
EXCEPTIONS: dict[Right, str] = {
    ("", "configmaps", "patch"): "the document of a function whose operations changed",
    ("", "secrets", "list"): "only while a function refers to a Secret with credentials",
    ("", "secrets", "watch"): "only while a function refers to a Secret with credentials",
    ("", "secrets", "patch"): "the builder's certificate, renewed after ten years",
    ("", "services", "patch"): "a Service that somebody changed by hand",
    ("", "services", "get"): "a name that is taken",
    ("apps", "deployments", "get"): "a name that is taken",
    ("apps", "controllerrevisions", "get"): "a name that is taken",
    ("apps", "controllerrevisions", "delete"): "more revisions than the limit",
    ("autoscaling", "horizontalpodautoscalers", "get"): "a name that is taken",
    ("autoscaling", "horizontalpodautoscalers", "patch"): "limits of an autoscaler that changed",
    ("autoscaling", "horizontalpodautoscalers", "delete"): "autoscaling that was taken away",
    ("cloudmesh.org", "functionservices", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "functionservices/finalizers", "update"): "asked for by the admission of blockOwnerDeletion",
    ("events.k8s.io", "events", "patch"): "an event that happens again",
    ("coordination.k8s.io", "leases", "create"): "the first start only",
    ("", "pods", "get"): "a Pod that is a machine, before the watch tells of it",
    ("", "pods", "patch"): "labels that a user sets on a machine",
    ("", "pods/log", "get"): "the console of a machine",
    ("apps", "deployments", "patch"): "a function that was changed",
    ("cloudmesh.org", "cloudaccounts", "get"): "after a conflict of two writers",
    ("discovery.k8s.io", "endpointslices", "get"): "only where an account names hosts",
    ("cloudmesh.org", "budgets", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "budgets/status", "patch"): "only where there is a Budget",
    ("cloudmesh.org", "clusterjobs", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "clusterjobs", "patch"): "only where there is a job",
    ("cloudmesh.org", "clusterjobs/status", "patch"): "only where there is a job",
    ("cloudmesh.org", "clusterjobs/finalizers", "update"): "asked for by the admission of blockOwnerDeletion",
    ("cloudmesh.org", "placementpolicies", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "placementpolicies/status", "patch"): "only where there is a policy",
    ("cloudmesh.org", "pricesheets", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "pricesheets/status", "patch"): "only where there is a sheet",
    ("", "persistentvolumeclaims", "get"): "only where there is a DataStore on a volume",
    ("", "persistentvolumeclaims", "create"): "only where there is a directory",
    ("cloudmesh.org", "datastores", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "datastores", "patch"): "only where a directory uses a store",
    ("cloudmesh.org", "datastores/status", "patch"): "only where there is a store",
    ("cloudmesh.org", "virtualdirectories", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "virtualdirectories", "patch"): "only where a directory's files go with it",
    ("cloudmesh.org", "virtualdirectories/status", "patch"): "only where there is a directory",
    ("cloudmesh.org", "virtualclusters", "get"): "after a conflict of two writers",
    ("cloudmesh.org", "virtualclusters/finalizers", "update"): "asked for by the admission of blockOwnerDeletion",
    ("cloudmesh.org", "virtualmachines", "get"): "before a machine is started",
    ("cloudmesh.org", "virtualmachines/finalizers", "update"): "asked for by the admission of blockOwnerDeletion",
}

# What the API server lets every user do.
EVERYBODYS: set[Right] = {("authorization.k8s.io", "selfsubjectaccessreviews", "create")}


def _granted(rules: list[dict[str, Any]]) -> set[Right]:
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def _terminating(event: dict[str, Any]) -> bool:
    """A create in a namespace that is going is refused with 403 too."""
    return "being terminated" in json.dumps(event.get("responseStatus", {}))


def _events(audit: Path) -> Iterator[dict[str, Any]]:
    """What the operator asked of the API server since the cluster started; older ones are in rotated files."""
    for path in sorted(audit.parent.glob(f"{audit.stem}*{audit.suffix}")):
        with path.open() as lines:
            for line in lines:
                if USER in line and (event := json.loads(line))["user"]["username"] == USER:
                    yield event


def _live_a_cluster(functions: Functions) -> None:
    """A cluster with all it can tell comes up and goes."""
    spec = {"replicas": 1, "access": {"outputs": ["SSHConfigSecret", "InventoryConfigMap"]}}
    functions.cluster.apply(
        {
            "apiVersion": "cloudmesh.org/v1alpha1",
            "kind": "VirtualCluster",
            "metadata": {"name": "rights"},
            "spec": spec,
        },
        namespace=functions.namespace,
    )
    functions.kubectl("wait", "--for=condition=Ready", "virtualcluster/rights", "--timeout=120s", timeout=150)
    functions.kubectl("delete", "virtualcluster", "rights", "--timeout=60s", timeout=90)


def test_what_is_granted_is_what_is_used(functions: Functions) -> None:
    cluster = functions.cluster
    audit = cluster.info.audit_log
    assert audit is not None, "this cluster's API server keeps no audit log that can be read: run on the test bed"
    functions.apply("rights", "def f() -> int:\n    return 1\n", autoscaling={"maxReplicas": 2})
    _live_a_cluster(functions)
    functions.wait("rights")
    since = cluster.get("-n", functions.namespace, "functionservices.cloudmesh.org", "rights")["metadata"][
        "creationTimestamp"
    ]
    granted = _granted(cluster.get("clusterrole", "cloudmesh-operator")["rules"])
    granted |= _granted(cluster.get("-n", install.NAMESPACE, "role", "cloudmesh-operator-own")["rules"])
    for namespace in ("kube-system", "default"):
        granted |= _granted(cluster.get("-n", namespace, "role", f"cloudmesh-operator-{install.NAMESPACE}")["rules"])
    used: set[Right] = set()
    refused: list[str] = []
    for event in _events(audit):
        target = event.get("objectRef")
        if not target or "resource" not in target:
            continue
        resource = target["resource"] + (f"/{target['subresource']}" if "subresource" in target else "")
        right = (target.get("apiGroup", ""), resource, event["verb"])
        code = event.get("responseStatus", {}).get("code", 0)
        if code == 403 and event["requestReceivedTimestamp"] > since and not _terminating(event):
            refused.append(f"{right}: {event['requestURI']}")
        elif code != 403:
            used.add(right)
    assert not refused
    assert used - EVERYBODYS <= granted, "used without being granted: is the service account bound to more roles?"
    unused = granted - used - EXCEPTIONS.keys()
    assert not unused, "granted, never used and not among the exceptions"
    strange = EXCEPTIONS.keys() - granted
    assert not strange, "exceptions for what isn't granted"
