"""What the installation itself knows of an account's machines: only that tells of a host that was taken out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from cloudmesh.compute.kinds import VIRTUAL_MACHINE
from cloudmesh.compute.providers.ssh.hosts import Host
from cloudmesh.engine import Kube


@dataclass(frozen=True, slots=True)
class Records:
    """The VirtualMachines of one account, read from the API server.

    Args:
        kube: Where they are.
        namespace: Namespace of the CloudAccount.
        account: Its name.
    """

    kube: Kube
    namespace: str
    account: str

    async def unseen(self, hosts: Mapping[str, Host], shown: Collection[str]) -> list[str]:
        """Machines that may be where none of these hosts can tell of them, in words; in order.

        Args:
            hosts: The account's hosts by name.
            shown: Create tokens of machines that the hosts tell of.

        Raises:
            CloudmeshError: They can't be read.
        """
        found = []
        async for page, _ in self.kube.pages(VIRTUAL_MACHINE, self.namespace):
            for obj in page:
                spec, status = obj["spec"], obj.get("status") or {}
                token = status.get("createToken")
                if spec["accountRef"]["name"] != self.account or not token or token in shown:
                    continue
                name, type_ = obj["metadata"]["name"], spec["offer"]["type"]
                if status.get("state") != "Deleted" and (where := _elsewhere(type_, hosts.get(type_), status)):
                    found.append(f"{name} is on {where}")
        return sorted(found)


def _elsewhere(name: str, host: Host | None, status: Mapping[str, Any]) -> str:
    """Where a machine may be if its host isn't asked there; empty if it is."""
    if host is None:
        return f"host {name!r}, which spec.ssh.hosts has no more"
    # another login is another home, or another machine altogether
    now = (host.target.user, host.target.host, host.target.port)
    then = (status.get("sshUser"), status.get("sshHost"), status.get("sshPort"))
    if None in then or now == then:
        return ""
    return "{}@{}:{}".format(*then) + f", which spec.ssh.hosts doesn't name for {name!r} any more"
