"""Types of single fields that several kinds share: bounded strings, references, environment, resources, tolerations."""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from cloudmesh.api.quantity import MAX_LENGTH, POSITIVE_PATTERN, parse_quantity
from cloudmesh.api.schema import Model, Rule, Rules, Shape

DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"
_LABEL_KEY = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
_MAX_LABEL_KEY = 317
_DECIMAL = r"^[0-9]{1,9}(\.[0-9]{1,3})?$"
RESERVED_ENV = re.compile(r"\A(CLOUDMESH_.*|PYTHONPATH)\Z", re.DOTALL)


def _unique(items: list[Any]) -> list[Any]:
    """A set or list-map of the API server takes no value twice; so don't we."""
    for item, count in Counter(item if isinstance(item, str | int) else item.name for item in items).items():
        if count > 1:
            raise ValueError(f"must not hold '{item}' twice")
    return items


def _quantity(value: Any) -> Any:
    """YAML reads `cpu: 1` as a number; a boolean is no number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


Unique = AfterValidator(_unique)
ATOMIC: Final = {"x-kubernetes-list-type": "atomic"}
"""`json_schema_extra` of a list that is written as a whole."""
SET: Final = {"x-kubernetes-list-type": "set"}
"""`json_schema_extra` of a list of scalars that holds none twice; goes with `Unique`."""


def by_key(key: str) -> dict[str, Any]:
    """`json_schema_extra` of a list whose items are found by that member; goes with `Unique` if users write it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


ResourceName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
LabelValue = Annotated[str, Field(max_length=63, pattern=_LABEL_VALUE)]
LabelKey = Annotated[str, Field(min_length=1, max_length=_MAX_LABEL_KEY, pattern=_LABEL_KEY)]
Timestamp = Annotated[
    str,
    Field(max_length=40, pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Quantity = Annotated[
    str,
    Field(max_length=MAX_LENGTH, pattern=POSITIVE_PATTERN),
    BeforeValidator(_quantity),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "minimum": 0,
            "maximum": 10**15 - 1,
            "maxLength": MAX_LENGTH,
            "pattern": POSITIVE_PATTERN,
        }
    ),
    Shape(POSITIVE_PATTERN, "must be a quantity such as `8Gi`, `500m` or `2`", or_number=True),
]
"""A quantity such as `100m` or `1Gi`; a whole number is taken too and kept as text."""

DecimalSeconds = Annotated[
    str,
    Field(max_length=16, pattern=_DECIMAL),
    BeforeValidator(lambda v: f"{v:.3f}" if isinstance(v, float | int) and not isinstance(v, bool) else v),
    WithJsonSchema({"type": "string", "maxLength": 16, "pattern": _DECIMAL}),
]
"""Measured seconds as a decimal string, since the API has no floats; numbers are written with three places."""

Generation = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A `metadata.generation`."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""A number of things, in a status."""
Text = Annotated[str, Field(max_length=1024)]
"""A short text in a status."""
Word = Annotated[str, Field(min_length=1, max_length=253)]
"""A name in a status, whoever gave it."""

NodeSelector = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    Rules(
        Rule(
            cel=f"self.all(k, k.size() <= {_MAX_LABEL_KEY} && k.matches('{_LABEL_KEY}'))",
            message="`nodeSelector` must have label names as keys, such as 'kubernetes.io/arch'",
            holds=lambda keys: all(len(k) <= _MAX_LABEL_KEY and re.search(_LABEL_KEY[:-1] + r"\Z", k) for k in keys),
        )
    ),
]


MatchLabels = Annotated[
    dict[str, LabelValue],
    Field(max_length=32),
    Rules(
        Rule(
            cel=f"self.all(k, k.size() <= {_MAX_LABEL_KEY} && k.matches('{_LABEL_KEY}'))",
            message="`matchLabels` must have label names as keys, such as 'team' or 'example.org/team'",
            holds=lambda keys: all(len(k) <= _MAX_LABEL_KEY and re.search(_LABEL_KEY[:-1] + r"\Z", k) for k in keys),
        )
    ),
]


class LabelSelector(Model):
    """Chooses objects of the same namespace by their labels."""

    match_labels: MatchLabels = Field(default_factory=dict)
    """Labels that an object must have, all of them; empty: all objects."""


class LocalReference(Model):
    """Names an object in the same namespace."""

    name: ResourceName
    """Name of the object, in the namespace of this one."""


class KeyReference(Model):
    """Names one key of an object in the same namespace."""

    name: ResourceName
    """Name of the object, in the namespace of this one."""
    key: DataKey
    """Key inside the object's data."""


