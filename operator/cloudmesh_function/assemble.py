"""What both front ends do alike: from what one function shows to an operation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudmesh_function import docstring, types
from cloudmesh_function.model import (
    ANY,
    MISSING,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Array,
    Doc,
    Expose,
    Interface,
    Named,
    Operation,
    Parameter,
    Type,
)
from cloudmesh_function.outline import FunctionOutline, Outline, resolve_bases, selected


@dataclass(frozen=True, slots=True)
class Argument:
    """A parameter as a front end sees it; `type` is None without annotation."""

    name: str
    kind: str
    type: Type | None
    has_default: bool
    default: object = MISSING


@dataclass(frozen=True, slots=True)
class Sighting:
    """A function as a front end sees it."""

    arguments: Sequence[Argument]
    returns: Type | None
    binding: str = "function"


Look = Callable[[str, FunctionOutline], Sighting]
"""Looks at one function: its exposed name (`f` or `Class.f`) and its outline."""


def interface(
    found: Outline, expose: Expose, *, name: str, module: str, look: Look, types: dict[str, Named]
) -> Interface:
    """All exposed functions as one interface.

    Args:
        found: the source's outline.
        expose: what to serve.
        name: title of the document.
        module: first part of each operationId.
        look: the front end.
        types: where the front end puts the classes it meets.

    Raises:
        InterfaceError: something can't be served.
    """
    operations = [_operation(full, _outline_of(found, full), look) for full in selected(found, expose)]
    return Interface(name, module, tuple(operations), types, docstring.read(found.doc))


def warnings(of: Interface) -> list[str]:
    """What a user should know though it isn't wrong."""
    return [
        f"{item.name}: the parameter {parameter.name!r} has no type: every value is taken as it comes"
        for item in of.operations
        for parameter in item.parameters
        if not parameter.typed
    ]


def _outline_of(found: Outline, full: str) -> FunctionOutline:
    owner, _, method = full.rpartition(".")
    if not owner:
        return found.functions[full]
    return next(item.methods[method] for item in resolve_bases(found, owner) if method in item.methods)


def _operation(full: str, function: FunctionOutline, look: Look) -> Operation:
    seen = look(full, function)
    doc = docstring.read(function.doc)
    literals = function.defaults()
    parameters = tuple(_parameter(argument, doc, literals) for argument in seen.arguments)
    return Operation(full, parameters, ANY if seen.returns is None else seen.returns, doc, seen.binding)


def _parameter(argument: Argument, doc: Doc, literals: dict[str, object]) -> Parameter:
    item = argument.type
    if item is None:
        named = doc.parameter_types.get(argument.name)
        item = docstring.named_type(named) if named else None
    typed = item is not None
    item = item or ANY
    if argument.kind == VAR_POSITIONAL:
        return Parameter(argument.name, Array("list", item), argument.kind, required=False, typed=typed)
    if argument.kind == VAR_KEYWORD:
        return Parameter(argument.name, item, argument.kind, required=False, typed=typed)
    if not argument.has_default:
        return Parameter(argument.name, item, argument.kind, typed=typed)
    default = MISSING
    if argument.name in literals:
        default = literals[argument.name] if argument.default is MISSING else types.json_default(argument.default)
    if default is None:
        item = types.optional(item)
    default = types.fitting(default, item)
    return Parameter(argument.name, item, argument.kind, required=False, default=default, typed=typed)
