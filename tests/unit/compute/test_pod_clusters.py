"""Clusters on Pods when something is in the way: names, quotas, disks, strangers; each hits nobody but itself."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.compute.pod_scene import POD, SERVICE, PodScene, pod_scene

from cloudmesh.engine import CONFIG_MAP, SECRET, Resource

NAME_SECONDS = 20.0
"""Within so long a name that became free is taken."""


@pod_scene
async def test_a_cluster_on_pods_works(s: PodScene) -> None:
    s.cluster(replicas=2)
    async with s.operator():
        await s.until(lambda: s.said() == ("True", "AsSpecified"))
        assert s.types() == {"small"}
        await s.settle()


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resource", "name"),
    [(SERVICE, "lab-vc"), (POD, "lab-workers-0"), (SECRET, "lab-vc-ssh")],
    ids=["Service", "Pod", "Secret"],
)
def test_a_foreign_object_of_its_name_is_told_and_waited_for(resource: Resource, name: str) -> None:
    @pod_scene
    async def story(s: PodScene) -> None:
        s.foreign(resource, name)
        s.cluster()
        async with s.operator():
            await s.until(lambda: s.said() == ("False", "NameConflict"))
            s.cluster("other")
            await s.until(lambda: s.said(name="other") == ("True", "AsSpecified"))
            for _minute in range(20):  # longer than a machine may take to start
                await asyncio.sleep(60.0)
                assert s.said() == ("False", "NameConflict")
                assert s.said("Stalled") == ("True", "NameConflict")
            assert f"{resource.kind} '{name}' exists" in s.message()
            assert s.types() == {"small"}
            assert s.failures() == []
            assert len(s.told("NameConflict")) <= 2
            await s.settle()
            s.remove(resource, name)
            await s.until(lambda: s.said() == ("True", "AsSpecified"), NAME_SECONDS + 10.0)
            assert s.types() == {"small"}
            assert set(s.names()) == {"lab-workers-0", "other-workers-0"}
            await s.settle()

    story()


@pod_scene
async def test_a_foreign_inventory_is_told_and_waited_for(s: PodScene) -> None:
    s.foreign(CONFIG_MAP, "lab-vc-inventory")
    s.cluster(access={"outputs": ["InventoryConfigMap", "SSHConfigSecret"]})
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NameConflict"))
        await asyncio.sleep(300.0)
        assert s.said() == ("False", "NameConflict")
        assert "ConfigMap 'lab-vc-inventory' exists" in s.message()
        s.remove(CONFIG_MAP, "lab-vc-inventory")
        await s.until(lambda: s.said() == ("True", "AsSpecified"), NAME_SECONDS)
        assert "hosts" in s.data(CONFIG_MAP, "lab-vc-inventory")
        await s.settle()


@pod_scene
async def test_a_cluster_in_conflict_can_be_deleted(s: PodScene) -> None:
    from cloudmesh.compute.kinds import VIRTUAL_CLUSTER

    s.foreign(POD, "lab-workers-0")
    s.cluster()
    async with s.operator():
        await s.until(lambda: s.said() == ("False", "NameConflict"))
        await s.delete(VIRTUAL_CLUSTER, "lab")
        await s.until(lambda: not s.is_there(VIRTUAL_CLUSTER, "lab"), 60.0)
        assert s.api.get(POD, "ns", "lab-workers-0") is not None
        assert s.names() == []
