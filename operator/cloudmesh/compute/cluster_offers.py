"""What machines a cluster gets: accounts, policy, Budgets, the scheduler's answer and the quote that comes of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import ValidationError

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.compute.accounts import Account, Accounts
from cloudmesh.compute.approved import approve, read_approved
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.budget_plan import BudgetVerdict, selects
from cloudmesh.compute.budgets import Budgets
from cloudmesh.compute.cluster_accounts import choose as choose_accounts
from cloudmesh.compute.cluster_memory import Machines, Memory
from cloudmesh.compute.cluster_status import Trouble
from cloudmesh.compute.guests import guests_of
from cloudmesh.compute.kinds import BUDGET, PLACEMENT_POLICY
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import Plan, first_step, leaving_nanos, request
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import rounded
from cloudmesh.compute.quote import Quote, from_status, gate, go_on, lines_of, within
from cloudmesh.compute.reading import read_policy
from cloudmesh.compute.shrink import owed
from cloudmesh.engine import CapacityUnavailable, Engine, InvalidRequest, NotFound, Obj, QuotaExceeded, Unsupported
from cloudmesh.policy.blocks import offer_key, quota_key
from cloudmesh.policy.errors import PolicyError
from cloudmesh.policy.model import Block, Decision, Offer, Placement, Policy, Rejection, Request
from cloudmesh.policy.place import place
from cloudmesh.policy.plugins import plugin_of

POLICY_SECONDS = 10.0
SAME_SECONDS = 10.0
FIRST_LOOK_SECONDS = 20.0
"""An account that nobody has looked at yet is told of after so long."""
AVOID_SECONDS = 60
REQUEST = frozenset({InvalidRequest.reason, Unsupported.reason})
"""Reasons that are about what was asked for, and not about the offer."""
FINAL = frozenset({c.REASON_NO_FEASIBLE_OFFER, c.REASON_OVER_MAX_HOURLY_COST, c.REASON_BUDGET_EXCEEDED})
"""Reasons that wait for somebody; with them nothing starts."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a cluster gets.

    Args:
        decisions: Machines to be made.
        quote: The quote that holds.
        rejected: Where offers fell.
        trouble: What stands in the way, None for nothing.
        publish: The status must tell the quote before anything is made.
        made: Machines were made.
        may_wake: Machines that sleep may be woken.
    """

    decisions: tuple[Decision, ...] = ()
    quote: Quote | None = None
    rejected: tuple[Rejection, ...] = ()
    trouble: Trouble | None = None
    publish: bool = False
    made: bool = False
    may_wake: bool = False


class Offers:
    """Chooses for all clusters.

    Args:
        engine: Access to the cluster.
        accounts: Live accounts.
        budgets: Live Budgets.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, engine: Engine, accounts: Accounts, budgets: Budgets, clock: Callable[[], float]) -> None:
        self._engine = engine
        self._accounts = accounts
        self._budgets = budgets
        self._clock = clock
        self._guests = guests_of(engine)
        self._policies: dict[tuple[str, str], tuple[float, Policy | Trouble, Obj]] = {}
        self._regions: dict[tuple[str, str], tuple[float, tuple[str, ...]]] = {}

    # -- Budgets -----------------------------------------------------------------------------------------------------

    def within(self, memory: Memory, obj: Obj, there: Machines, would: Plan) -> tuple[BudgetVerdict, bool, str]:
        """What the Budgets say, whether there is room for all that would run, and what forbids it."""
        if not self._engine.cache.count(BUDGET):
            return BudgetVerdict(allowed=True, exceeded=False, remaining_nanos=None), True, ""
        asked, labels = memory.asked, _labels(obj)
        currency = self._currency(asked, labels, there.members)
        quote = self.held(memory, obj)
        # an hour of these is reserved already
        counted = {run.uid for run in there.runs if run.ended is None and run.coming and not run.resting}
        extra = sum(m.nanos or 0 for p in would.pools for m in p.stay if m.uid not in counted)
        extra += sum((line.nanos or 0) * line.count for line in (owed(quote, would) if quote is not None else ()))
        now = self._budgets.ask(asked.namespace, asked.name, labels, 0, currency)
        later = self._budgets.ask(asked.namespace, asked.name, labels, extra, currency) if now.allowed else now
        return now, later.allowed, now.message or later.message

    def uncounted(self, asked: Asked, obj: Obj, members: Sequence[Member]) -> str:
        """Which Budget doesn't count the machines, as they are priced in another currency; empty for none."""
        priced = [m.offer.price.currency for m in members if m.offer.price is not None]
        for budget in self._engine.cache.list(BUDGET, asked.namespace) if priced else ():
            own = str(budget["spec"].get("currency", "USD"))
            others = [currency for currency in priced if currency != own]
            if others and not budget["metadata"].get("deletionTimestamp") and selects(budget, _labels(obj)):
                many = "1 machine" if len(others) == 1 else f"{len(others)} machines"
                return f"Budget '{budget['metadata']['name']}' is in {own} and doesn't count {many} in {others[0]}"
        return ""

    def _currency(self, asked: Asked, labels: Mapping[str, str], members: Sequence[Member] = ()) -> str:
        """The currency that is counted in: the limit's, a Budget's, or that of the machines."""
        if asked.currency:
            return asked.currency
        for budget in self._engine.cache.list(BUDGET, asked.namespace):
            if selects(budget, labels):
                return str(budget["spec"].get("currency", "USD"))
        return next((m.offer.price.currency for m in members if m.offer.price is not None), "USD")

    # -- the quote -----------------------------------------------------------------------------------------------------

    def held(self, memory: Memory, obj: Obj) -> Quote | None:
        """The quote that was published last."""
        if not memory.quote_read:
            memory.quote_read = True
            memory.quote = from_status(memory.asked, obj.get("status") or {})
            memory.approved = read_approved(obj) if memory.asked.approval else None
        return memory.quote

    async def recall(self, memory: Memory, obj: Obj) -> None:
        """Notes what was acted on before somebody asked for approval, while the spec is still that."""
        held, asked = self.held(memory, obj), memory.asked
        acted = (obj.get("status") or {}).get("approvedQuote")
        if not asked.approval or held is None:
            return
        if memory.approved is None or memory.approved.quote.hash != acted:
            memory.approved = read_approved(obj)
        if memory.approved is None and acted == held.hash:
            policy = await self._policy(asked)
            if isinstance(policy, Policy) and held.question == asked.question(policy):
                memory.approved = approve(obj, held, self._policy_spec(asked))

    async def choose(self, memory: Memory, obj: Obj, members: Sequence[Member], plan: Plan, now_text: str) -> Chosen:
        """Offers for all that is needed, and the quote."""
        if plan.power:
            refused = self._unpriced(memory.asked, _labels(obj), members, plan)
            refused = refused or over_limit(memory.asked, members, self.guests(memory.asked))
            refused = refused or self._claim(memory.asked, _labels(obj), members, plan.wake_nanos)
            if refused is not None:
                return Chosen(quote=memory.quote, trouble=refused)
            self._promise(memory.asked, sum(m.nanos or 0 for m in members))
        idle = not plan.create and not any(p.adopt for p in plan.pools)
        if idle and (not plan.later or memory.keeps or _is_settled(memory)):
            return Chosen(quote=memory.quote, may_wake=True)
        return replace(await self._choose(memory, obj, members, plan, now_text), may_wake=True)

    async def _choose(self, memory: Memory, obj: Obj, members: Sequence[Member], plan: Plan, now_text: str) -> Chosen:
        asked, now, labels = memory.asked, to_seconds(now_text), _labels(obj)
        accounts = choose_accounts(asked, self._engine.cache, self._accounts, patient=self._is_patient(memory))
        if accounts.trouble is None:
            memory.waits_since = None
        if any(p.whole for p in plan.pools) and accounts.trouble is not None:
            return Chosen(quote=memory.quote, trouble=accounts.trouble)
        policy = await self._policy(asked)
        if isinstance(policy, Trouble):
            return Chosen(quote=memory.quote, trouble=policy)
        self._remember_taken(asked, plan)
        own = _refused(memory, plan, now_text)
        blocks = (*(b for account in accounts.usable for b in account.blocks()), *_avoid(plan, now), *own)
        held = self.held(memory, obj)
        status = obj.get("status") or {}
        approved = status.get("approvedQuote", "")
        rejected: tuple[Rejection, ...] = memory.placement.rejected if memory.placement is not None else ()
        trouble: Trouble | None = None
        guests = self.guests(asked)
        shape = asked.question(policy)
        decisions: tuple[Decision, ...] | None = None
        if not any(p.whole for p in plan.pools):
            decisions = ()
        elif held is not None and held.question == shape:
            decisions = self._go_on(asked, plan, held, accounts.usable, blocks, now, approved, guests)
        if decisions and any(d.offer.price is None for d in decisions) and self._is_limited(asked, labels, members):
            decisions = None  # quoted before there was a Budget, under which unknown is never free
        cheapest: tuple[int | None, str] = (None, "")
        if decisions is None:
            limit, budget, currency = self._limit(asked, labels, members, plan, guests)
            question = request(
                asked,
                plan,
                accounts=[a.name for a in accounts.usable],
                policy=policy,
                max_hourly=limit,
                account_limits=self._limits(accounts.usable, plan),
                blocks=blocks,
                currency=currency,
                no_public=frozenset(a.name for a in accounts.usable if "PublicAddresses" in a.info.lacks),
                max_disks={a.name: most for a in accounts.usable if (most := a.info.max_disk_gib) is not None},
            )
            placement = self._place(memory, question, now_text)
            if isinstance(placement, Trouble):
                return Chosen(quote=memory.quote, trouble=placement)
            decisions, rejected = placement.decisions, placement.rejected
            cheapest = (placement.cheapest_nanos, placement.cheapest)
            if placement.missing:
                trouble = _missing(placement, budget, currency, asked, guests)
                if own and len(own) == len(blocks) and trouble.reason == c.REASON_CAPACITY_UNAVAILABLE:
                    trouble = replace(trouble, reason=c.REASON_NO_FEASIBLE_OFFER)  # there is room: not for such ones
                if trouble.stalled or not decisions:
                    return Chosen(quote=memory.quote, rejected=rejected, trouble=trouble)
        stay = [m for p in plan.pools for m in p.stay]
        if memory.keeps:
            decisions = within(held, stay, decisions) if held is not None else ()
            if not decisions:
                return Chosen(quote=held, rejected=rejected, trouble=trouble)
        found = gate(
            asked,
            held,
            lines_of(stay, decisions),
            now,
            approval=(obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_APPROVED_QUOTE, ""),
            approved=approved,
            cheapest=cheapest[0],
            cheapest_words=cheapest[1],
            question=shape,
            beside=_beside(plan),
        )
        memory.quote = found.quote
        if not found.go:
            waiting = Trouble(c.REASON_AWAITING_APPROVAL, found.message)
            return Chosen(quote=found.quote, rejected=rejected, trouble=waiting)
        publish = (status.get("quote") or {}).get("hash") != found.quote.hash or approved != found.quote.hash
        decisions = first_step(plan, decisions)
        refused = self._no_room(asked, plan, decisions, guests, accounts.usable) if asked.approval else None
        if refused is not None:
            return Chosen(quote=found.quote, rejected=rejected, trouble=refused)
        if plan.later and not decisions:
            self._note_approved(memory, obj, found.quote)
            return Chosen((), found.quote, rejected, trouble, publish)
        extra = sum((d.offer.price.nanos if d.offer.price is not None else 0) * d.count for d in decisions)
        currency = found.quote.currency or self._currency(asked, labels, members)
        refused = self._claim(asked, labels, members, extra + plan.wake_nanos, currency)
        if refused is not None:
            return Chosen(quote=found.quote, rejected=rejected, trouble=refused)
        self._promise(asked, max(sum(m.nanos or 0 for m in members) + extra, found.quote.hourly or 0))
        self._note_approved(memory, obj, found.quote)
        return Chosen(decisions, found.quote, rejected, trouble, publish)

    def _note_approved(self, memory: Memory, obj: Obj, quote: Quote) -> None:
        """The quote is about to be acted on."""
        if memory.keeps or not memory.asked.approval:
            return
        held = memory.approved.quote if memory.approved is not None else None
        if held is None or (held.hash, held.question) != (quote.hash, quote.question):
            memory.approved = approve(obj, quote, self._policy_spec(memory.asked))

    def _no_room(
        self, asked: Asked, plan: Plan, step: Sequence[Decision], guests: int, usable: Sequence[Account]
    ) -> Trouble | None:
        """Whether a limit forbids what is to be made now, though what was approved is within it."""
        stay = [m for p in plan.pools for m in p.stay]
        hourly = sum(m.nanos or 0 for m in stay) + leaving_nanos(plan) + guests
        hourly += sum((d.offer.price.nanos if d.offer.price is not None else 0) * d.count for d in step)
        if step and asked.max_hourly is not None and hourly > asked.max_hourly:
            message = (
                f"the next step costs {rounded(hourly)} {asked.currency} per hour, with the machines "
                f"that it replaces; `spec.maxHourlyCost` is {rounded(asked.max_hourly)}"
            )
            return Trouble(c.REASON_OVER_MAX_HOURLY_COST, message, stalled=True)
        for account, left in self._limits(usable).items():
            if sum(d.count for d in step if d.offer.account == account) > left:
                message = f"`spec.limits.machines` of CloudAccount '{account}' leaves no room to replace machines"
                return Trouble(c.REASON_QUOTA_EXCEEDED, message)
        return None

    def _is_patient(self, memory: Memory) -> bool:
        """Whether its accounts may still be on their first look."""
        if memory.waits_since is None:
            memory.waits_since = self._clock()
        return self._clock() - memory.waits_since < FIRST_LOOK_SECONDS

    def _claim(
        self, asked: Asked, labels: Mapping[str, str], members: Sequence[Member], extra: int, currency: str = ""
    ) -> Trouble | None:
        currency = currency or self._currency(asked, labels, members)
        verdict = self._budgets.claim(asked.namespace, asked.name, labels, extra, currency)
        if verdict.allowed:
            return None
        return Trouble(c.REASON_BUDGET_EXCEEDED, verdict.message, stalled=True)

    def _is_limited(self, asked: Asked, labels: Mapping[str, str], members: Sequence[Member]) -> bool:
        """Whether a Budget forbids what costs more than it has left."""
        currency = self._currency(asked, labels, members)
        return self._budgets.ask(asked.namespace, asked.name, labels, 0, currency).remaining_nanos is not None

    def _unpriced(
        self, asked: Asked, labels: Mapping[str, str], members: Sequence[Member], plan: Plan
    ) -> Trouble | None:
        """Whether machines would wake under a Budget whose price nobody knows."""
        unknown = [m.name for m, power in plan.power if power == "Running" and m.nanos is None]
        if not unknown or not self._is_limited(asked, labels, members):
            return None
        message = f"nobody knows the price of {unknown[0]}: under a Budget it can't be woken"
        return Trouble(c.REASON_BUDGET_EXCEEDED, message, stalled=True)

    def guests(self, asked: Asked) -> int:
        """What machines cost an hour that name a cluster with a limit, and that it didn't make."""
        return self._guests.hourly(asked.namespace, asked.name) if asked.max_hourly is not None else 0

    def _promise(self, asked: Asked, hourly: int) -> None:
        """What all machines are about to cost an hour counts for those that name the cluster from now on."""
        if asked.max_hourly is not None:
            self._guests.promise(asked.namespace, asked.name, hourly)

    def _limit(
        self, asked: Asked, labels: Mapping[str, str], members: Sequence[Member], plan: Plan, guests: int
    ) -> tuple[int | None, str, str]:
        """The limit on all machines per hour, the Budget that makes it (empty for none), and its currency."""
        currency = self._currency(asked, labels, members)
        verdict = self._budgets.ask(asked.namespace, asked.name, labels, 0, currency)
        left = verdict.remaining_nanos
        most = max(0, asked.max_hourly - guests) if asked.max_hourly is not None else None
        if left is None:
            return most, "", currency
        stay = sum(m.nanos or 0 for p in plan.pools for m in p.stay)
        by_budget = max(0, stay + leaving_nanos(plan) + left - plan.wake_nanos)
        if most is not None and most <= by_budget:
            return most, "", currency
        return by_budget, verdict.budget, currency

    def _remember_taken(self, asked: Asked, plan: Plan) -> None:
        """An offer whose machine was taken away has no room at the moment, for other clusters neither."""
        for member in (m for p in plan.pools for m in p.avoid if m.preempted):
            account = self._accounts.get(asked.namespace, member.offer.account)
            if account is not None:
                account.remember(member.offer, CapacityUnavailable(member.message))

    def _go_on(
        self,
        asked: Asked,
        plan: Plan,
        held: Quote,
        usable: Sequence[Account],
        blocks: Sequence[Block],
        now: int,
        approved: str,
        guests: int,
    ) -> tuple[Decision, ...] | None:
        """What the quote still names, if that is just what is needed."""
        settled = asked.approval and approved == held.hash
        if not settled and now >= held.expires_at:
            return None
        if asked.max_hourly is not None and (
            held.hourly is None
            or held.currency != asked.currency
            or held.hourly + (0 if plan.later else leaving_nanos(plan)) + guests > asked.max_hourly
        ):
            return None
        by_name = {account.name: account for account in usable}
        blocked = {b.key for b in blocks}

        def offer(account: str, offer_id: str) -> Offer | None:
            found = by_name.get(account)
            return found.offer(offer_id) if found is not None else None

        def is_free(found: Offer) -> bool:
            return not blocked & {found.account, offer_key(found), quota_key(found)}

        return go_on(held, plan, offer, is_free, approved=settled)

    def _limits(self, usable: Sequence[Account], plan: Plan | None = None) -> dict[str, int]:
        """Machines that accounts may still make; for a whole roll-out, when those have left that it replaces."""
        out: dict[str, int] = {}
        leaving = [m.offer.account for p in plan.pools for m in p.leaving] if plan is not None and plan.later else []
        for account in usable:
            if account.limit_machines is not None:
                there = self._accounts.count_asked(account) - leaving.count(account.name)
                out[account.name] = max(0, account.limit_machines - there)
        return out

    def _place(self, memory: Memory, question: Request, now_text: str) -> Placement | Trouble:
        """Asks the scheduler; the same question again has the same answer for a while."""
        table = self._accounts.table(memory.asked.namespace, question.accounts)
        key = question_key(question, id(table))
        clock = self._clock()
        if memory.placement is not None and key == memory.question and clock - memory.asked_at < SAME_SECONDS:
            return memory.placement
        try:
            placement = place(question, table, now=now_text, plugin=plugin_of(question.policy))
        except PolicyError as error:
            return Trouble(c.REASON_NO_FEASIBLE_OFFER, f"`spec.placement`: {error}", stalled=True)
        memory.placement, memory.question, memory.asked_at = placement, key, clock
        return placement

    async def _policy(self, asked: Asked) -> Policy | Trouble:
        """The policy of a cluster, with the places of the data that it is to be near to."""
        policy = await self._told_policy(asked)
        if isinstance(policy, Trouble) or not policy.data_directory:
            return policy
        key = (asked.namespace, policy.data_directory)
        held = self._regions.get(key)
        if held is None or self._clock() - held[0] >= POLICY_SECONDS:
            directories = self._engine.directories
            where = "`dataNear.directoryRef.name`"
            if directories is None:
                return Trouble(c.REASON_NO_FEASIBLE_OFFER, f"{where}: this operator serves no VirtualDirectories")
            try:
                regions = await directories.regions(*key)
            except NotFound as error:
                return Trouble(c.REASON_NO_FEASIBLE_OFFER, f"{where}: {error}")
            if len(self._regions) > 1000:
                self._regions.clear()
            held = self._regions[key] = (self._clock(), regions)
        return replace(policy, data_location=held[1])

    async def _told_policy(self, asked: Asked) -> Policy | Trouble:
        """The policy as it is written; one that is referred to is read at most every 10 s."""
        if not asked.policy_ref:
            return asked.policy
        key = (asked.namespace, asked.policy_ref)
        held = self._policies.get(key)
        if held is not None and self._clock() - held[0] < POLICY_SECONDS:
            return held[1]
        found = await self._engine.kube.get(PLACEMENT_POLICY, asked.namespace, asked.policy_ref)
        answer: Policy | Trouble
        spec: Obj = (found or {}).get("spec") or {}
        where = f"`spec.placement.policyRef.name`: PlacementPolicy '{asked.policy_ref}'"
        if found is None:
            answer = Trouble(c.REASON_NO_FEASIBLE_OFFER, f"{where} isn't there", stalled=True)
        else:
            try:
                answer = read_policy(PlacementPolicy.model_validate(found | {"status": {}}).spec)
            except ValidationError as error:
                answer = Trouble(c.REASON_NO_FEASIBLE_OFFER, f"{where} can't be read: {error}", stalled=True)
        if len(self._policies) > 1000:
            self._policies.clear()
        self._policies[key] = (self._clock(), answer, spec)
        return answer

    def _policy_spec(self, asked: Asked) -> Obj | None:
        """Spec of the PlacementPolicy that `_policy` just read, None if the cluster refers to none."""
        return self._policies[asked.namespace, asked.policy_ref][2] if asked.policy_ref else None


