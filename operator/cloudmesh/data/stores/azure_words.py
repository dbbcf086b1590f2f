"""What Azure Blob says, in the words of the taxonomy; listings; and attributes as it keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import unquote
from xml.etree import ElementTree

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

# https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes and common-rest-api-error-codes
AUTH: Final = frozenset(
    {
        "AccountIsDisabled", "AuthenticationFailed", "AuthorizationFailure", "AuthorizationPermissionMismatch",
        "AuthorizationProtocolMismatch", "AuthorizationResourceTypeMismatch", "AuthorizationServiceMismatch",
        "AuthorizationSourceIPMismatch", "InsufficientAccountPermissions", "InvalidAuthenticationInfo",
        "KeyBasedAuthenticationNotPermitted", "NoAuthenticationInformation", "PublicAccessNotPermitted",
    }
)  # fmt: skip
PLACE: Final = frozenset({"ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled", "AccountNotFound"})
KEPT: Final = frozenset({"BlobImmutableDueToPolicy", "BlobImmutableDueToLegalHold"})
AGAIN: Final = frozenset({"InternalError", "OperationTimedOut", "Md5Mismatch", "BlobBeingRehydrated"})
META = "x-ms-meta-"
_ODD = "_0_"
_NOTHING = f"{META}_"
"""A name that stands for no attribute: where none at all are given, a copy gets those of its source."""


def code_of(answer: Answer) -> str:
    """The service's own word for what is wrong, empty if something else has answered."""
    return answer.headers.get("x-ms-error-code", "")


def classify(answer: Answer, what: str, *, if_absent: bool = False) -> CloudmeshError:
    """The error of the taxonomy.

    Args:
        answer: What came instead of what was asked for.
        what: What was being done, with the key.
        if_absent: Whether an object was to be made where there was none.
    """
    status, code = answer.status, code_of(answer)
    # the service's message would tell what was signed
    text = f"{what}: {code or 'no word of the service'}, status {status}"
    if code == "ServerBusy" or status == 429:
        return RateLimited(text, answer.retry_after)
    if not code and not (status in (401, 403) and "x-ms-request-id" in answer.headers):
        return Transient(text)
    if code in AGAIN or status >= 500:
        return (Full if status == 507 else Unsupported if status == 501 else Transient)(text)
    if code in PLACE:
        return InvalidRequest(f"{text}: make the container, or name another one")
    if code in ("BlobNotFound", "ResourceNotFound"):
        return Missing(text)
    if code in KEPT:
        return ReadOnly(f"{text}: a policy of the container keeps it as it is")
    if code.startswith("Lease"):
        return Transient(f"{text}: somebody else has a lease of it")
    if code in ("BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet", "SourceConditionNotMet"):
        return (Exists if if_absent else Changed)(text)
    if code in AUTH or status in (401, 403):
        return AuthFailed(text)
    if code == "SnapshotsPresent":
        return InvalidRequest(f"{text}: remove its snapshots first, which somebody has made")
    if code == "BlobArchived":
        return InvalidRequest(f"{text}: move it out of the archive tier first")
    return Transient(text) if status in (408, 409) else InvalidRequest(text)


def metadata_of(texts: Mapping[str, str]) -> dict[str, str]:
    """Attributes as headers: the service takes names that would be identifiers in C# only."""
    return {META + (_ODD if name[0] in "0123456789-" else "") + name.replace("-", "_"): texts[name] for name in texts}


def metadata_instead(texts: Mapping[str, str]) -> dict[str, str]:
    """The same where none at all would mean those that are there."""
    return metadata_of(texts) or {_NOTHING: "none"}


def attributes_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Attributes that an answer's headers have."""
    return {
        name[len(META) :].removeprefix(_ODD).replace("_", "-"): text
        for name, text in headers.items()
        if name.startswith(META) and name != _NOTHING
    }


def is_folder(headers: Mapping[str, str]) -> bool:
    """Whether the object only stands for a folder, as accounts with a hierarchical namespace have them."""
    told = (headers.get("x-ms-resource-type", ""), headers.get(f"{META}hdi_isfolder", ""))
    return told[0].lower() == "directory" or told[1].lower() == "true"


@dataclass(frozen=True, slots=True)
class Listing:
    """One page as the service gives it; `marker` is empty at the end."""

    objects: tuple[Object, ...]
    marker: str


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *_: Any) -> None:
        """Refuses: entities, and what they grow to, are declared there."""
        raise ValueError("a document type")


def listing(body: bytes, container: str, what: str) -> Listing:
    """Reads a page.

    Raises:
        Transient: It is none, or isn't whole.
    """
    try:
        parser = ElementTree.XMLParser(target=_Builder())  # noqa: S314 - see _Builder
        parser.feed(body)
        root: Any = parser.close()
        found = [made for each in root.iterfind("Blobs/Blob") if (made := _object(each)) is not None]
    except (ElementTree.ParseError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise Transient(f"{what}: the answer is no listing: {str(error)[:100]}") from None
    marker = root.find("NextMarker")
    if root.tag != "EnumerationResults" or root.get("ContainerName", container) != container or marker is None:
        raise Transient(f"{what}: the answer is no whole listing")
    return Listing(tuple(found), marker.text or "")


def _object(each: Any) -> Object | None:
    name, told = each.find("Name"), each.find("Properties")
    key = name.text or ""
    if name.get("Encoded") == "true":
        key = unquote(key)
    if told.findtext("ResourceType") == "directory":
        return None
    tag = told.findtext("Etag").strip('"')
    moment: datetime = parsedate_to_datetime(told.findtext("Last-Modified"))
    return Object(key, int(told.findtext("Content-Length")), f'"{tag}"', round(moment.timestamp()) * 1_000_000)
