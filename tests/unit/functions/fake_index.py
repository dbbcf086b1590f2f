"""A package index on loopback: simple pages (PEP 503) over wheels that a test made."""

from __future__ import annotations

import base64
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from packaging.utils import canonicalize_name


class FakeIndex:
    """Wheels and source archives by file name.

    Attributes:
        login: `user:password` that it demands, if any.
        log: paths asked for.
        broken: answer 500 to everything.
        moved: file name -> address that it redirects to.
        swapped: file name -> content to serve in place of the right one.
    """

    def __init__(self, *, login: str = "") -> None:
        self.files: dict[str, bytes] = {}
        self.login = login
        self.log: list[str] = []
        self.authorizations: list[str] = []
        self.broken = False
        self.swapped: dict[str, bytes] = {}
        self.moved: dict[str, str] = {}
        self.url = ""

    def add(self, filename: str, data: bytes) -> str:
        """Offer a file.

        Returns:
            Its SHA-256 in hexadecimal.
        """
        self.files[filename] = data
        return hashlib.sha256(data).hexdigest()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeIndex]:
        app = web.Application()
        app.router.add_get("/simple/{name}/", self._page)
        app.router.add_get("/files/{name}", self._file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/simple"
        try:
            yield self
        finally:
            await runner.cleanup()

    def _refused(self, request: web.Request) -> web.Response | None:
        self.log.append(request.path)
        self.authorizations.append(request.headers.get("Authorization", ""))
        if self.broken:
            return web.Response(status=500)
        expected = "Basic " + base64.b64encode(self.login.encode()).decode()
        if self.login and request.headers.get("Authorization") != expected:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="index"'})
        return None

    async def _page(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        by_name: dict[str, list[str]] = defaultdict(list)
        for filename in self.files:
            by_name[canonicalize_name(filename.split("-")[0])].append(filename)
        found = by_name.get(request.match_info["name"])
        if found is None:
            return web.Response(status=404)
        links = "".join(
            f'<a href="/files/{name}#sha256={hashlib.sha256(self.files[name]).hexdigest()}">{name}</a><br>'
            for name in found
        )
        return web.Response(text=f"<!DOCTYPE html><html><body>{links}</body></html>", content_type="text/html")

    async def _file(self, request: web.Request) -> web.Response:
        if refused := self._refused(request):
            return refused
        name = request.match_info["name"]
        if name in self.moved:
            raise web.HTTPFound(self.moved[name])
        if name not in self.files:
            return web.Response(status=404)
        return web.Response(body=self.swapped.get(name, self.files[name]))
