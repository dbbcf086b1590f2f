"""Reads objects from YAML files: each is checked as the API server would, and a mistake is told with its place."""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cloudmesh.api import names
from cloudmesh.api.budget import Budget
from cloudmesh.api.cloudaccount import CloudAccount
from cloudmesh.api.clusterjob import ClusterJob
from cloudmesh.api.placementpolicy import PlacementPolicy
from cloudmesh.api.pricesheet import PriceSheet
from cloudmesh.api.schema import Model
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.api.virtualmachine import VirtualMachine

Obj = dict[str, Any]

MODELS: Mapping[str, type[Model]] = {
    "Budget": Budget,
    "CloudAccount": CloudAccount,
    "ClusterJob": ClusterJob,
    "PlacementPolicy": PlacementPolicy,
    "PriceSheet": PriceSheet,
    "VirtualCluster": VirtualCluster,
    "VirtualMachine": VirtualMachine,
}
MAX_BYTES = 16 * 2**20
SUFFIXES = (".yaml", ".yml", ".json")


class Mistake(Exception):
    """A file can't be used; the message names file, document and field."""


@dataclass(slots=True)
class Documents:
    """What the files hold, by kind, then by namespace and name.

    Args:
        namespace: Namespace of objects that name none.
        objects: As the API server would have them, without defaults.
        models: The same of our kinds, with defaults.
        secrets: Data of Secrets, decoded; never shown.
        secret_types: Their types.
    """

    namespace: str
    objects: dict[str, dict[tuple[str, str], Obj]] = field(default_factory=dict)
    models: dict[str, dict[tuple[str, str], Any]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict, repr=False)
    secret_types: dict[tuple[str, str], str] = field(default_factory=dict)

    def of(self, kind: str, namespace: str) -> list[Obj]:
        """All objects of a kind in a namespace, by name."""
        return [obj for (space, _), obj in sorted(self.objects.get(kind, {}).items()) if space == namespace]

    def model(self, kind: str, namespace: str, name: str) -> Any:
        """One object with its defaults, None if the files don't hold it."""
        return self.models.get(kind, {}).get((namespace, name))


def read(files: Sequence[str], namespace: str) -> Documents:
    """Reads files, folders (their YAML files) and `-` (standard input).

    Raises:
        Mistake: Something can't be read, or isn't as the API wants it.
    """
    documents = Documents(namespace)
    for file in files:
        for place, text in _texts(file):
            for number, obj in _objects(place, text):
                _take(documents, f"{place}: document {number}", obj)
    return documents


def _texts(file: str) -> Iterator[tuple[str, str]]:
    if file == "-":
        yield "standard input", sys.stdin.read(MAX_BYTES + 1)
        return
    path = Path(file)
    try:
        found = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES) if path.is_dir() else [path]
        for each in found:
            if each.stat().st_size > MAX_BYTES:
                raise Mistake(f"{each}: larger than {MAX_BYTES >> 20} MiB")
            yield str(each), each.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Mistake(f"{file}: {reason}") from error


def _objects(place: str, text: str) -> Iterator[tuple[int, Obj]]:
    try:
        for number, obj in enumerate(yaml.safe_load_all(text), 1):
            if obj is None:
                continue
            if not isinstance(obj, dict):
                raise Mistake(f"{place}: document {number}: must be an object with apiVersion and kind")
            items = obj.get("items") if obj.get("kind") == "List" else [obj]
            for item in items if isinstance(items, list) else []:
                if not isinstance(item, dict):
                    raise Mistake(f"{place}: document {number}: an item of the list is no object")
                yield number, item
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise Mistake(f"{place}: {where}{getattr(error, 'problem', None) or 'not YAML'}") from error


def _take(documents: Documents, place: str, obj: Obj) -> None:
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if not isinstance(kind, str) or not isinstance(version, str):
        raise Mistake(f"{place}: `apiVersion` and `kind` must be set")
    ours = version.partition("/")[0] == names.GROUP
    if not ours and (kind, version) != ("Secret", "v1"):
        return
    meta = obj.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(name, str):
        raise Mistake(f"{place} ({kind}): `metadata.name` must be set")
    place = f"{place} ({kind} '{name}')"
    obj = obj | {"metadata": {**meta, "namespace": meta.get("namespace") or documents.namespace}}
    key = (str(obj["metadata"]["namespace"]), name)
    if key in documents.objects.setdefault(kind, {}):
        raise Mistake(f"{place}: is there twice")
    if kind == "Secret":
        documents.secrets[key] = _secret(place, obj)
        documents.secret_types[key] = str(obj.get("type", "Opaque"))
        # Its values are kept apart: what is in `objects` may be shown.
        documents.objects[kind][key] = {"metadata": obj["metadata"]}
        return
    if ours and kind in MODELS:
        documents.models.setdefault(kind, {})[key] = _validated(place, MODELS[kind], obj)
    elif version == names.API_VERSION and kind not in names.PLURALS:
        raise Mistake(f"{place}: there is no such kind in {version}")
    documents.objects[kind][key] = obj


def _validated(place: str, model: type[Model], obj: Obj) -> Model:
    try:
        # A status comes along when objects are piped in from a cluster: it is the operator's, not a wish.
        return model.model_validate({k: v for k, v in obj.items() if k != "status"}, extra="forbid")
    except ValidationError as error:
        found = [_problem(entry["loc"], entry["msg"]) for entry in error.errors(include_url=False)]
        raise Mistake("\n".join(f"{place}: {text}" for text in found)) from None


def _problem(path: tuple[int | str, ...], message: str) -> str:
    where = ""
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else str(part)
    message = message.removeprefix("Value error, ")
    if message == "Extra inputs are not permitted":
        message = "there is no such field"
    return f"{where}: {message}" if where else message


def _secret(place: str, obj: Obj) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field_, plain in (("data", False), ("stringData", True)):
        values = obj.get(field_) or {}
        if not isinstance(values, dict):
            raise Mistake(f"{place}: {field_}: must be an object")
        for key, value in values.items():
            if not isinstance(value, str):
                raise Mistake(f"{place}: {field_}.{key}: must be text")
            try:
                found[str(key)] = value.encode() if plain else base64.b64decode(value, validate=True)
            except binascii.Error:
                raise Mistake(f"{place}: {field_}.{key}: must be base64") from None
    return found
