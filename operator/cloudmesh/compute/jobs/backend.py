"""What a way to run commands does, and what all ways share: folders, commands, machines that are gone."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cloudmesh.api.clusterjob import ClusterJobSpec
from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import target_of
from cloudmesh.compute.jobs.moving import Inputs, Mover
from cloudmesh.compute.jobs.plan import Place
from cloudmesh.compute.jobs.runs import Run, Seen, Sign
from cloudmesh.compute.machines import REASON_FAILED, REASON_GONE, REASON_PREEMPTED, MachineView
from cloudmesh.compute.runner import RUNNER, RUNNER_PATH
from cloudmesh.compute.ssh import Ssh, SshTarget
from cloudmesh.engine import CloudmeshError, Obj

CHECKPOINT = "checkpoint"
"""Folder of a run that is brought to its next machine when this one is taken away."""


@dataclass(frozen=True, slots=True)
class Job:
    """A ClusterJob and the machines of its cluster.

    Args:
        obj: The ClusterJob.
        spec: Its spec.
        access: Keys of the cluster.
        machines: All machines of the cluster by name.
        files: Files of the working folder; None while they can't be had.
        inputs: Files of a directory that lie in it too.
        mover: Brings them.
        controller: Machine that SLURM's controller runs on, empty without SLURM.
        submits: SLURM takes runs at the moment.
    """

    obj: Obj
    spec: ClusterJobSpec
    access: ClusterAccess = field(repr=False)
    machines: Mapping[str, MachineView]
    files: Mapping[str, bytes] | None = field(default=None, repr=False)
    inputs: Inputs | None = field(default=None, repr=False)
    mover: Mover | None = field(default=None, repr=False)
    controller: str = ""
    submits: bool = True

    @property
    def uid(self) -> str:
        """Uid of the ClusterJob."""
        return str(self.obj["metadata"]["uid"])

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.obj["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.obj["metadata"]["namespace"])

    @property
    def home(self) -> str:
        """Folder of the job on each machine, below the home."""
        return f".cloudmesh/jobs/{self.uid}"

    @property
    def marks(self) -> str:
        """Folder on SLURM's controller with what was submitted."""
        return f"{self.home}/submitted"

    @property
    def digest(self) -> str:
        """Name of the folder with the job's files; others for other files."""
        told = hashlib.sha256(repr(sorted((self.files or {}).items())).encode()).hexdigest()
        return f"files-{told[:16]}" + (f"-{self.inputs.digest}" if self.inputs is not None else "")

    @property
    def files_folder(self) -> str:
        """What the runner calls that folder; `-` if the job has no files."""
        return self.digest if self.files or self.inputs is not None else "-"

    def folder(self, run: Run) -> str:
        """Working folder of a run."""
        return f"{self.home}/{run.name}"

    def target(self, machine: MachineView) -> SshTarget:
        """How to log in to a machine."""
        return target_of(machine, self.access)

    @property
    def usable(self) -> list[MachineView]:
        """Machines that runs may begin on, in order."""
        found = [m for m in self.machines.values() if m.ready and m.host and not m.deleting and not m.failed]
        return sorted(found, key=lambda m: (m.pool, m.ordinal, m.name))

    def command(self, run: Run) -> list[str]:
        """The command of a run with its environment; no shell reads it."""
        environment = {e.name: e.value for e in self.spec.env} | {
            "CLOUDMESH_JOB": self.name,
            "CLOUDMESH_RUN": run.name,
            "CLOUDMESH_RUN_INDEX": str(run.index),
            "CLOUDMESH_ATTEMPT": str(run.attempts),
            "CLOUDMESH_CHECKPOINT": CHECKPOINT,
        }
        return ["env", *(f"{k}={v}" for k, v in environment.items()), *self.spec.command, *run.arguments]


Restore = Callable[[Job, Run, SshTarget], Awaitable[None]]


class Backend(Protocol):
    """One way to run commands."""

    def places(self) -> Sequence[Place] | None:
        """Machines that take runs; None where something else places them."""

    async def start(self, runs: Sequence[Run]) -> Mapping[int, CloudmeshError]:
        """Asks for runs, each once for its token; gives what went wrong, by index.

        InvalidRequest says that a run can't ever be started so; after anything else it may have started or not.
        """

    async def look(self, runs: Sequence[Run]) -> dict[int, Seen]:
        """What is seen of active runs, by index."""

    async def stop(self, runs: Sequence[Run]) -> None:
        """Ends active runs.

        Raises:
            CloudmeshError: A machine that is there doesn't answer: try again.
        """


def fate(machine: MachineView | None) -> Sign | None:
    """What is to be said of runs on a machine without asking it; None if it is to be asked."""
    if machine is None:
        return "Preempted"
    if machine.failed:
        return "Lost" if machine.reason in (REASON_GONE, REASON_FAILED) else "Preempted"
    if machine.reason == REASON_PREEMPTED or machine.state == "Stopped":
        return "Preempted"
    return None


def fate_words(name: str, machine: MachineView | None) -> str:
    """The same in words."""
    if machine is None:
        return f"{name} is no longer there"
    return f"{name}: {machine.message or machine.reason or machine.state}"


async def prepare(ssh: Ssh, job: Job, machine: MachineView, done: set[tuple[str, str, str]]) -> None:
    """Puts the runner and the job's files on a machine, once a life of it.

    Raises:
        CloudmeshError: The machine doesn't take them.
    """
    key = (machine.uid, machine.boot_id, job.digest)
    if key in done:
        return
    target = job.target(machine)
    await ssh.put(target, {RUNNER_PATH: RUNNER.encode()}, mode=0o700)
    if job.files_folder != "-":
        folder = f"{job.home}/{job.files_folder}"
        if job.inputs is not None and job.mover is not None:
            await job.mover.bring(job.inputs, target, folder)
        # the marker comes last: runs wait for it
        files = {f"{folder}/{name}": data for name, data in (job.files or {}).items()}
        await ssh.put(target, files | {f"{folder}.ok": b""}, mode=0o700)
    done.add(key)
