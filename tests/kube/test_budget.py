"""The status of a Budget on a real API server: its schema takes it, and only over what was read."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.testbed.kubectl import TestCluster

from cloudmesh.compute import budget_controller
from cloudmesh.compute.budget_controller import BudgetReconciler
from cloudmesh.compute.budgets import Budgets
from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.compute.prices.moments import to_seconds, to_time
from cloudmesh.engine import Conflict, Engine, Obj, Resource, connect, key_of, utc_now

pytestmark = pytest.mark.kube

GROUP = f"t{secrets.token_hex(3)}.budget.cloudmesh.org"
TRIAL = Resource(f"{GROUP}/v1alpha1", "Budget", "budgets")
CRD = Path(__file__).resolve().parents[2] / "crds/budgets.cloudmesh.org.yaml"


@pytest.fixture(scope="module")
def served(cluster: TestCluster) -> Iterator[None]:
    """The definition in another group, so that no operator takes its objects for its own."""
    made: dict[str, Any] = yaml.safe_load(CRD.read_text())
    made["metadata"]["name"] = f"budgets.{GROUP}"
    made["spec"]["group"] = GROUP
    made["spec"]["names"] = {"kind": "Budget", "listKind": "BudgetList", "plural": "budgets", "singular": "budget"}
    cluster.apply(made)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/budgets.{GROUP}", "--timeout=30s")
    yield
    cluster.kubectl("delete", "crd", f"budgets.{GROUP}", "--wait=false")


async def test_the_status_is_taken_and_only_over_what_was_read(
    cluster: TestCluster, served: None, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_controller, "BUDGET", TRIAL)
    kube = await connect(str(cluster.kubeconfig))
    try:
        engine = Engine(kube)
        engine.cache.watch(VIRTUAL_MACHINE)
        now = to_seconds(utc_now())
        monkeypatch.setattr(kube, "get", _get(now))
        spec = {"amount": "10", "currency": "USD", "alertsAtPercent": [1, 50]}
        made = await kube.create(TRIAL, {"metadata": {"name": "money", "namespace": namespace}, "spec": spec})
        old_month = {"booked": {"month": "2026-01", "spent": "0.000000001", "machines": 1, "uids": ["gone:1"]}}
        obj = await kube.patch(TRIAL, namespace, "money", {"status": old_month}, subresource="status")
        engine.cache.put(VIRTUAL_MACHINE, _machine(namespace, now))
        reconciler = BudgetReconciler(engine, Budgets(engine))
        await reconciler.reconcile(key_of(TRIAL, obj), obj)
        items, _ = await kube.list(TRIAL, namespace)
        status = items[0]["status"]
        assert status["booked"]["machines"] == 1 and len(status["booked"]["uids"]) == 1
        assert status["booked"]["spent"] == status["spent"] == "0.5"
        assert status["alertedAtPercent"] == [1]
        assert status["history"][0] == {"month": "2026-01", "spent": "0.000000001"}
        assert {c["type"]: c["status"] for c in status["conditions"]} == {"Ready": "True", "WithinBudget": "True"}
        # what was read is old now, and so is what would be booked by it
        with pytest.raises(Conflict):
            await BudgetReconciler(Engine(kube), Budgets(engine)).reconcile(key_of(TRIAL, made), made)
        # what the newest object says already is written no second time
        version = items[0]["metadata"]["resourceVersion"]
        await reconciler.reconcile(key_of(TRIAL, made), items[0])
        assert (await kube.list(TRIAL, namespace))[0][0]["metadata"]["resourceVersion"] == version
    finally:
        await kube.close()


def _machine(namespace: str, now: int) -> Obj:
    price = {"amount": "1", "currency": "USD"}
    begin = max(now - 1800, to_seconds(to_time(now)[:8] + "01T00:00:00Z"))
    return {
        "metadata": {"name": "w", "namespace": namespace, "uid": "uid-of-w", "resourceVersion": "1"},
        "spec": {"accountRef": {"name": "cloud"}, "offer": {"type": "t"}},
        "status": {"hourlyPrice": price, "startedAt": to_time(begin), "endedAt": to_time(begin + 1800)},
    }


def _get(now: int) -> Any:
    async def get(resource: Resource, namespace: str, name: str) -> Obj:
        assert resource == VIRTUAL_MACHINE
        return _machine(namespace, now)

    return get
