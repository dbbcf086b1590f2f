"""Which cluster the tests use: the current one, kind, k3d, or our own bed; one way to start, fill and end each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.testbed import artifacts, config
from tests.testbed.bed import OwnBed
from tests.testbed.console import TestbedError, say, step

Kind = Literal["current", "kind", "k3d", "own"]
KINDS: tuple[Kind, ...] = ("current", "kind", "k3d", "own")
DOCKER_KINDS: tuple[Kind, ...] = ("kind", "k3d")
STATE = artifacts.ROOT / ".testbed"
KIND_CONFIG = """\
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  kubeadmConfigPatches:
  - |
    kind: KubeletConfiguration
    maxPods: 250
    serializeImagePulls: false
    registryPullQPS: 50
"""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that is up.

    Attributes:
        kind: who runs it.
        kubeconfig: for an administrator, from the host.
        bin: folder with `kubectl`, `helm` and `glua`; None when those of the machine serve.
        host_address: address at which Pods reach servers of this host; empty when not known.
        registry: name of a registry outside of the cluster (plain HTTP, no password) that the host and Pods push to and
            nodes pull from; empty when there is none.
        audit_log: the API server's audit log (JSON lines); None when we don't run the API server.
    """

    kind: Kind
    kubeconfig: Path
    bin: Path | None
    host_address: str = ""
    registry: str = ""
    audit_log: Path | None = None

    def environment(self) -> dict[str, str]:
        """Environment for commands that use the cluster: KUBECONFIG, and PATH with the tools first."""
        path = os.environ.get("PATH", "")
        return {
            **os.environ,
            "KUBECONFIG": str(self.kubeconfig),
            "PATH": f"{self.bin}:{path}" if self.bin else path,
        }


def choose() -> Kind:
    """The kind of cluster that `up` takes on this machine.

    Raises:
        TestbedError: CLUSTER has a value that isn't known.
    """
    wanted = os.environ.get("CLUSTER", "")
    for kind in KINDS:
        if wanted == kind:
            return kind
    if wanted:
        raise TestbedError(f"CLUSTER={wanted}: it may be {', '.join(KINDS)} (or not be set)")
    for kind in DOCKER_KINDS:
        if shutil.which(kind) and _docker_answers():
            return kind
    return "own"


def _docker_answers() -> bool:
    if shutil.which("docker") is None:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        return subprocess.run(["docker", "info"], capture_output=True, timeout=5, check=False).returncode == 0
    return False


def _name() -> str:
    return "cloudmesh-" + hashlib.sha256(str(artifacts.ROOT).encode()).hexdigest()[:8]


def _tools() -> Path | None:
    if all(shutil.which(name) for name in ("kubectl", "helm", "glua")):
        return None
    return artifacts.kubernetes() / "bin"


def _remembered() -> Kind | None:
    try:
        kind: Kind = json.loads((STATE / "cluster.json").read_text())["kind"]
    except FileNotFoundError:
        return None
    return kind


