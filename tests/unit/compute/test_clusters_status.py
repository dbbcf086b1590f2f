"""What Ready says of a cluster, by the first thing that isn't as it should be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.compute.cluster_parts import NOW, asked, decision, member, new, offer, pool

from cloudmesh.api import conditions as c
from cloudmesh.api.virtualcluster_status import VirtualClusterStatus
from cloudmesh.compute.asked import Asked
from cloudmesh.compute.cluster_cost import Books, grown, make_cost, same_machines
from cloudmesh.compute.cluster_status import Boot, Facts, Trouble, Verdict, make_status, verdict
from cloudmesh.compute.cluster_words import events_of, say_machines, say_next
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.members import Member
from cloudmesh.compute.plan import machines, plan
from cloudmesh.compute.quote import lines_of, make_quote
from cloudmesh.policy.model import Rejection


def view(m: Member, **more: Any) -> MachineView:
    seen = MachineView(
        m.uid, m.name, "ns", "lab", m.pool, m.ordinal, m.attempt, m.counts_as, m.alternative, m.offer.account,
        m.offer.id, host=f"10.0.0.{m.ordinal}", reachable=m.ready == "True", bootstrapped=m.ready == "True",
        ready=m.ready == "True", failed=bool(m.failed), deleting=m.deleting,
    )  # fmt: skip
    return replace(seen, **more)


def facts(cluster: Asked, members: list[Member], **more: Any) -> Facts:
    state = more.pop("state", "Run")
    views = more.pop("views", [view(m) for m in members])
    needed = plan(cluster, members, NOW, state=state, powers={"mem": frozenset({"StartStop"})})
    return Facts(members, views, needed, **more)


def said(members: list[Member], cluster: Asked | None = None, **more: Any) -> tuple[str, str, bool, bool]:
    cluster = cluster or asked()
    found = verdict(cluster, facts(cluster, members, **more))
    return found.status, found.reason, found.stalled, found.reconciling


UP = [member(i) for i in range(3)]
STALLED, RECONCILING = (True, False), (False, True)
away = member(1, ready="False", ready_since=NOW, message="10.0.0.1 doesn't answer")


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (said(UP), ("True", "AsSpecified", False, False)),
        (said([]), ("False", "Provisioning", *RECONCILING)),
        (said([new(i) for i in range(3)]), ("False", "Provisioning", *RECONCILING)),
        (said(UP, state="End"), ("False", "LifetimeExceeded", *STALLED)),
        (said(UP, rest="BudgetExceeded", budget="spent"), ("False", "BudgetExceeded", *STALLED)),
        (said(UP, state="Rest", rest="Requested"), ("False", "Suspended", *RECONCILING)),
        (
            said([replace(m, power="Stopped", at_rest=True) for m in UP], state="Rest", rest="Idle"),
            ("True", "Suspended", False, False),
        ),
        (said(UP, trouble=Trouble("NoFeasibleOffer", "m", stalled=True)), ("False", "NoFeasibleOffer", *STALLED)),
        (said(UP, trouble=Trouble("CloudUnavailable", "m", "Unknown")), ("Unknown", "CloudUnavailable", *RECONCILING)),
        (said(UP, trouble=Trouble("AwaitingApproval", "m")), ("False", "AwaitingApproval", *RECONCILING)),
        (said([UP[0], UP[1], member(2, ready="Unknown")]), ("Unknown", "CloudUnavailable", *RECONCILING)),
        (
            said([UP[0], away, UP[2]], views=[view(UP[0]), view(away, reason="Unreachable"), view(UP[2])]),
            ("False", "Unreachable", *RECONCILING),
        ),
        (
            said(
                [UP[0], replace(away, was_up=False)],
                asked(pool(2)),
                views=[view(UP[0]), view(away, reason="Unreachable")],
            ),
            ("False", "Provisioning", *RECONCILING),
        ),
        (said(UP, boot=Boot("Pending", "slurmctld starts")), ("False", "Bootstrapping", *RECONCILING)),
        (said(UP, boot=Boot("Failed", "exit 1")), ("False", "Bootstrapping", *STALLED)),
        (said(UP, boot=Boot("Pending", "m", "a can't reach b")), ("False", "Unreachable", *RECONCILING)),
        (said(UP, asked(pool(3, image="next"))), ("False", "Provisioning", *RECONCILING)),
        (said([replace(UP[0], power="Stopped", at_rest=True), *UP[1:]]), ("False", "Provisioning", *RECONCILING)),
    ],
)
def test_table(found: tuple[str, str, bool, bool], wanted: tuple[str, str, bool, bool]) -> None:
    assert found == wanted


def test_the_status_is_what_the_api_takes_and_repeats_itself() -> None:
    cluster = asked(pool(3), scaled_pool="workers")
    quote = make_quote(lines_of(UP, [decision(1, why="w")]), NOW)
    told = facts(
        cluster,
        UP,
        quote=quote,
        approved=quote.hash,
        rejected=[Rejection("workers", "Memory", 12, "mem/tiny: 1 GiB")],
        cost=make_cost(UP, Books(5), 7, "USD"),
        keep={"suspendedAt": "2026-11-01T00:00:00Z"},
    )
    obj: dict[str, Any] = {"metadata": {"name": "lab", "generation": 4}}
    ready = verdict(cluster, told)
    status = make_status(obj, cluster, told, "2026-11-01T00:00:00Z", ready)
    VirtualClusterStatus.model_validate(status, extra="forbid")
    assert status["approvedQuote"] == quote.hash
    assert status["approvedHourly"] == "0.4"
    assert status["pools"][0] == {
        "name": "workers", "replicas": 3, "readyReplicas": 3, "machines": 3, "updatedMachines": 3,
    }  # fmt: skip
    assert [e["name"] for e in status["endpoints"]] == ["lab-workers-0", "lab-workers-1", "lab-workers-2"]
    assert status["startedAt"] == "2026-11-01T00:00:00Z"
    again = make_status({**obj, "status": status}, cluster, told, "2027-01-01T00:00:00Z", ready)
    assert again["conditions"] == status["conditions"]


def test_stages_at_rest_claim_nothing() -> None:
    told = facts(asked(), UP, state="Rest", rest="Requested")
    status = make_status({"metadata": {"name": "lab"}}, asked(), told, "t", Verdict("True", "Suspended", ""))
    for type_ in (c.SCHEDULED, c.PROVISIONED, c.REACHABLE, c.BOOTSTRAPPED, c.HEALTHY):
        found = c.find_condition(status["conditions"], type_)
        assert found is not None
        assert found["status"] == "Unknown"


def test_cost_tells_the_least_sure_price() -> None:
    unsure = member(3, offer=offer("x", None))
    cost = make_cost([*UP, unsure, new(4)], Books(5), 100, "")
    assert cost["hourly"] == "0.3"
    assert cost["confidence"] == "unknown"
    assert cost["ended"] == "0.000000005"
    assert cost["accrued"] == "0.000000105"
    assert cost["projectedMonth"] == "219"
    assert make_cost([], Books(), 0, "EUR") == {"currency": "EUR", "hourly": "0", "accrued": "0", "projectedMonth": "0"}


def test_what_grows_by_itself_is_told_when_it_grew_by_over_one_percent() -> None:
    old = make_cost(UP, Books(), 1_000_000, "USD")
    assert same_machines(old, make_cost(UP, Books(), 2_000_000, "USD"))
    assert not same_machines(old, make_cost(UP[:2], Books(), 1_000_000, "USD"))
    assert not grown(old, make_cost(UP, Books(), 1_010_000, "USD"))
    assert grown(old, make_cost(UP, Books(), 1_010_001, "USD"))


# -- events


def test_what_is_made_is_told_in_one_event() -> None:
    cluster = asked(pool(6))
    chosen = [decision(5), decision(1, of=offer("big", 500_000_000, zone="z1", purchase="Spot"))]
    made = machines(cluster, plan(cluster, [], NOW), chosen)
    quote = make_quote(lines_of([], chosen), NOW)
    (event,) = say_machines(made, quote, [Rejection("workers", "Memory", 12, "e"), Rejection("workers", "Zone", 0, "")])
    assert event.message == (
        "machines lab-workers-0, lab-workers-1, lab-workers-2 and 2 more on mem/small for 0.1 USD/h each; "
        "machine lab-workers-5 on mem/big spot in z1 for 0.5 USD/h; "
        f"1 USD/h in all, quote {quote.hash[:12]}; offers fell: 12 at Memory"
    )


def test_a_failed_offer_and_the_next_are_told() -> None:
    cluster = asked(pool(1))
    bad = new(0, failed="CapacityUnavailable", message="none")
    made = machines(cluster, plan(cluster, [bad], NOW), [decision(1, of=offer("other"))])
    (event,) = say_next([bad], made)
    assert event.message == ("'lab-workers-0': no capacity at mem/small for 0.1 USD/h, next is mem/other for 0.1 USD/h")


def test_events_of_ready() -> None:
    def kinds(old: tuple[str, str] | None, new: Verdict) -> list[str]:
        before = [{"type": "Ready", "status": old[0], "reason": old[1]}] if old else []
        return [e.type for e in events_of(before, new, "1 USD/h")]

    up = Verdict("True", "AsSpecified", "3 of 3")
    assert kinds(None, Verdict("Unknown", "CloudUnavailable", "")) == []
    assert kinds(("False", "Provisioning"), up) == ["Normal"]
    assert kinds(("True", "AsSpecified"), up) == []
    assert kinds(("True", "AsSpecified"), Verdict("Unknown", "CloudUnavailable", "")) == ["Warning"]
    assert kinds(("True", "AsSpecified"), Verdict("False", "Unreachable", "")) == ["Warning"]
    assert kinds(("False", "Provisioning"), Verdict("False", "BudgetExceeded", "", stalled=True)) == ["Warning"]
    assert kinds(("Unknown", "Pending"), Verdict("False", "Provisioning", "")) == []
