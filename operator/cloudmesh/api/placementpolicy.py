"""PlacementPolicy: how offers are chosen."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Generation, ObjectMeta, Unique, by_key
from cloudmesh.api.machines import OWN_NAME, PlaceName
from cloudmesh.api.schema import Column, Definition, Model, Rule, Rules

RuleName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$")]
_KEY = r"^[A-Za-z][-A-Za-z0-9_.]*$"
Parameters = Annotated[
    dict[str, Annotated[str, Field(max_length=256)]],
    Field(max_length=16),
    Rules(
        Rule(
            cel=f"self.all(k, k.size() <= 63 && k.matches('{_KEY}'))",
            message="`parameters` must have keys of letters, digits, '-', '_' and '.' that begin with a letter",
            holds=lambda keys: all(
                0 < len(k) <= 63 and k.isascii() and k[0].isalpha() and not set(k) - _KEY_CHARACTERS for k in keys
            ),
        )
    ),
]
_KEY_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class Filter(Model):
    """One filter besides those that every request has."""

    name: RuleName
    """Name of the filter."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the filter."""


class Score(Model):
    """One term of a weighted ranking."""

    name: RuleName
    """Name of the score, such as `Price` or `DataNear`."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """How much it counts beside the others."""
    parameters: Parameters = Field(default_factory=dict)
    """Parameters of the score."""


class Plugin(Model):
    """A policy that somebody else wrote."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][-A-Za-z0-9_.]*$")]
    """Name of its entry point in group `cloudmesh.policy`."""


class DataNear(Model):
    """Where the data lies."""

    regions: Annotated[list[PlaceName], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)]
    """Regions that hold the data, the nearest first."""


class PlacementPolicySpec(Model):
    """How to choose among the offers that fit."""

    RULES: ClassVar = (
        Rule(
            cel="(self.mode == 'Weighted') == (has(self.scores) && self.scores.size() > 0)",
            message="`scores` must be set with `mode` 'Weighted', and only then",
            holds=lambda p: (p.mode == "Weighted") == bool(p.scores),
            field_path=".scores",
        ),
        Rule(
            cel="(self.mode == 'Plugin') == has(self.plugin)",
            message="`plugin` must be set with `mode` 'Plugin', and only then",
            holds=lambda p: (p.mode == "Plugin") == (p.plugin is not None),
            field_path=".plugin",
        ),
        Rule(
            cel="self.mode != 'DataNear' || has(self.dataNear)",
            message="`dataNear` must be set with `mode` 'DataNear'",
            holds=lambda p: p.mode != "DataNear" or p.data_near is not None,
            field_path=".dataNear",
        ),
        Rule(
            cel=(
                "!has(self.dataNear) || self.mode == 'DataNear'"
                " || (has(self.scores) && self.scores.exists(s, s.name == 'DataNear'))"
            ),
            message="`dataNear` must be used only with `mode` 'DataNear' or a score of that name",
            holds=lambda p: p.data_near is None or p.mode == "DataNear" or any(s.name == "DataNear" for s in p.scores),
            field_path=".dataNear",
        ),
        Rule(
            cel=("!has(self.scores) || !self.scores.exists(s, s.name == 'DataNear') || has(self.dataNear)"),
            message="`dataNear` must be set with a score 'DataNear'",
            holds=lambda p: p.data_near is not None or all(s.name != "DataNear" for s in p.scores),
            field_path=".dataNear",
        ),
        Rule(
            cel="!has(self.seed) || self.mode == 'Random'",
            message="`seed` must be used only with `mode` 'Random'",
            holds=lambda p: p.seed is None or p.mode == "Random",
            field_path=".seed",
        ),
    )

    mode: Literal[
        "Cheapest", "Fastest", "Spread", "DataNear", "Sequential", "Random", "Smart", "Frugal", "Weighted", "Plugin"
    ] = "Cheapest"
    """What counts: Cheapest the price, Fastest the observed time to Ready, Spread even use of the accounts,
    DataNear the way to the data, Sequential the order of the accounts, Random chance, Smart the account with the most
    free capacity, Frugal the one with the least that still fits, Weighted the `scores`, Plugin a `plugin`."""
    filters: Annotated[list[Filter], Field(max_length=16, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Filters besides those that every request has."""
    scores: Annotated[list[Score], Field(max_length=16, json_schema_extra=by_key("name")), Unique] = Field(
        default_factory=list
    )
    """Terms of the ranking, for mode Weighted."""
    plugin: Plugin | None = None
    """The policy to ask, for mode Plugin."""
    data_near: DataNear | None = None
    """Where the data lies, for mode DataNear and for a score of that name."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """For mode Random: the same seed chooses the same; left out, 0."""


class PlacementPolicyStatus(Model):
    """Whether the policy can be used."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready; Stalled while true."""


class PlacementPolicy(Model):
    """How to choose among offers, to be named by clusters."""

    CRD: ClassVar = Definition(
        kind="PlacementPolicy",
        plural="placementpolicies",
        short_names=("cmpol",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the policy can be used."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Mode", ".spec.mode", "What counts."),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["PlacementPolicy"] = "PlacementPolicy"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: PlacementPolicySpec
    """How to choose among the offers that fit."""
    status: PlacementPolicyStatus = PlacementPolicyStatus()
    """Whether the policy can be used."""
