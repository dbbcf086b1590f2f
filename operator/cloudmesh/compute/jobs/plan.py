"""What becomes of each run, and which are started next. Pure.

| state | seen | becomes |
|---|---|---|
| Ready | a free place | Submitted: written before the machine is asked, under a token of this attempt |
| Submitted | None | is asked again, under the same token |
| Submitted | Running | Running |
| Running | Ended with 0 | Done |
| Running | Ended with another code | Failed, or Timeout where the limit was reached |
| Running | None, Lost, its machine dead | Crash |
| any active | its machine taken away | Ready again, and it doesn't count as a try; Crash with `onPreemption: Fail` |
| any active | Unknown | as it is: a machine that doesn't answer is no end |
| Failed, Timeout, Crash | tries left | Ready again |
| Submitted | Refused: it can't ever be started so | Failed |
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from cloudmesh.compute.jobs.runs import Run, Seen, again, rfc3339

TIMED_OUT = frozenset({124, 137})
"""Codes of a command that was ended for taking too long; it may also have ended so by itself."""
KILLED = 137
"""Code of a command that was ended by force."""
MAX_PREEMPTIONS = 100
"""A run whose machine is taken away for ever is given up."""

Choice = Literal["Sequential", "Random", "Smart", "Frugal"]


@dataclass(frozen=True, slots=True)
class Place:
    """A machine that may take runs.

    Args:
        name: Its name.
        slots: Runs at once.
    """

    name: str
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Rules:
    """What a ClusterJob asks for.

    Args:
        parallelism: Runs at once; None for no limit but the places'.
        retries: How often a run is tried again.
        requeue: Whether a lost machine doesn't count as a try.
        timeout: Seconds that a run may take, 0 for no limit.
        choice: How a machine is chosen; not used with SLURM.
        seed: Of the choice Random.
    """

    parallelism: int | None = None
    retries: int = 0
    requeue: bool = True
    timeout: int = 0
    choice: Choice = "Smart"
    seed: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What the runs are now, and which of them are to be asked for."""

    runs: tuple[Run, ...]
    start: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True)
class World:
    """What is known of the outside.

    Args:
        seen: What was seen of active runs, by index; only of their present attempt.
        places: Machines that take runs, in order; None where SLURM places them.
        accepting: Whether anything may be started.
    """

    seen: Mapping[int, Seen] = field(default_factory=dict)
    places: Sequence[Place] | None = None
    accepting: bool = True


def plan(runs: Sequence[Run], rules: Rules, world: World, now: str) -> Plan:
    """One step: takes in what was seen, and starts what may start."""
    stepped = [_step(run, world.seen.get(run.index), rules, now) for run in runs]
    start = [run for run in stepped if run.state == "Submitted" and _unheard(world.seen.get(run.index))]
    if world.accepting:
        fresh = _start(stepped, rules, world)
        for run in fresh:
            stepped[run.index] = run
        start += fresh
    return Plan(tuple(stepped), tuple(start))


def _unheard(seen: Seen | None) -> bool:
    return seen is not None and seen.sign == "None"


def _step(run: Run, seen: Seen | None, rules: Rules, now: str) -> Run:
    if not run.active or seen is None or seen.sign == "Unknown":
        return run
    run = replace(
        run,
        node=seen.node or run.node,
        slurm_id=seen.slurm_id if seen.slurm_id is not None else run.slurm_id,
        log=seen.log if seen.log[0] else run.log,
        output=seen.output or run.output,
        output_path=seen.output_path or run.output_path,
        message=seen.message,
    )
    if seen.began is not None and not run.started_at:
        run = replace(run, started_at=rfc3339(seen.began))
    match seen.sign:
        case "Waiting":
            return replace(run, state="Submitted")
        case "Running":
            return replace(run, state="Running", started_at=run.started_at or now)
        case "None" if run.state == "Submitted":
            return run
        case "Preempted" if rules.requeue and run.preemptions < MAX_PREEMPTIONS:
            message = seen.message or f"{run.node or 'the machine'} was taken away"
            return replace(again(run), preemptions=run.preemptions + 1, message=message)
        case "Refused":
            return replace(run, state="Failed", ended_at=now)
        case _:
            return _ended(run, seen, rules, now)


def _ended(run: Run, seen: Seen, rules: Rules, now: str) -> Run:
    ended = rfc3339(seen.ended) if seen.ended is not None else ""
    run = replace(run, exit_code=seen.exit_code, ended_at=ended or now)
    where = run.node or "its machine"
    if seen.sign == "Ended" and seen.exit_code == 0:
        return replace(run, state="Done")
    if seen.sign == "Timeout" or (seen.sign == "Ended" and _took_too_long(seen, rules)):
        limit = f"{rules.timeout} s" if rules.timeout else "SLURM's limit"
        run = replace(run, state="Timeout", message=_joined(f"took longer than {limit}", run.message))
    elif seen.sign == "Ended":
        run = replace(run, state="Failed", message=_joined(_how(seen), run.message))
    else:
        why = f"{where} was taken away" if seen.sign == "Preempted" else f"{where} was lost, or its process"
        run = replace(run, state="Crash", exit_code=None, message=run.message or why)
    tries = run.attempts - run.preemptions
    if tries <= rules.retries:
        return again(run)
    return run


def _how(seen: Seen) -> str:
    if seen.oom:
        return f"was killed ({seen.exit_code}): out of memory"
    if seen.exit_code == KILLED:
        return f"was killed ({seen.exit_code}): out of memory?"
    return f"ended with code {seen.exit_code}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _took_too_long(seen: Seen, rules: Rules) -> bool:
    if not rules.timeout or seen.exit_code not in TIMED_OUT or seen.began is None or seen.ended is None:
        return False
    # both clocks count whole seconds
    return seen.ended - seen.began >= rules.timeout - 1


def _start(runs: Sequence[Run], rules: Rules, world: World) -> list[Run]:
    active = [run for run in runs if run.active]
    room = len(runs) if rules.parallelism is None else rules.parallelism - len(active)
    waiting = [run for run in runs if run.state == "Ready"]
    if world.places is None:
        return [_submitted(run, "") for run in waiting[: max(room, 0)]]
    free = {place.name: place.slots for place in world.places}
    for run in active:
        if run.node in free:
            free[run.node] -= 1
    order = {name: number for number, name in enumerate(free)}
    started = []
    for run in waiting[: max(room, 0)]:
        node = _choose({name: left for name, left in free.items() if left > 0}, order, rules, run)
        if not node:
            break
        free[node] -= 1
        started.append(_submitted(run, node))
    return started


def _choose(free: Mapping[str, int], order: Mapping[str, int], rules: Rules, run: Run) -> str:
    """A machine with room: the first, any, the one with the most room, or the one with the least."""
    if not free:
        return ""
    match rules.choice:
        case "Sequential":
            return min(free, key=lambda name: order[name])
        case "Random":
            text = f"{rules.seed}/{run.index}/{run.attempts}".encode()
            number = int.from_bytes(hashlib.sha256(text).digest()[:8], "big")
            return sorted(free)[number % len(free)]
        case "Smart":
            return min(free, key=lambda name: (-free[name], order[name]))
        case "Frugal":
            return min(free, key=lambda name: (free[name], order[name]))


def _submitted(run: Run, node: str) -> Run:
    return replace(
        run, state="Submitted", attempts=run.attempts + 1, node=node, message="", exit_code=None, ended_at=""
    )
