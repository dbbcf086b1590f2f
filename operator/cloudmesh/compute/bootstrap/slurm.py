"""SLURM on a cluster's machines: one controller, all of them nodes, `srun` as the proof.

The controller is the first living machine of the first pool, and stays it while it lives. When it is lost, the next one
takes over: what SLURM knew is lost then (a Pod has no disk that outlives it), and the nodes register again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import DONE, Host, Result, for_all, target_of
from cloudmesh.compute.bootstrap.pairs import Met, Pair, blame, pairs_of
from cloudmesh.compute.ssh import Output, Ssh
from cloudmesh.engine import CloudmeshError, Transient

HELPER = "/opt/cloudmesh/machine/slurm"
FOLDER = ".cloudmesh/slurm"
WAIT_SECONDS = 20
CALL_SECONDS = 90.0
PROOF_SECONDS = 20
BUSY_SECONDS = 8.0
"""A controller that doesn't tell its queue for so long is asked again at the next look."""
CTL_PORT, NODE_PORT = 6817, 6818
UP, NO_KEY, LATER = 0, 66, 75
NO_SUCH_COMMAND = 127
IDLE = "IDLE"
USABLE = frozenset({IDLE, "MIXED", "ALLOCATED", "COMPLETING", "RESERVED"})
NOT_YET = Result("Pending")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sinfo", "srun", "scontrol")


@dataclass(slots=True)
class SlurmState:
    """What is remembered of one cluster's SLURM between two passes."""

    controller: Host | None = None
    started: dict[str, Host] = field(default_factory=dict)
    """Hosts that were started for this controller, by uid, as they were then."""
    nodes: Mapping[str, str] = field(default_factory=dict)
    """States of the nodes by name, as the controller told them last."""
    proved: bool = False
    """A node of this controller was usable."""
    met: Met = field(default_factory=Met)

    @property
    def up(self) -> bool:
        """Whether the controller takes jobs: it answered the last pass, and a node has proved itself."""
        return self.proved and bool(self.nodes)


async def settle(
    ssh: Ssh, access: ClusterAccess, hosts: Sequence[Host], done: Mapping[str, Result], state: SlurmState
) -> dict[str, Result]:
    """One pass: brings SLURM nearer to running on all hosts, and tells how far each is."""
    if not hosts:
        state.controller, state.nodes, state.proved = None, {}, False
        return {}
    controller = await _choose(ssh, access, hosts, state)
    if state.controller is None or (state.controller.uid, state.controller.address) != (
        controller.uid,
        controller.address,
    ):
        state.started, state.nodes, state.proved = {}, {}, False
    state.controller = controller
    state.started = {h.uid: _life(h) for h in hosts if state.started.get(h.uid) == _life(h)}
    results = {h.uid: Result("Pending", f"{h.name} isn't reached") for h in hosts if not h.reachable}
    fresh = [
        h for h in hosts if h.reachable and (h.uid not in state.started or done.get(h.uid, NOT_YET).state != "Done")
    ]
    pairs = pairs_of([h for h in hosts if h.reachable], fresh, controller)
    state.met.keep(hosts)
    results |= await _probe(ssh, access, state, fresh, ((one, other, other.port) for one, other in pairs))
    blocked = {h.uid for h in fresh if h.uid in results}
    begun = await for_all(
        (h for h in fresh if h.uid not in blocked), lambda h: _start(ssh, access, h, controller, state)
    )
    listening = set()
    for uid, found in begun.items():
        results[uid], listens = (_failed(found), False) if isinstance(found, CloudmeshError) else found
        if listens:
            listening.add(uid)
    state.nodes = await _nodes(ssh, access, controller)
    for host in hosts:
        if host.uid not in results:
            usable = state.nodes.get(host.name, "").rstrip("*") in USABLE
            results[host.uid] = DONE if usable else _down(host, state)
            if usable:
                listening.add(host.uid)
    entrants = [h for h in fresh if h.uid not in blocked]
    asked = [(one, other, NODE_PORT) for one, other in pairs if one.uid not in blocked and other.uid in listening]
    if state.nodes:
        asked += [(h, controller, CTL_PORT) for h in entrants if h.uid != controller.uid]
    results |= await _probe(ssh, access, state, entrants, asked)
    await _forget(ssh, access, controller, hosts, state)
    proving = [h for h in entrants if results[h.uid] == DONE and done.get(h.uid) != DONE]
    results |= await _prove(ssh, access, controller, proving, state)
    state.proved = state.proved or DONE in results.values()
    return results


async def _choose(ssh: Ssh, access: ClusterAccess, hosts: Sequence[Host], state: SlurmState) -> Host:
    """The remembered one while it lives; after a restart of ours the one that runs as such; else the first."""
    if state.controller is not None:
        return next((h for h in hosts if h.uid == state.controller.uid), hosts[0])
    told = await for_all((h for h in hosts if h.reachable), lambda h: _ask(ssh, access, h, "status"))
    answers = {uid: answer[1] for uid, answer in told.items() if not isinstance(answer, CloudmeshError)}
    running = [h for h in hosts if answers.get(h.uid, {}).get("slurmctld")]
    return running[0] if running else hosts[0]


