"""A VirtualDirectory on a real Kubernetes: over S3, Swift, SFTP and a volume; stores and Pods end, jobs use it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.demo import port_forward
from tests.e2e.lab import Lab
from tests.testbed import azurite, davserver
from tests.testbed.kubectl import TestCluster
from tests.testbed.mesh import API, STORES, Mesh, Obj, datastore, mesh, secret
from tests.testbed.s3server import SECRET_KEY

from cloudmesh.data.client import Vdir
from cloudmesh.engine.errors import AuthFailed, CloudmeshError, Transient
from cloudmesh.testing.stores.azure import AzureHarness

pytestmark = pytest.mark.e2e

PREFERRED = STORES[:3]
"""Where files lie while all stores are up."""


class Files:
    """Directories of one namespace, on the stores of `mesh`."""

    def __init__(self, cluster: TestCluster, namespace: str, servers: Mesh) -> None:
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
                told = [directory.get("status") for directory in self.get_all("virtualdirectories")]
                raise AssertionError(f"{holds} didn't hold within {seconds} s: {told}")
            time.sleep(0.3)

    def get_all(self, kind: str) -> list[Obj]:
        return list(self.cluster.get("-n", self.namespace, kind)["items"])

    def pods(self, directory: str) -> list[str]:
        """The gateway's, as `pod/NAME`."""
        selector = f"cloudmesh.org/owner-kind=VirtualDirectory,cloudmesh.org/owner-name={directory}"
        return sorted(self.kubectl("get", "pods", "-l", selector, "-o", "name").split())

    def token(self, name: str, role: str) -> str:
        """Token of a new ServiceAccount with a role of the built-in ones; none with an empty role."""
        self.kubectl("create", "serviceaccount", name)
        if role:
            account = f"--serviceaccount={self.namespace}:{name}"
            self.kubectl("create", "rolebinding", name, f"--clusterrole={role}", account)
            # the API server takes the binding up a moment after it was made
            who = f"--as=system:serviceaccount:{self.namespace}:{name}"
            ask = ("auth", "can-i", "get", "virtualdirectories.cloudmesh.org", "--subresource=files", who)
            self.until(lambda: self.kubectl(*ask, check=False).strip() == "yes")
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
    with mesh(host) as servers:
        cloudmesh.apply(*servers.objects(), namespace=namespace)
        yield Files(cloudmesh, namespace, servers)


@pytest.fixture(scope="module")
def machine(files: Files) -> Lab:
    """A cluster of one machine, asked for beside the directory."""
    lab = Lab(files.cluster, files.namespace)
    lab.make_cluster("one", 1)
    return lab


@pytest.fixture(scope="module")
def writer(files: Files) -> str:
    return files.token("writer", "edit")


@pytest.fixture(scope="module")
def lab(files: Files, machine: Lab) -> str:
    """A directory over all four stores, each file in three of them."""
    stores = [{"name": name} for name in STORES]
    rule = {"name": "default", "copies": 3, "prefer": "Sequential"}
    files.apply("VirtualDirectory", "lab", {"stores": stores, "placement": {"rules": [rule]}})
    files.ready("lab")
    return "lab"


def test_files_are_plain_objects_in_the_stores(files: Files, lab: str, writer: str) -> None:
    content = b"run,value\n1,2\n" * 1000
    with files.open(lab, writer) as vdir:
        told = vdir.write("results/run-1.csv", content, content_type="text/csv")
        assert told["size"] == len(content)
        assert vdir.read("results/run-1.csv") == content
        # copies in the SFTP server don't count toward `minCopies`, so that one may come after the answer
        copies = files.until(lambda: len(found := vdir.where("results/run-1.csv")["copies"]) == 3 and found)
        assert {c["store"] for c in copies} == set(PREFERRED)
        assert [e["name"] for e in vdir.list("results")] == ["run-1.csv"]
    for copy in copies:
        assert copy["key"] == f"{files.namespace}/{lab}/results/run-1.csv"
        assert files.servers.content(copy["store"], copy["key"]) == content
    status = files.get("virtualdirectory", lab)["status"]
    assert status["url"] == f"http://{lab}-vdir.{files.namespace}.svc"
    assert {s["name"]: s["state"] for s in status["stores"]} == dict.fromkeys(STORES, "Up")
    files.kubectl("wait", "--for=condition=Ready", *(f"datastore/{name}" for name in STORES), "--timeout=30s")
    kinds = {s["metadata"]["name"]: s["status"]["kind"] for s in files.get_all("datastores")}
    assert kinds == {"s3": "s3", "swift": "swift", "sftp": "sftp", "volume": "local"}


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


def test_a_job_finds_files_of_the_directory_and_leaves_its_own_there(
    files: Files, machine: Lab, lab: str, writer: str
) -> None:
    machine.ready("one")
    with files.open(lab, writer) as vdir:
        vdir.write("raw/1.csv", b"1\n2\n3\n")
        vdir.write("raw/more/2.csv", b"4\n")
        machine.run(
            "count", "one", ["sh", "-c", "cat 1.csv more/2.csv | wc -l >counts.txt; seq 100000 >large.txt"],
            files={"directory": {"name": lab, "path": "raw"}},
            outputs={"paths": ["*.txt"], "directoryRef": {"name": lab}, "path": "results"},
        )  # fmt: skip
        (run,) = machine.ended("count")["runs"]
        assert run["state"] == "Done", run
        assert vdir.read(f"{run['outputPath'].strip('/')}/counts.txt") == b"4\n"
        large = "".join(f"{n}\n" for n in range(1, 100_001)).encode()
        assert vdir.read(f"{run['outputPath'].strip('/')}/large.txt") == large
    machine.kubectl("delete", "virtualcluster", "one", "--wait=false")


