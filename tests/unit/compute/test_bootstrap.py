"""Bootstrap on machines in memory: SLURM, scripts, lost machines, moves of the controller, idle clusters."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from tests.unit.compute.fake_ssh import Command, FakeSsh, Machine, out
from tests.unit.compute.test_access import machine

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap import Bootstrap, BootstrapState
from cloudmesh.compute.machines import MachineView
from cloudmesh.engine import CONFIG_MAP, Key, Kube, Transient
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


def scene(
    count: int = 3, **options: Any
) -> Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Runs a test on a virtual loop with a fresh scene of so many machines, and ends its bootstrap."""

    def of(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        def run() -> None:
            async def main() -> None:
                s = Scene(count, **options)
                try:
                    await test(s)
                finally:
                    await s.bootstrap.close()

            run_virtual(main())

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return of


@scene()
async def test_slurm_comes_up_and_is_proved(s: Scene) -> None:
    first = s.ensure()
    assert not first.done
    assert "are being set up" in first.message
    assert first.requeue_after
    state = await s.settled()
    assert state.done == {"m-0", "m-1", "m-2"}
    assert state.message == ""
    assert s.bootstrap.controller("c-1") == "lab-w-0"
    assert s.bootstrap.slurm_up("c-1")
    assert s.ssh.at("lab-w-0").slurm["role"] == "both"
    assert s.ssh.at("lab-w-1").slurm == {"role": "node", "ctl": "lab-w-0"}
    assert s.ssh.at("lab-w-1").files[".cloudmesh/slurm/munge.key"] == ACCESS.munge_key
    assert s.ssh.at("lab-w-1").modes[".cloudmesh/slurm/munge.key"] == 0o400
    (proof,) = [words for name, words in s.ssh.calls if words[0] == "srun"]
    assert "--nodelist=lab-w-0,lab-w-1,lab-w-2" in proof
    assert s.bootstrap.machine_state("m-1") == ("Done", "")
    assert {k.kind for k in s.told} == {"VirtualCluster", "VirtualMachine"}
    assert Key("VirtualMachine", "ns", "lab-w-2") in s.told


@scene(2, profile={"ssh": {}})
async def test_each_machine_knows_the_others_by_name(s: Scene) -> None:
    await s.settled()
    await asyncio.sleep(5)
    files = s.ssh.at("lab-w-0").files
    assert "Host lab-w-1\n    HostName 10.0.0.2\n    Port 2222" in files[".ssh/cloudmesh/lab/config"].decode()
    assert files[".cloudmesh/clusters/lab/hosts"] == b"lab-w-0\nlab-w-1\n"
    assert files[".ssh/cloudmesh/lab/known_hosts"].startswith(b"lab-w-0 ssh-ed25519 H\n")
    assert s.ssh.at("lab-w-0").modes[".ssh/cloudmesh/lab/id_ed25519"] == 0o600
    calls = len(s.ssh.calls)
    await asyncio.sleep(300)
    s.ensure()
    assert len(s.ssh.calls) == calls  # nothing new, nothing to do
    s.add(2)
    await s.settled()
    await asyncio.sleep(5)
    assert b"lab-w-2" in s.ssh.at("lab-w-0").files[".cloudmesh/clusters/lab/hosts"]


@scene()
async def test_a_pair_that_cannot_meet_is_named_with_both_ends(s: Scene) -> None:
    s.ssh.at("lab-w-1").blocked.add("10.0.0.1")
    s.ssh.at("lab-w-0").blocked.add("10.0.0.3")
    s.ensure()
    await asyncio.sleep(20)
    state = s.ensure()
    assert state.unreachable == {
        "m-1": "lab-w-1 (10.0.0.2) can't reach lab-w-0 (10.0.0.1:2222)",
        "m-2": "lab-w-0 (10.0.0.1) can't reach lab-w-2 (10.0.0.3:2222)",
    }
    assert state.done == {"m-0"}
    assert s.bootstrap.unreachable("m-1").startswith("lab-w-1 (10.0.0.2)")
    assert "can't reach" in state.message
    for m in s.ssh.machines.values():
        m.blocked.clear()
    assert len((await s.settled()).done) == 3
    assert s.bootstrap.unreachable("m-1") == ""


@scene()
async def test_each_port_that_slurm_needs_is_tried_between_all_machines(s: Scene) -> None:
    s.ssh.at("lab-w-1").blocked |= {"10.0.0.1:6817", "10.0.0.3:6818"}
    s.ensure()
    await asyncio.sleep(20)
    state = s.ensure()
    assert state.done == {"m-0", "m-2"}
    assert state.unreachable == {
        "m-1": "lab-w-1 (10.0.0.2) can't reach lab-w-2 (10.0.0.3:6818); "
        "lab-w-1 (10.0.0.2) can't reach lab-w-0 (10.0.0.1:6817)"
    }
    assert not any("lab-w-1" in words[-3] for _, words in s.ssh.calls if words[0] == "srun")
    s.ssh.at("lab-w-1").blocked.clear()
    await s.settled()
    tries = [name for name, words in s.ssh.calls if words[0] == "bash"]
    s.add(3)
    await s.settled()
    # one command a machine for SSH, one for SLURM; pairs that met before aren't tried again
    later = [(name, words[4:]) for name, words in s.ssh.calls if words[0] == "bash"][len(tries) :]
    assert sorted(name for name, _ in later) == sorted(["lab-w-0", "lab-w-1", "lab-w-2", "lab-w-3"] * 2)
    assert [peers for name, peers in later if name == "lab-w-1"] == [["10.0.0.4", "2222"], ["10.0.0.4", "6818"]]


@scene()
async def test_a_node_that_its_controller_does_not_reach_is_named(s: Scene) -> None:
    s.ssh.at("lab-w-0").blocked.add("10.0.0.2:6818")
    s.ensure()
    await asyncio.sleep(20)
    assert s.ensure().unreachable == {"m-1": "lab-w-0 (10.0.0.1) can't reach lab-w-1 (10.0.0.2:6818)"}
    assert s.ensure().done == {"m-0", "m-2"}


@scene(2, profile={"ssh": {}}, network={"mode": "SameNetwork"})
async def test_machines_that_are_asked_to_lie_in_one_network_are_tried(s: Scene) -> None:
    await s.settled()
    s.add(2)
    for name in ("lab-w-0", "lab-w-1"):
        s.ssh.at(name).blocked.add("10.0.0.3")
    s.ssh.at("lab-w-2").blocked.add("10.0.0.1")
    s.ensure()
    await asyncio.sleep(20)
    state = s.ensure()
    assert state.done == {"m-0", "m-1"}
    assert state.unreachable == {
        "m-2": "lab-w-0 (10.0.0.1) can't reach lab-w-2 (10.0.0.3:2222); "
        "lab-w-1 (10.0.0.2) can't reach lab-w-2 (10.0.0.3:2222); "
        "lab-w-2 (10.0.0.3) can't reach lab-w-0 (10.0.0.1:2222)"
    }
    for machine_ in s.ssh.machines.values():
        machine_.blocked.clear()
    await s.settled()


@scene(2, profile={"script": {"configMapRef": {"name": "setup"}}}, network={"mode": "SameNetwork"})
async def test_no_script_begins_on_a_machine_that_is_cut_off(s: Scene) -> None:
    await s.kube.create(
        CONFIG_MAP, {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "true\n"}}
    )
    s.ssh.behave = lambda _, command: command.end(0, 0)
    s.ssh.at("lab-w-0").blocked.add("10.0.0.2")
    s.ensure()
    await asyncio.sleep(20)
    assert s.ensure().done == {"m-0"}
    assert s.bootstrap.unreachable("m-1") == "lab-w-0 (10.0.0.1) can't reach lab-w-1 (10.0.0.2:2222)"
    assert not s.ssh.at("lab-w-1").commands
    s.ssh.at("lab-w-0").blocked.clear()
    await s.settled()


