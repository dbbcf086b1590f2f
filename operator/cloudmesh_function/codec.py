"""Values from and to JSON and query strings.

msgspec carries most types; what it can't (a union of two kinds of string, Decimals that must be finite, complex
numbers, arrays of numpy) goes through converters made of the same types here, so that no other library is needed.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import math
import re
import types
import typing
import uuid
from collections.abc import Callable
from typing import Any, Final

import msgspec

from cloudmesh_function.model import (
    Array,
    Choice,
    Enumeration,
    Fixed,
    Mapping,
    Named,
    Ref,
    Scalar,
    Structure,
    Type,
    Values,
)
from cloudmesh_function.scalars import PARSERS

Converter = Callable[[Any], Any]

NATIVE: Final[dict[str, Any]] = {
    "any": Any,
    "None": None,
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "bytes": bytes,
    "bytearray": bytearray,
    "datetime": datetime.datetime,
    "date": datetime.date,
    "time": datetime.time,
    "timedelta": datetime.timedelta,
    "uuid": uuid.UUID,
}
_CONTAINERS: Final[dict[str, Any]] = {
    "list": list,
    "set": set,
    "frozenset": frozenset,
    "tuple": tuple,
    "iterator": list,
}
_INTEGER: Final = re.compile(r"([+-]?[0-9]{1,4300})(?:\.0{1,100})?")  # JSON Schema's integers have 1.0 too


class ConvertError(ValueError):
    """A value that doesn't fit its type.

    Args:
        message: what was expected.
        path: where in the value, as msgspec writes it (`$.a[0]`).
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class Codec:
    """Makes converters for one interface, each once.

    Args:
        types: the interface's classes, described.
        classes: the same classes, live.
    """

    def __init__(self, types: dict[str, Named], classes: dict[str, type]) -> None:
        self.types = types
        self.classes = classes
        self._carried: dict[Type, Any] = {}
        self._defaults = {made: found for made in classes.values() if (found := _class_defaults(made))}
        self._general: dict[Type, Converter] = {}

    def carried(self, item: Type) -> Any:
        """The Python type by which msgspec carries `item`; NotImplemented when it can't."""
        if item not in self._carried:
            self._carried[item] = self.classes.get(item.name, object) if isinstance(item, Ref) else None
            found = self._native(item)
            if found is not NotImplemented:
                try:
                    msgspec.json.Decoder(found)
                except (TypeError, NameError, AttributeError):
                    found = NotImplemented
            self._carried[item] = found
        return self._carried[item]

    def _native(self, item: Type) -> Any:
        match item:
            case Scalar(name):
                return NATIVE.get(name, NotImplemented)
            case Array(kind, inner):
                found = self.carried(inner)
                if found is NotImplemented:
                    return found
                return types.GenericAlias(tuple, (found, ...)) if kind == "tuple" else _CONTAINERS[kind][found]
            case Fixed(items):
                parts = [self.carried(inner) for inner in items]
                return NotImplemented if NotImplemented in parts else types.GenericAlias(tuple, tuple(parts))
            case Mapping(key, value):
                parts = [self.carried(key), self.carried(value)]
                if NotImplemented in parts or key in (Scalar("float"), Scalar("timedelta"), Scalar("time")):
                    return NotImplemented
                return types.GenericAlias(dict, tuple(parts))
            case Choice(members):
                parts = [self.carried(member) for member in members]
                return NotImplemented if NotImplemented in parts else typing.Union[tuple(parts)]  # noqa: UP007 - made at run time
            case Values(values):
                if any(isinstance(value, bool) for value in values):
                    return NotImplemented
                return typing.Literal[values]
            case Ref(name):
                return self._class(name)

    def _class(self, name: str) -> Any:
        found = self.types[name]
        if isinstance(found, Structure) and any(self.carried(field.type) is NotImplemented for field in found.fields):
            return NotImplemented
        return self.classes[name]

    def completer(self, item: Type) -> Converter | None:
        """A function that completes what msgspec decoded; None when there is nothing to complete.

        msgspec leaves a dataclass's plain defaults to the class, so that `vars(value)` and its own encoder miss them.
        """
        if not self._defaults or not any(self.classes[name] in self._defaults for name in self._mentions(item, set())):
            return None
        return self._complete

    def _mentions(self, item: Type, seen: set[str]) -> set[str]:
        match item:
            case Array(_, inner):
                self._mentions(inner, seen)
            case Fixed(parts) | Choice(parts):
                for part in parts:
                    self._mentions(part, seen)
            case Mapping(key, value):
                self._mentions(key, seen)
                self._mentions(value, seen)
            case Ref(name) if name not in seen:
                seen.add(name)
                found = self.types[name]
                if isinstance(found, Structure):
                    for field in found.fields:
                        self._mentions(field.type, seen)
            case _:
                pass
        return seen

    def _complete(self, value: Any) -> Any:
        kind = type(value)
        if kind in (str, int, float, bool, bytes, type(None)):
            return value
        if kind in self._defaults:
            own = value.__dict__
            for name, default in self._defaults[kind].items():
                own.setdefault(name, default)
        if isinstance(value, dict):
            for part in value.values():
                self._complete(part)
        elif isinstance(value, (list, tuple, set, frozenset)):
            for part in value:
                self._complete(part)
        elif dataclasses.is_dataclass(value):
            for field in dataclasses.fields(value):
                self._complete(getattr(value, field.name, None))
        return value

    def converter(self, item: Type) -> Converter:
        """A function from decoded JSON to the value; raises ConvertError, msgspec.ValidationError or TypeError."""
        native = self.carried(item)
        if native is not NotImplemented:
            if native is Any:
                return lambda value: value
            complete = self.completer(item)
            if complete is not None:
                return lambda value: complete(msgspec.convert(value, native, str_keys=True))
            return lambda value: msgspec.convert(value, native, str_keys=True)
        if item not in self._general:
            # a class may contain itself: its converter is looked up when it is called
            self._general[item] = lambda value: made(value)
            made = self._compile(item)
            self._general[item] = made
        return self._general[item]

    def _compile(self, item: Type) -> Converter:
        match item:
            case Scalar(name):
                return _checked(PARSERS[name]) if name in PARSERS else self.converter(item)
            case Array(kind, inner):
                return self._array(_CONTAINERS[kind], self.converter(inner))
            case Fixed(items):
                return _fixed([self.converter(inner) for inner in items])
            case Mapping(key, value):
                return _mapping(self.query(key), self.converter(value))
            case Choice(members):
                return _first([self.converter(member) for member in sorted(members, key=self._rank)])
            case Values(values):
                return _one_of({(type(value), value): value for value in values}, values)
            case Ref(name):
                return self._named(name)

    def _named(self, name: str) -> Converter:
        found, made = self.types[name], self.classes[name]
        if isinstance(found, Enumeration):
            assert issubclass(made, enum.Enum)  # noqa: S101 - the live front end saw it
            return _one_of({(type(value), value): made(value) for value in found.values}, found.values)
        fields = {field.name: (field.required, self.converter(field.type)) for field in found.fields}
        if found.kind == "namedtuple":
            return _named_tuple(made, list(fields.values()))
        return _structure(dict if found.kind == "typeddict" else made, fields)

    def _array(self, container: Any, inner: Converter) -> Converter:
        def convert(value: Any) -> Any:
            if not isinstance(value, list):
                raise ConvertError(f"Expected `array`, got `{kind_of(value)}`")
            return container([_at(inner, part, f"[{index}]") for index, part in enumerate(value)])

        return convert

    def query(self, item: Type) -> Callable[[str], Any]:
        """A function from one query value (or key of an object) to the value."""
        match item:
            case Scalar("any" | "str"):
                return str
            case Scalar(name) if name in _WORDS:
                return _WORDS[name]
            case Choice(members):
                return _first([self.query(member) for member in sorted(members, key=self._query_rank)])
            case Values(values):
                return _spelled({_spell(value): value for value in values}, values)
            case Ref(name):
                found = self.types[name]
                assert isinstance(found, Enumeration)  # noqa: S101 - openapi.queryable
                made: Any = self.classes[name]
                return _spelled({_spell(value): made(value) for value in found.values}, found.values)
            case _:
                return self.converter(item)

    def _rank(self, item: Type) -> tuple[int, str]:
        """The order in which a union's members are tried: the more a type refuses, the earlier."""
        match item:
            case Scalar("any"):
                rank = 9
            case Scalar("str"):
                rank = 8
            case Scalar("bytes" | "bytearray" | "path"):
                rank = 7
            case Scalar("complex" | "fraction" | "decimal" | "float"):
                rank = 5
            case Scalar("None" | "bool"):
                rank = 0
            case Values() | Ref():
                rank = 1
            case _:
                rank = 3
        return rank, repr(item)

    def _query_rank(self, item: Type) -> tuple[int, str]:
        rank, text = self._rank(item)
        # "1" and "null" are what a text parameter says, unless text is no choice
        return (rank + 10 if item in (Scalar("int"), Scalar("float"), Scalar("bool"), Scalar("None")) else rank), text


