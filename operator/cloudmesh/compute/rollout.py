"""How many machines of a pool are made and which of them go: scaling and rolling replacement, pure.

Sizes are units: a machine counts for `countsAs` of them. Scaling down never goes below what is asked for; a roll-out
never holds more than maxSurge above it (or one old machine, where that is larger), and never takes more than
maxUnavailable of those that work.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cloudmesh.compute.asked import Pool, same_template
from cloudmesh.compute.members import Member, units


@dataclass(frozen=True, slots=True)
class Sizing:
    """What a pool's size asks for.

    Args:
        create: Units to make.
        delete: Machines to take away, with the reason.
        outdated: Machines that are still to be replaced.
        restamp: Machines whose hash is of an older version and that stay.
        later: Units to make in later steps of a roll-out.
    """

    create: int
    delete: tuple[tuple[Member, str], ...] = ()
    outdated: tuple[Member, ...] = ()
    restamp: tuple[Member, ...] = ()
    later: int = 0


def is_outdated(pool: Pool, member: Member, accounts: Sequence[str] | None) -> bool:
    """Whether a machine isn't what the pool asks for any more; one that was adopted always is.

    Args:
        pool: The pool.
        member: One of its machines.
        accounts: Accounts that the cluster names; None if it names none, which never moves a machine.
    """
    if member.adopted:
        return False
    wanted = pool.templates.get(member.alternative)
    if wanted is None or same_template(member.template, wanted) is False:
        return True
    offer = member.offer
    if pool.regions and offer.region and offer.region not in pool.regions:
        return True
    if pool.zones and offer.zone and offer.zone not in pool.zones:
        return True
    return accounts is not None and offer.account not in accounts


def size(pool: Pool, live: Sequence[Member], held: Sequence[Member], accounts: Sequence[str] | None = None) -> Sizing:
    """Compares what is there with what is asked for.

    Args:
        pool: The pool.
        live: Machines that work or may come to.
        held: Machines that don't work and keep their places for now.
        accounts: As for `is_outdated`.
    """
    old = [m for m in live if is_outdated(pool, m, accounts)]
    names = {m.name for m in old}
    current = [m for m in live if m.name not in names]
    restamp = tuple(m for m in current if not m.adopted and m.template != pool.templates.get(m.alternative, m.template))
    have = units(current) + units(list(held))
    surplus = _surplus([*held, *current], have - pool.replicas, {m.name for m in held})
    if not old:
        return Sizing(max(0, pool.replicas - have), surplus, (), restamp)
    create, delete = _roll(pool, current, old, have)
    return Sizing(create, (*surplus, *delete), tuple(old), restamp, max(0, pool.replicas - have - create))


def _surplus(members: Sequence[Member], spare: int, held: set[str]) -> tuple[tuple[Member, str], ...]:
    """Who goes when there are too many: what doesn't work, then the dearest, the youngest, at last what was adopted."""

    def order(member: Member) -> tuple[int, bool, int, int, int]:
        idle = member.ready == "False" or (member.ready == "Unknown" and not member.was_up)
        works = 0 if member.name in held else 1 if idle else 2
        nanos = member.nanos
        # nobody knows that an unpriced one is cheap
        return (
            works,
            bool(member.adopted),
            -nanos if nanos is not None else -(10**18),
            -member.created_at,
            -member.ordinal,
        )

    out: list[tuple[Member, str]] = []
    if spare <= 0:
        return ()
    for member in sorted(members, key=order):
        if member.counts_as <= spare:
            spare -= member.counts_as
            out.append((member, "ScaledDown"))
    return tuple(out)


def _roll(
    pool: Pool, current: Sequence[Member], old: Sequence[Member], have: int
) -> tuple[int, tuple[tuple[Member, str], ...]]:
    replicas = pool.replicas
    surge, unavailable = pool.surge.of(replicas, up=True), pool.unavailable.of(replicas)
    if surge == 0 and unavailable == 0:
        surge = 1
    largest = max(m.counts_as for m in old)
    if unavailable < largest:
        # else a machine of many units could never go
        surge = max(surge, largest - unavailable)
    there = have + units(list(old))
    create = max(0, min(replicas - have, replicas + surge - there))
    working_now = [m for m in current if m.ready == "True"]
    working = units(working_now) + units([m for m in old if m.ready == "True"])
    least = replicas - unavailable
    # as many as may be missing, without the new ones that don't work yet
    room = units(working_now) + units(list(old)) - least
    spare = working - least
    delete: list[tuple[Member, str]] = []
    for member in sorted(old, key=lambda m: (m.ready != "False", -(m.nanos or 0), -m.ordinal)):
        if member.ready == "Unknown" or member.counts_as > room:
            continue
        if member.ready == "True":
            if member.counts_as > spare:
                continue
            spare -= member.counts_as
        room -= member.counts_as
        delete.append((member, "Outdated"))
    return create, tuple(delete)
