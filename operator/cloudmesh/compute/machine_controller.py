"""The reconciler of VirtualMachine: each machine is made once, followed, and left behind by nobody."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute import machine_status as statuses
from cloudmesh.compute.access import ClusterAccess, read_access
from cloudmesh.compute.accounts import Accounts, Busy, shared
from cloudmesh.compute.firewalls import Firewalls
from cloudmesh.compute.kinds import VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_birth import Birth
from cloudmesh.compute.machine_calls import Calls
from cloudmesh.compute.machine_end import End
from cloudmesh.compute.machine_life import BOOKING_SECONDS, Case, Hands, Life
from cloudmesh.compute.machine_plan import Known, Outcome, Wanted, decide, read
from cloudmesh.compute.machines import MachineView, is_failed, view
from cloudmesh.compute.ports import Node
from cloudmesh.compute.probes import Probes, probe_ssh
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import (
    CloudmeshError,
    Done,
    Engine,
    Key,
    Obj,
    Settings,
    Unsupported,
    has_finalizer,
    is_abandoned,
    is_deleting,
)

GIB = 1 << 30
POWER_AGAIN_SECONDS = 30.0
MAX_VALUE = 253


class MachineStates(Protocol):
    """The bootstrap of clusters, as machines see it."""

    def machine_state(self, uid: str) -> tuple[Any, str]:
        """`Pending`, `Done` or `Failed`, and a message."""

    async def unmount(self, machine: MachineView, cluster_uid: str, access: ClusterAccess) -> tuple[str, ...]:
        """Takes the mounts of a machine away that is about to end; gives what isn't in its directory, in sentences."""


