"""The memory provider: the reference for authors of providers, and machines that cost nothing, for tests and scale.

Its clouds live in this process: an operator that restarts finds an empty one, and two operators don't see each other's
machines. So an account of this kind is for trying things out, never for anything that must stay.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from cloudmesh.compute.ports import ProviderInfo
from cloudmesh.compute.providers.memory.cloud import Habits, MemoryCloud
from cloudmesh.compute.providers.memory.faults import Fault
from cloudmesh.compute.providers.memory.instance import CloudError, Instance
from cloudmesh.compute.providers.memory.powers import POWERS
from cloudmesh.compute.providers.memory.provider import MemoryProvider
from cloudmesh.compute.providers.memory.settings import check_names, make_cloud, seconds
from cloudmesh.compute.providers.memory.stock import Row, Stock
from cloudmesh.compute.providers.registry import Context
from cloudmesh.engine.errors import InvalidRequest

__all__ = [
    "CloudError",
    "Fault",
    "Habits",
    "Instance",
    "MemoryCloud",
    "MemoryProvider",
    "Row",
    "Stock",
    "cloud",
    "forget",
    "make",
]

_clouds: dict[str, MemoryCloud] = {}


def cloud(name: str, made: MemoryCloud | None = None) -> MemoryCloud:
    """The cloud of a name, the same for all accounts of this process; a test puts its own there beforehand."""
    if made is not None:
        _clouds[name] = made
    elif name not in _clouds:
        _clouds[name] = MemoryCloud(name)
    return _clouds[name]


def forget(name: str) -> None:
    """Drops the cloud of a name; providers that have it keep it."""
    _clouds.pop(name, None)


def make(context: Context) -> MemoryProvider:
    """The provider of one account.

    Raises:
        InvalidRequest: A setting isn't what it should be.
    """
    settings: Mapping[str, str] = context.spec.get("settings") or {}
    check_names(settings)
    kind = _class(settings.get("powers", ""))
    name = settings.get("cloud") or context.uid or f"{context.namespace}/{context.name}"
    back_end = _clouds.get(name) or cloud(name, make_cloud(name, settings))
    info = ProviderInfo(
        kind="memory",
        grace_seconds=math.ceil(seconds(settings, "graceSeconds", back_end.habits.list_lag_seconds)),
        create_seconds=math.ceil(max(1.0, seconds(settings, "createSeconds"))),
        native_tokens=back_end.habits.native_tokens,
        ssh=False,
        poll_seconds=max(0.1, seconds(settings, "pollSeconds")),
    )
    return kind(context.name, back_end, key=context.credentials.get("key", b"").decode(errors="replace"), info=info)


@functools.cache
def _class(powers: str) -> type[MemoryProvider]:
    """The provider's class with these powers: having a power is implementing its methods."""
    names = [name.strip() for name in powers.split(",") if name.strip()] or list(POWERS)
    if names == ["none"]:
        return MemoryProvider
    if unknown := [name for name in names if name not in POWERS]:
        raise InvalidRequest(f"spec.memory.settings.powers: unknown {', '.join(unknown)}; known: {', '.join(POWERS)}")
    return type("MemoryProvider", (*(POWERS[name] for name in names), MemoryProvider), {})