def test_a_store_that_is_down_hides_nothing_and_its_copies_come_back(files: Files, lab: str, writer: str) -> None:
    with files.open(lab, writer) as vdir:
        vdir.write("before", b"b" * 100_000)
        files.servers.stop("s3")
        try:
            assert vdir.read("before") == b"b" * 100_000
            # whoever writes first is told to try again: the store's silence shows in the middle of a write
            during = files.until(lambda: vdir.write("during", b"d" * 100_000), 30)
            assert during["size"] == 100_000

            def is_mended(path: str) -> bool:
                copies = vdir.where(path)["copies"]
                return {c["store"] for c in copies if c["state"] == "Whole" and c["up"]} == set(STORES) - {"s3"}

            files.until(lambda: is_mended("during"), 30)
            files.until(lambda: is_mended("before"), 120)
            vdir.delete("before")
        finally:
            files.servers.start("s3")

        def is_as_asked() -> bool:
            copies = vdir.where("during")["copies"]
            return {c["store"]: c["state"] for c in copies} == dict.fromkeys(PREFERRED, "Whole")

        files.until(is_as_asked, 90)
        assert not vdir.exists("before")
    files.ready(lab)


def test_a_gateway_that_is_killed_has_lost_nothing(files: Files, lab: str, writer: str) -> None:
    with files.open(lab, writer) as vdir:
        for number in range(20):
            vdir.write(f"kept/{number}", f"{number}".encode() * 1000)
        vdir.move("kept", "moved")
    before = files.pods(lab)
    files.kubectl("delete", *before, "--grace-period=0", "--force", "--wait=true", timeout=120)
    files.until(lambda: (pods := files.pods(lab)) and not set(pods) & set(before))
    files.kubectl("rollout", "status", f"deployment/{lab}-vdir", "--timeout=90s", timeout=120)
    with files.open(lab, writer) as vdir:
        found = {e["name"] for e in files.until(lambda: list(vdir.list("moved")))}
        assert found == {str(n) for n in range(20)}
        for number in range(20):
            assert vdir.read(f"moved/{number}") == f"{number}".encode() * 1000
        assert not vdir.exists("kept")


def test_a_new_key_of_a_store_is_taken_up_without_a_restart(files: Files, lab: str, writer: str) -> None:
    pods = files.pods(lab)
    files.kubectl("patch", "secret", "s3", "-p", '{"stringData": {"aws_secret_access_key": "wrong"}}')

    def state() -> str:
        with files.open(lab, writer) as vdir:
            return str({s["name"]: s["state"] for s in vdir.usage()["stores"]}["s3"])

    files.until(lambda: state() == "Unknown", 120)
    files.kubectl("patch", "secret", "s3", "-p", f'{{"stringData": {{"aws_secret_access_key": "{SECRET_KEY}"}}}}')
    files.until(lambda: state() == "Up", 120)
    assert files.pods(lab) == pods


def test_a_directory_that_is_deleted_leaves_its_files_and_can_be_made_again(files: Files, writer: str) -> None:
    rule = {"name": "default", "copies": 1, "weakCopies": "Count"}
    stores = [{"name": "swift", "prefix": "again/"}]
    spec = {"stores": stores, "placement": {"rules": [rule]}, "deletionPolicy": "Retain"}
    files.apply("VirtualDirectory", "again", spec)
    files.ready("again")
    with files.open("again", writer) as vdir:
        vdir.write("a/b.txt", b"stays", tags={"of": "mine"})
        vdir.move("a", "c")
    files.kubectl("delete", "virtualdirectory", "again", "--timeout=90s", timeout=120)
    assert files.servers.content("swift", "again/a/b.txt") == b"stays"
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


def test_stores_of_azure_and_webdav_are_known_too(files: Files) -> None:
    host = files.servers.s3.host
    with azurite.azurite(host) as blobs, davserver.dav(host) as dav:
        AzureHarness(blobs.url, azurite.ACCOUNT, azurite.KEY).send("PUT", "lab?restype=container")
        place = {"account": azurite.ACCOUNT, "container": "lab", "endpoint": blobs.url}
        files.cluster.apply(
            secret("blobs", {"azure_storage_key": azurite.KEY, "hosts": host}),
            secret("dav", {"username": davserver.USER, "password": davserver.PASSWORD, "hosts": host}),
            datastore("blobs", {"azureBlob": place}, "blobs"),
            datastore("dav", {"webdav": {"endpoint": dav.url}}, "dav"),
            namespace=files.namespace,
        )
        files.kubectl("wait", "--for=condition=Ready", "datastore/blobs", "datastore/dav", "--timeout=30s")
        files.kubectl("delete", "datastore", "blobs", "dav", "--timeout=30s")
