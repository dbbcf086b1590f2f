"""Harness of the provider whose machines are Pods: on an API server in memory, and on a real cluster."""

from __future__ import annotations

import abc
import asyncio
import base64
import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import asyncssh

from cloudmesh.compute.access import make_key_pair
from cloudmesh.compute.ports import Access, Node, NodeSpec, Provider
from cloudmesh.compute.providers.kubernetes import make
from cloudmesh.compute.providers.kubernetes.nodes import node_id, split_id
from cloudmesh.compute.providers.kubernetes.pods import CONTAINER, LABEL_TAGS, join_tags, make_pod, split_tags
from cloudmesh.compute.providers.kubernetes.powers import PodProvider
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.tokens import TAG_TOKEN, Scope
from cloudmesh.engine import SECRET, Kube, NotFound, Obj, Resource, Transient
from cloudmesh.engine.kube import Access as KubeAccess
from cloudmesh.engine.kube import HttpTransport, Reply, Request, Transport
from cloudmesh.testing import MemoryApi
from cloudmesh.testing.apiserver.server import Refused
from cloudmesh.testing.faults import Fault, MadeReply
from cloudmesh.testing.providers import CALL_FAULTS, BaseHarness, Injection, Injections, Operation, Seen

POD = Resource("v1", "Pod", "pods")
REVIEW = Resource("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", namespaced=False)
SERVICE, QUOTA = Resource("v1", "Service", "services"), Resource("v1", "ResourceQuota", "resourcequotas")
KEYS = "suite-keys"
PRIVATE, KEY = make_key_pair("suite@example")
SLOW = "suite.example/slow"
SIZES = [{"name": "tiny", "cpu": "100m", "memory": "64Mi"}, {"name": "other", "cpu": "200m", "memory": "96Mi"}]


def operation_of(request: Request) -> Operation:
    """Which of the provider's calls a request is."""
    parts = request.path.strip("/").split("/")
    if "selfsubjectaccessreviews" in parts:
        return "check"
    if "pods" not in parts:
        return "any"
    alone = parts[-1] == "pods"
    if request.method == "GET":
        return "list" if alone else "find"
    return {"POST": "create", "DELETE": "delete"}.get(request.method, "any")  # type: ignore[return-value]


class SuiteTransport:
    """Breaks calls on their way, as the suite asks for."""

    def __init__(self, inner: Transport, harness: PodHarness) -> None:
        self._inner = inner
        self._harness = harness
        self._pages: dict[str, int] = {}

    async def send(self, request: Request) -> Reply:
        """Sends a request unless something is injected for it."""
        harness, operation = self._harness, operation_of(request)
        harness.counts[operation] += 1
        if harness.revoked:
            return made(401, "Unauthorized")
        if operation == "list":
            if harness.filters_ignored:
                request = replace(request, query={k: v for k, v in request.query.items() if k != "labelSelector"})
            if harness.page_size:
                request = replace(request, query={**request.query, "limit": str(harness.page_size)})
            page = self._pages.get(request.query.get("continue", ""), 1)
            if page == harness.failing_page:
                return made(500)
            reply = await self._send(request, operation)
            body = await reply.read()
            token = (json.loads(body).get("metadata") or {}).get("continue") if reply.status == 200 else None
            if token:
                self._pages[token] = page + 1
            return MadeReply(reply.status, body, reply.headers)
        return await self._send(request, operation)

    async def _send(self, request: Request, operation: Operation) -> Reply:
        async def work() -> Reply:
            reply = await self._inner.send(request)
            return MadeReply(reply.status, await reply.read(), reply.headers)

        def refuse(fault: Injection) -> Reply:
            return made(429, seconds=fault.seconds) if fault.what == "limit" else made(500)

        def broken(text: str) -> Exception:
            return Transient(f"injected: {text}")

        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._harness.faults.call(operation, work, refuse=refuse, broken=broken)
        except TimeoutError:
            raise Transient(f"{request.method} {request.path}: time-out") from None

    async def close(self) -> None:
        """The harness closes what lies behind."""


