"""Mounts of directories on machines in memory: what is asked of them, what is told, and what waits for them."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
from tests.unit.compute.fake_ssh import Command, FakeSsh, Machine, out
from tests.unit.compute.job_scene import Scene as JobScene
from tests.unit.compute.machine_scene import Scene as MachineScene
from tests.unit.compute.test_bootstrap import ACCESS
from tests.unit.compute.test_bootstrap import Scene as BootScene

from cloudmesh.api.mounts import key_of, logins_in
from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute import machine_controller
from cloudmesh.compute.bootstrap import Bootstrap, BootstrapState
from cloudmesh.compute.bootstrap.mount_script import HELPER, HELPER_PATH
from cloudmesh.compute.bootstrap.mounts import readable
from cloudmesh.compute.cluster_status import Boot, Facts, make_status, verdict
from cloudmesh.compute.kinds import VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.mount_logins import MountLogins, MountOrder
from cloudmesh.compute.plan import plan
from cloudmesh.compute.reading import read_cluster
from cloudmesh.compute.ssh import Output
from cloudmesh.engine import CONFIG_MAP, EVENT, SECRET, CloudmeshError, NameConflict, NotFound
from cloudmesh.testing import World, run_virtual

DATA = MountOrder("k1", "/data", "files", "raw/größe x", "ReadWrite", "http://files", "vc-lab-k1", "pass")
MORE = MountOrder("k2", "/more", "files", "", "ReadOnly", "http://files/", "vc-lab-k2", "word")


class Mounting(FakeSsh):
    """Machines whose helper mounts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.mounted: dict[str, dict[str, list[str]]] = {}
        self.answers: dict[str, str] = {}
        """What a machine says of mounts instead of ok, by their keys."""
        self.status: dict[str, int] = {}
        self.ended: list[str] = []
        self.ending: list[str] = []
        """What a machine answers to `drain`, the last of it again and again; and to `clear`."""
        self.verbs: list[str] = []

    def _shell(self, machine: Machine, words: list[str], stdin: bytes) -> Output:
        if "mounts/helper" not in words[2]:
            return super()._shell(machine, words, stdin)
        if HELPER_PATH not in machine.files:
            return out("", 127)
        if status := self.status.get(machine.name):
            return out("it broke", status)
        verb, _, name = words[4:7]
        assert name == machine.name
        there = self.mounted.setdefault(machine.name, {})
        if verb != "sync":
            self.verbs.append(verb)
            tells = "" if not self.ending else self.ending[0] if verb == "drain" else self.ending[-1]
            if verb == "drain" and len(self.ending) > 2:
                del self.ending[0]
            if " wait " not in tells:
                self.ended.append(machine.name)
                there.clear()
            return out(tells)
        asked = {line.split(" ")[0]: line.split(" ") for line in stdin.decode().splitlines()}
        said = [f"{key} {self.answers[key]}" for key in there.keys() - asked.keys() if key in self.answers]
        for key in [key for key in there if key not in asked and key not in self.answers]:
            del there[key]
        for key, told in asked.items():
            if told[1] == "mount":
                there[key] = told
                said.append(f"{key} {self.answers.get(key, 'ok -')}")
        return out("\n".join(said))


class Directories:
    """Admits all but what is named."""

    def __init__(self) -> None:
        self.refused: dict[str, CloudmeshError] = {}
        self.asked: list[tuple[str, str, str, str]] = []

    async def admits(self, namespace: str, name: str, login: str, folder: str) -> None:
        self.asked.append((namespace, name, login, folder))
        if name in self.refused:
            raise self.refused[name]


class Scene(BootScene):
    def __init__(self, count: int = 2, profile: dict[str, Any] | None = None) -> None:
        super().__init__(count, profile or {"ssh": {}})
        self.ssh: Mounting = Mounting()
        for view in self.machines.values():
            self.ssh.add(view.host, view.name)
        self.directories = Directories()
        self.bootstrap = Bootstrap(self.ssh, self.kube, self.told.append, lambda: self.directories)  # type: ignore[arg-type, return-value]
        self.orders: tuple[MountOrder, ...] | None = (DATA,)

    def ensure(self) -> BootstrapState:
        return self.bootstrap.ensure(self.cluster, list(self.machines.values()), ACCESS, self.orders)

    async def after(self, seconds: float) -> BootstrapState:
        self.ensure()
        await asyncio.sleep(seconds)
        return self.ensure()


def on(scene: Scene, body: Any) -> None:
    async def main() -> None:
        try:
            await body(scene)
        finally:
            await scene.bootstrap.close()

    run_virtual(main())


