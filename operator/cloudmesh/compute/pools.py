"""What one pool needs: which machines go, how many units are to be made, and which places they take. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cloudmesh.compute.asked import Adoption, Asked, Pool
from cloudmesh.compute.health import Checkup, Ill, check_up
from cloudmesh.compute.members import Member, units
from cloudmesh.compute.rollout import is_outdated, size


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new machine goes.

    Args:
        ordinal: Its place in the pool.
        attempt: How often the place was filled, with this time.
        failures: Failures in a row of the place so far.
        replaces: Name of the machine that it stands in for, empty for a new one.
    """

    ordinal: int
    attempt: int = 1
    failures: int = 0
    replaces: str = ""


@dataclass(frozen=True, slots=True)
class Removal:
    """A machine that goes.

    Args:
        member: The machine.
        reason: One word: Replaced, ScaledDown, Outdated, PoolRemoved, Suspended, LifetimeExceeded, BudgetExceeded.
        message: Why, in words.
        after: It goes only when its pool's new machines are there: it costs nothing and tells why they are needed.
    """

    member: Member
    reason: str
    message: str = ""
    after: bool = False


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """What one pool needs.

    Args:
        pool: The pool.
        create: Units to make.
        places: Where they go, replacements first; there are always enough.
        adopt: Machines to take over, each with its place.
        stay: Machines of what is asked for now, which new ones join.
        leaving: Machines that are there until the new ones work.
        delete: Machines that go.
        restamp: Machines to be marked with today's hash.
        checkup: Who is ill.
        avoid: Machines whose offers just failed.
        later: Units that later steps of a roll-out make, where one approval is for all of them; else 0.
    """

    pool: Pool
    create: int
    places: tuple[Place, ...]
    adopt: tuple[tuple[Adoption, Place], ...]
    stay: tuple[Member, ...]
    leaving: tuple[Member, ...]
    delete: tuple[Removal, ...]
    restamp: tuple[Member, ...]
    checkup: Checkup
    avoid: tuple[Member, ...]
    later: int = 0

    @property
    def whole(self) -> int:
        """Units to make, now and later."""
        return self.create + self.later


def plan_pool(asked: Asked, pool: Pool, members: Sequence[Member], now: int, tripped_at: int = 0) -> PoolPlan:
    """Compares a pool with its machines.

    Args:
        asked: The cluster.
        pool: One of its pools.
        members: All machines of the pool, those that go among them.
        now: Seconds since 1970.
        tripped_at: When so many of them were last ill that none was replaced; 0 for never.
    """
    newest: dict[int, int] = {}
    for m in members:
        if not m.deleting:
            newest[m.ordinal] = max(m.attempt, newest.get(m.ordinal, 0))
    # its place is taken already: the end of a replacement that was begun
    superseded = [m for m in members if not m.deleting and m.attempt < newest[m.ordinal]]
    there = [m for m in members if not m.deleting and m.attempt == newest[m.ordinal]]
    checkup = check_up(pool, there, now, tripped_at)
    replace, hold = list(checkup.replace), []
    wanted = {(a.account, a.provider_id) for a in pool.adopt}
    for ill in checkup.hold:
        if ill.why == "NotAdopted" and (ill.member.offer.account, ill.member.adopted) not in wanted:
            replace.append(Ill(ill.member, "Unmade", ill.message, now, 0))  # nobody asks for it any more
        elif ill.why == "NotAdopted" or not is_outdated(pool, ill.member, asked.accounts):
            hold.append(ill.member)
        elif ill.why == "Unmade":
            replace.append(Ill(ill.member, ill.why, ill.message, now, 0))  # it failed by what isn't asked for any more
    gone = {i.member.name for i in replace} | {m.name for m in hold}
    live = [m for m in there if m.name not in gone]
    adopted = {(m.offer.account, m.adopted) for m in members if m.adopted}
    to_adopt = [a for a in pool.adopt if (a.account, a.provider_id) not in adopted]
    to_adopt = to_adopt[: max(0, pool.replicas - len(adopted))]
    sizing = size(pool, live, hold, asked.accounts)
    leaving = {m.name for m in sizing.outdated}
    removed = {m.name for m, _ in sizing.delete}
    # a machine that is taken over fills a place that would have been paid for
    create = max(0, sizing.create - len(to_adopt))
    free = _free(members)
    adopt = tuple((a, Place(next(free))) for a in to_adopt)
    places = _places(replace, members, free, create)
    return PoolPlan(
        pool=pool,
        create=create,
        places=places,
        adopt=adopt,
        stay=tuple(m for m in (*live, *hold) if m.name not in leaving and m.name not in removed),
        leaving=tuple(m for m in sizing.outdated if m.name not in removed),
        delete=(
            *(Removal(m, "Replaced") for m in superseded),
            *_removals(replace, create),
            *(Removal(m, why) for m, why in sizing.delete),
        ),
        restamp=tuple(m for m in sizing.restamp if m.name not in removed),
        checkup=checkup,
        avoid=tuple(m for m in there if m.failed and not m.gone),
        later=max(0, sizing.create + sizing.later - len(to_adopt)) - create if asked.approval else 0,
    )


def _removals(replace: Sequence[Ill], create: int) -> list[Removal]:
    return [Removal(i.member, "Replaced", i.message, after=i.why == "Unmade" and create > 0) for i in replace]


def _free(members: Sequence[Member]) -> Iterator[int]:
    used = {m.ordinal for m in members}
    ordinal = 0
    while True:
        if ordinal not in used:
            yield ordinal
        ordinal += 1


def _places(replace: Sequence[Ill], members: Sequence[Member], free: Iterator[int], create: int) -> tuple[Place, ...]:
    out: list[Place] = []
    for ill in sorted(replace, key=lambda i: i.member.ordinal):
        attempt = max(m.attempt for m in members if m.ordinal == ill.member.ordinal) + 1
        if not any(p.ordinal == ill.member.ordinal for p in out):
            out.append(Place(ill.member.ordinal, attempt, ill.failures, ill.member.name))
    while len(out) < create:
        out.append(Place(next(free)))
    return tuple(out[:create])


def units_asked(plan: PoolPlan) -> int:
    """Units that the scheduler is asked for: those that stay and those to be made."""
    return units(plan.stay) + plan.whole
