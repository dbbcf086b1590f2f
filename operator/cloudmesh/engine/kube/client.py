"""One asyncio wrapper round the API server: every call has a time-out, every failure is of the taxonomy."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from cloudmesh.api.names import FIELD_MANAGER
from cloudmesh.engine.errors import AlreadyExists, Conflict, Transient
from cloudmesh.engine.kube.answers import decode, error_of, is_missing_object, status_of
from cloudmesh.engine.kube.transport import Reply, Request, Transport
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.resources import SECRET, Obj, Objs, Resource

PAGE_SIZE = 500
CALL_SECONDS = 10.0
LIST_SECONDS = 30.0
WATCH_GRACE_SECONDS = 15.0
LOG_BYTES = 1 << 20
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

_POD = Resource("v1", "Pod", "pods")

WriteObserver = Callable[[Resource, Obj], None]
WriteGuard = Callable[[Resource], None]


class Kube:
    """Calls of the API server with plain JSON objects.

    Args:
        transport: How requests travel.
        metrics: Counts calls and their seconds.
        call_seconds: Limit on each call but lists and watches.
    """

    def __init__(
        self, transport: Transport, *, metrics: Metrics | None = None, call_seconds: float = CALL_SECONDS
    ) -> None:
        self._transport = transport
        self._metrics = metrics or Metrics()
        self._call_seconds = call_seconds
        self.on_write: WriteObserver | None = None
        self.heard: tuple[str, float] | None = None
        """The last `Date` that the API server told, and when, on the loop's clock."""
        """Sees the answer of each write, so that the cache holds it before the watch tells."""
        self.write_guard: WriteGuard | None = None
        """Raises to forbid a write, such as one after the lease ran out."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Obj | None:
        """Reads one object; None only if the API server says that this very object isn't there."""
        request = Request("GET", resource.path(namespace, name), timeout_seconds=self._call_seconds)
        code, body, headers = await self._call(resource, "get", request)
        if code == 200:
            return _object(body)
        status = status_of(body)
        if is_missing_object(code, status, name):
            return None
        raise error_of(code, status, headers, f"get {request.path}")

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        page_size: int = PAGE_SIZE,
    ) -> AsyncGenerator[tuple[Objs, str]]:
        """Pages of a list, each with the list's resourceVersion.

        Raises:
            Expired: The list took so long that its continue token ran out: begin again.
        """
        query = {"limit": str(page_size)} | _selectors(label_selector, field_selector)
        path = resource.path(namespace)
        accept = PARTIAL_LIST if metadata_only else "application/json"
        while True:
            request = Request("GET", path, query=query, accept=accept, timeout_seconds=LIST_SECONDS)
            code, body, headers = await self._call(resource, "list", request)
            if code != 200:
                raise error_of(code, status_of(body), headers, f"list {path}")
            page = _object(body)
            meta = page.get("metadata") or {}
            items: Objs = page.get("items") or []
            for item in items:
                # items of built-in kinds come without them
                item.setdefault("apiVersion", resource.api_version)
                item.setdefault("kind", resource.kind)
            yield items, str(meta.get("resourceVersion", ""))
            if not (token := meta.get("continue")):
                return
            query = query | {"continue": token}

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
    ) -> tuple[Objs, str]:
        """Reads a complete list (all pages or an error) and its resourceVersion."""
        items: Objs = []
        version = ""
        async for page, version in self.pages(  # noqa: B007 - the last page's version is the answer
            resource,
            namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            metadata_only=metadata_only,
        ):
            items += page
        return items, version

    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        timeout_seconds: int,
        label_selector: str = "",
        field_selector: str = "",
        metadata_only: bool = False,
        on_open: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Obj]:
        """Events `{"type", "object"}` after a resourceVersion, bookmarks among them, until the server ends the watch.

        `on_open` is called when the server has taken the watch on, which can be long before the first event.

        Raises:
            Expired: The resourceVersion is too old.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        } | _selectors(label_selector, field_selector)
        request = Request(
            "GET",
            resource.path(namespace),
            query=query,
            accept=PARTIAL if metadata_only else "application/json",
            timeout_seconds=timeout_seconds + WATCH_GRACE_SECONDS,
        )
        reply = await self._send(resource, "watch", request)
        try:
            if reply.status != 200:
                raise error_of(reply.status, status_of(await reply.read()), reply.headers, f"watch {request.path}")
            if on_open is not None:
                on_open()
            async with contextlib.aclosing(reply.lines()) as lines:
                async for line in lines:
                    if not line.strip():
                        continue
                    event = _object(line)
                    if event.get("type") == "ERROR":
                        status = event.get("object") or {}
                        raise error_of(int(status.get("code") or 500), status, {}, f"watch {request.path}")
                    yield event
        finally:
            reply.close()

    async def read_log(self, namespace: str, pod: str, *, container: str, lines: int) -> str:
        """Reads the last lines of a container's log, at most 1 MiB.

        Raises:
            InvalidRequest: The container hasn't started.
            NotFound: The Pod is gone.
        """
        path = _POD.path(namespace, pod, "log")
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(LOG_BYTES)}
        request = Request("GET", path, query=query, timeout_seconds=self._call_seconds)
        code, body, headers = await self._call(_POD, "log", request)
        if code != 200:
            raise error_of(code, status_of(body), headers, f"log {path}")
        return body.decode(errors="replace")

    async def create(self, resource: Resource, obj: Obj) -> Obj:
        """Creates an object.

        Raises:
            AlreadyExists: One of that name is there.
        """
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"))
        return await self._write(resource, "create", self._request("POST", path, _typed(resource, obj)))

    async def replace(self, resource: Resource, obj: Obj) -> Obj:
        """Replaces an object; with a resourceVersion in it, only that version.

        Raises:
            Conflict: The object has changed since.
        """
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"])
        return await self._write(resource, "update", self._request("PUT", path, _typed(resource, obj)))

    async def apply(self, resource: Resource, obj: Obj, *, subresource: str = "", force: bool = True) -> Obj:
        """Server-side apply as field manager `cloudmesh-operator`: what is left out is given up.

        With `metadata.uid` in it, an object of another uid is never touched or made (but for its status: there the API
        server ignores the uid).

        Raises:
            Conflict: Another manager owns a field and `force` is off, or the uid is another.
        """
        meta = obj["metadata"]
        path = resource.path(meta.get("namespace"), meta["name"], subresource)
        request = self._request(
            "PATCH", path, _typed(resource, obj), APPLY_PATCH, {"force": "true" if force else "false"}
        )
        return await self._write(resource, "apply", request)

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, patch: Obj, *, subresource: str = ""
    ) -> Obj:
        """JSON merge patch; a `metadata.resourceVersion` in it makes it conditional.

        Raises:
            NotFound: The object is gone.
            Conflict: The resourceVersion is another.
        """
        path = resource.path(namespace, name, subresource)
        return await self._write(resource, "patch", self._request("PATCH", path, patch, MERGE_PATCH))

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str = "", propagation: str = "Background"
    ) -> None:
        """Deletes an object; one that is absent, or of another uid than asked, counts as deleted."""
        body: Obj = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        request = Request("DELETE", resource.path(namespace, name), body=body, timeout_seconds=self._call_seconds)
        self._guard(resource)
        code, answer, headers = await self._call(resource, "delete", request)
        if code in (200, 202):
            return
        status = status_of(answer)
        if is_missing_object(code, status, name):
            return
        error = error_of(code, status, headers, f"delete {request.path}")
        if uid and type(error) is Conflict and "uid" in str(error).lower():
            return
        raise error

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.close()

    async def _write(self, resource: Resource, verb: str, request: Request) -> Obj:
        self._guard(resource)
        code, body, headers = await self._call(resource, verb, request)
        if code in (200, 201):
            obj = _object(body)
            if self.on_write is not None:
                self.on_write(resource, obj)
            return obj
        status = status_of(body)
        if resource == SECRET:  # the server quotes what it refuses, and errors are logged
            status = status | {"message": f"the API server refused the Secret ({status.get('reason')})"}
        raise error_of(code, status, headers, f"{verb} {request.path}")

    def _request(
        self,
        method: str,
        path: str,
        body: Obj,
        content_type: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> Request:
        return Request(
            method,
            path,
            query={"fieldManager": FIELD_MANAGER} | (query or {}),
            body=body,
            content_type=content_type,
            timeout_seconds=self._call_seconds,
        )

    def _guard(self, resource: Resource) -> None:
        if self.write_guard is not None:
            self.write_guard(resource)

    async def _call(self, resource: Resource, verb: str, request: Request) -> tuple[int, bytes, Any]:
        reply = await self._send(resource, verb, request)
        try:
            return reply.status, await reply.read(), reply.headers
        finally:
            reply.close()

    async def _send(self, resource: Resource, verb: str, request: Request) -> Reply:
        begin = time.monotonic()
        code = "error"
        try:
            reply = await self._transport.send(request)
            code = str(reply.status)
            if date := reply.headers.get("Date"):
                self.heard = (date, asyncio.get_running_loop().time())
            return reply
        finally:
            self._metrics.api_call(resource.kind, verb, code, time.monotonic() - begin)


async def create_or_get(kube: Kube, resource: Resource, obj: Obj) -> Obj:
    """Creates an object, or returns the one that is there already.

    Raises:
        Conflict: It went away between the two calls: try again.
    """
    try:
        return await kube.create(resource, obj)
    except AlreadyExists:
        meta = obj["metadata"]
        found = await kube.get(resource, meta.get("namespace"), meta["name"])
        if found is None:
            raise Conflict(f"{resource.kind} {meta['name']} was there and is gone") from None
        return found


def _typed(resource: Resource, obj: Obj) -> Obj:
    return {"apiVersion": resource.api_version, "kind": resource.kind} | obj


def _selectors(label_selector: str, field_selector: str) -> dict[str, str]:
    found = {"labelSelector": label_selector, "fieldSelector": field_selector}
    return {name: value for name, value in found.items() if value}


def _object(body: bytes) -> Obj:
    found = decode(body)
    if not isinstance(found, dict):
        raise Transient(f"the API server answered {type(found).__name__} instead of an object")
    return found
