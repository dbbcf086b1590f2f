"""The outline of a module's source: which functions and classes stand where, with docstrings and literal defaults.

Both front ends use it: what is exposed, the documentation and which defaults are shown never depend on running code.
"""

from __future__ import annotations

import ast
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cloudmesh_function import types
from cloudmesh_function.model import MISSING, Expose, InterfaceError

RESERVED: Final = frozenset({"ui"})
"""Names below the base path that the server itself uses."""

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class FunctionOutline:
    """A function: its node and whether it stands under a condition."""

    name: str
    node: FunctionNode
    conditional: bool = False

    @property
    def doc(self) -> str | None:
        """The docstring."""
        return ast.get_docstring(self.node)

    def defaults(self) -> dict[str, Any]:
        """JSON of the defaults that stand in the source as literals, by parameter."""
        arguments = self.node.args
        ordered = [*arguments.posonlyargs, *arguments.args]
        pairs = list(zip(reversed(ordered), reversed(arguments.defaults), strict=False))
        pairs += [
            (name, value) for name, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value
        ]
        found = {name.arg: literal(value) for name, value in pairs}
        return {name: value for name, value in found.items() if value is not MISSING}


@dataclass(slots=True)
class ClassOutline:
    """A class: its node, methods and nested classes."""

    name: str
    node: ast.ClassDef
    conditional: bool = False
    methods: dict[str, FunctionOutline] = field(default_factory=dict)
    _fields: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def doc(self) -> str | None:
        """The docstring."""
        return ast.get_docstring(self.node)

    def fields(self) -> dict[str, Any]:
        """JSON of the annotated attributes' literal defaults (`MISSING` for none), in order."""
        if self._fields is None:
            self._fields = {
                item.target.id: literal(item.value) if item.value else MISSING
                for item in self.node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
            }
        return self._fields


@dataclass(slots=True)
class Outline:
    """All functions and classes of a module; keys are qualified names."""

    tree: ast.Module
    functions: dict[str, FunctionOutline] = field(default_factory=dict)
    classes: dict[str, ClassOutline] = field(default_factory=dict)

    @property
    def doc(self) -> str | None:
        """The module's docstring."""
        return ast.get_docstring(self.tree)

    def public(self) -> list[str]:
        """Names that `*` stands for: functions without `_` that no condition guards."""
        return [name for name, item in self.functions.items() if not name.startswith("_") and not item.conditional]


def literal(node: ast.expr) -> Any:
    """JSON of an expression that is a literal, else `MISSING`."""
    try:
        return types.json_default(ast.literal_eval(node))
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return MISSING


def outline(source: str) -> Outline:
    """Reads the outline of source text, which isn't run.

    Raises:
        InterfaceError: no Python 3.11, or a function is defined twice.
    """
    found = Outline(ast.parse(source, "function.py"))
    for node, conditional in _statements(found.tree.body, conditional=False):
        if isinstance(node, ast.ClassDef):
            _class(found, node, "", conditional)
        else:
            _function(found.functions, node, node.name, conditional)
    return found


def selected(found: Outline, expose: Expose) -> list[str]:
    """The qualified names of what is exposed, in the order of the source.

    Raises:
        InterfaceError: a name is unknown, private or stands for nothing callable.
    """
    names = _methods(found, expose.class_name) if expose.class_name is not None else _functions(found, expose)
    for name in names:
        if name.partition(".")[0] in RESERVED:
            owner = found.functions.get(name) or found.classes[name.partition(".")[0]]
            raise InterfaceError(
                f"the name {name.partition('.')[0]!r} is taken by the page to try functions: choose another",
                owner.node.lineno,
                owner.node.col_offset + 1,
            )
    return names


def _functions(found: Outline, expose: Expose) -> list[str]:
    names = list(dict.fromkeys(expose.names))
    wanted = set(found.public()) if "*" in names else set()
    for name in names:
        if name == "*":
            continue
        if name.startswith("_"):
            raise InterfaceError(
                f"the function {name!r} can't be exposed: names with a leading _ are private", *_place(found, name)
            )
        if name not in found.functions:
            kind = "a class: expose it by class name" if name in found.classes else "not defined in the source"
            raise InterfaceError(
                f"the function {name!r} is {kind}; known functions: {_list(found.public())}", *_place(found, name)
            )
        wanted.add(name)
    if not wanted:
        raise InterfaceError(
            "the source defines no public function at its top level: write `def name(...)` in it", 1, 1
        )
    return [name for name in found.functions if name in wanted]


