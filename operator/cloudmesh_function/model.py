"""What a function looks like from outside: its parameters, types and documentation, free of any front end.

Two front ends make an `Interface`: the static one reads source text, the live one looks at the imported module.
`openapi.to_openapi` turns either into the same document.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

MISSING: Final = type("Missing", (), {"__repr__": lambda self: "MISSING", "__bool__": lambda self: False})()
"""No default value is known."""


class InterfaceError(Exception):
    """A signature that can't be served, with its place in the source.

    Args:
        message: what is wrong and what to do about it.
        line: line in the source, from 1; 0 when unknown.
        column: column in the line, from 1; 0 when unknown.
    """

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column


@dataclass(frozen=True, slots=True)
class Expose:
    """Which functions, or which class's methods, become operations.

    Args:
        names: names of functions; `*` stands for all public ones.
        class_name: a class whose public methods are served instead.
    """

    names: tuple[str, ...] = ("*",)
    class_name: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Expose:
        """Reads `{"functions": {"names": [...]}}` or `{"class": {"name": ...}}`."""
        if value and value.get("class"):
            return cls(class_name=str(value["class"]["name"]))
        names = (value or {}).get("functions", {}).get("names") or ["*"]
        return cls(names=tuple(str(name) for name in names))

    def to_json(self) -> dict[str, Any]:
        """The form `from_json` reads."""
        if self.class_name is not None:
            return {"class": {"name": self.class_name}}
        return {"functions": {"names": list(self.names)}}


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parts; `name` is a key of `types.SCALARS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Array:
    """A JSON array whose items have one type. `kind`: list, set, frozenset, tuple, iterator."""

    kind: str
    item: Type


@dataclass(frozen=True, slots=True)
class Fixed:
    """A tuple of fixed length."""

    items: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A JSON object with keys of one type and values of another."""

    key: Type
    value: Type


@dataclass(frozen=True, slots=True)
class Choice:
    """A union. Members are ordered by `types.union`, not as written: Python's typing caches forget the order."""

    members: tuple[Type, ...]


@dataclass(frozen=True, slots=True)
class Values:
    """`typing.Literal`."""

    values: tuple[bool | int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Ref:
    """A class of the user's module, by its qualified name; described in `Interface.types`."""

    name: str


Type = Scalar | Array | Fixed | Mapping | Choice | Values | Ref

ANY = Scalar("any")
NONE = Scalar("None")


@dataclass(frozen=True, slots=True)
class Enumeration:
    """An `enum.Enum` of the user's module: its values in order."""

    name: str
    values: tuple[Any, ...]
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a structure; `default` is JSON, when the source has it as a literal."""

    name: str
    type: Type
    required: bool
    default: Any = MISSING


@dataclass(frozen=True, slots=True)
class Structure:
    """A dataclass, TypedDict or NamedTuple (`kind`) of the user's module."""

    name: str
    kind: str
    fields: tuple[Field, ...]
    doc: str = ""


Named = Enumeration | Structure

POSITIONAL = "positional"
EITHER = "either"
KEYWORD = "keyword"
VAR_POSITIONAL = "*"
VAR_KEYWORD = "**"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter. For `*args: T` the type is T's array, for `**kw: T` it is T. `typed`: the source names the type."""

    name: str
    type: Type
    kind: str = EITHER
    required: bool = True
    default: Any = MISSING
    typed: bool = True


@dataclass(frozen=True, slots=True)
class Doc:
    """A docstring, read."""

    summary: str = ""
    description: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    parameter_types: dict[str, str] = field(default_factory=dict)
    returns: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One function or method. `name` is `f` or `Class.f`; `binding`: function, static, class, instance."""

    name: str
    parameters: tuple[Parameter, ...]
    returns: Type
    doc: Doc = field(default_factory=Doc)
    binding: str = "function"

    @property
    def path(self) -> str:
        """The path below the base path."""
        return "/" + self.name.replace(".", "/")


@dataclass(frozen=True, slots=True)
class Interface:
    """All that a module offers."""

    name: str
    module: str
    operations: tuple[Operation, ...]
    types: dict[str, Named]
    doc: Doc = field(default_factory=Doc)
