"""The process that serves a function: one event loop, granian inside it, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import time
from typing import Any, Final

from cloudmesh_function.app import App
from cloudmesh_function.settings import EXIT_NOT_LOADED, Settings

log = logging.getLogger("cloudmesh.function")
_QUIET: Final = 1.0  # seconds without a call that make further waiting for load balancers needless


def run(app: App, settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT; returns the process's exit status."""
    return asyncio.run(_serve(app, settings))


async def _serve(app: App, settings: Settings) -> int:
    from granian.constants import HTTPModes, Interfaces
    from granian.server.embed import Server

    logging.getLogger("_granian").setLevel(logging.ERROR)
    server: Any = Server(
        app,
        address=settings.host,
        port=settings.port,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        # granian counts connections, and idle ones of a proxy must not keep probes out
        backpressure=max(4096, 2 * settings.concurrency),
        log_enabled=False,
    )
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    hurried = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ending.set)

    def interrupt() -> None:
        hurried.set()
        ending.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    serving = loop.create_task(server.serve())
    waiting = loop.create_task(ending.wait())
    if app.state.not_ready:
        await asyncio.wait({serving, waiting}, timeout=settings.fault, return_when=asyncio.FIRST_COMPLETED)
        if not ending.is_set() and not serving.done():
            # A new start may find what the import missed, and the last words stand in the Pod's status.
            log.error("ending: %s", app.state.not_ready)
            server.stop()
            waiting.cancel()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(serving, 1.0)
            return EXIT_NOT_LOADED
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        waiting.cancel()
        log.error("the server ended by itself", exc_info=serving.exception())
        return 1
    begun = time.monotonic()
    log.info("ending: %d requests run", app.state.open_requests)
    app.state.draining = True
    if not hurried.is_set():
        await _wait_for_quiet(app, begun, min(settings.drain, settings.grace))
    if app.state.open_requests:
        app.state.idle.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(app.state.idle.wait(), max(0.0, begun + settings.grace - 0.5 - time.monotonic()))
    server.stop()
    try:
        await asyncio.wait_for(serving, max(0.2, begun + settings.grace - time.monotonic()))
    except TimeoutError:
        log.warning("requests were still open at the end")
    return 0


async def _wait_for_quiet(app: App, begun: float, longest: float) -> None:
    """Goes on serving until no call came for a while: those who route to us hear of the end later than we do."""
    while True:
        await asyncio.sleep(0.05)
        now = time.monotonic()
        if now >= begun + longest or now >= max(begun, app.state.last_call) + min(_QUIET, longest):
            return


def configure_logging() -> None:
    """One line a record on stderr."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
