"""The JobReconciler on machines in memory: over SSH and through SLURM, with faults, losses, deletion and crashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from tests.unit.compute.job_scene import Scene

from cloudmesh.api.clusterjob_status import ClusterJobStatus
from cloudmesh.compute.kinds import CLUSTER_JOB, VIRTUAL_CLUSTER
from cloudmesh.engine import CONFIG_MAP
from cloudmesh.testing import CrashPoint, for_every_crash, run_virtual

SWEEP = {"arguments": ["lr=[0.1,0.2]", "run-[01-03]"]}
BOTH = pytest.mark.parametrize("slurm", [False, True], ids=["ssh", "slurm"])


def scenario(body: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        await body()

    run_virtual(main())


@BOTH
def test_a_sweep_runs_and_its_output_is_collected(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(slurm=slurm)
        scene.ssh.outputs = {"model.bin": b"weights", "a/big": b"x" * 300_000}
        scene.apply(**SWEEP, outputs={"paths": ["*.bin", "a/*"]}, env=[{"name": "SEED", "value": "7 8"}])
        async with scene.operator():
            status = await scene.ended()
            assert status["counts"]["done"] == 6
            assert scene.condition()["status"] == "True"
            assert scene.condition("Complete")["status"] == "True"
            assert not scene.condition("Reconciling")
            first = status["runs"][0]
            assert first["arguments"] == ["lr=0.1", "run-01"]
            assert first["node"] in ("lab-w-0", "lab-w-1")
            assert (first["attempts"], first["exitCode"], first["state"]) == (1, 0, "Done")
            assert first["log"] == {"name": "sweep-logs-0", "key": "run-0000"}
            log = scene.config_map("sweep-logs-0")["run-0000"]
            assert "SEED=7 8" in log
            assert "CLOUDMESH_RUN=run-0000" in log
            assert log.endswith("train lr=0.1 run-01")
            assert scene.config_map(first["output"]["name"]) == {"model.bin": "weights"}
            assert "a/big (300000 bytes)" in first["message"]
            assert {r["node"] for r in status["runs"]} == {"lab-w-0", "lab-w-1"}
            assert len(scene.ssh.effects) == 6
            assert ("slurmJobId" in first) == slurm
            writes, calls = len(scene.api.store.writes), len(scene.ssh.calls)
            await asyncio.sleep(600)
            assert (len(scene.api.store.writes), len(scene.ssh.calls)) == (writes, calls)
        ClusterJobStatus.model_validate(status)

    scenario(body)


@BOTH
def test_runs_that_fail_are_tried_again_and_told(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(slurm=slurm)
        scene.ssh.codes = {"run-02": 3}
        scene.apply(**SWEEP, retry={"limit": 2})
        async with scene.operator():
            status = await scene.ended()
            assert (status["counts"]["done"], status["counts"]["failed"]) == (4, 2)
            failed = [r for r in status["runs"] if r["state"] == "Failed"]
            assert [r["attempts"] for r in failed] == [3, 3]
            assert failed[0]["exitCode"] == 3
            ready = scene.condition()
            assert (ready["status"], ready["reason"]) == ("False", "RunsFailed")
            assert "4 of 6 runs are done; 2 failed: run-0001 on lab-w-" in ready["message"]
            assert "ended with code 3" in ready["message"]
            assert scene.condition("Stalled")["status"] == "True"
            assert len({token for token, _ in scene.ssh.effects}) == len(scene.ssh.effects) == 10

    scenario(body)


@BOTH
def test_a_limit_of_time(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(slurm=slurm)
        scene.ssh.seconds = 1000
        scene.apply(timeoutSeconds=30)
        async with scene.operator():
            status = await scene.ended()
            assert status["counts"]["timeout"] == 1
            assert status["runs"][0]["message"] == "took longer than 30 s"

    scenario(body)


@BOTH
def test_a_dead_machine_is_a_crash_never_done(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(3, slurm=slurm)
        scene.ssh.seconds = 100
        scene.apply(arguments=["[1-3]"])
        async with scene.operator():
            await scene.until(lambda: [r["state"] for r in scene.runs()] == ["Running"] * 3)
            scene.ssh.lose("lab-w-2")
            await asyncio.sleep(200)
            states = Counter(r["state"] for r in scene.runs())
            assert states == {"Done": 2, "Running": 1}  # a machine that doesn't answer is no end
            assert "can't be reached" in scene.condition()["message"]
            scene.machine_status("lab-w-2", ready="False", reason="Gone", message="the cloud has it no longer")
            status = await scene.ended()
            (lost,) = [r for r in status["runs"] if r["state"] == "Crash"]
            assert "exitCode" not in lost
            assert "the cloud has it no longer" in lost["message"]

    scenario(body)


@BOTH
def test_a_machine_that_is_gone_is_not_waited_for(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(2, slurm=slurm)
        scene.ssh.seconds = 100
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await scene.until(lambda: [r["state"] for r in scene.runs()] == ["Running"] * 2)
            scene.ssh.at("lab-w-1").silent = True
            await asyncio.sleep(30)
            scene.machine_status("lab-w-1", ready="False", reason="Preempted", message="spot capacity is gone")
            await scene.until(lambda: any(r.get("preemptions") for r in scene.runs()), seconds=10)

    scenario(body)


@BOTH
def test_a_run_whose_machine_is_taken_away_goes_on_from_its_checkpoint(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(2, slurm=slurm)
        scene.ssh.seconds = 100
        scene.ssh.checkpoint = b"step-7"
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await scene.until(lambda: all(r["state"] == "Running" for r in scene.runs() or [{"state": ""}]))
            await asyncio.sleep(50)
            scene.machine_status("lab-w-1", ready="False", reason="Preempted", message="spot capacity is gone")
            scene.ssh.lose("lab-w-1")
            scene.add_machine(2)
            status = await scene.ended()
            assert status["counts"]["done"] == 2
            (moved,) = [r for r in status["runs"] if r.get("preemptions")]
            assert (moved["preemptions"], moved["attempts"]) == (1, 2)
            where = "lab-w-0" if slurm and moved["node"] == "lab-w-0" else "lab-w-2"
            assert f"{where}:{moved['name']}:step-7" in scene.ssh.restored
            assert scene.config_map(f"sweep-checkpoint-{moved['index']}")

    scenario(body)


def test_runs_go_with_their_machines_while_the_cluster_is_waited_for() -> None:
    async def body() -> None:
        scene = Scene(3, slurm=True)
        scene.ssh.seconds = 100
        scene.apply(arguments=["[1-3]"])
        async with scene.operator():
            await scene.until(lambda: [r["state"] for r in scene.runs()] == ["Running"] * 3)
            scene.controllers.name = ""
            for name in ("lab-w-0", "lab-w-1", "lab-w-2"):
                scene.ssh.lose(name)
            scene.remove_machine("lab-w-0")
            scene.machine_status("lab-w-1", ready="False", reason="Gone", message="the cloud has it no longer")
            await asyncio.sleep(20)
            assert "SLURM of VirtualCluster 'lab' isn't up" in scene.condition()["message"]
            runs = {r["name"]: r for r in scene.runs()}
            by_state = {r["state"]: r for r in runs.values()}
            assert sorted(r["state"] for r in runs.values()) == ["Crash", "Ready", "Running"]
            assert by_state["Running"]["node"] == "lab-w-2"  # that it doesn't answer is no end
            assert "the cloud has it no longer" in by_state["Crash"]["message"]
            assert by_state["Ready"]["preemptions"] == 1
            assert "lab-w-0 is no longer there" in by_state["Ready"]["message"]

    scenario(body)


def test_losing_a_machine_counts_where_the_user_says_so() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.seconds = 100
        scene.apply(retry={"onPreemption": "Fail"})
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            scene.remove_machine("lab-w-0")
            status = await scene.ended()
            assert status["runs"][0]["state"] == "Crash"

    scenario(body)


def test_a_container_that_started_anew_has_lost_its_run() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.seconds = 100
        scene.apply(retry={"limit": 1})
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            scene.ssh.at("lab-w-0").lose_all()
            scene.machine_status("lab-w-0", bootID="2")
            status = await scene.ended()
            assert (status["runs"][0]["state"], status["runs"][0]["attempts"]) == ("Done", 2)

    scenario(body)


def test_parallelism_and_slots() -> None:
    async def body() -> None:
        scene = Scene(2)
        most: Counter[str] = Counter()
        scene.apply(arguments=["[1-12]"], parallelism=4)
        async with scene.operator():
            while not scene.status().get("endedAt"):
                running = Counter(
                    m.name for m in scene.ssh.machines.values() for c in m.commands.values() if c.state == "Running"
                )
                most = most | running
                assert sum(running.values()) <= 4
                await asyncio.sleep(0.5)
            assert most == {"lab-w-0": 2, "lab-w-1": 2}

    scenario(body)


@pytest.mark.parametrize(("mode", "busy"), [("Sequential", {"lab-w-0": 3}), ("Smart", {"lab-w-0": 1, "lab-w-1": 1})])
def test_the_clusters_policy_chooses_the_machine(mode: str, busy: dict[str, int]) -> None:
    async def body() -> None:
        scene = Scene(3, placement={"rules": {"mode": mode}})
        scene.ssh.seconds = 1
        scene.apply(arguments=["[1-3]"], parallelism=9 if mode == "Sequential" else 2)
        async with scene.operator():
            await scene.until(lambda: scene.ssh.effects)
            await asyncio.sleep(0.5)
            assert Counter(name for _, name in scene.ssh.effects) == busy

    scenario(body)


@BOTH
def test_files_of_the_working_folder_are_there_before_the_command(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(2, slurm=slurm)
        scene.apply(files={"workdir": {"configMapRef": {"name": "code"}}})
        async with scene.operator():
            await asyncio.sleep(20)
            assert scene.condition()["reason"] == "WaitingForCluster"
            assert "ConfigMap 'code' of `spec.files.workdir` isn't there" in scene.condition()["message"]
            scene.api.put(
                CONFIG_MAP, {"metadata": {"name": "code", "namespace": "ns"}, "data": {"train.py": "print(1)"}}
            )
            status = await scene.ended()
            machine = scene.ssh.at(status["runs"][0]["node"])
            folder = next(p for p in machine.files if p.endswith("train.py")).rpartition("/")[0]
            assert list(machine.files).index(f"{folder}.ok") > list(machine.files).index(f"{folder}/train.py")
            used = [c.files for m in scene.ssh.machines.values() for c in m.commands.values()]
            assert used == [folder.rpartition("/")[2]]

    scenario(body)


def test_runs_are_submitted_once_slurm_is_up() -> None:
    async def body() -> None:
        scene = Scene(2, slurm=True)
        scene.controllers.up = False
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await asyncio.sleep(30)
            assert "SLURM of VirtualCluster 'lab' isn't up; 0 of 2 runs are done" in scene.condition()["message"]
            assert not [words for _, words in scene.ssh.calls if "submit" in words]
            scene.controllers.up = True
            await scene.until(lambda: scene.ssh.effects, seconds=5)
            # while it doesn't answer, what goes on is followed, and nothing new is submitted
            scene.controllers.up = False
            status = await scene.ended()
            assert status["counts"]["done"] == 2

    scenario(body)


def test_what_slurm_has_twice_is_taken_back() -> None:
    async def body() -> None:
        scene = Scene(1, slurm=True)
        scene.ssh.seconds = 30
        scene.apply()
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            (token,) = scene.ssh.slurm
            rows = scene.ssh._rows
            scene.ssh._rows = lambda: [f"9|PENDING|n/a|{token}|Priority", "8|PENDING|n/a|mine|None", *rows()]  # type: ignore[method-assign]
            status = await scene.ended()
            assert status["runs"][0]["slurmJobId"] == 1
            assert {tuple(words) for _, words in scene.ssh.calls if words[0] == "scancel"} == {
                ("scancel", "--quiet", "9")
            }

    scenario(body)


def test_slurm_that_does_not_answer_is_waited_for_and_nothing_is_lost() -> None:
    async def body() -> None:
        scene = Scene(2, slurm=True)
        scene.apply(arguments=["[1-4]"])
        async with scene.operator():
            await scene.until(lambda: any(r["state"] == "Running" for r in scene.runs()))
            scene.ssh.slurm_up = False
            await asyncio.sleep(120)
            assert not any(r["state"] in ("Crash", "Failed") for r in scene.runs())
            assert "Unable to contact slurm controller" in scene.condition()["message"]
            scene.ssh.slurm_up = True
            status = await scene.ended()
            assert status["counts"]["done"] == 4
            assert len(scene.ssh.effects) == 4

    scenario(body)


def test_runs_are_submitted_again_when_slurm_lost_its_controller() -> None:
    async def body() -> None:
        scene = Scene(3, slurm=True)
        scene.ssh.seconds = 30
        scene.apply(arguments=["[1-5]"])
        async with scene.operator():
            await scene.until(lambda: sum(r["state"] == "Running" for r in scene.runs()) == 3)
            on_it = next(r["index"] for r in scene.runs() if r.get("node") == "lab-w-0")
            scene.ssh.lose("lab-w-0")
            scene.ssh.lose_slurm()
            scene.remove_machine("lab-w-0")
            scene.controllers.name = "lab-w-1"
            status = await scene.ended()
            assert status["counts"]["done"] == 5
            assert status["runs"][on_it]["preemptions"] == 1
            assert max(Counter(token for token, _ in scene.ssh.effects).values()) == 1

    scenario(body)


@BOTH
def test_deletion_ends_what_runs_and_clears_away(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(2, slurm=slurm)
        scene.ssh.seconds = 10_000
        scene.apply(arguments=["[1-4]"])
        async with scene.operator():
            await scene.until(lambda: sum(r["state"] == "Running" for r in scene.runs()) == 2)
            assert "cloudmesh.org/cleanup" in (scene.job() or {})["metadata"]["finalizers"]
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: scene.job() is None)
            living = [c for m in scene.ssh.machines.values() for c in m.commands.values() if c.state == "Running"]
            assert not living
            assert all(len(m.cleared) == 1 for m in scene.ssh.machines.values())
            if slurm:
                assert {e["state"] for e in scene.ssh.slurm.values()} == {"CANCELLED"}
            effects = len(scene.ssh.effects)
            await asyncio.sleep(60)
            assert len(scene.ssh.effects) == effects

    scenario(body)


@BOTH
def test_folders_of_runs_that_ended_go_with_the_job(slurm: bool) -> None:
    async def body() -> None:
        scene = Scene(2, slurm=slurm)
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await scene.ended()
            await asyncio.sleep(10)
            uid = (scene.job() or {})["metadata"]["uid"]
            assert not any(m.cleared for m in scene.ssh.machines.values())
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: scene.job() is None, seconds=10)
            assert [m.cleared for m in scene.ssh.machines.values()] == [[f".cloudmesh/jobs/{uid}"]] * 2
            assert not scene.events("FoldersLeft")

    scenario(body)


def test_a_machine_that_does_not_answer_keeps_folders_of_runs_that_ended_and_not_the_job() -> None:
    async def body() -> None:
        scene = Scene(4)
        scene.apply(arguments=["[1-4]"])
        async with scene.operator():
            await scene.ended()
            scene.ssh.at("lab-w-0").up = False
            scene.machine_status("lab-w-1", ready="False", reason="Gone")
            scene.machine_status("lab-w-2", ready="False", reason="Suspended", state="Stopped")
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: scene.job() is None, seconds=60)
            assert len(scene.ssh.at("lab-w-3").cleared) == 1
            (event,) = scene.events("FoldersLeft")
            assert "stays on lab-w-0, lab-w-2: no answer" in event

    scenario(body)


def test_deletion_waits_for_a_machine_that_does_not_answer_until_it_is_gone_or_given_up() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.seconds = 10_000
        scene.apply()
        scene.apply("second")
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            scene.ssh.at("lab-w-0").up = False
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await asyncio.sleep(200)
            job = scene.job()
            assert job is not None
            told = scene.condition()["message"]
            assert "its end waits: " in told and "lab-w-0" in told
            assert f"annotation cloudmesh.org/abandon={job['metadata']['uid']} gives up" in told
            scene.apply(annotations={"cloudmesh.org/abandon": job["metadata"]["uid"]})
            await scene.until(lambda: scene.job() is None)

    scenario(body)


def test_deletion_waits_for_slurm_that_still_has_runs() -> None:
    async def body() -> None:
        scene = Scene(1, slurm=True)
        scene.ssh.seconds = 10_000
        scene.apply(arguments=["[1-2]"])
        async with scene.operator():
            await scene.until(lambda: Counter(r["state"] for r in scene.runs()) == {"Running": 1, "Submitted": 1})
            scene.ssh.slurm_up = False
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: "SLURM on lab-w-0 doesn't end the runs" in scene.condition()["message"])
            scene.ssh.slurm_up = True
            await scene.until(lambda: scene.job() is None, seconds=20)
            assert {entry["state"] for entry in scene.ssh.slurm.values()} == {"CANCELLED"}

    scenario(body)


def test_deletion_with_the_cluster_gone() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.seconds = 10_000
        scene.apply()
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            scene.remove_machine("lab-w-0")
            scene.api.remove(VIRTUAL_CLUSTER, "ns", "lab")
            await scene.until(lambda: scene.runs()[0]["state"] == "Ready")
            assert "VirtualCluster 'lab' isn't there" in scene.condition()["message"]
            scene.api.remove(CLUSTER_JOB, "ns", "sweep")
            await scene.until(lambda: scene.job() is None)

    scenario(body)


def test_paused_jobs_start_nothing_new() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.apply(arguments=["[1-3]"], annotations={"cloudmesh.org/paused": "true"})
        async with scene.operator():
            await asyncio.sleep(30)
            assert scene.condition("Paused")["status"] == "True"
            assert not scene.ssh.effects
            scene.apply(arguments=["[1-3]"], annotations={"cloudmesh.org/paused": "false"})
            await scene.ended()
            assert not scene.condition("Paused")

    scenario(body)


def test_a_log_that_cannot_be_fetched_holds_done_back() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.apply()
        async with scene.operator():
            await scene.until(lambda: scene.runs() and scene.runs()[0]["state"] == "Running")
            blocked = scene.api.put(CONFIG_MAP, {"metadata": {"name": "sweep-logs-0", "namespace": "ns"}, "data": {}})
            await asyncio.sleep(60)
            assert scene.runs()[0]["state"] == "Running"
            assert "'sweep-logs-0' exists and isn't of this ClusterJob" in scene.condition()["message"]
            assert scene.config_map("sweep-logs-0") == {}
            scene.api.remove(CONFIG_MAP, "ns", blocked["metadata"]["name"])
            status = await scene.ended()
            assert status["counts"]["done"] == 1

    scenario(body)


@BOTH
def test_a_crash_at_any_call_runs_each_command_once(slurm: bool) -> None:
    async def life(crash: CrashPoint) -> None:
        scene = Scene(2, slurm=slurm)
        scene.ssh.seconds = 3
        scene.apply(arguments=["[1-3]"])

        async def first() -> None:
            async with scene.operator(crash):
                await scene.ended()

        await crash.until_crash(first())
        async with scene.operator():
            status = await scene.ended()
        assert status["counts"]["done"] == 3
        assert len(scene.ssh.effects) == 3
        assert len(scene.config_map("sweep-logs-0")) == 3

    async def main() -> None:
        assert await for_every_crash(life) > 20

    run_virtual(main())
