"""What was approved last: while another quote waits, the cluster is kept as that says. Pure.

The status holds the spec that was approved, and, while another quote waits, the machines too. So whoever reads it next
knows what may be replaced without asking.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pydantic import ValidationError

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.api.virtualcluster_status import MAX_APPROVED
from cloudmesh.compute.asked import Asked, Pool
from cloudmesh.compute.prices.money import to_text
from cloudmesh.compute.quote import Quote, from_status, to_status
from cloudmesh.compute.reading import read_cluster

Obj = Mapping[str, Any]

_SHAPE = (
    "replicas", "pools", "accounts", "accountSelector", "placement", "network", "maxHourlyCost", "bootstrap",
)  # fmt: skip
"""Members of a spec by which offers are chosen."""


@dataclass(frozen=True, slots=True)
class Approved:
    """What was approved last.

    Args:
        quote: Its quote, with the question as this process hashes it.
        asked: The cluster as it was then, with the policy of then.
        spec: The same as JSON; empty if it is too long to be kept.
    """

    quote: Quote
    asked: Asked
    spec: str


def approve(obj: Obj, quote: Quote, policy: Obj | None) -> Approved | None:
    """Notes that a quote was approved; None if its spec is too long.

    Args:
        obj: The VirtualCluster as it is.
        quote: The quote, which answers it.
        policy: Spec of the PlacementPolicy that it refers to, None for none.
    """
    spec = {name: obj["spec"][name] for name in _SHAPE if name in obj["spec"]}
    if policy is not None:
        spec["placement"] = {"rules": policy}
    text = json.dumps(spec, separators=(",", ":"), sort_keys=True)
    return _approved(obj, quote, text) if len(text) <= MAX_APPROVED else None


def read_approved(obj: Obj) -> Approved | None:
    """What a VirtualCluster's status says of it; None if it doesn't, or can't be read."""
    status = obj.get("status") or {}
    told, text = status.get("approved") or {}, str((status.get("approved") or {}).get("spec", ""))
    if not text or "approvedQuote" not in status:
        return None
    held = status.get("quote") or {}
    if held.get("hash") != status["approvedQuote"]:
        held = {"hash": status["approvedQuote"], "madeAt": told.get("madeAt"), "expiresAt": told.get("madeAt")}
        if "approvedHourly" in status:
            held["hourly"] = {"amount": status["approvedHourly"], "currency": told.get("currency", "")}
        status = {"quote": held, "placement": {"decisions": told.get("decisions") or []}, "cost": told}
    found = _approved(obj, None, text)
    quote = from_status(found.asked, status) if found is not None else None
    return None if found is None or quote is None else replace(found, quote=_answer(quote, found.asked))


def _approved(obj: Obj, quote: Quote | None, text: str) -> Approved | None:
    try:
        asked = read_cluster(VirtualCluster.model_validate({**obj, "spec": json.loads(text), "status": {}}))
    except (ValidationError, ValueError):
        return None  # it was written by another version
    return Approved(_answer(quote or Quote((), 0, 0), asked), asked, text)


def _answer(quote: Quote, asked: Asked) -> Quote:
    return replace(quote, stored=quote.hash, question=asked.question(asked.policy))


def to_told(approved: Approved, held: Quote | None) -> dict[str, Any]:
    """`approved`, `approvedQuote` and `approvedHourly` of the status; machines only where another quote is told."""
    out: dict[str, Any] = {"spec": approved.spec}
    told: dict[str, Any] = {"approved": out, "approvedQuote": approved.quote.hash}
    if approved.quote.hourly is not None and approved.quote.currency:
        told["approvedHourly"] = to_text(approved.quote.hourly)
    if held is not None and held.hash != approved.quote.hash:
        published = to_status(approved.quote)
        out["madeAt"] = published.quote["madeAt"]
        if currency := next((line.currency for line in approved.quote.lines if line.currency), ""):
            out["currency"] = currency
        out["decisions"] = [{k: v for k, v in d.items() if k != "why"} for d in published.decisions]
    return told


def kept(approved: Approved, asked: Asked) -> tuple[Asked, Quote]:
    """What a cluster is kept as while another quote waits, and the quote that allows it.

    That is what was approved, but no larger than what is asked for now, and with the limits and times of now.
    """
    units: dict[str, int] = {}
    for line in approved.quote.lines:
        units[line.pool] = units.get(line.pool, 0) + line.count * line.counts_as
    now = {pool.name: pool for pool in asked.pools}
    old = approved.asked
    pools = tuple(_kept_pool(p, now[p.name], units.get(p.name, 0)) for p in old.pools if p.name in now)
    found = replace(
        asked,
        pools=pools,
        accounts=old.accounts,
        account_labels=old.account_labels,
        policy_ref="",
        policy=old.policy,
        same_network=old.same_network,
    )
    return found, replace(approved.quote, question=found.question(found.policy))


def _kept_pool(old: Pool, now: Pool, units: int) -> Pool:
    return replace(
        old,
        replicas=min(now.replicas, units),
        adopt=now.adopt,
        health=now.health,
        surge=now.surge,
        unavailable=now.unavailable,
    )
