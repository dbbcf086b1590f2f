"""A spec that is changed while its quote still holds: what is made answers the spec of now."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace
from typing import Any

import pytest
from tests.unit.compute.cluster_parts import NOW, asked, decision, pool
from tests.unit.compute.cluster_scene import Scene, scene

from cloudmesh.api import names
from cloudmesh.compute.asked import Adoption, Asked, Health, Pool, Share
from cloudmesh.compute.cluster_offers import question_key
from cloudmesh.compute.kinds import PLACEMENT_POLICY, VIRTUAL_CLUSTER
from cloudmesh.compute.quote import from_status, gate, lines_of, make_quote, to_status
from cloudmesh.policy.model import Alternative, Block, FilterRule, Needs, Policy, PoolRequest, Request, Score

LARGE = [{"name": "any", "machine": {"vcpu": {"min": "4"}, "memory": {"min": "1Gi"}}}]


def elsewhere(s: Scene) -> str:
    """A region in which nothing lives."""
    return min({r.region for r in s.cloud.stock.rows.values()} - {i.region for i in s.living()})


def approve(s: Scene) -> str:
    found = str(s.cluster_status()["quote"]["hash"])
    marks = {names.ANNOTATION_APPROVED_QUOTE: found}
    s.change(VIRTUAL_CLUSTER, "lab", lambda obj: obj["metadata"].setdefault("annotations", {}).update(marks))
    return found


# -- clusters


@scene
async def test_larger_needs_make_larger_machines(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        before = s.cluster_status()["quote"]
        s.edit_pool(alternatives=LARGE)
        await s.settle()
        vcpu = {r.type: r.milli_vcpu for r in s.cloud.stock.rows.values()}
        assert len(s.living()) == 2
        assert all(vcpu[i.type] >= 4000 for i in s.living())
        assert s.cluster_status()["quote"]["hash"] != before["hash"]


@scene
async def test_another_region_moves_the_machines_once(s: Scene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        other = elsewhere(s)
        s.edit_pool(where={"regions": [other]})
        await s.settle()
        assert s.cloud.calls["RunInstance"] <= 5
        assert {i.region for i in s.living()} == {other}


@scene
async def test_one_cluster_of_two_clouds(s: Scene) -> None:
    other = s.add_cloud("other")
    s.cluster(replicas=3, accounts=[{"name": "lab"}, {"name": "other"}], pool={"where": {"spread": "Account"}})
    async with s.operator():
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert sorted((len(s.living()), len(other.living()))) == [1, 2]
        assert s.cluster_status()["clouds"] == "lab,other"
        lost = other.living()[0]
        other.vanish(lost.id)
        await asyncio.sleep(120)
        await s.settle()
        assert s.said() == ("True", "AsSpecified")
        assert sorted((len(s.living()), len(other.living()))) == [1, 2]


@scene
async def test_another_list_of_accounts_moves_the_cluster(s: Scene) -> None:
    other = s.add_cloud("other")
    s.cluster(replicas=2)
    async with s.operator():
        await s.settle()
        assert (len(s.living()), len(other.living())) == (2, 0)
        s.edit(accounts=[{"name": "other"}])
        await s.settle()
        assert (len(s.living()), len(other.living())) == (0, 2)
        assert s.said() == ("True", "AsSpecified")


@scene
async def test_another_mode_asks_the_scheduler_anew(s: Scene) -> None:
    s.cluster(replicas=1, placement={"rules": {"mode": "Cheapest"}}, apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        cheapest = s.cluster_status()
        s.edit(placement={"rules": {"mode": "Random", "seed": 7}})
        await s.settle()
        random = s.cluster_status()
        assert random["quote"]["hash"] != cheapest["quote"]["hash"]
        assert random["placement"]["decisions"][0]["why"].startswith("at random")


@scene
async def test_a_policy_that_is_changed_asks_the_scheduler_anew(s: Scene) -> None:
    s._put(PLACEMENT_POLICY, "house", {"mode": "Cheapest"})
    s.cluster(replicas=1, placement={"policyRef": {"name": "house"}}, apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        kept = s.cluster_status()["placement"]["decisions"][0]["type"]
        rules = {"filters": [{"name": "NotType", "parameters": {"in": kept}}]}
        s.change(PLACEMENT_POLICY, "house", lambda obj: obj["spec"].update(rules))
        await s.until(lambda: s.cluster_status()["placement"]["decisions"][0]["type"] != kept)


@scene
async def test_a_changed_spec_needs_another_approval_and_an_old_one_is_none(s: Scene) -> None:
    s.cluster(replicas=1, apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        first = approve(s)
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        here, there = s.living()[0].region, elsewhere(s)
        s.edit_pool(where={"regions": [there]})
        await s.settle()
        assert "AwaitingApproval" in (s.said("Progressing")[1], s.said()[1])
        assert [i.region for i in s.living()] == [here]
        assert approve(s) != first
        await s.until(lambda: [i.region for i in s.living()] == [there], 900)


@scene
async def test_an_unchanged_spec_is_carried_out_as_approved_by_the_next_operator_too(s: Scene) -> None:
    s.cluster(replicas=2, apply={"mode": "RequireApproval"})
    async with s.operator():
        await s.settle()
        first = approve(s)
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
    async with s.operator():
        s.cloud.vanish(s.living()[0].id)
        await s.settle()
        assert s.cluster_status()["quote"]["hash"] == first
        assert s.said() == ("True", "AsSpecified")
        assert len(s.living()) == 2


# -- the question

CLUSTER = asked(pool(3))
OTHER: dict[str, Any] = {
    "pools": (pool(3), pool(1, "more")),
    "accounts": ("a",),
    "account_labels": {"tier": "x"},
    "same_network": True,
    "max_hourly": 1,
    "currency": "EUR",
}
OTHER_POOL: dict[str, Any] = {
    "name": "others",
    "alternatives": (Alternative("any", Needs(vcpu=(4000, None))),),
    "image": "gpu",
    "base_on_demand": 1,
    "above_base": "Spot",
    "regions": ("r",),
    "zones": ("z",),
    "spread": "Zone",
    "colocate": "Zone",
    "public_address": True,
}
SAME: dict[str, Any] = {
    "namespace": "x", "name": "x", "uid": "x", "created_at": 1, "policy_ref": "x", "policy": Policy("Random"),
    "approval": True, "suspended": True, "idle_seconds": 1, "max_lifetime": 1, "public_keys": ("x",),
    "source_ranges": ("x",), "outputs": ("x",), "bootstrap": "slurm", "scaled_pool": "workers",
}  # fmt: skip
SAME_POOL: dict[str, Any] = {
    "replicas": 1, "adopt": (Adoption("a", "i"),), "health": Health(1), "surge": Share(2), "unavailable": Share(1),
}  # fmt: skip


def test_every_member_of_a_spec_is_or_isnt_part_of_the_question() -> None:
    assert {f.name for f in fields(Asked)} == OTHER.keys() | SAME.keys()
    assert {f.name for f in fields(Pool)} == OTHER_POOL.keys() | SAME_POOL.keys()
    base = CLUSTER.question(Policy())
    mine = CLUSTER.pools[0]
    changed = [replace(CLUSTER, **{k: v}) for k, v in OTHER.items()]
    changed += [asked(replace(mine, **{k: v})) for k, v in OTHER_POOL.items()]
    assert len({base, *(a.question(Policy()) for a in changed)}) == len(changed) + 1
    kept = [replace(CLUSTER, **{k: v}) for k, v in SAME.items()]
    kept += [asked(replace(mine, **{k: v})) for k, v in SAME_POOL.items()]
    assert {a.question(Policy()) for a in kept} == {base}


@pytest.mark.parametrize(
    "policy",
    [
        Policy("Fastest"),
        Policy(filters=(FilterRule("MinVcpu", {"count": "2"}),)),
        Policy(scores=(Score("Price", 2),)),
        Policy(plugin="p"),
        Policy(data_location=("r",)),
        Policy(seed=1),
    ],
)
def test_every_member_of_a_policy_is_part_of_the_question(policy: Policy) -> None:
    assert CLUSTER.question(policy) != CLUSTER.question(Policy())


def test_alternatives_that_change_places_or_names_are_another_question() -> None:
    a, b = Alternative("a", Needs()), Alternative("b", Needs(vcpu=(4000, None)))
    swapped = (replace(b, name="a"), replace(a, name="b"))
    found = {asked(pool(alternatives=x)).question(Policy()) for x in ((a, b), (b, a), swapped)}
    assert len(found) == 3


def test_the_scheduler_is_asked_again_when_any_part_of_its_question_changes() -> None:
    other: dict[str, Any] = {
        "pools": (PoolRequest("p", 2, (Alternative("a", Needs()),)),),
        "accounts": ("b",),
        "policy": Policy(filters=(FilterRule("MinVcpu", {"count": "2"}),)),
        "max_hourly_nanos": 1,
        "currency": "EUR",
        "same_network": True,
        "account_limits": {"a": 1},
        "blocks": (Block("a", "AuthFailed", "2026-11-01T00:00:00Z"),),
        "no_public": frozenset({"a"}),
        "max_disks": {"a": 1},
    }
    assert {f.name for f in fields(Request)} <= other.keys()
    base = Request((PoolRequest("p", 1, (Alternative("a", Needs()),)),), ("a",))
    there = {f.name for f in fields(Request)}
    keys = [question_key(replace(base, **{k: v}), 1) for k, v in other.items() if k in there]
    assert len({question_key(base, 1), question_key(base, 2), *keys}) == len(keys) + 2
    later = replace(base, blocks=(Block("a", "AuthFailed", "2026-11-02T00:00:00Z", "again"),))
    assert question_key(later, 1) in keys


@pytest.mark.parametrize("approval", [False, True])
def test_an_answer_to_another_question_is_never_acted_on(approval: bool) -> None:
    lines = lines_of([], [decision(3)])
    held = make_quote(lines, NOW, question="ab")
    cluster = asked(approval=approval)
    told = to_status(held)
    read = from_status(cluster, {"quote": told.quote, "placement": {"decisions": told.decisions}})
    assert read is not None and (read.question, read.hash) == ("ab", held.hash)
    marks = {"approval": held.hash, "approved": held.hash}
    assert gate(cluster, read, lines, NOW + 1, question="ab", **marks).quote is read
    other = gate(cluster, read, lines, NOW + 1, question="cd", **marks)
    assert (other.new, other.go, other.quote.question) == (True, not approval, "cd")
    assert other.quote.hash != held.hash
    assert make_quote(lines, NOW, question="cd").hash != held.hash
