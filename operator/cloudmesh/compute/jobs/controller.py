"""The reconciler of ClusterJob: plan and status in the reconcile, machines in a round of its own in the background."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cloudmesh.api import names
from cloudmesh.api.clusterjob import ClusterJob
from cloudmesh.api.conditions import MOUNTED, TRUE, find_condition
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.access import read_access
from cloudmesh.compute.bootstrap import Bootstrap
from cloudmesh.compute.bootstrap.shared import bootstrap_of, ssh_of
from cloudmesh.compute.jobs.backend import Backend, Job, fate, fate_words
from cloudmesh.compute.jobs.collect import Collector
from cloudmesh.compute.jobs.job_status import (
    REASON_SPEC_INVALID,
    is_told_running,
    make_first,
    make_paused,
    make_refusal,
    make_status,
    tell_done,
)
from cloudmesh.compute.jobs.moving import Inputs, Mover
from cloudmesh.compute.jobs.moving import Place as Folder
from cloudmesh.compute.jobs.plan import Choice, Place, Rules, World, plan
from cloudmesh.compute.jobs.rounds import Work, advance, finish, guarded, make_backend
from cloudmesh.compute.jobs.runs import Run, Seen, read_runs
from cloudmesh.compute.jobs.sweep import SweepError, expand_runs
from cloudmesh.compute.kinds import CLUSTER_JOB, PLACEMENT_POLICY, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.machines import MachineView, view
from cloudmesh.compute.owned import data_of
from cloudmesh.compute.reach import Reach
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import (
    CONFIG_MAP,
    Done,
    Engine,
    InvalidRequest,
    Key,
    NotFound,
    Obj,
    Settings,
    Transient,
    has_finalizer,
    is_abandoned,
    is_deleting,
    utc_now,
)

NO_MACHINE = "no machine of the cluster is ready"
LOOK_SECONDS = 3.0
SOON_SECONDS = 1.0
WAIT_SECONDS = 5.0
LEASE_SECONDS = 6.0
PATIENCE_SECONDS = 60.0
"""A job that ran is told to wait only when a new leader has had so long to find its cluster."""
EVENTS = 10
CHOICES: Mapping[str, Choice] = {
    "Sequential": "Sequential", "Random": "Random", "Smart": "Smart", "Frugal": "Frugal",
}  # fmt: skip


class Waits(Exception):
    """Nothing can be done now; the message says what is waited for."""


class ClusterGone(Waits):
    """The cluster isn't there, nor are its machines."""


def asleep(cluster: VirtualCluster) -> str:
    """Why a cluster has no machines that run by its own spec, and what to do; empty if there is no such reason."""
    which = f"VirtualCluster '{cluster.metadata.name}'"
    why = "Requested" if cluster.spec.lifecycle.state == "Suspended" else cluster.status.suspended_reason
    if why == "Requested":
        return f"{which} is suspended: `spec.lifecycle.state: Running` wakes it"
    if why == "Idle":
        wakes = f"a new value of its annotation {names.ANNOTATION_RESUME_REQUESTED} wakes it"
        return f"{which} sleeps, nobody used it: {wakes}"
    if why == "BudgetExceeded":
        return f"{which} sleeps, its Budget is exceeded: raise the Budget, or wait for its next period"
    if not sum(map(cluster.spec.replicas_of, cluster.spec.pools)):
        return f"{which} is scaled to 0: `kubectl scale vc/{cluster.metadata.name} --replicas=1` gives it a machine"
    if (cluster.metadata.annotations or {}).get(names.ANNOTATION_PAUSED) == "true":
        return f"{which} is paused and no machine of it is ready: remove its annotation {names.ANNOTATION_PAUSED}"
    return ""


