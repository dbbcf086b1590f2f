"""What the scheduler reads and what it answers. Prices are whole nano-units of a currency per hour, never floats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

NANO = 10**9
HOURS_A_MONTH: int = 730
"""What price lists call a month."""

Purchase = Literal["OnDemand", "Spot"]
Confidence = Literal["declared", "fetched", "static", "unknown"]
Spread = Literal["None", "Zone", "Account"]
Colocate = Literal["None", "Zone", "Account"]
Above = Literal["OnDemand", "Spot", "SpotWithFallback"]
Mode = Literal[
    "Cheapest", "Fastest", "Spread", "DataNear", "Sequential", "Random", "Smart", "Frugal", "Weighted", "Plugin"
]


@dataclass(frozen=True, slots=True)
class Price:
    """What one hour of a machine costs.

    Args:
        nanos: Nano-units of the currency per hour; 0 only where somebody declared it. With `disk` in it.
        currency: ISO 4217 code.
        source: Where it comes from, such as `PriceSheet/campus` or `catalogue`.
        as_of: RFC 3339 time of the source.
        confidence: How far to trust it.
        gib_month: Nano-units for a GiB of a disk that is chosen, and a month; None where nobody knows.
        disk: What of `nanos` is for the disk; 0 in an offer, where no disk is chosen yet.
    """

    nanos: int
    currency: str
    source: str
    as_of: str
    confidence: Confidence
    gib_month: int | None = None
    disk: int = 0


def offer_id(account: str, type_: str, region: str, zone: str, purchase: str) -> str:
    """Identity of an offer: all that a create call says about where and what."""
    return f"{account}/{type_}/{region}/{zone}/{purchase}"


@dataclass(frozen=True, slots=True)
class Offer:
    """One kind of machine that an account can make in one place.

    Args:
        account: Name of the CloudAccount.
        type: The cloud's own name of the machine type.
        region: Region, empty where the cloud has none.
        zone: Zone, empty where the cloud has none.
        purchase: How it is paid.
        arch: `amd64` or `arm64`.
        milli_vcpu: Virtual CPUs in thousandths.
        memory_mib: Memory in MiB.
        gpu_model: Model of the GPUs, empty without.
        gpu_count: Number of GPUs.
        disk_gib: Size of the disk that comes with it, 0 if unknown or chosen freely.
        price: None where nobody knows it; unknown is never free.
        free: Machines that still fit, None if unknown.
        quota: Name of the quota that it counts against, empty for none: one that was hit takes out all its offers.
        start_seconds: Observed time to Ready, None if never observed.
        images: Image aliases that can be had with it, None where all of the account's can; the empty one among them
            where a machine needs to name none.
        network: Machines with the same non-empty value reach each other directly.
    """

    account: str
    type: str
    region: str = ""
    zone: str = ""
    purchase: Purchase = "OnDemand"
    arch: str = "amd64"
    milli_vcpu: int = 1000
    memory_mib: int = 1024
    gpu_model: str = ""
    gpu_count: int = 0
    disk_gib: int = 0
    price: Price | None = None
    free: int | None = None
    quota: str = ""
    start_seconds: int | None = None
    images: frozenset[str] | None = None
    network: str = ""

    @property
    def id(self) -> str:
        """Its identity, see `offer_id`."""
        return offer_id(self.account, self.type, self.region, self.zone, self.purchase)


def with_disk(offer: Offer, gib: int) -> Offer:
    """An offer with a disk of so many GiB in its price, if somebody knows what disks cost; 0 for none that is chosen.

    A part of a nano-unit counts whole.
    """
    price = offer.price
    if price is None or not gib or not price.gib_month:
        return offer
    disk = -(-gib * price.gib_month // HOURS_A_MONTH)
    return replace(offer, price=replace(price, nanos=price.nanos + disk, disk=disk))


def say_id(offer_id: str) -> str:
    """The identity of an offer for people: without the parts that it hasn't, such as `pods/small/OnDemand`."""
    return "/".join(part for part in offer_id.split("/") if part)


