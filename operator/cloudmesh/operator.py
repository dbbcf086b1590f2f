"""The composition root: settings, login, engine, kopf. The only module that imports kopf.

kopf lists and watches the reconciled kinds and hands each event on. It runs in a thread with an event loop of its own:
when it ends it cancels every task of its loop, which must not take the lease and the running reconciles with it.
"""

from __future__ import annotations

import asyncio
import datetime
import importlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn, Protocol

import kopf

from cloudmesh.engine import logs
from cloudmesh.engine.engine import GRACE_SECONDS, Engine
from cloudmesh.engine.kube import Access, AccessMissing, HttpTransport, Kube, own_namespace
from cloudmesh.engine.lease import Elector, LeaseLost
from cloudmesh.engine.metrics import Metrics
from cloudmesh.engine.probes import Probes
from cloudmesh.engine.reconciler import Reconciler
from cloudmesh.engine.resources import Obj, Resource
from cloudmesh.engine.settings import Settings, SettingsError

log = logging.getLogger(__name__)

RECONCILERS: tuple[str, ...] = (
    "cloudmesh.functions.controller:reconciler",
    "cloudmesh.compute.account_controller:reconciler",
    "cloudmesh.compute.machine_controller:reconciler",
    "cloudmesh.compute.cluster_controller:reconciler",
    "cloudmesh.compute.budget_controller:reconciler",
    "cloudmesh.compute.jobs.controller:reconciler",
    "cloudmesh.compute.choices:price_sheets",
    "cloudmesh.compute.choices:policies",
    "cloudmesh.data.store_controller:reconciler",
    "cloudmesh.data.controller:reconciler",
)
"""Factories `module:function`, called with the engine and the settings; loaded when the operator starts."""

LOGIN_SECONDS = 600
"""Service account tokens are replaced at 80 % of an hour: read the file again well before the rest is over."""

END_SECONDS = 3.0

EXIT_CONFIGURATION = 2
EXIT_LEASE_LOST = 3
EXIT_FAILED = 1

Observe = Callable[[Resource, str | None, Obj], None]


class Factory(Protocol):
    """Makes a reconciler."""

    def __call__(self, engine: Engine, settings: Settings) -> Reconciler:
        """Makes the reconciler; may add background work to the engine."""


def load(names: Sequence[str]) -> list[Factory]:
    """Imports the factories of a table.

    Raises:
        SettingsError: A module or function isn't there.
    """
    found: list[Factory] = []
    for name in names:
        module, _, function = name.partition(":")
        try:
            found.append(getattr(importlib.import_module(module), function))
        except (ImportError, AttributeError) as error:
            raise SettingsError(f"the reconciler {name!r} can't be loaded: {error}") from error
    return found


class Shell(threading.Thread):
    """kopf in its own thread and event loop.

    Args:
        access: How to log in.
        resources: Kinds to watch.
        namespaces: Namespaces to serve, empty for all.
        observe: Called on the engine's loop with each event.
        on_end: Called on the engine's loop when kopf ended by itself.
    """

    def __init__(
        self,
        access: Access,
        resources: Sequence[Resource],
        namespaces: Sequence[str],
        observe: Observe,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        super().__init__(name="kopf", daemon=True)
        self._access = access
        self._resources = resources
        self._namespaces = namespaces
        self._observe = observe
        self._on_end = on_end
        self._engine_loop = asyncio.get_running_loop()
        self._ending = threading.Event()

    def stop(self) -> None:
        """Asks kopf to end; doesn't wait."""
        self._ending.set()

    def end(self) -> None:
        """Waits until kopf has closed its connections, but not for long."""
        if self.ident is not None:
            self.join(END_SECONDS)

    def ended(self) -> str:
        """Says if kopf ended by itself; a check for the probes."""
        return "kopf has ended" if self.ident is not None and not self.is_alive() and not self._ending.is_set() else ""

    def run(self) -> None:
        """Runs kopf until it is asked to end."""
        error: BaseException | None = None
        try:
            asyncio.run(self._serve())
        except BaseException as caught:  # noqa: BLE001 - told to the engine's loop, which ends the process
            error = caught
        if not self._ending.is_set():
            self._tell(self._on_end, error)

    async def _serve(self) -> None:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._login)
        for resource in self._resources:
            kopf.on.event(resource.group, resource.version, resource.plural, registry=registry)(self._handler(resource))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=FutureWarning)
            await kopf.operator(
                registry=registry,
                settings=settings_of_kopf(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=list(self._namespaces),
                stop_flag=self._ending,
            )

    def _handler(self, resource: Resource) -> Callable[..., Any]:
        async def handle(event: Any, **_: Any) -> None:
            self._tell(self._observe, resource, event["type"], event["object"])

        return handle

    async def _login(self, **_: Any) -> kopf.ConnectionInfo:
        login = await self._access.login()
        return kopf.ConnectionInfo(
            server=login.server,
            ca_path=login.ca_path,
            insecure=not login.verify,
            scheme=login.scheme,
            token=login.token,
            username=login.username,
            password=login.password,
            certificate_path=login.certificate_path,
            private_key_path=login.key_path,
            expiration=datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=LOGIN_SECONDS)
            if login.token
            else None,
        )

    def _tell(self, function: Callable[..., None], *arguments: Any) -> None:
        try:
            self._engine_loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:  # the engine's loop is closed: the process is ending
            log.debug("event after the end")


