"""What the cluster gives to every other test: Pods under pod security, volumes, DNS, the outside, metrics, audit."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.testbed import artifacts, clusters, oci
from tests.testbed.kubectl import CommandFailed, TestCluster

pytestmark = [pytest.mark.kube]
IMAGE = "cloudmesh.local/busybox:1"


def until(check: Callable[[], Any], seconds: float = 60) -> Any:
    """The first true value that a check gives; a failing command counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            value = check()
        except CommandFailed:
            if time.monotonic() > deadline:
                raise
            value = None
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def image(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    if cluster.info.kind == "current":
        pytest.skip("images can't be imported into a cluster that isn't ours")
    archive = tmp_path_factory.mktemp("image") / "busybox.tar"
    command, _ = artifacts.packaged_command("busybox")
    oci.write_archive(archive, IMAGE, Path(command[0]), artifacts.architecture())
    clusters.import_images([archive])
    return IMAGE


def pod(name: str, image: str, script: str, **spec: Any) -> dict[str, Any]:
    """A Pod that pod security `restricted` admits."""
    container = {
        "name": "main",
        "image": image,
        "command": ["/busybox", "sh", "-c", script],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        **spec.pop("container", {}),
    }
    security = {"runAsNonRoot": True, "runAsUser": 2000, "fsGroup": 2000, "seccompProfile": {"type": "RuntimeDefault"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": security,
            "containers": [container],
            **spec,
        },
    }


def test_volume_of_the_default_class_is_written_and_cleaned(cluster: TestCluster, namespace: str, image: str) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
    }
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    mounts = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    script = "/busybox echo there > /data/file && /busybox cat /data/file"
    cluster.apply(claim, pod("writer", image, script, volumes=volumes, container=mounts), namespace=namespace)
    cluster.kubectl("-n", namespace, "wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert cluster.kubectl("-n", namespace, "logs", "writer") == "there\n"
    volume = cluster.get("-n", namespace, "pvc", "data")["spec"]["volumeName"]
    cluster.kubectl("-n", namespace, "delete", "pod/writer", "pvc/data")
    until(lambda: volume not in cluster.kubectl("get", "pv", "-o", "name"))
    if cluster.info.kind == "own":
        until(lambda: not list((clusters.STATE / "var/pv").glob(f"*{volume.removeprefix('pvc-')}*")))


def test_pod_that_breaks_pod_security_is_refused(cluster: TestCluster, namespace: str, image: str) -> None:
    wrong = pod("wrong", image, "true", hostNetwork=True)
    with pytest.raises(CommandFailed, match="violates PodSecurity"):
        cluster.apply(wrong, namespace=namespace)


def test_service_answers_pods_by_name_and_the_host_by_address(cluster: TestCluster, namespace: str, image: str) -> None:
    serve = "/busybox mkdir /tmp/w && /busybox echo hello > /tmp/w/index.html && /busybox httpd -f -p 8080 -h /tmp/w"
    temporary: dict[str, Any] = {
        "volumes": [{"name": "tmp", "emptyDir": {}}],
        "container": {"volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "hello"},
        "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    # its own Service too: a Pod reaches itself through it
    cluster.apply(service, pod("hello", image, serve, **temporary), namespace=namespace)
    cluster.kubectl("-n", namespace, "wait", "pod/hello", "--for=condition=Ready", "--timeout=60s")
    address = cluster.get("-n", namespace, "service", "hello")["spec"]["clusterIP"]
    execute = ["-n", namespace, "exec", "hello", "--", "/busybox"]
    name = f"hello.{namespace}.svc.cluster.local"
    until(lambda: address in cluster.kubectl(*execute, "nslookup", name))
    ask = f"/busybox printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /busybox nc -w 2 {address} 80"
    until(lambda: "hello" in cluster.kubectl(*execute, "sh", "-c", ask))
    if cluster.info.kind == "own":
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{address}/", timeout=5) as answer:
            assert answer.read() == b"hello\n"


def test_pod_reaches_the_package_index(cluster: TestCluster, namespace: str, image: str, tmp_path: Path) -> None:
    if cluster.info.kind != "own":
        pytest.skip("the Pod's network namespace is entered through the own bed")
    cluster.apply(pod("outside", image, "/busybox sleep 300"), namespace=namespace)
    cluster.kubectl("-n", namespace, "wait", "pod/outside", "--for=condition=Ready", "--timeout=60s")
    own = clusters.own()
    status = cluster.get("-n", namespace, "pod", "outside")["status"]
    container = status["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    tasks = subprocess.run(
        own.enter(["ctr", "-n", "k8s.io", "tasks", "ls"]), capture_output=True, text=True, timeout=30
    )
    (process,) = [line.split()[1] for line in tasks.stdout.splitlines() if line.startswith(container)]
    # The machine's own pip with its settings, in the Pod's network: addresses, NAT and DNS are the Pod's.
    download = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-cache-dir",
        "-d",
        str(tmp_path),
        "idna",
    ]
    result = subprocess.run(
        own.enter(["nsenter", "-t", process, "-n", "--", *download]), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert list(tmp_path.glob("idna-*.whl"))


def push(archive: Path, registry: str, repository: str, tag: str) -> None:
    """Push an OCI archive by the registry's API over plain HTTP."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def send(method: str, url: str, content: bytes, kind: str) -> str:
        request = urllib.request.Request(url, content, {"Content-Type": kind}, method=method)
        with opener.open(request, timeout=20) as answer:
            return str(answer.headers["Location"])

    with tarfile.open(archive) as members:
        blobs = {member.name: members.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    entry = json.loads(blobs["index.json"])["manifests"][0]
    manifest = blobs["blobs/sha256/" + entry["digest"].removeprefix("sha256:")]
    base = f"http://{registry}/v2/{repository}"
    for part in [json.loads(manifest)["config"], *json.loads(manifest)["layers"]]:
        place = send("POST", f"{base}/blobs/uploads/", b"", "application/octet-stream")
        content = blobs["blobs/sha256/" + part["digest"].removeprefix("sha256:")]
        send("PUT", f"{place}&digest={part['digest']}", content, "application/octet-stream")
    send("PUT", f"{base}/manifests/{tag}", manifest, entry["mediaType"])


def test_image_pushed_to_the_registry_is_pulled(
    cluster: TestCluster, namespace: str, image: str, tmp_path: Path
) -> None:
    if not cluster.info.registry:
        pytest.skip("this kind of cluster has no registry outside of it")
    archive = tmp_path / "image.tar"
    command, _ = artifacts.packaged_command("busybox")
    oci.write_archive(archive, IMAGE, Path(command[0]), artifacts.architecture())
    tag = f"t{time.time_ns()}"
    push(archive, cluster.info.registry, "tests/busybox", tag)
    reference = f"{cluster.info.registry}/tests/busybox:{tag}"
    cluster.apply(
        pod("pulled", reference, "/busybox echo pulled", container={"imagePullPolicy": "Always"}), namespace=namespace
    )
    cluster.kubectl("-n", namespace, "wait", "pod/pulled", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    assert cluster.kubectl("-n", namespace, "logs", "pulled") == "pulled\n"


def test_metrics_of_node_and_pods(cluster: TestCluster, namespace: str, image: str) -> None:
    if cluster.info.kind != "own":
        pytest.skip("another kind of cluster may be without metrics")
    until(lambda: "bed" in cluster.kubectl("top", "node"), 90)


def test_audit_log_has_verbs_and_users(cluster: TestCluster, namespace: str) -> None:
    if cluster.info.audit_log is None:
        pytest.skip("the API server isn't ours")
    name = f"audited-{time.time_ns()}"
    cluster.kubectl("-n", namespace, "create", "configmap", name)

    def found() -> dict[str, Any] | None:
        assert cluster.info.audit_log is not None
        for line in cluster.info.audit_log.read_text().splitlines():
            if name in line:
                entry: dict[str, Any] = json.loads(line)
                return entry
        return None

    entry = until(found, 20)
    assert (entry["verb"], entry["user"]["username"], entry["level"]) == ("create", "admin", "Metadata")
    assert entry["objectRef"]["resource"] == "configmaps"


def test_tools_are_those_of_the_cluster(cluster: TestCluster, tmp_path: Path) -> None:
    if cluster.info.kind == "own":
        versions = json.loads(cluster.kubectl("version", "-o", "json"))
        wanted = f"v{artifacts.KUBERNETES}"
        assert (versions["clientVersion"]["gitVersion"], versions["serverVersion"]["gitVersion"]) == (wanted, wanted)
    assert cluster.helm("version", "--short").startswith("v4.")
    (tmp_path / "health.lua").write_text('print("lua " .. 6 * 7)')
    assert cluster.run("glua", str(tmp_path / "health.lua")) == "lua 42\n"


def test_failure_names_the_folder_with_objects_events_and_logs(
    cluster: TestCluster, image: str, tmp_path: Path
) -> None:
    script = tmp_path / "test_that_fails.py"
    script.write_text(
        "def test_fails(cluster, namespace):\n"
        "    cluster.kubectl('-n', namespace, 'create', 'configmap', 'witness')\n"
        f"    cluster.kubectl('-n', namespace, 'run', 'speaker', '--image={image}', '--dry-run=server', check=False)\n"
        "    assert False, 'on purpose'\n"
        "import pytest\n"
        "@pytest.fixture(scope='module')\n"
        "def broken(cluster):\n"
        "    raise ValueError('for both')\n"
        "def test_one(cluster, broken): ...\n"
        "def test_two(cluster, broken): ...\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-p", "no:cacheprovider", str(script)]
    result = subprocess.run(command, cwd=artifacts.ROOT, capture_output=True, text=True, timeout=240)
    assert "1 failed, 2 errors" in result.stdout, result.stdout + result.stderr
    lines = {line for line in result.stdout.splitlines() if line.startswith("objects, events and logs")}
    # a fixture that fails once has one folder
    folder, broken = sorted((Path(line.partition(": ")[2]) for line in lines), key=lambda path: "test_one" in path.name)
    assert broken.name.endswith("test_one")
    assert folder.is_relative_to(clusters.STATE / "dumps")
    assert "name: witness" in (folder / "objects/configmaps.yaml").read_text()
    assert "Ready" in (folder / "nodes.txt").read_text()
    assert (folder / "events.txt").exists()
