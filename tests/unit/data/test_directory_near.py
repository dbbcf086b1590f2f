"""Files near a VirtualCluster: its regions go to the gateway, and follow it."""

from __future__ import annotations

from typing import Any

from tests.unit.data.directory_scene import Scene, scene

from cloudmesh.data.kinds import VIRTUAL_CLUSTER


def cluster(s: Scene, *regions: str) -> None:
    decisions: list[dict[str, Any]] = [{"pool": "workers", "region": region} for region in regions]
    meta = {"name": "lab", "namespace": "ns"}
    s.api.put(
        VIRTUAL_CLUSTER,
        {
            "apiVersion": "cloudmesh.org/v1alpha1", "kind": "VirtualCluster", "metadata": meta, "spec": {},
            "status": {"placement": {"decisions": [*decisions, {"pool": "pods"}]}},
        },
    )  # fmt: skip


@scene
async def test_the_regions_of_a_cluster_are_followed(s: Scene) -> None:
    s.watched = (VIRTUAL_CLUSTER,)
    s.secret()
    s.store()
    near = {"clusterRef": {"name": "lab"}}
    s.directory(placement={"rules": [{"name": "default", "copies": 1, "prefer": "Nearest", "near": near}]})
    async with s.operator():
        await s.settle()
        assert s.config().rules[0].near == ()
        cluster(s, "us-west-2", "us-east-1", "us-west-2")
        await s.settle(30)
        assert s.config().rules[0].near == ("us-east-1", "us-west-2")
        cluster(s, "eu-west-1")
        await s.settle(30)
        assert s.config().rules[0].near == ("eu-west-1",)
        s.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
        await s.settle(30)
        assert s.config().rules[0].near == ()
