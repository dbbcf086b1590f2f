"""Status of a VirtualDirectory: what its gateway told the operator."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cloudmesh.api.datastore_status import Bytes, Size, State
from cloudmesh.api.fields import ATOMIC, Conditions, Generation, Text, Timestamp, Word, by_key
from cloudmesh.api.machines import Charge, Confidence, Currency
from cloudmesh.api.schema import Model

Number = Annotated[int, Field(ge=0, le=2**53 - 1)]
"""A number of files, in a status."""


class DirectoryStoreStatus(Model):
    """How one store of the directory does."""

    name: Word
    """Name of the DataStore."""
    prefix: Text | None = None
    """Beginning of the keys of all objects of this directory in it; absent if it has the whole store."""
    state: State
    """Up, Slow, Unknown (no answer), Gone (no answer for long), Claimed (another directory's) or Suspicious."""
    message: Text | None = None
    """Why, where it isn't Up."""
    files: Number
    """Whole copies of files in it."""
    bytes: Bytes
    """Bytes of those copies."""
    monthly: Charge | None = None
    """What keeping those copies costs a month; absent where nobody knows."""


class DirectoryCost(Model):
    """What the directory costs."""

    currency: Currency
    """Currency of the amounts, as an ISO 4217 code."""
    monthly: Charge | None = None
    """What keeping all copies costs a month, as they lie now; absent where the price of a store isn't known."""
    egress: Charge | None = None
    """What reading through the gateway has cost since the month began, in UTC; absent where a price isn't known."""
    confidence: Confidence
    """How sure `monthly` is: that of the least sure price in it."""


class DirectoryQuote(Model):
    """What a change of rules or stores takes, counted over all files; nothing moves for it before it is approved."""

    hash: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]
    """Hash of the change and of all figures, for annotation `cloudmesh.org/approved-quote`."""
    question: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]
    """Hash of what was asked for: rules and stores; when that changes, the quote is made anew."""
    files: Number
    """Files of which copies are made."""
    copies: Number
    """Copies that are made."""
    bytes: Bytes
    """Bytes of those copies."""
    size: Size
    """The same for people, such as `1.5Gi`."""
    removed: Number
    """Copies that are removed when those are there."""
    duration_seconds: Number | None = None
    """How long that takes at the stores' limits; absent where none has limits."""
    currency: Currency
    """Currency of the amounts, as an ISO 4217 code."""
    requests: Charge | None = None
    """What the requests cost, once; absent where a price isn't known, as all amounts."""
    egress: Charge | None = None
    """What reading the files costs, once."""
    monthly_before: Charge | None = None
    """What keeping all copies costs a month now."""
    monthly_after: Charge | None = None
    """What it costs then."""
    unpriced: Annotated[list[Word], Field(max_length=32, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Stores that are concerned and whose price isn't known."""
    unseen: Annotated[list[Word], Field(max_length=32, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Stores that didn't answer then: counted by what the catalogue has of them, and as if they took files."""
    made_at: Timestamp
    """When everything was counted."""
    expires_at: Timestamp
    """When it is counted anew."""


class CatalogStatus(Model):
    """The catalogue: a cache of what lies in the stores."""

    entries: Number
    """Files and directories in it, deleted ones that can be restored among them."""
    snapshot_at: Timestamp | None = None
    """When it was last written to a store as a whole; absent while the journal alone keeps it."""


class VirtualDirectoryStatus(Model):
    """What the gateway told; counters at most every 15 seconds."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, StoresReady, Placed, Verified, WithinQuota, WithinBudget; Reconciling, Stalled and Paused while true."""
    files: Number | None = None
    """Files in the tree."""
    directories: Number | None = None
    """Directories in the tree."""
    bytes: Bytes | None = None
    """Bytes of all files, each counted once."""
    size: Size | None = None
    """The same for people, such as `1.5Gi`."""
    pending_copies: Number | None = None
    """Files that the mover still has work with."""
    corrupted: Number | None = None
    """Copies that read back with another digest, not yet repaired."""
    under_replicated: Number | None = None
    """Files with fewer whole copies than their rule wants."""
    unreachable: Number | None = None
    """Files without a whole copy in a store that answers: they can't be read."""
    cost: DirectoryCost | None = None
    """What it costs; at most every 15 seconds, and when it changed by over 1 %."""
    quote: DirectoryQuote | None = None
    """What waits for approval."""
    approved_quote: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] | None = None
    """Hash of the quote that was approved last."""
    approved_question: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] | None = None
    """Hash of the rules and stores by which files are placed now, where changes of them need approval."""
    url: Annotated[str, Field(max_length=512)] | None = None
    """Where the gateway answers inside the cluster."""
    stores: Annotated[list[DirectoryStoreStatus], Field(max_length=32, json_schema_extra=by_key("name"))] = Field(
        default_factory=list
    )
    """The stores, in the order of the spec; at the end those that are being emptied since they left it."""
    catalog: CatalogStatus | None = None
    """The catalogue."""