@scene(2, profile={"ssh": {}})
async def test_machines_that_need_no_common_network_are_not_tried(s: Scene) -> None:
    s.ssh.at("lab-w-0").blocked.add("10.0.0.2")
    await s.settled()
    assert not any(words[0] == "bash" for _, words in s.ssh.calls)


@scene(2)
async def test_scaling_adds_and_removes_nodes_and_disturbs_none(s: Scene) -> None:
    await s.settled()
    started = list(s.ssh.at("lab-w-0").started)
    s.add(2)
    await s.settled()
    assert s.ssh.at("lab-w-0").started == started
    assert set(s.ssh.at("lab-w-0").slurm["nodes"]) == {"lab-w-0", "lab-w-1", "lab-w-2"}
    proofs = [words[-3] for _, words in s.ssh.calls if words[0] == "srun"]
    assert proofs == ["--nodelist=lab-w-0,lab-w-1", "--nodelist=lab-w-2"]
    s.remove("lab-w-1")
    await s.settled()
    await asyncio.sleep(5)
    assert ("lab-w-0", ["/opt/cloudmesh/machine/slurm", "forget", "lab-w-1"]) in s.ssh.calls
    assert set(s.ssh.at("lab-w-0").slurm["nodes"]) == {"lab-w-0", "lab-w-2"}


