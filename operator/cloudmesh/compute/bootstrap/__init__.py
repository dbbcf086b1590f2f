"""Setting up the machines of clusters: in the background, level-based, again for a machine that has started anew."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cloudmesh.api.virtualcluster import VirtualCluster
from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.bootstrap.hosts import DONE, Result, State, hosts_of
from cloudmesh.compute.bootstrap.mounts import Reach, end, lacking
from cloudmesh.compute.bootstrap.worker import Wanted, Worker
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.mount_logins import MountOrder
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import Key, Kube

LOOK_AGAIN_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class BootstrapState:
    """How far a cluster is.

    Args:
        done: Uids of machines that are set up.
        failed: Messages by uid of machines that can't be.
        unreachable: Messages by uid of machines that don't reach another one, or aren't reached by it.
        message: What is waited for, in a sentence; empty when all is done.
        mounts: Why a directory isn't mounted as asked; empty if all are, None where none is asked for.
        unmounted: No machine has a mount that isn't asked for: each has answered, or is gone.
        going: While that isn't so, who is waited for.
        left: What was written to mounts that went and isn't in the directory, in sentences that are told once.
        requeue_after: Seconds after which to ask again, though `on_change` tells of every change.
    """

    done: frozenset[str] = frozenset()
    failed: Mapping[str, str] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    mounts: str | None = None
    unmounted: bool = True
    going: str = ""
    left: tuple[str, ...] = ()
    requeue_after: float | None = None


class Bootstrap:
    """All clusters of a process; its methods return at once.

    Args:
        ssh: How machines are reached.
        kube: Where scripts are read.
        on_change: Called with the keys of VirtualClusters and VirtualMachines about which there is something new.
        directories: Gives the directories that may be mounted.
    """

    def __init__(
        self, ssh: Ssh, kube: Kube, on_change: Callable[[Key], None], directories: Reach = lambda: None
    ) -> None:
        self._ssh = ssh
        self._kube = kube
        self._on_change = on_change
        self._directories = directories
        self._workers: dict[str, Worker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cluster_of: dict[str, str] = {}

    def ensure(
        self,
        cluster: VirtualCluster,
        machines: Sequence[MachineView],
        access: ClusterAccess,
        mounts: tuple[MountOrder, ...] | None = None,
    ) -> BootstrapState:
        """Says what a cluster's machines are to become, and how far they are.

        Args:
            cluster: The cluster.
            machines: Its machines, those too that are ending or have no address.
            access: Its keys.
            mounts: What is to be mounted on them; None where nothing is, or was.
        """
        uid, spec = cluster.metadata.uid, cluster.spec
        hosts = hosts_of(machines, [pool.name for pool in spec.pools])
        ref = spec.bootstrap.script.config_map_ref if spec.bootstrap is not None and spec.bootstrap.script else None
        wanted = Wanted(
            key=Key("VirtualCluster", cluster.metadata.namespace, cluster.metadata.name),
            profile=spec.bootstrap_kind,
            hosts=hosts,
            access=access,
            script=(ref.name, ref.key) if ref is not None else ("", ""),
            watch_use=spec.lifecycle.idle is not None,
            same_network=spec.same_network,
            uid=uid,
            mounts=mounts,
        )
        worker = self._workers.get(uid)
        # what was written there waits for its login
        hidden = [
            m.name for m in machines if m.node_id and not m.failed and not m.ended_at and (m.deleting or not m.host)
        ]
        if worker is None:
            if not hosts:
                going = _going("", hidden)
                return BootstrapState(mounts=None if mounts is None else "", unmounted=not going, going=going)
            # what an earlier process has done stands in the status, until a look at the machine says otherwise
            known = {m.uid: DONE for m in machines if m.bootstrapped and m.host}
            worker = self._workers[uid] = Worker(
                self._ssh, self._kube, wanted, known, self._on_change, self._directories
            )
            self._tasks[uid] = asyncio.create_task(
                worker.run(), name=f"bootstrap {wanted.key}", context=contextvars.Context()
            )
        else:
            worker.want(wanted)
        for host in hosts:
            self._cluster_of[host.uid] = uid
        return _state(worker, [h.uid for h in hosts], hidden)

    def machine_state(self, uid: str) -> tuple[State, str]:
        """How far one machine is; Pending with an empty message where nobody has looked yet."""
        result = self._result(uid)
        return (result.state, result.message) if result is not None else ("Pending", "")

    def unreachable(self, uid: str) -> str:
        """Which machine this one can't reach, or is not reached by: names both ends; empty if there is none."""
        result = self._result(uid)
        return result.message if result is not None and result.unreachable else ""

    def last_activity(self, cluster_uid: str) -> str:
        """When the cluster was last seen in use, RFC 3339; empty while nobody has looked."""
        worker = self._workers.get(cluster_uid)
        return worker.used_at if worker is not None else ""

    def controller(self, cluster_uid: str) -> str:
        """Name of the machine that SLURM's controller runs on; empty without one."""
        worker = self._workers.get(cluster_uid)
        return worker.slurm.controller.name if worker is not None and worker.slurm.controller is not None else ""

    def slurm_up(self, cluster_uid: str) -> bool:
        """Whether SLURM's controller takes jobs."""
        worker = self._workers.get(cluster_uid)
        return worker is not None and worker.slurm.up

    async def unmount(self, machine: MachineView, cluster_uid: str, access: ClusterAccess) -> tuple[str, ...]:
        """Takes the mounts of a machine away that is about to end; gives what isn't in its directory, in sentences.

        Raises:
            CloudmeshError: It can't be said whether they are gone.
        """
        return await end(self._ssh, access, machine, cluster_uid)

    def forget(self, cluster_uid: str) -> None:
        """Ends the work for a cluster that is gone or has no machines any more."""
        self._workers.pop(cluster_uid, None)
        if (task := self._tasks.pop(cluster_uid, None)) is not None:
            task.cancel()
        self._cluster_of = {m: c for m, c in self._cluster_of.items() if c != cluster_uid}

    async def close(self) -> None:
        """Ends all work."""
        tasks = list(self._tasks.values())
        for uid in list(self._workers):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _result(self, uid: str) -> Result | None:
        worker = self._workers.get(self._cluster_of.get(uid, ""))
        return worker.results.get(uid) if worker is not None else None


