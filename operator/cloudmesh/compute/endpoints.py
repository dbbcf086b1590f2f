"""Which hosts CloudAccounts name, and the guard of a process that looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudmesh.api.cloudaccount import CLOUDS
from cloudmesh.compute.settings import ComputeSettings
from cloudmesh.engine import Engine, per_engine
from cloudmesh.engine.endpoints import Guard, hosts_at


def guard_by(settings: ComputeSettings) -> Guard:
    """A guard as the installation wants it."""
    return Guard(settings.forbidden_hosts, inside=settings.allow_private_endpoints)


@per_engine
def guard_of(engine: Engine, settings: ComputeSettings | None = None) -> Guard:
    """The guard of a process.

    Args:
        engine: Its engine.
        settings: Of the compute wing, for the first who asks; those of the environment if None.
    """
    return guard_by(settings or ComputeSettings.from_environ())


def hosts_of(kind: str, member: Mapping[str, Any]) -> tuple[str, ...]:
    """Hosts that a CloudAccount names, in the fields that its kind declares as `ENDPOINTS`.

    Args:
        kind: Member of CloudAccount.spec, or name of a plug-in.
        member: What it says to its provider; of a plug-in its `settings`.
    """
    prefix = "" if kind in CLOUDS else "settings."
    places = CLOUDS[kind if kind in CLOUDS else "plugin"].ENDPOINTS
    return hosts_at(member, {path.removeprefix(prefix): what for path, what in places.items()})
