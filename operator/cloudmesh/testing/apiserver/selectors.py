"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

Predicate = Callable[[dict[str, Any]], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,]+?)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=]*)$")
_SPLIT = re.compile(r",\s*(?![^()]*\))")


def label_predicate(selector: str) -> Predicate:
    """A test for an object's labels.

    Raises:
        ValueError: The selector can't be parsed.
    """
    tests = [_label_test(part.strip()) for part in _SPLIT.split(selector) if part.strip()]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def field_predicate(selector: str) -> Predicate:
    """A test for an object's fields by dotted path; absent fields count as empty.

    Raises:
        ValueError: The selector can't be parsed.
    """
    tests = []
    for part in (part.strip() for part in selector.split(",")):
        if not part:
            continue
        if (match := _EQUAL.match(part)) is None:
            raise ValueError(f"unable to parse field selector {part!r}")
        tests.append((match["key"].split("."), match["op"] != "!=", match["value"]))
    return lambda obj: all((_field(obj, path) == value) == wanted for path, wanted, value in tests)


def _label_test(part: str) -> Predicate:
    if (match := _SET.match(part)) is not None:
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["op"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if (match := _EQUAL.match(part)) is not None:
        key, value = match["key"], match["value"]
        if match["op"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if part.startswith("!"):
        return lambda labels: part[1:] not in labels
    if re.fullmatch(r"[\w./-]+", part):
        return lambda labels: part in labels
    raise ValueError(f"unable to parse label selector {part!r}")


def _field(obj: Any, path: list[str]) -> str:
    for name in path:
        obj = obj.get(name) if isinstance(obj, dict) else None
    return "" if obj is None else str(obj)
