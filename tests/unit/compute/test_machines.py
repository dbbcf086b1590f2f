"""Whole lives of machines on the memory cloud."""

from __future__ import annotations

from tests.unit.compute.machine_scene import Scene, scene

from cloudmesh.compute.kinds import CLOUD_ACCOUNT, VIRTUAL_MACHINE
from cloudmesh.compute.tokens import TAG_UID


@scene
async def test_a_machine_is_made_and_ready(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        assert s.condition() == ("True", "AsSpecified")
        assert s.condition("Ready", "lab", CLOUD_ACCOUNT) == ("True", "Checked")
        status = s.status()
        (machine,) = s.living()
        assert machine.id == status["providerID"]
        assert machine.client_token == status["createToken"]
        assert machine.tags[TAG_UID] == s.get(VIRTUAL_MACHINE, "m")["metadata"]["uid"]
        assert status["sshHost"] == machine.private_address
        assert status["startedAt"]
        assert status["hourlyPrice"]["currency"] == "USD"
        before = s.writes()
        await s.settle(quiet=120.0)
        assert s.writes() == before


@scene
async def test_a_deleted_machine_ends_before_its_object(s: Scene) -> None:
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.settle()
        await s.delete(VIRTUAL_MACHINE, "m")
        await s.settle()
        assert not s.is_there(VIRTUAL_MACHINE, "m")
        assert s.living() == []