class NoDifferences(kopf.DiffBaseStorage):
    """Keeps no copies of objects: the engine has its own way to see what is new, and copying costs at each event."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None) -> kopf.BodyEssence:
        """Gives nothing to compare."""
        return kopf.BodyEssence({})

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Finds nothing stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Stores nothing."""


def settings_of_kopf() -> kopf.OperatorSettings:
    """kopf's settings: watches that can't go silent, no writes, no scans, no peering."""
    settings = kopf.OperatorSettings()
    settings.persistence.diffbase_storage = NoDifferences()
    settings.watching.server_timeout = 290
    settings.watching.client_timeout = 300
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 500
    settings.queueing.worker_limit = None
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.networking.enforce_retry_after = True
    return settings


async def serve(settings: Settings, access: Access, factories: Sequence[Factory], stop: asyncio.Event) -> int:
    """Runs the operator until `stop` is set; returns the exit code. Ends the process when the lease is lost."""
    metrics = Metrics()
    kube = Kube(HttpTransport(access), metrics=metrics)
    elector = Elector(kube, settings.namespace, settings.lease_name, settings.identity, metrics=metrics)
    engine = Engine(
        kube,
        metrics=metrics,
        namespaces=settings.watch_namespaces,
        instance=settings.identity,
        elector=elector,
        workers=settings.workers,
        on_lease_lost=step_down,
    )
    for factory in factories:
        engine.add(factory(engine, settings))
    ended: list[BaseException | None] = []

    def on_end(error: BaseException | None) -> None:
        log.error("kopf ended", extra={"error": repr(error)})
        ended.append(error)
        stop.set()

    shell = Shell(access, engine.fed, settings.watch_namespaces, engine.observe, on_end)
    probes = Probes(
        metrics,
        alive=(engine.watch_silence, engine.queue_standstill, shell.ended),
        ready=(engine.unsynced,),
        refresh=engine.queue.observe,
    )
    try:
        await probes.start(None, settings.http_port)
    except OSError as error:
        raise SettingsError(f"CLOUDMESH_HTTP_PORT {settings.http_port} can't be listened on: {error}") from error
    log.info("operator starts", extra={"version": settings.version, "identity": settings.identity})
    running = asyncio.create_task(engine.run(stop, grace_seconds=GRACE_SECONDS), name="engine")
    try:
        # kopf looks for the kinds only once, at its start: the engine's first list has seen them served
        waiting = asyncio.create_task(engine.synced.wait())
        await asyncio.wait({waiting, running}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not running.done():
            shell.start()
        await running
    finally:
        shell.stop()
        await asyncio.to_thread(shell.end)
        await probes.stop()
        await kube.close()
    return EXIT_FAILED if ended else 0


def step_down(error: LeaseLost) -> NoReturn:
    """Ends the process at once: whatever it is doing may belong to somebody else now."""
    log.critical("step down", extra={"error": str(error)})
    sys.stderr.flush()
    os._exit(EXIT_LEASE_LOST)


async def main(factories: Sequence[Factory] | None = None) -> int:
    """Reads settings, logs in, serves until SIGTERM or SIGINT."""
    settings = Settings.from_environ(os.environ, default_namespace=own_namespace())
    logs.set_up(settings.log_level)
    logging.getLogger("kopf").setLevel(logging.WARNING)  # it tells each event, with all its settings
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # signals are ours, not its thread's
    access = await Access.load()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return await serve(settings, access, load(RECONCILERS) if factories is None else factories, stop)


def run(factories: Sequence[Factory] | None = None) -> NoReturn:
    """Runs the operator as a process of its own and ends it."""
    try:
        code = asyncio.run(main(factories))
    except (SettingsError, AccessMissing) as error:
        sys.stderr.write(f"cloudmesh operator: {error}\n")
        code = EXIT_CONFIGURATION
    except Exception:
        log.exception("the operator failed")
        code = EXIT_FAILED
    sys.stdout.flush()
    sys.stderr.flush()
    # kopf's thread and pool threads must not keep a process alive that has released its lease
    os._exit(code)


if __name__ == "__main__":
    run()
