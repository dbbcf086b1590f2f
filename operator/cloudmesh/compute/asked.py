"""What a VirtualCluster asks for, as the plan reads it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from cloudmesh.policy.model import Above, Alternative, Colocate, Policy, Spread

HASH_VERSION = "v2"
"""Changes when the hash reads something else: machines of another version are stamped anew, not replaced."""

_NO_MATTER = frozenset({
    "Asked.namespace", "Asked.name", "Asked.uid", "Asked.created_at", "Asked.policy_ref", "Asked.policy",
    "Asked.approval", "Asked.suspended", "Asked.idle_seconds", "Asked.max_lifetime",
    "Asked.public_keys", "Asked.source_ranges", "Asked.outputs", "Asked.bootstrap", "Asked.scaled_pool",
    "Pool.replicas", "Pool.adopt", "Pool.health", "Pool.surge", "Pool.unavailable",
})  # fmt: skip
"""Members that don't change which offers suit; all others are part of the question."""


@dataclass(frozen=True, slots=True)
class Share:
    """A number of units, or so many percent of all."""

    number: int
    percent: bool = False

    def of(self, total: int, *, up: bool = False) -> int:
        """The number, rounded down or up."""
        if not self.percent:
            return self.number
        return -(-self.number * total // 100) if up else self.number * total // 100


@dataclass(frozen=True, slots=True)
class Health:
    """When a machine is ill, and what is done.

    Args:
        startup_seconds: Time to become Ready.
        unhealthy_seconds: Time that one that worked may be not Ready.
        replace: Whether ill machines are replaced.
        most: More than these at once, and none is.
    """

    startup_seconds: int = 600
    unhealthy_seconds: int = 120
    replace: bool = True
    most: Share = Share(40, percent=True)


@dataclass(frozen=True, slots=True)
class Adoption:
    """A machine that somebody else made and that the pool takes over."""

    account: str
    provider_id: str


@dataclass(frozen=True)
class Pool:
    """One pool; see `policy.model.PoolRequest` for the members of the same name."""

    name: str
    replicas: int
    alternatives: tuple[Alternative, ...]
    image: str = ""
    base_on_demand: int = 0
    above_base: Above = "OnDemand"
    regions: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    spread: Spread = "None"
    colocate: Colocate = "None"
    adopt: tuple[Adoption, ...] = ()
    health: Health = Health()
    surge: Share = Share(1)
    unavailable: Share = Share(0)
    public_address: bool = False

    @cached_property
    def templates(self) -> Mapping[str, str]:
        """By alternative, the hash of all that a machine is made by; another one means replacement."""
        return {a.name: _template(a, self.image, self.public_address) for a in self.alternatives}


@dataclass(frozen=True)
class Asked:
    """A VirtualCluster's wishes.

    Args:
        namespace: Its namespace.
        name: Its name.
        uid: Its uid.
        created_at: When it was made, in seconds since 1970.
        pools: Its pools, with their replicas resolved.
        accounts: CloudAccounts in order; None if they are chosen by labels, or the default serves.
        account_labels: Labels of the CloudAccounts; None without a selector.
        policy_ref: Name of its PlacementPolicy, empty for none.
        policy: Its own rules, used without `policy_ref`.
        same_network: All machines must reach each other directly.
        max_hourly: Limit in nano-units per hour, None for none.
        currency: Currency of the limit.
        approval: Nothing starts before somebody approved the quote.
        suspended: The user wants it suspended.
        idle_seconds: After so long without use it is suspended; None for never.
        max_lifetime: Seconds after which its machines go; None for never.
        public_keys: Keys that may log in.
        source_ranges: Networks that may log in.
        outputs: What is written for people: `SSHConfigSecret`, `InventoryConfigMap`.
        bootstrap: Profile: `ssh`, `slurm` or `script`.
        scaled_pool: The pool that takes `spec.replicas`, empty for none.
    """

    namespace: str
    name: str
    uid: str
    created_at: int
    pools: tuple[Pool, ...]
    accounts: tuple[str, ...] | None = None
    account_labels: Mapping[str, str] | None = None
    policy_ref: str = ""
    policy: Policy = field(default_factory=Policy)
    same_network: bool = False
    max_hourly: int | None = None
    currency: str = "USD"
    approval: bool = False
    suspended: bool = False
    idle_seconds: int | None = None
    max_lifetime: int | None = None
    public_keys: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    bootstrap: str = "ssh"
    scaled_pool: str = ""

    @cached_property
    def replicas(self) -> int:
        """Units of all pools."""
        return sum(pool.replicas for pool in self.pools)

    def question(self, policy: Policy) -> str:
        """Hash of all by which offers are chosen but the numbers; a quote answers one question.

        Args:
            policy: How to choose, as the PlacementPolicy or the cluster's own rules say.
        """
        return _digest([self._shape, _plain(policy)])

    @cached_property
    def _shape(self) -> Any:
        return _plain(self)


def _plain(value: Any) -> Any:
    """The same for JSON, without what is as a dataclass has it by default: a new member changes no hash."""
    if is_dataclass(value):
        out = {}
        for f in fields(value):
            held = getattr(value, f.name)
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if held != default and f"{type(value).__name__}.{f.name}" not in _NO_MATTER:
                out[f.name] = _plain(held)
        return out
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _digest(plain: Any) -> str:
    text = json.dumps(plain, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _template(alternative: Alternative, image: str, public_address: bool) -> str:
    needs = alternative.needs
    needs = replace(needs, arch=tuple(sorted(needs.arch)), gpu_model=needs.gpu_model.lower())
    parts = _plain(replace(alternative, name="", needs=needs)), image, public_address
    return f"{HASH_VERSION}-{_digest(parts)}"


def same_template(held: str, wanted: str) -> bool | None:
    """Whether a machine was made by what is wanted; None if its hash is of another version and tells nothing."""
    if held.partition("-")[0] != wanted.partition("-")[0]:
        return None
    return held == wanted
