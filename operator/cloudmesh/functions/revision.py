"""Revisions of a function: what was asked for, what was built of it, and the Pod template that runs it.

A revision is a `ControllerRevision` owned by its FunctionService. It is written once, when the image exists, and holds
everything that rolling back to it needs, the rendered Pod template included: a later operator neither rebuilds nor
re-renders what it holds. What happened to it afterwards (it worked, it failed) stands in its annotations. Pure.

The data is packed (JSON, deflated, base64 under one key): the API server compares it byte by byte to keep it from
changing, but writes JSON in another form than it got, and would refuse a patch of an annotation beside plain data.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.functions.resources import child_metadata

Obj = dict[str, Any]

WORKED = "cloudmesh.org/worked"
FAILED = "cloudmesh.org/rollout-failed"


def canonical(value: object) -> bytes:
    """Canonical JSON bytes of `value`: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def pack(data: Mapping[str, Any]) -> dict[str, str]:
    """What a ControllerRevision holds of `data`."""
    return {"zlib": base64.b64encode(zlib.compress(canonical(data), 9)).decode()}


@functools.lru_cache(maxsize=1024)
def _unpack(packed: str) -> Mapping[str, Any] | None:
    try:
        data = json.loads(zlib.decompress(base64.b64decode(packed, validate=True)))
    except (ValueError, zlib.error):
        return None
    return data if isinstance(data, dict) and {"content", "image", "template"} <= data.keys() else None


def digest(value: object) -> str:
    """The first 32 hexadecimal digits of the SHA-256 of `value`'s canonical JSON."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The part of a spec that makes a revision: all of it but replicas, pin and history.

    `asked` is that part as the user wrote it, without defaults. `kept_content` is the content of the revision that this
    was read from, when it is built again.
    """

    namespace: str
    name: str
    module: str
    source: str
    expose: Mapping[str, Any]
    base_path: str
    python: str
    requirements: tuple[str, ...]
    index_secret: str
    image: Mapping[str, Any]
    runtime: Mapping[str, Any]
    asked: Mapping[str, Any]
    autoscaled: bool = False
    rebuild: str = ""
    relock: str = ""
    kept_content: str = ""

    @property
    def platforms(self) -> tuple[str, ...]:
        return tuple(self.image["platforms"])

    @property
    def lock_inputs(self) -> str:
        """What a lock depends on; a lock is made once for it and kept."""
        if not self.requirements:
            return ""
        return digest([sorted(self.requirements), self.python, sorted(self.platforms), self.index_secret, self.relock])

    @property
    def content(self) -> str:
        """Identifies the revision: the same content is the same revision.

        `asked` leaves out what equals a default, so that a later operator with more fields finds its revisions again.
        """
        if self.kept_content:
            return self.kept_content
        return digest({"source": self.source, "asked": self.asked, "rebuild": self.rebuild, "relock": self.relock})


@dataclass(frozen=True, slots=True)
class Revision:
    """A ControllerRevision, read."""

    name: str
    number: int
    content: str
    data: Mapping[str, Any] = field(repr=False)
    worked: bool = False
    failed: str = ""

    @property
    def image(self) -> str:
        return str(self.data["image"])

    @property
    def template(self) -> Obj:
        return dict(self.data["template"])

    def wanted(self, namespace: str, name: str) -> Wanted:
        """What was built for this revision, to build it again; its Pod template is kept, so runtime is left out."""
        data = self.data
        return Wanted(
            namespace=namespace,
            name=name,
            module=data["module"],
            source=data["source"],
            expose=data["expose"],
            base_path=data["basePath"],
            python=data["python"],
            requirements=tuple(data["requirements"]),
            index_secret=data["indexSecret"],
            image=data["imageSpec"],
            runtime={},
            asked={},
            kept_content=self.content,
        )


def revision_name(function: str, number: int) -> str:
    """`stats`, 3 -> `stats-00003`."""
    return f"{function}-{number:05d}"


def read_revision(obj: Mapping[str, Any]) -> Revision | None:
    """A ControllerRevision of ours as `Revision`; None if it isn't one that this version can read."""
    held = obj.get("data")
    data = _unpack(str(held.get("zlib", ""))) if isinstance(held, Mapping) else None
    if data is None:
        return None
    annotations = obj["metadata"].get("annotations") or {}
    return Revision(
        name=obj["metadata"]["name"],
        number=int(obj.get("revision", 0)),
        content=str(data["content"]),
        data=data,
        worked=annotations.get(WORKED) == "true",
        failed=annotations.get(FAILED, ""),
    )


def read_revisions(objects: Iterable[Mapping[str, Any]]) -> tuple[Revision, ...]:
    """All readable revisions, oldest first."""
    read = (read_revision(o) for o in objects if not o["metadata"].get("deletionTimestamp"))
    return tuple(sorted((r for r in read if r is not None), key=lambda r: (r.number, r.name)))


def next_number(function: str, objects: Iterable[Mapping[str, Any]]) -> int:
    """The number after the highest one in use, whether by order or by name: a name is never given twice."""
    highest = 0
    for obj in objects:
        highest = max(highest, int(obj.get("revision", 0)))
        if match := re.fullmatch(re.escape(function) + r"-(\d{5,})", obj["metadata"]["name"]):
            highest = max(highest, int(match[1]))
    return highest + 1


def make_revision(owner: Mapping[str, Any], wanted: Wanted, number: int, data: Mapping[str, Any]) -> Obj:
    """The ControllerRevision `number` of the function `owner`.

    Args:
        owner: the FunctionService object.
        wanted: what was asked for.
        number: its place in the history, and in its name.
        data: what the build gave: image, key, lock, base, runtime, document, operations, template, build.
    """
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": child_metadata(owner, revision_name(wanted.name, number)),
        "revision": number,
        "data": pack(
            {
                "content": wanted.content,
                "source": wanted.source,
                "module": wanted.module,
                "expose": dict(wanted.expose),
                "python": wanted.python,
                "requirements": list(wanted.requirements),
                "indexSecret": wanted.index_secret,
                "imageSpec": dict(wanted.image),
                "lockInputs": wanted.lock_inputs,
                **data,
            }
        ),
    }
