"""Status of a DataStore: a pure function of what a look showed and of what directories say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api.datastore_status import MAX_CLAIMS
from cloudmesh.data.config import Prices
from cloudmesh.data.prices import price_status
from cloudmesh.data.using import Use
from cloudmesh.data.words import apart, size_text
from cloudmesh.policy.moments import to_seconds, to_time

COUNTERS_SECONDS = 15.0
"""Between two writes of what directories count."""
LATENCY_SECONDS = 300.0
FIGURES = ("objects", "bytes", "used")
UP = ("Up", "Slow")
LATENCY_MS = 5
EXPIRING_SECONDS = 86400
"""Credentials that end so soon are told."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a store showed.

    Args:
        ready: Whether it can be used, None if nobody can say now.
        reason: One word.
        message: A sentence.
        writable: Whether it takes writes, None if that wasn't tried.
        latency_ms: Of one call, None if none was made.
        strong: Whether writes can be tied to what is there, None if unknown.
        ends: When the credentials end, as their Secret says; empty if it doesn't.
    """

    ready: bool | None
    reason: str
    message: str
    writable: bool | None = None
    latency_ms: int | None = None
    strong: bool | None = None
    ends: str = ""


def make_status(
    obj: Mapping[str, Any], kind: str, look: Look, uses: Sequence[Use], now: str, prices: Prices | None = None
) -> dict[str, Any]:
    """The whole status as it should be now.

    Args:
        obj: The DataStore.
        kind: Member of its spec.
        look: What a look showed.
        uses: Directories that use it.
        now: RFC 3339 time.
        prices: What it costs.
    """
    conditions = c.Conditions.of(dict(obj), now)
    if look.ready is None:
        conditions.ready("Unknown", look.reason, look.message, reconciling=True)
    elif look.ready:
        conditions.ready("True", look.reason, look.message)
    else:
        conditions.ready("False", look.reason, look.message, stalled=True)
    _writable(conditions, obj, look, uses)
    _identity(conditions, uses)
    _expiring(conditions, look.ends, now)
    files, size = sum(use.files for use in uses), sum(use.bytes for use in uses)
    status: dict[str, Any] = {
        "observedGeneration": conditions.generation,
        "conditions": conditions.list,
        "kind": kind,
        "objects": files,
        "bytes": size,
        "used": size_text(size),
    }
    if look.strong is not None:
        status["strength"] = "Strong" if look.strong else "Weak"
    if look.latency_ms is not None:
        status["latencyMs"] = look.latency_ms
    if prices is not None and (price := price_status(prices)):
        status["price"] = price
    if uses:
        status["claims"] = [
            {"directory": use.directory, "state": use.state} | ({"prefix": use.prefix} if use.prefix else {})
            for use in uses[:MAX_CLAIMS]
        ]
    return status


def _writable(conditions: c.Conditions, obj: Mapping[str, Any], look: Look, uses: Sequence[Use]) -> None:
    if obj["spec"].get("access") == "ReadOnly":
        conditions.put(c.WRITABLE, "False", "ReadOnly", "`spec.access` is ReadOnly")
    elif look.writable is not None:
        status: c.Status = "True" if look.writable else "False"
        conditions.put(c.WRITABLE, status, "Tried", "a trial write was " + ("taken" if look.writable else "refused"))
    elif up := [use.directory for use in uses if use.state in UP]:
        conditions.put(c.WRITABLE, "True", "InUse", f"the directory {up[0]} has written its marker there")
    else:
        conditions.put(c.WRITABLE, "Unknown", "NotTried", "no directory has written to it yet")


def _identity(conditions: c.Conditions, uses: Sequence[Use]) -> None:
    doubted = [use for use in uses if use.state in ("Suspicious", "Claimed")]
    if not uses:
        conditions.remove(c.IDENTITY_CONFIRMED)
    elif doubted:
        told = f"directory {doubted[0].directory}: {doubted[0].message or doubted[0].state}"
        conditions.put(c.IDENTITY_CONFIRMED, "False", doubted[0].state, told)
    elif all(use.state in UP for use in uses):
        conditions.put(c.IDENTITY_CONFIRMED, "True", "MarkersFound", "each directory has found its marker")
    else:
        waits = next(use for use in uses if use.state not in UP)
        told = f"directory {waits.directory}: {waits.message or waits.state}"
        conditions.put(c.IDENTITY_CONFIRMED, "Unknown", c.REASON_PENDING, told)


def _expiring(conditions: c.Conditions, ends: str, now: str) -> None:
    if not ends:
        conditions.remove(c.AUTH_EXPIRING)
        return
    try:
        left = to_seconds(ends) - to_seconds(now)
    except ValueError:
        told = "the Secret's key `expiration` must be a time such as 2026-01-31T12:00:00Z"
        conditions.put(c.AUTH_EXPIRING, "Unknown", "InvalidRequest", told)
        return
    at = to_time(to_seconds(ends))
    if left > EXPIRING_SECONDS:
        conditions.put(c.AUTH_EXPIRING, "False", "Valid", f"the credentials hold until {at}")
    else:
        reason, word = ("Expiring", "end") if left > 0 else ("Expired", "ended")
        conditions.put(c.AUTH_EXPIRING, "True", reason, f"the credentials {word} at {at}: put new ones into the Secret")


def settle(status: dict[str, Any], old: Mapping[str, Any], counted: float, clock: float) -> tuple[dict[str, Any], bool]:
    """The status to be written now, and whether its numbers are new: all at once, or the old ones for a while.

    Args:
        status: As it should be.
        old: As it is.
        counted: When numbers were written last, on the loop's clock.
        clock: Now.
    """
    if (
        "objects" not in old
        or (counts_differ(status, old) and clock >= counted + COUNTERS_SECONDS)
        or (_slower(status, old) and clock >= counted + LATENCY_SECONDS)
    ):
        return status, True
    numbers = (*FIGURES, "latencyMs")
    held = {name: value for name, value in status.items() if name not in numbers}
    return held | {name: old[name] for name in numbers if name in old}, False


def counts_differ(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether directories count something else there than is told."""
    return any(apart(int(status.get(n, 0)), int(old.get(n, 0))) for n in ("objects", "bytes"))


def _slower(status: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    new_latency, old_latency = int(status.get("latencyMs", 0)), int(old.get("latencyMs", 0))
    # a network's latency never stands still: only another order of it is news
    return abs(new_latency - old_latency) > max(LATENCY_MS, max(new_latency, old_latency) // 2)
