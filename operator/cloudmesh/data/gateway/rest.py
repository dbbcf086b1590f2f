"""REST: files by path, and what can be asked about them. The document of it is `openapi.py`."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

from aiohttp import web

from cloudmesh.data import names
from cloudmesh.data.catalog.ports import Located, Query
from cloudmesh.data.errors import Changed, InvalidName, Missing
from cloudmesh.data.gateway import openapi, paging, problems, reading, streams
from cloudmesh.data.gateway.answers import json_response
from cloudmesh.data.gateway.auth import Doorkeeper, Forbidden, Unauthenticated, User, Verb
from cloudmesh.data.gateway.links import Links
from cloudmesh.data.gateway.rules import Rules
from cloudmesh.data.gateway.throttle import Throttled
from cloudmesh.data.gateway.told import MOST, told
from cloudmesh.data.gateway.unlocked import Unlocked
from cloudmesh.data.gateway.upkeep import Keeper, Upkeep
from cloudmesh.data.gateway.versions import Versions
from cloudmesh.data.gateway.webdav_locks import Locks
from cloudmesh.data.model import Entry, Trashed
from cloudmesh.data.stores.ports import Presigner
from cloudmesh.data.tree import Tree
from cloudmesh.data.upload import SourceFailed
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest, Transient
from cloudmesh.policy.amounts import to_text

PAGE = 1000
PRESIGNED_SECONDS = 300
ROUTE = r"{path:[\s\S]*}"
_ID = re.compile("[0-9a-f]{16}")
_SEARCHED = frozenset({"name", "under", "tags", "minSize", "maxSize", "newer", "older", "after", "limit"})
Handler = Callable[[web.Request, User], Awaitable[web.StreamResponse]]


class Ledger(Protocol):
    """What is asked about money."""

    async def cost(self) -> dict[str, Any]:
        """What the directory costs, by store."""

    async def quote(self) -> dict[str, Any]:
        """What the change takes that waits for approval."""

    async def plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What other rules and accesses of stores would take."""


