"""Events that tell a cluster's story. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cloudmesh.api import conditions as c
from cloudmesh.compute.cluster_status import Verdict
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import NewMachine
from cloudmesh.compute.prices.money import to_text
from cloudmesh.compute.quote import Quote
from cloudmesh.policy.model import Offer, Rejection

MAX_NAMES = 3
MAX_OFFERS = 4


@dataclass(frozen=True, slots=True)
class Event:
    """To be told once."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


def say_offer(offer: Offer) -> str:
    """An offer in a few words, such as `aws/m5.large in us-east-1a for 0.096 USD/h`."""
    where = offer.zone or offer.region
    price = f"{to_text(offer.price.nanos)} {offer.price.currency}/h" if offer.price is not None else "an unknown price"
    spot = " spot" if offer.purchase == "Spot" else ""
    return f"{offer.account}/{offer.type}{spot}" + (f" in {where}" if where else "") + f" for {price}"


def say_machines(new: Sequence[NewMachine], quote: Quote | None, rejected: Sequence[Rejection]) -> tuple[Event, ...]:
    """What is made of what and for how much, and how many offers fell."""
    groups: dict[str, list[str]] = {}
    for one in new:
        what = f"adopts {one.adopt} of {one.offer.account}" if one.adopt else f"on {say_offer(one.offer)}"
        groups.setdefault(what, []).append(one.name)
    parts = []
    for what, names in list(groups.items())[:MAX_OFFERS]:
        shown = ", ".join(names[:MAX_NAMES]) + (f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else "")
        each = " each" if len(names) > 1 and " for " in what else ""
        parts.append(f"{'machines' if len(names) > 1 else 'machine'} {shown} {what}{each}")
    if len(groups) > MAX_OFFERS:
        parts.append(f"and {len(groups) - MAX_OFFERS} more offers")
    if quote is not None and quote.hourly is not None:
        parts.append(f"{to_text(quote.hourly)} {quote.currency or 'USD'}/h in all, quote {quote.hash[:12]}")
    if fallen := [f"{r.count} at {r.filter}" for r in rejected if r.count]:
        parts.append(f"offers fell: {', '.join(fallen[:6])}")
    return (Event("Normal", "Provisioning", "; ".join(parts)),)


def say_next(members: Sequence[Member], new: Sequence[NewMachine]) -> tuple[Event, ...]:
    """What failed, and what is tried next."""
    by_name = {m.name: m for m in members}
    out = []
    for one in new:
        old = by_name.get(one.place.replaces)
        if old is None or not old.failed:
            continue
        words = {"CapacityUnavailable": "no capacity at", "QuotaExceeded": "quota reached at"}
        what = words.get(old.failed, f"{old.failed} at")
        message = f"'{old.name}': {what} {say_offer(old.offer)}, next is {say_offer(one.offer)}"
        out.append(Event("Warning", old.failed, message))
    return tuple(out)


def events_of(before: Sequence[Mapping[str, Any]], said: Verdict, hourly: str) -> tuple[Event, ...]:
    """What changed of Ready.

    Args:
        before: Conditions so far.
        said: What Ready says now.
        hourly: What the machines cost, in words.
    """
    old = c.find_condition(before, c.READY) or {}
    if (old.get("status"), old.get("reason")) == (said.status, said.reason):
        return ()
    if said.status == "True":
        more = f", {hourly}" if said.reason == c.REASON_AS_SPECIFIED and hourly else ""
        return (Event("Normal", said.reason, said.message + more),)
    if said.reason == c.REASON_PENDING and said.status == "Unknown":
        return ()  # something is being looked at for the first time
    if said.stalled or (said.status == "Unknown" and old.get("status") == "True"):
        return (Event("Warning", said.reason, said.message),)
    if not old:
        return ()  # it has just begun
    if said.reason in (c.REASON_PROVISIONING, c.REASON_PENDING) and old.get("status") != "True":
        return ()
    kind: Literal["Normal", "Warning"] = (
        "Warning" if old.get("status") == "True" and said.reason == c.REASON_UNREACHABLE else "Normal"
    )
    return (Event(kind, said.reason, said.message),)
