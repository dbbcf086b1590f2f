"""Machines in memory behind the port `Ssh`: files, the SLURM helper, commands of the runner; down when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.compute.bootstrap.slurm import HELPER
from cloudmesh.compute.runner import RUNNER_PATH
from cloudmesh.compute.ssh import Output, SshTarget
from cloudmesh.engine import Transient

OK = Output(0, b"", b"")


def out(text: str, status: int = 0) -> Output:
    return Output(status, text.encode(), b"") if status == 0 else Output(status, b"", text.encode())


@dataclass
class Command:
    """A command that the runner started."""

    folder: str
    token: str
    seconds: int
    argv: list[str]
    began: int
    state: str = "Running"
    code: int | None = None
    ended: int | None = None
    log: bytes = b""
    slurm_id: int | None = None
    files: str = "-"

    def end(self, code: int, now: int, log: bytes = b"") -> None:
        self.state, self.code, self.ended = "Ended", code, now
        self.log += log


@dataclass
class Machine:
    """One host."""

    host: str
    name: str
    up: bool = True
    silent: bool = False
    """Connections to it stay open and nothing comes."""
    files: dict[str, bytes] = field(default_factory=dict)
    modes: dict[str, int] = field(default_factory=dict)
    helper: bool = True
    slurm: dict[str, Any] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    """Addresses, or `address:port`, that it can't reach."""
    commands: dict[str, Command] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    """Folders that were removed."""

    def lose_all(self) -> None:
        """A new container: nothing of before is there."""
        self.files, self.slurm, self.commands = {}, {}, {}


Behave = Callable[[Machine, Command], None]


