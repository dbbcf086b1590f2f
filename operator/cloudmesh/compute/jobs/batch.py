"""Runs through SLURM: submitted once a token on the controller's machine, followed in its queue, read on their node."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
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
CALL_SECONDS = 10
"""SLURM's commands wait for a minute and more where they find no controller: they are cut off."""
SUBMIT_SECONDS = 45.0
STOP_SECONDS = 300.0
SUBMIT_PATH = ".cloudmesh/submit"
SUBMIT = r"""#!/bin/sh
# submit MARKS TOKEN ARGUMENTS…: submits once for a token, prints SLURM's number; 75 while a first try may be on its way
# cancel MARKS < tokens: takes back what was submitted
set -u
brief() { timeout -k 2 SECONDS "$@"; }
known() {
    queue=$(brief squeue --noheader --states=all --format='%k %i') || return 1
    echo "$queue" | awk -v token="$1" '$1 == token { print $2 }' | sort -n | head -n 1
}
keep() { echo "$2" >"$1/id.new" && mv "$1/id.new" "$1/id" && echo "$2"; }
mode=$1 marks=$2
shift 2
case $mode in
submit)
    token=$1 mark=$marks/$1
    shift
    mkdir -p "$mark" || exit
    exec 9>"$mark/lock"
    flock -n 9 || exit 75
    [ -s "$mark/id" ] && exec cat "$mark/id"
    if [ ! -e /run/slurm/conf/slurm.conf ] && [ ! -e /etc/slurm/slurm.conf ]; then
        echo "SLURM has no configuration here yet" >&2
        exit 75
    fi
    if [ -e "$mark/tried" ]; then
        # a try was cut off: what came of it shows in the queue, at the latest some seconds after it
        id=$(known "$token") || exit 75
        if [ -n "$id" ]; then
            keep "$mark" "$id"
            exit
        fi
        [ $(($(date +%s) - $(stat -c %Y "$mark/tried"))) -ge 20 ] || exit 75
    fi
    touch "$mark/tried"
    id=$(brief sbatch --parsable --chdir="$HOME" --comment="$token" "$@" 2>"$mark/said" 9>&-)
    code=$?
    if [ "$code" -eq 0 ]; then
        keep "$mark" "${id%%;*}"
        exit
    fi
    cat "$mark/said" >&2
    if [ "$code" -eq 124 ] || [ "$code" -ge 128 ]; then
        echo "sbatch took longer than SECONDS s" >&2
    elif grep -qiE 'connect failure|refused|dns_srv|configuration|invalid|violates' "$mark/said"; then
        # nobody was there to take it, or it was refused: it didn't get through
        rm -f "$mark/tried"
    fi
    exit "$code"
    ;;
cancel)
    left=0
    while read -r token; do
        id=$(cat "$marks/$token/id" 2>/dev/null) || id=$(known "$token") || left=1
        [ -z "$id" ] || brief scancel --quiet "$id" || left=1
    done
    exit "$left"
    ;;
esac
""".replace("SECONDS", str(CALL_SECONDS))
WAITING = frozenset(
    {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT", "SUSPENDED"}
)
RUNNING = frozenset({"RUNNING", "COMPLETING", "STAGE_OUT", "SIGNALING", "STOPPED", "RESIZING"})
REASONS = {
    "Resources": "no node is free",
    "Priority": "others come first",
    "PartitionConfig": "it asks for more than the partition has or allows",
    "PartitionNodeLimit": "it asks for more nodes than the partition has or allows",
    "PartitionTimeLimit": "it asks for more time than the partition allows",
    "PartitionDown": "the partition is down",
    "BadConstraints": "no node is as it asks for",
    "JobHeldUser": "somebody holds it; `scontrol release` lets it go",
    "JobHeldAdmin": "somebody holds it; `scontrol release` lets it go",
}


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
        if not runs or not self._job.submits:
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
        once = [RUNNER_PATH, "once", job.folder(run), token, str(job.spec.timeout_seconds or 0), job.files_folder]
        argv = ["sh", SUBMIT_PATH, "submit", job.marks, token, *options, *once, *job.command(run)]
        done = await self._ssh.run(job.target(head), argv, seconds=SUBMIT_SECONDS)
        if done.status == LATER and not done.complaint:
            return
        if done.status != 0:
            refused = "invalid" in done.complaint.lower() or "violates" in done.complaint.lower()
            raise (InvalidRequest if refused else Transient)(f"SLURM doesn't take {run.name}: {done.complaint}")

    async def look(self, runs: Sequence[Run]) -> dict[int, Seen]:
        """Reads the queue, and the nodes of runs that have left it."""
        try:
            await self._prepare()
            rows = await self._queue({run.token(self._job.uid) for run in runs})
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
            elif row is not None and row.state in RUNNING and not self._lost(row.node):
                found[run.index] = Seen("Running", row.node, row.id)
            else:
                node = row.node if row is not None and row.node else run.node
                ask.append(replace(run, node=node))
        return found | await self._left(ask, rows)

    def _lost(self, node: str) -> bool:
        """Whether a node is known to be gone, which SLURM itself sees a minute later only."""
        return bool(node) and fate(self._job.machines.get(node)) is not None

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

    async def _queue(self, tokens: Collection[str]) -> dict[str, Row]:
        """Lines of the queue by token; what is there twice keeps its first line, and the others are taken back."""
        head = self._head()
        target = self._job.target(head)
        argv = ["squeue", "--noheader", "--states=all", "--format=%i|%T|%B|%k|%r"]
        done = await self._ssh.run(target, ["timeout", "-k", "2", str(CALL_SECONDS), *argv])
        if done.status != 0:
            words = done.complaint or f"no answer within {CALL_SECONDS} s"
            raise Transient(f"squeue on {head.name}: {words}")
        rows: dict[str, Row] = {}
        twice: list[str] = []
        found = (line.split("|", 4) for line in done.text.splitlines())
        for parts in sorted((p for p in found if len(p) == 5 and p[0].isdigit()), key=lambda p: int(p[0])):
            token = parts[3]
            if token not in tokens:
                continue
            if token in rows:
                twice.append(parts[0])
                continue
            node = "" if parts[2] in ("n/a", "") else parts[2]
            rows[token] = Row(int(parts[0]), parts[1], node, parts[4])
        if twice:
            await self._ssh.run(target, ["timeout", "-k", "2", str(CALL_SECONDS), "scancel", "--quiet", *twice])
        return rows

    async def stop(self, runs: Sequence[Run]) -> None:
        """Takes runs out of SLURM.

        Raises:
            CloudmeshError: SLURM doesn't answer: try again.
        """
        if not self._job.controller or fate(self._job.machines.get(self._job.controller)) is not None:
            return  # what SLURM knew went with its controller
        head = self._head()
        lines = "".join(f"{run.token(self._job.uid)}\n" for run in runs)
        script = f'test -f {SUBMIT_PATH} || exit 0; exec sh {SUBMIT_PATH} cancel "$1"'
        argv = ["sh", "-c", script, "sh", self._job.marks]
        done = await self._ssh.run(self._job.target(head), argv, stdin=lines.encode(), seconds=STOP_SECONDS)
        if done.status != 0:
            raise Transient(f"SLURM on {head.name} doesn't end the runs: {done.complaint}")

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
    seen = replace(seen, slurm_id=number, oom=seen.oom or (row is not None and row.state == "OUT_OF_MEMORY"))
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
    if row.reason in ("None", ""):
        return ""
    words = REASONS.get(row.reason)
    return f"SLURM waits: {row.reason}" + (f" ({words})" if words else "")
