"""What happens to Pods that are machines: a port is shut between two, a container ends, a Pod is lost."""

from __future__ import annotations

import contextlib
import time

import pytest
from tests.e2e.lab import Lab, Obj, until
from tests.testbed import clusters
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = pytest.mark.e2e

QUIET_SECONDS = 10.0
"""When nothing has happened for so long, the account's next listing is up to 30 s away."""
NOTICED_SECONDS = 12.0


@pytest.fixture(scope="module")
def lab(cloudmesh: TestCluster, namespace: str) -> Lab:
    lab = Lab(cloudmesh, namespace)
    pool = {"name": "workers", "alternatives": [{"name": "any", "machine": {"vcpu": {"min": "500m"}}}]}
    lab.make_cluster("lab", 2, bootstrap={"slurm": {}}, pools=[pool])
    lab.ready("lab")
    return lab


def condition(lab: Lab, kind: str, name: str, type_: str) -> Obj:
    conditions = lab.get(kind, name).get("status", {}).get("conditions", [])
    return next((c for c in conditions if c["type"] == type_), {})


def events(lab: Lab, reason: str) -> list[str]:
    return [
        e["note"]
        for e in lab.cluster.get("-n", lab.namespace, "events.events.k8s.io")["items"]
        if e["reason"] == reason
    ]


def test_a_port_that_is_shut_between_two_machines_is_named(lab: Lab) -> None:
    if lab.cluster.info.kind != "own":
        pytest.skip("the Pod's network namespace is entered through the own bed")
    container = lab.get("pod", "lab-workers-1")["status"]["containerStatuses"][0]["containerID"].rpartition("/")[2]
    tasks = lab.cluster.run(*clusters.own().enter(["ctr", "-n", "k8s.io", "tasks", "ls"])).splitlines()
    (process,) = [line.split()[1] for line in tasks if line.startswith(container)]

    def nft(words: str) -> None:
        lab.cluster.run(*clusters.own().enter(["nsenter", "-t", process, "-n", "nft", words]))

    # what SLURM's controller does is left alone: only jobs would ever find out
    nft("add table inet shut")
    nft("add chain inet shut out { type filter hook output priority 0; }")
    nft("add rule inet shut out tcp dport 6818 drop")
    try:
        lab.kubectl("scale", "virtualcluster/lab", "--replicas=3")
        until(lambda: condition(lab, "virtualcluster", "lab", "Reachable").get("reason") == "Unreachable", "is told")
        one, other = (lab.get("pod", f"lab-workers-{n}")["status"]["podIP"] for n in (1, 2))
        told = f"lab-workers-1 ({one}) can't reach lab-workers-2 ({other}:6818)"
        assert condition(lab, "virtualcluster", "lab", "Reachable")["message"] == told
        assert condition(lab, "virtualcluster", "lab", "Ready")["message"] == told
        assert condition(lab, "virtualmachine", "lab-workers-2", "Bootstrapped")["status"] == "False"
        assert lab.on("lab-workers-0", "srun", "-N2", "-w", "lab-workers-[0-1]", "hostname")
    finally:
        nft("delete table inet shut")
    lab.ready("lab")
    assert len(lab.on("lab-workers-1", "srun", "-N3", "hostname").split()) == 3


def test_a_container_that_ended_is_told_with_its_end(lab: Lab) -> None:
    time.sleep(QUIET_SECONDS)
    with contextlib.suppress(CommandFailed):
        lab.on("lab-workers-2", "kill", "-TERM", "1")
    began = time.monotonic()
    until(lambda: lab.get("virtualmachine", "lab-workers-2")["status"].get("lastEnd"), "the end is told")
    took = time.monotonic() - began
    print(f"a container that ended was told after {took:.1f} s")
    ended = lab.get("virtualmachine", "lab-workers-2")["status"]["lastEnd"]
    assert ", exit code " in ended
    assert f"the machine has started anew: {ended}" in until(lambda: events(lab, "Restarted"), "an event")
    assert took < NOTICED_SECONDS
    lab.ready("lab")


def test_a_pod_that_is_lost_is_noticed_within_seconds(lab: Lab) -> None:
    time.sleep(QUIET_SECONDS)
    lab.kubectl("delete", "pod", "lab-workers-1", "--grace-period=0", "--force")
    began = time.monotonic()
    until(lambda: any(note.startswith("lab-workers-1/") for note in events(lab, "Gone")), "the loss is told")
    took = time.monotonic() - began
    print(f"a Pod that was lost was told after {took:.1f} s")
    assert took < NOTICED_SECONDS
    lab.ready("lab")
