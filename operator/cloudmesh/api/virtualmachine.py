"""VirtualMachine: one machine of one cloud, made by a pool of a VirtualCluster or by a user."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import LocalReference, ObjectMeta
from cloudmesh.api.machines import (
    Disk,
    Image,
    Keys,
    OfferReference,
    PartName,
    PoolName,
    ProviderID,
    SourceRanges,
    unchangeable,
)
from cloudmesh.api.names import CHILD_NAME_MAX_LENGTH
from cloudmesh.api.schema import Column, Definition, Model, Rule
from cloudmesh.api.virtualmachine_status import VirtualMachineStatus


class MachineAccess(Model):
    """Who may log in, and from where."""

    ssh_public_keys: Keys = Field(default_factory=list)
    """Public keys that may log in, besides the operator's own."""
    source_ranges: SourceRanges = Field(default_factory=list)
    """Networks that may log in; left out, all."""


class MachineNetwork(Model):
    """How the machine is reached."""

    mode: Literal["SameNetwork", "PublicAddress"]
    """SameNetwork: by its address in the account's network; PublicAddress: by an address of the internet."""


class Adopt(Model):
    """A machine that is there already and is taken over."""

    provider_id: Annotated[ProviderID, Field(alias="providerID")]
    """The cloud's own id of the machine."""


class VirtualMachineSpec(Model):
    """What is asked for; nothing but `powerState` can be changed."""

    RULES: ClassVar = (
        *(
            unchangeable("spec", name, required=True)
            for name in ("ordinal", "countsAs", "accountRef", "offer", "attempt")
        ),
        *(
            unchangeable("spec", name)
            for name in ("clusterRef", "pool", "alternative", "image", "disk", "adopt", "access", "network")
        ),
        Rule(
            cel="has(self.clusterRef) == has(self.pool)",
            message="`spec.clusterRef` and `spec.pool` must be used together",
            holds=lambda m: (m.cluster_ref is None) == (m.pool is None),
        ),
    )

    cluster_ref: LocalReference | None = None
    """The VirtualCluster that the machine belongs to; left out for a machine of one's own."""
    pool: PoolName | None = None
    """The cluster's pool that made the machine."""
    ordinal: Annotated[int, Field(ge=0, le=9999)] = 0
    """Number of the machine in its pool, from 0."""
    alternative: PartName | None = None
    """The pool's alternative that the machine fills."""
    counts_as: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas of its pool the machine stands for."""
    account_ref: LocalReference
    """The CloudAccount that makes the machine."""
    offer: OfferReference
    """Which kind of machine, and where."""
    image: Image | None = None
    """The image; left out, the account's default."""
    attempt: Annotated[int, Field(ge=1, le=9999)] = 1
    """Which attempt at this place of the pool it is, from 1."""
    power_state: Literal["Running", "Stopped", "Suspended"] = "Running"
    """Running; Stopped: only the disk is kept; Suspended: memory too, where the cloud can do that."""
    disk: Disk | None = None
    """The disk; left out, the one that comes with the type."""
    adopt: Adopt | None = None
    """Takes over a machine that is there already, instead of making one."""
    access: MachineAccess | None = None
    """Who may log in; of a cluster's machine the cluster says."""
    network: MachineNetwork | None = None
    """How the machine is reached; left out, by its address in the account's network."""


class VirtualMachine(Model):
    """One machine of one cloud, made by a pool of a VirtualCluster or by a user."""

    CRD: ClassVar = Definition(
        kind="VirtualMachine",
        plural="virtualmachines",
        short_names=("cmvm",),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the machine works as asked."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Cluster", ".spec.clusterRef.name", "The cluster it belongs to."),
            Column("Account", ".spec.accountRef.name", "The account that made it."),
            Column("Type", ".spec.offer.type", "The cloud's name of the machine type."),
            Column("State", ".status.state", "What the cloud says it is doing."),
            Column("Host", ".status.sshHost", "Where to log in."),
            Column("$/H", ".status.hourlyPrice.amount", "What an hour costs."),
            Column("Zone", ".spec.offer.zone", "Zone.", priority=1),
            Column("Purchase", ".spec.offer.purchase", "How it is paid.", priority=1),
            Column("ID", ".status.providerID", "The cloud's own id.", priority=1),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (
        Rule(
            cel=(
                f"self.metadata.name.size() <= {CHILD_NAME_MAX_LENGTH}"
                " && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')"
            ),
            message=(
                f"`metadata.name` must be at most {CHILD_NAME_MAX_LENGTH} lower-case letters, digits and '-',"
                " beginning with a letter and ending with a letter or digit"
            ),
            holds=lambda m: (
                len(m.metadata.name) <= CHILD_NAME_MAX_LENGTH
                and re.search(r"\A[a-z]([-a-z0-9]*[a-z0-9])?\Z", m.metadata.name) is not None
            ),
        ),
    )

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["VirtualMachine"] = "VirtualMachine"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: VirtualMachineSpec
    """What is asked for; nothing but `powerState` can be changed."""
    status: VirtualMachineStatus = VirtualMachineStatus()
    """What the operator found and did."""