def made(status: int, message: str = "", seconds: float = 0.0) -> MadeReply:
    """An answer that no server gave."""
    fault = Fault("answer", status=status, retry_after=seconds or None)
    return MadeReply(status, fault.body(), fault.headers())


class Suited(PodProvider):
    """The provider, with the Secret that the suite's machines take their keys from."""

    async def ensure_node(self, spec: NodeSpec) -> Node:
        return await super().ensure_node(replace(spec, access=replace(spec.access, secret_name=KEYS)))


class PodHarness(BaseHarness, abc.ABC):
    """What both back ends share."""

    kind = "kubernetes"
    image = "cloudmesh.local/machine:suite"
    many = 12
    settle_seconds = 60.0
    call_seconds = 35.0

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.counts: Counter[str] = Counter()
        self.page_size = self.failing_page = 0
        self.revoked = self.filters_ignored = False
        self.faults = Injections()
        self._scope = Scope("", "", "")
        self._providers: list[Suited] = []
        self._resized: dict[str, str] = {}

    @property
    @abc.abstractmethod
    def admin(self) -> Kube:
        """A client that nothing breaks."""

    @abc.abstractmethod
    def transport(self, *, bad_credentials: bool) -> Transport:
        """A way to the API server."""

    @abc.abstractmethod
    async def set_quota(self, full: bool) -> None:
        """Makes the namespace's quota used up, or takes it away."""

    @abc.abstractmethod
    async def resize(self, pod: Obj, limits: dict[str, str]) -> None:
        """Gives a Pod's container other limits."""

    async def open(self, scope: Scope) -> None:
        self._scope = scope
        self.counts.clear()
        await self.heal()

    async def shut(self) -> None:
        await self.heal()
        for provider in self._providers:
            await provider.kube.close()
        self._providers.clear()
        self._resized.clear()
        await self.sweep()

    @abc.abstractmethod
    async def sweep(self) -> None:
        """Takes all away that a case has made."""

    async def provider(self, *, bad_credentials: bool = False) -> Provider:
        kube = Kube(SuiteTransport(self.transport(bad_credentials=bad_credentials), self))
        defaults = {
            "machineImage": self.image, "hourlyPerVcpu": "0.01", "hourlyPerGiB": "0.001", "unschedulableSeconds": "0",
        }  # fmt: skip
        context = Context(
            self.namespace, self._scope.account, "uid", {"sizes": SIZES}, kube=kube, defaults=defaults
        )  # fmt: skip
        plain = cast(PodProvider, make(context))
        self._providers.append(Suited(kube, plain.settings))
        return self._providers[-1]

    async def inject(self, injection: Injection) -> None:
        match injection.what:
            case what if what in CALL_FAULTS:
                self.faults.add(injection)
            case "filter":
                self.filters_ignored = True
            case "unpriced":
                for provider in self._providers:
                    provider.settings = replace(provider.settings, prices=dict.fromkeys(provider.settings.prices))
            case "pages":
                self.page_size = injection.number
            case "page-fails":
                self.page_size, self.failing_page = 2, injection.number
            case "revoked":
                self.revoked = True
            case "quota":
                await self.set_quota(True)
            case "capacity" | "capacity-late":  # the API server takes every Pod
                for provider in self._providers:
                    provider.settings = replace(provider.settings, node_selector={"suite.example/nowhere": "x"})
            case what:
                raise NotImplementedError(what)

    async def heal(self) -> None:
        self.faults.clear()
        self.page_size = self.failing_page = 0
        self.revoked = self.filters_ignored = False
        for provider in self._providers:
            provider.settings = replace(provider.settings, node_selector={})
        await self.set_quota(False)

    async def machines(self) -> Sequence[Seen]:
        pods, _ = await self.admin.list(POD, self.namespace)
        secrets = {name: await self._keys(name) for name in {_secret_name(pod) for pod in pods}}
        return [self._seen(pod, *secrets[_secret_name(pod)]) for pod in pods]

    async def _keys(self, secret: str) -> tuple[tuple[str, ...], str]:
        """The logins and the public host key that a Pod with this Secret has."""
        found = await self.admin.get(SECRET, self.namespace, secret) or {}
        data = {name: base64.b64decode(value).decode() for name, value in (found.get("data") or {}).items()}
        if not data:
            return (), ""
        public = asyncssh.import_private_key(data["ssh_host_ed25519_key"]).export_public_key().decode()
        return tuple(data["authorized_keys"].splitlines()), public.strip()

    async def read_access(self) -> None:
        """From now on machines are asked for with the logins that are in the Secret."""
        keys, public = await self._keys(KEYS)
        self.access = Access(authorized_keys=keys, host_public_key=public, secret_name=KEYS)

    def _seen(self, pod: Obj, keys: tuple[str, ...], host_key: str) -> Seen:
        meta, tags = pod["metadata"], join_tags(pod["metadata"])
        container = pod["spec"]["containers"][0]
        disk = container.get("resources", {}).get("limits", {}).get("ephemeral-storage", "0Gi")
        return Seen(
            id=node_id(pod),
            token=tags.get(TAG_TOKEN, "") if self._scope.holds(tags) else "",
            ended=(pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"),
            name=meta["name"],
            type=self._resized.get(node_id(pod), (meta.get("labels") or {}).get("cloudmesh.org/machine-type", "")),
            image=container["image"],
            disk_gib=int(disk.removesuffix("Gi")),
            authorized_keys=keys,
            host_key=host_key,
        )

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        provider = cast(Suited, await self.provider())
        spec = NodeSpec(
            token="none", name=name, scope=self._scope, cluster="", uid="u", image="",
            offer=(await provider.offers())[0],
        )  # fmt: skip
        pod = make_pod(provider.settings, replace(spec, access=replace(spec.access, secret_name=KEYS)))
        labels, annotations = split_tags(tags or {})
        meta: dict[str, Any] = {"namespace": self.namespace, "labels": labels, "annotations": annotations}
        if tags:
            labels["app.kubernetes.io/managed-by"] = "cloudmesh"
        for number in range(10):
            meta["name"] = name if not number else f"{name}-{number}"
            if await self.admin.get(POD, self.namespace, meta["name"]) is None:
                return node_id(await self.admin.create(POD, pod | {"metadata": meta}))
        raise AssertionError("ten strangers of one name")

    async def meddle(self, what: str, node_id: str) -> None:
        name, _ = split_id(node_id)
        pod = await self.admin.get(POD, self.namespace, name)
        assert pod is not None
        match what:
            case "end":
                await self.admin.delete(POD, self.namespace, name)
            case "resize":
                self._resized[node_id] = "cpu=150m/memory=64Mi"
                await self.resize(pod, {"cpu": "150m", "memory": "64Mi"})
            case "image":
                pod["spec"]["containers"][0]["image"] = "cloudmesh.local/machine:another"
                await self.admin.replace(POD, pod)
            case "untag":
                gone = {"labels": dict.fromkeys(LABEL_TAGS), "annotations": {"cloudmesh.org/tags": None}}
                await self.admin.patch(POD, self.namespace, name, {"metadata": gone})
            case unknown:
                raise NotImplementedError(unknown)

    async def requests(self, operation: Operation) -> int:
        return sum(self.counts.values()) if operation == "any" else self.counts[operation]


class MemoryPods(PodHarness):
    """An API server in memory, and as much of a scheduler and a kubelet as machines need; on virtual time."""

    name = "kubernetes-memory"
    case_seconds = 3600.0

    def __init__(self) -> None:
        super().__init__("suite")
        self.api = _Api()
        self._admin = Kube(_Ticking(self))
        self.quota_full = False
        self.delete_seconds = 0.0
        self._seen_at: dict[str, float] = {}

    @property
    def admin(self) -> Kube:
        return self._admin

    def transport(self, *, bad_credentials: bool) -> Transport:
        return cast(Transport, _Refusing() if bad_credentials else _Ticking(self))

    async def open(self, scope: Scope) -> None:
        self.api = _Api()
        self.api.put(SECRET, secret_of_keys(KEY, PRIVATE) | {"metadata": {"name": KEYS, "namespace": self.namespace}})
        self.api.admit.append(self._admit)
        self.delete_seconds = 0.0
        await self.read_access()
        await super().open(scope)

    async def inject(self, injection: Injection) -> None:
        if injection.what != "slow-delete":
            return await super().inject(injection)
        self.delete_seconds = injection.seconds
        for pod in self.api.all(POD):  # a finalizer stands for processes that take their time
            pod["metadata"]["finalizers"] = [SLOW]
            self.api.put(POD, pod)
        return None

    async def sweep(self) -> None:
        """The next case has an API server of its own."""

    async def set_quota(self, full: bool) -> None:
        self.quota_full = full

    async def resize(self, pod: Obj, limits: dict[str, str]) -> None:
        pod["spec"]["containers"][0]["resources"]["limits"] = limits
        self.api.put(POD, pod)

    def _admit(self, act: str, resource: Resource, obj: Obj) -> None:
        if act == "create" and resource == POD and self.quota_full:
            name = obj["metadata"]["name"]
            text = f'pods "{name}" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0'
            raise Refused(403, "Forbidden", text, name=name)

    def tick(self) -> None:
        """What scheduler and kubelet have done by now."""
        now = asyncio.get_running_loop().time()
        for pod in self.api.all(POD):
            meta, status = pod["metadata"], pod.get("status") or {}
            since = now - self._seen_at.setdefault(meta["uid"] + meta.get("deletionTimestamp", ""), now)
            if meta.get("deletionTimestamp") and since >= self.delete_seconds:
                pod["metadata"]["finalizers"] = []
                self.api.store.update(POD, (meta["namespace"], meta["name"]), pod, has_status=True)
            elif not status and "suite.example/nowhere" in pod["spec"]["nodeSelector"]:
                said = {
                    "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
                }  # fmt: skip
                new = {"phase": "Pending", "conditions": [said]}
                self.api.set_status(POD, meta["namespace"], meta["name"], new)
            elif not status and since >= 1:
                number = len(self._seen_at)
                container = {"name": CONTAINER, "containerID": f"containerd://{number}", "state": {"running": {}}}
                new = {"phase": "Running", "podIP": f"192.0.2.{number}", "containerStatuses": [container]}
                self.api.set_status(POD, meta["namespace"], meta["name"], new)


class RealPods(PodHarness):
    """A namespace of a real cluster.

    Args:
        kubeconfig: Of somebody who may do everything.
        bad_kubeconfig: One with a token that isn't valid.
        namespace: A namespace of the suite's own; its quota, Pods and Services are made and deleted.
        image: The machine image, which is on the nodes.
        secrets: What must never be seen.
    """

    name = "kubernetes"

    def __init__(
        self, kubeconfig: str, bad_kubeconfig: str, namespace: str, image: str, secrets: Sequence[str]
    ) -> None:
        super().__init__(namespace)
        self.image = image
        self.secrets = secrets
        self._paths = (kubeconfig, bad_kubeconfig)
        self._transports: list[HttpTransport] = []
        self._quota = False
        self._slow: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connects; on the event loop of the cases."""
        self._transports = [HttpTransport(await KubeAccess.load(path)) for path in self._paths]
        self._kube = Kube(self._transports[0])
        await self.read_access()

    async def stop(self) -> None:
        """Closes the connections."""
        for transport in self._transports:
            await transport.close()

    @property
    def admin(self) -> Kube:
        return self._kube

    def transport(self, *, bad_credentials: bool) -> Transport:
        return cast(Transport, self._transports[bad_credentials])

    async def inject(self, injection: Injection) -> None:
        if injection.what != "slow-delete":
            return await super().inject(injection)
        await self._hold([SLOW])
        self._slow = asyncio.create_task(self._let_go(injection.seconds))
        return None

    async def _hold(self, finalizers: list[str]) -> list[Obj]:
        """A finalizer stands for processes that take their time."""
        pods, _ = await self.admin.list(POD, self.namespace)
        held = [pod for pod in pods if (pod["metadata"].get("finalizers") or []) != finalizers]
        for pod in held:
            patch = {"metadata": {"finalizers": finalizers}}
            with contextlib.suppress(NotFound):
                await self.admin.patch(POD, self.namespace, pod["metadata"]["name"], patch)
        return pods

    async def _let_go(self, seconds: float) -> None:
        while not any(p["metadata"].get("deletionTimestamp") for p in (await self.admin.list(POD, self.namespace))[0]):
            await asyncio.sleep(0.1)
        await asyncio.sleep(seconds)
        await self._hold([])

    async def heal(self) -> None:
        await super().heal()
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
            await self._hold([])

    async def sweep(self) -> None:
        """Deletes Pods at once, without waiting for their kubelet: the next case uses the same names."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        reply = await self._transports[0].send(Request("DELETE", POD.path(self.namespace), body=body))
        assert reply.status == 200, await reply.read()
        await reply.read()
        services, _ = await self.admin.list(SERVICE, self.namespace)
        for service in services:
            await self.admin.delete(SERVICE, self.namespace, service["metadata"]["name"])

    async def set_quota(self, full: bool) -> None:
        if full and not self._quota:
            body = {"metadata": {"name": "suite", "namespace": self.namespace}, "spec": {"hard": {"pods": "0"}}}
            await self.admin.create(QUOTA, body)
            while not ((await self.admin.get(QUOTA, self.namespace, "suite")) or {}).get("status"):
                await asyncio.sleep(0.1)
        elif self._quota and not full:
            await self.admin.delete(QUOTA, self.namespace, "suite")
        self._quota = full

    async def resize(self, pod: Obj, limits: dict[str, str]) -> None:
        """In place, as a user may do it."""
        container = pod["spec"]["containers"][0]
        container["resources"]["limits"] = limits
        patch = {"spec": {"containers": [container]}}
        await self.admin.patch(POD, self.namespace, pod["metadata"]["name"], patch, subresource="resize")


class _Api(MemoryApi):
    """Answers access reviews, which aren't stored."""

    def handle(self, request: Request) -> Any:
        if request.path.endswith("/selfsubjectaccessreviews"):
            return 201, {**request.body, "status": {"allowed": True}}
        if request.path.endswith("/log"):
            return 200, {}
        return super().handle(request)


class _Ticking:
    def __init__(self, harness: MemoryPods) -> None:
        self._harness = harness

    async def send(self, request: Request) -> Reply:
        self._harness.tick()
        reply = await self._harness.api.send(request)
        self._harness.tick()
        return reply

    async def close(self) -> None:
        """The API server goes on."""


class _Refusing:
    async def send(self, request: Request) -> Reply:
        return made(401)

    async def close(self) -> None:
        """There is nothing."""


def secret_of_keys(authorized: str, host_key: str) -> Obj:
    """The Secret that the suite's Pods mount."""
    plain = {"authorized_keys": authorized, "ssh_host_ed25519_key": host_key}
    data = {name: base64.b64encode(value.encode()).decode() for name, value in plain.items()}
    return {"apiVersion": SECRET.api_version, "kind": SECRET.kind, "metadata": {"name": KEYS}, "data": data}


def _secret_name(pod: Obj) -> str:
    volumes = pod["spec"].get("volumes") or ()
    return next((volume["secret"]["secretName"] for volume in volumes if "secret" in volume), "")
