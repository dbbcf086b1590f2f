"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from aiohttp import web

from cloudmesh.data.errors import Changed, Exists, Full, InvalidName, Missing, ReadOnly, Suspicious
from cloudmesh.data.gateway import streams
from cloudmesh.data.gateway.streams import Silent
from cloudmesh.data.gateway.throttle import Throttled
from cloudmesh.data.gateway.webdav_locks import Locked
from cloudmesh.data.upload import SourceFailed
from cloudmesh.engine.errors import (
    AuthFailed,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    RateLimited,
    Transient,
    Unsupported,
)

log = logging.getLogger(__name__)

STATUS: tuple[tuple[type[CloudmeshError], int], ...] = (
    (InvalidName, 422),
    (Missing, 404),
    (Exists, 409),
    (Changed, 412),
    (Locked, 423),
    (Conflict, 409),
    (Full, 507),
    (ReadOnly, 503),
    (Suspicious, 503),
    (RateLimited, 503),
    (Transient, 503),
    (Silent, 408),
    (InvalidRequest, 400),
    (Unsupported, 501),
    (AuthFailed, 502),
)


def problem(status: int, reason: str, detail: str, **more: Any) -> web.Response:
    """A problem document."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "reason": reason}
    body |= {"detail": detail} | more
    text = json.dumps(body) + "\n"
    response = web.Response(status=status, body=text.encode(), content_type="application/problem+json")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = "5"
    return response


def of(error: CloudmeshError) -> web.Response:
    """The answer to a request that failed so."""
    status = next((number for kind, number in STATUS if isinstance(error, kind)), 500)
    answer = problem(status, error.reason, str(error))
    if status == HTTPStatus.REQUEST_TIMEOUT:
        answer.force_close()
    return answer


def later(error: Throttled) -> web.Response:
    """The answer to somebody whose password isn't looked at yet."""
    answer = problem(429, error.reason, str(error))
    answer.headers["Retry-After"] = str(math.ceil(error.seconds))
    return answer


def broken_off(error: SourceFailed) -> web.Response:
    """The answer to a client that stopped sending."""
    if isinstance(error.__cause__, Silent | Locked):
        return of(error.__cause__)
    return problem(400, "SourceFailed", f"the content broke off: {error}; what was there is still there")


@web.middleware
async def told(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Makes a problem document of what the library refuses, and of what went wrong in ways that nobody thought of."""
    answer = await _answered(request, handler)
    streams.refused_first(request, answer)
    return answer


async def _answered(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = problem(error.status, error.reason.title().replace(" ", ""), error.reason)
        kept = ("Allow", "Content-Range")
        answer.headers.update({name: error.headers[name] for name in kept if name in error.headers})
        return answer
    except ConnectionError:
        raise
    except Exception:
        if request.writer.output_size:
            raise
        log.exception("%s %s failed unexpectedly", request.method, request.rel_url.raw_path)
        return problem(500, "Unexpected", "something went wrong in the gateway; its log says what")
