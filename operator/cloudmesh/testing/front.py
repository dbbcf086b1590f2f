"""A transport behind a real socket: the memory API server for other processes, or a proxy that injects faults."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from types import TracebackType

import yaml
from aiohttp import web

from cloudmesh.engine.errors import Transient
from cloudmesh.engine.kube import Access, HttpTransport
from cloudmesh.engine.kube.transport import Reply, Request, Transport
from cloudmesh.testing.faults import Faults, FaultyTransport

MAX_BODY = 8 << 20


class Front:
    """An HTTP server on loopback that hands each request to a transport.

    Args:
        transport: Answers the requests; what it raises as `Transient` becomes a broken connection.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def __aenter__(self) -> Front:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        await self._transport.close()

    def write_kubeconfig(self, path: Path) -> Path:
        """Writes a kubeconfig that leads here; no login is needed."""
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "front",
            "contexts": [{"name": "front", "context": {"cluster": "front", "user": "front"}}],
            "clusters": [{"name": "front", "cluster": {"server": self.url}}],
            "users": [{"name": "front", "user": {"token": "not-checked"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        call = Request(
            request.method,
            request.path,
            query=dict(request.query),
            body=json.loads(body) if body else None,
            content_type=request.headers.get("Content-Type", "application/json"),
            accept=request.headers.get("Accept", "application/json"),
            timeout_seconds=None,
        )
        try:
            reply = await self._transport.send(call)
            return await self._answer(request, call, reply)
        except Transient:
            _break(request)
            return web.Response(status=502)  # nobody hears it

    async def _answer(self, request: web.Request, call: Request, reply: Reply) -> web.StreamResponse:
        headers = {name: reply.headers[name] for name in ("Retry-After", "Content-Type") if name in reply.headers}
        try:
            if call.query.get("watch") not in ("true", "1") or reply.status != 200:
                return web.Response(status=reply.status, body=await reply.read(), headers=headers)
            answer = web.StreamResponse(status=reply.status, headers=headers)
            await answer.prepare(request)
            try:
                async with contextlib.aclosing(reply.lines()) as lines:
                    async for line in lines:
                        await answer.write(line)
            except ConnectionError:
                return answer
            await answer.write_eof()
            return answer
        finally:
            reply.close()


def _break(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def fault_proxy(kubeconfig: str, faults: Faults) -> Front:
    """A reverse proxy with faults in front of a real API server, to be entered with `async with`."""
    return Front(FaultyTransport(HttpTransport(await Access.load(kubeconfig)), faults))
