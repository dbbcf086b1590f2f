"""What is said of a cluster: conditions, sizes, endpoints. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudmesh.api import conditions as c
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.members import Member, units
from cloudmesh.compute.plan import Plan
from cloudmesh.compute.quote import Quote, to_status
from cloudmesh.compute.rollout import is_outdated
from cloudmesh.policy.model import Rejection

Obj = Mapping[str, Any]

LABEL_CLUSTER = "cloudmesh.org/cluster"
LABEL_POOL = "cloudmesh.org/pool"
MAX_ENDPOINTS = 64
MAX_REJECTED = 64


@dataclass(frozen=True, slots=True)
class Trouble:
    """What stands in the way of the cluster as a whole.

    Args:
        reason: Reason of Ready.
        message: For people.
        status: What Ready is: Unknown while somebody doesn't answer.
        stalled: It stays so until somebody changes something.
        scheduled: It is about the choice of offers.
        unsure: Why nobody knows whether it is within its limits, empty if that is known.
    """

    reason: str
    message: str
    status: c.Status = "False"
    stalled: bool = False
    scheduled: bool = True
    unsure: str = ""


def clash(message: str) -> Trouble | None:
    """That something of somebody else's has a name of the cluster's; None for an empty message."""
    return Trouble(c.REASON_NAME_CONFLICT, message, stalled=True, scheduled=False) if message else None


def not_adopted(members: Sequence[Member]) -> Trouble | None:
    """That a machine can't be taken over: nothing is tried again until somebody changes that."""
    found = next((m for m in members if m.adopted and m.refused and not m.deleting), None)
    if found is None:
        return None
    message = f"'{found.adopted}' can't be taken over from CloudAccount '{found.offer.account}': {found.message}"
    return Trouble(found.failed, message, stalled=True, scheduled=False)


@dataclass(frozen=True, slots=True)
class Boot:
    """What the bootstrap says of the cluster.

    Args:
        state: How it stands.
        message: In words.
        unreachable: Which two machines don't reach each other, in words; empty if all that need to do.
        mounts: Why a directory isn't mounted as asked; empty if all are, None where none is asked for.
    """

    state: Literal["Done", "Pending", "Failed"] = "Done"
    message: str = ""
    unreachable: str = ""
    mounts: str | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the status is made of.

    Args:
        members: The machines.
        views: The same, as other parts see them.
        plan: What is needed.
        rest: Why it rests, empty if it doesn't: Requested, Idle or BudgetExceeded.
        trouble: What stands in the way, None for nothing.
        quote: The quote that holds.
        approved: Hash of the quote that was acted on, empty for none.
        granted: Members of the status that tell what was approved.
        rejected: Where offers fell.
        boot: What the bootstrap says.
        budget: Message of the Budget that forbids, empty if none does.
        uncounted: Which Budget doesn't count its machines, in words; empty for none.
        stale: Accounts whose prices aren't fresh, in words.
        cost: `status.cost`.
        keep: Members of the status that are kept as they are.
    """

    members: Sequence[Member]
    views: Sequence[MachineView]
    plan: Plan
    rest: str = ""
    trouble: Trouble | None = None
    quote: Quote | None = None
    approved: str = ""
    granted: Mapping[str, Any] = field(default_factory=dict)
    rejected: Sequence[Rejection] = ()
    boot: Boot = Boot()
    budget: str = ""
    uncounted: str = ""
    stale: str = ""
    cost: Mapping[str, Any] | None = None
    keep: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Ready says."""

    status: c.Status
    reason: str
    message: str
    stalled: bool = False
    reconciling: bool = False


