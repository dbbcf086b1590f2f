"""A VirtualDirectory on a real Kubernetes: two S3 servers and a volume, files by REST, stores and Pods that end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.demo import port_forward
from tests.testbed.kubectl import TestCluster
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, S3Server, s3

from cloudmesh.data.client import Vdir
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Transient

pytestmark = pytest.mark.e2e

API = "cloudmesh.org/v1alpha1"
Obj = dict[str, Any]


class Files:
    """Directories of one namespace, on the stores `east`, `west` (S3) and `volume`."""

    def __init__(self, cluster: TestCluster, namespace: str, servers: dict[str, S3Server]) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self.servers = servers

    def kubectl(self, *arguments: str, **more: Any) -> str:
        return self.cluster.kubectl("-n", self.namespace, *arguments, **more)

    def get(self, kind: str, name: str) -> Obj:
        return self.cluster.get("-n", self.namespace, kind, name)

    def apply(self, kind: str, name: str, spec: Obj) -> None:
        body = {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}
        self.cluster.apply(body, namespace=self.namespace)

    def make_stores(self) -> None:
        for name, server in self.servers.items():
            secret = {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "cloudmesh.org/credentials",
                "stringData": {
                    "aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "hosts": server.host,
                },
            }  # fmt: skip
            self.cluster.apply(secret, namespace=self.namespace)
            s3_spec = {"endpoint": server.url, "bucket": "lab", "region": "us-east-1"}
            self.apply("DataStore", name, {"s3": s3_spec, "credentials": {"secretRef": {"name": name}}})
        claim = {
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "volume"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }  # fmt: skip
        self.cluster.apply(claim, namespace=self.namespace)
        self.apply("DataStore", "volume", {"local": {"persistentVolumeClaimRef": {"name": "volume"}}})

    def ready(self, name: str, seconds: int = 120) -> Obj:
        wait = ("wait", "--for=condition=Ready", f"virtualdirectory/{name}", f"--timeout={seconds}s")
        self.kubectl(*wait, timeout=seconds + 30)
        return self.get("virtualdirectory", name)

    def until(self, holds: Callable[[], Any], seconds: float = 60) -> Any:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(CloudmeshError):
                if found := holds():
                    return found
            if time.monotonic() > end:
                told = [self.get("virtualdirectory", d["metadata"]["name"]).get("status") for d in self._directories()]
                raise AssertionError(f"{holds} didn't hold within {seconds} s: {told}")
            time.sleep(0.3)

    def _directories(self) -> list[Obj]:
        return list(self.cluster.get("-n", self.namespace, "virtualdirectories")["items"])

    def token(self, name: str, role: str) -> str:
        """Token of a new ServiceAccount with a role of the built-in ones; none with an empty role."""
        self.kubectl("create", "serviceaccount", name)
        if role:
            account = f"--serviceaccount={self.namespace}:{name}"
            self.kubectl("create", "rolebinding", name, f"--clusterrole={role}", account)
        return self.kubectl("create", "token", name).strip()

    @contextlib.contextmanager
    def open(self, name: str, token: str) -> Iterator[Vdir]:
        with port_forward(self.cluster.info, self.namespace, f"service/{name}-vdir") as url:
            vdir = Vdir(name, url=url, token=token)
            try:
                yield vdir
            finally:
                vdir.close()


@pytest.fixture(scope="module")
def files(cloudmesh: TestCluster, namespace: str) -> Iterator[Files]:
    host = cloudmesh.info.host_address
    assert host, "Pods must reach servers of this host"
    with s3(host, "lab") as east, s3(host, "lab") as west:
        made = Files(cloudmesh, namespace, {"east": east, "west": west})
        made.make_stores()
        yield made


@pytest.fixture(scope="module")
def writer(files: Files) -> str:
    return files.token("writer", "edit")


@pytest.fixture(scope="module")
def lab(files: Files) -> str:
    """A directory over all three stores, each file in two of them."""
    stores = [{"name": "east"}, {"name": "west"}, {"name": "volume"}]
    rule = {"name": "default", "copies": 2, "prefer": "Sequential"}
    files.apply("VirtualDirectory", "lab", {"stores": stores, "placement": {"rules": [rule]}})
    files.ready("lab")
    return "lab"


def test_files_are_plain_objects_in_the_stores(files: Files, lab: str, writer: str) -> None:
    content = b"run,value\n1,2\n" * 1000
    with files.open(lab, writer) as vdir:
        told = vdir.write("results/run-1.csv", content, content_type="text/csv")
        assert told["size"] == len(content)
        assert vdir.read("results/run-1.csv") == content
        copies = vdir.where("results/run-1.csv")["copies"]
        assert {c["store"] for c in copies} == {"east", "west"}
        assert [e["name"] for e in vdir.list("results")] == ["run-1.csv"]
    for copy in copies:
        assert files.servers[copy["store"]].file("lab", copy["key"]).read_bytes() == content
    assert copies[0]["key"] == f"{files.namespace}/{lab}/results/run-1.csv"
    status = files.get("virtualdirectory", lab)["status"]
    assert status["url"] == f"http://{lab}-vdir.{files.namespace}.svc"
    assert {s["name"]: s["state"] for s in status["stores"]} == dict.fromkeys(("east", "west", "volume"), "Up")


def test_who_may_not_read_is_let_in_nowhere(files: Files, lab: str, writer: str) -> None:
    reader, nobody = files.token("reader", "view"), files.token("nobody", "")
    with files.open(lab, writer) as vdir:
        vdir.write("guarded", b"x")
        url = vdir.url
        assert Vdir(lab, url=url, token=reader).read("guarded") == b"x"
        with pytest.raises(AuthFailed, match="may not change"):
            Vdir(lab, url=url, token=reader).write("guarded", b"y")
        with pytest.raises(AuthFailed, match="may not read"):
            Vdir(lab, url=url, token=nobody).read("guarded")
        with pytest.raises(AuthFailed):
            Vdir(lab, url=url, token="not-a-token").read("guarded")
        assert vdir.read("guarded") == b"x"


def test_a_store_that_is_down_hides_nothing_and_its_copies_come_back(files: Files, lab: str, writer: str) -> None:
    with files.open(lab, writer) as vdir:
        vdir.write("before", b"b" * 100_000)
        files.servers["east"].stop()
        try:
            assert vdir.read("before") == b"b" * 100_000
            during = vdir.write("during", b"d" * 100_000)
            assert during["size"] == 100_000

            def is_mended(path: str) -> bool:
                copies = vdir.where(path)["copies"]
                return {c["store"] for c in copies if c["state"] == "Whole" and c["up"]} == {"west", "volume"}

            files.until(lambda: is_mended("during"), 30)
            files.until(lambda: is_mended("before"), 120)
            vdir.delete("before")
        finally:
            files.servers["east"].start()

        def is_as_asked() -> bool:
            copies = vdir.where("during")["copies"]
            return {c["store"]: c["state"] for c in copies} == {"east": "Whole", "west": "Whole"}

        files.until(is_as_asked, 90)
        assert not vdir.exists("before")
    files.ready(lab)


def test_a_gateway_that_is_killed_has_lost_nothing(files: Files, lab: str, writer: str) -> None:
    with files.open(lab, writer) as vdir:
        for number in range(20):
            vdir.write(f"kept/{number}", f"{number}".encode() * 1000)
        vdir.move("kept", "moved")
    selector = f"cloudmesh.org/owner-kind=VirtualDirectory,cloudmesh.org/owner-name={lab}"
    files.kubectl("delete", "pod", "-l", selector, "--grace-period=0", "--force", "--wait=true", timeout=120)
    files.kubectl("rollout", "status", f"deployment/{lab}-vdir", "--timeout=90s", timeout=120)
    with files.open(lab, writer) as vdir:
        found = {e["name"] for e in files.until(lambda: list(vdir.list("moved")))}
        assert found == {str(n) for n in range(20)}
        for number in range(20):
            assert vdir.read(f"moved/{number}") == f"{number}".encode() * 1000
        assert not vdir.exists("kept")


def test_a_new_key_of_a_store_is_taken_up_without_a_restart(files: Files, lab: str, writer: str) -> None:
    pods = files.kubectl("get", "pods", "-o", "name")
    files.kubectl("patch", "secret", "east", "-p", '{"stringData": {"aws_secret_access_key": "wrong"}}')

    def state() -> str:
        with files.open(lab, writer) as vdir:
            return str({s["name"]: s["state"] for s in vdir.usage()["stores"]}["east"])

    files.until(lambda: state() == "Unknown", 120)
    files.kubectl("patch", "secret", "east", "-p", f'{{"stringData": {{"aws_secret_access_key": "{SECRET_KEY}"}}}}')
    files.until(lambda: state() == "Up", 120)
    assert files.kubectl("get", "pods", "-o", "name") == pods


def test_a_directory_that_is_deleted_leaves_its_files_and_can_be_made_again(files: Files, writer: str) -> None:
    spec = {"stores": [{"name": "west", "prefix": "again/"}], "deletionPolicy": "Retain"}
    files.apply("VirtualDirectory", "again", spec)
    files.ready("again")
    with files.open("again", writer) as vdir:
        vdir.write("a/b.txt", b"stays", tags={"of": "mine"})
        vdir.move("a", "c")
    files.kubectl("delete", "virtualdirectory", "again", "--timeout=90s", timeout=120)
    assert files.servers["west"].file("lab", "again/a/b.txt").read_bytes() == b"stays"
    files.kubectl("get", "pvc", "volume")
    files.until(lambda: "again-vdir" not in files.kubectl("get", "deployments,services,pvc,secrets", "-o", "name"))
    files.apply("VirtualDirectory", "again", spec)
    files.ready("again")
    with files.open("again", writer) as vdir:
        files.until(lambda: vdir.exists("c/b.txt"))
        assert vdir.read("c/b.txt") == b"stays"
        assert vdir.stat("c/b.txt")["tags"] == {"of": "mine"}
        with pytest.raises((CloudmeshError, Transient)):
            vdir.read("a/b.txt")