class MachineReconciler:
    """Keeps every VirtualMachine as its spec asks.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
        probes: Looks whether machines answer.
        bootstrap: Gives who says how far machines are set up; None where nothing is.
    """

    resource = VIRTUAL_MACHINE
    owns = ()

    def __init__(
        self,
        engine: Engine,
        accounts: Accounts,
        *,
        probes: Probes | None = None,
        bootstrap: Callable[[], MachineStates] | None = None,
    ) -> None:
        self._engine = engine
        self._accounts = accounts
        self._bootstrap = bootstrap
        self._lives: dict[Key, Life] = {}
        probe = functools.partial(probe_ssh, guard=accounts.guard)
        self._hands = Hands(engine, accounts, Calls(engine, accounts), probes or Probes(engine.enqueue, probe))
        self._birth = Birth(self._hands)
        self._end = End(self._hands, self._unmount if bootstrap is not None else None)
        engine.watch(VIRTUAL_MACHINE)
        engine.background("machine calls", self._hands.flights.run)
        engine.background("machine probes", self._hands.probes.run)
        engine.background("firewalls", Firewalls(accounts, self._hands.calls).run)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        life = self._lives.pop(key, None)
        if life is None:
            return
        self._hands.probes.forget(life.uid)
        account = self._accounts.get(key.namespace, life.wanted.account) if life.wanted is not None else None
        if account is not None and life.wanted is not None:
            account.forget_machine(life.wanted.token)
            account.judged.discard(life.uid)
            self._accounts.changed(account)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass; `machine_plan.decide` says what comes next."""
        deleting = is_deleting(obj)
        if deleting and not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        life = self._life(key, obj)
        wanted = self._wanted(life, obj)
        account = self._accounts.get(key.namespace, wanted.account)
        if account is None:
            if deleting and is_abandoned(obj):
                return await self._end.abandon_unasked(obj, life, wanted)
            return await self._end.without_account(obj, life, wanted)
        account.keys[wanted.token] = key
        if self._hands.flights.busy(life.uid):
            return Done()
        case = Case(key, obj, life, wanted, account)
        if deleting and is_abandoned(obj):
            return await self._end.abandon(case)
        if not deleting and (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(case)
        return await self._step(case, self._known(case))

    async def _step(self, case: Case, known: Known) -> Done:
        node = known.node
        match decide(known):
            case "Stamp":
                return await self._birth.stamp(case)
            case "Look":
                return await self._birth.look(case)
            case "Live" if node is not None:
                return await self._live(case, node)
            case "Wait":
                return await self._end.wait(case)
            case "Lost":
                return await self._end.lost(case, node)
            case "GiveUp" if node is not None:
                return await self._end.give_up(case, node)
            case "Delete" | "CleanUp" if node is not None:
                return await self._end.delete(case, node)
            case "End":
                return await self._end.end(case)
            case _:
                return await self._end.rest(case, known)

    # -- what is known ---------------------------------------------------------------------------------------------

    def _life(self, key: Key, obj: Obj) -> Life:
        uid = obj["metadata"]["uid"]
        life = self._lives.get(key)
        if life is None or life.uid != uid:
            status = obj.get("status") or {}
            outcome: Outcome = "clear"
            if status.get("providerID"):
                outcome = "made"
            elif status.get("createToken") and not is_failed(status):
                outcome = "unknown"  # an earlier leader may have asked, and not have lived to hear the answer
            clock = self._hands.clock()
            asked = "createToken" in status
            life = self._lives[key] = Life(uid, outcome, clock, clock, asked=asked, newborn=not asked)
        return life

    def _wanted(self, life: Life, obj: Obj) -> Wanted:
        generation = int(obj["metadata"].get("generation", 0))
        if life.wanted is None or life.generation != generation:
            disk = obj["spec"].get("disk")
            gib = int(-(-parse_quantity(disk["size"]) // GIB)) if disk else 0
            owner = (obj["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID, "")
            life.wanted, life.generation = read(obj, gib, owner), generation
        return life.wanted

    def _known(self, case: Case) -> Known:
        life, nodes, token = case.life, case.account.nodes, case.wanted.token
        node = nodes.get(token)
        node_id = case.status.get("providerID")
        if node is not None and node_id and node.id != node_id:
            node = next((other for other in nodes.extras(token) if other.id == node_id), node)
        if not life.asked and "createToken" in case.status:
            # another leader has asked for it: what this process knows of its own calls proves nothing any more
            life.asked = True
            if life.outcome == "clear" and not is_failed(case.status):
                life.outcome, life.since = "unknown", self._hands.clock()
        if life.doubted and life.outcome == "clear" and is_deleting(case.obj):
            life.outcome = "unknown"
        if node is not None:
            life.outcome = "made"
        since = life.since + (case.account.info.create_seconds if life.outcome == "unknown" else 0)
        return Known(
            node=node,
            absent=node is None and life.outcome != "clear" and nodes.absent(token, since),
            outcome=life.outcome,
            failed=is_failed(case.status),
            deleting=is_deleting(case.obj),
            released=life.released,
        )

    # -- life ------------------------------------------------------------------------------------------------------

    async def _live(self, case: Case, node: Node) -> Done:
        hands, account, wanted, old = self._hands, case.account, case.wanted, case.status
        if case.life.newborn and node.state == "Pending" and "providerID" not in old and not case.life.listed:
            # its id is told with what the next listing shows: until then it is found by its token
            case.life.listed = True
            case.expect()
            return Done(requeue_after=2 * account.info.poll_seconds)
        booked, budget = hands.booked(case), statuses.Refusal()
        if wanted.power == "Running":
            budget = hands.over_budget(case, statuses.whole_price(old), runs=node.state not in statuses.REST)
        too_much = hands.over_by_disks(case)
        budget = budget or too_much
        if too_much or (budget and "StartStop" not in account.powers):  # one that only sleeps is billed on
            await hands.write(case, statuses.over_budget(old, case.generation, hands.now(), budget))
            return await self._end.delete(case, node)
        if budget:
            wanted = replace(wanted, power="Stopped")
        living = statuses.living(
            wanted, old, case.generation, hands.now(), node, account.info, self._sight(case, node),
            network=hands.calls.network(account, wanted), booked=booked, budget=budget,
        )  # fmt: skip
        status = living.status
        statuses.note_price(status, hands.calls.offer(account, wanted), wanted.disk_gib)
        if account.priced is not None:  # else its offers aren't read yet
            status.pop("currentPrice", None)
        if now_price := statuses.moved_price(status.get("hourlyPrice"), account.offer(wanted.offer_id)):
            status["currentPrice"] = now_price
        hands.charged(case, status)
        if "image" not in status and (image := hands.calls.made_of(account, wanted, node)):
            status["image"] = image[: statuses.MESSAGE_LENGTH]
        restart = self._restart(case, status, node)
        await hands.write(case, status)
        for event in living.events:
            hands.tell(case, event)
        if living.settled:
            case.settled()
        else:
            case.expect()
        if case.life.newborn and c.is_true(status["conditions"], c.READY):
            case.life.newborn = False
            hands.calls.observe_start(account, wanted, old)
        if double := next((other for other in account.nodes.extras(wanted.token) if other.id != node.id), None):
            self._end.delete_double(case, node, double)
            return Done()
        done = self._act(case, node, living.power, restart, booked=booked)
        return Done(requeue_after=BOOKING_SECONDS) if statuses.turns(status) and not done.requeue_after else done

    def _sight(self, case: Case, node: Node) -> statuses.Sight:
        hands, account = self._hands, case.account
        sight = statuses.Sight(
            boot=self._boot_state(case.wanted),
            silent=account.silent,
            powers=account.powers,
            drift=hands.calls.drift(case.obj, case.wanted, account, node),
        )
        if account.info.ssh and node.state == "Running" and node.host:
            reached, trouble = hands.probes.result(case.life.uid, case.key, node.host, node.port, node.boot_id)
            return replace(sight, reached=reached, trouble=trouble)
        hands.probes.forget(case.life.uid)
        return sight

    def _boot_state(self, wanted: Wanted) -> statuses.Boot:
        if not wanted.cluster or self._bootstrap is None:
            return ("None", "")
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, wanted.namespace, wanted.cluster)
        kind: Mapping[str, Any] = ((cluster or {}).get("spec") or {}).get("bootstrap") or {}
        if not kind or "ssh" in kind:
            return ("None", "")
        return self._bootstrap().machine_state(wanted.uid)

    async def _unmount(self, machine: Obj) -> tuple[str, ...]:
        """Takes away what its cluster mounted there; gives what isn't in its directory, in sentences.

        Raises:
            CloudmeshError: It can't be said whether that is gone.
        """
        seen = view(machine)
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, seen.namespace, seen.cluster) if seen.cluster else None
        conditions = ((cluster or {}).get("status") or {}).get("conditions") or ()
        if cluster is None or self._bootstrap is None or c.find_condition(conditions, c.MOUNTED) is None:
            return ()
        if seen.host and (access := await read_access(self._engine, cluster)) is not None:
            return await self._bootstrap().unmount(seen, cluster["metadata"]["uid"], access)
        return ()

    def _restart(self, case: Case, status: statuses.Status, node: Node) -> str:
        """The value of the restart annotation that is still to be acted on."""
        annotations = case.obj["metadata"].get("annotations") or {}
        value = annotations.get(names.ANNOTATION_RESTARTED_AT, "")[:MAX_VALUE]
        if not value or value == case.status.get("restartedAt"):
            return ""
        # one that starts for the first time needs no restart
        if value == case.life.restarted or not case.status.get("providerID"):
            status["restartedAt"] = value
            return ""
        return value if node.state == "Running" else ""

    def _act(self, case: Case, node: Node, power: statuses.Power, restart: str, *, booked: bool) -> Done:
        """Changes the machine's power, if the same wasn't asked for a moment ago."""
        hands, life = self._hands, case.life
        if not power and not restart:
            return Done()
        if power in ("start", "resume") and not booked:
            return Done(requeue_after=BOOKING_SECONDS)
        what = power or f"restart {restart}"
        if life.powered[0] == what and (wait := life.powered[1] + POWER_AGAIN_SECONDS - hands.clock()) > 0:
            return Done(requeue_after=wait)
        life.powered = (what, hands.clock())

        async def work() -> None:
            wait = None
            try:
                if power:
                    await hands.calls.power(case.account, case.wanted, node, power)
                else:
                    await hands.calls.reboot(case.account, case.wanted, node)
                    life.restarted = restart
            except Busy as busy:
                wait = busy.seconds
                life.powered = ("", 0.0)
            except CloudmeshError as error:
                if isinstance(error, Unsupported):
                    life.restarted = restart or life.restarted
                hands.warn(case, error.reason, f"{power or 'restart'} of {node.id}: {error}")
            case.expect()
            hands.again(case, wait)

        hands.fly(case, work)
        return Done()

    async def _pause(self, case: Case) -> Done:
        conditions = c.Conditions(case.status, case.generation, self._hands.now())
        conditions.pause(names.ANNOTATION_PAUSED)
        await self._hands.write(case, {**case.status, "conditions": conditions.list})
        return Done()


def reconciler(engine: Engine, settings: Settings) -> MachineReconciler:
    """The reconciler of an operator."""

    def bootstrap() -> MachineStates:
        from cloudmesh.compute.bootstrap.shared import bootstrap_of  # loads an SSH library, which few need at once

        return bootstrap_of(engine)

    accounts = shared(engine, settings=ComputeSettings.from_environ())
    return MachineReconciler(engine, accounts, bootstrap=bootstrap)
