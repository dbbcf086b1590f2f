"""Rounds over a job's machines, in the background: start, look, collect; or stop and clear away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field

from cloudmesh.compute.jobs.backend import Backend, Job, fate
from cloudmesh.compute.jobs.batch import Batch
from cloudmesh.compute.jobs.collect import Collector
from cloudmesh.compute.jobs.direct import Direct
from cloudmesh.compute.jobs.moving import Inputs, Mover
from cloudmesh.compute.jobs.plan import Rules
from cloudmesh.compute.jobs.runs import Run, Seen
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CloudmeshError, InvalidRequest, Transient

log = logging.getLogger(__name__)

ROUND_SECONDS = 900.0
SAVE_SECONDS = 30.0
STOP_TRIES = 20
CLEAR_TRIES = 3
CLEAR_SECONDS = 5.0
_CLEAR = 'rm -rf "$1" 2>/dev/null || { chmod -R u+rwX "$1" && rm -rf "$1"; }'
"""A command may have made folders that can't be written to."""


@dataclass(slots=True)
class Work:
    """What is held in memory for one job; all of it can be found out again.

    Args:
        uid: Uid of the ClusterJob.
        arguments: Arguments of each run.
        rules: What the plan follows.
        collector: Fetches what runs leave.
        mover: Brings files of directories, and takes them there.
        seen: What the last round saw, by index, with the token that it is about.
        task: The round that goes on.
        trouble: What stood in its way, for people.
        stopped: All runs were ended for the job's deletion, and its folders removed.
        left: Machines that didn't let them be removed.
        prepared: What was put on which machine.
        files: Files of the working folder, as they were first read.
        inputs: The same of a directory's, as they were listed.
        saved_at: When checkpoint folders were last fetched.
        patient_until: So long, on the loop's clock, a job that ran under an earlier leader waits in silence; 0 once
            its cluster was found to take runs.
    """

    uid: str
    arguments: Sequence[tuple[str, ...]]
    rules: Rules
    collector: Collector
    mover: Mover
    seen: dict[int, tuple[str, Seen]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    trouble: str = ""
    stopped: bool = False
    left: Sequence[str] = ()
    prepared: set[tuple[str, str, str]] = field(default_factory=set)
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    inputs: Inputs | None = field(default=None, repr=False)
    saved_at: float = 0.0
    patient_until: float = 0.0


def make_backend(ssh: Ssh, job: Job, work: Work) -> Backend:
    """How the job's cluster runs commands: through SLURM where there is one."""
    kind = Batch if job.controller else Direct
    return kind(ssh, job, work.prepared, work.collector.restore)


async def advance(work: Work, job: Job, backend: Backend, active: Sequence[Run], start: Sequence[Run]) -> None:
    """Starts runs, looks at all active ones, and fetches what those that ended have left."""
    refused: dict[int, Seen] = {}
    troubles: list[str] = []
    for index, error in (await backend.start(start)).items():
        if isinstance(error, InvalidRequest):
            refused[index] = Seen("Refused", message=str(error))
        else:
            troubles.append(str(error))
    seen = await backend.look([run for run in active if run.index not in refused]) | refused
    seen = await work.collector.collect(job, active, seen)
    now = asyncio.get_running_loop().time()
    if now - work.saved_at > SAVE_SECONDS:
        work.saved_at = now
        await work.collector.save(job, active, seen)
    troubles += [found.message for found in seen.values() if found.sign == "Unknown" and found.message]
    work.trouble = troubles[0] if troubles else ""
    work.seen = {run.index: (run.token(work.uid), seen[run.index]) for run in active if run.index in seen}


async def finish(ssh: Ssh, work: Work, job: Job, active: Sequence[Run]) -> None:
    """Ends all active runs, makes sure that they have ended, and clears the job's folders away.

    Raises:
        Transient: A machine that is there doesn't answer, or a run doesn't end.
    """
    direct = Direct(ssh, job, work.prepared, work.collector.restore)
    if job.controller and active:
        await Batch(ssh, job, work.prepared, work.collector.restore).stop(active)
    placed = [run for run in active if run.node]
    for number in range(STOP_TRIES):
        await direct.stop(placed)
        seen = await direct.look(placed)
        left = [found for found in seen.values() if found.sign in ("Running", "Unknown")]
        if not left:
            break
        if number == STOP_TRIES - 1:
            raise Transient(f"a run on {left[0].node} doesn't end: {left[0].message}")
        await asyncio.sleep(1.0)
    machines = [m for m in job.machines.values() if m.host and not m.deleting and not m.failed]
    cleared = await asyncio.gather(*(_clear(ssh, job, machine) for machine in machines))
    work.left = [machine.name for machine, done in zip(machines, cleared, strict=True) if not done]
    work.stopped = True


async def _clear(ssh: Ssh, job: Job, machine: MachineView) -> bool:
    """Whether the job's folders are gone: files on a machine that doesn't answer hold no object back for ever."""
    if fate(machine) is not None:
        return False  # it is stopped
    trouble = ""
    for number in range(CLEAR_TRIES):
        if number:
            await asyncio.sleep(CLEAR_SECONDS)
        try:
            done = await ssh.run(job.target(machine), ["sh", "-c", _CLEAR, "sh", job.home])
        except CloudmeshError as error:
            trouble = str(error)
        else:
            if done.status == 0:
                return True
            trouble = done.complaint
    log.warning("a job's folder stays", extra={"machine": machine.name, "error": trouble})
    return False


async def guarded(work: Work, doing: Awaitable[None]) -> None:
    """Runs a round within its time; what goes wrong is told, and tried again by the next."""
    try:
        async with asyncio.timeout(ROUND_SECONDS):
            await doing
    except CloudmeshError as error:
        work.trouble = str(error)
        log.warning("a round of a job failed", extra={"job": work.uid, "error": str(error)})
    except TimeoutError:
        work.trouble = f"a round took longer than {ROUND_SECONDS:g} s"
    except Exception as error:
        work.trouble = f"unexpected: {type(error).__name__}"
        log.exception("a round of a job failed unexpectedly", extra={"job": work.uid})
