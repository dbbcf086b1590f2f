"""Which module serves a CloudAccount: the built-in table, by member of its spec, and entry points of plug-ins."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cloudmesh.compute.identity import WorkloadIdentity
from cloudmesh.compute.ports import Provider, ProviderInfo
from cloudmesh.compute.redact import PUBLIC, Redactor
from cloudmesh.engine import CloudmeshError, Engine, InvalidRequest, Kube, Unsupported
from cloudmesh.engine.endpoints import ANYWHERE, Guard

GROUP = "cloudmesh.compute"
BUILT_IN: Mapping[str, str] = {
    "aws": "cloudmesh.compute.providers.aws:make",
    "kubernetes": "cloudmesh.compute.providers.kubernetes:make",
    "memory": "cloudmesh.compute.providers.memory:make",
    "ssh": "cloudmesh.compute.providers.ssh:make",
}
"""Kind, and `module:function` that makes its provider; imported when the first account needs it."""
NEWS = ("cloudmesh.compute.providers.kubernetes.news:listen",)
"""`module:function` of those that hear of their machines before they are listed."""
PLUGIN = "plugin"
"""Member of CloudAccount.spec that names a provider that isn't built in, with `name` and `settings`."""
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
        spec: The member of CloudAccount.spec that names the kind, as plain data such as `{"region": "us-east-1"}`; of a
            plug-in its `settings`.
        images: Image aliases and the cloud's own ids, as the account maps them.
        credentials: Data of the account's Secret.
        identity: Stands in the place of a Secret, if the account asks for it.
        kube: The API server of this installation, for providers whose machines live in it.
        defaults: The installation's own settings for this kind, such as the image of Pod machines.
        guard: Makes connections to hosts that the account names, and refuses those that lead inside this cluster; a
            provider that connects otherwise has to check the addresses itself.
        installation: Whose machines are ours, as their tag says it; empty where no cluster is connected to.
    """

    namespace: str
    name: str
    uid: str
    spec: Mapping[str, Any]
    images: Mapping[str, str] = field(default_factory=dict)
    credentials: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    identity: WorkloadIdentity | None = None
    kube: Kube | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)
    guard: Guard = ANYWHERE
    installation: str = ""


Maker = Callable[[Context], Provider]


def listen(engine: Engine, hint: Callable[[str, str], None]) -> None:
    """Gives a hint, with namespace and name of a CloudAccount, when its machines changed; before the engine starts."""
    for target in NEWS:
        _load(target)(engine, hint)


def known_kinds() -> tuple[str, ...]:
    """All kinds that can be served, built in and plugged in."""
    return tuple(sorted({*BUILT_IN, *plugged_in()}))


def plugged_in() -> tuple[str, ...]:
    """Names of the plug-ins that are installed; one that has the name of a built-in kind can't be used."""
    return tuple(sorted({point.name for point in _entry_points()} - set(BUILT_IN)))


def choose(spec: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """The kind that a CloudAccount's spec asks for, and what it says to its provider.

    Raises:
        Unsupported: It names no cloud, or a plug-in that isn't installed.
    """
    if (asked := spec.get(PLUGIN)) is not None:
        name, installed = str(asked.get("name", "")), plugged_in()
        if name not in installed:
            there = f"installed are {', '.join(installed)}" if installed else "none is installed"
            hint = f"; {name!r} is built in: use `spec.{name}`" if name in BUILT_IN else ""
            raise Unsupported(f"`spec.plugin.name`: there is no plug-in {name!r} in this operator: {there}{hint}")
        return name, asked.get("settings") or {}
    kind = next((kind for kind in BUILT_IN if kind in spec), "")
    if not kind:
        raise Unsupported("`spec` names no cloud that this operator knows")
    return kind, spec[kind] or {}


def find_maker(kind: str) -> Maker:
    """The function that makes providers of a kind.

    Raises:
        Unsupported: No such kind, or its module can't be loaded; the message says why.
    """
    try:
        if (target := BUILT_IN.get(kind)) is not None:
            maker: Maker = _load(target)
            return maker
        for point in _entry_points():
            if point.name == kind:
                return functools.partial(_make_plugged_in, kind, point.load())
    except Exception as error:
        raise Unsupported(f"the provider {kind!r} can't be loaded: {error}") from error
    raise Unsupported(f"there is no provider {kind!r}; known are {', '.join(known_kinds())}")


def _load(target: str) -> Any:
    module, _, function = target.partition(":")
    return getattr(importlib.import_module(module), function)


def _make_plugged_in(kind: str, maker: Maker, context: Context) -> Provider:
    """Calls somebody else's function: whatever it does wrong is told as an error of the account."""
    try:
        made = maker(context)
    except CloudmeshError:
        raise
    except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the text may hold secrets
        redactor = Redactor(value for name, value in context.credentials.items() if name not in PUBLIC)
        told = redactor.text(f"{type(error).__name__}: {error}")
        raise InvalidRequest(f"the plug-in {kind!r} can't use `spec.plugin.settings`: {told}") from None
    info = getattr(made, "info", None)
    if not isinstance(info, ProviderInfo) or info.kind != kind:
        raise Unsupported(f"the plug-in {kind!r} makes no provider of that kind: its `info.kind` must be {kind!r}")
    return made


@functools.cache
def _entry_points() -> tuple[EntryPoint, ...]:
    """Entry points of the group; read once, since that opens a file of each package that is installed."""
    return tuple(entry_points(group=GROUP))
