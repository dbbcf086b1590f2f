"""From objects of the API to what the plan reads: pure."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from cloudmesh.api import conditions as c
from cloudmesh.api import virtualcluster as api
from cloudmesh.api.machines import MachineRequirements
from cloudmesh.api.placementpolicy import PlacementPolicySpec
from cloudmesh.compute.asked import Adoption, Asked, Health, Pool, Share
from cloudmesh.compute.machines import LOST_REASONS, REASON_GONE, REASON_PREEMPTED
from cloudmesh.compute.members import Member, Truth
from cloudmesh.compute.prices.moments import to_seconds
from cloudmesh.compute.prices.money import to_nanos
from cloudmesh.policy.model import Alternative, FilterRule, Needs, Offer, Policy, Price, Score

Obj = Mapping[str, Any]

ANNOTATION_TEMPLATE = "cloudmesh.org/template"
"""On a VirtualMachine: hash of all that its pool asked for."""
ANNOTATION_QUOTED = "cloudmesh.org/quoted-price"
"""On a VirtualMachine: the price per hour that it was chosen at, such as `0.0464 USD`."""
ANNOTATION_FAILURES = "cloudmesh.org/failures"
"""On a VirtualMachine: failures in a row of its place in the pool before it."""
ANNOTATION_POWER_SINCE = "cloudmesh.org/power-changed-at"
"""On a VirtualMachine: when its cluster last told it another powerState."""
AT_REST = frozenset({"Stopped", "Suspended"})


def read_cluster(cluster: api.VirtualCluster) -> Asked:
    """What a VirtualCluster asks for."""
    spec, meta = cluster.spec, cluster.metadata
    public = spec.network is not None and spec.network.mode == "PublicAddress"
    placement = spec.placement
    rules = placement.rules if placement is not None else None
    return Asked(
        namespace=meta.namespace,
        name=meta.name,
        uid=meta.uid,
        created_at=to_seconds(meta.creation_timestamp) if meta.creation_timestamp else 0,
        pools=tuple(_pool(p, spec.replicas_of(p), public) for p in spec.pools),
        accounts=tuple(a.name for a in spec.accounts) if spec.accounts else None,
        account_labels=spec.account_selector.match_labels if spec.account_selector is not None else None,
        policy_ref=placement.policy_ref.name if placement is not None and placement.policy_ref is not None else "",
        policy=read_policy(rules) if rules is not None else Policy(),
        same_network=spec.same_network,
        max_hourly=to_nanos(spec.max_hourly_cost.amount) if spec.max_hourly_cost is not None else None,
        currency=spec.max_hourly_cost.currency if spec.max_hourly_cost is not None else "",
        approval=spec.apply.mode == "RequireApproval",
        suspended=spec.lifecycle.state == "Suspended",
        idle_seconds=spec.lifecycle.idle.after_seconds if spec.lifecycle.idle is not None else None,
        max_lifetime=spec.lifecycle.max_lifetime_seconds,
        public_keys=tuple(spec.access.ssh_public_keys),
        source_ranges=tuple(spec.access.source_ranges),
        outputs=tuple(spec.access.outputs),
        bootstrap=spec.bootstrap_kind,
        scaled_pool=next((p.name for p in spec.pools if p.replicas is None), ""),
    )


def read_policy(spec: PlacementPolicySpec) -> Policy:
    """The scheduler's form of placement rules."""
    near = spec.data_near
    return Policy(
        mode=spec.mode,
        filters=tuple(FilterRule(f.name, f.parameters) for f in spec.filters),
        scores=tuple(Score(s.name, s.weight) for s in spec.scores),
        plugin=spec.plugin.name if spec.plugin is not None else "",
        data_location=tuple(near.regions or ()) if near is not None else (),
        data_directory=near.directory_ref.name if near is not None and near.directory_ref is not None else "",
        seed=spec.seed or 0,
    )


def _pool(pool: api.Pool, replicas: int, public: bool) -> Pool:
    health, where = pool.health, pool.where
    return Pool(
        name=pool.name,
        replicas=replicas,
        alternatives=tuple(Alternative(a.name, _needs(a.machine), a.counts_as) for a in pool.alternatives),
        image=pool.image.name if pool.image is not None else "",
        base_on_demand=pool.purchase.base_on_demand,
        above_base=pool.purchase.above_base,
        regions=tuple(where.regions),
        zones=tuple(where.zones),
        spread=where.spread,
        colocate=where.colocate,
        adopt=tuple(Adoption(a.account_ref.name, a.provider_id) for a in pool.adopt),
        health=Health(
            health.startup_timeout_seconds,
            health.unhealthy_after_seconds,
            health.remediation == "Replace",
            _share(health.max_unhealthy),
        ),
        surge=Share(pool.strategy.max_surge),
        unavailable=Share(pool.strategy.max_unavailable),
        public_address=public,
    )


