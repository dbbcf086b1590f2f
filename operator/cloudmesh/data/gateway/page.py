"""The web page at `/`: three files without a build step, and tickets by which a browser downloads by itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib import resources
from urllib.parse import quote

from aiohttp import web

from cloudmesh.data import names
from cloudmesh.data.gateway import problems, reading
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, Forbidden, User, Verb
from cloudmesh.data.gateway.rest import Rest
from cloudmesh.data.tree import Tree
from cloudmesh.data.upload import SourceFailed
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest

TICKET_SECONDS = 300.0
TICKETS = 4096
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
FILES = {"page.js": "text/javascript", "page.css": "text/css"}


@dataclass(frozen=True, slots=True)
class Ticket:
    """One file that one user may download for a while.

    Args:
        until: Seconds, monotonic.
        user: Who.
        path: Which.
    """

    until: float
    user: User
    path: str


TICKET = web.RequestKey("ticket", Ticket)


class Page(Rest):
    """The routes.

    Args:
        tree: The directory.
        door: Lets users in.
        waits: Says why nobody is served yet, empty when all are.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        tree: Tree,
        door: Doorkeeper,
        waits: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(tree, door, waits)
        self._clock = clock
        self._tickets: dict[str, Ticket] = {}
        folder = resources.files("cloudmesh.data.gateway") / "static"
        self._files = {name: (folder / name).read_bytes() for name in (*FILES, "index.html")}

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        app.router.add_get("/", self._index)
        app.router.add_get("/page/{name:page\\.(?:js|css)}", self._file)
        app.router.add_post("/page/ticket", self._guard(self._ticket))
        app.router.add_get("/page/file", self._download)
        app.on_response_prepare.append(self._prepare)

    def _open(self) -> None:
        if not self._tree.mesh.config.web:
            raise web.HTTPNotFound

    async def _index(self, _: web.Request) -> web.Response:
        self._open()
        name = escape(self._tree.mesh.config.name).encode()
        body = self._files["index.html"].replace(b"{{name}}", name)
        return web.Response(body=body, headers=HEADERS | {"Content-Type": "text/html; charset=utf-8"})

    async def _file(self, request: web.Request) -> web.Response:
        self._open()
        name = request.match_info["name"]
        content_type = f"{FILES[name]}; charset=utf-8"
        return web.Response(body=self._files[name], headers=HEADERS | {"Content-Type": content_type})

    async def _ticket(self, request: web.Request, user: User) -> web.StreamResponse:
        """A link to a file that needs no header, which a browser can't send when it downloads."""
        self._open()
        path = (await reading.json_of(request)).get("path")
        if not isinstance(path, str):
            raise InvalidRequest('the body must be like {"path": "a/b"}')
        path = names.clean_path(path)
        self._door.check(user, path, "get")
        await self._tree.stat(path)
        now = self._clock()
        if len(self._tickets) >= TICKETS:
            self._tickets = {key: one for key, one in self._tickets.items() if one.until > now}
        if len(self._tickets) >= TICKETS:
            self._tickets.pop(next(iter(self._tickets)))
        key = secrets.token_urlsafe(24)
        self._tickets[key] = Ticket(now + TICKET_SECONDS, user, path)
        return json_response({"url": f"/page/file?ticket={key}"}, headers={"Cache-Control": "no-store"})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        self._open()
        ticket = self._tickets.get(request.query.get("ticket", ""))
        if ticket is None or ticket.until < self._clock():
            return problems.problem(403, "Forbidden", "the link isn't good any more: ask for the file again")
        request[TICKET] = ticket
        try:
            return await self.get(request, ticket.user)
        except Forbidden as error:
            return problems.problem(403, error.reason, str(error))
        except SourceFailed as error:
            return problems.broken_off(error)
        except CloudmeshError as error:
            return problems.of(error)

    def _path(self, request: web.Request, user: User, verb: Verb) -> str:
        path = request[TICKET].path
        self._door.check(user, path, verb)
        return path

    @staticmethod
    async def _prepare(request: web.Request, response: web.StreamResponse) -> None:
        ticket = request.get(TICKET)
        if ticket is not None and response.status < 300:
            name = quote(ticket.path.rpartition("/")[2], safe="")
            response.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
        if response.status == 401 and "Sec-Fetch-Mode" in request.headers and (
            request.headers["Sec-Fetch-Mode"] != "navigate"
        ):  # fmt: skip
            # the page asks for name and password itself: a browser that reads of Basic does it too
            response.headers["WWW-Authenticate"] = 'Bearer realm="cloudmesh"'
