"""Keys of a cluster: one Secret with client and host key, made once, and what people log in with.

| key of the Secret | what |
|---|---|
| `id_ed25519`, `id_ed25519.pub` | the cluster's own key: the operator's, and the machines' among each other |
| `authorized_keys` | who may log in: that key and `spec.access.sshPublicKeys` |
| `ssh_host_ed25519_key`, `….pub` | host key of all machines, known before the first one starts |
| `known_hosts`, `config` | for `ssh -F config NAME` |
| `munge.key` | with SLURM |
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol
from weakref import WeakKeyDictionary

from cloudmesh.compute.machines import MachineView
from cloudmesh.compute.owned import change_data, create_data, data_of, ensure_data, find_own
from cloudmesh.compute.ports import Access
from cloudmesh.engine import CONFIG_MAP, SECRET, AlreadyExists, Conflict, Kube, Obj

LOOK_AGAIN_SECONDS = 40.0
"""A Secret or ConfigMap that somebody deleted is back within a minute."""
MUNGE_KEY_BYTES = 128
OUTPUT_SSH_CONFIG = "SSHConfigSecret"
OUTPUT_INVENTORY = "InventoryConfigMap"

CLIENT_KEY, CLIENT_PUBLIC = "id_ed25519", "id_ed25519.pub"
HOST_KEY, HOST_PUBLIC = "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"
AUTHORIZED, KNOWN_HOSTS, CONFIG, MUNGE_KEY = "authorized_keys", "known_hosts", "config", "munge.key"


@dataclass(frozen=True, slots=True)
class ClusterAccess(Access):
    """What `ports.Access` has, and what only the operator needs.

    Args:
        client_key: The cluster's private key.
        client_public_key: Its public part.
        munge_key: Key of SLURM's daemons, empty without SLURM.
    """

    client_key: str = field(default="", repr=False)
    client_public_key: str = ""
    munge_key: bytes = field(default=b"", repr=False)


class HasKube(Protocol):
    """The part of the engine that is needed here."""

    @property
    def kube(self) -> Kube:
        """The client of the API server."""


@dataclass(slots=True)
class _Kept:
    data: dict[str, bytes] = field(repr=False)
    looked_at: float
    inventory: dict[str, bytes] = field(default_factory=dict)
    inventory_at: float = float("-inf")


_kept: WeakKeyDictionary[HasKube, dict[str, _Kept]] = WeakKeyDictionary()


def secret_name(owner: Obj) -> str:
    """Name of the Secret of a VirtualCluster, or of a VirtualMachine that stands alone."""
    suffix = "vc" if owner["kind"] == "VirtualCluster" else "vm"
    return f"{owner['metadata']['name']}-{suffix}-ssh"


def inventory_name(owner: Obj) -> str:
    """Name of the ConfigMap that lists a cluster's machines."""
    return f"{owner['metadata']['name']}-vc-inventory"


async def ensure_access(
    engine: HasKube, owner: Obj, *, public_keys: Sequence[str] = (), slurm: bool = False
) -> ClusterAccess:
    """Makes the Secret, or finds it, and keeps its authorized_keys up to date; costs no call for a while.

    A Secret that somebody deleted comes back with the same keys while this process remembers them.

    Args:
        engine: Whose client is used.
        owner: VirtualCluster or VirtualMachine.
        public_keys: Keys that may log in besides the cluster's own.
        slurm: Whether SLURM's key is needed.

    Raises:
        NameConflict: A Secret of that name isn't ours.
    """
    uid, name = owner["metadata"]["uid"], secret_name(owner)
    known = _kept.setdefault(engine, {})
    kept = known.get(uid)
    now = asyncio.get_running_loop().time()
    if kept is None or now - kept.looked_at > LOOK_AGAIN_SECONDS or _changes(kept.data, owner, public_keys, slurm):
        held = await _ensure_secret(engine.kube, owner, name, public_keys, slurm, kept.data if kept else {})
        kept = known[uid] = replace(kept, data=held, looked_at=now) if kept else _Kept(held, now)
    return _access_of(kept.data, name)


async def read_access(engine: HasKube, owner: Obj) -> ClusterAccess | None:
    """The keys of an owner as they are; None if they haven't been made.

    Raises:
        NameConflict: A Secret of that name isn't ours.
    """
    name = secret_name(owner)
    kept = _kept.get(engine, {}).get(owner["metadata"]["uid"])
    if kept is not None:
        return _access_of(kept.data, name)
    found = await find_own(engine.kube, SECRET, owner, name)
    data = data_of(SECRET, found) if found is not None else {}
    return (
        _access_of(data, name) if {CLIENT_KEY, CLIENT_PUBLIC, HOST_KEY, HOST_PUBLIC, AUTHORIZED} <= set(data) else None
    )


