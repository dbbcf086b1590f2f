"""How a machine comes into being: the token is stored, the cloud is called, a lost answer is looked up."""

from __future__ import annotations

from cloudmesh.api import conditions as c
from cloudmesh.compute import machine_status as statuses
from cloudmesh.compute.accounts import Busy
from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.compute.machine_calls import Parentless
from cloudmesh.compute.machine_life import FIRST_RETRY_SECONDS, LOOK_AGAIN_SECONDS, Case, Hands
from cloudmesh.compute.ports import NodeSpec
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.engine import (
    CapacityUnavailable,
    CloudmeshError,
    Conflict,
    Done,
    InvalidRequest,
    NameConflict,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Transient,
    Unsupported,
    is_deleting,
)

NAME_SECONDS = 15.0
"""So often, at least, a name that somebody else has is tried again."""
MAX_TRIES = 4
"""So often a create whose outcome was unknown, and that has made nothing, is tried before the offer is given up."""


class Birth:
    """The steps Stamp and Look.

    Args:
        hands: What they work with.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands

    async def stamp(self, case: Case) -> Done:
        """Nothing can have been made: the token is stored, then the cloud is called."""
        hands, life, account, old = self._hands, case.life, case.account, case.status
        clock, now = hands.clock(), hands.now()
        if (refusal := life.refusal) is not None:
            life.refusal = None
            return await self._refuse(case, refusal)
        if clock < life.not_before:
            return Done(requeue_after=life.not_before - clock)
        if not account.ready:
            await hands.write(case, statuses.waiting(old, case.generation, now, account.reason, account.message))
            return Done()
        if not account.proven:  # the credentials have just changed
            return Done(requeue_after=FIRST_RETRY_SECONDS)
        offer = hands.calls.offer(account, case.wanted)
        if (blocked := account.failures.blocked(offer, now)) is not None:
            error = QuotaExceeded if blocked.error == QuotaExceeded.reason else CapacityUnavailable
            return await self._refuse(case, error(blocked.message or blocked.error), known=True)
        if self._is_full(case):
            limit = f"`spec.limits.machines` of CloudAccount '{account.name}' is {account.limit_machines}"
            return await self._refuse(case, QuotaExceeded(limit), known=True)
        prices: statuses.Status = {}
        statuses.note_price(prices, offer, case.wanted.disk_gib)
        price = statuses.whole_price(prices)
        if not case.wanted.adopt and (budget := hands.over_budget(case, price, runs=False)):
            await hands.write(case, statuses.over_budget(old, case.generation, now, budget))
            return Done(requeue_after=LOOK_AGAIN_SECONDS)
        account.starting.add(life.uid)
        try:
            obj = await hands.engine.finalizers.ensure(VIRTUAL_MACHINE, case.obj)
            if (obj.get("status") or {}).get("createToken") and not old.get("createToken"):
                return await self._look_live(case)
            status = statuses.stamped(old, case.generation, now, token=case.wanted.token, prices=prices)
            if life.holds and old.get("createToken"):
                # what is in its way stands there until it is gone, and its time to start begins then
                status |= {"conditions": old.get("conditions") or [], "createRequestedAt": now}
            life.asked = True
            try:
                # only over what was decided upon: so nobody else has stamped, deleted or changed it meanwhile
                written = await hands.write(Case(case.key, obj, life, case.wanted, account), status, only_this=True)
            except (Conflict, NotFound):
                return await self._look_live(case)
        finally:
            account.starting.discard(life.uid)
        if is_deleting(written):
            return Done()
        case = Case(case.key, written, life, case.wanted, account)
        hands.fly(case, lambda: self._make(case))
        return Done()

    async def _look_live(self, case: Case) -> Done:
        """The cache is behind: what is stored says whether somebody else has asked the cloud for the machine."""
        hands, life, old = self._hands, case.life, case.status
        live = await hands.engine.kube.get(VIRTUAL_MACHINE, case.key.namespace, case.key.name)
        if live is None or live["metadata"]["uid"] != life.uid or is_deleting(live):
            return Done()  # its own event brings it back
        if (live.get("status") or {}).get("createToken") and not old.get("createToken"):
            # an earlier leader, or a write of ours whose answer was lost
            life.outcome, life.since = "unknown", hands.clock()
        hands.engine.cache.put(VIRTUAL_MACHINE, live)
        return Done(requeue_after=0.0)

    async def look(self, case: Case) -> Done:
        """A create may have made the machine: it is looked up by its token before anything else is tried."""
        hands, life, account = self._hands, case.life, case.account
        deleting = is_deleting(case.obj)
        case.expect()
        if (wait := life.not_before - hands.clock()) > 0:
            return Done(requeue_after=wait)
        if life.looks > 0:
            # the cloud said that there is none: enough where one token makes one machine, else it must be proven
            proven = account.nodes.absent(case.wanted.token, life.since + account.info.create_seconds)
            if proven or (account.info.native_tokens and not deleting):
                life.outcome, life.looks, life.doubted = "clear", 0, not proven
                case.settled()
                return Done(requeue_after=0.0)
        if deleting:
            message = "looking for what a create may have made"
            await hands.write(case, statuses.ending(case.status, case.generation, hands.now(), message))
        elif not account.ready or account.silent:
            await tell_unknown(hands, case)
        hands.fly(case, lambda: self._find(case))
        return Done()

    # -- calls -----------------------------------------------------------------------------------------------------

    async def _make(self, case: Case) -> None:
        """The create call and what must come before it; the next pass reads what came of it."""
        hands, life = self._hands, case.life
        wait = None
        try:
            spec = await hands.calls.prepare(case.obj, case.wanted, case.account)
        except Busy as busy:
            wait = busy.seconds
        except Parentless:
            wait = LOOK_AGAIN_SECONDS
            life.not_before = hands.clock() + wait
        except CloudmeshError as error:
            passing = isinstance(error, Transient | RateLimited | Conflict) and not isinstance(error, NameConflict)
            if passing and life.tries + 1 < MAX_TRIES:
                wait = life.pause()
                life.not_before = hands.clock() + wait
            else:
                life.refusal = error
        else:
            wait = await self._create(case, spec)
        if life.outcome == "clear":
            case.account.unmade.add(life.uid)
        hands.again(case, wait)

    async def _create(self, case: Case, spec: NodeSpec) -> float | None:
        """The create call itself; gives the seconds until the next pass."""
        hands, life, account = self._hands, case.life, case.account
        life.outcome, life.looks = "unknown", 0
        account.unmade.discard(life.uid)
        try:
            node = await hands.calls.make(spec, case.wanted, account)
        except Busy as busy:
            life.outcome = "clear"
            return busy.seconds
        except RateLimited as error:  # it was turned away at the door
            life.outcome = "clear"
            wait = FIRST_RETRY_SECONDS if error.retry_after is None else error.retry_after
            life.not_before = hands.clock() + wait
            return wait
        except (Transient, Conflict) as error:
            # unknown; a conflict may be with what an earlier delivery of this very call has made
            life.tries += 1
            life.refusal = error if life.tries >= MAX_TRIES or isinstance(error, Conflict) else None
            return None
        except CloudmeshError as error:  # said in so many words: nothing was made
            life.outcome, life.refusal = "clear", error
            return None
        finally:
            life.since = hands.clock()
        life.outcome, life.tries, life.holds = "made", 0, 0
        account.worked(spec.offer)
        account.learn(node)
        case.expect()
        return None

    async def _find(self, case: Case) -> None:
        hands, life = self._hands, case.life
        wait = 0.0
        try:
            node = await hands.calls.find(case.wanted, case.account, case.obj)
        except Busy as busy:
            wait = busy.seconds
        except Conflict as error:
            life.outcome, life.refusal = "clear", error
        except CloudmeshError:
            wait = life.pause()
        else:
            if node is None:
                life.looks += 1
                wait = 0.0 if life.looks == 1 else case.account.info.poll_seconds
            else:
                life.outcome = "made"
                case.account.learn(node)
        life.not_before = hands.clock() + wait
        hands.again(case, wait)

    # -- refusals --------------------------------------------------------------------------------------------------

    async def _refuse(self, case: Case, error: CloudmeshError, *, known: bool = False) -> Done:
        """The cloud said no. A pool tries its next offer at once; a machine of a user's own tries again later.

        Args:
            case: The machine.
            error: What it said.
            known: That is remembered already.
        """
        hands, account = self._hands, case.account
        if isinstance(error, NameConflict):
            return await self._hold(case, error)
        if not known:
            account.remember(hands.calls.offer(account, case.wanted), error)
        reason = c.REASON_CLOUD_UNAVAILABLE if isinstance(error, Transient | RateLimited) else error.reason
        final = bool(case.wanted.cluster) or isinstance(error, InvalidRequest | Unsupported | Conflict)
        hands.warn(case, reason, f"{case.wanted.offer_id}: {error}")
        message, wait = str(error), LOOK_AGAIN_SECONDS
        if not final and (blocked := account.failures.blocked(hands.calls.offer(account, case.wanted), hands.now())):
            message = f"{message}; tried again after {blocked.until}"
            wait = max(1.0, min(wait, to_seconds(blocked.until) - to_seconds(hands.now()) + 1.0))
        status = statuses.refused(case.status, case.generation, hands.now(), reason, message, final=final)
        await hands.write(case, status)
        case.settled()
        case.life.tries = case.life.holds = 0
        return Done() if final else Done(requeue_after=wait)

    async def _hold(self, case: Case, error: NameConflict) -> Done:
        """Something has a name that it needs: no other offer would help, so it is tried again until that is gone."""
        hands, life = self._hands, case.life
        if life.holds == 0:
            hands.warn(case, error.reason, str(error))
        wait = min(FIRST_RETRY_SECONDS * 2.0**life.holds, NAME_SECONDS)
        life.holds, life.tries = min(life.holds + 1, 10), 0
        life.not_before = hands.clock() + wait
        await hands.write(case, statuses.held(case.status, case.generation, hands.now(), error.reason, str(error)))
        case.settled()
        return Done(requeue_after=wait)

    def _is_full(self, case: Case) -> bool:
        limit = case.account.limit_machines
        if limit is None or case.wanted.adopt or case.status.get("createToken"):
            return False
        others = self._hands.accounts.count_started(case.account) - (case.life.uid in case.account.starting)
        return others >= limit


async def tell_unknown(hands: Hands, case: Case) -> None:
    """Says that nothing is known of a machine, if its account or cloud doesn't answer."""
    account = case.account
    if account.ready and not account.silent:
        return
    if account.unseen and statuses.stands(case.status, case.generation):
        return
    reason, message = account.reason, account.message
    if account.silent and (account.ready or reason == c.REASON_PENDING):
        reason, message = c.REASON_CLOUD_UNAVAILABLE, f"machines can't be listed: {account.nodes.reason}"
    await hands.write(case, statuses.waiting(case.status, case.generation, hands.now(), reason, message))