def test_all_machines_mount_and_are_looked_at() -> None:
    async def body(s: Scene) -> None:
        assert s.ensure().mounts == "the directories are being mounted"
        state = await s.after(5)
        assert (state.mounts, state.unmounted) == ("", True)
        line = s.ssh.mounted["lab-w-1"]["k1"]
        url = "http://files/dav/raw/gr%C3%B6%C3%9Fe%20x/"
        assert line == ["k1", "mount", DATA.digest, "ReadWrite", "/data", "vc-lab-k1", "pass", url]
        assert s.ssh.at("lab-w-0").modes[HELPER_PATH] == 0o700
        assert s.ssh.at("lab-w-0").files[HELPER_PATH] == HELPER.encode()
        assert not any("pass" in word for _, words in s.ssh.calls for word in words)
        assert s.directories.asked == [("ns", "files", "vc-lab-k1", "raw/größe x")]
        looks = len(s.ssh.calls)
        s.ssh.answers["k1"] = "fail no answer within 20 s: dial tcp: refused"
        state = await s.after(40)
        assert len(s.ssh.calls) > looks
        words = "lab-w-0: /data: no answer within 20 s: dial tcp: refused (2 of 2 machines)"
        assert state.mounts == words
        assert state.done == {"m-0", "m-1"}, "a directory that is away is no reason to replace a machine"
        s.directories.refused["files"] = NotFound("VirtualDirectory 'files' isn't there")
        words = "lab-w-0: /data: VirtualDirectory 'files' isn't there (2 of 2 machines)"
        assert (await s.after(40)).mounts == words
        s.ssh.answers.clear()
        assert (await s.after(40)).mounts == ""

    on(Scene(), body)


def test_a_login_is_not_tried_before_its_directory_knows_it() -> None:
    async def body(s: Scene) -> None:
        s.directories.refused["files"] = NotFound("VirtualDirectory 'files' isn't there")
        state = await s.after(10)
        assert state.mounts is not None
        assert state.mounts.startswith("lab-w-0: /data isn't mounted: VirtualDirectory 'files' isn't there")
        assert s.ssh.mounted["lab-w-0"] == {}
        s.directories.refused.clear()
        assert (await s.after(30)).mounts == ""
        # it was admitted once: what is mounted isn't taken away because the directory can't be asked
        s.directories.refused["files"] = NotFound("gone")
        assert (await s.after(60)).mounts == ""
        assert set(s.ssh.mounted["lab-w-0"]) == {"k1"}

    on(Scene(), body)


def test_what_left_the_spec_goes_and_what_could_not_be_written_is_told_once() -> None:
    async def body(s: Scene) -> None:
        s.orders = (DATA, MORE)
        assert (await s.after(10)).mounts == ""
        s.orders = ()
        s.ssh.answers["k1"] = "wait /data: 2 files are still being written into the directory"
        state = await s.after(5)
        assert state.mounts == (
            "mounts are being taken away; lab-w-0: /data: 2 files are still being written into the directory"
        )
        assert not state.unmounted
        s.ssh.answers["k1"] = "left /data: 2 files that could not be written into the directory are kept in /x"
        state = await s.after(30)
        assert (state.mounts, state.unmounted) == ("", True)
        assert state.left[0] == ("lab-w-0: /data: 2 files that could not be written into the directory are kept in /x")
        s.ssh.answers.clear()
        await s.after(30)
        assert s.ensure().left == ()
        assert s.ssh.mounted == {"lab-w-0": {}, "lab-w-1": {}}
        s.orders = None
        calls = len(s.ssh.calls)
        await s.after(1)
        await s.after(300)
        assert s.ensure().mounts is None
        assert len(s.ssh.calls) <= calls

    on(Scene(), body)


def test_a_machine_that_is_not_root_or_lost_its_files_is_told() -> None:
    async def body(s: Scene) -> None:
        s.ssh.status["lab-w-1"] = 77
        state = await s.after(5)
        assert state.mounts is not None
        assert state.mounts.startswith("lab-w-1: the login user isn't root and can't become it")
        assert "(2 of" not in state.mounts
        s.ssh.status.clear()
        s.ssh.at("lab-w-1").files.clear()
        assert (await s.after(60)).mounts == ""
        s.orders = ()
        s.ssh.status["lab-w-1"] = 77
        assert (await s.after(60)).unmounted, "where nothing can be mounted nothing is"

    on(Scene(), body)


