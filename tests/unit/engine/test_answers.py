"""From HTTP answers to the taxonomy."""

from __future__ import annotations

import pytest

from cloudmesh.engine import errors
from cloudmesh.engine.kube.answers import decode, error_of, is_missing_object, retry_after, status_of


def status(reason: str, message: str = "", **details: object) -> dict[str, object]:
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


@pytest.mark.parametrize(
    ("code", "body", "kind"),
    [
        (400, status("BadRequest"), errors.InvalidRequest),
        (401, status("Unauthorized"), errors.AuthFailed),
        (403, status("Forbidden", "pods is forbidden"), errors.AuthFailed),
        (403, status("Forbidden", "exceeded quota: small, requested: pods=1"), errors.QuotaExceeded),
        (403, status("Forbidden", "unable to create, because it is being terminated"), errors.Conflict),
        (404, status("NotFound", name="a"), errors.NotFound),
        (404, {}, errors.Transient),
        (404, status("NotFound"), errors.Transient),
        (405, status("MethodNotAllowed"), errors.Unsupported),
        (409, status("AlreadyExists", name="a"), errors.AlreadyExists),
        (409, status("Conflict", name="a"), errors.Conflict),
        (410, status("Expired"), errors.Expired),
        (413, {}, errors.InvalidRequest),
        (415, status("UnsupportedMediaType"), errors.InvalidRequest),
        (422, status("Invalid"), errors.InvalidRequest),
        (422, status("Invalid", causes=[{"field": "metadata.uid"}]), errors.Conflict),
        (429, status("TooManyRequests"), errors.RateLimited),
        (500, status("InternalError"), errors.Transient),
        (500, status("ServerTimeout", retryAfterSeconds=2), errors.RateLimited),
        (502, {}, errors.Transient),
        (503, {}, errors.Transient),
        (504, status("Timeout"), errors.Transient),
        (599, {}, errors.Transient),
    ],
)
def test_error_of(code: int, body: dict[str, object], kind: type[errors.CloudmeshError]) -> None:
    error = error_of(code, body, {}, "get /x")
    assert type(error) is kind
    assert str(error).startswith(f"get /x: {code}")
    assert error.reason


def test_retry_after_reads_header_then_details() -> None:
    assert retry_after({"details": {"retryAfterSeconds": 7}}, {}) == 7
    assert retry_after({"details": {"retryAfterSeconds": 7}}, {"Retry-After": "3"}) == 3
    assert retry_after({}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) is None
    assert retry_after({}, {}) is None
    error = error_of(429, {}, {"Retry-After": "1.5"}, "get /x")
    assert isinstance(error, errors.RateLimited)
    assert error.retry_after == 1.5


def test_only_the_object_s_own_404_means_missing() -> None:
    assert is_missing_object(404, status("NotFound", name="a"), "a")
    assert not is_missing_object(404, status("NotFound", name="default"), "a"), "a missing namespace"
    assert not is_missing_object(404, status("NotFound"), "a"), "an unserved kind"
    assert not is_missing_object(404, {}, "a"), "a proxy's page"
    assert not is_missing_object(500, status("NotFound", name="a"), "a")


def test_what_is_no_json_is_transient() -> None:
    assert status_of(b"<html>") == {}
    assert status_of(b'{"kind": "Pod"}') == {}
    with pytest.raises(errors.Transient, match="isn't JSON"):
        decode(b"<html>")


def test_long_messages_are_cut() -> None:
    assert len(str(error_of(422, status("Invalid", "x" * 10_000), {}, "create /x"))) <= 2000