@scene()
async def test_the_next_machine_takes_over_when_the_controller_is_lost(s: Scene) -> None:
    await s.settled()
    s.remove("lab-w-0")
    s.ssh.srun_works = False
    s.ensure()
    await asyncio.sleep(10)
    s.ensure()
    assert s.bootstrap.controller("c-1") == "lab-w-1"
    s.ssh.srun_works = True
    await s.settled()
    await asyncio.sleep(10)
    assert s.bootstrap.slurm_up("c-1")
    assert s.ssh.at("lab-w-2").slurm["ctl"] == "lab-w-1"
    # the first comes back under another attempt: the controller stays where it is
    s.add(0, name="lab-w-0-2", uid="m-0b", host="10.0.0.9")
    await s.settled()
    await asyncio.sleep(5)
    assert s.bootstrap.controller("c-1") == "lab-w-1"
    assert s.ssh.at("lab-w-0-2").slurm == {"role": "node", "ctl": "lab-w-1"}


@scene()
async def test_a_controller_that_is_gone_is_not_waited_for(s: Scene) -> None:
    await s.settled()
    s.ssh.at("lab-w-0").silent = True
    await asyncio.sleep(60)  # the watch hangs on it
    del s.machines["lab-w-0"]
    await s.settled(10)
    await asyncio.sleep(5)
    assert s.bootstrap.controller("c-1") == "lab-w-1"
    assert s.bootstrap.slurm_up("c-1")


@scene()
async def test_a_new_process_finds_the_controller_where_it_runs(s: Scene) -> None:
    await s.settled()
    s.remove("lab-w-0")
    await s.settled()
    await asyncio.sleep(10)
    s.add(0, name="lab-w-0-2", uid="m-0b", host="10.0.0.9")
    await s.settled()
    await s.bootstrap.close()
    for name, view in s.machines.items():
        s.machines[name] = machine(
            view.ordinal, name=name, uid=view.uid, host=view.host, boot_id="1", bootstrapped=True,
            private_address=view.private_address,
        )  # fmt: skip
    again = Bootstrap(s.ssh, s.kube, s.told.append)
    s.bootstrap = again
    srun = sum(words[0] == "srun" for _, words in s.ssh.calls)
    state = s.ensure()
    assert len(state.done) == 3  # as the status says
    await asyncio.sleep(10)
    assert again.controller("c-1") == "lab-w-1"
    assert s.ssh.at("lab-w-2").slurm["ctl"] == "lab-w-1"
    assert sum(words[0] == "srun" for _, words in s.ssh.calls) == srun


@scene()
async def test_a_machine_that_started_anew_is_set_up_again(s: Scene) -> None:
    await s.settled()
    s.ssh.at("lab-w-2").lose_all()
    s.machines["lab-w-2"] = machine(2, boot_id="2", private_address="10.0.0.3")
    state = s.ensure()
    assert "m-2" not in state.done
    assert s.bootstrap.machine_state("m-2") == ("Pending", "lab-w-2 has started anew")
    await s.settled()
    assert s.ssh.at("lab-w-2").slurm["role"] == "node"
    assert ".ssh/cloudmesh/lab/config" in s.ssh.at("lab-w-2").files


