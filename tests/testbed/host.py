"""The few things of a bed that lie on the host: addresses, one link with its routes, one nftables table, cgroups."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.testbed import artifacts
from tests.testbed.console import TestbedError, say

CGROUPS = Path("/sys/fs/cgroup")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
LOCK = Path("/run/lock/cloudmesh-testbed.lock")
FORWARDING_BEFORE = Path("/run/cloudmesh-testbed.ip_forward")
PLANS = 256


@dataclass(frozen=True, slots=True)
class AddressPlan:
    """Addresses of the bed with one index out of 256; two beds never share one."""

    index: int

    @property
    def link(self) -> str:
        """Name of the host's end of the link, and of the nftables table."""
        return f"cmbed{self.index}"

    @property
    def host(self) -> str:
        """Address of the host on the link; Pods reach servers on the host by it."""
        return f"10.213.{self.index}.1"

    @property
    def node(self) -> str:
        """Address of the node and of the API server."""
        return f"10.213.{self.index}.2"

    @property
    def transfer(self) -> str:
        """Network of the link."""
        return f"10.213.{self.index}.0/30"

    @property
    def pods(self) -> str:
        """Network of the Pods."""
        return f"10.214.{self.index}.0/24"

    @property
    def bridge(self) -> str:
        """Address of the Pods' bridge, and of the cluster's DNS."""
        return f"10.214.{self.index}.1"

    @property
    def services(self) -> str:
        """Network of the ClusterIPs: 4,094 of them."""
        return f"10.{216 + self.index // 16}.{self.index % 16 * 16}.0/20"

    @property
    def kubernetes(self) -> str:
        """ClusterIP of the Service `kubernetes`."""
        return str(next(ipaddress.ip_network(self.services).hosts()))


