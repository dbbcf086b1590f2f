"""The scheduler: which machines a request gets, what they cost, and why."""

from __future__ import annotations

from cloudmesh.policy.filters import Sieve, Sifted
from cloudmesh.policy.model import Decision, Placement, PoolRequest, Rejection, Request
from cloudmesh.policy.money import say_money
from cloudmesh.policy.offers import UNPRICED, OfferTable, known_nanos
from cloudmesh.policy.room import Room


def place(request: Request, table: OfferTable, *, now: str = "") -> Placement:
    """Chooses machines for all pools of a request.

    Args:
        request: What is asked for.
        table: Priced offers of its accounts.
        now: RFC 3339 time, to leave out blocks that are over; empty to keep all.
    """
    sieve = Sieve(request, table, now)
    room = Room(request, table)
    decisions: list[Decision] = []
    missing: dict[str, int] = {}
    reason, message = "", ""
    rejected: list[Rejection] = []
    total: int | None = 0
    for pool in request.pools:
        for pin in pool.pinned:
            nanos = known_nanos(pin.offer)
            total = None if total is None or nanos == UNPRICED else total + nanos * pin.count
    for pool in request.pools:
        sifted = sieve.sift(pool)
        rejected.extend(sifted.rejected)
        counts, left = _fill(sifted, room)
        for row, count in counts.items():
            offer = table.offer(row)
            at = sifted.rows.searchsorted(row)
            alternative = pool.alternatives[int(sifted.alternative[at])]
            nanos = int(table.nanos[row])
            total = None if total is None or nanos == UNPRICED else total + nanos * count
            price = say_money(nanos, offer.price.currency) if offer.price and nanos != UNPRICED else "no known price"
            why = f"cheapest of {len(sifted.rows)}: {price}"
            decisions.append(Decision(pool.name, alternative.name, alternative.counts_as, offer, count, why))
        if left:
            missing[pool.name] = left
            if not reason:
                reason = _reason(sifted)
                falls = ", ".join(f"{r.count} at {r.filter}" for r in sifted.rejected)
                message = f"pool {pool.name}: {left} of {pool.replicas} don't fit; of {len(table)} offers fell {falls}"
    if request.max_hourly_nanos is not None and (total is None or total > request.max_hourly_nanos):
        cost = "an unknown price" if total is None else say_money(total, request.currency)
        return Placement(
            missing={pool.name: _wanted(pool) for pool in request.pools if _wanted(pool)},
            reason="OverMaxHourlyCost",
            message=f"the cheapest costs {cost}, the limit is {say_money(request.max_hourly_nanos, request.currency)}",
            rejected=tuple(rejected),
            hourly_nanos=total,
        )
    return Placement(tuple(decisions), missing, reason, message, tuple(rejected), total)


def _wanted(pool: PoolRequest) -> int:
    return max(0, pool.replicas - sum(pin.count * pin.counts_as for pin in pool.pinned))


def _reason(sifted: Sifted) -> str:
    if sifted.wanted == 0:
        return "NoFeasibleOffer"
    return "QuotaExceeded" if sifted.over_quota else "CapacityUnavailable"


def _fill(sifted: Sifted, room: Room) -> tuple[dict[int, int], int]:
    pool = sifted.pool
    table = room._table
    rows, units = sifted.rows.tolist(), sifted.units.tolist()
    counts: dict[int, int] = {}
    need = _wanted(pool)
    base = min(
        pool.base_on_demand - sum(p.count * p.counts_as for p in pool.pinned if p.offer.purchase != "Spot"), need
    )
    order = sorted(range(len(rows)), key=lambda n: (table.nanos[rows[n]] < 0, table.nanos[rows[n]] / units[n], n))
    for phase in (0, 1):
        for n in order:
            want = base if phase == 0 else need
            if want <= 0:
                break
            spot = bool(table.spot[rows[n]])
            if (spot and phase == 0) or (not spot and phase == 1 and pool.above_base == "Spot"):
                continue
            count = min(room.fits(rows[n]), -(-want // units[n]))
            if count > 0:
                counts[rows[n]] = counts.get(rows[n], 0) + count
                room.take(rows[n], count)
                need -= count * units[n]
                base -= count * units[n] if not spot else 0
    return counts, max(0, need)
