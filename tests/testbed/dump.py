"""What a cluster knows at the moment when a test fails, as files for the reader of the failure."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.testbed.clusters import STATE
from tests.testbed.kubectl import CommandFailed, TestCluster

OPERATOR = "app.kubernetes.io/name=cloudmesh"
BED_LOGS = ("supervisor", "kubelet", "containerd")
TAIL_BYTES = 256 * 1024


def dump(cluster: TestCluster, namespace: str | None, folder: Path) -> None:
    """Write objects, events and logs into a folder, which is emptied first; what can't be had is told in its file.

    Args:
        cluster: the tests' cluster.
        namespace: the namespace of the failed test; None when it has none.
        folder: is made.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _write(folder / "nodes.txt", cluster, "get", "nodes", "-o", "wide")
    _write(folder / "pods-everywhere.txt", cluster, "get", "pods", "-A", "-o", "wide")
    if namespace:
        _write(
            folder / "events.txt", cluster, "-n", namespace, "get", "events", "--sort-by=.metadata.creationTimestamp"
        )
        for kind in _kinds(cluster):
            _write(
                folder / "objects" / f"{kind}.yaml",
                cluster,
                "-n",
                namespace,
                "get",
                kind,
                "-o",
                "yaml",
                drop_empty=True,
            )
        _logs(folder / "logs", cluster, "-n", namespace)
    _logs(folder / "operator", cluster, "-A", "-l", OPERATOR)
    for name in BED_LOGS:
        source = STATE / "log" / f"{name}.log"
        if cluster.info.kind == "own" and source.exists():
            (folder / f"bed-{name}.log").write_bytes(source.read_bytes()[-TAIL_BYTES:])


def _kinds(cluster: TestCluster) -> list[str]:
    """Namespaced kinds that are worth a file; Secrets are left out, for dumps are passed on."""
    wanted = "pods services deployments.apps replicasets.apps statefulsets.apps daemonsets.apps jobs.batch configmaps"
    wanted += " persistentvolumeclaims endpointslices.discovery.k8s.io horizontalpodautoscalers.autoscaling"
    try:
        ours = cluster.kubectl("api-resources", "--namespaced", "--api-group=cloudmesh.org", "-o", "name", timeout=20)
    except CommandFailed:
        ours = ""
    return [*wanted.split(), *ours.split()]


def _logs(folder: Path, cluster: TestCluster, *selection: str) -> None:
    try:
        pods = json.loads(cluster.kubectl("get", "pods", *selection, "-o", "json", timeout=20))["items"]
    except (CommandFailed, ValueError) as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed.txt").write_text(str(error))
        return
    for pod in pods:
        name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
        statuses = [*pod["status"].get("initContainerStatuses", []), *pod["status"].get("containerStatuses", [])]
        for status in statuses:
            base = ["-n", space, "logs", name, "-c", status["name"], "--tail=2000"]
            _write(folder / f"{name}.{status['name']}.log", cluster, *base)
            if status.get("restartCount"):
                _write(folder / f"{name}.{status['name']}.previous.log", cluster, *base, "--previous")


def _write(target: Path, cluster: TestCluster, *arguments: str, drop_empty: bool = False) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = cluster.kubectl(*arguments, timeout=20)
    except CommandFailed as error:
        text = str(error)
    if not (drop_empty and "items: []" in text):
        target.write_text(text)
