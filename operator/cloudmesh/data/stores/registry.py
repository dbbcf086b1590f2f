"""Which store serves which member of DataStore.spec: the house's own, and entry points of group `cloudmesh.store`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import entry_points
from typing import Any, Final

from cloudmesh.data.stores.ports import Store
from cloudmesh.engine.errors import InvalidRequest

GROUP: Final = "cloudmesh.store"
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
    """

    name: str
    settings: Mapping[str, Any]
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    requests_per_second: int | None = None
    bytes_per_second: int | None = None
    mount: str = ""
    allow_private: bool = False


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
    for point in entry_points(group=GROUP, name=kind):
        try:
            found: Make = point.load()
        except Exception as error:
            raise InvalidRequest(f"the store '{kind}' can't be loaded: {type(error).__name__}: {error}") from error
        return found
    raise InvalidRequest(f"there is no store '{kind}': known are {', '.join(sorted(OWN))}")
