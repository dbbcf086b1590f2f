"""Status of a CloudAccount: a pure function of its handle, and the rule of how often counters are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.compute.accounts import NOT_READ, Account
from cloudmesh.compute.nodes import NOT_LISTED
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.money import to_nanos, to_text

FRESH_SECONDS = 3 * 3600
COUNTERS_SECONDS = 150.0
OFFERS = ("offers", "offersAsOf", "pricedOffers", "pricesAsOf")
COUNTERS = (*OFFERS, "running", "hourly", "currency", "startSeconds")
MAX_FINDINGS = 64
MAX_LACKS = 64
MAX_STARTS = 64
TEXT = 1024
REST = ("", "Stopped", "Deleted", "Failed")


@dataclass(slots=True)
class Counted:
    """When the counters of an account were written last, on the loop's clock."""

    at: float = float("-inf")


@dataclass(frozen=True, slots=True)
class Totals:
    """What an account's machines are and cost."""

    running: int = 0
    hourly: Mapping[str, int] = field(default_factory=dict)


def total(machines: Iterable[Mapping[str, Any]]) -> Totals:
    """Counts the machines that cost something, and what."""
    running, hourly = 0, dict[str, int]()
    for obj in machines:
        status = obj.get("status") or {}
        if "startedAt" not in status or "endedAt" in status:
            continue
        running += 1
        if (price := status.get("hourlyPrice")) is not None:
            machine = 0 if status.get("billing") == "DiskOnly" else to_nanos(price["amount"])
            own = machine + to_nanos(status.get("diskHourly", "0"))
            hourly[price["currency"]] = hourly.get(price["currency"], 0) + own
    return Totals(running, hourly)


def make_status(account: Account, old: Mapping[str, Any], generation: int, totals: Totals, now: str) -> dict[str, Any]:
    """The whole status as it should be now; what this process hasn't looked at yet stays as an earlier one told it."""
    conditions = c.Conditions(old, generation, now)
    stands = _judged(old, generation)
    if account.unseen and stands:
        pass
    elif account.ready:
        conditions.ready("True", "Checked", account.message)
    elif account.reason in (c.REASON_CLOUD_UNAVAILABLE, c.REASON_PENDING):
        conditions.ready("Unknown", account.reason, account.message, reconciling=True)
    else:
        conditions.ready("False", account.reason, account.message, stalled=True)
    unread = stands and account.offers_error == NOT_READ
    if not (unread and c.find_condition(conditions.list, c.PRICES_FRESH)):
        _prices(account, conditions, now)
    book = account.nodes
    if stands and book.reason == NOT_LISTED and c.find_condition(conditions.list, c.INVENTORY_COMPLETE):
        pass
    elif book.complete:
        conditions.put(c.INVENTORY_COMPLETE, "True", "Complete", "the last listing showed all machines")
    else:
        reason = "Partial" if book.listed else c.REASON_PENDING
        conditions.put(c.INVENTORY_COMPLETE, "Unknown", reason, book.reason)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "conditions": conditions.list,
        "kind": account.info.kind,
        "running": totals.running,
    }
    currency, nanos = max(totals.hourly.items(), key=lambda item: item[1], default=("USD", 0))
    status |= {"hourly": to_text(nanos), "currency": currency}
    if account.home:
        status["identity"] = account.home[:253]
    if account.region:
        status["region"] = account.region
    if account.powers:
        status["powers"] = list(account.powers)
    if account.info.lacks:
        lacks = sorted(account.info.lacks.items())[:MAX_LACKS]
        status["lacks"] = [{"name": name, "message": why[:TEXT]} for name, why in lacks]
    if account.offers_as_of:
        priced = [offer.price for offer in account.offers if offer.price is not None]
        status |= {"offers": len(account.offers), "offersAsOf": account.offers_as_of, "pricedOffers": len(priced)}
        # what somebody declared holds until it is declared anew: it has no age
        if dated := [price.as_of for price in priced if price.confidence != "declared"]:
            status["pricesAsOf"] = min(dated)
    elif unread:
        status |= {name: old[name] for name in OFFERS if name in old}
    if failures := account.failures.to_status(now):
        status["failures"] = failures
    if account.retried:
        status["retriedBy"] = account.retried
    if account.findings:
        status["findings"] = [
            {
                "subject": f.subject[:253],
                "result": "Passed" if f.ok else "Failed" if f.failed else "Unknown",
                "message": f.message[:TEXT],
            }
            for f in account.findings[:MAX_FINDINGS]
        ]
    elif account.unseen and stands and "findings" in old:
        status["findings"] = old["findings"]
    if account.starts:
        status["startSeconds"] = [
            {"type": type_, "seconds": median_low(seconds)}
            for type_, seconds in sorted(account.starts.items())[:MAX_STARTS]
        ]
    return status


def _judged(old: Mapping[str, Any], generation: int) -> bool:
    """Whether somebody who saw this very spec came to a verdict."""
    ready = c.find_condition(old.get("conditions") or (), c.READY) or {}
    return old.get("observedGeneration") == generation and ready.get("status") in (c.TRUE, c.FALSE)


def _prices(account: Account, conditions: c.Conditions, now: str) -> None:
    if not account.offers_as_of:
        conditions.put(c.PRICES_FRESH, "Unknown", c.REASON_PENDING, account.offers_error)
        return
    age = to_seconds(now) - to_seconds(account.offers_as_of)
    if age > FRESH_SECONDS:
        text = f"offers are of {account.offers_as_of}: {account.offers_error}"
        conditions.put(c.PRICES_FRESH, "False", "Stale", text)
    elif account.quarantined:
        conditions.put(c.PRICES_FRESH, "False", "Quarantined", account.quarantined)
    else:
        conditions.put(c.PRICES_FRESH, "True", "Fresh", f"{len(account.offers)} offers")


def settle(
    status: dict[str, Any], old: Mapping[str, Any], counted: Counted, clock: float
) -> tuple[dict[str, Any], float]:
    """The status to be written now, and seconds until its counters may be: all at once, or the old ones for a while.

    Args:
        status: As it should be.
        old: As it is.
        counted: When counters were written last.
        clock: Seconds on the loop's clock.
    """
    if not _differ(status, old):
        return {**status, **{name: old[name] for name in COUNTERS if name in old}}, 0.0
    wait = counted.at + COUNTERS_SECONDS - clock
    if wait > 0 and "offers" in old:
        held = {name: value for name, value in status.items() if name not in COUNTERS}
        return held | {name: old[name] for name in COUNTERS if name in old}, wait
    counted.at = clock
    return status, 0.0


def _differ(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether a counter changed by over 1 %, or text beside them."""
    for name in ("offers", "pricedOffers", "running"):
        if _apart(int(status.get(name, 0)), int(old.get(name, 0))) or (name in status) != (name in old):
            return True
    if _apart(to_nanos(status.get("hourly", "0")), to_nanos(str(old.get("hourly", "0")))):
        return True
    if ("pricesAsOf" in status) != ("pricesAsOf" in old):
        return True
    return any(status.get(name) != old.get(name) for name in ("currency", "startSeconds"))


def _apart(new: int, old: int) -> bool:
    return abs(new - old) * 100 > max(abs(old), abs(new)) if new != old else False
