"""PriceSheet: prices of one's own, for campus machines and for contracts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Count, Generation, ObjectMeta, ResourceName
from cloudmesh.api.machines import OWN_NAME, Currency, Money, PlaceName, Purchase, TypeName, UtcTime
from cloudmesh.api.schema import Column, Definition, Model, Rule


class PriceMatch(Model):
    """Which offers a price is for; what is left out matches all."""

    account: ResourceName | None = None
    """Name of the CloudAccount."""
    type: TypeName | None = None
    """The cloud's own name of the machine type."""
    region: PlaceName | None = None
    """Region."""
    zone: PlaceName | None = None
    """Zone."""
    purchase: Purchase | None = None
    """How the machine is paid."""


class PriceItem(Model):
    """One price."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.validFrom) || !has(self.validTo) || self.validFrom < self.validTo",
            message="`validFrom` must be before `validTo`",
            holds=lambda i: i.valid_from is None or i.valid_to is None or i.valid_from < i.valid_to,
            field_path=".validFrom",
        ),
    )

    match: PriceMatch = PriceMatch()
    """Which offers the price is for; left out, all."""
    hourly: Money
    """Price of one machine and hour; 0 is a price."""
    storage_per_gib_month: Money | None = None
    """Price of one GiB of disk and month."""
    egress_per_gib: Money | None = None
    """Price of one GiB sent to the internet."""
    valid_from: UtcTime | None = None
    """Time from which the price holds, such as `2026-01-01T00:00:00Z`."""
    valid_to: UtcTime | None = None
    """Time until which the price holds."""


class PriceSheetSpec(Model):
    """The prices; the first item that matches an offer and is valid gives its price."""

    currency: Currency = "USD"
    """Currency of all items, as an ISO 4217 code."""
    items: Annotated[list[PriceItem], Field(min_length=1, max_length=1000, json_schema_extra=ATOMIC)]
    """The prices, the most special first."""


class PriceSheetStatus(Model):
    """Whether the sheet can be used."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready; Stalled while true."""
    items: Count | None = None
    """Number of prices."""


class PriceSheet(Model):
    """Prices of one's own, which win over a cloud's list and over the catalogue."""

    CRD: ClassVar = Definition(
        kind="PriceSheet",
        plural="pricesheets",
        short_names=("cmprice",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the sheet can be used."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Currency", ".spec.currency", "Currency of the prices."),
            Column("Items", ".status.items", "Number of prices.", type="integer"),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["PriceSheet"] = "PriceSheet"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: PriceSheetSpec
    """The prices."""
    status: PriceSheetStatus = PriceSheetStatus()
    """Whether the sheet can be used."""
