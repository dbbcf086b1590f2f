"""A user's view of VirtualClusters and ClusterJobs: apply, wait, look."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.testbed.kubectl import CommandFailed, TestCluster

Obj = dict[str, Any]
API = "cloudmesh.org/v1alpha1"


class Lab:
    """Clusters and jobs of one namespace."""

    def __init__(self, cluster: TestCluster, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **more)

    def get(self, kind: str, name: str) -> Obj:
        return self.cluster.get("-n", self.namespace, kind, name)

    def make_cluster(self, name: str, replicas: int, **spec: Any) -> None:
        body = {"replicas": replicas, **spec}
        self.cluster.apply(
            {"apiVersion": API, "kind": "VirtualCluster", "metadata": {"name": name}, "spec": body},
            namespace=self.namespace,
        )

    def ready(self, name: str) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"virtualcluster/{name}", "--timeout=120s", timeout=150)

    def run(self, name: str, cluster: str, command: list[str], **spec: Any) -> None:
        body = {"clusterRef": {"name": cluster}, "command": command, **spec}
        self.cluster.apply(
            {"apiVersion": API, "kind": "ClusterJob", "metadata": {"name": name}, "spec": body},
            namespace=self.namespace,
        )

    def ended(self, name: str, seconds: int = 120) -> Obj:
        self.kubectl(
            "wait", "--for=condition=Complete", f"clusterjob/{name}", f"--timeout={seconds}s", timeout=seconds + 30
        )
        status: Obj = self.get("clusterjob", name)["status"]
        return status

    def states(self, name: str) -> list[str]:
        return [run["state"] for run in self.get("clusterjob", name).get("status", {}).get("runs", [])]

    def message(self, name: str) -> str:
        conditions = self.get("clusterjob", name).get("status", {}).get("conditions", [])
        return next((str(c["message"]) for c in conditions if c["type"] == "Ready"), "")

    def delete(self, *names: str) -> None:
        self.kubectl("delete", "clusterjob", *names, "--timeout=60s", timeout=90)

    def on(self, pod: str, *command: str) -> str:
        return self.kubectl("exec", pod, "--", *command)

    def touches(self, pod: str, path: str) -> bool:
        try:
            self.on(pod, "touch", path)
        except CommandFailed:  # its Pod is being made anew
            return False
        return True


def until(look: Callable[[], Any], what: str, seconds: float = 90) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.5)
    return found