@dataclass(frozen=True, slots=True)
class Needs:
    """What a machine must have; the smallest offer isn't always the cheapest.

    Args:
        type: Exact machine type, empty for any.
        vcpu: Least and most in thousandths, most None for no limit.
        memory_mib: Least and most in MiB.
        arch: Allowed architectures, empty for any.
        gpu_model: Model of the GPUs, compared without case; empty for any or none.
        gpu_count: Number of GPUs at least; with 0 and no model, offers with GPUs are allowed only by `type`.
        disk_gib: Size of the disk.
    """

    type: str = ""
    vcpu: tuple[int, int | None] = (0, None)
    memory_mib: tuple[int, int | None] = (0, None)
    arch: tuple[str, ...] = ()
    gpu_model: str = ""
    gpu_count: int = 0
    disk_gib: int = 0


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to fill a pool; a machine of it counts as so many replicas."""

    name: str
    needs: Needs
    counts_as: int = 1


@dataclass(frozen=True, slots=True)
class Pin:
    """Machines that run already (or are being made) and stay: they cost and count.

    Free capacity and limits of a request are what is left besides them.
    """

    offer: Offer
    alternative: str
    counts_as: int = 1
    count: int = 1


@dataclass(frozen=True, slots=True)
class PoolRequest:
    """What one pool asks for.

    Args:
        name: Name of the pool.
        replicas: Units wanted in all, with what is pinned.
        alternatives: Ways to fill it, in the user's order.
        image: Image alias, empty for the account's default.
        base_on_demand: Units that must be on demand.
        above_base: How the others are paid.
        spot_taken: One of its spot machines was taken away a moment ago.
        regions: Allowed regions, empty for all.
        zones: Allowed zones, empty for all.
        spread: Over what machines are spread evenly.
        colocate: Within what all machines must lie.
        pinned: What is there already.
        public_address: Each machine must have an address of the internet.
    """

    name: str
    replicas: int
    alternatives: tuple[Alternative, ...]
    image: str = ""
    base_on_demand: int = 0
    above_base: Above = "OnDemand"
    spot_taken: bool = False
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    spread: Spread = "None"
    colocate: Colocate = "None"
    pinned: tuple[Pin, ...] = ()
    public_address: bool = False


@dataclass(frozen=True, slots=True)
class Score:
    """One term of a weighted ranking: a score's name, its weight, and parameters."""

    name: str
    weight: int = 1
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FilterRule:
    """One filter of a policy: its name and parameters."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """How to choose.

    Args:
        mode: What is minimised or maximised.
        filters: Filters besides those that every request has.
        scores: Terms of mode Weighted.
        plugin: Entry point of group `cloudmesh.policy` for mode Plugin.
        data_location: Regions where the data lies, nearest first; for DataNear.
        data_directory: VirtualDirectory whose stores' regions these are; whoever asks looks them up.
        seed: For mode Random; the same seed chooses the same.
    """

    mode: Mode = "Cheapest"
    filters: tuple[FilterRule, ...] = ()
    scores: tuple[Score, ...] = ()
    plugin: str = ""
    data_location: tuple[str, ...] = ()
    data_directory: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """Something that failed a moment ago and isn't tried again until then.

    Args:
        key: `account`, `account/region/quota` or `account/type/zone/purchase`, by the class (see `blocks`).
        error: Reason of the taxonomy, such as `CapacityUnavailable`.
        until: RFC 3339 time.
        message: The cloud's own words, for people.
    """

    key: str
    error: str
    until: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """One placement question.

    Args:
        pools: What is asked for.
        accounts: Accounts in the user's order.
        policy: How to choose.
        max_hourly_nanos: Limit on the whole, pinned machines included; None without.
        currency: Currency of the limit; offers in another are rejected when there is a limit.
        same_network: All machines must be able to reach each other directly.
        account_limits: Machines that an account may still make.
        blocks: What failed a moment ago, already without what is over.
        no_public: Accounts whose machines can't have addresses of the internet.
        max_disks: By account the largest disk in GiB that can be chosen; accounts without an entry name none.
    """

    pools: tuple[PoolRequest, ...]
    accounts: tuple[str, ...]
    policy: Policy = Policy()
    max_hourly_nanos: int | None = None
    currency: str = "USD"
    same_network: bool = False
    account_limits: Mapping[str, int] = field(default_factory=dict)
    blocks: tuple[Block, ...] = ()
    no_public: frozenset[str] = frozenset()
    max_disks: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """So many machines of one offer for one pool, besides those pinned."""

    pool: str
    alternative: str
    counts_as: int
    offer: Offer
    count: int
    why: str = ""
    """The ranking's reason in a few words, such as `cheapest of 412: 0.0464 USD/h`."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """How many offers fell at a filter, and one of them as example."""

    pool: str
    filter: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Placement:
    """The answer: what to make, what doesn't fit, and why.

    Args:
        decisions: What to make.
        missing: Units by pool that can't be placed; empty when all can.
        reason: Why something is missing: NoFeasibleOffer, OverMaxHourlyCost, QuotaExceeded or CapacityUnavailable.
        message: The same in a sentence that names pool, filter and counts.
        rejected: Where offers fell.
        hourly_nanos: Cost of all, pinned machines included; None if a pinned one has no price.
        cheapest_nanos: What the cheapest placement would cost with another policy, None if equal or unknown.
        cheapest: That placement in words.
    """

    decisions: tuple[Decision, ...] = ()
    missing: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    message: str = ""
    rejected: tuple[Rejection, ...] = ()
    hourly_nanos: int | None = 0
    cheapest_nanos: int | None = None
    cheapest: str = ""
