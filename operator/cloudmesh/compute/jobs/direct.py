"""Runs started on the machines over SSH, where the cluster has no SLURM."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cloudmesh.compute.jobs.backend import Job, Restore, fate, fate_words, prepare
from cloudmesh.compute.jobs.plan import Place
from cloudmesh.compute.jobs.runs import Run, Seen, Sign
from cloudmesh.compute.runner import Seen as Progress
from cloudmesh.compute.runner import look, start, stop
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import CloudmeshError

AT_ONCE = 16


class Direct:
    """See `backend.Backend`.

    Args:
        ssh: How machines are reached.
        job: What to run, and where.
        prepared: What was put on which machine; kept between rounds.
        restore: Brings a run's checkpoint folder to a machine.
    """

    def __init__(self, ssh: Ssh, job: Job, prepared: set[tuple[str, str, str]], restore: Restore) -> None:
        self._ssh = ssh
        self._job = job
        self._prepared = prepared
        self._restore = restore

    def places(self) -> Sequence[Place]:
        """The ready machines; with more parallelism than machines, several runs on each."""
        usable = self._job.usable
        wanted = self._job.spec.parallelism or len(usable)
        slots = max(1, -(-wanted // len(usable))) if usable else 1
        return [Place(machine.name, slots) for machine in usable]

    async def start(self, runs: Sequence[Run]) -> dict[int, CloudmeshError]:
        """Starts runs; those on machines that are gone are left to the look."""
        turns = asyncio.Semaphore(AT_ONCE)
        by_node: dict[str, list[Run]] = {}
        for run in runs:
            by_node.setdefault(run.node, []).append(run)

        async def on_node(node: str, held: Sequence[Run]) -> dict[int, CloudmeshError]:
            machine = self._job.machines.get(node)
            if machine is None or not machine.host or fate(machine) is not None:
                return {}
            failed: dict[int, CloudmeshError] = {}
            async with turns:
                for run in held:
                    try:
                        await prepare(self._ssh, self._job, machine, self._prepared)
                        await self._start(run)
                    except CloudmeshError as error:
                        failed[run.index] = error
            return failed

        found = await asyncio.gather(*(on_node(node, held) for node, held in by_node.items()))
        return {index: error for part in found for index, error in part.items()}

    async def _start(self, run: Run) -> None:
        job = self._job
        target = job.target(job.machines[run.node])
        token = run.token(job.uid)
        seconds = job.spec.timeout_seconds or 0
        if run.attempts > 1:
            await self._restore(job, run, target)
        await start(self._ssh, target, job.folder(run), token, seconds, job.command(run), files=job.files_folder)

    async def look(self, runs: Sequence[Run]) -> dict[int, Seen]:
        """Asks each machine once for all of its runs."""
        by_node: dict[str, list[Run]] = {}
        for run in runs:
            by_node.setdefault(run.node, []).append(run)
        found: dict[int, Seen] = {}
        for part in await asyncio.gather(*(self._look(node, held) for node, held in by_node.items())):
            found |= part
        return found

    async def _look(self, node: str, runs: Sequence[Run]) -> dict[int, Seen]:
        job, machine = self._job, self._job.machines.get(node)
        if (sign := fate(machine)) is not None or machine is None:
            words = fate_words(node, machine)
            return {run.index: Seen(sign or "Preempted", node, message=words) for run in runs}
        try:
            found = await look_at(self._ssh, job, node, runs)
        except CloudmeshError as error:
            # a machine on its way out won't answer again
            sign = "Preempted" if machine.deleting else "Unknown"
            return {run.index: Seen(sign, node, message=str(error)) for run in runs}
        return {run.index: seen_of(found[run.index], node) for run in runs}

    async def stop(self, runs: Sequence[Run]) -> None:
        """Ends runs on the machines that are still there."""
        by_node: dict[str, list[Run]] = {}
        for run in runs:
            by_node.setdefault(run.node, []).append(run)
        for node, held in by_node.items():
            machine = self._job.machines.get(node)
            if machine is None or fate(machine) is not None:
                continue
            job = self._job
            asked = [(job.folder(run), run.token(job.uid)) for run in held]
            await stop(self._ssh, job.target(machine), asked)


async def look_at(ssh: Ssh, job: Job, node: str, runs: Sequence[Run]) -> dict[int, Progress]:
    """What the runner on a machine tells of runs, by index.

    Raises:
        CloudmeshError: The machine doesn't answer.
    """
    asked = {run.token(job.uid): run for run in runs}
    found = await look(ssh, job.target(job.machines[node]), [(job.folder(r), token) for token, r in asked.items()])
    return {asked[token].index: progress for token, progress in found.items()}


def seen_of(progress: Progress, node: str) -> Seen:
    """The runner's words as the plan reads them."""
    signs: dict[str, Sign] = {"None": "None", "Running": "Running", "Ended": "Ended", "Lost": "Lost"}
    return Seen(
        signs[progress.state], node, exit_code=progress.exit_code, began=progress.began, ended=progress.ended,
        oom=progress.oom,
    )  # fmt: skip