def resolve_bases(found: Outline, name: str) -> list[ClassOutline]:
    """The class and its bases as far as this module defines them: first the class itself."""
    order: dict[str, ClassOutline] = {}
    waiting = deque([name])
    while waiting:
        current = found.classes.get(waiting.popleft())
        if current is None or current.name in order:
            continue
        order[current.name] = current
        waiting += [base.id for base in current.node.bases if isinstance(base, ast.Name)]
    return list(order.values())


def _methods(found: Outline, name: str) -> list[str]:
    if name not in found.classes:
        known = [item for item in found.classes if not item.startswith("_")]
        raise InterfaceError(f"the class {name!r} is not defined in the source; known classes: {_list(known)}", 1, 1)
    names: dict[str, None] = {}
    for item in resolve_bases(found, name):
        for method, function in item.methods.items():
            if not method.startswith("_") and not _is_property(function.node):
                names.setdefault(method)
    if not names:
        node = found.classes[name].node
        raise InterfaceError(f"the class {name!r} has no public method", node.lineno, node.col_offset + 1)
    return [f"{name}.{method}" for method in names]


def _is_property(node: FunctionNode) -> bool:
    for item in node.decorator_list:
        text = ast.unparse(item)
        if text in {"property", "cached_property", "functools.cached_property", "abc.abstractproperty"}:
            return True
        if text.endswith((".setter", ".getter", ".deleter")):
            return True
    return False


def _class(found: Outline, node: ast.ClassDef, prefix: str, conditional: bool) -> None:
    item = ClassOutline(prefix + node.name, node, conditional)
    found.classes.setdefault(item.name, item)
    for inner, guarded in _statements(node.body, conditional=conditional):
        if isinstance(inner, ast.ClassDef):
            _class(found, inner, item.name + ".", guarded)
        else:
            _function(item.methods, inner, f"{item.name}.{inner.name}", guarded)


def _function(known: dict[str, FunctionOutline], node: FunctionNode, full: str, conditional: bool) -> None:
    if _is_variant(node):
        return
    first = known.get(node.name)
    if first is None:
        known[node.name] = FunctionOutline(full, node, conditional)
    elif not (first.conditional and conditional) and not _is_property(node) and not node.name.startswith("_"):
        raise InterfaceError(
            f"the function {full!r} is defined twice, first in line {first.node.lineno}: give one another name",
            node.lineno,
            node.col_offset + 1,
        )


def _is_variant(node: FunctionNode) -> bool:
    """Whether the definition is an `@overload` or a singledispatch's registration, so not the function itself."""
    for item in node.decorator_list:
        text = ast.unparse(item.func if isinstance(item, ast.Call) else item)
        if text in {"overload", "typing.overload"} or text.endswith(".register"):
            return True
    return False


def _statements(body: list[ast.stmt], *, conditional: bool) -> Iterator[tuple[FunctionNode | ast.ClassDef, bool]]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node, conditional
            case ast.If():
                if not _never(node.test):
                    yield from _statements(node.body, conditional=True)
                yield from _statements(node.orelse, conditional=True)
            case ast.Try() | ast.TryStar():
                for block in (node.body, node.orelse, node.finalbody, *(item.body for item in node.handlers)):
                    yield from _statements(block, conditional=True)
            case ast.With() | ast.AsyncWith():
                yield from _statements(node.body, conditional=conditional)
            case ast.For() | ast.While():
                yield from _statements(node.body, conditional=True)
            case _:
                pass


def _never(test: ast.expr) -> bool:
    text = ast.unparse(test)
    return text in {"TYPE_CHECKING", "typing.TYPE_CHECKING", "False", "0"} or text.startswith("__name__ ==")


def _place(found: Outline, name: str) -> tuple[int, int]:
    """Line and column of what has the name, else of the source's beginning."""
    item = found.functions.get(name) or found.classes.get(name)
    return (item.node.lineno, item.node.col_offset + 1) if item else (1, 1)


def _list(names: list[str]) -> str:
    return ", ".join(names) or "none"
