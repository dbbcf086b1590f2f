"""The status of a ClusterJob. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api.clusterjob_status import RunState
from cloudmesh.compute.jobs.runs import Run, count_runs, write_runs

COMPLETE = "Complete"
REASON_WAITING = "WaitingForCluster"
REASON_RUNNING = "Running"
REASON_RUNS_FAILED = "RunsFailed"
REASON_SPEC_INVALID = "SpecInvalid"

Status = dict[str, Any]


def make_status(
    obj: Mapping[str, Any], runs: Sequence[Run], waits_for: str, now: str, *, slurm: bool = False
) -> Status:
    """The status of a job whose spec is right.

    Args:
        obj: The ClusterJob.
        runs: Its runs as they are now.
        waits_for: Why nothing can be started or seen; empty if nothing stands in the way.
        now: RFC 3339 time.
        slurm: Its cluster has SLURM.
    """
    old = obj.get("status") or {}
    counts = count_runs(runs)
    over = all(run.over for run in runs)
    conditions = c.Conditions.of(obj, now, anew=True)
    done = tell_done(counts["done"], counts["total"])
    if over and counts["unsuccessful"]:
        parts = [f"{counts[name]} {words}" for name, words in _WORDS.items() if counts[name]]
        first = next(run for run in runs if run.over and run.state != "Done")
        message = f"{done}; {', '.join(parts)}: {first.name} on {first.node or 'no machine'}: {first.message}"
        conditions.ready(c.FALSE, REASON_RUNS_FAILED, message, stalled=True)
    elif over:
        conditions.ready(c.TRUE, c.REASON_AS_SPECIFIED, done + _remark(runs, "Done"))
    else:
        message = f"{waits_for}; {done}" if waits_for else done + _going_on(counts, slurm) + _remark(runs, "Submitted")
        reason = REASON_WAITING if waits_for else REASON_RUNNING
        conditions.ready(c.FALSE, reason, message, reconciling=True)
    conditions.put(COMPLETE, c.TRUE if over else c.FALSE, "RunsEnded" if over else "RunsLeft", done)
    status: Status = {
        "observedGeneration": conditions.generation,
        "conditions": conditions.list,
        "counts": counts,
        "runs": write_runs(runs),
    }
    began = [run.started_at for run in runs if run.started_at]
    if started := old.get("startedAt") or (min(began) if began else ""):
        status["startedAt"] = started
    if over:
        ended = [run.ended_at for run in runs if run.ended_at]
        status["endedAt"] = old.get("endedAt") or max(ended, default=now)
    return status


def is_told_running(obj: Mapping[str, Any]) -> bool:
    """Whether its status says that the present spec runs."""
    status = obj.get("status") or {}
    ready = c.find_condition(status.get("conditions") or (), c.READY) or {}
    return (
        status.get("observedGeneration") == obj["metadata"].get("generation") and ready.get("reason") == REASON_RUNNING
    )


def tell_done(done: int, total: int) -> str:
    """How many runs are done."""
    return f"{done} of {total} run{'' if total == 1 else 's'} {'is' if 1 in (done, total) else 'are'} done"


def _going_on(counts: Mapping[str, int], slurm: bool) -> str:
    words = (
        ("running", "is running", "are running"),
        ("submitted", *(("is submitted", "are submitted") if slurm else ("is being started", "are being started"))),
        ("ready", "waits", "wait"),
    )
    told = [f"{n} {one if n == 1 else many}" for name, one, many in words if (n := counts[name])]
    return f"; {', '.join(told)}" if told else ""


def _remark(runs: Sequence[Run], state: RunState) -> str:
    """What the first run in a state has to say, if any does."""
    run = next((run for run in runs if run.state == state and run.message), None)
    return f"; {run.name}: {run.message}" if run is not None else ""


def make_refusal(obj: Mapping[str, Any], reason: str, message: str, now: str) -> Status:
    """The status of a job that can't be run until somebody changes something."""
    conditions = c.Conditions.of(obj, now, anew=True)
    conditions.ready(c.FALSE, reason, message, stalled=True)
    return _kept(obj) | {"observedGeneration": conditions.generation, "conditions": conditions.list}


def make_first(obj: Mapping[str, Any], now: str) -> Status:
    """The status before anything is done, so that a client that waits never sees an object without Ready."""
    conditions = c.Conditions.of(obj, now, anew=True)
    conditions.ready(c.UNKNOWN, c.REASON_PENDING, "seen", reconciling=True)
    return {"observedGeneration": conditions.generation, "conditions": conditions.list}


def make_paused(obj: Mapping[str, Any], annotation: str, now: str) -> Status:
    """The status while the user has stopped all changes: what runs goes on."""
    conditions = c.Conditions.of(obj, now)
    conditions.pause(annotation)
    return _kept(obj) | {"conditions": conditions.list}


_WORDS = {"failed": "failed", "timeout": "took too long", "crash": "crashed"}


def _kept(obj: Mapping[str, Any]) -> Status:
    return {name: value for name, value in (obj.get("status") or {}).items() if name != "conditions"}