def _access_of(held: Mapping[str, bytes], name: str) -> ClusterAccess:
    data = {key: value.decode() for key, value in held.items() if key != MUNGE_KEY}
    return ClusterAccess(
        authorized_keys=tuple(data[AUTHORIZED].splitlines()),
        host_key=data[HOST_KEY],
        host_public_key=data[HOST_PUBLIC].strip(),
        secret_name=name,
        client_key=data[CLIENT_KEY],
        client_public_key=data[CLIENT_PUBLIC].strip(),
        munge_key=held.get(MUNGE_KEY, b""),
    )


def forget_access(engine: HasKube, uid: str) -> None:
    """Drops the keys of an owner that is gone from memory."""
    _kept.get(engine, {}).pop(uid, None)


async def publish_logins(
    engine: HasKube,
    owner: Obj,
    access: ClusterAccess,
    machines: Sequence[MachineView],
    outputs: Sequence[str] = (OUTPUT_SSH_CONFIG,),
) -> None:
    """Writes `known_hosts`, `config` and the inventory for machines that have an address; only when they changed.

    Args:
        engine: Whose client is used.
        owner: The cluster, whose access was ensured.
        access: What that gave.
        machines: All machines of the cluster.
        outputs: What the user asked for.

    Raises:
        NameConflict: A ConfigMap of the inventory's name isn't ours.
        Conflict: The Secret was changed meanwhile.
    """
    up = sorted(
        (m for m in machines if m.host and not m.deleting and not m.failed), key=lambda m: (m.pool, m.ordinal, m.name)
    )
    kept = _kept.setdefault(engine, {}).get(owner["metadata"]["uid"])
    if kept is None:
        return
    wanted = dict.fromkeys((KNOWN_HOSTS, CONFIG), b"")
    if OUTPUT_SSH_CONFIG in outputs:
        wanted = {
            KNOWN_HOSTS: make_known_hosts(up, access.host_public_key).encode(),
            CONFIG: make_config(up).encode(),
        }
    if any(kept.data.get(key, b"") != value for key, value in wanted.items()):
        found = await find_own(engine.kube, SECRET, owner, access.secret_name)
        if found is None:
            kept.looked_at = 0.0  # ensure_access brings it back
            raise Conflict(f"Secret '{access.secret_name}' is gone")
        stored = await change_data(engine.kube, SECRET, found, wanted)
        kept.data = data_of(SECRET, stored)
    if OUTPUT_INVENTORY in outputs:
        inventory = make_inventory(owner["metadata"]["name"], up)
        now = asyncio.get_running_loop().time()
        if inventory != kept.inventory or now - kept.inventory_at > LOOK_AGAIN_SECONDS:
            await ensure_data(engine.kube, CONFIG_MAP, owner, inventory_name(owner), inventory)
            kept.inventory, kept.inventory_at = inventory, now


# -- texts, pure -----------------------------------------------------------------------------------------------------


def make_authorized_keys(own_key: str, public_keys: Sequence[str]) -> str:
    """Lines of authorized_keys: the cluster's own key first, none twice."""
    return "".join(f"{key}\n" for key in dict.fromkeys([own_key.strip(), *(key.strip() for key in public_keys)]))


def make_known_hosts(machines: Sequence[MachineView], host_key: str) -> str:
    """Lines of known_hosts, each machine by its name and by its address."""
    lines = []
    for machine in machines:
        _check(machine)
        place = machine.host if machine.port == 22 else f"[{machine.host}]:{machine.port}"
        lines.append(f"{machine.name},{place} {' '.join((machine.host_key or host_key).split()[:2])}\n")
    return "".join(lines)


def make_config(machines: Sequence[MachineView]) -> str:
    """A configuration for `ssh -F config NAME`, to be used in the folder where the Secret's keys lie as files."""
    lines = ["# In a folder with this Secret's id_ed25519 (mode 0600) and known_hosts: ssh -F config NAME"]
    for machine in machines:
        _check(machine)
        lines += [
            f"Host {machine.name}",
            f"    HostName {machine.host}",
            f"    Port {machine.port}",
            f"    User {machine.user}",
            f"    HostKeyAlias {machine.name}",
        ]
        if machine.login_command:
            lines.append(f"    ProxyCommand {machine.login_command}")
    lines += [
        "Host *",
        "    IdentityFile id_ed25519",
        "    IdentitiesOnly yes",
        "    UserKnownHostsFile known_hosts",
        "    StrictHostKeyChecking yes",
    ]
    return "\n".join(lines) + "\n"