def _state(worker: Worker, uids: Sequence[str], hidden: Sequence[str]) -> BootstrapState:
    orders, hosts = worker.wanted.mounts, worker.wanted.hosts
    behind = [] if orders is None else [*lacking(worker.mounts, hosts, orders), *hidden]
    going = _going(worker.mounts.going, behind)
    left, worker.mounts.left = worker.mounts.left, []
    found = {uid: worker.results.get(uid, Result("Pending")) for uid in uids}
    waiting = [r for r in found.values() if r.state == "Pending"]
    message = worker.trouble or next((r.message for r in waiting if r.message), "")
    if waiting and not message:
        message = "the machines are being set up"
    if len(waiting) > 1:
        message = f"{message} ({len(waiting)} of {len(found)} machines wait)"
    return BootstrapState(
        done=frozenset(uid for uid, r in found.items() if r.state == "Done"),
        failed={uid: r.message for uid, r in found.items() if r.state == "Failed"},
        unreachable={uid: r.message for uid, r in found.items() if r.unreachable},
        message=message if waiting else "",
        mounts=_mounts(worker, uids),
        unmounted=worker.mounts.settled == orders and not going,
        going=going,
        left=tuple(left),
        requeue_after=LOOK_AGAIN_SECONDS if waiting else None,
    )


def _going(why: str, names: Sequence[str]) -> str:
    """What is waited for before logins of mounts that left the spec end; empty for nothing."""
    if not why and not names:
        return ""
    more = f" ({len(names)} machines)" if len(names) > 1 else ""
    return f"mounts are being taken away; {why or f'waits for {names[0]} to answer or to be gone{more}'}"


def _mounts(worker: Worker, uids: Sequence[str]) -> str | None:
    if worker.wanted.mounts is None:
        return None
    found = worker.mounts
    if not worker.wanted.mounts:
        if found.settled == () and not found.going:
            return ""
        return f"mounts are being taken away; {found.going}".removesuffix("; ")
    if found.settled != worker.wanted.mounts:
        return "the directories are being mounted"
    fresh = any(host.reachable and (host.uid, host.boot_id) not in found.seen for host in worker.wanted.hosts)
    told = [found.troubles[uid] for uid in uids if uid in found.troubles]
    if told:
        more = f" ({len(told)} of {len(uids)} machines)" if len(told) > 1 else ""
        return told[0] + more
    return "the directories are being mounted" if fresh else ""


__all__ = ["Bootstrap", "BootstrapState"]
