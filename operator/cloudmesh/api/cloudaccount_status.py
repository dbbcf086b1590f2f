"""Status of a CloudAccount: what the operator found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Count, Generation, Text, Timestamp, Word
from cloudmesh.api.machines import Charge, Currency
from cloudmesh.api.schema import Model

MAX_FAILURES = 256
"""Entries that `status.failures` keeps."""


class AccountFailure(Model):
    """Something that failed and isn't tried again for a while."""

    key: Annotated[str, Field(min_length=1, max_length=512)]
    """What failed: the account, a quota of a region, or a machine type in a zone."""
    class_: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Z][A-Za-z0-9]*$", alias="class")]
    """How it failed, such as `CapacityUnavailable`."""
    until: Timestamp
    """When it is tried again."""
    message: Text | None = None
    """The cloud's own words."""
    failures: Count | None = None
    """How many times in a row it failed; each one doubles the pause."""


class AccountFinding(Model):
    """One result of the check of an account."""

    subject: Word
    """What was tried, such as `credentials` or `ec2:RunInstances`."""
    result: Literal["Passed", "Failed", "Unknown"]
    """Whether it works; `Unknown` where that couldn't be found out."""
    message: Text
    """What was seen, and what to do if it failed."""


class AccountLack(Model):
    """Something that other clouds have."""

    name: Word
    """What it is, such as `PartialListings`."""
    message: Text
    """Why this cloud doesn't have it."""


class StartTime(Model):
    """How long machines of one type took to be ready."""

    type: Word
    """The cloud's own name of the machine type."""
    seconds: Count
    """The median of the last starts, in seconds."""


class CloudAccountStatus(Model):
    """What the operator found."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, PricesFresh, InventoryComplete; Reconciling, Stalled and Paused while true."""
    kind: Word | None = None
    """Which cloud: the member of `spec` that is set, or the name of its plug-in."""
    identity: Word | None = None
    """The cloud's own account that the machines are in, as the credentials tell it."""
    region: Word | None = None
    """Region, where there is one."""
    powers: Annotated[list[Word], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """What the cloud can do besides making and deleting machines, such as `StartStop`."""
    lacks: Annotated[list[AccountLack], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """What other clouds have besides powers and this one doesn't, each with the reason."""
    offers: Count | None = None
    """Number of offers."""
    offers_as_of: Timestamp | None = None
    """When the offers were read."""
    priced_offers: Count | None = None
    """Number of offers whose price is known; the others can't be chosen under a limit."""
    prices_as_of: Timestamp | None = None
    """When the oldest price that is in use was told by a cloud or listed; absent where all prices were declared."""
    running: Count | None = None
    """Machines of this installation that run."""
    hourly: Charge | None = None
    """What they cost an hour."""
    currency: Currency | None = None
    """Currency of `hourly`."""
    failures: Annotated[list[AccountFailure], Field(max_length=MAX_FAILURES, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """What failed a moment ago and isn't tried again until then, by all clusters."""
    retried_by: Word | None = None
    """The value of annotation `cloudmesh.org/retry-requested` that was acted on."""
    findings: Annotated[list[AccountFinding], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """Results of the last check."""
    start_seconds: Annotated[list[StartTime], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """How long machines took to be ready, for policy Fastest."""
