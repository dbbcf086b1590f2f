"""Optional powers of the memory provider, a module a power; a class of the provider is put together from them."""

from __future__ import annotations

from collections.abc import Mapping

from cloudmesh.compute.providers.memory.powers.addresses import Addresses
from cloudmesh.compute.providers.memory.powers.adopt import Adopt
from cloudmesh.compute.providers.memory.powers.catalogue import Flavors, Images, Networks
from cloudmesh.compute.providers.memory.powers.groundwork import Groundwork
from cloudmesh.compute.providers.memory.powers.key_pairs import KeyPairs
from cloudmesh.compute.providers.memory.powers.machine import Console, Metadata, Reboot, Rename, Resize
from cloudmesh.compute.providers.memory.powers.power_state import StartStop, Suspend
from cloudmesh.compute.providers.memory.powers.security_groups import SecurityGroups
from cloudmesh.compute.providers.memory.powers.volumes import Volumes
from cloudmesh.compute.providers.memory.provider import MemoryProvider

POWERS: Mapping[str, type[MemoryProvider]] = {
    power.__name__: power
    for power in (
        Groundwork, StartStop, Reboot, Suspend, Resize, Rename, Console, Metadata, Adopt, Images, Flavors, KeyPairs,
        SecurityGroups, Networks, Addresses, Volumes,
    )
}  # fmt: skip
