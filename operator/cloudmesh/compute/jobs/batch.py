"""Runs through SLURM: submitted once a token on the controller's machine, followed in its queue, read on their node."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cloudmesh.compute.jobs.backend import Job, Restore, fate, fate_words, prepare
from cloudmesh.compute.jobs.direct import look_at, seen_of
from cloudmesh.compute.jobs.runs import Run, Seen
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.runner import RUNNER_PATH
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CloudmeshError, InvalidRequest, Transient

AT_ONCE = 8
LATER = 75
SUBMIT_SECONDS = 60.0
SUBMIT_PATH = ".cloudmesh/submit"
SUBMIT = r"""#!/bin/sh
# submit TOKEN ARGUMENTS…: submits once for a token, prints SLURM's number; 75 while a first try may be on its way
# cancel < tokens: takes back what was submitted
set -u
marks=$HOME/.cloudmesh/submitted
known() {
    squeue --noheader --states=all --format='%i %k' | while read -r id comment; do
        [ "$comment" = "$1" ] && echo "$id" && break
    done
}
mode=$1
shift
case $mode in
submit)
    token=$1
    shift
    mkdir -p "$marks"
    if ! mkdir "$marks/$token" 2>/dev/null; then
        [ -s "$marks/$token/id" ] && exec cat "$marks/$token/id"
        squeue --noheader >/dev/null || exit 75
        id=$(known "$token")
        if [ -n "$id" ]; then
            echo "$id" >"$marks/$token/id"
            echo "$id"
            exit 0
        fi
        [ -n "$(find "$marks/$token" -maxdepth 0 -mmin +1)" ] || exit 75
        touch "$marks/$token"
    fi
    # the mark stays when this fails: a call that timed out may have got through
    id=$(sbatch --parsable --chdir="$HOME" --comment="$token" "$@") || exit
    echo "${id%%;*}" >"$marks/$token/id.new" && mv "$marks/$token/id.new" "$marks/$token/id"
    echo "${id%%;*}"
    ;;
cancel)
    while read -r token; do
        id=$(cat "$marks/$token/id" 2>/dev/null) || id=$(known "$token")
        [ -z "$id" ] || scancel --quiet "$id"
    done
    exit 0
    ;;
esac
"""
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED"}
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"})


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the queue."""

    id: int
    state: str
    node: str
    reason: str