def test_a_machine_that_has_just_come_or_started_anew_is_not_taken_for_mounted() -> None:
    async def body(s: Scene) -> None:
        name = "lab-w-1"
        s.machines[name] = dataclasses.replace(s.machines[name], reachable=False)
        assert (await s.after(5)).mounts == ""
        assert set(s.ssh.mounted) == {"lab-w-0"}
        s.machines[name] = dataclasses.replace(s.machines[name], reachable=True)
        assert s.ensure().mounts == "the directories are being mounted"
        assert (await s.after(5)).mounts == ""
        assert set(s.ssh.mounted) == {"lab-w-0", "lab-w-1"}
        s.machines[name] = dataclasses.replace(s.machines[name], boot_id="2")
        assert s.ensure().mounts == "the directories are being mounted"
        assert (await s.after(5)).mounts == ""

    on(Scene(), body)


def test_a_script_waits_for_its_mounts() -> None:
    async def body(s: Scene) -> None:
        await s.kube.create(
            CONFIG_MAP, {"metadata": {"name": "setup", "namespace": "ns"}, "data": {"bootstrap.sh": "true\n"}}
        )

        def end(_: Machine, command: Command) -> None:
            command.end(0, 0)

        s.ssh.behave = end
        s.ssh.answers["k1"] = "fail the machine has no /dev/fuse"
        state = await s.after(20)
        assert not state.done
        assert "/data: the machine has no /dev/fuse" in state.message
        assert not s.ssh.at("lab-w-0").commands
        s.ssh.answers.clear()
        state = await s.after(60)
        assert state.done == {"m-0", "m-1"}
        s.ssh.answers["k1"] = "fail gone"
        assert (await s.after(60)).done == {"m-0", "m-1"}

    on(Scene(profile={"script": {"configMapRef": {"name": "setup"}}}), body)


def test_a_machine_that_ends_is_unmounted() -> None:
    async def body(s: Scene) -> None:
        await s.after(5)
        await s.bootstrap.unmount(s.machines["lab-w-0"], "c-1", ACCESS)
        assert s.ssh.ended == ["lab-w-0"]
        assert s.ssh.mounted["lab-w-0"] == {}
        s.ssh.status["lab-w-0"] = 1
        with pytest.raises(CloudmeshError, match="it broke"):
            await s.bootstrap.unmount(s.machines["lab-w-0"], "c-1", ACCESS)
        s.ssh.status["lab-w-0"] = 77
        assert await s.bootstrap.unmount(s.machines["lab-w-0"], "c-1", ACCESS) == ()

    on(Scene(), body)


WAITS = "k1 wait /data: 3 files are still being written into the directory"
LEFT = "k1 left /data: 3 files that could not be written into the directory are kept in /x"


@pytest.mark.parametrize("sent", [True, False])
def test_a_machine_that_ends_waits_for_what_was_written_but_not_for_ever(sent: bool) -> None:
    async def body(s: Scene) -> None:
        await s.after(5)
        clock = asyncio.get_running_loop().time
        began = clock()
        s.ssh.ending = [WAITS, WAITS, "", ""] if sent else [WAITS, LEFT]
        left = await s.bootstrap.unmount(s.machines["lab-w-0"], "c-1", ACCESS)
        assert s.ssh.ended == ["lab-w-0"]
        if sent:
            assert (left, s.ssh.verbs) == ((), ["drain"] * 3)
        else:
            assert left == (f"lab-w-0: {LEFT.removeprefix('k1 left ')}",)
            assert s.ssh.verbs[-2:] == ["drain", "clear"]
            assert 300 <= clock() - began < 330

    on(Scene(), body)


class Ends:
    """A bootstrap that tells of files that weren't written."""

    def machine_state(self, uid: str) -> tuple[str, str]:
        return ("Done", "")

    async def unmount(self, machine: Any, cluster_uid: str, access: Any) -> tuple[str, ...]:
        return (f"{machine.name}: /data: 3 files that could not be written into the directory are kept in /x",)


