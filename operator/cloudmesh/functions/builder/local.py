"""Builds a function's image on this machine into an OCI archive; its digest is the one that the cluster gives it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cloudmesh.functions.builder.assemble import Foundation, assemble
from cloudmesh.functions.builder.requests import ParseRequest
from cloudmesh.functions.builder.wheelhouse import Wheelhouse
from cloudmesh.functions.image.blobs import LayerStore
from cloudmesh.functions.image.bytecode import Interpreter
from cloudmesh.functions.image.layout import write_archive
from cloudmesh.functions.lock import Index, Locker
from cloudmesh.functions.signatures import Parsed, SourceError, missing_imports
from cloudmesh_function.parts import PROVIDES


@dataclass(frozen=True, slots=True)
class LocalBuild:
    """An image in an archive."""

    name: str
    digest: str
    archive: Path


def default_layout() -> Path:
    """Where base and runtime lie: `CLOUDMESH_LAYOUT`, or what `make images` wrote in this folder."""
    return Path(os.environ.get("CLOUDMESH_LAYOUT") or "build/images/layout")


def build_archive(
    request: ParseRequest,
    parsed: Parsed,
    output: Path,
    *,
    requirements: Sequence[str] = (),
    layout: Path | None = None,
    cache: Path | None = None,
    index: Index | None = None,
) -> LocalBuild:
    """Build a function's image into an OCI archive.

    Args:
        request: the source and its settings.
        parsed: what reading the source gave.
        output: the archive, for `ctr -n k8s.io images import`, `podman load` or `kind load image-archive`.
        requirements: what the function needs.
        layout: OCI layout with base and runtime.
        cache: folder for wheels and layers; it may be lost at any time.
        index: package index; uv's default without it.

    Raises:
        InvalidRequest: there is no layout, or something in the request is wrong.
        DependenciesUnsatisfiable: the requirements can't be met.
        SourceError: an import that no requirement provides.
    """
    return asyncio.run(_build(request, parsed, output, list(requirements), layout, cache, index or Index()))


async def _build(
    request: ParseRequest,
    parsed: Parsed,
    output: Path,
    requirements: list[str],
    layout: Path | None,
    cache: Path | None,
    index: Index,
) -> LocalBuild:
    foundation = Foundation.read(layout or default_layout())
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloudmesh" / "functions"
    locker = Locker(folder / "uv", foundation.provides())
    compiler = Interpreter.running(foundation.python)
    wheelhouse = Wheelhouse(folder / "wheels", LayerStore(folder / "layers"), locker, compiler)
    lock, urls = await locker.lock(requirements, foundation.target, index)
    wheels = foundation.wheels(lock.wheels)
    await wheelhouse.fetch(wheels, foundation.target, index, urls)
    names = await wheelhouse.import_names(wheels, foundation.target, index)
    for name in missing_imports(parsed.imports, {*PROVIDES, *names, *foundation.provides()}):
        line, column = parsed.import_positions.get(name, (0, 0))
        raise SourceError(line, column, f"import of {name!r}: no requirement provides it")
    layers = await wheelhouse.layers(wheels, foundation.target, index)
    image = assemble(foundation, request, parsed, layers, foundation.base.platform)
    tag = f"cloudmesh.local/fn/{request.name}:{image.digest.removeprefix('sha256:')[:12]}"
    await asyncio.to_thread(write_archive, output, {tag: image})
    return LocalBuild(tag, image.digest, output)