def verdict(asked: Asked, facts: Facts) -> Verdict:
    """What Ready says, by the first thing that isn't as it should be."""
    here = [m for m in facts.members if not m.deleting]
    if facts.plan.state == "End":
        over = f"maxLifetimeSeconds {asked.max_lifetime} is over"
        left = f"; {are(len(facts.members), 'machine')} being deleted" if facts.members else ""
        return Verdict("False", c.REASON_LIFETIME_EXCEEDED, over + left, stalled=True)
    if facts.rest == "BudgetExceeded":
        return Verdict("False", c.REASON_BUDGET_EXCEEDED, facts.budget, stalled=True)
    if facts.rest:
        awake = [m for m in facts.members if not (m.power != "Running" and m.ready == "True")]
        why = "as asked" if facts.rest == "Requested" else "since nobody used it"
        if awake:
            message = f"{are(len(awake), 'machine')} being suspended or deleted {why}, such as '{awake[0].name}'"
            return Verdict("False", c.REASON_SUSPENDED, message, reconciling=True)
        return Verdict("True", c.REASON_SUSPENDED, f"suspended {why}; {_count(len(here), 'machine')} kept")
    if (trouble := facts.trouble) is not None:
        return Verdict(trouble.status, trouble.reason, trouble.message, trouble.stalled, not trouble.stalled)
    working = _working(here)
    progress = f"{working} of {asked.replicas} replicas are ready"
    unknown = [m for m in here if m.ready == "Unknown" and m.was_up]
    if unknown:
        message = f"{progress}; nobody knows of '{unknown[0].name}': {unknown[0].message}"
        return Verdict("Unknown", c.REASON_CLOUD_UNAVAILABLE, message, reconciling=True)
    asleep = [m for m in here if m.power != "Running" or m.at_rest]
    if asleep:
        message = f"{progress}; '{asleep[0].name}' is being woken"
        return Verdict("False", c.REASON_PROVISIONING, message, reconciling=True)
    short = [p for p in asked.pools if units([m for m in here if m.pool == p.name and not m.failed]) < p.replicas]
    unmade = [m for m in here if not m.made]
    if short or unmade or facts.plan.create:
        first = next((m for m in here if m.failed), None) or next(iter(unmade), None)
        more = f"; '{first.name}': {first.message}" if first is not None and first.message else ""
        return Verdict("False", c.REASON_PROVISIONING, progress + more, reconciling=True)
    up = [v for v in facts.views if not v.deleting and not v.failed]
    unreached = [v for v in up if not v.reachable]
    if facts.boot.unreachable:
        return Verdict("False", c.REASON_UNREACHABLE, facts.boot.unreachable, reconciling=True)
    if facts.boot.state == "Failed":
        return Verdict("False", c.REASON_BOOTSTRAPPING, facts.boot.message, stalled=True)
    late = [m for m in here if m.ready != "True"]
    if unreached and late:
        message = f"{progress}; '{unreached[0].name}': {unreached[0].message}"
        up_before = {m.name for m in late if m.was_up}
        starts = unreached[0].reason != c.REASON_UNREACHABLE or unreached[0].name not in up_before
        return Verdict("False", c.REASON_PROVISIONING if starts else c.REASON_UNREACHABLE, message, reconciling=True)
    if facts.boot.state == "Pending" or late:
        message = facts.boot.message or (late[0].message if late else "")
        return Verdict("False", c.REASON_BOOTSTRAPPING, f"{progress}; {message}".rstrip("; "), reconciling=True)
    if facts.boot.mounts:
        return Verdict("False", c.REASON_NOT_MOUNTED, f"{progress}; {facts.boot.mounts}", reconciling=True)
    old = [m for p in facts.plan.pools for m in (*p.leaving, *(r.member for r in p.delete if r.reason == "Outdated"))]
    if old:
        message = f"{progress}; {_count(len(old), 'machine')} of an older spec left, such as '{old[0].name}'"
        return Verdict("False", c.REASON_PROVISIONING, message, reconciling=True)
    return Verdict("True", c.REASON_AS_SPECIFIED, progress)


def _working(members: Sequence[Member]) -> int:
    return units([m for m in members if m.ready == "True" and m.power == "Running"])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def are(number: int, noun: str) -> str:
    """Such as `1 machine is` and `2 machines are`."""
    return f"{_count(number, noun)} {'is' if number == 1 else 'are'}"