def make_inventory(cluster: str, machines: Sequence[MachineView]) -> dict[str, bytes]:
    """The machines for other tools: names, an Ansible inventory, and JSON."""
    pools: dict[str, list[str]] = {}
    for machine in machines:
        _check(machine)
        pools.setdefault(machine.pool or "machines", []).append(
            f"{machine.name} ansible_host={machine.host} ansible_port={machine.port} ansible_user={machine.user}"
        )
    ini = "".join(f"[{pool.replace('-', '_')}]\n" + "\n".join(lines) + "\n\n" for pool, lines in pools.items())
    children = "".join(f"{pool.replace('-', '_')}\n" for pool in pools)
    ini += f"[{cluster.replace('-', '_')}_all:children]\n{children}"
    listed = [
        {
            "name": m.name, "pool": m.pool, "ordinal": m.ordinal, "account": m.account, "host": m.host, "port": m.port,
            "user": m.user, "privateAddress": m.private_address, "publicAddress": m.public_address,
        }
        for m in machines
    ]  # fmt: skip
    return {
        "hosts": "".join(f"{m.name}\n" for m in machines).encode(),
        "inventory.ini": ini.encode(),
        "inventory.json": (json.dumps({"cluster": cluster, "machines": listed}, indent=1) + "\n").encode(),
    }


def _check(machine: MachineView) -> None:
    """Names and addresses come from a cloud: one with a space or a line's end would write other lines of a file."""
    for value in (machine.host, machine.user):
        if not re.fullmatch(r"[A-Za-z0-9_.:%-]{1,253}", value):
            raise Conflict(f"machine '{machine.name}' has an address or user that can't be used: {value[:80]!r}")
    if not machine.login_command.isprintable() or not machine.host_key.isprintable():
        raise Conflict(f"machine '{machine.name}' has a login command or host key that can't be used")


# -- the Secret ------------------------------------------------------------------------------------------------------


def make_key_pair(comment: str) -> tuple[str, str]:
    """A new Ed25519 key: private in OpenSSH form, public as one line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), f"{public.decode()} {comment}"


def _changes(held: Mapping[str, bytes], owner: Obj, public_keys: Sequence[str], slurm: bool) -> dict[str, bytes]:
    """What the Secret lacks or has otherwise; a key pair is made only where it is absent."""
    meta = owner["metadata"]
    changes: dict[str, bytes] = {}
    for private, public, what in ((CLIENT_KEY, CLIENT_PUBLIC, ""), (HOST_KEY, HOST_PUBLIC, "host:")):
        if not held.get(private) or not held.get(public):
            key, line = make_key_pair(f"cloudmesh:{what}{meta['namespace']}/{meta['name']}")
            changes |= {private: key.encode(), public: f"{line}\n".encode()}
    own_key = changes.get(CLIENT_PUBLIC, held.get(CLIENT_PUBLIC, b"")).decode()
    authorized = make_authorized_keys(own_key, public_keys).encode()
    if held.get(AUTHORIZED) != authorized:
        changes[AUTHORIZED] = authorized
    if slurm and not held.get(MUNGE_KEY):
        changes[MUNGE_KEY] = secrets.token_bytes(MUNGE_KEY_BYTES)
    return changes


async def _ensure_secret(
    kube: Kube, owner: Obj, name: str, public_keys: Sequence[str], slurm: bool, known: Mapping[str, bytes]
) -> dict[str, bytes]:
    found = await find_own(kube, SECRET, owner, name)
    if found is None:
        data = {**known, **_changes(known, owner, public_keys, slurm)}
        try:
            return data_of(SECRET, await create_data(kube, SECRET, owner, name, data))
        except AlreadyExists:  # a lost answer of ours, or another process was first
            found = await find_own(kube, SECRET, owner, name)
            if found is None:
                raise
    held = data_of(SECRET, found)
    if changes := _changes(held, owner, public_keys, slurm):
        held = data_of(SECRET, await change_data(kube, SECRET, found, changes))
    return held
