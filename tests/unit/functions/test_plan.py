from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.functions.objects import NOW, asked, function, pod, revision, settled

from cloudmesh.functions.plan import Observed, Plan, Unreachable, plan
from cloudmesh.functions.resources import make_autoscaler, make_deployment, make_openapi, make_service
from cloudmesh.functions.steps import Failed, Waiting

ONE, TWO = revision(1, worked=True), revision(2)


def observed(*revisions: Any, serving: Any = None, replicas: int = 1, **change: Any) -> Observed:
    owner = function()
    if serving is None:
        return Observed(revisions=tuple(revisions), **change)
    return Observed(
        revisions=tuple(revisions),
        deployment=settled(make_deployment(owner, serving, replicas), replicas=replicas),
        service=make_service(owner),
        openapi=make_openapi(owner, serving.data["document"]),
        **change,
    )


def condition(decided: Plan, type_: str) -> dict[str, Any] | None:
    return next((c for c in decided.status["conditions"] if c["type"] == type_), None)


def ready(decided: Plan) -> tuple[str, str]:
    found = condition(decided, "Ready")
    assert found is not None
    return found["status"], found["reason"]


def kinds(decided: Plan) -> list[str]:
    return [o["kind"] for o in decided.apply]


def test_the_first_revision_is_rolled_out_with_all_that_it_needs() -> None:
    decided = plan(function(), asked(), ONE, None, observed(ONE), NOW)
    assert kinds(decided) == ["Service", "Deployment", "ConfigMap"]
    assert ready(decided) == ("False", "RollingOut")
    assert condition(decided, "Reconciling") is not None
    assert decided.status["latestRevision"] == "stats-00001"
    assert "servingRevision" not in decided.status
    assert decided.requeue_after is not None


def test_what_is_as_asked_costs_nothing_and_is_ready() -> None:
    decided = plan(function(), asked(), ONE, None, observed(ONE, serving=ONE), NOW)
    assert decided.apply == ()
    assert not decided.prune
    assert ready(decided) == ("True", "AsSpecified")
    assert condition(decided, "Reconciling") is None
    assert condition(decided, "Stalled") is None
    assert decided.status["servingRevision"] == "stats-00001"
    assert decided.status["url"] == "http://stats.ns.svc/cloudmesh"
    assert decided.requeue_after is None
    again = plan(
        {**function(), "status": decided.status}, asked(), ONE, None, observed(ONE, serving=ONE), "2027-01-01T00:00:00Z"
    )
    assert again.status == decided.status
    assert again.events == ()


def test_a_revision_that_came_up_is_marked_so_once() -> None:
    new = revision(1)
    assert plan(function(), asked(), new, None, observed(new, serving=new), NOW).mark_worked == "stats-00001"
    assert plan(function(), asked(), ONE, None, observed(ONE, serving=ONE), NOW).mark_worked == ""
    idle = plan(function(), asked(replicas=0), new, None, observed(new, serving=new, replicas=0), NOW)
    assert idle.mark_worked == ""
    assert ready(idle) == ("True", "AsSpecified")


def test_while_the_new_one_is_built_the_old_one_serves() -> None:
    decided = plan(function(), asked(), None, Waiting("Assemble", 0.1), observed(ONE, serving=ONE), NOW)
    assert decided.apply == ()
    assert ready(decided) == ("Unknown", "Pending")
    assert condition(decided, "Available")["status"] == "True"  # type: ignore[index]
    assert decided.requeue_after == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("kind", "failed_type", "reason"),
    [
        ("SourceInvalid", "SourceValid", "SourceInvalid"),
        ("DependenciesUnsatisfiable", "DependenciesLocked", "DependenciesUnsatisfiable"),
        ("BuildFailed", "ImageBuilt", "BuildFailed"),
    ],
)
def test_wrong_input_stalls_and_tears_nothing_down(kind: str, failed_type: str, reason: str) -> None:
    line = Failed(kind, "line 3, column 5: expected ':'", 3, 5)
    decided = plan(function(), asked(), None, line, observed(ONE, serving=ONE), NOW)
    assert decided.apply == ()
    assert ready(decided) == ("False", reason)
    found = condition(decided, failed_type)
    assert found is not None
    assert found["status"] == "False"
    assert found["message"].startswith("line 3, column 5:")
    assert condition(decided, "Stalled") is not None
    assert condition(decided, "Available")["status"] == "True"  # type: ignore[index]
    assert decided.status["build"]["error"] == {"line": 3, "column": 5, "message": "line 3, column 5: expected ':'"}
    assert decided.status["servingRevision"] == "stats-00001" or "servingRevision" not in decided.status
    assert [e.type for e in decided.events] == ["Warning"]


