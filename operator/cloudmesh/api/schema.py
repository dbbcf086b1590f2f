"""The base of all models of the API: camelCase aliases, strict types, rules shared with the API server."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

_MATCHES = re.compile(r"\A(?:type\(self\) == int \|\| )?self\.matches\('(.*)'\)\Z")


@dataclass(frozen=True, slots=True)
class Rule:
    """One check across fields, in CEL for the API server and in Python for everyone else.

    Attributes:
        cel: The rule over `self`, true when all is well.
        message: What is said when it isn't; names the field and what to do.
        holds: The same rule in Python.
        field_path: The field the server names as the cause, relative to the model; empty: the model itself.
    """

    cel: str
    message: str
    holds: Callable[[Any], bool]
    field_path: str = ""

    def to_schema(self) -> dict[str, str]:
        """The rule as an entry of `x-kubernetes-validations`."""
        entry = {"rule": self.cel, "message": self.message}
        return entry | {"fieldPath": self.field_path} if self.field_path else entry


@dataclass(frozen=True, slots=True)
class Rules:
    """Annotation that puts rules on a scalar, a list or a map: `Annotated[str, Rules(Rule(...))]`."""

    rules: tuple[Rule, ...]

    def __init__(self, *rules: Rule) -> None:
        object.__setattr__(self, "rules", rules)

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        rules = [rule.to_schema() for rule in self.rules]
        return {**made, "x-kubernetes-validations": [*made.get("x-kubernetes-validations", []), *rules]}

    def _check(self, value: Any) -> Any:
        for rule in self.rules:
            if not rule.holds(value):
                raise ValueError(rule.message)
        return value


@dataclass(frozen=True, slots=True)
class Shape:
    """Annotation of a string with a pattern: what is said of text that doesn't match, as a pattern tells few people.

    In the CRD the pattern stands in a rule with that message; beside it `pattern` would only be told a second time.

    Attributes:
        pattern: The string's pattern.
        message: What it must be, with an example in back-quotes.
        or_number: A whole number is taken too.
    """

    pattern: str
    message: str
    or_number: bool = False

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = {key: value for key, value in handler(schema).items() if key != "pattern"}
        pattern = self.pattern.replace("\\", "\\\\").replace("'", "\\'")
        rule = {
            "rule": ("type(self) == int || " if self.or_number else "") + f"self.matches('{pattern}')",
            "message": self.message,
        }
        return {**made, "x-kubernetes-validations": [rule, *made.get("x-kubernetes-validations", [])]}

    def _check(self, value: Any) -> Any:
        if isinstance(value, str) and re.search(rf"\A(?:{self.pattern.removesuffix('$')})\Z", value) is None:
            raise ValueError(self.message)
        return value


def pattern_of(schema: dict[str, Any]) -> str:
    """The pattern of a node of a CRD's schema, by itself or in the rule of a `Shape`; empty for none."""
    for rule in schema.get("x-kubernetes-validations", ()):
        if found := _MATCHES.search(rule["rule"]):
            return re.sub(r"\\(.)", r"\1", found.group(1))
    return str(schema.get("pattern", ""))


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`; priority 1 shows it with `-o wide` only."""

    name: str
    json_path: str
    description: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Scale:
    """Paths of the scale subresource."""

    spec_replicas_path: str
    status_replicas_path: str
    label_selector_path: str


@dataclass(frozen=True, slots=True)
class Definition:
    """What a kind's CRD says besides its schema."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    columns: tuple[Column, ...]
    scale: Scale | None = None


class Model(BaseModel):
    """A struct of the API.

    Two readers: `model_validate(obj)` takes what the API server returns and ignores fields of a newer version;
    `model_validate(obj, extra="forbid")` takes what a user wrote and refuses fields that don't exist.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
    )

    RULES: ClassVar[tuple[Rule, ...]] = ()
    EMPTY_MEANS: ClassVar[bool] = False
    """Whether the struct says something by being there, though empty, such as `slurm: {}`."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        if cls.RULES:
            handler.resolve_ref_schema(made)["x-kubernetes-validations"] = [rule.to_schema() for rule in cls.RULES]
        return made

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        """The API server prunes nulls before it fills in defaults; so do we."""
        if isinstance(value, dict):
            return {key: item for key, item in value.items() if item is not None}
        return value

    @model_validator(mode="after")
    def _keep_rules(self) -> Self:
        for rule in self.RULES:
            if not rule.holds(self):
                raise ValueError(rule.message)
        return self

    def to_dict(self) -> dict[str, Any]:
        """The struct as the API server stores it: camelCase, defaults filled in, what is absent or empty left out."""
        made: dict[str, Any] = drop_empty(self.model_dump(mode="json", by_alias=True))
        _put_back(self, made)
        return made


def _put_back(model: Model, made: dict[str, Any]) -> None:
    """Empty structs that say something by being there, which `drop_empty` has left out."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Model):
            alias = field.alias or name
            inner = made.get(alias, {})
            _put_back(value, inner)
            if inner or value.EMPTY_MEANS:
                made[alias] = inner


def drop_empty(value: Any) -> Any:
    """The value without members that are None, empty lists or empty maps; empty strings stay."""
    if isinstance(value, dict):
        return {key: kept for key, item in value.items() if (kept := drop_empty(item)) not in (None, [], {})}
    if isinstance(value, list):
        return [drop_empty(item) for item in value]
    return value
