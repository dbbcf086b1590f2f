"""What a Budget counts, when it books, and what it allows: pure functions of objects and the time.

A machine costs its price per hour for the time in which it was seen to run, rounded up to a nano-unit. While its
VirtualMachine is there, that is counted from the object. When it has ended it is *booked*: its cost goes into
`status.booked.spent` and its session into `status.booked.uids` in one write, and the VirtualMachine keeps its finalizer
until then. A session is one run from `startedAt` to `endedAt`; a machine that is started again begins another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloudmesh.api.virtualmachine_status import MAX_CHARGES, MAX_LABELS
from cloudmesh.compute.machines import is_failed
from cloudmesh.compute.prices.moments import month_of, to_month, to_seconds
from cloudmesh.compute.prices.money import cost, rounded, to_nanos, to_text
from cloudmesh.compute.reading import ANNOTATION_QUOTED

Obj = Mapping[str, Any]
ENFORCE = "Enforce"


@dataclass(frozen=True, slots=True)
class Machine:
    """One run of a machine, as its VirtualMachine tells it.

    Args:
        uid: Uid of the VirtualMachine.
        name: Its name.
        cluster: Name of its VirtualCluster, empty for none.
        started: Second at which it was seen running, None if it never was.
        ended: Second at which it was seen not running any more, None while it runs.
        hourly: Nano-units per hour, None if nobody knows.
        currency: Currency of the price.
        coming: It may still be made, or runs: an hour of it is reserved.
        disk: What of `hourly` is for its disk, in whatever run.
        resting: It is stopped, and only its disk costs.
    """

    uid: str
    name: str
    cluster: str
    started: int | None
    ended: int | None
    hourly: int | None
    currency: str = "USD"
    coming: bool = True
    disk: int = 0
    resting: bool = False

    @property
    def session(self) -> str:
        """Identity of this run."""
        return f"{self.uid}:{self.started}"

    def cost_within(self, begin: int, until: int | None, now: int) -> int:
        """Nano-units of this run within a period; nothing without a price, nor for a start that lies ahead."""
        if self.started is None or self.hourly is None:
            return 0
        end = now if self.ended is None else self.ended
        end = end if until is None else min(end, until)
        return cost(self.hourly, end - max(self.started, begin))


def read_machine(obj: Obj) -> Machine:
    """What a Budget reads of a VirtualMachine."""
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    price = status.get("hourlyPrice") or _quoted((meta.get("annotations") or {}).get(ANNOTATION_QUOTED, ""))
    known = "amount" in price and price.get("confidence") != "unknown"
    started, ended = status.get("startedAt"), status.get("endedAt")
    disk, resting = to_nanos(status.get("diskHourly", "0")), status.get("billing") == "DiskOnly"
    return Machine(
        uid=meta["uid"],
        name=meta["name"],
        cluster=(spec.get("clusterRef") or {}).get("name", ""),
        started=to_seconds(started) if started else None,
        ended=to_seconds(ended) if ended else None,
        hourly=disk + (0 if resting else to_nanos(str(price["amount"]))) if known else None,
        currency=price.get("currency", "USD"),
        coming=bool(started) or not (meta.get("deletionTimestamp") or is_failed(status)),
        disk=disk,
        resting=resting,
    )


def read_runs(obj: Obj, live: Mapping[str, str]) -> list[tuple[Machine, Mapping[str, str]]]:
    """What Budgets count of a VirtualMachine, with the labels that each part is selected by.

    A run is cut in parts where its labels changed: what it cost before stays with the Budgets of before. The last part
    is the run that goes on, or that ended last.

    Args:
        obj: The VirtualMachine.
        live: Its labels now, see `labels_of`; they count for what has no times yet.
    """
    status, whole = obj.get("status") or {}, read_machine(obj)
    charge = status.get("charge") or {}
    since = max(whole.started, to_seconds(charge["since"])) if whole.started is not None and "since" in charge else None
    last = whole if since is None else replace(whole, started=since)
    labels = charge.get("labels", {}) if charge and whole.started is not None else live
    past = [
        (
            replace(whole, started=to_seconds(part["startedAt"]), ended=to_seconds(part["endedAt"])),
            part.get("labels", {}),
        )
        for part in status.get("charges") or ()
    ]
    return [*past, (last, labels)]


def _quoted(text: str) -> dict[str, str]:
    """The price that a machine was chosen at, which counts until its own is known."""
    amount, _, currency = text.partition(" ")
    return {"amount": amount, "currency": currency} if currency else {}


def labels_of(machine: Obj, cluster: Obj | None) -> Mapping[str, str]:
    """The labels by which Budgets select a VirtualMachine: its cluster's, or its own if it has none."""
    owner = machine if cluster is None else cluster
    labels: Mapping[str, str] = owner["metadata"].get("labels") or {}
    return labels


