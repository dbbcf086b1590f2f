"""What runs leave: the end of their output, files that were asked for, and the folder that lets them go on elsewhere.

It goes into ConfigMaps of the ClusterJob, which are small: what is larger stays on its machine, and is told. Files that
were asked for may go into a VirtualDirectory instead, however large they are.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cloudmesh.compute.jobs.backend import CHECKPOINT, Job
from cloudmesh.compute.jobs.moving import Mover, Place
from cloudmesh.compute.jobs.runs import Run, Seen
from cloudmesh.compute.owned import change_data, create_data, data_of, ensure_data, find_own
from cloudmesh.compute.ssh import Ssh, SshTarget, last_words
from cloudmesh.engine import CONFIG_MAP, AlreadyExists, CloudmeshError, InvalidRequest, Kube, NotFound, Transient

LOG_BYTES = 64 * 1024
LOGS_TOGETHER = 12
"""Logs in one ConfigMap, which holds a megabyte."""
FILE_BYTES = 256 * 1024
FILES_BYTES = 700 * 1024
FILES = 64
CHECKPOINT_BYTES = 700 * 1024
AT_ONCE = 8
WORDS = 200
ENDED_WITHOUT_WORDS = (0, 124, 137)
"""Codes after which the last line of the output doesn't say what went wrong."""

_LOG = 'wc -c <"$1" && tail -c "$2" "$1"'
_LIST = r"""cd "$1" || exit 0
shift
IFS=
for pattern; do
    none=1
    for file in $pattern; do
        [ -f "$file" ] && none=0 && printf '%s %s\n' "$(wc -c <"$file" | tr -d ' ')" "$file"
    done
    [ "$none" = 0 ] || printf 'none %s\n' "$pattern"
done
exit 0"""
_SAVE = 'cd "$1" && [ -d "$2" ] || exit 0; tar -cz "$2" 2>/dev/null | head -c "$3"'
_RESTORE = f'mkdir -p "$1" && cd "$1" && [ ! -d {CHECKPOINT} ] || exit 0; tar -xz'


