"""Objects as the API server has them, for the tests of plan, roll-out and controller."""

from __future__ import annotations

from typing import Any

from cloudmesh.functions.plan import Asked
from cloudmesh.functions.revision import Revision, Wanted

Obj = dict[str, Any]
NOW = "2026-01-01T00:00:00Z"


def function(**spec: Any) -> Obj:
    return {
        "apiVersion": "cloudmesh.org/v1alpha1",
        "kind": "FunctionService",
        "metadata": {"name": "stats", "namespace": "ns", "uid": "u-1", "generation": 1, "resourceVersion": "10"},
        "spec": {"source": {"inline": "def f(x: int) -> int:\n    return x\n"}, **spec},
    }


def wanted(**change: Any) -> Wanted:
    values: dict[str, Any] = {
        "namespace": "ns",
        "name": "stats",
        "module": "stats",
        "source": "def f(x: int) -> int:\n    return x\n",
        "expose": {"functions": {"names": ["*"]}},
        "base_path": "/cloudmesh",
        "python": "3.11",
        "requirements": (),
        "index_secret": "",
        "image": {"platforms": ["linux/amd64"]},
        "runtime": {"timeoutSeconds": 30, "concurrency": 100, "maxBodyBytes": 10485760},
        "asked": {},
    }
    return Wanted(**{**values, **change})


def revision(number: int, *, content: str = "", worked: bool = False, failed: str = "") -> Revision:
    return Revision(
        name=f"stats-{number:05d}",
        number=number,
        content=content or f"content-{number}",
        data={
            "content": content or f"content-{number}",
            "image": f"localhost:25500/fn/ns/stats@sha256:{number:064x}",
            "key": f"{number:032x}",
            "lock": "",
            "document": {"openapi": "3.1.0"},
            "operations": [{"operationId": "stats.f", "method": "GET", "path": "/f"}],
            "openapiDigest": f"sha256:{number:064x}",
            "basePath": "/cloudmesh",
            "build": {"key": f"{number:032x}"},
            "template": {
                "metadata": {"labels": {"cloudmesh.org/function": "stats"}},
                "spec": {"containers": [{"name": "function", "image": f"i{number}"}]},
            },
        },
        worked=worked,
        failed=failed,
    )


def asked(**change: Any) -> Asked:
    values: dict[str, Any] = {
        "replicas": 1,
        "autoscaling": None,
        "pin": "",
        "history_limit": 10,
        "requirements": False,
    }
    return Asked(**{**values, **change})


def settled(deployment: Obj, *, replicas: int = 1, **status: Any) -> Obj:
    """The Deployment as the API server has it once all is rolled out."""
    return {
        **deployment,
        "metadata": {**deployment["metadata"], "uid": "d-1", "generation": 1},
        "spec": {"replicas": replicas, **deployment["spec"]},
        "status": {
            "observedGeneration": 1,
            "replicas": replicas,
            "updatedReplicas": replicas,
            "availableReplicas": replicas,
            "readyReplicas": replicas,
            **status,
        },
    }


def pod(
    name: str, revision_name: str, *, waiting: Obj | None = None, terminated: Obj | None = None, restarts: int = 0
) -> Obj:
    container: Obj = {"name": "function", "restartCount": restarts, "state": {}, "lastState": {}}
    if waiting:
        container["state"] = {"waiting": waiting}
    if terminated:
        container["lastState"] = {"terminated": terminated}
    return {
        "metadata": {"name": name, "namespace": "ns", "annotations": {"cloudmesh.org/revision": revision_name}},
        "status": {"containerStatuses": [container], "conditions": [{"type": "Ready", "status": "False"}]},
    }
