"""Serves one directory: `python -m cloudmesh.data.gateway`, in the Pod that the operator makes."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from cloudmesh.data.gateway.auth import ApiServer
from cloudmesh.data.gateway.service import Gateway
from cloudmesh.data.gateway.settings import GatewaySettings
from cloudmesh.engine import logs

CA_FILE = "/var/run/cloudmesh/ca/ca.crt"
GARBAGE = (10_000, 20, 20)
"""Objects that come before the youngest are looked at, and how many such looks before the older ones are."""


def _api_server() -> ApiServer | None:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    host = f"[{host}]" if ":" in host else host
    return ApiServer(f"https://{host}:{port}", CA_FILE if Path(CA_FILE).exists() else "")


async def serve(config: Path, folder: Path, host: str, port: int) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Gateway(config, folder, _api_server(), GatewaySettings.from_environ()) as gateway:
        runner = await gateway.listen(host, port)
        # what is there by now stays: the collector of garbage need not look at it, nor at each few requests
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE)
        logging.getLogger(__name__).info("listening on port %d", port)
        try:
            await stop.wait()
        finally:
            await runner.cleanup()


def main() -> int:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser(prog="python -m cloudmesh.data.gateway", description="Serves one directory.")
    parser.add_argument("--config", type=Path, default=Path("/etc/cloudmesh/config.json"))
    parser.add_argument("--folder", type=Path, default=Path("/var/lib/cloudmesh"))
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - the Pod's own network
    parser.add_argument("--port", type=int, default=8080)
    told = parser.parse_args()
    logs.set_up(os.environ.get("CLOUDMESH_LOG_LEVEL", "INFO"))
    asyncio.run(serve(told.config, told.folder, told.host, told.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
