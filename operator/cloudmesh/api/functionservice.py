"""FunctionService: a typed Python function in a resource, running as an OpenAPI service."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import (
    DNS_SUBDOMAIN,
    DataKey,
    EnvFromSource,
    EnvVar,
    LocalReference,
    NodeSelector,
    ObjectMeta,
    ResourceName,
    Resources,
    Toleration,
    Unique,
)
from cloudmesh.api.functionservice_status import FunctionServiceStatus
from cloudmesh.api.names import OBJECT_NAME_MAX_LENGTH, OBJECT_NAME_PATTERN, default_module
from cloudmesh.api.schema import Column, Definition, Model, Rule, Rules, Scale

MAX_INLINE_LENGTH = 131072
"""Characters of `spec.source.inline`: kubectl copies the object into an annotation of at most 256 KiB."""

_REPOSITORY = (
    r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?(:[0-9]{1,5})?"
    r"(/[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*)+$"
)

Repository = Annotated[str, Field(min_length=3, max_length=255, pattern=_REPOSITORY)]
Requirement = Annotated[
    str,
    Field(min_length=1, max_length=256),
    Rules(
        Rule(
            cel=r"self.matches('^[A-Za-z0-9][^@/\\\\:\\n\\r]*$')",
            message=(
                "an entry of `requirements` must be a package name with an optional version, such as 'numpy>=2';"
                " URLs, paths and options are not taken"
            ),
            holds=lambda r: re.search(r"\A[A-Za-z0-9][^@/\\:\n\r]*\Z", r) is not None,
        )
    ),
]


class Autoscaling(Model):
    """Lets the number of Pods follow the load."""

    max_replicas: Annotated[int, Field(ge=1, le=1000, alias="maxReplicas")]
    """The most Pods to run; `spec.replicas` is the fewest."""
    target_cpu_percent: Annotated[int, Field(ge=1, le=1000, alias="targetCPUPercent")] = 70
    """CPU use, in percent of the CPU request, that the number of Pods is chosen for."""


class SourceConfigMapRef(Model):
    """Names the key of a ConfigMap that holds the source."""

    name: ResourceName
    """Name of the ConfigMap, in the namespace of this object."""
    key: DataKey = "function.py"
    """Key that holds the Python source."""


class Source(Model):
    """Where the Python source comes from; exactly one of `inline` and `configMapRef`."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.inline) != has(self.configMapRef)",
            message="`spec.source` must have exactly one of `inline` and `configMapRef`",
            holds=lambda s: (s.inline is None) != (s.config_map_ref is None),
        ),
    )

    module: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the Python module that the source becomes, and the first part of each operationId.

    Left out, it is the object's name with `_` for `-`.
    """
    inline: Annotated[str, Field(min_length=1, max_length=MAX_INLINE_LENGTH)] | None = None
    """The Python source itself."""
    config_map_ref: SourceConfigMapRef | None = None
    """A ConfigMap that holds the Python source; a change of it is rolled out."""


class ExposeFunctions(Model):
    """Serves functions of the module."""

    names: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128, pattern=r"^([A-Za-z][A-Za-z0-9_]*|\*)$")]],
        Field(min_length=1, max_length=100, json_schema_extra={"x-kubernetes-list-type": "set"}),
        Unique,
        Rules(
            Rule(
                cel="!self.exists(n, n == '*') || self.size() == 1",
                message="`names` must be either names or '*' alone",
                holds=lambda names: "*" not in names or len(names) == 1,
            )
        ),
    ]
    """Names of the functions, or `*` alone for all; imported names and names that begin with `_` are never served."""


class ExposeClass(Model):
    """Serves the methods of one class of the module."""

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]
    """Name of the class; methods whose names begin with `_` are not served."""


class Expose(Model):
    """What of the source is served, and where; exactly one of `functions` and `class`."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.functions) != has(self.class)",
            message="`spec.expose` must have exactly one of `functions` and `class`",
            holds=lambda e: (e.functions is None) != (e.class_ is None),
        ),
    )

    functions: ExposeFunctions | None = None
    """Serves functions of the module."""
    class_: Annotated[ExposeClass | None, Field(alias="class")] = None
    """Serves the methods of one class of the module."""
    base_path: Annotated[
        str,
        Field(min_length=2, max_length=128, pattern=r"^(/[A-Za-z0-9][A-Za-z0-9._-]*)+$"),
        Rules(
            Rule(
                cel="!self.matches('^/(healthz|readyz|metrics)(/|$)')",
                message="`basePath` must not begin with '/healthz', '/readyz' or '/metrics': these are the Pod's own",
                holds=lambda p: re.search(r"\A/(healthz|readyz|metrics)(/|\Z)", p) is None,
            )
        ),
    ] = "/cloudmesh"
    """Path in front of all operations."""


