"""The part of `make demo` about files: two S3 servers and a volume become one directory; one of the servers ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cloudmesh.data.client import Vdir
from cloudmesh.engine.errors import CloudmeshError
from tests import install
from tests.testbed.clusters import Cluster
from tests.testbed.s3server import ACCESS_KEY, SECRET_KEY, S3Server, s3

NAME = "lab"
PATH = "results/run-1.csv"
CONTENT = b"run,value\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(1000))
ACCOUNT = "demo-files"
Say = Callable[[str], None]


def manifests(servers: dict[str, S3Server]) -> list[dict[str, Any]]:
    """Secrets, stores, and the directory over them."""
    api, made = "cloudmesh.org/v1alpha1", []
    for name, server in servers.items():
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY, "hosts": server.host}
        made.append(
            {
                "apiVersion": "v1", "kind": "Secret", "type": "cloudmesh.org/credentials", "metadata": {"name": name},
                "stringData": keys,
            }
        )  # fmt: skip
        spec = {"s3": {"endpoint": server.url, "bucket": "lab"}, "credentials": {"secretRef": {"name": name}}}
        made.append({"apiVersion": api, "kind": "DataStore", "metadata": {"name": name}, "spec": spec})
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    made.append(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "files"}, "spec": claim}
    )  # fmt: skip
    spec = {"local": {"persistentVolumeClaimRef": {"name": "files"}}}
    made.append({"apiVersion": api, "kind": "DataStore", "metadata": {"name": "volume"}, "spec": spec})
    rule = {"name": "default", "copies": 2, "prefer": "Sequential"}
    stores = [{"name": name} for name in (*servers, "volume")]
    spec = {"stores": stores, "placement": {"rules": [rule]}}
    made.append({"apiVersion": api, "kind": "VirtualDirectory", "metadata": {"name": NAME}, "spec": spec})
    return made


@contextmanager
def _token(cluster: Cluster, namespace: str) -> Iterator[str]:
    """A token of somebody who may change the namespace's files."""

    def kubectl(*arguments: str, stdin: str | None = None) -> str:
        return install.run(cluster, "kubectl", "-n", namespace, *arguments, stdin=stdin)

    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}}
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
    }  # fmt: skip
    for body in (account, binding):
        kubectl("apply", "-f", "-", stdin=json.dumps(body))
    yield kubectl("create", "token", ACCOUNT).strip()


def where(vdir: Vdir) -> list[str]:
    """Where the copies of the file are, a line each."""
    lines = []
    for copy in vdir.where(PATH)["copies"]:
        cost = copy.get("monthly")
        price = f"{cost['amount']} {cost['currency']}/month" if cost else "price unknown"
        state = "up" if copy["up"] else "DOWN"
        lines.append(f"{copy['store']:<8} {copy['state']:<6} {state:<5} {price:<14} {copy['key']}")
    return lines


def show(cluster: Cluster, namespace: str, say: Say, port_forward: Callable[..., Any]) -> None:
    """Makes the directory, writes a file, stops a store that holds it, and reads it back."""
    if not cluster.host_address:
        say("\n(no directory shown: Pods of this cluster can't reach servers of this machine)")
        return

    def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 300) -> None:
        say(f"\n$ kubectl {' '.join(arguments)}")
        told = install.run(cluster, "kubectl", "-n", namespace, *arguments, stdin=stdin, seconds=seconds)
        say(told.rstrip())

    with s3(cluster.host_address, "lab") as east, s3(cluster.host_address, "lab") as west:
        servers = {"east": east, "west": west}
        documents = {"apiVersion": "v1", "kind": "List", "items": manifests(servers)}
        install.run(
            cluster, "kubectl", "-n", namespace, "delete", "virtualdirectory,datastore", "--all", "--timeout=60s"
        )
        applied = time.monotonic()
        kubectl("apply", "-f", "-", stdin=json.dumps(documents))
        kubectl("wait", "--for=condition=Ready", f"vdir/{NAME}", "--timeout=180s")
        say(f"one directory over two S3 servers and a volume, ready in {time.monotonic() - applied:.1f} s")
        with _token(cluster, namespace) as token, port_forward(cluster, namespace, f"service/{NAME}-vdir") as url:
            vdir = Vdir(NAME, url=url, token=token)
            vdir.write(PATH, CONTENT, content_type="text/csv")
            say(f"\nvdir.write({PATH!r}, …) of {len(CONTENT)} bytes, in two stores when the answer came:")
            say("\n".join(where(vdir)))
            east.stop()
            say(f"\nstore `east` is stopped; vdir.read({PATH!r}):")
            content = vdir.read(PATH)
            if content != CONTENT:
                raise install.InstallError(f"the file was read with {len(content)} other bytes")
            say(content[:28].decode() + f"… {len(content)} bytes, the same")
            _mended(vdir, "east", say)
            vdir.close()
        kubectl("get", "vdir,cmds")
        install.run(
            cluster, "kubectl", "-n", namespace, "delete", "virtualdirectory,datastore", "--all", "--timeout=60s"
        )


def _mended(vdir: Vdir, lost: str, say: Say, seconds: float = 120) -> None:
    """Waits until the copy in the store that is lost is replaced."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            copies = vdir.where(PATH)["copies"]
        except CloudmeshError:
            continue
        whole = {c["store"] for c in copies if c["up"] and c["state"] == "Whole"}
        if len(whole) == 2 and lost not in whole:
            say(f"\nwithout anybody's doing, {time.monotonic() - began:.0f} s later:")
            say("\n".join(where(vdir)))
            return
        time.sleep(0.5)
    raise install.InstallError("the copy was not replaced")
