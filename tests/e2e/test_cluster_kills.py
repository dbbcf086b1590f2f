"""The operator is killed again and again while a cluster comes up and a job runs: nothing is made or run twice."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from tests import install
from tests.e2e.lab import Lab, Obj
from tests.testbed import clusters
from tests.testbed.kubectl import TestCluster

pytestmark = [pytest.mark.e2e, pytest.mark.alone, pytest.mark.timeout(400)]

KINDS = ("pods", "virtualmachines", "virtualclusters", "clusterjobs")
NAMES = {"lab-workers-0", "lab-workers-1"}
SECONDS = 60.0
"""Within so long the next step follows a kill: the standby waits 12 s for the Lease."""


class Watch:
    """All that became of the objects of one kind in a namespace, as the API server told it."""

    def __init__(self, cluster: TestCluster, path: str) -> None:
        self.told: list[tuple[str, Obj]] = []
        self._process = subprocess.Popen(
            ["kubectl", "get", "--raw", f"{path}?watch=1&timeoutSeconds=900"],
            env=cluster.info.environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            self.told.append((event["type"], event["object"]))

    def wait(self, true: Callable[[Obj], bool], what: str) -> Obj:
        """The first object, of now or later, of which it is true; seen within 20 ms."""
        deadline, seen = time.monotonic() + SECONDS, 0
        while True:
            for _, obj in self.told[seen:]:
                seen += 1
                if true(obj):
                    return obj
            assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}"
            time.sleep(0.02)

    @property
    def last(self) -> Obj:
        """The object as it was told last."""
        return self.told[-1][1]

    def made(self) -> list[tuple[str, str]]:
        """Name and uid of each object that ever was."""
        assert self._process.poll() is None, "the watch has ended: what came later wasn't seen"
        return sorted({(obj["metadata"]["name"], obj["metadata"]["uid"]) for _, obj in self.told})

    def gone(self) -> list[str]:
        """Names of those that were deleted."""
        return [obj["metadata"]["name"] for kind, obj in self.told if kind == "DELETED"]

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._reader.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Operators:
    """Both replicas of the operator.

    Attributes:
        killed: Identities of the leaders that were killed, in order.
    """

    def __init__(self, cluster: TestCluster) -> None:
        self._lab = Lab(cluster, install.NAMESPACE)
        self._leases = Watch(cluster, f"/apis/coordination.k8s.io/v1/namespaces/{install.NAMESPACE}/leases")
        self._leader, self._container = "", ""
        self.killed: list[str] = []

    def aim(self) -> None:
        """Waits for a leader that wasn't killed yet, and gets ready to kill it."""
        lease = self._leases.wait(self._is_other, "another leader")
        self._leader = lease["spec"]["holderIdentity"]
        status = self._lab.get("pod", self._pod)["status"]["containerStatuses"][0]
        self._container = status["containerID"].removeprefix("containerd://")

    def _is_other(self, lease: Obj) -> bool:
        holder = lease["spec"].get("holderIdentity")
        return lease["metadata"]["name"] == "cloudmesh-operator" and bool(holder) and holder not in self.killed

    @property
    def _pod(self) -> str:
        return self._leader.partition("_")[0]

    def kill(self) -> None:
        """Kills the leader that was aimed at; where that can be done by SIGKILL, which leaves nothing put in order."""
        if self._lab.cluster.info.kind == "own":
            kill = ["ctr", "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", self._container]
            self._lab.cluster.run(*clusters.own().enter(kill))
        # another Pod comes at once, a container that has ended before only after a while
        self._lab.kubectl("delete", "pod", self._pod, "--grace-period=0", "--force", "--wait=false")
        self.killed.append(self._leader)

    def close(self) -> None:
        """Waits until both run again."""
        self._leases.close()
        self._lab.kubectl("rollout", "status", "deployment/cloudmesh-operator", "--timeout=120s", timeout=130)


