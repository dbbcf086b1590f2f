"""Runs of a ClusterJob as the plan reads and writes them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cloudmesh.api.clusterjob_status import RunState
from cloudmesh.compute.prices.moments import to_time
from cloudmesh.compute.tokens import make_token

MAX_ARGUMENT_BYTES = 200_000
"""Arguments of all runs together that a status holds; beyond, they are left out and can be read from the spec."""
TEXT_LENGTH = 1024

Sign = Literal["Unknown", "None", "Waiting", "Running", "Ended", "Lost", "Preempted", "Timeout", "Refused"]
"""What is seen of a run. Unknown: nobody answers. None: it never began there. Waiting: SLURM has it. Lost: it went
without saying how it ended. Preempted: its machine was taken away. Timeout: SLURM's own limit. Refused:
it can't ever be started so."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run; see the fields of `status.runs` for members of the same name."""

    index: int
    arguments: tuple[str, ...] = ()
    state: RunState = "Ready"
    attempts: int = 0
    preemptions: int = 0
    exit_code: int | None = None
    node: str = ""
    slurm_id: int | None = None
    started_at: str = ""
    ended_at: str = ""
    log: tuple[str, str] = ("", "")
    output: str = ""
    output_path: str = ""
    message: str = ""

    @property
    def name(self) -> str:
        """Name of the run, and of its folder."""
        return f"run-{self.index:04d}"

    @property
    def active(self) -> bool:
        """It was started and hasn't ended."""
        return self.state in ("Submitted", "Running")

    @property
    def over(self) -> bool:
        """Nothing more comes of it."""
        return self.state in ("Done", "Failed", "Timeout", "Crash")

    def token(self, job_uid: str) -> str:
        """Name of this attempt; another attempt has another."""
        return make_token(job_uid, self.name, self.index, self.attempts, "run")


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a run gave.

    Args:
        sign: What is seen of it.
        node: Machine that it is on, empty if nobody knows.
        slurm_id: SLURM's number of it.
        exit_code: Code that the command ended with.
        began: Seconds since 1970, by the machine's clock.
        ended: The same of its end.
        log: ConfigMap and key of its collected output.
        output: ConfigMap of its collected files.
        output_path: Folder in a directory of its collected files.
        message: More for people.
        oom: It was killed because memory ran out.
    """

    sign: Sign
    node: str = ""
    slurm_id: int | None = None
    exit_code: int | None = None
    began: int | None = None
    ended: int | None = None
    log: tuple[str, str] = ("", "")
    output: str = ""
    output_path: str = ""
    message: str = ""
    oom: bool = False


def read_runs(arguments: Sequence[tuple[str, ...]], status: Iterable[Mapping[str, Any]]) -> tuple[Run, ...]:
    """The runs as a status has them, those that it lacks as not started."""
    held = {item["index"]: item for item in status}
    return tuple(_read(index, values, held[index]) if index in held else Run(index, values)
                 for index, values in enumerate(arguments))  # fmt: skip


def _read(index: int, arguments: tuple[str, ...], item: Mapping[str, Any]) -> Run:
    log = item.get("log") or {}
    return Run(
        index=index,
        arguments=arguments,
        state=item.get("state", "Ready"),
        attempts=item.get("attempts", 0),
        preemptions=item.get("preemptions", 0),
        exit_code=item.get("exitCode"),
        node=item.get("node", ""),
        slurm_id=item.get("slurmJobId"),
        started_at=item.get("startedAt", ""),
        ended_at=item.get("endedAt", ""),
        log=(log.get("name", ""), log.get("key", "")),
        output=(item.get("output") or {}).get("name", ""),
        output_path=item.get("outputPath", ""),
        message=item.get("message", ""),
    )


def write_runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """`status.runs`; what is empty is left out."""
    told = sum(len(a.encode()) for run in runs for a in run.arguments) <= MAX_ARGUMENT_BYTES
    return [_write(run, told=told) for run in runs]


def _write(run: Run, *, told: bool) -> dict[str, Any]:
    item: dict[str, Any] = {"index": run.index, "name": run.name, "state": run.state}
    fields: dict[str, Any] = {
        "arguments": [cut(a) for a in run.arguments] if told else [],
        "attempts": run.attempts,
        "preemptions": run.preemptions,
        "node": run.node,
        "startedAt": run.started_at,
        "endedAt": run.ended_at,
        "log": {"name": run.log[0], "key": run.log[1]} if run.log[0] else None,
        "output": {"name": run.output} if run.output else None,
        "outputPath": run.output_path,
        "message": cut(run.message),
    }
    item |= {name: value for name, value in fields.items() if value}
    if run.exit_code is not None:
        item["exitCode"] = run.exit_code
    if run.slurm_id is not None:
        item["slurmJobId"] = run.slurm_id
    return item


def count_runs(runs: Iterable[Run]) -> dict[str, int]:
    """`status.counts`."""
    counts = dict.fromkeys(("total", "ready", "submitted", "running", "done", "failed", "timeout", "crash"), 0)
    for run in runs:
        counts["total"] += 1
        counts[run.state.lower()] += 1
    return counts | {"unsuccessful": counts["failed"] + counts["timeout"] + counts["crash"]}


def cut(text: str) -> str:
    """A text as long as a status takes it."""
    return text if len(text) <= TEXT_LENGTH else text[: TEXT_LENGTH - 1] + "…"


def rfc3339(seconds: int) -> str:
    """A time of a machine's clock as Kubernetes writes it; empty for one that can't be."""
    try:
        return to_time(seconds)
    except (OverflowError, OSError, ValueError):
        return ""


def again(run: Run) -> Run:
    """The same run, to be started anew; how often it was stays known."""
    return replace(run, state="Ready", node="", slurm_id=None, exit_code=None, started_at="", ended_at="")
