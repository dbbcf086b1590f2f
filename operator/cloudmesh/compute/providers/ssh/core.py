"""The core port on hosts of one's own: a machine is a claim on a slot of a host."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudmesh.api.names import ANNOTATION_ABANDON
from cloudmesh.compute.ports import Complete, Finding, Listing, Node, NodeSpec, Partial, ProviderInfo
from cloudmesh.compute.providers.ssh.hosts import Claim, Host, read_claim, split_id, to_node, write_claim
from cloudmesh.compute.providers.ssh.records import Records
from cloudmesh.compute.providers.ssh.script import BROKEN, BUSY, CHANGED, FULL, GONE, SCRIPT
from cloudmesh.compute.ssh import Output, Ssh, SshPool
from cloudmesh.compute.tokens import TAG_UID, Scope
from cloudmesh.engine import (
    AuthFailed,
    CapacityUnavailable,
    CloudmeshError,
    Conflict,
    InvalidRequest,
    NotFound,
    Transient,
    utc_now,
)
from cloudmesh.engine.endpoints import ANYWHERE, Guard
from cloudmesh.policy.model import Offer

T = TypeVar("T")
AT_ONCE = 16
READ_SECONDS = 15.0
WRITE_SECONDS = 30.0
RECORDS_SECONDS = 120.0
"""So long the installation's own records are asked at least: calls of the account as it was before are over by then."""
ARCHES = {"x86_64": "amd64", "aarch64": "arm64"}
INFO = ProviderInfo(
    kind="ssh",
    hosts_stay=True,
    grace_seconds=0,  # each host tells of itself at the moment
    create_seconds=int(WRITE_SECONDS),
    native_tokens=True,
    user="root",
    ssh=True,
    poll_seconds=10.0,
    requests_per_second=50.0,
    lacks={
        "ImageChoice": "a host keeps the system that it has",
        "DiskChoice": "a host has the disk that it has",
        "PublicAddresses": "a host has the address that it has",
        "OwnAddresses": "machines on slots of one host share its address",
        "HostKeys": "a host has a host key of its own",
        "Spot": "hosts of one's own are not sold as spot",
        "Regions": "hosts have no regions",
        "Quotas": "a host has slots and no quota",
        "RateLimits": "sshd has no answer that asks for fewer calls",
        "LateFailures": "a slot is taken at once or not at all",
        "DelayedListings": "each host is asked itself",
        "Pages": "a host tells all of its claims at once",
        "RepeatingPages": "a host tells all of its claims at once",
        "SlowEnds": "a slot is free as soon as its claim is gone",
        "Stops": "a host isn't stopped",
        "TypeChanges": "a host is what it is",
        "ImageChanges": "a host keeps the system that it has",
        "DiskChanges": "a host has the disk that it has",
    },
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a host tells of itself: the id of its present life, and its claims by token."""

    boot_id: str
    claims: Mapping[str, Claim]


class SshCore:
    """Machines of one account.

    Args:
        account: Name of the CloudAccount.
        hosts: Its hosts by name.
        ssh: How they are reached.
        now: RFC 3339 time.
        records: What the installation knows of its machines, also of those on hosts that were taken out.
        guard: Makes the connections.
    """

    info = INFO
    read_seconds = READ_SECONDS
    write_seconds = WRITE_SECONDS

    def __init__(
        self,
        account: str,
        hosts: Mapping[str, Host],
        ssh: Ssh | None = None,
        now: Callable[[], str] = utc_now,
        records: Records | None = None,
        guard: Guard = ANYWHERE,
    ) -> None:
        self.account = account
        self.hosts = hosts
        own = SshPool(guard=guard)
        self._own = own if ssh is None else None
        self._ssh: Ssh = ssh or own
        self._now = now
        self._records = records
        self._records_until: float | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.account}, {len(self.hosts)} hosts)"

    async def check(self) -> Sequence[Finding]:
        """Logs in to each host and says what it lacks.

        Raises:
            AuthFailed: All hosts refuse the key.
        """
        found = await self._each(self.hosts.values(), lambda host: self._call(host, "check"))
        if found and all(isinstance(answer, AuthFailed) for answer in found.values()):
            raise AuthFailed(f"all {len(found)} hosts refuse the key: {next(iter(found.values()))}")
        return [_finding(self.hosts[name], answer) for name, answer in found.items()]

    async def offers(self) -> Sequence[Offer]:
        """One offer a host, with the slots that are free; none on a host that doesn't answer.

        Raises:
            AuthFailed: All hosts refuse the key.
        """
        found = await self._looks()
        offers = []
        for name, host in self.hosts.items():
            look = found[name]
            held = len(look.claims) if isinstance(look, Look) else host.slots
            offers.append(host.offer(self.account, max(0, host.slots - held)))
        return offers

    async def list_nodes(self, scope: Scope) -> Listing:
        """All claims with the scope's tags, on every host; Partial where one doesn't answer or left too early.

        Raises:
            CloudmeshError: No host answers.
        """
        found = await self._looks()
        failed = {name: look for name, look in found.items() if isinstance(look, CloudmeshError)}
        if failed and len(failed) == len(found):
            raise next(iter(failed.values()))
        nodes = tuple(
            to_node(self.hosts[name], token, claim, look.boot_id)
            for name, look in found.items()
            if isinstance(look, Look)
            for token, claim in look.claims.items()
            if scope.holds(claim.tags)
        )
        unseen = await self._unseen({node.token for node in nodes})
        if failed:
            told = "; ".join(f"{name}: {error}" for name, error in failed.items())
            unseen = f"{len(failed)} of {len(found)} hosts don't answer: {told}{unseen and '; '}{unseen}"
        return Partial(nodes, self._now(), unseen[:1000]) if unseen else Complete(nodes, self._now())

    async def find_node(self, spec: NodeSpec) -> Node | None:
        """The claim of a token on the host that its offer names.

        Raises:
            Transient: The host was taken out: nobody can say.
        """
        if spec.offer.type not in self.hosts:
            raise Transient(_no_host(spec.offer.type))
        host = self._host(spec)
        return self._mine(spec, host, await self._look(host))

    async def ensure_node(self, spec: NodeSpec) -> Node:
        """Claims a slot of the host for a token, and lets the cluster's keys in; again is fine.

        Raises:
            CapacityUnavailable: All slots of the host are taken.
            InvalidRequest: There is no such host, or it can't be as asked.
        """
        host = self._host(spec)
        if spec.disk_gib:
            raise InvalidRequest(f"{host.name} has the disk that it has: `machine.disk` can't be chosen")
        others = await self._each((h for h in self.hosts.values() if h is not host), self._look)
        for name, look in others.items():
            if isinstance(look, Look) and spec.token in look.claims:
                raise Conflict(f"the token {spec.token} was used on {name}")
        lines = [write_claim(spec, self._now()), *spec.access.authorized_keys]
        stdin = "".join(f"{line}\n" for line in lines)
        done = await self._run(host, "claim", spec.token, str(host.slots), stdin=stdin)
        if done.status == FULL:
            raise CapacityUnavailable(f"all {host.slots} slots of {host.name} are taken")
        node = self._mine(spec, host, _read(host, done))
        if node is None:
            raise Transient(f"{host.name} doesn't show the claim that it has just taken")
        return node

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        """Gives a slot back: ends what jobs left running, takes the cluster's keys out, and drops the claim."""
        name, token = split_id(node_id)
        host = self.hosts.get(name)
        if host is None:
            raise InvalidRequest(_no_host(name))
        claim = (await self._look(host)).claims.get(token)
        if claim is None:
            return
        if not scope.holds(claim.tags):
            raise Conflict(f"{node_id} isn't a machine of {scope.namespace}/{scope.account}")
        await self._call(host, "release", token)

    async def close(self) -> None:
        """Closes the connections."""
        if self._own is not None:
            await self._own.close()

    async def read(self, node_id: str) -> tuple[Host, Claim]:
        """The host and the claim of an id.

        Raises:
            NotFound: It is gone.
            InvalidRequest: Its host was taken out.
        """
        name, token = split_id(node_id)
        host = self.hosts.get(name)
        if host is None:
            raise InvalidRequest(_no_host(name))
        claim = (await self._look(host)).claims.get(token)
        if claim is None:
            raise NotFound(f"there is no machine {node_id}")
        return host, claim

    async def retag(self, node_id: str, old: Claim, text: str) -> None:
        """Replaces the line of a claim, if it is still the one that was read.

        Raises:
            NotFound: It is gone.
            Conflict: It was changed meanwhile.
        """
        name, token = split_id(node_id)
        await self._call(self.hosts[name], "retag", token, stdin=f"{old.text}\n{text}\n")

    def _host(self, spec: NodeSpec) -> Host:
        host = self.hosts.get(spec.offer.type)
        if host is None:
            raise InvalidRequest(f"the account has no host {spec.offer.type!r}")
        if spec.offer.zone not in ("", host.zone) or spec.offer.region:
            where = spec.offer.zone or spec.offer.region
            raise InvalidRequest(f"{host.name} isn't in {where!r}")
        return host

    def _mine(self, spec: NodeSpec, host: Host, look: Look) -> Node | None:
        claim = look.claims.get(spec.token)
        if claim is None:
            return None
        if not spec.scope.holds(claim.tags) or claim.tags.get(TAG_UID, spec.uid) != spec.uid:
            raise Conflict(f"the claim {spec.token} on {host.name} is somebody else's")
        return to_node(host, spec.token, claim, look.boot_id)

    async def _unseen(self, shown: set[str]) -> str:
        """Why machines may be where no host of the account tells of them; empty if there are none.

        The hosts of a provider are fixed: what is nowhere else now can't come to be there.
        """
        clock = asyncio.get_running_loop().time()
        if self._records is None or (self._records_until is not None and clock > self._records_until):
            return ""
        try:
            found = await self._records.unseen(self.hosts, shown)
        except CloudmeshError as error:
            return f"the account's VirtualMachines can't be read: {error}"
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return f"{found[0]}{more}: put it back, or give the machine up by {ANNOTATION_ABANDON}"
        if self._records_until is None:
            self._records_until = clock + RECORDS_SECONDS
        return ""

    async def _looks(self) -> dict[str, Look | CloudmeshError]:
        found = await self._each(self.hosts.values(), self._look)
        if found and all(isinstance(look, AuthFailed) for look in found.values()):
            raise AuthFailed(f"all {len(found)} hosts refuse the key: {next(iter(found.values()))}")
        return found

    async def _look(self, host: Host) -> Look:
        return _read(host, await self._call(host, "list"))

    async def _call(self, host: Host, verb: str, *arguments: str, stdin: str = "") -> Output:
        done = await self._run(host, verb, *arguments, stdin=stdin)
        match done.status:
            case 0:
                return done
            case status if status == GONE:
                raise NotFound(f"{host.name}: the machine is gone")
            case status if status == CHANGED:
                raise Conflict(f"{host.name}: the claim was changed meanwhile")
        raise _broken(host, done)

    async def _run(self, host: Host, verb: str, *arguments: str, stdin: str = "") -> Output:
        argv = ["sh", "-c", SCRIPT, "sh", verb, host.name, *arguments]
        seconds = self.read_seconds if verb in ("list", "check") else self.write_seconds
        done = await self._ssh.run(host.target, argv, stdin=stdin.encode(), seconds=seconds)
        if verb == "claim" and done.status not in (0, FULL):
            raise _broken(host, done)
        return done

    async def _each(self, hosts: Iterable[Host], work: Callable[[Host], Awaitable[T]]) -> dict[str, T | CloudmeshError]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> tuple[str, T | CloudmeshError]:
            async with turns:
                try:
                    return host.name, await work(host)
                except CloudmeshError as error:
                    return host.name, error

        return dict(await asyncio.gather(*(one(host) for host in hosts)))


def _no_host(name: str) -> str:
    return f"the account has no host {name!r} any more: put it back, so that it can be cleared"


def _read(host: Host, done: Output) -> Look:
    """What `list` and `claim` print: the id of the host's life, then a line a claim."""
    boot_id, _, rest = done.text.partition("\n")
    claims = {}
    for line in rest.splitlines():
        token, _, text = line.partition(" ")
        claims[token] = read_claim(text)
    if not boot_id:
        raise Transient(f"{host.name} answers with nothing")
    return Look(boot_id, claims)


def _broken(host: Host, done: Output) -> CloudmeshError:
    if done.status == BUSY:
        return Transient(f"{host.name}: another call holds its lock")
    if done.status == BROKEN:
        return Transient(f"{host.name} can't write what it has to: {done.complaint}")
    return Transient(f"{host.name}: status {done.status}: {done.complaint}")


def _finding(host: Host, answer: Output | CloudmeshError) -> Finding:
    if isinstance(answer, CloudmeshError):
        return Finding(host.name, False, str(answer), fatal=False)
    lines = answer.text.splitlines()
    lacks = [line for line in lines if not line.startswith("arch ")]
    machine = next((line.removeprefix("arch ") for line in lines if line.startswith("arch ")), "")
    arch = ARCHES.get(machine, machine)
    if arch != host.arch:
        lacks.append(f"is {arch}, not {host.arch} as the account says")
    if lacks:
        return Finding(host.name, False, f"{host.target}: {'; '.join(lacks)}")
    return Finding(host.name, True, f"{host.target} can be used")
