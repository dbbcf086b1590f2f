"""The books of a Budget: what was spent and is reserved, what is booked once, and the turn of the month; pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cloudmesh.api.budget import MAX_BOOKED
from cloudmesh.compute.budget_plan import Machine, Obj, Period, period_at
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import HOUR, to_nanos, to_text

MAX_HISTORY = 24


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is booked of a period.

    Args:
        period: Which one.
        spent: Nano-units that ended machines cost in it.
        machines: How many they were.
        sessions: Those whose VirtualMachine may still be there, oldest first: booked, never again.
    """

    period: Period
    spent: int = 0
    machines: int = 0
    sessions: tuple[str, ...] = ()

    @property
    def room(self) -> int:
        """How many more can be booked before some VirtualMachines are gone."""
        return MAX_BOOKED - len(self.sessions)


def read_ledger(budget: Obj, now: int) -> Ledger:
    """The books in a Budget's status; empty ones of the present period if there are none."""
    booked = (budget.get("status") or {}).get("booked")
    if not booked:
        return Ledger(period_at(budget, now))
    period = period_at(budget, to_seconds(f"{booked['month']}-01T00:00:00Z"))
    return Ledger(period, to_nanos(booked["spent"]), booked.get("machines", 0), tuple(booked.get("uids", ())))


def counted(budget: Obj, machines: Iterable[Machine]) -> list[Machine]:
    """The machines whose prices can be added: those in the Budget's currency."""
    currency = budget["spec"].get("currency", "USD")
    return [m for m in machines if m.hourly is not None and m.currency == currency]


def turn(budget: Obj, ledger: Ledger, machines: Sequence[Machine], now: int) -> tuple[Ledger, list[tuple[str, int]]]:
    """Begins the period that `now` lies in; gives the months that are over and what each cost.

    A clock that goes back begins no earlier month.
    """
    over = []
    while (until := ledger.period.until) is not None and until <= now:
        over.append((ledger.period.month, spent(ledger, machines, now)))
        ledger = Ledger(period_at(budget, until))
    return ledger, over


def spent(ledger: Ledger, machines: Iterable[Machine], now: int) -> int:
    """What the period has cost until now: what is booked, and what isn't yet."""
    known, period = set(ledger.sessions), ledger.period
    return ledger.spent + sum(
        m.cost_within(period.begin, period.until, now) for m in machines if m.session not in known
    )


def waiting(ledger: Ledger, machines: Iterable[Machine]) -> list[Machine]:
    """Ended machines that cost something in the period and aren't booked."""
    known, period = set(ledger.sessions), ledger.period
    return [
        m
        for m in machines
        if m.ended is not None and m.session not in known and m.cost_within(period.begin, period.until, m.ended)
    ]


def book(ledger: Ledger, machines: Iterable[Machine], there: Collection[str] = ()) -> Ledger:
    """Books ended machines, each session once, as far as there is room.

    Args:
        ledger: The books so far.
        machines: What has ended.
        there: Sessions that VirtualMachines show; an earlier one of a machine that isn't among them goes.
    """
    for machine in waiting(ledger, machines):
        if machine.session in ledger.sessions or machine.ended is None or ledger.room < 1:
            continue
        kept = [s for s in ledger.sessions if uid_of(s) != machine.uid or s in there]
        cost = machine.cost_within(ledger.period.begin, ledger.period.until, machine.ended)
        ledger = replace(
            ledger,
            spent=ledger.spent + cost,
            machines=ledger.machines + 1,
            sessions=(*kept, machine.session),
        )
    return ledger


def forget(ledger: Ledger, living: Iterable[str]) -> Ledger:
    """Drops sessions of VirtualMachines that are gone for good; `living` are the uids of those that aren't."""
    there = set(living)
    return replace(ledger, sessions=tuple(s for s in ledger.sessions if uid_of(s) in there))


def uid_of(session: str) -> str:
    """Uid of the VirtualMachine of a session."""
    return session.partition(":")[0]


def hourly_by_cluster(budget: Obj, ledger: Ledger, machines: Sequence[Machine]) -> dict[str, int]:
    """What an hour of what runs or is being made costs, by cluster, or by uid of a machine that stands alone."""
    known = set(ledger.sessions)
    groups: defaultdict[str, int] = defaultdict(int)
    for machine in counted(budget, machines):
        if machine.ended is None and machine.coming and machine.session not in known:
            groups[machine.cluster or machine.uid] += machine.hourly or 0
    return dict(groups)


@dataclass(frozen=True, slots=True)
class Count:
    """What a Budget comes to at a moment.

    Args:
        amount: What may be spent, in nano-units like all that follow.
        spent: Spent in the period so far.
        hourly: What an hour of all that runs costs.
        reserved: What the next hour costs, with what is being made or is promised.
        unknown: Machines whose price nobody knows: they aren't counted.
        foreign: Machines priced in another currency: they aren't counted either.
        disks: What an hour of the disks costs, of all machines that there are: the least, when all are stopped.
        limit_at: Second at which spent and reserved pass the amount if nothing changes, None if never or passed.
    """

    amount: int
    spent: int
    hourly: int
    reserved: int
    unknown: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()
    disks: int = 0
    limit_at: int | None = None

    @property
    def left(self) -> int:
        """What may still be promised; negative when it is too much already."""
        return self.amount - self.spent - self.reserved


def count(
    budget: Obj, ledger: Ledger, machines: Sequence[Machine], now: int, promised: Mapping[str, int] | None = None
) -> Count:
    """What a Budget comes to.

    Args:
        budget: The Budget.
        ledger: Its books of the present period.
        machines: All that it selects.
        now: Seconds since 1970.
        promised: Nano-units per hour that clusters are about to reach, by name: the higher of it and what their
            machines cost is reserved.
    """
    own = counted(budget, machines)
    hourly = sum(m.hourly or 0 for m in own if m.ended is None and m.started is not None)
    groups = hourly_by_cluster(budget, ledger, machines)
    for name, wanted in (promised or {}).items():
        groups[name] = max(groups.get(name, 0), wanted)
    amount, used, reserved = to_nanos(str(budget["spec"]["amount"])), spent(ledger, own, now), sum(groups.values())
    left = amount - used - reserved
    currency = budget["spec"].get("currency", "USD")
    return Count(
        amount=amount,
        spent=used,
        hourly=hourly,
        reserved=reserved,
        unknown=tuple(sorted(m.name for m in machines if m.hourly is None and m.ended is None and m.started)),
        foreign=tuple(sorted(m.name for m in machines if m.hourly is not None and m.currency != currency)),
        disks=sum(m.disk for m in own if m.ended is None and m.started is not None),
        limit_at=now + left * HOUR // hourly + 1 if hourly > 0 and left >= 0 else None,
    )


def booked_status(ledger: Ledger) -> dict[str, object]:
    """The books as they stand in a status."""
    status: dict[str, object] = {
        "month": ledger.period.month,
        "spent": to_text(ledger.spent),
        "machines": ledger.machines,
    }
    return status | ({"uids": list(ledger.sessions)} if ledger.sessions else {})


def history_status(budget: Obj, over: Iterable[tuple[str, int]]) -> list[dict[str, str]]:
    """The months before this one, oldest first."""
    held = list((budget.get("status") or {}).get("history") or ())
    names = {entry["month"] for entry in held}
    held += [{"month": month, "spent": to_text(cost)} for month, cost in over if month not in names]
    return held[-MAX_HISTORY:]


def until_text(period: Period) -> str | None:
    """End of a period as RFC 3339, None without one."""
    return None if period.until is None else to_time(period.until)
