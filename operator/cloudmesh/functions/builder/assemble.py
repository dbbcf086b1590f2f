"""Puts a function's image together: `[base][runtime][one layer a wheel][code]`. No network, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from packaging.utils import canonicalize_name

from cloudmesh.engine.errors import InvalidRequest
from cloudmesh.functions.builder.requests import ParseRequest
from cloudmesh.functions.image.blobs import Layer, layer_of
from cloudmesh.functions.image.layer import File
from cloudmesh.functions.image.layout import Image, Layout
from cloudmesh.functions.image.oci import Platform, RunConfig, canonical_json
from cloudmesh.functions.lock import LockedWheel, Target
from cloudmesh.functions.signatures import Parsed

APP = "opt/cloudmesh/app"
PORT = 8080
_ENVIRONMENT = {
    "PYTHONPATH": "/opt/cloudmesh/runtime:/opt/cloudmesh/site",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


@dataclass(frozen=True, slots=True)
class Foundation:
    """What every function's image stands on.

    Attributes:
        base: the base image.
        runtime: the runtime as an image of one layer.
        python: full version of the base's Python.
        target: what wheels must run on.
    """

    base: Image
    runtime: Image
    python: str
    target: Target

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the layout that lies in the builder's image.

        Raises:
            InvalidRequest: there is none, or it is damaged.
        """
        layout = Layout(folder)
        base = layout.image("base")
        labels = base.run.labels
        try:
            python = labels["org.cloudmesh.python"]
            major, minor = (int(part) for part in labels["org.cloudmesh.glibc"].split("."))
        except (KeyError, ValueError) as error:
            raise InvalidRequest(f"{folder}: the base image doesn't say which Python and C library it has") from error
        return cls(
            base=base,
            runtime=layout.image("runtime"),
            python=python,
            target=Target(".".join(python.split(".")[:2]), (major, minor), base.platform),
        )

    def provides(self) -> dict[str, str]:
        """Distributions that the runtime brings: name -> version."""
        versions: dict[str, str] = {}
        for item in self.runtime.run.labels.get("org.cloudmesh.provides", "").split():
            name, _, version = item.partition("==")
            versions[canonicalize_name(name)] = version
        return versions

    def wheels(self, wheels: Sequence[LockedWheel]) -> list[LockedWheel]:
        """The wheels that an image needs beside the runtime, which brings some already."""
        brought = self.provides()
        return [wheel for wheel in wheels if wheel.name not in brought]


def code_layer(request: ParseRequest, parsed: Parsed) -> Layer:
    """The layer that differs from function to function: source, settings and document."""
    settings = {
        "name": request.name,
        "module": request.module,
        "basePath": request.base_path,
        "expose": request.expose.to_json(),
        "source": "function.py",
    }
    return layer_of(
        [
            File.of(f"{APP}/function.py", request.source.encode()),
            File.of(f"{APP}/function.json", canonical_json(settings)),
            File.of(f"{APP}/openapi.json", parsed.canonical_openapi),
        ]
    )


def assemble(
    foundation: Foundation, request: ParseRequest, parsed: Parsed, wheels: Sequence[Layer], platform: Platform
) -> Image:
    """The image of a function.

    Args:
        foundation: what it stands on.
        request: the source and its settings.
        parsed: what reading the source gave.
        wheels: one layer for each wheel, in the order of the lock.
        platform: what it runs on.

    Raises:
        InvalidRequest: the foundation is for another platform.
    """
    if platform != foundation.base.platform:
        raise InvalidRequest(f"platforms: there is no base image for {platform}")
    layers = [*foundation.base.layers, *foundation.runtime.layers]
    run = RunConfig(
        entrypoint=["/usr/bin/python3.11", "-m", "cloudmesh_function"],
        env={**foundation.base.run.env, **_ENVIRONMENT},
        user=foundation.base.run.user,
        working_dir="/tmp",  # noqa: S108  # a path in the image
        ports=[PORT],
        labels={"org.opencontainers.image.title": request.name},
    )
    return Image(platform, run, (*layers, *wheels, code_layer(request, parsed)))
