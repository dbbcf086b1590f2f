"""Keeps the conventions of the API over a CustomResourceDefinition."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from cloudmesh.api.cloudaccount import CLOUDS, Cloud
from cloudmesh.api.datastore import PLACES
from cloudmesh.api.places import Place
from cloudmesh.api.schema import pattern_of

MAX_BYTES: Final = 250_000
ALLOWED_BOOLEANS: Final = frozenset({"status.build.reused"})
"""Booleans that read as well as an enum; all in status."""
LITERAL_ENUMS: Final = frozenset(
    {
        "spec.python.version",
        "spec.image.platforms[]",
        "status.openapi.operations[].method",
        "spec.pools[].alternatives[].machine.arch[]",
        "spec.ssh.hosts[].arch",
        "status.cost.confidence",
        "status.currentPrice.confidence",
        "status.hourlyPrice.confidence",
        "status.price.confidence",
    }
)
"""Enums of names that others gave."""
EMPTY_STRUCTS: Final = frozenset({"spec.bootstrap.ssh", "spec.bootstrap.slurm"})
"""Members of unions that say all there is to say by being there."""
MEMBERS: Final[dict[str, type[Cloud] | type[Place]]] = {**CLOUDS, **PLACES}
"""Members of unions of CloudAccount and DataStore, which say where to connect."""
UNION_MEMBERS: Final = frozenset(f"spec.{kind}" for kind in MEMBERS)
"""Structs whose absence means something, so that they can't be filled in for their members' defaults."""

_FORBIDDEN: Final = (
    "$ref", "allOf", "anyOf", "oneOf", "not", "title", "examples", "nullable", "const", "uniqueItems",
    "x-kubernetes-preserve-unknown-fields", "prefixItems", "propertyNames", "patternProperties",
)  # fmt: skip
_CAMEL = re.compile(r"\A[a-z][A-Za-z0-9]*\Z")
_RESOURCE = re.compile(r"\A[a-z]+(-[a-z]+)+\Z")
_ENUM = re.compile(r"\A[A-Z][A-Za-z0-9]*\Z")
_LOOK_AROUND = re.compile(r"\(\?[=!<]")
_SAFE_INTEGER = 2**53 - 1
_PLACES = ("https://cloud.example.org:8443/v3", "2001:db8::7")
_PLACE_NAME = re.compile(r"(?i)(endpoint|ur[il]|address|host|hostname|server|proxy)\Z")


def lint_crd(crd: dict[str, Any]) -> list[str]:
    """Sentences about what breaks a convention; empty when all is well."""
    return list(_lint(crd))


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each node of a structural schema with its path, such as `spec.env[].name`; `[]` an item, `{}` a value."""
    yield path, schema
    for name, member in schema.get("properties", {}).items():
        yield from walk(member, f"{path}.{name}" if path else name)
    if isinstance(schema.get("items"), dict):
        yield from walk(schema["items"], path + "[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from walk(schema["additionalProperties"], path + "{}")


def _lint(crd: dict[str, Any]) -> Iterator[str]:
    if "status" in crd:
        yield "`status` must not stand in the file: Argo CD would see a difference for ever"
    spec = crd["spec"]
    if "preserveUnknownFields" in spec:
        yield "`preserveUnknownFields` must not be set"
    if spec["scope"] != "Namespaced":
        yield "the kind must be namespaced"
    if "cloudmesh" not in spec["names"].get("categories", []) or not spec["names"].get("shortNames"):
        yield "the kind must have the category cloudmesh and a short name"
    for version in spec["versions"]:
        yield from _lint_version(version)


def _lint_version(version: dict[str, Any]) -> Iterator[str]:
    schema = version["schema"]["openAPIV3Schema"]
    if "status" not in version.get("subresources", {}):
        yield "the status subresource must be on: `metadata.generation` depends on it"
    columns = [column["name"] for column in version.get("additionalPrinterColumns", [])]
    if columns[:2] != ["Ready", "Reason"] or columns[-1:] != ["Age"]:
        yield "printer columns must begin with Ready, Reason and end with Age"
    conditions = schema["properties"]["status"]["properties"].get("conditions", {})
    if conditions.get("x-kubernetes-list-map-keys") != ["type"]:
        yield "`status.conditions` must be a list-map by `type`"
    if "observedGeneration" not in schema["properties"]["status"]["properties"]:
        yield "`status.observedGeneration` must be there"
    for path, node in walk(schema):
        if path in {"apiVersion", "kind", "metadata"}:
            continue
        for problem in _lint_node(path, node):
            yield f"{path or 'the kind'}: {problem}"


def _lint_node(path: str, node: dict[str, Any]) -> Iterator[str]:
    if not path.endswith(("[]", "{}")) or node.get("type") == "object":
        text = node.get("description", "")
        if not text or not text.endswith("."):
            yield "must have a description that ends with a full stop"
    name = path.rpartition(".")[2].rstrip("[]{}")
    if name and not (_CAMEL.match(name) or (_RESOURCE.match(name) and "resources" in path)):
        yield "must be written in camelCase"
    for key in _FORBIDDEN:
        if key in node:
            yield f"must not use `{key}`"
    if pattern := pattern_of(node):
        if _LOOK_AROUND.search(pattern):
            yield "`pattern` must do without look-around: RE2 has none"
        if not (pattern.startswith("^") and pattern.endswith("$")):
            yield "`pattern` must match the whole string"
    for rule in node.get("x-kubernetes-validations", []):
        if "`" not in rule.get("message", ""):
            yield "each rule must have a `message` that names the field in back-quotes"
    match node.get("type"):
        case "object":
            yield from _lint_object(path, name, node)
        case "array":
            yield from _lint_array(node)
        case "string":
            yield from _lint_string(path, node)
        case "integer":
            yield from _lint_integer(node)
        case "boolean":
            if path not in ALLOWED_BOOLEANS:
                yield "must be an enum, not a boolean (`ALLOWED_BOOLEANS` holds what reads as well)"
        case None if node.get("x-kubernetes-int-or-string"):
            if "maxLength" not in node or not pattern_of(node):
                yield "a quantity must have `maxLength` and a pattern"
        case other:
            yield f"must not be of type {other}"


def _lint_object(path: str, name: str, node: dict[str, Any]) -> Iterator[str]:
    if "additionalProperties" in node:
        if node["additionalProperties"] is False or "properties" in node:
            yield "must not use `additionalProperties` beside `properties`"
        if "maxProperties" not in node:
            yield "a map must have `maxProperties`"
        return
    properties = node.get("properties")
    if not properties:
        if path not in EMPTY_STRUCTS:
            yield "must have properties, or stand in `EMPTY_STRUCTS` if it says all there is to say by being there"
        return
    if name.endswith("Ref") and "name" not in node.get("required", []):
        yield "a reference must have a required `name`"
    if name.endswith("Ref") and "namespace" in properties:
        yield "a reference must stay in its namespace"
    inner = any(member.get("default") is not None for member in properties.values())
    whole = "default" in node or node.get("required") or path in UNION_MEMBERS or path.endswith("[]")
    if inner and not whole and path.count(".") == 1 and path[:5] == "spec.":
        yield "must have a default, or the defaults of its members never apply (`UNION_MEMBERS` holds unions)"


def _lint_array(node: dict[str, Any]) -> Iterator[str]:
    if "maxItems" not in node:
        yield "a list must have `maxItems`"
    kind = node.get("x-kubernetes-list-type")
    if kind not in {"atomic", "set", "map"}:
        yield "a list must have `x-kubernetes-list-type`"
    if kind == "map":
        keys = node.get("x-kubernetes-list-map-keys", [])
        missing = [key for key in keys if key not in node["items"].get("required", [])]
        if not keys or missing:
            yield "a list-map must have keys that are required"
    if kind == "set" and node["items"].get("type") == "object":
        yield "a set must hold scalars"


def _lint_string(path: str, node: dict[str, Any]) -> Iterator[str]:
    kind, _, field = path.removeprefix("spec.").partition(".")
    if path.startswith("spec.") and kind in MEMBERS and _is_place(field, node) and field not in MEMBERS[kind].ENDPOINTS:
        yield "holds a URL or a host, so its model must have it in `ENDPOINTS`: the Secret has a say in where it goes"
    if "enum" in node:
        if path not in LITERAL_ENUMS and not all(_ENUM.match(value) for value in node["enum"]):
            yield "values of an enum must be CamelCase (`LITERAL_ENUMS` holds names that others gave)"
        if "" in node["enum"]:
            yield "an enum must not hold the empty string"
    elif node.get("format") != "date-time" and "maxLength" not in node:
        yield "a string must have `maxLength`"
    if node.get("default") == "":
        yield "what is empty must be left out, not defaulted to the empty string"


def _is_place(field: str, node: dict[str, Any]) -> bool:
    """Whether a field of a cloud or store may lead somewhere, by its name or by what its pattern lets through."""
    named = _PLACE_NAME.search(field.rpartition(".")[2].rstrip("[]{}"))
    pattern = pattern_of(node)
    return named is not None or (pattern != "" and any(re.search(pattern, place) for place in _PLACES))


def _lint_integer(node: dict[str, Any]) -> Iterator[str]:
    if "minimum" not in node or "maximum" not in node:
        yield "an integer must have `minimum` and `maximum`"
    elif max(abs(node["minimum"]), abs(node["maximum"])) > _SAFE_INTEGER:
        yield "an integer must stay within 2^53"
    if node.get("format") not in {"int32", "int64"}:
        yield "an integer must have a format"
