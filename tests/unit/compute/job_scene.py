"""ClusterJobs on a memory API server and machines in memory, with a SLURM that takes one run a node."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator
from typing import Any

from tests.unit.compute.fake_ssh import OK, Command, FakeSsh, Machine, out

from cloudmesh.compute.access import ensure_access
from cloudmesh.compute.jobs.batch import SUBMIT_PATH
from cloudmesh.compute.jobs.controller import JobReconciler
from cloudmesh.compute.kinds import CLUSTER_JOB, PLACEMENT_POLICY, VIRTUAL_CLUSTER, VIRTUAL_MACHINE
from cloudmesh.compute.runner import RUNNER_PATH
from cloudmesh.compute.ssh import Output
from cloudmesh.engine import CONFIG_MAP, EVENT, SECRET, Done, Engine, Key, Obj, Resource
from cloudmesh.engine.owners import own
from cloudmesh.testing import CrashPoint, World

KINDS = (CLUSTER_JOB, VIRTUAL_CLUSTER, VIRTUAL_MACHINE, PLACEMENT_POLICY, CONFIG_MAP, SECRET, EVENT)
REACHED = {"type": "Reachable", "status": "True", "reason": "Answers"}


def now() -> str:
    seconds = asyncio.get_running_loop().time()
    return datetime.datetime.fromtimestamp(1_763_892_000 + seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Idle:
    """Keeps a kind in the cache and does nothing with it."""

    owns = ()

    def __init__(self, resource: Resource) -> None:
        self.resource = resource

    async def reconcile(self, key: Key, obj: Obj) -> Done:
        return Done()

    def forget(self, key: Key) -> None:
        """Nothing to forget."""


class Machines(FakeSsh):
    """Besides: SLURM's commands on the controller, files and folders of jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 5.0
        self.codes: dict[str, int] = {}
        """Exit codes by the last argument of a run."""
        self.slurm: dict[str, dict[str, Any]] = {}
        self.slurm_up = True
        self.reason = "None"
        """Why SLURM lets runs wait."""
        self.outputs: dict[str, bytes] = {}
        self.checkpoint = b""
        self.restored: list[str] = []
        self.effects: list[tuple[str, str]] = []
        """Every command that really began, as (token, machine)."""
        self.behave = self._live

    def _live(self, machine: Machine, command: Command) -> None:
        self.effects.append((command.token, machine.name))
        loop = asyncio.get_running_loop()
        limit = command.seconds or 1e9
        code = self.codes.get(command.argv[-1], 0)
        timed_out = self.seconds > limit

        def end() -> None:
            if command.state == "Running" and machine.commands.get(command.token) is command:
                command.end(124 if timed_out else code, self.now(), b"out of " + " ".join(command.argv).encode())
                self._schedule()

        loop.call_later(min(self.seconds, limit), end)

    async def run(self, target: Any, argv: Any, *, stdin: bytes = b"", seconds: float = 60.0) -> Output:
        words = list(argv)
        if words[:2] == ["timeout", "-k"]:  # SLURM's own commands
            words = words[4:]
            machine = await self._reach(target)
            self.calls.append((machine.name, words))
            if not self.slurm_up:
                return out("Unable to contact slurm controller", 1)
            if words[0] == "squeue":
                return out("\n".join(self._rows()))
            assert words[:2] == ["scancel", "--quiet"]
            for token in [token for token, entry in self.slurm.items() if str(entry["id"]) in words[2:]]:
                self.cancel(token)
            return OK
        return await super().run(target, argv, stdin=stdin, seconds=seconds)

    def more(self, machine: Machine, words: list[str], stdin: bytes) -> Output:
        if words[:2] == ["sh", SUBMIT_PATH]:
            return self._submit(words[2:])
        if words[:2] == ["sh", "-c"]:
            script = words[2]
            if "rm -rf" in script:
                machine.cleared.append(words[4])
                return OK
            if "tail -c" in script:
                token = words[4].split("/")[-2]
                command = machine.commands.get(token)
                return out(f"{len(command.log)}\n{command.log.decode()}") if command else out("no such file", 1)
            if "for pattern" in script:
                lines = [f"{len(data)} {path}" for path, data in self.outputs.items()]
                return out("\n".join(lines or [f"none {pattern}" for pattern in words[5:]]))
            if "tar -cz" in script:
                return Output(0, self.checkpoint, b"")
            if "tar -xz" in script:
                self.restored.append(f"{machine.name}:{words[4].rpartition('/')[2]}:{stdin.decode()}")
                return OK
            if "cancel" in script:
                if not self.slurm_up:
                    return out("scancel: error: Unable to contact slurm controller", 1)
                for token in stdin.decode().split():
                    self.cancel(token)
                return OK
        raise AssertionError(f"nobody knows {words}")

    async def get(self, target: Any, path: str, *, limit: int = 1 << 22) -> bytes | None:
        await self._reach(target)
        return self.outputs.get(path.rpartition("/")[2])

    # -- SLURM -------------------------------------------------------------------------------------------------------

    def _submit(self, words: list[str]) -> Output:
        token = words[2]
        assert words[1].endswith("/submitted")
        if not self.slurm_up:
            return out("sbatch: error: Unable to contact slurm controller", 1)
        if "--partition=none" in words:
            return out("sbatch: error: invalid partition specified: none", 1)
        if token not in self.slurm:
            at = words.index("once")
            folder, same, seconds, files, *argv = words[at + 1 :]
            assert same == token
            assert "--no-requeue" in words
            number = len(self.slurm) + 1
            command = Command(folder, token, int(seconds), argv, 0, files=files, slurm_id=number)
            self.slurm[token] = {"id": number, "state": "PENDING", "node": "n/a", "command": command}
            asyncio.get_running_loop().call_later(0.5, self._schedule)
        return out(str(self.slurm[token]["id"]))

    def _schedule(self) -> None:
        for entry in self.slurm.values():
            command: Command = entry["command"]
            if entry["state"] == "RUNNING" and command.state != "Running":
                entry["state"] = "COMPLETED" if command.code == 0 else "FAILED"
        busy = {e["node"] for e in self.slurm.values() if e["state"] == "RUNNING"}
        free = [m for m in self.machines.values() if m.up and m.name not in busy]
        for entry in self.slurm.values():
            if entry["state"] == "PENDING" and free:
                machine = free.pop(0)
                command = entry["command"]
                entry |= {"state": "RUNNING", "node": machine.name}
                command.began = self.now()
                assert RUNNER_PATH in machine.files
                self.begin(machine, command)

    def _rows(self) -> list[str]:
        return [f"{e['id']}|{e['state']}|{e['node']}|{token}|{self._reason(e)}" for token, e in self.slurm.items()]

    def _reason(self, entry: dict[str, Any]) -> str:
        return self.reason if entry["state"] == "PENDING" else "None"

    def cancel(self, token: str) -> None:
        entry = self.slurm.get(token)
        if entry is not None and entry["state"] in ("PENDING", "RUNNING"):
            entry["state"] = "CANCELLED"
            entry["command"].state = "Lost"

    def lose_slurm(self) -> None:
        """The controller's machine is gone, and all that it knew."""
        self.slurm = {}

    def lose(self, name: str) -> None:
        """A machine dies."""
        machine = self.at(name)
        del self.machines[machine.host]
        for entry in self.slurm.values():
            if entry["node"] == name and entry["state"] == "RUNNING":
                entry["state"] = "NODE_FAIL"


