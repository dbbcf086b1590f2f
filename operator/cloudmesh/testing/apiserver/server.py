"""The memory API server as a transport: what the engine's client sends, it answers, without a socket."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import email.utils
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any

import msgspec

from cloudmesh.engine.kube.transport import Reply, Request
from cloudmesh.engine.resources import CONFIG_MAP, EVENT, LEASE, SECRET, Obj, Resource
from cloudmesh.testing.apiserver.apply import FieldConflict, apply_fields, copied, merge_patch
from cloudmesh.testing.apiserver.discovery import discover
from cloudmesh.testing.apiserver.selectors import Predicate, field_predicate, label_predicate
from cloudmesh.testing.apiserver.store import Event, Name, Store

BOOKMARK_SECONDS = 55.0
BUILT_IN = (
    Resource("v1", "Namespace", "namespaces", namespaced=False),
    Resource("v1", "Pod", "pods"),
    Resource("v1", "Service", "services"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("apps/v1", "StatefulSet", "statefulsets"),
    Resource("apps/v1", "ControllerRevision", "controllerrevisions"),
    Resource("batch/v1", "Job", "jobs"),
    Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("networking.k8s.io/v1", "Ingress", "ingresses"),
    Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
)
WITHOUT_STATUS = (CONFIG_MAP, SECRET, EVENT, LEASE)
PLAIN = {"ServiceAccount", "ControllerRevision", "EndpointSlice"}


class Refused(Exception):
    """The server says no; carries the `Status` object."""

    def __init__(self, code: int, reason: str, message: str, *, name: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "code": code,
            "reason": reason,
            "message": message,
        }
        if name:
            self.status["details"] = {"name": name}


Admission = Callable[[str, Resource, Obj], None]
"""Sees each write (`create` or `update`) before it is stored; raises `Refused`, may change the object (defaults)."""


class MemoryReply:
    """An answer that lies ready, or a watch."""

    def __init__(self, status: int, body: bytes, stream: AsyncGenerator[bytes, None] | None = None) -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"Content-Type": "application/json"}
        self._body = body
        self._stream = stream

    async def read(self) -> bytes:
        """The whole body."""
        if self._stream is not None:
            return b"".join([line async for line in self._stream])
        return self._body

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """The body's lines as they arrive."""
        if self._stream is None:
            for line in self._body.splitlines(keepends=True):
                yield line
            return
        async with contextlib.aclosing(self._stream) as stream:
            async for line in stream:
                yield line

    def close(self) -> None:
        """A watch ends with its iterator."""


