"""What kills and outages leave of a function: nothing that anyone has to mend."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests import install
from tests.e2e.functions import Functions

pytestmark = [pytest.mark.e2e, pytest.mark.alone]

SOURCE = "def version() -> int:\n    return {number}\n"


@pytest.fixture
def system(functions: Functions) -> Iterator[Functions]:
    """The operator's own namespace; whatever a test stops there runs again after it."""
    found = Functions(functions.cluster, install.NAMESPACE)
    yield found
    for name in ("cloudmesh-registry", "cloudmesh-builder"):
        found.kubectl("scale", f"deployment/{name}", "--replicas=1")
    found.kubectl("scale", "deployment/cloudmesh-operator", "--replicas=2")
    for name in ("cloudmesh-registry", "cloudmesh-builder", "cloudmesh-operator"):
        found.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s", timeout=130)


def kill_pods(system: Functions, component: str) -> None:
    system.kubectl(
        "delete",
        "pods",
        "-l",
        f"app.kubernetes.io/component={component}",
        "--grace-period=0",
        "--force",
        "--wait=false",
    )


def stop(system: Functions, name: str) -> None:
    system.kubectl("scale", f"deployment/{name}", "--replicas=0")
    component = name.removeprefix("cloudmesh-")
    system.until(
        lambda: (
            not system.kubectl("get", "pods", "-l", f"app.kubernetes.io/component={component}", "-o", "name").strip()
        ),
        f"{name} has no Pods",
    )


def start(system: Functions, name: str, replicas: int = 1) -> None:
    system.kubectl("scale", f"deployment/{name}", f"--replicas={replicas}")


def test_the_builder_is_away(functions: Functions, system: Functions) -> None:
    stop(system, "cloudmesh-builder")
    functions.apply("no-builder", SOURCE.format(number=1))
    found = functions.wait("no-builder", "BuilderUnavailable", seconds=30)
    ready = next(c for c in found["status"]["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "Unknown"
    start(system, "cloudmesh-builder")
    functions.wait("no-builder", seconds=120)
    assert functions.call("no-builder", "/cloudmesh/version").json == 1


def test_the_registry_is_away(functions: Functions, system: Functions) -> None:
    functions.apply("runs-on", SOURCE.format(number=1))
    functions.wait("runs-on")
    stop(system, "cloudmesh-registry")
    functions.apply("no-registry", SOURCE.format(number=1))
    functions.wait("no-registry", "RegistryUnavailable", seconds=60)
    assert functions.call("runs-on", "/cloudmesh/version").json == 1
    start(system, "cloudmesh-registry")
    functions.wait("no-registry", seconds=150)
    assert functions.call("no-registry", "/cloudmesh/version").json == 1


@pytest.mark.parametrize("component", ["operator", "builder"])
@pytest.mark.parametrize("moment", [0.0, 0.15, 0.4])
def test_a_kill_at_any_moment_of_a_build(
    functions: Functions, system: Functions, component: str, moment: float
) -> None:
    name = f"kill-{component}-{int(moment * 100)}"
    functions.apply(name, SOURCE.format(number=3) + f"# {time.time()}\n")
    time.sleep(moment)
    kill_pods(system, component)
    functions.wait(name, seconds=120)
    assert functions.call(name, "/cloudmesh/version").json == 3
    revisions = functions.kubectl("get", "controllerrevisions", "-l", f"cloudmesh.org/owner-name={name}", "-o", "name")
    assert len(revisions.split()) == 1


def test_a_lost_image_comes_back(functions: Functions, system: Functions) -> None:
    """The registry's volume is emptied and the node's copy removed: a new Pod must still come up."""
    if functions.cluster.info.kind != "own":
        pytest.fail("this test removes an image from the node, which it can do on the test bed only: run it there")
    from tests.testbed import clusters

    functions.apply("lost", SOURCE.format(number=4))
    image = functions.wait("lost")["status"]["image"]
    pod = system.kubectl(
        "get", "pods", "-l", "app.kubernetes.io/component=registry", "-o", "jsonpath={.items[0].metadata.name}"
    )
    claim = json.loads(system.kubectl("get", "pod", pod, "-o", "json"))["spec"]["volumes"]
    functions.kubectl("scale", "functionservices.cloudmesh.org/lost", "--replicas=0")
    functions.until(
        lambda: not functions.kubectl("get", "pods", "-l", "cloudmesh.org/function=lost", "-o", "name"), "no Pods"
    )
    bed = clusters.own()
    volume = next(v["persistentVolumeClaim"]["claimName"] for v in claim if "persistentVolumeClaim" in v)
    bound = system.kubectl("get", "pvc", volume, "-o", "jsonpath={.spec.volumeName}")
    path = system.cluster.kubectl("get", "pv", bound, "-o", "jsonpath={.spec.local.path}")
    stop(system, "cloudmesh-registry")
    system.cluster.run(*bed.enter(["rm", "-rf", f"{path}/docker"]))
    system.cluster.run(*bed.enter(["ctr", "-n", "k8s.io", "images", "rm", image]))
    start(system, "cloudmesh-registry")
    system.kubectl("rollout", "status", "deployment/cloudmesh-registry", "--timeout=60s", timeout=70)
    functions.kubectl("scale", "functionservices.cloudmesh.org/lost", "--replicas=1")
    functions.until(lambda: functions.get("lost")["status"].get("replicas") == 1, "a Pod", 30, "lost")
    functions.wait("lost", seconds=150)
    assert functions.call("lost", "/cloudmesh/version").json == 4
    assert functions.get("lost")["status"]["image"] == image


class Load:
    """Calls a URL in a loop on some threads, and keeps what was wrong."""

    def __init__(self, url: str, threads: int = 4) -> None:
        self.url = url
        self.calls = 0
        self.wrong: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(30)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                with urllib.request.urlopen(self.url, timeout=10) as answer:
                    answer.read()
            except urllib.error.HTTPError as error:
                self.wrong.append(f"status {error.code}")
            except OSError as error:
                self.wrong.append(repr(error))
            self.calls += 1
            time.sleep(0.01)


def test_no_call_fails_while_an_edit_rolls_out(functions: Functions) -> None:
    functions.apply("loaded", SOURCE.format(number=1), replicas=2)
    functions.wait("loaded")
    with Load(f"http://{functions.address('loaded')}/cloudmesh/version") as load:
        for number in (2, 3):
            functions.apply("loaded", SOURCE.format(number=number), replicas=2)
            functions.wait("loaded")
        time.sleep(3)
    assert load.calls > 100
    assert load.wrong == []
    assert functions.call("loaded", "/cloudmesh/version").json == 3
