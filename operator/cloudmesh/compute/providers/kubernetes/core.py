"""The core port on Pods: a machine is created once because its name and its token are in the create call itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from cloudmesh.api.names import LABEL_MANAGED_BY, MANAGED_BY
from cloudmesh.compute.ports import Complete, Finding, Listing, Node, NodeSpec, Partial, ProviderInfo
from cloudmesh.compute.providers.kubernetes.nodes import split_id, to_node
from cloudmesh.compute.providers.kubernetes.pods import LABEL_TYPE, USER, join_tags, make_pod
from cloudmesh.compute.providers.kubernetes.rights import review_rights
from cloudmesh.compute.providers.kubernetes.sizes import Settings
from cloudmesh.compute.tokens import TAG_TOKEN, TAG_UID, Scope
from cloudmesh.engine import (
    AlreadyExists,
    AuthFailed,
    CloudmeshError,
    Conflict,
    Expired,
    InvalidRequest,
    Kube,
    NameConflict,
    NotFound,
    Obj,
    Resource,
    Transient,
    utc_now,
)
from cloudmesh.policy.model import Offer

POD = Resource("v1", "Pod", "pods")
INFO = ProviderInfo(
    kind="kubernetes",
    grace_seconds=0,  # its lists are as true as its single reads
    create_seconds=10,  # the client's limit on any call
    native_tokens=True,
    user=USER,
    ssh=True,
    poll_seconds=3.0,
    requests_per_second=50.0,
    quota_seconds=(15, 120),  # one of a namespace is lifted at any moment, and costs one call to try
    lacks={
        "PublicAddresses": "a Pod has no address of the internet",
        "Spot": "Pods are not sold as spot",
        "Regions": "a cluster has no regions",
        "Zones": "zones are the scheduler's",
        "DelayedListings": "lists of the API server are as true as its single reads",
        "PartialListings": "a list of the API server is whole, or an error",
        "RepeatingPages": "the pages of a list are one snapshot",
        "Stops": "a Pod can't be stopped",
        "DiskChanges": "a Pod's share of a disk can't be changed",
    },
)


class PodCore:
    """Machines of one account.

    Args:
        kube: The API server of the installation.
        settings: The account.
        now: RFC 3339 time.
    """

    info = INFO

    def __init__(self, kube: Kube, settings: Settings, now: Callable[[], str] = utc_now) -> None:
        self.kube = kube
        self.info = replace(INFO, max_disk_gib=settings.max_disk_gib)
        self.settings = settings
        self._now = now

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.namespace}/{self.settings.account})"

    @property
    def default_image(self) -> str:
        """What machines are made of that name no image: the installation's."""
        return self.settings.machine_image

    async def check(self) -> Sequence[Finding]:
        """Asks the API server for each right that the account's machines need."""
        findings = [await review_rights(self.kube, self.settings.namespace)]
        if self.settings.machine_image:
            findings.append(Finding("image", True, f"machines run {self.settings.machine_image}"))
        else:
            findings.append(Finding("image", False, "the installation names no machine image: set machine.image"))
        return findings

    async def offers(self) -> Sequence[Offer]:
        """One offer a size of the account, at the installation's prices."""
        return self.settings.offers()

    async def list_nodes(self, scope: Scope) -> Listing:
        """All Pods with the scope's labels, read from the API server itself and not from a cache."""
        selector = ",".join(f"{key}={value}" for key, value in {LABEL_MANAGED_BY: MANAGED_BY, **scope.tags()}.items())
        found: dict[str, Obj] = {}
        try:
            async for page, _ in self.kube.pages(POD, self.settings.namespace, label_selector=selector):
                found |= {pod["metadata"]["uid"]: pod for pod in page if scope.holds(join_tags(pod["metadata"]))}
        except CloudmeshError as error:
            if not found or isinstance(error, Expired):
                raise
            return Partial(self._nodes(found.values()), self._now(), f"a page didn't come: {error}")
        return Complete(self._nodes(found.values()), self._now())

    async def find_node(self, spec: NodeSpec) -> Node | None:
        """The Pod of a token, by its name."""
        pod = await self.kube.get(POD, self.settings.namespace, spec.name)
        return None if pod is None else self._own(pod, spec)

    async def ensure_node(self, spec: NodeSpec) -> Node:
        """Makes the Pod of a token, or returns the one that is there; its name can't be given twice.

        Raises:
            InvalidRequest: The namespace doesn't admit such a Pod; the message has the API server's words.
            Transient: Unknown outcome, or the namespace's quota isn't counted yet.
        """
        try:
            return self._own(await self.kube.create(POD, make_pod(self.settings, spec)), spec)
        except AlreadyExists:
            found = await self.find_node(spec)
            if found is None:
                raise Conflict(f"the Pod {spec.name} was there and is gone: look again") from None
            return found
        except NotFound as error:
            raise InvalidRequest(f"the namespace {self.settings.namespace} is gone: {error}") from error
        except AuthFailed as error:
            if "status unknown for quota" in str(error):
                raise Transient(str(error)) from error
            if _is_refused_by_admission(str(error)):
                raise InvalidRequest(str(error)) from error
            raise

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        """Deletes a Pod, and no other one of its name."""
        name, uid = split_id(node_id)
        pod = await self.kube.get(POD, self.settings.namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            return
        if not scope.holds(join_tags(pod["metadata"])):
            raise Conflict(f"the Pod {name} isn't a machine of {scope.namespace}/{scope.account}")
        await self.kube.delete(POD, self.settings.namespace, name, uid=uid)

    async def close(self) -> None:
        """The client isn't the account's own."""

    def node(self, pod: Obj) -> Node:
        """A Pod in the words of the port."""
        return to_node(pod, self._now(), self.settings.unschedulable_seconds)

    async def read(self, node_id: str) -> Obj:
        """The Pod of an id.

        Raises:
            NotFound: It is gone.
        """
        name, uid = split_id(node_id)
        pod = await self.kube.get(POD, self.settings.namespace, name)
        if pod is None or pod["metadata"]["uid"] != uid:
            raise NotFound(f"the Pod {name} is gone")
        return pod

    def _nodes(self, pods: Iterable[Obj]) -> tuple[Node, ...]:
        return tuple(self.node(pod) for pod in pods)

    def _own(self, pod: Obj, spec: NodeSpec) -> Node:
        tags = join_tags(pod["metadata"])
        if not spec.scope.holds(tags) or tags.get(TAG_TOKEN) != spec.token or tags.get(TAG_UID) != spec.uid:
            raise NameConflict(
                f"Pod '{spec.name}' exists and isn't this machine; delete it or give the machine's cluster another name"
            )
        if (made := pod["metadata"]["labels"].get(LABEL_TYPE)) != spec.offer.type:
            raise Conflict(f"the Pod {spec.name} was made for the same token as {made}, not {spec.offer.type}")
        return self.node(pod)


def _is_refused_by_admission(message: str) -> bool:
    """Whether a 403 is about this Pod (Pod Security, a limit range, a webhook), and not about our rights."""
    return "cannot create resource" not in message and " 403 " in message
