"""Budget: a limit on what the machines of a namespace may cost."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import (
    ATOMIC,
    SET,
    Conditions,
    Count,
    Generation,
    LabelSelector,
    ObjectMeta,
    Timestamp,
    Unique,
    by_key,
)
from cloudmesh.api.machines import OWN_NAME, Charge, Currency, Money, positive, unchangeable
from cloudmesh.api.schema import Column, Definition, Model

MAX_BOOKED = 1000
"""Uids that `status.booked` keeps."""

Month = Annotated[str, Field(min_length=7, max_length=7, pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")]


class BudgetSpec(Model):
    """How much may be spent, on what, and what happens then."""

    RULES: ClassVar = (
        unchangeable("spec", "currency", required=True),
        unchangeable("spec", "period", required=True),
    )

    currency: Currency = "USD"
    """Currency, as an ISO 4217 code; machines whose prices are in another one don't start."""
    amount: Annotated[Money, positive("amount")]
    """How much may be spent in a period."""
    period: Literal["Month", "Total"] = "Month"
    """Month: anew on the first of each month, in UTC; Total: once, for as long as the Budget is there."""
    selector: LabelSelector = LabelSelector()
    """Labels of the VirtualClusters, and of VirtualMachines that belong to none, that are charged; empty: all."""
    hard: Literal["Enforce", "Warn"] = "Enforce"
    """Enforce: what would cost more is stopped or deleted, disks at last too, and nothing starts; Warn: only told."""
    alerts_at_percent: Annotated[
        list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=16, json_schema_extra=SET), Unique
    ] = Field(default=[50, 90])
    """Shares of the amount, in percent, that are told by an Event when they are spent."""


class Booked(Model):
    """What ended machines cost, each uid once."""

    month: Month
    """The month, in UTC, that `spent` is about; with period Total the one in which counting began."""
    spent: Charge
    """What the machines that ended cost in the period."""
    machines: Count = 0
    """How many they were."""
    uids: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(max_length=MAX_BOOKED, json_schema_extra=ATOMIC),
    ] = Field(default_factory=list)
    """Uids of the VirtualMachines booked last, with the time of their start, oldest first: each is booked once."""


class MonthSpent(Model):
    """What a month cost."""

    month: Month
    """The month, in UTC."""
    spent: Charge
    """What it cost in all."""


class BudgetStatus(Model):
    """What was spent and what is left."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, WithinBudget; Stalled while true."""
    spent: Charge | None = None
    """What was spent in this period, machines that run included."""
    reserved: Charge | None = None
    """What the machines that run or are being made cost in the next hour."""
    remaining: Charge | None = None
    """What may still be spent: the amount without `spent` and `reserved`, at least 0."""
    hourly: Charge | None = None
    """What all that is charged costs an hour."""
    until: Timestamp | None = None
    """End of the period; left out with period Total."""
    selected: Count | None = None
    """How many VirtualClusters and single VirtualMachines are charged."""
    alerted_at_percent: Annotated[
        list[Annotated[int, Field(ge=1, le=1000)]], Field(max_length=16, json_schema_extra=ATOMIC)
    ] = Field(default_factory=list)
    """Alerts that were given in this period."""
    booked: Booked | None = None
    """What ended machines cost, each uid once."""
    history: Annotated[list[MonthSpent], Field(max_length=24, json_schema_extra=by_key("month"))] = Field(
        default_factory=list
    )
    """The months before this one, oldest first."""


class Budget(Model):
    """A limit on what clusters and machines may cost; applies to all that it selects, referenced or not."""

    CRD: ClassVar = Definition(
        kind="Budget",
        plural="budgets",
        short_names=("cmbud",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the budget is watched."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column(
                "Within",
                '.status.conditions[?(@.type=="WithinBudget")].status',
                "Whether the amount is enough for what was spent and the next hour.",
            ),
            Column("Amount", ".spec.amount", "How much may be spent."),
            Column("Currency", ".spec.currency", "Currency."),
            Column("Spent", ".status.spent", "What was spent in this period."),
            Column("Reserved", ".status.reserved", "What the next hour costs."),
            Column("Remaining", ".status.remaining", "What may still be spent."),
            Column("Until", ".status.until", "End of the period.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (OWN_NAME,)

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["Budget"] = "Budget"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: BudgetSpec
    """How much may be spent, on what, and what happens then."""
    status: BudgetStatus = BudgetStatus()
    """What was spent and what is left."""
