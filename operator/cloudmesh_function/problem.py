"""Problem details (RFC 9457)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import msgspec


class Problem(Exception):
    """A call that fails, with what to tell the caller.

    Args:
        status: HTTP status code.
        kind: last part of the problem's type.
        detail: what is wrong and what to do.
        errors: one entry for each wrong parameter.
        headers: more headers of the response.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: list[dict[str, str]] | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.errors = errors or []
        self.headers = list(headers)

    def body(self) -> bytes:
        """The JSON body."""
        found: dict[str, Any] = {
            "type": f"urn:cloudmesh:problem:{self.kind}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            found["errors"] = self.errors
        return msgspec.json.encode(found)


def invalid(errors: list[dict[str, str]]) -> Problem:
    """Wrong parameters: 422."""
    detail = "; ".join(
        f"{item['parameter']}: {item['detail']}" if item["parameter"] else item["detail"] for item in errors
    )
    return Problem(422, "invalid-parameters", detail[:2000], errors=errors)


def unknown(name: str, known: Iterable[str]) -> str:
    """The sentence about a parameter that doesn't exist."""
    names = list(known)
    close = difflib.get_close_matches(name[:100], names, 1)
    if close:
        return f"unknown parameter {name[:100]!r}: did you mean {close[0]!r}?"
    return (
        f"unknown parameter {name[:100]!r}: known are {', '.join(names)}"
        if names
        else f"unknown parameter {name[:100]!r}: there are none"
    )
