"""The builder's HTTP face: HTTPS, a bearer token, JSON."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import ssl
from collections.abc import Coroutine
from typing import Any, TypeVar

from aiohttp import web

from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, RateLimited, Transient
from cloudmesh.functions.builder.builds import error_json
from cloudmesh.functions.builder.requests import Body, BuildRequest, LockRequest, ParseRequest
from cloudmesh.functions.builder.service import Service
from cloudmesh.functions.builder.settings import Settings
from cloudmesh.functions.image.guard import AddressRefused
from cloudmesh.functions.lock import DependenciesUnsatisfiable, IndexUnavailable
from cloudmesh.functions.signatures import SourceError

_log = logging.getLogger(__name__)
_LARGEST_BODY = 8 << 20
_LOCKS_AT_ONCE = 4
_LOOK_SECONDS = 0.5
_T = TypeVar("_T")
_SERVICE: web.AppKey[Service] = web.AppKey("service", Service)
_LOCKS: web.AppKey[asyncio.Semaphore] = web.AppKey("locks", asyncio.Semaphore)


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException:
        raise
    except (SourceError, DependenciesUnsatisfiable, AddressRefused) as error:
        return _error(422, error)
    except IndexUnavailable as error:
        return _error(503, error)
    except InvalidRequest as error:
        return web.json_response({"error": {**error_json(error), "class": "InvalidRequest"}}, status=400)
    except (Transient, RateLimited) as error:
        return _error(503, error)
    except CloudmeshError as error:
        return _error(502, error)
    except Exception as error:  # noqa: BLE001  # becomes a 500 with a message
        _log.exception("%s %s", request.method, request.path)
        return _error(500, error)
    return answer


@web.middleware
async def _token(request: web.Request, handler: Any) -> web.StreamResponse:
    if request.path.startswith("/v1/"):
        scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
        token = request.app[_SERVICE].settings.token()
        if scheme.lower() != "bearer" or not token or not hmac.compare_digest(shown.encode(), token.encode()):
            return web.json_response(
                {"error": {"class": "Unauthorized", "line": 0, "column": 0, "message": "a bearer token is needed"}},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
    answer: web.StreamResponse = await handler(request)
    return answer


def _error(status: int, error: BaseException) -> web.Response:
    headers = {"Retry-After": "1"} if status == 503 else None
    return web.json_response({"error": error_json(error)}, status=status, headers=headers)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        value = json.loads(await request.read())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest("the body: must be an object")
    return value


async def _while_wanted(request: web.Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Drops work whose caller has gone, so that it doesn't hold up those who still wait."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            if request.transport is None:
                raise Transient("the caller has gone")
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
        return task.result()
    finally:
        task.cancel()


async def _parse(request: web.Request) -> web.Response:
    body = Body(await _body(request))
    work = request.app[_SERVICE].parse(ParseRequest.from_body(body))
    return web.json_response(await _while_wanted(request, work))


async def _lock(request: web.Request) -> web.Response:
    body = Body(await _body(request))
    async with request.app[_LOCKS]:
        return web.json_response(await request.app[_SERVICE].lock(LockRequest.from_body(body)))


async def _start(request: web.Request) -> web.Response:
    raw = await _body(request)
    build = request.app[_SERVICE].start(BuildRequest.from_body(Body(raw), raw))
    return web.json_response({"id": build.id}, status=202)


async def _build(request: web.Request) -> web.Response:
    build = request.app[_SERVICE].builds.get(request.match_info["id"])
    if build is None:
        return web.json_response(
            {"error": {"class": "NotFound", "line": 0, "column": 0, "message": "unknown build; send it again"}},
            status=404,
        )
    return web.json_response(build.to_json())


async def _info(request: web.Request) -> web.Response:
    return web.json_response(request.app[_SERVICE].info())


async def _healthz(_: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _readyz(request: web.Request) -> web.Response:
    service = request.app[_SERVICE]
    if service.ready:
        return web.Response(text="ok\n")
    return web.Response(text=f"{service.registry_error}\n", status=503)


def application(service: Service) -> web.Application:
    """The builder as an aiohttp application."""
    app = web.Application(middlewares=[_errors, _token], client_max_size=_LARGEST_BODY)
    app[_SERVICE] = service
    app[_LOCKS] = asyncio.Semaphore(_LOCKS_AT_ONCE)
    app.router.add_get("/healthz", _healthz)
    app.router.add_get("/readyz", _readyz)
    app.router.add_get("/v1/info", _info)
    app.router.add_post("/v1/parse", _parse)
    app.router.add_post("/v1/lock", _lock)
    app.router.add_post("/v1/builds", _start)
    app.router.add_get("/v1/builds/{id:[0-9a-f]{64}}", _build)
    return app


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS with the certificate that the operator made.

    Raises:
        InvalidRequest: certificate and key don't fit.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls / "tls.crt", settings.tls / "tls.key")
    except (OSError, ssl.SSLError) as error:
        raise InvalidRequest(f"{settings.tls}: tls.crt and tls.key can't be used ({error})") from error
    return context