def test_a_builder_that_does_not_answer_is_unknown_not_wrong() -> None:
    line = Unreachable("BuilderUnavailable", "refused")
    decided = plan(function(), asked(), None, line, observed(ONE, serving=ONE), NOW)
    assert ready(decided) == ("Unknown", "BuilderUnavailable")
    assert condition(decided, "Stalled") is None
    assert decided.apply == ()


def test_a_revision_that_crashes_is_left_for_the_last_that_worked() -> None:
    crash = {"reason": "CrashLoopBackOff"}
    dead = {"exitCode": 1, "message": "ModuleNotFoundError: No module named 'nope'"}
    there = observed(ONE, TWO, serving=TWO, pods=(pod("p", "stats-00002", waiting=crash, terminated=dead, restarts=2),))
    assert there.deployment is not None
    there.deployment["status"].update(updatedReplicas=1, replicas=2, availableReplicas=1)
    first = plan(function(), asked(), TWO, None, there, NOW)
    assert first.mark_failed is not None
    assert first.mark_failed[0] == "stats-00002"
    assert "No module named 'nope'" in first.mark_failed[1]
    failed = replace(TWO, failed=first.mark_failed[1])
    second = plan(function(), asked(), failed, None, replace(there, revisions=(ONE, failed)), NOW)
    deployment = next(o for o in second.apply if o["kind"] == "Deployment")
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "i1"
    assert ready(second) == ("False", "RolloutFailed")
    third = plan(function(), asked(), failed, None, observed(ONE, failed, serving=ONE), NOW)
    assert third.apply == ()
    assert ready(third) == ("False", "RolloutFailed")
    assert condition(third, "Stalled") is not None
    assert condition(third, "Available")["status"] == "True"  # type: ignore[index]
    assert third.status["servingRevision"] == "stats-00001"
    assert third.status["latestRevision"] == "stats-00002"


def test_a_revision_that_worked_is_not_condemned_by_a_later_crash() -> None:
    crash, dead = {"reason": "CrashLoopBackOff"}, {"exitCode": 1, "message": "db is away"}
    there = observed(ONE, serving=ONE, pods=(pod("p", "stats-00001", waiting=crash, terminated=dead, restarts=9),))
    assert there.deployment is not None
    there.deployment["status"].update(availableReplicas=0)
    decided = plan(function(), asked(), ONE, None, there, NOW)
    assert decided.mark_failed is None
    assert decided.apply == ()
    assert ready(decided)[0] == "False"


@pytest.mark.parametrize("text", ["manifest unknown", 'failed to resolve "x": not found'])
def test_a_lost_image_is_built_again_and_condemns_nothing(text: str) -> None:
    new = revision(2)
    waiting = {"reason": "ImagePullBackOff", "message": text}
    there = observed(ONE, new, serving=new, pods=(pod("p", "stats-00002", waiting=waiting),))
    assert there.deployment is not None
    there.deployment["status"].update(availableReplicas=0)
    decided = plan(function(), asked(), new, None, there, NOW)
    assert decided.repair == "stats-00002"
    assert decided.mark_failed is None
    assert ready(decided) == ("False", "RollingOut")


@pytest.mark.parametrize(("started", "failed"), [("2025-12-31T23:58:00Z", True), ("2025-12-31T23:58:01Z", False)])
def test_a_revision_that_runs_without_getting_ready_fails(started: str, failed: bool) -> None:
    waiting = pod("slow", "stats-00002")
    waiting["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": started}}
    there = observed(ONE, TWO, serving=TWO, pods=(waiting,))
    assert there.deployment is not None
    there.deployment["status"].update(replicas=2)
    decided = plan(function(), asked(), TWO, None, there, NOW)
    assert (decided.mark_failed is not None) is failed
    if decided.mark_failed is not None:
        assert "120 s" in decided.mark_failed[1]
        assert "slow" in decided.mark_failed[1]


LATE = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
QUOTA = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}


