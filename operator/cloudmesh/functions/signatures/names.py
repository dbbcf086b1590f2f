"""griffe's view of a module: what each name in it stands for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import griffe

OURS: Final = "__function__"  # no real package has this name


def visit(source: str) -> griffe.Module:
    """The module's names; its annotations are left to the caller."""
    return _Visitor(OURS, Path("function.py"), source, griffe.load_extensions()).get_module()


class _Visitor(griffe.Visitor):
    """Looks for no text behind an assignment or a property.

    griffe takes a string there for its description, and goes through all statements before it each time: 10,000
    constants take half a minute.
    """

    def handle_attribute(self, node: ast.Assign | ast.AnnAssign, annotation: Any = None) -> None:
        """Without the statements around it."""
        with _alone(node):
            super().handle_attribute(node, annotation)

    def handle_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef, labels: set[str] | None = None) -> None:
        """Without the statements around it."""
        with _alone(node):
            super().handle_function(node, labels)


@contextmanager
def _alone(node: Any) -> Iterator[None]:
    parent = node.parent
    node.parent = type(parent)(body=[node])
    try:
        yield
    finally:
        node.parent = parent