@pytest.fixture
def operators(cloudmesh: TestCluster) -> Iterator[Operators]:
    operators = Operators(cloudmesh)
    try:
        yield operators
    finally:
        operators.close()


@pytest.fixture
def watches(cloudmesh: TestCluster, namespace: str) -> Iterator[dict[str, Watch]]:
    """A watch of each kind, by plural."""
    groups = {kind: "/api/v1" if kind == "pods" else "/apis/cloudmesh.org/v1alpha1" for kind in KINDS}
    found = {kind: Watch(cloudmesh, f"{group}/namespaces/{namespace}/{kind}") for kind, group in groups.items()}
    try:
        yield found
    finally:
        for watch in found.values():
            watch.close()


def reason(obj: Obj) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or []
    return next((str(c["reason"]) for c in conditions if c["type"] == "Ready"), "")


def states(job: Obj) -> list[str]:
    return [run["state"] for run in (job.get("status") or {}).get("runs", [])]


def test_kills_at_every_stage_of_a_cluster_and_its_job(
    cloudmesh: TestCluster, namespace: str, operators: Operators, watches: dict[str, Watch]
) -> None:
    lab = Lab(cloudmesh, namespace)
    pods, machines, vcs, jobs = (watches[kind] for kind in KINDS)

    # before there is a machine: the quote stands, and is approved while nobody leads
    operators.aim()
    lab.make_cluster("lab", 2, bootstrap={"slurm": {}}, apply={"mode": "RequireApproval"})
    quoted = vcs.wait(lambda obj: reason(obj) == "AwaitingApproval", "a quote")
    operators.kill()
    approved = quoted["status"]["quote"]["hash"]
    lab.kubectl("annotate", "virtualcluster/lab", f"cloudmesh.org/approved-quote={approved}")
    assert machines.told == []

    # while the Pods start
    operators.aim()
    pods.wait(lambda obj: True, "a Pod")
    operators.kill()
    assert reason(vcs.last) == "Provisioning"

    # while SLURM is set up
    operators.aim()
    vcs.wait(lambda obj: reason(obj) == "Bootstrapping", "the set-up")
    operators.kill()
    assert reason(vcs.last) == "Bootstrapping"
    lab.ready("lab")

    # while runs are submitted
    operators.aim()
    command = ["sh", "-c", 'echo "$1" >> ~/ran; while [ ! -e ~/go ]; do sleep 0.2; done', "sh"]
    lab.run("sweep", "lab", command, arguments=["[1-4]"])
    jobs.wait(lambda obj: "Submitted" in states(obj), "a run that is about to be submitted")
    operators.kill()
    assert "Running" not in states(jobs.last)

    # while runs go on; they end while nobody leads
    operators.aim()
    jobs.wait(lambda obj: states(obj).count("Running") == 2, "two runs")
    operators.kill()
    for name in NAMES:
        lab.on(name, "touch", "go")

    status = lab.ended("sweep")
    assert [(run["state"], run["attempts"]) for run in status["runs"]] == [("Done", 1)] * 4
    assert len({run["slurmJobId"] for run in status["runs"]}) == 4
    ran = [line for name in NAMES for line in lab.on(name, "sh", "-c", "cat ~/ran").split()]
    assert sorted(ran) == ["1", "2", "3", "4"]
    lab.ready("lab")
    assert {name for name, _ in pods.made()} == {name for name, _ in machines.made()} == NAMES
    assert (len(pods.made()), len(machines.made())) == (2, 2), "each was made once"
    assert pods.gone() == machines.gone() == []
    started = lab.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
    assert started == "0 0"

    lab.delete("sweep")
    lab.kubectl("delete", "virtualcluster", "lab", "--timeout=60s", timeout=90)
    left = lab.kubectl("get", "cmvm,pods,services,secrets,configmaps,leases", "-o", "name").split()
    assert left == ["configmap/kube-root-ca.crt"]
    assert sorted(pods.gone()) == sorted(NAMES)
