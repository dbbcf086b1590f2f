"""What each machine of a cluster is given: the way to the others by name, and the list of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cloudmesh.compute.access import CLIENT_KEY, CONFIG, KNOWN_HOSTS, ClusterAccess
from cloudmesh.compute.bootstrap.hosts import Host, target_of
from cloudmesh.compute.ssh import Ssh
from cloudmesh.engine import Transient

INCLUDE = """\
umask 077
line="Include cloudmesh/$1/config"
file="$HOME/.ssh/config"
mkdir -p "$HOME/.ssh" && touch "$file" || exit 70
grep -qxF "$line" "$file" || { { printf '%s\\n' "$line" && cat "$file"; } >"$file.cm" && mv "$file.cm" "$file"; }
"""
"""Puts one line at the head of a person's own configuration, which stays as it is otherwise."""


def make_files(cluster: str, access: ClusterAccess, hosts: Sequence[Host]) -> dict[str, bytes]:
    """The files by their path below the home; the same on all machines."""
    folder = f".ssh/cloudmesh/{cluster}"
    lines: list[str] = []
    known: list[str] = []
    for host in hosts:
        key = " ".join((host.host_key or access.host_public_key).split()[:2])
        known.append(f"{host.name} {key}\n")
        lines += [
            f"Host {host.name}",
            f"    HostName {host.address}",
            f"    Port {host.port}",
            f"    User {host.user}",
            f"    HostKeyAlias {host.name}",
            f"    IdentityFile ~/{folder}/{CLIENT_KEY}",
            f"    UserKnownHostsFile ~/{folder}/{KNOWN_HOSTS}",
            "    StrictHostKeyChecking yes",
        ]
    return {
        f"{folder}/{CLIENT_KEY}": access.client_key.encode(),
        f"{folder}/{KNOWN_HOSTS}": "".join(known).encode(),
        f"{folder}/{CONFIG}": ("\n".join(lines) + "\n").encode(),
        f".cloudmesh/clusters/{cluster}/hosts": "".join(f"{h.name}\n" for h in hosts).encode(),
    }


def digest_of(files: dict[str, bytes]) -> str:
    """Tells whether a machine has them already."""
    return hashlib.sha256(
        b"\0".join(part for path, data in sorted(files.items()) for part in (path.encode(), data))
    ).hexdigest()


async def equip(ssh: Ssh, access: ClusterAccess, host: Host, cluster: str, files: dict[str, bytes]) -> None:
    """Puts the files on one machine and makes its ssh find them.

    Raises:
        Transient: The machine doesn't take them.
    """
    target = target_of(host, access)
    await ssh.put(target, files, mode=0o600)
    done = await ssh.run(target, ["sh", "-c", INCLUDE, "sh", cluster])
    if done.status != 0:
        raise Transient(f"{host.name}: {done.complaint}")
