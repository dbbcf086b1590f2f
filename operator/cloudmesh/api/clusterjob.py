"""ClusterJob: a command swept over a cluster."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.clusterjob_status import ClusterJobStatus
from cloudmesh.api.fields import ATOMIC, SET, LocalReference, ObjectMeta, ResourceName, Unique, by_key
from cloudmesh.api.machines import OWN_NAME, unchangeable
from cloudmesh.api.schema import Column, Definition, Model, Rule, Rules, Shape

MAX_RUNS = 1000
"""Runs of one ClusterJob."""

_RELATIVE = r"^[A-Za-z0-9_*?.][-A-Za-z0-9_*?.]*(/[A-Za-z0-9_*?.][-A-Za-z0-9_*?.]*)*$"
_FOLDER = r"^[^/\x00-\x1f\x7f]+(/[^/\x00-\x1f\x7f]+)*$"
Word = Annotated[str, Field(min_length=1, max_length=4096)]
_VALUE = r"[^\[\],\x00-\x1f\x7f]+"
_PLAIN = r"[^\[\]\x00-\x1f\x7f]*"
Argument = Annotated[
    str,
    Field(min_length=1, max_length=1024, pattern=rf"^{_PLAIN}(\[{_VALUE}(,{_VALUE})*\]{_PLAIN})*$"),
]
"""An argument to sweep: plain text in which `[…]` stands for several values."""
OutputPath = Annotated[
    str,
    Field(min_length=1, max_length=256, pattern=_RELATIVE),
    Shape(_RELATIVE, "an entry of `paths` must be a path in the run's folder, such as `results/*.csv`"),
    Rules(
        Rule(
            cel="!self.matches('(^|/)[.][.]?(/|$)')",
            message="an entry of `paths` must stay in the run's folder: no '.' or '..'",
            holds=lambda p: re.search(r"(\A|/)[.][.]?(/|\Z)", p) is None,
        )
    ),
]


FolderPath = Annotated[
    str,
    Field(min_length=1, max_length=512, pattern=_FOLDER),
    Shape(_FOLDER, "`path` must be a folder such as `raw/2024`, without a '/' at its beginning or end"),
    Rules(
        Rule(
            cel="!self.matches('(^|/)[.]{1,2}(/|$)') && !self.matches('^[.]cloudmesh(/|$)')",
            message="no part of `path` may be '.' or '..', nor its first one '.cloudmesh'",
            holds=lambda p: re.search(r"(\A|/)\.{1,2}(/|\Z)|\A\.cloudmesh(/|\Z)", p) is None,
        )
    ),
]


class JobSlurm(Model):
    """What SLURM is told; only for clusters with `bootstrap.slurm`."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.tasks) || !has(self.nodes) || self.tasks >= self.nodes",
            message="`tasks` must not be less than `nodes`",
            holds=lambda s: s.tasks is None or s.nodes is None or s.tasks >= s.nodes,
            field_path=".tasks",
        ),
    )

    partition: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][-A-Za-z0-9_]*$")] | None = None
    """Partition to run in; left out, SLURM's default."""
    time: (
        Annotated[str, Field(min_length=1, max_length=16, pattern=r"^([0-9]{1,3}-)?[0-9]{1,4}(:[0-5][0-9]){0,2}$")]
        | None
    ) = None
    """Limit of each run as SLURM writes it: minutes, minutes:seconds, hours:minutes:seconds or days-hours."""
    nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Nodes of each run; left out, one."""
    tasks: Annotated[int, Field(ge=1, le=10000)] | None = None
    """Tasks of each run; left out, one a node."""


class Retry(Model):
    """What happens to a run that didn't end well."""

    limit: Annotated[int, Field(ge=0, le=10)] = 0
    """How often a run is tried again."""
    on_preemption: Literal["Requeue", "Fail"] = "Requeue"
    """What happens when the machine is taken away: Requeue doesn't count as a try; Fail does."""


class Workdir(Model):
    """Files that lie in each run's folder."""

    config_map_ref: LocalReference
    """The ConfigMap whose keys are the files."""


class JobDirectory(Model):
    """A folder of a VirtualDirectory."""

    name: ResourceName
    """Name of a VirtualDirectory in the namespace."""
    path: FolderPath | None = None
    """The folder, such as `raw/2024`; left out, the whole directory."""


