"""PlacementPolicy: how offers are chosen."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Generation, LocalReference, ObjectMeta, Unique, by_key
from cloudmesh.api.machines import OWN_NAME, PlaceName
from cloudmesh.api.schema import Column, Definition, Model, Rule

_PARAMETERS = {
    "MaxPrice": "hourly",
    "MinVcpu": "count",
    "MaxVcpu": "count",
    "MinMemory": "mib",
    "MaxMemory": "mib",
    "MaxStart": "seconds",
    "Confidence": "atLeast",
}
"""What each filter must be told; all others take `in`."""
Parameters = Annotated[dict[str, Annotated[str, Field(max_length=256)]], Field(max_length=2)]
_VALUES = {
    "count": r"^[0-9]{1,9}$",
    "mib": r"^[0-9]{1,9}$",
    "seconds": r"^[0-9]{1,9}$",
    "hourly": r"^[0-9]{1,12}([.][0-9]{1,9})?$",
    "currency": r"^[A-Z]{3}$",
    "atLeast": r"^(static|fetched|declared)$",
    "in": r"^ *[^ ,][^,]*(,[^,]*)*$",
}
_PURCHASES = r"^ *(OnDemand|Spot) *(, *(OnDemand|Spot) *)*$"


def _are_known(told: Filter) -> bool:
    wanted = _PARAMETERS.get(told.name, "in")
    allowed = {wanted, "currency"} if told.name == "MaxPrice" else {wanted}
    return wanted in told.parameters and told.parameters.keys() <= allowed


def _are_readable(told: Filter) -> bool:
    patterns = _VALUES | ({"in": _PURCHASES} if told.name == "Purchase" else {})
    return all(
        re.search(rf"\A{patterns[name][1:-1]}\Z", value) for name, value in told.parameters.items() if name in patterns
    )


class Filter(Model):
    """One filter besides those that every request has."""

    RULES: ClassVar = (
        Rule(
            cel=(
                "["
                + " : ".join(f"self.name == '{name}' ? '{told}'" for name, told in _PARAMETERS.items())
                + " : 'in'].all(p, has(self.parameters) && p in self.parameters"
                " && self.parameters.all(k, k == p || (k == 'currency' && self.name == 'MaxPrice')))"
            ),
            message=(
                "`parameters` must have what the filter takes: `hourly` (and `currency`) for MaxPrice, `count` for"
                " MinVcpu and MaxVcpu, `mib` for MinMemory and MaxMemory, `seconds` for MaxStart, `atLeast` for"
                " Confidence, `in` for all others"
            ),
            holds=_are_known,
            field_path=".parameters",
        ),
        Rule(
            cel=(
                "!has(self.parameters) || self.parameters.all(k, "
                + " : ".join(f"k == '{name}' ? self.parameters[k].matches('{p}')" for name, p in _VALUES.items())
                + " : true) && (self.name != 'Purchase' || !('in' in self.parameters)"
                f" || self.parameters['in'].matches('{_PURCHASES}'))"
            ),
            message=(
                "`parameters` must hold whole numbers as `count`, `mib` and `seconds`, an amount as `hourly`, 'static',"
                " 'fetched' or 'declared' as `atLeast`, names and commas as `in`, for Purchase 'OnDemand' and 'Spot'"
            ),
            holds=_are_readable,
            field_path=".parameters",
        ),
    )

    name: Literal[
        "Account", "Type", "Region", "Zone", "Arch", "GpuModel", "Network",
        "NotAccount", "NotType", "NotRegion", "NotZone", "NotArch", "NotGpuModel", "NotNetwork",
        "Purchase", "MaxPrice", "MinVcpu", "MaxVcpu", "MinMemory", "MaxMemory", "MaxStart", "Confidence",
    ]  # fmt: skip
    """What is looked at: Account to Network keep what is named, NotAccount to NotNetwork all else; the others are
    limits, which an offer fails of which nobody knows."""
    parameters: Parameters = Field(default_factory=dict)
    """What the filter takes: `in` names and commas, with `*` and `?` as in file names; `hourly` and `currency` for
    MaxPrice; `count` for the vCPUs; `mib` for the memory; `seconds` for MaxStart; `atLeast` for Confidence."""


class Score(Model):
    """One term of a weighted ranking."""

    name: Literal["Price", "Speed", "DataNear", "Confidence", "Order", "OnDemand", "Free", "Spread"]
    """What counts: Price the cheapest, Speed the shortest observed time to Ready, DataNear the nearest region,
    Confidence the surest price, Order the first account, OnDemand rather than spot, Free the account with the most
    room, Spread the account with the fewest machines of the pool."""
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    """How much it counts beside the others."""


class Plugin(Model):
    """A policy that somebody else wrote."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][-A-Za-z0-9_.]*$")]
    """Name of its entry point in group `cloudmesh.policy`."""


class DataNear(Model):
    """Where the data lies."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.regions) != has(self.directoryRef)",
            message="`dataNear` must have exactly one of `regions` and `directoryRef`",
            holds=lambda d: (d.regions is None) != (d.directory_ref is None),
        ),
    )

    regions: Annotated[list[PlaceName], Field(min_length=1, max_length=64, json_schema_extra=ATOMIC)] | None = None
    """Regions that hold the data, the nearest first."""
    directory_ref: LocalReference | None = None
    """A VirtualDirectory of the namespace: the regions of its stores, in its order."""


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
