from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from cloudmesh.engine import AuthFailed, RateLimited, Transient
from cloudmesh.functions import builder_client
from cloudmesh.functions.builder_client import BuilderClient, Refused

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def client(handler: Handler, **more: float) -> AsyncIterator[BuilderClient]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    async with TestServer(app) as server:
        found = BuilderClient(str(server.make_url("")), **more)
        found.use("t0ken", "")
        try:
            yield found
        finally:
            await found.close()


async def test_the_token_goes_along_and_the_answer_comes_back() -> None:
    async def handle(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer t0ken"
        return web.json_response({"id": "x", "path": request.path, "body": await request.json()})

    async with client(handle) as builder:
        assert await builder.parse({"a": 1}) == {"id": "x", "path": "/v1/parse", "body": {"a": 1}}
        assert await builder.start({}) == "x"


@pytest.mark.parametrize(
    ("status", "error"), [(401, AuthFailed), (403, AuthFailed), (429, RateLimited), (500, Transient), (503, Transient)]
)
async def test_statuses_are_of_the_taxonomy(status: int, error: type[Exception]) -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no"}}, status=status, headers={"Retry-After": "7"})

    async with client(handle) as builder:
        with pytest.raises(error) as raised:
            await builder.info()
    if isinstance(raised.value, RateLimited):
        assert raised.value.retry_after == 7


async def test_a_refusal_tells_the_place() -> None:
    async def handle(_: web.Request) -> web.Response:
        error = {"class": "SourceInvalid", "line": 3, "column": 5, "message": "expected ':'"}
        return web.json_response({"error": error}, status=422)

    async with client(handle) as builder:
        with pytest.raises(Refused) as raised:
            await builder.parse({})
    assert raised.value.text == "line 3, column 5: expected ':'"
    assert raised.value.kind == "SourceInvalid"


async def test_a_build_that_is_not_known_is_none() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.json_response({"error": {"message": "no such build"}}, status=404)

    async with client(handle) as builder:
        assert await builder.build("x") is None


async def test_a_hang_ends() -> None:
    async def handle(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.json_response({})

    async with client(handle, timeout_seconds=0.1) as builder:
        with pytest.raises(Transient, match="doesn't answer"):
            await builder.info()


async def test_reading_may_take_longer_than_other_calls() -> None:
    async def handle(_: web.Request) -> web.Response:
        await asyncio.sleep(0.3)
        return web.json_response({})

    async with client(handle, timeout_seconds=0.1) as builder:
        assert await builder.parse({}) == {}
    async with client(handle, parse_seconds=0.1) as builder:
        with pytest.raises(Transient, match="doesn't answer"):
            await builder.parse({})


async def test_something_else_than_json_is_transient() -> None:
    async def handle(_: web.Request) -> web.Response:
        return web.Response(text="<html>proxy error</html>", status=200)

    async with client(handle) as builder:
        with pytest.raises(Transient, match="isn't JSON"):
            await builder.info()


async def test_nobody_listens() -> None:
    builder = BuilderClient("http://127.0.0.1:1")
    builder.use("t", "")
    try:
        with pytest.raises(Transient, match="doesn't answer"):
            await builder.info()
    finally:
        await builder.close()


async def test_without_a_token_no_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder_client, "TOKEN_SECONDS", 0.05)
    builder = BuilderClient("http://127.0.0.1:1")
    with pytest.raises(Transient, match="token"):
        await builder.info()