def make_status(obj: Obj, asked: Asked, facts: Facts, now: str, said: Verdict) -> dict[str, Any]:
    """The status.

    Args:
        obj: The VirtualCluster.
        asked: What it asks for.
        facts: What is so.
        now: RFC 3339 time for transitions.
        said: What Ready says.
    """
    conditions = c.Conditions.of(obj, now)
    conditions.ready(said.status, said.reason, said.message, reconciling=said.reconciling, stalled=said.stalled)
    for stage in _stages(asked, facts):
        conditions.put(*stage)
    if (mounted := _mounted(facts)) is not None:
        conditions.put(*mounted)
    elif not facts.rest:
        conditions.remove(c.MOUNTED)
    here = [m for m in facts.members if not m.deleting]
    scaled = asked.scaled_pool
    status: dict[str, Any] = {
        **facts.keep,
        "observedGeneration": conditions.generation,
        "conditions": conditions.list,
        "desiredReplicas": asked.replicas,
        "replicas": units([m for m in here if not scaled or m.pool == scaled]),
        "readyReplicas": _working(here),
        "machines": len(here),
        "selector": f"{LABEL_CLUSTER}={asked.name}" + (f",{LABEL_POOL}={scaled}" if scaled else ""),
        "pools": [_pool(asked, n, here) for n in range(len(asked.pools))],
    }
    if clouds := ",".join(dict.fromkeys(m.offer.account for m in here)):
        status["clouds"] = clouds[:1024]
    status |= facts.granted
    placement: dict[str, Any] = {}
    if facts.quote is not None:
        told = to_status(facts.quote)
        status["quote"] = told.quote
        if told.decisions:
            placement["decisions"] = told.decisions
        if facts.approved == facts.quote.hash and "hourly" in told.quote:
            status["approvedHourly"] = told.quote["hourly"]["amount"]
    if facts.rejected:
        placement["rejected"] = [
            {"pool": r.pool, "filter": r.filter, "count": r.count, "example": r.example[:1024]}
            for r in list(facts.rejected)[:MAX_REJECTED]
        ]
    if placement:
        status["placement"] = placement
    if facts.approved:
        status["approvedQuote"] = facts.approved
    if facts.cost is not None:
        status["cost"] = dict(facts.cost)
    if endpoints := _endpoints(facts.views):
        status["endpoints"] = endpoints
    if said.status == "True" and said.reason == c.REASON_AS_SPECIFIED:
        status.setdefault("startedAt", now)
    return status


def _pool(asked: Asked, number: int, here: Sequence[Member]) -> dict[str, Any]:
    pool = asked.pools[number]
    mine = [m for m in here if m.pool == pool.name]
    return {
        "name": pool.name,
        "replicas": units(mine),
        "readyReplicas": _working(mine),
        "machines": len(mine),
        "updatedMachines": sum(1 for m in mine if not is_outdated(pool, m, asked.accounts)),
    }


def _endpoints(views: Sequence[MachineView]) -> list[dict[str, Any]]:
    up = sorted((v for v in views if v.host and not v.deleting and not v.failed), key=lambda v: (v.pool, v.ordinal))
    return [{"name": v.name, "host": v.host, "port": v.port, "user": v.user} for v in up[:MAX_ENDPOINTS]]


Stage = tuple[str, c.Status, str, str]


def _stages(asked: Asked, facts: Facts) -> list[Stage]:
    """The conditions besides Ready."""
    if facts.rest or facts.plan.state == "End":
        reason = c.REASON_LIFETIME_EXCEEDED if facts.plan.state == "End" else c.REASON_SUSPENDED
        types = (c.SCHEDULED, c.PROVISIONED, c.REACHABLE, c.BOOTSTRAPPED, c.HEALTHY)
        return [*((t, c.UNKNOWN, reason, "not looked at meanwhile") for t in types), *_money(facts)]
    here = [m for m in facts.members if not m.deleting]
    live = [v for v in facts.views if not v.deleting and not v.failed]
    return [
        _scheduled(facts),
        _provisioned(asked, here, facts),
        _reachable(live, facts),
        _bootstrapped(live, facts),
        _healthy(here, facts),
        *_money(facts),
    ]


def _scheduled(facts: Facts) -> Stage:
    trouble = facts.trouble
    if trouble is not None and trouble.scheduled and trouble.reason != c.REASON_AWAITING_APPROVAL:
        return (c.SCHEDULED, trouble.status, trouble.reason, trouble.message)
    if facts.quote is None and facts.plan.create:
        return (c.SCHEDULED, c.UNKNOWN, c.REASON_PENDING, "offers aren't chosen yet")
    number = sum(line.count for line in facts.quote.lines) if facts.quote is not None else len(facts.members)
    return (c.SCHEDULED, c.TRUE, "Placed", f"offers are chosen for {_count(number, 'machine')}")


def _provisioned(asked: Asked, here: Sequence[Member], facts: Facts) -> Stage:
    made = units([m for m in here if m.made and not m.failed])
    message = f"{made} of {asked.replicas} replicas were made"
    if made >= asked.replicas and not facts.plan.create:
        return (c.PROVISIONED, c.TRUE, c.REASON_AS_SPECIFIED, message)
    failed = next((m for m in here if m.failed), None)
    if failed is not None:
        message += f"; '{failed.name}': {failed.message}"
    return (c.PROVISIONED, c.FALSE, c.REASON_PROVISIONING, message)


