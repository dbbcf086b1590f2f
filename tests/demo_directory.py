"""The part of `make demo` about files: S3, Swift, SFTP and a volume become one directory; one of the servers ends."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from cloudmesh.data.client import Vdir
from cloudmesh.engine.errors import CloudmeshError
from tests import install
from tests.testbed.clusters import Cluster
from tests.testbed.mesh import API, STORES, Mesh, Obj, mesh

NAME = "lab"
PATH = "results/run-1.csv"
CONTENT = (b"run,value\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(1000)) * 4000)[: 32 << 20]
PRICES = {"s3": ("0.023", "0.05"), "swift": ("0.016", "0"), "sftp": ("0.004", "0"), "volume": ("0.1", "0")}
"""USD: a GiB for a month, and a GiB that is read and leaves the place."""
LOST = "swift"
"""The store that is stopped: one of the two cheapest."""
ACCOUNT = "demo-files"
Say = Callable[[str], None]


def manifests(servers: Mesh) -> list[Obj]:
    """Prices, Secrets, stores, and the directory over them."""
    items = [
        {"match": {"store": store}, "storagePerGibMonth": storage, "egressPerGib": egress}
        for store, (storage, egress) in PRICES.items()
    ]
    rule = {"name": "default", "copies": 2, "prefer": "Cheapest", "weakCopies": "Count"}
    spec = {"stores": [{"name": name} for name in STORES], "placement": {"rules": [rule]}}
    return [
        {"apiVersion": API, "kind": "PriceSheet", "metadata": {"name": "campus"}, "spec": {"stores": items}},
        *servers.objects(priceSheetRef={"name": "campus"}),
        {"apiVersion": API, "kind": "VirtualDirectory", "metadata": {"name": NAME}, "spec": spec},
    ]


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
    """Where the copies of the file are and what each costs, a line each, and what they cost together."""
    lines, sums = [], Decimal(0)
    for copy in vdir.where(PATH)["copies"]:
        sums += Decimal(copy["monthly"]["amount"])
        price = f"{copy['monthly']['amount']} {copy['monthly']['currency']}/month"
        state = "up" if copy["up"] else "DOWN"
        lines.append(f"{copy['store']:<6} {copy['state']:<6} {state:<5} {price:<21} {copy['key']}")
    return [*lines, f"together {sums.normalize():f} USD/month"]


def show(cluster: Cluster, namespace: str, say: Say, port_forward: Callable[..., Any]) -> None:
    """Makes the directory, writes a file, stops a store that holds it, and reads it back."""
    if not cluster.host_address:
        say("\n(no directory shown: Pods of this cluster can't reach servers of this machine)")
        return

    def kubectl(*arguments: str, stdin: str | None = None, seconds: float = 300) -> None:
        say(f"\n$ kubectl {' '.join(arguments)}")
        told = install.run(cluster, "kubectl", "-n", namespace, *arguments, stdin=stdin, seconds=seconds)
        say(told.rstrip())

    with mesh(cluster.host_address) as servers:
        documents = {"apiVersion": "v1", "kind": "List", "items": manifests(servers)}
        _clean(cluster, namespace)
        applied = time.monotonic()
        kubectl("apply", "-f", "-", stdin=json.dumps(documents))
        kubectl("wait", "--for=condition=Ready", f"vdir/{NAME}", "--timeout=180s")
        say(f"one directory over S3, Swift, SFTP and a volume, ready in {time.monotonic() - applied:.1f} s")
        with _token(cluster, namespace) as token, port_forward(cluster, namespace, f"service/{NAME}-vdir") as url:
            vdir = Vdir(NAME, url=url, token=token)
            wrote = time.monotonic()
            vdir.write(PATH, CONTENT, content_type="text/csv")
            say(f"\nvdir.write({PATH!r}, …) of {len(CONTENT) >> 20} MiB took {time.monotonic() - wrote:.1f} s:")
            _held(vdir, seconds=60)
            say("\n".join(where(vdir)))
            servers.stop(LOST)
            say(f"\n`{LOST}` is stopped; vdir.read({PATH!r}):")
            content = vdir.read(PATH)
            if content != CONTENT:
                raise install.InstallError(f"the file was read with {len(content)} other bytes")
            say(content[:18].decode().replace("\n", " ") + f"… {len(content) >> 20} MiB, the same")
            began = time.monotonic()
            _held(vdir, without=LOST)
            say(f"\nwithout anybody's doing, {time.monotonic() - began:.0f} s later:")
            say("\n".join(where(vdir)))
            vdir.close()
        kubectl("get", "vdir,cmds")
        _clean(cluster, namespace)


def _clean(cluster: Cluster, namespace: str) -> None:
    """Takes the directory and its stores away, so that the demo can be run again."""
    kinds = "virtualdirectory,datastore"
    install.run(cluster, "kubectl", "-n", namespace, "delete", kinds, "--all", "--timeout=60s")


def _held(vdir: Vdir, *, without: str = "", seconds: float = 120) -> None:
    """Waits until two stores that are up hold the file, none of them `without`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            copies = vdir.where(PATH)["copies"]
        except CloudmeshError:
            continue
        whole = {c["store"] for c in copies if c["up"] and c["state"] == "Whole"}
        if len(whole) == 2 and without not in whole:
            return
        time.sleep(0.5)
    raise install.InstallError("two stores that hold the file were waited for in vain")
