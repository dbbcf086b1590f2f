"""What a Pod tells about the machine that it is. Pure."""

from __future__ import annotations

import datetime
import json
import re
from fractions import Fraction
from typing import Any

from cloudmesh.api.quantity import parse_quantity
from cloudmesh.compute.ports import Node, NodeState
from cloudmesh.compute.providers.kubernetes.pods import ANNOTATION_MADE, CONTAINER, DISK, LABEL_TYPE, PORT, join_tags
from cloudmesh.compute.tokens import TAG_TOKEN
from cloudmesh.engine.errors import CapacityUnavailable, CloudmeshError, InvalidRequest
from cloudmesh.engine.resources import Obj

HOPELESS = ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "CreateContainerConfigError")
"""Why a container waits that no waiting helps. ErrImagePull is the first try, which a slow registry fails too."""

_ID = re.compile(r"([a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?)/([A-Za-z0-9-]{1,64})")


def node_id(pod: Obj) -> str:
    """A machine's id: the Pod's name, by which it is read, and its uid, which tells it from a later one of the name."""
    meta = pod["metadata"]
    return f"{meta['name']}/{meta['uid']}"


def split_id(text: str) -> tuple[str, str]:
    """Name and uid of an id.

    Raises:
        InvalidRequest: It is no id of a Pod.
    """
    if (match := _ID.fullmatch(text)) is None:
        raise InvalidRequest(f"{text!r} is no id of a Pod: NAME/UID")
    return match[1], match[2]


def to_node(pod: Obj, now: str, unschedulable_seconds: int) -> Node:
    """A Pod in the words of the port.

    Args:
        pod: As the API server tells it.
        now: RFC 3339 time.
        unschedulable_seconds: How long the scheduler may look for a node before that is a failure.
    """
    meta, status = pod["metadata"], pod.get("status") or {}
    tags = join_tags(meta)
    container: Obj = next((c for c in status.get("containerStatuses") or () if c.get("name") == CONTAINER), {})
    failure = _failure(pod, container, now, unschedulable_seconds)
    state = _state(pod, container, failure)
    address = str(status.get("podIP") or "") if state in ("Pending", "Running", "Deleting") else ""
    type_, image = _made(pod)
    runs = "running" in (container.get("state") or {})
    return Node(
        id=node_id(pod),
        token=tags.get(TAG_TOKEN, ""),
        state=state,
        tags=tags,
        type=type_,
        image=image,
        private_address=address,
        host=address,
        port=PORT,
        created_at=str(meta.get("creationTimestamp") or ""),
        paid_since=_paid_since(pod),
        boot_id=str(container.get("containerID") or "") if runs else "",
        failure=failure,
        details=_details(pod, container),
    )


def _state(pod: Obj, container: Obj, failure: CloudmeshError | None) -> NodeState:
    phase = (pod.get("status") or {}).get("phase")
    if phase in ("Succeeded", "Failed"):
        return "Deleted"  # it never runs again; what is left is its object
    if pod["metadata"].get("deletionTimestamp"):
        return "Deleting"
    if failure is not None:
        return "Failed"
    if phase == "Running" and ("running" in (container.get("state") or {}) or container.get("restartCount")):
        return "Running"
    return "Pending"


def _paid_since(pod: Obj) -> str | None:
    """From when it holds a part of a node; a Pod that waits for one costs nothing."""
    if not (pod.get("spec") or {}).get("nodeName") and not (pod.get("status") or {}).get("startTime"):
        return None
    scheduled = _condition(pod.get("status") or {}, "PodScheduled")
    return str(scheduled.get("lastTransitionTime") or "") if scheduled.get("status") == "True" else ""


