"""PriceSheet: prices of one's own, for campus machines and stores, and for contracts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Count, Generation, ObjectMeta
from cloudmesh.api.machines import OWN_NAME, Currency, Money, Purchase, UtcTime
from cloudmesh.api.schema import Column, Definition, Model, Rule

NamePattern = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9*?][-A-Za-z0-9_.+/*? ]*$")]
"""A name in which `*` stands for any text and `?` for any character."""


class PriceMatch(Model):
    """Which offers a price is for; what is left out matches all, and `*` and `?` stand for others' names."""

    account: NamePattern | None = None
    """Name of the CloudAccount, such as `campus` or `aws-*`."""
    type: NamePattern | None = None
    """The cloud's own name of the machine type, such as `m5.*`."""
    region: NamePattern | None = None
    """Region."""
    zone: NamePattern | None = None
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
        Rule(
            cel="has(self.hourly) || has(self.storagePerGibMonth)",
            message="`hourly`, `storagePerGibMonth` or both must be given",
            holds=lambda i: i.hourly is not None or i.storage_per_gib_month is not None,
            field_path=".hourly",
        ),
    )

    match: PriceMatch = PriceMatch()
    """Which offers the price is for; left out, all."""
    hourly: Money | None = None
    """Price of one machine and hour; 0 is a price. Left out, the item is about disks only."""
    storage_per_gib_month: Money | None = None
    """Price of a GiB of a machine's disk for a month of 730 hours; left out, this item doesn't tell it."""
    valid_from: UtcTime | None = None
    """Time from which the price holds, such as `2026-01-01T00:00:00Z`."""
    valid_to: UtcTime | None = None
    """Time until which the price holds."""


class StoreMatch(Model):
    """Which stores of files a price is for; what is left out matches all, and `*` and `?` stand for others' names."""

    store: NamePattern | None = None
    """Name of the DataStore, such as `nas` or `campus-*`."""
    kind: NamePattern | None = None
    """Which store: the member of its spec, such as `s3` or `local`."""
    region: NamePattern | None = None
    """Region: that of the label `region` of the DataStore, else of its spec."""


class StorePrice(Model):
    """What a store of files costs, all of it: what is left out costs nothing."""

    RULES: ClassVar = (
        Rule(
            cel="!has(self.validFrom) || !has(self.validTo) || self.validFrom < self.validTo",
            message="`validFrom` must be before `validTo`",
            holds=lambda i: i.valid_from is None or i.valid_to is None or i.valid_from < i.valid_to,
            field_path=".validFrom",
        ),
    )

    match: StoreMatch = StoreMatch()
    """Which DataStores the price is for; left out, all."""
    storage_per_gib_month: Money
    """Price of a GiB for a month; 0 is a price."""
    writes_per_thousand: Money = "0"
    """Price of 1,000 requests that write."""
    reads_per_thousand: Money = "0"
    """Price of 1,000 requests that read."""
    egress_per_gib: Money = "0"
    """Price of a GiB that is read and leaves the place where the store is."""
    valid_from: UtcTime | None = None
    """Time from which the price holds, such as `2026-01-01T00:00:00Z`."""
    valid_to: UtcTime | None = None
    """Time until which the price holds."""


class PriceSheetSpec(Model):
    """The prices; the first one that matches, is valid and tells the price in question gives it."""

    RULES: ClassVar = (
        Rule(
            cel="has(self.items) || has(self.stores)",
            message="`spec` must have at least one of `items`, prices of machines, and `stores`, prices of files",
            holds=lambda s: s.items is not None or s.stores is not None,
        ),
    )

    currency: Currency = "USD"
    """Currency of all items, as an ISO 4217 code."""
    items: Annotated[list[PriceItem], Field(min_length=1, max_length=1000, json_schema_extra=ATOMIC)] | None = None
    """Prices of machines, the most special first."""
    stores: Annotated[list[StorePrice], Field(min_length=1, max_length=256, json_schema_extra=ATOMIC)] | None = None
    """Prices of stores of files, the most special first."""


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