def _reachable(live: Sequence[MachineView], facts: Facts) -> Stage:
    if facts.boot.unreachable:
        return (c.REACHABLE, c.FALSE, c.REASON_UNREACHABLE, facts.boot.unreachable)
    away = [v for v in live if not v.reachable]
    if away:
        status: c.Status = c.FALSE if away[0].reason == c.REASON_UNREACHABLE else c.UNKNOWN
        reason = c.REASON_UNREACHABLE if status == c.FALSE else c.REASON_PENDING
        message = f"{len(live) - len(away)} of {_count(len(live), 'machine')} answer; '{away[0].name}' doesn't"
        return (c.REACHABLE, status, reason, message)
    if not live:
        return (c.REACHABLE, c.UNKNOWN, c.REASON_PENDING, "there are no machines")
    return (c.REACHABLE, c.TRUE, c.REASON_AS_SPECIFIED, f"{_count(len(live), 'machine')} answer")


def _bootstrapped(live: Sequence[MachineView], facts: Facts) -> Stage:
    boot = facts.boot
    if boot.state == "Failed":
        return (c.BOOTSTRAPPED, c.FALSE, "BootstrapFailed", boot.message)
    waiting = [v for v in live if not v.bootstrapped]
    if boot.state == "Pending" or waiting or not live:
        message = boot.message or f"{len(live) - len(waiting)} of {_count(len(live), 'machine')} are set up"
        return (c.BOOTSTRAPPED, c.FALSE if live else c.UNKNOWN, c.REASON_BOOTSTRAPPING, message)
    return (c.BOOTSTRAPPED, c.TRUE, c.REASON_AS_SPECIFIED, boot.message or f"{_count(len(live), 'machine')} set up")


def _mounted(facts: Facts) -> Stage | None:
    """Of a cluster that has directories mounted, or takes them away; None for others."""
    why = facts.boot.mounts
    if why is None:
        return None
    if why:
        return (c.MOUNTED, c.FALSE, c.REASON_NOT_MOUNTED, why)
    return (c.MOUNTED, c.TRUE, c.REASON_AS_SPECIFIED, "the directories are mounted on all machines that answer")


def _healthy(here: Sequence[Member], facts: Facts) -> Stage:
    ill = [p.checkup for p in facts.plan.pools if p.checkup.message]
    if ill:
        tripped = any(checkup.tripped for checkup in ill)
        reason = "TooManyUnhealthy" if tripped else "Unhealthy"
        return (c.HEALTHY, c.FALSE, reason, "; ".join(checkup.message for checkup in ill))
    if any(m.ready == "Unknown" and m.was_up for m in here):
        return (c.HEALTHY, c.UNKNOWN, c.REASON_CLOUD_UNAVAILABLE, "a cloud doesn't answer")
    drifted = [m for m in here if m.drift]
    if drifted:
        first = drifted[0]
        message = f"{_count(len(drifted), 'machine')} differ from what was asked, such as '{first.name}' in "
        return (c.HEALTHY, c.TRUE, "Drifted", message + ", ".join(first.drift))
    return (c.HEALTHY, c.TRUE, c.REASON_AS_SPECIFIED, "no machine is ill")


def _money(facts: Facts) -> list[Stage]:
    within: Stage = (c.WITHIN_BUDGET, c.TRUE, c.REASON_AS_SPECIFIED, "no limit is passed")
    if facts.budget:
        within = (c.WITHIN_BUDGET, c.FALSE, c.REASON_BUDGET_EXCEEDED, facts.budget)
    elif facts.trouble is not None and facts.trouble.reason == c.REASON_OVER_MAX_HOURLY_COST:
        within = (c.WITHIN_BUDGET, c.FALSE, c.REASON_OVER_MAX_HOURLY_COST, facts.trouble.message)
    elif unsure := facts.uncounted or (facts.trouble.unsure if facts.trouble is not None else ""):
        within = (c.WITHIN_BUDGET, c.UNKNOWN, "CurrencyMismatch", unsure)
    if facts.stale:
        return [within, (c.PRICES_FRESH, c.FALSE, "PricesStale", facts.stale)]
    unpriced = [m.name for m in facts.members if m.nanos is None]
    if unpriced:
        message = f"nobody knows the price of {_count(len(unpriced), 'machine')}, such as '{unpriced[0]}'"
        return [within, (c.PRICES_FRESH, c.UNKNOWN, "PriceUnknown", message)]
    return [within, (c.PRICES_FRESH, c.TRUE, c.REASON_AS_SPECIFIED, "no price is out of date")]