class EnvSource(Model):
    """Where the value of an environment variable comes from; exactly one of its members."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.configMapKeyRef) != has(self.secretKeyRef)",
            message="`valueFrom` must have exactly one of `configMapKeyRef` and `secretKeyRef`",
            holds=lambda s: (s.config_map_key_ref is None) != (s.secret_key_ref is None),
        ),
    )

    config_map_key_ref: KeyReference | None = None
    """A key of a ConfigMap."""
    secret_key_ref: KeyReference | None = None
    """A key of a Secret."""


class EnvVar(Model):
    """One environment variable of the function's container."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            message="an entry of `env` must have exactly one of `value` and `valueFrom`",
            holds=lambda e: (e.value is None) != (e.value_from is None),
        ),
        Rule(
            cel="!self.name.startsWith('CLOUDMESH_') && self.name != 'PYTHONPATH'",
            message="`name` must not be 'PYTHONPATH' or begin with 'CLOUDMESH_': the operator sets these itself",
            holds=lambda e: RESERVED_ENV.match(e.name) is None,
            field_path=".name",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """The value as plain text."""
    value_from: EnvSource | None = None
    """Takes the value from a ConfigMap or a Secret."""


class EnvFromSource(Model):
    """Takes all keys of an object as environment variables; exactly one of its members."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.configMapRef) != has(self.secretRef)",
            message="an entry of `envFrom` must have exactly one of `configMapRef` and `secretRef`",
            holds=lambda s: (s.config_map_ref is None) != (s.secret_ref is None),
        ),
    )

    config_map_ref: LocalReference | None = None
    """A ConfigMap all of whose keys become variables."""
    secret_ref: LocalReference | None = None
    """A Secret all of whose keys become variables."""


class ResourceAmounts(Model):
    """Amounts of the resources of one container."""

    cpu: Quantity | None = None
    """CPU, in cores: `500m` is half a core."""
    memory: Quantity | None = None
    """Memory, in bytes: `256Mi`."""
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """Local disk, in bytes: `1Gi`."""


def _within(field: str) -> Rule:
    attribute = field.replace("-", "_")
    member = "ephemeral__dash__storage" if "-" in field else field

    def holds(resources: Resources) -> bool:
        amounts = [getattr(part, attribute, None) for part in (resources.requests, resources.limits)]
        wanted, most = (Fraction(-1) if a is None else parse_quantity(a) for a in amounts)
        return None in amounts or wanted <= most

    return Rule(
        cel=(
            f"!has(self.requests) || !has(self.limits) || !has(self.requests.{member}) || !has(self.limits.{member})"
            f" || !isQuantity(string(self.requests.{member})) || !isQuantity(string(self.limits.{member}))"
            f" || quantity(string(self.requests.{member})).compareTo(quantity(string(self.limits.{member}))) <= 0"
        ),
        message=f"`requests.{field}` must not be more than `limits.{field}`",
        holds=holds,
    )


class Resources(Model):
    """What one container asks for and may use at most."""

    RULES: ClassVar = (_within("cpu"), _within("memory"), _within("ephemeral-storage"))

    requests: ResourceAmounts | None = None
    """What the scheduler sets aside."""
    limits: ResourceAmounts | None = None
    """What the container may use at most."""


class Toleration(Model):
    """Lets Pods run on nodes with a taint, as in a Pod."""

    RULES: ClassVar = (
        Rule(
            cel="self.operator != 'Exists' || !has(self.value)",
            message="`value` must not be set when `operator` is 'Exists'",
            holds=lambda t: t.operator != "Exists" or t.value is None,
            field_path=".value",
        ),
        Rule(
            cel="self.operator == 'Exists' || has(self.key)",
            message="`key` must be set when `operator` is 'Equal'",
            holds=lambda t: t.operator == "Exists" or t.key is not None,
        ),
        Rule(
            cel="!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            message="`tolerationSeconds` must be used only with `effect` 'NoExecute'",
            holds=lambda t: t.toleration_seconds is None or t.effect == "NoExecute",
        ),
    )

    key: LabelKey | None = None
    """Key of the taint; left out, with operator `Exists`, all keys."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How the value is compared."""
    value: LabelValue | None = None
    """Value of the taint, for operator `Equal`."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; left out, all effects."""
    toleration_seconds: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """How long a Pod stays on a node after the taint came, in seconds; left out, for ever."""


class Condition(Model):
    """One condition of an object's status."""

    type: Annotated[str, Field(min_length=1, max_length=316, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """What the condition is about, such as `Ready`."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32768)]
    """Why, in a sentence for people."""
    observed_generation: Annotated[int, Field(ge=0, le=2**53 - 1)] | None = None
    """The `metadata.generation` this was decided for."""
    last_transition_time: Timestamp
    """When `status` last changed."""


Conditions = Annotated[list[Condition], Field(max_length=16, json_schema_extra=by_key("type"))]
"""`status.conditions`."""


class ObjectMeta(Model):
    """The part of `metadata` that Cloudmesh reads; everything else is for the API server."""

    name: str
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    uid: str = ""
    """Identity of the object through its life."""
    generation: int = 0
    """Rises with each change of the spec."""
    resource_version: str = ""
    """Version of the stored object."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations."""
    finalizers: list[str] = Field(default_factory=list)
    """Who must clean up before the object goes."""
    creation_timestamp: str | None = None
    """When the object was made."""
    deletion_timestamp: str | None = None
    """When its deletion was asked for."""
    owner_references: list[dict[str, Any]] = Field(default_factory=list)
    """Objects that this one goes with."""
    managed_fields: list[dict[str, Any]] = Field(default_factory=list)
    """Who set which field."""
    generate_name: str | None = None
    """Beginning of a name that the API server completes."""
    self_link: str | None = None
    """Unused."""
    deletion_grace_period_seconds: int | None = None
    """Unused for custom resources."""
