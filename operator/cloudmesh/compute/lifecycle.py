"""Whether a cluster runs, rests or ends, and why: a pure function of its spec, its status and the time.

| | state |
|---|---|
| `maxLifetimeSeconds` is over | End |
| `lifecycle.state: Suspended` | Rest, Requested |
| a Budget is exceeded, until there is room for all that slept | Rest, BudgetExceeded |
| nobody used it for `idle.afterSeconds`, until `cloudmesh.org/resume-requested` gets a new value | Rest, Idle |
| else | Run |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.asked import Asked
from cloudmesh.compute.plan import BUDGET, State
from cloudmesh.compute.prices.moments import to_seconds, to_time

Obj = Mapping[str, Any]

ACTIVITY_SECONDS = 300
"""The status follows what moves all the time at most so often."""
REQUESTED, IDLE = "Requested", "Idle"


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """What a cluster shall be.

    Args:
        state: For the plan.
        why: Why it rests: Requested, Idle or BudgetExceeded; empty otherwise.
        next_at: When that may change by itself, in seconds since 1970.
    """

    state: State
    why: str = ""
    next_at: int | None = None


def decide(
    asked: Asked, status: Obj, now: int, *, resume: str, used_at: int | None, busy: bool, exceeded: bool, fits: bool
) -> Lifecycle:
    """What a cluster shall be.

    Args:
        asked: The cluster.
        status: Its status so far.
        now: Seconds since 1970.
        resume: Value of annotation `cloudmesh.org/resume-requested`.
        used_at: When it was last used, None if it never was ready.
        busy: It is being used right now.
        exceeded: A Budget that selects it is exceeded.
        fits: The Budgets have room for all that it asks for.
    """
    times: list[int] = []
    if asked.max_lifetime is not None:
        over = asked.created_at + asked.max_lifetime
        if now >= over:
            return Lifecycle("End")
        times.append(over)
    was = status.get("suspendedReason", "")
    if asked.suspended:
        return Lifecycle("Rest", REQUESTED, min(times, default=None))
    if exceeded or (was == BUDGET and not fits):
        return Lifecycle("Rest", BUDGET, min(times, default=None))
    if asked.idle_seconds is not None:
        if was == IDLE and resume == status.get("resumedBy", ""):
            return Lifecycle("Rest", IDLE, min(times, default=None))
        if not busy and used_at is not None:
            idle_at = used_at + asked.idle_seconds
            if now >= idle_at:
                return Lifecycle("Rest", IDLE, min(times, default=None))
            times.append(idle_at)
    return Lifecycle("Run", "", min(times, default=None))


def used_at(status: Obj, ready_since: int | None, seen: int) -> int | None:
    """When a cluster was last used: seen at work, or became ready, whatever is later; None if it isn't ready.

    Args:
        status: Its status.
        ready_since: Since when it is Ready as asked, None if it isn't.
        seen: When this process last saw it used, 0 for never.
    """
    if ready_since is None:
        return None
    told = status.get("lastActivityAt")
    return max(ready_since, seen, to_seconds(told) if told else 0)


def told(lifecycle: Lifecycle, status: Obj, now: str, resume: str, *, used_at: int = 0) -> dict[str, Any]:
    """The members of the status that tell of it.

    Args:
        lifecycle: What was decided.
        status: The status so far.
        now: RFC 3339 time.
        resume: Value of annotation `cloudmesh.org/resume-requested`.
        used_at: When it was last seen used, in seconds since 1970; 0 for never.
    """
    out: dict[str, Any] = {}
    if lifecycle.why:
        out["suspendedReason"] = lifecycle.why
        out["suspendedAt"] = status.get("suspendedAt") or now
        resume = status.get("resumedBy", "") if status.get("suspendedReason") == lifecycle.why else resume
    if resume:
        out["resumedBy"] = resume[:253]
    for name in ("startedAt", "lastActivityAt"):
        if name in status:
            out[name] = status[name]
    last = status.get("lastActivityAt")
    if used_at and used_at - (to_seconds(last) if last else 0) >= ACTIVITY_SECONDS:
        out["lastActivityAt"] = to_time(used_at)
    return out
