"""One reading of a source: limits, syntax, outline, types, document."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from cloudmesh.functions.signatures import MAX_DOCUMENT, MAX_SOURCE, Parsed, SourceError
from cloudmesh.functions.signatures.imports import check_requirements, read_imports
from cloudmesh.functions.signatures.static import StaticModule
from cloudmesh_function import assemble, openapi
from cloudmesh_function.model import Expose, InterfaceError
from cloudmesh_function.outline import outline


def read_source(
    source: str, name: str, module: str, expose: Expose, base_path: str, requirements: Sequence[str] | None
) -> Parsed:
    """See `cloudmesh.functions.signatures.read`."""
    if len(source) > MAX_SOURCE:
        raise SourceError(0, 0, f"the source has {len(source)} characters, at most {MAX_SOURCE} are allowed")
    try:
        source.encode()
    except UnicodeEncodeError as error:
        line = source.count("\n", 0, error.start) + 1
        raise SourceError(line, 1, "the source holds a lone surrogate, which is no text") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(source, name, module, expose, base_path, requirements)
    except InterfaceError as error:
        raise SourceError(error.line, error.column, error.message) from error
    except SyntaxError as error:
        raise SourceError(error.lineno or 1, max(error.offset or 1, 1), error.msg or "invalid syntax") from error
    except RecursionError as error:
        raise SourceError(1, 1, "the source is nested too deeply to be read") from error
    except MemoryError as error:
        # the parser raises it for text that nests too deeply, too
        raise SourceError(1, 1, "the source is nested too deeply, or reading it takes too much memory") from error
    except ValueError as error:
        raise SourceError(1, 1, str(error)) from error


def _read(
    source: str, name: str, module: str, expose: Expose, base_path: str, requirements: Sequence[str] | None
) -> Parsed:
    found = outline(source)
    # what only the compiler sees: `return` outside a function, a parameter twice; nothing is run
    compile(found.tree, "<function>", "exec", dont_inherit=True)
    imports = read_imports(found.tree)
    if requirements is not None:
        check_requirements(imports, requirements)
    interface = StaticModule(source, found, imports, name=name, module=module).interface(expose)
    document = openapi.to_openapi(interface, base_path)
    canonical = openapi.canonical(document)
    if len(canonical) > MAX_DOCUMENT:
        raise SourceError(
            0,
            0,
            f"the OpenAPI document has {len(canonical)} bytes and may have {MAX_DOCUMENT}: expose fewer functions",
        )
    notes = assemble.warnings(interface)
    skipped = [item.name for item in found.functions.values() if item.conditional and not item.name.startswith("_")]
    if expose.class_name is None and "*" in expose.names:
        notes += [
            f"{item} stands under a condition, so `*` leaves it out: name it to expose it"
            for item in skipped
            if item not in expose.names
        ]
    return Parsed(
        document=document,
        operations=openapi.operations(document),
        imports=sorted(imports.needed),
        warnings=notes,
        canonical_openapi=canonical,
        import_positions=dict(imports.needed),
    )
