"""VirtualCluster: one cluster of machines from every account that a namespace has."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cloudmesh.api.fields import (
    ATOMIC,
    SET,
    LabelSelector,
    LocalReference,
    ObjectMeta,
    ResourceName,
    Unique,
    by_key,
)
from cloudmesh.api.machines import (
    OWN_NAME,
    Amount,
    CountOrPercent,
    Image,
    Keys,
    MachineRequirements,
    PartName,
    PlaceName,
    PoolName,
    ProviderID,
    SourceRanges,
    exactly_one,
)
from cloudmesh.api.mounts import Mounts
from cloudmesh.api.names import POOL_AND_CLUSTER_MAX_LENGTH
from cloudmesh.api.placementpolicy import PlacementPolicySpec
from cloudmesh.api.schema import Column, Definition, Model, Rule, Scale
from cloudmesh.api.virtualcluster_status import VirtualClusterStatus

Seconds = Annotated[int, Field(ge=1, le=2**31 - 1)]


class Idle(Model):
    """What happens to a cluster that nobody uses."""

    after_seconds: Annotated[int, Field(ge=60, le=2**31 - 1)]
    """How long nobody may be logged in and nothing may run, in seconds."""
    action: Literal["Suspend"] = "Suspend"
    """Suspend: the machines are stopped, or deleted where the cloud can't stop them; a new value of the annotation
    `cloudmesh.org/resume-requested` brings them back."""


class Lifecycle(Model):
    """Whether and how long the cluster runs."""

    RULES: ClassVar = (
        Rule(
            cel=(
                "!has(self.idle) || !has(self.maxLifetimeSeconds) || self.idle.afterSeconds < self.maxLifetimeSeconds"
            ),
            message="`idle.afterSeconds` must be less than `maxLifetimeSeconds`",
            holds=lambda c: (
                c.idle is None or c.max_lifetime_seconds is None or c.idle.after_seconds < c.max_lifetime_seconds
            ),
            field_path=".idle.afterSeconds",
        ),
    )

    state: Literal["Running", "Suspended"] = "Running"
    """Running; Suspended: no machine costs more than its disk."""
    idle: Idle | None = None
    """What happens to a cluster that nobody uses; left out, nothing."""
    max_lifetime_seconds: Annotated[int, Field(ge=60, le=2**31 - 1)] | None = None
    """Time after which the machines are deleted, from the making of this object, in seconds; left out, never."""


class AccountReference(Model):
    """Names a CloudAccount in the same namespace."""

    name: ResourceName
    """Name of the CloudAccount."""


class AccountSelector(LabelSelector):
    """Chooses CloudAccounts by their labels; empty: all of the namespace."""

    EMPTY_MEANS: ClassVar[bool] = True


class Placement(Model):
    """How offers are chosen; exactly one of `policyRef` and `rules`."""

    RULES: ClassVar = (exactly_one("spec.placement", "policyRef", "rules"),)

    policy_ref: LocalReference | None = None
    """A PlacementPolicy."""
    rules: PlacementPolicySpec | None = None
    """The same, written here."""


class Network(Model):
    """How the machines reach each other."""

    mode: Literal["SameNetwork", "PublicAddress"]
    """SameNetwork: all lie in one network and reach each other directly; PublicAddress: each has an address of the
    internet."""


class Apply(Model):
    """When a quote is acted on."""

    mode: Literal["Auto", "RequireApproval"] = "Auto"
    """Auto: at once; RequireApproval: when annotation `cloudmesh.org/approved-quote` holds the hash of the quote."""


class Access(Model):
    """Who may log in, from where, and what is written for them."""

    ssh_public_keys: Keys = Field(default_factory=list)
    """Public keys that may log in, besides the cluster's own."""
    source_ranges: SourceRanges = Field(default_factory=list)
    """Networks that may log in; left out, all."""
    outputs: Annotated[
        list[Literal["SSHConfigSecret", "InventoryConfigMap"]], Field(max_length=2, json_schema_extra=SET), Unique
    ] = Field(default=["SSHConfigSecret"])
    """SSHConfigSecret: keys and an SSH configuration in Secret `<name>-vc-ssh`; InventoryConfigMap: the machines as an
    inventory of Ansible in ConfigMap `<name>-vc-inventory`."""


