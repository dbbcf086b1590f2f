"""Doubles for what surrounds the controller: a builder in the process, and a cluster that runs Deployments."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

from cloudmesh.engine import Transient
from cloudmesh.functions.builder_client import Refused
from cloudmesh.functions.controller import DEPLOYMENT, POD
from cloudmesh.testing import MemoryApi

Json = dict[str, Any]


class MemoryBuilder:
    """Builds in no time what can be parsed; forgets its builds when it is `restarted`."""

    def __init__(self) -> None:
        self.up = True
        self.builds: dict[str, Json] = {}
        self.registry: dict[str, str] = {}
        self.built = 0
        self.locks = 0
        self.fail: Json | None = None
        self.build_seconds = 0.02
        self.starts = 0
        self._began: dict[str, float] = {}

    def restart(self) -> None:
        self.builds.clear()
        self._began.clear()

    def _answer(self) -> None:
        if not self.up:
            raise Transient("refused")

    async def parse(self, body: Json) -> Json:
        self._answer()
        await asyncio.sleep(0)
        try:
            compile(body["source"], "function.py", "exec")
        except SyntaxError as error:
            raise Refused("SourceInvalid", str(error.msg), error.lineno or 0, error.offset or 0) from None
        operation = {"operationId": f"{body['module']}.f", "method": "GET", "path": "/f"}
        return {"document": {"openapi": "3.1.0"}, "operations": [operation], "digest": "sha256:" + "d" * 64}

    async def lock(self, body: Json) -> Json:
        self._answer()
        self.locks += 1
        await asyncio.sleep(0.3)
        if "no-such-package" in body["requirements"]:
            raise Refused("DependenciesUnsatisfiable", "there is no 'no-such-package'")
        return {"lock": "lock of " + " ".join(body["requirements"]), "packages": []}

    async def info(self) -> Json:
        self._answer()
        return {"base": {"digest": "sha256:" + "a" * 64}, "runtime": {"digest": "sha256:" + "b" * 64}}

    async def start(self, body: Json) -> str:
        self._answer()
        name = hashlib.sha256(repr(sorted(body.items())).encode()).hexdigest()
        self.starts += 1
        self.builds.setdefault(name, body)
        now = asyncio.get_running_loop().time()
        if now - self._began.get(name, -1e9) >= self.build_seconds:  # one that has ended runs again
            self._began[name] = now
        return name

    async def build(self, build_id: str) -> Json | None:
        self._answer()
        await asyncio.sleep(0)
        body = self.builds.get(build_id)
        if body is None:
            return None
        if asyncio.get_running_loop().time() - self._began[build_id] < self.build_seconds:
            return {"state": "Running", "stage": "Assemble"}
        if self.fail is not None:
            return {"state": "Failed", "error": self.fail}
        key = body["key"]
        digest = self.registry.get(key)
        if reused := digest is not None:
            pass
        else:
            self.built += 1
            digest = self.registry[key] = hashlib.sha256(key.encode()).hexdigest()
        image = f"localhost:25500/fn/{body['namespace']}/{body['name']}@sha256:{digest}"
        result = {"image": image, "reused": reused, "seconds": 0.1, "uploadedBytes": 1000, "layersMounted": 2}
        return {"state": "Succeeded", "result": result}


class Nodes:
    """Plays Deployment controller and kubelet: what is applied runs half a second later, unless its code crashes."""

    def __init__(self, api: MemoryApi) -> None:
        self.api = api
        self.crashing: set[str] = set()
        self.crash_new = False
        self.lost_images: set[str] = set()
        self.seen_images: list[str] = []

    async def run(self) -> None:
        while True:
            for deployment in self.api.all(DEPLOYMENT):
                self._step(deployment)
            await asyncio.sleep(0.5)

    def _step(self, deployment: Json) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        image = spec["template"]["spec"]["containers"][0]["image"]
        if image not in self.seen_images:
            self.seen_images.append(image)
            if self.crash_new:
                self.crashing.add(image)
        old, wanted = deployment.get("status") or {}, int(spec.get("replicas", 1))
        generation = meta["generation"]
        pod = f"{meta['name']}-{generation}"
        if image in self.crashing or image in self.lost_images:
            kept = int(old.get("availableReplicas", 0))
            status = {"replicas": kept + 1, "updatedReplicas": 1, "availableReplicas": kept}
            if old.get("observedGeneration") == generation:
                status = {k: old.get(k, 0) for k in status}
            if image in self.crashing:
                container = {
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"exitCode": 1, "message": "ImportError: no"}},
                    "restartCount": 3,
                }
            else:
                container = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "manifest unknown"}}}
            self._pod(deployment, pod, container)
        else:
            status = {"replicas": wanted, "updatedReplicas": wanted, "availableReplicas": wanted}
            for other in self.api.all(POD):
                if other["metadata"]["namespace"] == meta["namespace"]:
                    self.api.remove(POD, meta["namespace"], other["metadata"]["name"])
        status["observedGeneration"] = generation
        if status != old:
            self.api.set_status(DEPLOYMENT, meta["namespace"], meta["name"], status)

    def _pod(self, deployment: Json, name: str, container: Json) -> None:
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        status = {"containerStatuses": [{"name": "function", **container}]}
        old = self.api.get(POD, meta["namespace"], name)
        if old is not None and old.get("status") == status:
            return
        if old is None:
            metadata = {
                "name": name,
                "namespace": meta["namespace"],
                "labels": template["metadata"]["labels"],
                "annotations": template["metadata"].get("annotations", {}),
            }
            self.api.put(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {}})
        self.api.set_status(POD, meta["namespace"], name, status)
