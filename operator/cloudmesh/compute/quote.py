"""The quote: what a cluster will be made of and what that costs, fixed by a hash before anything starts. Pure.

A quote names all machines, those that are there among them. What is made is what it names: the lines that aren't made
yet are made as they stand while their offers are to be had at that price; else there is a new quote with a new hash.
With approval, a new quote waits, unless it only replaces machines by others that cost no more.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from cloudmesh.compute.asked import Asked
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import Plan
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.compute.prices.money import to_nanos, to_text
from cloudmesh.policy.model import Decision, Offer, offer_id, with_disk

Obj = Mapping[str, Any]

VALID_SECONDS = 900
MAX_LINES = 1000
"""What a status holds; a quote of more can't be approved, as nobody has seen all of it."""
WORDS_LENGTH = 2**18
"""What the reasons of all lines may take of a status."""
HASH_LENGTH = 32
SHORT_LENGTH = 12
UNKNOWN = 10**30
"""Dearer than any price."""


@dataclass(frozen=True, slots=True)
class Line:
    """So many machines of one offer at one price.

    Args:
        pool: Name of the pool.
        alternative: The pool's alternative.
        counts_as: Units of one machine.
        account: Name of the CloudAccount.
        type: Machine type.
        region: Region, empty for none.
        zone: Zone, empty for none.
        purchase: How it is paid.
        count: Number of machines.
        nanos: Price of one per hour, None if nobody knows it.
        currency: Of the price, empty without.
        as_of: Age of the price, empty if unknown.
        why: The scheduler's reason; no part of the hash.
        disk: What of `nanos` is for the disk.
    """

    pool: str
    alternative: str
    counts_as: int
    account: str
    type: str
    region: str
    zone: str
    purchase: str
    count: int
    nanos: int | None
    currency: str = ""
    as_of: str = ""
    why: str = ""
    disk: int = 0

    @property
    def offer_id(self) -> str:
        """Identity of the offer, as `policy.model.Offer.id`."""
        return offer_id(self.account, self.type, self.region, self.zone, self.purchase)

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """Lines of one key are one line."""
        return (self.pool, self.alternative, self.offer_id, self.nanos)


@dataclass(frozen=True)
class Quote:
    """What was quoted.

    Args:
        lines: The machines, in order.
        made_at: In seconds since 1970.
        expires_at: From then on it is made anew, unless it was approved before.
        stored: Hash as it was published, empty for a new one.
        cheapest: Hourly cost if only the price counted, None if that is the same.
        cheapest_words: That placement in words.
        question: Hash of what was asked for, as `Asked.question`; an answer to another question is another quote.
    """

    lines: tuple[Line, ...]
    made_at: int
    expires_at: int
    stored: str = ""
    cheapest: int | None = None
    cheapest_words: str = ""
    question: str = ""

    @cached_property
    def hash(self) -> str:
        """Hash of lines, prices, their age, the question, and the time of the quote."""
        return self.stored or _hash(self)

    @cached_property
    def currency(self) -> str:
        """Currency of all prices, empty if they are in several or none is known."""
        found = {line.currency for line in self.lines if line.nanos is not None}
        return found.pop() if len(found) == 1 else ""

    @cached_property
    def hourly(self) -> int | None:
        """Cost of all per hour, None if one isn't known or they are in several currencies."""
        if any(line.nanos is None for line in self.lines) or (self.lines and not self.currency):
            return None
        return sum((line.nanos or 0) * line.count for line in self.lines)

    @property
    def disks(self) -> int:
        """How much of it is for disks."""
        return sum(line.disk * line.count for line in self.lines)


def _hash(quote: Quote) -> str:
    lines = [
        [x.pool, x.alternative, x.counts_as, x.offer_id, x.count, x.nanos, x.currency, x.as_of] for x in quote.lines
    ]
    body = [lines, quote.made_at, quote.expires_at, *([quote.question] if quote.question else [])]
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def lines_of(members: Sequence[Member], decisions: Sequence[Decision]) -> tuple[Line, ...]:
    """All machines of a cluster: those that stay, and those to be made."""
    count: Counter[tuple[str, str, str, int | None]] = Counter()
    kept: dict[tuple[str, str, str, int | None], Line] = {}

    def add(pool: str, alternative: str, counts_as: int, offer: Offer, number: int, why: str) -> None:
        price = offer.price
        line = Line(
            pool, alternative, counts_as, offer.account, offer.type, offer.region, offer.zone, offer.purchase, number,
            price.nanos if price is not None else None,
            price.currency if price is not None else "",
            price.as_of if price is not None else "",
            why,
            price.disk if price is not None else 0,
        )  # fmt: skip
        count[line.key] += number
        old = kept.get(line.key)
        kept[line.key] = line if old is None or (why and not old.why) or line.disk > old.disk else old

    for member in members:
        add(member.pool, member.alternative, member.counts_as, member.offer, 1, "")
    for d in decisions:
        add(d.pool, d.alternative, d.counts_as, d.offer, d.count, d.why)
    return tuple(replace(kept[key], count=count[key]) for key in sorted(kept, key=_order))


