"""The core port on the memory cloud: what every provider must do, written as the others should be."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Sequence
from typing import TypeVar

from cloudmesh.compute.ports import Complete, Finding, Listing, Node, NodeSpec, Partial, ProviderInfo
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.compute.providers.memory.cloud import MemoryCloud
from cloudmesh.compute.providers.memory.errors import classify, classify_error
from cloudmesh.compute.providers.memory.instance import CloudError, ConnectionLost, Instance, Order
from cloudmesh.compute.providers.memory.stock import Row
from cloudmesh.compute.tokens import TAG_TOKEN, Scope
from cloudmesh.engine.errors import (
    AlreadyExists,
    CloudmeshError,
    Conflict,
    NameConflict,
    NotFound,
    RateLimited,
    Transient,
)
from cloudmesh.policy.model import Offer, Price

T = TypeVar("T")
CALL_SECONDS = 10.0
"""A call other than a create that has no answer by then is given up."""


class MemoryProvider:
    """One account of a memory cloud.

    Args:
        account: Name of the CloudAccount.
        cloud: The back end.
        key: API key.
        info: What it declares.
    """

    def __init__(self, account: str, cloud: MemoryCloud, *, key: str, info: ProviderInfo) -> None:
        self.info = info
        self.cloud = cloud
        self._account = account
        self._key = key
        self._closed = False
        self._nodes: dict[str, tuple[Instance, Node]] = {}
        self._creating: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._account!r}, {self.cloud!r})"

    @property
    def default_image(self) -> str:
        """What machines are made of that name no image."""
        return next(iter(self.cloud.images))

    async def call(self, operation: str, act: Callable[[], T], *, seconds: float = CALL_SECONDS) -> T:
        """Asks the cloud, within bounded time; all errors leave as those of the taxonomy.

        Raises:
            CloudmeshError: As the cloud says; Transient when it says nothing.
        """
        if self._closed:
            raise Transient(f"{operation}: the provider is closed")
        try:
            async with asyncio.timeout(seconds):
                return await self.cloud.request(operation, act, self._key)
        except CloudError as error:
            # `from None`: a cloud's own error may hold the request, and the request the credentials.
            raise classify_error(error) from None
        except ConnectionLost as error:
            raise Transient(f"{operation}: {error}") from None
        except TimeoutError:
            raise Transient(f"{operation}: no answer within {seconds:g} s") from None

    async def identity(self) -> str:
        """The name of the cloud."""
        return self.cloud.name

    async def check(self) -> Sequence[Finding]:
        """Tries the credentials and permissions and says in words what can't be used."""
        rows = await self.call("ListStock", lambda: len(self.cloud.stock.rows))
        findings = [Finding("credentials", True, "the API key is accepted")]
        findings.append(
            Finding("offers", True, f"{rows} offers")
            if rows
            else Finding("offers", False, "the cloud sells nothing to this account: ask its owner for a machine type")
        )
        try:
            await self.call("ListInstances", lambda: self.cloud.list_instances({}))
        except CloudmeshError as error:
            text = f"machines can't be listed ({error}): allow ListInstances for this API key"
            findings.append(Finding("machines", False, text, fatal=not isinstance(error, Transient | RateLimited)))
        else:
            findings.append(Finding("machines", True, "machines can be listed"))
        return findings

    async def offers(self) -> Sequence[Offer]:
        """All offers, with a price where the cloud tells it and without where it doesn't."""
        rows = await self.call("ListStock", lambda: list(self.cloud.stock.rows.values()))
        as_of = to_time(int(self.cloud.now()))
        return [self._offer(row, as_of) for row in rows]

    def _offer(self, row: Row, as_of: str) -> Offer:
        source = f"memory/{self.cloud.name}"
        return Offer(
            account=self._account,
            type=row.type,
            region=row.region,
            zone=row.zone,
            purchase="Spot" if row.purchase == "Spot" else "OnDemand",
            arch=row.arch,
            milli_vcpu=row.milli_vcpu,
            memory_mib=row.memory_mib,
            gpu_model=row.gpu_model,
            gpu_count=row.gpu_count,
            # A price of nothing is a price that nobody knows.
            price=Price(row.hourly_nanos, "USD", source, as_of, "fetched", self.cloud.gib_month_nanos or None)
            if row.told and row.hourly_nanos > 0
            else None,
            free=row.free if row.tell_free else None,
            quota=row.quota,
            images=self._images(row.arch),
            network=f"{self._account}/{row.region}",
        )

    def _images(self, arch: str) -> frozenset[str]:
        found = {image for image, each in self.cloud.images.items() if each == arch}
        return frozenset(found | {""} if found else found)

    async def list_nodes(self, scope: Scope) -> Listing:
        """All nodes that carry the scope's tags, also those that ended a moment ago if the cloud still shows them."""
        filters = scope.tags()
        found: dict[str, Node] = {}
        mark = reason = ""
        while True:
            try:
                page = await self.call("ListInstances", functools.partial(self.cloud.list_instances, filters, mark))
            except CloudmeshError as error:
                if not mark:
                    raise
                reason = f"a page didn't come: {error}"
                break
            for instance in page.instances:
                if scope.holds(instance.tags):  # some clouds take a filter and ignore it
                    found[instance.id] = self._node(instance)
            reason = page.warning
            if reason or not (mark := page.next_mark):
                break
        as_of = to_time(int(self.cloud.now()))
        if reason:
            return Partial(tuple(found.values()), as_of, reason)
        self._nodes = {node_id: kept for node_id, kept in self._nodes.items() if node_id in found}
        return Complete(tuple(found.values()), as_of)

    async def find_node(self, spec: NodeSpec) -> Node | None:
        """The node of a token by the most consistent read there is; None only if the cloud says there is none."""
        instances = await self.call("FindInstances", lambda: self.cloud.find_instances(spec.token))
        # Without native tokens there could be two: the oldest that lives is the one, the others are orphans.
        mine = [instance for instance in instances if instance.tags.get(TAG_TOKEN) == spec.token]
        mine.sort(key=lambda each: (not spec.scope.holds(each.tags), each.state == "Deleted", each.id))
        return self._own(mine[0], spec) if mine else None

    async def ensure_node(self, spec: NodeSpec) -> Node:
        """Makes the node of a token, or returns the one that is there; never a second one."""
        if self.info.native_tokens:
            return await self._create(spec)
        lock = self._creating.setdefault(spec.token, asyncio.Lock())
        async with lock:
            found = await self.find_node(spec)
            if found is None:
                return await self._create(spec)
        offer = spec.offer
        if (found.type, found.region, found.zone, found.purchase) != (
            offer.type,
            offer.region,
            offer.zone,
            offer.purchase,
        ):
            raise Conflict(f"the token {spec.token} was used for another order")
        return found

    async def _create(self, spec: NodeSpec) -> Node:
        offer = spec.offer
        order = Order(
            name=spec.name,
            client_token=spec.token,
            # In the create call itself: a tag that is set afterwards may never be set.
            tags={**spec.tags, **spec.scope.tags(), TAG_TOKEN: spec.token},
            type=offer.type,
            region=offer.region,
            zone=offer.zone,
            purchase=offer.purchase,
            image=spec.image,
            groups=tuple(group for group in (spec.ground.get("securityGroup", ""),) if group),
            disk_gib=spec.disk_gib or offer.disk_gib,
            authorized_keys=spec.access.authorized_keys,
            host_key=spec.access.host_public_key,
            public_address=spec.public_address,
        )
        try:
            made = await self.call(
                "RunInstance", lambda: self.cloud.run_instance(order), seconds=self.info.create_seconds
            )
        except AlreadyExists:
            # The name is taken: by a create of ours whose answer was lost, or by a stranger.
            found = await self.find_node(spec)
            if found is None:
                raise NameConflict(f"the name {spec.name!r} belongs to a machine of somebody else") from None
            return found
        return self._own(made, spec)

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        """Asks for a node's end; one that is gone is fine."""
        try:
            instance = await self.call("GetInstance", lambda: self.cloud.get_instance(node_id))
            if not scope.holds(instance.tags):
                raise Conflict(f"{node_id} isn't a machine of {scope.namespace}/{scope.account}")
            await self.call("TerminateInstance", lambda: self.cloud.terminate(node_id))
        except NotFound:
            return

    async def close(self) -> None:
        """Closes connections."""
        self._closed = True
        self._nodes.clear()

    def _own(self, instance: Instance, spec: NodeSpec) -> Node:
        if not spec.scope.holds(instance.tags) or instance.tags.get(TAG_TOKEN) != spec.token:
            raise Conflict(f"the machine {instance.id} of token {spec.token} belongs to somebody else")
        return self._node(instance)

    def _node(self, instance: Instance) -> Node:
        kept = self._nodes.get(instance.id)
        if kept is not None and kept[0] is instance:
            return kept[1]
        node = to_node(instance)
        self._nodes[instance.id] = (instance, node)
        return node


def to_node(instance: Instance) -> Node:
    """A machine in the words of the port."""
    running = instance.state == "Running"
    failure = None
    if instance.failure and instance.state in ("Failed", "Deleted"):
        failure = classify(
            instance.failure, f"{instance.type} {instance.purchase} in {instance.zone} could not be started"
        )
    return Node(
        id=instance.id,
        token=instance.tags.get(TAG_TOKEN, ""),
        state=instance.state,
        tags=instance.tags,
        type=instance.type,
        region=instance.region,
        zone=instance.zone,
        purchase=instance.purchase,
        image=instance.image,
        private_address=instance.private_address,
        public_address=instance.public_address,
        host=(instance.public_address or instance.private_address) if running else "",
        created_at=to_time(int(instance.created)),
        boot_id=instance.boot_id if running else "",
        host_key=instance.host_key,
        failure=failure,
        details={**instance.details, **({"diskGiB": str(instance.disk_gib)} if instance.disk_gib else {})},
    )
