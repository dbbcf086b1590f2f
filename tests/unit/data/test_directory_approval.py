"""A change of rules or stores waits for approval: what the gateway is told meanwhile, and what ends the waiting."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.approval import question_of
from cloudmesh.data.config import Quote, StoreSummary
from cloudmesh.data.kinds import PRICE_SHEET, VIRTUAL_DIRECTORY
from cloudmesh.engine import SECRET
from cloudmesh.testing import CrashPoint

APPLY = {"mode": "RequireApproval"}
MICROS = 4_000_000_000 * 10**6
"""A time that isn't over yet."""


def ask(s: Scene, *stores: str, copies: int = 1, prefer: str = "Balanced", **more: Any) -> None:
    """The directory as asked for."""
    rule = {"name": "default", "copies": copies, "prefer": prefer}
    s.directory(*(stores or ("aws", "b2")), placement={"rules": [rule]}, apply=APPLY, **more)


def approve(s: Scene, hash_: str) -> None:
    found = s.api.get(VIRTUAL_DIRECTORY, "ns", "lab")
    assert found is not None
    found["metadata"].setdefault("annotations", {})["cloudmesh.org/approved-quote"] = hash_
    s.api.put(VIRTUAL_DIRECTORY, found)


def counts(s: Scene, **figures: Any) -> None:
    """The gateway has counted the present question."""
    proposal = s.config().proposal
    assert proposal is not None
    made = Quote(proposal.question, **{"made_at": MICROS, **figures})
    s.gateways.known["lab-vdir"].summary["quote"] = made


async def begin(s: Scene) -> None:
    s.secret()
    s.store()
    s.store("b2")
    s.store("c3")
    ask(s)
    await s.settle()
    assert s.condition()[:2] == ("True", "AsSpecified")