def _order(key: tuple[str, str, str, int | None]) -> tuple[str, str, str, int]:
    return (*key[:3], -1 if key[3] is None else key[3])


def make_quote(
    lines: Sequence[Line], now: int, *, cheapest: int | None = None, cheapest_words: str = "", question: str = ""
) -> Quote:
    """A new quote."""
    return Quote(tuple(lines), now, now + VALID_SECONDS, "", cheapest, cheapest_words, question)


def same(first: Sequence[Line], second: Sequence[Line]) -> bool:
    """Whether two lists name the same machines at the same prices, whatever the age of these."""

    def content(lines: Sequence[Line]) -> Counter[tuple[str, str, str, int | None]]:
        return Counter({line.key: line.count for line in lines})

    return content(first) == content(second)


# -- what is left to be made -------------------------------------------------------------------------------------------


def remaining(quote: Quote, members: Sequence[Member]) -> tuple[Line, ...]:
    """The lines of a quote without the machines that are there."""
    there: Counter[tuple[str, str, str]] = Counter((m.pool, m.alternative, m.offer.id) for m in members)
    out: list[Line] = []
    for line in quote.lines:
        key = (line.pool, line.alternative, line.offer_id)
        taken = min(line.count, there[key])
        there[key] -= taken
        if line.count > taken:
            out.append(replace(line, count=line.count - taken))
    return tuple(out)


