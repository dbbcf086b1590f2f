"""`make demo`: a real Kubernetes, the chart, a function that answers, a cluster that computes, files that are kept."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tests import demo_directory, install
from tests.testbed import clusters
from tests.testbed.clusters import Cluster
from tests.testbed.console import TestbedError

EXAMPLE = "manifests/examples/functions/processor-name.yaml"
NAME = "processor-name"
CLUSTER_EXAMPLE = "manifests/examples/clusters/slurm.yaml"
CLUSTER, JOB = "hpc", "sweep"
NAMESPACE = "demo"
PATH = "/cloudmesh/get_processor_name"


def say(text: str) -> None:
    print(text, flush=True)


def show(command: str) -> None:
    say(f"\n$ {command}")


@contextlib.contextmanager
def port_forward(cluster: Cluster, namespace: str, target: str, port: int = 80) -> Iterator[str]:
    """`kubectl port-forward` to a free port of the loopback; gives the base URL."""
    command = ["kubectl", "port-forward", "-n", namespace, target, f":{port}", "--address", "127.0.0.1"]
    process = subprocess.Popen(
        command, env=cluster.environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    # Its further lines, one a connection, must go somewhere.
    rest = threading.Thread(target=process.stdout.read, daemon=True)
    try:
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        if match is None:
            raise install.InstallError(f"{' '.join(command)}: {line}{process.stdout.read()}")
        rest.start()
        yield f"http://127.0.0.1:{match[1]}"
    finally:
        process.terminate()
        process.wait(10)
        if rest.ident is not None:
            rest.join(10)
        process.stdout.close()


def fetch(url: str, *, seconds: float = 30) -> tuple[int, str]:
    """One GET; gives status and body. Errors of the connection are tried again for a few seconds."""
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def main() -> int:
    began = time.monotonic()
    images = subprocess.Popen([sys.executable, "-m", "images", "build"], cwd=install.ROOT, stdout=subprocess.DEVNULL)
    try:
        cluster = clusters.up()
        if images.wait() != 0:
            raise install.InstallError("the images could not be built, see above")
        say("installing the chart with Helm …")
        install.install(cluster)
        install.run(cluster, "kubectl", "create", "namespace", NAMESPACE) if not _has_namespace(cluster) else None
        show(f"kubectl apply -f {EXAMPLE}")
        applied = time.monotonic()
        say(install.run(cluster, "kubectl", "apply", "-n", NAMESPACE, "-f", EXAMPLE).strip())
        show(f"kubectl wait --for=condition=Ready fsvc/{NAME}")
        wait = ("kubectl", "wait", "-n", NAMESPACE, "--for=condition=Ready", f"fsvc/{NAME}", "--timeout=180s")
        say(install.run(cluster, *wait).strip())
        seconds = time.monotonic() - applied
        show("kubectl get fsvc")
        say(install.run(cluster, "kubectl", "get", "-n", NAMESPACE, "fsvc").rstrip())
        with port_forward(cluster, NAMESPACE, f"service/{NAME}") as base:
            show(f"curl -X GET {base}{PATH}")
            status, body = fetch(base + PATH)
            say(body.strip())
        machines(cluster)
        demo_directory.show(cluster, NAMESPACE, say, port_forward)
    except (TestbedError, install.InstallError) as error:
        print(f"\ndemo: {error}", file=sys.stderr)
        return 1
    finally:
        if images.poll() is None:
            images.terminate()
    if status != 200:
        print(f"\ndemo: the function answered {status}", file=sys.stderr)
        return 1
    say(f"\napplied and ready in {seconds:.1f} s; the demo took {time.monotonic() - began:.0f} s.")
    say(f"Go on with it: . .testbed/env; kubectl -n {NAMESPACE} get cloudmesh      End it: make down")
    return 0


def machines(cluster: Cluster) -> None:
    """A SLURM cluster of Pod machines and a job that ran on it, with its machines and what they cost."""

    def kubectl(*arguments: str, seconds: float = 300) -> str:
        show(f"kubectl {' '.join(arguments)}")
        said = install.run(cluster, "kubectl", arguments[0], "-n", NAMESPACE, *arguments[1:], seconds=seconds).rstrip()
        say(said)
        return said

    applied = time.monotonic()
    kubectl("apply", "-f", CLUSTER_EXAMPLE)
    kubectl("wait", "--for=condition=Ready", f"vc/{CLUSTER}", "--timeout=240s")
    ready = time.monotonic() - applied
    kubectl("wait", "--for=condition=Ready", f"cmjob/{JOB}", "--timeout=240s")
    runs = '{range .status.runs[*]}{.name}{"\\t"}{.state}{"\\t"}{.node}{"\\n"}{end}'
    told = kubectl("get", "cmjob", JOB, "-o", f"jsonpath={runs}")
    if not told or any("\tDone\t" not in line for line in told.splitlines()):
        raise install.InstallError(f"the job {JOB} isn't done everywhere:\n{told}")
    kubectl("get", "vc", CLUSTER)
    kubectl("get", "cmvm")
    say(f"\nthe cluster was ready in {ready:.1f} s, its job done after {time.monotonic() - applied:.1f} s")


def _has_namespace(cluster: Cluster) -> bool:
    return bool(
        install.run(cluster, "kubectl", "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name").strip()
    )


if __name__ == "__main__":
    try:
        code = main()
    except KeyboardInterrupt:
        print("\ndemo: stopped; `make demo` goes on from here, `make down` ends what runs", file=sys.stderr)
        code = 130
    raise SystemExit(code)
