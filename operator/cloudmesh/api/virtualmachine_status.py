"""Status of a VirtualMachine: what the operator found and did."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from cloudmesh.api.fields import ATOMIC, Conditions, Generation, LabelValue, Text, Timestamp, Word, by_key
from cloudmesh.api.machines import Charge, Drift, HourlyPrice, ProviderID
from cloudmesh.api.schema import Model

CreateToken = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9-]+$")]
Port = Annotated[int, Field(ge=1, le=65535)]

MAX_CHARGES = 8
MAX_LABELS = 32
Labels = Annotated[dict[str, LabelValue], Field(max_length=MAX_LABELS)]


class MachineAddress(Model):
    """One address of a machine."""

    type: Literal["Private", "Public"]
    """Private: inside its network; Public: of the internet."""
    address: Word
    """The address."""


class Charged(Model):
    """Labels that a cost is charged by."""

    labels: Labels = Field(default_factory=dict)
    """Labels of its VirtualCluster, or its own without one."""
    since: Timestamp | None = None
    """Since when; left out, since it began to cost."""


class PastCharge(Model):
    """A time in which other labels counted."""

    labels: Labels = Field(default_factory=dict)
    """Labels of its VirtualCluster then, or its own."""
    started_at: Timestamp
    """When they began to count."""
    ended_at: Timestamp
    """When others did."""


class VirtualMachineStatus(Model):
    """What the operator found and did."""

    observed_generation: Generation | None = None
    """The `metadata.generation` that this status is about."""
    conditions: Conditions = Field(default_factory=list)
    """Ready, Created, Reachable, Bootstrapped; Reconciling, Stalled and Paused while true."""
    state: (
        Literal["Pending", "Running", "Stopping", "Stopped", "Suspended", "Deleting", "Deleted", "Failed", "Unknown"]
        | None
    ) = None
    """What the cloud says that the machine is doing; Unknown while it doesn't answer."""
    create_token: CreateToken | None = None
    """The token that the machine is made with: stored before the cloud is called, and never made with twice."""
    create_requested_at: Timestamp | None = None
    """When the cloud was first asked to make the machine."""
    provider_id: Annotated[ProviderID | None, Field(alias="providerID")] = None
    """The cloud's own id of the machine."""
    image: Text | None = None
    """The image that it was made with; where the spec names none, the account's default of then."""
    addresses: Annotated[list[MachineAddress], Field(max_length=16, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """Addresses of the machine."""
    ssh_host: Word | None = None
    """Name or address to log in at."""
    ssh_port: Port | None = None
    """Port to log in at."""
    ssh_user: Word | None = None
    """Name to log in as."""
    ssh_host_key: Annotated[str, Field(max_length=2048)] | None = None
    """Public host key that the cloud tells; left out where it is the cluster's own."""
    ssh_proxy_command: Text | None = None
    """ProxyCommand by which people reach the machine; left out where they connect to it directly."""
    boot_id: Annotated[Word | None, Field(alias="bootID")] = None
    """Changes when the machine has started anew and lost what lay in memory."""
    last_end: Text | None = None
    """How its life before the present one ended, where the cloud tells it, such as `OOMKilled, exit code 137`."""
    network: Word | None = None
    """Name of its network: machines of the same one reach each other directly."""
    restarted_at: Word | None = None
    """The value of annotation `cloudmesh.org/restarted-at` that was acted on."""
    started_at: Timestamp | None = None
    """When the machine began to cost; of one that is stopped, and whose disk costs, when it stopped."""
    ended_at: Timestamp | None = None
    """When the machine was seen gone, and no longer costs."""
    charge: Charged | None = None
    """By which labels Budgets select what it costs at present."""
    charges: Annotated[list[PastCharge], Field(max_length=MAX_CHARGES, json_schema_extra=ATOMIC)] = Field(
        default_factory=list
    )
    """What it cost under other labels before, until all Budgets concerned have booked it; oldest first."""
    hourly_price: HourlyPrice | None = None
    """What one hour costs, as it was when the machine was made; left out while nobody knows."""
    disk_hourly: Charge | None = None
    """What one hour of its disk costs besides, in the same currency; left out while nobody knows."""
    billing: Literal["Machine", "DiskOnly"] | None = None
    """What costs since `startedAt`: `DiskOnly` while the machine is stopped; left out, the machine and its disk."""
    current_price: HourlyPrice | None = None
    """What its offer costs now, where that is another price. A spot machine costs the lower of both."""
    drift: Annotated[list[Drift], Field(max_length=32, json_schema_extra=by_key("field"))] = Field(default_factory=list)
    """How the machine differs from what was asked for."""
    message: Text | None = None
    """The cloud's own last words about the machine, such as why it failed."""
