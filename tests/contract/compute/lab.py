"""One namespace on an API server in memory, for reconcilers whose clouds are real or emulated."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping
from typing import Any

from cloudmesh.compute.kinds import (
    BUDGET,
    CLOUD_ACCOUNT,
    CLUSTER_JOB,
    PLACEMENT_POLICY,
    PRICE_SHEET,
    VIRTUAL_CLUSTER,
    VIRTUAL_MACHINE,
)
from cloudmesh.data.kinds import VIRTUAL_DIRECTORY
from cloudmesh.engine import CONFIG_MAP, SECRET, Resource
from cloudmesh.testing import World

NAMESPACES = Resource("v1", "Namespace", "namespaces", namespaced=False)
KINDS = (
    VIRTUAL_CLUSTER, VIRTUAL_MACHINE, CLOUD_ACCOUNT, PLACEMENT_POLICY, PRICE_SHEET, BUDGET, CLUSTER_JOB, CONFIG_MAP,
    SECRET, NAMESPACES, VIRTUAL_DIRECTORY,
)  # fmt: skip


class Lab:
    """Objects of the namespace, and what is said of them."""

    def __init__(self) -> None:
        self.world = World(KINDS)
        self.api = self.world.api
        self.api.put(NAMESPACES, {"metadata": {"name": "kube-system"}})

    def put(self, resource: Resource, name: str, **body: Any) -> None:
        """Makes or replaces an object."""
        self.api.put(resource, {"metadata": {"name": name, "namespace": "ns"}, **body})

    def put_secret(self, name: str, type_: str, data: Mapping[str, bytes]) -> None:
        """Makes or replaces a Secret."""
        self.put(SECRET, name, type=type_, data={key: base64.b64encode(value).decode() for key, value in data.items()})

    def status(self, resource: Resource, name: str) -> dict[str, Any]:
        """Status of an object, empty if there is none."""
        return (self.api.get(resource, "ns", name) or {}).get("status") or {}

    def ready(self, resource: Resource, name: str) -> str:
        """Status of the condition Ready, empty if there is none."""
        return self._ready(resource, name).get("status", "")

    def told(self, resource: Resource, name: str) -> str:
        """Message of the condition Ready, empty if there is none."""
        return self._ready(resource, name).get("message", "")

    def _ready(self, resource: Resource, name: str) -> dict[str, str]:
        found = self.status(resource, name).get("conditions") or ()
        return next((c for c in found if c["type"] == "Ready"), {})

    async def until(self, holds: Callable[[], Any], seconds: float = 60) -> None:
        """Waits for something; tells what stands in all objects if it doesn't come."""
        for _ in range(int(seconds * 10)):
            if holds():
                return
            await asyncio.sleep(0.1)
        told = {(r.kind, o["metadata"]["name"]): o.get("status") for r in KINDS for o in self.api.all(r)}
        raise AssertionError({key: status for key, status in told.items() if status})
