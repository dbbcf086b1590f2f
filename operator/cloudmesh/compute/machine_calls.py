"""What is asked of a cloud for one machine, and what must be known or made before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from cloudmesh.api import names
from cloudmesh.compute.access import ClusterAccess, ensure_access
from cloudmesh.compute.accounts import Account, Accounts
from cloudmesh.compute.ground import Grounds
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_plan import Wanted
from cloudmesh.compute.machine_status import Power, is_charged_more, moved_price
from cloudmesh.compute.ports import Access, Adopt, ClusterSpec, Node, NodeSpec, Reboot, Release, StartStop, Suspend
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.tokens import NOTE_LEFT, TAG_ADOPTED, TAG_CLUSTER, TAG_MACHINE, TAG_TOKEN, TAG_UID
from cloudmesh.engine import (
    AuthFailed,
    Engine,
    NotFound,
    Obj,
    Transient,
    Unsupported,
    is_deleting,
    owner_reference,
)
from cloudmesh.policy.model import Offer

CALL_SECONDS = 30.0
LIVE_SECONDS = 1.0
"""A live look at a cluster serves all of its machines for so long."""
LET_GO_SECONDS = 10.0


class Parentless(Exception):
    """The cluster that the machine belongs to is gone, or going: nothing is made for it."""


class Calls:
    """Calls for machines.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
    """

    def __init__(self, engine: Engine, accounts: Accounts) -> None:
        self._engine = engine
        self._accounts = accounts
        self.grounds = Grounds()
        self._parents: dict[tuple[str, str], tuple[float, Obj]] = {}
        self._looking: dict[tuple[str, str], asyncio.Lock] = {}

    # -- birth -----------------------------------------------------------------------------------------------------

    def offer(self, account: Account, wanted: Wanted) -> Offer:
        """The offer of a machine, with what the account knows of it."""
        known = account.offer(wanted.offer_id)
        if known is not None:
            return known
        place = wanted.offer
        return Offer(
            account=account.name,
            type=place["type"],
            region=place["region"],
            zone=place["zone"],
            purchase="Spot" if place["purchase"] == "Spot" else "OnDemand",
        )

    def network(self, account: Account, wanted: Wanted) -> str:
        """Name of the network that machines of its offer share."""
        return self.offer(account, wanted).network

    async def prepare(self, obj: Obj, wanted: Wanted, account: Account) -> NodeSpec:
        """All that comes before the create call.

        Raises:
            Parentless: Nothing may be made any more.
            CloudmeshError: Something couldn't be made or read.
        """
        try:
            parent = await self._parent(wanted)
            await self._accounts.hold(account)
            owner = parent or obj
            access = await self._access(owner, account)
        except AuthFailed as error:
            # said by the API server, of the operator's own rights: the account's credentials have no part in it
            raise Transient(f"the operator lacks a right: {error}") from error
        ground = await self.ground(owner, account)
        mode = (owner["spec"].get("network") or {}).get("mode")
        return self.node_spec(obj, wanted, account, access=access, ground=ground, public=mode == "PublicAddress")

    async def ground(self, owner: Obj, account: Account, *, again: bool = False) -> Mapping[str, str]:
        """Prepares a cluster, or a machine that stands alone, in an account.

        Args:
            owner: Whose.
            account: Where.
            again: Also if that is done: somebody may have taken it away. Without it, no call is made then.
        """
        access = await self._access(owner, account)
        return await self.grounds.prepare(account, self._cluster_spec(owner, account, access), again=again)

    async def _access(self, owner: Obj, account: Account) -> Access:
        if not account.info.ssh:
            return Access()
        spec = owner["spec"]
        keys = (spec.get("access") or {}).get("sshPublicKeys") or ()
        return await ensure_access(
            self._engine, owner, public_keys=keys, slurm="slurm" in (spec.get("bootstrap") or {})
        )

    @staticmethod
    def owner_uid(obj: Obj) -> str:
        """Uid of what a machine's ground is prepared for: its cluster, or itself."""
        if obj["spec"].get("clusterRef"):
            return str((obj["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID, ""))
        return str(obj["metadata"]["uid"])

    def node_spec(
        self,
        obj: Obj,
        wanted: Wanted,
        account: Account,
        *,
        access: Access | None = None,
        ground: Mapping[str, str] | None = None,
        public: bool = False,
    ) -> NodeSpec:
        """The machine as a provider reads it."""
        return NodeSpec(
            token=wanted.token,
            name=wanted.name,
            scope=account.scope,
            cluster=wanted.cluster,
            uid=wanted.uid,
            offer=self.offer(account, wanted),
            image=self._image(account, wanted),
            access=access or Access(),
            disk_gib=wanted.disk_gib,
            tags=self.tags(account, wanted),
            public_address=public,
            ground=ground or {},
            owner=owner_reference(obj),
        )

    def tags(self, account: Account, wanted: Wanted) -> dict[str, str]:
        """All tags of its node."""
        tags = account.scope.tags() | {
            TAG_MACHINE: wanted.name,
            TAG_UID: wanted.uid,
            TAG_TOKEN: wanted.token,
        }
        if wanted.adopt:
            tags[TAG_ADOPTED] = "true"
        return tags | {TAG_CLUSTER: wanted.cluster} if wanted.cluster else tags

    async def make(self, spec: NodeSpec, wanted: Wanted, account: Account) -> Node:
        """Makes the machine, or takes over the one that is there.

        Raises:
            CloudmeshError: As the provider raises it; a Transient is an unknown outcome.
        """
        provider = account.provider
        seconds = float(account.info.create_seconds)
        if wanted.adopt:
            if not isinstance(provider, Adopt):
                raise Unsupported(f"CloudAccount '{account.name}' can't take machines over")
            return await account.call(
                "adopt_node",
                lambda: provider.adopt_node(wanted.adopt, spec.tags),
                caller=wanted.token,
                seconds=seconds,
                effect=True,
            )
        return await account.call(
            "ensure_node", lambda: provider.ensure_node(spec), caller=wanted.token, seconds=seconds, effect=True
        )

    async def find(self, wanted: Wanted, account: Account, obj: Obj) -> Node | None:
        """Looks the machine up by its token."""
        spec = self.node_spec(obj, wanted, account)
        return await account.call(
            "find_node", lambda: account.provider.find_node(spec), caller=wanted.token, seconds=CALL_SECONDS
        )

    def observe_start(self, account: Account, wanted: Wanted, status: Mapping[str, Any]) -> None:
        """Notes how long it took to be ready."""
        if asked := status.get("createRequestedAt"):
            seconds = to_seconds(self._accounts.now()) - to_seconds(asked)
            account.observe_start(wanted.offer["type"], seconds)

    def _image(self, account: Account, wanted: Wanted) -> str:
        return account.images.get(wanted.image, wanted.image)

    def made_of(self, account: Account, wanted: Wanted, node: Node) -> str:
        """The image that a machine was just made with: the one that it shows, or the default if it took that."""
        default = "" if wanted.image or wanted.adopt else default_image(account)
        return default or node.image

    def _images(self, obj: Obj, wanted: Wanted, account: Account, node: Node) -> tuple[str, str]:
        """The image that a machine should have, and the one that it has, empty where nobody knows."""
        if wanted.adopt:
            return "", node.image
        if wanted.image:
            return self._image(account, wanted), node.image
        made = str((obj.get("status") or {}).get("image", ""))
        if default := default_image(account):
            return default, made  # as the cloud shows it, it may have another name
        return made, node.image

    async def _parent(self, wanted: Wanted) -> Obj | None:
        """A live look at its cluster; one look serves all machines of the cluster for a moment."""
        if not wanted.cluster:
            return None
        place = (wanted.namespace, wanted.cluster)
        loop = asyncio.get_running_loop()
        async with self._looking.setdefault(place, asyncio.Lock()):
            seen, parent = self._parents.get(place, (float("-inf"), None))
            if parent is None or loop.time() - seen > LIVE_SECONDS:
                begun = loop.time()
                parent = await self._engine.kube.get(VIRTUAL_CLUSTER, *place)
                if parent is None:
                    raise Parentless(f"VirtualCluster '{wanted.cluster}' isn't there")
                self._parents[place] = (begun, parent)
        if is_deleting(parent):
            raise Parentless(f"VirtualCluster '{wanted.cluster}' is being deleted")
        if wanted.owner_uid and parent["metadata"]["uid"] != wanted.owner_uid:
            raise Parentless(f"VirtualCluster '{wanted.cluster}' was deleted and made anew")
        return parent

    def _cluster_spec(self, owner: Obj, account: Account, access: Access | None = None) -> ClusterSpec:
        meta, spec = owner["metadata"], owner["spec"]
        return ClusterSpec(
            scope=account.scope,
            name=meta["name"],
            uid=meta["uid"],
            source_ranges=tuple((spec.get("access") or {}).get("sourceRanges") or ()),
            public_key=access.client_public_key if isinstance(access, ClusterAccess) else "",
            owner=owner_reference(owner),
        )

    # -- life ------------------------------------------------------------------------------------------------------

    def drift(self, obj: Obj, wanted: Wanted, account: Account, node: Node) -> dict[str, tuple[str, str]]:
        """What differs from what was asked for, by field: expected and found."""
        found: dict[str, tuple[str, str]] = {}
        place = wanted.offer
        pairs = [
            ("type", place["type"], node.type),
            ("region", place["region"], node.region),
            ("zone", place["zone"], node.zone),
            ("image", *self._images(obj, wanted, account, node)),
            ("disk", str(wanted.disk_gib or ""), node.details.get("diskGiB", "")),
        ]
        for name, expected, seen in pairs:
            if expected and seen and expected != seen:
                found[name] = (expected, seen)
        tags = self.tags(account, wanted)
        if node.tags and (wrong := sorted(key for key, value in tags.items() if node.tags.get(key) != value)):
            found["tags"] = (
                ", ".join(f"{key}={tags[key]}" for key in wrong),
                ", ".join(f"{key}={node.tags.get(key, '')}" for key in wrong),
            )
        if (firewall := self.grounds.drift(account, self.owner_uid(obj))) is not None:
            found["firewall"] = firewall
        held = (obj.get("status") or {}).get("hourlyPrice")
        current = moved_price(held, account.offer(wanted.offer_id))
        if held and current and is_charged_more(held, current, place["purchase"]):
            found["price"] = (f"{held['amount']} {held['currency']}", f"{current['amount']} {current['currency']}")
        if account.priced is None:  # its offers aren't read yet: what was told stands
            told = (obj.get("status") or {}).get("drift") or ()
            found |= {d["field"]: (d["expected"], d["found"]) for d in told if d["field"] == "price"}
        return found

    async def power(self, account: Account, wanted: Wanted, node: Node, power: Power) -> None:
        """Asks for another power state."""
        provider = account.provider
        if power in ("start", "stop") and isinstance(provider, StartStop):
            work = provider.start_node if power == "start" else provider.stop_node
        elif power in ("suspend", "resume") and isinstance(provider, Suspend):
            work = provider.suspend_node if power == "suspend" else provider.resume_node
        else:
            raise Unsupported(f"CloudAccount '{account.name}' can't {power} machines")
        await account.call(f"{power}_node", lambda: work(node.id), caller=wanted.token, effect=True)

    async def reboot(self, account: Account, wanted: Wanted, node: Node) -> None:
        """Starts it anew."""
        provider = account.provider
        if not isinstance(provider, Reboot):
            raise Unsupported(f"CloudAccount '{account.name}' can't restart machines")
        await account.call("reboot_node", lambda: provider.reboot_node(node.id), caller=wanted.token, effect=True)

    # -- end -------------------------------------------------------------------------------------------------------

    async def delete(self, account: Account, wanted: Wanted, node_id: str) -> None:
        """Asks for its end."""
        await account.call(
            "delete_node",
            lambda: account.provider.delete_node(node_id, account.scope),
            caller=wanted.token,
            effect=True,
        )

    async def release(self, account: Account, wanted: Wanted, node_id: str, seconds: float = CALL_SECONDS) -> bool:
        """Gives an adopted machine back; it goes on."""
        provider = account.provider
        if not isinstance(provider, Release):
            raise Unsupported(f"CloudAccount '{account.name}' can't give machines back")
        await account.call(
            "release_node",
            lambda: provider.release_node(node_id),
            caller=wanted.token,
            seconds=seconds,
            effect=True,
        )
        return True

    async def note_left(self, wanted: Wanted, node_id: str) -> None:
        """Notes with its account that a machine is left behind: nobody collects it, whatever tags it keeps.

        Raises:
            CloudmeshError: It can't be written.
        """
        obj = self._engine.cache.get(CLOUD_ACCOUNT, wanted.namespace, wanted.account)
        if obj is None or NOTE_LEFT + wanted.token in (obj["metadata"].get("annotations") or {}):
            return
        note = {"metadata": {"uid": obj["metadata"]["uid"], "annotations": {NOTE_LEFT + wanted.token: node_id}}}
        with contextlib.suppress(NotFound):
            noted = await self._engine.kube.patch(CLOUD_ACCOUNT, wanted.namespace, wanted.account, note)
            self._engine.cache.put(CLOUD_ACCOUNT, noted)

    async def let_go(self, account: Account, wanted: Wanted, node_id: str) -> None:
        """Takes our tags off a machine that is left behind, where that can be done.

        Raises:
            CloudmeshError: As the provider raises it.
        """
        if isinstance(account.provider, Release):
            await self.release(account, wanted, node_id, LET_GO_SECONDS)

    async def clear(self, obj: Obj, wanted: Wanted, account: Account) -> bool:
        """Takes away what its cluster had in the account, if it was the last there; False: try again later."""
        owner: Obj = obj
        if wanted.cluster:
            parent = self._engine.cache.get(VIRTUAL_CLUSTER, wanted.namespace, wanted.cluster)
            if parent is None:
                parent = {
                    "apiVersion": VIRTUAL_CLUSTER.api_version,
                    "kind": VIRTUAL_CLUSTER.kind,
                    "metadata": {"name": wanted.cluster, "uid": wanted.owner_uid},
                    "spec": {},
                }
            owner = parent

        def is_last() -> bool:
            return not any(
                other["metadata"]["uid"] != wanted.uid
                and (other["spec"].get("clusterRef") or {}).get("name", "") == wanted.cluster
                and not _is_over(other)
                for other in self._siblings(obj, wanted, account)
            )

        return await self.grounds.clear(account, self._cluster_spec(owner, account), is_last)

    def _siblings(self, obj: Obj, wanted: Wanted, account: Account) -> list[Obj]:
        if not wanted.cluster:
            return []
        cache = self._engine.cache
        owned = cache.children(wanted.owner_uid, VIRTUAL_MACHINE) if wanted.owner_uid else []
        found = owned or cache.list(VIRTUAL_MACHINE, wanted.namespace)
        return [other for other in found if other["spec"]["accountRef"]["name"] == account.name]


def default_image(account: Account) -> str:
    """What an account's machines are made of that name no image; empty where the provider has no such default."""
    return str(getattr(account.provider, "default_image", ""))


def _is_over(obj: Obj) -> bool:
    """Whether a machine stands on nothing: it is seen gone, or nothing was asked for it (what it will need is made)."""
    status = obj.get("status") or {}
    return bool(status.get("state") == "Deleted" or not status.get("createToken"))