class BootstrapSsh(Model):
    """Machines that can be logged in to, and know each other by name; nothing else."""

    EMPTY_MEANS: ClassVar[bool] = True


class BootstrapSlurm(Model):
    """A SLURM cluster: the first machine is its head, all are its nodes."""

    EMPTY_MEANS: ClassVar[bool] = True


class ScriptRef(Model):
    """Names the key of a ConfigMap that holds a script."""

    name: ResourceName
    """Name of the ConfigMap, in the namespace of this object."""
    key: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")] = "bootstrap.sh"
    """Key that holds the script."""


class BootstrapScript(Model):
    """A script of one's own, run once on each machine as the login user."""

    config_map_ref: ScriptRef
    """The ConfigMap that holds the script."""


class Bootstrap(Model):
    """What is set up on the machines; exactly one of its members."""

    RULES: ClassVar = (exactly_one("spec.bootstrap", "ssh", "slurm", "script"),)

    ssh: BootstrapSsh | None = None
    """Machines that can be logged in to, and know each other by name; nothing else."""
    slurm: BootstrapSlurm | None = None
    """A SLURM cluster: the first machine is its head, all are its nodes."""
    script: BootstrapScript | None = None
    """A script of one's own, run once on each machine."""


class PoolPurchase(Model):
    """How machines are paid."""

    base_on_demand: Annotated[int, Field(ge=0, le=5000)] = 0
    """How many replicas must be on demand."""
    above_base: Literal["OnDemand", "Spot", "SpotWithFallback"] = "OnDemand"
    """How the others are paid: at the full price; as spot machines; or as these and, where there are none, on
    demand."""


class Where(Model):
    """Where machines may stand."""

    RULES: ClassVar = (
        Rule(
            cel=(
                "self.colocate == 'None' || self.spread == 'None'"
                " || (self.spread == 'Zone' && self.colocate == 'Account')"
            ),
            message="`spread` must be narrower than `colocate`, or one of them 'None'",
            holds=lambda w: (
                w.colocate == "None" or w.spread == "None" or (w.spread == "Zone" and w.colocate == "Account")
            ),
            field_path=".spread",
        ),
    )

    regions: Annotated[list[PlaceName], Field(max_length=64, json_schema_extra=SET), Unique] = Field(
        default_factory=list
    )
    """Regions that will do; left out, all."""
    zones: Annotated[list[PlaceName], Field(max_length=64, json_schema_extra=SET), Unique] = Field(default_factory=list)
    """Zones that will do; left out, all."""
    spread: Literal["None", "Zone", "Account"] = "None"
    """Spreads the machines evenly over zones or accounts."""
    colocate: Literal["None", "Zone", "Account"] = "None"
    """Keeps all machines of the pool in one zone or account."""


class Alternative(Model):
    """One kind of machine that fills a pool."""

    name: PartName
    """Name of the alternative."""
    counts_as: Annotated[int, Field(ge=1, le=1000)] = 1
    """How many replicas one machine of it stands for."""
    machine: MachineRequirements = MachineRequirements()
    """What the machine must have; left out, any will do."""


class AdoptMachine(Model):
    """A machine that is there already."""

    account_ref: LocalReference
    """The CloudAccount that it belongs to."""
    provider_id: Annotated[ProviderID, Field(alias="providerID")]
    """The cloud's own id of the machine."""


class Health(Model):
    """When a machine is given up, and what happens then."""

    startup_timeout_seconds: Annotated[int, Field(ge=10, le=86400)] = 600
    """How long a machine may take to be ready, in seconds."""
    unhealthy_after_seconds: Annotated[int, Field(ge=10, le=86400)] = 120
    """How long a machine may not answer, in seconds."""
    remediation: Literal["Replace", "None"] = "Replace"
    """Replace: another machine takes its place; None: it is told only."""
    max_unhealthy: CountOrPercent = "40%"
    """While more machines than this are unhealthy, none is replaced: the fault isn't theirs. A share is rounded up."""


