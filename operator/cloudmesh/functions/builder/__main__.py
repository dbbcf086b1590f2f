"""`python -m cloudmesh.functions.builder`: serves until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from aiohttp import web

from cloudmesh.engine.errors import CloudmeshError
from cloudmesh.engine.logs import set_up
from cloudmesh.functions.builder.http import application, tls_context
from cloudmesh.functions.builder.service import Service
from cloudmesh.functions.builder.settings import Settings

_GRACE_SECONDS = 20.0
_log = logging.getLogger("cloudmesh.functions.builder")


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; builds under way get a while to end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting = asyncio.create_task(settings.wait_for_files())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({waiting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if stop.is_set():
        waiting.cancel()
        return
    service = Service(settings)
    runner = web.AppRunner(application(service), access_log=None, shutdown_timeout=_GRACE_SECONDS)
    await runner.setup()
    site = web.TCPSite(runner, None, settings.port, ssl_context=tls_context(settings))
    await site.start()
    _log.info("listening on port %d", settings.port)
    preparing = asyncio.create_task(service.prepare())
    try:
        await stop.wait()
    finally:
        preparing.cancel()
        await runner.cleanup()
        await service.close()


def main() -> int:
    """The process."""
    set_up(os.environ.get("CLOUDMESH_LOG_LEVEL") or "info")
    try:
        asyncio.run(serve(Settings.from_environment()))
    except CloudmeshError as error:
        _log.error("%s", error)  # the message says it all
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