def _failure(pod: Obj, container: Obj, now: str, unschedulable_seconds: int) -> CloudmeshError | None:
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        # The node ran short of something, or went away, or didn't take the Pod: another machine may do better.
        words = ": ".join(filter(None, (status.get("reason"), status.get("message")))) or "the Pod failed"
        return CapacityUnavailable(words)
    waiting = (container.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") in HOPELESS:
        return InvalidRequest(f"{waiting['reason']}: {waiting.get('message') or container.get('image', '')}")
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
        since = str(scheduled.get("lastTransitionTime") or pod["metadata"].get("creationTimestamp") or "")
        if _seconds_between(since, now) >= unschedulable_seconds:
            words = str(scheduled.get("message") or "no node takes the Pod")
            if f"Insufficient {DISK}" in words and DISK in _limits(pod):
                return InvalidRequest(f"no node has room for a disk of {_limits(pod)[DISK]}: {words}")
            return CapacityUnavailable(words)
    return None


def _made(pod: Obj) -> tuple[str, str]:
    """Type and image as they are: other ones than those asked for when somebody changed the Pod."""
    meta = pod["metadata"]
    type_ = str((meta.get("labels") or {}).get(LABEL_TYPE, ""))
    container: Obj = next((c for c in (pod.get("spec") or {}).get("containers") or () if c["name"] == CONTAINER), {})
    image = str(container.get("image", ""))
    try:
        made: Any = json.loads((meta.get("annotations") or {}).get(ANNOTATION_MADE, "{}"))
    except ValueError:
        made = {}
    if not isinstance(made, dict) or not made:
        return type_, image
    limits = {name: value for name, value in _limits(pod).items() if name != DISK}
    if _amounts(limits) != _amounts({name: v for name, v in (made.get("limits") or {}).items() if name != DISK}):
        type_ = "/".join(f"{name}={value}" for name, value in sorted(limits.items()))
    return type_, str(made.get("asked") or image) if image == made.get("image") else image


def _limits(pod: Obj) -> dict[str, str]:
    containers = (pod.get("spec") or {}).get("containers") or ()
    container: Obj = next((c for c in containers if c["name"] == CONTAINER), {})
    return (container.get("resources") or {}).get("limits") or {}


def _amounts(limits: dict[str, str]) -> dict[str, Fraction]:
    """Comparable: the API server writes `1024Mi` as `1Gi`."""
    return {name: parse_quantity(value) for name, value in limits.items()}


LOGIN = "sh -c '/usr/sbin/sshd -i -e -o LogLevel=QUIET -f /opt/cloudmesh/machine/sshd_config || true'"
"""One login on standard input and output, for people who reach the API server but no Pod. `-e` or it ends at once; it
ends with 255 whenever somebody logs out, which kubectl would tell as an error."""


def _details(pod: Obj, container: Obj) -> dict[str, str]:
    status = pod.get("status") or {}
    meta = pod["metadata"]
    place = f"-n {meta.get('namespace', 'default')} {meta.get('name', '')}"
    details = {"proxyCommand": f"kubectl exec -i {place} -- {LOGIN}"}
    if size := _limits(pod).get(DISK):
        details["diskGiB"] = str(parse_quantity(size) // 2**30)
    if host := (pod.get("spec") or {}).get("nodeName"):
        details["node"] = str(host)
    if _condition(status, "DisruptionTarget").get("status") == "True":
        details["preempted"] = "true"
    waiting = (container.get("state") or {}).get("waiting") or {}
    if words := ": ".join(filter(None, (waiting.get("reason"), waiting.get("message")))):
        details["waiting"] = words
    ended = (container.get("lastState") or {}).get("terminated") or {}
    if ended:
        details["lastEnd"] = f"{ended.get('reason') or 'ended'}, exit code {ended.get('exitCode')}"
    return details


def _condition(status: Obj, type_: str) -> Obj:
    found: Obj = next((c for c in status.get("conditions") or () if c.get("type") == type_), {})
    return found


def _seconds_between(since: str, now: str) -> float:
    try:
        return (datetime.datetime.fromisoformat(now) - datetime.datetime.fromisoformat(since)).total_seconds()
    except ValueError:
        return 0.0
