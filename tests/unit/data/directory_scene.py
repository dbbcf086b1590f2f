"""Directories and stores on a memory API server, with doubles for gateways, nodes and the places that stores are."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.data import config as configs
from cloudmesh.data.access import Access
from cloudmesh.data.config import DirectoryConfig, StoreSummary, Summary
from cloudmesh.data.controller import ANNOTATION_CONFIG, DirectoryReconciler
from cloudmesh.data.kinds import (
    CLAIM,
    CLOUD_ACCOUNT,
    DATA_STORE,
    DEPLOYMENT,
    NAMESPACE,
    POD,
    PRICE_SHEET,
    SERVICE,
    VIRTUAL_CLUSTER,
    VIRTUAL_DIRECTORY,
)
from cloudmesh.data.settings import DataSettings
from cloudmesh.data.store_controller import StoreReconciler
from cloudmesh.data.stores.ports import Probe, StoreInfo
from cloudmesh.data.stores.registry import StoreContext
from cloudmesh.engine import SECRET, AuthFailed, Done, Key, Obj, Resource, Transient
from cloudmesh.testing import CrashPoint, World, run_virtual

KINDS = (
    VIRTUAL_DIRECTORY, DATA_STORE, DEPLOYMENT, SERVICE, CLAIM, POD, SECRET, NAMESPACE, CLOUD_ACCOUNT, PRICE_SHEET,
    VIRTUAL_CLUSTER,
)  # fmt: skip
KEYS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "very-secret-key"}
KUBELET_SECONDS = 60.0
Json = dict[str, Any]


@dataclass(slots=True)
class Gateway:
    """What one gateway has taken up, and what it tells."""

    text: bytes = b""
    summary: Json = field(default_factory=dict)
    states: dict[str, tuple[str, str]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    needed: set[str] = field(default_factory=set)
    seen: str = ""
    since: float = 0.0


class Gateways:
    """Plays Deployment controller, kubelet and gateways: a changed Secret arrives when a Pod is changed, or late."""

    def __init__(self, world: World) -> None:
        self.api = world.api
        self.known: dict[str, Gateway] = {}
        self.up = True
        self.refuses = ""
        self.trouble: Json | None = None
        self.told: list[DirectoryConfig] = []

    async def run(self) -> None:
        while True:
            for deployment in self.api.all(DEPLOYMENT):
                self._step(deployment)
            for pod in self.api.all(POD):
                if self.api.get(DEPLOYMENT, "ns", pod["metadata"]["name"].removesuffix("-0")) is None:
                    self.api.remove(POD, "ns", pod["metadata"]["name"])
            await asyncio.sleep(0.5)

    def _step(self, deployment: Json) -> None:
        name = deployment["metadata"]["name"]
        gateway = self.known.setdefault(name, Gateway())
        pod = self.api.get(POD, "ns", f"{name}-0")
        if pod is None:
            template = deployment["spec"]["template"]
            meta = {"name": f"{name}-0", "namespace": "ns", "labels": template["metadata"]["labels"]}
            meta["ownerReferences"] = [{"uid": deployment["metadata"]["uid"], "kind": "Deployment", "name": name}]
            pod = self.api.put(POD, {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]})
        status = (
            {"phase": "Running"} if self.trouble is None else {"phase": "Pending", "containerStatuses": [self.trouble]}
        )
        if pod.get("status") != status:
            self.api.set_status(POD, "ns", f"{name}-0", status)
        ready = {"readyReplicas": 1 if self.trouble is None else 0}
        if deployment.get("status") != ready:
            self.api.set_status(DEPLOYMENT, "ns", name, ready)
        secret = self.api.get(SECRET, "ns", name)
        if secret is None or self.trouble is not None:
            return
        text = base64.b64decode(secret["data"]["config.json"])
        mark = (pod["metadata"].get("annotations") or {}).get(ANNOTATION_CONFIG, "")
        clock = asyncio.get_running_loop().time()
        if text != gateway.text and (
            not gateway.text or mark != gateway.seen or clock - gateway.since >= KUBELET_SECONDS
        ):
            gateway.since, gateway.seen = clock, mark
            if not self.refuses:
                gateway.text = text
                self.told.append(configs.load(text))

    async def read(self, namespace: str, name: str, token: str) -> Summary:
        """As a `Reader`."""
        await asyncio.sleep(0)
        gateway = self.known[f"{name}-vdir"]
        if not self.up or not gateway.text:
            raise Transient("the gateway doesn't answer: refused")
        config = configs.load(gateway.text)
        if not token or token != config.operator_token:
            raise AuthFailed("the gateway doesn't know the operator's token")
        stores = tuple(
            StoreSummary(
                name=store.name,
                state=gateway.states.get(store.name, ("Up", ""))[0],  # type: ignore[arg-type]
                message=gateway.states.get(store.name, ("Up", ""))[1],
                files=gateway.files.get(store.name, 0),
                bytes=gateway.files.get(store.name, 0) * 1000,
                drained=store.access == "Drain"
                and not gateway.files.get(store.name, 0)
                and store.name not in gateway.needed,
            )
            for store in config.stores
        )
        return Summary(
            config=configs.fingerprint(gateway.text),
            **{"stores": stores, "error": self.refuses, "emptied": config.emptying, **gateway.summary},
        )


class Place:
    """A store as the operator probes it."""

    info = StoreInfo("s3", "Full")

    def __init__(self, scene: Scene, context: StoreContext) -> None:
        self.scene = scene
        self.context = context

    async def probe(self) -> Probe:
        self.scene.probed.append(self.context)
        await asyncio.sleep(0.01)
        if self.scene.fault is not None:
            raise self.scene.fault
        return Probe(latency_ms=12)

    async def close(self) -> None:
        self.scene.closed += 1


class Watcher:
    """A reconciler of another wing, which does nothing."""

    owns = ()

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        return Done()

    def forget(self, key: Key) -> None:
        pass


class Scene:
    """One namespace, `ns`."""

    def __init__(self) -> None:
        self.world = World(KINDS)
        self.api = self.world.api
        self.gateways = Gateways(self.world)
        self.fault: Exception | None = None
        self.probed: list[StoreContext] = []
        self.closed = 0
        self.watched: tuple[Any, ...] = ()
        """Kinds of other wings that the operator watches as well."""
        self.settings = DataSettings(gateway_image="cloudmesh.local/operator:1")
        self.api.put(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system"}})

    # -- what users write

    def _put(self, resource: Any, name: str, body: Json, **meta: Any) -> Json:
        old = self.api.get(resource, "ns", name) or {}
        metadata = {**(old.get("metadata") or {}), "name": name, "namespace": "ns", **meta}
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        return self.api.put(resource, {**old, **head, **body, "metadata": metadata})

    def secret(self, name: str = "keys", type_: str = "cloudmesh.org/credentials", **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in (data or KEYS).items()}
        self._put(SECRET, name, {"type": type_, "data": encoded})

    def store(self, name: str = "aws", *, secret: str = "keys", labels: Json | None = None, **spec: Any) -> None:
        body = {"access": "ReadWrite", "limits": {}, **spec}
        if "local" not in spec and "s3" not in spec:
            body["s3"] = {"region": "us-east-1", "bucket": f"bucket-{name}"}
        if "s3" in body:
            body["credentials"] = {"secretRef": {"name": secret}}
        self._put(DATA_STORE, name, {"spec": body}, labels=labels or {})

    def volume(self, name: str = "nas", phase: str = "Bound") -> None:
        self._put(CLAIM, name, {"spec": {"accessModes": ["ReadWriteOnce"]}})
        self.api.set_status(CLAIM, "ns", name, {"phase": phase})
        self.store(name, local={"persistentVolumeClaimRef": {"name": name}})

    def sheet(self, *stores: Json, name: str = "campus", **spec: Any) -> None:
        self._put(PRICE_SHEET, name, {"spec": {"currency": "USD", "stores": list(stores), **spec}})

    def directory(self, *stores: Any, name: str = "lab", annotations: Json | None = None, **spec: Any) -> None:
        named = [{"name": store} if isinstance(store, str) else store for store in stores or ("aws",)]
        self._put(VIRTUAL_DIRECTORY, name, {"spec": {"stores": named, **spec}}, annotations=annotations or {})

    # -- what is there

    def status(self, name: str = "lab", resource: Any = VIRTUAL_DIRECTORY) -> Json:
        found = self.api.get(resource, "ns", name)
        assert found is not None
        return dict(found.get("status") or {})

    def condition(
        self, type_: str = "Ready", name: str = "lab", resource: Any = VIRTUAL_DIRECTORY
    ) -> tuple[str, str, str]:
        found = next((x for x in self.status(name, resource).get("conditions", ()) if x["type"] == type_), None)
        return (found["status"], found["reason"], found["message"]) if found else ("", "", "")

    def config(self, name: str = "lab") -> DirectoryConfig:
        secret = self.api.get(SECRET, "ns", f"{name}-vdir")
        assert secret is not None
        return configs.load(base64.b64decode(secret["data"]["config.json"]))

    def finalizers(self, resource: Any, name: str) -> list[str]:
        found = self.api.get(resource, "ns", name)
        assert found is not None
        return list(found["metadata"].get("finalizers") or ())

    @property
    def gateway(self) -> Gateway:
        return self.gateways.known["lab-vdir"]

    # -- the operator

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None) -> AsyncIterator[None]:
        playing = asyncio.create_task(self.gateways.run())

        def stores(engine: Any) -> StoreReconciler:
            access = Access(engine, self.settings)
            for resource in self.watched:
                engine.add(Watcher(resource))
            return StoreReconciler(engine, access, make=lambda _: lambda context: Place(self, context))  # type: ignore[arg-type,return-value]

        def directories(engine: Any) -> DirectoryReconciler:
            return DirectoryReconciler(engine, Access(engine, self.settings), reader=self.gateways)

        try:
            async with self.world.engine(stores, directories, crash=crash):
                yield
        finally:
            playing.cancel()

    async def settle(self, seconds: float = 8.0) -> None:
        """Lets so much time go by, and then until all is quiet."""
        await asyncio.sleep(seconds)


def scene(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """A test with a scene of its own, on virtual time."""

    def run() -> None:
        async def main() -> None:
            await test(Scene())

        run_virtual(main())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
