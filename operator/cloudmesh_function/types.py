"""Names of Python's types, and the types made of them: one table for both front ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, Final

from cloudmesh_function.model import (
    ANY,
    MISSING,
    NONE,
    Array,
    Choice,
    Fixed,
    InterfaceError,
    Mapping,
    Ref,
    Scalar,
    Type,
    Values,
    check_nodes,
)

# canonical dotted name -> name of the scalar
SCALARS: Final[dict[str, str]] = {
    "builtins.int": "int",
    "builtins.float": "float",
    "builtins.bool": "bool",
    "builtins.str": "str",
    "builtins.bytes": "bytes",
    "builtins.bytearray": "bytearray",
    "builtins.complex": "complex",
    "builtins.object": "any",
    "builtins.None": "None",
    "builtins.NoneType": "None",
    "types.NoneType": "None",
    "typing.Any": "any",
    "typing.Text": "str",
    "typing.AnyStr": "str",
    "numbers.Number": "float",
    "numbers.Real": "float",
    "numbers.Integral": "int",
    "datetime.datetime": "datetime",
    "datetime.date": "date",
    "datetime.time": "time",
    "datetime.timedelta": "timedelta",
    "uuid.UUID": "uuid",
    "decimal.Decimal": "decimal",
    "fractions.Fraction": "fraction",
    "pathlib.Path": "path",
    "pathlib.PurePath": "path",
    "pathlib.PurePosixPath": "path",
    "pathlib.PosixPath": "path",
    "ipaddress.IPv4Address": "ipv4",
    "ipaddress.IPv6Address": "ipv6",
    "numpy.ndarray": "ndarray",
    "numpy.array": "ndarray",
    "numpy.typing.NDArray": "ndarray",
    "array.array": "array",
}

ARRAYS: Final[dict[str, str]] = {
    "builtins.list": "list",
    "builtins.set": "set",
    "builtins.frozenset": "frozenset",
    "collections.abc.Sequence": "list",
    "collections.abc.MutableSequence": "list",
    "collections.abc.Collection": "list",
    "collections.abc.Iterable": "list",
    "collections.abc.Set": "frozenset",
    "collections.abc.MutableSet": "set",
    "collections.abc.Iterator": "iterator",
    "collections.abc.Generator": "iterator",
    "collections.abc.AsyncIterator": "iterator",
    "collections.abc.AsyncIterable": "iterator",
    "collections.abc.AsyncGenerator": "iterator",
}

MAPPINGS: Final[frozenset[str]] = frozenset(
    {"builtins.dict", "collections.abc.Mapping", "collections.abc.MutableMapping"}
)

_TYPING_NAMES: Final[dict[str, str]] = {
    "List": "builtins.list",
    "Set": "builtins.set",
    "FrozenSet": "builtins.frozenset",
    "Tuple": "builtins.tuple",
    "Dict": "builtins.dict",
    "AbstractSet": "collections.abc.Set",
    **{
        path.rpartition(".")[2]: path
        for path in (*ARRAYS, *MAPPINGS)
        if path.startswith("collections.abc.") and not path.endswith(".Set")
    },
}

KEYS: Final[frozenset[str]] = frozenset(
    {"str", "int", "float", "any", "datetime", "date", "time", "timedelta", "uuid", "decimal"}
)


def canonical(path: str) -> str:
    """The one name of a type that has several (`typing.List`, `typing_extensions.List`, `builtins.list`)."""
    module, _, name = path.rpartition(".")
    if module == "typing_extensions":
        module = "typing"
    if module == "typing" and name in _TYPING_NAMES:
        return _TYPING_NAMES[name]
    if module == "_collections_abc":
        module = "collections.abc"
    return f"{module}.{name}" if module else name


def known(path: str) -> bool:
    """Whether `generic` can make something of this canonical name."""
    return path in SCALARS or path in ARRAYS or path in MAPPINGS or path == "builtins.tuple"


def generic(path: str, arguments: Sequence[Type], *, variadic: bool = False, subscripted: bool = True) -> Type:
    """The type `path[arguments]`.

    Args:
        path: canonical dotted name.
        arguments: what stands in the brackets, without an ellipsis.
        variadic: an ellipsis stood behind the first argument (tuples).
        subscripted: brackets were there at all (`tuple[()]` differs from `tuple`).

    Raises:
        InterfaceError: the type can't be carried as JSON.
    """
    scalar = SCALARS.get(path)
    if scalar == "ndarray":
        return Scalar("ndarray")
    if scalar is not None:
        if arguments:
            raise InterfaceError(f"the type {_short(path)} takes no type arguments")
        return Scalar(scalar)
    if path == "builtins.tuple":
        if not subscripted or variadic:
            return Array("tuple", arguments[0] if arguments else ANY)
        return Fixed(tuple(arguments))
    if path in ARRAYS:
        kind = ARRAYS[path]
        allowed = 3 if kind == "iterator" else 1
        if len(arguments) > allowed:
            raise InterfaceError(f"{_short(path)} takes one type argument, found {len(arguments)}")
        return Array(kind, arguments[0] if arguments else ANY)
    if path in MAPPINGS:
        if len(arguments) not in (0, 2):
            raise InterfaceError(f"{_short(path)} takes two type arguments, found {len(arguments)}")
        key, value = arguments or (ANY, ANY)
        return mapping(key, value)
    raise InterfaceError(f"the type {_short(path)} can't be carried as JSON")


def mapping(key: Type, value: Type) -> Mapping:
    """`dict[key, value]`; keys of JSON objects are strings, so the key's type must be written as one."""
    match key:
        case Scalar(name) if name in KEYS:
            pass
        case Values(values) if all(isinstance(item, str) for item in values):
            pass
        case Ref():
            pass
        case _:
            raise InterfaceError("the keys of a dict must be strings, numbers, dates, UUIDs, Decimals or an Enum")
    return Mapping(Scalar("str") if key == ANY else key, value)


