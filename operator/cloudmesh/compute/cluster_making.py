"""Makes, removes and wakes the machines of a cluster, as its plan says and its quote allows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.cluster_memory import Memory
from cloudmesh.compute.cluster_objects import make_machine
from cloudmesh.compute.cluster_offers import Chosen, Offers
from cloudmesh.compute.cluster_status import Trouble, clash
from cloudmesh.compute.cluster_telling import Pass, Teller
from cloudmesh.compute.cluster_words import Event, say_machines, say_next
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.plan import NewMachine, machines
from cloudmesh.compute.providers.registry import DEFAULT_ACCOUNT_NAME
from cloudmesh.compute.reading import ANNOTATION_POWER_SINCE, ANNOTATION_TEMPLATE
from cloudmesh.engine import AlreadyExists, Engine, NameConflict, NotFound, Obj, Transient, is_deleting, is_owned_by

AT_ONCE = 16
TOLD = frozenset({"Replaced", "Outdated", "ScaledDown", "PoolRemoved"})
"""Reasons of removals that are told; the others go with an event of Ready."""


class Maker:
    """Changes VirtualMachines.

    Args:
        engine: Access to the cluster.
        offers: Chooses what they are made of.
        teller: Publishes the quote before anything is made.
        default_account: Makes the default CloudAccount in a namespace that names none; None where nobody does.
    """

    def __init__(
        self,
        engine: Engine,
        offers: Offers,
        teller: Teller,
        default_account: Callable[[str], Awaitable[object]] | None,
    ) -> None:
        self._engine = engine
        self._offers = offers
        self._teller = teller
        self._default_account = default_account

    async def provide(self, at: Pass) -> Chosen:
        """Chooses offers for what is needed, publishes the quote, and makes the machines."""
        asked, needed = at.memory.asked, at.needed
        if not (needed.create or needed.later or needed.power or any(p.adopt for p in needed.pools)):
            return Chosen()
        await self._offers.recall(at.memory, at.obj)
        await self._ensure_default_account(asked)
        chosen = await self._offers.choose(at.memory, at.obj, at.there.members, needed, at.now_text)
        if chosen.trouble is not None and not chosen.decisions:
            return chosen
        new = machines(asked, needed, chosen.decisions)
        if not new and not chosen.publish:
            return chosen
        obj = await self._engine.finalizers.ensure(VIRTUAL_CLUSTER, at.obj)
        if chosen.publish:
            obj = await self._teller.publish_quote(replace(at, obj=obj), chosen)
        if is_deleting(obj):
            return Chosen(trouble=Trouble(c.REASON_PENDING, "it is being deleted", scheduled=False))
        return await self._make(at, obj, chosen, asked, new) if new else chosen

    async def keep(self, at: Pass, kept: Memory, chosen: Chosen) -> Chosen:
        """While something else waits: makes what was approved already, such as replacements.

        Args:
            at: The pass, with the plan of what was approved.
            kept: What was approved.
            chosen: What came of what is asked for now.
        """
        asked, needed = kept.asked, replace(at.needed, pools=tuple(replace(p, adopt=()) for p in at.needed.pools))
        if not needed.create:
            return chosen
        found = await self._offers.choose(kept, at.obj, at.there.members, needed, at.now_text)
        new = machines(asked, needed, found.decisions)
        if not new:
            return chosen
        obj = await self._engine.finalizers.ensure(VIRTUAL_CLUSTER, at.obj)
        if is_deleting(obj):
            return chosen
        made = await self._make(replace(at, needed=needed), obj, found, asked, new)
        return replace(chosen, made=made.made)

    async def _make(self, at: Pass, obj: Obj, chosen: Chosen, asked: Asked, new: Sequence[NewMachine]) -> Chosen:
        try:
            await self._teller.access(at.memory, obj)
        except NameConflict as error:
            return replace(chosen, trouble=clash(str(error)))
        if conflict := await self._create(obj, asked, new):
            return replace(chosen, trouble=clash(conflict))
        for event in (*say_machines(new, chosen.quote, chosen.rejected), *say_next(at.there.members, new)):
            self._teller.emit(obj, event)
        return replace(chosen, made=True)

    async def _ensure_default_account(self, asked: Asked) -> None:
        if asked.accounts is not None or asked.account_labels is not None or self._default_account is None:
            return
        if self._engine.cache.get(CLOUD_ACCOUNT, asked.namespace, DEFAULT_ACCOUNT_NAME) is None:
            await self._default_account(asked.namespace)

    async def _create(self, obj: Obj, asked: Asked, new: Sequence[NewMachine]) -> str:
        """Makes the objects; gives the message of a name conflict, or nothing."""
        for begin in range(0, len(new), AT_ONCE):
            bodies = [make_machine(obj, asked, one) for one in new[begin : begin + AT_ONCE]]
            answers = await asyncio.gather(*(self._create_one(obj, body) for body in bodies), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
            if conflict := next((answer for answer in answers if answer), ""):
                return str(conflict)
        return ""

    async def _create_one(self, obj: Obj, body: Obj) -> str:
        try:
            await self._engine.kube.create(VIRTUAL_MACHINE, body)
        except AlreadyExists:
            namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
            there = await self._engine.kube.get(VIRTUAL_MACHINE, namespace, name)
            if there is None or is_deleting(there):
                raise Transient(f"VirtualMachine '{name}' is being deleted") from None
            if is_owned_by(there, obj["metadata"]["uid"]):
                self._engine.cache.put(VIRTUAL_MACHINE, there)  # an answer of ours that was lost
                return ""
            if _of_earlier_life(there, obj):
                raise Transient(f"VirtualMachine '{name}' of a deleted cluster is going") from None
            return (
                f"VirtualMachine '{name}' exists and isn't of this cluster; delete it or give the cluster another name"
            )
        return ""

    # -- removing and waking -----------------------------------------------------------------------------------------

    async def remove(self, at: Pass, chosen: Chosen) -> None:
        """Takes machines away; those that tell why others are needed only when these are there."""
        waits = not at.kept and chosen.trouble is not None and chosen.trouble.reason == c.REASON_AWAITING_APPROVAL
        for removal in at.needed.delete:
            if removal.after and not chosen.made:
                continue
            if removal.reason == "Outdated" and waits:
                continue  # nobody approved yet what it would be replaced by
            member = removal.member
            namespace = at.obj["metadata"]["namespace"]
            await self._engine.kube.delete(VIRTUAL_MACHINE, namespace, member.name, uid=member.uid)
            at.memory.deleted.add(member.uid)
            if removal.reason in TOLD:
                why = f": {removal.message}" if removal.message else ""
                self._teller.emit(at.obj, Event("Normal", removal.reason, f"machine '{member.name}' goes{why}"))

    async def mark(self, at: Pass, *, may_wake: bool) -> None:
        """Tells machines their powerState, and stamps those whose hash is of an older version."""
        for member, power in at.needed.power:
            if power == "Running" and not may_wake:
                continue
            changes: Obj = {
                "metadata": {"annotations": {ANNOTATION_POWER_SINCE: at.now_text}},
                "spec": {"powerState": power},
            }
            await self._patch(at.obj, member.name, member.uid, changes)
        for pool in at.needed.pools:
            for member in pool.restamp:
                stamp = {ANNOTATION_TEMPLATE: pool.pool.templates[member.alternative]}
                await self._patch(at.obj, member.name, member.uid, {"metadata": {"annotations": stamp}})

    async def end_all(self, obj: Obj, *, let_go: bool) -> Sequence[Obj]:
        """Takes all machines away, or lets them go; gives those that are still there.

        Args:
            obj: The cluster.
            let_go: The machines stay in their clouds; who looks after them tells of each.
        """
        uid, namespace = obj["metadata"]["uid"], obj["metadata"]["namespace"]
        left = self._engine.cache.children(uid, VIRTUAL_MACHINE)
        if not left:
            # the cache may be behind: only the API server says that there is none
            selector = f"{names.LABEL_OWNER_UID}={uid}"
            left, _ = await self._engine.kube.list(VIRTUAL_MACHINE, namespace, label_selector=selector)
        for machine in left:
            meta = machine["metadata"]
            if let_go and (meta.get("annotations") or {}).get(names.ANNOTATION_ABANDON) != meta["uid"]:
                abandon = {"metadata": {"annotations": {names.ANNOTATION_ABANDON: meta["uid"]}}}
                await self._patch(obj, meta["name"], meta["uid"], abandon)
            if not is_deleting(machine):
                await self._engine.kube.delete(VIRTUAL_MACHINE, namespace, meta["name"], uid=meta["uid"])
        return left

    async def _patch(self, obj: Obj, name: str, uid: str, changes: Obj) -> None:
        """Changes a machine of this very uid; one that is gone needs no change."""
        patch = changes | {"metadata": {**changes["metadata"], "uid": uid}}
        with contextlib.suppress(NotFound):
            await self._engine.kube.patch(VIRTUAL_MACHINE, obj["metadata"]["namespace"], name, patch)


def _of_earlier_life(machine: Obj, owner: Obj) -> bool:
    """Whether it belongs to a cluster of the same name that was deleted."""
    labels = machine["metadata"].get("labels") or {}
    mine = (names.MANAGED_BY, owner["kind"], owner["metadata"]["name"])
    keys = (names.LABEL_MANAGED_BY, names.LABEL_OWNER_KIND, names.LABEL_OWNER_NAME)
    return mine == tuple(labels.get(key) for key in keys)