class Rest:
    """The routes.

    Args:
        tree: The directory.
        door: Lets users in.
        waits: Says why nobody is served yet, empty when all are.
        ledger: Tells what the directory costs, and what changes would; None where nobody asks.
        locks: Of WebDAV: they bind whoever comes.
        keeper: Looks after the catalogue and the listings; None where nobody does.
    """

    def __init__(
        self,
        tree: Tree,
        door: Doorkeeper,
        waits: Callable[[], str] = lambda: "",
        *,
        ledger: Ledger | None = None,
        locks: Locks | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        self._tree = tree
        self._ledger = ledger
        self._door = door
        self._waits = waits
        self._upkeep = Upkeep(tree, door, keeper) if keeper is not None else None
        self._pager = paging.Pager()
        self._unlocked = Unlocked(tree, locks or Locks(tree.catalog, tree.now))
        self._versions = Versions(tree, door, self._unlocked)
        self._links = Links(tree, door, self._unlocked)
        self._rules = Rules(tree, door)

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        route = app.router.add_route
        for method, path, handler in (
            ("GET", "/v1/files/" + ROUTE, self.get),
            ("HEAD", "/v1/files/" + ROUTE, self.get),
            ("PUT", "/v1/files/" + ROUTE, self.put),
            ("DELETE", "/v1/files/" + ROUTE, self.delete),
            ("GET", "/v1/stat/" + ROUTE, self.stat),
            ("GET", "/v1/list/" + ROUTE, self.listing),
            ("PUT", "/v1/directories/" + ROUTE, self.mkdir),
            ("PUT", "/v1/tags/" + ROUTE, self.tags),
            ("GET", "/v1/where/" + ROUTE, self.where),
            ("GET", "/v1/why/" + ROUTE, self.why),
            ("GET", "/v1/rules/" + ROUTE, self._rules.listing),
            ("PUT", "/v1/links/" + ROUTE, self._links.link),
            ("POST", "/v1/links/" + ROUTE, self._links.adopt),
            ("POST", "/v1/move", self.move),
            ("POST", "/v1/copy", self.copy),
            ("POST", "/v1/restore", self.restore),
            ("GET", "/v1/trash", self.trash),
            ("GET", "/v1/search", self.search),
            ("GET", "/v1/usage", self.usage),
            ("GET", "/v1/versions/" + ROUTE, self._versions.listing),
            ("POST", "/v1/versions/" + ROUTE, self._versions.restore),
            ("DELETE", "/v1/versions/" + ROUTE, self._versions.delete),
        ):
            route(method, path, self._guard(handler), expect_handler=streams.asked_first)
        if self._upkeep is not None:
            route("POST", "/v1/snapshot", self._guard(self._upkeep.snapshot))
            route("POST", "/v1/rebuild", self._guard(self._upkeep.rebuild))
            route("POST", "/v1/believe", self._guard(self._upkeep.believe))
        if self._ledger is not None:
            route("GET", "/v1/cost", self._guard(self._answers(self._ledger.cost)))
            route("GET", "/v1/quote", self._guard(self._answers(self._ledger.quote)))
            route("POST", "/v1/plan", self._guard(self._planned(self._ledger)))
        route("GET", "/openapi.json", self.document)

    def _guard(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                if why := self._waits():
                    raise Transient(why)
                user = await self._door.user(request.headers.get("Authorization", ""), request.remote or "")
                # which directory this is, is nothing for whoever isn't let in
                if (answer := self._misdirected(request)) is not None:
                    return answer
                return await handler(request, user)
            except Unauthenticated as error:
                answer = problems.problem(401, error.reason, str(error))
                answer.headers["WWW-Authenticate"] = 'Bearer realm="cloudmesh", Basic realm="cloudmesh"'
                return answer
            except Forbidden as error:
                return problems.problem(403, error.reason, str(error))
            except Throttled as error:
                return problems.later(error)
            except SourceFailed as error:
                return problems.broken_off(error)
            except CloudmeshError as error:
                return problems.of(error)

        return guarded

    def _misdirected(self, request: web.Request) -> web.Response | None:
        """The answer to whoever says that they mean another directory: an address may lead to any."""
        meant, config = request.headers.get("Cloudmesh-Directory", ""), self._tree.mesh.config
        namespace, _, name = meant.rpartition("/")
        if not meant or (name == config.name and namespace in ("", config.namespace)):
            return None
        here = f"'{config.name}' of namespace '{config.namespace}'"
        return problems.problem(421, "Misdirected", f"the directory here is {here}, not '{meant[:120]}'")

    def _path(self, request: web.Request, user: User, verb: Verb) -> str:
        path = reading.path_of(request)
        self._door.check(user, path, verb)
        return path

    # -- files

    async def get(self, request: web.Request, user: User) -> web.StreamResponse:
        """Content of a file, or of a part of it."""
        path = self._path(request, user, "get")
        return await self._content(request, path, None)

    async def _content(self, request: web.Request, path: str, entry: Entry | None) -> web.StreamResponse:
        """The same for somebody who may; `entry` is what was just seen there."""
        redirect = request.query.get("redirect")
        if redirect not in (None, "allow"):
            raise InvalidRequest(f"'redirect' must be allow, not '{redirect[:40]}'")
        version = reading.number(request, "version", 0, 1, MOST)
        entry = there = entry or await self._tree.stat(path)
        if entry.kind == "Directory":
            raise InvalidName(f"'{path or '/'}' is a directory: ask /v1/list/ for what is in it")
        if version and version != entry.version:
            entry = await self._tree.version(path, version)
        headers = {
            "ETag": entry.etag,
            "Last-Modified": reading.http_date(entry.mtime),
            "Accept-Ranges": "bytes",
            "Content-Type": entry.content_type or "application/octet-stream",
            # what a user put here must not run as a page of ours
            "Content-Security-Policy": "sandbox",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "private, no-cache",
        }
        if entry.sha256:
            headers["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(entry.sha256)).decode()}:"
        try:
            reading.condition(request, entry)
        except reading.Satisfied:
            return web.Response(status=304, headers=headers)
        start, stop, status = 0, entry.size, 200
        asked = request.headers.get("Range", "") if request.method == "GET" else ""
        if asked and request.headers.get("If-Range", entry.etag) == entry.etag and entry.size:
            part = reading.span(asked, entry.size)
            if part is not None:
                (start, stop), status = part, 206
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
        headers["Content-Length"] = str(stop - start)
        if request.method == "HEAD":
            return web.Response(status=status, headers=headers)
        if redirect and not version and (url := await self._presigned(entry)):
            return web.Response(status=307, headers={"Location": url, "ETag": entry.etag})
        entry, chunks = await self._tree.read(path, start=start, length=stop - start, version=version, known=there)
        # ended here whatever happens, so that no store keeps a reader that nobody reads from
        async with contextlib.aclosing(chunks):
            if entry.etag != headers["ETag"]:
                raise Changed("the file was written while it was asked for: ask again")
            return await self._stream(request, status, headers, chunks)

    async def _stream(
        self, request: web.Request, status: int, headers: Mapping[str, str], chunks: AsyncGenerator[bytes, None]
    ) -> web.StreamResponse:
        # the first piece is there before the status is: a file that can't be read is an error, not an empty answer
        first = await anext(chunks, b"")
        if len(first) == int(headers["Content-Length"]):
            return web.Response(status=status, headers=headers, body=first)
        response = web.StreamResponse(status=status, headers=headers)
        return await streams.send(request, response, first, chunks, "reading")

    async def _presigned(self, entry: Entry) -> str:
        """A link to a copy that is surely the file, as its store says just now; empty if there is none."""
        copies = await self._tree.readable(entry)
        linked = [(copy, member) for copy, member in copies if isinstance(member.store, Presigner)]
        whole = set(await self._tree.writer.proved(entry, [copy for copy, _ in linked], ())) if linked else set()
        for copy, member in linked:
            if copy.store in whole and isinstance(member.store, Presigner):
                with contextlib.suppress(CloudmeshError):
                    return await member.store.presign(copy.key, PRESIGNED_SECONDS)
        return ""

    async def put(self, request: web.Request, user: User) -> web.StreamResponse:
        """Writes a file."""
        path = self._path(request, user, "update")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            return problems.problem(415, "Unsupported", "send the content itself, without a Content-Encoding")
        old = await self._tree.catalog.entry(path)
        await self._unlocked.check(request, user, path, member=old is None)
        entry = await self._tree.put(
            path,
            self._unlocked.content(request, user, path, streams.body(request)),
            size=request.content_length,
            mtime=reading.micros(text) if (text := request.headers.get("Cloudmesh-Modified")) is not None else None,
            sha256=reading.digest(request),
            content_type=reading.content_type(request),
            tags=reading.tags_of(request.headers.get("Cloudmesh-Tags", "")),
            if_version=reading.expected(request, old),
        )
        headers = {"ETag": entry.etag}
        return json_response(told(path, entry), status=201 if old is None else 200, headers=headers)

    async def delete(self, request: web.Request, user: User) -> web.StreamResponse:
        """Moves a file or directory to the trash."""
        path = self._path(request, user, "update")
        recursive = reading.flag(request, "recursive")
        entry = await self._tree.catalog.entry(path)
        self._door.check_below(user, path, entry)
        await self._unlocked.check(request, user, path, member=True, below=True)
        await self._tree.delete(path, recursive=recursive, if_version=reading.expected(request, entry))
        await self._unlocked.forget(path)
        return web.Response(status=204)

    # -- the tree

    async def stat(self, request: web.Request, user: User) -> web.StreamResponse:
        """What is at a path."""
        path = self._path(request, user, "get")
        entry = await self._tree.stat(path)
        return json_response(told(path, entry, await self._tree.catalog.copies(entry.id)))

    async def listing(self, request: web.Request, user: User) -> web.StreamResponse:
        """A page of a directory, or of all below it."""
        path = self._path(request, user, "get")
        recursive, linked = reading.flag(request, "recursive"), await self._linked()

        async def more(mark: str, limit: int) -> list[Located]:
            ask = self._tree.walk if recursive else self._tree.children
            return await ask(path, after=mark, limit=limit, copies=linked)

        step = max(paging.LEAST, self._limit(request))
        return await self._page(request, user, more, lambda last: last.path if recursive else last.entry.name, step)

    async def _linked(self) -> bool:
        """Whether there are links: only then listings look at copies."""
        return bool((await self._tree.totals()).states.get("Linked"))

    @staticmethod
    def _limit(request: web.Request) -> int:
        return reading.number(request, "limit", PAGE, 1, PAGE)

    async def _page(
        self,
        request: web.Request,
        user: User,
        more: Callable[[str, int], Awaitable[list[Located]]],
        mark_of: Callable[[Located], str],
        step: int,
        wanted: Callable[[Located], bool] = lambda _: True,
    ) -> web.Response:
        """As many entries as were asked for of those that the user may see."""
        page = await self._pager.page(
            more, wanted, lambda one: self._door.shows(user, one.path), mark_of,
            request.query.get("after", ""), self._limit(request), step,
        )  # fmt: skip
        body, headers = paging.told_of(
            page, lambda mark: f"{request.rel_url.raw_path}?{urlencode(dict(request.query) | {'after': mark})}"
        )
        return json_response(
            {"entries": [told(one.path, one.entry, one.copies) for one in page.found]} | body, headers=headers
        )

    async def mkdir(self, request: web.Request, user: User) -> web.StreamResponse:
        """Makes a directory."""
        path = self._path(request, user, "update")
        old = await self._tree.catalog.entry(path)
        if old is None:
            await self._unlocked.check(request, user, path, member=True)
        entry = await self._tree.mkdir(path, parents=reading.flag(request, "parents"))
        return json_response(told(path, entry), status=201 if old is None else 200)

    async def tags(self, request: web.Request, user: User) -> web.StreamResponse:
        """Replaces the tags."""
        path = self._path(request, user, "update")
        tags = reading.checked_tags(await reading.json_of(request))
        await self._unlocked.check(request, user, path)
        old = await self._tree.catalog.entry(path)
        entry = await self._tree.set_tags(path, reading.doors_tags(old.tags if old else {}) | tags)
        return json_response(told(path, entry))

    async def move(self, request: web.Request, user: User) -> web.StreamResponse:
        """Renames."""
        source, target, overwrite = await self._from_to(request, user, "update")
        entry = await self._tree.catalog.entry(source)
        self._door.check_below(user, source, entry)
        self._door.check_below(user, target, entry)
        self._door.check_below(user, target, await self._tree.catalog.entry(target))
        await self._unlocked.check(request, user, source, member=True, below=True)
        await self._unlocked.check(request, user, target, member=True, below=True)
        entry = await self._tree.move(source, target, overwrite=overwrite)
        await self._unlocked.forget(source)
        return json_response(told(target, entry))

    async def copy(self, request: web.Request, user: User) -> web.StreamResponse:
        """Copies a file."""
        source, target, overwrite = await self._from_to(request, user, "get")
        await self._unlocked.check(request, user, target, member=await self._tree.catalog.entry(target) is None)
        entry = await self._tree.copy(source, target, overwrite=overwrite)
        return json_response(told(target, entry), status=201)

    async def _from_to(self, request: web.Request, user: User, verb: Verb) -> tuple[str, str, bool]:
        body = await reading.json_of(request)
        paths = [body.get("from"), body.get("to")]
        overwrite = body.get("overwrite", False)
        if not all(isinstance(p, str) for p in paths) or not isinstance(overwrite, bool):
            raise InvalidRequest('the body must be like {"from": "a/b", "to": "c/d", "overwrite": false}')
        source, target = (names.clean_path(str(p)) for p in paths)
        self._door.check(user, source, verb)
        self._door.check(user, target, "update")
        return source, target, overwrite

    # -- trash

    async def trash(self, request: web.Request, user: User) -> web.StreamResponse:
        """What can be restored."""
        limit = self._limit(request)
        found = await self._tree.trash(after=request.query.get("after", ""), limit=limit)
        body: dict[str, Any] = {
            "entries": [
                told(t.path, t.entry) | {"deleted": reading.when(t.at)}
                for t in found
                if self._door.shows(user, t.path) and not self._tree.is_over(t)
            ]
        }
        if len(found) == limit:
            body["after"] = found[-1].entry.id
        return json_response(body)

    async def restore(self, request: web.Request, user: User) -> web.StreamResponse:
        """Brings something back."""
        body = await reading.json_of(request)
        entry_id, path = body.get("id"), body.get("to", "")
        if not isinstance(entry_id, str) or not isinstance(path, str):
            raise InvalidRequest('the body must be like {"id": "00…", "to": "a/b"}')
        trashed = await self._trashed(entry_id)
        for one in (trashed.path, names.clean_path(path) or trashed.path):
            self._door.check(user, one, "update")
            self._door.check_below(user, one, trashed.entry)
        await self._unlocked.check(request, user, names.clean_path(path) or trashed.path, member=True, below=True)
        entry = await self._tree.restore(entry_id, path)
        located = await self._tree.catalog.by_id(entry.id)
        return json_response(told(located.path if located else path, entry))

    async def _trashed(self, entry_id: str) -> Trashed:
        if _ID.fullmatch(entry_id):
            found = await self._tree.catalog.thrown(entry_id)
            if found is not None and not found.of:
                return found
        raise Missing(f"there is no '{entry_id[:16]}' in the trash")

    # -- questions

    async def where(self, request: web.Request, user: User) -> web.StreamResponse:
        """Where the copies lie."""
        path = self._path(request, user, "get")
        copies = []
        for place in await self._tree.where(path):
            copy = place.copy
            one: dict[str, Any] = {
                "store": copy.store, "key": copy.key, "state": copy.state, "up": place.up, "size": copy.size,
            }  # fmt: skip
            one |= {"verified": reading.when(copy.verified)} if copy.verified else {}
            one |= {"error": copy.error} if copy.error else {}
            if place.monthly is not None:
                one["monthly"] = self._money(place.monthly)
            copies.append(one)
        return json_response({"path": path, "copies": copies})

    def _money(self, nanos: int) -> dict[str, str]:
        return {"amount": to_text(nanos), "currency": self._tree.mesh.config.currency}

    async def why(self, request: web.Request, user: User) -> web.StreamResponse:
        """Which rule places a file, and what became of each store."""
        path = self._path(request, user, "get")
        chosen = await self._tree.why(path)
        verdicts = [
            {"store": v.store, "chosen": v.chosen, "why": v.why}
            | ({} if v.score is None else {"score": v.score})
            | ({} if v.monthly is None else {"monthly": self._money(v.monthly)})
            for v in chosen.verdicts
        ]
        rule = {"name": chosen.rule.name, "copies": chosen.rule.copies, "minCopies": chosen.rule.min_copies}
        return json_response({"path": path, "rule": rule, "stores": verdicts})

    async def search(self, request: web.Request, user: User) -> web.StreamResponse:
        """Files by name, tags, size and time."""
        query = request.query
        if strange := sorted(set(query) - _SEARCHED):
            # what is left out finds everything, which nobody means who misspelt it
            raise InvalidRequest(f"a search knows no '{strange[0][:40]}': it may have {', '.join(sorted(_SEARCHED))}")
        under = names.clean_path(query.get("under", ""))
        self._door.check(user, under, "get")
        wanted = Query(
            name=reading.name_pattern(request),
            under=under,
            tags=reading.tags_of(query.get("tags", "")) or None,
            min_size=reading.number(request, "minSize", 0, 0, MOST),
            max_size=reading.number(request, "maxSize", 0, 0, MOST) if "maxSize" in query else None,
            newer=reading.micros(query["newer"]) if "newer" in query else 0,
            older=reading.micros(query["older"]) if "older" in query else 0,
        )

        linked = await self._linked()

        async def more(mark: str, limit: int) -> list[Located]:
            return await self._tree.walk(under, after=mark, limit=limit, copies=linked)

        return await self._page(request, user, more, lambda last: last.path, paging.STEP, paging.matcher(wanted))

    async def usage(self, request: web.Request, user: User) -> web.StreamResponse:
        """Sums, and the state of the stores."""
        self._door.check(user, "", "get")
        totals = await self._tree.totals()
        stores = []
        for member in self._tree.mesh.members.values():
            files, size = totals.stores.get(member.name, (0, 0))
            one = {"name": member.name, "state": member.shown, "files": files, "bytes": size}
            stores.append(one | ({"message": member.message} if member.message else {}))
        body = {"files": totals.files, "directories": totals.directories, "bytes": totals.bytes}
        return json_response(body | {"pending": totals.pending, "stores": stores})

    def _answers(self, ask: Callable[[], Awaitable[dict[str, Any]]]) -> Handler:
        async def handler(_: web.Request, user: User) -> web.StreamResponse:
            self._door.check(user, "", "get")
            return json_response(await ask())

        return handler

    def _planned(self, ledger: Ledger) -> Handler:
        async def handler(request: web.Request, user: User) -> web.StreamResponse:
            self._door.check(user, "", "get")
            return json_response(await ledger.plan(await reading.json_of(request)))

        return handler

    async def document(self, _: web.Request) -> web.Response:
        """The OpenAPI document."""
        return json_response(openapi.document(self._tree.mesh.config.name))
