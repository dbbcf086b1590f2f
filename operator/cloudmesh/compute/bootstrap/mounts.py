"""Directories mounted on machines: one call a machine and look, which mends what it finds otherwise than asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import Host, for_all, target_of
from cloudmesh.compute.bootstrap.mount_script import AS_ROOT, HELPER, HELPER_PATH, NO_HELPER, NOT_ROOT
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.mount_logins import MountOrder
from cloudmesh.compute.ssh import Output, Ssh
from cloudmesh.engine import CloudmeshError, InvalidRequest, NotFound, Transient
from cloudmesh.engine.directories import Directories

CALL_SECONDS = 420.0
"""A call may have to install what a mount needs."""
FLUSH_SECONDS = 10
END_SECONDS = 300
"""So long the end of a machine waits for what was written to get into the directory."""
END_AGAIN_SECONDS = 5.0
NO_ROOT = (
    "the login user isn't root and can't become it by `sudo` without a password, and a mount needs root and /dev/fuse."
    " Pods under Pod Security `restricted` have neither: use `files.directory` of a ClusterJob, or vdir:// in programs"
)
_DETAIL = re.compile(r'"detail": *"([^"]*)"')

Reach = Callable[[], Directories | None]


@dataclass(slots=True)
class MountState:
    """What is known of the mounts of a cluster.

    Args:
        troubles: By uid of a machine why a mount isn't as asked, naming machine and path.
        going: Why mounts that left the spec are still on a machine that is reached; empty if none is.
        settled: What was asked for when that was found; None before the first look.
        seen: Uids and lives of the machines that were looked at.
        left: What was told of files that couldn't be written, not taken yet.
        held: By uid of a machine the keys of mounts that it may have; it isn't in there before it has answered.
    """

    troubles: dict[str, str] = field(default_factory=dict)
    going: str = ""
    settled: tuple[MountOrder, ...] | None = None
    seen: frozenset[tuple[str, str]] = frozenset()
    left: list[str] = field(default_factory=list)
    held: dict[str, frozenset[str]] = field(default_factory=dict)
    admitted: set[str] = field(default_factory=set)
    helped: set[tuple[str, str]] = field(default_factory=set)


async def settle(
    ssh: Ssh,
    access: ClusterAccess,
    hosts: Sequence[Host],
    cluster: str,
    namespace: str,
    orders: tuple[MountOrder, ...],
    state: MountState,
    reach: Reach,
) -> None:
    """One look at all machines that are reached; what it finds is in `state`.

    Args:
        ssh: How hosts are reached.
        access: Keys of the cluster.
        hosts: Its machines.
        cluster: Its uid.
        namespace: Of the cluster and its directories.
        orders: What is to be mounted; all else of the cluster's goes.
        state: What is known.
        reach: Gives the directories; they are asked before a login is tried for the first time.
    """
    uids = {host.uid for host in hosts}
    state.held = {uid: keys for uid, keys in state.held.items() if uid in uids}
    waits = await _admitted(namespace, orders, state, reach)
    lines = "".join(_line(order, "keep" if order.key in waits else "mount") for order in orders).encode()
    reached = [host for host in hosts if host.reachable]

    async def one(host: Host) -> list[list[str]]:
        if host.uid in state.held:  # whether it did is known by its answer only
            state.held[host.uid] |= {order.key for order in orders}
        return await _sync(ssh, access, host, cluster, lines, state)

    found = await for_all(reached, one)
    paths = {order.key: order.path for order in orders}
    why = await _gone(namespace, orders, found.values(), reach)
    troubles: dict[str, str] = {}
    going = ""
    for host in reached:
        answer = found[host.uid]
        if isinstance(answer, CloudmeshError):
            if orders:
                troubles[host.uid] = f"{host.name}: {answer}"
            if isinstance(answer, _NoRoot):
                state.held[host.uid] = frozenset()
            going = going or ("" if isinstance(answer, _NoRoot) else f"{host.name}: {answer}")
            continue
        told = {key: (verdict, words) for key, verdict, words in answer}
        stay = {key for key, (verdict, _) in told.items() if key not in paths and verdict in ("wait", "fail")}
        state.held[host.uid] = frozenset(paths) | stay
        for key, (verdict, words) in told.items():
            if key not in paths:
                if verdict in ("wait", "fail"):
                    going = going or f"{host.name}: {words}"
                if verdict == "left":
                    state.left.append(f"{host.name}: {words}")
        said = [
            f"{host.name}: {path} isn't mounted: {waits[key]}"
            if key in waits
            else f"{host.name}: {path}: {why.get(key) or readable(told.get(key, ('', 'nothing is told of it'))[1])}"
            for key, path in paths.items()
            if key in waits or told.get(key, ("", ""))[0] != "ok"
        ]
        if said:
            troubles[host.uid] = "; ".join(said)
    state.troubles, state.going, state.settled = troubles, going, orders
    state.seen = frozenset((host.uid, host.boot_id) for host in reached)


def lacking(state: MountState, hosts: Sequence[Host], orders: Sequence[MountOrder]) -> list[str]:
    """Names of machines that may have a mount that isn't asked for: they haven't answered since it was."""
    keys = {order.key for order in orders}
    return [host.name for host in hosts if (held := state.held.get(host.uid)) is None or not held <= keys]


async def end(ssh: Ssh, access: ClusterAccess, machine: MachineView, cluster: str) -> tuple[str, ...]:
    """Takes the mounts of a machine away that is about to end: what was written gets `END_SECONDS`.

    Returns:
        What of it isn't in its directory, in sentences that name machine, folder, number of files, and where they are.

    Raises:
        CloudmeshError: It can't be said whether they are gone.
    """
    target, clock = target_of(machine, access), asyncio.get_running_loop().time
    until = clock() + END_SECONDS
    left: list[str] = []
    # the helper that is there may be an older one, which doesn't know how to wait
    await ssh.put(target, {HELPER_PATH: HELPER.encode()}, mode=0o700)
    while True:
        # several short calls: while one lasts, other clusters on the same host wait for their turn
        verb = "drain" if clock() < until else "clear"
        argv = ["sh", "-c", AS_ROOT, "sh", verb, cluster, machine.name, str(FLUSH_SECONDS)]
        done = await ssh.run(target, argv, seconds=CALL_SECONDS)
        if done.status not in (0, NO_HELPER, NOT_ROOT):
            raise Transient(f"{machine.name}: {done.complaint}")
        told = _answers(done) if done.status == 0 else []
        left += [f"{machine.name}: {words}" for _, verdict, words in told if verdict == "left"]
        if verb == "clear" or not any(verdict == "wait" for _, verdict, _ in told):
            left += [f"{machine.name}: {words}" for _, verdict, words in told if verdict == "fail"]
            return tuple(left)
        await asyncio.sleep(END_AGAIN_SECONDS)


def readable(words: str) -> str:
    """What rclone told, without the JSON of the gateway's answer."""
    found = _DETAIL.search(words)
    if found is None:
        return words
    return f"the directory answers: {found.group(1)}"


