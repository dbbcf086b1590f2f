"""What a store that speaks S3 says, in the words of the taxonomy: of obstore's texts and of botocore's answers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError
from obstore.exceptions import BaseError

from cloudmesh.data.errors import Changed, Exists, Full, Missing
from cloudmesh.engine.connections import refusal
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    InvalidRequest,
    NameConflict,
    RateLimited,
    Transient,
    Unsupported,
)

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html, and what other stores have besides
AUTH: Final = frozenset(
    {
        "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "ExpiredTokenException",
        "IDPRejectedClaim", "InvalidIdentityToken", "InvalidAccessKeyId", "InvalidSecurity",
        "InvalidToken", "NotSignedUp", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "Forbidden",
    }
)  # fmt: skip
SLOW: Final = frozenset(
    {"SlowDown", "SlowDownRead", "SlowDownWrite", "TooManyRequests", "Throttling", "RequestLimitExceeded"}
)
FULL: Final = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "StorageFull", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded"}
)
AGAIN: Final = frozenset(
    {
        "BadDigest",
        "IncompleteBody",
        "InternalError",
        "RequestTimeout",
        "ServiceUnavailable",
        "XAmzContentSHA256Mismatch",
    }
)
IN_THE_WAY: Final = frozenset(
    {"ObjectParentIsFile", "ExistingObjectIsDirectory", "XMinioParentIsObject", "FileParentIsFile"}
)
"""Of stores on file systems, where a name can't be a file and a folder."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9.]+)</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{0,300})")
_SOURCE = re.compile(r"\n\s*Debug source:.*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Said:
    """One answer.

    Args:
        status: HTTP status, 0 where no answer came.
        code: S3's code, empty if the answer had none.
        message: In words.
        retry_after: Seconds to wait, None where none were named.
    """

    status: int
    code: str = ""
    message: str = ""
    retry_after: float | None = None


def heard(error: Exception) -> Said:
    """What an error of either library tells; the text has no key and no signature."""
    match error:
        case ClientError():
            found = error.response.get("Error", {})
            meta = error.response.get("ResponseMetadata", {})
            status = int(meta.get("HTTPStatusCode", 0))
            code = str(found.get("Code", ""))
            wait = str(meta.get("HTTPHeaders", {}).get("retry-after", ""))
            seconds = float(wait) if wait.replace(".", "", 1).isdigit() else None
            return Said(status, "" if code.isdigit() else code, str(found.get("Message", ""))[:300], seconds)
        case BaseError() | FileNotFoundError():
            text = str(error)
            status_found, code_found, message = _STATUS.search(text), _CODE.search(text), _MESSAGE.search(text)
            if "redirect without LOCATION" in text:
                return Said(301, "", "the answer sends elsewhere and doesn't say where")
            if status_found is None:
                return Said(0, "", " ".join(_SOURCE.sub("", text).split())[:300])
            words = message[1] if message else f"status {status_found[1]}"
            return Said(int(status_found[1]), code_found[1] if code_found else "", words)
        case ParamValidationError() | ValueError():
            return Said(400, "InvalidArgument", str(error)[:300])
        case ResponseParserError():
            return Said(0, "", "the answer can't be read")
        case RecursionError():  # botocore asks a bucket that sends elsewhere where it is, which sends elsewhere
            return Said(301, "", "the answer sends elsewhere and doesn't say where")
        case BotoCoreError():
            return Said(0, "", str(error)[:300])
        case _:
            return Said(0, "", type(error).__name__)


def classify(error: Exception, what: str, *, if_absent: bool = False) -> CloudmeshError:
    """The error of the taxonomy.

    Args:
        error: What a library raised.
        what: What was being done, with the key.
        if_absent: Whether an object was to be made where there was none.
    """
    if refused := refusal(error):
        return InvalidRequest(f"{what}: {refused}")
    said = heard(error)
    text = f"{what}: {said.code + ': ' if said.code else ''}{said.message}"
    if said.code in SLOW or said.status == 429:
        return RateLimited(text, said.retry_after)
    if said.code in AGAIN:
        return Transient(text)
    if said.code in FULL or said.status == 507:
        return Full(text)
    if said.code in IN_THE_WAY:
        return NameConflict(text)
    if said.code in ("PreconditionFailed", "ConditionalRequestConflict") or said.status == 412:
        return (Exists if if_absent else Changed)(text)
    if said.code in ("NoSuchKey", "NoSuchVersion"):
        return Missing(text)
    if said.code == "NoSuchBucket":
        return InvalidRequest(f"{text}: make the bucket, or name another one")
    if said.code in AUTH or said.status in (401, 403):
        return AuthFailed(text)
    if said.code == "NotImplemented" or said.status == 501:
        return Unsupported(text)
    if said.code and said.status in (400, 405, 411, 413, 416):
        return InvalidRequest(text)
    if said.status in (301, 307, 308):
        return InvalidRequest(f"{text}: is the region of the bucket another one?")
    # with the 500s, whatever isn't worded as S3 does: something in between has answered
    return Transient(text)