class MemoryApi:
    """Lists with pages, watches with bookmarks and 410, resourceVersions and conflicts, generation, finalizers, owner
    garbage collection, merge patch, simplified server-side apply with the status subresource.

    No schemas, defaults, CEL, RBAC: `admit` stands in where a test needs one of them.

    Args:
        resources: Kinds to serve besides the usual built-in ones.
        latency_seconds: Added to each call, on the event loop's clock.
    """

    def __init__(self, resources: Iterable[Resource] = (), *, latency_seconds: float = 0.0) -> None:
        self.store = Store(_now)
        self.latency_seconds = latency_seconds
        self.admit: list[Admission] = []
        self.tells_date = False
        """Whether answers carry the header `Date`, by the clock of the store."""
        self.calls: list[str] = []
        """`METHOD path` of each call."""
        self._served: dict[tuple[str, str], Resource] = {}
        self._pages: dict[str, tuple[int, list[Obj]]] = {}
        for resource in (*BUILT_IN, *WITHOUT_STATUS, *resources):
            self.serve(resource)

    def serve(self, resource: Resource) -> None:
        """Serves one more kind, as a new custom resource definition would."""
        self._served[(resource.api_version, resource.plural)] = resource

    def withdraw(self, resource: Resource) -> None:
        """Serves a kind no more."""
        del self._served[(resource.api_version, resource.plural)]

    @property
    def resources(self) -> list[Resource]:
        """Kinds that are served."""
        return list(self._served.values())

    # what tests do behind the operator's back

    def put(self, resource: Resource, obj: Obj) -> Obj:
        """A user creates an object, or changes spec, labels and annotations of one that is there."""
        name = _name(resource, obj)
        new = {"apiVersion": resource.api_version, "kind": resource.kind} | copied(obj)
        old = self.store.get(resource, name)
        if old is None:
            return self.store.create(resource, name, new, has_status=_has_status(resource))
        if "status" not in new and "status" in old:
            new["status"] = old["status"]
        new["metadata"] = old["metadata"] | new["metadata"]
        return self.store.update(resource, name, new, has_status=_has_status(resource))

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        """A copy of an object as it is."""
        return self.store.get(resource, (namespace, name))

    def all(self, resource: Resource) -> list[Obj]:
        """Copies of all objects of a kind."""
        return [copied(obj) for _, obj in sorted(self.store.objects.get(resource, {}).items())]

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """A user deletes an object."""
        self.store.delete(resource, (namespace, name))

    def set_status(self, resource: Resource, namespace: str, name: str, status: Obj) -> Obj:
        """Another controller writes a status."""
        obj = self.store.get(resource, (namespace, name))
        if obj is None:
            raise KeyError(f"{resource.kind} {namespace}/{name}")
        obj["status"] = status
        return self.store.update(resource, (namespace, name), obj, has_status=_has_status(resource))

    def writes(self, resource: Resource | None = None) -> int:
        """How many changes were stored, of a kind or of all but Leases and Events."""
        if resource is not None:
            return sum(1 for _, kind, _ in self.store.writes if kind == resource)
        return sum(1 for _, kind, _ in self.store.writes if kind not in (LEASE, EVENT))

    # the transport

    async def send(self, request: Request) -> Reply:
        """Answers a request."""
        await asyncio.sleep(self.latency_seconds)
        self.calls.append(f"{request.method} {request.path}")
        reply = self._reply(request)
        if self.tells_date:
            moment = datetime.datetime.fromisoformat(self.store._now())
            reply.headers = {**reply.headers, "Date": email.utils.format_datetime(moment, usegmt=True)}
        return reply

    def _reply(self, request: Request) -> MemoryReply:
        try:
            found = self.handle(request)
        except Refused as refused:
            return MemoryReply(refused.code, msgspec.json.encode(refused.status))
        if isinstance(found, tuple):
            return MemoryReply(found[0], msgspec.json.encode(found[1]))
        return MemoryReply(200, b"", found)

    async def close(self) -> None:
        """Other clients may go on."""

    def handle(self, request: Request) -> tuple[int, Obj] | AsyncGenerator[bytes, None]:
        """Answers with a status and an object, or with a watch.

        Raises:
            Refused: As an API server refuses.
        """
        if request.method == "GET" and (document := discover(request.path, self.resources)) is not None:
            return 200, document
        resource, namespace, name, subresource = self._route(request.path)
        query = request.query
        if request.method == "GET" and name is None:
            if query.get("watch") in ("true", "1"):
                return self._watch(resource, namespace, query, partial="PartialObjectMetadata" in request.accept)
            return 200, self._list(resource, namespace, query, partial="PartialObjectMetadata" in request.accept)
        if request.method in ("POST", "PUT") or "apply-patch" in request.content_type:
            told = (request.body.get("apiVersion"), request.body.get("kind"))
            if told != (resource.api_version, resource.kind):
                raise Refused(
                    400, "BadRequest", f"the object provided is unrecognized (must be of type {resource.kind})"
                )
        if request.method == "POST" and name is None:
            return 201, self._create(resource, namespace, copied(request.body))
        if name is None:
            raise Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
        where = (namespace, name)
        match request.method:
            case "GET":
                return 200, self._existing(resource, where)
            case "PUT":
                return 200, self._replace(resource, where, subresource, copied(request.body))
            case "PATCH" if "apply-patch" in request.content_type:
                return self._apply(resource, where, subresource, copied(request.body), query)
            case "PATCH" if "merge-patch" in request.content_type:
                return 200, self._merge(resource, where, subresource, request.body)
            case "PATCH":
                raise Refused(415, "UnsupportedMediaType", f"the body of the request was in {request.content_type}")
            case "DELETE":
                return 200, self._delete(resource, where, request.body or {})
            case _:
                raise Refused(405, "MethodNotAllowed", "the server does not allow this method")

    def _route(self, path: str) -> tuple[Resource, str, str | None, str]:
        parts = path.strip("/").split("/")
        api_version = parts[1] if parts[0] == "api" else "/".join(parts[1:3])
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = ""
        if len(rest) >= 3 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        resource = self._served.get((api_version, rest[0])) if rest else None
        if resource is None:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        return resource, namespace, (rest[1] if len(rest) > 1 else None), (rest[2] if len(rest) > 2 else "")

    def _existing(self, resource: Resource, where: Name) -> Obj:
        obj = self.store.get(resource, where)
        if obj is None:
            raise Refused(404, "NotFound", f'{resource.plural} "{where[1]}" not found', name=where[1])
        return obj

    def _create(self, resource: Resource, namespace: str, obj: Obj) -> Obj:
        meta = obj.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{self.store.version:x}"
        if not meta.get("name"):
            raise Refused(422, "Invalid", "metadata.name: Required value: name or generateName is required")
        where = (namespace if resource.namespaced else "", meta["name"])
        if self.store.get(resource, where) is not None:
            raise Refused(409, "AlreadyExists", f'{resource.plural} "{where[1]}" already exists', name=where[1])
        obj |= {"apiVersion": resource.api_version, "kind": resource.kind}
        if _has_status(resource):
            obj.pop("status", None)
        self._admit("create", resource, obj)
        return self.store.create(resource, where, obj, has_status=_has_status(resource))

    def _replace(self, resource: Resource, where: Name, subresource: str, obj: Obj) -> Obj:
        old = self._existing(resource, where)
        self._check_preconditions(resource, old, obj.get("metadata") or {})
        return self._store(resource, where, subresource, old, obj)

    def _merge(self, resource: Resource, where: Name, subresource: str, patch: Obj) -> Obj:
        old = self._existing(resource, where)
        self._check_preconditions(resource, old, patch.get("metadata") or {}, patching=True)
        return self._store(resource, where, subresource, old, merge_patch(old, patch))

    def _apply(
        self, resource: Resource, where: Name, subresource: str, applied: Obj, query: Mapping[str, str]
    ) -> tuple[int, Obj]:
        if not query.get("fieldManager"):
            raise Refused(400, "BadRequest", "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value")
        old = self.store.get(resource, where)
        meta = applied.get("metadata") or {}
        if "managedFields" in meta:
            raise Refused(400, "BadRequest", "metadata.managedFields must be nil")
        manager = query["fieldManager"] + (f"/{subresource}" if subresource else "")
        if old is None:
            if subresource:
                raise Refused(404, "NotFound", f'{resource.plural} "{where[1]}" not found', name=where[1])
            if meta.get("uid"):
                raise Refused(
                    409, "Conflict", f"Precondition failed: UID in precondition: {meta['uid']}", name=where[1]
                )
            made = self._create(resource, where[0], copied(applied))
            owned: dict[str, set[tuple[str, ...]]] = {}
            apply_fields(made, applied, owned, manager, force=True)
            self.store.owned[made["metadata"]["uid"]] = owned
            return 201, made
        if subresource == "status":  # there the real one doesn't mind the uid either
            self._check_preconditions(resource, old, {"resourceVersion": meta.get("resourceVersion")}, patching=True)
        else:
            self._check_preconditions(resource, old, meta, patching=True)
        uid = old["metadata"]["uid"]
        owned = {name: set(paths) for name, paths in self.store.owned.get(uid, {}).items()}
        if subresource == "status":
            applied = {"metadata": meta, "status": applied.get("status") or {}}
        elif _has_status(resource):
            applied.pop("status", None)
        try:
            new = apply_fields(old, applied, owned, manager, force=query.get("force") == "true")
        except FieldConflict as conflict:
            raise Refused(409, "Conflict", f"Apply failed with 1 conflict: {conflict}", name=where[1]) from None
        stored = self._store(resource, where, subresource, old, new)
        self.store.owned[uid] = owned
        return 200, stored

    def _store(self, resource: Resource, where: Name, subresource: str, old: Obj, new: Obj) -> Obj:
        if subresource == "status":
            new = old | {"status": new.get("status", {})}
        elif subresource:
            raise Refused(404, "NotFound", "the server could not find the requested resource")
        elif _has_status(resource):
            new = {name: value for name, value in new.items() if name != "status"}
            if "status" in old:
                new["status"] = old["status"]
        new = copied(new)
        added = set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ())
        if added and old["metadata"].get("deletionTimestamp"):
            raise Refused(
                422, "Invalid", "metadata.finalizers: Forbidden: no new finalizers can be added", name=where[1]
            )
        self._admit("update", resource, new)
        return self.store.update(resource, where, new, has_status=_has_status(resource))

    def _delete(self, resource: Resource, where: Name, options: Obj) -> Obj:
        obj = self._existing(resource, where)
        self._check_preconditions(resource, obj, options.get("preconditions") or {})
        return self.store.delete(resource, where)

    def _check_preconditions(
        self, resource: Resource, old: Obj, wanted: Mapping[str, Any], *, patching: bool = False
    ) -> None:
        for field, told in (("uid", "UID"), ("resourceVersion", "resource version")):
            if patching and field == "uid" and wanted.get("uid", old["metadata"]["uid"]) != old["metadata"]["uid"]:
                refused = Refused(422, "Invalid", "metadata.uid: Invalid value: field is immutable")
                refused.status["details"] = {"name": old["metadata"]["name"], "causes": [{"field": "metadata.uid"}]}
                raise refused
            if wanted.get(field) and wanted[field] != old["metadata"][field]:
                raise Refused(
                    409,
                    "Conflict",
                    f"Operation cannot be fulfilled on {resource.plural}: Precondition failed: {told} in precondition: "
                    f"{wanted[field]}, {told} in object meta: {old['metadata'][field]}",
                    name=old["metadata"]["name"],
                )

    def _admit(self, act: str, resource: Resource, obj: Obj) -> None:
        for check in self.admit:
            check(act, resource, obj)

    def _list(self, resource: Resource, namespace: str, query: Mapping[str, str], *, partial: bool) -> Obj:
        limit = int(query.get("limit") or 0)
        if token := query.get("continue"):
            if token not in self._pages or self._pages[token][0] < self.store.compacted:
                raise Refused(410, "Expired", "The provided continue parameter is too old")
            version, items = self._pages.pop(token)
        else:
            matches = _predicate(query)
            version = self.store.version
            items = [
                copied(obj)
                for (space, _), obj in sorted(self.store.objects.get(resource, {}).items())
                if (not namespace or space == namespace) and matches(obj)
            ]
        meta: Obj = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = base64.urlsafe_b64encode(f"{version}:{len(items)}:{len(self._pages)}".encode()).decode()
            self._pages[token] = (version, items[limit:])
            meta |= {"continue": token, "remainingItemCount": len(items) - limit}
            items = items[:limit]
        kind = "PartialObjectMetadataList" if partial else f"{resource.kind}List"
        return {
            "kind": kind,
            "apiVersion": "meta.k8s.io/v1" if partial else resource.api_version,
            "metadata": meta,
            "items": [_partial(item) for item in items] if partial else items,
        }

    def _watch(
        self, resource: Resource, namespace: str, query: Mapping[str, str], *, partial: bool
    ) -> AsyncGenerator[bytes, None]:
        since = int(query.get("resourceVersion") or 0)
        if since and since < self.store.compacted:
            raise Refused(410, "Expired", f"too old resource version: {since} ({self.store.compacted})")
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        matches = _predicate(query)
        first: list[Obj] = []
        if since == 0:
            listed = self._list(
                resource, namespace, {k: v for k, v in query.items() if "Selector" in k}, partial=partial
            )
            first = [{"type": "ADDED", "object": item} for item in listed["items"]]
        else:
            for event in self.store.history:
                if event.version > since and event.resource == resource:
                    queue.put_nowait(event)
        self.store.watchers[queue] = resource
        return self._stream(resource, namespace, query, queue, first, matches, partial=partial)

    async def _stream(
        self,
        resource: Resource,
        namespace: str,
        query: Mapping[str, str],
        queue: asyncio.Queue[Event | None],
        first: list[Obj],
        matches: Predicate,
        *,
        partial: bool,
    ) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        end = loop.time() + float(query.get("timeoutSeconds") or 1800)
        bookmarks = query.get("allowWatchBookmarks") == "true"
        try:
            for item in first:
                yield _line(item)
            while (left := end - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(left, BOOKMARK_SECONDS)):
                        event = await queue.get()
                except TimeoutError:
                    if bookmarks:
                        meta = {"resourceVersion": str(self.store.version)}
                        mark = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": meta}
                        yield _line({"type": "BOOKMARK", "object": mark})
                    continue
                if event is None:
                    return
                if told := _told(event, resource, namespace, matches, partial=partial):
                    yield _line(told)
        finally:
            self.store.watchers.pop(queue, None)


