"""Status of a DataStore: what the operator and the directories' gateways found."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Count, Generation, Text, Timestamp, Word
from cloudmesh.api.machines import Charge, Confidence, Currency
from cloudmesh.api.schema import Model

MAX_CLAIMS = 256
"""Entries that `status.claims` keeps."""
Bytes = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A number of bytes, in a status."""
Size = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?([KMGTPE]i)?$")]
"""A number of bytes for people, such as `1.5Gi`."""
State = Literal["Up", "Slow", "Unknown", "Gone", "Claimed", "Suspicious"]


class StoreClaim(Model):
    """One directory's part of the store."""

    directory: Word
    """Name of the VirtualDirectory."""
    prefix: Text | None = None
    """Beginning of the keys of all its objects; absent if it has the whole store."""
    state: State
    """What its gateway sees: Up, Slow, Unknown (no answer yet), Gone, Claimed (by another directory) or Suspicious."""


class StorePriceStatus(Model):
    """What the store costs, and who says so."""

    currency: Currency
    """Currency of the prices, as an ISO 4217 code."""
    storage_per_gib_month: Charge
    """Price of a GiB for a month."""
    writes_per_thousand: Charge
    """Price of 1,000 requests that write."""
    reads_per_thousand: Charge
    """Price of 1,000 requests that read."""
    egress_per_gib: Charge
    """Price of a GiB that is read and leaves the place where the store is."""
    source: Text
    """Where the prices come from, such as `PriceSheet/campus`."""
    as_of: Timestamp | None = None
    """How old they are."""
    confidence: Confidence
    """Declared: of a PriceSheet; static: of the packaged list."""


class DataStoreStatus(Model):
    """What the operator found."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Writable, IdentityConfirmed, AuthExpiring; Reconciling, Stalled and Paused while true."""
    kind: Word | None = None
    """Which store: the member of `spec` that is set."""
    strength: Literal["Strong", "Weak"] | None = None
    """Strong: a write can be tied to what is there, so that two writers can't undo each other unseen."""
    objects: Count | None = None
    """Whole copies of files that directories have in it."""
    bytes: Bytes | None = None
    """Bytes of those copies."""
    used: Size | None = None
    """The same for people, such as `1.5Gi`."""
    latency_ms: Count | None = None
    """Time of one small call from the operator, in milliseconds."""
    price: StorePriceStatus | None = None
    """What the store costs; absent where nobody knows."""
    claims: Annotated[list[StoreClaim], Field(max_length=MAX_CLAIMS, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """Directories that use it, and which part of it each has."""
