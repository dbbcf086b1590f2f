"""What Google Cloud Storage says, in the words of the taxonomy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cloudmesh.data.errors import Changed, Exists, Full, Missing, ReadOnly
from cloudmesh.data.stores.http import Answer
from cloudmesh.data.stores.ports import Object
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    InvalidRequest,
    RateLimited,
    Transient,
    Unsupported,
)

# https://cloud.google.com/storage/docs/json_api/v1/status-codes
SLOW: Final = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "quotaExceeded", "dailyLimitExceeded"})
KEPT: Final = frozenset({"retentionPolicyNotMet", "objectUnderActiveHold", "bucketLocked"})
FULL: Final = frozenset({"storageQuotaExceeded", "insufficientStorage"})


@dataclass(frozen=True, slots=True)
class Said:
    """The service's own words for what is wrong; `words` is False if something else has answered."""

    reason: str
    message: str
    words: bool


def heard(answer: Answer) -> Said:
    """Reads an error."""
    try:
        told = json.loads(answer.body)["error"]
        first = (told.get("errors") or [{}])[0]
        return Said(str(first.get("reason", "")), str(told.get("message", ""))[:300], words=True)
    except (ValueError, TypeError, LookupError, AttributeError):
        return Said("", "", words=False)


def classify(answer: Answer, what: str, *, if_absent: bool = False, content: bool = False) -> CloudmeshError:
    """The error of the taxonomy.

    Args:
        answer: What came instead of what was asked for.
        what: What was being done, with the key.
        if_absent: Whether an object was to be made where there was none.
        content: A content was asked for: such answers have no words but the status.
    """
    said, status = heard(answer), answer.status
    known = said.words or (content and status in (401, 403, 412))
    told = f"{said.reason}: {said.message}" if said.words and status not in (401, 403) else said.reason
    text = f"{what}: {told or 'no word of the service'}, status {status}"
    if status == 429 or said.reason in SLOW:
        return RateLimited(text, answer.retry_after)
    if said.reason in FULL or status == 507:
        return Full(text)
    if not known or status >= 500:
        return (Unsupported if status == 501 and known else Transient)(text)
    if said.reason in KEPT:
        return ReadOnly(f"{text}: a policy of the bucket or a hold keeps it as it is")
    if status in (401, 403):
        return AuthFailed(text)
    if status == 404:
        return Missing(text)
    if status == 412:
        return (Exists if if_absent else Changed)(text)
    return Transient(text) if status in (408, 409, 410, 499) else InvalidRequest(text)


def read_json(answer: Answer, what: str) -> Mapping[str, Any]:
    """An answer that went well.

    Raises:
        Transient: It isn't one of the service.
    """
    try:
        told = json.loads(answer.body)
    except ValueError:
        told = None
    if not isinstance(told, dict) or not str(told.get("kind", "")).startswith("storage#"):
        raise Transient(f"{what}: the answer can't be read")
    return told


def as_object(told: Mapping[str, Any], what: str, *, attributes: bool = True) -> Object:
    """An object as the service describes it; its tag is its generation.

    Raises:
        Transient: It isn't one.
    """
    try:
        texts = {str(name): str(text) for name, text in (told.get("metadata") or {}).items()} if attributes else {}
        moment = datetime.fromisoformat(str(told.get("updated", "1970-01-01T00:00:00Z")))
        return Object(
            str(told["name"]),
            int(told["size"]),
            str(int(told["generation"])),
            int(moment.timestamp() * 1_000_000),
            texts,
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        raise Transient(f"{what}: the answer is no object") from None