def _is_settled(memory: Memory) -> bool:
    """Whether what is approved is what is asked for, whatever the numbers."""
    held, approved = memory.quote, memory.approved
    if held is None or approved is None or held.hash != approved.quote.hash:
        return False
    return memory.asked.question(approved.asked.policy) == approved.quote.question


def _beside(plan: Plan) -> str:
    """What of the old machines runs beside those of a quote, in words."""
    leaving = [m for p in plan.pools for m in p.leaving]
    if not leaving:
        return ""
    count = "1 machine" if len(leaving) == 1 else f"{len(leaving)} machines"
    return f" (and {count} of {rounded(sum(m.nanos or 0 for m in leaving))} until the new ones have replaced them)"


def _labels(obj: Obj) -> Mapping[str, str]:
    labels: Mapping[str, str] = obj["metadata"].get("labels") or {}
    return labels


def _avoid(plan: Plan, now: int) -> tuple[Block, ...]:
    """What failed a moment ago for this very cluster, whatever the account remembers of it."""
    return tuple(
        Block(offer_key(m.offer), m.failed, to_time(m.ready_since + AVOID_SECONDS), m.message)
        for p in plan.pools
        for m in p.avoid
        if m.failed not in (*REQUEST, QuotaExceeded.reason)  # of a quota the account knows how long it waits
        if abs(now - m.ready_since) < AVOID_SECONDS  # a time far ahead was told by a clock that was wrong
    )


