"""From types to JSON Schema (2020-12, as OpenAPI 3.1 has it)."""

from __future__ import annotations

import re
from typing import Any, Final

from cloudmesh_function.model import (
    MISSING,
    Array,
    Choice,
    Enumeration,
    Fixed,
    Mapping,
    Named,
    Ref,
    Scalar,
    Type,
    Values,
)

BASE64: Final = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
DECIMAL: Final = r"^[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,3})?$"
_FRACTION_OF_SECOND: Final = r"(?:\.[0-9]{1,6})?"
_DURATION: Final = (
    r"P(?:[0-9]{1,6}D(?:T(?:[0-9]{1,6}H)?(?:[0-9]{1,6}M)?[0-9]{1,6}(?:\.[0-9]{1,6})?S)?"
    r"|T(?:[0-9]{1,6}H)?(?:[0-9]{1,6}M)?[0-9]{1,6}(?:\.[0-9]{1,6})?S"
    r"|[0-9]{1,6}DT(?:[0-9]{1,6}H|[0-9]{1,6}M|[0-9]{1,6}H[0-9]{1,6}M)"
    r"|T(?:[0-9]{1,6}H|[0-9]{1,6}M|[0-9]{1,6}H[0-9]{1,6}M))$"
)
DURATION: Final = "^-?" + _DURATION
_REAL: Final = (
    r"(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20}"
    r"|[0-9](?:\.[0-9]{1,20})?[eE](?:-[0-9]{1,3}|\+?(?:[0-9]{1,2}|[12][0-9]{2}|30[0-7])))"
)
COMPLEX: Final = f"^[+-]?{_REAL}(?:j|[+-]{_REAL}j)?$"
FRACTION: Final = r"^-?[0-9]{1,40}(?:/0*[1-9][0-9]{0,39})?$"

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "any": {},
    "None": {"type": "null"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "str": {"type": "string"},
    "bytes": {"type": "string", "contentEncoding": "base64", "pattern": BASE64},
    "bytearray": {"type": "string", "contentEncoding": "base64", "pattern": BASE64},
    "complex": {"anyOf": [{"type": "number"}, {"type": "string", "format": "complex", "pattern": COMPLEX}]},
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {
        "anyOf": [
            # RFC 3339's `duration` knows neither sign nor fraction
            {"type": "string", "format": "duration", "pattern": "^" + _DURATION.replace(_FRACTION_OF_SECOND, "")},
            {"type": "string", "pattern": DURATION},
        ]
    },
    "uuid": {"type": "string", "format": "uuid"},
    "decimal": {"anyOf": [{"type": "number"}, {"type": "string", "format": "decimal", "pattern": DECIMAL}]},
    "fraction": {"type": "string", "format": "fraction", "pattern": FRACTION},
    "path": {"type": "string", "format": "path", "minLength": 1},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "ndarray": {"type": "array", "items": {}},
    "array": {"type": "array", "items": {"type": "number"}},
}

_KEY_PATTERNS: Final[dict[str, str]] = {
    "int": "^-?(?:0|[1-9][0-9]{0,30})$",
    "float": r"^-?[0-9]{1,30}(?:\.[0-9]{1,30})?$",
    "decimal": DECIMAL,
    "timedelta": DURATION,
}


def component(name: str) -> str:
    """A class's qualified name as a key below `components/schemas`."""
    return re.sub(r"[^A-Za-z0-9._-]", lambda match: f"_u{ord(match[0]):04x}", name)


def schema(item: Type) -> dict[str, Any]:
    """The JSON Schema of a type; classes are references."""
    match item:
        case Scalar(name):
            return _copy(SCHEMAS[name])
        case Array(_, inner):
            return {"type": "array", "items": schema(inner)}
        case Fixed(items):
            fixed: dict[str, Any] = {"type": "array", "minItems": len(items), "maxItems": len(items)}
            if items:
                fixed["prefixItems"] = [schema(inner) for inner in items]
            return fixed
        case Mapping(key, value):
            found: dict[str, Any] = {"type": "object", "additionalProperties": schema(value)}
            names = _key_schema(key)
            if names:
                found["propertyNames"] = names
            return found
        case Choice(members):
            return {"anyOf": [schema(member) for member in members]}
        case Values(values):
            return enumeration(values)
        case Ref(name):
            return {"$ref": f"#/components/schemas/{component(name)}"}


def named_schema(item: Named) -> dict[str, Any]:
    """The JSON Schema of a class, for `components/schemas`."""
    if isinstance(item, Enumeration):
        found = {"title": item.name, **enumeration(item.values)}
    elif item.kind == "namedtuple":
        least = sum(1 for field in item.fields if field.required)
        found = {
            "title": item.name,
            "type": "array",
            "minItems": least,
            "maxItems": len(item.fields),
        }
        if item.fields:
            found["prefixItems"] = [
                {"title": field.name, **with_default(schema(field.type), field.default)} for field in item.fields
            ]
    else:
        found = {
            "title": item.name,
            "type": "object",
            "properties": {field.name: with_default(schema(field.type), field.default) for field in item.fields},
        }
        required = [field.name for field in item.fields if field.required]
        if required:
            found["required"] = required
    if item.doc:
        found["description"] = item.doc
    return found


def enumeration(values: tuple[Any, ...]) -> dict[str, Any]:
    """`enum` of values, with their common type where there is one."""
    kinds = {_json_type(value) for value in values}
    found: dict[str, Any] = {"enum": list(values)}
    if len(kinds) == 1:
        found["type"] = kinds.pop()
    return found


def with_default(found: dict[str, Any], default: Any) -> dict[str, Any]:
    """The schema with a default beside it."""
    return found if default is MISSING else {**found, "default": default}


def _key_schema(key: Type) -> dict[str, Any]:
    match key:
        case Scalar("str"):
            return {}
        case Scalar(name) if name in _KEY_PATTERNS:
            return {"pattern": _KEY_PATTERNS[name]}
        case _:
            return schema(key)


def _json_type(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case _:
            return "string"


def _copy(found: dict[str, Any]) -> dict[str, Any]:
    return {key: [dict(part) for part in value] if key == "anyOf" else value for key, value in found.items()}