class Batch:
    """See `backend.Backend`.

    Args:
        ssh: How machines are reached.
        job: What to run, and where; with a controller.
        prepared: What was put on which machine; kept between rounds.
        restore: Brings a run's checkpoint folder to a machine.
    """

    def __init__(self, ssh: Ssh, job: Job, prepared: set[tuple[str, str, str]], restore: Restore) -> None:
        self._ssh = ssh
        self._job = job
        self._prepared = prepared
        self._restore = restore

    def places(self) -> None:
        """SLURM places the runs."""
        return

    async def start(self, runs: Sequence[Run]) -> dict[int, CloudmeshError]:
        """Submits runs; InvalidRequest where SLURM refuses one.

        Raises:
            CloudmeshError: The controller doesn't answer.
        """
        if not runs:
            return {}
        head = self._head()
        await self._ssh.put(self._job.target(head), {SUBMIT_PATH: SUBMIT.encode()}, mode=0o700)
        await prepare(self._ssh, self._job, head, self._prepared)
        turns = asyncio.Semaphore(AT_ONCE)
        failed: dict[int, CloudmeshError] = {}

        async def one(run: Run) -> None:
            async with turns:
                try:
                    await self._submit(run, head)
                except CloudmeshError as error:
                    failed[run.index] = error

        await asyncio.gather(*(one(run) for run in runs))
        return failed

    async def _prepare(self) -> None:
        """Each machine that a run may come to, also one that has just joined: the run waits for its files."""
        machines = [m for m in self._job.machines.values() if m.reachable and not m.deleting and fate(m) is None]

        async def one(machine: MachineView) -> None:
            try:
                await prepare(self._ssh, self._job, machine, self._prepared)
            except CloudmeshError:
                return  # tried again at the next look

        await asyncio.gather(*(one(machine) for machine in machines))

    async def _submit(self, run: Run, head: MachineView) -> None:
        job, asked = self._job, self._job.spec.slurm
        if run.attempts > 1:
            # nobody knows yet where it will go
            for machine in job.usable:
                await self._restore(job, run, job.target(machine))
        options = [f"--job-name={job.name}.{run.name}", "--output=/dev/null", "--error=/dev/null", "--no-requeue"]
        if asked is not None:
            for name, value in (
                ("partition", asked.partition), ("time", asked.time), ("nodes", asked.nodes), ("ntasks", asked.tasks),
            ):  # fmt: skip
                if value is not None:
                    options.append(f"--{name}={value}")
        token = run.token(job.uid)
        files = job.digest if job.files else "-"
        once = [RUNNER_PATH, "once", job.folder(run), token, str(job.spec.timeout_seconds or 0), files]
        argv = ["sh", SUBMIT_PATH, "submit", token, *options, *once, *job.command(run)]
        done = await self._ssh.run(job.target(head), argv, seconds=SUBMIT_SECONDS)
        if done.status == LATER:
            return
        if done.status != 0:
            refused = "invalid" in done.complaint.lower() or "violates" in done.complaint.lower()
            raise (InvalidRequest if refused else Transient)(f"SLURM doesn't take {run.name}: {done.complaint}")

    async def look(self, runs: Sequence[Run]) -> dict[int, Seen]:
        """Reads the queue, and the nodes of runs that have left it."""
        try:
            await self._prepare()
            rows = await self._queue()
        except CloudmeshError as error:
            # without the controller the nodes still know their own runs
            unknown = Seen("Unknown", message=str(error))
            return {run.index: unknown for run in runs}
        found: dict[int, Seen] = {}
        ask: list[Run] = []
        for run in runs:
            row = rows.get(run.token(self._job.uid))
            if row is not None and row.state in WAITING:
                found[run.index] = Seen("Waiting", slurm_id=row.id, message=_why(row))
            elif row is not None and row.state in RUNNING:
                found[run.index] = Seen("Running", row.node, row.id)
            else:
                node = row.node if row is not None and row.node else run.node
                ask.append(replace(run, node=node))
        return found | await self._left(ask, rows)

    async def _left(self, runs: Sequence[Run], rows: Mapping[str, Row]) -> dict[int, Seen]:
        """Runs that SLURM has no longer, or never had: their nodes know; where that isn't known, all are asked."""
        asked: dict[str, list[Run]] = {}
        for run in runs:
            nodes = [run.node] if run.node else [n for n, m in self._job.machines.items() if m.host and not fate(m)]
            for node in nodes:
                asked.setdefault(node, []).append(run)
        answers = await asyncio.gather(*(self._ask(node, held) for node, held in asked.items()))
        found = {}
        for run in runs:
            row = rows.get(run.token(self._job.uid))
            told = [answer[run.index] for answer in answers if run.index in answer]
            found[run.index] = _judge(told, row, run.node)
        return found

    async def _ask(self, node: str, runs: Sequence[Run]) -> dict[int, Seen]:
        machine = self._job.machines.get(node)
        if (sign := fate(machine)) is not None or machine is None:
            words = fate_words(node, machine)
            return {run.index: Seen(sign or "Preempted", node, message=words) for run in runs}
        try:
            progress = await look_at(self._ssh, self._job, node, runs)
        except CloudmeshError as error:
            sign = "Preempted" if machine.deleting else "Unknown"
            return {run.index: Seen(sign, run.node, message=str(error)) for run in runs}
        return {run.index: seen_of(progress[run.index], node) for run in runs}

    async def _queue(self) -> dict[str, Row]:
        head = self._head()
        argv = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%B|%k|%r"]
        done = await self._ssh.run(self._job.target(head), argv)
        if done.status != 0:
            raise Transient(f"squeue on {head.name}: {done.complaint}")
        rows: dict[str, Row] = {}
        for line in done.text.splitlines():
            parts = line.split("|", 4)
            if len(parts) == 5 and parts[0].isdigit():
                node = "" if parts[2] in ("n/a", "") else parts[2]
                rows[parts[3]] = Row(int(parts[0]), parts[1], node, parts[4])
        return rows

    async def stop(self, runs: Sequence[Run]) -> None:
        """Takes runs out of SLURM."""
        if not self._job.controller or fate(self._job.machines.get(self._job.controller)) is not None:
            return  # what SLURM knew went with its controller
        target = self._job.target(self._head())
        lines = "".join(f"{run.token(self._job.uid)}\n" for run in runs)
        argv = ["sh", "-c", f"test -f {SUBMIT_PATH} || exit 0; exec sh {SUBMIT_PATH} cancel", "sh"]
        await self._ssh.run(target, argv, stdin=lines.encode())

    def _head(self) -> MachineView:
        machine = self._job.machines.get(self._job.controller)
        if machine is None or not machine.host:
            raise Transient("SLURM has no controller at the moment")
        return machine


def _judge(told: Sequence[Seen], row: Row | None, node: str) -> Seen:
    """One verdict of what the nodes say of a run and what SLURM says.

    A run that is nowhere was never begun, but only if every machine has answered.
    """
    number = row.id if row is not None else None
    seen = next((s for s in told if s.sign != "None"), None)
    if seen is None:
        seen = Seen("Lost", node) if row is not None else Seen("None", node)
    seen = replace(seen, slurm_id=number)
    if row is None or seen.sign not in ("Lost", "Running"):
        return seen
    match row.state:
        case "TIMEOUT" | "DEADLINE":
            return replace(seen, sign="Timeout", message="SLURM's limit was reached")
        case "PREEMPTED":
            return replace(seen, sign="Preempted", message=f"SLURM took {row.node or 'its node'} away")
        case _:
            return replace(seen, sign="Lost", message=seen.message or f"SLURM says {row.state}")


def _why(row: Row) -> str:
    return "" if row.reason in ("None", "") else f"SLURM waits: {row.reason}"
