"""What a cluster needs: which machines are made, go, sleep or wake. A pure function of spec, machines and time.

| state | machines |
|---|---|
| Run | as the pools ask |
| Rest (suspended, idle, over budget) | those that can sleep do, the others go and are made again afterwards |
| End (deleted, lifetime over) | all go |

Choosing offers lies between two halves: `plan` says what is needed, the scheduler answers, `machines` names what is
made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cloudmesh.compute.asked import Asked
from cloudmesh.compute.members import Member
from cloudmesh.compute.pools import Place, PoolPlan, Removal, plan_pool, units_asked
from cloudmesh.compute.tokens import machine_name
from cloudmesh.policy.model import Alternative, Block, Decision, Needs, Offer, Pin, Policy, PoolRequest, Request

State = Literal["Run", "Rest", "End"]
BUDGET = "BudgetExceeded"
"""Reason to rest that allows no cost but a disk's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a cluster needs.

    Args:
        state: What it is about.
        pools: By pool, with state Run.
        delete: Machines that go.
        power: Machines and the powerState that they are told.
        wake_nanos: What the machines that wake cost per hour, but for those that still run.
        going: Machines whose end was asked for and that may be billed until they are gone.
        next_at: When to look again by itself, in seconds since 1970.
    """

    state: State
    pools: tuple[PoolPlan, ...] = ()
    delete: tuple[Removal, ...] = ()
    power: tuple[tuple[Member, str], ...] = ()
    wake_nanos: int = 0
    going: tuple[Member, ...] = ()
    next_at: int | None = None

    @property
    def create(self) -> int:
        """Units to make."""
        return sum(pool.create for pool in self.pools)

    @property
    def later(self) -> int:
        """Units that later steps of a roll-out make, where one approval is for all of them."""
        return sum(pool.later for pool in self.pools)


def plan(
    asked: Asked,
    members: Sequence[Member],
    now: int,
    *,
    state: State = "Run",
    reason: str = "Suspended",
    powers: Mapping[str, frozenset[str] | None] | None = None,
    tripped: Mapping[str, int] | None = None,
    no_disks: bool = False,
) -> Plan:
    """The plan.

    Args:
        asked: The cluster.
        members: Its machines.
        now: Seconds since 1970.
        state: What it shall be.
        reason: Why it rests or ends; for the removals.
        powers: By account what its machines can; None where that isn't known at the moment.
        tripped: By pool when so many machines were last ill that none was replaced.
        no_disks: It rests, and there is no money for the disks of machines either.
    """
    if state == "End":
        return Plan(state, delete=tuple(Removal(m, reason) for m in members if not m.deleting))
    if state == "Rest":
        return _rest(members, reason, powers or {}, no_disks=no_disks)
    pools = []
    names = {pool.name for pool in asked.pools}
    delete = [Removal(m, "PoolRemoved") for m in members if m.pool not in names and not m.deleting]
    for pool in asked.pools:
        mine = [m for m in members if m.pool == pool.name]
        pools.append(plan_pool(asked, pool, mine, now, (tripped or {}).get(pool.name, 0)))
        delete += pools[-1].delete
    going = {r.member.name for r in delete}
    wake = tuple((m, "Running") for m in members if m.power != "Running" and not m.deleting and m.name not in going)
    return Plan(
        state,
        tuple(pools),
        tuple(delete),
        wake,
        sum(m.nanos or 0 for m, _ in wake if not m.billed),
        tuple(m for m in members if m.deleting and m.billed),
        min((p.checkup.next_at for p in pools if p.checkup.next_at is not None), default=None),
    )


def _rest(
    members: Sequence[Member], reason: str, powers: Mapping[str, frozenset[str] | None], *, no_disks: bool
) -> Plan:
    delete: list[Removal] = []
    power: list[tuple[Member, str]] = []
    for member in members:
        if member.deleting:
            continue
        able = powers.get(member.offer.account)
        if member.failed or (reason == BUDGET and member.power == "Suspended"):
            delete.append(Removal(member, reason))
        elif no_disks and (price := member.offer.price) is not None and price.disk:
            delete.append(Removal(member, BUDGET, "there is no money for its disk"))
        elif member.power != "Running":
            continue
        elif not member.made:
            delete.append(Removal(member, reason, "it isn't made yet"))
        elif able is None:
            continue  # an account that isn't known at the moment destroys nothing
        elif member.offer.purchase == "Spot":
            delete.append(Removal(member, reason, "a spot machine can't be stopped"))
        elif "StartStop" in able:
            power.append((member, "Stopped"))
        elif "Suspend" in able and reason != BUDGET:
            power.append((member, "Suspended"))  # its memory may cost something
        else:
            delete.append(Removal(member, reason, "its kind of machine can't be stopped"))
    return Plan("Rest", delete=tuple(delete), power=tuple(power))


# -- the question to the scheduler -------------------------------------------------------------------------------------


def request(
    asked: Asked,
    plan: Plan,
    *,
    accounts: Sequence[str],
    policy: Policy,
    max_hourly: int | None,
    account_limits: Mapping[str, int],
    blocks: Sequence[Block],
    currency: str,
    no_public: frozenset[str] = frozenset(),
    max_disks: Mapping[str, int] | None = None,
) -> Request:
    """What the scheduler is asked: machines that stay are pinned, at the prices that they were made at.

    Args:
        asked: The cluster.
        plan: Its plan.
        accounts: Names of usable accounts, in order.
        policy: How to choose.
        max_hourly: Limit on all, in nano-units; machines that leave are taken off it here, since they cost until then,
            but for a roll-out that is asked for as a whole: at its end they are gone.
        account_limits: Machines that an account may still make.
        blocks: What failed a moment ago.
        currency: Currency of the limit.
        no_public: Accounts whose machines can't have addresses of the internet.
        max_disks: By account the largest disk in GiB.
    """
    if max_hourly is not None and not plan.later:
        max_hourly = max(0, max_hourly - leaving_nanos(plan))
    return Request(
        pools=tuple(map(_pool_request, plan.pools)),
        accounts=tuple(accounts),
        policy=policy,
        max_hourly_nanos=max_hourly,
        currency=currency,
        same_network=asked.same_network,
        account_limits=account_limits,
        blocks=tuple(blocks),
        no_public=no_public,
        max_disks=max_disks or {},
    )


def leaving_nanos(plan: Plan) -> int:
    """What the machines cost per hour that go, and may be billed until they are gone."""
    leaving = [m for p in plan.pools for m in p.leaving]
    going = [r.member for r in plan.delete if r.member.billed]
    return sum(m.nanos or 0 for m in (*leaving, *going, *plan.going))


def _pool_request(p: PoolPlan) -> PoolRequest:
    pool = p.pool
    pins: dict[tuple[str, str, int, int | None], tuple[Offer, int]] = {}
    for m in p.stay:
        key = (m.offer.id, m.alternative, m.counts_as, m.nanos)
        pins[key] = (m.offer, pins[key][1] + 1 if key in pins else 1)
    return PoolRequest(
        name=pool.name,
        replicas=units_asked(p),
        alternatives=pool.alternatives or (Alternative("default", Needs()),),
        image=pool.image,
        base_on_demand=pool.base_on_demand,
        above_base=pool.above_base,
        spot_taken=any(m.preempted for m in p.avoid),
        regions=pool.regions,
        zones=pool.zones,
        spread=pool.spread,
        colocate=pool.colocate,
        public_address=pool.public_address,
        pinned=tuple(Pin(offer, key[1], key[2], count) for key, (offer, count) in pins.items()),
    )


def first_step(plan: Plan, decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """What of a whole roll-out is made now."""
    if not plan.later:
        return tuple(decisions)
    need = {p.pool.name: p.create for p in plan.pools}
    out: list[Decision] = []
    for d in decisions:
        count = min(d.count, -(-need[d.pool] // d.counts_as))
        if count > 0:
            need[d.pool] -= count * d.counts_as
            out.append(replace(d, count=count))
    return tuple(out)


# -- what is made ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class NewMachine:
    """A machine to be made.

    Args:
        name: Its name, and its host name.
        pool: Its pool.
        place: Where it goes.
        alternative: Alternative of the pool.
        counts_as: Units that it counts for.
        offer: What it is made of; for an adopted one its account and id are all that is known.
        template: Hash of what the pool asks for.
        image: Image alias, empty for the account's default.
        disk_gib: Disk, 0 for the offer's own.
        adopt: The cloud's id of a machine to take over.
        public_address: It needs an address of the internet.
        why: The scheduler's reason.
    """

    name: str
    pool: str
    place: Place
    alternative: str
    counts_as: int
    offer: Offer
    template: str = ""
    image: str = ""
    disk_gib: int = 0
    adopt: str = ""
    public_address: bool = False
    why: str = ""


def machines(asked: Asked, plan: Plan, decisions: Sequence[Decision]) -> tuple[NewMachine, ...]:
    """Names what the scheduler decided, each with its place; adopted ones come first."""
    out: list[NewMachine] = []
    for p in plan.pools:
        pool = p.pool
        for adoption, place in p.adopt:
            name = machine_name(asked.name, pool.name, place.ordinal, place.attempt)
            offer = Offer(adoption.account, "adopted")
            out.append(
                NewMachine(name, pool.name, place, pool.alternatives[0].name, 1, offer, adopt=adoption.provider_id)
            )
        places = iter(p.places)
        needs = {a.name: a.needs for a in pool.alternatives}
        for decision in decisions:
            if decision.pool != pool.name:
                continue
            for _ in range(decision.count):
                # never more machines than units, whatever the scheduler says
                chosen = next(places, None)
                if chosen is None:
                    break
                out.append(
                    NewMachine(
                        machine_name(asked.name, pool.name, chosen.ordinal, chosen.attempt),
                        pool.name,
                        chosen,
                        decision.alternative,
                        decision.counts_as,
                        decision.offer,
                        pool.templates[decision.alternative],
                        pool.image,
                        needs[decision.alternative].disk_gib,
                        public_address=pool.public_address,
                        why=decision.why,
                    )
                )
    return tuple(out)
