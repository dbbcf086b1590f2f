"""Which store serves which member of DataStore.spec: the house's own, and entry points of group `cloudmesh.store`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from cloudmesh.data.stores.ports import Store
from cloudmesh.engine.endpoints import Guard, hosts_at
from cloudmesh.engine.errors import CloudmeshError, InvalidRequest

GROUP: Final = "cloudmesh.store"
PLUGIN: Final = "plugin"
"""The member of DataStore.spec that names an entry point of that group."""
OWN: Final[Mapping[str, str]] = {
    "azureBlob": "cloudmesh.data.stores.azure:make",
    "gcs": "cloudmesh.data.stores.gcs:make",
    "local": "cloudmesh.data.stores.local:make",
    "memory": "cloudmesh.data.stores.memory:make",
    "s3": "cloudmesh.data.stores.s3:make",
    "sftp": "cloudmesh.data.stores.sftp:make",
    "swift": "cloudmesh.data.stores.swift:make",
    "webdav": "cloudmesh.data.stores.webdav:make",
}


@dataclass(frozen=True, slots=True)
class StoreContext:
    """What a store is made from.

    Args:
        name: Name of the DataStore.
        settings: The member of DataStore.spec, as the API has it (camelCase).
        credentials: The Secret's data.
        requests_per_second: Limit, None for none.
        bytes_per_second: Limit, None for none.
        mount: Folder in which the volume of a `local` store is mounted.
        allow_private: Addresses of loopback and link-local networks may be named.
        identity: What `spec.credentials.workloadIdentity` says, with the name of the `session`, and the `tokenFile`
            and `audience` of the token of the Pod's service account; empty without.
        guard: Says where connections may go, None for one that knows only `allow_private`.
    """

    name: str
    settings: Mapping[str, Any]
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    requests_per_second: int | None = None
    bytes_per_second: int | None = None
    mount: str = ""
    allow_private: bool = False
    guard: Guard | None = field(default=None, repr=False)
    identity: Mapping[str, str] = field(default_factory=dict)

    def guarded(self) -> Guard:
        """Says where connections may go."""
        return self.guard or Guard(inside=self.allow_private)

    def check(self, url: str) -> None:
        """Looks at the host of an endpoint, by its own words; names aren't looked up.

        Raises:
            InvalidRequest: It has none, or is an address of this machine or cluster.
        """
        self.guarded().check_hosts(hosts_at({"url": url}, {"url": "Url"}))


Make = Callable[[StoreContext], Store]


@lru_cache(maxsize=64)
def maker(kind: str) -> Make:
    """The function that makes stores of a kind.

    Raises:
        InvalidRequest: There is none, or it can't be loaded.
    """
    if kind in OWN:
        module, _, function = OWN[kind].partition(":")
        made: Make = getattr(importlib.import_module(module), function)
        return made
    return _plugged if kind == PLUGIN else _installed(kind)


def _plugged(context: StoreContext) -> Store:
    """The store that `spec.plugin` names, made from its own settings.

    Raises:
        InvalidRequest: There is none, or it can't use them.
    """
    name = str(context.settings["name"])
    make = _installed(name)
    try:
        return make(replace(context, settings=context.settings.get("settings") or {}))
    except CloudmeshError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a plug-in raises
        told = f"{type(error).__name__}: {error}"
        raise InvalidRequest(f"the plug-in '{name}' can't use `spec.plugin.settings`: {told}") from None


@lru_cache(maxsize=64)
def _installed(kind: str) -> Make:
    for point in entry_points(group=GROUP, name=kind):
        try:
            found: Make = point.load()
        except Exception as error:
            raise InvalidRequest(f"the store '{kind}' can't be loaded: {type(error).__name__}: {error}") from error
        return found
    plugged = ", ".join(sorted(point.name for point in entry_points(group=GROUP))) or "none"
    raise InvalidRequest(f"there is no store '{kind}': known are {', '.join(sorted(OWN))}; plugged in are: {plugged}")