async def _probe(
    ssh: Ssh, access: ClusterAccess, state: SlurmState, fresh: Sequence[Host], pairs: Iterable[Pair]
) -> dict[str, Result]:
    """Tries pairs; tells of new machines that are cut off. The controller is never called so: the others need it."""
    failed, silent = await state.met.try_all(ssh, access, pairs)
    new = [h for h in fresh if state.controller is None or h.uid != state.controller.uid]
    return {h.uid: Result("Pending", silent[h.uid]) for h in fresh if h.uid in silent} | {
        uid: Result("Pending", message, unreachable=True) for uid, message in blame(failed, new).items()
    }


async def _start(
    ssh: Ssh, access: ClusterAccess, host: Host, controller: Host, state: SlurmState
) -> tuple[Result, bool]:
    """Starts SLURM; tells how far it is, and whether its node takes connections."""
    target = target_of(host, access)
    await ssh.put(target, {f"{FOLDER}/munge.key": access.munge_key}, mode=0o400)
    role = "both" if host.uid == controller.uid else "node"
    argv = ["start", "--role", role, "--ctl", controller.name, "--ctl-address", controller.address]
    code, answer = await _ask(ssh, access, host, *argv, "--wait", str(WAIT_SECONDS))
    if code == UP:
        state.started[host.uid] = _life(host)
        return DONE, True
    message = f"{host.name}: {answer.get('message') or 'SLURM is not up yet'}"
    return Result("Pending" if code in (LATER, NO_KEY) else "Failed", message), answer.get("slurmd") is True


async def _nodes(ssh: Ssh, access: ClusterAccess, controller: Host) -> dict[str, str]:
    _, answer = await _ask(ssh, access, controller, "status")
    nodes = answer.get("nodes")
    if not isinstance(nodes, dict):
        return {}
    return {str(name): str(value).upper() for name, value in nodes.items()}


def _down(host: Host, state: SlurmState) -> Result:
    """A node that ran and is not usable now is started again at the next pass."""
    state.started.pop(host.uid, None)
    return Result("Pending", f"{host.name} is {state.nodes.get(host.name) or 'not registered'} in SLURM")


async def _forget(ssh: Ssh, access: ClusterAccess, controller: Host, hosts: Sequence[Host], state: SlurmState) -> None:
    """Takes nodes whose machines are gone or going off the controller's list."""
    names = {h.name for h in hosts}
    gone = sorted(name for name in state.nodes if name not in names)
    if gone:
        await _ask(ssh, access, controller, "forget", *gone)


async def _prove(
    ssh: Ssh, access: ClusterAccess, controller: Host, hosts: Sequence[Host], state: SlurmState
) -> dict[str, Result]:
    """Runs `hostname` through SLURM on new nodes; those that run a job already have proved it."""
    idle = [h for h in hosts if state.nodes.get(h.name) == IDLE]
    if not idle:
        return {}
    names = ",".join(h.name for h in idle)
    count = str(len(idle))
    argv = ["srun", f"--immediate={PROOF_SECONDS}", "-N", count, "-n", count, f"--nodelist={names}", "--chdir=/"]
    done = await ssh.run(target_of(controller, access), [*argv, "hostname"], seconds=PROOF_SECONDS + 40)
    said = set(done.text.split())
    return {
        h.uid: DONE if h.name in said else Result("Pending", f"srun doesn't reach {h.name}: {done.complaint}")
        for h in idle
    }


async def is_busy(ssh: Ssh, access: ClusterAccess, controller: Host) -> bool:
    """Whether SLURM has jobs that wait or run."""
    done = await ssh.run(target_of(controller, access), ["squeue", "--noheader", "--format=%i"], seconds=BUSY_SECONDS)
    if done.status != 0:
        raise Transient(f"squeue on {controller.name}: {done.complaint}")
    return bool(done.text.strip())


async def _ask(ssh: Ssh, access: ClusterAccess, host: Host, *argv: str) -> tuple[int, dict[str, Any]]:
    """Calls the machine's helper, or says what the machine lacks.

    Raises:
        CloudmeshError: The machine can't be asked.
    """
    target = target_of(host, access)
    done = await ssh.run(target, [HELPER, *argv], seconds=CALL_SECONDS)
    if done.status == NO_SUCH_COMMAND:
        return NO_SUCH_COMMAND, {"message": await _lacking(ssh, access, host)}
    return done.status, _json(done)


def _json(done: Output) -> dict[str, Any]:
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {"message": done.complaint}


async def _lacking(ssh: Ssh, access: ClusterAccess, host: Host) -> str:
    check = 'for p; do command -v "$p" >/dev/null || test -x "/usr/sbin/$p" || echo "$p"; done'
    done = await ssh.run(target_of(host, access), ["sh", "-c", check, "sh", *PROGRAMS])
    lacks = ", ".join(done.text.split())
    if lacks:
        return f"the image lacks {lacks}: Debian's packages are slurmctld, slurmd, slurm-client and munge"
    return f"the image lacks {HELPER}"


def _life(host: Host) -> Host:
    """What a host was when it was started; whether it answers at a moment is no part of it."""
    return replace(host, reachable=True)


def _failed(error: CloudmeshError) -> Result:
    return Result("Pending", str(error))
