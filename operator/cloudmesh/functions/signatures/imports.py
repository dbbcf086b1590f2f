"""What the source imports, and what of it nothing provides."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cloudmesh_function.model import InterfaceError
from cloudmesh_function.parts import PROVIDES

# import name -> project, where they differ
KNOWN: Final[dict[str, str]] = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "docx": "python-docx",
    "dotenv": "python-dotenv",
    "fitz": "pymupdf",
    "git": "gitpython",
    "jose": "python-jose",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "mpl_toolkits": "matplotlib",
    "MySQLdb": "mysqlclient",
    "OpenSSL": "pyopenssl",
    "PIL": "pillow",
    "pkg_resources": "setuptools",
    "pptx": "python-pptx",
    "psycopg2": "psycopg2-binary",
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "slugify": "python-slugify",
    "snappy": "python-snappy",
    "usb": "pyusb",
    "win32com": "pywin32",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}


@dataclass(slots=True)
class Imports:
    """The imports of a source.

    Attributes:
        needed: top-level names that neither the standard library nor the runtime provides -> (line, column).
        star: modules imported with `*`.
        type_checking: names that only a type checker imports.
    """

    needed: dict[str, tuple[int, int]] = field(default_factory=dict)
    star: list[str] = field(default_factory=list)
    type_checking: set[str] = field(default_factory=set)


def read_imports(tree: ast.Module) -> Imports:
    """All imports of a module, also those inside functions. Ones that `except ImportError` guards aren't needed.

    Raises:
        InterfaceError: a relative import, which can't work: the source is one module.
    """
    found = Imports()
    always: set[str] = set()
    for node, guarded, checking in _walk(tree):
        names = _bound(node)
        if checking:
            found.type_checking |= names
            continue
        always |= names
        for module in _modules(node):
            if isinstance(node, ast.ImportFrom) and any(item.name == "*" for item in node.names):
                found.star.append(module)
            top = module.partition(".")[0]
            if not guarded and top not in sys.stdlib_module_names and top not in PROVIDES:
                found.needed.setdefault(top, (node.lineno, node.col_offset + 1))
    found.type_checking -= always
    return found


def missing_imports(imports: Iterable[str], provided: set[str]) -> list[str]:
    """The names of `imports` that aren't in `provided`: the top-level import names of all locked packages."""
    return sorted(name for name in set(imports) if name not in provided)


def project_of(name: str) -> str:
    """The project that most likely provides an import name."""
    return KNOWN.get(name, re.sub(r"[-_.]+", "-", name).lower())


def check_requirements(imports: Imports, requirements: Iterable[str]) -> None:
    """Before there is a lock: without any requirement no third-party import can work.

    Raises:
        InterfaceError: with the import's line and column.
    """
    if any(text.strip() for text in requirements):
        return
    for name, (line, column) in imports.needed.items():
        raise InterfaceError(
            f"nothing provides the import {name!r}: add {project_of(name)!r} to `spec.python.requirements`",
            line,
            column,
        )


def _walk(tree: ast.Module) -> list[tuple[ast.Import | ast.ImportFrom, bool, bool]]:
    found: list[tuple[ast.Import | ast.ImportFrom, bool, bool]] = []
    waiting: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while waiting:
        node, guarded, checking = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append((node, guarded, checking))
        elif isinstance(node, ast.Try):
            caught = guarded or any(_catches_import(item) for item in node.handlers)
            waiting += [(inner, caught, checking) for inner in node.body]
            waiting += [(inner, caught, checking) for item in node.handlers for inner in item.body]
            waiting += [(inner, guarded, checking) for inner in (*node.orelse, *node.finalbody)]
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            waiting += [(inner, guarded, True) for inner in node.body]
            waiting += [(inner, guarded, checking) for inner in node.orelse]
        elif not isinstance(node, ast.expr):
            waiting += [(inner, guarded, checking) for inner in ast.iter_child_nodes(node)]
    return sorted(found, key=lambda item: (item[0].lineno, item[0].col_offset))


def _catches_import(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    names = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [item.name for item in node.names]
    if node.level:
        raise InterfaceError(
            "a relative import can't work: the source is one module, without a package around it",
            node.lineno,
            node.col_offset + 1,
        )
    return [node.module or ""]


def _bound(node: ast.Import | ast.ImportFrom) -> set[str]:
    return {item.asname or item.name.partition(".")[0] for item in node.names}
