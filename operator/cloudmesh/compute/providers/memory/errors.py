"""The memory cloud's codes in the words of the taxonomy: for calls that failed and for machines that failed later."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.providers.memory.instance import CloudError
from cloudmesh.engine.errors import (
    AlreadyExists,
    AuthFailed,
    CapacityUnavailable,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Transient,
)

CODES: Mapping[str, type[CloudmeshError]] = {
    "InvalidKey": AuthFailed,
    "NotPermitted": AuthFailed,
    "QuotaExceeded": QuotaExceeded,
    "InsufficientCapacity": CapacityUnavailable,
    "NotOffered": CapacityUnavailable,
    "InvalidParameter": InvalidRequest,
    "InstanceNotFound": NotFound,
    "TokenMismatch": Conflict,
    "WrongState": Conflict,
    "InUse": Conflict,
    "NameTaken": AlreadyExists,
}


def classify(code: str, message: str, retry_after: float | None = None) -> CloudmeshError:
    """The error for a code; one that nobody knows is an unknown outcome."""
    if code == "TooManyRequests":
        return RateLimited(message, retry_after)
    return CODES.get(code, Transient)(f"{code}: {message}")


def classify_error(error: CloudError) -> CloudmeshError:
    """The error for a call that failed."""
    return classify(error.code, str(error), error.retry_after)
