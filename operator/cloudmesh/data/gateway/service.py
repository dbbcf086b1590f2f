"""One gateway: catalogue, stores, mover and doors of one directory, in one process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from cloudmesh.data import config as configs
from cloudmesh.data import plugins, waking
from cloudmesh.data.catalog.address import address
from cloudmesh.data.catalog.choice import catalog_of, guard_of
from cloudmesh.data.catalog.journal import Journal
from cloudmesh.data.catalog.ports import ALL
from cloudmesh.data.catalog.postgres import PostgresCatalog
from cloudmesh.data.config import StoreSummary, Summary
from cloudmesh.data.emptying import Emptying
from cloudmesh.data.filling import FILLED, fill
from cloudmesh.data.following import Following
from cloudmesh.data.gateway import costs, problems, streams
from cloudmesh.data.gateway.auth import ApiServer, Doorkeeper, Unauthenticated
from cloudmesh.data.gateway.census import Census
from cloudmesh.data.gateway.costs import Meter, cost_of
from cloudmesh.data.gateway.page import Page
from cloudmesh.data.gateway.quoting import Quoting
from cloudmesh.data.gateway.rest import Rest
from cloudmesh.data.gateway.settings import GatewaySettings
from cloudmesh.data.gateway.webdav import WebDav
from cloudmesh.data.gateway.webdav_locks import Locks
from cloudmesh.data.memory import Memory
from cloudmesh.data.mesh import Member, Mesh
from cloudmesh.data.model import Totals
from cloudmesh.data.mover import Mover
from cloudmesh.data.placement import never_written
from cloudmesh.data.recovery import Recovery
from cloudmesh.data.tree import Tree, wall
from cloudmesh.engine.errors import CloudmeshError, Conflict, Transient

log = logging.getLogger(__name__)

CONFIG_SECONDS = 1.0
FILL_SECONDS = 5.0
"""How long a start waits for a catalogue that is made anew."""
OPEN_SECONDS = 2.0
"""Between tries to reach the catalogue's database."""
RECOVERY_SECONDS = 15.0
COUNT_SECONDS = 2.0
AGAIN_SECONDS = (1.0, 300.0)
"""After background work failed; twice as long after each time that follows, up to the second."""
REBUILDING = "the catalogue is being made anew of what the stores hold"
KEPT_TEXTS = ("store/", "shrunk/", "webdav.locks.", costs.EGRESS, costs.VERIFIED)
"""Texts of a catalogue that outlive it when it is thrown away: no store knows them."""
MAX_HEADER = 16384
MAX_LINE = 65536
"""A path that is too long is told so, up to this."""


