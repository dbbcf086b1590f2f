"""The static front end: source text only. griffe knows what each name stands for; nothing is imported or run."""

from __future__ import annotations

import ast
import builtins
import typing
from dataclasses import dataclass
from typing import Final, NoReturn

import griffe

from cloudmesh.functions.signatures.imports import Imports
from cloudmesh.functions.signatures.names import OURS, visit
from cloudmesh_function import types
from cloudmesh_function.assemble import Argument, Sighting, interface
from cloudmesh_function.model import (
    EITHER,
    KEYWORD,
    MAX_DEPTH,
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
from cloudmesh_function.outline import ClassOutline, FunctionOutline, Outline, resolve_bases

_WRAPPERS: Final = frozenset(
    {"typing.Annotated", "typing.Required", "typing.NotRequired", "typing.Final", "typing.ReadOnly"}
)
_STAR_MODULES: Final = ("typing", "datetime", "decimal", "uuid", "collections.abc", "enum", "dataclasses", "pathlib")
_ENUMS: Final = frozenset({"enum.Enum", "enum.IntEnum", "enum.StrEnum"})


@dataclass(slots=True)
class _Place:
    """Where an annotation stands; one in a string has the string's place."""

    line: int
    column: int
    depth: int = 0
    fixed: bool = False

    def at(self, node: ast.expr) -> _Place:
        if self.fixed:
            return _Place(self.line, self.column, self.depth + 1, fixed=True)
        return _Place(node.lineno, node.col_offset + 1, self.depth + 1)


class StaticModule:
    """A module's source, read but not run."""

    def __init__(self, source: str, found: Outline, imports: Imports, *, name: str, module: str) -> None:
        self.outline = found
        self.imports = imports
        self.name = name
        self.module = module
        self.types: dict[str, Named] = {}
        self.tree = visit(source)
        self._nodes = 0
        self._aliased: dict[str, Type] = {}
        self._aliases: dict[str, ast.expr | None] = {}
        for node in found.tree.body:
            target = node.targets[0] if isinstance(node, ast.Assign) and len(node.targets) == 1 else None
            if isinstance(node, ast.AnnAssign):
                target = node.target
            if isinstance(target, ast.Name) and isinstance(node, (ast.Assign, ast.AnnAssign)):
                self._aliases[target.id] = None if target.id in self._aliases else node.value

    def interface(self, expose: Expose) -> Interface:
        """The interface of what is exposed.

        Raises:
            InterfaceError: something can't be served; with line and column.
        """
        return interface(self.outline, expose, name=self.name, module=self.module, look=self._look, types=self.types)

    def _look(self, full: str, function: FunctionOutline) -> Sighting:
        owner, _, _ = full.rpartition(".")
        binding = _binding(function) if owner else "function"
        scope = self._scope(function.name.rpartition(".")[0])
        arguments = function.node.args
        ordered = [(item, POSITIONAL) for item in arguments.posonlyargs] + [(item, EITHER) for item in arguments.args]
        without = len(ordered) - len(arguments.defaults)
        if binding in ("class", "instance"):
            if not ordered:
                _fail(
                    f"the method {full} has no `{'self' if binding == 'instance' else 'cls'}` parameter", function.node
                )
            ordered, without = ordered[1:], max(without - 1, 0)
        if binding == "instance":
            self._constructible(owner, function)
        seen = [
            self._argument(item, kind, scope, full, has_default=index >= without)
            for index, (item, kind) in enumerate(ordered)
        ]
        if arguments.vararg:
            seen.append(self._argument(arguments.vararg, VAR_POSITIONAL, scope, full, has_default=False))
        seen += [
            self._argument(item, KEYWORD, scope, full, has_default=value is not None)
            for item, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
        ]
        if arguments.kwarg:
            seen.append(self._argument(arguments.kwarg, VAR_KEYWORD, scope, full, has_default=False))
        returns = function.node.returns
        what = f"the result of {full}"
        return Sighting(seen, self.annotation(returns, scope, what) if returns is not None else None, binding)

    def _argument(self, item: ast.arg, kind: str, scope: griffe.Object, full: str, *, has_default: bool) -> Argument:
        what = f"parameter {item.arg!r} of {full}"
        found = self.annotation(item.annotation, scope, what) if item.annotation is not None else None
        return Argument(item.arg, kind, found, has_default)

    def _constructible(self, owner: str, function: FunctionOutline) -> None:
        for item in resolve_bases(self.outline, owner):
            made = item.methods.get("__init__")
            if made is not None:
                arguments = made.node.args
                needed = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults) - 1
                if needed > 0 or any(value is None for value in arguments.kw_defaults):
                    _fail(
                        f"{owner}() needs arguments, so its method {function.node.name} can't be served: give the "
                        "parameters of __init__ defaults or make it a classmethod",
                        made.node,
                    )
                return
            if self._is_dataclass(item) and any(
                isinstance(node, ast.AnnAssign) and node.value is None and not self._is_class_variable(node, item)
                for node in item.node.body
            ):
                _fail(
                    f"{owner}() needs arguments, so {function.node.name} can't be served: give each field a default",
                    item.node,
                )

    def annotation(self, node: ast.expr, scope: griffe.Object, what: str) -> Type:
        """The type an annotation stands for.

        Raises:
            InterfaceError: it stands for nothing that can be served; begins with `what`.
        """
        try:
            found = self._type(node, scope, _Place(node.lineno, node.col_offset + 1))
            self._nodes += found.nodes
            check_nodes(self._nodes)
        except InterfaceError as error:
            raise InterfaceError(
                f"{what}: {error.message}", error.line or node.lineno, error.column or node.col_offset + 1
            ) from error
        return found

    def _type(self, node: ast.expr, scope: griffe.Object, place: _Place) -> Type:
        here = place.at(node)
        if here.depth > MAX_DEPTH:
            raise InterfaceError("the type is nested too deeply", here.line, here.column)
        try:
            match node:
                case ast.Constant(None):
                    return NONE
                case ast.Constant(str() as text):
                    return self._quoted(text, scope, here)
                case ast.BinOp(left, ast.BitOr(), right):
                    return types.union((self._type(left, scope, here), self._type(right, scope, here)))
                case ast.Name() | ast.Attribute():
                    return self._bare(self._path(node, scope, here), here)
                case ast.Subscript(value, inner):
                    return self._subscript(self._path(value, scope, here), inner, scope, here)
                case _:
                    return _no_type(node)
        except InterfaceError as error:
            if error.line:
                raise
            raise InterfaceError(error.message, here.line, here.column) from error

    def _quoted(self, text: str, scope: griffe.Object, here: _Place) -> Type:
        try:
            inner = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise InterfaceError(f"{text[:60]!r} is no type") from error
        return self._type(inner, scope, _Place(here.line, here.column, here.depth, fixed=True))

    def _bare(self, path: str, here: _Place) -> Type:
        if path.startswith(OURS + "."):
            return self._own(path.removeprefix(OURS + "."), here)
        if path in ("typing.Optional", "typing.Union", "typing.Literal"):
            raise InterfaceError(f"{path} needs a type in brackets")
        return types.generic(path, (), subscripted=False)

    def _subscript(self, path: str, inner: ast.expr, scope: griffe.Object, here: _Place) -> Type:
        parts = list(inner.elts) if isinstance(inner, ast.Tuple) else [inner]
        if path == "typing.Literal":
            return types.literal(value for part in parts for value in self._literal(part, scope, here))
        if path in _WRAPPERS:
            return self._type(parts[0], scope, here)
        if path == "typing.Optional":
            return types.optional(self._type(inner, scope, here))
        if path == "typing.Union":
            return types.union(self._type(part, scope, here) for part in parts)
        if path.startswith(OURS + "."):
            raise InterfaceError(
                f"{path.removeprefix(OURS + '.')} takes no type arguments here: generic classes can't be served"
            )
        if types.SCALARS.get(path) == "ndarray":
            return types.generic(path, ())
        if not types.known(path):
            raise InterfaceError(f"the type {path.removeprefix('builtins.')} can't be carried as JSON")
        variadic = len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value is ...
        found = [self._type(part, scope, here) for part in (parts[:1] if variadic else parts)]
        return types.generic(path, found, variadic=variadic)

    def _literal(self, node: ast.expr, scope: griffe.Object, here: _Place) -> list[bool | int | str | None]:
        if isinstance(node, ast.Subscript) and self._path(node.value, scope, here) == "typing.Literal":
            parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
            return [value for part in parts for value in self._literal(part, scope, here)]
        try:
            value = ast.literal_eval(node)
        except ValueError:
            value = ...
        if value is not None and not isinstance(value, (bool, int, str)):
            raise InterfaceError(
                f"Literal values must be strings, whole numbers, booleans or None, not {ast.unparse(node)[:60]}"
            )
        return [value]

    def _path(self, node: ast.expr, scope: griffe.Object, here: _Place) -> str:
        """The canonical dotted name that a name or attribute stands for."""
        rest: list[str] = []
        while isinstance(node, ast.Attribute):
            rest.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise InterfaceError(f"{ast.unparse(node)[:60]!r} is no type", here.line, here.column)
        name = node.id
        if name in self.imports.type_checking:
            raise InterfaceError(
                f"{name} is imported under TYPE_CHECKING only, so it is missing at run time: import it always"
            )
        try:
            path = scope.resolve(name)
        except griffe.NameResolutionError:
            path = self._unresolved(name)
        if path.startswith(OURS + ".") and rest:
            return ".".join((path, *rest))
        return types.canonical(".".join((path, *rest)))

    def _unresolved(self, name: str) -> str:
        for module in self.imports.star:
            path = types.canonical(f"{module}.{name}")
            if module in _STAR_MODULES and (
                types.known(path) or path in _WRAPPERS or (module == "typing" and name in typing.__all__)
            ):
                return path
        if hasattr(builtins, name):
            return f"builtins.{name}"
        raise InterfaceError(f"the name {name!r} is not defined: import or define it")

    def _own(self, name: str, here: _Place) -> Type:
        if name in self.outline.classes:
            return self._named(self.outline.classes[name])
        if name not in self._aliased:
            # else a chain of aliases, each of the one before twice, takes twice as long with every line
            self._aliased[name] = self._alias(name, here)
        return self._aliased[name]

    def _alias(self, name: str, here: _Place) -> Type:
        if name in self._aliases:
            value = self._aliases[name]
            if value is None:
                raise InterfaceError(f"{name} is assigned more than once, so it can't be read as a type")
            if isinstance(value, ast.Call):
                return self._called(name, value, here)
            if isinstance(value, (ast.Name, ast.Attribute, ast.Subscript, ast.BinOp)) or (
                isinstance(value, ast.Constant) and isinstance(value.value, str | None)
            ):
                return self._type(value, self.tree, _Place(here.line, here.column, here.depth, fixed=True))
        if name in self.outline.functions:
            raise InterfaceError(f"{name} is a function, not a type")
        raise InterfaceError(f"{name} is no type that can be read from the source")

    def _called(self, name: str, value: ast.Call, here: _Place) -> Type:
        named = isinstance(value.func, (ast.Name, ast.Attribute))
        path = self._path(value.func, self.tree, here) if named else ""
        if path == "typing.NewType" and len(value.args) == 2:
            return self._type(value.args[1], self.tree, _Place(here.line, here.column, here.depth, fixed=True))
        raise InterfaceError(f"{name} is made by a call, so it can't be read from the source: write it as a class")

    def _named(self, item: ClassOutline) -> Type:
        reference = Ref(item.name)
        if item.name in self.types:
            return reference
        self.types[item.name] = Enumeration(item.name, ())
        try:
            self.types[item.name] = self._class(item)
        except InterfaceError:
            del self.types[item.name]
            raise
        return reference

    def _class(self, item: ClassOutline) -> Named:
        bases = [base for owner in resolve_bases(self.outline, item.name) for base in self._bases(owner)]
        doc = item.doc or ""
        if _ENUMS & set(bases):
            return Enumeration(item.name, self._members(item, "enum.StrEnum" in bases), doc)
        if item.node.keywords and any(word.arg == "metaclass" for word in item.node.keywords):
            _fail(f"the class {item.name} has a metaclass, so it can't be carried as JSON", item.node)
        if self._is_dataclass(item):
            return Structure(item.name, "dataclass", self._fields(item, "dataclass"), doc)
        if "typing.TypedDict" in bases:
            return Structure(item.name, "typeddict", self._fields(item, "typeddict"), doc)
        if "typing.NamedTuple" in bases:
            return Structure(item.name, "namedtuple", self._fields(item, "namedtuple"), doc)
        raise InterfaceError(
            f"the class {item.name} can't be carried as JSON: make it a dataclass, TypedDict, NamedTuple or Enum"
        )

    def _bases(self, item: ClassOutline) -> list[str]:
        scope = self._scope(item.name.rpartition(".")[0])
        found = []
        for base in item.node.bases:
            try:
                found.append(self._path(base.value if isinstance(base, ast.Subscript) else base, scope, _Place(1, 1)))
            except InterfaceError:
                found.append(ast.unparse(base)[:60])
        return found

    def _members(self, item: ClassOutline, strings: bool) -> tuple[object, ...]:
        values: list[object] = []
        for node in item.node.body:
            if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
                continue
            name = node.targets[0].id
            if name.startswith("_"):
                continue
            value: object
            if isinstance(node.value, ast.Call) and ast.unparse(node.value.func) in ("auto", "enum.auto"):
                numbers = [known for known in values if isinstance(known, int)]
                value = name.lower() if strings else max(numbers, default=0) + 1
            else:
                try:
                    value = ast.literal_eval(node.value)
                except ValueError:
                    value = None
            if isinstance(value, bool) or not isinstance(value, (int, str, float)):
                _fail(f"{item.name}.{name} must be a literal string or number", node.value)
            if value not in values:
                values.append(value)
        if not values:
            _fail(f"the Enum {item.name} has no members", item.node)
        return tuple(values)

    def _fields(self, item: ClassOutline, kind: str) -> tuple[Field, ...]:
        fields: dict[str, Field] = {}
        for owner in reversed(resolve_bases(self.outline, item.name)):
            if kind == "dataclass" and not self._is_dataclass(owner):
                continue
            scope = self._scope(owner.name)
            total = not any(
                word.arg == "total" and isinstance(word.value, ast.Constant) and word.value.value is False
                for word in owner.node.keywords
            )
            for node in owner.node.body:
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    found = self._field(node, node.target.id, owner, scope, kind, total)
                    if found is not None:
                        fields[found.name] = found
        return tuple(fields.values())

    def _field(
        self, node: ast.AnnAssign, name: str, owner: ClassOutline, scope: griffe.Object, kind: str, total: bool
    ) -> Field | None:
        what = f"field {name!r} of {owner.name}"
        head = self._head(node.annotation, scope)
        if kind == "dataclass":
            if head in ("typing.ClassVar", "dataclasses.KW_ONLY"):
                return None
            if head == "dataclasses.InitVar":
                _fail(f"{what}: an InitVar can't be carried as JSON: make it a field", node)
        found = self.annotation(node.annotation, scope, what)
        if kind == "typeddict":
            required = head == "typing.Required" or (total and head != "typing.NotRequired")
            return Field(name, found, required)
        default = self.outline.classes[owner.name].fields().get(name, MISSING)
        call = node.value
        if kind == "dataclass" and isinstance(call, ast.Call) and self._head(call.func, scope) == "dataclasses.field":
            words = {word.arg: word.value for word in call.keywords}
            init = words.get("init")
            if isinstance(init, ast.Constant) and init.value is False:
                return None
            return Field(name, found, not {"default", "default_factory"} & set(words))
        return Field(name, found, node.value is None, types.fitting(default, found))

    def _head(self, node: ast.expr, scope: griffe.Object) -> str:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value.strip(), mode="eval").body
            except (SyntaxError, ValueError):
                return ""
        if isinstance(node, ast.Subscript):
            node = node.value
        try:
            return self._path(node, scope, _Place(1, 1))
        except InterfaceError:
            return ""

    def _is_dataclass(self, item: ClassOutline) -> bool:
        scope = self._scope(item.name.rpartition(".")[0])
        return any(
            self._head(node.func if isinstance(node, ast.Call) else node, scope) == "dataclasses.dataclass"
            for node in item.node.decorator_list
        )

    def _is_class_variable(self, node: ast.AnnAssign, item: ClassOutline) -> bool:
        return self._head(node.annotation, self._scope(item.name)) in ("typing.ClassVar", "dataclasses.KW_ONLY")

    def _scope(self, name: str) -> griffe.Object:
        scope: griffe.Object = self.tree
        for part in name.split(".") if name else ():
            inner = scope.members.get(part)
            if not isinstance(inner, griffe.Class):
                break
            scope = inner
        return scope


def _binding(function: FunctionOutline) -> str:
    names = {ast.unparse(node) for node in function.node.decorator_list}
    if "staticmethod" in names:
        return "static"
    return "class" if "classmethod" in names else "instance"


def _no_type(node: ast.expr) -> NoReturn:
    raise InterfaceError(f"{ast.unparse(node)[:60]!r} is no type")


def _fail(message: str, node: ast.expr | ast.stmt) -> NoReturn:
    raise InterfaceError(message, node.lineno, node.col_offset + 1)
