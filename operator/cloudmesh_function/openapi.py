"""The OpenAPI 3.1 document of an interface."""

from __future__ import annotations

import json
from typing import Any, Final

from cloudmesh_function.model import (
    ANY,
    MISSING,
    NONE,
    VAR_KEYWORD,
    Array,
    Choice,
    Enumeration,
    Interface,
    Named,
    Operation,
    Parameter,
    Ref,
    Scalar,
    Type,
    Values,
)
from cloudmesh_function.schema import component, named_schema, schema, with_default

VERSION: Final = "3.1.0"
PROBLEM: Final = "application/problem+json"
_NO_QUERY: Final = frozenset({"ndarray", "array"})

_PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457).",
    "type": "object",
    "required": ["type", "title", "status"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["parameter", "detail"],
                "properties": {
                    "parameter": {"type": "string"},
                    "in": {"type": "string", "enum": ["query", "body"]},
                    "pointer": {"type": "string"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}


def to_openapi(interface: Interface, base_path: str = "/cloudmesh") -> dict[str, Any]:
    """The document of all operations.

    Args:
        interface: what either front end read.
        base_path: where the operations are served; the only entry of `servers`.

    Returns:
        OpenAPI 3.1 as plain JSON values; equal interfaces give equal documents.
    """
    info: dict[str, Any] = {"title": interface.name, "version": "1.0.0"}
    if interface.doc.summary:
        info["summary"] = interface.doc.summary
    if interface.doc.description:
        info["description"] = interface.doc.description
    schemas = {component(name): named_schema(item) for name, item in interface.types.items()}
    return {
        "openapi": VERSION,
        "info": info,
        "servers": [{"url": base_path.rstrip("/") or "/"}],
        "paths": {item.path: _path(interface, item) for item in interface.operations},
        "components": {
            "schemas": {**schemas, "cloudmesh.Problem": _PROBLEM_SCHEMA},
            "responses": {
                "Problem": {
                    "description": "The call failed; the body says why.",
                    "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/cloudmesh.Problem"}}},
                }
            },
        },
    }


def canonical(document: dict[str, Any]) -> bytes:
    """Canonical JSON: sorted keys, no spaces, UTF-8, one newline at the end. Equal documents give equal bytes."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def operations(document: dict[str, Any]) -> list[dict[str, str]]:
    """All operations of a document as `{operationId, method, path}`, by path and method."""
    return [
        {"operationId": item["operationId"], "method": method.upper(), "path": path}
        for path, methods in sorted(document["paths"].items())
        for method, item in sorted(methods.items())
    ]


def queryable(item: Operation, types: dict[str, Named]) -> bool:
    """Whether all parameters fit in a query: scalars, and arrays of scalars that are no union's part."""
    return all(_in_query(parameter, types) for parameter in item.parameters)


def is_array(item: Type) -> bool:
    """Whether the type's query parameter is repeated, one for each item."""
    if isinstance(item, Choice):
        return any(is_array(member) for member in item.members)
    return isinstance(item, Array)


def _in_query(parameter: Parameter, types: dict[str, Named]) -> bool:
    item = parameter.type
    if parameter.kind == VAR_KEYWORD:
        return _scalar(item, types)
    if isinstance(item, Choice) and NONE in item.members and len(item.members) == 2 and parameter.default is None:
        item = next(member for member in item.members if member != NONE)
    return _scalar(item.item if isinstance(item, Array) else item, types)


def _scalar(item: Type, types: dict[str, Named]) -> bool:
    match item:
        case Scalar(name):
            return name not in _NO_QUERY
        case Values():
            return True
        case Ref(name):
            return isinstance(types[name], Enumeration)
        case Choice(members):
            return all(_scalar(member, types) for member in members)
        case _:
            return False


def _path(interface: Interface, item: Operation) -> dict[str, Any]:
    identity = f"{interface.module}.{item.name}"
    if not queryable(item, interface.types):
        return {"post": _operation(item, identity, body=True)}
    return {
        "get": _operation(item, identity, body=False),
        "post": _operation(item, f"{identity}.post", body=True),
    }


def _operation(item: Operation, identity: str, *, body: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": identity}
    if item.doc.summary:
        found["summary"] = item.doc.summary
    if item.doc.description:
        found["description"] = item.doc.description
    if body:
        found["requestBody"] = _body(item)
    elif item.parameters:
        found["parameters"] = [_query(item, parameter) for parameter in item.parameters]
    problem = {"$ref": "#/components/responses/Problem"}
    found["responses"] = {"200": _result(item), "default": problem}
    if body or item.parameters:
        found["responses"]["422"] = problem
    return found


def _result(item: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {"description": item.doc.returns or "The result"}
    shape = schema(item.returns)
    content: dict[str, Any] = {"application/json": {"schema": shape}}
    if item.returns in (Scalar("bytes"), Scalar("bytearray")):
        content["application/octet-stream"] = {"schema": {"contentMediaType": "application/octet-stream"}}
    else:
        content["text/plain"] = {"schema": {"type": "string"}}
    if item.returns == ANY:
        # a framework's response object keeps its own media type
        content["*/*"] = {"schema": {}}
    found["content"] = content
    return found


def _query(item: Operation, parameter: Parameter) -> dict[str, Any]:
    found: dict[str, Any] = {"name": parameter.name, "in": "query"}
    doc = item.doc.parameters.get(parameter.name)
    if doc:
        found["description"] = doc
    if parameter.required:
        found["required"] = True
    if parameter.kind == VAR_KEYWORD:
        found["style"] = "form"
        found["explode"] = True
        found["schema"] = {
            "type": "object",
            "propertyNames": {"pattern": r"^[^\[\]]+$"},
            # any text is a str, also one that looks like something else
            "additionalProperties": _query_schema(ANY if parameter.type == Scalar("str") else parameter.type),
        }
        return found
    shape = parameter.type
    if isinstance(shape, Choice) and parameter.default is None and is_array(shape):
        # an absent list is None: a query has no other way to say it
        shape = next(member for member in shape.members if member != NONE)
        found["schema"] = _query_schema(shape)
        return found
    found["schema"] = with_default(_query_schema(shape), parameter.default)
    if isinstance(shape, Array) and parameter.required:
        found["schema"]["minItems"] = 1  # a query can't tell an empty list from an absent one
    return found


def _query_schema(item: Type) -> dict[str, Any]:
    if isinstance(item, Array):
        return {"type": "array", "items": _query_schema(item.item)}
    # any text may stand in a query, but no array and no object
    return {"type": ["string", "number", "boolean", "null"]} if item == ANY else schema(item)


def _body(item: Operation) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    shape: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    for parameter in item.parameters:
        found = schema(parameter.type)
        if parameter.kind == VAR_KEYWORD:
            shape["additionalProperties"] = found
            continue
        if parameter.default is not MISSING:
            found = with_default(found, parameter.default)
        doc = item.doc.parameters.get(parameter.name)
        if doc:
            found["description"] = doc
        properties[parameter.name] = found
        if parameter.required:
            required.append(parameter.name)
    if required:
        shape["required"] = required
    return {"required": bool(required), "content": {"application/json": {"schema": shape}}}
