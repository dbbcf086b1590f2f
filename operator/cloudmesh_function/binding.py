"""From a request to a call's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import unquote_to_bytes

import msgspec

from cloudmesh_function import openapi
from cloudmesh_function.codec import Codec, ConvertError, split
from cloudmesh_function.model import (
    EITHER,
    KEYWORD,
    NONE,
    POSITIONAL,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Array,
    Choice,
    Operation,
    Parameter,
    Type,
)
from cloudmesh_function.problem import Problem, invalid, unknown

Arguments = tuple[list[Any], dict[str, Any]]
_MAX_PAIRS: Final = 10_000
_CONVERT_ERRORS: Final = (ConvertError, msgspec.ValidationError, TypeError, ValueError, OverflowError)


class Binder:
    """Binds requests to one operation's parameters.

    Args:
        operation: what to call.
        target: the callable, whose defaults fill the gaps.
        codec: converters of the interface.
    """

    def __init__(self, operation: Operation, target: Callable[..., Any], codec: Codec) -> None:
        self.operation = operation
        self.parameters = {item.name: item for item in operation.parameters if item.kind != VAR_KEYWORD}
        self.extra = next((item for item in operation.parameters if item.kind == VAR_KEYWORD), None)
        signature = inspect.signature(target).parameters
        self._defaults = {name: signature[name].default for name in self.parameters if name in signature}
        self._codec = codec
        self.types = codec.types
        self._decoder = self._fast_decoder()
        self._completers = [
            (name, found) for name, item in self.parameters.items() if (found := codec.completer(item.type))
        ]
        self._plain = all(item.kind in (POSITIONAL, EITHER) for item in operation.parameters)
        self.queryable = openapi.queryable(operation, codec.types)
        self._query = (
            {name: self._query_converter(item) for name, item in self.parameters.items()} if self.queryable else {}
        )
        self._query_extra = codec.query(self.extra.type) if self.extra and self.queryable else None

    def _fast_decoder(self) -> msgspec.json.Decoder[Any] | None:
        if self.extra is not None:
            return None
        fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
        for index, item in enumerate(self.parameters.values()):
            native = self._codec.carried(item.type)
            if native is NotImplemented:
                return None
            fields.append((f"p{index}", native) if item.required else (f"p{index}", native, msgspec.UNSET))
        renamed = {f"p{index}": name for index, name in enumerate(self.parameters)}
        made = msgspec.defstruct(
            "Parameters", fields, rename=renamed, forbid_unknown_fields=True, kw_only=True, gc=False
        )
        return msgspec.json.Decoder(made)

    def from_body(self, body: bytes) -> Arguments:
        """Reads a JSON object.

        Raises:
            Problem: 422, naming each wrong parameter.
        """
        try:
            if self._decoder is not None:
                try:
                    values = msgspec.structs.astuple(self._decoder.decode(body or b"{}"))
                    found = {
                        name: value
                        for name, value in zip(self.parameters, values, strict=True)
                        if value is not msgspec.UNSET
                    }
                    for name, complete in self._completers:
                        if name in found:
                            complete(found[name])
                    return self._bind(found, {})
                except msgspec.ValidationError:
                    pass  # once more, slowly, to name every wrong parameter
            decoded = msgspec.json.decode(body or b"{}")
        except msgspec.DecodeError as error:
            raise _broken(f"the body is no valid JSON: {error}") from error
        except UnicodeDecodeError as error:
            raise _broken("the body is no valid UTF-8") from error
        except RecursionError as error:
            raise _broken("the body is nested too deeply") from error
        if not isinstance(decoded, dict):
            raise _broken("the body must be a JSON object whose names are the parameters")
        return self._slowly(decoded)

    def _slowly(self, decoded: dict[str, Any]) -> Arguments:
        errors: list[dict[str, str]] = []
        found: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for name, value in decoded.items():
            item = self.parameters.get(name) or self.extra
            if item is None:
                errors.append(_error(name, "body", unknown(name, self.parameters)))
                continue
            try:
                converted = self._codec.converter(item.type)(value)
            except RecursionError:
                errors.append(_error(name, "body", "nested too deeply"))
                continue
            except _CONVERT_ERRORS as error:
                errors.append(_wrong(name, error))
                continue
            (found if name in self.parameters else more)[name] = converted
        self._missing(found, decoded, errors, "body")
        if errors:
            raise invalid(errors)
        return self._bind(found, more)

    def from_query(self, query: bytes) -> Arguments:
        """Reads a query string.

        Raises:
            Problem: 422, naming each wrong parameter.
        """
        if not query:
            texts: dict[str, list[str]] = {}
        else:
            texts = _parse(query)
        errors: list[dict[str, str]] = []
        found: dict[str, Any] = {}
        more: dict[str, Any] = {}
        for name, values in texts.items():
            convert = self._query.get(name)
            try:
                if convert is not None:
                    found[name] = convert(values)
                elif self._query_extra is not None and name and not set("[]") & set(name):
                    more[name] = self._query_extra(_single(values))
                else:
                    errors.append(_error(name, "query", unknown(name, self.parameters)))
            except _CONVERT_ERRORS as error:
                errors.append(_error(name, "query", split(str(error))[0]))
        self._missing(found, texts, errors, "query")
        if errors:
            raise invalid(errors)
        return self._bind(found, more)

    def _missing(self, found: dict[str, Any], given: Any, errors: list[dict[str, str]], where: str) -> None:
        for name, item in self.parameters.items():
            if item.required and name not in found and name not in given:
                errors.append(_error(name, where, "this parameter is required"))

    def _bind(self, found: dict[str, Any], more: dict[str, Any]) -> Arguments:
        defaults = self._defaults
        if self._plain:
            return [found[name] if name in found else defaults[name] for name in self.parameters], more
        positional: list[Any] = []
        for name, item in self.parameters.items():
            if item.kind in (POSITIONAL, EITHER):
                positional.append(found[name] if name in found else defaults[name])
            elif item.kind == VAR_POSITIONAL:
                positional += found.get(name, ())
            elif item.kind == KEYWORD and name in found:
                more[name] = found[name]
        return positional, more

    def _query_converter(self, parameter: Parameter) -> Callable[[list[str]], Any]:
        item: Type = parameter.type
        if isinstance(item, Choice) and openapi.is_array(item):
            item = next(member for member in item.members if member != NONE)
        if isinstance(item, Array):
            inner = self._codec.query(item.item)
            made: Any = {"set": set, "frozenset": frozenset, "tuple": tuple}.get(item.kind, list)
            return lambda values: made([inner(value) for value in values])
        convert = self._codec.query(item)
        return lambda values: convert(_single(values))


def _single(values: list[str]) -> str:
    if len(values) != 1:
        raise ConvertError(f"given {len(values)} times, but it takes one value")
    return values[0]


def _parse(query: bytes) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    parts = query.split(b"&", _MAX_PAIRS)
    if len(parts) > _MAX_PAIRS:
        raise _broken(f"the query has more than {_MAX_PAIRS} parts")
    for part in parts:
        if part:
            name, _, value = part.partition(b"=")
            try:
                texts.setdefault(_unquote(name), []).append(_unquote(value))
            except UnicodeDecodeError as error:
                raise _broken("the query is no valid UTF-8") from error
    return texts


def _unquote(text: bytes) -> str:
    if b"+" in text:
        text = text.replace(b"+", b" ")
    return (unquote_to_bytes(text) if b"%" in text else text).decode()


def _broken(detail: str) -> Problem:
    return Problem(422, "unreadable", detail)


def _error(name: str, where: str, detail: str) -> dict[str, str]:
    return {"parameter": name, "in": where, "detail": detail}


def _wrong(name: str, error: Exception) -> dict[str, str]:
    if isinstance(error, ConvertError):
        message, path = error.message, error.path
    else:
        message, path = split(str(error))
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")
    for part in path.lstrip("$").replace("]", "").replace("[", ".").split("."):
        if part:
            pointer += "/" + part
    return {**_error(name, "body", message), "pointer": pointer}