@scene
async def test_a_change_waits_and_is_applied_when_its_quote_is_approved(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        assert s.config().proposal is None
        placed = s.status()["approvedQuestion"]
        ask(s, copies=2, quota={"files": 7})
        await s.settle()
        config = s.config()
        # files are placed as before; what places none is taken up at once
        assert [rule.copies for rule in config.rules] == [1]
        assert config.quota_files == 7
        assert config.proposal is not None
        assert [rule.copies for rule in config.proposal.rules] == [2]
        assert s.condition()[:2] == ("False", "AwaitingApproval")
        assert s.condition("Reconciling")[0] == "True"
        assert s.status()["approvedQuestion"] == placed
        counts(
            s, files=3, copies=3, bytes=3 << 30, requests_nanos=15_000, egress_nanos=270_000_000,
            before_nanos=10**9, after_nanos=2 * 10**9, seconds=7201,
        )  # fmt: skip
        await s.settle(20)
        quote = s.status()["quote"]
        assert {k: quote[k] for k in ("files", "copies", "size", "requests", "egress", "monthlyAfter")} == {
            "files": 3, "copies": 3, "size": "3Gi", "requests": "0.000015", "egress": "0.27", "monthlyAfter": "2",
        }  # fmt: skip
        message = s.condition()[2]
        assert message == (
            "the change makes 3 copies of 3 files, 3Gi bytes in all, and removes 0; it takes 3 h at the stores' limits;"
            " it costs 0.000015 USD for requests and 0.27 USD for egress, then 2 USD a month instead of 1; it waits"
            f" until {quote['expiresAt']}: set annotation cloudmesh.org/approved-quote to {quote['hash']}"
        )
        approve(s, "0" * 32)
        await s.settle()
        assert [rule.copies for rule in s.config().rules] == [1]
        approve(s, quote["hash"])
        await s.settle()
        assert [rule.copies for rule in s.config().rules] == [2]
        assert s.config().proposal is None
        assert s.condition()[:2] == ("True", "AsSpecified")
        status = s.status()
        assert "quote" not in status
        assert status["approvedQuote"] == quote["hash"]
        assert status["approvedQuestion"] == quote["question"] == question_of(s.config())


@scene
async def test_a_change_is_approved_while_a_store_is_away(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        ask(s, copies=2)
        await s.settle()
        summary = s.gateways.known["lab-vdir"].summary
        summary["stores"] = (StoreSummary("aws", "Up"), StoreSummary("b2", "Unknown", "no answer"))
        counts(s, files=3, copies=3, unseen=("b2",))
        await s.settle(20)
        quote = s.status()["quote"]
        assert quote["unseen"] == ["b2"]
        status, reason, message = s.condition()
        assert (status, reason) == ("Unknown", "StoreUnavailable")
        assert message.startswith("b2 is Unknown: no answer; the change makes 3 copies of 3 files")
        assert "; b2 didn't answer and wasn't looked at; it waits until" in message
        approve(s, quote["hash"])
        await s.settle()
        assert [rule.copies for rule in s.config().rules] == [2]
        assert s.config().proposal is None


@scene
async def test_an_approval_is_for_one_question_and_one_time(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        ask(s, copies=2)
        await s.settle()
        counts(s, files=1)
        await s.settle(20)
        first = s.status()["quote"]["hash"]
        # another question before the answer is approved
        ask(s, copies=2, prefer="Fastest")
        approve(s, first)
        await s.settle()
        assert [rule.copies for rule in s.config().rules] == [1]
        assert "quote" not in s.status()
        # the same question again, and its answer
        ask(s, copies=2, annotations={})
        await s.settle()
        counts(s, files=1)
        await s.settle(20)
        assert s.status()["quote"]["hash"] == first
        approve(s, first)
        await s.settle()
        assert [rule.copies for rule in s.config().rules] == [2]
        # back, and there once more: what was approved once isn't approved for ever
        ask(s, copies=1, annotations={"cloudmesh.org/approved-quote": first})
        await s.settle()
        counts(s, files=1)
        await s.settle(20)
        back = s.status()["quote"]["hash"]
        approve(s, back)
        await s.settle()
        ask(s, copies=2, annotations={"cloudmesh.org/approved-quote": first})
        await s.settle()
        counts(s, files=1)
        await s.settle(20)
        assert s.status()["quote"]["hash"] not in (first, back)
        assert [rule.copies for rule in s.config().rules] == [1]


@scene
async def test_a_quote_that_is_over_is_no_approval(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        ask(s, copies=2)
        await s.settle()
        counts(s, files=1, made_at=1_000_000)
        await s.settle(20)
        approve(s, s.status()["quote"]["hash"])
        await s.settle(20)
        assert [rule.copies for rule in s.config().rules] == [1]
        # it is counted anew, to the same figures
        counts(s, files=1)
        await s.settle(40)
        assert [rule.copies for rule in s.config().rules] == [2]


@scene
async def test_stores_that_come_and_go_wait_too(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        ask(s, "aws", "c3")
        await s.settle()
        told = {store.name: (store.access, store.awaits_approval) for store in s.config().stores}
        assert told == {"aws": ("ReadWrite", False), "c3": ("ReadOnly", True), "b2": ("ReadWrite", False)}
        proposal = s.config().proposal
        assert proposal is not None
        assert {placing.name: placing.access for placing in proposal.stores} == {
            "aws": "ReadWrite", "c3": "ReadWrite", "b2": "Drain",
        }  # fmt: skip
        # taken back: nothing is left of it
        ask(s)
        await s.settle()
        assert {store.name: store.access for store in s.config().stores} == {"aws": "ReadWrite", "b2": "ReadWrite"}
        assert s.config().proposal is None
        ask(s, "aws", "c3")
        await s.settle()
        counts(s, files=2)
        await s.settle(20)
        s.gateways.known["lab-vdir"].files["b2"] = 2
        approve(s, s.status()["quote"]["hash"])
        await s.settle()
        told = {store.name: (store.access, store.awaits_approval) for store in s.config().stores}
        assert told == {"aws": ("ReadWrite", False), "c3": ("ReadWrite", False), "b2": ("Drain", False)}
        # emptied, it goes without another question
        s.gateways.known["lab-vdir"].files["b2"] = 0
        await s.settle(60)
        assert [store.name for store in s.config().stores] == ["aws", "c3"]
        assert s.condition()[:2] == ("True", "AsSpecified")


@scene
async def test_a_store_that_is_drained_waits_and_one_that_is_read_only_is_obeyed(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        s.store("b2", access="Drain")
        await s.settle(20)
        assert [store.access for store in s.config().stores] == ["ReadWrite", "ReadWrite"]
        assert s.condition()[1] == "AwaitingApproval"
        s.store("b2", access="ReadOnly")
        await s.settle(20)
        assert [store.access for store in s.config().stores] == ["ReadWrite", "ReadOnly"]


@scene
async def test_prices_count_only_where_a_rule_goes_by_them(s: Scene) -> None:
    s.watched = (PRICE_SHEET,)
    async with s.operator():
        await begin(s)
        s.sheet({"match": {"store": "aws"}, "storagePerGibMonth": "1"})
        await s.settle(75)
        assert s.condition()[0] == "True"
        assert s.config().stores[0].prices.gib_month == 10**9


@pytest.mark.parametrize("mode", ["Auto", "RequireApproval"])
def test_a_change_to_auto_needs_no_quote(mode: str) -> None:
    @scene
    async def run(s: Scene) -> None:
        async with s.operator():
            await begin(s)
            s.directory(
                "aws", "b2", placement={"rules": [{"name": "default", "copies": 2, "prefer": "Random"}]},
                apply={"mode": mode},
            )  # fmt: skip
            await s.settle()
            assert [rule.copies for rule in s.config().rules] == [2 if mode == "Auto" else 1]
            assert ("approvedQuestion" in s.status()) == (mode == "RequireApproval")

    run()


@scene
async def test_lost_rules_are_never_taken_for_approved_ones(s: Scene) -> None:
    async with s.operator():
        await begin(s)
        ask(s, copies=2)
        await s.settle()
        s.api.remove(SECRET, "ns", "lab-vdir")
        await s.settle(60)
        assert s.api.get(SECRET, "ns", "lab-vdir") is None
        assert s.condition()[:2] == ("False", "AwaitingApproval")
        assert "are lost with the Secret" in s.condition()[2]
        ask(s)
        await s.settle(60)
        assert [rule.copies for rule in s.config().rules] == [1]


@pytest.mark.parametrize("number", range(1, 20))
def test_a_crash_at_any_call_never_applies_what_nobody_approved(number: int) -> None:
    @scene
    async def run(s: Scene) -> None:
        async with s.operator():
            await begin(s)
        ask(s, copies=2)
        async with s.operator(CrashPoint(number)):
            await s.settle(20)
        async with s.operator():
            await s.settle(20)
            assert [rule.copies for rule in s.config().rules] == [1]
            counts(s, files=1)
            await s.settle(20)
            hash_ = s.status()["quote"]["hash"]
            approve(s, hash_)
        async with s.operator(CrashPoint(number)):
            await s.settle(20)
        async with s.operator():
            await s.settle(20)
            assert [rule.copies for rule in s.config().rules] == [2]
            assert s.status()["approvedQuote"] == hash_

    run()
