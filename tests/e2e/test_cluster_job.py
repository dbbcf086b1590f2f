"""ClusterJobs on machines that are Pods: through SLURM and over SSH, logins, a lost machine, an end before the end."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tests.e2e.lab import Lab, until
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = pytest.mark.e2e

SCRIPT = 'echo "$1 $2 on $(hostname) $SEED"; echo "$1" > result.txt; head -c 400000 /dev/zero > large; sleep 1'


@pytest.fixture(scope="module")
def lab(cloudmesh: TestCluster, namespace: str) -> Lab:
    lab = Lab(cloudmesh, namespace)
    lab.run("early", "lab", ["hostname"])
    lab.make_cluster("lab", 2, bootstrap={"slurm": {}}, access={"outputs": ["SSHConfigSecret", "InventoryConfigMap"]})
    lab.make_cluster("plain", 1)
    lab.ready("lab")
    return lab


@pytest.fixture(scope="module")
def keys(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Secret as files, as the documentation says."""
    folder = tmp_path_factory.mktemp("lab")
    for name, value in lab.get("secret", "lab-vc-ssh")["data"].items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(base64.b64decode(value))
    return folder


def test_a_job_that_came_with_its_cluster_runs_once_slurm_is_up(lab: Lab) -> None:
    status = lab.ended("early", 25)
    (run,) = status["runs"]
    assert (run["state"], run["attempts"]) == ("Done", 1)


def test_a_sweep_runs_through_slurm(lab: Lab) -> None:
    lab.cluster.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"train.sh": SCRIPT}},
        namespace=lab.namespace,
    )
    lab.run(
        "sweep", "lab", ["sh", "train.sh"],
        arguments=["lr=[0.1,0.2]", "run-[01-03]"],
        files={"workdir": {"configMapRef": {"name": "code"}}},
        env=[{"name": "SEED", "value": "a b"}],
        outputs={"paths": ["*.txt", "large"]},
    )  # fmt: skip
    status = lab.ended("sweep")
    assert status["counts"]["done"] == 6
    assert {run["node"] for run in status["runs"]} == {"lab-workers-0", "lab-workers-1"}
    assert len({run["slurmJobId"] for run in status["runs"]}) == 6
    last = status["runs"][5]
    logs = lab.get("configmap", last["log"]["name"])["data"]
    assert logs["run-0005"] == f"lr=0.2 run-03 on {last['node']} a b\n"
    assert lab.get("configmap", last["output"]["name"])["data"] == {"result.txt": "lr=0.2\n"}
    assert "large (400000 bytes)" in last["message"]
    assert lab.kubectl("wait", "--for=condition=Ready", "clusterjob/sweep", "--timeout=5s")


def test_people_log_in_with_the_secret_and_run_over_both_machines(lab: Lab, keys: Path) -> None:
    def ssh(*command: str) -> str:
        return lab.cluster.run("sh", "-c", 'cd "$1" && shift && exec ssh -F config "$@"', "sh", str(keys), *command)

    assert sorted(ssh("lab-workers-0", "srun", "-N2", "hostname").split()) == ["lab-workers-0", "lab-workers-1"]
    assert ssh("lab-workers-0", "ssh", "lab-workers-1", "hostname") == "lab-workers-1\n"
    inventory = json.loads(lab.get("configmap", "lab-vc-inventory")["data"]["inventory.json"])
    assert [machine["name"] for machine in inventory["machines"]] == ["lab-workers-0", "lab-workers-1"]
    (keys / "known_hosts").write_text((keys / "known_hosts").read_text().replace("AAAAC3", "AAAAC4"))
    with pytest.raises(CommandFailed):
        ssh("lab-workers-0", "true")