def _refused(memory: Memory, plan: Plan, now_text: str) -> tuple[Block, ...]:
    """What a cloud won't make as this cluster asks for it, whoever else may get it."""
    for p in plan.pools:
        for m in p.avoid:
            if m.failed in REQUEST and m.uid not in memory.noted and p.pool.templates.get(m.alternative) == m.template:
                memory.noted.add(m.uid)
                memory.refused.refused(m.offer, m.failed, m.message, now_text)
    return memory.refused.blocks(now_text)


def _missing(placement: Placement, budget: str, currency: str, asked: Asked, guests: int) -> Trouble:
    reason, message, unsure = placement.reason or c.REASON_NO_FEASIBLE_OFFER, placement.message, ""
    if reason == c.REASON_NO_FEASIBLE_OFFER and any(r.filter == "Currency" for r in placement.rejected):
        limit = f"Budget '{budget}'" if budget else "`spec.maxHourlyCost`"
        unsure = f"{limit} is in {currency}: prices in another currency can't be compared with it"
        message = f"{message}; {unsure}"
    elif reason == c.REASON_OVER_MAX_HOURLY_COST and budget:
        reason, message = c.REASON_BUDGET_EXCEEDED, f"{message}; the limit is what Budget '{budget}' has left"
    elif reason == c.REASON_OVER_MAX_HOURLY_COST and guests:
        whole = f"{rounded(asked.max_hourly or 0)} {asked.currency}"
        message = f"{message}; machines that only name the cluster take {rounded(guests)} of its {whole} an hour"
    return Trouble(reason, message, stalled=reason in FINAL, unsure=unsure)


