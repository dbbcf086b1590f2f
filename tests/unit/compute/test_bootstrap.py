"""Bootstrap on machines in memory: SLURM, scripts, lost machines, moves of the controller, idle clusters."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from tests.unit.compute.fake_ssh import Command, FakeSsh, Machine
from tests.unit.compute.test_access import machine

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap import Bootstrap, BootstrapState
from cloudmesh.compute.machines import MachineView
from cloudmesh.engine import CONFIG_MAP, Key, Kube
from cloudmesh.testing import MemoryApi, run_virtual

ACCESS = ClusterAccess(
    client_key="PRIVATE", client_public_key="ssh-ed25519 A c", host_public_key="ssh-ed25519 H h", munge_key=b"m" * 64
)


class Scene:
    def __init__(self, count: int = 3, profile: dict[str, Any] | None = None, **spec: Any) -> None:
        self.ssh = FakeSsh()
        self.api = MemoryApi((CONFIG_MAP,))
        self.kube = Kube(self.api)
        self.told: list[Key] = []
        self.bootstrap = Bootstrap(self.ssh, self.kube, self.told.append)
        body = {"bootstrap": profile or {"slurm": {}}, "pools": [{"name": "w"}], **spec}
        self.cluster = VirtualCluster.model_validate(
            {"metadata": {"name": "lab", "namespace": "ns", "uid": "c-1"}, "spec": body}
        )
        self.machines: dict[str, MachineView] = {}
        for n in range(count):
            self.add(n)

    def add(self, n: int, **changes: Any) -> None:
        view = machine(n, boot_id="1", private_address=changes.get("host", f"10.0.0.{n + 1}"), **changes)
        self.machines[view.name] = view
        self.ssh.add(view.host, view.name)

    def remove(self, name: str) -> None:
        del self.ssh.machines[self.machines.pop(name).host]

    def ensure(self) -> BootstrapState:
        return self.bootstrap.ensure(self.cluster, list(self.machines.values()), ACCESS)

    async def settled(self, seconds: float = 120) -> BootstrapState:
        for _ in range(int(seconds * 4)):
            state = self.ensure()
            if len(state.done) + len(state.failed) == len(self.machines):
                return state
            await asyncio.sleep(0.25)
        raise AssertionError(f"not set up: {state}")


def scenario(body: Any) -> None:
    async def main() -> None:
        await body()

    run_virtual(main())


def test_slurm_comes_up_and_is_proved() -> None:
    async def body() -> None:
        scene = Scene()
        first = scene.ensure()
        assert not first.done
        assert "are being set up" in first.message
        assert first.requeue_after
        state = await scene.settled()
        assert state.done == {"m-0", "m-1", "m-2"}
        assert state.message == ""
        assert scene.bootstrap.controller("c-1") == "lab-w-0"
        assert scene.ssh.at("lab-w-0").slurm["role"] == "both"
        assert scene.ssh.at("lab-w-1").slurm == {"role": "node", "ctl": "lab-w-0"}
        assert scene.ssh.at("lab-w-1").files[".cloudmesh/slurm/munge.key"] == ACCESS.munge_key
        assert scene.ssh.at("lab-w-1").modes[".cloudmesh/slurm/munge.key"] == 0o400
        (proof,) = [words for name, words in scene.ssh.calls if words[0] == "srun"]
        assert "--nodelist=lab-w-0,lab-w-1,lab-w-2" in proof
        assert scene.bootstrap.machine_state("m-1") == ("Done", "")
        assert {k.kind for k in scene.told} == {"VirtualCluster", "VirtualMachine"}
        assert Key("VirtualMachine", "ns", "lab-w-2") in scene.told
        await scene.bootstrap.close()

    scenario(body)


def test_each_machine_knows_the_others_by_name() -> None:
    async def body() -> None:
        scene = Scene(2, profile={"ssh": {}})
        await scene.settled()
        await asyncio.sleep(5)
        files = scene.ssh.at("lab-w-0").files
        assert "Host lab-w-1\n    HostName 10.0.0.2\n    Port 2222" in files[".ssh/cloudmesh/lab/config"].decode()
        assert files[".cloudmesh/clusters/lab/hosts"] == b"lab-w-0\nlab-w-1\n"
        assert files[".ssh/cloudmesh/lab/known_hosts"].startswith(b"lab-w-0 ssh-ed25519 H\n")
        assert scene.ssh.at("lab-w-0").modes[".ssh/cloudmesh/lab/id_ed25519"] == 0o600
        calls = len(scene.ssh.calls)
        await asyncio.sleep(300)
        scene.ensure()
        assert len(scene.ssh.calls) == calls  # nothing new, nothing to do
        scene.add(2)
        await scene.settled()
        await asyncio.sleep(5)
        assert b"lab-w-2" in scene.ssh.at("lab-w-0").files[".cloudmesh/clusters/lab/hosts"]
        await scene.bootstrap.close()

    scenario(body)


def test_a_pair_that_cannot_meet_is_named_with_both_ends() -> None:
    async def body() -> None:
        scene = Scene()
        scene.ssh.at("lab-w-1").blocked.add("10.0.0.1")
        scene.ssh.at("lab-w-0").blocked.add("10.0.0.3")
        scene.ensure()
        await asyncio.sleep(20)
        state = scene.ensure()
        assert state.unreachable == {
            "m-1": "lab-w-1 (10.0.0.2) can't reach lab-w-0 (10.0.0.1:2222)",
            "m-2": "lab-w-0 (10.0.0.1) can't reach lab-w-2 (10.0.0.3:2222)",
        }
        assert state.done == {"m-0"}
        assert scene.bootstrap.unreachable("m-1").startswith("lab-w-1 (10.0.0.2)")
        assert "can't reach" in state.message
        for m in scene.ssh.machines.values():
            m.blocked.clear()
        assert len((await scene.settled()).done) == 3
        assert scene.bootstrap.unreachable("m-1") == ""
        await scene.bootstrap.close()

    scenario(body)


def test_scaling_adds_and_removes_nodes_and_disturbs_none() -> None:
    async def body() -> None:
        scene = Scene(2)
        await scene.settled()
        started = list(scene.ssh.at("lab-w-0").started)
        scene.add(2)
        await scene.settled()
        assert scene.ssh.at("lab-w-0").started == started
        assert set(scene.ssh.at("lab-w-0").slurm["nodes"]) == {"lab-w-0", "lab-w-1", "lab-w-2"}
        proofs = [words[-3] for _, words in scene.ssh.calls if words[0] == "srun"]
        assert proofs == ["--nodelist=lab-w-0,lab-w-1", "--nodelist=lab-w-2"]
        scene.remove("lab-w-1")
        await scene.settled()
        await asyncio.sleep(5)
        assert ("lab-w-0", ["/opt/cloudmesh/machine/slurm", "forget", "lab-w-1"]) in scene.ssh.calls
        assert set(scene.ssh.at("lab-w-0").slurm["nodes"]) == {"lab-w-0", "lab-w-2"}
        await scene.bootstrap.close()

    scenario(body)


def test_the_next_machine_takes_over_when_the_controller_is_lost() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.settled()
        scene.remove("lab-w-0")
        await scene.settled()
        await asyncio.sleep(10)
        assert scene.bootstrap.controller("c-1") == "lab-w-1"
        assert scene.ssh.at("lab-w-2").slurm["ctl"] == "lab-w-1"
        # the first comes back under another attempt: the controller stays where it is
        scene.add(0, name="lab-w-0-2", uid="m-0b", host="10.0.0.9")
        await scene.settled()
        await asyncio.sleep(5)
        assert scene.bootstrap.controller("c-1") == "lab-w-1"
        assert scene.ssh.at("lab-w-0-2").slurm == {"role": "node", "ctl": "lab-w-1"}
        await scene.bootstrap.close()

    scenario(body)


def test_a_new_process_finds_the_controller_where_it_runs() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.settled()
        scene.remove("lab-w-0")
        await scene.settled()
        await asyncio.sleep(10)
        scene.add(0, name="lab-w-0-2", uid="m-0b", host="10.0.0.9")
        await scene.settled()
        await scene.bootstrap.close()
        for name, view in scene.machines.items():
            scene.machines[name] = machine(
                view.ordinal, name=name, uid=view.uid, host=view.host, boot_id="1", bootstrapped=True,
                private_address=view.private_address,
            )  # fmt: skip
        again = Bootstrap(scene.ssh, scene.kube, scene.told.append)
        scene.bootstrap = again
        srun = sum(words[0] == "srun" for _, words in scene.ssh.calls)
        state = scene.ensure()
        assert len(state.done) == 3  # as the status says
        await asyncio.sleep(10)
        assert again.controller("c-1") == "lab-w-1"
        assert scene.ssh.at("lab-w-2").slurm["ctl"] == "lab-w-1"
        assert sum(words[0] == "srun" for _, words in scene.ssh.calls) == srun
        await again.close()

    scenario(body)


def test_a_machine_that_started_anew_is_set_up_again() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.settled()
        scene.ssh.at("lab-w-2").lose_all()
        scene.machines["lab-w-2"] = machine(2, boot_id="2", private_address="10.0.0.3")
        state = scene.ensure()
        assert "m-2" not in state.done
        assert scene.bootstrap.machine_state("m-2") == ("Pending", "lab-w-2 has started anew")
        await scene.settled()
        assert scene.ssh.at("lab-w-2").slurm["role"] == "node"
        assert ".ssh/cloudmesh/lab/config" in scene.ssh.at("lab-w-2").files
        await scene.bootstrap.close()

    scenario(body)


def test_a_node_that_dies_is_seen_by_the_watch_and_started_again() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.settled()
        scene.ssh.at("lab-w-1").slurm = {}
        scene.ssh.at("lab-w-0").slurm["nodes"]["lab-w-1"] = "DOWN*"
        await asyncio.sleep(60)
        assert scene.ssh.at("lab-w-1").slurm["role"] == "node"
        assert len(scene.ensure().done) == 3
        await scene.bootstrap.close()

    scenario(body)


def test_what_the_image_lacks_is_told() -> None:
    async def body() -> None:
        scene = Scene(1)
        scene.ssh.at("lab-w-0").helper = False
        scene.ssh.more = lambda machine, words, stdin: _lacks(words)  # type: ignore[method-assign]
        state = await scene.settled()
        assert "lacks slurmctld, srun: Debian's packages are" in state.failed["m-0"]
        assert scene.bootstrap.machine_state("m-0")[0] == "Failed"
        await scene.bootstrap.close()

    def _lacks(words: list[str]) -> Any:
        from tests.unit.compute.fake_ssh import out

        assert words[-1] == "scontrol"
        return out("slurmctld\nsrun\n")

    scenario(body)


def test_machines_that_do_not_answer_are_waited_for_with_patience() -> None:
    async def body() -> None:
        scene = Scene(2)
        scene.ssh.at("lab-w-1").up = False
        scene.ensure()
        await asyncio.sleep(120)
        state = scene.ensure()
        assert state.done == {"m-0"}
        assert "can't be reached" in state.message or "can't reach" in state.message
        assert len(scene.ssh.calls) < 120
        scene.ssh.at("lab-w-1").up = True
        assert len((await scene.settled()).done) == 2
        await scene.bootstrap.close()

    scenario(body)


def test_a_machine_that_is_not_reached_is_left_alone_and_stays_a_node() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.settled()
        view = scene.machines["lab-w-1"]
        scene.machines["lab-w-1"] = dataclasses.replace(view, reachable=False)
        scene.ssh.at("lab-w-1").up = False
        scene.ensure()
        await asyncio.sleep(2)
        calls = len(scene.ssh.calls)
        await asyncio.sleep(120)
        assert scene.bootstrap.machine_state("m-1") == ("Pending", "lab-w-1 isn't reached")
        assert not any(words[1] == "forget" for _, words in scene.ssh.calls if len(words) > 1)
        assert len(scene.ssh.calls) - calls < 10  # the watch of the others
        started = list(scene.ssh.at("lab-w-1").started)
        scene.machines["lab-w-1"] = view
        scene.ssh.at("lab-w-1").up = True
        await scene.settled()
        assert scene.ssh.at("lab-w-1").started[: len(started)] == started
        await scene.bootstrap.close()

    scenario(body)


def test_no_proof_no_done() -> None:
    async def body() -> None:
        scene = Scene(2)
        scene.ssh.srun_works = False
        scene.ensure()
        await asyncio.sleep(60)
        state = scene.ensure()
        assert not state.done
        assert "srun doesn't reach lab-w-" in state.message
        scene.ssh.srun_works = True
        await scene.settled()
        await scene.bootstrap.close()

    scenario(body)


def test_a_script_runs_once_on_each_machine_and_its_failure_is_told() -> None:
    async def body() -> None:
        scene = Scene(3, profile={"script": {"configMapRef": {"name": "setup"}}})
        state = scene.ensure()
        await asyncio.sleep(10)
        assert "ConfigMap 'setup' isn't there" in scene.ensure().message
        await scene.kube.create(
            CONFIG_MAP, {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "apt list\n"}}
        )

        def behave(m: Machine, command: Command) -> None:
            asyncio.get_event_loop().call_later(
                5, lambda: command.end(3 if m.name == "lab-w-1" else 0, 0, b"E: no such package\n")
            )

        scene.ssh.behave = behave
        state = await scene.settled()
        assert state.done == {"m-0", "m-2"}
        assert state.failed == {"m-1": "lab-w-1: the script ended with 3: E: no such package"}
        (command,) = scene.ssh.at("lab-w-0").commands.values()
        assert command.argv == ["sh", f"./{command.token}.sh"]
        assert scene.ssh.at("lab-w-0").files[f".cloudmesh/bootstrap/{command.token}.sh"] == b"apt list\n"
        await asyncio.sleep(100)
        assert len(scene.ssh.at("lab-w-0").commands) == 1
        await scene.bootstrap.close()

    scenario(body)


def test_another_text_of_the_script_is_run_where_the_one_before_failed() -> None:
    async def body() -> None:
        scene = Scene(3, profile={"script": {"configMapRef": {"name": "setup"}}})
        object_ = {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "bad\n"}}
        await scene.kube.create(CONFIG_MAP, object_)

        def behave(m: Machine, command: Command) -> None:
            text = m.files[f".cloudmesh/bootstrap/{command.token}.sh"]
            # the first machine takes both; the last one is slow with what fails
            code, seconds = (3 if text == b"bad\n" and m.name != "lab-w-0" else 0), 100 if m.name == "lab-w-2" else 5
            asyncio.get_running_loop().call_later(seconds, lambda: command.end(code, 0, b"E: no such package\n"))

        scene.ssh.behave = behave
        scene.ensure()
        await asyncio.sleep(30)
        assert scene.ensure().failed == {"m-1": "lab-w-1: the script ended with 3: E: no such package"}
        calls = len(scene.ssh.at("lab-w-1").commands)
        for _ in range(20):  # asked again, for the same text
            scene.ensure()
            await asyncio.sleep(1)
        assert scene.ensure().failed
        assert len(scene.ssh.at("lab-w-1").commands) == calls == 1
        scene.told.clear()
        await scene.kube.patch(CONFIG_MAP, "ns", "setup", {"data": {"bootstrap.sh": "good\n"}})
        scene.ensure()
        await asyncio.sleep(15)
        assert Key("VirtualMachine", "ns", "lab-w-1") in scene.told
        state = scene.ensure()
        assert state.failed == {}
        assert state.done == {"m-0", "m-1"}
        assert "as it was before still runs" in state.message  # never two of them side by side
        assert len((await scene.settled(300)).done) == 3
        assert [len(scene.ssh.at(f"lab-w-{n}").commands) for n in range(3)] == [1, 2, 2]
        await scene.bootstrap.close()

    scenario(body)


def test_use_is_watched_when_idle_rules_ask() -> None:
    async def body() -> None:
        scene = Scene(2, lifecycle={"idle": {"afterSeconds": 60}})
        await scene.settled()
        await asyncio.sleep(40)
        assert scene.bootstrap.last_activity("c-1") == ""
        scene.ssh.queue = ["7"]
        await asyncio.sleep(40)
        by_queue = scene.bootstrap.last_activity("c-1")
        assert by_queue
        scene.ssh.queue = []
        scene.ssh.logins.add("lab-w-1")
        scene.bootstrap._workers["c-1"].used_at = ""
        await asyncio.sleep(40)
        assert scene.bootstrap.last_activity("c-1")
        scene.ssh.logins.clear()
        scene.bootstrap._workers["c-1"].used_at = ""
        await asyncio.sleep(70)
        assert scene.bootstrap.last_activity("c-1") == ""
        scene.bootstrap.forget("c-1")
        assert scene.bootstrap.last_activity("c-1") == ""

    scenario(body)


def test_nothing_is_known_of_strangers_and_of_empty_clusters() -> None:
    async def body() -> None:
        scene = Scene(0)
        assert scene.ensure() == BootstrapState()
        assert scene.bootstrap.machine_state("m-9") == ("Pending", "")
        assert scene.bootstrap.unreachable("m-9") == ""
        assert scene.bootstrap.controller("c-9") == ""
        scene.bootstrap.forget("c-9")
        await scene.bootstrap.close()

    scenario(body)