def _told(event: Event, resource: Resource, namespace: str, matches: Predicate, *, partial: bool) -> Obj | None:
    if event.resource != resource:
        return None
    some = event.new or event.old or {}
    if namespace and some["metadata"].get("namespace") != namespace:
        return None
    before = event.old is not None and matches(event.old)
    after = event.new is not None and matches(event.new)
    if after:
        obj, type_ = event.new or {}, "MODIFIED" if before else "ADDED"
    elif before:
        obj, type_ = copied(event.old or {}), "DELETED"
        obj["metadata"]["resourceVersion"] = str(event.version)
    else:
        return None
    return {"type": type_, "object": _partial(obj) if partial else obj}


def _predicate(query: Mapping[str, str]) -> Predicate:
    try:
        labels, fields = (
            label_predicate(query.get("labelSelector", "")),
            field_predicate(query.get("fieldSelector", "")),
        )
    except ValueError as error:
        raise Refused(400, "BadRequest", str(error)) from None
    return lambda obj: labels(obj) and fields(obj)


def _partial(obj: Obj) -> Obj:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _line(event: Obj) -> bytes:
    return msgspec.json.encode(event) + b"\n"


def _name(resource: Resource, obj: Obj) -> Name:
    meta = obj["metadata"]
    return (meta.get("namespace", "default") if resource.namespaced else "", meta["name"])


def _has_status(resource: Resource) -> bool:
    return resource not in WITHOUT_STATUS and resource.kind not in PLAIN


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