def _class_defaults(made: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(made) or "__slots__" in vars(made):
        return {}
    return {item.name: item.default for item in dataclasses.fields(made) if item.default is not dataclasses.MISSING}


def kind_of(value: Any) -> str:
    """The JSON name of a value's type."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return "str"
        case list():
            return "array"
        case _:
            return "object"


def _at(inner: Converter, value: Any, step: str) -> Any:
    try:
        return inner(value)
    except ConvertError as error:
        raise ConvertError(error.message, "$" + step + error.path[1:]) from error
    except msgspec.ValidationError as error:
        message, path = split(str(error))
        raise ConvertError(message, "$" + step + path[1:]) from error


def split(message: str) -> tuple[str, str]:
    """A message of msgspec as text and path."""
    text, _, path = message.partition(" - at ")
    found = re.search(r"`(\$[^`]*)`$", path)
    return text, found[1] if found else "$"


def _checked(parse: Converter) -> Converter:
    def convert(value: Any) -> Any:
        try:
            return parse(value)
        except (ValueError, TypeError, ArithmeticError) as error:
            raise ConvertError(str(error)) from error

    return convert


def _fixed(parts: list[Converter]) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, list) or len(value) != len(parts):
            raise ConvertError(f"Expected `array` of length {len(parts)}")
        return tuple(
            _at(part, inner, f"[{index}]") for index, (part, inner) in enumerate(zip(parts, value, strict=True))
        )

    return convert


def _mapping(key: Converter, inner: Converter) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ConvertError(f"Expected `object`, got `{kind_of(value)}`")
        return {_at(key, name, f".{name}"): _at(inner, part, f".{name}") for name, part in value.items()}

    return convert


def _first(parts: list[Converter]) -> Converter:
    def convert(value: Any) -> Any:
        reasons: list[tuple[str, str]] = []
        for part in parts:
            try:
                return part(value)
            except ConvertError as error:
                reasons.append((error.message, error.path))
            except (ValueError, TypeError) as error:
                reasons.append(split(str(error)))
        inner = [reason for reason in reasons if reason[1] != "$"]
        if len(inner) == 1:  # only one choice has this shape
            raise ConvertError(*inner[0])
        raise ConvertError("; or ".join(dict.fromkeys(message for message, _ in reasons)))

    return convert


def _one_of(table: dict[tuple[type, Any], Any], values: tuple[Any, ...]) -> Converter:
    def convert(value: Any) -> Any:
        try:
            return table[type(value), value]
        except (KeyError, TypeError):
            raise ConvertError(f"Expected one of {_spell_all(values)}") from None

    return convert


def _spelled(table: dict[str, Any], values: tuple[Any, ...]) -> Converter:
    def convert(text: str) -> Any:
        try:
            return table[text]
        except KeyError:
            raise ConvertError(f"Expected one of {_spell_all(values)}, got {text[:60]!r}") from None

    return convert


def _structure(made: Callable[..., Any], fields: dict[str, tuple[bool, Converter]]) -> Converter:
    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise ConvertError(f"Expected `object`, got `{kind_of(value)}`")
        found = {name: _at(inner, value[name], f".{name}") for name, (_, inner) in fields.items() if name in value}
        for name, (required, _) in fields.items():
            if required and name not in value:
                raise ConvertError(f"Object missing required field `{name}`")
        return _checked(lambda _: made(**found))(value)

    return convert


def _named_tuple(made: Callable[..., Any], fields: list[tuple[bool, Converter]]) -> Converter:
    least = sum(1 for required, _ in fields if required)

    def convert(value: Any) -> Any:
        if not isinstance(value, list) or not least <= len(value) <= len(fields):
            raise ConvertError(f"Expected `array` of length {least} to {len(fields)}")
        pairs = enumerate(zip(fields, value, strict=False))
        return made(*(_at(inner, part, f"[{index}]") for index, ((_, inner), part) in pairs))

    return convert


def _spell(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _spell_all(values: tuple[Any, ...]) -> str:
    return ", ".join(msgspec.json.encode(value).decode() for value in values[:20]) + (
        ", ..." if len(values) > 20 else ""
    )


def _word_int(text: str) -> int:
    found = _INTEGER.fullmatch(text)
    if found is None:
        raise ConvertError(f"Expected `int`, got {text[:60]!r}")
    return int(found[1])


def _word_float(text: str) -> float:
    try:
        value = msgspec.convert(text, float, strict=False)
    except msgspec.ValidationError:
        value = math.nan
    if not math.isfinite(value):
        raise ConvertError(f"Expected a finite number, got {text[:60]!r}")
    return value


def _word_bool(text: str) -> bool:
    if text in ("true", "1", "True"):
        return True
    if text in ("false", "0", "False"):
        return False
    raise ConvertError(f"Expected `true` or `false`, got {text[:60]!r}")


def _word_none(text: str) -> None:
    if text != "null":
        raise ConvertError(f"Expected `null`, got {text[:60]!r}")


def _word(name: str) -> Callable[[str], Any]:
    native = NATIVE[name]

    def convert(text: str) -> Any:
        return msgspec.convert(text, native)

    return convert


_WORDS: Final[dict[str, Callable[[str], Any]]] = {
    "int": _word_int,
    "float": _word_float,
    "bool": _word_bool,
    "None": _word_none,
    **{name: _word(name) for name in ("datetime", "date", "time", "timedelta", "uuid", "bytes", "bytearray")},
}


def encode(value: Any) -> bytes:
    """A result as JSON.

    Raises:
        ValueError: NaN or infinity, which JSON hasn't.
        TypeError: a value of no known type.
    """
    body = _ENCODER.encode(value)
    if b"null" in body:
        _refuse_non_finite(msgspec.to_builtins(value, enc_hook=_enc_hook), "$")
    return body


def _enc_hook(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    for name in ("tolist", "item"):  # numpy's arrays and numbers, without importing it
        convert = getattr(value, name, None)
        if convert is not None and type(value).__module__.partition(".")[0] in ("numpy", "array"):
            return convert()
    if isinstance(value, complex):
        return str(value).strip("()")
    if isinstance(value, _textual()):
        return str(value)
    if isinstance(value, collections.abc.Mapping):
        return dict(value)
    if isinstance(value, (collections.abc.Sequence, collections.abc.Set, collections.abc.Iterator)):
        return list(value)
    raise TypeError(f"a {type(value).__module__}.{type(value).__qualname__} can't be written as JSON")


def _textual() -> tuple[type, ...]:
    from cloudmesh_function.scalars import textual

    return textual()


_ENCODER: Final = msgspec.json.Encoder(enc_hook=_enc_hook)


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"the result holds {value} at {path}, which JSON can't carry")
    elif isinstance(value, dict):
        for name, part in value.items():
            _refuse_non_finite(part, f"{path}.{name}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for index, part in enumerate(value):
            _refuse_non_finite(part, f"{path}[{index}]")
