"""The plan of a cluster: sizes, places, health, roll-outs, rest and end."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from tests.unit.compute.cluster_parts import NOW, asked, decision, member, new, offer, pool

from cloudmesh.compute.asked import HASH_VERSION, Adoption, Asked, Health, Pool, Share
from cloudmesh.compute.health import backoff_seconds
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import Plan, leaving_nanos, machines, plan, request
from cloudmesh.policy.model import Alternative, Needs, Policy


def names(found: Plan) -> list[tuple[str, str]]:
    return sorted((r.member.name, r.reason) for r in found.delete)


def made(cluster: Asked, members: list[Member], **more: str) -> list[str]:
    found = plan(cluster, members, NOW)
    need = {p.pool.name: p.create for p in found.pools}
    chosen = [decision(count, pool=name) for name, count in need.items() if count]
    return [m.name for m in machines(cluster, found, chosen)]


# -- size


def test_an_empty_cluster_needs_all() -> None:
    assert made(asked(), []) == ["lab-workers-0", "lab-workers-1", "lab-workers-2"]


def test_a_full_cluster_needs_nothing() -> None:
    found = plan(asked(), [member(i) for i in range(3)], NOW)
    assert (found.create, found.delete, found.power) == (0, (), ())


def test_the_lowest_free_places_are_taken_and_those_that_go_keep_theirs() -> None:
    members = [member(1), member(3), member(0, deleting=True)]
    assert made(asked(pool(4)), members) == ["lab-workers-2", "lab-workers-4"]


def test_machines_that_start_count() -> None:
    assert made(asked(), [new(0), new(1)]) == ["lab-workers-2"]


def test_a_machine_that_counts_for_more_fills_more() -> None:
    p = pool(6, alternatives=(Alternative("any", Needs()), Alternative("big", Needs(), 4)))
    assert plan(asked(p), [member(0, of=p, alternative="big"), member(1, of=p)], NOW).create == 1


def test_scaling_down_takes_what_fails_then_what_is_dear_then_the_youngest() -> None:
    members = [
        member(0, offer=offer("dear", 900_000_000)),
        member(1),
        member(2, created_at=NOW - 10),
        member(3, ready="False", ready_since=NOW),
        member(4, offer=offer("unpriced", None)),
    ]
    order = []
    for replicas in (4, 3, 2, 1, 0):
        found = plan(asked(pool(replicas)), members, NOW)
        gone = {r.member.name for r in found.delete}
        order += [m.name for m in members if m.name in gone and m.name not in order]
        assert len(gone) == 5 - replicas
        assert {r.reason for r in found.delete} == {"ScaledDown"}
    assert order == ["lab-workers-3", "lab-workers-4", "lab-workers-0", "lab-workers-2", "lab-workers-1"]


def test_scaling_down_never_goes_below() -> None:
    p = pool(5, alternatives=(Alternative("any", Needs()), Alternative("big", Needs(), 4)))
    members = [member(0, of=p, alternative="big"), member(1, of=p, alternative="big")]
    assert plan(asked(p), members, NOW).delete == ()
    assert names(plan(asked(replace(p, replicas=4)), members, NOW)) == [("lab-workers-1", "ScaledDown")]


def test_a_pool_that_was_removed_goes() -> None:
    old = pool(2, name="old")
    found = plan(asked(), [member(i) for i in range(3)] + [member(0, of=old)], NOW)
    assert names(found) == [("lab-old-0", "PoolRemoved")]


# -- health


def failed(ordinal: int, reason: str = "CapacityUnavailable", **more: object) -> Member:
    return new(ordinal, failed=reason, created_at=NOW - 1, ready_since=NOW - 1, **more)


def test_no_capacity_is_tried_again_at_once_as_another_attempt() -> None:
    members = [member(0), failed(1), member(2)]
    found = plan(asked(), members, NOW)
    assert made(asked(), members) == ["lab-workers-1-2"]
    place = found.pools[0].places[0]
    assert (place.failures, place.replaces) == (1, "lab-workers-1")
    # it stays until its successor is there: it tells why one is needed
    assert [(r.member.name, r.after) for r in found.delete] == [("lab-workers-1", True)]


def test_the_attempt_is_above_all_of_its_place() -> None:
    members = [failed(0, attempt=2), member(0, attempt=3, deleting=True)]
    assert made(asked(pool(1)), members) == ["lab-workers-0-4"]


def test_other_failures_wait_longer_each_time() -> None:
    assert [backoff_seconds(n, capacity=False) for n in (0, 1, 2, 3, 9, 99)] == [0, 10, 20, 40, 600, 600]
    assert [backoff_seconds(n, capacity=True) for n in (0, 16, 17, 99)] == [0, 0, 10, 600]
    p = pool(1)
    found = plan(asked(p), [failed(0, "InvalidRequest", failures=2)], NOW)
    assert (found.create, found.delete, found.next_at) == (0, (), NOW - 1 + 20)
    found = plan(asked(p), [failed(0, "InvalidRequest", failures=2)], NOW + 19)
    assert found.create == 1


def test_a_failed_one_whose_spec_was_corrected_doesnt_wait() -> None:
    p = pool(1, image="no-such-image")
    bad = failed(0, "InvalidRequest", of=p, failures=5)
    assert plan(asked(p), [bad], NOW).create == 0
    assert made(asked(pool(1, image="debian-12")), [bad]) == ["lab-workers-0-2"]


def test_one_that_never_comes_up_is_replaced_in_time() -> None:
    p = pool(1)
    slow = new(0, made=True, asked_at=NOW - 599, ready_since=NOW - 590)
    assert plan(asked(p), [slow], NOW).next_at == NOW + 1
    found = plan(asked(p), [slow], NOW + 1)
    assert names(found) == [("lab-workers-0", "Replaced")]
    assert made(asked(p), [replace(slow, asked_at=NOW - 600)]) == ["lab-workers-0-2"]


def test_one_that_stops_working_is_replaced_in_time() -> None:
    p = pool(3)
    sick = member(1, ready="False", ready_since=NOW - 119)
    assert plan(asked(p), [member(0), sick, member(2)], NOW).delete == ()
    found = plan(asked(p), [member(0), sick, member(2)], NOW + 1)
    assert names(found) == [("lab-workers-1", "Replaced")]
    assert not found.delete[0].after


def test_what_nobody_knows_destroys_nothing() -> None:
    members = [member(i, ready="Unknown", ready_since=NOW - 10**6) for i in range(3)]
    found = plan(asked(), members, NOW)
    assert (found.create, found.delete) == (0, ())


def test_too_many_ill_machines_and_none_is_replaced() -> None:
    p = pool(5, health=Health(most=Share(40, percent=True)))
    ill = [member(i, ready="False", ready_since=NOW - 500) for i in range(3)]
    found = plan(asked(p), [*ill, member(3), member(4)], NOW)
    assert (found.create, found.delete) == (0, ())
    assert found.pools[0].checkup.tripped
    assert "maxUnhealthy 40%" in found.pools[0].checkup.message
    found = plan(asked(p), [*ill[:2], member(2), member(3), member(4)], NOW)
    assert names(found) == [("lab-workers-0", "Replaced"), ("lab-workers-1", "Replaced")]


def test_those_that_stopped_working_together_are_counted_before_their_time() -> None:
    p = pool(5)
    ill = [member(i, ready="False", ready_since=NOW - 120 + 20 * i) for i in range(3)]
    found = plan(asked(p), [*ill, member(3), member(4)], NOW)
    assert found.pools[0].checkup.tripped
    assert found.delete == ()


def test_no_more_are_replaced_at_once_than_may_be_ill() -> None:
    p = pool(5, health=Health(most=Share(2)))
    gone = [member(i, ready="False", failed="Gone", gone=True, made=False) for i in range(5)]
    found = plan(asked(p), gone, NOW)
    assert names(found) == [("lab-workers-0", "Replaced"), ("lab-workers-1", "Replaced")]
    under_way = [new(0, attempt=2), new(1, attempt=2), *gone[2:]]
    assert plan(asked(p), under_way, NOW).delete == ()
    one_up = [member(0, attempt=2), new(1, attempt=2), *gone[2:]]
    assert names(plan(asked(p), one_up, NOW)) == [("lab-workers-2", "Replaced")]


def test_remediation_none_only_tells() -> None:
    p = pool(3, health=Health(replace=False))
    members = [member(0), member(1, ready="False", ready_since=NOW - 500), member(2, failed="Gone", gone=True)]
    found = plan(asked(p), members, NOW)
    assert (found.create, found.delete) == (0, ())
    assert "remediation is None" in found.pools[0].checkup.message
    # a machine that was never made is no matter of health
    assert plan(asked(p), [member(0), member(1), failed(2)], NOW).create == 1


def test_spot_that_is_taken_away_is_replaced_however_many() -> None:
    p = pool(3)
    taken = [
        member(i, failed="Preempted", preempted=True, ready="False", ready_since=NOW, made=False) for i in range(3)
    ]
    found = plan(asked(p), taken, NOW)
    assert found.create == 3
    ask = {"accounts": ["mem"], "policy": Policy(), "max_hourly": None, "account_limits": {}, "blocks": []}
    assert request(asked(p), found, currency="USD", **ask).pools[0].spot_taken  # type: ignore[arg-type]
    assert not request(asked(p), plan(asked(p), [], NOW), currency="USD", **ask).pools[0].spot_taken  # type: ignore[arg-type]


def test_a_woken_machine_has_time_to_start() -> None:
    p = pool(1)
    woken = member(0, ready="False", ready_since=NOW - 9000, power_since=NOW - 100)
    assert plan(asked(p), [woken], NOW).delete == ()
    assert plan(asked(p), [woken], NOW + 500).delete != ()


# -- adoption


def test_machines_are_taken_over_before_new_ones_are_made() -> None:
    cluster = asked(pool(2, adopt=(Adoption("aws", "i-0abc"),)))
    found = plan(cluster, [], NOW)
    assert found.create == 1
    first, second = machines(cluster, found, [decision()])
    assert (first.name, first.adopt, first.offer.account) == ("lab-workers-0", "i-0abc", "aws")
    assert (second.name, second.adopt) == ("lab-workers-1", "")


def test_an_adopted_machine_is_never_rolled_and_a_failed_adoption_keeps_its_place() -> None:
    p = pool(1, adopt=(Adoption("mem", "i-1"),), image="new")
    there = member(0, adopted="i-1", template="")
    assert plan(asked(p), [there], NOW).delete == ()
    refused = new(0, adopted="i-1", failed="InvalidRequest", created_at=NOW - 9999, ready_since=NOW - 9999)
    found = plan(asked(p), [refused], NOW)
    assert (found.create, found.delete, found.pools[0].adopt) == (0, (), ())
    assert "i" in found.pools[0].checkup.message


def test_no_more_are_adopted_than_the_pool_has_places_and_they_go_last() -> None:
    entries = tuple(Adoption("mem", f"i-{n}") for n in range(3))
    assert plan(asked(pool(0, adopt=entries)), [], NOW).pools[0].adopt == ()
    assert len(plan(asked(pool(2, adopt=entries)), [], NOW).pools[0].adopt) == 2
    full = [member(0), member(1)]
    found = plan(asked(pool(2, adopt=entries[:1])), full, NOW)
    assert len(found.pools[0].adopt) == 1
    joined = [*full, member(2, adopted="i-0", template="", offer=offer("adopted", None))]
    found = plan(asked(pool(2, adopt=entries[:1])), joined, NOW)
    assert names(found) == [("lab-workers-1", "ScaledDown")]


# -- roll-out


def test_a_changed_spec_rolls_one_by_one() -> None:
    old, want = pool(3), pool(3, image="next")
    there = [member(i, of=old) for i in range(3)]
    found = plan(asked(want), there, NOW)
    assert (found.create, found.delete) == (1, ())
    assert made(asked(want), there) == ["lab-workers-3"]
    starting = [*there, new(3, of=want)]
    found = plan(asked(want), starting, NOW)
    assert (found.create, found.delete) == (0, ())
    up = [*there, member(3, of=want)]
    assert names(plan(asked(want), up, NOW)) == [("lab-workers-2", "Outdated")]


def test_a_roll_out_may_take_first_what_may_be_missing() -> None:
    old, want = pool(4), pool(4, image="next", surge=Share(0), unavailable=Share(2))
    found = plan(asked(want), [member(i, of=old) for i in range(4)], NOW)
    assert found.create == 0
    assert names(found) == [("lab-workers-2", "Outdated"), ("lab-workers-3", "Outdated")]


def test_a_roll_out_that_doesnt_come_up_stops() -> None:
    old, want = pool(3), pool(3, image="broken")
    there = [*(member(i, of=old) for i in range(3)), new(3, of=want, asked_at=NOW - 500)]
    found = plan(asked(want), there, NOW)
    assert (found.create, found.delete) == (0, ())


def test_big_machines_are_rolled_too() -> None:
    old = pool(4, alternatives=(Alternative("any", Needs(), 4),))
    want = pool(4)
    there = [member(0, of=old, counts_as=4)]
    assert plan(asked(want), there, NOW).create == 4
    assert plan(asked(want), [*there, *(member(i, of=want) for i in range(1, 5))], NOW).delete[0].reason == "Outdated"


def test_another_alternative_or_region_beside_moves_nothing() -> None:
    old = pool(1)
    want = pool(1, alternatives=(old.alternatives[0], Alternative("more", Needs(type="x"))), regions=("eu", "us"))
    assert plan(asked(want), [member(0, of=old, offer=offer(region="eu"))], NOW).create == 0
    moved = plan(asked(replace(want, regions=("us",))), [member(0, of=old, offer=offer(region="eu"))], NOW)
    assert moved.create == 1


def test_an_account_that_isnt_listed_any_more_is_left() -> None:
    assert plan(asked(pool(1), accounts=("mem",)), [member(0)], NOW).create == 0
    assert plan(asked(pool(1), accounts=("other",)), [member(0)], NOW).create == 1
    assert plan(asked(pool(1), account_labels={"a": "b"}), [member(0)], NOW).create == 0


def test_a_hash_of_another_version_is_stamped_anew() -> None:
    found = plan(asked(pool(1)), [member(0, template="v0-abc")], NOW)
    assert (found.create, found.delete) == (0, ())
    assert [m.name for m in found.pools[0].restamp] == ["lab-workers-0"]


# -- rest and end


def test_resting_machines_sleep_where_they_can() -> None:
    members = [
        member(0, offer=offer(account="can")),
        member(1, offer=offer(account="deep")),
        member(2, offer=offer(account="pods")),
        member(3, offer=offer(account="can", purchase="Spot")),
        member(4, offer=offer(account="lost")),
        new(5, offer=offer(account="can")),
    ]
    powers = {
        "can": frozenset({"StartStop"}),
        "deep": frozenset({"Suspend"}),
        "pods": frozenset({"Groundwork"}),
        "lost": None,
    }
    found = plan(asked(pool(6)), members, NOW, state="Rest", powers=powers)
    assert [(m.name, state) for m, state in found.power] == [
        ("lab-workers-0", "Stopped"),
        ("lab-workers-1", "Suspended"),
    ]
    assert [n for n, _ in names(found)] == ["lab-workers-2", "lab-workers-3", "lab-workers-5"]
    # a Budget pays for disks only
    found = plan(asked(pool(6)), members, NOW, state="Rest", reason="BudgetExceeded", powers=powers)
    assert [(m.name, state) for m, state in found.power] == [("lab-workers-0", "Stopped")]


def test_waking_starts_those_that_sleep_and_makes_those_that_went() -> None:
    asleep = member(0, power="Stopped", at_rest=True, ready="False", ready_since=NOW - 9999, billed=False)
    found = plan(asked(), [asleep], NOW)
    assert [(m.name, state) for m, state in found.power] == [("lab-workers-0", "Running")]
    assert (found.create, found.delete, found.wake_nanos) == (2, (), 100_000_000)
    still_runs = plan(asked(), [replace(asleep, billed=True)], NOW)
    assert (still_runs.power[0][1], still_runs.wake_nanos) == ("Running", 0)


def test_at_the_end_all_go() -> None:
    found = plan(asked(), [member(0), member(1, deleting=True)], NOW, state="End", reason="LifetimeExceeded")
    assert names(found) == [("lab-workers-0", "LifetimeExceeded")]


# -- the question to the scheduler


def test_machines_that_stay_are_pinned_and_those_that_leave_cost_until_then() -> None:
    old, want = pool(2), pool(2, image="next")
    members = [member(0, of=old), member(1, of=want), member(2, of=want, deleting=True)]
    cluster = asked(want, max_hourly=1_000_000_000)
    found = plan(cluster, members, NOW)
    # one is outdated, one is on its way out: both are billed until they are gone
    assert leaving_nanos(found) == 200_000_000
    got = request(
        cluster,
        found,
        accounts=["mem"],
        policy=Policy(),
        max_hourly=cluster.max_hourly,
        account_limits={},
        blocks=[],
        currency="USD",
    )
    assert got.max_hourly_nanos == 800_000_000
    assert [(p.offer.id, p.count) for p in got.pools[0].pinned] == [("mem/small///OnDemand", 1)]
    assert got.pools[0].replicas == 2


def test_never_more_machines_than_units() -> None:
    cluster = asked(pool(2))
    assert len(machines(cluster, plan(cluster, [], NOW), [decision(9)])) == 2


def test_equal_specs_have_equal_hashes() -> None:
    first = Pool("p", 1, (Alternative("a", Needs(arch=("arm64", "amd64"), gpu_model="A100")),))
    second = Pool("p", 9, (Alternative("a", Needs(arch=("amd64", "arm64"), gpu_model="a100")),))
    assert first.templates == second.templates
    assert first.templates["a"].startswith(f"{HASH_VERSION}-")


def test_all_that_a_machine_is_made_by_is_in_its_hash() -> None:
    needs: dict[str, Any] = {
        "type": "m5.large", "vcpu": (4000, None), "memory_mib": (1024, None), "arch": ("arm64",), "gpu_model": "a100",
        "gpu_count": 1, "disk_gib": 20,
    }  # fmt: skip
    assert {f.name for f in fields(Needs)} <= needs.keys()
    plain = Pool("p", 1, (Alternative("a", Needs()),))
    others = [replace(plain, alternatives=(Alternative("a", Needs(**{k: v})),)) for k, v in needs.items()]
    others += [replace(plain, alternatives=(Alternative("a", Needs(), 2),))]
    others += [replace(plain, image="other"), replace(plain, public_address=True)]
    assert len({p.templates["a"] for p in (plain, *others)}) == len(others) + 1