def question_key(question: Request, table: int) -> Hashable:
    """Equal for questions to one table that have the same answer."""

    def part(value: Any) -> Hashable:
        if isinstance(value, Mapping):
            return tuple(sorted(value.items()))
        return repr(value) if isinstance(value, Policy) else value

    # how long a failure is remembered doesn't matter as long as it is
    known = replace(question, blocks=tuple(replace(b, until="", message="") for b in question.blocks))
    return (table, *(part(getattr(known, f.name)) for f in fields(known)))


def over_limit(asked: Asked, members: Sequence[Member], guests: int = 0) -> Trouble | None:
    """Whether what is there costs more than `maxHourlyCost`, which was lowered or prices rose.

    Args:
        asked: The cluster.
        members: Its machines.
        guests: What machines cost an hour that only name it.
    """
    hourly = sum(m.nanos or 0 for m in members if not m.deleting) + guests
    if asked.max_hourly is None or hourly <= asked.max_hourly:
        return None
    others = f", {rounded(guests)} of it those that only name the cluster" if guests else ""
    message = (
        f"the machines cost {rounded(hourly)} {asked.currency} per hour{others}, `spec.maxHourlyCost` is "
        f"{rounded(asked.max_hourly)}: scale down or raise it"
    )
    return Trouble(c.REASON_OVER_MAX_HOURLY_COST, message, stalled=True)
