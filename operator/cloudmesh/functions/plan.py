"""What to do for a function, and what to say of it: a pure function of the spec, what was observed and the time.

| wanted revision | build line | what serves | status |
|---|---|---|---|
| kept | - | the wanted one | RollingOut, then AsSpecified |
| kept, didn't come up | - | the newest that worked | RolloutFailed, Stalled |
| not kept | under way | what served before | Reconciling |
| not kept | input is wrong | what served before | SourceInvalid, DependenciesUnsatisfiable: Stalled |
| not kept | doesn't answer | what served before | Unknown: BuilderUnavailable, RegistryUnavailable |
| pinned | - | the pinned one | as above |
| pinned, unknown name | - | what served before | Stalled |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudmesh.api import conditions as c
from cloudmesh.engine.applied import differs
from cloudmesh.functions.resources import (
    REVISION_ANNOTATION,
    function_url,
    make_autoscaler,
    make_deployment,
    make_openapi,
    make_service,
    openapi_name,
)
from cloudmesh.functions.revision import Revision
from cloudmesh.functions.rollout import Rollout, counted, read_rollout
from cloudmesh.functions.steps import Failed, Waiting

Obj = dict[str, Any]
MAX_OPERATIONS = 256  # the bound of the schema


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The builder or what it needs doesn't answer; `reason` is the condition's."""

    reason: str
    message: str


Line = Waiting | Failed | Unreachable | None


@dataclass(frozen=True, slots=True)
class Asked:
    """The part of the spec that the plan reads besides the content of the revision.

    `autoscaling` is the most replicas, and the CPU use to hold in percent of the request; `requirements` tells whether
    there are any.
    """

    replicas: int
    autoscaling: tuple[int, int] | None
    pin: str
    history_limit: int
    requirements: bool


@dataclass(frozen=True, slots=True)
class Observed:
    """What the cluster holds for the function. `revisions` are ordered, oldest first.

    `conflict` says which child isn't ours, `refused` why the API server doesn't take one.
    """

    revisions: tuple[Revision, ...] = ()
    deployment: Obj | None = None
    service: Obj | None = None
    autoscaler: Obj | None = None
    openapi: Obj | None = None
    pods: tuple[Obj, ...] = ()
    conflict: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """To be told once, as a Kubernetes Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: apply, delete, mark, prune; then write the status and tell the events."""

    apply: tuple[Obj, ...] = ()
    delete_autoscaler: bool = False
    mark_worked: str = ""
    mark_failed: tuple[str, str] | None = None
    prune: tuple[str, ...] = ()
    repair: str = ""
    status: Obj = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    requeue_after: float | None = None