class JobReconciler:
    """Runs ClusterJobs.

    Args:
        engine: Access to the cluster.
        ssh: How machines are reached; the process's own when None.
        bootstrap: Knows where SLURM's controllers are; the process's own when None.
        now: The time as RFC 3339.
    """

    resource = CLUSTER_JOB
    owns = ()

    def __init__(
        self,
        engine: Engine,
        *,
        ssh: Ssh | None = None,
        bootstrap: Bootstrap | None = None,
        now: Callable[[], str] = utc_now,
    ) -> None:
        self._engine = engine
        self._ssh = ssh
        self._bootstrap = bootstrap
        self._now = now
        self._work: dict[Key, Work] = {}

    def _reach(self, namespace: str) -> Ssh:
        """How machines of a namespace are reached."""

        def gone(name: str) -> bool:
            found = self._engine.cache.get(VIRTUAL_MACHINE, namespace, name)
            return found is None or fate(view(found)) is not None

        return Reach(self._ssh or ssh_of(self._engine), gone)

    def forget(self, key: Key) -> None:
        """The object is gone."""
        work = self._work.pop(key, None)
        if work is not None and work.task is not None:
            work.task.cancel()

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One step of one job."""
        status = obj.get("status") or {}
        annotations = obj["metadata"].get("annotations") or {}
        if not is_deleting(obj):
            if annotations.get(names.ANNOTATION_PAUSED) == "true":
                await self._engine.status.write(
                    CLUSTER_JOB, obj, make_paused(obj, names.ANNOTATION_PAUSED, self._now())
                )
                return Done()
            if not status.get("conditions"):
                await self._engine.status.write(CLUSTER_JOB, obj, make_first(obj, self._now()))
        try:
            job = ClusterJob.model_validate(obj)
            work = await self._remembered(key, job, obj)
        except (ValidationError, SweepError) as error:
            if is_deleting(obj):
                await self._engine.finalizers.remove(CLUSTER_JOB, obj)
                return Done()
            await self._engine.status.write(
                CLUSTER_JOB, obj, make_refusal(obj, REASON_SPEC_INVALID, str(error), self._now())
            )
            return Done()
        if work.task is not None and not work.task.done():
            return Done()  # its end brings the key back
        runs = read_runs(work.arguments, status.get("runs") or ())
        if is_deleting(obj):
            return await self._end(key, obj, job, work, runs)
        if all(run.over for run in runs) and status.get("endedAt"):
            return Done()
        return await self._go_on(key, obj, job, work, runs)

    async def _go_on(self, key: Key, obj: Obj, job: ClusterJob, work: Work, runs: Sequence[Run]) -> Done:
        waits, gone = "", False
        backend: Backend | None = None
        placed: Job | None = None
        try:
            placed = await self._placed(obj, job, work)
            backend = make_backend(self._reach(key.namespace), placed, work)
        except Waits as wait:
            waits, gone = str(wait), isinstance(wait, ClusterGone)
        except InvalidRequest as error:
            await self._engine.status.write(
                CLUSTER_JOB, obj, make_refusal(obj, REASON_SPEC_INVALID, str(error), self._now())
            )
            return Done(WAIT_SECONDS)
        tokens = {run.index: run.token(work.uid) for run in runs if run.active}
        seen = {index: found for index, (token, found) in work.seen.items() if tokens.get(index) == token}
        work.seen = {}
        if gone:
            seen = {index: Seen("Preempted", message=waits) for index in tokens}
        elif backend is None:
            seen = self._fates(job, runs) | seen
        places: Sequence[Place] | None = backend.places() if backend is not None else ()
        accepting = bool(placed is not None and placed.submits) if places is None else bool(places)
        again = WAIT_SECONDS
        if accepting and (bare := self._bare(job)):
            # what runs goes on, nothing begins
            waits, accepting, places = bare, False, None if places is None else ()
        if not waits and not accepting:
            waits, again = self._lacking(job, slurm=places is None)
        if not waits:
            work.patient_until = 0.0
        elif not seen and asyncio.get_running_loop().time() < work.patient_until:
            return Done(SOON_SECONDS)  # a new leader: its machines and SLURM are being looked at
        decided = plan(runs, work.rules, World(seen, places, accepting), self._now())
        if any(run.active for run in decided.runs) and not has_finalizer(obj, names.FINALIZER_CLEANUP):
            obj = await self._engine.finalizers.ensure(CLUSTER_JOB, obj)
        waiting = waits or work.trouble
        slurm = placed is not None and bool(placed.controller)
        status = make_status(obj, decided.runs, waiting, self._now(), slurm=slurm)
        obj = await self._engine.status.write(CLUSTER_JOB, obj, status)
        self._tell(obj, runs, decided.runs)
        active = [run for run in decided.runs if run.active]
        if backend is not None and placed is not None and active:
            if decided.start:
                self._engine.require_lease(LEASE_SECONDS)
            doing = advance(work, placed, backend, active, decided.start)
            # what has just begun may be short
            moved = any(old.state != new.state for old, new in zip(runs, decided.runs, strict=True))
            self._launch(key, work, doing, SOON_SECONDS if decided.start or moved else LOOK_SECONDS)
            return Done()
        if all(run.over for run in decided.runs):
            return Done()  # the finalizer stays: folders on the machines go with the object
        return Done(again)

    # -- what is outside ---------------------------------------------------------------------------------------------

    def _bare(self, job: ClusterJob) -> str:
        """Which directory its cluster still has to mount, in words; empty if none."""
        name = job.spec.cluster_ref.name
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, job.metadata.namespace, name) or {}
        if not (cluster.get("spec") or {}).get("mounts"):
            return ""
        found = find_condition((cluster.get("status") or {}).get("conditions") or (), MOUNTED) or {}
        if found.get("status") == TRUE:
            return ""
        return f"VirtualCluster '{name}' mounts its directories: {found.get('message', 'not begun yet')}"

    async def _remembered(self, key: Key, job: ClusterJob, obj: Obj) -> Work:
        work = self._work.get(key)
        if work is None or work.uid != job.metadata.uid:
            arguments = expand_runs(job.spec.arguments)
            mover = Mover(self._reach(key.namespace), self._engine.directories)
            collector = Collector(self._reach(key.namespace), self._engine.kube, mover)
            work = self._work[key] = Work(job.metadata.uid, arguments, Rules(), collector, mover)
            if is_told_running(obj):
                work.patient_until = asyncio.get_running_loop().time() + PATIENCE_SECONDS
        spec = job.spec
        work.rules = Rules(
            parallelism=spec.parallelism,
            retries=spec.retry.limit,
            requeue=spec.retry.on_preemption == "Requeue",
            timeout=spec.timeout_seconds or 0,
            choice=work.rules.choice,
            seed=work.uid,
        )
        return work

    async def _placed(self, obj: Obj, job: ClusterJob, work: Work) -> Job:
        """The job with its cluster's machines and keys.

        Raises:
            Waits: The cluster isn't there, or isn't ready for it.
            InvalidRequest: The cluster can't ever run it.
        """
        namespace, name = job.metadata.namespace, job.spec.cluster_ref.name
        found = self._engine.cache.get(VIRTUAL_CLUSTER, namespace, name)
        if found is None:
            raise ClusterGone(f"VirtualCluster '{name}' isn't there")
        if is_deleting(found):
            raise Waits(f"VirtualCluster '{name}' is being deleted")
        try:
            cluster = VirtualCluster.model_validate(found)
        except ValidationError as error:
            raise Waits(f"VirtualCluster '{name}' can't be read") from error
        slurm = cluster.spec.bootstrap_kind == "slurm"
        if job.spec.slurm is not None and not slurm:
            raise InvalidRequest(f"spec.slurm: VirtualCluster '{name}' has no SLURM: its `spec.bootstrap` isn't slurm")
        machines = self._machines(found)
        access = await read_access(self._engine, found)
        if access is None:
            raise Waits(f"VirtualCluster '{name}' has no keys yet")
        controller = self._controller(found)
        if slurm and controller not in machines:
            raise Waits(asleep(cluster) or f"SLURM of VirtualCluster '{name}' isn't up")
        work.rules = await self._with_choice(work.rules, cluster)
        work.files = await self._files(job)
        submits = not slurm or self._setup.slurm_up(found["metadata"]["uid"])
        inputs = await self._inputs(job, work)
        return Job(obj, job.spec, access, machines, work.files, inputs, work.mover, controller, submits)

    def _fates(self, job: ClusterJob, runs: Sequence[Run]) -> dict[int, Seen]:
        """Active runs whose machines are gone, by index: that is known without asking anybody."""
        cluster = self._engine.cache.get(VIRTUAL_CLUSTER, job.metadata.namespace, job.spec.cluster_ref.name)
        machines = self._machines(cluster) if cluster is not None else {}
        return {
            run.index: Seen(sign, run.node, message=fate_words(run.node, machines.get(run.node)))
            for run in runs
            if run.active and run.node and (sign := fate(machines.get(run.node))) is not None
        }

    def _machines(self, cluster: Obj) -> dict[str, MachineView]:
        children = self._engine.cache.children(cluster["metadata"]["uid"], VIRTUAL_MACHINE)
        return {m.name: m for m in map(view, children)}

    async def _files(self, job: ClusterJob) -> Mapping[str, bytes] | None:
        if job.spec.files is None or job.spec.files.workdir is None:
            return None
        name = job.spec.files.workdir.config_map_ref.name
        key = Key(CLUSTER_JOB.kind, job.metadata.namespace, job.metadata.name)
        self._engine.references.set(key, [("ConfigMap", job.metadata.namespace, name)])
        if (held := self._work[key].files) is not None:
            return held  # a run that is tried again finds what the first one found
        found = await self._engine.kube.get(CONFIG_MAP, job.metadata.namespace, name)
        if found is None:
            raise Waits(f"ConfigMap '{name}' of `spec.files.workdir` isn't there")
        return data_of(CONFIG_MAP, found)

    async def _inputs(self, job: ClusterJob, work: Work) -> Inputs | None:
        """The files of a directory as they were first listed, or anew where one of them was changed meanwhile."""
        asked = job.spec.files.directory if job.spec.files is not None else None
        if asked is None:
            return None
        if work.inputs is None or work.mover.stale:
            try:
                work.inputs = await work.mover.list(Folder(job.metadata.namespace, asked.name, asked.path or ""))
            except (NotFound, Transient) as error:
                raise Waits(f"{error}: `spec.files.directory` is waited for") from error
        return work.inputs

    async def _with_choice(self, rules: Rules, cluster: VirtualCluster) -> Rules:
        placement = cluster.spec.placement
        if placement is None:
            return rules
        mode: str = placement.rules.mode if placement.rules is not None else ""
        if placement.policy_ref is not None:
            namespace, name = cluster.metadata.namespace, placement.policy_ref.name
            found = self._engine.cache.get(PLACEMENT_POLICY, namespace, name)
            if found is None and not self._engine.cache.knows(PLACEMENT_POLICY):
                found = await self._engine.kube.get(PLACEMENT_POLICY, namespace, name)
            mode = str(((found or {}).get("spec") or {}).get("mode", ""))
        choice = CHOICES.get(mode, "Smart")
        return Rules(rules.parallelism, rules.retries, rules.requeue, rules.timeout, choice, rules.seed)

    # -- rounds and the end ------------------------------------------------------------------------------------------

    def _launch(self, key: Key, work: Work, doing: Coroutine[Any, Any, None], after: float) -> None:
        """Runs a round in the background; its end brings the key back."""

        async def run() -> None:
            await guarded(work, doing)
            self._engine.enqueue(key, after=after)

        work.task = asyncio.create_task(run(), name=f"round {key}", context=contextvars.Context())

    async def _end(self, key: Key, obj: Obj, job: ClusterJob, work: Work, runs: Sequence[Run]) -> Done:
        """Deletion: runs are ended on every machine that is there, then the object may go."""
        if not has_finalizer(obj, names.FINALIZER_CLEANUP):
            return Done()
        there: Job | None = None
        if not work.stopped and not is_abandoned(obj):
            cluster = self._engine.cache.get(VIRTUAL_CLUSTER, job.metadata.namespace, job.spec.cluster_ref.name)
            if cluster is not None and (access := await read_access(self._engine, cluster)) is not None:
                controller = self._controller(cluster)
                there = Job(obj, job.spec, access, self._machines(cluster), controller=controller)
        if there is None:  # nothing is left to be ended, or the user gave it up
            if work.left:
                words = f"~/.cloudmesh/jobs/{work.uid} stays on {', '.join(work.left[:EVENTS])}: no answer"
                self._engine.events.emit(obj, "Warning", "FoldersLeft", words)
            await self._engine.finalizers.remove(CLUSTER_JOB, obj)
            return Done()
        active = [run for run in runs if run.active]
        if work.trouble and active:
            waits = f"its end waits: {work.trouble}; annotation {names.ANNOTATION_ABANDON}={work.uid} gives up"
            obj = await self._engine.status.write(CLUSTER_JOB, obj, make_status(obj, runs, waits, self._now()))
        doing = finish(self._reach(key.namespace), work, there, active)
        self._launch(key, work, doing, WAIT_SECONDS if work.trouble else 0.0)
        return Done()

    def _controller(self, cluster: Obj) -> str:
        if not (cluster["spec"].get("bootstrap") or {}).get("slurm") is not None:
            return ""
        return self._setup.controller(cluster["metadata"]["uid"])

    @property
    def _setup(self) -> Bootstrap:
        return self._bootstrap or bootstrap_of(self._engine)

    def _lacking(self, job: ClusterJob, *, slurm: bool) -> tuple[str, float]:
        """Why nothing can be started on a cluster that is there and what to do, and when to look again."""
        name = job.spec.cluster_ref.name
        found = self._engine.cache.get(VIRTUAL_CLUSTER, job.metadata.namespace, name)
        if found is not None and (words := asleep(VirtualCluster.model_validate(found))):
            return words, WAIT_SECONDS
        return (f"SLURM of VirtualCluster '{name}' isn't up" if slurm else NO_MACHINE), SOON_SECONDS

    def _tell(self, obj: Obj, before: Sequence[Run], after: Sequence[Run]) -> None:
        """Events: the first that ended badly or left too little one by one, and the end of all."""
        emit = self._engine.events.emit
        told = [run for old, run in zip(before, after, strict=True) if run != old]
        for run in [run for run in told if run.over and run.state != "Done"][:EVENTS]:
            emit(obj, "Warning", f"Run{run.state}", f"{run.name} on {run.node or 'no machine'}: {run.message}")
        for run in [run for run in told if run.state == "Done" and run.message][:EVENTS]:
            emit(obj, "Warning", "OutputsLeft", f"{run.name}: {run.message}")
        for old, run in [pair for pair in zip(before, after, strict=True) if pair[0].preemptions < pair[1].preemptions]:
            emit(obj, "Normal", "RunRequeued", f"{run.name}: {run.message or old.node}; it is started again")
        if after and all(run.over for run in after) and not all(run.over for run in before):
            done = sum(run.state == "Done" for run in after)
            emit(obj, "Normal", "RunsEnded", tell_done(done, len(after)))


def reconciler(engine: Engine, settings: Settings) -> JobReconciler:
    """The reconciler of an operator."""
    return JobReconciler(engine)
