"""Which machines of a pool are ill, and which of them are replaced now: pure.

| what happened | counted as ill | replaced |
|---|---|---|
| it was never made: no capacity, quota, refused | no | at once for capacity and quota, else after a back-off |
| the cloud took a spot machine away | no | at once, then after a back-off |
| the cloud has it no longer, or gave it up | yes | with remediation Replace |
| not Ready in time, or no longer | yes | with remediation Replace |
| an adoption failed | no | never: its place is kept |

More ill machines than maxUnhealthy, and none is replaced; and never more than these are being replaced at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cloudmesh.compute.asked import Health, Pool
from cloudmesh.compute.members import CAPACITY, QUOTA, Member

Why = Literal["Unmade", "Preempted", "Gone", "Broken", "StartupTimeout", "Unhealthy", "NotAdopted"]

COUNTED = frozenset({"Gone", "Broken", "StartupTimeout", "Unhealthy"})
SETTLED_SECONDS = 600
"""One that worked so long begins its count of failures anew."""
FREE_TRIES = 16
"""Offers that are tried one after the other without a wait."""
MAX_BACKOFF_SECONDS = 600
QUOTA_BACKOFF_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Ill:
    """One machine that doesn't do its work.

    Args:
        member: The machine.
        why: What happened.
        message: The same in words.
        due: When it may be replaced, in seconds since 1970; None for never.
        failures: Failures in a row of its place, with this one.
    """

    member: Member
    why: Why
    message: str
    due: int | None
    failures: int


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found in a pool.

    Args:
        replace: To be replaced now.
        hold: Ill, and not replaced now: they keep their places.
        tripped: So many are ill that none is replaced.
        message: The state in words; empty when all are well.
        next_at: When to look again by itself.
    """

    replace: tuple[Ill, ...] = ()
    hold: tuple[Ill, ...] = ()
    tripped: bool = False
    message: str = ""
    next_at: int | None = None

    @property
    def ill(self) -> tuple[Ill, ...]:
        """All that count as ill."""
        return tuple(i for i in (*self.replace, *self.hold) if i.why in COUNTED or i.why == "NotAdopted")


def check_up(pool: Pool, members: Sequence[Member], now: int, tripped_at: int = 0) -> Checkup:
    """Looks at all machines of a pool that aren't being deleted.

    Args:
        pool: The pool.
        members: Its machines.
        now: Seconds since 1970.
        tripped_at: When so many were last ill that none was replaced: the others get the time to come back too.
    """
    ills: list[Ill] = []
    times: list[int] = []
    for member in members:
        ill, at = _examine(pool.health, member, now)
        if ill is not None:
            ills.append(ill)
        if at is not None:
            times.append(at)
    if not ills:
        return Checkup(next_at=min(times, default=None))
    counted = [i for i in ills if i.why in COUNTED]
    allowed = pool.health.most.of(len(members), up=True)
    sick = {i.member.name for i in ills}
    existing = sum(1 for i in counted if i.why != "Gone")
    # those that stopped working together don't all come of age at one moment
    existing += sum(1 for m in members if m.name not in sick and _is_suspect(m))
    tripped = pool.health.replace and existing > allowed
    under_way = sum(1 for m in members if m.attempt > 1 and not m.was_up and m.name not in sick)
    room = 0 if tripped else allowed - under_way
    replace: list[Ill] = []
    hold: list[Ill] = []
    for ill in sorted(ills, key=lambda i: (i.why == "Gone", i.member.ordinal)):
        due = ill.due
        if due is not None and ill.why in COUNTED and tripped_at:
            due = max(due, tripped_at + pool.health.unhealthy_seconds)
        if due is None:
            hold.append(ill)
        elif due > now:
            hold.append(ill)
            times.append(due)
        elif ill.why not in COUNTED:
            replace.append(ill)
        elif room > 0:
            room -= 1
            replace.append(ill)
        else:
            hold.append(ill)
    return Checkup(
        tuple(replace), tuple(hold), tripped, _message(pool, members, counted, hold, tripped), min(times, default=None)
    )


def _examine(health: Health, member: Member, now: int) -> tuple[Ill | None, int | None]:
    if member.clash:
        return None, None  # no other machine would do better: it waits for a name
    if member.adopted and member.refused:
        return Ill(member, "NotAdopted", member.message or member.failed, None, 0), None
    onset = member.ready_since
    if member.failed:
        why: Why
        if member.preempted:
            why = "Preempted"
        elif member.gone:
            why = "Gone"
        else:
            why = "Unmade" if member.refused else "Broken"
        return _ill(health, member, why, member.message or member.failed, onset), None
    if member.ready != "False" or member.power != "Running" or member.at_rest:
        return None, None
    started = max(member.asked_at or member.ready_since, member.power_since)
    if not member.was_up:
        # one whose past isn't known has at least the time of one that worked
        limit = max(started + health.startup_seconds, member.ready_since + health.unhealthy_seconds)
        if now < limit:
            return None, limit
        message = f"not Ready {now - started} s after it was asked for"
        return _ill(health, member, "StartupTimeout", _with(message, member), limit), None
    limit = member.ready_since + health.unhealthy_seconds
    if member.power_since > member.asked_at:  # it was woken: it may take as long as a new one
        limit = max(limit, member.power_since + health.startup_seconds)
    if now < limit:
        return None, limit
    message = f"not Ready for {health.unhealthy_seconds} s"
    return _ill(health, member, "Unhealthy", _with(message, member), limit), None


def _is_suspect(member: Member) -> bool:
    """Whether one that worked doesn't any more, for whatever time, and not since it was told to sleep or wake."""
    awake = member.power == "Running" and not member.at_rest and member.ready_since > member.power_since
    return member.was_up and member.ready == "False" and awake


def _with(message: str, member: Member) -> str:
    return f"{message}: {member.message}" if member.message else message


def _ill(health: Health, member: Member, why: Why, message: str, onset: int) -> Ill:
    settled = member.was_up and member.ready_since - member.asked_at >= SETTLED_SECONDS
    before = 0 if settled else member.failures
    pause = backoff_seconds(before, capacity=why == "Unmade" and member.failed in CAPACITY)
    if why == "Unmade" and member.failed == QUOTA:
        pause = min(pause, QUOTA_BACKOFF_SECONDS)  # how long a quota waits is its account's to say
    due: int | None = onset + pause
    if why in COUNTED and not health.replace:
        due = None
    return Ill(member, why, message, due, before + 1)


def backoff_seconds(failures: int, *, capacity: bool) -> int:
    """How long a place waits for its next machine after so many failures in a row before the last one."""
    over = failures - FREE_TRIES if capacity else failures
    if over <= 0:
        return 0
    return min(MAX_BACKOFF_SECONDS, int(10 * 2 ** min(over - 1, 10)))


def _message(pool: Pool, members: Sequence[Member], counted: Sequence[Ill], hold: Sequence[Ill], tripped: bool) -> str:
    if not counted and not any(i.why == "NotAdopted" for i in hold):
        return ""
    parts = [f"pool '{pool.name}': {len(counted)} of {len(members)} machines ill"]
    first = next((i for i in (*counted, *hold)), None)
    if first is not None:
        parts.append(f"'{first.member.name}': {first.message}")
    if tripped:
        most = pool.health.most
        limit = f"{most.number}%" if most.percent else str(most.number)
        parts.append(f"none is replaced, since that is more than maxUnhealthy {limit}")
    elif not pool.health.replace:
        parts.append("none is replaced, since remediation is None")
    return "; ".join(parts)