class Strategy(Model):
    """How machines are replaced when the spec has changed."""

    RULES: ClassVar = (
        Rule(
            cel="self.maxSurge > 0 || self.maxUnavailable > 0",
            message="at least one of `maxSurge` and `maxUnavailable` must be more than 0",
            holds=lambda s: s.max_surge > 0 or s.max_unavailable > 0,
        ),
    )

    max_surge: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many machines more than asked for there may be meanwhile."""
    max_unavailable: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many machines fewer than asked for may be ready meanwhile."""


class Pool(Model):
    """Machines that do the same work."""

    name: PoolName
    """Name of the pool."""
    replicas: Annotated[int, Field(ge=0, le=5000)] | None = None
    """How many replicas; one pool at most leaves it out and takes `spec.replicas`."""
    purchase: PoolPurchase = PoolPurchase()
    """How the machines are paid."""
    where: Where = Where()
    """Where the machines may stand."""
    alternatives: Annotated[
        list[Alternative], Field(min_length=1, max_length=16, json_schema_extra=by_key("name")), Unique
    ] = Field(default=[Alternative(name="any")])
    """Kinds of machines that fill the pool; the policy chooses, and the first wins where it doesn't mind."""
    image: Image | None = None
    """The image of the machines; left out, each account's default."""
    adopt: Annotated[list[AdoptMachine], Field(max_length=64, json_schema_extra=ATOMIC)] = Field(default_factory=list)
    """Machines that are there already and are taken over first."""
    health: Health = Health()
    """When a machine is given up, and what happens then."""
    strategy: Strategy = Strategy()
    """How machines are replaced when the spec has changed."""


class VirtualClusterSpec(Model):
    """What the user asks for."""

    RULES: ClassVar = (
        Rule(
            cel="self.pools.filter(p, !has(p.replicas)).size() <= 1",
            message="`spec.pools` must have at most one pool without `replicas`: it takes `spec.replicas`",
            holds=lambda s: sum(p.replicas is None for p in s.pools) <= 1,
            field_path=".pools",
        ),
        Rule(
            cel="self.replicas == 1 || self.pools.exists(p, !has(p.replicas))",
            message="`spec.replicas` must be left out when each pool has its own `replicas`",
            holds=lambda s: s.replicas == 1 or any(p.replicas is None for p in s.pools),
            field_path=".replicas",
        ),
        Rule(
            cel="!has(self.accounts) || !has(self.accountSelector)",
            message="`spec.accounts` and `spec.accountSelector` must not be used together",
            holds=lambda s: s.accounts is None or s.account_selector is None,
        ),
        Rule(
            cel=(
                "!has(self.accounts) || self.pools.all(p, !has(p.adopt)"
                " || p.adopt.all(m, self.accounts.exists(a, a.name == m.accountRef.name)))"
            ),
            message="`adopt[].accountRef` of `spec.pools` must be one of `spec.accounts`",
            holds=lambda s: (
                s.accounts is None
                or {m.account_ref.name for p in s.pools for m in p.adopt} <= {a.name for a in s.accounts}
            ),
            field_path=".pools",
        ),
        Rule(
            cel=(
                "!has(self.bootstrap) || !has(self.bootstrap.slurm) || !has(self.network)"
                " || self.network.mode == 'SameNetwork'"
            ),
            message="`spec.network.mode` must be 'SameNetwork' with `spec.bootstrap.slurm`",
            holds=lambda s: (
                s.bootstrap is None or s.bootstrap.slurm is None or s.network is None or s.network.mode == "SameNetwork"
            ),
            field_path=".network.mode",
        ),
        Rule(
            cel=("!has(self.mounts) || self.mounts.all(a, self.mounts.all(b, !b.path.startsWith(a.path + '/')))"),
            message="no `path` of `spec.mounts` may lie in another one",
            holds=lambda s: not any(b.path.startswith(f"{a.path}/") for a in s.mounts for b in s.mounts),
            field_path=".mounts",
        ),
    )

    replicas: Annotated[int, Field(ge=0, le=5000)] = 1
    """Replicas of the pool that has none of its own; `kubectl scale` sets it."""
    lifecycle: Lifecycle = Lifecycle()
    """Whether and how long the cluster runs."""
    deletion_policy: Literal["Delete", "Orphan"] = "Delete"
    """What happens to the machines when this object is deleted: Delete, or Orphan to let them run."""
    accounts: (
        Annotated[list[AccountReference], Field(min_length=1, max_length=32, json_schema_extra=by_key("name")), Unique]
        | None
    ) = None
    """CloudAccounts that machines may come from; with neither this nor `accountSelector` account `pods`, which the
    operator makes."""
    account_selector: AccountSelector | None = None
    """Chooses the CloudAccounts by label instead."""
    placement: Placement | None = None
    """How offers are chosen; left out, the cheapest."""
    network: Network | None = None
    """How the machines reach each other; left out, SameNetwork with `bootstrap.slurm`, and no demand without."""
    max_hourly_cost: Amount | None = None
    """What all machines together may cost an hour; offers without a price are out then. Left out, no limit."""
    apply: Apply = Apply()
    """When a quote is acted on."""
    access: Access = Access()
    """Who may log in, from where, and what is written for them."""
    bootstrap: Bootstrap | None = None
    """What is set up on the machines; left out, `ssh: {}`."""
    mounts: Mounts = Field(default_factory=list)
    """VirtualDirectories that are mounted on all machines before anything else is set up; it takes root and FUSE."""
    pools: Annotated[list[Pool], Field(min_length=1, max_length=32, json_schema_extra=by_key("name")), Unique] = Field(
        default=[Pool(name="workers")]
    )
    """The machines; left out, one pool `workers` of any machines."""

    def replicas_of(self, pool: Pool) -> int:
        """How many replicas a pool asks for."""
        return self.replicas if pool.replicas is None else pool.replicas

    @property
    def bootstrap_kind(self) -> Literal["ssh", "slurm", "script"]:
        """What is set up on the machines."""
        if self.bootstrap is None or self.bootstrap.ssh is not None:
            return "ssh"
        return "slurm" if self.bootstrap.slurm is not None else "script"

    @property
    def same_network(self) -> bool:
        """Whether all machines must lie in one network."""
        return self.bootstrap_kind == "slurm" if self.network is None else self.network.mode == "SameNetwork"


