"""Hosts that are taken out of an account, or called elsewhere, while machines are on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.compute.ports import Complete, Listing, NodeSpec, Partial
from cloudmesh.compute.providers.ssh.core import RECORDS_SECONDS
from cloudmesh.compute.providers.ssh.hosts import Host
from cloudmesh.compute.providers.ssh.powers import SshProvider
from cloudmesh.compute.providers.ssh.records import Records
from cloudmesh.compute.ssh import Output, SshTarget
from cloudmesh.compute.tokens import TAG_TOKEN, Scope
from cloudmesh.engine import InvalidRequest, Kube, Transient
from cloudmesh.policy.model import Offer
from cloudmesh.testing import Faults, FaultyTransport, MemoryApi, run_virtual

SCOPE = Scope("inst", "ns", "rack")


class Hosts:
    """Tells of one claim on host `one` at 10.0.0.1, and of none elsewhere."""

    async def run(self, target: SshTarget, argv: Sequence[str], *, stdin: bytes = b"", seconds: float = 60.0) -> Output:
        assert argv[4] == "list"
        tags = ",".join(f'"{key}":"{value}"' for key, value in {**SCOPE.tags(), TAG_TOKEN: "cm-1"}.items())
        claim = f'cm-1 {{"tags":{{{tags}}}}}\n' if (target.name, target.host) == ("one", "10.0.0.1") else ""
        return Output(0, f"boot\n{claim}".encode(), b"")

    async def put(self, *_: Any, **__: Any) -> None:
        raise AssertionError

    async def get(self, *_: Any, **__: Any) -> None:
        raise AssertionError


class Scene:
    def __init__(self) -> None:
        self.api, self.faults = MemoryApi((VIRTUAL_MACHINE,)), Faults()
        self.kube = Kube(FaultyTransport(self.api, self.faults))

    async def machine(self, name: str, host: str, token: str, **status: Any) -> None:
        told = {"createToken": token, "state": "Running"} | status
        body = {
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"accountRef": {"name": "rack"}, "offer": {"type": host}},
        }
        made = await self.kube.create(VIRTUAL_MACHINE, body)
        await self.kube.patch(VIRTUAL_MACHINE, "ns", made["metadata"]["name"], {"status": told}, subresource="status")

    def provider(self, **hosts: str) -> SshProvider:
        """The account with these hosts, by name and address, as it is made anew at each change of its spec."""
        made = {
            name: Host(name, SshTarget(at, 22, "me", "KEY", ("ssh-ed25519 A",), name)) for name, at in hosts.items()
        }
        return SshProvider("rack", made, Hosts(), lambda: "now", Records(self.kube, "ns", "rack"))

    async def list(self, **hosts: str) -> Listing:
        return await self.provider(**hosts).list_nodes(SCOPE)


AT = {"sshHost": "10.0.0.1", "sshPort": 22, "sshUser": "me"}


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ({"two": "10.0.0.2"}, "lab-0 is on host 'one', which spec.ssh.hosts has no more: put it back"),
        ({"one": "10.0.0.9"}, "lab-0 is on me@10.0.0.1:22, which spec.ssh.hosts doesn't name for 'one' any more"),
    ],
)
def test_a_host_taken_out_proves_nothing_of_its_machines(hosts: dict[str, str], words: str) -> None:
    async def body() -> None:
        scene = Scene()
        await scene.machine("lab-0", "one", "cm-1", **AT)
        assert isinstance(await scene.list(one="10.0.0.1"), Complete)
        listing = await scene.list(**hosts)
        assert isinstance(listing, Partial)
        assert words in listing.reason
        assert "cloudmesh.org/abandon" in listing.reason
        assert isinstance(await scene.list(one="10.0.0.1", **{k: v for k, v in hosts.items() if k != "one"}), Complete)
        provider = scene.provider(**hosts)
        for _ in range(20):  # it stays so for as long as it may be there
            await asyncio.sleep(RECORDS_SECONDS / 4)
            assert isinstance(await provider.list_nodes(SCOPE), Partial)
        await scene.kube.delete(VIRTUAL_MACHINE, "ns", "lab-0")
        assert isinstance(await provider.list_nodes(SCOPE), Complete)

    run_virtual(body())


def test_only_machines_that_may_be_there_count() -> None:
    async def body() -> None:
        scene = Scene()
        await scene.machine("over", "gone", "cm-2", state="Deleted")
        await scene.machine("never-asked-for", "gone", "")
        await scene.machine("reached-elsewhere", "one", "cm-1", **AT | {"sshPort": 23})  # it is shown, so it is there
        await scene.machine("being-made", "one", "cm-3", state="Pending")
        assert isinstance(await scene.list(one="10.0.0.1"), Complete)
        await scene.machine("asked-for", "gone", "cm-4", state="Pending")
        assert isinstance(await scene.list(one="10.0.0.1"), Partial)

    run_virtual(body())


def test_records_that_cannot_be_read_prove_nothing_and_are_asked_for_a_while_only() -> None:
    async def body() -> None:
        scene = Scene()
        provider = scene.provider(one="10.0.0.1")
        scene.faults.add("answer", status=403, path="virtualmachines")
        listing = await provider.list_nodes(SCOPE)
        assert isinstance(listing, Partial)
        assert "VirtualMachines can't be read" in listing.reason
        for _ in range(2):
            assert isinstance(await provider.list_nodes(SCOPE), Complete)
        await asyncio.sleep(RECORDS_SECONDS + 1)
        asked = len(scene.api.calls)
        assert isinstance(await provider.list_nodes(SCOPE), Complete)
        assert len(scene.api.calls) == asked

    run_virtual(body())


def test_a_machine_on_a_host_taken_out_is_neither_absent_nor_deleted() -> None:
    async def body() -> None:
        provider = Scene().provider(two="10.0.0.2")
        spec = NodeSpec(
            token="cm-1", name="lab-0", scope=SCOPE, cluster="lab", uid="u", image="",
            offer=Offer(account="rack", type="one", milli_vcpu=1, memory_mib=1),
        )  # fmt: skip
        with pytest.raises(Transient, match="has no host 'one' any more: put it back"):
            await provider.find_node(spec)
        for call in (provider.delete_node("one/cm-1", SCOPE), provider.delete_metadata("one/cm-1", ["a"])):
            with pytest.raises(InvalidRequest, match="has no host 'one' any more: put it back"):
                await call

    run_virtual(body())
