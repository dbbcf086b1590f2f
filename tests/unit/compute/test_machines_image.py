"""Drift of the image where none is named: the default that a machine was made with is known."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.compute import cluster_scene
from tests.unit.compute.machine_scene import FULL, Scene, scene

from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.compute.providers.kubernetes.core import PodCore
from cloudmesh.compute.providers.memory import MemoryProvider


def prefer(s: Any, image: str) -> None:
    """Makes another image the cloud's default."""
    rest = {name: arch for name, arch in s.cloud.images.items() if name != image}
    s.cloud.images = {image: "amd64", **rest}


@cluster_scene.scene
async def test_another_default_is_told_as_drift_and_replaces_nothing(s: cluster_scene.Scene) -> None:
    s.cluster(replicas=1)
    async with s.operator():
        await s.settle()
        assert s.machines()[0]["status"]["image"] == "debian-12"
        assert s.said("Healthy") == ("True", "AsSpecified")
    prefer(s, "ubuntu-24.04")
    async with s.operator():  # as a release of the operator brings it
        await s.until(lambda: s.said("Healthy") == ("True", "Drifted"), 120.0)
        drift = [{"field": "image", "expected": "ubuntu-24.04", "found": "debian-12"}]
        assert s.machines()[0]["status"]["drift"] == drift
        assert "image is 'debian-12', not 'ubuntu-24.04'" in s.told("Drift")
        await s.settle()
        assert [i.image for i in s.living()] == ["debian-12"] and s.names() == ["lab-workers-0"]
        # one that is made from now on has the new one, and drifts no more
        await s.delete(VIRTUAL_MACHINE, "lab-workers-0")
        await s.until(lambda: s.said("Healthy") == ("True", "AsSpecified") and len(s.living()) == 1)
        assert [i.image for i in s.living()] == ["ubuntu-24.04"]


@scene
async def test_a_named_image_doesnt_follow_the_default(s: Scene) -> None:
    s.add_account()
    s.add_machine(image={"name": "debian-12"})
    async with s.operator():
        await s.until(s.is_ready)
        assert s.status()["image"] == "debian-12"
        prefer(s, "ubuntu-24.04")
        await s.settle()
        assert "drift" not in s.status()


@scene
async def test_without_a_default_the_image_that_was_seen_first_counts(s: Scene) -> None:
    plain = type("Plain", (FULL,), {"default_image": ""})
    s.maker = lambda crash: lambda kind: lambda context: plain(context.name, s.cloud, key="", info=s.info)  # type: ignore[method-assign]
    s.add_account()
    s.add_machine()
    async with s.operator():
        await s.until(s.is_ready)
        assert s.status()["image"] == "debian-12"
        s.cloud.change(s.living()[0].id, image="ubuntu-24.04")
        await s.until(lambda: "drift" in s.status(), 120.0)
        assert s.status()["drift"] == [{"field": "image", "expected": "debian-12", "found": "ubuntu-24.04"}]


@pytest.mark.parametrize("kind", [MemoryProvider, PodCore])
def test_providers_with_a_default_tell_it(kind: type) -> None:
    assert isinstance(kind.default_image, property)  # type: ignore[attr-defined]
