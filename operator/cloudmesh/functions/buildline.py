"""From what a function asks for to a built image: parse, lock, build, one step a call, nothing that must survive.

Each step's answer is kept in memory under the content's hash, so that the next call goes on where this one stopped. A
restart of the operator or of the builder loses it and costs the steps again, which are all idempotent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloudmesh.functions.builder_client import Refused, refused
from cloudmesh.functions.key import build_key
from cloudmesh.functions.revision import Wanted, digest
from cloudmesh.functions.steps import Built, Failed, Waiting

Json = dict[str, Any]


class Builder(Protocol):
    """What the line needs of the builder; `BuilderClient` over the wire, or one in the process for tests."""

    async def parse(self, body: Json) -> Json: ...
    async def lock(self, body: Json) -> Json: ...
    async def info(self) -> Json: ...
    async def start(self, body: Json) -> str: ...
    async def build(self, build_id: str) -> Json | None: ...


@dataclass(slots=True)
class _Progress:
    content: str
    parsed: Json | None = None
    lock: str | None = None
    locking: asyncio.Task[Json] | None = None
    info: Json | None = None
    key: str = ""
    build_id: str = ""
    polls: int = 0
    failed: Failed | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Credentials that a build needs, read from Secrets by the caller; never logged."""

    repository: Mapping[str, Any] | None = field(default=None, repr=False)
    index: Mapping[str, Any] | None = field(default=None, repr=False)


class BuildLine:
    """The builds under way, by object."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._progress: dict[tuple[str, str], _Progress] = {}

    def forget(self, namespace: str, name: str) -> None:
        """The object is gone, or its revision is kept: nothing is to be remembered."""
        self._drop(self._progress.pop((namespace, name), None))

    @staticmethod
    def _drop(state: _Progress | None) -> None:
        if state is not None and state.locking is not None:
            state.locking.cancel()

    async def advance(
        self, wanted: Wanted, known_lock: Callable[[str], str | None], sources: Sources, *, rebuild: bool = False
    ) -> Waiting | Failed | Built:
        """Takes the next step.

        Args:
            wanted: what is to be built.
            known_lock: gives the lock that an earlier revision holds for these inputs, if there is one.
            sources: credentials of registry and index.
            rebuild: build even if the registry has the image.

        Raises:
            CloudmeshError: the builder doesn't answer; try again later.
        """
        at = (wanted.namespace, wanted.name)
        state = self._progress.get(at)
        # A Secret that was mended is another attempt too.
        content = digest([wanted.content, sources.repository, sources.index])
        if state is None or state.content != content:
            self._drop(state)
            state = self._progress[at] = _Progress(content)
        if state.failed is not None:
            return state.failed
        try:
            return await self._advance(state, wanted, known_lock, sources, rebuild)
        except Refused as error:
            done = 0 if state.parsed is None else 1 if state.lock is None else 2
            # The builder refuses to read what is too long, say: for the user that is the source as well.
            kind = "SourceInvalid" if done == 0 and error.kind == "InvalidRequest" else error.kind
            failed = Failed(kind, error.text, error.line, error.column, done)
            # What depends on a registry or an index may be right a minute later; what depends on the source isn't.
            if kind in ("SourceInvalid", "DependenciesUnsatisfiable"):
                state.failed = failed
            else:
                state.build_id, state.polls = "", 0
            return failed

    async def _advance(
        self,
        state: _Progress,
        wanted: Wanted,
        known_lock: Callable[[str], str | None],
        sources: Sources,
        rebuild: bool,
    ) -> Waiting | Failed | Built:
        source: Json = {
            "name": wanted.name,
            "module": wanted.module,
            "source": wanted.source,
            "basePath": wanted.base_path,
            "expose": dict(wanted.expose),
        }
        if state.parsed is None:
            state.parsed = await self._builder.parse({**source, "requirements": list(wanted.requirements)})
        if state.lock is None and (waiting := await self._lock(state, wanted, known_lock, sources)) is not None:
            return waiting
        assert state.lock is not None  # noqa: S101 - _lock just set it
        if state.info is None:
            state.info = await self._builder.info()
        if not state.build_id:
            base, runtime = state.info["base"]["digest"], state.info["runtime"]["digest"]
            state.key = build_key(
                source=wanted.source,
                module=wanted.module,
                name=wanted.name,
                base_path=wanted.base_path,
                expose=dict(wanted.expose),
                lock=state.lock,
                python=wanted.python,
                platforms=list(wanted.platforms),
                base=base,
                runtime=runtime,
            )
            state.build_id = await self._builder.start(
                {
                    **source,
                    "namespace": wanted.namespace,
                    "requirements": list(wanted.requirements),
                    "lock": state.lock,
                    "python": wanted.python,
                    "platforms": list(wanted.platforms),
                    "key": state.key,
                    "repository": sources.repository,
                    "index": sources.index,
                    "rebuild": rebuild,
                }
            )
            state.polls = 0
        answer = await self._builder.build(state.build_id)
        state.polls += 1
        if answer is None:
            state.build_id, state.polls = "", 0
            return Waiting("Queued", 0.2)
        match answer.get("state"):
            case "Succeeded":
                return self._built(state, wanted, answer["result"])
            case "Failed":
                raise refused(answer.get("error") or {})
            case other:
                # The first looks come fast, since a build without dependencies takes about 0.1 s.
                return Waiting(str(answer.get("stage") or other), min(0.04 * 1.5**state.polls, 1.0))

    async def _lock(
        self, state: _Progress, wanted: Wanted, known_lock: Callable[[str], str | None], sources: Sources
    ) -> Waiting | None:
        """Fills `state.lock`. Resolving can take a minute: it goes on beside the queue, which has other objects."""
        if not wanted.requirements:
            state.lock = ""
        elif (kept := known_lock(wanted.lock_inputs)) is not None:
            state.lock = kept
        else:
            if state.locking is None:
                body: Json = {
                    "requirements": list(wanted.requirements),
                    "python": wanted.python,
                    "platforms": list(wanted.platforms),
                    "index": sources.index,
                    "relock": bool(wanted.relock),
                }
                state.locking = asyncio.ensure_future(self._builder.lock(body))
            done, _ = await asyncio.wait({state.locking}, timeout=0.05)
            if not done:
                return Waiting("Lock", 0.2)
            task, state.locking = state.locking, None
            state.lock = str(task.result()["lock"])
        return None

    def _built(self, state: _Progress, wanted: Wanted, result: Json) -> Built:
        assert state.parsed is not None and state.info is not None  # noqa: S101, PT018 - set by the steps before
        parsed = state.parsed
        build = {k: result[k] for k in ("reused", "uploadedBytes", "layersMounted")}
        return Built(
            image=result["image"],
            data={
                "image": result["image"],
                "key": state.key,
                "lock": state.lock,
                "base": state.info["base"]["digest"],
                "runtime": state.info["runtime"]["digest"],
                "document": parsed["document"],
                "operations": parsed["operations"],
                "openapiDigest": parsed.get("digest") or "sha256:" + digest(parsed["document"]),
                "warnings": parsed.get("warnings", []),
                "basePath": wanted.base_path,
                "build": {"key": state.key, "seconds": f"{result['seconds']:.3f}", **build},
            },
        )
