"""Status of a VirtualCluster: the quote, what was chosen and why, the machines, the cost."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Count, Generation, Text, Timestamp, Word, by_key
from cloudmesh.api.machines import Charge, Confidence, Currency, Purchase
from cloudmesh.api.schema import Model

Port = Annotated[int, Field(ge=1, le=65535)]

MAX_BOOKED = 10_000
"""Sessions that `status.cost.booked` keeps."""
MAX_APPROVED = 2**17
"""Characters of `status.approved.spec`."""


class HourlyCost(Model):
    """What one hour costs."""

    amount: Charge
    """The amount."""
    currency: Currency
    """Currency, as an ISO 4217 code."""


class CheapestAlternative(Model):
    """What the same machines would cost if the price alone counted."""

    hourly: Charge
    """The price of an hour."""
    description: Text
    """The machines, in words."""


class Quote(Model):
    """What will be made and what it costs; nothing else is made."""

    hash: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")]
    """Hash of offers, counts and prices, for annotation `cloudmesh.org/approved-quote`."""
    hourly: HourlyCost | None = None
    """What one hour of the whole cluster costs; left out when a price isn't known."""
    disk_hourly: Charge | None = None
    """How much of it is for disks; left out where they aren't counted."""
    made_at: Timestamp | None = None
    """When the quote was made."""
    expires_at: Timestamp | None = None
    """When the quote is made anew."""
    question: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] | None = None
    """Hash of what was asked for, without the numbers of machines; when that changes, the quote is made anew."""
    cheapest_alternative: CheapestAlternative | None = None
    """What the same would cost if the price alone counted; left out when it would cost the same."""


class PlacementDecision(Model):
    """So many machines of one offer for one pool."""

    pool: Word
    """Name of the pool."""
    alternative: Word
    """Name of the pool's alternative."""
    account: Word
    """Name of the CloudAccount."""
    type: Word
    """The cloud's own name of the machine type."""
    region: Word | None = None
    """Region."""
    zone: Word | None = None
    """Zone."""
    purchase: Purchase
    """How the machines are paid."""
    count: Count
    """How many machines."""
    hourly: Charge | None = None
    """What an hour of one costs, with its disk; left out when nobody knows."""
    disk_hourly: Charge | None = None
    """How much of it is for the disk; left out where that isn't counted."""
    why: Text | None = None
    """Why this offer, in a few words."""


class Approved(Model):
    """What was approved last, as which the cluster is kept while another quote waits."""

    spec: Annotated[str, Field(min_length=2, max_length=MAX_APPROVED)]
    """The members of the spec of then by which machines are chosen, as JSON."""
    made_at: Timestamp | None = None
    """When the quote was made; with the machines, only while another quote waits."""
    currency: Currency | None = None
    """Currency of `decisions`."""
    decisions: Annotated[list[PlacementDecision], Field(max_length=1000, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """The machines that were approved; left out while `placement.decisions` are these."""


class PlacementRejection(Model):
    """How many offers fell at a filter."""

    pool: Word
    """Name of the pool."""
    filter: Word
    """What they fell at."""
    count: Count
    """How many."""
    example: Text
    """One of them, and why."""


class PlacementStatus(Model):
    """What was chosen, and what was not."""

    decisions: Annotated[list[PlacementDecision], Field(max_length=1000, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """The machines that were chosen."""
    rejected: Annotated[list[PlacementRejection], Field(max_length=256, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """Where offers fell."""


class Cost(Model):
    """What the cluster costs; written every 300 seconds at most."""

    currency: Currency
    """Currency of all amounts, as an ISO 4217 code."""
    hourly: Charge | None = None
    """What the machines that there are cost an hour."""
    accrued: Charge | None = None
    """What the cluster has cost since it was made."""
    projected_month: Charge | None = None
    """What the month would cost if all stayed as it is."""
    prices_as_of: Timestamp | None = None
    """Age of the oldest price in use."""
    confidence: Confidence | None = None
    """How far the least sure price can be trusted."""
    ended: Charge | None = None
    """The part of `accrued` that runs of machines cost that have ended."""
    booked: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=128)]],
        Field(max_length=MAX_BOOKED, json_schema_extra=ATOMIC),
    ] = Field(default_factory=list)
    """Uids of the VirtualMachines that are in `ended`, with the time of their start: each run is counted once."""


class Endpoint(Model):
    """Where the cluster can be reached."""

    name: Word
    """Name of the machine."""
    host: Word
    """Name or address."""
    port: Port
    """Port."""
    user: Word
    """Name to log in as."""


class PoolStatus(Model):
    """What there is of a pool."""

    name: Word
    """Name of the pool."""
    replicas: Count = 0
    """Replicas that there are."""
    ready_replicas: Count = 0
    """Replicas that are ready."""
    machines: Count = 0
    """Machines that there are."""
    updated_machines: Count = 0
    """Machines that are as the newest spec asks."""


class VirtualClusterStatus(Model):
    """What the operator found and did."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Scheduled, Provisioned, Reachable, Bootstrapped, Healthy, WithinBudget, PricesFresh; Reconciling, Stalled
    and Paused while true."""
    desired_replicas: Count | None = None
    """Replicas asked for, of all pools."""
    replicas: Count | None = None
    """Replicas of the pool that `spec.replicas` is for, for `kubectl scale`."""
    ready_replicas: Count | None = None
    """Replicas that are ready, of all pools."""
    machines: Count | None = None
    """Machines that there are, of all pools."""
    selector: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    """Label selector of the machines, for `kubectl scale` and autoscalers."""
    clouds: Text | None = None
    """Accounts that the machines come from, with commas between."""
    pools: Annotated[list[PoolStatus], Field(max_length=32, json_schema_extra=by_key("name"))] = Field(
        default_factory=list
    )
    """What there is of each pool."""
    quote: Quote | None = None
    """What will be made and what it costs."""
    approved_quote: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-f]+$")] | None = None
    """Hash of the quote that the machines were made by."""
    approved_hourly: Charge | None = None
    """What an hour of the approved quote costs: replacements stay below."""
    approved: Approved | None = None
    """What was approved, with `apply.mode: RequireApproval`."""
    placement: PlacementStatus | None = None
    """What was chosen, and what was not."""
    cost: Cost | None = None
    """What the cluster costs."""
    endpoints: Annotated[list[Endpoint], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Where to log in, the first 64 machines."""
    started_at: Timestamp | None = None
    """When the cluster was first ready."""
    suspended_at: Timestamp | None = None
    """When the machines were suspended, because that was asked for or nobody used them."""
    suspended_reason: Word | None = None
    """Why: `Requested`, `Idle` or `BudgetExceeded`."""
    resumed_by: Word | None = None
    """The value of annotation `cloudmesh.org/resume-requested` that was acted on."""
    last_activity_at: Timestamp | None = None
    """When somebody was last seen to use the cluster."""
