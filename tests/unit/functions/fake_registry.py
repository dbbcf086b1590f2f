"""An OCI registry in memory, with faults on order: bearer tokens, referrers, redirects, mounts that are refused.

What a real registry does is tested against a real one (tests/contract/registry); this one shows what others may do.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from cloudmesh.functions.image.oci import INDEX, sha256

Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class FakeRegistry:
    """State and switches of the registry.

    Attributes:
        faults: asked before each request; one that gives an answer gives it in place of the registry's.
        log: method, path and query of each request.
    """

    def __init__(
        self,
        *,
        auth: str = "",
        referrers: bool = False,
        mounts: str = "yes",
        redirect_to: str = "",
        username: str = "user",
        password: str = "word",
    ) -> None:
        self.auth, self.has_referrers, self.mounts, self.redirect_to = auth, referrers, mounts, redirect_to
        self.username, self.password = username, password
        self.blobs: dict[str, dict[str, bytes]] = defaultdict(dict)
        self.manifests: dict[str, dict[str, tuple[str, bytes]]] = defaultdict(dict)
        self.uploads: dict[str, bytearray] = {}
        self.tokens: dict[str, set[str]] = {}
        self.token_requests: list[list[str]] = []
        self.faults: list[Fault] = []
        self.log: list[tuple[str, str, str]] = []
        self.authorizations: list[str] = []
        self.host = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[FakeRegistry]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.host = f"127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.log.append((request.method, request.path, request.query_string))
        self.authorizations.append(request.headers.get("Authorization", ""))
        for fault in list(self.faults):
            answer = await fault(request)
            if answer is not None:
                return answer
        if request.path == "/token":
            return self._token(request)
        refused = self._refuse(request)
        if refused is not None:
            return refused
        for pattern, handler in (
            (r"/v2/(.+)/manifests/([^/]+)", self._manifest),
            (r"/v2/(.+)/blobs/uploads/([^/]*)", self._upload),
            (r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})", self._blob),
            (r"/v2/(.+)/referrers/(sha256:[0-9a-f]{64})", self._referrers),
        ):
            match = re.fullmatch(pattern, request.path)
            if match:
                return await handler(request, match[1], match[2])
        return web.Response(status=404, text="404 page not found")

    def _basic(self, request: web.Request) -> bool:
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        return request.headers.get("Authorization") == f"Basic {expected}"

    def _token(self, request: web.Request) -> web.Response:
        if not self._basic(request):
            return _problem(401, "UNAUTHORIZED")
        scopes = request.query.getall("scope", [])
        self.token_requests.append(scopes)
        token = secrets.token_hex(8)
        self.tokens[token] = set(scopes)
        return web.json_response({"token": token, "expires_in": 300})

    def _refuse(self, request: web.Request) -> web.Response | None:
        if self.auth == "basic" and not self._basic(request):
            return _problem(401, "UNAUTHORIZED", {"WWW-Authenticate": 'Basic realm="here"'})
        if self.auth == "bearer":
            shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
            needed = re.match(r"/v2/(.+)/(manifests|blobs|referrers)/", request.path)
            name = needed[1] if needed else ""
            action = "pull" if request.method in ("GET", "HEAD") else "pull,push"
            wanted = {f"repository:{name}:{action}"}
            if "from" in request.query:
                wanted.add(f"repository:{request.query['from']}:pull")
            scopes = self.tokens.get(shown)
            if scopes is None or not all(
                item in scopes or item.replace(":pull", ":pull,push") in scopes for item in wanted
            ):
                realm = f'Bearer realm="http://{self.host}/token",service="fake",scope="{" ".join(sorted(wanted))}"'
                return _problem(401, "UNAUTHORIZED", {"WWW-Authenticate": realm})
        return None

    async def _manifest(self, request: web.Request, name: str, reference: str) -> web.Response:
        store = self.manifests[name]
        if request.method == "PUT":
            data = await request.read()
            digest, media_type = sha256(data), request.headers["Content-Type"]
            store[digest] = store[reference] = (media_type, data)
            headers = {"Docker-Content-Digest": digest}
            subject = json.loads(data).get("subject")
            if subject and self.has_referrers:
                headers["OCI-Subject"] = subject["digest"]
            return web.Response(status=201, headers=headers)
        if reference not in store:
            return _problem(404, "MANIFEST_UNKNOWN")
        media_type, data = store[reference]
        headers = {"Docker-Content-Digest": sha256(data), "Content-Type": media_type}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(len(data))})
        return web.Response(body=data, headers=headers)

    async def _upload(self, request: web.Request, name: str, upload: str) -> web.Response:
        place = f"/v2/{name}/blobs/uploads/"
        if request.method == "POST":
            mount, source = request.query.get("mount"), request.query.get("from", "")
            if mount and self.mounts == "refused":
                return _problem(403, "DENIED")
            if mount and self.mounts == "yes" and mount in self.blobs[source]:
                self.blobs[name][mount] = self.blobs[source][mount]
                return web.Response(status=201, headers={"Location": f"/v2/{name}/blobs/{mount}"})
            upload = secrets.token_hex(8)
            self.uploads[upload] = bytearray()
            return web.Response(status=202, headers={"Location": f"{place}{upload}?_state=a%2Fb"})
        content = self.uploads.get(upload)
        if content is None:
            return _problem(404, "BLOB_UPLOAD_UNKNOWN")
        headers = {"Location": f"{place}{upload}?_state=a%2Fb", "Range": f"0-{max(len(content) - 1, 0)}"}
        if request.method == "GET":
            return web.Response(status=204, headers=headers)
        if request.query.get("_state") != "a/b":
            return _problem(400, "BLOB_UPLOAD_INVALID")
        if request.method == "PATCH":
            start = int(request.headers["Content-Range"].partition("-")[0])
            if start != len(content):
                return web.Response(status=416, headers=headers)
            content += await request.read()
            headers["Range"] = f"0-{len(content) - 1}"
            return web.Response(status=202, headers=headers)
        content += await request.read()
        digest = request.query["digest"]
        if sha256(content) != digest:
            return _problem(400, "DIGEST_INVALID")
        self.blobs[name][digest] = bytes(content)
        del self.uploads[upload]
        return web.Response(status=201, headers={"Docker-Content-Digest": digest})

    async def _blob(self, request: web.Request, name: str, digest: str) -> web.Response:
        if digest not in self.blobs[name]:
            return _problem(404, "BLOB_UNKNOWN")
        if request.method == "GET" and self.redirect_to:
            return web.Response(status=307, headers={"Location": f"http://{self.redirect_to}/{digest}"})
        data = self.blobs[name][digest]
        if request.method == "HEAD":
            return web.Response(headers={"Content-Length": str(len(data))})
        return web.Response(body=data)

    async def _referrers(self, request: web.Request, name: str, digest: str) -> web.Response:
        if not self.has_referrers:
            return web.Response(status=404, text="404 page not found")
        listed = []
        for key, (media_type, data) in self.manifests[name].items():
            value: dict[str, Any] = json.loads(data)
            if key.startswith("sha256:") and value.get("subject", {}).get("digest") == digest:
                listed.append(
                    {"mediaType": media_type, "digest": key, "size": len(data), "artifactType": value["artifactType"]}
                )
        return web.json_response({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed}, content_type=INDEX)


def _problem(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": code.lower()}]}, status=status, headers=headers)


def _first(count: int, method: str, part: str, act: Fault) -> Fault:
    """Acts on the first `count` requests of a method whose path holds `part`."""
    left = [count]

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if request.method == method and part in request.path and left[0]:
            left[0] -= 1
            return await act(request)
        return None

    return fault


def times(count: int, method: str, part: str, answer: Callable[[], web.Response]) -> Fault:
    """Answer the first `count` requests of a method whose path holds `part`."""

    async def act(request: web.Request) -> web.Response:
        await request.read()
        return answer()

    return _first(count, method, part, act)


def reset(count: int, method: str, part: str, after: int = 0) -> Fault:
    """Cut the connection in the first `count` requests, once `after` bytes of the body were read."""

    async def act(request: web.Request) -> web.Response:
        if after:
            await request.content.read(after)
        assert request.transport is not None
        request.transport.abort()
        await asyncio.sleep(0)
        return web.Response(status=500)

    return _first(count, method, part, act)


def hang(count: int, method: str, part: str, seconds: float = 30) -> Fault:
    """Let the first `count` requests wait."""

    async def act(request: web.Request) -> None:
        await asyncio.sleep(seconds)

    return _first(count, method, part, act)
