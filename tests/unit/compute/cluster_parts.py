"""Clusters, machines and offers for tests of the plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cloudmesh.compute.asked import Asked, Pool
from cloudmesh.compute.members import Member
from cloudmesh.policy.model import Alternative, Decision, Needs, Offer, Price

NOW = 1_800_000_000
ALTERNATIVE = Alternative("any", Needs())


def offer(type_: str = "small", nanos: int | None = 100_000_000, account: str = "mem", **more: Any) -> Offer:
    price = None if nanos is None else Price(nanos, "USD", "test", "2026-11-01T00:00:00Z", "fetched")
    return Offer(account, type_, price=price, **more)


def pool(replicas: int = 3, name: str = "workers", **more: Any) -> Pool:
    return Pool(name, replicas, more.pop("alternatives", (ALTERNATIVE,)), **more)


def asked(*pools: Pool, **more: Any) -> Asked:
    return Asked("ns", "lab", "uid-lab", NOW - 10_000, pools or (pool(),), **more)


def member(ordinal: int = 0, *, of: Pool | None = None, attempt: int = 1, **more: Any) -> Member:
    mine = of or pool()
    alternative = more.pop("alternative", mine.alternatives[0].name)
    counts = next((a.counts_as for a in mine.alternatives if a.name == alternative), 1)
    name = f"lab-{mine.name}-{ordinal}" + (f"-{attempt}" if attempt > 1 else "")
    made = Member(
        name=name,
        uid=f"uid-{name}",
        pool=mine.name,
        ordinal=ordinal,
        attempt=attempt,
        counts_as=more.pop("counts_as", counts),
        alternative=alternative,
        offer=more.pop("offer", None) or offer(),
        created_at=NOW - 5000,
        template=mine.templates.get(alternative, ""),
        ready="True",
        ready_since=NOW - 4000,
        was_up=True,
        made=True,
        billed=True,
        asked_at=NOW - 5000,
    )
    return replace(made, **more)


def new(ordinal: int = 0, **more: Any) -> Member:
    """One that was just asked for."""
    fresh: dict[str, Any] = {
        "ready": "False", "was_up": False, "made": False, "billed": False,
        "created_at": NOW, "ready_since": NOW, "asked_at": NOW,
    }  # fmt: skip
    return member(ordinal, **(fresh | more))


def decision(count: int = 1, *, pool: str = "workers", of: Offer | None = None, **more: Any) -> Decision:
    return Decision(pool, more.pop("alternative", "any"), more.pop("counts_as", 1), of or offer(), count, **more)
