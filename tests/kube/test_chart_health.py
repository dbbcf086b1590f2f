"""Argo CD's health check of our kinds, run by the Lua interpreter that Argo CD uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.testbed.kubectl import TestCluster

pytestmark = [pytest.mark.kube]
SCRIPT = Path(__file__).resolve().parents[2] / "charts/cloudmesh/files/argocd/health.lua"


def condition(type_: str, status: str, reason: str = "Why", message: str = "") -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def obj(*conditions: dict[str, Any], observed: int | None = 2, **metadata: Any) -> dict[str, Any]:
    status: dict[str, Any] = {"conditions": list(conditions)}
    if observed is not None:
        status["observedGeneration"] = observed
    return {"metadata": {"name": "a", "generation": 2, **metadata}, "status": status}


READY = condition("Ready", "True", "AsSpecified", "2 of 2 Pods are ready")
NOT_READY = condition("Ready", "False", "RollingOut", "1 of 2 Pods is ready")
CASES: dict[str, tuple[dict[str, Any], str, str]] = {
    "no status": ({"metadata": {"name": "a", "generation": 1}}, "Progressing", "Waiting for the operator"),
    "empty status": ({"metadata": {"name": "a"}, "status": {}}, "Progressing", "Waiting for the operator"),
    "no conditions": (obj(), "Progressing", "Waiting for the operator"),
    "ready": (obj(READY), "Healthy", "2 of 2 Pods are ready"),
    "ready without message": (obj(condition("Ready", "True", "AsSpecified")), "Healthy", "AsSpecified"),
    "stale": (obj(READY, observed=1), "Progressing", "Waiting for the operator to see the newest spec"),
    "stale and stalled": (obj(NOT_READY, condition("Stalled", "True"), observed=1), "Progressing", "newest spec"),
    "never observed": (obj(READY, observed=None), "Progressing", "newest spec"),
    "unknown": (obj(condition("Ready", "Unknown", "BuilderUnavailable", "No answer")), "Progressing", "No answer"),
    "pending": (obj(condition("Ready", "Unknown", "Pending")), "Progressing", "Pending"),
    "reconciling": (
        obj(NOT_READY, condition("Reconciling", "True", "RollingOut", "Rolling out")),
        "Progressing",
        "Rolling out",
    ),
    "changed while ready": (
        obj(READY, condition("Reconciling", "True", "Building", "Building")),
        "Progressing",
        "Building",
    ),
    "not ready": (obj(NOT_READY), "Progressing", "1 of 2 Pods is ready"),
    "stalled": (
        obj(NOT_READY, condition("Stalled", "True", "SourceInvalid", "line 3, column 1: no")),
        "Degraded",
        "line 3, column 1: no",
    ),
    "no longer stalled": (obj(READY, condition("Stalled", "False")), "Healthy", ""),
    "suspended": (
        obj(condition("Ready", "True", "Suspended", "Suspended as asked")),
        "Suspended",
        "Suspended as asked",
    ),
    "awaiting approval": (
        obj(
            condition("Ready", "False", "AwaitingApproval", "3.20 USD an hour"),
            condition("Reconciling", "True", "Waiting"),
        ),
        "Suspended",
        "3.20 USD an hour",
    ),
    "paused": (obj(NOT_READY, condition("Paused", "True", "Paused", "By annotation")), "Suspended", "By annotation"),
    "paused before it was seen": (
        {"metadata": {"name": "a", "generation": 1, "annotations": {"cloudmesh.org/paused": "true"}}},
        "Suspended",
        "Paused",
    ),
    "paused and stale": (obj(READY, condition("Paused", "True"), observed=1), "Suspended", ""),
    "not paused": (obj(READY, annotations={"cloudmesh.org/paused": "false"}), "Healthy", ""),
    "deleting": (obj(READY, deletionTimestamp="2026-01-01T00:00:00Z"), "Progressing", "Being deleted"),
    "deleting though stalled": (
        obj(NOT_READY, condition("Stalled", "True"), deletionTimestamp="2026-01-01T00:00:00Z"),
        "Progressing",
        "Being deleted",
    ),
}

MESSAGES = {
    "BudgetExceeded": "budget physics: 500.10 of 500 USD are spent",
    "LifetimeExceeded": "1209600 seconds are over",
    "NoFeasibleOffer": "pool workers: no offer has 4 GPUs",
}
CASES |= {
    f"cluster: {reason}": (
        obj(condition("Ready", "False", reason, message), condition("Stalled", "True", reason, message)),
        "Degraded",
        message,
    )
    for reason, message in MESSAGES.items()
}
CASES |= {
    "cluster: no capacity at the moment": (
        obj(
            condition("Ready", "False", "CapacityUnavailable", "m5.large in us-east-1a"),
            condition("Reconciling", "True", "CapacityUnavailable", "m5.large in us-east-1a"),
        ),
        "Progressing",
        "m5.large in us-east-1a",
    ),
    "cluster: a cloud is silent": (
        obj(condition("Ready", "Unknown", "CloudUnavailable", "account aws doesn't answer")),
        "Progressing",
        "account aws doesn't answer",
    ),
    "cluster: quote waits": (
        obj(
            condition("Ready", "False", "AwaitingApproval", "quote 0a1b: 3.20 USD an hour"),
            condition("Scheduled", "True"),
            condition("Reconciling", "True", "AwaitingApproval", "quote 0a1b"),
        ),
        "Suspended",
        "3.20 USD an hour",
    ),
    "cluster: idle": (
        obj(condition("Ready", "True", "Suspended", "idle for an hour"), condition("Healthy", "Unknown")),
        "Suspended",
        "idle for an hour",
    ),
    "account: credentials refused": (
        obj(
            condition("Ready", "False", "AuthFailed", "the key is refused"),
            condition("Stalled", "True", "AuthFailed", "the key is refused"),
        ),
        "Degraded",
        "the key is refused",
    ),
    "job: goes on": (
        obj(
            condition("Ready", "False", "Running", "3 of 4 runs are done"),
            condition("Reconciling", "True", "Running", "3 of 4 runs are done"),
        ),
        "Progressing",
        "3 of 4 runs are done",
    ),
    "job: done": (obj(condition("Ready", "True", "AsSpecified", "4 runs are done")), "Healthy", "4 runs are done"),
    "job: failed": (
        obj(
            condition("Ready", "False", "RunsFailed", "1 of 4 runs failed"),
            condition("Stalled", "True", "RunsFailed", "1 of 4 runs failed"),
        ),
        "Degraded",
        "1 of 4 runs failed",
    ),
    "directory: a store doesn't answer": (
        obj(
            condition("Ready", "Unknown", "StoreUnavailable", "aws is Gone"),
            condition("Reconciling", "True", "StoreUnavailable", "aws is Gone"),
            condition("StoresReady", "Unknown", "StoreUnavailable", "aws is Gone"),
        ),
        "Progressing",
        "aws is Gone",
    ),
    "directory: another one's prefix": (
        obj(
            condition("Ready", "False", "StoreClaimed", "use another `prefix`"),
            condition("Stalled", "True", "StoreClaimed", "use another `prefix`"),
        ),
        "Degraded",
        "use another `prefix`",
    ),
    "directory: copies are on their way": (
        obj(condition("Ready", "True", "AsSpecified", "served"), condition("Placed", "False", "Placing")),
        "Healthy",
        "served",
    ),
    "budget: spent but watched": (
        obj(condition("Ready", "True", "AsSpecified", "500 of 500 USD"), condition("WithinBudget", "False")),
        "Healthy",
        "500 of 500 USD",
    ),
}


def to_lua(value: Any) -> str:
    """The value as Lua's text, the way Argo CD hands objects over."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"[{to_lua(k)}] = {to_lua(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "{" + ", ".join(map(to_lua, value)) + "}"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    return str(value)


