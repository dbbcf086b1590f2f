"""Which module serves which member of CloudAccount.spec: the built-in table and entry points of plug-ins."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cloudmesh.compute.ports import Provider
from cloudmesh.engine import Kube, Unsupported

GROUP = "cloudmesh.compute"
BUILT_IN: Mapping[str, str] = {
    "aws": "cloudmesh.compute.providers.aws:make",
    "kubernetes": "cloudmesh.compute.providers.kubernetes:make",
    "memory": "cloudmesh.compute.providers.memory:make",
    "ssh": "cloudmesh.compute.providers.ssh:make",
}
"""Kind, and `module:function` that makes its provider; imported when the first account needs it."""
DEFAULT_ACCOUNT_NAME = "pods"
DEFAULT_ACCOUNT: Mapping[str, Mapping[str, Any]] = {"kubernetes": {}}
"""Name, and spec, of the account that a namespace gets when a cluster names none."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a provider is made of.

    Args:
        namespace: Namespace of the CloudAccount.
        name: Its name.
        uid: Its uid.
        spec: The member of CloudAccount.spec that names the kind, as plain data such as `{"region": "us-east-1"}`.
        images: Image aliases and the cloud's own ids, as the account maps them.
        credentials: Data of the account's Secret.
        kube: The API server of this installation, for providers whose machines live in it.
        defaults: The installation's own settings for this kind, such as the image of Pod machines.
        forbidden_hosts: Hosts of this cluster that no endpoint may name.
        allow_private_endpoints: Whether loopback and link-local endpoints are allowed.
    """

    namespace: str
    name: str
    uid: str
    spec: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    kube: Kube | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)
    forbidden_hosts: tuple[str, ...] = ()
    allow_private_endpoints: bool = False


Maker = Callable[[Context], Provider]


def known_kinds() -> tuple[str, ...]:
    """All kinds that can be served, built in and plugged in."""
    return tuple(sorted({*BUILT_IN, *(point.name for point in _plugged_in())}))


def find_maker(kind: str) -> Maker:
    """The function that makes providers of a kind.

    Raises:
        Unsupported: No such kind, or its module can't be loaded; the message says why.
    """
    try:
        if (target := BUILT_IN.get(kind)) is not None:
            module, _, function = target.partition(":")
            maker: Maker = getattr(importlib.import_module(module), function)
            return maker
        for point in _plugged_in():
            if point.name == kind:
                loaded: Maker = point.load()
                return loaded
    except Exception as error:
        raise Unsupported(f"the provider {kind!r} can't be loaded: {error}") from error
    raise Unsupported(f"there is no provider {kind!r}; known are {', '.join(known_kinds())}")


@functools.cache
def _plugged_in() -> tuple[EntryPoint, ...]:
    """Entry points of the group; read once, since that opens a file of each package that is installed."""
    return tuple(entry_points(group=GROUP))