def _share(text: str) -> Share:
    return Share(int(text[:-1]), percent=True) if text.endswith("%") else Share(int(text))


def _needs(machine: MachineRequirements) -> Needs:
    vcpu = machine.vcpu.bounds() if machine.vcpu is not None else (Fraction(0), None)
    memory = machine.memory.bounds() if machine.memory is not None else (Fraction(0), None)
    disk = MachineRequirements.model_validate({"memory": {"min": machine.disk.size}}) if machine.disk else None
    return Needs(
        type=machine.type or "",
        vcpu=(_up(vcpu[0] * 1000), _down(vcpu[1], 1000)),
        memory_mib=(_up(memory[0] / 2**20), _down(memory[1], Fraction(1, 2**20))),
        arch=tuple(machine.arch),
        gpu_model=(machine.gpu.model or "") if machine.gpu is not None else "",
        gpu_count=machine.gpu.count if machine.gpu is not None else 0,
        disk_gib=_up(disk.memory.bounds()[0] / 2**30) if disk is not None and disk.memory is not None else 0,
    )


def _up(number: Fraction) -> int:
    return -(-number.numerator // number.denominator)


def _down(number: Fraction | None, scale: Fraction | int) -> int | None:
    return None if number is None else int(number * scale)


def read_member(obj: Obj, *, was_up: bool = False) -> Member:
    """The plan's view of a VirtualMachine.

    Args:
        obj: The VirtualMachine.
        was_up: It was seen to work before.
    """
    meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
    annotations = meta.get("annotations") or {}
    conditions = {x["type"]: x for x in status.get("conditions") or ()}
    created, ready = conditions.get(c.CREATED) or {}, conditions.get(c.READY) or {}
    failed, message = "", ready.get("message", "")
    if created.get("status") == c.FALSE:
        failed, message = created["reason"], created.get("message", "")
    elif ready.get("status") == c.FALSE and ready.get("reason") in LOST_REASONS:
        failed = ready["reason"]
    made_at = to_seconds(meta["creationTimestamp"]) if meta.get("creationTimestamp") else 0
    since = ready.get("lastTransitionTime")
    power_since, asked = annotations.get(ANNOTATION_POWER_SINCE), status.get("createRequestedAt")
    costs = bool(status.get("startedAt")) and not status.get("endedAt")
    rests = status.get("billing") == "DiskOnly"
    truth: Truth = ready.get("status", "Unknown")
    return Member(
        name=meta["name"],
        uid=meta.get("uid", ""),
        pool=spec.get("pool", ""),
        ordinal=spec.get("ordinal", 0),
        attempt=spec.get("attempt", 1),
        counts_as=spec.get("countsAs", 1),
        alternative=spec.get("alternative", ""),
        offer=_offer(spec, status, annotations.get(ANNOTATION_QUOTED, "")),
        created_at=made_at,
        template=annotations.get(ANNOTATION_TEMPLATE, ""),
        adopted=(spec.get("adopt") or {}).get("providerID", ""),
        deleting=bool(meta.get("deletionTimestamp")),
        ready=truth,
        ready_since=to_seconds(since) if since else 0,
        asked_at=to_seconds(asked) if asked else 0,
        was_up=was_up or truth == "True",
        made=bool(status.get("providerID")) and status.get("state") != "Deleted",
        billed=costs and not rests,
        resting=costs and rests,
        failed=failed,
        message=message,
        clash=message if ready.get("reason") == c.REASON_NAME_CONFLICT and not failed else "",
        gone=failed == REASON_GONE,
        preempted=failed == REASON_PREEMPTED,
        power=spec.get("powerState", "Running"),
        power_since=to_seconds(power_since) if power_since else 0,
        at_rest=status.get("state") in AT_REST,
        failures=_number(annotations.get(ANNOTATION_FAILURES, "")),
        drift=tuple(d["field"] for d in status.get("drift") or ()),
        price_now=_price(status.get("currentPrice"), status),
    )


def _offer(spec: Obj, status: Obj, quoted: str) -> Offer:
    offer, price = spec["offer"], _price(status.get("hourlyPrice"), status)
    if price is None and quoted:
        amount, _, currency = quoted.partition(" ")
        price = Price(to_nanos(amount), currency, "quote", "", "static")
    return Offer(
        account=spec["accountRef"]["name"],
        type=offer["type"],
        region=offer.get("region", ""),
        zone=offer.get("zone", ""),
        purchase=offer.get("purchase", "OnDemand"),
        price=price,
    )


def _price(told: Obj | None, status: Obj) -> Price | None:
    """A price of the status, with its disk."""
    if not told or told.get("confidence") == "unknown":
        return None
    known = told.get("confidence", "unknown")
    disk = to_nanos(status.get("diskHourly", "0"))
    return Price(to_nanos(told["amount"]) + disk, told["currency"], told["source"], told["asOf"], known, disk=disk)


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else 0
