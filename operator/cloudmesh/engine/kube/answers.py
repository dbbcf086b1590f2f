"""From an HTTP answer of the API server to the error taxonomy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloudmesh.engine.errors import (
    AlreadyExists,
    AuthFailed,
    CloudmeshError,
    Conflict,
    Expired,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Transient,
    Unsupported,
)

MAX_MESSAGE = 2000


def decode(body: bytes) -> Any:
    """JSON of an answer.

    Raises:
        Transient: The body isn't JSON (a proxy's page, a broken answer).
    """
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise Transient(f"the API server's answer isn't JSON: {body[:80]!r}") from error


def status_of(body: bytes) -> dict[str, Any]:
    """The `Status` object of an error answer, empty if it is something else."""
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) and found.get("kind") == "Status" else {}


def is_missing_object(code: int, status: Mapping[str, Any], name: str) -> bool:
    """Whether a 404 says that this object isn't there, and not that a proxy or an unserved kind answered."""
    details = status.get("details") or {}
    return code == 404 and status.get("reason") == "NotFound" and details.get("name") == name


def error_of(code: int, status: Mapping[str, Any], headers: Mapping[str, str], what: str) -> CloudmeshError:
    """The taxonomy's error for an answer.

    Args:
        code: HTTP status.
        status: The body's `Status` object, empty if there was none.
        headers: Answer headers, for Retry-After.
        what: Method and path, for the message.
    """
    reason = str(status.get("reason") or "")
    message = f"{what}: {code} {status.get('message') or reason or 'no reason given'}"[:MAX_MESSAGE]
    match code:
        case 401:
            return AuthFailed(message)
        case 403 if "exceeded quota" in message:
            return QuotaExceeded(message)
        case 403 if "because it is being terminated" in message:
            return Conflict(message)
        case 403:
            return AuthFailed(message)
        case 404 if reason == "NotFound" and (status.get("details") or {}).get("name"):
            return NotFound(message)
        case 404:
            # an unserved kind: its CRD may come at any moment
            return Transient(f"{message}; is the custom resource definition installed?")
        case 405 | 406 | 501:
            return Unsupported(message)
        case 409 if reason == "AlreadyExists":
            return AlreadyExists(message)
        case 409:
            return Conflict(message)
        case 410:
            return Expired(message)
        case 429:
            return RateLimited(message, retry_after(status, headers))
        case 422 if _is_another_object(status):
            return Conflict(message)
        case 400 | 411 | 413 | 414 | 415 | 422 | 431:
            return InvalidRequest(message)
        case 500 | 503 | 504 if (wait := retry_after(status, headers)) is not None:
            return RateLimited(message, wait)
        case _:
            return Transient(message)


def _is_another_object(status: Mapping[str, Any]) -> bool:
    """Whether a patch was refused because the object of that name has another uid: it was made anew."""
    causes = (status.get("details") or {}).get("causes") or ()
    return any(cause.get("field") == "metadata.uid" for cause in causes)


def retry_after(status: Mapping[str, Any], headers: Mapping[str, str]) -> float | None:
    """Seconds the server asked to wait, None if it named none."""
    for value in (headers.get("Retry-After"), (status.get("details") or {}).get("retryAfterSeconds")):
        try:
            if value is not None and float(value) > 0:
                return float(value)
        except (TypeError, ValueError):
            continue  # an HTTP date: the API server never sends one
    return None