def _serving(observed: Observed) -> Revision | None:
    """The revision that the Deployment holds now."""
    if observed.deployment is None:
        return None
    name = (observed.deployment["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION, "")
    return next((r for r in observed.revisions if r.name == name), None)


def choose(asked: Asked, wanted: Revision | None, observed: Observed) -> Revision | None:
    """The revision that ought to serve."""
    serving = _serving(observed)
    if asked.pin:
        return next((r for r in observed.revisions if r.name == asked.pin), serving)
    if wanted is None:
        return serving
    if not wanted.failed:
        return wanted
    working = [r for r in observed.revisions if r.worked and not r.failed and r.name != wanted.name]
    return working[-1] if working else wanted


def plan(
    owner: Mapping[str, Any],
    asked: Asked,
    wanted: Revision | None,
    line: Line,
    observed: Observed,
    now: str,
) -> Plan:
    """The plan.

    Args:
        owner: the FunctionService as the API server has it.
        asked: what its spec asks for.
        wanted: the revision that is what the spec asks for, if it has been built.
        line: how its build stands, if it hasn't.
        observed: what is there.
        now: RFC 3339 time for transitions of conditions.
    """
    target = choose(asked, wanted, observed)
    apply, delete_autoscaler = _children(owner, asked, target, observed)
    rollout = read_rollout(observed.deployment, observed.pods, target, now)
    if any(o["kind"] == "Deployment" for o in apply):
        rollout = Rollout("Progressing", "the Deployment is being changed", rollout.available, rollout.replicas)
    mark_failed = None
    # One that has worked isn't judged again: what breaks it later lies outside of it.
    if target is not None and rollout.state == "Failed" and not target.failed and not target.worked:
        mark_failed = (target.name, rollout.message)
    mark_worked = ""
    if (
        target is not None
        and rollout.state == "Complete"
        and rollout.available
        and (not target.worked or target.failed)
    ):
        mark_worked = target.name
    status, events = _status(owner, asked, wanted, target, line, observed, rollout, now)
    requeue = line.after if isinstance(line, Waiting) else None
    if rollout.state == "Progressing":
        requeue = min(requeue or 10.0, 10.0)
    return Plan(
        apply=apply,
        delete_autoscaler=delete_autoscaler,
        mark_worked=mark_worked,
        mark_failed=mark_failed,
        prune=_prune(asked, target, wanted, observed),
        repair=target.name if target is not None and rollout.image_lost else "",
        status=status,
        events=events,
        requeue_after=requeue,
    )


def _children(
    owner: Mapping[str, Any], asked: Asked, target: Revision | None, observed: Observed
) -> tuple[tuple[Obj, ...], bool]:
    if target is None or observed.conflict or observed.refused:
        return (), False
    autoscaling = asked.autoscaling
    pairs: list[tuple[Obj, Obj | None]] = [
        (make_service(owner), observed.service),
        (make_deployment(owner, target, None if autoscaling else asked.replicas), observed.deployment),
        (make_openapi(owner, target.data["document"]), observed.openapi),
    ]
    if autoscaling:
        maximum, percent = autoscaling
        pairs.append((make_autoscaler(owner, asked.replicas, maximum, percent), observed.autoscaler))
    apply = tuple(desired for desired, live in pairs if live is None or differs(desired, live))
    return apply, autoscaling is None and observed.autoscaler is not None


def _prune(asked: Asked, target: Revision | None, wanted: Revision | None, observed: Observed) -> tuple[str, ...]:
    keep = {r.name for r in (target, wanted, _serving(observed)) if r is not None} | {asked.pin}
    spare = [r for r in observed.revisions if r.name not in keep]
    surplus = len(spare) - asked.history_limit
    return tuple(r.name for r in spare[:surplus]) if surplus > 0 else ()


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What Ready says."""

    status: c.Status
    reason: str
    message: str
    stalled: bool = False
    reconciling: bool = False


def _verdict(
    asked: Asked, wanted: Revision | None, target: Revision | None, line: Line, observed: Observed, rollout: Rollout
) -> _Verdict:
    if observed.conflict:
        return _Verdict("False", c.REASON_NAME_CONFLICT, observed.conflict, stalled=True)
    if observed.refused:
        return _Verdict("False", c.REASON_ROLLOUT_FAILED, observed.refused, stalled=True)
    if asked.pin and (target is None or target.name != asked.pin):
        known = ", ".join(f"'{r.name}'" for r in observed.revisions) or "none"
        message = f"`spec.revision.pin` names '{asked.pin}', which is not kept; kept revisions: {known}"
        return _Verdict("False", c.REASON_ROLLOUT_FAILED, message, stalled=True)
    if not asked.pin and wanted is None:
        match line:
            case Failed():
                return _Verdict("False", _reason(line), line.message, stalled=True)
            case Unreachable():
                return _Verdict("Unknown", line.reason, line.message, reconciling=True)
            case Waiting():
                return _Verdict(
                    "Unknown", c.REASON_PENDING, f"the image is being built: {line.stage}", reconciling=True
                )
            case None:
                return _Verdict("Unknown", c.REASON_PENDING, "the build has not started", reconciling=True)
    failed = wanted if not asked.pin and wanted is not None and wanted.failed else None
    if failed is not None and target is not None and target.name != failed.name:
        message = f"revision '{failed.name}' did not come up, '{target.name}' serves on: {failed.failed}"
        return _Verdict("False", c.REASON_ROLLOUT_FAILED, message, stalled=True)
    match rollout.state:
        case "Complete":
            pinned = ", pinned by `spec.revision.pin`: the source is not looked at" if asked.pin else ""
            return _Verdict("True", c.REASON_AS_SPECIFIED, rollout.message + pinned)
        case "Failed":
            return _Verdict("False", c.REASON_ROLLOUT_FAILED, rollout.message, stalled=True)
        case _:
            return _Verdict("False", c.REASON_ROLLING_OUT, rollout.message, reconciling=True)


_REASONS = {
    "SourceInvalid": c.REASON_SOURCE_INVALID,
    "DependenciesUnsatisfiable": c.REASON_DEPENDENCIES_UNSATISFIABLE,
    "RegistryUnavailable": c.REASON_REGISTRY_UNAVAILABLE,
}


def _reason(failed: Failed) -> str:
    return _REASONS.get(failed.kind, c.REASON_BUILD_FAILED)


def is_verdict(owner: Mapping[str, Any]) -> bool:
    """Whether the status says of this very generation that its input is wrong."""
    conditions = (owner.get("status") or {}).get("conditions") or []
    stalled = c.find_condition(conditions, c.STALLED) or {}
    return (
        stalled.get("status") == "True"
        and stalled.get("reason") in (*_REASONS.values(), c.REASON_BUILD_FAILED)
        and stalled.get("observedGeneration") == owner["metadata"].get("generation")
    )


def _stages(asked: Asked, wanted: Revision | None, line: Line) -> list[tuple[str, c.Status, str, str]]:
    """SourceValid, DependenciesLocked and ImageBuilt, of what the spec asks for."""
    if wanted is not None:
        locked = wanted.data.get("lock")
        count = len(wanted.data.get("operations", ()))
        return [
            (
                c.SOURCE_VALID,
                "True",
                "Parsed",
                "; ".join([counted(count, "operation"), *wanted.data.get("warnings", ())]),
            ),
            (c.DEPENDENCIES_LOCKED, "True", "Locked" if locked else "NoRequirements", ""),
            (c.IMAGE_BUILT, "True", "Built", wanted.image),
        ]
    if asked.pin:
        message = "not looked at while `spec.revision.pin` is set"
        return [(t, "Unknown", "Pinned", message) for t in (c.SOURCE_VALID, c.DEPENDENCIES_LOCKED, c.IMAGE_BUILT)]
    order = (c.SOURCE_VALID, c.DEPENDENCIES_LOCKED, c.IMAGE_BUILT)
    if isinstance(line, Failed):
        at = {"SourceInvalid": 0, "DependenciesUnsatisfiable": 1}.get(line.kind, 2)
        past = ("Parsed", "Locked" if asked.requirements else "NoRequirements")
        out: list[tuple[str, c.Status, str, str]] = []
        for i, type_ in enumerate(order):
            if i == at:
                out.append((type_, "False", _reason(line), line.message))
            elif i < min(at, line.done):
                out.append((type_, "True", past[i], ""))
            else:
                out.append((type_, "Unknown", c.REASON_PENDING, "not looked at yet"))
        return out
    reason, message = (line.reason, line.message) if isinstance(line, Unreachable) else (c.REASON_PENDING, "under way")
    return [(t, "Unknown", reason, message) for t in order]


def _status(
    owner: Mapping[str, Any],
    asked: Asked,
    wanted: Revision | None,
    target: Revision | None,
    line: Line,
    observed: Observed,
    rollout: Rollout,
    now: str,
) -> tuple[Obj, tuple[Event, ...]]:
    metadata, old = owner["metadata"], owner.get("status") or {}
    verdict = _verdict(asked, wanted, target, line, observed, rollout)
    conditions = c.Conditions.of(owner, now)
    conditions.ready(
        verdict.status, verdict.reason, verdict.message, reconciling=verdict.reconciling, stalled=verdict.stalled
    )
    for type_, state, reason, message in _stages(asked, wanted, line):
        conditions.put(type_, state, reason, message)
    if rollout.available or (target is not None and rollout.state == "Complete"):
        conditions.put(c.AVAILABLE, "True", "Serving", f"{counted(rollout.available, 'replica')} available")
    else:
        conditions.put(c.AVAILABLE, "False", "NoReplica", "no replica answers")

    status: Obj = {"observedGeneration": conditions.generation, "conditions": conditions.list}
    newest = wanted or (observed.revisions[-1] if observed.revisions else None)
    if newest is not None:
        status["latestRevision"] = newest.name
    serving = target.name if target is not None and rollout.state == "Complete" else old.get("servingRevision")
    if serving:
        status["servingRevision"] = serving
    if target is not None and not observed.conflict:
        data = target.data
        status["url"] = function_url(metadata["namespace"], metadata["name"], str(data["basePath"]))
        status["image"] = target.image
        status["build"] = dict(data.get("build", {}))
        status["openapi"] = {
            "digest": data["openapiDigest"],
            "configMapRef": {"name": openapi_name(metadata["name"])},
            "operations": [
                {**o, "path": f"{data['basePath']}{o['path']}"} for o in data["operations"][:MAX_OPERATIONS]
            ],
        }
    if isinstance(line, Failed) and line.line and wanted is None and not asked.pin:
        error = {"line": line.line, "column": line.column, "message": line.message}
        status["build"] = {**status.get("build", {}), "error": error}
    status["replicas"] = rollout.replicas
    status["selector"] = f"cloudmesh.org/function={metadata['name']}"
    return status, _events(old.get("conditions") or (), verdict, target)


def _events(before: Sequence[Mapping[str, Any]], verdict: _Verdict, target: Revision | None) -> tuple[Event, ...]:
    ready = c.find_condition(before, c.READY) or {}
    if (ready.get("status"), ready.get("reason")) == (verdict.status, verdict.reason):
        return ()
    if verdict.status == "True":
        name = target.name if target is not None else ""
        return (Event("Normal", verdict.reason, f"revision {name} serves"),)
    if verdict.stalled or (verdict.status == "Unknown" and verdict.reason != c.REASON_PENDING):
        return (Event("Warning", verdict.reason, verdict.message),)
    return (Event("Normal", verdict.reason, verdict.message),)