@pytest.fixture(scope="module")
def answers(cluster: TestCluster, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Status and message of each case, from one run."""
    script = SCRIPT.read_text()
    lines = [f"local function check()\n{script}\nend"]
    for name, (body, _, _) in CASES.items():
        lines.append(f"obj = {to_lua(body)}\nlocal h = check()")
        lines.append(f'print({to_lua(name)} .. "\\t" .. h.status .. "\\t" .. h.message)')
    program = tmp_path_factory.mktemp("lua") / "cases.lua"
    program.write_text("\n".join(f"do\n{line}\nend" if line.startswith("obj") else line for line in _paired(lines)))
    shown = cluster.run("glua", str(program))
    rows = [line.split("\t") for line in shown.splitlines()]
    return {name: (status, message) for name, status, message in rows}


def _paired(lines: list[str]) -> list[str]:
    """Each case's two statements as one block."""
    return [lines[0], *(f"{a}\n{b}" for a, b in zip(lines[1::2], lines[2::2], strict=True))]


@pytest.mark.parametrize(("name", "case"), CASES.items(), ids=CASES)
def test_health(answers: dict[str, tuple[str, str]], name: str, case: tuple[dict[str, Any], str, str]) -> None:
    _, status, message = case
    got_status, got_message = answers[name]
    assert got_status == status
    assert message in got_message
    assert got_message
