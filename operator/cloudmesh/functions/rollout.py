"""How far a Deployment has come with a revision, read from its status and its Pods. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from cloudmesh.functions.resources import CONTAINER, REVISION_ANNOTATION
from cloudmesh.functions.revision import Revision
from cloudmesh_function.settings import EXIT_NOT_LOADED

State = Literal["Absent", "Progressing", "Complete", "Failed"]

# A container that died this often will not come up by itself; the second number is for one that says so itself.
DEATHS = 3
DEATHS_LOADING = 2
READY_SECONDS = 120
"""A container that has run for so long without getting ready will not get ready."""
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"})


def counted(number: int, noun: str) -> str:
    """`1 replica`, `2 replicas`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


@dataclass(frozen=True, slots=True)
class Rollout:
    """`available` and `replicas` count Pods of any revision."""

    state: State
    message: str
    available: int = 0
    replicas: int = 0
    image_lost: bool = False


@dataclass(frozen=True, slots=True)
class _Trouble:
    message: str
    fatal: bool = False
    image_lost: bool = False
    outside: bool = False  # not the function's fault: no image, no room


def _trouble(pod: Mapping[str, Any]) -> _Trouble | None:
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _Trouble(f"Pod '{name}' finds no node: {condition.get('message', '')}", outside=True)
    for container in status.get("containerStatuses") or []:
        if container.get("name") != CONTAINER:
            continue
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, text = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _PULL:
            lost = "not found" in text.lower() or "manifest unknown" in text.lower()
            return _Trouble(f"Pod '{name}' can't pull its image: {text}", image_lost=lost, outside=True)
        if reason in ("CreateContainerConfigError", "CreateContainerError", "InvalidImageName"):
            return _Trouble(f"Pod '{name}' can't be started: {reason}: {text}", outside=True)
        terminated = (container.get("lastState") or {}).get("terminated") or (container.get("state") or {}).get(
            "terminated"
        )
        if terminated:
            last = str(terminated.get("message") or terminated.get("reason") or "").strip()
            tail = last[-1500:]
            code = terminated.get("exitCode")
            deaths = int(container.get("restartCount", 0)) + 1
            fatal = deaths >= (DEATHS_LOADING if code == EXIT_NOT_LOADED else DEATHS)
            return _Trouble(f"Pod '{name}' ended with exit code {code}: {tail}", fatal=fatal)
    return None


def read_rollout(
    deployment: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]], target: Revision | None, now: str
) -> Rollout:
    """Where the roll-out of `target` stands at the RFC 3339 time `now`.

    Only what the code does fails a revision: it ends again and again, or has run for long without getting ready. A Pod
    that isn't made, or finds no image or no node, doesn't: that can mend without the user, and until then what served
    before serves on. For this the Deployment's own deadline is of no use, since it goes on counting while a Pod waits.
    """
    if deployment is None or target is None:
        return Rollout("Absent", "nothing runs yet")
    status, spec = deployment.get("status") or {}, deployment.get("spec") or {}
    available = int(status.get("availableReplicas", 0))
    replicas = int(status.get("replicas", 0))
    wanted = int(spec.get("replicas", 1))
    seen = int(status.get("observedGeneration", 0)) >= int(deployment["metadata"].get("generation", 0))
    held = (deployment["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION)
    if not seen or held != target.name:
        return Rollout("Progressing", f"revision '{target.name}' is being rolled out", available, replicas)
    updated = int(status.get("updatedReplicas", 0))
    if updated == wanted == replicas and available >= wanted:
        if ending := _of_others(pods, target):
            # They are sent calls until every node has heard of their end, and would answer with the old code.
            message = f"revision '{target.name}' serves; Pods of the one before are ending: {', '.join(ending)}"
            return Rollout("Progressing", message, available, replicas)
        if wanted == 0:
            return Rollout("Complete", f"revision '{target.name}', scaled to 0 replicas", 0, 0)
        return Rollout(
            "Complete", f"revision '{target.name}' serves with {counted(available, 'replica')}", available, replicas
        )
    mine = [
        p
        for p in pods
        if (p["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION) == target.name
        and not p["metadata"].get("deletionTimestamp")
    ]
    troubles = [t for t in map(_trouble, mine) if t is not None]
    fatal = next((t for t in troubles if t.fatal), None)
    if fatal is not None:
        return Rollout("Failed", fatal.message, available, replicas)
    outside = next((t for t in troubles if t.outside), None)
    if outside is not None:
        return Rollout("Progressing", outside.message, available, replicas, image_lost=outside.image_lost)
    if (overdue := _overdue(mine, now)) is not None:
        message = f"revision '{target.name}' ran for {READY_SECONDS} s without getting ready"
        return Rollout("Failed", f"{message}: Pod '{overdue}'", available, replicas)
    told = troubles[0].message if troubles else _not_made(status) or _not_ready(mine)
    message = f"revision '{target.name}': {updated} of {wanted} replicas updated, {available} available"
    return Rollout("Progressing", f"{message}; {told}" if told else message, available, replicas)


def _overdue(pods: Sequence[Mapping[str, Any]], now: str) -> str | None:
    """A Pod whose container has run for too long without being ready."""
    moment = datetime.fromisoformat(now)
    for pod in pods:
        for container in (pod.get("status") or {}).get("containerStatuses") or []:
            started = ((container.get("state") or {}).get("running") or {}).get("startedAt")
            if container.get("name") != CONTAINER or container.get("ready") or not started:
                continue
            if (moment - datetime.fromisoformat(started)).total_seconds() >= READY_SECONDS:
                return str(pod["metadata"]["name"])
    return None


def _not_made(status: Mapping[str, Any]) -> str:
    """Why Pods can't be made: a quota, a limit range, the namespace's Pod Security level."""
    for condition in status.get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            return f"Pods can't be made: {condition.get('message', '')}"
    return ""


def _of_others(pods: Sequence[Mapping[str, Any]], target: Revision) -> list[str]:
    """Pods of other revisions that still answer."""
    return sorted(
        p["metadata"]["name"]
        for p in pods
        if (p["metadata"].get("annotations") or {}).get(REVISION_ANNOTATION) != target.name
        and any(x.get("type") == "Ready" and x.get("status") == "True" for x in _conditions(p))
    )


def _conditions(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list((pod.get("status") or {}).get("conditions") or [])


def _not_ready(pods: Sequence[Mapping[str, Any]]) -> str:
    waiting = [
        p["metadata"]["name"]
        for p in pods
        if any(x.get("type") == "Ready" and x.get("status") != "True" for x in _conditions(p))
    ]
    return f"not ready: {', '.join(sorted(waiting)[:5])}" if waiting else ""
