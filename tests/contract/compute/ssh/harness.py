"""Harness of the provider for hosts of one's own: real sshd, claims read off the disk, calls broken on their way."""

from __future__ import annotations

import asyncio
import contextvars
import json
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.contract.compute.ssh.sshd import Sshd

from cloudmesh.compute.access import make_key_pair
from cloudmesh.compute.ports import Finding, Listing, Node, NodeSpec, Provider
from cloudmesh.compute.providers.registry import Context
from cloudmesh.compute.providers.ssh.hosts import KEY, join_claim, node_id, read_claim, read_hosts, split_id
from cloudmesh.compute.providers.ssh.powers import SshProvider
from cloudmesh.compute.ssh import Input, Output, Ssh, SshPool, SshTarget
from cloudmesh.compute.tokens import TAG_TOKEN, Scope
from cloudmesh.engine import Transient
from cloudmesh.policy.model import Offer
from cloudmesh.testing.providers import CALL_FAULTS, BaseHarness, Injection, Injections, Operation, Seen

USERS = ("one", "two", "three")
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")
SLOTS = {"one": 14, "two": 14, "three": 1}
BAD_KEY, _ = make_key_pair("nobody")

doing: contextvars.ContextVar[Operation] = contextvars.ContextVar("doing", default="any")


class SuiteSsh:
    """Breaks calls on their way, as the suite asks for."""

    def __init__(self, inner: Ssh, harness: SshHarness) -> None:
        self._inner = inner
        self._harness = harness

    async def run(self, target: SshTarget, argv: Sequence[str], *, stdin: Input = b"", seconds: float = 60.0) -> Output:
        verb = argv[4]
        operation = doing.get()
        if (operation, verb) in (("delete", "list"), ("create", "list")):
            operation = "any"  # a look before it
        harness = self._harness
        harness.counts[operation] += 1
        if target.name in harness.down:
            raise Transient(f"{target} can't be reached: injected")

        def refuse(_: Injection) -> Output:
            return Output(255, b"", b"injected")

        try:
            async with asyncio.timeout(seconds):
                return await harness.faults.call(
                    operation,
                    lambda: self._inner.run(target, argv, stdin=stdin, seconds=seconds),
                    refuse=refuse,
                    broken=lambda text: Transient(f"{target}: injected: {text}"),
                )
        except TimeoutError:
            raise Transient(f"{target} took too long") from None

    def stream(self, target: SshTarget, argv: Sequence[str], *, seconds: float = 60.0) -> AsyncGenerator[bytes, None]:
        """No provider of machines streams."""
        return self._inner.stream(target, argv, seconds=seconds)

    async def put(self, target: SshTarget, files: Mapping[str, bytes], *, mode: int = 0o600) -> None:
        await self._inner.put(target, files, mode=mode)

    async def get(self, target: SshTarget, path: str, *, limit: int = 1 << 22) -> bytes | None:
        return await self._inner.get(target, path, limit=limit)


class Suited(SshProvider):
    """The provider, which says what it is about to do."""

    info = replace(SshProvider.info, create_seconds=3)
    read_seconds, write_seconds = 2.0, 3.0
    pool: SshPool

    async def check(self) -> Sequence[Finding]:
        doing.set("check")
        return await super().check()

    async def offers(self) -> Sequence[Offer]:
        doing.set("offers")
        return await super().offers()

    async def list_nodes(self, scope: Scope) -> Listing:
        doing.set("list")
        return await super().list_nodes(scope)

    async def find_node(self, spec: NodeSpec) -> Node | None:
        doing.set("find")
        return await super().find_node(spec)

    async def ensure_node(self, spec: NodeSpec) -> Node:
        doing.set("create")
        return await super().ensure_node(spec)

    async def delete_node(self, node_id: str, scope: Scope) -> None:
        doing.set("delete")
        await super().delete_node(node_id, scope)


