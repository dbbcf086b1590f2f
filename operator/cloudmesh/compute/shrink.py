"""Quotes that shrink with their cluster: what was approved for a larger one doesn't serve to grow again. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import Plan
from cloudmesh.compute.quote import UNKNOWN, Line, Quote, lines_of, remaining, same, to_status

Obj = Mapping[str, Any]


def owed(quote: Quote, plan: Plan, *, whole: bool = False) -> tuple[Line, ...]:
    """The lines by which a quote would make what a plan lacks: the cheapest of those that no machine stands for.

    Args:
        quote: The quote.
        plan: The plan.
        whole: With what later steps of a roll-out make.
    """
    left = sorted(remaining(quote, [m for p in plan.pools for m in p.stay]), key=_price)
    out: list[Line] = []
    for p in plan.pools:
        need = p.whole if whole else p.create
        for line in left:
            if line.pool == p.pool.name and need > 0:
                count = min(line.count, -(-need // line.counts_as))
                need -= count * line.counts_as
                out.append(replace(line, count=count))
    return tuple(out)


def smaller(quote: Quote, plan: Plan, approved: str, acted: Quote | None = None) -> Quote | None:
    """The quote as it is after the cluster was made smaller, None if it is that already.

    Args:
        quote: The quote that holds.
        plan: What the cluster needs to run.
        approved: Hash of the quote that was acted on, empty for none.
        acted: That quote, if it is known: it comes back when nothing of a later one is needed.
    """
    if quote.hash == approved:
        lines = _fitted(quote, plan)
        return None if lines is None else _anew(quote, lines)
    if not approved or plan.create or any(p.leaving or p.adopt for p in plan.pools):
        return None
    if acted is not None:
        return acted
    # nothing of it is needed any more; what is there was acted on, by an answer to a question that nobody knows now
    there = lines_of([m for p in plan.pools for m in p.stay], ())
    return None if same(quote.lines, there) else replace(_anew(quote, there), question="")


def with_quote(status: Obj, quote: Quote) -> dict[str, Any]:
    """A status with a quote that was acted on instead of its own."""
    told = to_status(quote)
    placement = {k: v for k, v in (status.get("placement") or {}).items() if k != "decisions"}
    if told.decisions:
        placement["decisions"] = told.decisions
    out = {k: v for k, v in status.items() if k not in ("placement", "approvedHourly")}
    out |= {"quote": told.quote, "approvedQuote": quote.hash}
    if placement:
        out["placement"] = placement
    if "hourly" in told.quote:
        out["approvedHourly"] = told.quote["hourly"]["amount"]
    return out


def _anew(quote: Quote, lines: Sequence[Line]) -> Quote:
    return replace(quote, lines=tuple(lines), stored="", cheapest=None, cheapest_words="")


def _fitted(quote: Quote, plan: Plan) -> list[Line] | None:
    """The lines without those beyond what is asked for, None if there are none."""
    wanted = {p.pool.name: p for p in plan.pools}
    quoted: Counter[str] = Counter()
    for line in quote.lines:
        quoted[line.pool] += line.count * line.counts_as
    if all(name in wanted and number <= wanted[name].pool.replicas for name, number in quoted.items()):
        return None
    missing, out, less = owed(quote, plan, whole=True), [], False
    for name, number in quoted.items():
        mine = [x for x in quote.lines if x.pool == name]
        p = wanted.get(name)
        if p is None:
            less = True
            continue
        kept = [*_standing(mine, p.stay), *(x for x in missing if x.pool == name)]
        # a machine that counts for several may stand above what is asked for
        fewer = number > p.pool.replicas and sum(x.count * x.counts_as for x in kept) < number
        less = less or fewer
        out += _merged(kept) if fewer else mine
    return out if less else None


def _standing(lines: Sequence[Line], members: Sequence[Member]) -> list[Line]:
    """One line for each machine: at the price that it was quoted at, or else its own."""
    left = Counter({line.key: line.count for line in lines})
    by_offer: dict[tuple[str, str], list[Line]] = {}
    for line in sorted(lines, key=_price):
        by_offer.setdefault((line.alternative, line.offer_id), []).append(line)

    def of(member: Member) -> list[Line]:
        return by_offer.get((member.alternative, member.offer.id), [])

    out: list[Line] = []
    for member in sorted(members, key=lambda m: all(line.nanos != m.nanos for line in of(m))):
        mine = [line for line in of(member) if left[line.key] > 0]
        line = next((x for x in mine if x.nanos == member.nanos), mine[0] if mine else lines_of([member], ())[0])
        left[line.key] -= 1
        out.append(replace(line, count=1))
    return out


def _merged(lines: Sequence[Line]) -> list[Line]:
    count: Counter[tuple[str, str, str, int | None]] = Counter()
    first: dict[tuple[str, str, str, int | None], Line] = {}
    for line in lines:
        count[line.key] += line.count
        first.setdefault(line.key, line)
    return [replace(line, count=count[key]) for key, line in first.items()]


def _price(line: Line) -> int:
    return UNKNOWN if line.nanos is None else line.nanos
