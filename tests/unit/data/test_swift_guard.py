"""Where a login's answer may have Swift's token sent to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from cloudmesh.data.stores.swift import SwiftStore
from cloudmesh.data.stores.swift_auth import V1
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.engine.errors import InvalidRequest

HERE = "127.0.0.2"
"""Where the login is, as if that were outside."""


class Strict(Guard):
    """As of an installation, but that the login may be asked."""

    def check_hosts(self, hosts: Iterable[str]) -> None:
        super().check_hosts(host for host in hosts if host != HERE)


STRICT = Strict(("10.96.0.1",))


class Login:
    """Swift's own login, and a container for whoever is sent back to it."""

    def __init__(self) -> None:
        self.storage = ""
        self.port = 0
        self.seen: list[str] = []
        self.tokens: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        self.seen.append(request.path)
        self.tokens += request.headers.getall("X-Auth-Token", [])
        headers = {"X-Trans-Id": "tx1", "X-Auth-Token": "the-token", "X-Storage-Url": self.storage}
        return web.Response(headers=headers | {"X-Container-Object-Count": "0"})

    def store(self, guard: Guard) -> SwiftStore:
        return SwiftStore(V1(f"http://{HERE}:{self.port}/auth/v1.0", "u", "k"), "lab", guard=guard)


@asynccontextmanager
async def login() -> AsyncIterator[Login]:
    made = Login()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HERE, 0)
        await site.start()
        made.port = runner.addresses[0][1]
        made.storage = f"http://{HERE}:{made.port}/v1/a"
        yield made
    finally:
        await runner.cleanup()


def leads_to(monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str) -> None:
    async def lookup(*_: Any, **__: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0))
            if ":" in each
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "LOCALHOST.", "2130706433", "[::ffff:127.0.0.1]", "[::ffff:169.254.169.254]",
        "[64:ff9b::7f00:1]", "[fd00:ec2::254]", "[fe80::1%25eth0]", "100.100.100.200", "10.96.0.1",
        "kubernetes.default", "kubernetes.default.svc", "Kubernetes.default.svc.",
        "kubernetes.default.svc.cluster.local", "u@100.100.100.200",
    ],
)  # fmt: skip
async def test_a_login_can_not_name_a_storage_inside(host: str) -> None:
    async with login() as server:
        server.storage = f"http://{host}:{server.port}/v1/a"
        store = server.store(STRICT)
        with pytest.raises(InvalidRequest, match=r"refused as (an )?endpoint|API server"):
            await store.probe()
        await store.close()
        assert server.seen == ["/auth/v1.0"] and not server.tokens


@pytest.mark.parametrize("storage", ["ftp://x/", "nothing", "http://", "http://x:port/", "http://[::1/", "/v1/a"])
async def test_a_storage_that_is_no_url(storage: str) -> None:
    async with login() as server:
        server.storage = storage
        store = server.store(STRICT)
        with pytest.raises(InvalidRequest, match="no URL"):
            await store.probe()
        await store.close()


@pytest.mark.parametrize(
    "addresses",
    [("127.0.0.1",), ("::1", "127.0.0.1"), ("192.0.2.1", "127.0.0.1"), ("::ffff:127.0.0.1",), ("10.96.0.1",)],
)
async def test_a_name_that_leads_inside_is_refused_when_it_is_connected_to(
    addresses: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with login() as server:
        server.storage = f"http://swift.example.org:{server.port}/v1/a"
        leads_to(monkeypatch, server.port, *addresses)
        store = server.store(STRICT)
        with pytest.raises(InvalidRequest, match=r"refused as (an )?endpoint|API server"):
            await store.probe()
        await store.close()
        assert server.seen == ["/auth/v1.0"] and not server.tokens


async def test_a_login_by_a_name_that_leads_inside_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async with login() as server:
        leads_to(monkeypatch, server.port, "127.0.0.1")
        store = SwiftStore(V1(f"http://swift.example.org:{server.port}/auth/v1.0", "u", "k"), "lab", guard=STRICT)
        with pytest.raises(InvalidRequest, match="refused as an endpoint"):
            await store.probe()
        await store.close()
        assert not server.seen


async def test_where_it_is_allowed_the_token_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    async with login() as server:
        for guard, host in ((Guard(inside=True), HERE), (ANYWHERE, "swift.example.org")):
            leads_to(monkeypatch, server.port, HERE)
            server.storage = f"http://{host}:{server.port}/v1/a"
            store = server.store(guard)
            await store.probe()
            await store.close()
        assert server.tokens == ["the-token"] * 2
