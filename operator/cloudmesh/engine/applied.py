"""Whether a child is as it was applied. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from cloudmesh.engine.resources import Obj

APPLIED_ANNOTATION = "cloudmesh.org/applied"


def stamped(obj: Obj) -> Obj:
    """`obj` with a hash of itself in an annotation, so that a field that is no longer wanted is seen too."""
    value = hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()[:16]
    metadata = obj["metadata"]
    return {
        **obj,
        "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), APPLIED_ANNOTATION: value}},
    }


def differs(desired: Obj, live: Mapping[str, Any]) -> bool:
    """Whether `live` must be written to become `desired`: another stamp, or a field of ours that someone changed."""
    stamp = desired["metadata"]["annotations"][APPLIED_ANNOTATION]
    if (live["metadata"].get("annotations") or {}).get(APPLIED_ANNOTATION) != stamp:
        return True
    return not _contains(live, desired)


def _contains(live: Any, desired: Any) -> bool:
    if isinstance(desired, Mapping):
        return isinstance(live, Mapping) and all(
            (k in live and _contains(live[k], v)) or (k not in live and v in ({}, [], ""))
            for k, v in desired.items()
            # Quantities come back in their canonical form (1000m as 1): these are compared by the stamp alone.
            if k != "resources"
        )
    if isinstance(desired, list):
        return (
            isinstance(live, list)
            and len(live) == len(desired)
            and all(_contains(a, b) for a, b in zip(live, desired, strict=True))
        )
    return bool(live == desired)