def test_what_keeps_a_pod_from_starting_fails_nothing_and_is_told() -> None:
    nowhere = pod("p", "stats-00002")
    nowhere["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": "no room"}]}
    just_placed = pod("p", "stats-00002")
    just_placed["status"] = {"conditions": [{"type": "PodScheduled", "status": "True"}]}
    for pods, conditions, says in (
        ((nowhere,), [LATE], "no room"),
        ((just_placed,), [LATE], "of 1 replica"),
        ((), [LATE, QUOTA], "exceeded quota: q"),
    ):
        there = observed(ONE, TWO, serving=TWO, pods=pods)
        assert there.deployment is not None
        there.deployment["status"].update(replicas=2, conditions=conditions)
        decided = plan(function(), asked(), TWO, None, there, NOW)
        assert decided.mark_failed is None
        assert ready(decided) == ("False", "RollingOut")
        assert says in condition(decided, "Ready")["message"]  # type: ignore[index]


def test_what_the_api_server_refuses_is_told() -> None:
    decided = plan(function(), asked(), ONE, None, Observed(revisions=(ONE,), refused="refuses: no"), NOW)
    assert ready(decided) == ("False", "RolloutFailed")
    assert condition(decided, "Stalled") is not None


def test_a_pin_serves_an_old_revision_and_an_unknown_one_changes_nothing() -> None:
    new = replace(TWO, worked=True)
    back = plan(function(), asked(pin="stats-00001"), new, None, observed(ONE, new, serving=new), NOW)
    assert [
        o["metadata"]["annotations"]["cloudmesh.org/revision"] for o in back.apply if o["kind"] == "Deployment"
    ] == ["stats-00001"]
    wrong = plan(function(), asked(pin="stats-00009"), new, None, observed(ONE, new, serving=new), NOW)
    assert wrong.apply == ()
    assert ready(wrong) == ("False", "RolloutFailed")
    message = condition(wrong, "Ready")["message"]  # type: ignore[index]
    assert "stats-00009" in message
    assert "'stats-00001', 'stats-00002'" in message


def test_a_pinned_function_stays_ready_while_its_spec_is_not_built() -> None:
    decided = plan(function(), asked(pin="stats-00001"), None, None, observed(ONE, serving=ONE), NOW)
    assert ready(decided) == ("True", "AsSpecified")
    assert condition(decided, "SourceValid")["reason"] == "Pinned"  # type: ignore[index]


def test_the_autoscaler_comes_and_goes_and_owns_the_replicas() -> None:
    on = plan(function(), asked(autoscaling=(5, 70)), ONE, None, observed(ONE), NOW)
    assert kinds(on) == ["Service", "Deployment", "ConfigMap", "HorizontalPodAutoscaler"]
    assert "replicas" not in on.apply[1]["spec"]
    scaler = make_autoscaler(function(), 1, 5, 70)
    off = plan(function(), asked(), ONE, None, observed(ONE, serving=ONE, autoscaler=scaler), NOW)
    assert off.delete_autoscaler
    assert not plan(function(), asked(), ONE, None, observed(ONE, serving=ONE), NOW).delete_autoscaler


def test_a_stranger_with_our_name_stalls() -> None:
    decided = plan(function(), asked(), ONE, None, Observed(revisions=(ONE,), conflict="Service 'stats' exists"), NOW)
    assert ready(decided) == ("False", "NameConflict")
    assert decided.apply == ()


def test_history_is_pruned_but_never_what_serves_or_is_wanted() -> None:
    many = tuple(revision(n, worked=True) for n in range(1, 8))
    decided = plan(function(), asked(history_limit=2), many[6], None, observed(*many, serving=many[0]), NOW)
    assert decided.prune == ("stats-00002", "stats-00003", "stats-00004")


def test_a_change_by_hand_is_put_right() -> None:
    there = observed(ONE, serving=ONE)
    assert there.deployment is not None
    there.deployment["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    assert kinds(plan(function(), asked(), ONE, None, there, NOW)) == ["Deployment"]


def test_a_transition_time_moves_only_with_the_status() -> None:
    first = plan(function(), asked(), None, Waiting("Parse", 0.1), observed(), NOW)
    later = plan(
        {**function(), "status": first.status}, asked(), ONE, None, observed(ONE, serving=ONE), "2026-01-01T00:01:00Z"
    )
    times = {c["type"]: c["lastTransitionTime"] for c in later.status["conditions"]}
    assert times["Ready"] == "2026-01-01T00:01:00Z"
