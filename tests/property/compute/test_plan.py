"""The plan against any sequence of events: it converges, and never takes away more than it may."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.compute.cluster_parts import NOW, asked, offer

from cloudmesh.compute.asked import Asked, Health, Pool, Share
from cloudmesh.compute.members import Member, units
from cloudmesh.compute.plan import machines, plan
from cloudmesh.policy.model import Alternative, Decision, Needs

ALTERNATIVES = (Alternative("one", Needs(), 1), Alternative("two", Needs(), 2), Alternative("four", Needs(), 4))


@dataclass
class Cloud:
    """Makes what is asked for, and lets it come up, fail or vanish as it is told."""

    members: dict[str, Member] = field(default_factory=dict)
    now: int = NOW
    made: list[str] = field(default_factory=list)

    def step(self, cluster: Asked, choice: int) -> int:
        """One pass of the controller; gives how many changes it made."""
        found = plan(cluster, list(self.members.values()), self.now)
        decisions = []
        for p in found.pools:
            alternative = p.pool.alternatives[choice % len(p.pool.alternatives)]
            if p.create:
                count = -(-p.create // alternative.counts_as)
                decisions.append(Decision(p.pool.name, alternative.name, alternative.counts_as, offer(), count))
        new = machines(cluster, found, decisions)
        for m in new:
            assert m.name not in self.members, "two machines of one name"
            self.made.append(m.name)
            self.members[m.name] = Member(
                m.name, f"u{len(self.made)}", m.pool, m.place.ordinal, m.place.attempt, m.counts_as, m.alternative,
                m.offer, self.now, m.template, ready_since=self.now, asked_at=self.now, failures=m.place.failures,
            )  # fmt: skip
        for removal in found.delete:
            self.members[removal.member.name] = replace(self.members[removal.member.name], deleting=True)
        return len(new) + len(found.delete)

    def come_up(self) -> None:
        for name, m in list(self.members.items()):
            if m.deleting:
                del self.members[name]
            elif not m.failed and m.ready != "True":
                self.members[name] = replace(m, ready="True", was_up=True, made=True, ready_since=self.now)

    def settle(self, cluster: Asked, choice: int) -> None:
        quiet = 0
        for _ in range(200):
            quiet = 0 if self.step(cluster, choice) else quiet + 1
            self.come_up()
            self.now += 700
            if quiet > 3:
                return
        raise AssertionError("it never comes to rest")

    def working(self) -> list[Member]:
        return [m for m in self.members.values() if m.ready == "True" and not m.deleting]


@st.composite
def pools(draw: st.DrawFn, image: str = "") -> Pool:
    alternatives = tuple(draw(st.lists(st.sampled_from(ALTERNATIVES), min_size=1, unique=True)))
    surge, unavailable = draw(st.sampled_from([(1, 0), (0, 1), (2, 1), (0, 3), (3, 0)]))
    return Pool(
        "workers",
        draw(st.integers(0, 9)),
        alternatives,
        image=image,
        surge=Share(surge),
        unavailable=Share(unavailable),
        health=Health(most=Share(draw(st.integers(1, 3)))),
    )


EVENTS = st.lists(st.tuples(st.sampled_from(["gone", "sick", "refused", "taken"]), st.integers(0, 20)), max_size=6)


def _strike(cloud: Cloud, event: str, number: int) -> None:
    alive = sorted(n for n, m in cloud.members.items() if not m.deleting)
    if not alive:
        return
    name = alive[number % len(alive)]
    m = cloud.members[name]
    changes: dict[str, dict[str, object]] = {
        "gone": {"failed": "Gone", "gone": True, "ready": "False", "made": False, "was_up": True},
        "taken": {"failed": "Preempted", "preempted": True, "ready": "False", "made": False, "was_up": True},
        "refused": {"failed": "CapacityUnavailable", "ready": "False", "made": False, "was_up": False},
        "sick": {"ready": "False", "was_up": True, "made": True},
    }
    cloud.members[name] = replace(m, ready_since=cloud.now, **changes[event])  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(pools(), st.integers(0, 2), EVENTS)
def test_it_comes_to_rest_with_what_was_asked(pool: Pool, choice: int, events: list[tuple[str, int]]) -> None:
    cluster, cloud = asked(pool), Cloud()
    cloud.settle(cluster, choice)
    for event, number in events:
        _strike(cloud, event, number)
        cloud.step(cluster, choice)
        cloud.come_up()
        cloud.now += 700
    cloud.settle(cluster, choice)
    have = units(cloud.working())
    least = min(m.counts_as for m in cloud.members.values()) if cloud.members else 1
    assert pool.replicas <= have
    assert have - least < pool.replicas or not cloud.members
    assert len({m.ordinal for m in cloud.members.values()}) == len(cloud.members)


@settings(max_examples=200, deadline=None)
@given(pools(), st.integers(0, 2), st.lists(st.booleans(), max_size=40), st.data())
def test_a_roll_out_keeps_its_limits(pool: Pool, choice: int, slow: list[bool], data: st.DataObject) -> None:
    pool = replace(pool, replicas=max(1, pool.replicas))
    cloud = Cloud()
    cloud.settle(asked(pool), choice)
    before = units(cloud.working())
    want = replace(pool, image="next")
    largest = max(a.counts_as for a in pool.alternatives)
    least = want.replicas - want.unavailable.number
    # what is there already may be more than was asked for, by less than one machine
    most = max(before, want.replicas) + max(want.surge.number, largest) + largest - 1
    for waits in [*slow, *[False] * 60]:
        cloud.step(asked(want), choice)
        assert units(cloud.working()) >= min(before, least), "more went than may be missing"
        assert units([m for m in cloud.members.values() if not m.deleting]) <= most, "more than the surge allows"
        if not waits:
            cloud.come_up()
    cloud.settle(asked(want), choice)
    assert {m.template for m in cloud.members.values()} <= set(want.templates.values())
    assert units(cloud.working()) >= want.replicas


@settings(max_examples=200, deadline=None)
@given(pools(), st.integers(0, 2), st.sets(st.integers(0, 8)))
def test_no_storm(pool: Pool, choice: int, sick: set[int]) -> None:
    cluster, cloud = asked(pool), Cloud()
    cloud.settle(cluster, choice)
    struck = [n for n, m in cloud.members.items() if m.ordinal in sick]
    for name in struck:
        cloud.members[name] = replace(cloud.members[name], ready="False", ready_since=cloud.now - 500)
    cloud.step(cluster, choice)
    gone = [m for m in cloud.members.values() if m.deleting]
    assert len(gone) == (len(struck) if len(struck) <= pool.health.most.number else 0)


@settings(max_examples=100, deadline=None)
@given(pools(), st.integers(0, 2))
def test_what_isnt_known_destroys_nothing(pool: Pool, choice: int) -> None:
    cluster, cloud = asked(pool), Cloud()
    cloud.settle(cluster, choice)
    for name, m in cloud.members.items():
        cloud.members[name] = replace(m, ready="Unknown", ready_since=cloud.now - 10**6)
    for want in (pool, replace(pool, image="next")):
        assert plan(asked(want), list(cloud.members.values()), cloud.now).delete == ()