@scene()
async def test_a_node_that_dies_is_seen_by_the_watch_and_started_again(s: Scene) -> None:
    await s.settled()
    s.ssh.at("lab-w-1").slurm = {}
    s.ssh.at("lab-w-0").slurm["nodes"]["lab-w-1"] = "DOWN*"
    await asyncio.sleep(60)
    assert s.ssh.at("lab-w-1").slurm["role"] == "node"
    assert len(s.ensure().done) == 3


@scene(1)
async def test_what_the_image_lacks_is_told(s: Scene) -> None:
    s.ssh.at("lab-w-0").helper = False

    def more(machine: Machine, words: list[str], stdin: bytes) -> Any:
        assert words[-1] == "scontrol"
        return out("slurmctld\nsrun\n")

    s.ssh.more = more  # type: ignore[method-assign]
    state = await s.settled()
    assert "lacks slurmctld, srun: Debian's packages are" in state.failed["m-0"]
    assert s.bootstrap.machine_state("m-0")[0] == "Failed"


@scene(2)
async def test_machines_that_do_not_answer_are_waited_for_with_patience(s: Scene) -> None:
    s.ssh.at("lab-w-1").up = False
    s.ensure()
    await asyncio.sleep(120)
    state = s.ensure()
    assert state.done == {"m-0"}
    assert "can't be reached" in state.message or "can't reach" in state.message
    assert len(s.ssh.calls) < 120
    s.ssh.at("lab-w-1").up = True
    assert len((await s.settled()).done) == 2


@scene()
async def test_a_machine_that_is_not_reached_is_left_alone_and_stays_a_node(s: Scene) -> None:
    await s.settled()
    view = s.machines["lab-w-1"]
    s.machines["lab-w-1"] = dataclasses.replace(view, reachable=False)
    s.ssh.at("lab-w-1").up = False
    s.ensure()
    await asyncio.sleep(2)
    calls = len(s.ssh.calls)
    await asyncio.sleep(120)
    assert s.bootstrap.machine_state("m-1") == ("Pending", "lab-w-1 isn't reached")
    assert not any(words[1] == "forget" for _, words in s.ssh.calls if len(words) > 1)
    assert len(s.ssh.calls) - calls < 10  # the watch of the others
    started = list(s.ssh.at("lab-w-1").started)
    s.machines["lab-w-1"] = view
    s.ssh.at("lab-w-1").up = True
    await s.settled()
    assert s.ssh.at("lab-w-1").started[: len(started)] == started


@scene(2)
async def test_no_proof_no_done(s: Scene) -> None:
    s.ssh.srun_works = False
    s.ensure()
    await asyncio.sleep(60)
    state = s.ensure()
    assert not state.done
    assert "srun doesn't reach lab-w-" in state.message
    assert s.bootstrap.controller("c-1") == "lab-w-0"
    assert not s.bootstrap.slurm_up("c-1")
    s.ssh.srun_works = True
    await s.settled()


@scene(3, profile={"script": {"configMapRef": {"name": "setup"}}})
async def test_a_script_runs_once_on_each_machine_and_its_failure_is_told(s: Scene) -> None:
    state = s.ensure()
    await asyncio.sleep(10)
    assert "ConfigMap 'setup' isn't there" in s.ensure().message
    await s.kube.create(
        CONFIG_MAP, {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "apt list\n"}}
    )

    def behave(m: Machine, command: Command) -> None:
        asyncio.get_event_loop().call_later(
            5, lambda: command.end(3 if m.name == "lab-w-1" else 0, 0, b"reading\nE: no such package\n \nit ends\n\n")
        )

    s.ssh.behave = behave
    state = await s.settled()
    assert state.done == {"m-0", "m-2"}
    assert state.failed == {"m-1": "lab-w-1: the script ended with 3: reading; E: no such package; it ends"}
    (command,) = s.ssh.at("lab-w-0").commands.values()
    assert command.argv == ["sh", f"./{command.token}.sh"]
    assert s.ssh.at("lab-w-0").files[f".cloudmesh/bootstrap/{command.token}.sh"] == b"apt list\n"
    await asyncio.sleep(100)
    assert len(s.ssh.at("lab-w-0").commands) == 1