class VirtualCluster(Model):
    """One cluster of machines from every account that a namespace has, chosen by a policy, the price shown first."""

    CRD: ClassVar = Definition(
        kind="VirtualCluster",
        plural="virtualclusters",
        short_names=("vc",),
        scale=Scale(".spec.replicas", ".status.replicas", ".status.selector"),
        columns=(
            Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the cluster works as asked."),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Why, in one word."),
            Column("Desired", ".status.desiredReplicas", "Replicas asked for.", type="integer"),
            Column("Ready-N", ".status.readyReplicas", "Replicas that are ready.", type="integer"),
            Column("Clouds", ".status.clouds", "Accounts that the machines come from."),
            Column("$/H", ".status.cost.hourly", "What an hour costs."),
            Column("Accrued", ".status.cost.accrued", "What it has cost."),
            Column("Quote", ".status.quote.hash", "Hash of the quote, to be approved.", priority=1),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', "Why, in a sentence.", priority=1),
            Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", type="date"),
        ),
    )
    RULES: ClassVar = (
        OWN_NAME,
        Rule(
            cel=(f"self.spec.pools.all(p, self.metadata.name.size() + p.name.size() <= {POOL_AND_CLUSTER_MAX_LENGTH})"),
            message=(
                "`metadata.name` and the name of each pool of `spec.pools` must have at most"
                f" {POOL_AND_CLUSTER_MAX_LENGTH} characters together"
            ),
            holds=lambda c: all(
                len(c.metadata.name) + len(p.name) <= POOL_AND_CLUSTER_MAX_LENGTH for p in c.spec.pools
            ),
            field_path=".spec.pools",
        ),
    )

    api_version: Literal["cloudmesh.org/v1alpha1"] = "cloudmesh.org/v1alpha1"
    """Version of the API."""
    kind: Literal["VirtualCluster"] = "VirtualCluster"
    """Kind of the object."""
    metadata: ObjectMeta
    """Name, namespace, labels and the like."""
    spec: VirtualClusterSpec
    """What the user asks for."""
    status: VirtualClusterStatus = VirtualClusterStatus()
    """What the operator found and did."""