class FakeSsh:
    """All hosts; `calls` lists what was run, as (host, argv)."""

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.calls: list[tuple[str, list[str]]] = []
        self.delay = 0.0
        self.behave: Behave | None = None
        """Called with each command that starts."""
        self.srun_works = True
        self.queue: list[str] = []
        """What squeue prints."""
        self.logins: set[str] = set()
        self.secrets_seen: list[str] = []

    def add(self, host: str, name: str, **more: Any) -> Machine:
        machine = self.machines[host] = Machine(host, name, **more)
        return machine

    def at(self, name: str) -> Machine:
        return next(m for m in self.machines.values() if m.name == name)

    async def _reach(self, target: SshTarget) -> Machine:
        await asyncio.sleep(self.delay)
        machine = self.machines.get(target.host)
        if machine is None or not machine.up:
            raise Transient(f"{target} can't be reached")
        if machine.silent:
            await asyncio.sleep(3600)
        return machine

    async def run(self, target: SshTarget, argv: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Output:
        machine = await self._reach(target)
        words = list(argv)
        self.calls.append((machine.name, words))
        if words[0] == HELPER:
            return self._helper(machine, words[1:]) if machine.helper else out("no such file", 127)
        if words[:2] == ["bash", "-c"]:
            peers = zip(words[4::2], words[5::2], strict=True)
            return out("\n".join(f"{host} {port}" for host, port in peers if not self._reaches(machine, host, port)))
        if words[0] == "srun":
            names = next(w for w in words if w.startswith("--nodelist=")).partition("=")[2].split(",")
            return out("\n".join(names)) if self.srun_works else out("unable to allocate", 1)
        if words[0] == "squeue":
            return out("\n".join(self.queue))
        if words[:2] == ["sh", RUNNER_PATH]:
            return self._runner(machine, words[2:])
        if words[:2] == ["sh", "-c"]:
            return self._shell(machine, words, stdin)
        if words[0] == "tail":
            token = words[-1].split("/")[-2]
            return Output(0, machine.commands[token].log[-int(words[2]) :], b"")
        return self.more(machine, words, stdin)

    def _reaches(self, machine: Machine, host: str, port: str) -> bool:
        other = self.machines.get(host)
        return other is not None and other.up and not {host, f"{host}:{port}"} & machine.blocked

    def more(self, machine: Machine, words: list[str], stdin: bytes) -> Output:
        raise AssertionError(f"nobody knows {words}")

    async def put(self, target: SshTarget, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
        machine = await self._reach(target)
        machine.files |= files
        machine.modes |= dict.fromkeys(files, mode)

    async def get(self, target: SshTarget, path: str, *, limit: int = 1 << 22) -> bytes | None:
        data = (await self._reach(target)).files.get(path)
        return data if data is None else data[:limit]

    async def stream(
        self, target: SshTarget, argv: Sequence[str], *, seconds: float = 60.0
    ) -> AsyncGenerator[bytes, None]:
        assert list(argv[:2]) == ["head", "-c"]
        data = await self.get(target, argv[3])
        if data is None:
            raise Transient(f"{target}: there is no {argv[3]}")
        yield data[: int(argv[2])]

    # -- the SLURM helper --------------------------------------------------------------------------------------------

    def _controller(self) -> Machine | None:
        return next((m for m in self.machines.values() if m.up and m.slurm.get("role") == "both"), None)

    def _nodes(self) -> dict[str, str]:
        head = self._controller()
        if head is None:
            return {}
        nodes: dict[str, str] = head.slurm.setdefault("nodes", {})
        for m in self.machines.values():
            if m.slurm.get("ctl") == head.name:
                nodes[m.name] = "IDLE" if m.up else "DOWN*"
        return nodes

    def _helper(self, machine: Machine, words: list[str]) -> Output:
        if words[0] == "start":
            if "munge.key" not in "".join(machine.files):
                return Output(66, b'{"message": "no munge.key"}', b"")
            role, head = words[words.index("--role") + 1], words[words.index("--ctl") + 1]
            machine.started.append(f"{role}:{head}")
            if machine.slurm.get("role") != role or machine.slurm.get("ctl") != head:
                machine.slurm = {"role": role, "ctl": head}
        elif words[0] == "forget":
            for name in words[1:]:
                self._nodes().pop(name, None)
        role = machine.slurm.get("role", "")
        nodes = self._nodes() if role else {}
        ready = nodes.get(machine.name) == "IDLE"
        answer = {
            "role": role, "slurmctld": True if role == "both" else None, "slurmd": bool(role), "nodes": nodes,
            "ready": ready, "message": "" if ready else "the controller doesn't answer",
        }  # fmt: skip
        return Output(0 if ready or words[0] != "start" else 75, json.dumps(answer).encode(), b"")

    # -- the runner --------------------------------------------------------------------------------------------------

    def _runner(self, machine: Machine, words: list[str]) -> Output:
        assert words[0] == "start"
        folder, token, seconds, files, *argv = words[1:]
        if RUNNER_PATH not in machine.files:
            return out("no such file", 127)
        if token not in machine.commands:
            self.begin(machine, Command(folder, token, int(seconds), argv, self.now(), files=files))
        return OK

    def begin(self, machine: Machine, command: Command) -> None:
        machine.commands[command.token] = command
        if self.behave is not None:
            self.behave(machine, command)

    def now(self) -> int:
        return int(asyncio.get_event_loop().time()) + 1_700_000_000

    def _shell(self, machine: Machine, words: list[str], stdin: bytes) -> Output:
        if "Include cloudmesh" in words[2]:
            return OK
        if "/proc/[0-9]*" in words[2]:
            busy = machine.name in self.logins or any(c.state == "Running" for c in machine.commands.values())
            return out("login" if busy else "")
        asked = [line.split() for line in stdin.decode().splitlines()]
        if words[-1] == "look":
            lines = []
            for _, token in asked:
                c = machine.commands.get(token)
                lines.append(
                    f"{token} None - - -" if c is None
                    else f"{token} {c.state} {'-' if c.code is None else c.code} {c.began} {c.ended or '-'}"
                )  # fmt: skip
            return out("\n".join(lines))
        if "stop" in words[2]:
            for _, token in asked:
                if (c := machine.commands.get(token)) is not None and c.state == "Running":
                    c.end(143, self.now())
            return OK
        return self.more(machine, words, stdin)
