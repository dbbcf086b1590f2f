"""HTTP answers for the kubelet and Prometheus: /healthz, /readyz, /metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from cloudmesh.engine.metrics import Metrics

Check = Callable[[], str]
"""Returns what is wrong, an empty string when all is well."""


class Probes:
    """A small web server.

    Args:
        metrics: Served under /metrics.
        alive: Checks behind /healthz.
        ready: Checks behind /readyz.
        refresh: Called before metrics are read.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        alive: Sequence[Check] = (),
        ready: Sequence[Check] = (),
        refresh: Callable[[], None] | None = None,
    ) -> None:
        self._metrics = metrics
        self._alive = alive
        self._ready = ready
        self._refresh = refresh
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str | None, port: int) -> None:
        """Listens; port 0 takes a free one, told by `port`.

        Raises:
            OSError: The port is taken.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._text)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _healthz(self, _: web.Request) -> web.Response:
        return _answer(self._alive)

    async def _readyz(self, _: web.Request) -> web.Response:
        return _answer(self._ready)

    async def _text(self, _: web.Request) -> web.Response:
        if self._refresh is not None:
            self._refresh()
        return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})


def _answer(checks: Sequence[Check]) -> web.Response:
    wrong = [text for check in checks if (text := check())]
    return web.Response(status=503 if wrong else 200, text="\n".join(wrong or ["ok"]) + "\n")
