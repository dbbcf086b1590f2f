"""What CloudAccounts tell of their cloud and of what stands in their way."""

from __future__ import annotations

import asyncio
import base64
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.api.cloudaccount import CloudAccount
from cloudmesh.compute.kinds import CLOUD_ACCOUNT
from cloudmesh.compute.providers import registry
from cloudmesh.engine import SECRET
from cloudmesh.testing import Faults, FaultyTransport, run_virtual

KEY = "s3cret-key-of-the-memory-cloud"


def put_secret(s: Scene, name: str) -> None:
    body: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "ns"},
        "type": "cloudmesh.org/credentials",
        "data": {"key": base64.b64encode(KEY.encode()).decode()},
    }
    s.api.put(SECRET, body)


def ready(s: Scene) -> tuple[str, str]:
    return s.condition("Ready", "lab", CLOUD_ACCOUNT)


@scene
async def test_what_a_cloud_lacks_is_told(s: Scene) -> None:
    s.use(lacks={"Spot": "it is one house", "PartialListings": "it shows all or nothing"})
    s.add_account()
    async with s.operator():
        await s.until(lambda: ready(s) == ("True", "Checked"))
        await s.settle()
        account = s.get(CLOUD_ACCOUNT, "lab")
        assert account["status"]["lacks"] == [
            {"name": "PartialListings", "message": "it shows all or nothing"},
            {"name": "Spot", "message": "it is one house"},
        ]
        CloudAccount.model_validate(account, extra="forbid")


def test_a_plug_in_that_can_not_be_loaded_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "cloudmesh.no_such_module:make", registry.GROUP)
    monkeypatch.setattr(registry, "_entry_points", lambda: (broken,))

    async def main() -> None:
        s = Scene()
        monkeypatch.setattr(s, "maker", lambda crash: registry.find_maker)
        s._put(CLOUD_ACCOUNT, "lab", {"plugin": {"name": "broken"}})
        async with s.operator() as (engine, _):
            await s.until(lambda: ready(s) == ("False", "Unsupported"))
            assert "can't be loaded: No module named 'cloudmesh.no_such_module'" in s.told()
            assert b'cloudmesh_provider_load_failures_total{provider="broken"} 1.0' in engine.metrics.text()

    run_virtual(main())


@scene
async def test_a_secret_that_can_not_be_kept_is_told(s: Scene) -> None:
    faults = Faults()
    s.cloud.key = KEY
    put_secret(s, "login")
    put_secret(s, "another")
    s.add_account(credentials={"secretRef": {"name": "login"}})
    s.add_machine()
    async with s.operator(transport=FaultyTransport(s.api, faults)):
        await s.until(s.is_ready)
        faults.add("answer", method="PATCH", path="/secrets/another", status=403, times=None)
        s.change(CLOUD_ACCOUNT, "lab", lambda obj: obj["spec"].update(credentials={"secretRef": {"name": "another"}}))
        await s.until(lambda: any(reason == "AuthFailed" for reason, _ in s.events()), 60.0)
        (told,) = [note for reason, note in s.events() if reason == "AuthFailed"]
        assert told.startswith("goes on trying: patch /api/v1/namespaces/ns/secrets/another: 403")
        faults.clear()
        await s.until(lambda: bool(s.get(SECRET, "another")["metadata"].get("finalizers")), 120.0)


@pytest.mark.parametrize(("method", "path"), [("PATCH", "/secrets/login"), ("POST", "/secrets")])
def test_a_right_that_the_operator_lacks_is_not_held_against_the_account(method: str, path: str) -> None:
    async def main() -> None:
        faults = Faults()
        s = Scene(ssh=True)
        s.cloud.key = KEY
        put_secret(s, "login")
        s.add_account(credentials={"secretRef": {"name": "login"}})
        faults.add("answer", method=method, path=path, status=403, times=None)
        async with s.operator(transport=FaultyTransport(s.api, faults)):
            await s.until(lambda: ready(s) == ("True", "Checked"))
            s.add_machine()
            await asyncio.sleep(90.0)
            assert not s.living()
            assert ready(s)[0] == "True"
            assert "the operator lacks a right" in " ".join(note for _, note in s.events())
            faults.clear()
            await s.until(lambda: len(s.living()) == 1, 120.0)

    run_virtual(main())