class SshHarness(BaseHarness):
    """Three hosts: accounts of one sshd, each on an address of its own.

    Args:
        sshd: The running sshd, with the accounts `USERS` on `ADDRESSES`.
    """

    name = kind = "ssh"
    image = "as-it-is"
    many = 12
    settle_seconds = 10.0
    call_seconds = 10.0
    case_seconds = 120.0

    def __init__(self, sshd: Sshd) -> None:
        self.sshd = sshd
        self.secrets = (*_lines(sshd.client_key), *_lines(BAD_KEY))
        self.counts: Counter[str] = Counter()
        self.down: set[str] = set()
        self.faults = Injections()
        self._providers: list[Suited] = []
        self._scope = Scope("", "", "")
        self._strangers = 0

    async def open(self, scope: Scope) -> None:
        self._scope = scope
        self.counts.clear()
        for user in USERS:
            self.sshd.reset(user)
        await self.heal()

    async def shut(self) -> None:
        await self.heal()
        for provider in self._providers:
            await provider.pool.close()
        self._providers.clear()

    def spec(self) -> dict[str, Any]:
        """`spec.ssh` of the account."""
        return {
            "hosts": [
                {
                    "name": user, "address": address, "port": self.sshd.port, "user": user, "vcpu": "28",
                    "memory": "56Gi", "hostKey": " ".join(self.sshd.host_key.split()[:2]), "zone": f"zone-{user}",
                    "slots": SLOTS[user],
                }
                for user, address in zip(USERS, ADDRESSES, strict=True)
            ]
        }  # fmt: skip

    async def provider(self, *, bad_credentials: bool = False) -> Provider:
        key = BAD_KEY if bad_credentials else self.sshd.client_key
        context = Context("ns", self._scope.account, "uid", self.spec(), credentials={KEY: key.encode()})
        pool = SshPool()
        made = Suited(context.name, read_hosts(context), SuiteSsh(pool, self))
        made.pool = pool
        self._providers.append(made)
        return made

    async def inject(self, injection: Injection) -> None:
        match injection.what:
            case what if what in CALL_FAULTS:
                self.faults.add(injection)
            case "filter" | "unpriced":
                pass  # a host tells all of its claims anyway, and no price
            case "revoked":
                for user in USERS:
                    self.sshd.authorize(user)
                for provider in self._providers:
                    await provider.pool.close()
            case "partial":
                self.down.add("three")
            case "capacity":
                for user in USERS:
                    for number in range(SLOTS[user] - len(list(self._claims(user)))):
                        self._claim(user, f"cm-full-{number}", {})
            case what:
                raise NotImplementedError(what)

    async def heal(self) -> None:
        self.faults.clear()
        self.down.clear()
        for user in USERS:
            if not (self.sshd.home(user) / ".ssh/authorized_keys").read_text():
                self.sshd.authorize(user, self.sshd.client_public)
            for path in (self.sshd.home(user) / ".cloudmesh/machines").glob("*/cm-full-*"):
                shutil.rmtree(path)

    async def machines(self) -> Sequence[Seen]:
        found = []
        for user in USERS:
            for folder in self._claims(user):
                claim = read_claim((folder / "claim.json").read_text().rstrip("\n"))
                keys = [
                    line.removesuffix(f" cloudmesh-{folder.name}")
                    for line in (self.sshd.home(user) / ".ssh/authorized_keys").read_text().splitlines()
                    if line.endswith(f" cloudmesh-{folder.name}")
                ]
                mine = self._scope.holds(claim.tags)
                found.append(
                    Seen(
                        node_id(user, folder.name), claim.token if mine else "", ended=False, type=user,
                        authorized_keys=tuple(keys), host_key=self.sshd.host_key,
                    )
                )  # fmt: skip
        return found

    async def stranger(self, *, name: str = "stranger", tags: Mapping[str, str] | None = None) -> str:
        self._strangers += 1
        folder = (tags or {}).get(TAG_TOKEN, "")
        if not folder or (self._folder("one") / folder).exists():
            folder = f"cm-stranger-{self._strangers}"
        self._claim("one", folder, tags or {})
        return node_id("one", folder)

    async def meddle(self, what: str, node_id: str) -> None:
        user, token = split_id(node_id)
        folder = self._folder(user) / token
        match what:
            case "end":
                shutil.rmtree(folder)
            case "untag":
                claim = read_claim((folder / "claim.json").read_text().rstrip("\n"))
                (folder / "claim.json").write_text(join_claim(replace(claim, tags={})) + "\n")
            case _:
                raise NotImplementedError(what)

    async def requests(self, operation: Operation) -> int:
        return self.counts.total() if operation == "any" else self.counts[operation]

    def _folder(self, user: str) -> Any:
        return self.sshd.home(user) / ".cloudmesh/machines" / user

    def _claims(self, user: str) -> Any:
        return sorted(self._folder(user).glob("cm-*"))

    def _claim(self, user: str, token: str, tags: Mapping[str, str]) -> None:
        folder = self._folder(user) / token
        folder.mkdir(parents=True)
        (folder / "claim.json").write_text(json.dumps({"tags": dict(tags), "createdAt": "2026-01-01T00:00:00Z"}) + "\n")
        self.sshd.hand_over(user)


def _lines(key: str) -> list[str]:
    return [line for line in key.splitlines() if not line.startswith("-----")]