@pytest.mark.parametrize("stays", [True, False])
def test_files_that_a_machine_takes_with_it_are_told_by_an_event(stays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_access(engine: Any, cluster: Any) -> Any:
        return ACCESS

    async def probe(*words: Any) -> str:
        return ""

    monkeypatch.setattr(machine_controller, "read_access", read_access)

    async def main() -> None:
        s = MachineScene(ssh=True)
        s.use(hosts_stay=stays)
        s.add_account()
        owner = s.add_cluster()
        mounted = {"type": "Mounted", "status": "True", "reason": "AsSpecified", "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        s.api.put(VIRTUAL_CLUSTER, owner | {"status": {"conditions": [mounted]}})
        s.add_machine(cluster=owner)
        async with s.operator(probe=probe, bootstrap=Ends):
            await s.until(s.is_ready)
            await s.delete(VIRTUAL_MACHINE, "m")
            await s.until(lambda: not s.is_there(VIRTUAL_MACHINE, "m"))
            await s.until(lambda: "FilesLeft" in dict(s.events()))
        words = "m: /data: 3 files that could not be written into the directory are kept in /x"
        (event,) = [e for e in s.api.all(EVENT) if e["reason"] == "FilesLeft"]
        assert (event["type"], event["note"]) == (
            "Warning",
            words if stays else f"{words}, and go with the machine's disk",
        )
        assert event["regarding"]["name"] == "m"
        assert not s.living()

    run_virtual(main())


def test_a_login_stays_until_each_machine_that_had_it_has_answered_or_is_gone() -> None:
    async def body(s: Scene) -> None:
        name = "lab-w-1"
        assert (await s.after(10)).mounts == ""
        s.orders = (DATA, MORE)
        s.machines[name] = dataclasses.replace(s.machines[name], reachable=False)
        assert (await s.after(10)).unmounted
        s.orders = (DATA,)
        assert (await s.after(10)).unmounted, "it never had the other one"
        s.orders = ()
        waits = "mounts are being taken away; waits for lab-w-1 to answer or to be gone"
        state = await s.after(60)
        assert (state.mounts, state.unmounted, state.going) == ("", False, waits)
        # nor is it gone while it is being deleted
        s.machines[name] = dataclasses.replace(s.machines[name], deleting=True, node_id="i-1")
        state = await s.after(60)
        assert (state.unmounted, state.going) == (False, waits)
        kept = s.machines.pop(name)
        state = await s.after(60)
        assert (state.unmounted, state.going) == (True, "")
        # another process doesn't know what a machine has that isn't reached
        s.machines[name] = dataclasses.replace(kept, deleting=False)
        assert not (await s.after(60)).unmounted
        s.machines[name] = dataclasses.replace(s.machines[name], reachable=True)
        assert (await s.after(60)).unmounted
        assert s.ssh.mounted[name] == {}

    on(Scene(), body)


def test_answers_of_a_gateway_are_told_in_its_own_words() -> None:
    told = (
        'couldn\'t list files: {"status": 401, "detail": "the token or password isn\'t known here"}: 401 Unauthorized'
    )
    assert readable(told) == "the directory answers: the token or password isn't known here"
    assert readable("dial tcp 10.0.0.1:80: connection refused") == "dial tcp 10.0.0.1:80: connection refused"


# -- logins


def cluster(mounts: Sequence[dict[str, Any]], **status: Any) -> dict[str, Any]:
    spec = {"mounts": [{"directoryRef": {"name": "files"}, **mount} for mount in mounts]}
    body = {"apiVersion": "cloudmesh.org/v1alpha1", "kind": "VirtualCluster", "spec": spec, "status": status}
    return {**body, "metadata": {"name": "lab", "namespace": "ns", "uid": "c-1"}}


def test_logins_are_made_once_kept_while_needed_and_never_used_again() -> None:
    async def main() -> None:
        world = World((VIRTUAL_CLUSTER, SECRET))
        async with world.engine() as engine:
            logins = MountLogins(engine)

            async def ensure(*mounts: dict[str, Any]) -> tuple[MountOrder, ...]:
                obj = cluster(mounts)
                return await logins.ensure(obj, VirtualCluster.model_validate(obj))

            def held() -> dict[str, Any]:
                data = (world.api.get(SECRET, "ns", "lab-vc-mounts") or {}).get("data") or {}
                return dict(logins_in({key: base64.b64decode(text) for key, text in data.items()}))

            data, raw = {"path": "/data"}, {"path": "/raw", "subPath": "raw", "access": "ReadOnly"}
            first = await ensure(data, raw)
            assert [(o.path, o.folder, o.access, o.address) for o in first] == [
                ("/data", "", "ReadWrite", "http://files-vdir.ns.svc"), ("/raw", "raw", "ReadOnly", "http://files-vdir.ns.svc"),
            ]  # fmt: skip
            assert len({o.password for o in first} | {o.login for o in first}) == 4
            assert {k: (v.folder, v.access) for k, v in held().items()} == {
                first[0].key: ("", "ReadWrite"), first[1].key: ("raw", "ReadOnly"),
            }  # fmt: skip
            assert first[0].password not in repr(first)
            writes = len(world.api.store.writes)
            assert await ensure(data, raw) == first
            assert (
                await MountLogins(engine).ensure(
                    cluster([data, raw]), VirtualCluster.model_validate(cluster([data, raw]))
                )
                == first
            ), "another process finds them"
            assert len(world.api.store.writes) == writes
            # another address is another digest
            (changed, _) = await ensure({**data, "address": "https://f.example.org/x/"}, raw)
            assert (changed.login, changed.password) == (first[0].login, first[0].password)
            assert changed.url == "https://f.example.org/x/dav/"
            assert changed.digest != first[0].digest
            # another access is another mount: what was written to the one before gets in with its login
            obj = cluster([{**data, "access": "ReadOnly"}, raw])
            (only, _) = orders = await ensure(*obj["spec"]["mounts"])
            assert logins.leaving(obj, orders)
            assert (held()[first[0].key].access, held()[only.key].access) == ("ReadWrite", "ReadOnly")
            await logins.drop(obj, orders)
            assert set(held()) == {only.key, first[1].key}
            await ensure(data, raw)
            await logins.drop(cluster([data, raw]), await ensure(data, raw))
            left = await ensure(raw)
            assert logins.leaving(cluster([raw]), left)
            assert len(held()) == 2, "what is being unmounted is still let in"
            await logins.drop(cluster([raw]), left)
            assert set(held()) == {first[1].key}
            assert not logins.leaving(cluster([raw]), left)
            again = await ensure(data, raw)
            assert again[0].password != first[0].password
            await logins.drop(cluster([]), ())
            assert held() == {}

    run_virtual(main())


def test_a_strangers_secret_is_left_alone() -> None:
    async def main() -> None:
        world = World((VIRTUAL_CLUSTER, SECRET))
        world.api.put(SECRET, {"metadata": {"name": "lab-vc-mounts", "namespace": "ns"}, "data": {}})
        async with world.engine() as engine:
            obj = cluster([{"path": "/data"}])
            with pytest.raises(NameConflict, match="Secret 'lab-vc-mounts' exists"):
                await MountLogins(engine).ensure(obj, VirtualCluster.model_validate(obj))

    run_virtual(main())


def test_another_folder_or_directory_is_another_mount() -> None:
    spec = VirtualCluster.model_validate(cluster([{"path": "/a"}, {"path": "/b"}, {"path": "/c", "subPath": "x"}])).spec
    keys = {key_of(m) for m in spec.mounts} | {key_of(m.model_copy(update={"sub_path": "y"})) for m in spec.mounts}
    assert len(keys) == 6


# -- status


def test_a_cluster_is_not_ready_before_its_mounts_answer() -> None:
    asked = read_cluster(VirtualCluster.model_validate({**cluster([{"path": "/data"}]), "status": {}}))
    needed = plan(asked, (), 0)

    def status(obj: dict[str, Any], mounts: str | None, rest: str = "") -> dict[str, Any]:
        facts = Facts((), (), needed, rest=rest, boot=Boot("Done", "", "", mounts))
        made = make_status(obj, asked, facts, "2026-01-01T00:00:00Z", verdict(asked, facts))
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in made["conditions"]} | {"status": made}

    told = status(cluster([]), "lab-w-0: /data: gone")
    assert told["Mounted"] == ("False", "NotMounted", "lab-w-0: /data: gone")
    there = cluster([]) | {"status": told["status"]}
    assert status(there, "")["Mounted"][0] == "True"
    assert status(there, None, rest="Idle")["Mounted"][0] == "False", "what is mounted isn't known while it rests"
    assert "Mounted" not in status(there, None)


# -- jobs


def test_no_run_begins_before_the_directories_are_mounted() -> None:
    async def main() -> None:
        scene = JobScene(mounts=[{"path": "/data", "directoryRef": {"name": "files"}}])
        scene.apply()
        async with scene.operator():
            await asyncio.sleep(60)
            assert scene.condition()["message"].startswith("VirtualCluster 'lab' mounts its directories")
            assert not scene.ssh.effects
            found = scene.api.get(VIRTUAL_CLUSTER, "ns", "lab") or {}
            mounted = {"type": "Mounted", "status": "True", "reason": "AsSpecified", "message": "",
                       "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
            scene.api.put(VIRTUAL_CLUSTER, found | {"status": {"conditions": [mounted]}})
            await scene.ended()
            assert scene.condition()["status"] == "True"

    run_virtual(main())
