"""The reconciler of FunctionService: observe, advance the build, plan, apply."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api import names
from cloudmesh.api.functionservice import FunctionService
from cloudmesh.engine import (
    CONFIG_MAP,
    AlreadyExists,
    CloudmeshError,
    Done,
    Engine,
    InvalidRequest,
    Key,
    Resource,
    Settings,
    is_owned_by,
    utc_now,
)
from cloudmesh.functions.builder_client import BuilderClient
from cloudmesh.functions.buildline import Builder, BuildLine
from cloudmesh.functions.inputs import Inputs, SourceMissing, references
from cloudmesh.functions.plan import Asked, Event, Line, Observed, Plan, Unreachable, is_verdict, plan
from cloudmesh.functions.pod_metrics import HttpPodMetrics, PodMetrics, import_seconds
from cloudmesh.functions.resources import make_pod_template, openapi_name, with_image
from cloudmesh.functions.revision import (
    FAILED,
    WORKED,
    Revision,
    Wanted,
    make_revision,
    next_number,
    read_revision,
    read_revisions,
    revision_name,
)
from cloudmesh.functions.secrets import ensure_secrets
from cloudmesh.functions.steps import Built, Failed, Waiting

Obj = dict[str, Any]

FUNCTION_SERVICE = Resource(names.API_VERSION, "FunctionService", "functionservices")
DEPLOYMENT = Resource("apps/v1", "Deployment", "deployments")
SERVICE = Resource("v1", "Service", "services")
AUTOSCALER = Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
REVISION = Resource("apps/v1", "ControllerRevision", "controllerrevisions")
POD = Resource("v1", "Pod", "pods")

_BY_KIND = {r.kind: r for r in (DEPLOYMENT, SERVICE, AUTOSCALER, CONFIG_MAP)}

REPAIR_EVERY_SECONDS = 20.0
SECRETS_EVERY_SECONDS = 60.0


class FunctionReconciler:
    """Keeps every FunctionService as its spec asks.

    Args:
        engine: access to the cluster.
        builder: parses, locks and builds.
        pod_metrics: reads the metrics of Pods; a parameter for tests.
        pull_secret: name of the Secret that nodes pull with from the installation's registry; empty for none.
        now: the time as RFC 3339; a parameter for tests.
        monotonic: seconds on a clock that never goes back.
    """

    resource = FUNCTION_SERVICE
    owns = (DEPLOYMENT, SERVICE, AUTOSCALER, CONFIG_MAP, REVISION, POD)

    def __init__(
        self,
        engine: Engine,
        builder: Builder,
        *,
        pod_metrics: PodMetrics | None = None,
        pull_secret: str = "",
        now: Callable[[], str] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._inputs = Inputs(engine.kube)
        self._line = BuildLine(builder)
        self._pod_metrics = pod_metrics or HttpPodMetrics()
        self._pull_secret = pull_secret
        self._now = now or utc_now
        self._monotonic = monotonic
        self._repaired: dict[Key, float] = {}

    def forget(self, key: Key) -> None:
        """The object is gone; its children go by their owner references."""
        self._line.forget(key.namespace, key.name)
        self._repaired.pop(key, None)

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        """One pass. See `plan` for what it decides."""
        if obj["metadata"].get("deletionTimestamp"):
            return Done()
        if (obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_PAUSED) == "true":
            return await self._pause(obj)
        if not c.find_condition((obj.get("status") or {}).get("conditions") or [], c.READY):
            obj = await self._write_pending(obj)
        function = FunctionService.model_validate(obj)
        asked, unresolved = _asked(function), None
        self._engine.references.set(key, references(function))
        observed = self._observe(obj)
        wanted: Wanted | None = None
        try:
            wanted = await self._inputs.wanted(obj, function)
        except SourceMissing as missing:
            unresolved = Failed("SourceInvalid", str(missing), done=0)
        content = wanted.content if wanted is not None else ""
        kept = next((r for r in reversed(observed.revisions) if content and r.content == content), None)
        line: Line = unresolved
        raised: CloudmeshError | None = None
        if wanted is not None and kept is None and not asked.pin:
            try:
                line, kept, observed = await self._build(key, obj, wanted, observed)
            except CloudmeshError as error:
                line, raised = Unreachable(_unreachable_reason(error), str(error)), error
        decided = plan(obj, asked, kept, line, observed, self._now())
        try:
            conflict = await self._apply(obj, decided, observed)
        except InvalidRequest as error:
            observed = replace(observed, refused=f"the API server refuses what the spec makes: {error}")
        else:
            observed = replace(observed, conflict=conflict or observed.conflict)
        if observed.conflict or observed.refused:
            decided = plan(obj, asked, kept, line, observed, self._now())
        # A new leader comes to its verdict in its own time: until then the old one stands.
        if not (isinstance(line, Waiting | Unreachable) and is_verdict(obj)):
            await self._add_import_seconds(obj, decided.status, observed)
            await self._engine.status.write(FUNCTION_SERVICE, obj, decided.status)
            for event in decided.events:
                self._tell(obj, event)
        if raised is not None:
            raise raised
        if decided.repair:
            await self._repair(key, obj, decided.repair, observed, content)
        elif kept is not None:
            self._line.forget(key.namespace, key.name)
        return Done(requeue_after=decided.requeue_after)

    async def _add_import_seconds(self, obj: Obj, status: Obj, observed: Observed) -> None:
        """Asks a Pod once a revision; what is known is kept."""
        old, serving = obj.get("status") or {}, status.get("servingRevision")
        if not serving:
            return
        if old.get("servingRevision") == serving and "importSeconds" in old:
            status["importSeconds"] = old["importSeconds"]
        elif c.is_true(status["conditions"], c.READY):
            seconds = await import_seconds(self._pod_metrics, observed.pods, serving)
            if seconds is not None:
                status["importSeconds"] = seconds

    # -- observing ---------------------------------------------------------------------------------------------------

    def _observe(self, obj: Obj) -> Observed:
        uid, name = obj["metadata"]["uid"], obj["metadata"]["name"]

        def child(resource: Resource, child_name: str) -> Obj | None:
            found = self._engine.cache.get(resource, obj["metadata"]["namespace"], child_name)
            if found is None or found["metadata"].get("deletionTimestamp"):
                return None
            return found if _ours(found, obj) else None

        return Observed(
            revisions=read_revisions(self._engine.cache.children(uid, REVISION)),
            deployment=child(DEPLOYMENT, name),
            service=child(SERVICE, name),
            autoscaler=child(AUTOSCALER, name),
            openapi=child(CONFIG_MAP, openapi_name(name)),
            pods=tuple(self._engine.cache.children(uid, POD)),
        )

    # -- building ----------------------------------------------------------------------------------------------------

    async def _build(
        self, key: Key, obj: Obj, wanted: Wanted, observed: Observed
    ) -> tuple[Line, Revision | None, Observed]:
        def known_lock(inputs: str) -> str | None:
            for revision in reversed(observed.revisions):
                if inputs and revision.data.get("lockInputs") == inputs:
                    return str(revision.data["lock"])
            return None

        try:
            sources = await self._inputs.sources(wanted)
        except SourceMissing as missing:
            return Failed("BuildFailed", str(missing), done=0), None, observed
        step = await self._line.advance(wanted, known_lock, sources, rebuild=bool(wanted.rebuild))
        if isinstance(step, Failed) and step.kind in ("RegistryUnavailable", "IndexUnavailable"):
            raise _Unavailable(step.kind, step.message)
        if not isinstance(step, Built):
            return step, None, observed
        try:
            revision = await self._keep(obj, wanted, step)
        except NamesTaken as taken:
            return None, None, replace(observed, conflict=str(taken))
        self._line.forget(key.namespace, key.name)
        return None, revision, _with_revision(observed, revision)

    async def _keep(self, obj: Obj, wanted: Wanted, built: Built, *, template_of: Revision | None = None) -> Revision:
        """Writes the revision; its name is the next that is free, also if another one took it a moment ago."""
        if template_of is not None:
            template = with_image(template_of.template, built.image)
        else:
            template = make_pod_template(obj, wanted, built.image, pull_secret=self._pull_secret)
        known = list(self._engine.cache.children(obj["metadata"]["uid"], REVISION))
        number = next_number(wanted.name, known)
        for candidate in range(number, number + 20):
            body = make_revision(obj, wanted, candidate, {**built.data, "template": template})
            try:
                stored = await self._engine.kube.create(REVISION, body)
            except AlreadyExists:
                there = await self._engine.kube.get(REVISION, wanted.namespace, body["metadata"]["name"])
                # A lost answer of ours: the same content under the same name.
                read = read_revision(there) if there is not None and _ours(there, obj) else None
                if read is not None and read.content == wanted.content:
                    return read
                continue
            return read_revisions([stored])[0]
        first = revision_name(wanted.name, number)
        raise NamesTaken(
            f"ControllerRevisions from '{first}' on exist and aren't of this FunctionService; "
            "delete them or give the function another name"
        )

    async def _repair(self, key: Key, obj: Obj, name: str, observed: Observed, content: str) -> None:
        """The registry lost an image that is to run: it is built again of what the revision holds."""
        revision = next(r for r in observed.revisions if r.name == name)
        last = self._repaired.get(key)
        if last is not None and self._monotonic() - last < REPAIR_EVERY_SECONDS:
            return
        again = revision.wanted(key.namespace, key.name)
        try:
            sources = await self._inputs.sources(again)
        except SourceMissing as missing:
            self._tell(obj, Event("Warning", "ImageLost", f"{revision.image} can't be built again: {missing}"))
            return
        step = await self._line.advance(again, lambda _: str(revision.data["lock"]), sources)
        if isinstance(step, Waiting):
            self._engine.enqueue(key, after=step.after)
            return
        self._repaired[key] = self._monotonic()
        self._line.forget(key.namespace, key.name)
        if isinstance(step, Failed):
            self._tell(obj, Event("Warning", "ImageLost", f"{revision.image} can't be built again: {step.message}"))
        elif step.image == revision.image:
            self._tell(obj, Event("Normal", "ImageRestored", f"the registry had lost {step.image}; it was built again"))
        elif revision.content == content:
            # Base or runtime are newer than the revision: what comes of it now is a revision of its own.
            await self._keep(obj, again, step, template_of=revision)
        else:
            message = f"{revision.image} can't be built again as it was: base or runtime have changed since"
            self._tell(obj, Event("Warning", "ImageLost", message))

    # -- applying ----------------------------------------------------------------------------------------------------

    async def _apply(self, obj: Obj, decided: Plan, observed: Observed) -> str:
        """Carries the plan out. Gives the message of a name conflict, or nothing."""
        for desired in decided.apply:
            if conflict := await self._put(obj, desired):
                return conflict
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        kube = self._engine.kube
        if decided.delete_autoscaler and observed.autoscaler is not None:
            await kube.delete(AUTOSCALER, namespace, name, uid=observed.autoscaler["metadata"]["uid"])
        if decided.mark_worked:
            patch = {"metadata": {"annotations": {WORKED: "true", FAILED: None}}}
            await kube.patch(REVISION, namespace, decided.mark_worked, patch)
        if decided.mark_failed:
            revision, message = decided.mark_failed
            await kube.patch(REVISION, namespace, revision, {"metadata": {"annotations": {FAILED: message[:2000]}}})
        for revision in decided.prune:
            await kube.delete(REVISION, namespace, revision)
        return ""

    async def _put(self, obj: Obj, desired: Obj) -> str:
        resource = _BY_KIND[desired["kind"]]
        namespace, name = desired["metadata"]["namespace"], desired["metadata"]["name"]
        known = self._engine.cache.get(resource, namespace, name)
        if known is not None and _ours(known, obj):
            await self._engine.kube.apply(resource, desired)
            return ""
        # Never seen: a create fails where something has the name, an apply would take it over.
        try:
            await self._engine.kube.create(resource, desired)
        except AlreadyExists:
            there = await self._engine.kube.get(resource, namespace, name)
            if there is None or there["metadata"].get("deletionTimestamp"):
                raise _Unavailable("Pending", f"{desired['kind']} '{name}' is being deleted") from None
            if not _ours(there, obj):
                if _of_earlier_life(there):
                    raise _Unavailable(
                        "Pending", f"{desired['kind']} '{name}' of a deleted FunctionService is going"
                    ) from None
                return (
                    f"{desired['kind']} '{name}' exists and isn't of this FunctionService; "
                    "delete it or give the function another name"
                )
            await self._engine.kube.apply(resource, desired)
        return ""

    # -- telling -----------------------------------------------------------------------------------------------------

    def _tell(self, obj: Obj, event: Event) -> None:
        self._engine.events.emit(obj, event.type, event.reason, event.message)

    async def _write_pending(self, obj: Obj) -> Obj:
        """Ready is there before anything is done, so that a client that waits never sees an object without it."""
        conditions = c.Conditions.of(obj, self._now(), anew=True)
        conditions.ready("Unknown", c.REASON_PENDING, "seen", reconciling=True)
        status = {"observedGeneration": conditions.generation, "conditions": conditions.list}
        await self._engine.status.write(FUNCTION_SERVICE, obj, status)
        return {**obj, "status": {**(obj.get("status") or {}), **status}}

    async def _pause(self, obj: Obj) -> Done:
        conditions = c.Conditions.of(obj, self._now())
        conditions.pause(names.ANNOTATION_PAUSED)
        await self._engine.status.write(
            FUNCTION_SERVICE, obj, {**(obj.get("status") or {}), "conditions": conditions.list}
        )
        return Done()


class NamesTaken(Exception):
    """The names that the next revision could have are others'."""


