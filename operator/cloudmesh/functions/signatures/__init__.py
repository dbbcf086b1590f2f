"""Reads what a function's source offers, without running it.

`sandbox.parse` does the same in a limited subprocess: use that one for text from strangers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cloudmesh_function.model import Expose

__all__ = ["MAX_SOURCE", "Expose", "Parsed", "SourceError", "missing_imports", "read"]

MAX_SOURCE: Final = 131_072
"""Characters of source that are read at most."""


MAX_DOCUMENT: Final = 900_000
"""Bytes of an OpenAPI document at most: it must fit into a ConfigMap."""


class SourceError(Exception):
    """A source that can't be served.

    Args:
        line: line of the fault, from 1; 0 when it has none (a name in `expose`).
        column: column of the fault, from 1; 0 when it has none.
        message: what is wrong and what to do.
    """

    def __init__(self, line: int, column: int, message: str) -> None:
        super().__init__(f"line {line}, column {column}: {message}" if line else message)
        self.line = line
        self.column = column
        self.message = message


@dataclass(frozen=True, slots=True)
class Parsed:
    """What reading a source gives.

    Attributes:
        document: the OpenAPI 3.1 document.
        operations: `{operationId, method, path}` of each operation.
        imports: top-level names of imports that a requirement must provide.
        import_positions: where each of them first stands: (line, column).
        warnings: sentences for the user.
        canonical_openapi: the document's bytes, as they lie in the image.
    """

    document: dict[str, Any]
    operations: list[dict[str, str]]
    imports: list[str]
    warnings: list[str]
    canonical_openapi: bytes
    import_positions: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(
    source: str,
    *,
    name: str,
    module: str,
    expose: Expose | None = None,
    base_path: str = "/cloudmesh",
    requirements: Sequence[str] | None = None,
) -> Parsed:
    """Reads a source in this process.

    Args:
        source: Python text of one module.
        name: the service's name, the document's title.
        module: first part of each operationId.
        expose: what to serve; all public functions by default.
        base_path: where the operations are served.
        requirements: what the image gets; an empty sequence makes a third-party import an error, None doesn't check.

    Returns:
        The document and what else the source says.

    Raises:
        SourceError: it isn't Python 3.11, or something in it can't be served.
    """
    from cloudmesh.functions.signatures.reader import read_source

    return read_source(source, name, module, expose or Expose(), base_path, requirements)


def missing_imports(imports: Sequence[str], provided: set[str]) -> list[str]:
    """The names of `imports` that aren't in `provided`: the top-level import names of all locked packages."""
    from cloudmesh.functions.signatures import imports as found

    return found.missing_imports(imports, provided)