class Controllers:
    """Stands for Bootstrap: knows where SLURM's controller is."""

    def __init__(self) -> None:
        self.name = "lab-w-0"
        self.up = True

    def controller(self, cluster_uid: str) -> str:
        return self.name

    def slurm_up(self, cluster_uid: str) -> bool:
        return self.up


class Scene:
    """A cluster `lab` with machines, and jobs on it."""

    def __init__(self, count: int = 2, *, slurm: bool = False, **spec: Any) -> None:
        self.world = World(KINDS)
        self.api = self.world.api
        self.api.store._now = now
        self.ssh = Machines()
        self.controllers = Controllers()
        body = {"bootstrap": {"slurm": {}} if slurm else {"ssh": {}}, **spec}
        self.cluster = self.api.put(VIRTUAL_CLUSTER, {"metadata": {"name": "lab", "namespace": "ns"}, "spec": body})
        self.count = count
        for n in range(count):
            self.add_machine(n)

    def add_machine(self, n: int, name: str = "", **changes: Any) -> None:
        name = name or f"lab-w-{n}"
        spec = {"pool": "w", "ordinal": n, "accountRef": {"name": "pods"}, "offer": {"type": "small"}}
        self.api.put(VIRTUAL_MACHINE, own({"metadata": {"name": name}, "spec": spec}, self.cluster))
        host = f"10.0.0.{n + 1}"
        self.machine_status(name, host=host, **changes)
        self.ssh.add(host, name)

    def machine_status(
        self, name: str, *, host: str = "", ready: str = "True", reason: str = "AsSpecified", **more: Any
    ) -> None:
        stored = self.api.store.get(VIRTUAL_MACHINE, ("ns", name))
        assert stored is not None
        old = stored.get("status") or {}
        condition = {"type": "Ready", "status": ready, "reason": reason, "message": more.pop("message", "")}
        status = {
            "conditions": [condition, REACHED], "sshHost": host or old.get("sshHost"), "sshPort": 2222, "sshUser": "cm",
            "state": "Running", "bootID": "1", **more,
        }  # fmt: skip
        self.api.put(VIRTUAL_MACHINE, {**stored, "status": status})

    def remove_machine(self, name: str) -> None:
        self.api.remove(VIRTUAL_MACHINE, "ns", name)

    def apply(self, name: str = "sweep", annotations: dict[str, str] | None = None, **spec: Any) -> None:
        body = {"clusterRef": {"name": "lab"}, "command": ["train"], "retry": {}, **spec}
        meta: dict[str, Any] = {"name": name, "namespace": "ns"}
        if annotations is not None:
            meta["annotations"] = annotations
        self.api.put(CLUSTER_JOB, {"metadata": meta, "spec": body})

    def job(self, name: str = "sweep") -> Obj | None:
        return self.api.store.get(CLUSTER_JOB, ("ns", name))

    def status(self, name: str = "sweep") -> dict[str, Any]:
        return (self.job(name) or {}).get("status") or {}

    def condition(self, type_: str = "Ready", name: str = "sweep") -> dict[str, Any]:
        found = [c for c in self.status(name).get("conditions") or () if c["type"] == type_]
        return found[0] if found else {}

    def runs(self, name: str = "sweep") -> list[dict[str, Any]]:
        return self.status(name).get("runs") or []

    def events(self, reason: str) -> list[str]:
        return [event["note"] for event in self.api.all(EVENT) if event["reason"] == reason]

    def config_map(self, name: str) -> dict[str, str]:
        return (self.api.store.get(CONFIG_MAP, ("ns", name)) or {}).get("data") or {}

    @contextlib.asynccontextmanager
    async def operator(self, crash: CrashPoint | None = None) -> AsyncIterator[Engine]:
        made: list[JobReconciler] = []

        def make(engine: Engine) -> JobReconciler:
            ssh = crash.wrap(self.ssh) if crash is not None else self.ssh
            made.append(JobReconciler(engine, ssh=ssh, bootstrap=self.controllers, now=now))  # type: ignore[arg-type]
            return made[0]

        idle = [lambda _, r=r: Idle(r) for r in (VIRTUAL_CLUSTER, VIRTUAL_MACHINE)]
        async with self.world.engine(make, *idle, crash=crash) as engine:
            await ensure_access(engine, self.cluster)
            try:
                yield engine
            finally:  # the process ends, and its rounds with it
                tasks = [work.task for work in made[0]._work.values() if work.task is not None]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def until(self, look: Any, seconds: float = 120.0) -> None:
        for _ in range(int(seconds * 10)):
            if look():
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {self.status()}")

    async def ended(self, seconds: float = 300.0, name: str = "sweep") -> dict[str, Any]:
        await self.until(lambda: self.status(name).get("endedAt"), seconds)
        return self.status(name)