class _Unavailable(CloudmeshError):
    """Something outside doesn't answer; `kind` is the builder's error class."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _unreachable_reason(error: CloudmeshError) -> str:
    kind = getattr(error, "kind", "")
    if kind == "RegistryUnavailable":
        return c.REASON_REGISTRY_UNAVAILABLE
    return c.REASON_PENDING if kind in ("IndexUnavailable", "Pending") else c.REASON_BUILDER_UNAVAILABLE


def _ours(child: Mapping[str, Any], owner: Mapping[str, Any]) -> bool:
    return is_owned_by(dict(child), owner["metadata"]["uid"])


def _of_earlier_life(child: Mapping[str, Any]) -> bool:
    labels = child["metadata"].get("labels") or {}
    return (
        labels.get(names.LABEL_MANAGED_BY) == names.MANAGED_BY
        and labels.get(names.LABEL_OWNER_KIND) == FUNCTION_SERVICE.kind
        and any(r.get("kind") == FUNCTION_SERVICE.kind for r in child["metadata"].get("ownerReferences") or [])
    )


def _with_revision(observed: Observed, revision: Revision) -> Observed:
    others = tuple(r for r in observed.revisions if r.name != revision.name)
    return replace(observed, revisions=(*others, revision))


def _asked(function: FunctionService) -> Asked:
    spec = function.spec
    return Asked(
        replicas=spec.replicas,
        autoscaling=(spec.autoscaling.max_replicas, spec.autoscaling.target_cpu_percent) if spec.autoscaling else None,
        pin=(spec.revision.pin or "") if spec.revision else "",
        history_limit=spec.revision_history_limit,
        requirements=bool(spec.python.requirements),
    )


def reconciler(engine: Engine, settings: Settings) -> FunctionReconciler:
    """The reconciler of an operator: with the builder that the settings name, and the installation's Secrets made."""
    client = BuilderClient(settings.builder_url)

    async def keep_secrets() -> None:
        while True:
            access = await ensure_secrets(engine.kube, settings.namespace, datetime.datetime.now(datetime.UTC))
            client.use(access.token, access.ca)
            # Somebody may delete one, and the certificate ends some day.
            await asyncio.sleep(SECRETS_EVERY_SECONDS)

    engine.background("installation secrets", keep_secrets)
    return FunctionReconciler(engine, client, pull_secret=settings.registry_pull_secret)
