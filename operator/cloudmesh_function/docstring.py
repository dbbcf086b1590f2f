"""Docstrings in reST, Google and NumPy style, read the same way from source text and at run time."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass, field
from typing import Final

from cloudmesh_function import types
from cloudmesh_function.model import Doc, InterfaceError, Type

_FIELD: Final = re.compile(r"^:(?P<what>[A-Za-z]+)(?:\s+(?P<rest>[^:]*?))?:(?:\s+(?P<text>.*))?$")
_GOOGLE: Final = re.compile(r"^(?P<name>[A-Z][A-Za-z ]+):\s*$")
_ENTRY: Final = re.compile(
    r"^(?P<name>\*{0,2}\w+)\s*(?:\((?P<type>[^)]*(?:\([^)]*\)[^)]*)*)\))?\s*:(?:\s+|$)(?P<text>.*)$"
)
_NUMPY: Final = re.compile(r"^(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::\s*(?P<type>.*))?$")
_PARAMETERS: Final = frozenset(
    {"args", "arguments", "parameters", "params", "keyword args", "keyword arguments", "other parameters"}
)
_RETURNS: Final = frozenset({"returns", "return", "yields", "yield"})
_OTHER: Final = frozenset(
    {"raises", "raise", "warns", "see also", "attributes", "methods", "receives", "references", "todo", "except",
     "exceptions", "warnings", "warning"}
)  # fmt: skip
_TEXT: Final = frozenset({"note", "notes", "example", "examples"})
_REST_PARAMETER: Final = frozenset({"param", "parameter", "arg", "argument", "key", "keyword", "kwarg"})
_BUILTINS: Final = {
    "int": "int", "float": "float", "bool": "bool", "str": "str", "bytes": "bytes", "complex": "complex",
    "integer": "int", "string": "str", "boolean": "bool", "number": "float", "object": "object", "None": "None",
}  # fmt: skip


@dataclass(slots=True)
class _Draft:
    text: list[str] = field(default_factory=list)
    parameters: dict[str, list[str]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    returns: list[str] = field(default_factory=list)


def read(text: str | None) -> Doc:
    """Reads a docstring.

    Args:
        text: as in the source; indentation is removed.

    Returns:
        Its parts; empty for None.
    """
    if not text:
        return Doc()
    lines = inspect.cleandoc(text).splitlines()
    draft = _Draft()
    index = 0
    while index < len(lines):
        index = _section(lines, index, draft)
    summary, description = _split(draft.text)
    return Doc(
        summary=summary,
        description=description,
        parameters={name: _join(found) for name, found in draft.parameters.items() if _join(found)},
        parameter_types=draft.kinds,
        returns=_join(draft.returns),
    )


def named_type(text: str) -> Type | None:
    """The type that a docstring names for a parameter without annotation; None when it is no known one."""
    text = re.sub(r",?\s*(?:optional|default\b.*)$", "", text.strip()).strip()
    try:
        return _type(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, InterfaceError, RecursionError, MemoryError):
        return None


def _type(node: ast.expr) -> Type:
    match node:
        case ast.Name(name) if name in _BUILTINS:
            return types.generic(f"builtins.{_BUILTINS[name]}", ())
        case ast.Constant(None):
            return types.generic("builtins.None", ())
        case ast.Name(name) if types.known(f"builtins.{name}"):
            return types.generic(f"builtins.{name}", (), subscripted=False)
        case ast.Subscript(ast.Name(name), inner) if types.known(f"builtins.{name}"):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            dots = len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is ...
            return types.generic(
                f"builtins.{name}", [_type(part) for part in (parts[:1] if dots else parts)], variadic=dots
            )
        case ast.BinOp(left, ast.BitOr(), right):
            return types.union((_type(left), _type(right)))
        case _:
            raise InterfaceError("no type")


def _section(lines: list[str], index: int, draft: _Draft) -> int:
    line = lines[index]
    fields = _FIELD.match(line)
    if fields and _is_field(fields["what"]):
        end = _indented(lines, index + 1)
        _rest(fields, lines[index + 1 : end], draft)
        return end
    underlined = index + 1 < len(lines) and re.fullmatch(r"-{3,}|={3,}", lines[index + 1].strip())
    if underlined and line.strip().lower() in _PARAMETERS | _RETURNS | _OTHER | _TEXT:
        end = _numpy_end(lines, index + 2)
        _numpy(line.strip().lower(), lines[index + 2 : end], draft)
        return end
    google = _GOOGLE.match(line)
    title = google["name"].lower() if google else ""
    if title in _PARAMETERS | _RETURNS | _OTHER and index + 1 < len(lines) and lines[index + 1].startswith((" ", "\t")):
        end = _indented(lines, index + 1)
        _google(title, lines[index + 1 : end], draft)
        return end
    draft.text.append(line)
    return index + 1


def _is_field(what: str) -> bool:
    return what in _REST_PARAMETER or what in {
        "type",
        "return",
        "returns",
        "rtype",
        "raises",
        "raise",
        "yields",
        "yield",
    }


def _rest(found: re.Match[str], more: list[str], draft: _Draft) -> None:
    what, rest = found["what"], (found["rest"] or "").strip()
    text = [found["text"] or "", *more]
    if what in _REST_PARAMETER and rest:
        kind, _, name = rest.rpartition(" ")
        name = name.lstrip("*\\")
        draft.parameters[name] = text
        if kind:
            draft.kinds[name] = kind.strip()
    elif what == "type" and rest:
        draft.kinds[rest.lstrip("*\\")] = _join(text)
    elif what in {"return", "returns", "yields", "yield"}:
        draft.returns = text


def _google(title: str, block: list[str], draft: _Draft) -> None:
    block = inspect.cleandoc("\n" + "\n".join(block)).splitlines()
    if title in _RETURNS:
        draft.returns = _after_type(block)
    if title not in _PARAMETERS:
        return
    name = ""
    for line in block:
        entry = None if line.startswith((" ", "\t")) else _ENTRY.match(line)
        if entry:
            name = entry["name"].lstrip("*")
            draft.parameters[name] = [entry["text"]]
            if entry["type"]:
                draft.kinds[name] = entry["type"]
        elif name:
            draft.parameters[name].append(line)


def _after_type(block: list[str]) -> list[str]:
    found = re.match(r"^(?P<type>[\w.\[\], |\"']+):\s+(?P<text>.+)$", block[0]) if block else None
    if found and re.fullmatch(r"[\w.]+(?:\[.*\])?(?:\s*\|\s*[\w.\[\]]+)*", found["type"]):
        return [found["text"], *block[1:]]
    return block


def _numpy(title: str, block: list[str], draft: _Draft) -> None:
    if title in _TEXT:
        draft.text += ["", title.capitalize() + ":", "", *block]
    elif title in _RETURNS:
        deep = [line for line in block if line.startswith((" ", "\t"))]
        draft.returns = inspect.cleandoc("\n" + "\n".join(deep or block)).splitlines()
    elif title in _PARAMETERS:
        names: list[str] = []
        for line in block:
            head = None if line.startswith((" ", "\t")) else _NUMPY.match(line)
            if head:
                names = [name.strip().lstrip("*") for name in head["names"].split(",")]
                for name in names:
                    draft.parameters[name] = []
                    if head["type"]:
                        draft.kinds[name] = head["type"].strip()
            else:
                for name in names:
                    draft.parameters[name].append(line)


def _indented(lines: list[str], index: int) -> int:
    """The first line from `index` on that is neither empty nor indented; empty ones before it stay out."""
    last = index
    while index < len(lines) and (not lines[index].strip() or lines[index].startswith((" ", "\t"))):
        index += 1
        if lines[index - 1].strip():
            last = index
    return last


def _numpy_end(lines: list[str], index: int) -> int:
    while index < len(lines):
        if index + 1 < len(lines) and re.fullmatch(r"-{3,}|={3,}", lines[index + 1].strip()) and lines[index].strip():
            break
        if _FIELD.match(lines[index]):
            break
        index += 1
    return index


def _split(lines: list[str]) -> tuple[str, str]:
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip(), maxsplit=1)
    summary = " ".join(part.strip() for part in paragraphs[0].splitlines())
    return summary, paragraphs[1].strip() if len(paragraphs) > 1 else ""


def _join(lines: list[str]) -> str:
    return " ".join(line.strip() for line in lines if line.strip())