class Gateway:
    """One directory's gateway; use with `async with`.

    Args:
        config_file: Where the operator's configuration is mounted; read again when it changes.
        folder: Where the catalogue lies.
        api_server: Asked about users' tokens; None where there is none.
        settings: What the process may take.
    """

    def __init__(
        self,
        config_file: Path,
        folder: Path,
        api_server: ApiServer | None = None,
        settings: GatewaySettings = GatewaySettings(),  # noqa: B008 - it is frozen
    ) -> None:
        self._settings = settings
        self._file = config_file
        self._text = config_file.read_bytes()
        self._refused = b""
        self._error = ""
        self._api_server = api_server
        self._folder = folder
        self._config = configs.load(self._text)
        self._tasks: list[asyncio.Task[None]] = []
        self._troubles: dict[str, tuple[float, str]] = {}
        """By what goes on in the background, when it failed last, and why."""
        self.waits = ""
        """What the doors wait for; empty when they are open."""
        self.emptying: Emptying | None = None
        self.left = False
        """The catalogue is gone."""
        self._started = False

    async def __aenter__(self) -> Gateway:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.catalog = catalog_of(self._config, self._folder)
        self.mesh = Mesh(
            self._config, self.catalog, clock=time.monotonic, on_change=self._store_changed, on_blip=self._store_back
        )
        self.journal = Journal(self.catalog, self.mesh)
        self.tree = Tree(self.catalog, self.mesh, self.journal, stir=self._stir, memory=Memory(self._settings.memory))
        self.census = Census(self.tree)
        self.mover = Mover(self.tree)
        self.meter = Meter(self.catalog, self.mesh, self.mover.done, wall)
        self.quoting = Quoting(self.tree, wall)
        self.recovery = Recovery(self.tree)
        self.following = Following(self.tree, stir=self._stir)
        self.door = Doorkeeper(lambda: self.mesh.config, self._api_server)
        if await self._open():
            await self._start()
        else:
            self._tasks.append(asyncio.create_task(self._forever(self._late()), name="catalogue"))
        self._tasks.append(asyncio.create_task(self._forever(self._watch_config()), name="configuration"))
        return self

    async def _open(self) -> bool:
        """Opens the catalogue; a database that doesn't answer is waited for, and the doors say so."""
        try:
            await self.catalog.open()
        except CloudmeshError as error:
            if not self.catalog.shared:
                raise
            self.waits = f"the catalogue's database can't be used: {error}"
            log.warning("%s", self.waits)
            return False
        return True

    async def _late(self) -> None:
        while not self._started:
            await asyncio.sleep(OPEN_SECONDS)
            try:
                if await self._open():
                    await self._start()
            except CloudmeshError as error:
                log.warning("the gateway can't begin: %s", error)
        await asyncio.Event().wait()

    async def _start(self) -> None:
        """Begins, once the catalogue is open."""
        await self.mesh.use(self._config)
        await self.mesh.settled()
        self._started = True
        if self._config.emptying:
            await self._end()
            return
        if self._config.ending:
            await self._leave()
            return
        self.waits = REBUILDING
        filling = asyncio.create_task(self._fill(), name="fill")
        # a large directory takes its time: the doors say so meanwhile
        await asyncio.wait({filling}, timeout=FILL_SECONDS)
        self._tasks.append(asyncio.create_task(self._forever(self._work(filling)), name="work"))

    async def snapshot(self) -> tuple[int, int]:
        """Writes the whole catalogue into the stores; gives the number of the last record before it, and when it was.

        Raises:
            Transient: No store takes it.
        """
        return await self.journal.snapshot(), self.journal.snapshot_at

    def believe(self, store: str, seen: str) -> None:
        """What a store's listing was seen to lack is gone; see `Following.believe`."""
        self.following.believe(store, seen)

    async def rebuild(self) -> None:
        """Throws the catalogue away and begins to make it anew of what the stores hold; the doors are shut meanwhile.

        Raises:
            Conflict: Nobody is served just now, perhaps since it is being made anew already.
            Transient: A store doesn't answer, or no store takes what the journal has still to tell.
        """
        if self.waits:
            raise Conflict(self.waits)
        if away := [member for member in self.mesh.members.values() if not member.up]:
            told = "; ".join(f"{member.name}: {member.message}" for member in away)
            raise Transient(f"the catalogue is thrown away only while all stores answer: {told}")
        self.waits = REBUILDING
        try:
            await self._told_all()
        except BaseException:
            self.waits = ""
            raise
        log.warning("the catalogue is thrown away, and made anew of what the stores hold")
        work = [task for task in self._tasks if task.get_name() == "work"]
        self._tasks = [task for task in self._tasks if task not in work]
        self._tasks.append(asyncio.create_task(self._forever(self._anew(work)), name="work"))

    async def _told_all(self) -> None:
        """Brings into a store what the catalogue has still to tell, unless it can't be read any more."""
        try:
            await self.catalog.unwritten(limit=1)
        except Transient as error:
            log.warning("the catalogue can't be read: %s", error)
        else:
            await self.journal.flush()

    async def _anew(self, work: Sequence[asyncio.Task[None]]) -> None:
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await self.journal.stop()
        # the stores' identities stay, else an emptied one would be taken for a new one
        await self.catalog.clear(KEPT_TEXTS)
        await self._work(asyncio.create_task(self._fill(), name="fill"))

    async def _end(self) -> None:
        """The directory goes, and its files with it: nothing else is done from now on."""
        self.waits = "the directory is being deleted"
        if self.emptying is not None:
            return
        self.emptying = Emptying(lambda: self.mesh.members.values(), self.catalog, self._known)
        await self._rest()
        self._tasks.append(asyncio.create_task(self._forever(self.emptying.run()), name="emptying"))
        if self.catalog.shared:
            self._tasks.append(asyncio.create_task(self._forever(self._drop(self._emptied)), name="leaving"))

    async def _rest(self) -> None:
        """Ends the background work."""
        work = [task for task in self._tasks if task.get_name() == "work"]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await self.journal.stop()

    async def _leave(self) -> None:
        """The directory goes, its files stay: the catalogue is written into the stores once more, and goes too."""
        self.waits = "the directory is being deleted"
        if any(task.get_name() == "leaving" for task in self._tasks):
            return
        await self._rest()
        self._tasks.append(asyncio.create_task(self._forever(self._drop(self._written_down)), name="leaving"))

    async def _emptied(self) -> bool:
        return self.emptying is not None and self.emptying.done

    async def _written_down(self) -> bool:
        # one that was never filled knows nothing: what the stores have is better
        if await self.catalog.get(FILLED):
            await self.journal.snapshot()
        return True

    async def _drop(self, ready: Callable[[], Awaitable[bool]]) -> None:
        while not self.left:
            try:
                if await ready():
                    await self.catalog.drop()
                    self.left = True
                    break
            except CloudmeshError as error:
                log.warning("the catalogue can't be removed yet: %s", error)
            await asyncio.sleep(OPEN_SECONDS)
        await asyncio.Event().wait()

    async def _fill(self) -> None:
        adopt = self.mesh.config.adopt
        try:
            self.waits = await fill(self.catalog, self.mesh, wall(), adopt=adopt, scratch=self._folder)
        except Transient as error:
            log.warning("the catalogue doesn't answer: %s", error)
            self.waits = f"the catalogue doesn't answer: {error.reason} (the gateway's log tells more)"

    async def _known(self) -> str:
        """Sees to it that the catalogue knows what is the directory's, if it is new; nothing is adopted any more."""
        return await fill(self.catalog, self.mesh, wall(), adopt=False, ending=True, scratch=self._folder)

    async def _work(self, filling: asyncio.Task[None]) -> None:
        """All that goes on in the background once there is a catalogue."""
        await filling
        while self.waits:
            log.warning("%s", self.waits)
            await asyncio.sleep(RECOVERY_SECONDS / 5)
            await self._fill()
        await self.journal.start()
        # where others may be at work, only what is over for all of them
        left = await self.recovery.run(wall() if self.catalog.shared else ALL)
        if left:
            log.warning("%d intents stay open until their stores answer", left)
        async with asyncio.TaskGroup() as group:
            for name, work in (
                ("moving files", self.mover.run), ("open writes", self._recover), ("counting", self._count),
                ("listings", self.following.run), ("quotes", self.quoting.run), ("census", self.census.run),
            ):  # fmt: skip
                group.create_task(self._again(name, work))

    async def _again(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begins work anew that ended with an error, later each time: it must end neither the doors nor other work."""
        pause, most = AGAIN_SECONDS
        while True:
            begun = time.monotonic()
            try:
                await work()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                if isinstance(error, CloudmeshError):
                    log.warning("%s failed: %s", name, error)
                else:
                    log.exception("%s failed unexpectedly", name)
                # what failed may name a file: whoever sees the status may not see that
                why = error.reason if isinstance(error, CloudmeshError) else type(error).__name__
                self._troubles[name] = time.monotonic(), f"{name}: {why} (the gateway's log tells more)"
            else:
                return
            if time.monotonic() - begun > most:
                pause = AGAIN_SECONDS[0]
            await asyncio.sleep(pause)
            pause = min(most, 2 * pause)

    def troubles(self) -> str:
        """What went wrong in the background lately, in words; empty for nothing."""
        young = time.monotonic() - 2 * AGAIN_SECONDS[1]
        return "; ".join(words for at, words in self._troubles.values() if at > young)

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.journal.stop()
        await self.meter.close()
        await self.mesh.close()
        await self.catalog.close()
        if self._api_server is not None:
            await self._api_server.close()

    @staticmethod
    async def _forever(work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException:
            log.critical("background work of the gateway ended", exc_info=True)
            raise

    def failed(self) -> str:
        """Why the gateway should be started anew, empty if it shouldn't."""
        if self.catalog.stale and not self.left and self.emptying is None:
            return self.catalog.stale
        return next((f"{t.get_name()}: {t.exception()!r}" for t in self._tasks if t.done() and not t.cancelled()), "")

    def _stir(self) -> None:
        self.mover.stir()

    async def _store_changed(self, name: str) -> None:
        """A store came or went: where files belong may have changed."""
        await waking.store_changed(self.tree, name)
        self.mover.stir()
        self.following.soon(name)

    async def _store_back(self, _: str, entry_ids: Sequence[str]) -> None:
        """A store was silent for a moment."""
        await waking.look_again(self.tree, entry_ids)
        self.mover.stir()

    # -- background

    async def _watch_config(self) -> None:
        while True:
            await asyncio.sleep(CONFIG_SECONDS)
            try:
                text = await asyncio.to_thread(self._file.read_bytes)
            except OSError as error:
                self._refused, self._error = b"", f"the configuration can't be read: {error}"
                continue
            if text == self._text:
                # the one in use is there again
                self._refused, self._error = b"", ""
            elif text != self._refused:
                await self.reconfigure(text)

    async def reconfigure(self, text: bytes) -> None:
        """Takes a new configuration; one that can't be used is told, and the old one stays."""
        try:
            config = configs.load(text)
            plugins.check(rule.plugin for rule in config.rules)
            if isinstance(self.catalog, PostgresCatalog):
                self.catalog.use(address(config, self._folder), guard_of(config))
            if self._started:
                await self.mesh.use(config)
        except (msgspec.DecodeError, CloudmeshError) as error:
            # what doesn't answer now may do so the next time
            self._refused = b"" if isinstance(error, Transient) else text
            self._error = f"the configuration can't be used: {error}"
            log.warning("%s", self._error)
            return
        self._config = config
        self._text, self._error = text, ""
        log.info("configuration %s is in use", configs.fingerprint(text))
        if config.emptying and self._started:
            await self._end()
        elif config.ending and self._started:
            await self._leave()
        else:
            self.mover.stir()

    async def _recover(self) -> None:
        while True:
            await asyncio.sleep(RECOVERY_SECONDS)
            await self.recovery.run(wall())

    async def _count(self) -> None:
        while True:
            self.mesh.count((await self.catalog.totals()).stores)
            await self.meter.tick()
            await asyncio.sleep(COUNT_SECONDS)

    # -- doors

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(client_max_size=0, middlewares=[problems.told])
        app[streams.IDLE] = self._settings.idle_seconds
        locks = Locks(self.tree.catalog, self.tree.now)
        self.rest = Rest(self.tree, self.door, lambda: self.waits, ledger=self, keeper=self, locks=locks)
        self.rest.add_to(app)
        self.webdav = WebDav(self.tree, self.door, lambda: self.waits, locks=locks)
        self.webdav.add_to(app)
        self.page = Page(self.tree, self.door, lambda: self.waits)
        self.page.add_to(app)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/internal/summary", self._summary)
        return app

    async def listen(self, host: str, port: int) -> web.AppRunner:
        """Opens the doors; `cleanup()` of what is given closes them."""
        # what a client sends is stored as it is, so nothing is decompressed on the way
        runner = web.AppRunner(
            self.app(), access_log=None, max_line_size=MAX_LINE, max_field_size=MAX_HEADER,
            auto_decompress=False, shutdown_timeout=10,
        )  # fmt: skip
        await runner.setup()
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _healthz(self, _: web.Request) -> web.Response:
        why = self.failed()
        return web.Response(status=500 if why else 200, text=why or "ok")

    async def _readyz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def _summary(self, request: web.Request) -> web.Response:
        try:
            self.door.operator(request.headers.get("Authorization", ""))
        except Unauthenticated as error:
            return problems.problem(401, error.reason, str(error))
        try:
            told = await self.summary()
        except Transient as error:
            return problems.problem(503, error.reason, self.waits or str(error))
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    async def cost(self) -> dict[str, Any]:
        """What the directory costs, by store."""
        config = self.mesh.config
        prices = {store.name: store.prices for store in config.stores}
        return cost_of(await self.summary(), prices, config.max_monthly_nanos)

    async def quote(self) -> dict[str, Any]:
        """The quote that waits for approval.

        Raises:
            Missing: There is none.
        """
        return self.quoting.told()

    async def plan(self, asked: dict[str, Any]) -> dict[str, Any]:
        """What other rules and stores would take; see `Quoting.plan`."""
        return await self.quoting.plan(asked)

    async def summary(self) -> Summary:
        """How the directory does."""
        # before the sums are read: what is due since they were is in none of both
        behind = self.mesh.behind
        totals = Totals() if self.left else await self.catalog.totals()
        behind |= self.mesh.behind or totals.waking
        stores = [self.meter.store(m, self._store(m, totals)) for m in self.mesh.members.values()]
        drained = await self._drained(totals)
        stores = [msgspec.structs.replace(store, drained=store.name in drained) for store in stores]
        summary = Summary(
            config=configs.fingerprint(self._text), files=totals.files,
            error=self._error or self.waits or plugins.trouble(self.mesh.config.rules),
            directories=totals.directories, bytes=totals.bytes, pending=totals.pending,
            waking=behind, corrupted=totals.states.get("Corrupt", 0), stores=tuple(stores),
            entries=totals.files + totals.directories, snapshot_at=self.journal.snapshot_at,
            under_replicated=self.census.counted.under_replicated, unreachable=self.census.counted.unreachable,
            beyond_repair=self.census.counted.beyond_repair, done=self.mover.done.told(),
            unaffordable=self.mover.affording.waiting,
            never_written=never_written(self.mesh.config.rules, self.mesh.views()),
            troubles=self.troubles(), clock_ahead_ms=self.mesh.ahead_ms(),
            emptied=self.emptying is not None and self.emptying.done and (self.left or not self.catalog.shared),
            ended=self.left,
            strangers=self.emptying.strangers if self.emptying is not None else 0,
        )  # fmt: skip
        summary = msgspec.structs.replace(summary, quote=self.quoting.quote, quote_waits=self.quoting.waits)
        return self.meter.directory(summary, totals)

    async def _drained(self, totals: Totals) -> set[str]:
        """Stores that were to be emptied, and of which nothing is needed any more."""
        found = {
            m.name for m in self.mesh.members.values()
            if m.config.access == "Drain" and not totals.held.get(m.name) and self.journal.spares(m.name)
        }  # fmt: skip
        if found and not self.waits:
            for intent in await self.catalog.intents(until=ALL):
                found -= {target.store for target in intent.targets}
        return found if not self.waits else set()

    def _store(self, member: Member, totals: Totals) -> StoreSummary:
        message = member.shrunk or self.following.troubles.get(member.name, "") if member.up else ""
        files, size = totals.stores.get(member.name, (0, 0))
        used, free = member.used_free or (None, None)
        return StoreSummary(
            name=member.name, state=member.shown, message=message or member.message, files=files, bytes=size,
            shrunk=member.up and bool(member.shrunk), latency_ms=member.latency_ms, used=used, free=free,
        )  # fmt: skip
