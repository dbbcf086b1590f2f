"""What the memory cloud keeps besides machines: key pairs, firewalls, addresses, volumes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudmesh.compute.providers.memory.instance import CloudError


@dataclass(slots=True)
class KeyPair:
    """A public key by name."""

    name: str
    public_key: str
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the key's text."""
        return "SHA256:" + hashlib.sha256(self.public_key.encode()).hexdigest()[:43]


@dataclass(slots=True)
class Group:
    """A firewall."""

    id: str
    name: str
    rules: list[dict[str, Any]]
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Holding:
    """An address or a volume: made once a token, bound to one machine at most."""

    id: str
    token: str
    tags: Mapping[str, str]
    node_id: str = ""
    address: str = ""
    size_gib: int = 0
    zone: str = ""


class Resources:
    """All of them, by name or id."""

    def __init__(self) -> None:
        self.key_pairs: dict[str, KeyPair] = {}
        self.groups: dict[str, Group] = {}
        self.addresses: dict[str, Holding] = {}
        self.volumes: dict[str, Holding] = {}
        self._serial = 0

    def next_id(self, prefix: str) -> str:
        """A fresh id."""
        self._serial += 1
        return f"{prefix}-{self._serial:06d}"

    def import_key_pair(self, name: str, public_key: str, tags: Mapping[str, str]) -> None:
        """Keeps a key.

        Raises:
            CloudError: `NameTaken` by another key.
        """
        held = self.key_pairs.get(name)
        if held is not None and held.public_key != public_key:
            raise CloudError("NameTaken", f"there is another key pair {name!r}")
        self.key_pairs[name] = KeyPair(name, public_key, dict(tags))

    def put_group(self, name: str, rules: Sequence[Mapping[str, Any]], tags: Mapping[str, str]) -> str:
        """Makes a firewall have exactly these rules; gives its id."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(self.next_id("sg"), name, [], dict(tags))
        group.rules = [dict(rule) for rule in rules]
        return group.id

    def hold(
        self,
        kind: dict[str, Holding],
        prefix: str,
        token: str,
        tags: Mapping[str, str],
        *,
        size_gib: int = 0,
        zone: str = "",
    ) -> str:
        """Makes the address or volume of a token, or finds it.

        Raises:
            CloudError: `TokenMismatch`.
        """
        for held in kind.values():
            if held.token == token:
                if (held.size_gib, held.zone) != (size_gib, zone):
                    raise CloudError("TokenMismatch", f"the token {token} was used for another order")
                return held.id
        made = Holding(self.next_id(prefix), token, dict(tags), size_gib=size_gib, zone=zone)
        kind[made.id] = made
        return made.id

    def hold_address(self, token: str, tags: Mapping[str, str]) -> str:
        """Makes the address of a token, or finds it."""
        found = self.hold(self.addresses, "ip", token, tags)
        held = self.addresses[found]
        held.address = held.address or f"198.51.100.{int(found.rpartition('-')[2]) % 254 + 1}"
        return found

    def bind(self, kind: dict[str, Holding], holding_id: str, node_id: str) -> None:
        """Binds an address or volume to a machine.

        Raises:
            CloudError: `InvalidParameter`: there is none; `InUse`: another machine has it.
        """
        held = kind.get(holding_id)
        if held is None:
            raise CloudError("InvalidParameter", f"there is no {holding_id}")
        if held.node_id not in ("", node_id):
            raise CloudError("InUse", f"{holding_id} belongs to {held.node_id}")
        held.node_id = node_id

    def free(self, kind: dict[str, Holding], holding_id: str) -> None:
        """Takes it off its machine."""
        if (held := kind.get(holding_id)) is not None:
            held.node_id = ""

    def drop(self, kind: dict[str, Holding], holding_id: str) -> None:
        """Ends it.

        Raises:
            CloudError: `InUse`: a machine has it.
        """
        held = kind.get(holding_id)
        if held is not None and held.node_id:
            raise CloudError("InUse", f"{holding_id} belongs to {held.node_id}")
        kind.pop(holding_id, None)

    def forget_node(self, node_id: str) -> None:
        """A machine is gone: what was bound to it is free."""
        for held in (*self.addresses.values(), *self.volumes.values()):
            if held.node_id == node_id:
                held.node_id = ""