def go_on(
    quote: Quote,
    plan: Plan,
    offer: Callable[[str, str], Offer | None],
    usable: Callable[[Offer], bool],
    *,
    approved: bool = False,
) -> tuple[Decision, ...] | None:
    """The machines that a quote still names, if they are just what is needed and are to be had as quoted.

    Args:
        quote: A quote that holds.
        plan: What is needed.
        offer: Finds an offer by account and id.
        usable: Whether an offer may be tried now.
        approved: A lower price is fine too.

    Returns:
        None if something else must be chosen.
    """
    left = remaining(quote, [m for p in plan.pools for m in p.stay])
    out: list[Decision] = []
    for p in plan.pools:
        need = p.whole
        known = {a.name: a.needs.disk_gib for a in p.pool.alternatives}
        for line in left:
            if line.pool != p.pool.name or need <= 0:
                continue
            found = offer(line.account, line.offer_id)
            if found is None or not usable(found) or line.alternative not in known:
                return None
            found = with_disk(found, known[line.alternative])
            nanos = found.price.nanos if found.price is not None else None
            cheaper = approved and nanos is not None and line.nanos is not None and nanos <= line.nanos
            if nanos != line.nanos and not cheaper:
                return None
            count = min(line.count, -(-need // line.counts_as))
            need -= count * line.counts_as
            out.append(Decision(line.pool, line.alternative, line.counts_as, found, count, line.why))
        if need > 0:
            return None
    return tuple(out)


# -- whether it may be acted on ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether machines may be made.

    Args:
        go: They may.
        quote: The quote that holds.
        new: It must be published first.
        approved: Somebody approved it, now or before.
        message: Why not, in words.
    """

    go: bool
    quote: Quote
    new: bool = False
    approved: bool = False
    message: str = ""


def gate(
    asked: Asked,
    held: Quote | None,
    lines: Sequence[Line],
    now: int,
    *,
    approval: str = "",
    approved: str = "",
    cheapest: int | None = None,
    cheapest_words: str = "",
    question: str = "",
    beside: str = "",
) -> Gate:
    """Whether machines may be made, and by which quote.

    Args:
        asked: The cluster.
        held: The quote that was published, None for none.
        lines: All machines, as they shall be.
        now: Seconds since 1970.
        approval: Value of annotation `cloudmesh.org/approved-quote`.
        approved: Hash of the quote that was acted on, as the status has it.
        cheapest: See `Quote`.
        cheapest_words: See `Quote`.
        question: See `Quote`; what answers another one isn't acted on, whatever it names.
        beside: What runs beside the machines of the quote for a while, in words; an approver is told.
    """
    if held is not None and held.question != question:
        held = None
    unchanged = held is not None and same(held.lines, lines)
    quote = make_quote(lines, now, cheapest=cheapest, cheapest_words=cheapest_words, question=question)
    if not asked.approval:
        if held is not None and unchanged and now < held.expires_at:
            return Gate(True, held)
        return Gate(True, quote, new=True)
    if held is not None:
        if approved == held.hash and covers(held, lines):
            return Gate(True, held, approved=True)
        if unchanged and now < held.expires_at:
            if approval == held.hash and len(held.lines) <= MAX_LINES:
                return Gate(True, held, approved=True)
            return Gate(False, held, message=_ask(held, approval, approved, beside))
    return Gate(False, quote, new=True, message=_ask(quote, approval, approved, beside))


def _ask(quote: Quote, approval: str, approved: str, beside: str) -> str:
    """What an approver is told; an approval that isn't of this quote, and wasn't acted on, is named."""
    if len(quote.lines) > MAX_LINES:
        return f"the quote has {len(quote.lines)} lines, at most {MAX_LINES} can be approved: split the cluster"
    hourly = "unknown" if quote.hourly is None else f"{to_text(quote.hourly)} {quote.currency}".strip()
    disks = f", {to_text(quote.disks)} of it for disks" if quote.disks and quote.hourly is not None else ""
    wrong = ""
    if approval not in ("", approved, quote.hash):
        wrong = f"approved {_short(approval)} is not the quote {_short(quote.hash)} of now; "
    return (
        f"{wrong}the quote costs {hourly} per hour{disks}{beside} and waits until {to_time(quote.expires_at)}: "
        f"set annotation cloudmesh.org/approved-quote to {quote.hash}"
    )


def _short(text: str) -> str:
    return text[:SHORT_LENGTH] if text.isprintable() else repr(text[:SHORT_LENGTH])


def covers(quote: Quote, lines: Sequence[Line]) -> bool:
    """Whether an approved quote covers other machines: no more units in a pool, and each costs no more than one of it.

    Machines are matched from the dearest down; an unknown price is dearer than any and covers only its like.
    """
    for pool in {line.pool for line in lines}:
        mine = [x for x in lines if x.pool == pool]
        quoted = [x for x in quote.lines if x.pool == pool]
        if sum(x.count * x.counts_as for x in mine) > sum(x.count * x.counts_as for x in quoted):
            return False
        if {x.currency for x in mine if x.currency} - {x.currency for x in quoted}:
            return False
        left, right = _prices(mine), _prices(quoted)
        if len(left) > len(right) or any(a > b for a, b in zip(left, right, strict=False)):
            return False
    return True


def within(quote: Quote, members: Sequence[Member], decisions: Sequence[Decision]) -> tuple[Decision, ...]:
    """As much of what was decided as a quote covers beside machines that are there, the cheapest first."""
    found: list[Decision] = []
    for d in sorted(decisions, key=lambda d: UNKNOWN if d.offer.price is None else d.offer.price.nanos):
        count = d.count
        while count and not covers(quote, lines_of(members, [*found, replace(d, count=count)])):
            count -= 1
        if count:
            found.append(replace(d, count=count))
    return tuple(found)


def _prices(lines: Sequence[Line]) -> list[int]:
    return sorted(
        (UNKNOWN if line.nanos is None else line.nanos for line in lines for _ in range(line.count)), reverse=True
    )


# -- status ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Published:
    """A quote as `status.quote` and `status.placement.decisions` hold it."""

    quote: dict[str, Any] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)


def to_status(quote: Quote) -> Published:
    """The quote for the status."""
    told: dict[str, Any] = {
        "hash": quote.hash,
        "madeAt": to_time(quote.made_at),
        "expiresAt": to_time(quote.expires_at),
    }
    if quote.question:
        told["question"] = quote.question
    if quote.hourly is not None and quote.currency:
        told["hourly"] = {"amount": to_text(quote.hourly), "currency": quote.currency}
        if quote.disks:
            told["diskHourly"] = to_text(quote.disks)
    if quote.cheapest is not None:
        told["cheapestAlternative"] = {
            "hourly": to_text(quote.cheapest),
            "description": quote.cheapest_words[:1024],
        }
    decisions = []
    room = min(1024, WORDS_LENGTH // max(1, len(quote.lines)))
    for line in quote.lines[:MAX_LINES]:
        entry: dict[str, Any] = {
            "pool": line.pool,
            "alternative": line.alternative,
            "account": line.account,
            "type": line.type,
            "purchase": line.purchase,
            "count": line.count,
        }
        if line.region:
            entry["region"] = line.region
        if line.zone:
            entry["zone"] = line.zone
        if line.nanos is not None:
            entry["hourly"] = to_text(line.nanos)
        if line.disk:
            entry["diskHourly"] = to_text(line.disk)
        if line.why:
            entry["why"] = line.why[:room]
        decisions.append(entry)
    return Published(told, decisions)


def from_status(asked: Asked, status: Obj) -> Quote | None:
    """The quote that a status holds; None if there is none, or it can't be read whole."""
    told = status.get("quote")
    decisions = (status.get("placement") or {}).get("decisions") or []
    if not told:
        return None
    counts = {(p.name, a.name): a.counts_as for p in asked.pools for a in p.alternatives}
    currency = (told.get("hourly") or status.get("cost") or {}).get("currency", "")
    try:
        lines = tuple(
            Line(
                d["pool"], d["alternative"], counts.get((d["pool"], d["alternative"]), 1), d["account"], d["type"],
                d.get("region", ""), d.get("zone", ""), d["purchase"], d["count"],
                to_nanos(d["hourly"]) if "hourly" in d else None, currency if "hourly" in d else "", "",
                d.get("why", ""), to_nanos(d.get("diskHourly", "0")),
            )
            for d in decisions
        )  # fmt: skip
        made_at, expires_at = to_seconds(told["madeAt"]), to_seconds(told["expiresAt"])
        quote = Quote(lines, made_at, expires_at, told["hash"], question=told.get("question", ""))
        # with as many lines as there is room for, only the sum tells whether there were more
        whole = len(lines) < MAX_LINES or quote.hourly == to_nanos(told["hourly"]["amount"])
    except (KeyError, TypeError, ValueError):
        return None
    return quote if whole else None
