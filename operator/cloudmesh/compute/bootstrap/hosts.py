"""The machines of a cluster as bootstrap sees them, what it found of each, and SSH to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from cloudmesh.compute.access import ClusterAccess
from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.ssh import SshTarget
from cloudmesh.engine import CloudmeshError

T = TypeVar("T")
State = Literal["Pending", "Done", "Failed"]
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Host:
    """The part of a machine that bootstrap depends on; another value means that something is to be done.

    One that isn't `reachable` is left alone for the moment, and stays a member.
    """

    uid: str
    name: str
    namespace: str
    host: str
    port: int
    user: str
    host_key: str
    private_address: str
    boot_id: str
    order: tuple[int, int, int]
    reachable: bool = True

    @property
    def address(self) -> str:
        """Where the cluster's other machines reach it."""
        return self.private_address or self.host


@dataclass(frozen=True, slots=True)
class Result:
    """How far a machine is; `unreachable` says which other machine can't be reached, naming both ends."""

    state: State
    message: str = ""
    unreachable: bool = False


DONE = Result("Done")


def hosts_of(machines: Iterable[MachineView], pools: Sequence[str]) -> tuple[Host, ...]:
    """Machines that live and can be logged in to, the first of the first pool first."""
    ranks = {pool: rank for rank, pool in enumerate(pools)}
    found = [
        Host(
            uid=m.uid,
            name=m.name,
            namespace=m.namespace,
            host=m.host,
            port=m.port,
            user=m.user,
            host_key=m.host_key,
            private_address=m.private_address,
            boot_id=m.boot_id,
            order=(ranks.get(m.pool, len(ranks)), m.ordinal, m.attempt),
            reachable=m.reachable,
        )
        for m in machines
        if m.host and not m.deleting and not m.failed
    ]
    return tuple(sorted(found, key=lambda h: (h.order, h.name)))


def target_of(host: Host | MachineView, access: ClusterAccess) -> SshTarget:
    """Where and how the operator logs in to a machine."""
    return SshTarget(
        host=host.host,
        port=host.port,
        user=host.user,
        client_key=access.client_key,
        host_keys=(host.host_key or access.host_public_key,),
        name=host.name,
    )


async def for_all(hosts: Iterable[Host], work: Callable[[Host], Awaitable[T]]) -> dict[str, T | CloudmeshError]:
    """Does something with each host, a bounded number at once; a failure of one is its result, by uid."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(host: Host) -> tuple[str, T | CloudmeshError]:
        async with turns:
            try:
                return host.uid, await work(host)
            except CloudmeshError as error:
                return host.uid, error

    return dict(await asyncio.gather(*(one(host) for host in hosts)))
