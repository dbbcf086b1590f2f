"""The memory provider: the reference for authors of providers, and machines that cost nothing, for tests and scale.

Its clouds live in this process: an operator that restarts finds an empty one, and two operators don't see each other's
machines. So an account of this kind is for trying things out, never for anything that must stay.

Settings of an account, all strings: `cloud` (accounts with the same value share one), `seed`, `types`, `regions`,
`zones` (of the catalogue), `spot` (`true` or `false`), `key` (the only API key that is accepted), `nativeTokens`
(`true` or `false`), `powers` (names with commas between, `none` for none), `bootSeconds`, `stopSeconds`,
`deleteSeconds`, `endedSeconds`, `listLagSeconds`, `latencySeconds`, `pageSize`, `callsPerSecond`, `pollSeconds`,
`createSeconds`, `graceSeconds` (the lag if not set), and `free` (machines that fit in each row of the catalogue).
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
    "make",
]

NUMBERS = {
    "bootSeconds": "boot_seconds",
    "stopSeconds": "stop_seconds",
    "deleteSeconds": "delete_seconds",
    "endedSeconds": "ended_seconds",
    "listLagSeconds": "list_lag_seconds",
    "latencySeconds": "latency_seconds",
}
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
    name = settings.get("cloud") or context.uid or f"{context.namespace}/{context.name}"
    back_end = _clouds.get(name) or cloud(name, _from_settings(name, settings))
    kind = _class(settings.get("powers", ""))
    info = ProviderInfo(
        kind="memory",
        grace_seconds=math.ceil(_number(settings, "graceSeconds", back_end.habits.list_lag_seconds)),
        create_seconds=int(_number(settings, "createSeconds", 10)),
        native_tokens=back_end.habits.native_tokens,
        ssh=False,
        poll_seconds=_number(settings, "pollSeconds", 2),
    )
    return kind(context.name, back_end, key=context.credentials.get("key", b"").decode(errors="replace"), info=info)


def _from_settings(name: str, settings: Mapping[str, str]) -> MemoryCloud:
    stock = Stock(
        types=int(_number(settings, "types", 8)),
        regions=int(_number(settings, "regions", 2)),
        zones=int(_number(settings, "zones", 2)),
        seed=int(_number(settings, "seed", 1)),
        spot=settings.get("spot", "true") == "true",
    )
    habits = Habits(native_tokens=settings.get("nativeTokens", "true") == "true")
    for setting, habit in NUMBERS.items():
        setattr(habits, habit, _number(settings, setting, getattr(habits, habit)))
    habits.page_size = max(1, int(_number(settings, "pageSize", habits.page_size)))
    habits.calls_per_second = int(_number(settings, "callsPerSecond", 0))
    made = MemoryCloud(name, stock=stock, habits=habits, key=settings.get("key", ""))
    if "free" in settings:
        made.set_free(int(_number(settings, "free", 0)))
    return made


def _number(settings: Mapping[str, str], name: str, default: float) -> float:
    text = settings.get(name, "")
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise InvalidRequest(f"spec.memory.settings.{name}: {text!r} is not a number of at least 0")
    return number


@functools.cache
def _class(powers: str) -> type[MemoryProvider]:
    """The provider's class with these powers: having a power is implementing its methods."""
    names = [name.strip() for name in powers.split(",") if name.strip()] or list(POWERS)
    if names == ["none"]:
        return MemoryProvider
    if unknown := [name for name in names if name not in POWERS]:
        raise InvalidRequest(f"spec.memory.settings.powers: unknown {', '.join(unknown)}; known: {', '.join(POWERS)}")
    return type("MemoryProvider", (*(POWERS[name] for name in names), MemoryProvider), {})