def selects(budget: Obj, labels: Mapping[str, str]) -> bool:
    """Whether a Budget charges what carries these labels."""
    wanted = (budget["spec"].get("selector") or {}).get("matchLabels") or {}
    return all(labels.get(key) == value for key, value in wanted.items())


def is_enforced(budget: Obj) -> bool:
    """Whether a Budget forbids, and not only tells."""
    return bool(budget["spec"].get("hard", ENFORCE) == ENFORCE)


# -- periods -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Period:
    """What a Budget is about: a month of UTC, or all time.

    Args:
        month: Such as `2026-11`.
        begin: Its first second.
        until: First second after it, None without end.
    """

    month: str
    begin: int
    until: int | None


def period_at(budget: Obj, seconds: int) -> Period:
    """The period of a Budget that a moment lies in."""
    begin, until = month_of(seconds)
    month = to_month(begin)
    return Period(month, 0, None) if budget["spec"].get("period") == "Total" else Period(month, begin, until)


def booked_period(budget: Obj) -> Period | None:
    """The period that the status is about, None if there is no status yet."""
    booked = (budget.get("status") or {}).get("booked")
    return period_at(budget, to_seconds(f"{booked['month']}-01T00:00:00Z")) if booked else None


# -- who waits for a booking -------------------------------------------------------------------------------------------


def unbooked(budgets: Iterable[Obj], machine: Obj, labels: Mapping[str, str]) -> list[str]:
    """Names of the Budgets that must still book what an ended machine cost.

    While there are any, its finalizer stays and it isn't started again.

    Args:
        budgets: All Budgets of its namespace.
        machine: The VirtualMachine.
        labels: See `labels_of`.
    """
    runs = read_runs(machine, labels)
    return [
        budget["metadata"]["name"]
        for budget in budgets
        if not budget["metadata"].get("deletionTimestamp")
        and any(selects(budget, mine) and _waits(budget, run) for run, mine in runs)
    ]


def charged(
    status: Mapping[str, Any], labels: Mapping[str, str], budgets: Sequence[Obj], machine: Obj, now: str
) -> dict[str, Any]:
    """`charge` and `charges` of a machine's new status: which labels count since when.

    Args:
        status: Its new status, with the times of its run.
        labels: Its labels now, see `labels_of`.
        budgets: All Budgets of its namespace.
        machine: The VirtualMachine as it was.
        now: RFC 3339 time.
    """
    held, past = machine.get("status") or {}, list(status.get("charges") or ())
    runs = read_runs({**machine, "status": {**held, "charges": past}}, labels)
    living = [budget for budget in budgets if not budget["metadata"].get("deletionTimestamp")]
    past = [
        part
        for part, (run, mine) in zip(past, runs, strict=False)
        if any(selects(budget, mine) and _waits(budget, run) for budget in living)
    ]
    kept = {"charges": past} if past else {}
    began, charge = status.get("startedAt"), dict(status.get("charge") or {})
    if not began:
        return kept
    asked = {key for budget in living for key in (budget["spec"].get("selector") or {}).get("matchLabels") or {}}
    mine = dict(sorted(labels.items(), key=lambda label: (label[0] not in asked, label[0]))[:MAX_LABELS])
    if not charge or held.get("startedAt") != began:
        return kept | {"charge": {"labels": mine}}
    before = charge.get("labels", {})
    if before == mine or "endedAt" in status:
        return kept | {"charge": charge}
    since = charge.get("since", began)
    if all(selects(budget, before) == selects(budget, mine) for budget in living) or to_seconds(now) <= to_seconds(
        since
    ):
        return kept | {"charge": charge | {"labels": mine}}
    if len(past) >= MAX_CHARGES:
        return kept | {"charge": charge}  # it is cut when there is room
    past.append({"labels": before, "startedAt": since, "endedAt": now})
    return {"charges": past, "charge": {"labels": mine, "since": now}}


