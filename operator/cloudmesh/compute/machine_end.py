"""How a machine ends: asked for, taken away, given up or left behind; over only when it is seen gone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from cloudmesh.api import conditions as c
from cloudmesh.compute import machine_status as statuses
from cloudmesh.compute.accounts import Busy
from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.machine_birth import tell_unknown
from cloudmesh.compute.machine_life import BOOKING_SECONDS, LOOK_AGAIN_SECONDS, NEVER, Case, Hands, Life
from cloudmesh.compute.machine_plan import Known, Wanted
from cloudmesh.compute.machines import is_failed
from cloudmesh.compute.ports import Node
from cloudmesh.compute.tokens import TAG_ADOPTED
from cloudmesh.engine import CapacityUnavailable, CloudmeshError, Done, Obj, QuotaExceeded, is_deleting

Unmount = Callable[[Obj], Awaitable[tuple[str, ...]]]

DELETE_AGAIN_SECONDS = 30.0

LET_GO_TRIES = 6
"""So often a machine that is left behind is tried to be untagged before its object goes all the same."""
LEFT_SECONDS = 30.0
"""So long one that is left behind waits to be booked: who gives it up wants it gone."""
LOADING_SECONDS = 20.0
"""An account that is there has so long to be looked at by a new leader before its machines are told to be unknown."""


class End:
    """The steps Delete, CleanUp, Wait, Lost, GiveUp, Rest and End.

    Args:
        hands: What they work with.
        unmount: Takes away what is mounted on a machine that is about to end, and gives what isn't in its directory, in
            sentences; None where nothing is.
    """

    def __init__(self, hands: Hands, unmount: Unmount | None = None) -> None:
        self._hands = hands
        self._unmount = unmount

    async def lost(self, case: Case, node: Node | None) -> Done:
        """It is gone, and nobody here asked for that; one that never ran, for want of room, was as good as refused."""
        ran = any(c.is_true(case.status.get("conditions") or (), type_) for type_ in (c.REACHABLE, c.READY))
        if node is not None and isinstance(node.failure, CapacityUnavailable | QuotaExceeded) and not ran:
            return await self.give_up(case, node)
        status, event = statuses.lost(case.status, case.generation, self._hands.now(), node)
        return await self._fail(case, status, event)

    async def give_up(self, case: Case, node: Node) -> Done:
        """The cloud gave it up after it had said yes: remembered like a refusal, then deleted."""
        hands = self._hands
        if node.failure is not None:
            case.account.remember(hands.calls.offer(case.account, case.wanted), node.failure)
        status, event = statuses.given_up(case.status, case.generation, hands.now(), node)
        await self._fail(case, status, event)
        return Done(requeue_after=0.0)

    async def _fail(self, case: Case, status: statuses.Status, event: statuses.Event) -> Done:
        await self._hands.write(case, status)
        self._hands.tell(case, event)
        case.settled()
        self._hands.probes.forget(case.life.uid)
        return Done()

    async def rest(self, case: Case, known: Known) -> Done:
        """It will never be ready; once it is seen gone it costs no more."""
        status = case.status
        if known.outcome == "made" and "startedAt" in status and "endedAt" not in status:
            if known.node is None and not known.absent:
                case.expect()
                return Done()
            await self._hands.write(case, statuses.ended(status, case.generation, self._hands.now()))
        case.settled()
        return Done()

    async def wait(self, case: Case) -> Done:
        """It was made, nothing is seen of it, and nothing proves that it isn't there."""
        hands = self._hands
        case.expect()
        node_id = case.status.get("providerID")
        if is_deleting(case.obj) and node_id:
            if case.life.deleted_at == NEVER:
                await self._tell_ending(case, f"{node_id} is being deleted")
                hands.fly(case, lambda: self._end_node(case, node_id))
            return Done()
        await tell_unknown(hands, case)
        return Done()

    async def delete(self, case: Case, node: Node) -> Done:
        """Asks for its end, and again if nothing comes of it."""
        hands = self._hands
        case.expect()
        hands.probes.forget(case.life.uid)
        if is_deleting(case.obj):
            await self._tell_ending(case, f"{node.id} is being deleted", node)
        wait = case.life.deleted_at + DELETE_AGAIN_SECONDS - hands.clock()
        if node.state == "Deleting" and wait > 0:
            wait = LOOK_AGAIN_SECONDS
        if wait > 0:
            return Done(requeue_after=wait)
        hands.fly(case, lambda: self._end_node(case, node.id))
        return Done()

    def delete_double(self, case: Case, node: Node, double: Node) -> None:
        """The cloud made two machines of one token: the other one goes."""
        self._hands.warn(case, "Double", f"{double.id} carries the token of {node.id}: it goes")

        async def work() -> None:
            wait = DELETE_AGAIN_SECONDS
            try:
                if TAG_ADOPTED in double.tags:
                    await self._hands.calls.release(case.account, case.wanted, double.id)
                else:
                    await self._hands.calls.delete(case.account, case.wanted, double.id)
            except Busy as busy:
                wait = busy.seconds
            except CloudmeshError:
                wait = case.life.pause()
            case.expect()
            self._hands.again(case, wait)

        self._hands.fly(case, work)

    async def end(self, case: Case) -> Done:
        """It is seen gone: what it cost is booked, what it stood on is cleared, its finalizer goes."""
        hands, status = self._hands, case.status
        stamped = bool(status.get("createToken"))
        if stamped and status.get("state") != "Deleted":
            obj = await hands.write(case, statuses.ended(status, case.generation, hands.now()))
            case = Case(case.key, obj, case.life, case.wanted, case.account)
        if stamped and not case.life.cleared:
            hands.fly(case, lambda: self._clear(case))
            return Done()
        if not hands.booked(case):
            return Done(requeue_after=BOOKING_SECONDS)
        case.settled()
        await hands.engine.finalizers.remove(VIRTUAL_MACHINE, case.obj)
        return Done()

    async def abandon(self, case: Case) -> Done:
        """Somebody gave it up on purpose: it goes on without our tags, and what stays behind is told."""
        if case.life.released or not case.status.get("createToken"):
            return await self.leave(case.obj, case.life, case.wanted)
        self._hands.fly(case, lambda: self._let_go(case))
        return Done()

    async def abandon_unasked(self, obj: Obj, life: Life, wanted: Wanted) -> Done:
        """As `abandon`, while there is no account to ask: its note tells later that the machine isn't collected."""
        hands, status = self._hands, obj.get("status") or {}
        if status.get("createToken") and hands.engine.cache.get(CLOUD_ACCOUNT, wanted.namespace, wanted.account):
            if (wait := life.seen_at + LOADING_SECONDS - hands.clock()) > 0:
                return Done(requeue_after=wait)  # a fresh leader: its account is being looked at
            await hands.calls.note_left(wanted, status.get("providerID", ""))
        return await self.leave(obj, life, wanted)

    async def leave(self, obj: Obj, life: Life, wanted: Wanted) -> Done:
        """Lets the object of a machine go, whatever becomes of the machine: what it costs from now on isn't ours."""
        hands, status = self._hands, obj.get("status") or {}
        if not status.get("createToken"):
            await hands.engine.finalizers.remove(VIRTUAL_MACHINE, obj)
            return Done()
        node_id = status.get("providerID")
        left = f"machine {node_id}" if node_id else f"whatever carries the token {wanted.token}"
        message = f"{left} in CloudAccount '{wanted.account}' is left behind and may cost money"
        if life.left_at == NEVER:
            life.left_at = hands.clock()
            generation = int(obj["metadata"].get("generation", 0))
            obj = await hands.engine.status.write(
                VIRTUAL_MACHINE, obj, statuses.left(status, generation, hands.now(), message)
            )
        if not hands.is_booked(obj, wanted) and hands.clock() - life.left_at < LEFT_SECONDS:
            return Done(requeue_after=BOOKING_SECONDS)
        hands.engine.events.emit(obj, "Warning", "Abandoned", message)
        await hands.engine.finalizers.remove(VIRTUAL_MACHINE, obj)
        return Done()

    async def without_account(self, obj: Obj, life: Life, wanted: Wanted) -> Done:
        """There is no account to ask: a machine that was never asked for may go, all others wait."""
        hands, status = self._hands, obj.get("status") or {}
        if is_deleting(obj) and life.outcome == "clear" and not status.get("createToken"):
            return await self.leave(obj, life, wanted)
        account = hands.engine.cache.get(CLOUD_ACCOUNT, obj["metadata"]["namespace"], wanted.account)
        if account is not None and hands.clock() - life.seen_at < LOADING_SECONDS:
            return Done(requeue_after=LOOK_AGAIN_SECONDS)  # a fresh leader: its account is being looked at
        if not is_failed(status):
            message = f"CloudAccount '{wanted.account}' isn't there or can't be used yet"
            generation = int(obj["metadata"].get("generation", 0))
            waiting = statuses.waiting(status, generation, hands.now(), c.REASON_CLOUD_UNAVAILABLE, message)
            await hands.engine.status.write(VIRTUAL_MACHINE, obj, waiting)
        return Done(requeue_after=LOOK_AGAIN_SECONDS)

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _tell_ending(self, case: Case, message: str, node: Node | None = None) -> None:
        now = self._hands.now()
        status = statuses.ending(case.status, case.generation, now, message)
        if node is not None:
            status["providerID"] = node.id
            statuses.starts(status, node, now)
        await self._hands.write(case, status)

    async def _end_node(self, case: Case, node_id: str) -> None:
        hands, life = self._hands, case.life
        await self._take_mounts(case, stays=bool(case.wanted.adopt) or case.account.info.hosts_stay)
        try:
            if case.wanted.adopt:
                life.released = await hands.calls.release(case.account, case.wanted, node_id)
            else:
                await hands.calls.delete(case.account, case.wanted, node_id)
            life.deleted_at, life.tries = hands.clock(), 0
        except Busy as busy:
            hands.again(case, busy.seconds)
            return
        except CloudmeshError as error:
            wait = life.pause()
            life.deleted_at = hands.clock() + wait - DELETE_AGAIN_SECONDS
            if life.tries > 1:
                hands.warn(case, error.reason, f"{node_id} can't be deleted: {error}")
            case.expect()
            hands.again(case, wait)
            return
        case.expect()
        hands.again(case)

    async def _take_mounts(self, case: Case, *, stays: bool) -> None:
        """Once, and as far as the machine answers: nobody waits for one that doesn't."""
        if self._unmount is None or case.life.unmounted:
            return
        case.life.unmounted = True
        if not c.is_true(case.status.get("conditions") or (), c.REACHABLE):
            return
        try:
            left = await self._unmount(case.obj)
        except CloudmeshError as error:
            self._hands.warn(case, error.reason, f"what is mounted there may not be written out: {error}")
            return
        for words in left:
            self._hands.warn(case, "FilesLeft", words if stays else f"{words}, and go with the machine's disk")

    async def _let_go(self, case: Case) -> None:
        """Notes that it is left, then takes our tags off; a cloud that can't be told is told by later listings."""
        await self._take_mounts(case, stays=True)
        hands, life, account, wanted = self._hands, case.life, case.account, case.wanted
        wait, noted = None, False
        try:
            node = account.nodes.get(wanted.token)
            node_id = case.status.get("providerID") or (node.id if node is not None else "")
            await hands.calls.note_left(wanted, node_id)
            noted = True
            if not node_id and (found := await hands.calls.find(wanted, account, case.obj)) is not None:
                node_id = found.id
            if node_id:
                await hands.calls.let_go(account, wanted, node_id)
            life.released = True
        except Busy as busy:
            wait = busy.seconds
        except CloudmeshError:
            wait = life.pause()
            life.released = noted and life.tries >= LET_GO_TRIES
        hands.again(case, wait)

    async def _clear(self, case: Case) -> None:
        hands, life = self._hands, case.life
        wait: float | None = None
        try:
            life.cleared = await hands.calls.clear(case.obj, case.wanted, case.account)
            if not life.cleared:
                wait = life.pause()
        except Busy as busy:
            wait = busy.seconds
        except CloudmeshError as error:
            wait = life.pause()
            hands.warn(case, error.reason, f"what its cluster had in the account can't be cleared: {error}")
        hands.again(case, wait)
