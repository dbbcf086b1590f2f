"""The small operator as kopf's documentation teaches it, as a process: `python -m benchmarks.engine_parts.peer`."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import kopf
import yaml

from benchmarks.engine_parts.tally import Tally
from benchmarks.engine_parts.widgets import WIDGET, status_for


def registry(tally: Tally) -> kopf.OperatorRegistry:
    """Change handlers for create, update and resume."""
    found = kopf.OperatorRegistry()

    async def handle(spec: Any, meta: Any, name: str | None, patch: kopf.Patch, **_: Any) -> None:
        patch.status.update(status_for(spec, meta["generation"]))
        tally.handled(str(name))

    for decorate in (kopf.on.create, kopf.on.update, kopf.on.resume):
        decorate(WIDGET.group, WIDGET.version, WIDGET.plural, registry=found)(handle)
    kopf.on.login(registry=found)(login)
    return found


async def login(**_: Any) -> kopf.ConnectionInfo:
    """Logs in with the kubeconfig (kopf does it by itself only in its global registry)."""
    with open(os.environ["KUBECONFIG"], encoding="utf-8") as file:  # noqa: PTH123 - once, at the start
        config = yaml.safe_load(file)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    return kopf.ConnectionInfo(
        server=cluster["server"],
        insecure=cluster.get("insecure-skip-tls-verify"),
        ca_path=cluster.get("certificate-authority"),
        ca_data=cluster.get("certificate-authority-data"),
        certificate_path=user.get("client-certificate"),
        private_key_path=user.get("client-key"),
        certificate_data=user.get("client-certificate-data"),
        private_key_data=user.get("client-key-data"),
        token=user.get("token"),
    )


async def main() -> None:
    """Serves one namespace; with PEER_PRIORITY beside another replica, by kopf's peering."""
    logging.basicConfig(level=logging.WARNING)
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False  # as ours: no Event for every success
    settings.scanning.disabled = True
    priority = os.environ.get("PEER_PRIORITY")
    await kopf.operator(
        registry=registry(Tally()),
        settings=settings,
        namespaces=[os.environ["CLOUDMESH_NAMESPACE"]],
        standalone=priority is None,
        priority=int(priority or 0),
        peering_name=None if priority is None else "default",
    )


if __name__ == "__main__":
    asyncio.run(main())
