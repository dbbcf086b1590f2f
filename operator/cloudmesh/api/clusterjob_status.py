"""Status of a ClusterJob: its runs, what became of them, and where their output is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudmesh.api.fields import (
    ATOMIC,
    Conditions,
    Count,
    Generation,
    KeyReference,
    LocalReference,
    Text,
    Timestamp,
    by_key,
)
from cloudmesh.api.fields import Word as Name
from cloudmesh.api.schema import Model

RunState = Literal["Ready", "Submitted", "Running", "Done", "Failed", "Timeout", "Crash"]


class RunCounts(Model):
    """Number of runs in each state."""

    total: Count = 0
    """All runs."""
    ready: Count = 0
    """Runs that wait."""
    submitted: Count = 0
    """Runs that SLURM has."""
    running: Count = 0
    """Runs that go on."""
    done: Count = 0
    """Runs that ended well."""
    failed: Count = 0
    """Runs whose command ended with another code than 0."""
    timeout: Count = 0
    """Runs that took too long."""
    crash: Count = 0
    """Runs whose machine was lost."""
    unsuccessful: Count = 0
    """Failed, timeout and crash together."""


class Run(Model):
    """One run of the command."""

    index: Annotated[int, Field(ge=0, le=999)]
    """Number of the run, from 0."""
    name: Name
    """Name of the run, and of its folder."""
    arguments: Annotated[list[Text], Field(max_length=32, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """The arguments of this run."""
    state: RunState
    """What it is doing or how it ended."""
    attempts: Count = 0
    """How often it was started."""
    preemptions: Count = 0
    """How often its machine was taken away."""
    exit_code: Annotated[int, Field(ge=-(2**31), le=2**31 - 1)] | None = None
    """Code that the command ended with."""
    node: Name | None = None
    """Machine that it runs or ran on."""
    slurm_job_id: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """SLURM's number of it."""
    started_at: Timestamp | None = None
    """When it began."""
    ended_at: Timestamp | None = None
    """When it ended."""
    log: KeyReference | None = None
    """Where the end of its output is: a key of a ConfigMap."""
    output: LocalReference | None = None
    """ConfigMap with the files that were collected."""
    output_path: Text | None = None
    """Folder of the VirtualDirectory with the files that were collected."""
    message: Text | None = None
    """Why it ended so."""


class ClusterJobStatus(Model):
    """What the operator found and did."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Complete; Reconciling, Stalled and Paused while true."""
    counts: RunCounts | None = None
    """Number of runs in each state."""
    runs: Annotated[list[Run], Field(max_length=1000, json_schema_extra=by_key("index"))] = Field(default_factory=list)
    """The runs."""
    started_at: Timestamp | None = None
    """When the first run began."""
    ended_at: Timestamp | None = None
    """When the last run ended."""