class _NoRoot(CloudmeshError):
    """Nothing can be mounted, and nothing is."""

    reason = "Unsupported"


async def _admitted(namespace: str, orders: Sequence[MountOrder], state: MountState, reach: Reach) -> dict[str, str]:
    """Why a mount isn't tried yet, by key: a login that its gateway doesn't know would only make it wait."""
    waits: dict[str, str] = {}
    for order in orders:
        mark = f"{order.key} {order.digest}"
        if mark in state.admitted:
            continue
        directories = reach()
        if directories is None:
            waits[order.key] = "this operator serves no VirtualDirectories"
            continue
        try:
            await directories.admits(namespace, order.directory, order.login, order.folder)
        except CloudmeshError as error:
            waits[order.key] = str(error)
        else:
            state.admitted.add(mark)
    return waits


async def _gone(
    namespace: str, orders: Sequence[MountOrder], answers: Iterable[list[list[str]] | CloudmeshError], reach: Reach
) -> dict[str, str]:
    """What is known here of mounts that don't answer, by key: that their directory or folder is gone, say."""
    failing = {
        key
        for answer in answers
        if not isinstance(answer, CloudmeshError)
        for key, verdict, _ in answer
        if verdict == "fail"
    }
    why: dict[str, str] = {}
    for order in orders:
        directories = reach() if order.key in failing else None
        if directories is None:
            continue
        try:
            await directories.admits(namespace, order.directory, order.login, order.folder)
        except (NotFound, InvalidRequest) as error:
            why[order.key] = str(error)
        except CloudmeshError:
            continue  # the machine's words say more
    return why


async def _sync(
    ssh: Ssh, access: ClusterAccess, host: Host, cluster: str, lines: bytes, state: MountState
) -> list[list[str]]:
    target = target_of(host, access)
    mark = (host.uid, host.boot_id)
    if mark not in state.helped:
        await ssh.put(target, {HELPER_PATH: HELPER.encode()}, mode=0o700)
        state.helped.add(mark)
    argv = ["sh", "-c", AS_ROOT, "sh", "sync", cluster, host.name, str(FLUSH_SECONDS)]
    done: Output = await ssh.run(target, argv, stdin=lines, seconds=CALL_SECONDS)
    if done.status == NOT_ROOT:
        raise _NoRoot(NO_ROOT)
    if done.status == NO_HELPER:
        state.helped.discard(mark)
        raise Transient("what keeps the mounts was removed; it is put there again")
    if done.status != 0:
        raise Transient(done.complaint or f"the look at its mounts ended with {done.status}")
    return _answers(done)


def _answers(done: Output) -> list[list[str]]:
    return [parts for line in done.text.splitlines() if len(parts := line.split(" ", 2)) == 3]


def _line(order: MountOrder, verb: str) -> str:
    words = (order.key, verb, order.digest, order.access, order.path, order.login, order.password, order.url)
    return " ".join(words) + "\n"