class Files(Model):
    """Files that the command finds in its folder; of two of the same name that of `workdir` is there."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.workdir) || has(self.directory)",
            message="`files` must have at least one of `workdir` and `directory`",
            holds=lambda f: f.workdir is not None or f.directory is not None,
        ),
    )

    workdir: Workdir | None = None
    """Files of a ConfigMap."""
    directory: JobDirectory | None = None
    """Files of a VirtualDirectory, at most 10000 of 10 GiB together; they are listed once, when the job begins."""


class JobEnvVar(Model):
    """One environment variable of the command."""

    RULES: ClassVar = (
        Rule(
            cel="!self.name.startsWith('CLOUDMESH_') && !self.name.startsWith('SLURM_')",
            message="`name` must not begin with 'CLOUDMESH_' or 'SLURM_': these are set for each run",
            holds=lambda e: not e.name.startswith(("CLOUDMESH_", "SLURM_")),
            field_path=".name",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=4096)]
    """The value, as plain text; no place for secrets."""


class Outputs(Model):
    """Files that are collected when a run has ended, into a ConfigMap or, however large, into a VirtualDirectory."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.path) || has(self.directoryRef)",
            message="`path` must be set only with `directoryRef`",
            holds=lambda o: o.path is None or o.directory_ref is not None,
            field_path=".path",
        ),
    )

    paths: Annotated[list[OutputPath], Field(min_length=1, max_length=16, json_schema_extra=SET), Unique]
    """Files of the run's folder; `*` and `?` stand for others' names."""
    directory_ref: LocalReference | None = None
    """The VirtualDirectory that they are put into; left out, they go into a ConfigMap, if they are small."""
    path: FolderPath | None = None
    """Folder in it in which each run has one of its own, `run-0000`; left out, a folder of the job's name."""


class ClusterJobSpec(Model):
    """What is run; nothing but `parallelism` can be changed."""

    RULES: ClassVar = (
        *(unchangeable("spec", name, required=True) for name in ("clusterRef", "command", "retry")),
        *(unchangeable("spec", name) for name in ("arguments", "slurm", "timeoutSeconds", "files", "env", "outputs")),
    )

    cluster_ref: LocalReference
    """The VirtualCluster to run on."""
    command: Annotated[list[Word], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)]
    """The command and its first arguments, each a word; no shell reads them."""
    arguments: Annotated[list[Argument], Field(max_length=32, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Arguments that are swept: `lr=[0.1,0.2]` gives two runs, `run-[001-100]` a hundred; several give all
    combinations, at most 1000. Left out, one run."""
    parallelism: Annotated[int, Field(ge=1, le=MAX_RUNS)] | None = None
    """How many runs go on at once; left out, one a machine, or as SLURM sees fit."""
    slurm: JobSlurm | None = None
    """What SLURM is told; only for clusters with `bootstrap.slurm`."""
    retry: Retry = Retry()
    """What happens to a run that didn't end well."""
    timeout_seconds: Annotated[int, Field(ge=1, le=31536000)] | None = None
    """How long one run may take, in seconds; left out, for ever."""
    files: Files | None = None
    """Files that the command finds."""
    env: Annotated[list[JobEnvVar], Field(max_length=64, json_schema_extra=by_key("name")), Unique] = Field(
        default_factory=list
    )
    """Environment variables."""
    outputs: Outputs | None = None
    """Files that are collected when a run has ended."""


class ClusterJob(Model):
    """A command swept over the machines of a VirtualCluster."""

    CRD: ClassVar = Definition(
        kind="ClusterJob",
        plural="clusterjobs",
        short_names=("cmjob",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether all runs are done."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Cluster", ".spec.clusterRef.name", "The cluster it runs on."),
            Column("Runs", ".status.counts.total", "Number of runs.", type="integer"),
            Column("Running", ".status.counts.running", "Runs that go on.", type="integer"),
            Column("Done", ".status.counts.done", "Runs that ended well.", type="integer"),
            Column("Failed", ".status.counts.unsuccessful", "Runs that didn't.", type="integer"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["ClusterJob"] = "ClusterJob"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: ClusterJobSpec
    """What is run; nothing but `parallelism` can be changed."""
    status: ClusterJobStatus = ClusterJobStatus()
    """What the operator found and did."""
