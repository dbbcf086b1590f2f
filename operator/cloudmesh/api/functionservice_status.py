"""Status of a FunctionService: what the operator found and did."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudmesh.api.fields import Condition, DecimalSeconds, LocalReference
from cloudmesh.api.schema import Model


class BuildError(Model):
    """What is wrong with the source or the build."""

    line: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Line in the source, from 1."""
    column: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """Column in the line, from 1."""
    message: Annotated[str, Field(min_length=1, max_length=32768)]
    """What is wrong and what to do."""


class Build(Model):
    """How the newest image was made."""

    key: Annotated[str, Field(min_length=32, max_length=32, pattern=r"^[0-9a-f]{32}$")] | None = None
    """Hash of all that goes into the image; the same key is never built twice."""
    reused: bool | None = None
    """Whether the registry had the image already."""
    seconds: DecimalSeconds | None = None
    """How long the build took, in seconds."""
    uploaded_bytes: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """Bytes sent to the registry."""
    layers_mounted: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Layers that the registry had already."""
    error: BuildError | None = None
    """Why there is no image for the newest source."""


class Operation(Model):
    """One operation of the service."""

    operation_id: Annotated[str, Field(min_length=1, max_length=512)]
    """Name of the operation: module, a dot, function."""
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    """HTTP method."""
    path: Annotated[str, Field(min_length=1, max_length=1024)]
    """Path, with the base path."""


class OpenAPI(Model):
    """The service's OpenAPI document."""

    digest: Annotated[str, Field(max_length=71, pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """SHA-256 of the document."""
    config_map_ref: LocalReference | None = None
    """ConfigMap that holds the document under the key `openapi.json`."""
    operations: Annotated[
        list[Operation], Field(max_length=256, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """The operations, the first 256 of them."""


class FunctionServiceStatus(Model):
    """What the operator found and did."""

    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=16,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
        ),
    ] = Field(default_factory=list)
    """Ready, SourceValid, DependenciesLocked, ImageBuilt, Available; Reconciling, Stalled and Paused while true."""
    url: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """Address of the service inside the cluster, with the base path."""
    image: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """The image that serves, by digest."""
    latest_revision: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The newest revision that was built."""
    serving_revision: Annotated[str, Field(min_length=1, max_length=63)] | None = None
    """The revision that answers calls."""
    build: Build | None = None
    """How the newest image was made."""
    openapi: OpenAPI | None = None
    """The service's OpenAPI document."""
    import_seconds: DecimalSeconds | None = None
    """How long the imports of the serving revision took in one of its Pods, in seconds."""
    replicas: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """Number of Pods there are."""
    selector: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Label selector of the Pods, for `kubectl scale` and autoscalers."""
