"""The one taxonomy of errors that crosses a port: clouds, stores, the builder, the Kubernetes API."""

from __future__ import annotations

from typing import ClassVar


class CloudmeshError(Exception):
    """Base of the taxonomy; `reason` is the CamelCase word that conditions, events and metrics carry."""

    reason: ClassVar[str] = "Error"


class AuthFailed(CloudmeshError):
    """The credentials are missing, wrong or lack a permission."""

    reason = "AuthFailed"


class QuotaExceeded(CloudmeshError):
    """A limit of the account or namespace is reached."""

    reason = "QuotaExceeded"


class CapacityUnavailable(CloudmeshError):
    """The other side has no room at the moment."""

    reason = "CapacityUnavailable"


class RateLimited(CloudmeshError):
    """The other side asked for fewer calls.

    Args:
        message: What was refused.
        retry_after: Seconds to wait, None where the other side named none.
    """

    reason = "RateLimited"

    def __init__(self, message: str = "", retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidRequest(CloudmeshError):
    """The request can't succeed until somebody changes it."""

    reason = "InvalidRequest"


class Conflict(CloudmeshError):
    """Somebody else changed or holds the thing; read again and decide anew."""

    reason = "Conflict"


class AlreadyExists(Conflict):
    """A thing of that name is there already."""

    reason = "AlreadyExists"


class NameConflict(Conflict):
    """Something that is somebody else's has the name: it must go, or another name be given."""

    reason = "NameConflict"


class NotFound(Conflict):
    """A write went to an object that is gone."""

    reason = "NotFound"


class Transient(CloudmeshError):
    """A time-out, a lost connection, an answer of the 500s: the outcome is unknown, try again."""

    reason = "Transient"


class Expired(Transient):
    """A resourceVersion or continue token is too old: list again."""

    reason = "Expired"


class Unsupported(CloudmeshError):
    """The other side can't do this at all."""

    reason = "Unsupported"