def union(members: Iterable[Type]) -> Type:
    """A union of `members`: flat, without doubles, in an order that doesn't depend on how it was written."""
    flat: list[Type] = []
    for member in members:
        flat += member.members if isinstance(member, Choice) else [member]
    flat = list({id(member): member for member in flat}.values())
    check_nodes(sum(member.nodes for member in flat))  # what follows walks through all of them
    if ANY in flat:
        return ANY
    if any(isinstance(member, Values) and None in member.values for member in flat):
        flat = [member for member in flat if member != NONE]
    unique = sorted(dict.fromkeys(flat), key=lambda item: (item == NONE, repr(item)))
    return unique[0] if len(unique) == 1 else Choice(tuple(unique))


def optional(item: Type) -> Type:
    """`item | None`."""
    return item if allows_none(item) else union((item, NONE))


def allows_none(item: Type) -> bool:
    """Whether None is a value of the type."""
    match item:
        case Choice(members):
            return any(allows_none(member) for member in members)
        case Values(values):
            return None in values
        case _:
            return item in (ANY, NONE)


def literal(values: Iterable[Any]) -> Values:
    """`Literal[values]`."""
    kept: dict[tuple[type, Any], Any] = {}
    for value in values:
        if value is not None and not isinstance(value, (bool, int, str)):
            raise InterfaceError(f"Literal values must be strings, whole numbers, booleans or None, not {value!r}")
        kept.setdefault((type(value), value), value)
    ordered = sorted(kept.values(), key=lambda item: (type(item).__name__, str(item)))
    return Values(tuple(ordered))


def fitting(value: Any, item: Type) -> Any:
    """A default as JSON where it fits its type's schema, else `MISSING`: `x: int = "a"` is legal but no default."""
    return value if value is MISSING or _fits(value, item) else MISSING


def _fits(value: Any, item: Type) -> bool:
    match item:
        case Scalar("any"):
            return True
        case Scalar("None"):
            return value is None
        case Scalar("bool"):
            return isinstance(value, bool)
        case Scalar("int"):
            return isinstance(value, int) and not isinstance(value, bool)
        case Scalar("float" | "decimal" | "complex"):
            return isinstance(value, (int, float)) and not isinstance(value, bool)
        case Scalar("str"):
            return isinstance(value, str)
        case Array(_, inner):
            return isinstance(value, list) and all(_fits(part, inner) for part in value)
        case Fixed(items):
            return (
                isinstance(value, list)
                and len(value) == len(items)
                and all(_fits(part, inner) for part, inner in zip(value, items, strict=True))
            )
        case Mapping(key, inner):
            return (
                isinstance(value, dict) and key == Scalar("str") and all(_fits(part, inner) for part in value.values())
            )
        case Choice(members):
            return any(_fits(value, member) for member in members)
        case Values(values):
            return any(value == known and type(value) is type(known) for known in values)
        case _:
            return False


def json_default(value: Any) -> Any:
    """A literal default as JSON, or `MISSING` where JSON has no such value."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else MISSING
    if isinstance(value, (list, tuple)):
        items = [json_default(item) for item in value]
        return MISSING if MISSING in items else items
    if isinstance(value, (set, frozenset)):
        items = [json_default(item) for item in value]
        return MISSING if MISSING in items else sorted(items, key=repr)
    if isinstance(value, dict):
        pairs = {key: json_default(item) for key, item in value.items()}
        bad = any(not isinstance(key, str) for key in pairs) or any(item is MISSING for item in pairs.values())
        return MISSING if bad else pairs
    return MISSING


def _short(path: str) -> str:
    return path.removeprefix("builtins.")
