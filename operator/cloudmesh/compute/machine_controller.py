"""The reconciler of VirtualMachine: each machine is made once, followed, and left behind by nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute import machine_status as statuses
from cloudmesh.compute.accounts import Account, Accounts, Busy, shared
from cloudmesh.compute.budget_plan import is_booked, labels_of
from cloudmesh.compute.flights import Flights
from cloudmesh.compute.kinds import BUDGET, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machine_calls import Calls, Parentless
from cloudmesh.compute.machine_plan import Known, Outcome, Wanted, decide, read
from cloudmesh.compute.machines import is_failed
from cloudmesh.compute.ports import Node
from cloudmesh.compute.probes import Probes
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import (
    CapacityUnavailable,
    CloudmeshError,
    Conflict,
    Done,
    Engine,
    InvalidRequest,
    Key,
    Obj,
    QuotaExceeded,
    RateLimited,
    Settings,
    Transient,
    has_finalizer,
    is_abandoned,
    is_deleting,
)

MIB_A_GIB = 1 << 30
MAX_TRIES = 4
"""So often a create with unknown outcome, proven to have made nothing, is tried before the offer is given up."""
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
DELETE_AGAIN_SECONDS = 30.0
POWER_AGAIN_SECONDS = 30.0
LOOK_AGAIN_SECONDS = 60.0
BOOKING_SECONDS = 5.0


@dataclass(slots=True)
class Life:
    """What this process knows of a machine besides its status.

    Args:
        uid: Uid of the VirtualMachine.
        outcome: Of the create calls.
        since: When one of them may last have been under way, on the loop's clock.
    """

    uid: str
    outcome: Outcome
    since: float
    tries: int = 0
    looks: int = 0
    refusal: CloudmeshError | None = None
    trouble: str = ""
    not_before: float = 0.0
    deleted_at: float = float("-inf")
    powered_at: float = float("-inf")
    released: bool = False
    cleared: bool = False
    found: bool = False
    wanted: tuple[Any, Wanted] | None = None


class MachineStates(Protocol):
    """The bootstrap of clusters, as machines see it."""

    def machine_state(self, uid: str) -> tuple[Any, str]:
        """`Pending`, `Done` or `Failed`, and a message."""


class MachineReconciler:
    """Keeps every VirtualMachine as its spec asks.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
        probes: Looks whether machines answer.
        bootstrap: Says how far machines are set up; None where nothing is.
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
        self._flights = Flights()
        self._calls = Calls(engine, accounts)
        self._probes = probes or Probes(engine.enqueue)
        self._bootstrap = bootstrap
        self._lives: dict[Key, Life] = {}
        engine.background("machine calls", self._flights.run)
        engine.background("machine probes", self._probes.run)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        life = self._lives.pop(key, None)
        if life is None or life.wanted is None:
            return
        self._probes.forget(life.uid)
        wanted = life.wanted[1]
        account = self._accounts.get(key.namespace, wanted.account)
        if account is not None:
            account.settled(wanted.token)
            account.keys.pop(wanted.token, None)
            account.nodes.drop(wanted.token)
            self._accounts.changed(account)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass; see `machine_plan.decide` for the order of things."""
        life = self._life(key, obj)
        wanted = self._wanted(life, obj)
        if is_deleting(obj) and not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        if is_deleting(obj) and is_abandoned(obj):
            return await self._abandon(obj, wanted)
        paused = (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true"
        if paused and not is_deleting(obj):
            return await self._pause(obj)
        account = self._accounts.get(key.namespace, wanted.account)
        if account is None:
            return await self._without_account(key, obj, life, wanted)
        account.keys[wanted.token] = key
        if self._flights.busy(life.uid):
            return Done()
        known = self._known(obj, life, wanted, account)
        match decide(known):
            case "Stamp":
                return await self._stamp(key, obj, life, wanted, account)
            case "Look":
                return await self._look(key, obj, life, wanted, account)
            case "Wait":
                return await self._wait(key, obj, life, wanted, account)
            case "Live":
                return await self._live(key, obj, life, wanted, account, known.node)
            case "Lost":
                status, event = statuses.lost(_status(obj), _generation(obj), self._accounts.now(), known.node)
                return await self._fail(obj, wanted, account, status, event)
            case "GiveUp":
                return await self._give_up(obj, wanted, account, known.node)
            case "CleanUp" | "Delete":
                return await self._delete(key, obj, life, wanted, account, known.node)
            case "End":
                return await self._end(key, obj, life, wanted, account)
            case "Rest":
                return await self._rest(key, obj, wanted, account, known)

    # -- what is known ---------------------------------------------------------------------------------------------

    def _life(self, key: Key, obj: Obj) -> Life:
        uid = obj["metadata"]["uid"]
        life = self._lives.get(key)
        if life is None or life.uid != uid:
            status = _status(obj)
            outcome: Outcome = "clear"
            if status.get("providerID"):
                outcome = "made"
            elif status.get("createToken") and not is_failed(status):
                outcome = "unknown"
            life = self._lives[key] = Life(uid, outcome, asyncio.get_running_loop().time())
        return life

    def _wanted(self, life: Life, obj: Obj) -> Wanted:
        mark = obj["metadata"].get("generation")
        if life.wanted is None or life.wanted[0] != mark:
            disk = obj["spec"].get("disk")
            gib = -(-parse_quantity(disk["size"]) // MIB_A_GIB) if disk else 0
            owner = (obj["metadata"].get("labels") or {}).get(names.LABEL_OWNER_UID, "")
            life.wanted = (mark, read(obj, int(gib), owner))
        return life.wanted[1]

    def _known(self, obj: Obj, life: Life, wanted: Wanted, account: Account) -> Known:
        node = account.nodes.get(wanted.token)
        known_id = _status(obj).get("providerID")
        if node is not None and known_id and node.id != known_id:
            node = next((n for n in account.nodes.extras(wanted.token) if n.id == known_id), node)
        if node is not None:
            life.outcome = "made"
        since = life.since + (account.info.create_seconds if life.outcome == "unknown" else 0)
        return Known(
            node=node,
            absent=node is None and life.outcome != "clear" and account.nodes.absent(wanted.token, since),
            outcome=life.outcome,
            failed=is_failed(_status(obj)),
            deleting=is_deleting(obj),
            released=life.released,
        )

    # -- birth -----------------------------------------------------------------------------------------------------

    async def _stamp(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> Done:
        """Nothing can have been made: the token is stored, then the cloud is called."""
        old, now = _status(obj), self._accounts.now()
        if (refusal := life.refusal) is not None:
            life.refusal = None
            return await self._refuse(obj, life, wanted, account, refusal)
        clock = asyncio.get_running_loop().time()
        if clock < life.not_before:
            return Done(requeue_after=life.not_before - clock)
        if not account.ready:
            await self._write(obj, statuses.waiting(old, _generation(obj), now, account.reason, account.message))
            return Done()
        offer = self._calls.offer(account, wanted)
        if (blocked := account.failures.blocked(offer, now)) is not None:
            error = QuotaExceeded if blocked.error == QuotaExceeded.reason else CapacityUnavailable
            return await self._refuse(obj, life, wanted, account, error(blocked.message or blocked.error), again=True)
        if (message := self._over_limit(account, wanted)) and not wanted.adopt:
            return await self._refuse(obj, life, wanted, account, QuotaExceeded(message))
        obj = await self._engine.finalizers.ensure(VIRTUAL_MACHINE, obj)
        live = await self._engine.kube.get(VIRTUAL_MACHINE, key.namespace, key.name)
        if live is None or live["metadata"]["uid"] != life.uid or is_deleting(live):
            return Done()  # its own event brings it back
        if (live.get("status") or {}).get("createToken") and not old.get("createToken"):
            # an earlier leader has asked for it, and our cache didn't know
            life.outcome, life.since = "unknown", clock
            self._engine.cache.put(VIRTUAL_MACHINE, live)
            return Done(requeue_after=0.0)
        status = statuses.stamped(old, _generation(obj), now, token=wanted.token, price=statuses.price_of(offer))
        if "createRequestedAt" in old:
            status["createRequestedAt"] = old["createRequestedAt"]
        written = await self._write(obj, status)
        if is_deleting(written):
            return Done()
        self._fly(key, life, lambda: self._make(key, written, life, wanted, account))
        return Done()

    async def _make(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> None:
        """The create call and what must come before it; its answer is kept for the next reconcile."""
        try:
            try:
                spec = await self._calls.prepare(obj, wanted, account)
            except Busy as busy:
                self._engine.enqueue(key, busy.seconds)
                return
            except Parentless as error:
                life.trouble = str(error)
                life.not_before = asyncio.get_running_loop().time() + LOOK_AGAIN_SECONDS
                return
            except CloudmeshError as error:
                self._later(life, account, wanted, error)
                return
            loop = asyncio.get_running_loop()
            life.outcome, life.looks = "unknown", 0
            try:
                node = await self._calls.make(spec, wanted, account)
            except Busy as busy:
                life.outcome = "clear"
                self._engine.enqueue(key, busy.seconds)
                return
            except RateLimited as error:
                life.outcome = "clear"
                life.not_before = loop.time() + (error.retry_after or FIRST_RETRY_SECONDS)
                return
            except Transient as error:
                life.trouble, life.refusal = str(error), None
                life.tries += 1
                if life.tries >= MAX_TRIES:
                    life.refusal = error
                return
            except CloudmeshError as error:
                # said in so many words: nothing was made
                life.outcome, life.refusal = "clear", error
                return
            finally:
                life.since = loop.time()
            life.outcome, life.tries = "made", 0
            account.worked(spec.offer)
            account.learn(node)
            account.expect(wanted.token, key)
        finally:
            self._engine.enqueue(key)

    def _later(self, life: Life, account: Account, wanted: Wanted, error: CloudmeshError) -> None:
        """What must come before the create didn't work."""
        life.tries += 1
        life.trouble = str(error)
        if isinstance(error, Transient | RateLimited | Conflict) and life.tries < MAX_TRIES:
            pause = min(FIRST_RETRY_SECONDS * 2**life.tries, LONGEST_RETRY_SECONDS)
            life.not_before = asyncio.get_running_loop().time() + pause
        else:
            life.refusal = error

    def _fly(self, key: Key, life: Life, work: Callable[[], Any]) -> None:
        self._flights.start(life.uid, work)

    async def _refuse(
        self, obj: Obj, life: Life, wanted: Wanted, account: Account, error: CloudmeshError, *, again: bool = False
    ) -> Done:
        """The cloud said no. A pool tries its next offer at once; a machine of a user's own tries again later."""
        offer = self._calls.offer(account, wanted)
        if not again:
            account.remember(offer, error)
        reason = c.REASON_CLOUD_UNAVAILABLE if isinstance(error, Transient | RateLimited) else error.reason
        own = not wanted.cluster
        lasting = isinstance(error, InvalidRequest) or error.reason in ("Unsupported", "AuthFailed", "Conflict")
        final = not own or lasting
        now = self._accounts.now()
        status = statuses.refused(_status(obj), _generation(obj), now, reason, str(error), final=final)
        if own and not final:
            conditions = statuses.Conditions(status, _generation(obj), now)
            conditions.put(c.CREATED, "Unknown", reason, str(error))
            status["conditions"] = conditions.list
        self._engine.events.emit(obj, "Warning", reason, f"{wanted.offer_id}: {error}")
        await self._write(obj, status)
        account.settled(wanted.token)
        life.tries = 0
        return Done() if final else Done(requeue_after=LOOK_AGAIN_SECONDS)

    def _over_limit(self, account: Account, wanted: Wanted) -> str:
        limit = account.limit_machines
        if limit is None:
            return ""
        there = sum(
            1
            for obj in self._accounts.machines(account)
            if obj["metadata"]["uid"] != wanted.uid
            and (obj.get("status") or {}).get("createToken")
            and not is_failed(obj["status"])
        )
        return f"`spec.limits.machines` of CloudAccount '{account.name}' is {limit}" if there >= limit else ""

    async def _look(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> Done:
        """A create may have made the machine: it is looked up by its token before anything else is tried."""
        account.expect(wanted.token, key)
        clock = asyncio.get_running_loop().time()
        if clock < life.not_before:
            return Done(requeue_after=life.not_before - clock)
        if life.looks > 0:
            # the cloud said that there is none; does that prove it?
            proven = account.nodes.absent(wanted.token, life.since + account.info.create_seconds)
            if (account.info.native_tokens and not is_deleting(obj)) or proven:
                life.outcome, life.looks = "clear", 0
                account.settled(wanted.token)
                return Done(requeue_after=0.0)
        if is_deleting(obj):
            await self._write(obj, self._ending(obj, "looking for what a create may have made"))
        elif not account.ready or account.silent:
            await self._tell_unknown(obj, account)
        self._fly(key, life, lambda: self._find(key, obj, life, wanted, account))
        return Done(requeue_after=account.info.poll_seconds)

    async def _find(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> None:
        clock = asyncio.get_running_loop()
        try:
            node = await self._calls.find(wanted, account, obj)
        except Busy as busy:
            life.not_before = clock.time() + busy.seconds
        except Conflict as error:
            life.outcome, life.refusal = "clear", error
        except CloudmeshError as error:
            life.trouble = str(error)
            life.tries += 1
            life.not_before = clock.time() + min(FIRST_RETRY_SECONDS * 2 ** min(life.tries, 5), LONGEST_RETRY_SECONDS)
        else:
            if node is None:
                life.looks += 1
                life.not_before = clock.time() + (0.0 if life.looks == 1 else account.info.poll_seconds)
            else:
                life.outcome = "made"
                account.learn(node)
        self._engine.enqueue(key)

    # -- life ------------------------------------------------------------------------------------------------------

    async def _live(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account, node: Node | None) -> Done:
        if node is None:
            raise AssertionError("a living machine has a node")
        old, generation = _status(obj), _generation(obj)
        if extra := next((n for n in account.nodes.extras(wanted.token) if n.id != node.id), None):
            self._tell_double(obj, node, extra)
            self._fly(key, life, lambda: self._end_node(key, life, wanted, account, extra.id))
        booked = self._booked(obj)
        sight = statuses.Sight(
            boot=self._boot_state(wanted),
            silent=account.silent,
            powers=account.powers,
            drift=self._calls.drift(obj, wanted, account, node),
        )
        if account.info.ssh and node.state == "Running" and node.host:
            reached, trouble = self._probes.result(life.uid, key, node.host, node.port, node.boot_id)
            sight = replace(sight, reached=reached, trouble=trouble)
        else:
            self._probes.forget(life.uid)
        living = statuses.living(
            wanted, old, generation, self._accounts.now(), node, account.info, sight,
            network=self._calls.network(account, wanted), booked=booked,
        )  # fmt: skip
        if "hourlyPrice" not in living.status and (price := statuses.price_of(self._calls.offer(account, wanted))):
            living.status["hourlyPrice"] = price
        restart = self._restart(obj, old, living.status, node)
        await self._write(obj, living.status)
        for event in living.events:
            self._engine.events.emit(obj, event.type, event.reason, event.message)
        if "Ready" in {event.reason for event in living.events} and not c.is_true(old.get("conditions") or (), c.READY):
            self._calls.observe_start(account, wanted, old)
        if living.settled:
            account.settled(wanted.token)
        else:
            account.expect(wanted.token, key)
        if not self._flights.busy(life.uid):
            return self._act(key, obj, life, wanted, account, node, living.power, restart, booked=booked)
        return Done()

    def _act(
        self,
        key: Key,
        obj: Obj,
        life: Life,
        wanted: Wanted,
        account: Account,
        node: Node,
        power: statuses.Power,
        restart: str,
        *,
        booked: bool,
    ) -> Done:
        """Changes the machine's power, if that wasn't asked for a moment ago."""
        clock = asyncio.get_running_loop().time()
        if not power and not restart:
            return Done()
        if power in ("start", "resume") and not booked:
            return Done(requeue_after=BOOKING_SECONDS)
        if (wait := life.powered_at + POWER_AGAIN_SECONDS - clock) > 0:
            return Done(requeue_after=wait)
        life.powered_at = clock

        async def work() -> None:
            try:
                if power:
                    await self._calls.power(account, wanted, node, power)
                else:
                    await self._calls.reboot(account, wanted, node)
                    await self._write(obj, {**_status(obj), "restartedAt": restart})
            except Busy as busy:
                life.powered_at = clock + busy.seconds - POWER_AGAIN_SECONDS
            except CloudmeshError as error:
                what = power or "reboot"
                self._engine.events.emit(obj, "Warning", error.reason, f"{what} of {node.id}: {error}")
            account.expect(wanted.token, key)
            self._engine.enqueue(key)

        self._fly(key, life, work)
        return Done()

    def _restart(self, obj: Obj, old: Mapping[str, Any], status: dict[str, Any], node: Node) -> str:
        """The value of the restart annotation that is still to be acted on."""
        value = (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_RESTARTED_AT, "")[:253]
        if not value or value == old.get("restartedAt"):
            return ""
        if not old.get("providerID"):  # it starts for the first time: that will do
            status["restartedAt"] = value
            return ""
        return value if node.state == "Running" else ""

    def _boot_state(self, wanted: Wanted) -> statuses.Boot:
        if not wanted.cluster or self._bootstrap is None:
            return ("None", "")
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, wanted.namespace, wanted.cluster)
        kind = ((cluster or {}).get("spec") or {}).get("bootstrap") or {}
        if not kind or "ssh" in kind:
            return ("None", "")
        return self._bootstrap().machine_state(wanted.uid)

    async def _wait(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> Done:
        """It was made, nothing is seen of it, and nothing proves that it isn't there."""
        account.expect(wanted.token, key)
        node_id = _status(obj).get("providerID")
        if is_deleting(obj) and node_id and life.deleted_at == float("-inf"):
            await self._write(obj, self._ending(obj, f"{node_id} is being deleted"))
            self._fly(key, life, lambda: self._end_node(key, life, wanted, account, node_id))
        else:
            await self._tell_unknown(obj, account)
        return Done()

    async def _tell_unknown(self, obj: Obj, account: Account) -> None:
        if account.ready and not account.silent:
            return
        reason = c.REASON_CLOUD_UNAVAILABLE if account.ready else account.reason
        message = f"the cloud doesn't list its machines: {account.nodes.reason}" if account.ready else account.message
        status = statuses.waiting(_status(obj), _generation(obj), self._accounts.now(), reason, message)
        await self._write(obj, status)

    async def _rest(self, key: Key, obj: Obj, wanted: Wanted, account: Account, known: Known) -> Done:
        """It will never be ready; when it is seen gone it costs no more."""
        status = _status(obj)
        if known.outcome == "made" and "endedAt" not in status and "startedAt" in status:
            if known.node is None and not known.absent:
                account.expect(wanted.token, key)
                return Done()
            await self._write(obj, statuses.ended(status, _generation(obj), self._accounts.now()))
        account.settled(wanted.token)
        return Done()

    async def _fail(
        self, obj: Obj, wanted: Wanted, account: Account, status: statuses.Status, event: statuses.Event
    ) -> Done:
        await self._write(obj, status)
        self._engine.events.emit(obj, event.type, event.reason, event.message)
        account.settled(wanted.token)
        self._probes.forget(wanted.uid)
        return Done()

    async def _give_up(self, obj: Obj, wanted: Wanted, account: Account, node: Node | None) -> Done:
        """The cloud gave it up after it had said yes: remembered like a refusal, then deleted."""
        if node is None:
            raise AssertionError("a machine that is given up has a node")
        if node.failure is not None:
            account.remember(self._calls.offer(account, wanted), node.failure)
        status, event = statuses.given_up(_status(obj), _generation(obj), self._accounts.now(), node)
        await self._fail(obj, wanted, account, status, event)
        return Done(requeue_after=0.0)

    # -- end -------------------------------------------------------------------------------------------------------

    def _ending(self, obj: Obj, message: str) -> statuses.Status:
        return statuses.ending(_status(obj), _generation(obj), self._accounts.now(), message)

    async def _delete(
        self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account, node: Node | None
    ) -> Done:
        if node is None:
            raise AssertionError("a machine that is deleted has a node")
        account.expect(wanted.token, key)
        self._probes.forget(life.uid)
        if is_deleting(obj):
            status = self._ending(obj, f"{node.id} is being deleted")
            status.setdefault("startedAt", node.created_at or self._accounts.now())
            status["providerID"] = node.id
            obj = await self._write(obj, status)
        clock = asyncio.get_running_loop().time()
        if (wait := life.deleted_at + DELETE_AGAIN_SECONDS - clock) > 0 and node.state == "Deleting":
            return Done(requeue_after=LOOK_AGAIN_SECONDS)
        if wait > 0:
            return Done(requeue_after=wait)
        self._fly(key, life, lambda: self._end_node(key, life, wanted, account, node.id))
        return Done(requeue_after=DELETE_AGAIN_SECONDS)

    async def _end_node(self, key: Key, life: Life, wanted: Wanted, account: Account, node_id: str) -> None:
        clock = asyncio.get_running_loop()
        try:
            if wanted.adopt:
                life.released = await self._calls.release(account, wanted, node_id)
            else:
                await self._calls.delete(account, wanted, node_id)
            life.deleted_at = clock.time()
        except Busy as busy:
            self._engine.enqueue(key, busy.seconds)
            return
        except CloudmeshError as error:
            life.tries += 1
            pause = min(FIRST_RETRY_SECONDS * 2 ** min(life.tries, 5), LONGEST_RETRY_SECONDS)
            life.deleted_at = clock.time() + pause - DELETE_AGAIN_SECONDS
            life.trouble = str(error)
        account.expect(wanted.token, key)
        self._engine.enqueue(key)

    async def _end(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> Done:
        """It is seen gone: what it cost is booked, what it stood on is cleared, its finalizer goes."""
        status = _status(obj)
        if status.get("createToken") and status.get("state") != "Deleted":
            obj = await self._write(obj, statuses.ended(status, _generation(obj), self._accounts.now()))
        if not life.cleared and status.get("createToken"):
            self._fly(key, life, lambda: self._clear(key, obj, life, wanted, account))
            return Done()
        if not self._booked(obj):
            return Done(requeue_after=BOOKING_SECONDS)
        account.settled(wanted.token)
        await self._engine.finalizers.remove(VIRTUAL_MACHINE, obj)
        return Done()

    async def _clear(self, key: Key, obj: Obj, life: Life, wanted: Wanted, account: Account) -> None:
        try:
            life.cleared = await self._calls.clear(obj, wanted, account)
        except Busy as busy:
            self._engine.enqueue(key, busy.seconds)
            return
        except CloudmeshError as error:
            life.trouble = str(error)
            self._engine.events.emit(
                obj, "Warning", error.reason, f"what the cluster had in the account stays: {error}"
            )
        self._engine.enqueue(key, None if life.cleared else BOOKING_SECONDS)

    async def _abandon(self, obj: Obj, wanted: Wanted) -> Done:
        """Somebody gave it up on purpose: what stays behind is told."""
        account = self._accounts.get(wanted.namespace, wanted.account)
        node_id = _status(obj).get("providerID", "")
        if account is not None and node_id:
            await self._calls.let_go(account, wanted, node_id)
        left = f"machine {node_id}" if node_id else f"whatever carries the token {wanted.token}"
        self._engine.events.emit(
            obj, "Warning", "Abandoned", f"{left} in account '{wanted.account}' is left behind and may cost money"
        )
        await self._engine.finalizers.remove(VIRTUAL_MACHINE, obj)
        return Done()

    # -- small things ----------------------------------------------------------------------------------------------

    async def _without_account(self, key: Key, obj: Obj, life: Life, wanted: Wanted) -> Done:
        if is_deleting(obj) and life.outcome == "clear" and not _status(obj).get("createToken"):
            await self._engine.finalizers.remove(VIRTUAL_MACHINE, obj)
            return Done()
        message = f"CloudAccount '{wanted.account}' isn't there or can't be used yet"
        status = statuses.waiting(
            _status(obj), _generation(obj), self._accounts.now(), c.REASON_CLOUD_UNAVAILABLE, message
        )
        if not is_failed(_status(obj)):
            await self._write(obj, status)
        return Done(requeue_after=LOOK_AGAIN_SECONDS)

    async def _pause(self, obj: Obj) -> Done:
        old = _status(obj)
        conditions = statuses.Conditions(old, _generation(obj), self._accounts.now())
        conditions.put(c.PAUSED, "True", "Annotation", f"remove the annotation {names.ANNOTATION_PAUSED} to go on")
        if c.find_condition(conditions.list, c.READY) is None:
            conditions.put(c.READY, "Unknown", c.REASON_PENDING, "paused")
        await self._write(obj, {**old, "conditions": conditions.list})
        return Done()

    def _booked(self, obj: Obj) -> bool:
        namespace = obj["metadata"]["namespace"]
        budgets = self._engine.cache.list(BUDGET, namespace)
        if not budgets:
            return True
        cluster = (obj["spec"].get("clusterRef") or {}).get("name", "")
        parent = self._engine.cache.get(VIRTUAL_CLUSTER, namespace, cluster) if cluster else None
        return is_booked(budgets, obj, labels_of(obj, parent))

    def _tell_double(self, obj: Obj, node: Node, extra: Node) -> None:
        self._engine.events.emit(obj, "Warning", "Double", f"{extra.id} carries the token of {node.id}: it is deleted")

    async def _write(self, obj: Obj, status: statuses.Status) -> Obj:
        before = _status(obj).get("state")
        written = await self._engine.status.write(VIRTUAL_MACHINE, obj, status)
        if before != status.get("state"):
            account = self._accounts.get(obj["metadata"]["namespace"], obj["spec"]["accountRef"]["name"])
            if account is not None:
                self._accounts.changed(account)
        return written


def _status(obj: Obj) -> Mapping[str, Any]:
    return obj.get("status") or {}


def _generation(obj: Obj) -> int:
    return int(obj["metadata"].get("generation", 0))


def reconciler(engine: Engine, settings: Settings) -> MachineReconciler:
    """The reconciler of an operator."""
    return MachineReconciler(engine, shared(engine, settings=ComputeSettings.from_environ()))