@scene(3, profile={"script": {"configMapRef": {"name": "setup"}}})
async def test_another_text_of_the_script_is_run_where_the_one_before_failed(s: Scene) -> None:
    object_ = {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "bad\n"}}
    await s.kube.create(CONFIG_MAP, object_)

    def behave(m: Machine, command: Command) -> None:
        text = m.files[f".cloudmesh/bootstrap/{command.token}.sh"]
        # the first machine takes both; the last one is slow with what fails
        code, seconds = (3 if text == b"bad\n" and m.name != "lab-w-0" else 0), 100 if m.name == "lab-w-2" else 5
        asyncio.get_running_loop().call_later(seconds, lambda: command.end(code, 0, b"E: no such package\n"))

    s.ssh.behave = behave
    s.ensure()
    await asyncio.sleep(30)
    assert s.ensure().failed == {"m-1": "lab-w-1: the script ended with 3: E: no such package"}
    calls = len(s.ssh.at("lab-w-1").commands)
    for _ in range(20):  # asked again, for the same text
        s.ensure()
        await asyncio.sleep(1)
    assert s.ensure().failed
    assert len(s.ssh.at("lab-w-1").commands) == calls == 1
    s.told.clear()
    await s.kube.patch(CONFIG_MAP, "ns", "setup", {"data": {"bootstrap.sh": "good\n"}})
    s.ensure()
    await asyncio.sleep(15)
    assert Key("VirtualMachine", "ns", "lab-w-1") in s.told
    state = s.ensure()
    assert state.failed == {}
    assert state.done == {"m-0", "m-1"}
    assert "as it was before still runs" in state.message  # never two of them side by side
    assert len((await s.settled(300)).done) == 3
    assert [len(s.ssh.at(f"lab-w-{n}").commands) for n in range(3)] == [1, 2, 2]


@scene(2, lifecycle={"idle": {"afterSeconds": 60}})
async def test_use_is_watched_when_idle_rules_ask(s: Scene) -> None:
    await s.settled()
    await asyncio.sleep(40)
    assert s.bootstrap.last_activity("c-1") == ""
    s.ssh.queue = ["7"]
    await asyncio.sleep(40)
    by_queue = s.bootstrap.last_activity("c-1")
    assert by_queue
    s.ssh.queue = []
    s.ssh.logins.add("lab-w-1")
    s.bootstrap._workers["c-1"].used_at = ""
    await asyncio.sleep(40)
    assert s.bootstrap.last_activity("c-1")
    s.ssh.logins.clear()
    s.bootstrap._workers["c-1"].used_at = ""
    await asyncio.sleep(70)
    assert s.bootstrap.last_activity("c-1") == ""
    s.bootstrap.forget("c-1")
    assert s.bootstrap.last_activity("c-1") == ""


@scene(2, lifecycle={"idle": {"afterSeconds": 60}})
async def test_a_controller_that_hangs_counts_as_in_use_within_seconds(s: Scene) -> None:
    await s.settled()
    limits: list[float] = []
    run = s.ssh.run

    async def hang(target: Any, argv: Any, *, stdin: bytes = b"", seconds: float = 60.0) -> Any:
        if argv[0] != "squeue":
            return await run(target, argv, stdin=stdin, seconds=seconds)
        limits.append(seconds)
        await asyncio.sleep(seconds)
        raise Transient("took too long")

    s.ssh.run = hang  # type: ignore[method-assign]
    await asyncio.sleep(60)
    assert limits
    assert max(limits) <= 10
    assert s.bootstrap.last_activity("c-1")


@scene(0)
async def test_nothing_is_known_of_strangers_and_of_empty_clusters(s: Scene) -> None:
    assert s.ensure() == BootstrapState()
    assert s.bootstrap.machine_state("m-9") == ("Pending", "")
    assert s.bootstrap.unreachable("m-9") == ""
    assert s.bootstrap.controller("c-9") == ""
    s.bootstrap.forget("c-9")