def test_runs_that_fail_and_runs_that_take_too_long(lab: Lab) -> None:
    command = ["sh", "-c", 'case "$1" in 1) exit 3;; 2) sleep 60;; esac', "sh"]
    lab.run("mixed", "lab", command, arguments=["[1-3]"], timeoutSeconds=3, retry={"limit": 1})
    status = lab.ended("mixed")
    assert [run["state"] for run in status["runs"]] == ["Failed", "Timeout", "Done"]
    assert [run["attempts"] for run in status["runs"]] == [2, 2, 1]
    ready = next(c for c in status["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "RunsFailed")


def test_a_run_over_two_nodes_finds_its_folder_on_both(lab: Lab) -> None:
    lab.run(
        "wide", "lab", ["srun", "-N2", "-n2", "sh", "-c", 'echo "$(hostname) $(cat train.sh | wc -l) $(pwd)"'],
        slurm={"nodes": 2},
        files={"workdir": {"configMapRef": {"name": "code"}}},
        outputs={"paths": ["nothing.txt"]},
    )  # fmt: skip
    status = lab.ended("wide")
    (run,) = status["runs"]
    assert (run["state"], run["message"]) == ("Done", "no file matches `outputs.paths`: nothing.txt")
    folder = f"/home/cm/.cloudmesh/jobs/{lab.get('clusterjob', 'wide')['metadata']['uid']}/run-0000"
    lines = sorted(lab.get("configmap", run["log"]["name"])["data"]["run-0000"].splitlines())
    assert lines == [f"lab-workers-0 0 {folder}", f"lab-workers-1 0 {folder}"]


def test_a_job_that_is_deleted_leaves_nothing_running_and_no_folders(lab: Lab) -> None:
    lab.run("vast", "lab", ["hostname"], slurm={"nodes": 5})
    lab.run("long", "lab", ["sleep", "3000"], arguments=["[1-4]"])
    until(lambda: lab.states("long").count("Running") == 2, "two runs")
    until(lambda: "SLURM waits: PartitionConfig" in lab.message("vast"), "SLURM's reason")
    # those of other tests too, but for one, so that there is something to be left alone
    jobs = {
        job["metadata"]["name"]: job["metadata"]["uid"]
        for job in lab.cluster.get("-n", lab.namespace, "clusterjobs")["items"]
    }
    kept = [jobs.pop("mixed")] if "mixed" in jobs else []
    lab.delete(*jobs)
    # SLURM itself takes a moment to clean up behind a run that it has ended
    until(lambda: lab.on("lab-workers-0", "squeue", "--noheader") == "", "an empty queue")
    for pod in ("lab-workers-0", "lab-workers-1"):
        assert "sleep 3000" not in lab.on(pod, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '").replace("  ", " ")
        assert lab.on(pod, "ls", ".cloudmesh/jobs").split() == kept


def test_runs_of_a_lost_machine_go_on_elsewhere(lab: Lab) -> None:
    # they end when they are told to
    command = ["sh", "-c", "while [ ! -e ~/go ]; do sleep 0.2; done"]
    lab.run("moved", "lab", command, arguments=["[1-2]"], retry={"limit": 2})
    until(lambda: lab.states("moved") == ["Running", "Running"], "two runs")
    runs = lab.get("clusterjob", "moved")["status"]["runs"]
    assert {run["node"] for run in runs} == {"lab-workers-0", "lab-workers-1"}
    lab.kubectl("delete", "pod", "lab-workers-1", "--grace-period=0", "--force")
    index = next(run["index"] for run in runs if run["node"] == "lab-workers-1")
    until(lambda: lab.get("clusterjob", "moved")["status"]["runs"][index]["attempts"] == 2, "another try", 120)
    lab.on("lab-workers-0", "touch", "go")
    lab.ready("lab")
    until(lambda: len(lab.get("virtualcluster", "lab")["status"].get("endpoints", ())) == 2, "the machine anew")
    for endpoint in lab.get("virtualcluster", "lab")["status"]["endpoints"]:
        until(lambda name=endpoint["name"]: lab.touches(name, "go"), f"{endpoint['name']} answers")
    status = lab.ended("moved")
    assert status["counts"]["done"] == 2
    lost = status["runs"][index]
    assert lost["attempts"] == 2
    assert lost["node"] != "lab-workers-1" or lost["startedAt"] > runs[index]["startedAt"]


def test_a_cluster_without_slurm_runs_over_ssh(lab: Lab) -> None:
    lab.ready("plain")
    lab.run("two", "plain", ["sh", "-c", 'echo "$1"; hostname', "sh"], arguments=["[a-b]"], parallelism=2)
    status = lab.ended("two")
    assert status["counts"]["done"] == 2
    assert "slurmJobId" not in status["runs"][0]
    logs = lab.get("configmap", "two-logs-0")["data"]
    assert logs == {"run-0000": "a\nplain-workers-0\n", "run-0001": "b\nplain-workers-0\n"}
    lab.kubectl("scale", "virtualcluster/plain", "--replicas=0")
    lab.run("idle", "plain", ["hostname"])
    lab.delete("two")
    until(lambda: "VirtualCluster 'plain' is scaled to 0" in lab.message("idle"), "why it waits")
