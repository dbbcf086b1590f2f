"""A namespace is deleted while a cluster and its job run in it: all of it goes, and nobody has to help."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

import pytest
from tests.e2e.lab import API, Lab, until
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SECONDS = 90
"""A Pod has 30 s to end; what waits for another is looked at again within as much."""

ACCOUNT = {
    "apiVersion": API,
    "kind": "CloudAccount",
    "metadata": {"name": "cloud"},
    "spec": {"memory": {}},
}


@pytest.fixture
def lab(cloudmesh: TestCluster) -> Iterator[Lab]:
    """A namespace of the test's own: others wait for what is in theirs."""
    name = f"t-namespace-{secrets.token_hex(3)}"
    cloudmesh.kubectl("create", "namespace", name)
    try:
        yield Lab(cloudmesh, name)
    finally:
        cloudmesh.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_a_namespace_goes_with_all_that_runs_in_it(lab: Lab) -> None:
    lab.make_cluster("lab", 2, bootstrap={"slurm": {}}, access={"outputs": ["SSHConfigSecret", "InventoryConfigMap"]})
    lab.make_cluster("plain", 1)
    # starts when the namespace already goes, if at all
    lab.make_cluster("young", 1)
    lab.cluster.apply(ACCOUNT, namespace=lab.namespace)
    lab.make_cluster("away", 2, accounts=[{"name": "cloud"}])
    lab.run("long", "lab", ["sleep", "600"], arguments=["[1-4]"])
    lab.run("direct", "plain", ["sleep", "600"])
    lab.ready("lab")
    until(lambda: lab.states("long").count("Running") == 2, "two runs through SLURM")
    until(lambda: lab.states("direct") == ["Running"], "a run over SSH")
    lab.ready("away")
    assert lab.get("cloudaccount", "cloud")["metadata"]["finalizers"] == ["cloudmesh.org/in-use"]
    began = time.monotonic()
    try:
        lab.cluster.kubectl("delete", "namespace", lab.namespace, f"--timeout={SECONDS}s", timeout=SECONDS + 30)
    except CommandFailed:
        left = "virtualclusters,clusterjobs,virtualmachines,cloudaccounts,pods,secrets"
        pytest.fail(lab.kubectl("get", left, "-o", "yaml") + str(lab.cluster.get("namespace", lab.namespace)["status"]))
    print(f"the namespace was gone after {time.monotonic() - began:.1f} s")
