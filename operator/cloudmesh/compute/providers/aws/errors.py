"""What EC2 says, in the words of the taxonomy: for errors raised and for instances that failed later."""

from __future__ import annotations

from typing import Final

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)
from botocore.parsers import ResponseParserError

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

# Codes from https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
AUTH: Final = frozenset(
    {
        "AuthFailure", "UnauthorizedOperation", "InvalidClientTokenId", "ExpiredToken", "ExpiredTokenException",
        "RequestExpired", "OptInRequired", "SignatureDoesNotMatch", "MissingAuthenticationToken", "AccessDenied",
        "AccessDeniedException", "UnrecognizedClientException", "InvalidAccessKeyId", "PendingVerification", "Blocked",
        "InvalidIdentityToken", "IDPRejectedClaim",
    }
)  # fmt: skip
DENIED: Final = frozenset({"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"})
"""Those of AUTH that say that the credentials are good, and may not do this."""
QUOTA: Final = frozenset(
    {
        "InstanceLimitExceeded", "VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "AddressLimitExceeded",
        "VolumeLimitExceeded", "MaxIOPSLimitExceeded", "SecurityGroupLimitExceeded",
        "RulesPerSecurityGroupLimitExceeded", "SecurityGroupsPerInstanceLimitExceeded", "InstanceTypeLimitExceeded",
        "AttachmentLimitExceeded",
    }
)  # fmt: skip
CAPACITY: Final = frozenset(
    {
        "InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity",
        "InsufficientCapacity", "InsufficientAddressCapacity", "InsufficientVolumeCapacity", "SpotMaxPriceTooLow",
        "Unsupported", "InsufficientFreeAddressesInSubnet", "UnfulfillableCapacity", "InsufficientCapacityOnHost",
        "SpotInstanceTermination", "SpotInstanceShutdown",
    }
)  # fmt: skip
RATE: Final = frozenset(
    {
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "SlowDown",
        "EC2ThrottledException",
        "TooManyRequests",
    }
)
CONFLICT: Final = frozenset(
    {
        "IdempotentParameterMismatch", "IncorrectInstanceState", "IncorrectState", "DependencyViolation",
        "VolumeInUse", "Resource.AlreadyAssociated", "InvalidIPAddress.InUse", "InvalidInstanceID.NotLinkable",
    }
)  # fmt: skip
INVALID_WORDS: Final = (
    "Invalid", "Malformed", "Missing", "Unknown", "Validation", "UnsupportedOperation", "UnsupportedInstance",
    "NonEBSInstance", "OperationNotPermitted", "MissingParameter",
)  # fmt: skip


class Denied(AuthFailed):
    """The credentials are good, and this call isn't allowed."""


class DryRunPassed(InvalidRequest):
    """The call would have gone through, and was only tried."""


def classify(error: Exception, what: str) -> CloudmeshError:
    """The error of the taxonomy; its text has the cloud's words and no secret.

    Args:
        error: What boto3 raised.
        what: What was being done, such as `RunInstances m5.large in us-east-1a`.
    """
    match error:
        case ClientError():
            return _of_answer(error, what)
        case NoCredentialsError() | PartialCredentialsError():
            return AuthFailed(f"{what}: the account's Secret holds no usable credentials")
        case ParamValidationError():
            return InvalidRequest(f"{what}: {error}")
        case ResponseParserError():
            return Transient(f"{what}: the answer can't be read")
        case BotoCoreError():
            return Transient(f"{what}: {type(error).__name__}")
        case _:
            return Transient(f"{what}: {type(error).__name__}")


def _of_answer(error: ClientError, what: str) -> CloudmeshError:
    told = error.response.get("Error", {})
    code, message = str(told.get("Code", "")), str(told.get("Message", ""))
    meta = error.response.get("ResponseMetadata", {})
    text = f"{what}: {code}: {message}"[:1000]
    status = int(meta.get("HTTPStatusCode") or 0)
    if code in RATE or status == 429:
        return RateLimited(text, _seconds(meta.get("HTTPHeaders", {}).get("retry-after", "")))
    return of_code(code, text, status)


def of_code(code: str, text: str, status: int = 0) -> CloudmeshError:
    """The error of a code, raised or found in an instance's state reason (`Server.…` and `Client.…`)."""
    code = code.removeprefix("Client.").removeprefix("Server.")
    if code == "DryRunOperation":
        return DryRunPassed(text)
    if code == "IDPCommunicationError":  # AWS couldn't ask who signed the token
        return Transient(text)
    if code in DENIED:
        return Denied(text)
    if code in AUTH:
        return AuthFailed(text)
    if code in QUOTA:
        return QuotaExceeded(text)
    if code in CAPACITY:
        return CapacityUnavailable(text)
    if code.endswith((".Duplicate", "AlreadyExists")):
        return AlreadyExists(text)
    if code in CONFLICT or code.endswith(".InUse"):
        return Conflict(text)
    if code.startswith(("InvalidInstanceID", "InvalidVolume.", "InvalidAllocationID", "InvalidAssociationID")):
        return NotFound(text) if code.endswith("NotFound") else InvalidRequest(text)
    if code.startswith(INVALID_WORDS) or (400 <= status < 500 and code not in ("RequestTimeout", "408")):
        return InvalidRequest(text)
    return Transient(text)


def _seconds(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
