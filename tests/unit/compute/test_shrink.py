"""Quotes that shrink with their cluster."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.compute.cluster_parts import NOW, asked, decision, member, offer, pool

from cloudmesh.compute.asked import Asked
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import Plan, plan
from cloudmesh.compute.quote import Quote, lines_of, make_quote
from cloudmesh.compute.shrink import owed, smaller, with_quote
from cloudmesh.policy.model import Alternative, Needs

B = offer("b", 300_000_000)


def quoted(*decisions: object) -> Quote:
    return make_quote(lines_of([], decisions), NOW, cheapest=1, cheapest_words="x", question="q")  # type: ignore[arg-type]


def needed(cluster: Asked, *there: Member) -> Plan:
    return plan(cluster, there, NOW)


def lines(quote: Quote | None) -> list[tuple[str, str, int, int | None]]:
    assert quote is not None
    return [(x.pool, x.type, x.count, x.nanos) for x in quote.lines]


def shrunk(quote: Quote, found: Plan) -> Quote | None:
    return smaller(quote, found, quote.hash)


def test_a_quote_of_what_is_asked_for_stays() -> None:
    held = quoted(decision(3))
    for replicas, there in ((3, 3), (3, 1), (4, 3)):
        assert shrunk(held, needed(asked(pool(replicas)), *map(member, range(there)))) is None


def test_what_runs_stays_at_the_price_that_was_approved() -> None:
    held = quoted(decision(2), decision(1, of=B))
    moved = member(0, offer=offer(nanos=150_000_000))
    found = shrunk(held, needed(asked(pool(1)), moved))
    assert lines(found) == [("workers", "small", 1, 100_000_000)]
    assert found is not None and found.hash != held.hash
    assert (found.question, found.cheapest, found.expires_at) == ("q", None, held.expires_at)
    assert shrunk(found, needed(asked(pool(1)), moved)) is None


def test_a_replacement_by_another_offer_is_what_is_left() -> None:
    found = shrunk(quoted(decision(3, of=B)), needed(asked(pool(1)), member(0)))
    assert lines(found) == [("workers", "small", 1, 100_000_000)]


def test_of_what_isnt_there_the_cheapest_is_left() -> None:
    held = quoted(decision(2), decision(2, of=B))
    assert lines(shrunk(held, needed(asked(pool(3)), member(0, offer=B)))) == [
        ("workers", "b", 1, 300_000_000),
        ("workers", "small", 2, 100_000_000),
    ]
    assert [(x.type, x.count) for x in owed(held, needed(asked(pool(3)), member(0, offer=B)))] == [("small", 2)]


def test_a_machine_that_counts_for_several_may_stand_above_what_is_asked_for() -> None:
    big = Alternative("any", Needs(), 2)
    held = quoted(decision(2, counts_as=2))
    for replicas, left in ((3, None), (2, 1)):
        mine = pool(replicas, alternatives=(big,))
        there = [member(n, of=mine, counts_as=2) for n in range(2)]
        found = shrunk(held, needed(asked(mine), *there))
        assert (found is None) if left is None else (lines(found)[0][2] == left)


def test_a_pool_that_went_is_left_out_and_others_are_as_they_were() -> None:
    held = quoted(decision(2), decision(2, pool="gone"))
    assert lines(shrunk(held, needed(asked(pool(2)), member(0)))) == [("workers", "small", 2, 100_000_000)]


def test_one_that_waits_for_approval_goes_when_nothing_of_it_is_needed() -> None:
    held = quoted(decision(3))
    two = needed(asked(pool(2)), member(0), member(1))
    assert smaller(held, two, "") is None
    assert smaller(held, needed(asked(pool(3)), member(0), member(1)), "0" * 32) is None
    found = smaller(held, two, "0" * 32)
    assert lines(found) == [("workers", "small", 2, 100_000_000)]
    assert found is not None and found.question == ""  # by which question the two were approved nobody knows
    assert smaller(replace(held, stored="1" * 32), needed(asked(pool(3)), *map(member, range(3))), "0" * 32) is None


def test_the_status_takes_the_quote_and_nothing_else() -> None:
    old = {
        "clouds": "mem", "quote": {"hash": "ab"}, "approvedQuote": "ab", "approvedHourly": "0.9",
        "placement": {"decisions": [{}], "rejected": [{"pool": "workers"}]},
    }  # fmt: skip
    found = with_quote(old, quoted(decision(1)))
    assert found["clouds"] == "mem" and found["approvedQuote"] == found["quote"]["hash"] == quoted(decision(1)).hash
    assert found["approvedHourly"] == "0.1" and found["placement"]["rejected"] == [{"pool": "workers"}]
    assert [d["count"] for d in found["placement"]["decisions"]] == [1]
    none = with_quote({**old, "placement": {"decisions": [{}]}}, quoted())
    assert "placement" not in none and "approvedHourly" not in none