def _up_current() -> None:
    source = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    tools = _tools()
    kubectl = str(tools / "kubectl") if tools else "kubectl"
    shown = subprocess.run(
        [kubectl, "config", "view", "--raw", "--flatten", "--minify"],
        env={**os.environ, "KUBECONFIG": source}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if shown.returncode:
        raise TestbedError(f"CLUSTER=current, but {source} has no current context: {shown.stderr.strip()}")
    target = STATE / "kubeconfig"
    target.touch(mode=0o600)
    target.write_text(shown.stdout)


def _up_docker(kind: Kind) -> None:
    kubeconfig = STATE / "kubeconfig"
    listed = artifacts.run([kind, "get", "clusters"] if kind == "kind" else [kind, "cluster", "list", "--no-headers"],
                           cwd=STATE, timeout=120)  # fmt: skip
    there = any(line.split()[:1] == [_name()] for line in listed.splitlines())
    if kind == "kind" and there:
        artifacts.run(["kind", "export", "kubeconfig", "--name", _name(), "--kubeconfig", str(kubeconfig)], cwd=STATE)
    elif kind == "kind":
        (STATE / "kind.yaml").write_text(KIND_CONFIG)
        command = ["kind", "create", "cluster", "--name", _name(), "--kubeconfig", str(kubeconfig)]
        artifacts.run([*command, "--wait", "180s", "--config", str(STATE / "kind.yaml")], cwd=STATE, timeout=900)
    else:
        if not there:
            command = ["k3d", "cluster", "create", _name(), "--wait", "--kubeconfig-update-default=false"]
            artifacts.run([*command, "--k3s-arg", "--kubelet-arg=max-pods=250@server:0"], cwd=STATE, timeout=900)
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(artifacts.run(["k3d", "kubeconfig", "get", _name()], cwd=STATE, timeout=120))


def up() -> Cluster:
    """Bring the checkout's cluster up, or mend it; returns when Pods can run on it.

    Raises:
        TestbedError: the message says what to do.
    """
    STATE.mkdir(exist_ok=True)
    with artifacts.locked(STATE / "lock", "another `make up` or `make down` works in this checkout"):
        kind = choose()
        before = _remembered()
        if before and before != kind:
            _down(before)
        (STATE / "cluster.json").write_text(json.dumps({"kind": kind}))
        if kind == "own":
            OwnBed(STATE).up()
        elif kind == "current":
            _up_current()
        else:
            with step(f"{kind} cluster {_name()}"):
                _up_docker(kind)
        cluster = _describe(kind)
        _write_environment(cluster)
        return cluster


def _describe(kind: Kind) -> Cluster:
    record = OwnBed(STATE).record()
    if not (STATE / "kubeconfig").exists() or (kind == "own" and not (record and record.alive())):
        raise TestbedError("the cluster isn't up: start it with `make up`")
    if kind != "own":
        return Cluster(kind, STATE / "kubeconfig", _tools())
    assert record is not None
    return Cluster(
        kind,
        STATE / "kubeconfig",
        STATE / "bin",
        host_address=record.plan.host,
        registry=config.registry(record.plan) if "registry" in OwnBed(STATE).components() else "",
        audit_log=STATE / "log/audit.log",
    )


def _write_environment(cluster: Cluster) -> None:
    lines = [f'export KUBECONFIG="{cluster.kubeconfig}"']
    if cluster.bin:
        lines.append(f'export PATH="{cluster.bin}:$PATH"')
    (STATE / "env").write_text("\n".join(lines) + "\n")


def current() -> Cluster:
    """The cluster that is up.

    Raises:
        TestbedError: none is.
    """
    kind = _remembered()
    if kind is None:
        raise TestbedError("no cluster is up: start one with `make up`")
    return _describe(kind)


def down() -> None:
    """End the checkout's cluster and remove all it has on this machine; one that `CLUSTER=current` named stays."""
    if not STATE.exists():
        return
    with artifacts.locked(STATE / "lock", "another `make up` or `make down` works in this checkout"):
        kind = _remembered()
        if kind:
            _down(kind)


def _down(kind: Kind) -> None:
    if kind == "own":
        OwnBed(STATE).down()
    elif shutil.which(kind) is None:
        pass  # it was asked for, but never there
    elif kind == "kind":
        artifacts.run(["kind", "delete", "cluster", "--name", _name()], cwd=STATE, timeout=300)
    elif kind == "k3d":
        artifacts.run(["k3d", "cluster", "delete", _name()], cwd=STATE, timeout=300)
    for name in ("cluster.json", "kubeconfig", "env", "kind.yaml", "imported.json"):
        (STATE / name).unlink(missing_ok=True)


def import_images(archives: Sequence[Path]) -> None:
    """Put images (OCI or Docker archives) onto the nodes.

    Raises:
        TestbedError: an archive can't be read, or the cluster isn't ours to fill.
    """
    cluster = current()
    if cluster.kind == "current":
        raise TestbedError("the nodes of CLUSTER=current aren't ours: push the images to a registry that it pulls from")
    if cluster.kind == "own":
        OwnBed(STATE).import_images(archives)
        return
    for archive in archives:
        if cluster.kind == "kind":
            command = ["kind", "load", "image-archive", str(archive), "--name", _name()]
        else:
            command = ["k3d", "image", "import", str(archive), "-c", _name()]
        artifacts.run(command, cwd=STATE, timeout=600)


def own() -> OwnBed:
    """Our own bed, for what only it can: entering namespaces and sending signals.

    Raises:
        TestbedError: another kind of cluster is up.
    """
    if current().kind != "own":
        raise TestbedError("only the test bed's own cluster can do this, and another kind is up")
    return OwnBed(STATE)


def say_where(cluster: Cluster) -> None:
    """Tell how to use the cluster."""
    say(f"cluster: {cluster.kind}; use it with: . {STATE / 'env'}")
