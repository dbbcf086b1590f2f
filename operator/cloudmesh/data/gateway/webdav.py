"""WebDAV class 2 (RFC 4918) under `/dav/`: the same tree, users and rules as REST."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from urllib.parse import unquote, urlsplit

from aiohttp import web

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import ANY, Located
from cloudmesh.data.errors import Changed, Exists, InvalidName, Missing
from cloudmesh.data.gateway import problems, reading, streams
from cloudmesh.data.gateway import webdav_locks as locking
from cloudmesh.data.gateway import webdav_xml as xml
from cloudmesh.data.gateway.auth import Doorkeeper, Forbidden, User, Verb
from cloudmesh.data.gateway.rest import Rest
from cloudmesh.data.gateway.webdav_locks import Lock, Locks
from cloudmesh.data.gateway.webdav_properties import Asked, Seen, asked_of, described, lock_discovery, patched
from cloudmesh.data.mesh import own_path
from cloudmesh.data.model import MICROS, Entry
from cloudmesh.data.tree import Tree
from cloudmesh.data.upload import SourceFailed
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient

ROOT = "/dav/"
PAGE = 1000
AT_ONCE = 8
"""Files that a copy of a directory writes at the same time."""
MOST_TOLD = 1000
"""Failures within a directory that an answer names."""
_TOKEN = re.compile(r"<([^<>\s]+)>")
_MTIME = re.compile(r"([0-9]{1,11})(\.[0-9]+)?")
XML_TYPE = "application/xml; charset=utf-8"


class Refused(Exception):
    """What WebDAV has a status of its own for.

    Args:
        status: The status.
        why: For people.
        condition: The condition that doesn't hold, XML.
    """

    def __init__(self, status: int, why: str, condition: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.condition = condition

    def answer(self) -> web.Response:
        """The answer."""
        if self.condition:
            body = xml.error(self.condition).encode()
            return web.Response(status=self.status, body=body, headers={"Content-Type": XML_TYPE})
        return problems.problem(self.status, "Refused", str(self))


class WebDav(Rest):
    """The routes.

    Args:
        tree: The directory.
        door: Lets users in.
        waits: Says why nobody is served yet, empty when all are.
        locks: Shared with the other doors.
    """

    def __init__(
        self, tree: Tree, door: Doorkeeper, waits: Callable[[], str] = lambda: "", *, locks: Locks | None = None
    ) -> None:
        super().__init__(tree, door, waits)
        self.locks = locks or Locks(tree.catalog, tree.now)
        self._patching = asyncio.Lock()
        self._methods: dict[str, Callable[[web.Request, User, str], Awaitable[web.StreamResponse]]] = {
            "GET": self._get, "HEAD": self._get, "PUT": self._put, "DELETE": self._delete, "MKCOL": self._mkcol,
            "COPY": self._copy_to, "MOVE": self._move_to, "PROPFIND": self._propfind, "PROPPATCH": self._proppatch,
            "LOCK": self._lock, "UNLOCK": self._unlock,
        }  # fmt: skip

    def add_to(self, app: web.Application) -> None:
        """Adds the route."""
        guarded = self._guard(self._serve)

        async def serve(request: web.Request) -> web.StreamResponse:
            if not self._tree.mesh.config.webdav:
                raise web.HTTPNotFound
            if request.method == "OPTIONS":
                return self._options()
            return await guarded(request)

        app.router.add_route("*", r"/dav{path:(/[\s\S]*)?}", serve, expect_handler=streams.asked_first)

    def _options(self) -> web.Response:
        allow = ", ".join(["OPTIONS", *self._methods])
        return web.Response(status=200, headers={"DAV": "1, 2", "Allow": allow, "MS-Author-Via": "DAV"})

    async def _serve(self, request: web.Request, user: User) -> web.StreamResponse:
        method = self._methods.get(request.method)
        if method is None:
            raise web.HTTPMethodNotAllowed(request.method, ["OPTIONS", *self._methods])
        if request.rel_url.raw_fragment:
            raise InvalidRequest("an address in a request has no fragment")
        await self.locks.load()
        try:
            return await method(request, user, self._path(request, user, "get"))
        except Refused as refused:
            return refused.answer()

    def _path(self, request: web.Request, user: User, verb: Verb) -> str:
        path = _path_in(request.rel_url.raw_path)
        if path is None:
            raise Missing("WebDAV begins at /dav/")
        self._door.check(user, path, verb)
        return path

    # -- what stands before a change

    async def _conditions(self, request: web.Request, path: str) -> locking.Conditions:
        """What the `If` header shows, if it holds."""
        shown = locking.conditions(request.headers.get("If"))
        if shown is None:
            return locking.Conditions()
        holds = await shown.hold(
            path, lambda address: _here(request, address), self._tree.catalog.entry, self.locks.covering
        )
        if not holds:
            # whoever shows nothing that opens a lock is told of the lock rather than of the condition
            if "DAV:no-lock" not in shown.tokens:
                self._free(shown.tokens, None, path)
            raise Changed("what the If header says doesn't hold")
        return shown

    def _free(
        self, tokens: frozenset[str], user: User | None, path: str, *, member: bool = False, below: bool = False
    ) -> None:
        """Refuses a change that meets a lock whose token isn't shown by its owner.

        Args:
            tokens: What is shown.
            user: Who changes something; None for whoever.
            path: What changes.
            member: Whether the directory that it lies in does too, by one name more or less.
            below: Whether all below changes.
        """
        found = self.locks.closed(tokens, None if user is None else user.name, path, member=member, below=below)
        closed = sorted({lock.path for lock in found})
        if closed:
            hrefs = "".join(f"<D:href>{xml.href(ROOT, one, directory=False)}</D:href>" for one in closed[:100])
            condition = f"<D:lock-token-submitted>{hrefs}</D:lock-token-submitted>"
            raise Refused(423, f"'{closed[0] or '/'}' is locked", condition)

    async def _parent(self, path: str) -> None:
        """Refuses a path whose directory isn't there."""
        parent = await self._tree.catalog.entry(own_path(path).rpartition("/")[0])
        if parent is None or parent.kind != "Directory":
            raise Refused(409, f"there is no directory for '{path}': make it first")

    # -- files

    async def _get(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        entry = await self._tree.stat(path)
        if entry.kind == "File":
            return await self._content(request, path, entry)
        return web.Response(
            text="This is a directory: open it with a program that knows WebDAV.\n",
            headers={"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff"},
        )

    async def _put(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refused(415, "send the content itself, without a Content-Encoding")
        if "Content-Range" in request.headers:
            raise InvalidRequest("a part of a file can't be written: send all of it")
        old = await self._tree.catalog.entry(path)
        if request.rel_url.raw_path.endswith("/") or (old is not None and old.kind == "Directory"):
            raise web.HTTPMethodNotAllowed("PUT", ["OPTIONS", *(m for m in self._methods if m != "PUT")])
        await self._parent(path)
        shown = await self._conditions(request, path)
        self._free(shown.tokens, user, path, member=old is None)
        expected = reading.expected(request, old)
        if expected == ANY and shown.etags and old is not None:
            expected = old.version
        headers, mtime = {}, request.headers.get("X-OC-Mtime", "")
        if found := _MTIME.fullmatch(mtime):
            headers["X-OC-Mtime"] = "accepted"
        try:
            entry = await self._tree.put(
                path,
                self._still_free(request, user, path, shown.tokens),
                size=request.content_length,
                mtime=int(found[1]) * MICROS if found else None,
                content_type=reading.content_type(request),
                if_version=expected,
            )
        except Exists as error:
            raise Changed(str(error)) from None
        except SourceFailed as error:
            if isinstance(error.__cause__, Refused):
                raise error.__cause__ from None
            raise
        return web.Response(status=201 if old is None else 204, headers=headers | {"ETag": entry.etag})

    async def _still_free(
        self, request: web.Request, user: User, path: str, tokens: frozenset[str]
    ) -> AsyncIterator[bytes]:
        """The content; it doesn't end well if somebody locked the file meanwhile."""
        async for piece in streams.body(request):
            yield piece
        self._free(tokens, user, path)

    async def _delete(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        entry = await self._tree.stat(path)
        if entry.kind == "Directory" and request.headers.get("Depth", "infinity").lower() != "infinity":
            raise InvalidRequest("a directory is deleted with all in it: Depth must be infinity")
        self._door.check_below(user, path, entry)
        shown = await self._conditions(request, path)
        self._free(shown.tokens, user, path, member=True, below=True)
        expected = reading.expected(request, entry)
        await self._tree.delete(path, recursive=True, if_version=entry.version if shown.etags else expected)
        await self._forget(path)
        return web.Response(status=204)

    async def _forget(self, path: str) -> None:
        """Ends the locks of what is gone."""
        await self.locks.remove([*self.locks.at(path), *self.locks.below(path)])

    async def _mkcol(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        if request.body_exists:
            raise Refused(415, "a directory is made without a body")
        shown = await self._conditions(request, path)
        if await self._tree.catalog.entry(path) is not None:
            raise web.HTTPMethodNotAllowed("MKCOL", ["OPTIONS", *(m for m in self._methods if m != "MKCOL")])
        await self._parent(path)
        self._free(shown.tokens, user, path, member=True)
        await self._tree.mkdir(path)
        return web.Response(status=201)

    # -- copies and moves

    async def _target(self, request: web.Request, user: User, path: str) -> tuple[str, Entry | None]:
        """Where to, and what is there; refused where it can't be."""
        address = request.headers.get("Destination", "")
        target = _here(request, address)
        if target is None:
            if f"//{request.host}" not in address and ROOT in address:
                raise Refused(502, "the Destination isn't on this server")
            raise InvalidRequest("the Destination must be an address below /dav/ here")
        overwrite = request.headers.get("Overwrite", "T").upper()
        if overwrite not in ("T", "F"):
            raise InvalidRequest("Overwrite must be T or F")
        self._door.check(user, target, "update")
        if f"{target}/".startswith(f"{path}/") or f"{path}/".startswith(f"{target}/") or not path or not target:
            raise Refused(403, "source and destination lie in each other")
        old = await self._tree.catalog.entry(target)
        if old is not None and overwrite == "F":
            raise Changed(f"there is something at '{target}'")
        await self._parent(target)
        self._door.check_below(user, target, old)
        return target, old

    @contextlib.asynccontextmanager
    async def _replaced(self, target: str, old: Entry | None, new: Entry) -> AsyncGenerator[None, None]:
        """Takes away what can't be overwritten in place, and brings it back if nothing comes there."""
        if old is None or (old.kind == "File" and new.kind == "File"):
            yield
            return
        try:
            await self._tree.delete(target, recursive=True)
            yield
        except BaseException:
            with contextlib.suppress(CloudmeshError):
                await self._tree.restore(old.id, target, undo=True)
            raise

    async def _move_to(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        entry = await self._tree.stat(path)
        if entry.kind == "Directory" and request.headers.get("Depth", "infinity").lower() != "infinity":
            raise InvalidRequest("a directory moves with all in it: Depth must be infinity")
        target, old = await self._target(request, user, path)
        self._door.check_below(user, path, entry)
        self._door.check_below(user, target, entry)
        shown = await self._conditions(request, path)
        self._free(shown.tokens, user, path, member=True, below=True)
        self._free(shown.tokens, user, target, member=old is None, below=True)
        version = entry.version if shown.etags and entry.kind == "File" else ANY
        async with self._replaced(target, old, entry):
            await self._tree.move(path, target, overwrite=True, if_version=version)
        await self._forget(path)
        await self.locks.remove(self.locks.below(target))
        return web.Response(status=201 if old is None else 204)

    async def _copy_to(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        entry = await self._tree.stat(path)
        depth = request.headers.get("Depth", "infinity").lower()
        if depth not in ("0", "infinity"):
            raise InvalidRequest("Depth must be 0 or infinity")
        target, old = await self._target(request, user, path)
        shown = await self._conditions(request, path)
        self._free(shown.tokens, user, target, member=old is None, below=True)
        failed: dict[str, web.Response] = {}
        async with self._replaced(target, old, entry):
            await self._copy_one(entry, path, target)
            if entry.kind == "Directory":
                await self.locks.remove(self.locks.below(target))
        if entry.kind == "Directory" and depth == "infinity":
            failed = await self._copy_below(user, path, target)
        if failed:
            parts = [
                xml.response(
                    xml.href(ROOT, at, directory=False),
                    f"<D:status>HTTP/1.1 {answer.status} {answer.reason}</D:status>",
                )
                for at, answer in failed.items()
            ]
            return _xml(207, xml.multistatus(parts))
        return web.Response(status=201 if old is None else 204)

    async def _copy_one(self, entry: Entry, path: str, target: str) -> None:
        try:
            copied = entry.kind == "File"
            made = await (self._tree.copy(path, target, overwrite=True) if copied else self._tree.mkdir(target))
        except SourceFailed as error:
            raise Transient(f"'{path}' could not be read to its end: {error}") from error
        if dict(made.tags) != dict(entry.tags):
            await self._tree.set_tags(target, entry.tags)

    async def _copy_below(self, user: User, path: str, target: str) -> dict[str, web.Response]:
        """Copies what lies in a directory, as far as the user sees it; says what failed."""
        failed: dict[str, web.Response] = {}
        lost: list[str] = []

        async def one(found: Located) -> None:
            to = target + found.path[len(path) :]
            try:
                self._door.check(user, to, "update")
                await self._copy_one(found.entry, found.path, to)
            except CloudmeshError as error:
                if len(failed) < MOST_TOLD:
                    failed[to] = problems.problem(403, "", "") if isinstance(error, Forbidden) else problems.of(error)
                if found.entry.kind == "Directory":
                    lost.append(f"{found.path}/")

        after = ""
        while found := await self._tree.walk(path, after=after, limit=PAGE):
            after = found[-1].path
            seen = [f for f in found if self._door.shows(user, f.path)]
            for directory in (f for f in seen if f.entry.kind == "Directory"):
                if not directory.path.startswith(tuple(lost)):
                    await one(directory)
            files = [f for f in seen if f.entry.kind == "File" and not f.path.startswith(tuple(lost))]
            for at in range(0, len(files), AT_ONCE):
                async with asyncio.TaskGroup() as group:
                    for file in files[at : at + AT_ONCE]:
                        group.create_task(one(file))
        return failed

    # -- properties

    async def _propfind(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        asked = asked_of(await xml.body_of(request))
        depth = request.headers.get("Depth", "infinity").lower()
        if depth not in ("0", "1", "infinity"):
            raise InvalidRequest("Depth must be 0, 1 or infinity")
        entry = await self._tree.stat(path)
        if entry.kind == "File" or depth == "0":
            return _xml(207, xml.multistatus([await self._told(asked, path, entry)]))
        if depth == "infinity":
            raise Refused(403, "ask for one directory at a time: Depth must be 0 or 1", "<D:propfind-finite-depth/>")
        pages = self._pages(asked, user, path, entry)
        first = await anext(pages)
        answer = web.StreamResponse(status=207, headers={"Content-Type": XML_TYPE})
        return await streams.send(request, answer, first, pages, "listing")

    async def _pages(self, asked: Asked, user: User, path: str, entry: Entry) -> AsyncGenerator[bytes, None]:
        """The answer about a directory and what is in it, a page at a time."""
        head, after = f'{xml.HEAD}<D:multistatus xmlns:D="DAV:">\n' + await self._told(asked, path, entry), ""
        while True:
            found = await self._tree.children(path, after=after, limit=PAGE)
            parts = [await self._told(asked, f.path, f.entry) for f in found if self._door.shows(user, f.path)]
            yield (head + "".join(parts)).encode()
            if len(found) < PAGE:
                break
            head, after = "", found[-1].entry.name
        yield b"</D:multistatus>\n"

    async def _told(self, asked: Asked, path: str, entry: Entry) -> str:
        used = free = None
        if asked.quota and entry.kind == "Directory":
            used, limit = (await self._tree.totals()).bytes, self._tree.mesh.config.quota_bytes
            free = None if limit is None else max(0, limit - used)
        seen = Seen(entry, self._tree.now(), ROOT, self.locks.covering(path), used, free)
        return xml.response(xml.href(ROOT, path, directory=entry.kind == "Directory"), described(asked, seen))

    async def _proppatch(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        body = await xml.body_of(request)
        shown = await self._conditions(request, path)
        self._free(shown.tokens, user, path)
        async with self._patching:
            entry = await self._tree.stat(path)
            wanted, answer = patched(body, entry, writable=bool(path))
            if wanted is not None:
                await self._tree.set_tags(path, wanted)
        address = xml.href(ROOT, path, directory=entry.kind == "Directory")
        return _xml(207, xml.multistatus([xml.response(address, answer)]))

    # -- locks

    async def _lock(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        body = await xml.body_of(request)
        seconds = locking.seconds_of(request.headers.get("Timeout", ""))
        shown = await self._conditions(request, path)
        if body is None:
            return await self._renew(user, path, shown.tokens, seconds)
        if body.tag != f"{xml.DAV}lockinfo" or body.find(f"{xml.DAV}locktype/{xml.DAV}write") is None:
            raise InvalidRequest("the body must be a lockinfo of type write")
        scope = body.find(f"{xml.DAV}lockscope")
        if scope is None or [one.tag for one in scope] not in ([f"{xml.DAV}shared"], [f"{xml.DAV}exclusive"]):
            raise InvalidRequest("the lock must be exclusive or shared")
        shared = scope[0].tag == f"{xml.DAV}shared"
        said = body.find(f"{xml.DAV}owner")
        owner = "" if said is None else xml.element(said)
        if len(owner) > 4096:
            raise InvalidRequest("the owner of a lock is told in 4096 characters at most")
        depth = request.headers.get("Depth", "infinity").lower()
        if depth not in ("0", "infinity"):
            raise InvalidRequest("Depth must be 0 or infinity")
        old = await self._tree.catalog.entry(path)
        if old is None:
            await self._parent(path)
            self._free(shown.tokens, user, path, member=True)
        deep = depth == "infinity" and (old is None or old.kind == "Directory")
        if deep:
            # nobody is kept out of what the owner of the lock may not change
            self._door.check_below(user, path, old)
        self._conflict(path, deep=deep, shared=shared)
        try:
            lock = await self.locks.add(path, deep=deep, shared=shared, user=user.name, owner=owner, seconds=seconds)
        except locking.TooManyLocks as error:
            raise Refused(507, str(error)) from None
        if old is None:
            try:
                await self._tree.put(path, _nothing(), size=0)
            except BaseException:
                await self.locks.remove([lock])
                raise
        answer = _xml(200 if old is not None else 201, self._discovered([lock]))
        answer.headers["Lock-Token"] = f"<{lock.token}>"
        return answer

    def _conflict(self, path: str, *, deep: bool, shared: bool) -> None:
        """Refuses a lock that another one stands against."""
        met = self.locks.covering(path) + (self.locks.below(path) if deep else [])
        for lock in met:
            if not (lock.shared and shared):
                address = xml.href(ROOT, lock.path, directory=False)
                condition = f"<D:no-conflicting-lock><D:href>{address}</D:href></D:no-conflicting-lock>"
                raise Refused(423, f"'{lock.path or '/'}' is locked", condition)

    async def _renew(self, user: User, path: str, tokens: frozenset[str], seconds: int) -> web.Response:
        found = [lock for lock in self.locks.covering(path) if lock.token in tokens and lock.user == user.name]
        if not found:
            raise Refused(412, "the If header must show a lock of yours", "<D:lock-token-matches-request-uri/>")
        return _xml(200, self._discovered([await self.locks.renew(lock, seconds) for lock in found]))

    def _discovered(self, locks: list[Lock]) -> str:
        found = lock_discovery(locks, self._tree.now(), ROOT)
        return f'{xml.HEAD}<D:prop xmlns:D="DAV:">{found}</D:prop>\n'

    async def _unlock(self, request: web.Request, user: User, path: str) -> web.StreamResponse:
        self._door.check(user, path, "update")
        shown = _TOKEN.fullmatch(request.headers.get("Lock-Token", "").strip())
        if shown is None:
            raise InvalidRequest("the Lock-Token header must be like <urn:uuid:…>")
        lock = self.locks.by_token(shown[1])
        if lock is None or lock not in self.locks.covering(path):
            raise Refused(409, "there is no such lock here", "<D:lock-token-matches-request-uri/>")
        if lock.user != user.name:
            raise Forbidden("the lock is somebody else's")
        await self.locks.remove([lock])
        return web.Response(status=204)


def _path_in(raw: str) -> str | None:
    """The clean path of an address's path, as it was sent; None if it isn't WebDAV's.

    Raises:
        InvalidName: It can't be one.
    """
    if raw == ROOT[:-1]:
        return ""
    if not raw.startswith(ROOT):
        return None
    try:
        return names.clean_path(unquote(raw[len(ROOT) :], errors="strict"))
    except UnicodeDecodeError:
        raise InvalidName("the path must be UTF-8, each byte that isn't a letter written as %XX") from None


def _here(request: web.Request, address: str) -> str | None:
    """The path that an address in a header means; None if it isn't one of this directory."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    hosts = (request.headers.get("Host"), request.headers.get("X-Forwarded-Host"))
    if (parts.netloc and parts.netloc not in hosts) or parts.query or parts.fragment:
        return None
    return _path_in(parts.path)


def _xml(status: int, body: str) -> web.Response:
    return web.Response(status=status, body=body.encode(), headers={"Content-Type": XML_TYPE})


async def _nothing() -> AsyncIterator[bytes]:
    yield b""
