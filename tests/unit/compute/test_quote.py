"""The quote: its hash, what it still names, and who may act on it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.compute.cluster_parts import NOW, asked, decision, member, new, offer, pool

from cloudmesh.compute.machines import offer_named
from cloudmesh.compute.plan import plan
from cloudmesh.compute.quote import (
    MAX_LINES,
    VALID_SECONDS,
    Line,
    Quote,
    covers,
    from_status,
    gate,
    go_on,
    lines_of,
    make_quote,
    remaining,
    same,
    to_status,
    within,
)
from cloudmesh.policy.model import Offer, Price

APPROVAL = asked(approval=True)


def quoted(*decisions: object, now: int = NOW) -> Quote:
    return make_quote(lines_of([], decisions or [decision(3)]), now)  # type: ignore[arg-type]


def test_equal_machines_are_one_line_in_any_order() -> None:
    members = [member(0), member(1), member(2, offer=offer("big", 500_000_000))]
    lines = lines_of(members, [decision(2, why="cheapest of 2")])
    assert [(x.type, x.count, x.why) for x in lines] == [("big", 1, ""), ("small", 4, "cheapest of 2")]
    assert lines_of(list(reversed(members)), [decision(2, why="cheapest of 2")]) == lines
    quote = make_quote(lines, NOW)
    assert (quote.hourly, quote.currency) == (900_000_000, "USD")


def test_the_hash_reads_prices_their_age_counts_and_time() -> None:
    base = quoted()
    assert base.hash == quoted().hash
    later = offer()
    assert later.price is not None
    aged = replace(later, price=replace(later.price, as_of="2026-11-02T00:00:00Z"))
    others = [
        quoted(decision(2)),
        quoted(decision(3, of=offer(nanos=100_000_001))),
        quoted(decision(3, of=offer(nanos=None))),
        quoted(decision(3, of=offer(zone="a"))),
        quoted(decision(3, of=aged)),
        quoted(now=NOW + 1),
    ]
    assert len({q.hash for q in (base, *others)}) == 7


def test_an_unknown_price_makes_the_sum_unknown() -> None:
    assert quoted(decision(1), decision(1, of=offer("b", None))).hourly is None


def test_prices_in_two_currencies_are_never_added() -> None:
    euro = Offer("other", "x", price=Price(1, "EUR", "s", "", "fetched"))
    quote = quoted(decision(1), decision(1, of=euro))
    assert (quote.hourly, quote.currency) == (None, "")


def test_what_is_there_is_taken_off() -> None:
    left = remaining(quoted(decision(3), decision(2, of=offer("b"))), [member(0), member(1), member(2), member(3)])
    assert [(x.type, x.count) for x in left] == [("b", 2)]


def _go_on(held: Quote, there: list[object], offers: list[Offer], replicas: int = 3, **more: bool) -> object:
    cluster = asked(pool(replicas))
    found = plan(cluster, there, NOW)  # type: ignore[arg-type]
    by_id = {o.id: o for o in offers}
    return go_on(held, found, lambda _, i: by_id.get(i), lambda o: o.zone != "blocked", **more)


def test_a_quote_is_carried_out_to_the_end_as_it_stands() -> None:
    held = quoted(decision(1), decision(2, of=offer("b", 300_000_000)))
    # a cheaper one has come meanwhile: what was quoted is what is made
    offers = [offer(), offer("b", 300_000_000), offer("cheap", 1)]
    got = _go_on(held, [member(0)], offers)
    assert [(d.offer.type, d.count) for d in got] == [("b", 2)]  # type: ignore[attr-defined]


@pytest.mark.parametrize("changed", ["gone", "dearer", "cheaper", "more wanted", "fewer quoted"])
def test_what_differs_from_the_quote_needs_a_new_one(changed: str) -> None:
    nanos = {"dearer": 100_000_001, "cheaper": 99_999_999}.get(changed, 100_000_000)
    offers = [] if changed == "gone" else [offer(nanos=nanos)]
    held = quoted(decision(2 if changed == "fewer quoted" else 3))
    assert _go_on(held, [member(0)], offers, replicas=4 if changed == "more wanted" else 3) is None


def test_what_was_approved_may_be_had_for_less() -> None:
    got = _go_on(quoted(), [], [offer(nanos=1)], approved=True)
    assert [(d.offer.price.nanos, d.count) for d in got] == [(1, 3)]  # type: ignore[attr-defined]
    assert _go_on(quoted(), [], [offer(nanos=100_000_001)], approved=True) is None


def test_an_offer_that_just_failed_isnt_what_was_quoted() -> None:
    bad = offer(zone="blocked")
    assert _go_on(quoted(decision(3, of=bad)), [], [bad]) is None


def test_without_approval_a_new_quote_is_published_first() -> None:
    first = gate(asked(), None, lines_of([], [decision(3)]), NOW)
    assert (first.go, first.new) == (True, True)
    again = gate(asked(), first.quote, lines_of([member(0)], [decision(2)]), NOW + 5)
    assert (again.go, again.new, again.quote) == (True, False, first.quote)
    late = gate(asked(), first.quote, lines_of([member(0)], [decision(2)]), NOW + VALID_SECONDS)
    assert (late.go, late.new) == (True, True)
    other = gate(asked(), first.quote, lines_of([member(0)], [decision(3)]), NOW + 5)
    assert (other.go, other.new) == (True, True)
    assert other.quote.hash != first.quote.hash


def test_approval_is_waited_for_and_names_the_hash() -> None:
    lines = lines_of([], [decision(3)])
    first = gate(APPROVAL, None, lines, NOW)
    assert (first.go, first.new) == (False, True)
    assert first.quote.hash in first.message
    assert "0.3 USD" in first.message
    for wrong in ("", "true", "0" * 32):
        waiting = gate(APPROVAL, first.quote, lines, NOW + 10, approval=wrong)
        assert (waiting.go, waiting.new) == (False, False)
        named = f"approved {wrong[:12]} is not the quote {first.quote.hash[:12]} of now; the quote costs"
        assert waiting.message.startswith(named if wrong else "the quote costs")
    # the one that was acted on before was right in its time
    later = gate(APPROVAL, first.quote, lines, NOW + 10, approval="0" * 32, approved="0" * 32)
    assert later.message.startswith("the quote costs")
    right = gate(APPROVAL, first.quote, lines, NOW + 10, approval=first.quote.hash)
    assert (right.go, right.new, right.approved) == (True, False, True)


def test_an_expired_quote_cant_be_approved() -> None:
    lines = lines_of([], [decision(3)])
    first = gate(APPROVAL, None, lines, NOW).quote
    late = gate(APPROVAL, first, lines, NOW + VALID_SECONDS, approval=first.hash)
    assert (late.go, late.new) == (False, True)
    assert late.quote.hash != first.hash


def test_a_changed_price_asks_again() -> None:
    first = gate(APPROVAL, None, lines_of([], [decision(3)]), NOW).quote
    dearer = lines_of([], [decision(3, of=offer(nanos=200_000_000))])
    got = gate(APPROVAL, first, dearer, NOW + 10, approval=first.hash)
    assert (got.go, got.new) == (False, True)


def test_an_approval_covers_replacements_that_cost_no_more() -> None:
    held = quoted(decision(2), decision(1, of=offer("b", 300_000_000)))

    def after(*decisions: object) -> bool:
        lines = lines_of([member(0)], decisions)  # type: ignore[arg-type]
        return gate(APPROVAL, held, lines, NOW + 10**6, approval=held.hash, approved=held.hash).go

    assert after(decision(1), decision(1, of=offer("b", 300_000_000)))
    assert after(decision(1, of=offer("c", 300_000_000)), decision(1, of=offer("d", 100_000_000)))
    assert not after(decision(1, of=offer("c", 300_000_001)))
    assert not after(decision(2, of=offer("c", 200_000_000)))  # the sum fits, the single prices don't
    assert not after(decision(1, of=offer("c", None)))
    assert not after(decision(3))  # more machines
    assert not after(decision(1, pool="other"))
    assert after()  # fewer


def test_of_what_was_decided_as_much_is_made_as_was_approved() -> None:
    held, there = quoted(decision(2), decision(1, of=offer("b", 300_000_000))), [member(0)]

    def made(*decisions: object) -> list[tuple[str, int]]:
        return [(d.offer.type, d.count) for d in within(held, there, decisions)]  # type: ignore[arg-type]

    assert made(decision(4)) == [("small", 2)]
    assert made(decision(1, of=offer("c", 400_000_000)), decision(1)) == [("small", 1)]
    assert made(decision(2, of=offer("c", 300_000_000))) == [("c", 1)]
    assert made(decision(1, of=offer("c", None))) == []


def test_an_approval_of_an_unknown_price_covers_its_like() -> None:
    held = quoted(decision(2, of=offer("b", None)))
    assert covers(held, lines_of([], [decision(1, of=offer("b", None)), decision(1)])) is False  # another currency
    assert covers(held, lines_of([], [decision(2, of=offer("b", None))]))


def test_the_status_holds_all_that_a_restart_needs() -> None:
    lines = lines_of([], [decision(3, of=offer(region="r", zone="z"), why="cheapest of 9"), decision(1, of=offer("b"))])
    quote = make_quote(lines, NOW, cheapest=42_000_000, cheapest_words="4 x tiny")
    told = to_status(quote)
    assert told.quote["hourly"] == {"amount": "0.4", "currency": "USD"}
    assert told.quote["cheapestAlternative"] == {"hourly": "0.042", "description": "4 x tiny"}
    status = {"quote": told.quote, "placement": {"decisions": told.decisions}}
    read = from_status(asked(), status)
    assert read is not None
    assert read.hash == quote.hash
    assert same(read.lines, quote.lines)
    assert (read.made_at, read.expires_at, read.hourly) == (quote.made_at, quote.expires_at, quote.hourly)
    assert gate(asked(), read, lines, NOW + 1).new is False


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"quote": {"hash": "ab"}},
        {
            "quote": {"hash": "ab", "madeAt": "2026-11-01T00:00:00Z", "expiresAt": "2026-11-01T00:00:00Z"},
            "placement": {"decisions": [{"pool": "p"}]},
        },
        {
            "quote": {"hash": "ab", "madeAt": "2026-11-01T00:00:00Z", "expiresAt": "2026-11-01T00:00:00Z"},
            "placement": {"decisions": [{}] * MAX_LINES},
        },
    ],
)
def test_half_a_quote_is_none(status: dict[str, object]) -> None:
    assert from_status(asked(), status) is None


def test_a_quote_of_many_lines_is_read_back_whole_or_not_at_all() -> None:
    def many(count: int) -> Quote:
        return quoted(*(decision(1, of=offer(f"t{n}"), why="w" * 2000) for n in range(count)))

    def stored(quote: Quote) -> Quote | None:
        told = to_status(quote)
        assert sum(len(d["why"]) for d in told.decisions) <= 2**18
        return from_status(APPROVAL, {"quote": told.quote, "placement": {"decisions": told.decisions}})

    for count in (256, 300, MAX_LINES):
        read = stored(many(count))
        assert read is not None and read.hash == many(count).hash and same(read.lines, many(count).lines)
        assert gate(APPROVAL, read, many(count).lines, NOW + 1, approval=read.hash).go
    large = many(MAX_LINES + 1)
    assert stored(large) is None
    refused = gate(APPROVAL, large, large.lines, NOW + 1, approval=large.hash)
    assert not refused.go and refused.message.endswith("1001 lines, at most 1000 can be approved: split the cluster")


def test_a_line_names_its_offer_as_the_offer_does() -> None:
    made = offer("t", region="r", zone="z", purchase="Spot")
    assert lines_of([], [decision(1, of=made)])[0].offer_id == made.id
    assert Line("p", "a", 1, "mem", "t", "r", "z", "Spot", 1, None).offer_id == made.id
    assert offer_named("mem", {"type": "t", "region": "r", "zone": "z", "purchase": "Spot"}) == made.id
    assert offer_named("mem", {"type": "t", "zone": None}) == offer("t").id


def test_a_new_machine_is_in_the_quote_as_soon_as_it_is_asked_for() -> None:
    held = quoted(decision(2))
    assert remaining(held, [new(0), new(1)]) == ()
