"""What a ClusterJob says of itself: what it waits for, why a run ended so, what it left."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.compute.job_scene import Scene
from tests.unit.compute.test_jobs import BOTH, scenario

from cloudmesh.compute.jobs.batch import Row, _judge
from cloudmesh.compute.jobs.runs import Seen
from cloudmesh.compute.kinds import CLUSTER_JOB, VIRTUAL_CLUSTER


def test_what_is_waited_for_is_told() -> None:
    async def body() -> None:
        scene = Scene(1, slurm=True)
        scene.controllers.name = ""
        scene.apply()
        scene.apply("lost", clusterRef={"name": "nowhere"})
        scene.apply("unfit", clusterRef={"name": "lab"}, slurm={"partition": "gpu"})
        async with scene.operator():
            await asyncio.sleep(10)
            assert "SLURM of VirtualCluster 'lab' isn't up" in scene.condition()["message"]
            assert "VirtualCluster 'nowhere' isn't there" in scene.condition(name="lost")["message"]
            assert scene.condition(name="lost")["reason"] == "WaitingForCluster"
            scene.machine_status("lab-w-0", ready="False", reason="Suspended")
            scene.controllers.name = "lab-w-0"
            status = await scene.ended()
            assert status["counts"]["done"] == 1

    scenario(body)


def test_what_slurm_says_of_memory_is_believed() -> None:
    ended = Seen("Ended", "a", exit_code=137)
    assert _judge([ended], Row(4, "OUT_OF_MEMORY", "a", "OutOfMemory"), "a") == replace(ended, slurm_id=4, oom=True)
    assert _judge([ended], Row(4, "FAILED", "a", "NonZeroExitCode"), "a") == replace(ended, slurm_id=4)


def test_why_slurm_lets_runs_wait_is_told() -> None:
    async def body() -> None:
        scene = Scene(1, slurm=True)
        scene.ssh.seconds = 60
        scene.ssh.reason = "PartitionConfig"
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await scene.until(lambda: Counter(r["state"] for r in scene.runs()) == {"Running": 1, "Submitted": 1})
            await asyncio.sleep(5)
            why = "SLURM waits: PartitionConfig (it asks for more than the partition has or allows)"
            assert scene.runs()[1]["message"] == why
            told = f"0 of 2 runs are done; 1 is running, 1 is submitted; run-0001: {why}"
            assert scene.condition()["message"] == told
            await scene.ended()

    scenario(body)


@pytest.mark.parametrize(
    ("spec", "status", "words"),
    [
        ({"replicas": 0}, {}, "is scaled to 0: `kubectl scale vc/lab --replicas=1` gives it a machine"),
        ({"lifecycle": {"state": "Suspended"}}, {}, "is suspended: `spec.lifecycle.state: Running` wakes it"),
        ({}, {"suspendedReason": "Idle"}, "a new value of its annotation cloudmesh.org/resume-requested wakes it"),
        ({}, {"suspendedReason": "BudgetExceeded"}, "its Budget is exceeded: raise the Budget"),
    ],
)
@BOTH
def test_why_a_cluster_has_no_machines_is_told(
    slurm: bool, spec: dict[str, Any], status: dict[str, Any], words: str
) -> None:
    async def body() -> None:
        scene = Scene(0, slurm=slurm, **spec)
        scene.controllers.name = ""
        scene.api.put(VIRTUAL_CLUSTER, {**scene.cluster, "status": status})
        scene.apply()
        async with scene.operator():
            await scene.until(lambda: scene.condition().get("reason") == "WaitingForCluster")
            assert scene.condition()["message"].startswith("VirtualCluster 'lab' ")
            assert words in scene.condition()["message"]

    scenario(body)


def test_a_paused_cluster_without_machines_is_told() -> None:
    async def body() -> None:
        scene = Scene(0)
        meta = {**scene.cluster["metadata"], "annotations": {"cloudmesh.org/paused": "true"}}
        scene.api.put(VIRTUAL_CLUSTER, {**scene.cluster, "metadata": meta})
        scene.apply()
        async with scene.operator():
            await scene.until(
                lambda: "remove its annotation cloudmesh.org/paused" in scene.condition().get("message", "")
            )

    scenario(body)


def test_outputs_that_are_not_there_are_told() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.apply(arguments=["[1-2]"], outputs={"paths": ["nothing.txt"]})
        async with scene.operator():
            status = await scene.ended()
            words = "no file matches `outputs.paths`: nothing.txt"
            assert [(r["state"], r["message"]) for r in status["runs"]] == [("Done", words)] * 2
            assert scene.condition()["message"] == f"2 of 2 runs are done; run-0000: {words}"
            assert sorted(scene.events("OutputsLeft")) == [f"run-0000: {words}", f"run-0001: {words}"]

    scenario(body)


def test_the_last_line_of_a_run_that_failed_is_told() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.codes = {"2": 3, "3": 137}
        scene.apply(arguments=["[1-3]"])
        async with scene.operator():
            status = await scene.ended()
            assert status["runs"][1]["message"].startswith("ended with code 3; ")
            assert status["runs"][1]["message"].endswith("train 2")
            assert status["runs"][2]["message"] == "was killed (137): out of memory?"

    scenario(body)


def test_a_cluster_without_ready_machines_is_waited_for() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.machine_status("lab-w-0", ready="False", reason="Suspended")
        scene.apply()
        async with scene.operator():
            await asyncio.sleep(30)
            assert "no machine of the cluster is ready" in scene.condition()["message"]
            assert scene.condition("Reconciling")["status"] == "True"
            scene.machine_status("lab-w-0")
            await scene.ended()

    scenario(body)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"arguments": ["[3-1]"]}, "spec.arguments[0]: the range '3-1' runs backwards"),
        ({"arguments": ["[1-100]", "[1-100]"]}, "spec.arguments[1]: `spec.arguments` give more than 1000 runs"),
        ({"slurm": {"nodes": 2}}, "spec.slurm: VirtualCluster 'lab' has no SLURM"),
    ],
)
def test_a_wrong_spec_is_told_with_its_path(spec: dict[str, Any], words: str) -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.apply(**spec)
        async with scene.operator():
            await scene.until(lambda: scene.condition("Stalled"))
            assert words in scene.condition()["message"]
            assert scene.condition()["reason"] == "SpecInvalid"
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: scene.job() is None)
            assert not scene.ssh.effects

    scenario(body)


def test_what_slurm_refuses_fails_at_once() -> None:
    async def body() -> None:
        scene = Scene(1, slurm=True)
        scene.apply(slurm={"partition": "none"}, retry={"limit": 3})
        async with scene.operator():
            status = await scene.ended()
            assert status["counts"]["failed"] == 1
            assert "invalid partition specified: none" in status["runs"][0]["message"]

    scenario(body)