def _run(*arguments: str, check: bool = True, text: str | None = None) -> str:
    result = subprocess.run(arguments, capture_output=True, text=True, input=text, timeout=30, check=False)
    if check and result.returncode:
        raise TestbedError(f"`{' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


def _nft(script: str, *arguments: str, check: bool = True) -> str:
    command, env = artifacts.packaged_command("nft")
    result = subprocess.run(
        [*command, *arguments], env=env, input=script, capture_output=True, text=True, timeout=30, check=False
    )
    if check and result.returncode:
        raise TestbedError(f"nft failed ({result.stderr.strip()}): does the kernel have nf_tables?")
    return result.stdout


@contextlib.contextmanager
def lock() -> Iterator[None]:
    """Only one bed of this machine at a time changes what beds share: address plans and IP forwarding."""
    with artifacts.locked(LOCK, "another bed of this machine is being set up"):
        yield


def _taken() -> set[int]:
    """Indexes whose networks a route or a link of the host touches."""
    routes = json.loads(_run("ip", "-json", "-4", "route", "show", "table", "all") or "[]")
    used = []
    for route in routes:
        if route.get("type") in ("broadcast", "local") or route["dst"] == "default":
            continue
        network = ipaddress.ip_network(route["dst"], strict=False)
        if network.prefixlen >= 16:  # a wider route loses against ours, which are more specific
            used.append(network)
    taken = {
        int(link["ifname"][5:])
        for link in json.loads(_run("ip", "-json", "link") or "[]")
        if link["ifname"].startswith("cmbed") and link["ifname"][5:].isdigit()
    }
    for index in range(PLANS):
        plan = AddressPlan(index)
        own = [ipaddress.ip_network(network) for network in (plan.transfer, plan.pods, plan.services)]
        if any(a.overlaps(b) for a in own for b in used):
            taken.add(index)
    return taken


def free_plan(checkout: Path) -> AddressPlan:
    """The plan that the checkout's path hashes to, or the next free one. Call it with the lock held.

    Raises:
        TestbedError: all are taken.
    """
    first = hashlib.sha256(str(checkout).encode()).digest()[0]
    taken = _taken()
    for offset in range(PLANS):
        index = (first + offset) % PLANS
        if index not in taken:
            return AddressPlan(index)
    raise TestbedError("all 256 address plans overlap with routes of this host (see `ip route`): end some beds")


def connect(plan: AddressPlan, init: int) -> None:
    """Make the link to the bed whose PID 1 has the host's process id `init`, its routes and its NAT rule.

    Can be repeated: what is there stays.
    """
    if not link_exists(plan):
        _run("ip", "link", "add", plan.link, "type", "veth", "peer", "name", "eth0", "netns", str(init))
    _run("ip", "address", "replace", f"{plan.host}/30", "dev", plan.link)
    _run("ip", "link", "set", plan.link, "up")
    # The other end is up only a moment later, when the bed has seen it: `onlink` needs no answer from it.
    for network in (plan.pods, plan.services):
        _run("ip", "route", "replace", network, "via", plan.node, "dev", plan.link, "onlink")
    _nft(
        f"table ip {plan.link}\n"
        f"delete table ip {plan.link}\n"
        f"table ip {plan.link} {{\n"
        f"  chain postrouting {{ type nat hook postrouting priority srcnat; "
        f'ip saddr {plan.transfer} oifname != "{plan.link}" masquerade; }}\n'
        f"}}\n",
        "-f", "-",
    )  # fmt: skip
    _enable_forwarding()


def disconnect(plan: AddressPlan) -> None:
    """Remove what `connect` made; call it with the lock held."""
    if link_exists(plan):
        _run("ip", "link", "delete", plan.link, check=False)
    _nft(f"table ip {plan.link}\ndelete table ip {plan.link}\n", "-f", "-", check=False)
    _restore_forwarding()


def link_exists(plan: AddressPlan) -> bool:
    """Whether the host's end of the link is there."""
    return Path("/sys/class/net", plan.link).exists()


def _enable_forwarding() -> None:
    if FORWARDING.read_text().strip() == "1":
        return
    try:
        FORWARDING_BEFORE.write_text("0\n")
        FORWARDING.write_text("1\n")
    except OSError as error:
        raise TestbedError(
            f"Pods reach the package index through this host: set net.ipv4.ip_forward=1 ({error})"
        ) from None


def _restore_forwarding() -> None:
    others = [p for p in Path("/sys/class/net").iterdir() if p.name.startswith("cmbed") and p.name[5:].isdigit()]
    if not others and FORWARDING_BEFORE.exists():
        with contextlib.suppress(OSError):
            FORWARDING.write_text(FORWARDING_BEFORE.read_text())
        FORWARDING_BEFORE.unlink(missing_ok=True)


def forwarding_is_dropped_by() -> list[str]:
    """What drops forwarded packets on this host: an accept rule in a table of ours couldn't overrule it."""
    found = []
    try:
        ruleset: dict[str, Any] = json.loads(_nft("", "-j", "list", "chains", check=False) or "{}")
    except json.JSONDecodeError:
        ruleset = {}
    for entry in ruleset.get("nftables", []):
        chain = entry.get("chain", {})
        drops = chain.get("hook") == "forward" and chain.get("policy") == "drop"
        if drops and chain.get("family") in ("ip", "inet"):
            found.append(f"the chain {chain['name']} of nftables table {chain['family']} {chain['table']}")
    names = Path("/proc/net/ip_tables_names")  # only root reads it, and only old iptables fills it
    if names.exists() and "filter" in names.read_text().split():
        command, env = artifacts.packaged_command("iptables-legacy")
        shown = subprocess.run(
            [*command, "-S", "FORWARD"], env=env, capture_output=True, text=True, timeout=30, check=False
        )
        if "-P FORWARD DROP" in shown.stdout:
            found.append("the iptables chain FORWARD")
    return found


def warn_if_forwarding_is_dropped(plan: AddressPlan) -> None:
    """Say so when something drops forwarded packets, and how to allow ours."""
    for what in forwarding_is_dropped_by():
        say(
            f"  note: {what} drops forwarded packets, so Pods may not reach the package index. "
            "The cluster itself works. Where Docker made it, this allows them: "
            f"for way in -s -d; do iptables -I DOCKER-USER $way {plan.transfer} -j ACCEPT; done"
        )


def nameservers() -> list[str]:
    """Resolvers that a bed can reach: those of the host that are not on its loopback."""
    for path in (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")):
        found = []
        with contextlib.suppress(OSError):
            for line in path.read_text().splitlines():
                words = line.split()
                if len(words) > 1 and words[0] == "nameserver":
                    with contextlib.suppress(ValueError):
                        if not ipaddress.ip_address(words[1].partition("%")[0]).is_loopback:
                            found.append(words[1])
        if found:
            return found[:3]
    say("  note: the host's resolver listens on loopback only, so names outside of the cluster don't resolve in Pods")
    return []


# --- cgroups ---------------------------------------------------------------------------------------------------------


def make_cgroups(name: str) -> list[Path]:
    """Make a cgroup for a bed in each hierarchy, under the caller's own: what limits the caller limits the bed."""
    made: list[Path] = []
    unified = (CGROUPS / "cgroup.controllers").exists()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if unified:
            made.append(_make_unified(path, name))
        elif controllers:
            hierarchy = controllers.removeprefix("name=")
            parent = CGROUPS / hierarchy / path.lstrip("/")
            group = parent / name
            group.mkdir(exist_ok=True)
            if "cpuset" in hierarchy.split(","):
                for setting in ("cpuset.cpus", "cpuset.mems"):
                    (group / setting).write_text((parent / setting).read_text())
            made.append(group)
    return made


def _make_unified(path: str, name: str) -> Path:
    # A group with processes in it can't hand controllers down, except the root of the hierarchy.
    for parent in (CGROUPS / path.lstrip("/"), CGROUPS):
        wanted = (parent / "cgroup.controllers").read_text().split()
        try:
            (parent / "cgroup.subtree_control").write_text(" ".join(f"+{controller}" for controller in wanted))
        except OSError:
            continue
        group = parent / name
        group.mkdir(exist_ok=True)
        return group
    raise TestbedError("no cgroup of this machine hands its controllers down: in a container, give it a private cgroup")


def enter_cgroups(groups: list[Path]) -> None:
    """Move the calling process into the groups."""
    for group in groups:
        tasks = group / "tasks"
        (tasks if tasks.exists() else group / "cgroup.procs").write_text(f"{os.getpid()}\n")


def remove_cgroups(groups: list[Path], wait: float = 10) -> None:
    """Remove the groups with all below them; their processes have ended or are about to (waits `wait` seconds)."""
    deadline = time.monotonic() + wait
    for group in groups:
        while group.exists():
            for folder, _, _ in os.walk(group, topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
            if time.monotonic() > deadline:
                break
            if group.exists():
                time.sleep(0.05)
