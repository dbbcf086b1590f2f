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


MAX_NODES: Final = 20_000
"""Nodes of all types of a source at most: an alias is written out wherever it stands."""
MAX_DEPTH: Final = 64
"""How deep types nest at most."""


def check_nodes(nodes: int) -> None:
    """Refuses more nodes than a source's types may have.

    Raises:
        InterfaceError: they are more than `MAX_NODES`.
    """
    if nodes > MAX_NODES:
        raise InterfaceError(
            f"the types have more than {MAX_NODES} parts when written out: make the repeated ones a dataclass, "
            "TypedDict or NamedTuple, which is described only once"
        )


@dataclass(frozen=True, slots=True)
class _Measured:
    """What types have in common: their extent, known without walking through them.

    Attributes:
        nodes: how many types and literal values it has when written out, with itself.
        depth: how deep it nests, from 1.
    """

    nodes: int = field(init=False, repr=False, compare=False)
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = self._parts()
        nodes = 1 + self._values() + sum(part.nodes for part in parts)
        depth = 1 + max((part.depth for part in parts), default=0)
        check_nodes(nodes)
        if depth > MAX_DEPTH:
            raise InterfaceError("the type is nested too deeply")
        object.__setattr__(self, "nodes", nodes)
        object.__setattr__(self, "depth", depth)

    def _parts(self) -> tuple[Type, ...]:
        return ()

    def _values(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class Scalar(_Measured):
    """A type without parts; `name` is a key of `types.SCALARS`."""

    name: str


@dataclass(frozen=True, slots=True)
class Array(_Measured):
    """A JSON array whose items have one type. `kind`: list, set, frozenset, tuple, iterator."""

    kind: str
    item: Type

    def _parts(self) -> tuple[Type, ...]:
        return (self.item,)


@dataclass(frozen=True, slots=True)
class Fixed(_Measured):
    """A tuple of fixed length."""

    items: tuple[Type, ...]

    def _parts(self) -> tuple[Type, ...]:
        return self.items


@dataclass(frozen=True, slots=True)
class Mapping(_Measured):
    """A JSON object with keys of one type and values of another."""

    key: Type
    value: Type

    def _parts(self) -> tuple[Type, ...]:
        return (self.key, self.value)


@dataclass(frozen=True, slots=True)
class Choice(_Measured):
    """A union. Members are ordered by `types.union`, not as written: Python's typing caches forget the order."""

    members: tuple[Type, ...]

    def _parts(self) -> tuple[Type, ...]:
        return self.members


@dataclass(frozen=True, slots=True)
class Values(_Measured):
    """`typing.Literal`."""

    values: tuple[bool | int | str | None, ...]

    def _values(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Ref(_Measured):
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
