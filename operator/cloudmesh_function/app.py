"""The ASGI application of a function."""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from cloudmesh_function import codec, ui, yaml
from cloudmesh_function.binding import Arguments, Binder
from cloudmesh_function.metrics import CONTENT_TYPE, Metrics
from cloudmesh_function.model import Operation, Scalar
from cloudmesh_function.pool import ExpiredError, ThreadPool
from cloudmesh_function.problem import Problem
from cloudmesh_function.settings import Settings

log = logging.getLogger("cloudmesh.function")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_JSON: Final = b"application/json"
_PROBLEM: Final = b"application/problem+json"
_TEXT: Final = b"text/plain; charset=utf-8"
_BYTES: Final = b"application/octet-stream"
_THREADS: Final = 64


@dataclass(slots=True)
class Response:
    """What goes back: status, media type, body and more headers."""

    status: int
    kind: bytes
    body: bytes
    headers: list[tuple[bytes, bytes]]


Handler = Callable[[Scope, Receive], Awaitable[Response]]


@dataclass(slots=True)
class Served:
    """An operation with its callable."""

    operation: Operation
    target: Callable[..., Any]
    binder: Binder
    is_async: bool


class State:
    """What the probes show, and what runs."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.not_ready: str | None = "starting"
        self.draining = False
        self.last_call = 0.0
        self.open_requests = 0
        self.idle = asyncio.Event()


class App:
    """Serves operations, their document and the probes.

    Args:
        served: the operations; empty when the module couldn't be loaded.
        document: OpenAPI document as canonical JSON.
        base_path: where operations and document are served.
        settings: limits.
        state: shared with the server.
        flask_app: a Flask application in whose context plain functions run.
    """

    def __init__(
        self,
        served: list[Served],
        *,
        document: bytes,
        base_path: str,
        settings: Settings,
        state: State,
        flask_app: Any = None,
    ) -> None:
        self.settings = settings
        self.state = state
        self.served = served
        self._flask = flask_app
        self._document = document
        self._base = base_path.rstrip("/")
        # a slot is free when its call ends, which a time-out can't make a thread do
        self._pool = ThreadPool(min(settings.concurrency, _THREADS), self._ended)
        self._routes: dict[str, dict[str, Handler]] = {}
        self._names: dict[str, str] = {}
        for item in served:
            path = self._base + item.operation.path
            methods: dict[str, Handler] = {"POST": functools.partial(self._post, item)}
            if item.binder.queryable:
                methods["GET"] = functools.partial(self._get, item)
            self._routes[path] = methods
            self._names[path] = item.operation.name
        for path, handler in (
            ("/healthz", self._healthz),
            ("/readyz", self._readyz),
            ("/metrics", self._metrics),
            (f"{self._base}/openapi.json", self._openapi_json),
            (f"{self._base}/openapi.yaml", self._openapi_yaml),
            (f"{self._base}/ui", self._ui),
        ):
            self._routes[path] = {"GET": handler}
        self._ui_prefix = f"{self._base}/ui/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One ASGI connection."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1000})
            return
        path: str = scope["path"]
        name = self._names.get(path)
        self.state.open_requests += 1
        begun = time.perf_counter()
        try:
            if name is not None:
                self.state.last_call = time.monotonic()
            try:
                response = await self._dispatch(path, scope, receive)
            except Problem as problem:
                response = Response(problem.status, _PROBLEM, problem.body(), problem.headers)
            if name is not None:
                self.state.metrics.observe(name, response.status, time.perf_counter() - begun)
            headers = [
                (b"content-type", response.kind),
                (b"content-length", b"%d" % len(response.body)),
                *response.headers,
            ]
            if self.state.draining:
                headers.append((b"connection", b"close"))
            await send({"type": "http.response.start", "status": response.status, "headers": headers})
            body = b"" if scope["method"] == "HEAD" else response.body
            await send({"type": "http.response.body", "body": body})
        finally:
            self.state.open_requests -= 1
            if self.state.draining and not self.state.open_requests:
                self.state.idle.set()

    async def _dispatch(self, path: str, scope: Scope, receive: Receive) -> Response:
        methods = self._routes.get(path)
        if methods is None:
            if path.startswith(self._ui_prefix):
                methods = {"GET": self._asset}
            elif self.state.not_ready and path.startswith(self._base + "/"):
                raise Problem(503, "not-ready", self.state.not_ready, headers=[(b"retry-after", b"1")])
            else:
                raise Problem(404, "not-found", f"nothing is served at {path[:200]}: see {self._base}/openapi.json")
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        handler = methods.get(method)
        if handler is None or (scope["method"] == "HEAD" and path in self._names):
            allowed = ", ".join(sorted(methods))
            headers = [(b"allow", allowed.encode())]
            raise Problem(
                405, "method-not-allowed", f"{scope['method']} isn't served here, only {allowed}", headers=headers
            )
        return await handler(scope, receive)

    async def _get(self, served: Served, scope: Scope, _: Receive) -> Response:
        arguments = served.binder.from_query(scope["query_string"])
        return await self._call(served, arguments, scope)

    async def _post(self, served: Served, scope: Scope, receive: Receive) -> Response:
        kind = _header(scope, b"content-type")
        if kind:
            media = kind.partition(b";")[0].strip().lower()
            if media != _JSON and not (media.startswith(b"application/") and media.endswith(b"+json")):
                headers = [(b"accept", _JSON)]
                raise Problem(415, "unsupported-media-type", "send the parameters as application/json", headers=headers)
        if scope["query_string"]:
            raise Problem(422, "invalid-parameters", "POST takes its parameters from the body, not from the query")
        try:
            async with asyncio.timeout(self.settings.timeout):
                body = await self._body(scope, receive)
        except TimeoutError as error:
            headers = [(b"connection", b"close")]
            raise Problem(408, "slow-body", "the body didn't arrive in time", headers=headers) from error
        return await self._call(served, served.binder.from_body(body), scope)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.settings.max_body
        length = _header(scope, b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "disconnected", "the caller went away")
        first: bytes = message.get("body", b"")
        if not message.get("more_body"):
            if len(first) > limit:
                raise _too_large(limit)
            return first
        parts, size = [first], len(first)
        while message.get("more_body"):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "disconnected", "the caller went away")
            part: bytes = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
        return b"".join(parts)

    async def _call(self, served: Served, arguments: Arguments, scope: Scope) -> Response:
        state = self.state
        if state.not_ready and not state.draining:
            raise Problem(503, "not-ready", state.not_ready, headers=[(b"retry-after", b"1")])
        metrics = state.metrics
        if metrics.in_flight >= self.settings.concurrency:
            detail = f"{self.settings.concurrency} calls run already, no more are taken at once"
            raise Problem(503, "overloaded", detail, headers=[(b"retry-after", b"1")])
        metrics.in_flight += 1
        try:
            if served.is_async:
                result = await self._awaited(served, arguments)
            else:
                result = await self._pool.run(self.settings.timeout, self._run, served.target, *arguments)
        except ExpiredError as error:
            detail = f"{served.operation.name} took longer than {self.settings.timeout:g} s"
            # A thread can't be ended: it keeps its place among the calls that run until the function comes back.
            log.warning("%s, and counts as running until it ends", detail)
            raise Problem(504, "timeout", detail) from error
        except asyncio.CancelledError:
            raise
        except Exception as error:
            raise self._failed(served, error) from error
        return self._respond(served, result, _header(scope, b"accept"))

    async def _awaited(self, served: Served, arguments: Arguments) -> Any:
        deadline = asyncio.timeout(self.settings.timeout)
        try:
            async with deadline:
                if self._flask is None:
                    return await _finish_async(served.target(*arguments[0], **arguments[1]))
                with self._flask.app_context():
                    return self._from_flask(await _finish_async(served.target(*arguments[0], **arguments[1])))
        except TimeoutError as error:
            if deadline.expired():
                raise ExpiredError from error
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise RuntimeError("the function was cancelled by itself") from error
        finally:
            self._ended()

    def _run(self, target: Callable[..., Any], positional: list[Any], named: dict[str, Any]) -> Any:
        try:
            if self._flask is None:
                return _finish(target(*positional, **named))
            with self._flask.app_context():
                return self._from_flask(_finish(target(*positional, **named)))
        except StopIteration as error:
            # a future can't carry it
            raise RuntimeError("the function raised StopIteration") from error
        except SystemExit as error:
            raise RuntimeError(f"the function called sys.exit({error.code!r})") from error

    def _from_flask(self, result: Any) -> Any:
        first = result[0] if isinstance(result, tuple) and result else result
        if not isinstance(first, sys.modules["flask"].Response):
            return result
        made = self._flask.make_response(result)
        skipped = (b"content-type", b"content-length", b"connection", b"transfer-encoding")
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in made.headers.items()]
        return Response(
            made.status_code,
            (made.content_type or "application/octet-stream").encode("latin-1"),
            made.get_data(),
            [item for item in headers if item[0] not in skipped],
        )

    def _ended(self) -> None:
        self.state.metrics.in_flight -= 1

    def _failed(self, served: Served, error: BaseException) -> Problem:
        log.error("%s failed", served.operation.name, exc_info=error)
        return Problem(
            500, "function-failed", f"{served.operation.name} raised {type(error).__name__}; the log says more"
        )

    def _respond(self, served: Served, result: Any, accept: bytes | None) -> Response:
        if isinstance(result, Response):
            return result
        text = accept is not None and b"text/plain" in accept and _prefers_text(accept)
        if isinstance(result, (bytes, bytearray, memoryview)) and served.operation.returns in _RAW:
            if accept is None or b"json" not in accept or b"octet-stream" in accept or b"*/*" in accept:
                return Response(200, _BYTES, bytes(result), [])
        elif text and isinstance(result, str):
            return Response(200, _TEXT, result.encode("utf-8", "replace"), [])
        try:
            body = codec.encode(result)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            log.exception("%s: the result can't be written as JSON", served.operation.name)
            detail = f"the result of {served.operation.name} can't be written as JSON: {error}"
            raise Problem(500, "result-not-json", detail[:1000]) from error
        return Response(200, _TEXT if text else _JSON, body, [])

    async def _healthz(self, _: Scope, __: Receive) -> Response:
        return Response(200, _TEXT, b"ok\n", [])

    async def _readyz(self, _: Scope, __: Receive) -> Response:
        if self.state.draining:
            raise Problem(503, "draining", "the function is ending")
        if self.state.not_ready:
            raise Problem(503, "not-ready", self.state.not_ready)
        return Response(200, _TEXT, b"ready\n", [])

    async def _metrics(self, _: Scope, __: Receive) -> Response:
        return Response(200, CONTENT_TYPE, self.state.metrics.render(), [])

    async def _openapi_json(self, _: Scope, __: Receive) -> Response:
        return Response(200, _JSON, self._document, [(b"cache-control", b"no-cache")])

    async def _openapi_yaml(self, _: Scope, __: Receive) -> Response:
        return Response(200, b"application/yaml", yaml.dump(json.loads(self._document)).encode(), [])

    async def _ui(self, _: Scope, __: Receive) -> Response:
        return Response(200, b"text/html; charset=utf-8", ui.PAGE, _page_headers())

    async def _asset(self, scope: Scope, _: Receive) -> Response:
        found = ui.asset(scope["path"].removeprefix(self._ui_prefix))
        if found is None:
            raise Problem(404, "not-found", "the page has no such file")
        return Response(200, found[0], found[1], [*_page_headers(), (b"cache-control", b"max-age=3600")])


_RAW: Final = (Scalar("bytes"), Scalar("bytearray"))


def _page_headers() -> list[tuple[bytes, bytes]]:
    return [
        (b"content-security-policy", ui.POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


def _header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def _too_large(limit: int) -> Problem:
    # the rest of the body isn't read, so the connection can't be used again
    return Problem(
        413, "body-too-large", f"the body may have {limit} bytes at most", headers=[(b"connection", b"close")]
    )


def _prefers_text(accept: bytes) -> bool:
    quality = {b"text/plain": 0.0, b"application/json": 0.0}
    for part in accept.lower().split(b","):
        media, *words = (word.strip() for word in part.split(b";"))
        if media in quality:
            quality[media] = 1.0
            for word in words:
                if word.startswith(b"q="):
                    try:
                        quality[media] = float(word[2:])
                    except ValueError:
                        quality[media] = 0.0
    return quality[b"text/plain"] > quality[b"application/json"]


def _finish(result: Any) -> Any:
    """Generators become lists here, in the thread; a coroutine out of a plain function is run here too."""
    if inspect.isgenerator(result):
        return list(result)
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        return asyncio.run(_finish_async(result))
    return result


async def _finish_async(result: Any) -> Any:
    if inspect.isasyncgen(result):
        return [item async for item in result]
    return await result
