"""What a cluster has besides its components: a StorageClass with volumes, and the metrics API.

Runs as threads of the bed's PID 1, with the standard library alone. `Api` serves `up` on the host, too.
"""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STORAGE_CLASS = "testbed"
Obj = dict[str, Any]
Log = Callable[[str], None]


class ApiError(Exception):
    """The API server answered with an error, or something that is no answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """A small client of the API server with the admin's certificate; every call ends within `timeout` seconds."""

    def __init__(self, host: str, pki: Path, timeout: float = 10) -> None:
        self._host = host
        self._timeout = timeout
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def _connect(self, timeout: float) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(self._host, 6443, timeout=timeout, context=self._tls)

    def call(self, method: str, path: str, body: Obj | None = None) -> Obj:
        """Send one request, return the JSON of its answer.

        Raises:
            ApiError: any status but 2xx.
            OSError: no connection, or no answer in time.
        """
        connection = self._connect(self._timeout)
        try:
            content = json.dumps(body) if body is not None else None
            connection.request(method, path, content, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ApiError(0, repr(error)) from error
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            raise ApiError(answer.status, text[:500])
        try:
            document = json.loads(text)
        except ValueError:
            return {"text": text}
        return document if isinstance(document, dict) else {"text": text}

    def create(self, path: str, body: Obj) -> None:
        """Create an object; one that is there already stays as it is."""
        try:
            self.call("POST", path, body)
        except ApiError as error:
            if error.status != 409:
                raise

    def follow(self, path: str) -> Iterator[Obj]:
        """Yield every object of a collection, and then each one that is added or modified, for about 5 minutes."""
        listed = self.call("GET", f"{path}?resourceVersion=0")
        yield from listed.get("items", [])
        version = listed["metadata"]["resourceVersion"]
        connection = self._connect(330)
        try:
            connection.request("GET", f"{path}?watch=1&timeoutSeconds=300&resourceVersion={version}")
            answer = connection.getresponse()
            if answer.status != 200:
                raise ApiError(answer.status, "watch refused")
            while line := answer.readline():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] != "DELETED":
                    yield event["object"]
        except (http.client.HTTPException, ValueError) as error:
            raise ApiError(0, repr(error)) from error
        finally:
            connection.close()


def _storage_class() -> Obj:
    annotation = {"storageclass.kubernetes.io/is-default-class": "true"}
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": annotation},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
        "reclaimPolicy": "Delete",
    }


def _volume(claim: Obj, folder: Path) -> Obj:
    meta, spec = claim["metadata"], claim["spec"]
    term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["bed"]}]}
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    reference |= {"namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{meta['uid']}"},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": STORAGE_CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "claimRef": reference,
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }


def _provide(api: Api, volumes: Path, log: Log) -> None:
    """Make a volume for each claim of the class that waits for one."""
    for claim in api.follow("/api/v1/persistentvolumeclaims"):
        spec = claim["spec"]
        ours = spec.get("storageClassName") == STORAGE_CLASS and not spec.get("volumeName")
        if not ours or claim.get("status", {}).get("phase") != "Pending":
            continue
        folder = volumes / claim["metadata"]["uid"]
        folder.mkdir(mode=0o755, exist_ok=True)  # the kubelet gives it to the Pod's fsGroup
        try:
            api.create("/api/v1/persistentvolumes", _volume(claim, folder))
        except ApiError as error:  # the other claims mustn't wait for this one
            log(f"no volume for claim {claim['metadata']['namespace']}/{claim['metadata']['name']}: {error}")


def _release(api: Api, volumes: Path) -> None:
    """Delete volumes whose claim has gone, with what is in them."""
    for volume in api.follow("/api/v1/persistentvolumes"):
        ours = volume["spec"].get("storageClassName") == STORAGE_CLASS
        if not ours or volume.get("status", {}).get("phase") not in ("Released", "Failed"):
            continue
        name = volume["metadata"]["name"]
        try:
            api.call("DELETE", f"/api/v1/persistentvolumes/{name}")
        except ApiError as error:
            if error.status != 404:
                raise
        shutil.rmtree(volumes / name.removeprefix("pvc-"), ignore_errors=True)


def _metrics(api: Api, node: str) -> None:
    """Point the metrics API to metrics-server, which runs beside the kubelet, as soon as that answers."""
    service = {"ports": [{"name": "https", "port": 443, "targetPort": 4443}]}
    meta = {"name": "metrics-server", "namespace": "kube-system"}
    body: Obj = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service}
    api.create("/api/v1/namespaces/kube-system/services", body)
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "labels": {"kubernetes.io/service-name": "metrics-server"}},
        "addressType": "IPv4",
        "ports": [{"name": "https", "port": 4443}],
        "endpoints": [{"addresses": [node], "conditions": {"ready": True}}],
    }
    api.create("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", body)
    spec = {
        "service": {"name": "metrics-server", "namespace": "kube-system"},
        "group": "metrics.k8s.io",
        "version": "v1beta1",
        "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 100,
        "versionPriority": 100,
    }
    name = "v1beta1.metrics.k8s.io"
    body = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": name},
        "spec": spec,
    }
    api.create("/apis/apiregistration.k8s.io/v1/apiservices", body)


def _again(work: Callable[[], None], what: str, log: Log, *, once: bool) -> None:
    said = ""
    while True:
        try:
            work()
            if once:
                return
        except (ApiError, OSError, KeyError, ValueError) as error:
            if str(error) != said:
                said = str(error)
                log(f"{what}: {error}; trying again")
            time.sleep(0.3)


def start(node: str, pki: Path, volumes: Path, log: Log) -> None:
    """Start the threads; they wait for the API server and outlive its crashes.

    Args:
        node: the node's address.
        pki: folder with `ca.crt`, `admin.crt` and `admin.key`.
        volumes: folder of the volumes on the node.
        log: takes a line of text.
    """
    api = Api("127.0.0.1", pki)
    storage = "/apis/storage.k8s.io/v1/storageclasses"
    tasks: list[tuple[Callable[[], None], str, bool]] = [
        (lambda: api.create(storage, _storage_class()), "StorageClass", True),
        (lambda: _metrics(api, node), "metrics API", True),
        (lambda: _provide(api, volumes, log), "volumes", False),
        (lambda: _release(api, volumes), "released volumes", False),
    ]
    for work, what, once in tasks:
        threading.Thread(target=_again, args=(work, what, log), kwargs={"once": once}, daemon=True).start()