class Collector:
    """Collects what the runs of one ClusterJob leave.

    Args:
        ssh: How machines are reached.
        kube: Where ConfigMaps are kept.
        mover: Takes files into directories.
    """

    def __init__(self, ssh: Ssh, kube: Kube, mover: Mover) -> None:
        self._ssh = ssh
        self._kube = kube
        self._mover = mover
        self._saved: dict[int, str] = {}

    async def collect(self, job: Job, runs: Sequence[Run], seen: Mapping[int, Seen]) -> dict[int, Seen]:
        """Fetches the logs and outputs of runs that have ended.

        A run whose machine doesn't give them is Unknown for now: it isn't done before they are here.
        """
        turns = asyncio.Semaphore(AT_ONCE)
        logs: dict[int, bytes] = {}
        result = dict(seen)

        async def one(run: Run) -> None:
            found = seen[run.index]
            async with turns:
                try:
                    logs[run.index] = await self._log(job, run, found)
                    output, path, told = "", "", []
                    if found.sign == "Ended" and found.exit_code not in ENDED_WITHOUT_WORDS:
                        told.append(last_words(logs[run.index].decode(errors="replace"), lines=1, limit=WORDS))
                    if found.sign == "Ended" and job.spec.outputs is not None:
                        output, path, left = await self._outputs(job, run, found)
                        told += left
                    words = "; ".join(word for word in [found.message, *told] if word)
                    result[run.index] = replace(found, output=output, output_path=path, message=words)
                except CloudmeshError as error:
                    result[run.index] = Seen("Unknown", found.node, found.slurm_id, message=str(error))

        ended = [run for run in runs if run.index in seen and _has_log(job, seen[run.index])]
        await asyncio.gather(*(one(run) for run in ended))
        logs = {index: log for index, log in logs.items() if result[index].sign != "Unknown"}
        await self._keep_logs(job, logs)
        for index in logs:
            result[index] = replace(result[index], log=(log_name(job.name, index), Run(index).name))
        return result

    async def save(self, job: Job, runs: Sequence[Run], seen: Mapping[int, Seen]) -> None:
        """Keeps the checkpoint folders of runs that go on, if they are small and have changed."""
        for run in runs:
            found = seen.get(run.index)
            if found is None or found.sign != "Running" or (target := _target(job, found.node)) is None:
                continue
            try:
                argv = ["sh", "-c", _SAVE, "sh", job.folder(run), CHECKPOINT, str(CHECKPOINT_BYTES + 1)]
                data = (await self._ssh.run(target, argv)).stdout
                digest = hashlib.sha256(data).hexdigest()
                if not data or len(data) > CHECKPOINT_BYTES or self._saved.get(run.index) == digest:
                    continue
                await ensure_data(
                    self._kube, CONFIG_MAP, job.obj, checkpoint_name(job.name, run.index), {"checkpoint.tgz": data}
                )
                self._saved[run.index] = digest
            except CloudmeshError:
                continue  # the next look may fare better; an older one is kept

    async def restore(self, job: Job, run: Run, target: SshTarget) -> None:
        """Brings a run's checkpoint folder to a machine where it has none.

        Raises:
            CloudmeshError: It is there but can't be brought: starting without it would begin from nothing.
        """
        found = await find_own(self._kube, CONFIG_MAP, job.obj, checkpoint_name(job.name, run.index))
        if found is None:
            return
        data = data_of(CONFIG_MAP, found).get("checkpoint.tgz", b"")
        done = await self._ssh.run(target, ["sh", "-c", _RESTORE, "sh", job.folder(run)], stdin=data)
        if done.status != 0:
            raise Transient(f"{target}: the checkpoint of {run.name} can't be unpacked: {done.complaint}")

    async def _log(self, job: Job, run: Run, seen: Seen) -> bytes:
        target = _target(job, seen.node)
        if target is None:
            raise Transient(f"{seen.node} is gone")
        path = f"{job.folder(run)}/{run.token(job.uid)}/log"
        done = await self._ssh.run(target, ["sh", "-c", _LOG, "sh", path, str(LOG_BYTES)])
        if done.status != 0:
            return b""
        size, _, text = done.stdout.partition(b"\n")
        told = text.decode(errors="replace").encode()[-LOG_BYTES:].decode(errors="ignore").encode()
        left = int(size) - LOG_BYTES if size.strip().isdigit() else 0
        return b"[%d bytes before are left out]\n" % left + told if left > 0 else told

    async def _keep_logs(self, job: Job, logs: Mapping[int, bytes]) -> None:
        by_name: dict[str, dict[str, bytes]] = {}
        for index, log in logs.items():
            by_name.setdefault(log_name(job.name, index), {})[Run(index).name] = log
        for name, data in by_name.items():
            found = await find_own(self._kube, CONFIG_MAP, job.obj, name)
            if found is None:
                try:
                    await create_data(self._kube, CONFIG_MAP, job.obj, name, data)
                except AlreadyExists:
                    raise Transient(f"ConfigMap '{name}' came meanwhile") from None
            elif not data.items() <= data_of(CONFIG_MAP, found).items():
                await change_data(self._kube, CONFIG_MAP, found, data)

    async def _outputs(self, job: Job, run: Run, seen: Seen) -> tuple[str, str, list[str]]:
        """Gives the ConfigMap's name, or the folder in the directory, and sentences on what was not there and what
        could not be taken."""
        target, outputs = _target(job, seen.node), job.spec.outputs
        if target is None or outputs is None:
            return "", "", []
        done = await self._ssh.run(target, ["sh", "-c", _LIST, "sh", job.folder(run), *outputs.paths])
        there: dict[str, int] = {}
        missing: list[str] = []
        for line in dict.fromkeys(done.text.splitlines()):
            size, _, path = line.partition(" ")
            if size == "none":
                missing.append(path)
            elif size.isdigit():
                there[path] = int(size)
        name, folder, left = "", "", list[str]()
        if outputs.directory_ref is None:
            name, left = await self._keep_outputs(job, run, target, there)
        elif there:
            place = Place(job.namespace, outputs.directory_ref.name, f"{outputs.path or job.name}/{run.name}")
            left = await self._move_outputs(job, run, target, there, place)
            folder = place.folder if len(left) < len(there) else ""
        told = [f"no file matches `outputs.paths`: {', '.join(missing)}"] if missing else []
        if left:
            why = "not taken" if outputs.directory_ref is not None else "too large to collect"
            told.append(f"{why}, left on {seen.node} in {job.folder(run)}: {', '.join(left)}")
        return name, folder, told

    async def _keep_outputs(
        self, job: Job, run: Run, target: SshTarget, there: Mapping[str, int]
    ) -> tuple[str, list[str]]:
        """Into a ConfigMap, what is small enough."""
        kept: dict[str, bytes] = {}
        left: list[str] = []
        total = 0
        for path, size in there.items():
            key = re.sub(r"[^-._a-zA-Z0-9]", "_", path.replace("/", "__"))[:253]
            if size > FILE_BYTES or total + size > FILES_BYTES or len(kept) >= FILES or key in kept:
                left.append(f"{path} ({size} bytes)")
                continue
            data = await self._ssh.get(target, f"{job.folder(run)}/{path}", limit=FILE_BYTES)
            if data is not None:
                kept[key] = data
                total += len(data)
        name = output_name(job.name, run.index)
        if kept:
            await ensure_data(self._kube, CONFIG_MAP, job.obj, name, kept)
        return (name if kept else ""), left

    async def _move_outputs(
        self, job: Job, run: Run, target: SshTarget, there: Mapping[str, int], place: Place
    ) -> list[str]:
        """Into a directory; what it refuses stays."""
        left = []
        for path, size in there.items():
            try:
                await self._mover.fetch(target, f"{job.folder(run)}/{path}", size, place, path)
            except (InvalidRequest, NotFound) as error:
                left.append(f"{path} ({error})")
        return left


def log_name(job: str, index: int) -> str:
    """The ConfigMap that holds a run's log."""
    return f"{job}-logs-{index // LOGS_TOGETHER}"


def output_name(job: str, index: int) -> str:
    """The ConfigMap that holds a run's files."""
    return f"{job}-output-{index}"


def checkpoint_name(job: str, index: int) -> str:
    """The ConfigMap that holds a run's checkpoint folder."""
    return f"{job}-checkpoint-{index}"


def _has_log(job: Job, seen: Seen) -> bool:
    """Whether the run is over and its machine still there to be asked."""
    return seen.sign in ("Ended", "Lost", "Timeout") and _target(job, seen.node) is not None


def _target(job: Job, node: str) -> SshTarget | None:
    machine = job.machines.get(node)
    if machine is None or machine.failed or not machine.host:
        return None
    return job.target(machine)
