"""The live front end: the imported module as it really is, by `inspect`."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types as pytypes
import typing
from collections.abc import Callable
from typing import Any

from cloudmesh_function import types
from cloudmesh_function.assemble import Argument, Sighting, interface
from cloudmesh_function.model import (
    EITHER,
    KEYWORD,
    MISSING,
    NONE,
    POSITIONAL,
    VAR_KEYWORD,
    VAR_POSITIONAL,
    Enumeration,
    Expose,
    Field,
    Interface,
    InterfaceError,
    Named,
    Ref,
    Structure,
    Type,
    check_nodes,
)
from cloudmesh_function.outline import FunctionOutline, Outline

_KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: POSITIONAL,
    inspect.Parameter.POSITIONAL_OR_KEYWORD: EITHER,
    inspect.Parameter.KEYWORD_ONLY: KEYWORD,
    inspect.Parameter.VAR_POSITIONAL: VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD: VAR_KEYWORD,
}
_PLACEHOLDER = Enumeration("", ())


class LiveModule:
    """An imported module beside the outline of its source."""

    def __init__(self, module: pytypes.ModuleType, found: Outline, *, name: str, module_name: str) -> None:
        self.module = module
        self.outline = found
        self.name = name
        self.module_name = module_name
        self.types: dict[str, Named] = {}
        self.classes: dict[str, type] = {}
        self._instances: dict[str, Any] = {}
        self._nodes = 0
        # the hint beside its type: its id must not become another's
        self._known: dict[int, tuple[Any, Type]] = {}

    def interface(self, expose: Expose) -> Interface:
        """The interface of what is exposed.

        Raises:
            InterfaceError: something can't be served, or the module lacks what its source defines.
        """
        return interface(
            self.outline, expose, name=self.name, module=self.module_name, look=self._look, types=self.types
        )

    def function(self, full: str) -> Callable[..., Any]:
        """The callable of an operation; all methods of a class are bound to one instance."""
        owner, _, method = full.rpartition(".")
        if not owner:
            return self._callable(self.module, full)
        holder = self._attribute(self.module, owner)
        if self._binding(full) == "instance":
            if owner not in self._instances:
                self._instances[owner] = holder()
            holder = self._instances[owner]
        return self._callable(holder, method)

    def _callable(self, holder: Any, name: str) -> Callable[..., Any]:
        found = self._attribute(holder, name)
        if not callable(found):
            raise InterfaceError(f"{name!r} is no function after the import")
        return found  # type: ignore[no-any-return]

    def _attribute(self, holder: Any, name: str) -> Any:
        for part in name.split("."):
            try:
                holder = getattr(holder, part)
            except AttributeError as error:
                raise InterfaceError(f"{name!r} is in the source but not there after the import") from error
        return holder

    def _binding(self, full: str) -> str:
        owner, _, method = full.rpartition(".")
        if not owner:
            return "function"
        raw = inspect.getattr_static(self._attribute(self.module, owner), method, None)
        if isinstance(raw, staticmethod):
            return "static"
        return "class" if isinstance(raw, classmethod) else "instance"

    def _look(self, full: str, function: FunctionOutline) -> Sighting:
        owner, _, method = full.rpartition(".")
        binding = self._binding(full)
        target = self._attribute(self._attribute(self.module, owner) if owner else self.module, method)
        if not callable(target):
            raise InterfaceError(f"{full!r} is no function after the import", function.node.lineno, 1)
        try:
            signature = inspect.signature(target)
            self._check_extent(target)
            hints = typing.get_type_hints(inspect.unwrap(target), include_extras=True)
        except (TypeError, ValueError, NameError, AttributeError, SyntaxError) as error:
            raise InterfaceError(f"the signature of {full!r} can't be read after the import: {error}") from error
        parameters = list(signature.parameters.values())
        if binding == "instance":
            parameters = parameters[1:]
        arguments = [self._argument(full, item, hints) for item in parameters]
        returns = self._annotation(hints["return"]) if "return" in hints else None
        return Sighting(arguments, returns, binding)

    def _check_extent(self, target: Any) -> None:
        """Refuses what `get_type_hints`, which writes all out, would need minutes for."""
        known: dict[int, int] = {}

        def extent(hint: Any) -> int:
            if isinstance(hint, str):
                hint = vars(self.module).get(hint)
            if id(hint) not in known:
                known[id(hint)] = 1 + sum(extent(part) for part in typing.get_args(hint))
            return known[id(hint)]

        written = getattr(inspect.unwrap(target), "__annotations__", None) or {}
        # a hint may have parts that its type has not: the exact check comes later
        check_nodes(sum(extent(hint) for hint in written.values()) // 4)

    def _argument(self, full: str, item: inspect.Parameter, hints: dict[str, Any]) -> Argument:
        hint = hints.get(item.name, item.annotation)
        try:
            kind = None if hint is inspect.Parameter.empty else self._annotation(hint)
        except InterfaceError as error:
            raise InterfaceError(f"parameter {item.name!r} of {full}: {error.message}") from error
        empty = item.default is inspect.Parameter.empty
        return Argument(item.name, _KINDS[item.kind], kind, not empty, MISSING if empty else item.default)

    def _annotation(self, hint: Any) -> Type:
        found = self.from_hint(hint)
        self._nodes += found.nodes
        check_nodes(self._nodes)
        return found

    def from_hint(self, hint: Any) -> Type:
        """The type that a run-time annotation stands for.

        Raises:
            InterfaceError: it can't be carried as JSON.
        """
        if id(hint) not in self._known:
            self._known[id(hint)] = hint, self._from_hint(hint)
        return self._known[id(hint)][1]

    def _from_hint(self, hint: Any) -> Type:
        if hint is None:
            return NONE
        if isinstance(hint, typing.NewType):
            return self.from_hint(hint.__supertype__)
        origin = typing.get_origin(hint)
        arguments = typing.get_args(hint)
        if origin is typing.Annotated or origin in (typing.Required, typing.NotRequired, typing.Final):
            return self.from_hint(arguments[0])
        if origin in (typing.Union, pytypes.UnionType):
            return types.union(self.from_hint(item) for item in arguments)
        if origin is typing.Literal:
            return types.literal(arguments)
        target = origin or hint
        path = types.canonical(f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}")
        if target is typing.Any:
            path = "typing.Any"
        if types.known(path):
            return self._generic(path, hint, arguments)
        if isinstance(target, type) and target.__module__ == self.module.__name__:
            return self._named(target)
        raise InterfaceError(f"the type {hint!r} can't be carried as JSON")

    def _generic(self, path: str, hint: Any, arguments: tuple[Any, ...]) -> Type:
        if types.SCALARS.get(path) == "ndarray":
            return types.generic(path, ())
        variadic = len(arguments) == 2 and arguments[1] is ...
        parts = [self.from_hint(item) for item in (arguments[:1] if variadic else arguments)]
        subscripted = typing.get_origin(hint) is not None and hint not in (tuple, typing.Tuple)  # noqa: UP006
        return types.generic(path, parts, variadic=variadic, subscripted=subscripted)

    def _named(self, found: type) -> Type:
        name = found.__qualname__
        reference = Ref(name)
        if name in self.types:
            return reference
        self.types[name] = _PLACEHOLDER
        self.classes[name] = found
        known = self.outline.classes.get(name)
        doc = (known.doc if known else None) or ""
        if isinstance(found, enum.EnumMeta):
            members: list[Any] = list(found)
            self.types[name] = Enumeration(name, tuple(item.value for item in members), doc)
            return reference
        self.types[name] = Structure(name, *self._fields(found), doc)
        return reference

    def _fields(self, found: type) -> tuple[str, tuple[Field, ...]]:
        hints = typing.get_type_hints(found, include_extras=True)
        if dataclasses.is_dataclass(found):
            chosen = [item for item in dataclasses.fields(found) if item.init]
            return "dataclass", tuple(
                self._field(
                    found,
                    item.name,
                    hints[item.name],
                    required=item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING,
                    default=item.default,
                )
                for item in chosen
            )
        if typing.is_typeddict(found):
            mend_required_keys(found, hints)
            required: frozenset[str] = found.__required_keys__  # type: ignore[attr-defined]
            return "typeddict", tuple(
                self._field(found, name, hint, required=name in required) for name, hint in hints.items()
            )
        if issubclass(found, tuple) and hasattr(found, "_field_defaults"):
            defaults: dict[str, Any] = found._field_defaults
            return "namedtuple", tuple(
                self._field(
                    found, name, hints[name], required=name not in defaults, default=defaults.get(name, MISSING)
                )
                for name in found._fields  # type: ignore[attr-defined]
            )
        raise InterfaceError(f"the class {found.__qualname__} can't be carried as JSON: make it a dataclass")

    def _field(self, owner: type, name: str, hint: Any, *, required: bool, default: Any = MISSING) -> Field:
        shown = MISSING
        for base in inspect.getmro(owner) if not typing.is_typeddict(owner) else ():
            known = self.outline.classes.get(base.__qualname__)
            if known and name in known.fields():
                if known.fields()[name] is not MISSING:
                    shown = types.json_default(default)
                break
        found = self._annotation(hint)
        return Field(name, found, required, types.fitting(shown, found))


def mend_required_keys(found: type, hints: dict[str, Any]) -> None:
    """Sets a TypedDict's `__required_keys__` right: CPython 3.11 misses `NotRequired` in string annotations."""
    required = set(found.__required_keys__)  # type: ignore[attr-defined]
    for name, hint in hints.items():
        origin = typing.get_origin(hint)
        if origin is typing.NotRequired:
            required.discard(name)
        elif origin is typing.Required:
            required.add(name)
    found.__required_keys__ = frozenset(required)  # type: ignore[attr-defined]
    found.__optional_keys__ = frozenset(set(hints) - required)  # type: ignore[attr-defined]