def _waits(budget: Obj, run: Machine) -> bool:
    if run.ended is None or run.currency != budget["spec"].get("currency", "USD"):
        return False
    if run.cost_within(0, None, run.ended) == 0:
        return False
    period = booked_period(budget)
    if period is None:
        return True
    return run.ended > period.begin and run.session not in budget["status"]["booked"].get("uids", ())


# -- what is allowed ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BudgetVerdict:
    """What all Budgets together say of one cluster.

    Args:
        allowed: The extra hourly cost may begin now.
        exceeded: What runs must be suspended, or else deleted.
        by_disks: It is exceeded by the disks alone: machines must be deleted, those that are stopped too.
        remaining_nanos: Hourly cost that may still be added, None without a Budget that forbids.
        budget: Name of the Budget that decides, empty if none forbids.
        message: Why, for a condition; empty when all is well.
    """

    allowed: bool
    exceeded: bool
    remaining_nanos: int | None
    budget: str = ""
    message: str = ""
    by_disks: bool = False


def verdict(budgets: Sequence[Obj], labels: Mapping[str, str], extra_hourly_nanos: int, currency: str) -> BudgetVerdict:
    """What the Budgets of a namespace say of what carries these labels.

    Args:
        budgets: All of the namespace, as the API server has them or as `budgets.Budgets.objects` brings them up to
            date.
        labels: Labels of the VirtualCluster, or of a VirtualMachine without one.
        extra_hourly_nanos: What would be added to what runs or is reserved already; 0 asks whether it may go on.
        currency: Currency of the prices.
    """
    worst = BudgetVerdict(allowed=True, exceeded=False, remaining_nanos=None)
    for budget in budgets:
        if budget["metadata"].get("deletionTimestamp") or not is_enforced(budget) or not selects(budget, labels):
            continue
        found = _one(budget, extra_hourly_nanos, currency)
        if worst.remaining_nanos is None or _rank(found) < _rank(worst):
            worst = found
    return worst


def _rank(found: BudgetVerdict) -> tuple[bool, bool, bool, int]:
    return (not found.by_disks, not found.exceeded, found.allowed, found.remaining_nanos or 0)


def _one(budget: Obj, extra: int, currency: str) -> BudgetVerdict:
    name, own = budget["metadata"]["name"], budget["spec"].get("currency", "USD")
    status = budget.get("status") or {}
    if currency != own:
        return BudgetVerdict(
            False, False, 0, name, f"Budget '{name}' is in {own}, the prices are in {currency}: they can't be compared"
        )
    if "spent" not in status:
        return BudgetVerdict(False, False, 0, name, f"Budget '{name}' hasn't been counted yet")
    amount = to_nanos(str(budget["spec"]["amount"]))
    left = amount - to_nanos(status["spent"]) - to_nanos(status.get("reserved", "0"))
    if left < 0:
        message = f"Budget '{name}': {_sum(status, own)} is more than {to_text(amount)} {own}"
        disks = to_nanos(status.get("disks", "0"))
        by_disks = disks > 0 and amount - to_nanos(status["spent"]) < disks
        if by_disks:
            message += f"; disks alone cost {rounded(disks)} an hour"
        return BudgetVerdict(False, True, 0, name, message, by_disks)
    if extra > left:
        message = (
            f"Budget '{name}': {rounded(extra)} {own} for the next hour is more than the {rounded(left)} left of "
            f"{to_text(amount)} ({_sum(status, own)})"
        )
        return BudgetVerdict(False, False, left, name, message)
    return BudgetVerdict(True, False, left, name)


def _sum(status: Mapping[str, Any], currency: str) -> str:
    spent, reserved = to_nanos(status["spent"]), to_nanos(status.get("reserved", "0"))
    return f"{rounded(spent)} {currency} spent and {rounded(reserved)} reserved for the next hour"