class Python(Model):
    """The Python that runs the function, and the packages it needs."""

    version: Literal["3.11"] = "3.11"
    """Version of Python."""
    requirements: Annotated[
        list[Requirement], Field(max_length=100, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Packages from the package index, as in a requirements file; only ready-made wheels are installed."""
    index_ref: LocalReference | None = None
    """A Secret of type `cloudmesh.org/credentials` that tells the package index to use.

    Its keys: `url`, `username`, `password`, `ca.crt`, `hosts`.
    """


def _with_repository(field: str, value: Callable[[Image], object]) -> Rule:
    return Rule(
        cel=f"!has(self.{field}) || has(self.repository)",
        message=f"`spec.image.{field}` must be used together with `spec.image.repository`",
        holds=lambda image: value(image) is None or image.repository is not None,
    )


class Image(Model):
    """Where the function's image goes; left out, the registry that the operator was installed with."""

    RULES: ClassVar = (
        _with_repository("pushSecretRef", lambda i: i.push_secret_ref),
        _with_repository("pullSecretRef", lambda i: i.pull_secret_ref),
        _with_repository("pullRepository", lambda i: i.pull_repository),
    )

    repository: Repository | None = None
    """Repository to push to, such as `registry.example.org/team/stats`, without tag or digest."""
    platforms: Annotated[
        list[Literal["linux/amd64"]],
        Field(min_length=1, max_length=8, json_schema_extra={"x-kubernetes-list-type": "set"}),
        Unique,
    ] = Field(default=["linux/amd64"])
    """Platforms to build for."""
    push_secret_ref: LocalReference | None = None
    """A Secret of type `kubernetes.io/dockerconfigjson` with the right to push."""
    pull_secret_ref: LocalReference | None = None
    """A Secret of type `kubernetes.io/dockerconfigjson` that nodes pull with."""
    pull_repository: Repository | None = None
    """Name of the same repository as nodes see it, if it differs."""


class Runtime(Model):
    """How the function's Pods run."""

    resources: Resources | None = None
    """CPU, memory and disk of each Pod."""
    env: Annotated[
        list[EnvVar],
        Field(
            max_length=100,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
        Unique,
    ] = Field(default_factory=list)
    """Environment variables."""
    env_from: Annotated[
        list[EnvFromSource], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """ConfigMaps and Secrets all of whose keys become environment variables; entries of `env` win."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """How long one call may take, in seconds."""
    concurrency: Annotated[int, Field(ge=1, le=10000)] = 100
    """How many calls one Pod takes at once."""
    max_body_bytes: Annotated[int, Field(ge=1, le=2**30)] = 10485760
    """Size of the largest request body, in bytes."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that a node must have to run the Pods."""
    tolerations: Annotated[
        list[Toleration], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = Field(default_factory=list)
    """Taints that the Pods tolerate."""


class Revision(Model):
    """Which revision serves."""

    pin: Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_SUBDOMAIN)] | None = None
    """Name of the ControllerRevision to serve, such as `stats-00003`; left out, the newest that works."""


class FunctionServiceSpec(Model):
    """What the user asks for."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.autoscaling) || self.autoscaling.maxReplicas >= self.replicas",
            message="`spec.autoscaling.maxReplicas` must not be less than `spec.replicas`",
            holds=lambda s: s.autoscaling is None or s.autoscaling.max_replicas >= s.replicas,
            field_path=".autoscaling.maxReplicas",
        ),
        Rule(
            cel="!has(self.autoscaling) || self.replicas >= 1",
            message="`spec.replicas` must be at least 1 when `spec.autoscaling` is set",
            holds=lambda s: s.autoscaling is None or s.replicas >= 1,
            field_path=".replicas",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of Pods; with `autoscaling` the fewest."""
    autoscaling: Autoscaling | None = None
    """Lets the number of Pods follow the load, between `replicas` and `maxReplicas`."""
    source: Source
    """Where the Python source comes from."""
    expose: Expose = Expose(functions=ExposeFunctions(names=["*"]))
    """What of the source is served, and where; default: all functions of the module."""
    python: Python = Python()
    """The Python that runs the function, and the packages it needs."""
    image: Image = Image()
    """Where the function's image goes."""
    runtime: Runtime = Runtime()
    """How the function's Pods run."""
    revision: Revision | None = None
    """Which revision serves; left out, the newest that works."""
    revision_history_limit: Annotated[int, Field(ge=1, le=100)] = 10
    """How many old revisions are kept to go back to."""


class FunctionService(Model):
    """A typed Python function, or several, or a class, running as an OpenAPI service."""

    CRD: ClassVar = Definition(
        kind="FunctionService",
        plural="functionservices",
        short_names=("fsvc",),
        scale=Scale(".spec.replicas", ".status.replicas", ".status.selector"),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the service works as asked."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("URL", ".status.url", "Address inside the cluster."),
            Column("Revision", ".status.servingRevision", "The revision that answers calls."),
            Column("Replicas", ".status.replicas", "Number of Pods.", type="integer"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (
        Rule(
            cel=(
                f"self.metadata.name.size() <= {OBJECT_NAME_MAX_LENGTH}"
                f" && self.metadata.name.matches('{OBJECT_NAME_PATTERN}')"
            ),
            message=(
                f"`metadata.name` must be at most {OBJECT_NAME_MAX_LENGTH} lower-case letters, digits and '-',"
                " beginning with a letter and ending with a letter or digit"
            ),
            holds=lambda f: (
                len(f.metadata.name) <= OBJECT_NAME_MAX_LENGTH
                and re.search(r"\A[a-z]([-a-z0-9]*[a-z0-9])?\Z", f.metadata.name) is not None
            ),
        ),
        Rule(
            cel=(
                "!has(self.spec.revision) || !has(self.spec.revision.pin)"
                " || self.spec.revision.pin.startsWith(self.metadata.name + '-')"
            ),
            message="`spec.revision.pin` must be a revision of this object: its name, '-' and a number",
            holds=lambda f: (
                f.spec.revision is None
                or f.spec.revision.pin is None
                or f.spec.revision.pin.startswith(f.metadata.name + "-")
            ),
            field_path=".spec.revision.pin",
        ),
    )

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["FunctionService"] = "FunctionService"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: FunctionServiceSpec
    """What the user asks for."""
    status: FunctionServiceStatus = FunctionServiceStatus()
    """What the operator found and did."""

    @property
    def module(self) -> str:
        """The Python module the source is imported as."""
        return self.spec.source.module or default_module(self.metadata.name)
